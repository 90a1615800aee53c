//! Zstandard (RFC 8878): any number of frames, one after the other, with frames to be skipped between them.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};

use super::{corrupt, cut_off};

const FRAME: u32 = 0xfd2f_b528;
/// Frames of other things.
const SKIPPED: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
/// Bytes of a block's header.
const HEADER: usize = 3;

/// Decompresses.
pub(in super::super) struct Zstd<R> {
    source: R,
    decoder: Decoder<'static>,
    /// Bytes that the decoder would have next; 0 between frames.
    wanted: usize,
    /// Whether it may hold more that is decoded.
    holds_more: bool,
    /// Whether there was a fault in the data, behind which there is nothing.
    has_failed: bool,
}

/// Whether compressed data that begins so is of this format.
pub(super) fn is_zstd(magic: &[u8]) -> bool {
    let magic = magic.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    magic.is_some_and(|magic| magic == FRAME || SKIPPED.contains(&magic))
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let decoder = Decoder::new()?;
        Ok(Self { source, decoder, wanted: 0, holds_more: false, has_failed: false })
    }

    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Has the decoder take one step; tells how many bytes it gave out. `None` at the end of all frames.
    fn step(&mut self, target: &mut [u8]) -> io::Result<Option<usize>> {
        let input = if self.holds_more { &[] } else { self.source.fill_buf()? };
        if input.is_empty() && !self.holds_more {
            return if self.wanted == 0 { Ok(None) } else { Err(cut_off("zstd")) };
        }
        // With an error the decoder does not say what it gave out before. It wants a block and the header of the one
        // behind it at a time: each is given alone, so that what is bad in one takes nothing of the other along.
        let most = if self.wanted > HEADER { self.wanted - HEADER } else { self.wanted.max(1) };
        let mut input = InBuffer::around(&input[..input.len().min(most)]);
        let mut output = OutBuffer::around(target);
        let wanted = self.decoder.run(&mut input, &mut output);
        let (taken, given) = (input.pos(), output.pos());
        self.source.consume(taken);
        self.wanted = wanted.map_err(|error| {
            self.has_failed = true;
            explained(&error)
        })?;
        self.holds_more = given == target.len();
        Ok(Some(given))
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if target.is_empty() || self.has_failed {
            return Ok(0);
        }
        loop {
            match self.step(target)? {
                Some(0) => {}
                given => return Ok(given.unwrap_or(0)),
            }
        }
    }
}

impl<R: fmt::Debug> fmt::Debug for Zstd<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, decoder: _, wanted, holds_more, has_failed } = self;
        f.debug_struct("Zstd")
            .field("source", source)
            .field("wanted", wanted)
            .field("holds_more", holds_more)
            .field("has_failed", has_failed)
            .finish_non_exhaustive()
    }
}

/// The library's errors are texts: `ERR_getErrorString` in its `error_private.c`.
fn explained(error: &io::Error) -> io::Error {
    match error.to_string().as_str() {
        "Frame requires too much memory for decoding" => corrupt(
            "zstd",
            "it needs more than 128 MiB of memory; decompress it by `zstd -d --long=31`",
        ),
        "Dictionary mismatch" => {
            corrupt("zstd", "it needs a dictionary; decompress it by `zstd -d -D`")
        }
        text => corrupt("zstd", text),
    }
}
