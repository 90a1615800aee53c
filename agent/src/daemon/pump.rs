//! From the kernel's ring to the output's queue, and the sweeps between.

use std::time::Duration;

use agent_common::{
    counters::Counters,
    record::Record,
    sweep::{OF_CALLS, OF_PACKETS, SweepReport, SweepRequest},
};
use anyhow::{Result, bail};
use bytemuck::Zeroable as _;
use tokio::task::yield_now;
use tracing::{info, trace, warn};

use super::{bpf, names::Names};
use crate::{
    clock::Clock,
    line::Context,
    metrics::OutputStats,
    process::Processes,
    settings::{HookChoice, Settings},
    sink::{BATCH, Outputs, Totals},
    status::{Progress, Status},
};

/// Records come from here: the loaded kernel program.
pub(super) trait Source {
    /// Walks the flow table once.
    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport>;
    /// Takes up to `budget` records out of the ring; returns how many.
    fn drain(&mut self, budget: usize, each: &mut dyn FnMut(&Record)) -> Result<usize>;
    /// Where every packet went.
    fn counters(&self) -> Result<Counters>;
    /// Where every call on a socket went; `None` without the socket hook.
    fn calls(&self) -> Result<Option<Counters>> {
        Ok(None)
    }
}

impl Source for bpf::Kernel {
    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        self.sweep(request)
    }

    fn drain(&mut self, budget: usize, each: &mut dyn FnMut(&Record)) -> Result<usize> {
        self.drain(budget, each)
    }

    fn counters(&self) -> Result<Counters> {
        self.counters()
    }

    fn calls(&self) -> Result<Option<Counters>> {
        self.calls()
    }
}

/// Batches made before timers and signals have their turn.
const TURN: usize = 16;
/// Sweeps that may change nothing before the last one is given up.
const IDLE_SWEEPS: usize = 100;
/// A wall clock that moves by more is worth a word.
const CLOCK_STEP_US: i64 = 1_000_000;

/// A flow table.
struct Table {
    /// As a request for a sweep names it.
    table: u32,
    /// Whether the last sweep had to make room.
    crowded: bool,
}

impl Table {
    /// The tables that there are.
    fn of(hook: HookChoice) -> Vec<Self> {
        let both = [(OF_PACKETS, hook.sees_packets()), (OF_CALLS, hook.sees_calls())];
        let used = both.into_iter().filter(|(_, used)| *used);
        used.map(|(table, _)| Self { table, crowded: false }).collect()
    }

    /// Sweeps it, and makes room if it is almost full; how many flows are left.
    fn sweep<S: Source>(
        &mut self,
        source: &mut S,
        request: &SweepRequest,
        max_flows: u64,
    ) -> Result<u64> {
        let request = SweepRequest { table: self.table, ..*request };
        let mut report = source.sweep(&request)?;
        let cutoff = report.evict_after_us(&request, max_flows);
        if let Some(evict_after_us) = cutoff {
            if !self.crowded {
                warn!(
                    "the flow table is over 80 % full ({} of {max_flows}): the longest silent flows end \
                     early. A larger --max-flows, or a shorter --idle-timeout, avoids it",
                    report.flows
                );
            }
            report = source.sweep(&SweepRequest { evict_after_us, ..request })?;
        } else if self.crowded {
            info!("the flow table has room again");
        }
        self.crowded = cutoff.is_some();
        trace!(flows = report.flows, ended = report.ended, waiting = report.waiting, "sweep");
        Ok(report.flows)
    }
}

/// What is left in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    /// Nothing.
    Empty,
    /// Perhaps more; others had to have their turn.
    More,
    /// Perhaps more; an output asks to wait with it.
    NoRoom,
}

/// The way of the records.
pub(super) struct Pump<S> {
    pub(super) source: S,
    pub(super) outputs: Outputs,
    pub(super) names: Names,
    processes: Processes,
    clock: Clock,
    request: SweepRequest,
    max_flows: u64,
    /// Whether another process reads the ring: then no record comes this way.
    ring_is_left: bool,
    /// Flows in the table after the last sweep.
    pub(super) flows: u64,
    /// Flows that had begun before the last sweep.
    begun: u64,
    /// The flow tables.
    tables: Vec<Table>,
    /// Interfaces that are gone, with flows that may still have to say so.
    gone: Vec<u32>,
    status: Status,
}

impl<S: Source> Pump<S> {
    pub(super) fn new(source: S, outputs: Outputs, settings: &Settings, status: Status) -> Self {
        Self {
            source,
            outputs,
            names: Names::default(),
            processes: Processes::default(),
            clock: Clock::new(),
            request: SweepRequest::ordinary(settings.config.idle_timeout_us),
            max_flows: settings.max_flows.into(),
            ring_is_left: settings.pin_ring,
            flows: 0,
            begun: 0,
            tables: Table::of(settings.hook),
            gone: Vec::new(),
            status,
        }
    }

    /// How many flow tables there are.
    pub(super) fn tables(&self) -> u64 {
        self.tables.len() as u64
    }

    /// Whether the ring is this process's to read.
    pub(super) fn reads_ring(&self) -> bool {
        !self.ring_is_left
    }

    /// Whether the last sweep left nothing in the table and nothing has come since: on a silent host a walk
    /// over the buckets of an empty table is most of what the agent would do.
    fn is_table_empty(&mut self) -> Result<bool> {
        let begun =
            self.source.counters()?.flows + self.source.calls()?.map_or(0, |calls| calls.flows);
        let empty = self.flows == 0 && begun == self.begun;
        self.begun = begun;
        Ok(empty)
    }

    /// Ends the flows of an interface that is gone: one that comes back under its name begins new ones.
    pub(super) fn end_flows_of(&mut self, ifindex: u32) -> Result<()> {
        self.gone.push(ifindex);
        self.end_gone()
    }

    /// The flows of an interface that is there live on, even if it was gone under the same index.
    pub(super) fn keep_flows_of(&mut self, ifindex: u32) {
        self.gone.retain(|&gone| gone != ifindex);
    }

    /// Those that find no room in the ring end at a later poll.
    fn end_gone(&mut self) -> Result<()> {
        let Self { source, gone, .. } = self;
        let mut waiting = Vec::new();
        for ifindex in gone.drain(..) {
            if source.sweep(&SweepRequest::stop_interface(ifindex))?.waiting > 0 {
                waiting.push(ifindex);
            }
        }
        self.gone = waiting;
        Ok(())
    }

    /// One poll: silent flows speak and end, and a table that is almost full gets room.
    pub(super) fn sweep(&mut self) -> Result<()> {
        self.end_gone()?;
        let step = self.clock.refresh();
        if step.abs() > CLOCK_STEP_US {
            info!("the wall clock was set by {:.3} s", step as f64 / 1e6);
        }
        if self.is_table_empty()? {
            return Ok(());
        }
        let Self { source, tables, request, max_flows, .. } = self;
        self.flows = 0;
        for table in tables {
            self.flows += table.sweep(source, request, *max_flows)?;
        }
        Ok(())
    }

    /// Takes records out of the ring for as long as no output asks to wait.
    pub(super) fn drain(&mut self) -> Result<Ring> {
        if self.ring_is_left {
            return Ok(Ring::Empty);
        }
        for _ in 0..TURN {
            if !self.outputs.has_room() {
                return Ok(Ring::NoRoom);
            }
            if self.drain_batch()? < BATCH {
                return Ok(Ring::Empty);
            }
        }
        Ok(Ring::More)
    }

    fn drain_batch(&mut self) -> Result<usize> {
        let Self { source, outputs, names, processes, clock, status, .. } = self;
        let taken = source.drain(BATCH, &mut |record| {
            outputs.push(
                record,
                &Context {
                    iface: names.of(record.key.ifindex),
                    process: processes.of(&record.owner),
                    epoch_offset_us: clock.offset_us(),
                },
            );
        });
        if outputs.pending() > 0 {
            status.vectors_come();
            outputs.flush();
        }
        taken
    }

    /// What each output got and did not get.
    pub(super) fn output_stats(&self) -> Vec<OutputStats> {
        let stats = |(name, totals): (&str, Totals)| OutputStats { name: name.to_owned(), totals };
        self.outputs.totals().map(stats).collect()
    }

    /// Shows the status line.
    pub(super) fn show_status(&self) -> Result<()> {
        if self.status.wanted() {
            let progress = self.progress()?;
            self.status.show(&progress, progress.vectors);
        }
        Ok(())
    }

    /// How far it is, in three numbers.
    pub(super) fn progress(&self) -> Result<Progress> {
        let Counters { seen, vectors, .. } = self.source.counters()?;
        let calls = self.source.calls()?.unwrap_or_default();
        let (packets, made) = (seen + calls.seen, vectors + calls.vectors);
        let vectors = if self.ring_is_left { made } else { self.outputs.sent() };
        Ok(Progress { packets, flows: self.flows, vectors })
    }

    /// Every flow emits its last vector, and the ring is emptied. An output that takes nothing for as long
    /// as `patience` is waited for no longer. Programs must be detached before.
    pub(super) async fn stop(&mut self, patience: Duration) -> Result<()> {
        let mut idle = 0;
        self.outputs.be_patient(patience);
        loop {
            let mut report = SweepReport::zeroed();
            for Table { table, .. } in &self.tables {
                let request = SweepRequest { table: *table, ..SweepRequest::stop() };
                let of_one = self.source.sweep(&request)?;
                report.flows += of_one.flows;
                report.ended += of_one.ended;
                report.waiting += of_one.waiting;
            }
            self.empty_ring().await?;
            // A program may have been running as it was detached: the last sweep is one that finds nothing.
            if (report.flows, report.waiting, report.ended) == (0, 0, 0) {
                return Ok(());
            }
            idle = if report.ended == 0 { idle + 1 } else { 0 };
            if self.ring_is_left && report.waiting > 0 {
                if idle > IDLE_SWEEPS {
                    bail!(
                        "the reader of the ring took nothing for {patience:?}: {} flows did not get their \
                         last vector out",
                        report.waiting
                    );
                }
                tokio::time::sleep(patience / IDLE_SWEEPS as u32).await;
            } else if idle > IDLE_SWEEPS {
                bail!("{} flows do not leave the table: an error in the agent", report.flows);
            }
        }
    }

    async fn empty_ring(&mut self) -> Result<()> {
        loop {
            match self.drain()? {
                Ring::Empty => return Ok(()),
                Ring::More => yield_now().await,
                Ring::NoRoom => self.outputs.room().await,
            }
        }
    }
}
