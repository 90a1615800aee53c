//! Captures to start from, in every format that is read.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::capture::gzip;
use crate::{
    awkward,
    generate::mixed_frames,
    pcap::{self, Order, block, option},
};

/// Real captures longer than this slow a fuzzer down.
const LONGEST: u64 = 32 << 10;

/// A file in memory.
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn new(content: &[u8]) -> Self {
        let fd = memfd_create("capture", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
        let mut file = File::from(fd);
        file.write_all(content).expect("room in memory");
        Self(file)
    }

    /// By which it can be opened while it lives.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Generated captures in every format, and the short ones of `FEATURE_AGENT_PCAPS`.
pub(super) fn captures() -> Vec<Vec<u8>> {
    let mixed = timed(mixed_frames(2, 60));
    let mut seeds = Vec::new();
    for packets in [&mixed[..], &mixed[..1], &[]] {
        let plain = pcap::file_of(packets);
        seeds.extend([gzip(&plain), compress_to_vec(&plain[..], CompressionLevel::Fastest), plain]);
        seeds.extend([Order::Native, Order::Swapped].map(|order| every_block(order, packets)));
    }
    // Packets of many kinds on interfaces of many types.
    let awkward = awkward::capture(3, 1000);
    let parts = awkward.packets.chunks(40).step_by(5);
    seeds.extend(parts.map(|packets| pcap::pcapng_of(&awkward.interfaces, packets)));
    // More was captured than there was.
    let mut odd = pcap::file_of(&mixed[..3]);
    odd[36..40].fill(0);
    seeds.push(odd);
    seeds.extend([raw_zstd(&pcap::file_of(&mixed[..3])), Vec::new(), b"no capture".to_vec()]);
    let short = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.len() <= LONGEST);
    let real = pcap::files().into_iter().filter(short);
    let read =
        |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    seeds.extend(real.map(read));
    seeds
}

/// Frames with times between which flows speak, pause and end.
fn timed(frames: Vec<Vec<u8>>) -> Vec<(u64, Vec<u8>)> {
    let mut time_ns = 1_700_000_000_000_000_000;
    let mut step_ns = 1000;
    let stamp = |frame| {
        step_ns = if step_ns > 20_000_000_000 { 1000 } else { step_ns * 3 };
        time_ns += step_ns;
        (time_ns, frame)
    };
    frames.into_iter().map(stamp).collect()
}

/// The packets in pcapng's blocks of every kind, of two interfaces and, after the first, of a second section
/// (draft-ietf-opsawg-pcapng).
fn every_block(order: Order, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    section(order, &mut file, [1, 1]);
    for (at, (time_ns, data)) in packets.iter().enumerate() {
        let id = at as u32 % 2;
        let ticks = if id == 0 { *time_ns } else { time_ns / 1000 };
        let len = data.len() as u32;
        let words = |words: &[u32]| words.iter().flat_map(|word| order.u32(*word)).collect();
        let with_data = |mut header: Vec<u8>| {
            header.extend(data);
            header
        };
        let mut enhanced = with_data(words(&[id, (ticks >> 32) as u32, ticks as u32, len, len]));
        enhanced.resize(enhanced.len().next_multiple_of(4), 0);
        option(order, &mut enhanced, 1, b"why");
        block(order, &mut file, 6, enhanced);
        if at == 0 {
            block(order, &mut file, 3, with_data(words(&[len])));
            let ends = [order.u16(0), order.u16(0xffff)].concat();
            let obsolete: Vec<u8> = words(&[(ticks >> 32) as u32, ticks as u32, len, len]);
            block(order, &mut file, 2, with_data([ends, obsolete].concat()));
            // Statistics of an interface.
            block(order, &mut file, 5, words(&[0, 0, 0]));
            section(order, &mut file, [101, 1]);
        }
    }
    file
}

/// A section's header and two interfaces: a named one in ns, and a nameless one that keeps 96 bytes.
fn section(order: Order, file: &mut Vec<u8>, link_types: [u16; 2]) {
    let mut header =
        [order.u32(0x1a2b_3c4d).as_slice(), &order.u16(1), &[0; 2], &[0xff; 8]].concat();
    option(order, &mut header, 4, b"a seed");
    block(order, file, 0x0a0d_0d0a, header);
    let [mut named, nameless] = [(link_types[0], 0), (link_types[1], 96)]
        .map(|(link_type, snap)| [&order.u16(link_type)[..], &[0; 2], &order.u32(snap)].concat());
    option(order, &mut named, 2, b"eth0");
    option(order, &mut named, 9, &[9]);
    option(order, &mut named, 14, &[0; 8]);
    option(order, &mut named, 0, &[]);
    block(order, file, 1, named);
    block(order, file, 1, nameless);
}

/// A frame of zstd of one block as it is, behind one to be skipped (RFC 8878).
fn raw_zstd(content: &[u8]) -> Vec<u8> {
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip"].concat();
    let header = ((content.len() as u32) << 3 | 1).to_le_bytes();
    let frame = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0, 0], &header[..3], content].concat();
    [skipped, frame].concat()
}
