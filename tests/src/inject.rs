//! Sends prepared frames into a cable.

use std::{
    io,
    os::fd::OwnedFd,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{netns::Netns, sys};

/// How fast to send.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as the kernel takes them.
    FullSpeed,
    /// A pause after each frame.
    Every(Duration),
}

/// Sends frames into one end of a cable, from whatever thread.
#[derive(Debug)]
pub struct Injector {
    fd: OwnedFd,
}

impl Injector {
    /// Opens an interface of `ns` for sending.
    pub fn new(ns: &Netns, interface: &str) -> Self {
        let fd = ns.run(|| sys::packet_socket(sys::if_index(interface), 0).expect("packet socket"));
        Self { fd }
    }

    /// Sends the first few of `frames`, at least one; returns how many the kernel took.
    pub fn send(&self, frames: &[&[u8]]) -> usize {
        loop {
            match sys::send_batch(&self.fd, frames) {
                Ok(count) => return count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    sleep(Duration::from_millis(1));
                }
                Err(e) => panic!("a frame of {} bytes: {e}", frames[0].len()),
            }
        }
    }
}

/// Sends `frames` in order through an interface of `ns`, from one processor so that order is kept.
///
/// Returns how many the kernel took; it is an error of the test when that is not all of them.
pub fn send(ns: &Netns, interface: &str, frames: &[Vec<u8>], pace: Pace) -> usize {
    let injector = Injector::new(ns, interface);
    ns.run(|| {
        sys::pin_to_cpu(0);
        let chunk = match pace {
            Pace::FullSpeed => 64,
            Pace::Every(_) => 1,
        };
        let mut sent = 0;
        while sent < frames.len() {
            let until = frames.len().min(sent + chunk);
            let batch: Vec<&[u8]> = frames[sent..until].iter().map(Vec::as_slice).collect();
            sent += injector.send(&batch);
            if let Pace::Every(pause) = pace {
                sleep(pause);
            }
        }
        sent
    })
}

/// Sends one super-packet: `frame` is a whole TCP frame, cut by the kernel into parts of `gso_size` bytes.
///
/// The frame crosses a veth uncut, as one that a real stack made would.
pub fn send_super_packet(ns: &Netns, interface: &str, frame: &[u8], gso_size: u16, v6: bool) {
    ns.run(|| {
        sys::pin_to_cpu(0);
        let fd = sys::packet_socket(sys::if_index(interface), 0).expect("packet socket");
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1u32.to_ne_bytes())
            .expect("PACKET_VNET_HDR");
        // struct virtio_net_hdr: checksum to be finished by the device, and the kind of super-packet.
        let l3 = if v6 { 40u16 } else { 20 };
        let tcp_header = 4 * u16::from(frame[usize::from(14 + l3) + 12] >> 4);
        let mut message = vec![1, if v6 { 4 } else { 1 }];
        for field in [14 + l3 + tcp_header, gso_size, 14 + l3, 16] {
            message.extend(field.to_ne_bytes());
        }
        message.extend(frame);
        sys::send_batch(&fd, &[&message]).expect("send a super-packet");
    });
}

/// Waits until `done` holds, at most `limit`; false when it never did. On an emulated processor, which may have to share
/// a real one, things may take longer.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let limit = if sys::is_emulated() { limit * 10 } else { limit };
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
}
