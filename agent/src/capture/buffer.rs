//! What of a stream was read and is not yet used, in one piece.

use std::io::{self, ErrorKind, Read as _};

use super::{
    compression::Stream,
    window::{self, Window},
};

/// A copy that still lies in the processor's cache when it is read, and leaves others room there.
const CAPACITY: usize = 64 << 10;

/// Bytes of a file that are mapped at first, when often all that is asked of many files is how they begin.
const FIRST_WINDOW: usize = 64 << 10;

/// Bytes of a file that are mapped at a time.
const WINDOW: usize = if cfg!(test) { 16 << 10 } else { 4 << 20 };

/// Bytes of a stream, from the next one that is not used yet.
#[derive(Debug)]
pub(super) struct Buffer {
    source: Stream,
    bytes: Bytes,
    start: usize,
    end: usize,
    /// Offset in the stream of the first byte of `bytes`.
    base: u64,
    /// The most that a mapped file was ever seen to hold.
    size: u64,
}

#[derive(Debug)]
enum Bytes {
    Copied(Vec<u8>),
    Mapped(Window),
}

impl Bytes {
    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Mapped(window) => window,
        }
    }
}

impl Buffer {
    /// A plain file is mapped if it can be, which is seen here; all else is read.
    pub(super) fn new(source: Stream) -> Self {
        let empty = Bytes::Copied(Vec::new());
        let mut buffer = Self { source, bytes: empty, start: 0, end: 0, base: 0, size: 0 };
        if buffer.source.plain_file().is_some() {
            // An error comes again when it is read.
            let _ = buffer.slide(0);
        }
        buffer
    }

    /// What is there.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes.as_slice()[self.start..self.end]
    }

    /// Bytes that were there when [`Buffer::fill`] was last called, by their place from [`Buffer::place`].
    #[inline]
    pub(super) fn slice(&self, place: usize, len: usize) -> &[u8] {
        // All of them are there. Without a panic for others the work is left out where nobody looks at the bytes.
        self.bytes.as_slice().get(place..place + len).unwrap_or_default()
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

    /// How far into the stream a place lies.
    #[inline]
    pub(super) fn offset_of(&self, place: usize) -> u64 {
        self.base + place as u64
    }

    /// Where the bytes come from.
    pub(super) fn source(&self) -> &Stream {
        &self.source
    }

    /// Whether it lies over a plain file.
    #[inline]
    pub(super) fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(_))
    }

    /// Up to which place what is mapped of a file can be trusted, if not to its end, and what is the matter there.
    pub(super) fn loss(&self) -> Option<(usize, io::Error)> {
        let Bytes::Mapped(window) = &self.bytes else { return None };
        let missing = window.missing();
        let size = match self.source.plain_file()?.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Some((self.start, error)),
        };
        if size < self.size {
            let left = size.saturating_sub(self.base).min(self.end as u64) as usize;
            let place = missing.map_or(left, |missing| missing.min(left));
            return Some((place, made_shorter()));
        }
        missing.map(|place| (place, io::Error::from(rustix::io::Errno::IO)))
    }

    /// Whether a page was missing when something was read of a file that is mapped.
    #[inline]
    pub(super) fn misses_a_page(&self) -> bool {
        matches!(&self.bytes, Bytes::Mapped(window) if window.missing().is_some())
    }

    /// Reads until `need` bytes are there; false if the stream ends before. Waits for no more than that: a
    /// live stream is not held up.
    pub(super) fn fill(&mut self, need: usize) -> io::Result<bool> {
        if self.data().len() >= need {
            return Ok(true);
        }
        match &mut self.bytes {
            Bytes::Copied(_) => self.read(need),
            Bytes::Mapped(_) => self.slide(need),
        }
    }

    fn read(&mut self, need: usize) -> io::Result<bool> {
        let Bytes::Copied(bytes) = &mut self.bytes else { return Ok(false) };
        if self.start > 0 {
            bytes.copy_within(self.start..self.end, 0);
            self.base += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        if bytes.len() < need {
            bytes.resize(need.next_power_of_two().max(CAPACITY), 0);
        }
        while self.end < need {
            match self.source.read(&mut bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Maps what follows of a plain file, which may have grown; false if there are fewer than `need` bytes.
    fn slide(&mut self, need: usize) -> io::Result<bool> {
        // A cut behind what is mapped is told when it is reached.
        if let Some((place, loss)) = self.loss()
            && place < self.end
        {
            return Err(loss);
        }
        let Some(file) = self.source.plain_file() else { return Ok(false) };
        let (size, offset) = (file.metadata()?.len(), self.offset());
        let most = if self.is_mapped() { WINDOW } else { FIRST_WINDOW };
        let base = window::floor(offset);
        let start = (offset - base) as usize;
        let len = size.saturating_sub(base).min((start + need).max(most) as u64) as usize;
        let enough = len >= start + need;
        if !enough && size < self.size {
            return Err(made_shorter());
        }
        if len <= start {
            return Ok(false);
        }
        // One gives way to the other.
        self.bytes = Bytes::Copied(Vec::new());
        let Ok(window) = Window::open(file, base, len) else {
            // A file system that maps no files, or too much is mapped.
            self.source.seek(offset)?;
            (self.start, self.end, self.base) = (0, 0, offset);
            return self.read(need);
        };
        self.bytes = Bytes::Mapped(window);
        (self.start, self.end, self.base) = (start, len, base);
        self.size = self.size.max(size);
        Ok(enough)
    }
}

fn made_shorter() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it was made shorter while it was read")
}
