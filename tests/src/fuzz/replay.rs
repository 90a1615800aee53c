//! The replay: any capture, with few and with many of the flows, windows and times that a command line allows.

use std::time::Duration;

use agent_common::{config::Config, filter::Program, record::Record};
use feature_agent::{
    capture::Captures,
    filter,
    line::{LineWriter, Shape},
    replay::Engine,
    settings::FlowSettings,
};

use super::{
    input::Input,
    record::line,
    seeds::{self, Memory},
};
use crate::lines::{Line, lives};

/// Packets looked at.
const MOST_PACKETS: usize = 2000;
/// Lines looked at: each is parsed.
const MOST_LINES: usize = 400;

/// The options of a replay: 10 bytes of an input, before the capture's.
pub(super) struct Setting {
    pub(super) flows: FlowSettings,
    resegment: bool,
}

impl Default for Setting {
    fn default() -> Self {
        let flows = FlowSettings {
            config: Config::DEFAULT,
            filter: Program::ALL,
            poll: Duration::from_millis(250),
            max_flows: 1000,
        };
        Self { flows, resegment: true }
    }
}

impl Setting {
    fn decode(input: &mut Input<'_>) -> Self {
        let filters = ["", "tcp", "udp or icmp", "not port 53", "vlan"];
        let config = Config {
            window: 2 + u32::from(input.u8()) % 63,
            stride: input.pick(&[64, 1, 2, 10, u32::MAX]),
            min_gap_us: input.pick(&[100_000, 0, 1, 10_000_000]),
            interval_us: input.pick(&[1_000_000, 1, 1000, 100_000_000]),
            idle_timeout_us: input.pick(&[15_000_000, 1000, 1_000_000, 86_400_000_000]),
            active_timeout_us: input.pick(&[300_000_000, 1000, 1_000_000]),
            sample: input.pick(&[u32::MAX, u32::MAX / 2]),
            decap: input.pick(&[0, 1]),
            ..Config::DEFAULT
        };
        let max_flows = input.pick(&[1000, 1, 2, 10, 64]);
        let bits = input.u8();
        let text = filters[usize::from(bits >> 1) % filters.len()];
        let filter = filter::compile(text).expect("a filter");
        let poll = Duration::from_millis(250);
        let flows = FlowSettings { config, filter, poll, max_flows };
        Self { flows, resegment: bits & 1 == 0 }
    }
}

/// Every packet is in one counter, every line keeps what lines promise, and no flow says more or less than it had.
pub(super) fn body(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Setting { flows, resegment } = Setting::decode(&mut input);
    let memory = Memory::new(input.rest());
    let Ok(mut captures) = Captures::open(&[memory.path()], "capture") else { return };
    let mut engine = Engine::new(&flows, resegment);
    let mut records: Vec<Record> = Vec::new();
    for _ in 0..MOST_PACKETS {
        let Some(packet) = captures.next_packet() else { break };
        let Ok(packet) = packet else { continue };
        while let Some(now_us) = engine.next_poll(packet.time_ns / 1000) {
            engine.poll(now_us);
        }
        engine.packet(&packet);
        assert!(engine.flows() <= flows.max_flows as usize, "more flows than there is room for");
        records.append(engine.records());
    }
    engine.stop();
    records.append(engine.records());
    assert_eq!(engine.flows(), 0, "flows that did not end");
    let counters = *engine.counters();
    assert_eq!(counters.unaccounted(), 0, "{counters:?}");
    assert_eq!(counters.vectors, records.len() as u64);
    check(&records, counters.accounted);
}

fn check(records: &[Record], accounted: u64) {
    for record in records {
        let decoded = Record::from_bytes(bytemuck::bytes_of(record));
        assert_eq!(decoded.as_ref(), Ok(record), "a record that is refused");
    }
    if records.len() > MOST_LINES {
        return;
    }
    let writer = LineWriter::new(Shape::Flat);
    let lines: Vec<Line> = records
        .iter()
        .map(|record| line(&writer, record, &record.key.ifindex.to_string()))
        .map(|line| Line::parse(&line).unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let lives = lives(&lines).unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    let last = lives.iter().filter_map(|life| life.last());
    assert_eq!(last.map(|line| line.packets()).sum::<u64>(), accounted, "packets in no line");
}

/// Each capture with the defaults, and with everything small.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let settings = [[0; 10], [1, 1, 1, 1, 1, 1, 0, 1, 2, 1], [8, 2, 0, 2, 2, 2, 1, 1, 3, 0]];
    let captures = seeds::captures();
    let with = |setting: [u8; 10]| captures.iter().map(move |file| [&setting[..], file].concat());
    settings.into_iter().flat_map(with).collect()
}
