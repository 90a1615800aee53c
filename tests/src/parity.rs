//! Replay and kernel program side by side over one capture: every line, byte for byte.
//!
//! The engine of the replay goes first and says when it sweeps and as what it accounts a packet; the loaded
//! program is shown just that by `BPF_PROG_TEST_RUN`. Then both have the same lines, in the same order; those of
//! one sweep as a set.

use std::path::PathBuf;

use agent_common::{
    counters::Counters,
    parse::{Fragment, Link, parse},
    record::Record,
    sweep::SweepRequest,
};
use feature_agent::{
    bpf::{Kernel, LoadOptions},
    capture::{Captures, Packet},
    line::{LineWriter, Shape},
    replay::Engine,
    settings::FlowSettings,
};

use crate::{frame::Frame, in_kernel};

/// Most bytes of a packet that are shown to the kernel, which takes about a page: all headers lie within.
const SHOWN: usize = 3000;

/// The kernel's side, loaded once for many captures.
pub struct Parity {
    settings: FlowSettings,
    resegment: bool,
    kernel: Kernel,
    writer: LineWriter,
}

/// What was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Packets of the capture.
    pub packets: u64,
    /// Packets that cannot be shown to the kernel: no replay makes a flow of them.
    pub left_out: u64,
    /// Lines.
    pub lines: usize,
    /// Sweeps.
    pub sweeps: usize,
}

impl Parity {
    /// Loads the kernel program with these settings.
    pub fn new(settings: &FlowSettings, resegment: bool) -> Self {
        let mut settings = settings.clone();
        settings.config.rehearsal = 1;
        let kernel = load(&settings);
        Self { settings, resegment, kernel, writer: LineWriter::new(Shape::Flat) }
    }

    /// Replays the captures, as one stream, on both sides. Panics at the first difference.
    pub fn run(&mut self, paths: &[PathBuf]) -> Compared {
        let mut compared = Compared::default();
        let mut captures = Captures::open(paths, "capture").unwrap_or_else(|e| panic!("{e:#}"));
        let mut engine = Engine::new(&self.settings, self.resegment);
        let before = self.counters();
        let mut fragments = false;
        let name = format!("{paths:?}");
        loop {
            let packet = match captures.next_packet() {
                None => break,
                // Where a file breaks off is not the question here.
                Some(Err(_)) => continue,
                Some(Ok(packet)) => packet,
            };
            // Other devices than loopback are not to be had here.
            if packet.interface != 1 {
                continue;
            }
            compared.packets += 1;
            while let Some(now_us) = engine.next_poll(packet.time_ns / 1000) {
                engine.poll(now_us);
                self.poll(now_us);
                compared.sweeps += 1;
                compared.lines += self.same_set(&mut engine, &name);
            }
            let Some(frame) = engine.packet(&packet) else {
                compared.left_out += 1;
                assert!(engine.records().is_empty(), "a line of a packet that cannot be read");
                continue;
            };
            if let Ok(headers) = parse(packet.data, &frame, self.settings.config.decap != 0) {
                fragments |= headers.fragment != Fragment::Whole;
            }
            match shown(&packet, &frame) {
                Some(frame) => in_kernel::show(&mut self.kernel, &frame),
                None => compared.left_out += 1,
            }
            compared.lines += self.same_order(&mut engine, &name, compared.packets);
        }
        engine.stop();
        self.kernel.sweep(&SweepRequest::stop()).unwrap_or_else(|e| panic!("{e:#}"));
        compared.lines += self.same_set(&mut engine, &name);
        let mut counters = self.counters();
        counters.subtract(&before);
        same_counters(&counters, engine.counters(), compared.left_out, &name);
        if fragments {
            // The ports of first fragments are remembered beyond a capture.
            self.kernel = load(&self.settings);
        }
        compared
    }

    fn counters(&self) -> Counters {
        self.kernel.counters().unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// As the daemon does it.
    fn poll(&mut self, now_us: u64) {
        let ordinary = SweepRequest::ordinary(self.settings.config.idle_timeout_us);
        let request = SweepRequest { now_us, ..ordinary };
        let report = self.kernel.sweep(&request).unwrap_or_else(|e| panic!("{e:#}"));
        if let Some(evict_after_us) =
            report.evict_after_us(&request, self.settings.max_flows.into())
        {
            let request = SweepRequest { evict_after_us, ..request };
            self.kernel.sweep(&request).unwrap_or_else(|e| panic!("{e:#}"));
        }
    }

    fn lines(&mut self, engine: &mut Engine) -> [Vec<String>; 2] {
        let Self { kernel, writer, .. } = self;
        let line = |record: &Record| {
            let mut line = Vec::new();
            writer.append(&mut line, record, "capture", 0);
            String::from_utf8(line).expect("UTF-8")
        };
        let mut theirs = Vec::new();
        kernel
            .drain(usize::MAX, &mut |record| theirs.push(line(record)))
            .unwrap_or_else(|e| panic!("{e:#}"));
        let ours = engine.records().drain(..).map(|record| line(&record)).collect();
        [ours, theirs]
    }

    fn same_order(&mut self, engine: &mut Engine, name: &str, packet: u64) -> usize {
        let [ours, theirs] = self.lines(engine);
        assert!(
            ours == theirs,
            "{name}, packet {packet}:\nreplay: {}\nkernel: {}",
            ours.concat(),
            theirs.concat()
        );
        ours.len()
    }

    fn same_set(&mut self, engine: &mut Engine, name: &str) -> usize {
        let [mut ours, mut theirs] = self.lines(engine);
        ours.sort();
        theirs.sort();
        assert!(
            ours == theirs,
            "{name}, in a sweep:\nreplay: {}\nkernel: {}",
            ours.iter().filter(|line| !theirs.contains(line)).cloned().collect::<String>(),
            theirs.iter().filter(|line| !ours.contains(line)).cloned().collect::<String>()
        );
        ours.len()
    }
}

fn load(settings: &FlowSettings) -> Kernel {
    let FlowSettings { config, filter, max_flows, .. } = settings;
    let options = LoadOptions {
        config: *config,
        filter: *filter,
        max_flows: *max_flows,
        ring_bytes: 32 << 20,
        kernel_log: false,
    };
    Kernel::load(&options).unwrap_or_else(|e| panic!("{e:#}"))
}

/// The packet as the kernel has it: behind an Ethernet header, or behind none; `None` if there is no such.
fn shown(packet: &Packet<'_>, frame: &agent_common::parse::Frame) -> Option<Frame> {
    let ethernet = |ether_type: &[u8], rest: &[u8]| [&[0; 12], ether_type, rest].concat();
    let data = packet.data;
    let (l3_only, bytes) = match frame.link {
        Link::Ethernet => (false, data.to_vec()),
        Link::Ip => (true, data.to_vec()),
        Link::CookedV1 => (false, ethernet(data.get(14..16)?, &data[16..])),
        Link::CookedV2 => (false, ethernet(data.get(..2)?, data.get(20..)?)),
        Link::Null => {
            let family = data.get(..4)?;
            let ether_type = if family.contains(&2) { [0x08, 0x00] } else { [0x86, 0xdd] };
            (false, ethernet(&ether_type, &data[4..]))
        }
    };
    if bytes.len() < 14 {
        return None;
    }
    let wire_len = frame.wire_len as usize + bytes.len() - data.len();
    let data = bytes[..bytes.len().min(SHOWN)].to_vec();
    let gso_size = u16::try_from(frame.gso_size).expect("a size of segments");
    Some(Frame { time_ns: packet.time_ns, data, wire_len, vlan_tci: None, gso_size, l3_only })
}

/// What could not be shown is counted by the replay alone, and as nothing but seen and refused.
fn same_counters(kernel: &Counters, replay: &Counters, left_out: u64, name: &str) {
    let refused = |counters: &Counters| counters.not_ip + counters.malformed();
    assert_eq!(
        [kernel.seen + left_out, refused(kernel) + left_out],
        [replay.seen, refused(replay)],
        "{name}: seen and refused, of the kernel and of the replay"
    );
    let rest = |counters: &Counters| Counters {
        seen: 0,
        not_ip: 0,
        malformed: Default::default(),
        ..*counters
    };
    assert_eq!(rest(kernel), rest(replay), "{name}: of the kernel and of the replay");
    assert_eq!((kernel.unaccounted(), replay.unaccounted()), (0, 0), "{name}");
}
