//! The exact sliding window over a flow's last N wire packets, every accumulator updated in O(1).

pub mod bins;
pub mod entropy;
pub mod slot;

use bytemuck::{Pod, Zeroable};

use self::{
    bins::{BINS, iat_bin, len_bin},
    slot::Slot,
};
use crate::segments::{SegmentFlags, Segments};

/// Slots of the ring, and so the largest window.
pub const CAPACITY: usize = 64;

/// What the window knows in integers; [`crate::features`] finishes it.
///
/// Fields with two entries are by direction: fwd, bwd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sums {
    /// Σ iat over the n−1 gaps inside the window, in µs.
    pub iat_sum: u64,
    /// Σ iat², in µs²; 63 saturated gaps fit.
    pub iat_sq_sum: u64,
    /// Σ len², in bytes².
    pub len_sq_sum: [u64; 2],
    /// S of the length histogram, see [`entropy`].
    pub len_entropy: u64,
    /// S of the gap histogram, see [`entropy`].
    pub iat_entropy: u64,
    /// Packets by TCP flag: a byte each, FIN lowest, in the order of [`crate::segments::tcp::NAMES`].
    pub flags: u64,
    /// Σ len, in bytes.
    pub len_sum: [u32; 2],
    /// Packets in the window.
    pub packets: [u32; 2],
}

const _: () = assert!(size_of::<Sums>() == 72);

/// Smallest and largest of the window, found from the ring when a vector is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Extrema {
    /// Shortest packet, in bytes.
    pub len_min: u32,
    /// Longest packet, in bytes.
    pub len_max: u32,
    /// Shortest gap in µs; `u32::MAX` if the window holds one packet and no gap.
    pub iat_min: u32,
    /// Longest gap in µs; 0 if there is none.
    pub iat_max: u32,
}

/// The window of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Window {
    /// The accumulators.
    pub sums: Sums,
    /// Packets by length bin.
    len_bins: [u8; BINS],
    /// Gaps by bin.
    iat_bins: [u8; BINS],
    /// Where the next packet goes: the oldest packet's slot once the ring is full.
    head: u32,
    padding: u32,
    /// The packets, slots 0..n in use.
    ring: [u64; CAPACITY],
}

const _: () = assert!(size_of::<Window>() == 72 + 64 + 8 + 512);

impl Sums {
    /// Packets in the window, both directions.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        self.packets[0] + self.packets[1]
    }

    /// Whether no packet has come yet.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Packets in the window with a TCP flag, by its bit number.
    pub fn flag_count(&self, bit: usize) -> u8 {
        self.flags.to_le_bytes()[bit]
    }
}

impl Window {
    /// An empty window, written in place: nothing but the accumulators needs clearing.
    #[inline(always)]
    pub fn clear(&mut self) {
        let Self { sums, len_bins, iat_bins, head, padding, ring: _ } = self;
        *sums = Sums {
            iat_sum: 0,
            iat_sq_sum: 0,
            len_sq_sum: [0; 2],
            len_entropy: 0,
            iat_entropy: 0,
            flags: 0,
            len_sum: [0; 2],
            packets: [0; 2],
        };
        *len_bins = [0; BINS];
        *iat_bins = [0; BINS];
        *head = 0;
        *padding = 0;
    }

    /// Takes in the wire packets of one socket buffer, `iat` µs after the packet before; the window holds
    /// the last `capacity` (2..=64) packets.
    #[inline(always)]
    pub fn push_segments(
        &mut self,
        capacity: u32,
        segments: &Segments,
        iat: u64,
        flags: u8,
        direction: usize,
    ) {
        if segments.count == 1 {
            self.push(capacity, Slot::new(iat, segments.last_len, flags, direction));
        } else if segments.count >= capacity {
            self.fill(capacity, segments, iat, flags, direction);
        } else {
            let flags = SegmentFlags::new(flags);
            let last = segments.count - 1;
            self.push(capacity, Slot::new(iat, segments.len, flags.first, direction));
            let middle = Slot::new(0, segments.len, flags.middle, direction);
            for index in 1..CAPACITY as u32 {
                if index >= last {
                    break;
                }
                self.push(capacity, middle);
            }
            self.push(capacity, Slot::new(0, segments.last_len, flags.last, direction));
        }
    }

    /// Takes in one wire packet, and out the one it pushes over the edge. When the oldest packet leaves,
    /// so does the gap behind it: the gaps inside are always those between packets inside.
    #[inline(always)]
    pub fn push(&mut self, capacity: u32, slot: Slot) {
        let len = self.sums.len();
        let head = self.head;
        let next = if head + 1 >= capacity { 0 } else { head + 1 };
        if len >= capacity {
            let oldest = self.slot(head);
            let gap = self.slot(next).iat();
            self.add_packet(slot);
            self.remove_packet(oldest);
            self.replace_gap(gap, slot.iat());
        } else {
            self.add_packet(slot);
            if len > 0 {
                self.add_gap(slot.iat());
            }
        }
        self.set_slot(head, slot);
        self.head = next;
    }

    /// Smallest and largest of the window; at least one packet is in it.
    #[inline(always)]
    pub fn extrema(&self, capacity: u32) -> Extrema {
        let len = self.sums.len();
        let oldest = if len >= capacity { self.head } else { 0 };
        let mut extrema = Extrema { len_min: u32::MAX, len_max: 0, iat_min: u32::MAX, iat_max: 0 };
        for index in 0..CAPACITY as u32 {
            if index >= len {
                break;
            }
            let slot = self.slot(index);
            extrema.len_min = smaller(extrema.len_min, slot.length());
            extrema.len_max = larger(extrema.len_max, slot.length());
            // The gap before the oldest packet lies outside.
            if index != oldest {
                extrema.iat_min = smaller(extrema.iat_min, slot.iat());
                extrema.iat_max = larger(extrema.iat_max, slot.iat());
            }
        }
        extrema
    }

    /// The packets in order of arrival, oldest first.
    pub fn packets(&self, capacity: u32) -> impl Iterator<Item = Slot> + '_ {
        let len = self.sums.len();
        let oldest = if len >= capacity { self.head } else { 0 };
        (0..len).map(move |index| self.slot((oldest + index) % capacity))
    }

    /// The state after `segments.count` ≥ `capacity` pushes, written at once: a super-packet of a thousand
    /// segments costs no more than one of `capacity`.
    #[inline(always)]
    fn fill(&mut self, capacity: u32, segments: &Segments, iat: u64, flags: u8, direction: usize) {
        let flags = SegmentFlags::new(flags);
        let full = Slot::new(0, segments.len, flags.middle, direction);
        let last = Slot::new(0, segments.last_len, flags.last, direction);
        // The first segment is still inside only if nothing pushed it out.
        let first = if segments.count == capacity {
            Slot::new(iat, segments.len, flags.first, direction)
        } else {
            full
        };
        self.clear();
        for index in 0..CAPACITY as u32 {
            self.set_slot(index, full);
        }
        self.set_slot(0, first);
        self.set_slot(capacity - 1, last);

        let others = capacity - 1;
        let len = u64::from(full.length());
        let last_len = u64::from(last.length());
        let sums = &mut self.sums;
        *at(&mut sums.packets, direction) = capacity;
        *at(&mut sums.len_sum, direction) = others * full.length() + last.length();
        *at(&mut sums.len_sq_sum, direction) = u64::from(others) * len * len + last_len * last_len;
        sums.flags = lanes(first.flags())
            + lanes(full.flags()) * u64::from(others - 1)
            + lanes(last.flags());
        sums.iat_entropy = entropy::c_log2_c(others);
        self.iat_bins[0] = others as u8;
        let bin = len_bin(full.length());
        sums.len_entropy = entropy::c_log2_c(others);
        self.len_bins[usize::from(bin & 31)] = others as u8;
        self.sums.len_entropy += grow(&mut self.len_bins, len_bin(last.length()));
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Slot {
        Slot::from_bits(self.ring[index as usize % CAPACITY])
    }

    #[inline(always)]
    fn set_slot(&mut self, index: u32, slot: Slot) {
        self.ring[index as usize % CAPACITY] = slot.to_bits();
    }

    #[inline(always)]
    fn add_packet(&mut self, slot: Slot) {
        let sums = &mut self.sums;
        let (len, direction) = (slot.length(), slot.direction());
        *at(&mut sums.packets, direction) += 1;
        *at(&mut sums.len_sum, direction) += len;
        let square = u64::from(len) * u64::from(len);
        *at(&mut sums.len_sq_sum, direction) += square;
        sums.flags += lanes(slot.flags());
        sums.len_entropy += grow(&mut self.len_bins, len_bin(len));
    }

    #[inline(always)]
    fn remove_packet(&mut self, slot: Slot) {
        let sums = &mut self.sums;
        let (len, direction) = (slot.length(), slot.direction());
        *at(&mut sums.packets, direction) -= 1;
        *at(&mut sums.len_sum, direction) -= len;
        let square = u64::from(len) * u64::from(len);
        *at(&mut sums.len_sq_sum, direction) -= square;
        sums.flags -= lanes(slot.flags());
        sums.len_entropy -= shrink(&mut self.len_bins, len_bin(len));
    }

    #[inline(always)]
    fn add_gap(&mut self, iat: u32) {
        let gap = u64::from(iat);
        self.sums.iat_sum += gap;
        self.sums.iat_sq_sum += gap * gap;
        self.sums.iat_entropy += grow(&mut self.iat_bins, iat_bin(iat));
    }

    #[inline(always)]
    fn replace_gap(&mut self, old: u32, new: u32) {
        let gap = u64::from(old);
        // Out first: 64 saturated squares would not fit.
        self.sums.iat_sum -= gap;
        self.sums.iat_sq_sum -= gap * gap;
        self.sums.iat_entropy -= shrink(&mut self.iat_bins, iat_bin(old));
        self.add_gap(new);
    }
}

/// Counts one more in a bin and returns what its S gains.
#[inline(always)]
fn grow(bins: &mut [u8; BINS], bin: u8) -> u64 {
    let count = &mut bins[usize::from(bin) % BINS];
    let gain = entropy::step(*count);
    *count += 1;
    gain
}

/// Counts one less in a bin and returns what its S loses.
#[inline(always)]
fn shrink(bins: &mut [u8; BINS], bin: u8) -> u64 {
    let count = &mut bins[usize::from(bin) % BINS];
    *count -= 1;
    entropy::step(*count)
}

/// The eight flag bits as eight bytes of 0 or 1.
#[inline(always)]
fn lanes(flags: u8) -> u64 {
    // Each byte keeps its own bit, which a carry-free add of 0x7f turns into bit 7.
    let bits = (u64::from(flags) * 0x0101_0101_0101_0101) & 0x8040_2010_0804_0201;
    ((bits + 0x7f7f_7f7f_7f7f_7f7f) >> 7) & 0x0101_0101_0101_0101
}

/// The entry of one direction.
#[inline(always)]
fn at<T>(pair: &mut [T; 2], direction: usize) -> &mut T {
    &mut pair[direction & 1]
}

#[inline(always)]
fn smaller(a: u32, b: u32) -> u32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn larger(a: u32, b: u32) -> u32 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests;
