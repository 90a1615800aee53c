//! Reads capture files, pcap and pcapng, and writes simple ones.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

use crate::frame::Frame;

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

/// The frames of a file whose link is Ethernet or raw IP, up to the first damaged block.
pub fn read(path: &Path) -> Vec<Frame> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut frames = Vec::new();
    let Ok(mut reader) = create_reader(1 << 20, file) else { return frames };
    let mut interfaces: Vec<(Linktype, u64, u64)> = Vec::new();
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
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
                        let per_second = block.ts_resolution().unwrap_or(1_000_000);
                        let offset = block.if_tsoffset as u64;
                        interfaces.push((block.linktype, per_second, offset));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                        if let Some((link, per_second, offset)) =
                            interfaces.get(block.if_id as usize)
                        {
                            let ticks = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                            let ns = u128::from(ticks) * 1_000_000_000 / u128::from(*per_second);
                            let time = ns as u64 + offset * 1_000_000_000;
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

/// A capture of several interfaces with times in ns, as a pcapng file of this machine's byte order.
pub fn pcapng_of(interfaces: &[Interface], packets: &[Recorded]) -> Vec<u8> {
    let order = Order::Native;
    let mut bytes = Vec::new();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut section: Vec<u8> = words(&[0x1a2b_3c4d]);
    // Version 1.0, of unknown length.
    section.extend([1_u16.to_ne_bytes(), [0; 2]].as_flattened());
    section.extend([0xff; 8]);
    block(order, &mut bytes, 0x0a0d_0d0a, section);
    for (name, link_type) in interfaces {
        let mut body: Vec<u8> = words(&[(*link_type).into(), 0]);
        option(order, &mut body, 2, name.as_bytes());
        option(order, &mut body, 9, &[9]);
        option(order, &mut body, 0, &[]);
        block(order, &mut bytes, 1, body);
    }
    for Recorded { time_ns, interface, data, wire_len } in packets {
        let small = |len: usize| u32::try_from(len).expect("less than 4 GiB");
        let (high, low) = ((time_ns >> 32) as u32, *time_ns as u32);
        let mut body = words(&[small(*interface), high, low, small(data.len()), small(*wire_len)]);
        body.extend(data);
        block(order, &mut bytes, 6, body);
    }
    bytes
}

/// Byte order of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// This machine's.
    Native,
    /// The other one.
    Swapped,
}

impl Order {
    pub(crate) fn u16(self, number: u16) -> [u8; 2] {
        if self == Self::Native { number } else { number.swap_bytes() }.to_ne_bytes()
    }

    pub(crate) fn u32(self, number: u32) -> [u8; 4] {
        if self == Self::Native { number } else { number.swap_bytes() }.to_ne_bytes()
    }
}

/// Adds an option to the body of a pcapng block.
pub(crate) fn option(order: Order, body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("a short value");
    body.extend(order.u16(code));
    body.extend(order.u16(len));
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Adds a block to a pcapng file.
pub(crate) fn block(order: Order, bytes: &mut Vec<u8>, kind: u32, mut body: Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
    let len = order.u32(u32::try_from(body.len() + 12).expect("a block"));
    bytes.extend(order.u32(kind));
    bytes.extend(len);
    bytes.extend(body);
    bytes.extend(len);
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
    let l3_only = match link {
        Linktype::ETHERNET => false,
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => true,
        _ => return None,
    };
    let wire_len = (wire_len as usize).max(data.len());
    Some(Frame { time_ns, data: data.to_vec(), wire_len, vlan_tci: None, gso_size: 0, l3_only })
}
