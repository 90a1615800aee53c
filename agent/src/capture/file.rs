//! One capture file: opened, recognised, decompressed, and read packet by packet.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Head, Packet,
    buffer::Buffer,
    compression::{Compression, Input, Stream},
    error::{Broken, Fault, called},
    interfaces::Interfaces,
    pcap::{self, Pcap},
    pcapng::{self, Pcapng},
};

/// An open capture.
#[derive(Debug)]
pub(super) struct CaptureFile {
    path: PathBuf,
    /// In bytes, if it is a regular file.
    size: Option<u64>,
    buffer: Buffer,
    format: Format,
    head: Head,
    /// Where the last packet ends that was given out of a mapped file.
    given: u64,
    /// Where it is looked at next.
    next_look: u64,
}

/// Bytes between two looks at a mapped file, each of which takes as long as a packet.
const LOOK_EVERY: u64 = 64 << 10;

#[derive(Debug)]
enum Format {
    Pcap(Pcap),
    Pcapng(Pcapng),
}

impl CaptureFile {
    /// Opens a file, or stdin for `-`, and reads its header.
    pub(super) fn open(path: &Path, interfaces: &mut Interfaces) -> Result<Self> {
        let name = called(path);
        let (input, size) = input(path)?;
        let stream = Stream::new(input).with_context(|| format!("cannot read {name}"))?;
        let compression = stream.compression();
        let mut buffer = Buffer::new(stream);
        let format = format(&mut buffer, interfaces);
        let format = format.map_err(|fault| refused(&name, compression, &fault))?;
        let Some(format) = format else {
            bail!("{}", unknown(&name, compression, buffer.data()));
        };
        let given = buffer.offset();
        Ok(Self {
            path: path.to_owned(),
            size,
            buffer,
            format,
            head: Head::default(),
            given,
            next_look: 0,
        })
    }

    /// Moves to the next packet; false if there is none.
    #[inline]
    pub(super) fn advance(&mut self, interfaces: &mut Interfaces) -> Result<bool, Broken> {
        let Self { buffer, format, head, .. } = self;
        let found = match format {
            Format::Pcap(pcap) => pcap.next(buffer, head),
            Format::Pcapng(pcapng) => pcapng.next(buffer, interfaces, head),
        };
        found.map_err(|fault| self.broken(fault))
    }

    /// What [`CaptureFile::advance`] found.
    #[inline]
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// The packet behind, if that takes no more reading: until more is read the packets found before stay where they
    /// are.
    #[inline]
    pub(super) fn next_at_hand(
        &mut self,
        interfaces: &mut Interfaces,
    ) -> Result<Option<Head>, Broken> {
        let Self { buffer, format, .. } = self;
        match format {
            Format::Pcap(pcap) => Ok(pcap.next_at_hand(buffer)),
            Format::Pcapng(pcapng) if pcapng.is_whole(buffer.data()) => {
                let mut head = Head::default();
                let found = pcapng.next(buffer, interfaces, &mut head);
                found.map(|found| found.then_some(head)).map_err(|fault| self.broken(fault))
            }
            Format::Pcapng(_) => Ok(None),
        }
    }

    /// Packets behind, until there are `limit`, as far as their format lets many be found at once.
    #[inline]
    pub(super) fn gather(&mut self, heads: &mut Vec<Head>, limit: usize) {
        if let Format::Pcap(pcap) = &self.format {
            pcap.gather(&mut self.buffer, heads, limit);
        }
    }

    /// Keeps the packet found last for later, as if [`CaptureFile::advance`] had found it.
    pub(super) fn put_back(&mut self, head: Head) {
        self.head = head;
    }

    /// A packet that was found since more was read.
    #[inline]
    pub(super) fn packet(&self, head: &Head) -> Packet<'_> {
        Packet {
            time_ns: head.time_ns,
            data: self.buffer.slice(head.place, head.len),
            wire_len: head.wire_len,
            link: head.link,
            link_type: head.link_type,
            interface: head.interface,
        }
    }

    /// Leaves out packets of a mapped file that are not there any more, or cannot be read; says so then.
    ///
    /// The file is looked at every [`LOOK_EVERY`] bytes, and where a record is empty, as those behind an end are: a cut between
    /// two looks may show as packets that are cut off before it is told, never as an end of the capture.
    #[inline]
    pub(super) fn leave_out_lost(&mut self, heads: &mut Vec<Head>) -> Option<Broken> {
        let last = heads.last().filter(|_| self.buffer.is_mapped())?;
        let end = self.buffer.offset_of(last.place + last.len);
        if last.wire_len != 0 && end < self.next_look && !self.buffer.misses_a_page() {
            self.given = end;
            return None;
        }
        self.next_look = end + LOOK_EVERY;
        let found = heads.len();
        let loss = self.buffer.loss();
        if let Some((place, _)) = loss {
            heads.retain(|head| head.place + head.len <= place);
        }
        if let Some(last) = heads.last() {
            self.given = self.buffer.offset_of(last.place + last.len);
        }
        let (_, loss) = loss.filter(|_| heads.len() < found)?;
        Some(Broken::new(&self.path, Compression::None, self.given, loss.into()))
    }

    /// What was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes were read from the file, as it lies on the disk.
    pub(super) fn position(&self) -> u64 {
        if self.buffer.is_mapped() { self.buffer.offset() } else { self.buffer.source().position() }
    }

    /// Of the file as it lies on the disk, in bytes; `None` if it is no regular file.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    #[cold]
    fn broken(&self, fault: Fault) -> Broken {
        let compression = self.buffer.source().compression();
        // What is wrong with the bytes may be that they are none.
        let fault = self.buffer.loss().map_or(fault, |(_, loss)| loss.into());
        Broken::new(&self.path, compression, self.buffer.offset(), fault)
    }
}

fn input(path: &Path) -> Result<(Input, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Input::Stdin(io::stdin()), None));
    }
    let name = called(path);
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot read {name}"))?;
    if metadata.is_dir() {
        bail!("{name} is a directory. Name the captures in it, as in `{}/*.pcap`", path.display());
    }
    Ok((Input::File(file), metadata.is_file().then_some(metadata.len())))
}

/// Reads the header of whichever format it is; `None` if it is none that is known.
fn format(buffer: &mut Buffer, interfaces: &mut Interfaces) -> Result<Option<Format>, Fault> {
    buffer.fill(4)?;
    Ok(match buffer.data().first_chunk().copied() {
        Some(magic) if pcap::is_pcap(magic) => Some(Format::Pcap(Pcap::open(buffer, interfaces)?)),
        Some(magic) if pcapng::is_pcapng(magic) => Some(Format::Pcapng(Pcapng::open(buffer)?)),
        _ => None,
    })
}

fn refused(name: &str, compression: Compression, fault: &Fault) -> anyhow::Error {
    anyhow::anyhow!("{name} holds no packet that can be read: {fault}{}", compression.within())
}

fn unknown(name: &str, compression: Compression, data: &[u8]) -> String {
    let within = compression.within();
    if data.is_empty() {
        return format!("{name} is empty{within}: a capture has a header even without packets");
    }
    let advice = match data {
        [b'B', b'Z', b'h', ..] => {
            "It looks like bzip2: pipe it, as in `bzcat … | feature-agent replay -`"
        }
        [0xfd, b'7', b'z', b'X', ..] => {
            "It looks like xz: pipe it, as in `xzcat … | feature-agent replay -`"
        }
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            "It looks like lz4: pipe it, as in `lz4cat … | feature-agent replay -`"
        }
        [b'P', b'K', ..] => "It looks like a zip archive: unpack it first",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => "It is compressed twice: decompress it once",
        _ => {
            "pcap and pcapng are read, plain or compressed by gzip or zstd; `editcap in out` of Wireshark \
             makes pcapng of other formats"
        }
    };
    let begin: Vec<String> = data.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{name} is no capture: it begins with the bytes {}{within}. {advice}", begin.join(" "))
}
