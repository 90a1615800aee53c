//! The queue before a sink, and the thread behind it.

use std::{io, os::fd::OwnedFd, sync::mpsc as std_mpsc, thread, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Batch, Sink, SinkError, Written};

/// Batches that wait for the sink at most.
const QUEUE: usize = 16;

/// A sink at work.
#[derive(Debug)]
pub struct Output {
    /// Until the end.
    queue: Option<mpsc::Sender<Batch>>,
    /// Empty buffers that come back.
    spent: std_mpsc::Receiver<Vec<u8>>,
    written: Written,
    done: oneshot::Receiver<Result<(), SinkError>>,
    consumer: Option<OwnedFd>,
}

/// How an output ended.
#[derive(Debug)]
pub enum Ending {
    /// All that was sent got out.
    Complete,
    /// The consumer has gone.
    Closed,
    /// A write failed.
    Failed(io::Error),
    /// The consumer took nothing for as long as one is patient.
    Stuck,
}

impl Output {
    /// Starts the sink's thread.
    pub fn start(mut sink: Box<dyn Sink>) -> Result<Self> {
        let consumer = sink.consumer().context("cannot look at the output")?;
        let (queue, mut batches) = mpsc::channel::<Batch>(QUEUE);
        let (give_back, spent) = std_mpsc::channel();
        let (tell, done) = oneshot::channel();
        let written = Written::default();
        let count = written.clone();
        let work = move || {
            let mut result = Ok(());
            while let Some(mut batch) = batches.blocking_recv() {
                result = sink.write(&batch, &count);
                if result.is_err() {
                    break;
                }
                batch.lines.clear();
                // If the daemon is gone so is its need of buffers.
                let _ = give_back.send(batch.lines);
            }
            // The result first: a closed queue tells the daemon that it is there.
            let result = result.and_then(|()| sink.finish(&count));
            let _ = tell.send(result);
            drop(batches);
        };
        thread::Builder::new()
            .name("output".into())
            .spawn(work)
            .context("cannot start the output's thread")?;
        Ok(Self { queue: Some(queue), spent, written, done, consumer })
    }

    /// An empty batch to fill.
    pub fn batch(&self) -> Batch {
        Batch { lines: self.spent.try_recv().unwrap_or_default(), vectors: 0 }
    }

    /// Whether [`Output::send`] would take a batch now.
    pub fn has_room(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.capacity() > 0)
    }

    /// Waits until there is room, or nothing is taken any more.
    pub async fn room(&self) {
        if let Some(queue) = &self.queue {
            // A permit that is not used goes back; an error says that the queue is closed.
            drop(queue.reserve().await);
        }
    }

    /// Queues a batch, to be called when there is room; gives it back if there is none.
    pub fn send(&self, batch: Batch) -> Result<(), Batch> {
        let Some(queue) = &self.queue else { return Err(batch) };
        queue.try_send(batch).map_err(|error| match error {
            mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch) => {
                batch
            }
        })
    }

    /// Vectors that got out.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// Waits until the sink takes no more, because its consumer has gone or a write failed.
    pub async fn ended(&self) {
        if let Some(queue) = &self.queue {
            queue.closed().await;
        }
    }

    /// Whether the sink takes no more.
    pub fn has_ended(&self) -> bool {
        self.queue.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Whether the consumer has gone: asked when there is nothing to write, too.
    pub fn consumer_gone(&self) -> bool {
        let Some(consumer) = &self.consumer else { return false };
        let mut state = [PollFd::new(consumer, PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut state, Some(&at_once)).is_ok()
            && state[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
    }

    /// Waits until all that is queued got out, as long as something does within `patience`. Nothing is
    /// taken any more.
    pub async fn finish(&mut self, patience: Duration) -> Ending {
        self.queue = None;
        self.consumer = None;
        loop {
            let before = self.written();
            match timeout(patience, &mut self.done).await {
                Ok(Ok(result)) => return Ending::from(result),
                Ok(Err(_)) => {
                    let panicked = io::Error::other("the output's thread has panicked");
                    return Ending::Failed(panicked);
                }
                Err(_) if self.written() == before => return Ending::Stuck,
                Err(_) => {}
            }
        }
    }
}

impl From<Result<(), SinkError>> for Ending {
    fn from(result: Result<(), SinkError>) -> Self {
        match result {
            Ok(()) => Self::Complete,
            Err(SinkError::Closed) => Self::Closed,
            Err(SinkError::Failed(error)) => Self::Failed(error),
        }
    }
}
