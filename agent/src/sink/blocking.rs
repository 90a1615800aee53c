//! Outputs for one who has time to wait: a replay.

use std::{thread, time::Duration};

use agent_common::record::Record;
use anyhow::{Result, bail};

use super::{
    BATCH, Ending, OnFull, Outputs, Patience, Plan, QueueOptions, SinkError, SinkReport, Target,
    outputs::{Finishing, LOOK},
};
use crate::line::Context;

/// Outputs for one who has time to wait for them: all block, and one that fails is the end.
#[derive(Debug)]
pub struct Blocking(Outputs);

impl Blocking {
    /// Opens every output and starts its thread.
    pub fn start(plan: &Plan) -> Result<Self> {
        if let Some(target) = plan.targets.iter().find(|target| matches!(target, Target::Unix(_))) {
            bail!("{target} is for a live stream: here it would be over before anybody connects");
        }
        let capacity = plan.queue;
        let options = QueueOptions { capacity, on_full: OnFull::Block, block_limit: None };
        Outputs::with(plan, Patience::GiveUp, |_| options).map(Self)
    }

    /// Writes a vector, once there is room for it. Fails when no output takes vectors any more, or one has failed.
    pub fn write(&mut self, record: &Record, context: &Context<'_>) -> Result<(), SinkError> {
        self.0.push(record, context);
        if self.0.pending() < BATCH { Ok(()) } else { self.flush() }
    }

    /// Queues what was written so far, once there is room.
    pub fn flush(&mut self) -> Result<(), SinkError> {
        for lane in &self.0.lanes {
            let queues = lane.members.queues().clone();
            for queue in queues {
                queue.wait_for_room();
            }
        }
        self.0.flush();
        self.check()
    }

    /// Whether every output still takes vectors, or those that do not were closed by their consumers.
    fn check(&mut self) -> Result<(), SinkError> {
        for lane in self.0.lanes.iter_mut().filter(|lane| lane.has_ended()) {
            if lane.ending.is_none() {
                lane.end();
            }
            if let Some(Ending::Failed(error)) = &mut lane.ending {
                let error = std::mem::replace(error, anyhow::anyhow!("it has failed before"));
                return Err(SinkError::Failed(error.context(lane.name.clone())));
            }
        }
        // As noted above, and not asked anew: one that ends in between may have failed, and is told of the next time.
        let lanes = &self.0.lanes;
        let are_closed = !lanes.is_empty() && lanes.iter().all(|lane| lane.ending.is_some());
        if are_closed { Err(SinkError::Closed) } else { Ok(()) }
    }

    /// Vectors that were queued, each once.
    pub fn taken(&self) -> u64 {
        self.0.taken() + self.0.pending() as u64
    }

    /// Vectors that got out, each once for every output.
    pub fn sent(&self) -> u64 {
        self.0.sent()
    }

    /// Waits until everything got out, however long that takes, and says how each output ended.
    pub fn finish(mut self) -> Vec<SinkReport> {
        let mut finishing = Finishing::new(&mut self.0, Duration::MAX);
        while !finishing.is_over() {
            thread::sleep(LOOK);
        }
        self.0.reports()
    }
}
