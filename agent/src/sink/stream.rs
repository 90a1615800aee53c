//! Lines to a file, a pipe, a terminal: anything that write(2) takes.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::Path,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Batch, Sink, SinkError, Written};

/// A sink on a file descriptor, without a buffer: a batch is one.
#[derive(Debug)]
pub struct StreamSink {
    file: File,
}

impl StreamSink {
    /// This process's standard output.
    pub fn stdout() -> io::Result<Self> {
        // Not through `io::stdout()`: its buffer would make the count of what got out a guess.
        Ok(Self { file: rustix::stdio::stdout().try_clone_to_owned()?.into() })
    }

    /// A file that lines are appended to. If it ends in the middle of a line, that line is ended first.
    pub fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        // Only what can be read back may be looked at: a FIFO would wait, a device would act.
        if file.metadata()?.is_file() && ends_inside_a_line(path) {
            (&file).write_all(b"\n")?;
        }
        Ok(Self { file })
    }
}

impl From<OwnedFd> for StreamSink {
    fn from(descriptor: OwnedFd) -> Self {
        Self { file: descriptor.into() }
    }
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

impl Sink for StreamSink {
    fn write(&mut self, batch: &Batch, written: &Written) -> Result<(), SinkError> {
        let mut rest = batch.lines.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(SinkError::Failed(ErrorKind::WriteZero.into())),
                Ok(count) => {
                    let (out, left) = rest.split_at(count);
                    written.add(newlines(out));
                    rest = left;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Standard output is shared, and another program may have made it non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_writable(&self.file)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn consumer(&self) -> io::Result<Option<OwnedFd>> {
        let kind = self.file.metadata()?.file_type();
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            Ok(Some(self.file.as_fd().try_clone_to_owned()?))
        } else {
            Ok(None)
        }
    }
}

/// Vectors whose last byte is among these: text in a line has its newlines escaped.
fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn wait_writable(file: &File) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
