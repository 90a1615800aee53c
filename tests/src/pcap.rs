//! Reads capture files, pcap and pcapng, and writes simple ones.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use pcap_parser::{
    Block, Linktype, OptionCode, PcapBlockOwned, PcapError, PcapNGOption, create_reader,
};

use crate::frame::{Frame, Link};

/// The folder of real captures named by `FEATURE_AGENT_PCAPS`, if any.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("FEATURE_AGENT_PCAPS").map(PathBuf::from)
}

/// All capture files below the folder, sorted by path.
pub fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folder().into_iter().collect();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "pcap" || e == "pcapng") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The frames of a file whose link the agent reads, up to the first damaged block.
pub fn read(path: &Path) -> Vec<Frame> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    frames(file)
}

/// The same of what a file holds.
pub fn frames(capture: impl Read + Send) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Ok(mut reader) = create_reader(1 << 20, capture) else { return frames };
    let mut interfaces: Vec<(Linktype, Clock)> = Vec::new();
    let mut big_endian = false;
    let mut legacy = (Linktype::NULL, 1000);
    loop {
        match reader.next() {
            Ok((consumed, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        let unit = if header.is_nanosecond_precision() { 1 } else { 1000 };
                        legacy = (header.network, unit);
                    }
                    PcapBlockOwned::Legacy(block) => {
                        let time = u64::from(block.ts_sec) * 1_000_000_000
                            + u64::from(block.ts_usec) * legacy.1;
                        frames.extend(frame(legacy.0, time, block.data, block.origlen));
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(block)) => {
                        interfaces.clear();
                        big_endian = block.big_endian();
                    }
                    PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
                        let clock = Clock::of(&block.options, big_endian);
                        interfaces.push((block.linktype, clock));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                        if let Some((link, clock)) = interfaces.get(block.if_id as usize) {
                            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                            let time = clock.ns(ticks);
                            let data = &block.data[..block.caplen as usize];
                            frames.extend(frame(*link, time, data, block.origlen));
                        }
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                reader.consume(consumed);
            }
            Err(PcapError::Incomplete(_)) => {
                if reader.refill().is_err() || reader.reader_exhausted() {
                    return frames;
                }
            }
            Err(_) => return frames,
        }
    }
}

/// What an interface's times count, and from when. Read from the options here: the library has no answer to a unit of
/// a power of two, and takes the offset for little-endian in any file.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// `if_tsresol`: 10⁻ʳ s, or 2⁻ʳ s with the top bit set.
    resolution: u8,
    /// `if_tsoffset`, in seconds.
    offset: i64,
}

impl Clock {
    fn of(options: &[PcapNGOption<'_>], big_endian: bool) -> Self {
        let value = |code: OptionCode| {
            let found = options.iter().find(|option| option.code == code)?;
            Some(&found.value[..usize::from(found.len).min(found.value.len())])
        };
        let resolution = value(OptionCode::IfTsresol).and_then(<[u8]>::first);
        let offset = value(OptionCode::IfTsoffset).and_then(<[u8]>::first_chunk);
        let order = if big_endian { i64::from_be_bytes } else { i64::from_le_bytes };
        Self {
            resolution: resolution.copied().unwrap_or(6),
            offset: offset.map_or(0, |bytes| order(*bytes)),
        }
    }

    /// Nanoseconds since the epoch; 0 for what lies before.
    fn ns(&self, ticks: u64) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = match self.resolution & 0x80 {
            0 => 10_u128.checked_pow(exponent),
            _ => 2_u128.checked_pow(exponent),
        };
        let since = per_second.map_or(0, |unit| u128::from(ticks) * 1_000_000_000 / unit);
        let ns = since as i128 + i128::from(self.offset) * 1_000_000_000;
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// A capture of Ethernet frames with their times in ns, as a pcap file of this machine's byte order.
pub fn file_of(packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    for (time_ns, data) in packets {
        let len = u32::try_from(data.len()).expect("a frame");
        let seconds = u32::try_from(time_ns / 1_000_000_000).expect("a time of this century");
        for word in [seconds, (time_ns % 1_000_000_000) as u32, len, len] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(data);
    }
    bytes
}

/// Name and link type of an interface (<https://www.tcpdump.org/linktypes.html>).
pub type Interface = (&'static str, u16);

/// A packet for a capture file.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Nanoseconds since the epoch.
    pub time_ns: u64,
    /// Its place among the file's interfaces.
    pub interface: usize,
    /// What is captured of it.
    pub data: Vec<u8>,
    /// Its length on the wire.
    pub wire_len: usize,
}

/// A capture of several interfaces with times in ns, as a pcapng file.
pub fn pcapng_of(interfaces: &[Interface], packets: &[Recorded]) -> Vec<u8> {
    let mut file = Pcapng::new(false);
    for (name, link_type) in interfaces {
        file.interface(name, *link_type, 9, None);
    }
    for Recorded { time_ns, interface, data, wire_len } in packets {
        file.packet(*interface, *time_ns, data, *wire_len);
    }
    file.bytes
}

/// A pcapng file in the making.
pub(crate) struct Pcapng {
    big_endian: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Pcapng {
    /// A file of one section.
    pub(crate) fn new(big_endian: bool) -> Self {
        let mut this = Self { big_endian, bytes: Vec::new() };
        this.section(&[]);
        this
    }

    /// Begins a section, with options by their codes.
    pub(crate) fn section(&mut self, options: &[(u16, &[u8])]) {
        // Version 1.0, of unknown length.
        let version = [self.u16(1), self.u16(0)].concat();
        let mut body = [&self.u32(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat();
        for (code, value) in options {
            self.option(&mut body, *code, value);
        }
        self.block(0x0a0d_0d0a, body);
    }

    /// Describes an interface. `resolution`, `offset`: options `if_tsresol` and `if_tsoffset`.
    pub(crate) fn interface(
        &mut self,
        name: &str,
        link_type: u16,
        resolution: u8,
        offset: Option<i64>,
    ) {
        let mut body = [&self.u16(link_type)[..], &[0; 6]].concat();
        self.option(&mut body, 2, name.as_bytes());
        self.option(&mut body, 9, &[resolution]);
        if let Some(offset) = offset {
            let order = if self.big_endian { i64::to_be_bytes } else { i64::to_le_bytes };
            self.option(&mut body, 14, &order(offset));
        }
        self.option(&mut body, 0, &[]);
        self.block(1, body);
    }

    fn packet(&mut self, interface: usize, ticks: u64, data: &[u8], wire_len: usize) {
        let small = |len: usize| u32::try_from(len).expect("less than 4 GiB");
        let fields = [
            small(interface),
            (ticks >> 32) as u32,
            ticks as u32,
            small(data.len()),
            small(wire_len),
        ];
        let fields = fields.map(|field| self.u32(field));
        self.block(6, [fields.as_flattened(), data].concat());
    }

    /// Adds an option to the body of a block.
    pub(crate) fn option(&self, body: &mut Vec<u8>, code: u16, value: &[u8]) {
        let len = u16::try_from(value.len()).expect("a short value");
        body.extend([self.u16(code), self.u16(len)].as_flattened());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }

    /// Adds a block.
    pub(crate) fn block(&mut self, kind: u32, mut body: Vec<u8>) {
        body.resize(body.len().next_multiple_of(4), 0);
        let len = self.u32(u32::try_from(body.len() + 12).expect("a block"));
        self.bytes.extend(self.u32(kind));
        self.bytes.extend(len);
        self.bytes.extend(body);
        self.bytes.extend(len);
    }

    pub(crate) fn u16(&self, number: u16) -> [u8; 2] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    pub(crate) fn u32(&self, number: u32) -> [u8; 4] {
        if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() }
    }
}

/// A capture file that is there for as long as a test.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// A file of these bytes, whose name holds `name`.
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let name = format!("feature-agent-{name}-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self(path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed is left to the folder for what is temporary.
        let _ = fs::remove_file(&self.0);
    }
}

fn frame(link: Linktype, time_ns: u64, data: &[u8], wire_len: u32) -> Option<Frame> {
    let link = Link::by_number(u32::try_from(link.0).ok()?)?;
    let wire_len = (wire_len as usize).max(data.len());
    Some(Frame { time_ns, data: data.to_vec(), wire_len, vlan_tci: None, gso_size: 0, link })
}

#[cfg(test)]
mod tests {
    use feature_agent::capture::Captures;

    use super::*;

    /// Times of any unit and offset, in either byte order, by hand and by the agent's own reader.
    #[test]
    fn times_are_those_of_the_file() {
        let packet = crate::craft::ethernet(&[], crate::craft::ARP, &[0; 28]);
        let cases = [
            (6, None, 1_500_000_000_123_456, 1_500_000_000_123_456_000),
            (9, None, 1_500_000_000_123_456_789, 1_500_000_000_123_456_789),
            (3, Some(1_000_000_000), 1_500, 1_000_000_001_500_000_000),
            (0, Some(-2), 7, 5_000_000_000),
            (12, None, 5_000_000_001_999, 5_000_000_001),
            (0x8a, None, 3 * 1024 + 512, 3_500_000_000),
            (0xa0, Some(1), 1 << 31, 1_500_000_000),
        ];
        for big_endian in [false, true] {
            let mut file = Pcapng::new(big_endian);
            for (at, (resolution, offset, ticks, _)) in cases.into_iter().enumerate() {
                file.interface(&format!("eth{at}"), 1, resolution, offset);
                file.packet(at, ticks, &packet, packet.len());
            }
            let name = format!("times-{big_endian}");
            let capture = Temporary::new(&name, &file.bytes);
            let expected: Vec<u64> = cases.iter().map(|(.., ns)| *ns).collect();
            let read: Vec<u64> = read(capture.path()).iter().map(|frame| frame.time_ns).collect();
            assert_eq!(read, expected, "big-endian: {big_endian}");
            let mut captures = Captures::open(&[capture.path().to_owned()], "x").expect("a file");
            for expected in expected {
                let packet = captures.next_packet().expect("a packet").expect("a good one");
                assert_eq!(packet.time_ns, expected, "big-endian: {big_endian}");
            }
        }
    }
}
