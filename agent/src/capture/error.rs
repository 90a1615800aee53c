//! What can be wrong with a capture, in sentences.

use std::{fmt, io, path::Path};

use super::compression::Compression;

/// A record that claims more than this many bytes is not believed: no link carries it, and memory is not made up.
pub(super) const MAX_RECORD: usize = 16 << 20;

/// A capture that cannot be read any further. All packets before were given out.
#[derive(Debug)]
pub struct Broken(Box<Place>);

#[derive(Debug)]
struct Place {
    name: String,
    compression: Compression,
    offset: u64,
    fault: Fault,
}

/// What is wrong at a place.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system, or a decompressor, does not deliver.
    Read(io::Error),
    /// The stream ends inside a header, record or block.
    CutOff { inside: &'static str },
    /// A block is too short for what it is to hold.
    CutShort { what: &'static str },
    /// A record or block claims to be longer than any is.
    TooLong { what: &'static str, claimed: usize },
    /// What stands there cannot be.
    Nonsense(String),
}

impl Fault {
    pub(super) fn nonsense(what: impl Into<String>) -> Self {
        Self::Nonsense(what.into())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Broken {
    pub(super) fn new(path: &Path, compression: Compression, offset: u64, fault: Fault) -> Self {
        Self(Box::new(Place { name: called(path), compression, offset, fault }))
    }

    /// A file that could be opened once, and not a second time.
    pub(super) fn gone(path: &Path, error: &anyhow::Error) -> Self {
        let fault = Fault::nonsense(format!("it has changed since it was opened first: {error:#}"));
        Self::new(path, Compression::None, 0, fault)
    }

    /// The file, as it is called in messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the first byte lies that could not be used, in bytes from the beginning of the (decompressed)
    /// capture.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { name, compression, offset, fault } = &*self.0;
        write!(
            f,
            "{name} cannot be read beyond byte {offset}{}: {fault}. ",
            compression.whereof()
        )?;
        match fault {
            Fault::Read(error) if !is_corrupt(error) => {
                write!(f, "What came before it was read; look after the medium, and try again")
            }
            _ => write!(f, "What came before it was read; for the rest, copy or capture it again"),
        }
    }
}

impl std::error::Error for Broken {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error}"),
            Self::CutOff { inside } => write!(f, "it ends inside {inside}, so it was cut off"),
            Self::CutShort { what } => write!(f, "{what} is shorter than its own header"),
            Self::TooLong { what, claimed } => {
                write!(
                    f,
                    "{what} claims to be {claimed} bytes long, more than the 16 MiB that any may have"
                )
            }
            Self::Nonsense(what) => write!(f, "{what}"),
        }
    }
}

/// Whether the bytes are at fault, not the system.
fn is_corrupt(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// A file's name in messages.
pub(super) fn called(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { format!("`{}`", path.display()) }
}
