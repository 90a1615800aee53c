//! Files of columns: Arrow and Parquet.
//!
//! Rows wait in memory until they are a row group, or its time is up. A row group is encoded in memory, written, and
//! only then counted as sent: what fails on the way is tried again, with nothing lost.

mod encode;
mod partial;
mod table;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use self::{
    partial::Partial,
    table::{Table, Told},
};
use super::{ColumnFormat, Counts, Hand, Rotation, Sink, SinkError};

/// Rows of a row group at most; fewer where tests fill many.
pub(super) const GROUP_ROWS: usize = if cfg!(test) { 512 } else { 8_192 };
/// How long a row group stays open at most.
const GROUP_AGE: Duration = Duration::from_mins(1);

/// A sink of rows.
pub(super) struct ColumnSink {
    path: PathBuf,
    format: ColumnFormat,
    counts: Arc<Counts>,
    rotation: Rotation,
    table: Table,
    /// The open row group.
    open: Vec<Told>,
    /// When its first row came.
    since: Option<Instant>,
    /// Whether the file has it, though perhaps not all of it on the disk.
    is_added: bool,
    file: Option<Partial>,
}

impl ColumnSink {
    /// Begins a file that will be `path`, or have a name like it.
    pub(super) fn create(
        path: &Path,
        format: ColumnFormat,
        counts: Arc<Counts>,
        rotation: Rotation,
    ) -> Result<Self> {
        let table = Table::new();
        let file = Some(Partial::begin(path, format, table.schema())?);
        let (path, open) = (path.to_owned(), Vec::new());
        Ok(Self { path, format, counts, rotation, table, open, since: None, is_added: false, file })
    }

    /// The file that rows are added to.
    fn file(&mut self) -> Result<&mut Partial> {
        if self.file.as_ref().is_some_and(Partial::has_end) {
            self.close()?;
        }
        if self.file.is_none() {
            self.file = Some(Partial::begin(&self.path, self.format, self.table.schema())?);
        }
        self.file.as_mut().context("there is no file")
    }

    /// Closes the row group, if there is anything in it.
    fn write_group(&mut self) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        if !self.is_added {
            let table = self.table.batch(&self.open)?;
            self.file()?.add(&table)?;
            self.is_added = true;
        }
        self.file()?.write()?;
        self.counts.send(self.open.len());
        self.open.clear();
        (self.since, self.is_added) = (None, false);
        Ok(())
    }

    fn is_dated(&self) -> bool {
        self.rotation.size.is_some() || self.rotation.age.is_some()
    }

    /// Ends the file.
    fn close(&mut self) -> Result<()> {
        let is_dated = self.is_dated();
        let Some(file) = &mut self.file else { return Ok(()) };
        // Who reads a file that is not there fails, and who reads an empty one in place of the last learns nothing.
        if file.rows() == 0 && (is_dated || file.would_replace()) {
            return Ok(self.file.take().map_or(Ok(()), Partial::discard)?);
        }
        file.finish(is_dated)?;
        self.file = None;
        Ok(())
    }

    fn close_if_due(&mut self) -> Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.is_dated()) else { return Ok(()) };
        if !self.rotation.is_due(file.size(), file.opened().elapsed()) {
            return Ok(());
        }
        self.write_group()?;
        self.close()
    }

    /// Takes what it can, and writes what is due.
    fn take(&mut self, hand: &mut Hand) -> Result<()> {
        while let Some(portion) = hand.first() {
            let some = portion.len().min(GROUP_ROWS - self.open.len());
            self.open.extend(portion.rows().take(some).map(|(row, lost)| (row.clone(), lost)));
            self.since.get_or_insert_with(Instant::now);
            hand.taken(some);
            self.write_if_due()?;
        }
        Ok(())
    }

    fn write_if_due(&mut self) -> Result<()> {
        let is_old = self.since.is_some_and(|since| since.elapsed() >= GROUP_AGE);
        // One that was added and is not written waits for that alone.
        if is_old || self.is_added || self.open.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        self.close_if_due()
    }

    /// What an error of the file means for it.
    fn checked(&mut self, done: Result<()>) -> Result<(), SinkError> {
        done.map_err(|error| {
            use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
            let goes_on = match error.root_cause().downcast_ref().map(io::Error::kind) {
                // When there is room again it is the same file.
                Some(StorageFull | QuotaExceeded) => true,
                Some(NotFound) => false,
                _ => self.file.as_ref().is_some_and(Partial::has_end),
            };
            if !goes_on {
                // The row group goes to another; this one is completed before.
                self.is_added = false;
                self.file = None;
            }
            error.into()
        })
    }
}

impl Sink for ColumnSink {
    fn open(&mut self) -> Result<(), SinkError> {
        let opened = self.file().map(|_| ());
        self.checked(opened)
    }

    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError> {
        let done = self.take(hand);
        self.checked(done)
    }

    fn at_once(&self) -> usize {
        GROUP_ROWS
    }

    fn wakes_at(&self) -> Option<Instant> {
        let group = self.since.map(|since| since + GROUP_AGE);
        let file = self.file.as_ref().filter(|file| file.rows() > 0 || !self.open.is_empty());
        let age = file.zip(self.rotation.age).map(|(file, age)| file.opened() + age);
        match (group, age) {
            (Some(group), Some(age)) => Some(group.min(age)),
            (group, age) => group.or(age),
        }
    }

    fn idle(&mut self) -> Result<(), SinkError> {
        let done = self.write_if_due();
        self.checked(done)
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        let holds = self.file.as_ref().is_some_and(|file| file.rows() > 0);
        if holds || !self.open.is_empty() { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let done = self.write_group().and_then(|()| self.close());
        self.checked(done)
    }
}

impl Drop for ColumnSink {
    /// Rows of which no row group was made did not get out.
    fn drop(&mut self) {
        self.counts.lose(self.open.len());
    }
}
