//! Lines to a file, a pipe, a socket, a terminal: anything that write(2) takes.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    os::fd::OwnedFd,
    sync::Arc,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Counts, Form, Hand};

/// An open file that lines are written to, without a buffer: a batch is one.
#[derive(Debug)]
pub struct LineStream {
    file: File,
    form: Form,
    counts: Arc<Counts>,
    /// What is to be written before anything else: the header, and a line that was cut off.
    header: Cut,
    line: Cut,
    /// Bytes written.
    written: u64,
}

/// Bytes of which a part is out.
#[derive(Debug, Default)]
pub(super) struct Cut {
    bytes: Vec<u8>,
    out: usize,
}

impl LineStream {
    /// Begins with a header, or with none.
    pub fn new(file: impl Into<OwnedFd>, form: Form, header: Vec<u8>, counts: Arc<Counts>) -> Self {
        let file = File::from(file.into());
        Self { file, form, counts, header: Cut::all_of(header), line: Cut::default(), written: 0 }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether a line was begun and is not out.
    pub fn is_inside_a_line(&self) -> bool {
        !self.line.bytes.is_empty()
    }

    /// Goes on in another file, which begins with this header: with the whole line that was cut off.
    pub fn go_on_in(&mut self, file: File, header: Vec<u8>) {
        self.file = file;
        self.written = 0;
        self.header = Cut::all_of(header);
        self.line.out = 0;
    }

    /// Writes the vectors in hand. Each is counted as soon as its last byte is out.
    pub fn write(&mut self, hand: &mut Hand) -> io::Result<()> {
        self.end_line()?;
        while let Some(portion) = hand.first() {
            let lines = portion.lines(self.form);
            let vectors = portion.len();
            let (mut out, mut whole) = (0, 0);
            let failed = loop {
                if out == lines.len() {
                    break None;
                }
                match write_some(&self.file, &lines.from(out)) {
                    Ok(count) => out += count,
                    Err(error) => break Some(error),
                }
                let before = whole;
                while whole < vectors && lines.end(whole) <= out {
                    whole += 1;
                }
                self.counts.send(whole - before);
            };
            self.written += out as u64;
            let begin = if whole == 0 { 0 } else { lines.end(whole - 1) };
            if out > begin {
                let bytes = portion.line(self.form, whole).into_owned();
                self.line = Cut { bytes, out: out - begin };
                whole += 1;
            }
            hand.taken(whole);
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what is left of the header, and of a line that was cut off.
    pub fn end_line(&mut self) -> io::Result<()> {
        for cut in [&mut self.header, &mut self.line] {
            cut.write(&self.file, &mut self.written)?;
        }
        if !std::mem::take(&mut self.line).bytes.is_empty() {
            self.counts.send(1);
        }
        self.header = Cut::default();
        Ok(())
    }
}

impl Drop for LineStream {
    /// A line that was never ended did not get out.
    fn drop(&mut self) {
        if self.is_inside_a_line() {
            self.counts.lose(1);
        }
    }
}

impl Cut {
    /// Of which nothing is out.
    pub(super) fn all_of(bytes: Vec<u8>) -> Self {
        Self { bytes, out: 0 }
    }

    /// Writes what is left, and counts it in `written`. After an error it goes on where it was.
    pub(super) fn write(&mut self, file: &File, written: &mut u64) -> io::Result<()> {
        while self.out < self.bytes.len() {
            let count = write_some(file, &[io::IoSlice::new(&self.bytes[self.out..])])?;
            self.out += count;
            *written += count as u64;
        }
        Ok(())
    }
}

/// Writes at least one byte.
fn write_some(mut file: &File, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // As pipes and sockets are opened here; standard output is shared, and may be of another program's making.
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_writable(file)?,
            Err(error) => return Err(error),
        }
    }
}

fn wait_writable(file: &File) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
