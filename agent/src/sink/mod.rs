//! Where lines go. A sink writes batches, on a thread of its own, behind a queue that is bounded: see
//! [`Output`]. When the queue is full the daemon leaves records in the kernel's ring; nothing is dropped.

mod output;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};

pub use self::{
    output::{Ending, Output},
    stream::StreamSink,
};
use crate::settings;

/// Complete lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The lines, each with its newline.
    pub lines: Vec<u8>,
    /// How many.
    pub vectors: u64,
}

/// How many vectors got out, counted where it happens and read elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Written(Arc<AtomicU64>);

impl Written {
    /// More got out.
    pub fn add(&self, vectors: u64) {
        self.0.fetch_add(vectors, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why no more vectors get out.
#[derive(Debug)]
pub enum SinkError {
    /// Whoever read them has gone; for a pipe that is no error.
    Closed,
    /// They cannot be written.
    Failed(io::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the consumer has closed it"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SinkError {}

/// A destination. Its methods may block: they run on a thread of their own.
pub trait Sink: Send + 'static {
    /// Writes a batch, and counts each vector in `written` as soon as its last byte is out.
    fn write(&mut self, batch: &Batch, written: &Written) -> Result<(), SinkError>;

    /// Lets out what the sink itself still holds, at the end.
    fn finish(&mut self, _written: &Written) -> Result<(), SinkError> {
        Ok(())
    }

    /// A descriptor on which poll(2) tells that the consumer has gone, if there is such a thing: with
    /// nothing to write, no write would tell.
    fn consumer(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}

/// Opens the sink that the settings name.
pub fn open(output: &settings::Output) -> Result<Box<dyn Sink>> {
    let stream = match output {
        settings::Output::Stdout => StreamSink::stdout().context("cannot use standard output")?,
        settings::Output::File(path) => StreamSink::append(path)
            .with_context(|| format!("cannot open {} for writing", path.display()))?,
    };
    Ok(Box::new(stream))
}
