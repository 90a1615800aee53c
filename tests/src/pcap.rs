//! Reads capture files: pcap and pcapng.

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

fn frame(link: Linktype, time_ns: u64, data: &[u8], wire_len: u32) -> Option<Frame> {
    let l3_only = match link {
        Linktype::ETHERNET => false,
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => true,
        _ => return None,
    };
    let wire_len = (wire_len as usize).max(data.len());
    Some(Frame { time_ns, data: data.to_vec(), wire_len, vlan_tci: None, gso_size: 0, l3_only })
}
