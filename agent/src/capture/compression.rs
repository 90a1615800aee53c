//! Compressed streams, recognised by how they begin.

mod gzip;
mod zstd;

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom, Stdin},
    ops::Range,
};

use self::{gzip::Gzip, zstd::Zstd};

/// Of compressed bytes.
const CAPACITY: usize = 64 << 10;
/// The most that is looked at to recognise a format.
const MAGIC: usize = 4;

/// How a capture is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// For an offset: of which bytes it is.
    pub(super) fn whereof(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => " of what gzip decompresses",
            Self::Zstd => " of what zstd decompresses",
        }
    }

    /// For a sentence about the whole.
    pub(super) fn within(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => " (decompressed by gzip)",
            Self::Zstd => " (decompressed by zstd)",
        }
    }
}

/// The bytes of a capture, decompressed if need be.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Raw),
    Gzip(Box<Gzip<BufReader<Raw>>>),
    Zstd(Box<Zstd<BufReader<Raw>>>),
}

impl Stream {
    /// Reads the first bytes to see how it is compressed.
    pub(super) fn new(input: Input) -> io::Result<Self> {
        let mut raw = Raw { input, head: [0; MAGIC], head_unused: 0..0, position: 0 };
        raw.look_ahead()?;
        let magic = raw.head;
        Ok(match &magic[..raw.head_unused.end] {
            [0x1f, 0x8b, ..] => {
                Self::Gzip(Box::new(Gzip::new(BufReader::with_capacity(CAPACITY, raw))))
            }
            magic if zstd::is_zstd(magic) => {
                Self::Zstd(Box::new(Zstd::new(BufReader::with_capacity(CAPACITY, raw))?))
            }
            _ => Self::Plain(raw),
        })
    }

    pub(super) fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// The file that it is, if nothing has to be done to its bytes.
    pub(super) fn plain_file(&self) -> Option<&File> {
        match self {
            Self::Plain(Raw { input: Input::File(file), .. }) => Some(file),
            _ => None,
        }
    }

    /// Goes on at an offset of a plain file.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        let Self::Plain(Raw { input: Input::File(file), head_unused, position, .. }) = self else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(offset))?;
        *head_unused = 0..0;
        *position = offset;
        Ok(())
    }

    /// How many bytes were taken from the file.
    pub(super) fn position(&self) -> u64 {
        match self {
            Self::Plain(raw) => raw.position,
            Self::Gzip(gzip) => gzip.source().get_ref().position,
            Self::Zstd(zstd) => zstd.source().get_ref().position,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(raw) => raw.read(target),
            Self::Gzip(gzip) => gzip.read(target),
            Self::Zstd(zstd) => zstd.read(target),
        }
    }
}

/// Where bytes come from.
#[derive(Debug)]
pub(super) enum Input {
    File(File),
    Stdin(Stdin),
}

impl Read for Input {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(target),
            Self::Stdin(stdin) => stdin.read(target),
        }
    }
}

/// The bytes of a file, the first of which can be looked at before they are read.
#[derive(Debug)]
pub(super) struct Raw {
    input: Input,
    head: [u8; MAGIC],
    head_unused: Range<usize>,
    position: u64,
}

impl Raw {
    fn look_ahead(&mut self) -> io::Result<()> {
        while self.head_unused.end < MAGIC {
            match self.input.read(&mut self.head[self.head_unused.end..]) {
                Ok(0) => break,
                Ok(read) => self.head_unused.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Raw {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let read = if self.head_unused.is_empty() {
            self.input.read(target)?
        } else {
            let len = self.head_unused.len().min(target.len());
            let from = self.head_unused.start;
            target[..len].copy_from_slice(&self.head[from..from + len]);
            self.head_unused.start += len;
            len
        };
        self.position += read as u64;
        Ok(read)
    }
}

/// The error of a stream that ends too early.
fn cut_off(format: &str) -> io::Error {
    let text = format!("the {format} data ends too early, so it was cut off");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// The error of a stream that is damaged.
fn corrupt(format: &str, how: impl fmt::Display) -> io::Error {
    let text = format!("the {format} data is damaged ({how})");
    io::Error::new(io::ErrorKind::InvalidData, text)
}
