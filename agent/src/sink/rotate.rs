//! Files that are closed at a size or an age, under a name that tells when.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use ruzstd::encoding::{CompressionLevel, compress};
use tracing::warn;

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
pub(super) fn dated(path: &Path, at: SystemTime) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy()));
    let ending = ending.unwrap_or_default();
    let time = humantime::format_rfc3339_millis(at).to_string().replace(['-', ':'], "");
    let name = |number: u32| match number {
        0 => path.with_file_name(format!("{stem}-{time}{ending}")),
        _ => path.with_file_name(format!("{stem}-{time}-{number}{ending}")),
    };
    let taken = |path: &PathBuf| path.exists() || compressed(path).exists();
    // Two in one millisecond are rare, and more than a few are none.
    (0..1000).map(name).find(|path| !taken(path)).unwrap_or_else(|| name(0))
}

fn compressed(path: &Path) -> PathBuf {
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
    let mut from = Told::new(BufReader::new(File::open(path)?));
    let mut to = Told::new(BufWriter::new(File::create(to)?));
    compress(&mut from, &mut to, CompressionLevel::Fastest);
    from.finish()?;
    to.finish()?.flush()
}

/// The compressor takes it that reading and writing cannot fail, and ends the process if they do: what fails is
/// kept from it, and told afterwards.
struct Told<T> {
    inner: T,
    failed: Option<io::Error>,
}

impl<T> Told<T> {
    fn new(inner: T) -> Self {
        Self { inner, failed: None }
    }

    fn finish(self) -> io::Result<T> {
        self.failed.map_or(Ok(self.inner), Err)
    }
}

impl<T: io::Read> io::Read for Told<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        loop {
            match self.inner.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(0);
                }
                read => return read,
            }
        }
    }
}

impl<T: io::Write> io::Write for Told<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed.is_none() {
            self.failed = self.inner.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
