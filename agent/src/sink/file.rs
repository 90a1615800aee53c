//! Lines to standard output, to a file, or to a named pipe.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::Context as _;
use rustix::fs::OFlags;

use super::{
    Counts, Form, Hand, LineStream, Rotation, Sink, SinkError,
    rotate::{Compressor, dated},
};

/// A sink of lines.
#[derive(Debug)]
pub struct FileSink {
    /// `None`: standard output.
    path: Option<PathBuf>,
    form: Form,
    /// What a new file begins with.
    header: Vec<u8>,
    counts: Arc<Counts>,
    rotation: Rotation,
    compressor: Compressor,
    stream: Option<LineStream>,
    /// Bytes that were in the file when it was opened, and when that was.
    found: u64,
    opened: Instant,
    /// Whether the file is to be opened anew before the next write.
    broken: bool,
}

impl FileSink {
    /// This process's standard output.
    pub fn stdout(form: Form, header: Vec<u8>, counts: Arc<Counts>) -> io::Result<Self> {
        // Not through `io::stdout()`: its buffer would make the count of what got out a guess.
        let file = rustix::stdio::stdout().try_clone_to_owned()?;
        Ok(Self::over(file, form, header, counts))
    }

    /// A file that has no name. When whoever reads it goes, that is the end.
    pub fn over(file: OwnedFd, form: Form, header: Vec<u8>, counts: Arc<Counts>) -> Self {
        let stream = LineStream::new(file, form, header.clone(), Arc::clone(&counts));
        let mut sink = Self::new(None, form, header, counts, Rotation::default());
        sink.stream = Some(stream);
        sink.broken = false;
        sink
    }

    /// A file that lines are appended to; or a named pipe, whose reader may come later.
    pub fn append(
        path: &Path,
        form: Form,
        header: Vec<u8>,
        counts: Arc<Counts>,
        rotation: Rotation,
    ) -> io::Result<Self> {
        let mut sink = Self::new(Some(path.to_owned()), form, header, counts, rotation);
        match sink.open_file() {
            // A named pipe that nobody has opened for reading.
            Err(error) if error.raw_os_error() == Some(NO_READER) => {}
            opened => opened?,
        }
        Ok(sink)
    }

    fn new(
        path: Option<PathBuf>,
        form: Form,
        header: Vec<u8>,
        counts: Arc<Counts>,
        rotation: Rotation,
    ) -> Self {
        Self {
            path,
            form,
            header,
            counts,
            rotation,
            compressor: Compressor::default(),
            stream: None,
            found: 0,
            opened: Instant::now(),
            broken: true,
        }
    }

    fn open_file(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let (file, found) = open(path)?;
        let header = if found == 0 { self.header.clone() } else { Vec::new() };
        if let Some(stream) = &mut self.stream {
            stream.go_on_in(file, header);
        } else {
            let counts = Arc::clone(&self.counts);
            self.stream = Some(LineStream::new(file, self.form, header, counts));
        }
        (self.found, self.opened, self.broken) = (found, Instant::now(), false);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.found + self.stream.as_ref().map_or(0, LineStream::written)
    }

    /// Closes the file under another name and begins a new one, if it is time. A line is never cut in two.
    fn rotate(&mut self) -> io::Result<()> {
        let due = self.rotation.is_due(self.size(), self.opened.elapsed());
        let (Some(path), Some(stream)) = (&self.path, &mut self.stream) else { return Ok(()) };
        if !due || self.found + stream.written() == 0 || !stream.file().metadata()?.is_file() {
            return Ok(());
        }
        stream.end_line()?;
        let closed = dated(path, SystemTime::now());
        fs::rename(path, &closed)?;
        self.broken = true;
        self.open_file()?;
        if self.rotation.zstd {
            self.compressor.compress(closed)?;
        }
        Ok(())
    }

    /// What an error of the file means for it.
    fn failed(&mut self, error: io::Error) -> SinkError {
        match (error.kind(), &self.path) {
            (ErrorKind::BrokenPipe, None) => SinkError::Closed,
            // When there is room again it is the same file, and the line goes on.
            (ErrorKind::StorageFull | ErrorKind::QuotaExceeded, _) => error.into(),
            _ => {
                self.broken = true;
                error.into()
            }
        }
    }

    fn with_stream(
        &mut self,
        work: impl FnOnce(&mut LineStream) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let done = self.rotate().and_then(|()| self.stream.as_mut().map_or(Ok(()), work));
        done.map_err(|error| self.failed(error))
    }
}

impl Sink for FileSink {
    fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    fn open(&mut self) -> Result<(), SinkError> {
        if self.broken {
            self.open_file().context("cannot open it for writing")?;
        }
        Ok(())
    }

    fn write(&mut self, hand: &mut Hand) -> Result<(), SinkError> {
        self.with_stream(|stream| stream.write(hand))
    }

    fn wakes_at(&self) -> Option<Instant> {
        let stream = self.stream.as_ref()?;
        if stream.is_inside_a_line() {
            return Some(Instant::now());
        }
        self.rotation.age.filter(|_| self.size() > 0).map(|age| self.opened + age)
    }

    fn idle(&mut self) -> Result<(), SinkError> {
        self.with_stream(LineStream::end_line)
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        self.broken |= self.path.is_some();
        self.open()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let ended = match &mut self.stream {
            Some(stream) => stream.end_line(),
            None => Ok(()),
        };
        self.compressor.wait();
        ended.map_err(|error| self.failed(error))
    }

    fn consumer(&self) -> io::Result<Option<OwnedFd>> {
        let (None, Some(stream)) = (&self.path, &self.stream) else { return Ok(None) };
        let kind = stream.file().metadata()?.file_type();
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            Ok(Some(stream.file().as_fd().try_clone_to_owned()?))
        } else {
            Ok(None)
        }
    }
}

/// ENXIO: a named pipe has no reader.
const NO_READER: i32 = rustix::io::Errno::NXIO.raw_os_error();

/// Opens a file for appending; tells how long it is. If it ends in the middle of a line, that line is ended first.
fn open(path: &Path) -> io::Result<(File, u64)> {
    // Without O_NONBLOCK a named pipe would wait for its reader, and nobody could stop the agent.
    let no_wait = OFlags::NONBLOCK.bits() as i32;
    let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    if is_pipe {
        let file = OpenOptions::new().write(true).custom_flags(no_wait).open(path)?;
        return Ok((file, 0));
    }
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let found = file.metadata()?;
    // Only what can be read back may be looked at: a device would act.
    if found.is_file() && ends_inside_a_line(path) {
        file.write_all(b"\n")?;
    }
    Ok((file, if found.is_file() { found.len() } else { 0 }))
}

fn ends_inside_a_line(path: &Path) -> bool {
    let last_byte = || -> io::Result<u8> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last)?;
        Ok(last[0])
    };
    // An empty file has no last byte.
    last_byte().is_ok_and(|byte| byte != b'\n')
}
