//! When a flow must speak, and why, after the design's text.
//!
//! A [`Speaker`] shows frames and sweeps to an oracle and lists the vectors that must come of them.

use std::{collections::HashSet, time::Duration};

use super::{Config, Oracle, Verdict, parse::flag};
use crate::frame::Frame;

/// A closed flow stays in the table for so long after its last packet, microseconds.
const LINGER_US: u64 = 2_000_000;

/// The thresholds, times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `--stride`.
    pub stride: usize,
    /// `--min-gap`.
    pub min_gap_us: u64,
    /// `--interval`.
    pub interval_us: u64,
    /// `--idle-timeout`.
    pub idle_us: u64,
    /// `--active-timeout`.
    pub active_us: u64,
}

impl Rules {
    /// A time that does not come.
    const NEVER: u64 = u64::MAX >> 1;

    /// Flows end in silence of 15 s, and speak for no other reason.
    pub const PATIENT: Self = Self {
        stride: 1 << 30,
        min_gap_us: 0,
        interval_us: Self::NEVER,
        idle_us: 15_000_000,
        active_us: Self::NEVER,
    };
}

/// A vector that must be emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector {
    /// Index into [`Oracle::flows`].
    pub flow: usize,
    /// The word in the line.
    pub reason: &'static str,
    /// Packets of the flow at that moment.
    pub packets: usize,
}

/// What a flow has said.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// Packets of the flow that are in a vector.
    packets: usize,
    vectors: usize,
    /// When the last vector was emitted, or the first packet came.
    at_us: u64,
    /// When the last `active` vector was emitted, or the first packet came.
    active_us: u64,
}

/// An oracle that knows when flows speak.
#[derive(Debug)]
pub struct Speaker {
    rules: Rules,
    oracle: Oracle,
    said: Vec<Said>,
    vectors: Vec<Vector>,
    backwards: u64,
}

impl Speaker {
    /// A speaker that has seen nothing.
    pub fn new(rules: Rules) -> Self {
        Self::looking(rules, false)
    }

    /// As [`Speaker::new`]; `decap`: packets are looked for inside of tunnels.
    pub fn looking(rules: Rules, decap: bool) -> Self {
        let idle_timeout = Duration::from_micros(rules.idle_us);
        // Only a sweep forgets a closed flow, see `sweep`.
        let oracle = Oracle::new(Config { idle_timeout, linger: Duration::MAX, decap });
        Self { rules, oracle, said: Vec::new(), vectors: Vec::new(), backwards: 0 }
    }

    /// The oracle behind.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// The vectors that must have been emitted so far.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// Packets (super-packets count once) that were timed before the last one of their flow.
    pub fn backwards(&self) -> u64 {
        self.backwards
    }

    /// Flows that have not ended.
    pub fn live(&self) -> usize {
        self.oracle.current().len()
    }

    /// One frame.
    pub fn push(&mut self, frame: &Frame) {
        let time_us = frame.time_ns / 1000;
        let lasts: Option<u64>;
        let Verdict::Accounted { flow: index, packets } = self.oracle.push(frame) else { return };
        if index == self.said.len() {
            lasts = None;
            self.last_words_before(index, time_us);
            self.said.push(Said { packets: 0, vectors: 0, at_us: time_us, active_us: time_us });
        } else {
            let flow = &self.oracle.flows()[index];
            lasts = Some(flow.packets[flow.packets.len() - packets - 1].time_us);
        }
        self.backwards += u64::from(lasts.is_some_and(|last| time_us < last));
        let flow = &self.oracle.flows()[index];
        // The clock of a flow never runs backwards.
        let now_us = flow.last_us();
        let (old, new) = flow.packets.split_at(flow.packets.len() - packets);
        let first = |bit: u8, bwd: Option<bool>| {
            let has =
                |p: &&super::WirePacket| p.flags & bit != 0 && bwd.is_none_or(|bwd| p.bwd == bwd);
            new.iter().any(|p| has(&p)) && !old.iter().any(|p| has(&p))
        };
        let reason = if first(flag::RST, None) {
            Some("rst")
        } else if !old.iter().any(|p| p.flags & flag::RST != 0)
            && (first(flag::FIN, Some(false)) || first(flag::FIN, Some(true)))
        {
            Some("fin")
        } else {
            self.due(index, now_us)
        };
        if let Some(reason) = reason {
            self.speak(index, reason, now_us);
        }
    }

    /// One walk over the table.
    pub fn sweep(&mut self, now_us: u64, evict_after_us: u64) {
        let mut gone = HashSet::new();
        for index in self.oracle.current() {
            let flow = &self.oracle.flows()[index];
            let silent = now_us.saturating_sub(flow.last_us());
            let end = match flow.close_reason() {
                Some(reason) if silent >= LINGER_US => Some(reason),
                _ if silent >= self.rules.idle_us => Some("idle"),
                _ if silent >= evict_after_us => Some("evict"),
                _ => None,
            };
            if let Some(reason) = end {
                if self.pending(index) > 0 {
                    self.speak(index, reason, now_us);
                }
                gone.insert(index);
            } else if let Some(reason) = self.due(index, now_us) {
                self.speak(index, reason, now_us);
            } else if now_us.saturating_sub(self.said[index].active_us) >= self.rules.active_us {
                self.speak(index, "active", now_us);
                self.said[index].active_us = now_us;
            }
        }
        self.oracle.forget(&gone);
    }

    /// The last walk: every flow speaks.
    pub fn stop(&mut self) {
        let all: HashSet<usize> = self.oracle.current().into_iter().collect();
        for index in &all {
            self.speak(*index, "stop", 0);
        }
        self.oracle.forget(&all);
    }

    fn last_words_before(&mut self, index: usize, time_us: u64) {
        let Some(before) = self.oracle.flows()[index].succeeds else { return };
        if self.pending(before) == 0 {
            return;
        }
        let flow = &self.oracle.flows()[before];
        let reason = if time_us.saturating_sub(flow.last_us()) >= self.rules.idle_us {
            "idle"
        } else {
            flow.close_reason().expect("ended neither in silence nor by flags")
        };
        self.speak(before, reason, time_us);
    }

    fn pending(&self, index: usize) -> usize {
        self.oracle.flows()[index].packets.len() - self.said[index].packets
    }

    fn due(&self, index: usize, now_us: u64) -> Option<&'static str> {
        let (said, pending) = (&self.said[index], self.pending(index));
        let since = now_us.saturating_sub(said.at_us);
        if pending == 0 {
            None
        } else if pending >= self.rules.stride
            && (said.vectors == 0 || since >= self.rules.min_gap_us)
        {
            Some("stride")
        } else if since >= self.rules.interval_us {
            Some("interval")
        } else {
            None
        }
    }

    fn speak(&mut self, index: usize, reason: &'static str, now_us: u64) {
        let packets = self.oracle.flows()[index].packets.len();
        let said = &mut self.said[index];
        said.packets = packets;
        said.vectors += 1;
        said.at_us = now_us;
        self.vectors.push(Vector { flow: index, reason, packets });
    }
}
