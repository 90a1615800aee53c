//! What each direction of a flow has carried since the flow began.

use bytemuck::{Pod, Zeroable};

use super::{Arrival, Flow};
use crate::{
    barrier::{clear, opaque},
    layout::laid_out,
    segments::{Segments, tcp},
};

/// `init_window` of a direction that has none.
pub const NO_WINDOW: u32 = u32::MAX;

laid_out! {
/// What one direction of a flow has carried since the flow began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Totals {
    /// Wire packets.
    pub packets: u64,
    /// Σ IP length, in bytes.
    pub bytes: u64,
    /// Σ bytes above the transport header.
    pub payload_bytes: u64,
    /// Packets by TCP flag, in the order of [`tcp::NAMES`]. In the flow table those of the last packets are not in it yet:
    /// they are in the flow's `recent_flags`.
    pub flags: [u64; 8],
    /// TCP window field of the first packet, unscaled; [`NO_WINDOW`] if there is none.
    pub init_window: u32,
    /// Smallest TTL or hop limit; 0 before the first packet.
    pub ttl_min: u8,
    /// Largest TTL or hop limit; 0 before the first packet.
    pub ttl_max: u8,
    /// Zero.
    pub padding: [u8; 2],
}
}

const _: () = assert!(size_of::<Totals>() == 96);

impl Totals {
    /// What the headers of a packet say, however many segments it stands for.
    #[inline(always)]
    pub(super) fn see(&mut self, arrival: &Arrival) {
        if self.packets == 0 {
            self.init_window = arrival.measures.tcp_window;
            self.ttl_min = arrival.measures.ttl;
            self.ttl_max = arrival.measures.ttl;
        } else if arrival.measures.ttl < self.ttl_min {
            self.ttl_min = arrival.measures.ttl;
        } else if arrival.measures.ttl > self.ttl_max {
            self.ttl_max = arrival.measures.ttl;
        }
    }

    /// Adds a plain packet, but for its flags.
    #[inline(always)]
    pub(super) fn add_packet(&mut self, segments: &Segments) {
        let bytes = u64::from(segments.last_len);
        self.packets += 1;
        self.bytes += bytes;
        self.payload_bytes += bytes - u64::from(segments.headers);
    }

    /// Adds a super-packet.
    #[inline(always)]
    pub(super) fn add_segments(&mut self, segments: &Segments, tcp_flags: u8) {
        self.packets += u64::from(segments.count);
        self.bytes += segments.bytes();
        self.payload_bytes += segments.payload_bytes();
        self.add_flags(tcp::lanes(tcp_flags), segments.count.into());
    }

    /// Adds flags, in a byte each, of `count` segments.
    #[inline(always)]
    fn add_flags(&mut self, lanes: u64, count: u64) {
        let lanes = opaque(lanes);
        for bit in 0..8 {
            // One segment of a super-packet keeps these, see `SegmentFlags`.
            let single = (tcp::FIN | tcp::PSH | tcp::CWR) & 1 << bit != 0;
            let weight = if single { 1 } else { count };
            self.flags[bit] += (lanes >> (8 * bit) & 0xff) * weight;
        }
    }
}

impl Flow {
    /// Counts the flags of a packet.
    ///
    /// Eight counters for each would cost as much as all else that a packet does to the totals. So its flags are added
    /// to eight bytes of one word, and these to the totals before one can overflow, and when a vector is made.
    #[inline(always)]
    pub(super) fn note_flags(&mut self, tcp_flags: u8, direction: usize) {
        if self.recent == u8::MAX {
            self.settle_flags();
        }
        self.recent += 1;
        self.recent_flags[direction & 1] += tcp::lanes(tcp_flags);
    }

    /// Adds the recent flags to the totals.
    #[inline(always)]
    pub(super) fn settle_flags(&mut self) {
        let [fwd, bwd] = &mut self.summary.totals;
        fwd.add_flags(self.recent_flags[0], 1);
        bwd.add_flags(self.recent_flags[1], 1);
        clear(&mut self.recent_flags);
        self.recent = 0;
    }
}
