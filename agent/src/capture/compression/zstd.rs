//! Zstandard (RFC 8878): any number of frames, one after the other, with frames to be skipped between them.

use std::{
    error::Error,
    io::{self, BufRead, ErrorKind, Read},
};

use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::{corrupt, cut_off};

const FRAME: u32 = 0xfd2f_b528;
/// Frames of other things.
const SKIPPED: std::ops::RangeInclusive<u32> = 0x184d_2a50..=0x184d_2a5f;
/// An empty last block, and a check sum.
const END_OF_FRAME: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];

/// Decompresses.
pub(in super::super) struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    state: State,
}

#[derive(Debug)]
enum State {
    BetweenFrames,
    InFrame,
    /// To be told once all that came before is given out.
    Failed(Option<io::Error>),
}

/// Whether compressed data that begins so is of this format.
pub(super) fn is_zstd(magic: &[u8]) -> bool {
    let magic = magic.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    magic.is_some_and(|magic| magic == FRAME || SKIPPED.contains(&magic))
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), state: State::BetweenFrames }
    }

    pub(super) fn source(&self) -> &R {
        &self.source
    }

    /// Begins the next frame, or skips one; false if there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        match self.decoder.reset(&mut self.source) {
            Ok(()) => self.state = State::InFrame,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = u64::from(length);
                if io::copy(&mut self.source.by_ref().take(length), &mut io::sink())? < length {
                    return Err(cut_off("zstd"));
                }
            }
            Err(error) => return Err(explained(error)),
        }
        Ok(true)
    }

    /// Decodes one block, or ends the frame.
    fn next_block(&mut self) -> io::Result<()> {
        if !self.decoder.is_finished() {
            let one = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder.decode_blocks(&mut self.source, one).map_err(explained)?;
            return Ok(());
        }
        self.state = State::BetweenFrames;
        let stored = self.decoder.get_checksum_from_data();
        if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
            return Err(corrupt("zstd", "its check sum is wrong"));
        }
        Ok(())
    }

    /// The decoder keeps back as much as later blocks may refer to, until the frame ends: so it is made to end.
    fn fail(&mut self, error: io::Error) {
        if matches!(self.state, State::InFrame) {
            let one = BlockDecodingStrategy::UptoBlocks(1);
            // What this does not bring to light is lost.
            self.decoder.decode_blocks(END_OF_FRAME.as_slice(), one).ok();
        }
        self.state = State::Failed(Some(error));
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(target);
            }
            let step = match &mut self.state {
                State::BetweenFrames => match self.next_frame() {
                    Ok(false) => return Ok(0),
                    Ok(true) => Ok(()),
                    Err(error) => Err(error),
                },
                State::InFrame => self.next_block(),
                State::Failed(error) => return error.take().map_or(Ok(0), Err),
            };
            if let Err(error) = step {
                self.fail(error);
            }
        }
    }
}

impl<R: std::fmt::Debug> std::fmt::Debug for Zstd<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, decoder: _, state } = self;
        f.debug_struct("Zstd").field("source", source).field("state", state).finish_non_exhaustive()
    }
}

fn explained(error: FrameDecoderError) -> io::Error {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, max } => corrupt(
            "zstd",
            format!(
                "it needs {} MiB of memory, more than {} MiB; decompress it by `zstd -d --long=31`",
                requested >> 20,
                max >> 20
            ),
        ),
        FrameDecoderError::DictNotProvided { .. } => {
            corrupt("zstd", "it needs a dictionary; decompress it by `zstd -d -D`")
        }
        error => match cause(&error).map(io::Error::kind) {
            Some(ErrorKind::UnexpectedEof) => cut_off("zstd"),
            Some(kind) => io::Error::new(kind, error.to_string()),
            None => corrupt("zstd", error),
        },
    }
}

/// The system's error behind another.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error.downcast_ref().or_else(|| cause(error.source()?))
}
