//! The loaded program, run over frames of our own by `BPF_PROG_TEST_RUN`, with time under our control.
//!
//! Nothing is attached: a frame is shown to the program, which accounts it as any other. What a test run
//! cannot do, and the live targets cover, is a VLAN tag outside of the frame's bytes: the kernel refuses a
//! context that sets one. It takes about a page of bytes; the length on the wire is told beside them.

use std::collections::HashMap;

use agent_common::{
    config::Config,
    counters::Counters,
    filter,
    key::Secrets,
    parse::{Link, Malformed},
    sweep::{SweepReport, SweepRequest},
};
use feature_agent::{
    bpf::{Kernel, LoadOptions, PacketContext, Program, random_secrets},
    line::{Context, LineWriter, Shape},
};

use crate::{
    compare::{Compared, Options, Times, compare},
    frame::{self, Frame},
    lines::{Line, lives, parse_all},
    oracle::{FlowId, Oracle, Rules, Speaker},
};

/// The longest frame a test run takes, bytes, with room to spare.
pub const LONGEST: usize = 3600;

/// The time of the first frame in tests: 0 would be "now" to a sweep.
pub const START_NS: u64 = 1_000_000_000;

/// A ring that nothing fills by accident.
pub const LARGE_RING: u32 = 8 << 20;

/// The program loaded with thresholds of a test.
pub struct InKernel {
    kernel: Kernel,
    writer: LineWriter,
    printed: Vec<u8>,
}

/// The thresholds with the packets' own times for a clock, as the loader takes them.
pub fn config(rules: Rules, window: u32) -> Config {
    Config {
        min_gap_us: rules.min_gap_us,
        interval_us: rules.interval_us,
        idle_timeout_us: rules.idle_us,
        active_timeout_us: rules.active_us,
        window,
        stride: u32::try_from(rules.stride).expect("a stride"),
        wakeup_bytes: 0,
        rehearsal: 1,
        ..Config::DEFAULT
    }
}

impl InKernel {
    /// Loads the program.
    pub fn new(config: Config, max_flows: u32, ring_bytes: u32) -> Self {
        Self::with_secrets(config, max_flows, ring_bytes, random_secrets())
    }

    /// The same, with flows placed in the table by these numbers.
    pub fn with_secrets(config: Config, max_flows: u32, ring_bytes: u32, secrets: Secrets) -> Self {
        let options = LoadOptions {
            config,
            filter: filter::Program::ALL,
            hook: feature_agent::settings::HookChoice::Tc,
            max_flows,
            ring_bytes,
            kernel_log: false,
            secrets,
        };
        let kernel = Kernel::load(&options).unwrap_or_else(|e| panic!("{e:#}"));
        Self { kernel, writer: LineWriter::new(Shape::Flat), printed: Vec::new() }
    }

    /// Shows it a frame.
    pub fn push(&mut self, frame: &Frame) {
        show(&mut self.kernel, LOOPBACK, frame);
    }

    /// Walks the table at a time of ours.
    pub fn sweep(&mut self, now_us: u64, evict_after_us: u64) -> SweepReport {
        let ordinary = SweepRequest::ordinary(0);
        let request = SweepRequest { now_us, evict_after_us, age_shift: 20, ..ordinary };
        self.kernel.sweep(&request).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Walks the table for the last time.
    pub fn stop(&mut self) -> SweepReport {
        self.kernel.sweep(&SweepRequest::stop()).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Takes what is in the ring; returns how many vectors that were.
    pub fn drain(&mut self) -> usize {
        let Self { kernel, writer, printed } = self;
        let mut each = |record: &_| {
            writer.append(printed, record, &Context::new("lo", 0));
        };
        kernel.drain(usize::MAX, &mut each).unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Everything drained since the last call.
    pub fn lines(&mut self) -> Vec<Line> {
        self.drain();
        let text = String::from_utf8(std::mem::take(&mut self.printed)).expect("UTF-8");
        parse_all(text.lines()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Where every packet went since the program was loaded.
    pub fn counters(&self) -> Counters {
        self.kernel.counters().unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// Packets counted as malformed for the reason of this name.
    pub fn malformed(&self, reason: &str) -> u64 {
        let at = Malformed::ALL.iter().position(|known| known.name() == reason);
        self.counters().malformed[at.unwrap_or_else(|| panic!("no counter for {reason}"))]
    }

    /// What the verifier walked, for each program by name; `None` on kernels that do not tell.
    pub fn verified_instructions(&mut self) -> Vec<(&'static str, Option<u32>)> {
        [Program::Packet(Link::Ethernet), Program::Packet(Link::Ip), Program::Sweep, Program::Empty]
            .into_iter()
            .map(|program| {
                let count = self.kernel.verified_instructions(program);
                (program.name(), count.unwrap_or_else(|e| panic!("{e:#}")))
            })
            .collect()
    }
}

/// The index of the loopback interface, in any namespace.
const LOOPBACK: u32 = 1;

/// Shows a loaded program a frame of an interface, which must be there.
pub fn show(kernel: &mut Kernel, ifindex: u32, frame: &Frame) {
    let frame = &runnable(frame);
    assert!(frame.vlan_tci.is_none(), "a test run has no tag outside of the frame");
    let link = match frame.link {
        frame::Link::Ethernet => Link::Ethernet,
        frame::Link::Ip => Link::Ip,
        other => panic!("no program is for frames that begin with {other:?}"),
    };
    let context = PacketContext {
        ifindex,
        tstamp_ns: frame.time_ns,
        wire_len: u32::try_from(frame.wire_len).expect("a frame's length"),
        gso_size: frame.gso_size.into(),
        ..PacketContext::default()
    };
    kernel
        .run(Program::Packet(link), &frame.data, &context, 1)
        .unwrap_or_else(|e| panic!("{} bytes: {e:#}", frame.data.len()));
}

/// The frame, with a priority tag in it if the kernel would refuse to run it without.
///
/// Since 6.18 `bpf_prog_test_run_skb` takes no frame whose type says IP but that has no room for the header.
/// Behind a tag it does not look, and a tag of VLAN 0 changes no flow and no verdict.
fn runnable(frame: &Frame) -> Frame {
    let needed = match frame.data.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 0,
    };
    if frame.link != frame::Link::Ethernet || frame.data.len() >= needed {
        return frame.clone();
    }
    let mut frame = frame.clone();
    frame.data.splice(12..12, [0x81, 0x00, 0, 0]);
    frame.wire_len += 4;
    frame
}

/// Conservation, and the counters of an oracle that saw the same frames.
pub fn assert_counted(counters: &Counters, oracle: &Oracle) {
    let expected = oracle.counts();
    assert_eq!(counters.unaccounted(), 0, "{counters:?}");
    assert_eq!(
        [counters.seen, counters.accounted, counters.not_ip, counters.malformed()],
        [expected.seen, expected.accounted, expected.not_ip, expected.malformed],
        "seen, accounted, not_ip, malformed of the kernel and of the oracle"
    );
    assert_eq!((counters.filtered, counters.table_full), (0, 0));
    let lens = oracle.flows().iter().flat_map(|flow| &flow.packets).map(|p| u64::from(p.len));
    assert_eq!(counters.accounted_bytes, lens.sum::<u64>());
}

/// Every value of every line, times and the vector's own time included.
pub fn assert_values(lines: &[Line], oracle: &Oracle, window: usize) -> Compared {
    let options = Options { window, times: Times::Compare, ..Options::default() };
    let compared = compare(lines, oracle, options).unwrap_or_else(|e| panic!("{e}"));
    let mut expected: HashMap<&FlowId, Vec<&crate::oracle::Flow>> = HashMap::new();
    for flow in oracle.flows() {
        expected.entry(&flow.id).or_default().push(flow);
    }
    let mut printed: HashMap<FlowId, usize> = HashMap::new();
    for life in lives(lines).expect("compared before") {
        let nth = printed.entry(life[0].flow()).or_default();
        let flow = expected[&life[0].flow()][*nth];
        *nth += 1;
        for line in life {
            let last_us = flow.packets[line.packets() as usize - 1].time_us;
            let ts = format!("\"ts\":{}.{:06},", last_us / 1_000_000, last_us % 1_000_000);
            assert!(line.raw.contains(&ts), "{ts} is not in {}", line.raw);
        }
    }
    compared
}

/// Each life's lines are the vectors that must have been emitted, in order, each for its reason.
pub fn assert_reasons(lines: &[Line], speaker: &Speaker) {
    let mut expected: HashMap<&FlowId, Vec<Vec<(&str, u64)>>> = HashMap::new();
    let flows = speaker.oracle().flows();
    let mut of_flow: Vec<Vec<(&str, u64)>> = vec![Vec::new(); flows.len()];
    for vector in speaker.vectors() {
        of_flow[vector.flow].push((vector.reason, vector.packets as u64));
    }
    for (flow, vectors) in flows.iter().zip(of_flow) {
        expected.entry(&flow.id).or_default().push(vectors);
    }
    let mut printed: HashMap<FlowId, Vec<Vec<(&str, u64)>>> = HashMap::new();
    for life in lives(lines).unwrap_or_else(|faults| panic!("{faults:#?}")) {
        let vectors = life.iter().map(|line| (line.text("reason"), line.packets())).collect();
        printed.entry(life[0].flow()).or_default().push(vectors);
    }
    let mut faults = Vec::new();
    for (id, expected) in &expected {
        let found = printed.remove(*id).unwrap_or_default();
        if found != *expected {
            faults.push(format!("{id:?}:\n  printed  {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} flows speak at other times or for other reasons (word, packets):\n{}",
        faults.len(),
        faults[..faults.len().min(8)].join("\n")
    );
    assert!(printed.is_empty(), "lines of flows that there are not: {:?}", printed.keys());
}
