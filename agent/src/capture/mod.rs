//! Capture files, as one stream of packets in order of time.
//!
//! ```text
//! Captures: merge ── CaptureFile ─┬─ pcap, pcapng   records and blocks → packets
//!                                 ├─ Buffer         what was read and is not yet used
//!                                 ├─ Window         a plain file as it lies in the page cache, or
//!                                 └─ Stream         plain, gzip or zstd; by content, not by name
//! ```
//!
//! A packet is not copied from where it was mapped, read, or decompressed to.

mod buffer;
mod clock;
mod compression;
mod error;
mod file;
mod interfaces;
mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;
mod window;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    mem,
    path::PathBuf,
    slice,
};

use agent_common::parse::{Frame, Link};
use anyhow::{Result, bail};

pub use self::{error::Broken, link::link_type_name};
use self::{file::CaptureFile, interfaces::Interfaces};

/// A packet of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// What was captured of it.
    pub data: &'a [u8],
    /// Its length on the wire, in bytes: never less than what was captured.
    pub wire_len: u32,
    /// What it begins with; `None` if that cannot be read.
    pub link: Option<Link>,
    /// The number of its link type, see [`link_type_name`].
    pub link_type: u32,
    /// Its interface, see [`Captures::interface_name`].
    pub interface: u32,
}

impl Packet<'_> {
    /// What the parser has to know of it; `None` if its link type cannot be read.
    #[inline]
    pub fn frame(&self) -> Option<Frame> {
        let Self { wire_len, interface: ifindex, .. } = *self;
        self.link.map(|link| Frame { link, ifindex, wire_len, gso_size: 0, vlan_tci: 0 })
    }
}

/// A packet but for its bytes, which lie in its file's buffer.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    time_ns: u64,
    place: usize,
    len: usize,
    wire_len: u32,
    link: Option<Link>,
    link_type: u32,
    interface: u32,
}

/// Packets that follow one another, all of one file.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    heads: slice::Iter<'a, Head>,
    file: &'a CaptureFile,
}

impl<'a> Iterator for Batch<'a> {
    type Item = Packet<'a>;

    #[inline]
    fn next(&mut self) -> Option<Packet<'a>> {
        self.heads.next().map(|head| self.file.packet(head))
    }

    #[inline]
    fn nth(&mut self, n: usize) -> Option<Packet<'a>> {
        self.heads.nth(n).map(|head| self.file.packet(head))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.heads.size_hint()
    }
}

impl ExactSizeIterator for Batch<'_> {}

/// Open captures, merged.
///
/// Of several files the one whose next packet is the earliest goes first, and of several such the one that was
/// named first. Within a file the order stays as it is, be the times as they may.
#[derive(Debug)]
pub struct Captures {
    /// By the order they were named in.
    files: Vec<Slot>,
    interfaces: Interfaces,
    /// Whose packet was given out last.
    current: Option<usize>,
    /// When the next packets of the others were captured, and whose they are: the earliest on top.
    waiting: BinaryHeap<Reverse<Turn>>,
    /// What is still to be told: of files that broke before their first packet, and behind a batch.
    broken: VecDeque<Broken>,
    /// The file that broke behind the batch given out last.
    over: Option<usize>,
    /// Of the batch given out last.
    heads: Vec<Head>,
    /// Bytes read of files that are closed by now.
    closed: u64,
    total: Option<u64>,
}

/// Of more files than this, those whose turn has not come are closed again: a long capture in many files must
/// neither use up memory for buffers nor the files that a process may have open.
const MANY_FILES: usize = 64;

/// A file's place.
#[derive(Debug)]
enum Slot {
    Open(Box<CaptureFile>),
    /// Opened and found good, to be opened again for its first packet.
    Waiting(PathBuf),
    Done,
}

impl Captures {
    /// Opens these files, of which `-` is stdin, and reads their headers and the first packet of each.
    ///
    /// Interfaces without a name (all of pcap, and those of pcapng that have none) are called
    /// `default_interface`; further nameless ones of one pcapng section with their number in it behind that.
    ///
    /// # Errors
    ///
    /// A file cannot be opened or read, or is no capture.
    pub fn open(paths: &[PathBuf], default_interface: &str) -> Result<Self> {
        if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
            bail!("stdin can be read but once: name `-` one time only");
        }
        let mut captures = Self {
            files: Vec::new(),
            interfaces: Interfaces::new(default_interface),
            current: None,
            waiting: BinaryHeap::new(),
            broken: VecDeque::new(),
            over: None,
            heads: Vec::new(),
            closed: 0,
            total: Some(0),
        };
        for path in paths {
            let file = CaptureFile::open(path, &mut captures.interfaces)?;
            captures.total = captures.total.zip(file.size()).map(|(total, size)| total + size);
            captures.add(file, paths.len() > MANY_FILES);
        }
        Ok(captures)
    }

    fn add(&mut self, mut file: CaptureFile, many: bool) {
        match file.advance(&mut self.interfaces) {
            Ok(true) => {
                self.waiting.push(Reverse((file.head().time_ns, self.files.len())));
                let closed = many && file.size().is_some();
                self.files.push(if closed {
                    Slot::Waiting(file.path().to_owned())
                } else {
                    Slot::Open(Box::new(file))
                });
            }
            Ok(false) => self.closed += file.position(),
            Err(broken) => {
                self.closed += file.position();
                self.broken.push_back(broken);
            }
        }
    }

    /// The next packet, or `None` after the last.
    ///
    /// # Errors
    ///
    /// A file is cut off or damaged, told once, in place of its next packet. The other files go on: call again.
    pub fn next_packet(&mut self) -> Option<Result<Packet<'_>, Broken>> {
        let batch = self.next_batch(1)?;
        batch.map(|mut batch| batch.next()).transpose()
    }

    /// The next packets, at least one and at most `limit`: as many as can be had without waiting for more to read.
    ///
    /// # Errors
    ///
    /// As [`Captures::next_packet`].
    #[inline]
    pub fn next_batch(&mut self, limit: usize) -> Option<Result<Batch<'_>, Broken>> {
        let place = match self.advance()? {
            Ok(place) => place,
            Err(broken) => return Some(Err(broken)),
        };
        self.heads.clear();
        let Slot::Open(file) = self.files.get_mut(place)? else { return None };
        self.heads.push(file.head());
        if self.waiting.is_empty() {
            file.gather(&mut self.heads, limit);
        }
        while self.heads.len() < limit {
            let head = match file.next_at_hand(&mut self.interfaces) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(broken) => {
                    self.broken.push_back(broken);
                    self.over = Some(place);
                    break;
                }
            };
            let turn = (head.time_ns, place);
            if !is_first(turn, &self.waiting) {
                file.put_back(head);
                self.waiting.push(Reverse(turn));
                self.current = None;
                break;
            }
            self.heads.push(head);
        }
        if let Some(broken) = file.leave_out_lost(&mut self.heads) {
            // A file has one fault.
            if self.over.is_none() {
                self.over = Some(place);
                self.broken.push_back(broken);
            }
            if self.heads.is_empty() {
                return self.broken.pop_front().map(Err);
            }
        }
        Some(Ok(Batch { heads: self.heads.iter(), file }))
    }

    /// The name of the interface with this index: that in its file, or made of the default's.
    pub fn interface_name(&self, index: u32) -> &str {
        self.interfaces.name(index)
    }

    /// How many bytes of the files, as they lie on the disk, are read.
    pub fn position(&self) -> u64 {
        let open = self.files.iter().map(|slot| match slot {
            Slot::Open(file) => file.position(),
            Slot::Waiting(_) | Slot::Done => 0,
        });
        self.closed + open.sum::<u64>()
    }

    /// How many there are, if all are regular files.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The place of the file whose packet is next.
    #[inline]
    fn advance(&mut self) -> Option<Result<usize, Broken>> {
        if let Some(over) = self.over.take() {
            self.close(over);
        }
        if let Some(current) = self.current {
            let Slot::Open(file) = self.files.get_mut(current)? else { return None };
            match file.advance(&mut self.interfaces) {
                Ok(true) => {
                    let turn = (file.head().time_ns, current);
                    if is_first(turn, &self.waiting) {
                        return Some(Ok(current));
                    }
                    self.waiting.push(Reverse(turn));
                }
                Ok(false) => self.close(current),
                Err(broken) => {
                    self.close(current);
                    return Some(Err(broken));
                }
            }
        }
        if let Some(broken) = self.broken.pop_front() {
            return Some(Err(broken));
        }
        let next = loop {
            let Reverse((_, next)) = self.waiting.pop()?;
            // One that broke after its turn was known has none any more.
            if !matches!(self.files.get(next), Some(Slot::Done)) {
                break next;
            }
        };
        if let Err(broken) = self.open_again(next) {
            return Some(Err(broken));
        }
        self.current = Some(next);
        Some(Ok(next))
    }

    /// Opens a file that was closed until its turn.
    fn open_again(&mut self, place: usize) -> Result<(), Broken> {
        let Some(slot @ Slot::Waiting(_)) = self.files.get_mut(place) else { return Ok(()) };
        let Slot::Waiting(path) = mem::replace(slot, Slot::Done) else { return Ok(()) };
        let file = CaptureFile::open(&path, &mut self.interfaces);
        let mut file = file.map_err(|error| Broken::gone(&path, &error))?;
        if !file.advance(&mut self.interfaces)? {
            return Err(Broken::gone(&path, &anyhow::anyhow!("it has no packets any more")));
        }
        *slot = Slot::Open(Box::new(file));
        Ok(())
    }

    fn close(&mut self, place: usize) {
        self.current = None;
        if let Some(Slot::Open(file)) =
            self.files.get_mut(place).map(|slot| mem::replace(slot, Slot::Done))
        {
            self.closed += file.position();
        }
    }
}

/// When a file's next packet was captured, and the file's place.
type Turn = (u64, usize);

/// Whether it is the turn of a file that waits for none of the others.
#[inline]
fn is_first(turn: Turn, waiting: &BinaryHeap<Reverse<Turn>>) -> bool {
    waiting.peek().is_none_or(|Reverse(other)| turn < *other)
}
