//! A packet capture of one interface, with super-packets and VLAN tags as the kernel holds them.
//!
//! A memory-mapped ring takes the first bytes of every frame, both ingress and egress, so that a capture
//! at full speed loses nothing; if it does, [`Capture::finish`] panics.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use crate::{
    frame::{Frame, Link},
    netns::Netns,
    sys,
};

const SLOT: usize = 512;
const BLOCK: usize = 1 << 20;
/// 64 MiB: 131,072 frames may wait for the reader.
const BLOCKS: usize = 64;
const VNET_HEADER: usize = 10;
/// The longest capture, frames; more is a fault of the test.
const LIMIT: usize = 4_000_000;

/// Which frames a capture takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// Ingress and egress.
    Both,
    /// Ingress only, as the agent sees a loopback interface.
    Ingress,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    reader: JoinHandle<Vec<Frame>>,
}

impl Capture {
    /// Starts to capture on an interface of `ns`; when this returns, every further frame is taken.
    pub fn start(ns: &Netns, interface: &str, sides: Sides) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (fd, ring) = ns.run(|| open(interface, sides).expect("packet socket with a ring"));
        let reader = std::thread::spawn({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            move || read(&fd, &ring, &stop, &count)
        });
        Self { stop, count, reader }
    }

    /// Frames read so far.
    pub fn frames_so_far(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until no frame has come for `quiet`, at most ten times as long.
    pub fn settle(&self, quiet: Duration) {
        let mut last = (self.frames_so_far(), Instant::now());
        let start = Instant::now();
        while last.1.elapsed() < quiet && start.elapsed() < quiet * 10 {
            sleep(Duration::from_millis(10));
            let now = self.frames_so_far();
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
    }

    /// Ends the capture and returns its frames in order of arrival. Panics if one was lost.
    pub fn finish(self) -> Vec<Frame> {
        self.stop.store(true, Ordering::Release);
        self.reader.join().expect("the capture's reader")
    }
}

fn open(interface: &str, sides: Sides) -> io::Result<(OwnedFd, sys::Mapping)> {
    const TPACKET_V2: u32 = 1;
    const PACKET_IGNORE_OUTGOING: i32 = 23;
    let ifindex = sys::if_index(interface);
    // Protocol 0 at first: nothing must arrive before the ring is there.
    let fd = sys::packet_socket(ifindex, 0)?;
    let set = |name, value: u32| sys::set_option(&fd, libc::SOL_PACKET, name, &value.to_ne_bytes());
    set(libc::PACKET_VERSION, TPACKET_V2)?;
    set(libc::PACKET_VNET_HDR, 1)?;
    if sides == Sides::Ingress {
        set(PACKET_IGNORE_OUTGOING, 1)?;
    }
    let request = [BLOCK, BLOCKS, SLOT, BLOCK / SLOT * BLOCKS].map(|v| (v as u32).to_ne_bytes());
    sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_RX_RING, request.as_flattened())?;
    let ring = sys::Mapping::new(&fd, BLOCK * BLOCKS)?;
    sys::bind_packet_socket(&fd, ifindex, libc::ETH_P_ALL as u16)?;
    Ok((fd, ring))
}

fn read(fd: &OwnedFd, ring: &sys::Mapping, stop: &AtomicBool, count: &AtomicUsize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut slot = 0;
    let slots = BLOCK / SLOT * BLOCKS;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let before = frames.len();
        while ring.status(slot * SLOT).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0 {
            frames.push(frame(ring.bytes(slot * SLOT, SLOT)));
            ring.status(slot * SLOT).store(libc::TP_STATUS_KERNEL, Ordering::Release);
            slot = (slot + 1) % slots;
            assert!(frames.len() <= LIMIT, "a capture of over {LIMIT} frames");
        }
        count.store(frames.len(), Ordering::Release);
        if stopping {
            break;
        }
        if before == frames.len() {
            sys::wait_readable(fd, 20);
        }
    }
    // struct tpacket_stats: packets, drops.
    let stats: [u8; 8] =
        sys::get_option(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS).expect("capture statistics");
    let drops = u32::from_ne_bytes(stats[4..].try_into().expect("4 bytes"));
    assert_eq!(drops, 0, "the capture itself lost frames, it proves nothing");
    frames
}

/// Reads one slot: `struct tpacket2_hdr`, and in front of the frame a `struct virtio_net_hdr`.
fn frame(slot: &[u8]) -> Frame {
    let u32_at = |at: usize| u32::from_ne_bytes(slot[at..at + 4].try_into().expect("4 bytes"));
    let u16_at = |at: usize| u16::from_ne_bytes(slot[at..at + 2].try_into().expect("2 bytes"));
    let status = u32_at(0);
    let (wire_len, captured) = (u32_at(4) as usize, u32_at(8) as usize);
    let start = usize::from(u16_at(12));
    let (seconds, nanoseconds) = (u64::from(u32_at(16)), u64::from(u32_at(20)));
    let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
    let vnet = start - VNET_HEADER;
    let gso = slot[vnet + 1] != 0;
    Frame {
        time_ns: seconds * 1_000_000_000 + nanoseconds,
        data: slot[start..start + captured].to_vec(),
        wire_len,
        vlan_tci: tagged.then(|| u16_at(24)),
        gso_size: if gso { u16_at(vnet + 4) } else { 0 },
        link: Link::Ethernet,
    }
}
