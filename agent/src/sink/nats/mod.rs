//! Vectors as messages to a NATS server, each sent until the server has said that it has it.

mod connection;

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use async_nats::Subject;
use bytes::Bytes;
use tracing::warn;

use self::connection::Connection;
use super::{Counts, Form, Hand, Portion, Remote, Sink, SinkError, remote::Names};

/// Vectors sent before the server is asked whether it has them.
const AT_ONCE: usize = 512;
/// Times that a vector is sent without an answer before it is given up.
const ATTEMPTS: u8 = 5;
/// Longest silence: a server that hears nothing for minutes hangs up, and one that is gone is to be noticed.
const SILENCE: Duration = Duration::from_secs(10);

/// A sink that sends messages.
pub(super) struct NatsSink {
    remote: Remote,
    tls: bool,
    form: Form,
    names: Names,
    counts: Arc<Counts>,
    connection: Option<Connection>,
    /// Sent, or about to be, and not confirmed: they are older than what is queued, and go out first.
    unconfirmed: VecDeque<Message>,
    /// What ids of messages begin with, unlike those of any other agent.
    prefix: String,
    next_id: u64,
    /// Vectors given up since the last one that was taken.
    untold: u64,
    heard: Instant,
}

/// A vector on its way.
struct Message {
    /// Of this sink's messages; the same when it is sent again.
    id: String,
    subject: Subject,
    payload: Bytes,
    /// What it says was lost before it.
    told: u64,
    /// Times it was sent.
    attempts: u8,
}

impl NatsSink {
    pub(super) fn new(remote: &Remote, tls: bool, form: Form, counts: Arc<Counts>) -> Self {
        Self {
            names: remote.names(),
            remote: remote.clone(),
            tls,
            form,
            counts,
            connection: None,
            unconfirmed: VecDeque::new(),
            prefix: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            next_id: 0,
            untold: 0,
            heard: Instant::now(),
        }
    }

    /// Makes messages of the vectors in hand.
    fn take(&mut self, hand: &mut Hand) {
        hand.lost_before(0, std::mem::take(&mut self.untold));
        while let Some(portion) = hand.first() {
            for index in 0..portion.len() {
                let message = self.message(portion, index);
                self.unconfirmed.push_back(message);
            }
            let vectors = portion.len();
            hand.taken(vectors);
        }
    }

    fn message(&mut self, portion: &Portion, index: usize) -> Message {
        let line = portion.line(self.form, index);
        let subject = self.names.of(portion.row(index).map(|row| &row.iface));
        self.next_id += 1;
        Message {
            id: format!("{}-{}", self.prefix, self.next_id),
            subject: subject.into(),
            payload: Bytes::copy_from_slice(line.trim_ascii_end()),
            told: if index == 0 { portion.lost } else { 0 },
            attempts: 0,
        }
    }

    /// Sends what is not confirmed, and waits until it is.
    fn deliver(&mut self) -> Result<(), SinkError> {
        let connection = self.connection.as_mut().ok_or_else(|| anyhow!("not connected"))?;
        let before = self.unconfirmed.len();
        let delivered = connection.deliver(&mut self.unconfirmed);
        self.counts.send(before - self.unconfirmed.len());
        self.heard = Instant::now();
        if delivered.is_err() {
            self.connection = None;
            self.give_up();
        }
        Ok(delivered?)
    }

    /// What was sent often enough is lost.
    fn give_up(&mut self) {
        let (mut lost, mut told) = (0, 0);
        self.unconfirmed.retain(|message| {
            let keep = message.attempts < ATTEMPTS;
            if !keep {
                lost += 1;
                told += message.told;
            }
            keep
        });
        if lost > 0 {
            warn!(
                "{}: {lost} vectors are lost: {ATTEMPTS} times sent, never confirmed",
                self.remote
            );
            self.counts.lose(lost);
            self.untold += lost as u64 + told;
        }
    }
}

impl Sink for NatsSink {
    fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    fn open(&mut self) -> Result<(), SinkError> {
        self.connection = None;
        self.connection = Some(Connection::open(&self.remote, self.tls)?);
        self.heard = Instant::now();
        if self.unconfirmed.is_empty() { Ok(()) } else { self.deliver() }
    }

    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError> {
        self.take(hand);
        self.deliver()
    }

    fn at_once(&self) -> usize {
        AT_ONCE
    }

    fn wakes_at(&self) -> Option<Instant> {
        Some(self.heard + SILENCE)
    }

    /// Asks whether the server is there; this also answers what it has asked.
    fn idle(&mut self) -> Result<(), SinkError> {
        self.deliver()
    }
}

impl Drop for NatsSink {
    /// What was never confirmed did not get out.
    fn drop(&mut self) {
        self.counts.lose(self.unconfirmed.len());
    }
}
