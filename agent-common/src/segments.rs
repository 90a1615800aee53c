//! The wire packets behind one socket buffer.

use crate::{
    barrier::difference,
    window::slot::{Packet, Slot},
};

/// One socket buffer as the packets that were, or will be, on the wire.
///
/// All packets but the last are `len` bytes long. A plain packet is `count` 1 with `len` = `last_len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Wire packets, at least 1.
    pub count: u32,
    /// IP length of all but the last, in bytes.
    pub len: u32,
    /// IP length of the last, in bytes.
    pub last_len: u32,
    /// IP and transport header bytes of each.
    pub headers: u32,
    /// 1 for a super-packet whose segments' sizes are unknown, which is kept as one packet.
    pub kept: u32,
}

/// `gso_size` of a super-packet whose segments' sizes are not to be seen: in a socket buffer they lie in a
/// fragment list (SCTP; `GSO_BY_FRAGS`, include/linux/skbuff.h), in a capture nothing tells them.
pub const GSO_BY_FRAGS: u32 = 0xffff;

impl Segments {
    /// Splits `len` bytes of IP packet, `headers` of them IP and transport headers, by `gso_size` bytes
    /// of payload (0: a plain packet). `gso_segs` is not asked: virtio leaves it 0.
    #[inline(always)]
    pub fn new(len: u32, headers: u32, gso_size: u32) -> Self {
        let payload = difference(len, headers);
        if gso_size == GSO_BY_FRAGS {
            return Self { count: 1, len, last_len: len, headers, kept: 1 };
        }
        if gso_size == 0 || payload <= gso_size {
            return Self { count: 1, len, last_len: len, headers, kept: 0 };
        }
        let count = payload.div_ceil(gso_size);
        let last = payload - (count - 1) * gso_size;
        Self { count, len: headers + gso_size, last_len: headers + last, headers, kept: 0 }
    }

    /// The first, each of the middle and the last segment of a super-packet as the window remembers them. The gap
    /// lies before the first. Packed: until each comes in they are three words in place of three structures.
    #[inline(always)]
    pub fn slots(&self, iat: u64, flags: u8, direction: usize) -> [Slot; 3] {
        let spread = SegmentFlags::new(flags);
        [
            Packet::new(iat, self.len, spread.first, direction),
            Packet::new(0, self.len, spread.middle, direction),
            Packet::new(0, self.last_len, spread.last, direction),
        ]
        .map(Slot::of)
    }

    /// IP bytes of all wire packets.
    #[inline(always)]
    pub fn bytes(&self) -> u64 {
        u64::from(self.count - 1) * u64::from(self.len) + u64::from(self.last_len)
    }

    /// Bytes above the transport header of all wire packets.
    #[inline(always)]
    pub fn payload_bytes(&self) -> u64 {
        self.bytes() - u64::from(self.count) * u64::from(self.headers)
    }
}

/// TCP flags, as in byte 13 of the TCP header (RFC 9293, RFC 3168).
pub mod tcp {
    /// Sender is done.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts a connection.
    pub const RST: u8 = 0x04;
    /// Asks for delivery.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
    /// The names by bit, in the order of the features.
    pub const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

    /// The eight flags as eight bytes of 0 or 1, FIN lowest.
    #[inline(always)]
    pub fn lanes(flags: u8) -> u64 {
        LANES[flags as usize]
    }

    static LANES: [u64; 256] = {
        let mut lanes = [0; 256];
        let mut flags = 0;
        while flags < 256 {
            let mut bit = 0;
            while bit < 8 {
                lanes[flags] |= (flags as u64 >> bit & 1) << (8 * bit);
                bit += 1;
            }
            flags += 1;
        }
        lanes
    };
}

/// The flags of the segments of a super-packet, as `tcp_gso_segment` sets them (net/ipv4/tcp_offload.c):
/// FIN and PSH stay on the last only, CWR on the first only, the others on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFlags {
    /// Of the first of several.
    pub first: u8,
    /// Of those between first and last.
    pub middle: u8,
    /// Of the last of several.
    pub last: u8,
}

impl SegmentFlags {
    /// Spreads the flags of a super-packet's one header.
    #[inline(always)]
    pub fn new(flags: u8) -> Self {
        let middle = flags & !(tcp::FIN | tcp::PSH | tcp::CWR);
        Self { first: middle | flags & tcp::CWR, middle, last: flags & !tcp::CWR }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_are_the_same_bytes(payload in 0u32..600_000, headers in 20u32..120, gso in 0u32..9000) {
            let segments = Segments::new(payload + headers, headers, gso);
            prop_assert_eq!(segments.payload_bytes(), u64::from(payload));
            prop_assert!(segments.last_len <= segments.len);
            if gso > 0 {
                prop_assert_eq!(segments.count, (payload.div_ceil(gso)).max(1));
                prop_assert!(segments.len <= headers + gso);
            } else {
                prop_assert_eq!(segments.count, 1);
            }
        }
    }
}
