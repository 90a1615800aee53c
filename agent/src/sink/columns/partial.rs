//! A file that is being written has another name, and gets its own once it is whole.
//!
//! ```text
//! x.parquet.partial          what is written; locked by who writes it
//! x.parquet.partial.footer   where the last row group ends, and the footer that would make it a file
//! x.parquet                  what is whole; or, if files are rotated, x-20261123T091500.123Z.parquet
//! ```
//!
//! A process that is killed leaves the first two, of which the next makes a file. (Arrow needs no footer beside it:
//! its tables say themselves where they end.)

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::SchemaRef;
use rustix::fs::FlockOperation;
use tracing::warn;

use super::encode::{ARROW_ALIGNMENT, Encoder};
use crate::sink::{ColumnFormat, rotate::dated, stream::Cut};

/// Least time between two points from which a file can be completed after a crash: each waits for the disk.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(1);

/// A file that has no end yet.
pub(super) struct Partial {
    names: Names,
    file: File,
    encoder: Encoder,
    /// What was encoded and is not written.
    cut: Cut,
    written: u64,
    rows: u64,
    opened: Instant,
    checkpoint: Option<Instant>,
    /// Whether the footer is in `cut`, or written.
    has_end: bool,
}

/// The names of a file in the course of time.
#[derive(Clone, Debug)]
struct Names {
    whole: PathBuf,
    partial: PathBuf,
    footer: PathBuf,
}

impl Names {
    fn of(path: &Path) -> Self {
        let with = |ending: &str| {
            let mut name = OsString::from(path);
            name.push(ending);
            PathBuf::from(name)
        };
        let (partial, footer) = (with(".partial"), with(".partial.footer"));
        Self { whole: path.to_owned(), partial, footer }
    }

    /// Gives a whole file its name. A file that has it is kept under one that tells when it was written; one that is
    /// `dated` gets such a name itself.
    fn finish(&self, file: &File, dated_name: bool) -> io::Result<PathBuf> {
        let to = if dated_name {
            dated(&self.whole, file.metadata()?.modified()?)
        } else {
            if let Ok(found) = fs::metadata(&self.whole) {
                fs::rename(&self.whole, dated(&self.whole, found.modified()?))?;
            }
            self.whole.clone()
        };
        fs::rename(&self.partial, &to)?;
        // Arrow has none, and a Parquet file is whole without.
        let _ = fs::remove_file(&self.footer);
        Ok(to)
    }
}

impl Partial {
    /// Begins a file that will be `path`. What a process that was killed left there becomes a file before.
    pub(super) fn begin(path: &Path, format: ColumnFormat, schema: &SchemaRef) -> Result<Self> {
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            bail!("it is no ordinary file, and {format} is written to no other");
        }
        let names = Names::of(path);
        let mut file = lock(&names.partial)?;
        if file.metadata()?.len() > 0 && recover(&mut file, &names, format)? {
            file = lock(&names.partial)?;
        }
        file.set_len(0)?;
        // Of a file before this one it would say what is not so.
        let _ = fs::remove_file(&names.footer);
        let mut encoder = Encoder::new(format, schema)?;
        let cut = Cut::all_of(encoder.encode(None)?);
        Ok(Self {
            names,
            file,
            encoder,
            cut,
            written: 0,
            rows: 0,
            opened: Instant::now(),
            checkpoint: None,
            has_end: false,
        })
    }

    /// Bytes written.
    pub(super) fn size(&self) -> u64 {
        self.written
    }

    /// Rows that were added.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// When it was begun.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Whether it only waits for being finished.
    pub(super) fn has_end(&self) -> bool {
        self.has_end
    }

    /// Adds a table, which [`Partial::write`] writes.
    pub(super) fn add(&mut self, table: &RecordBatch) -> Result<()> {
        self.cut.write(&self.file, &mut self.written)?;
        self.cut = Cut::all_of(self.encoder.encode(Some(table))?);
        self.rows += table.num_rows() as u64;
        Ok(())
    }

    /// Writes what was added, and notes how the file can be completed from here.
    pub(super) fn write(&mut self) -> Result<()> {
        self.cut.write(&self.file, &mut self.written)?;
        if self.checkpoint.is_some_and(|last| last.elapsed() < BETWEEN_CHECKPOINTS) {
            return Ok(());
        }
        self.note()
    }

    /// Notes how the file can be completed from behind its last table that is written.
    pub(super) fn note(&mut self) -> Result<()> {
        if let Some(footer) = self.encoder.footer()? {
            self.file.sync_data()?;
            let new = self.names.footer.with_extension("footer.new");
            fs::write(&new, [&self.written.to_le_bytes()[..], &footer].concat())?;
            fs::rename(new, &self.names.footer)?;
        }
        self.checkpoint = Some(Instant::now());
        Ok(())
    }

    /// Ends the file and gives it its name. After an error it can be tried again.
    pub(super) fn finish(&mut self, dated_name: bool) -> Result<()> {
        self.cut.write(&self.file, &mut self.written)?;
        if !self.has_end {
            self.cut = Cut::all_of(self.encoder.end()?);
            self.has_end = true;
        }
        self.cut.write(&self.file, &mut self.written)?;
        self.file.sync_all()?;
        self.names.finish(&self.file, dated_name)?;
        Ok(())
    }

    /// Whether there is a file of the name that this one would get.
    pub(super) fn would_replace(&self) -> bool {
        self.names.whole.exists()
    }

    /// Removes the file, which holds nothing.
    pub(super) fn discard(self) -> io::Result<()> {
        fs::remove_file(&self.names.partial)
    }
}

/// Opens a file that nobody else writes.
fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another process is writing {}", path.display());
    }
    Ok(file)
}

/// Makes a whole file of one that was left behind; false if there is nothing in it.
fn recover(file: &mut File, names: &Names, format: ColumnFormat) -> Result<bool> {
    let partial = names.partial.display();
    let found = match format {
        ColumnFormat::Parquet => append_footer(file, &names.footer),
        ColumnFormat::Arrow => rewrite(file, names),
    };
    let found = found.with_context(|| format!("cannot complete {partial}"))?;
    if !found {
        warn!("{partial} was left behind with no row group that is whole, and is written over");
        return Ok(false);
    }
    let whole = names.finish(file, true).with_context(|| format!("cannot rename {partial}"))?;
    warn!("{partial} was left behind; what is whole of it is now {}", whole.display());
    Ok(true)
}

/// Cuts a Parquet file behind its last whole row group, and ends it.
fn append_footer(file: &mut File, footer: &Path) -> Result<bool> {
    let noted = match fs::read(footer) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        noted => noted?,
    };
    let Some((at, footer)) = noted.split_first_chunk() else { return Ok(false) };
    let at = u64::from_le_bytes(*at);
    if file.metadata()?.len() < at {
        return Ok(false);
    }
    file.set_len(at)?;
    file.write_all(footer)?;
    file.sync_all()?;
    Ok(true)
}

/// Writes the whole tables of an Arrow file to another, which takes its name.
fn rewrite(file: &mut File, names: &Names) -> Result<bool> {
    let mut begin = [0; 6];
    if file.read_at(&mut begin, 0)? < begin.len() || begin != *b"ARROW1" {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(ARROW_ALIGNMENT as u64))?;
    let Ok(tables) = StreamReader::try_new(BufReader::new(&*file), None) else { return Ok(false) };
    let mut encoder = Encoder::new(ColumnFormat::Arrow, &tables.schema())?;
    let new = names.partial.with_extension("partial.new");
    let mut whole = File::create(&new)?;
    let mut count = 0;
    whole.write_all(&encoder.encode(None)?)?;
    // The first that cannot be read is the one that was cut off.
    for table in tables.map_while(Result::ok) {
        whole.write_all(&encoder.encode(Some(&table))?)?;
        count += 1;
    }
    whole.write_all(&encoder.end()?)?;
    whole.set_modified(file.metadata()?.modified().unwrap_or_else(|_| SystemTime::now()))?;
    whole.sync_all()?;
    if count == 0 {
        fs::remove_file(&new)?;
        return Ok(false);
    }
    fs::rename(&new, &names.partial)?;
    *file = whole;
    Ok(true)
}
