//! The state of the agent at one moment, and the place where the latest hangs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use agent_common::counters::Counters;
use prometheus_client::metrics::histogram::Histogram;

use crate::sink::Totals;

/// All that the metrics are made of.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was made: right after a sweep.
    pub swept: Instant,
    /// The same by the wall clock.
    pub swept_at: SystemTime,
    /// Time between two sweeps.
    pub poll: Duration,
    /// The kernel's counters.
    pub counters: Counters,
    /// The same of calls on sockets, with the socket hook.
    pub calls: Option<Counters>,
    /// Flows in the table after the sweep.
    pub flows: u64,
    /// Flows that the table holds at most.
    pub max_flows: u64,
    /// Bytes of records in the ring that the agent has not taken out; `None` where another process does.
    pub ring_used: Option<u64>,
    /// Bytes that the ring holds.
    pub ring_size: u64,
    /// The watched interfaces, and whether programs are attached to each.
    pub interfaces: Vec<(String, bool)>,
    /// Each place that vectors go to.
    pub outputs: Vec<OutputStats>,
    /// What the kernel has measured of each program; empty unless `kernel.bpf_stats_enabled` is or was 1.
    pub programs: Vec<ProgramStats>,
}

/// One place that vectors go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputStats {
    /// Its name, as `--output` has it.
    pub name: String,
    /// What became of the vectors.
    pub totals: Totals,
}

/// One kernel program, as the kernel has measured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Its name in the object.
    pub name: &'static str,
    /// Times it ran.
    pub runs: u64,
    /// Time it took in all.
    pub run_time: Duration,
}

/// Where the main loop puts the latest snapshot, and others read it.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    latest: Mutex<Option<Arc<Snapshot>>>,
    sweeps: Histogram,
}

/// Upper bounds of the histogram of sweep times, in seconds: an empty table to one of millions.
const SWEEP_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

impl Board {
    /// Nothing is known yet.
    pub fn new() -> Self {
        let sweeps = Histogram::new(SWEEP_SECONDS);
        Self(Arc::new(Shared { latest: Mutex::new(None), sweeps }))
    }

    /// Puts a snapshot up in place of the one before.
    pub fn put(&self, snapshot: Snapshot) {
        let latest = Some(Arc::new(snapshot));
        *self.0.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    /// A sweep took so long.
    pub fn swept(&self, took: Duration) {
        self.0.sweeps.observe(took.as_secs_f64());
    }

    /// The latest snapshot; `None` before the first sweep.
    pub fn latest(&self) -> Option<Arc<Snapshot>> {
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sweeps' times.
    pub(super) fn sweeps(&self) -> &Histogram {
        &self.0.sweeps
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}
