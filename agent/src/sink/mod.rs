//! Where vectors go. Each sink has a bounded [`Queue`] and a thread of its own, so that one that is slow, full
//! or gone holds up nobody, or only for as long as it may: see [`OnFull`] and [`Outputs`].
//!
//! ```text
//! record → Builder → Batch ─┬─ Queue → thread: Sink      what waits, and is dropped, is the consumer's own;
//!          once for all     ├─ Queue → thread: Sink      the first vector after a gap says how many it
//!                           └─ …                         did not get (the field `lost`)
//! ```

mod args;
mod batch;
mod blocking;
#[cfg(feature = "arrow")]
mod columns;
mod counts;
mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod outputs;
mod queue;
mod remote;
mod rotate;
mod stream;
mod target;
#[cfg(test)]
mod tests;
mod unix;
mod worker;

#[cfg(test)]
pub(crate) use self::outputs::MakeSink;
use std::{fmt, io, os::fd::OwnedFd, time::Instant};

pub use self::{
    args::{Format, OutputArgs, Plan, QueueArgs},
    batch::{BATCH, Batch, Builder, Form, Lines, Portion, Row, Wants},
    blocking::Blocking,
    counts::{Counts, Totals},
    file::FileSink,
    outputs::{Ending, Outputs, SinkReport},
    queue::{Hand, OnFull, Queue, QueueOptions, Work},
    remote::{Login, Remote, Server, without_login},
    rotate::Rotation,
    stream::LineStream,
    target::{ColumnFormat, Target},
    worker::Patience,
};

/// Why vectors do not get out.
#[derive(Debug)]
pub enum SinkError {
    /// Whoever read them has gone for good; for a pipe that is no error.
    Closed,
    /// They cannot be written now.
    Failed(anyhow::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<anyhow::Error> for SinkError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the consumer has closed it"),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for SinkError {}

/// A destination. Its methods may block: they run on a thread of their own. After an error the sink is opened
/// again, later and later, until it works.
pub trait Sink: Send + 'static {
    /// Whether it need not be opened before the first write.
    fn is_open(&self) -> bool {
        true
    }

    /// Makes ready to write, again after an error.
    fn open(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Writes the vectors in hand, and says of each that it was sent as soon as it is certain to be out. What is
    /// left in hand after an error is offered again.
    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError>;

    /// How many vectors it would like to have in hand.
    fn at_once(&self) -> usize {
        1
    }

    /// When [`Sink::idle`] is to be called if nothing comes.
    fn wakes_at(&self) -> Option<Instant> {
        None
    }

    /// Does what is to be done in time.
    fn idle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// The file is to be opened again, under its name: what was there may have been moved.
    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Lets out what the sink itself still holds, at the end.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// A descriptor on which poll(2) tells that the consumer has gone for good, if there is such a thing: with
    /// nothing to write, no write would tell.
    fn consumer(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}
