//! The engine of the replay over frames of our own.

use std::time::Duration;

use agent_common::{config::Config, counters::Counters, filter::Program, record::Record};
use feature_agent::{
    capture::Packet,
    line::{Context, LineWriter, Shape},
    replay::Engine,
    settings::FlowSettings,
};

use crate::{
    frame::Frame,
    lines::{Line, parse_all},
};

/// An engine that nobody asks to sweep before the end.
pub struct InReplay {
    engine: Engine,
    writer: LineWriter,
}

impl InReplay {
    /// With an empty table.
    pub fn new(config: Config) -> Self {
        let poll = Duration::from_millis(250);
        let settings = FlowSettings { config, filter: Program::ALL, poll, max_flows: 65_536 };
        Self { engine: Engine::new(&settings, true), writer: LineWriter::new(Shape::Flat) }
    }

    /// Takes a frame, and returns it as it was accounted: for a super-packet with the size of its segments.
    pub fn push(&mut self, frame: Frame, interface: u32) -> Frame {
        let accounted = self.engine.packet(&Packet {
            time_ns: frame.time_ns,
            data: &frame.data,
            wire_len: u32::try_from(frame.wire_len).expect("a packet's length"),
            link: Some(frame.link.into()),
            link_type: 0,
            interface,
        });
        let accounted = accounted.expect("a link that is known");
        let gso_size = u16::try_from(accounted.gso_size).expect("a size of segments");
        Frame { wire_len: accounted.wire_len as usize, gso_size, ..frame }
    }

    /// Where every packet went.
    pub fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// Every flow says its last vector. All lines since the beginning, each with its interface.
    pub fn stop(mut self) -> Vec<(u32, Line)> {
        self.engine.stop();
        let records: &[Record] = self.engine.records();
        let lines = records.iter().map(|record| {
            let mut line = Vec::new();
            self.writer.append(&mut line, record, &Context::new("lo", 0));
            String::from_utf8(line).expect("UTF-8")
        });
        let lines: Vec<String> = lines.collect();
        let parsed = parse_all(lines.iter().map(String::as_str)).unwrap_or_else(|e| panic!("{e}"));
        records.iter().map(|record| record.key.ifindex).zip(parsed).collect()
    }
}
