//! ns per packet, another packet each time.

use agent_common::sweep::SweepRequest;
use anyhow::Result;
use feature_agent::bpf::{Kernel, LoadOptions, PacketContext, Program};
use feature_agent_tests::random::Random;

use crate::{
    Plan,
    frames::{self, From},
    kernel::{ETHERNET, defaults, silent},
    proc::on_one_cpu,
    table::{Paired, Row},
};

pub(crate) const TITLE: &str = "many flows, one call a packet";
pub(crate) const METHOD: &str = "BPF_PROG_TEST_RUN with one run a call, so that each packet can be another one: the \
    mean of the times the kernel itself took for 20,000 runs (system calls not included, two clock reads are), the \
    longest 1 % left out as interrupted, less the same of the same packets through the empty program; median of 11 \
    rounds in turn. The call between two \
    packets leaves caches colder than traffic does: an upper bound.";

/// Flows of the mix.
pub(crate) const FLOWS: u32 = 65_000;

/// A sequence of packets.
struct Case {
    what: &'static str,
    options: LoadOptions,
    frames: Vec<Vec<u8>>,
    /// Each frame has been seen before; else the table is emptied before each round.
    known: bool,
    remark: &'static str,
}

fn cases(plan: &Plan) -> Vec<Case> {
    let mut cases = vec![
        Case {
            what: "TCP, established, both directions in turn",
            options: defaults(),
            frames: both_directions(),
            known: true,
            remark: "sizes differ",
        },
        Case {
            what: "a new flow at every packet",
            options: silent(),
            frames: Vec::new(),
            known: false,
            remark: "a SYN each, into the default table",
        },
        Case {
            what: "a random mix of 65,000 flows",
            options: silent(),
            frames: Vec::new(),
            known: true,
            remark: "70 MB of flows: nothing is in a cache; no vector due",
        },
    ];
    cases.retain(|case| plan.wants(TITLE, case.what));
    for case in &mut cases {
        if case.frames.is_empty() {
            case.frames = if case.known { mix() } else { (0..FLOWS).map(frames::syn4).collect() };
        }
    }
    cases
}

/// A conversation of one flow.
fn both_directions() -> Vec<Vec<u8>> {
    let mut random = Random::new(3);
    let frame = |index| {
        let from = if index % 2 == 0 { From::Client } else { From::Server };
        frames::tcp4(1, from, random.below(1400) as usize)
    };
    (0..512).map(frame).collect()
}

/// A packet of each flow: TCP and UDP, IPv4 and IPv6.
fn mix() -> Vec<Vec<u8>> {
    let mut random = Random::new(4);
    let frame = |flow| {
        let payload = random.below(1400) as usize;
        match flow % 4 {
            0 | 1 => frames::tcp4(flow, From::Client, payload),
            2 => frames::udp4(flow, From::Client, payload),
            _ => frames::tcp6(flow, From::Client, payload),
        }
    };
    (0..FLOWS).map(frame).collect()
}

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let cases = cases(plan);
    let measured = on_one_cpu(|| measure(plan, &cases))?;
    let row = |(case, paired): (Case, Paired)| paired.row(case.what, "ns", 1.0).remark(case.remark);
    Ok(cases.into_iter().zip(measured).map(row).collect())
}

fn measure(plan: &Plan, cases: &[Case]) -> Result<Vec<Paired>> {
    let mut kernels = Vec::new();
    for case in cases {
        let mut kernel = Kernel::load(&case.options)?;
        if case.known {
            mean_ns(&mut kernel, ETHERNET, case.frames.iter())?;
        }
        kernels.push(kernel);
    }
    let calls = plan.pick(20_000, 500);
    let mut random = Random::new(5);
    let mut measured = vec![Paired::default(); cases.len()];
    for round in 0..=plan.pick(11, 1) {
        for ((case, kernel), paired) in cases.iter().zip(&mut kernels).zip(&mut measured) {
            let frames = &case.frames;
            let picks: Vec<&Vec<u8>> = if case.known && frames.len() == FLOWS as usize {
                (0..calls).map(|_| &frames[random.below(FLOWS.into()) as usize]).collect()
            } else {
                frames.iter().cycle().take(calls).collect()
            };
            let base = mean_ns(kernel, Program::Empty, picks.iter().copied())?;
            let whole = mean_ns(kernel, ETHERNET, picks.iter().copied())?;
            if round > 0 {
                paired.base.push(base);
                paired.whole.push(whole);
            }
            if !case.known {
                empty_table(kernel)?;
            }
        }
    }
    Ok(measured)
}

/// The mean time in the kernel of one run of each frame, the longest 1 % left out.
pub(crate) fn mean_ns<'a>(
    kernel: &mut Kernel,
    program: Program,
    frames: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<f64> {
    let mut times = Vec::new();
    for frame in frames {
        times.push(kernel.run(program, frame, &PacketContext::default(), 1)?.as_nanos());
    }
    kernel.drain(usize::MAX, &mut |_| {})?;
    times.sort_unstable();
    times.truncate(times.len() - times.len() / 100);
    Ok(times.iter().sum::<u128>() as f64 / times.len() as f64)
}

/// Ends every flow.
pub(crate) fn empty_table(kernel: &mut Kernel) -> Result<()> {
    loop {
        let report = kernel.sweep(&SweepRequest::stop())?;
        kernel.drain(usize::MAX, &mut |_| {})?;
        if (report.flows, report.waiting) == (0, 0) {
            return Ok(());
        }
    }
}
