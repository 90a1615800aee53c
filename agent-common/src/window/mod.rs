//! The exact sliding window over a flow's last N wire packets, every accumulator updated in O(1).

pub mod bins;
pub mod entropy;
pub mod slot;

use bytemuck::{Pod, Zeroable};

use self::{
    bins::{BINS, iat_bin, len_bin},
    slot::{Packet, Slot},
};
use crate::{
    barrier::{clear, larger, less, parted, settled, smaller},
    layout::{Layout, Shape, laid_out},
    segments::{Segments, tcp},
};

/// Slots of the ring, and so the largest window.
pub const CAPACITY: usize = 64;

laid_out! {
/// The packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Lengths {
    /// Σ len², in bytes².
    pub sq_sum: u64,
    /// Σ len, in bytes.
    pub sum: u32,
    /// Packets in the window.
    pub packets: u32,
}
}

laid_out! {
/// What the window knows in integers; [`crate::features`] finishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sums {
    /// Σ iat over the n−1 gaps inside the window, in µs.
    pub iat_sum: u64,
    /// Σ iat², in µs²; 63 saturated gaps fit.
    pub iat_sq_sum: u64,
    /// S of the length histogram, see [`entropy`].
    pub len_entropy: u64,
    /// S of the gap histogram, see [`entropy`].
    pub iat_entropy: u64,
    /// Packets by TCP flag: a byte each, FIN lowest, in the order of [`crate::segments::tcp::NAMES`].
    pub flags: u64,
    /// Packets and their lengths by direction: fwd, bwd.
    pub lengths: [Lengths; 2],
}
}

const _: () = assert!(size_of::<Sums>() == 72);

laid_out! {
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
}

/// A count for each bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
struct Histogram([u8; BINS]);

impl Layout for Histogram {
    const SHAPE: Shape = <[u8; BINS]>::SHAPE;
}

laid_out! {
/// The window of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Window {
    /// The accumulators.
    pub sums: Sums,
    /// Packets by length bin.
    len_bins: Histogram,
    /// Gaps by bin.
    iat_bins: Histogram,
    /// Where the next packet goes: the oldest packet's slot once the ring is full.
    head: u32,
    /// Zero.
    padding: u32,
    /// The packets, slots 0..n in use.
    ring: [u64; CAPACITY],
}
}

const _: () = assert!(size_of::<Window>() == 72 + 64 + 8 + 512);

impl Sums {
    /// Packets in the window, both directions.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        let [fwd, bwd] = &self.lengths;
        fwd.packets + bwd.packets
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
    /// Bytes before the ring.
    pub(crate) const WITHOUT_RING: usize = core::mem::offset_of!(Self, ring);

    /// Where the next packet goes.
    #[inline]
    pub fn next_slot(&self) -> &u64 {
        &self.ring[self.head as usize % CAPACITY]
    }

    /// An empty window, written in place: nothing but the accumulators needs clearing.
    #[inline(always)]
    pub fn clear(&mut self) {
        let Self { sums, len_bins, iat_bins, head, padding, ring: _ } = self;
        clear(sums);
        clear(len_bins);
        clear(iat_bins);
        *head = 0;
        *padding = 0;
    }

    /// Takes in the wire packets of one socket buffer, see [`Window::push_packet`] and [`Window::push_segments`].
    pub fn push(
        &mut self,
        capacity: u32,
        segments: &Segments,
        iat: u64,
        flags: u8,
        direction: usize,
    ) {
        if segments.count == 1 {
            self.push_packet(capacity, segments, iat, flags, direction);
        } else {
            self.push_segments(capacity, segments, iat, flags, direction);
        }
    }

    /// Takes in a plain packet, `iat` µs after the packet before; the window holds the last `capacity` (2..=64) packets.
    #[inline(always)]
    pub fn push_packet(
        &mut self,
        capacity: u32,
        segments: &Segments,
        iat: u64,
        flags: u8,
        direction: usize,
    ) {
        let packet = Packet::new(iat, segments.last_len, flags, direction);
        let len = self.sums.len();
        if len >= capacity {
            self.remove_oldest(self.head, capacity);
        }
        self.add_packet(packet);
        // It has a gap, if there is a packet before it.
        self.add_gap(packet, less(0, len));
        let head = self.head;
        self.set_slot(head, Slot::of(packet));
        self.head = successor(head, capacity);
    }

    /// As [`Window::push_packet`], for the wire packets of a super-packet.
    ///
    /// As many old packets leave as there is no room for, one by one. All the new ones but first and last
    /// are alike, so they come in at once.
    #[inline(always)]
    pub fn push_segments(
        &mut self,
        capacity: u32,
        segments: &Segments,
        iat: u64,
        flags: u8,
        direction: usize,
    ) {
        let [mut first, middle, last] = segments.slots(iat, flags, direction);
        let mut count = segments.count;
        if count >= capacity {
            // Nothing that was inside stays: a super-packet of a thousand segments costs no more than one
            // that fills the window.
            self.clear();
            if count > capacity {
                first = middle;
            }
            count = capacity;
        }
        settled(self).push_many(capacity, count, [first, middle, last]);
    }

    /// As [`Window::push_segments`], for no more packets than the window holds.
    #[inline(always)]
    fn push_many(&mut self, capacity: u32, count: u32, [first, middle, last]: [Slot; 3]) {
        let len = self.sums.len();
        let evicted = (len + count).wrapping_sub(capacity) & !less(len + count, capacity);
        let mut oldest = self.oldest(capacity);
        for index in 0..CAPACITY as u32 {
            if index >= evicted {
                break;
            }
            oldest = settled(self).remove_oldest(oldest, capacity);
        }

        settled(self).add_packet(first.packet());
        settled(self).add_packets(middle.packet(), count - 2);
        settled(self).add_packet(last.packet());
        settled(self).add_gap(first.packet(), less(0, len));
        settled(self).add_empty_gaps(count - 1);

        let start = self.head;
        let mut end = start;
        for index in 0..CAPACITY as u32 {
            if index >= count {
                break;
            }
            self.set_slot(self.head, middle);
            end = self.head;
            self.head = successor(self.head, capacity);
        }
        self.set_slot(start, first);
        self.set_slot(end, last);
    }

    /// Smallest and largest of the window; at least one packet is in it.
    #[inline(always)]
    pub fn extrema(&self, capacity: u32) -> Extrema {
        let len = self.sums.len();
        let oldest = self.oldest(capacity);
        let mut extrema = Extrema { len_min: u32::MAX, len_max: 0, iat_min: u32::MAX, iat_max: 0 };
        for index in 0..CAPACITY as u32 {
            let index = parted(index);
            if index >= parted(len) {
                break;
            }
            let packet = self.slot(index).packet();
            extrema.len_min = smaller(extrema.len_min, packet.len);
            extrema.len_max = larger(extrema.len_max, packet.len);
            // The gap before the oldest packet lies outside.
            let outside = less(index ^ oldest, 1);
            extrema.iat_min = smaller(extrema.iat_min, packet.iat | outside);
            extrema.iat_max = larger(extrema.iat_max, packet.iat & !outside);
        }
        extrema
    }

    /// The packets in order of arrival, oldest first.
    pub fn packets(&self, capacity: u32) -> impl Iterator<Item = Packet> + '_ {
        let len = self.sums.len();
        let oldest = self.oldest(capacity);
        (0..len).map(move |index| self.slot((oldest + index) % capacity).packet())
    }

    /// Slot of the oldest packet: slots fill from 0 on, and once full the oldest is the next to be written.
    #[inline(always)]
    fn oldest(&self, capacity: u32) -> u32 {
        self.head & !less(self.sums.len(), capacity)
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
    fn add_packet(&mut self, Packet { len, flags, direction, .. }: Packet) {
        let sums = &mut self.sums;
        let lengths = at(&mut sums.lengths, direction);
        lengths.packets += 1;
        lengths.sum += len;
        lengths.sq_sum += u64::from(len) * u64::from(len);
        sums.flags += tcp::lanes(flags);
        sums.len_entropy += grow(&mut self.len_bins, len_bin(len), u32::MAX);
    }

    /// Takes in `count` packets that are alike.
    #[inline(always)]
    fn add_packets(&mut self, Packet { len, flags, direction, .. }: Packet, count: u32) {
        let sums = &mut self.sums;
        let lengths = at(&mut sums.lengths, direction);
        lengths.packets += count;
        lengths.sum += len * count;
        lengths.sq_sum += u64::from(len) * u64::from(len) * u64::from(count);
        sums.flags += tcp::lanes(flags) * u64::from(count);
        sums.len_entropy += grow_by(&mut self.len_bins, len_bin(len), count);
    }

    /// Takes out the packet in the oldest slot, and the gap behind it: the gaps inside are always those
    /// between packets inside. Returns the next oldest slot.
    #[inline(always)]
    fn remove_oldest(&mut self, oldest: u32, capacity: u32) -> u32 {
        let next = successor(oldest, capacity);
        self.remove_packet(self.slot(oldest).packet());
        self.remove_gap(self.slot(next).packet());
        next
    }

    #[inline(always)]
    fn remove_packet(&mut self, Packet { len, flags, direction, .. }: Packet) {
        let sums = &mut self.sums;
        let lengths = at(&mut sums.lengths, direction);
        lengths.packets -= 1;
        lengths.sum -= len;
        lengths.sq_sum -= u64::from(len) * u64::from(len);
        sums.flags -= tcp::lanes(flags);
        sums.len_entropy -= shrink(&mut self.len_bins, len_bin(len));
    }

    /// Takes in the gap before a packet if `counts` is all ones, and none if it is zero.
    #[inline(always)]
    fn add_gap(&mut self, Packet { iat, iat_bin, .. }: Packet, counts: u32) {
        let gap = u64::from(iat & counts);
        self.sums.iat_sum += gap;
        self.sums.iat_sq_sum += gap * gap;
        self.sums.iat_entropy += grow(&mut self.iat_bins, iat_bin, counts);
    }

    /// Takes in `count` gaps of 0 µs.
    #[inline(always)]
    fn add_empty_gaps(&mut self, count: u32) {
        self.sums.iat_entropy += grow_by(&mut self.iat_bins, iat_bin(0), count);
    }

    #[inline(always)]
    fn remove_gap(&mut self, Packet { iat, iat_bin, .. }: Packet) {
        let gap = u64::from(iat);
        self.sums.iat_sum -= gap;
        self.sums.iat_sq_sum -= gap * gap;
        self.sums.iat_entropy -= shrink(&mut self.iat_bins, iat_bin);
    }
}

/// Counts one more in a bin if `counts` is all ones, and none if it is zero; returns what its S gains.
#[inline(always)]
fn grow(Histogram(bins): &mut Histogram, bin: u8, counts: u32) -> u64 {
    let count = &mut bins[usize::from(bin) % BINS];
    let before = u32::from(*count);
    *count = (before + (counts & 1)) as u8;
    entropy::step(before) & (counts as i32 as u64)
}

/// Counts more in a bin and returns what its S gains.
#[inline(always)]
fn grow_by(Histogram(bins): &mut Histogram, bin: u8, more: u32) -> u64 {
    let count = &mut bins[usize::from(bin) % BINS];
    let before = u32::from(*count);
    *count = (before + more) as u8;
    entropy::c_log2_c(before + more) - entropy::c_log2_c(before)
}

/// Counts one less in a bin and returns what its S loses.
#[inline(always)]
fn shrink(Histogram(bins): &mut Histogram, bin: u8) -> u64 {
    let count = &mut bins[usize::from(bin) % BINS];
    let before = u32::from(*count);
    *count = (before - 1) as u8;
    entropy::step(before - 1)
}

/// The slot behind a slot of a ring of `capacity`.
///
/// VERIFIER: no comparison, for a known 0 on one side would make each turn of a loop a path of its own.
#[inline(always)]
fn successor(index: u32, capacity: u32) -> u32 {
    (index + 1) & less(index + 1, capacity)
}

/// The entry of one direction.
#[inline(always)]
fn at<T>(pair: &mut [T; 2], direction: usize) -> &mut T {
    &mut pair[direction & 1]
}

#[cfg(test)]
mod tests;
