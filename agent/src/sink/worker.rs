//! A sink's thread: it writes, and when that fails tries again, ever more patiently.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tracing::{info, warn};

use super::{Queue, Sink, SinkError, Work};
use crate::privilege;

/// Time before the second try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Whether a sink that fails is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For ever: a live stream goes on.
    Retry,
    /// Not at all: who writes can begin again.
    GiveUp,
}

/// Starts the thread that empties `queue` into `sink`.
pub(super) fn start(
    name: String,
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    patience: Patience,
) -> Result<()> {
    let worker = Worker { name, sink, queue, patience, outage: None, is_open: true };
    thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            privilege::renounce();
            worker.run();
        })
        .context("cannot start an output's thread")?;
    Ok(())
}

struct Worker {
    name: String,
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    patience: Patience,
    outage: Option<Outage>,
    is_open: bool,
}

/// A time in which a sink does not work.
#[derive(Clone, Copy)]
struct Outage {
    since: Instant,
    pause: Duration,
    /// Vectors that the sink had dropped when it began.
    dropped: u64,
    /// Whether it is over once the sink is open.
    of_open: bool,
}

impl Worker {
    fn run(mut self) {
        let how = self.work();
        let Self { sink, queue, .. } = self;
        // What it still holds is lost: counted before somebody looks.
        drop(sink);
        queue.end(how);
    }

    fn work(&mut self) -> Result<(), SinkError> {
        self.is_open = self.sink.is_open();
        loop {
            // Asked before the attempt: after the end each sink gets one more.
            let last = self.queue.is_closed();
            if !self.is_open {
                if let Err(error) = self.sink.open() {
                    self.failed(error, last, true)?;
                    continue;
                }
                self.is_open = true;
                if self.outage.is_some_and(|outage| outage.of_open) {
                    self.works_again();
                }
            }
            let done = match self.queue.take(self.sink.at_once(), self.sink.wakes_at()) {
                Work::Write(mut hand) => {
                    let written = self.sink.write(&mut hand);
                    self.queue.give_back(hand);
                    written
                }
                Work::Idle => self.sink.idle(),
                Work::Reopen => self.sink.reopen(),
                Work::End => return self.sink.finish(),
            };
            match done {
                Ok(()) => self.works_again(),
                Err(error) => {
                    self.is_open = false;
                    self.failed(error, last, false)?;
                }
            }
        }
    }

    /// Waits before the next try, if there is to be one.
    fn failed(&mut self, error: SinkError, last: bool, of_open: bool) -> Result<(), SinkError> {
        let SinkError::Failed(reason) = &error else { return Err(error) };
        let counts = self.queue.counts();
        counts.error();
        if last || self.patience == Patience::GiveUp {
            return Err(error);
        }
        let outage = self.outage.get_or_insert_with(|| {
            warn!("{} does not work: {reason:#}. It is tried again; vectors wait", self.name);
            let dropped = counts.totals().dropped;
            Outage { since: Instant::now(), pause: FIRST_PAUSE, dropped, of_open }
        });
        outage.of_open = of_open;
        self.queue.pause(outage.pause);
        outage.pause = (outage.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn works_again(&mut self) {
        let Some(Outage { since, dropped, .. }) = self.outage.take() else { return };
        let counts = self.queue.counts();
        counts.reconnect();
        let dropped = counts.totals().dropped - dropped;
        let after = humantime::format_duration(Duration::from_secs(since.elapsed().as_secs()));
        info!("{} works again after {after}; {dropped} vectors were dropped", self.name);
    }
}
