//! A run of the agent beside a capture, and what must hold after each.

use std::time::Duration;

use crate::{
    agent::{Agent, Outcome, Reconciliation},
    capture::{Capture, Sides},
    compare::{Compared, Options, compare},
    frame::Frame,
    lines::{Line, lives},
    netns::{NEAR_IF, Netns, Pair},
    oracle::Oracle,
};

/// Silence after which traffic is taken to be over.
const QUIET: Duration = Duration::from_millis(300);

/// Everything that two observers of the same traffic have to say.
#[derive(Debug)]
pub struct Run {
    /// The capture's frames.
    pub frames: Vec<Frame>,
    /// The oracle over them.
    pub oracle: Oracle,
    /// The agent's end.
    pub outcome: Outcome,
    /// The agent's lines.
    pub lines: Vec<Line>,
    /// The agent's counts.
    pub counts: Reconciliation,
}

/// Runs the agent with `args` on the pair's watched interface while `traffic` flows, then stops it.
pub fn observe(pair: &Pair, args: &[&str], traffic: impl FnOnce(&Agent)) -> Run {
    observe_on(&pair.near, NEAR_IF, Sides::Both, args, traffic)
}

/// As [`observe`], on any interface.
pub fn observe_on(
    ns: &Netns,
    interface: &str,
    sides: Sides,
    args: &[&str],
    traffic: impl FnOnce(&Agent),
) -> Run {
    let (capture, agent) = both_observers(ns, interface, sides, args);
    traffic(&agent);
    capture.settle(QUIET);
    let outcome = agent.stop();
    let frames = capture.finish();
    let oracle = Oracle::over(&frames);
    let lines = outcome.lines();
    let counts = outcome.reconciliation();
    Run { frames, oracle, outcome, lines, counts }
}

/// The capture and the agent, with nothing that passed between the one's start and the other's.
///
/// When a link comes up the stack speaks of its own accord, on a slow machine late.
fn both_observers(ns: &Netns, interface: &str, sides: Sides, args: &[&str]) -> (Capture, Agent) {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        let quiet = Capture::start(ns, interface, sides);
        quiet.settle(QUIET);
        quiet.finish();

        let capture = Capture::start(ns, interface, sides);
        let agent = Agent::start(ns, &[&["--iface", interface], args].concat());
        if capture.frames_so_far() == 0 {
            return (capture, agent);
        }
        agent.stop();
        capture.finish();
    }
    panic!("the network was not silent in any of {TRIES} starts of the agent");
}

impl Run {
    /// Conservation, the capture's counts and every line's numbers; panics with what differs.
    pub fn assert_exact(&self, options: Options) -> Compared {
        assert!(self.outcome.status.success(), "{:?}", self.outcome.status);
        assert_conserved(&self.counts, &self.lines);
        assert_eq!(self.counts.table_full, 0);
        assert_eq!(self.counts.filtered, 0);
        let expected = self.oracle.counts();
        assert_eq!(
            [self.counts.seen, self.counts.accounted, self.counts.not_ip, self.counts.malformed],
            [expected.seen, expected.accounted, expected.not_ip, expected.malformed],
            "seen, accounted, not_ip, malformed of the agent and of the capture; it said:\n{}",
            self.outcome.stderr
        );
        let reasons: Vec<(String, u64)> =
            expected.reasons.iter().map(|(reason, n)| (reason.name().to_owned(), *n)).collect();
        let mut printed = self.outcome.malformed_reasons();
        printed.sort_by_key(|(name, _)| reasons.iter().position(|(reason, _)| reason == name));
        if options.reasons {
            assert_eq!(printed, reasons, "malformed packets by reason");
        }
        let compared =
            compare(&self.lines, &self.oracle, options).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(compared.packets, expected.accounted);
        compared
    }
}

/// Every packet is in one counter, every accounted one in one final vector, no vector is lost.
pub fn assert_conserved(counts: &Reconciliation, lines: &[Line]) {
    let Reconciliation {
        seen,
        accounted,
        not_ip,
        malformed,
        filtered,
        table_full,
        written,
        lost,
        delayed: _,
    } = *counts;
    assert_eq!(seen, accounted + not_ip + malformed + filtered + table_full, "{counts:?}");
    assert_eq!(written, lines.len() as u64, "vectors written and lines printed");
    assert_eq!(lost, 0, "vectors lost");
    let lives = lives(lines).unwrap_or_else(|faults| {
        panic!("{} faults, the first: {:#?}", faults.len(), &faults[..faults.len().min(10)])
    });
    let last = lives.iter().map(|life| life.last().expect("a life has a line").packets());
    assert_eq!(last.sum::<u64>(), accounted, "packets in final vectors and accounted ones");
}
