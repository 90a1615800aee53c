//! What became of each vector, by sink.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// A sink's counters: counted where it happens, read elsewhere.
#[derive(Debug, Default)]
pub struct Counts {
    offered: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    unheard: AtomicU64,
    errors: AtomicU64,
    reconnects: AtomicU64,
    consumers: AtomicU64,
}

/// The counters at one moment. `offered = sent + dropped + queued`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Vectors that were to go out: each once, or once for each consumer of a sink that has several.
    pub offered: u64,
    /// Of these, out: the last byte is with the kernel, acknowledged by the server, or in a row group on the disk.
    pub sent: u64,
    /// Given up: the queue was full, or the consumer went.
    pub dropped: u64,
    /// Of these, made while nobody was connected to a sink that consumers connect to.
    pub unheard: u64,
    /// Errors, each of which was followed by another try.
    pub errors: u64,
    /// Times that the sink worked again after an error.
    pub reconnects: u64,
    /// Consumers that are connected, of a sink that consumers connect to.
    pub consumers: u64,
}

impl Totals {
    /// Vectors on their way.
    pub fn queued(&self) -> u64 {
        self.offered.saturating_sub(self.sent + self.dropped)
    }

    /// Whether there is nothing to say but how many were sent.
    pub fn is_plain(&self) -> bool {
        *self == Self { offered: self.sent, sent: self.sent, ..Self::default() }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offered: _, sent, dropped, unheard, errors, reconnects, consumers: _ } = self;
        write!(f, "{sent} sent, {dropped} dropped")?;
        for (count, what) in [
            (*unheard, "of them while nobody was connected"),
            (self.queued(), "still queued"),
            (*errors, "errors"),
            (*reconnects, "times it worked again"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Counts {
    /// Vectors are to go out.
    pub(super) fn offer(&self, vectors: usize) {
        add(&self.offered, vectors as u64);
    }

    /// Vectors got out.
    pub(super) fn send(&self, vectors: usize) {
        add(&self.sent, vectors as u64);
    }

    /// Vectors are given up.
    pub(super) fn lose(&self, vectors: usize) {
        add(&self.dropped, vectors as u64);
    }

    /// Nobody listens.
    pub(super) fn unheard(&self, vectors: usize) {
        self.offer(vectors);
        self.lose(vectors);
        add(&self.unheard, vectors as u64);
    }

    /// Something failed.
    pub(super) fn error(&self) {
        add(&self.errors, 1);
    }

    /// It works again.
    pub(super) fn reconnect(&self) {
        add(&self.reconnects, 1);
    }

    /// A consumer came.
    pub(super) fn consumer_came(&self) {
        add(&self.consumers, 1);
    }

    /// A consumer went.
    pub(super) fn consumer_went(&self) {
        self.consumers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Vectors out so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// All of the counters.
    pub fn totals(&self) -> Totals {
        let Self { offered, sent, dropped, unheard, errors, reconnects, consumers } = self;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What is offered is read last, so that no vector is out before it was offered.
        let (sent, dropped) = (get(sent), get(dropped));
        Totals {
            offered: get(offered),
            sent,
            dropped,
            unheard: get(unheard),
            errors: get(errors),
            reconnects: get(reconnects),
            consumers: get(consumers),
        }
    }
}
