//! Captures to start from, in every format that is read.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::capture::gzip;
use crate::{
    awkward,
    generate::mixed_frames,
    pcap::{self, Pcapng},
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
        seeds.extend([gzip(&plain), zstd::encode_all(&plain[..], 1).expect("memory"), plain]);
        seeds.extend([false, true].map(|big_endian| every_block(big_endian, packets)));
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
fn every_block(big_endian: bool, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Pcapng::new(big_endian);
    interfaces(&mut file, [1, 1]);
    for (at, (time_ns, data)) in packets.iter().enumerate() {
        let id = at as u32 % 2;
        let ticks = if id == 0 { *time_ns } else { time_ns / 1000 };
        let len = data.len() as u32;
        let words = |file: &Pcapng, words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| file.u32(*word)).collect()
        };
        let header = words(&file, &[id, (ticks >> 32) as u32, ticks as u32, len, len]);
        let mut enhanced = [header, data.clone()].concat();
        enhanced.resize(enhanced.len().next_multiple_of(4), 0);
        file.option(&mut enhanced, 1, b"why");
        file.block(6, enhanced);
        if at == 0 {
            file.block(3, [words(&file, &[len]), data.clone()].concat());
            let ends = [file.u16(0), file.u16(0xffff)].concat();
            let obsolete = words(&file, &[(ticks >> 32) as u32, ticks as u32, len, len]);
            file.block(2, [ends, obsolete, data.clone()].concat());
            // Statistics of an interface.
            file.block(5, words(&file, &[0, 0, 0]));
            file.section(&[(4, b"a seed")]);
            interfaces(&mut file, [101, 1]);
        }
    }
    file.bytes
}

/// Two interfaces: a named one in ns, and a nameless one that keeps 96 bytes.
fn interfaces(file: &mut Pcapng, [named, nameless]: [u16; 2]) {
    file.interface("eth0", named, 9, Some(0));
    file.block(1, [&file.u16(nameless)[..], &[0; 2], &file.u32(96)].concat());
}

/// A frame of zstd of one block as it is, behind one to be skipped (RFC 8878).
fn raw_zstd(content: &[u8]) -> Vec<u8> {
    let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip"].concat();
    let header = ((content.len() as u32) << 3 | 1).to_le_bytes();
    let frame = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0, 0], &header[..3], content].concat();
    [skipped, frame].concat()
}
