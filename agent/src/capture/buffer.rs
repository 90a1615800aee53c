//! A window onto a stream: what was read and is not yet used, in one piece.

use std::io::{self, ErrorKind, Read};

/// A copy that still lies in the processor's cache when it is read, and leaves others room there.
const CAPACITY: usize = 64 << 10;

/// Bytes of a stream, from the next one that is not used yet.
#[derive(Debug)]
pub(super) struct Buffer<R> {
    source: R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the stream of the first byte of `bytes`.
    base: u64,
}

impl<R: Read> Buffer<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, bytes: Vec::new(), start: 0, end: 0, base: 0 }
    }

    /// What is there.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Bytes that were there when [`Buffer::fill`] was last called, by their place from [`Buffer::place`].
    #[inline]
    pub(super) fn slice(&self, place: usize, len: usize) -> &[u8] {
        // All of them are there. Without a panic for others the work is left out where nobody looks at the bytes.
        self.bytes.get(place..place + len).unwrap_or_default()
    }

    /// The place of the first byte of [`Buffer::data`], good until the next [`Buffer::fill`].
    #[inline]
    pub(super) fn place(&self) -> usize {
        self.start
    }

    /// The first `len` bytes are used.
    #[inline]
    pub(super) fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }

    /// How far into the stream the first byte of [`Buffer::data`] lies.
    pub(super) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// Where the bytes come from.
    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Reads until `need` bytes are there; false if the stream ends before. Waits for no more than that: a
    /// live stream is not held up.
    pub(super) fn fill(&mut self, need: usize) -> io::Result<bool> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < need {
            self.bytes.resize(need.next_power_of_two().max(CAPACITY), 0);
        }
        while self.end < need {
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
