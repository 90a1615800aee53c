//! ns per packet, the same packet again and again.

use std::collections::{BTreeMap, btree_map::Entry};

use agent_common::{config::Config, filter, parse::Link};
use anyhow::{Result, bail};
use feature_agent::bpf::{Kernel, LoadOptions, PacketContext, Program, random_secrets};

use crate::{
    Plan,
    frames::{self, From},
    proc::on_one_cpu,
    table::{Paired, Row, Target, median},
};

pub(crate) const TITLE: &str = "one flow, warm caches";
pub(crate) const METHOD: &str = "BPF_PROG_TEST_RUN of the loaded program, default options unless said. One packet is \
    repeated within the kernel: one direction, one size, warm caches, branches known; the kernel tells whole ns. A \
    round is the median of 41 samples of 2,000 runs, and as many of the empty program; the result is the median of \
    15 rounds in turn with all other rows, less the empty program's. Quartiles over the rounds. \"× empty\" is the \
    program's whole time over the empty program's, without which the kernel calls none.";

/// The packet's program, on a default interface.
pub(crate) const ETHERNET: Program = Program::Packet(Link::Ethernet);

/// Longer than any bench: nothing is due by time.
pub(crate) const NEVER_US: u64 = 1 << 50;

/// What a program is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Build {
    /// The default options.
    Defaults,
    /// With `--process`.
    Process,
    /// With `-vv`.
    Logging,
    /// No vector is ever due.
    Silent,
    /// A vector at every packet.
    Talkative,
}

/// The default options of the command line.
pub(crate) fn defaults() -> LoadOptions {
    LoadOptions {
        config: Config::DEFAULT,
        filter: filter::Program::ALL,
        hook: feature_agent::settings::HookChoice::Tc,
        max_flows: 65_536,
        ring_bytes: 8 << 20,
        kernel_log: false,
        secrets: random_secrets(),
    }
}

/// The defaults, but no vector is due before the last sweep.
pub(crate) fn silent() -> LoadOptions {
    let config = Config {
        stride: u32::MAX,
        interval_us: NEVER_US,
        idle_timeout_us: NEVER_US,
        active_timeout_us: NEVER_US,
        ..Config::DEFAULT
    };
    LoadOptions { config, ..defaults() }
}

impl Build {
    fn options(self) -> LoadOptions {
        match self {
            Self::Defaults => defaults(),
            Self::Process => {
                let config = Config { process: 1, ..Config::DEFAULT };
                LoadOptions { config, ..defaults() }
            }
            Self::Logging => LoadOptions { kernel_log: true, ..defaults() },
            Self::Silent => silent(),
            Self::Talkative => {
                let config = Config { stride: 1, min_gap_us: 0, ..silent().config };
                LoadOptions { config, ..defaults() }
            }
        }
    }
}

/// A packet to repeat.
struct Case {
    what: &'static str,
    build: Build,
    packet: Vec<u8>,
    context: PacketContext,
    /// Runs of one sample.
    repeat: u32,
    /// Wire packets of one run.
    wire_packets: u32,
    /// What is subtracted: the same packet in another build, else the empty program.
    base: Option<Build>,
    target: Option<Target>,
    remark: &'static str,
}

impl Case {
    fn new(what: &'static str, packet: Vec<u8>, remark: &'static str) -> Self {
        Self {
            what,
            build: Build::Defaults,
            packet,
            context: PacketContext::default(),
            repeat: 2_000,
            wire_packets: 1,
            base: None,
            target: None,
            remark,
        }
    }
}

/// Segments of the super-packet: what 64 KiB are at an MTU of 1500.
const SEGMENTS: u32 = 45;
/// Their payload. A test run takes less than a page of packet; the cost does not depend on the bytes.
const SEGMENT: u32 = 78;

/// Messages that surely fit the log's ring.
const LOG_RECORDS: u32 = 300;

fn cases() -> Vec<Case> {
    let tcp = || frames::tcp4(1, From::Client, 1000);
    let super_packet = frames::tcp4(5, From::Client, (SEGMENTS * SEGMENT) as usize);
    vec![
        Case {
            target: Some(Target::AtMost(100.0)),
            ..Case::new("TCP, established", tcp(), "everything on")
        },
        Case {
            build: Build::Process,
            ..Case::new(
                "TCP, established, --process",
                tcp(),
                "a flow that is nobody's here, so asked ever more seldom: compare with the first row",
            )
        },
        Case {
            build: Build::Logging,
            ..Case::new("TCP, established, -vv", tcp(), "kernel log on: compare with the row above")
        },
        Case::new("UDP", frames::udp4(2, From::Client, 200), ""),
        Case::new("TCP over IPv6", frames::tcp6(3, From::Client, 1000), ""),
        Case::new(
            "TCP, VLAN tag in band",
            frames::tagged(&frames::tcp4(4, From::Client, 900), 7),
            "",
        ),
        Case {
            context: PacketContext {
                gso_size: SEGMENT,
                gso_segs: SEGMENTS,
                ..PacketContext::default()
            },
            wire_packets: SEGMENTS,
            ..Case::new(
                "super-packet of 45 segments",
                super_packet,
                "per segment, each in the window",
            )
        },
        Case::new("no IP (ARP)", frames::arp(), "counted only"),
        Case::new("malformed", frames::malformed(), "counted only"),
        Case {
            build: Build::Logging,
            repeat: LOG_RECORDS,
            ..Case::new("malformed, -vv", frames::malformed(), "with a message to user space")
        },
        Case {
            build: Build::Talkative,
            base: Some(Build::Silent),
            ..Case::new("an emission", tcp(), "a vector at each packet less none at any")
        },
    ]
}

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut cases = cases();
    cases.retain(|case| plan.wants(TITLE, case.what));
    let measured = on_one_cpu(|| measure(plan, &cases))?;
    let row = |(case, paired): (Case, Paired)| {
        let mut row = paired.row(case.what, "ns", case.wire_packets.into());
        if case.base.is_some() {
            row.times_empty = None;
        }
        row.target = case.target;
        row.remark(case.remark)
    };
    Ok(cases.into_iter().zip(measured).map(row).collect())
}

fn measure(plan: &Plan, cases: &[Case]) -> Result<Vec<Paired>> {
    let mut kernels = BTreeMap::new();
    for build in cases.iter().flat_map(|case| [Some(case.build), case.base]).flatten() {
        if let Entry::Vacant(place) = kernels.entry(build) {
            place.insert(Kernel::load(&build.options())?);
        }
    }
    let mut measured = vec![Paired::default(); cases.len()];
    // The first round only warms up.
    for round in 0..=plan.pick(15, 1) {
        for (case, paired) in cases.iter().zip(&mut measured) {
            let base = match case.base {
                Some(build) => sample(&mut kernels, build, ETHERNET, case)?,
                None => sample(&mut kernels, case.build, Program::Empty, case)?,
            };
            let whole = sample(&mut kernels, case.build, ETHERNET, case)?;
            if round > 0 {
                paired.base.push(base);
                paired.whole.push(whole);
            }
        }
    }
    Ok(measured)
}

/// Samples of one round, of which the median counts: each is so short that few are interrupted.
const SAMPLES: usize = 41;

/// The median, over the samples of a round, of the mean ns of a run.
fn sample(
    kernels: &mut BTreeMap<Build, Kernel>,
    build: Build,
    program: Program,
    case: &Case,
) -> Result<f64> {
    let Some(kernel) = kernels.get_mut(&build) else {
        bail!("{build:?} is not loaded");
    };
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let spent = kernel.run(program, &case.packet, &case.context, case.repeat)?;
        samples.push(spent.as_nanos() as f64);
        // Of the ring and of the log's.
        kernel.drain(usize::MAX, &mut |_| {})?;
    }
    Ok(median(&samples))
}
