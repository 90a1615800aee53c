//! Files that are closed at a size or an age, under a name that tells when.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use tracing::warn;
use zstd::{DEFAULT_COMPRESSION_LEVEL, Encoder};

/// When a file is closed and another begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes, at least.
    pub size: Option<u64>,
    /// Time since it was opened.
    pub age: Option<Duration>,
    /// Whether files that are closed are compressed.
    pub zstd: bool,
}

impl Rotation {
    /// Whether a file of this size and age is closed.
    pub fn is_due(&self, size: u64, age: Duration) -> bool {
        self.size.is_some_and(|limit| size >= limit) || self.age.is_some_and(|limit| age >= limit)
    }
}

/// A name beside `path` that holds the time, in UTC, and that no file has: `dir/name-20261123T091500.123Z.ext`.
///
/// Of two in one millisecond the later has the next one, so that names sort as the files came.
pub(super) fn dated(path: &Path, mut at: SystemTime) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    let ending = ending.unwrap_or_default();
    loop {
        let time = humantime::format_rfc3339_millis(at).to_string().replace(['-', ':'], "");
        let path = path.with_file_name(format!("{stem}-{time}{ending}"));
        if !path.exists() && !compressed(&path).exists() {
            return path;
        }
        at += Duration::from_millis(1);
    }
}

/// The name of a file's compressed form.
pub(super) fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    name.into()
}

/// Files being compressed, one after the other, beside the sink's thread.
#[derive(Debug, Default)]
pub(super) struct Compressor(Option<JoinHandle<()>>);

impl Compressor {
    /// Replaces a closed file by its compressed form. Waits for the one before.
    pub(super) fn compress(&mut self, path: PathBuf) -> io::Result<()> {
        self.wait();
        let work = move || {
            if let Err(error) = replace(&path) {
                warn!("{} stays as it is, since it cannot be compressed: {error}", path.display());
            }
        };
        self.0 = Some(thread::Builder::new().name("zstd".into()).spawn(work)?);
        Ok(())
    }

    /// Waits until all is done.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.0.take() {
            // What it has to say it has said.
            let _ = thread.join();
        }
    }
}

fn replace(path: &Path) -> io::Result<()> {
    let partial = path.with_extension("zst.partial");
    let outcome = write_compressed(path, &partial)
        .and_then(|()| fs::rename(&partial, compressed(path)))
        .and_then(|()| fs::remove_file(path));
    if outcome.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&partial);
    }
    outcome
}

fn write_compressed(path: &Path, to: &Path) -> io::Result<()> {
    let mut to = Encoder::new(File::create(to)?, DEFAULT_COMPRESSION_LEVEL)?;
    to.include_checksum(true)?;
    io::copy(&mut File::open(path)?, &mut to)?;
    to.finish()?;
    Ok(())
}
