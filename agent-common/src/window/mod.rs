//! The exact sliding window over a flow's last N wire packets, every accumulator updated in O(1).

pub mod bins;
pub mod entropy;
pub mod slot;

use bytemuck::{Pod, Zeroable};

use self::{
    bins::{BINS, iat_bin, len_bin},
    slot::Slot,
};
use crate::{
    barrier::{IS_BPF, clear, larger, less, settled, smaller},
    layout::{Layout, Shape, laid_out},
    segments::{Segments, tcp},
};

/// Slots of the ring, and so the largest window.
pub const CAPACITY: usize = 64;

laid_out! {
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

    /// Takes in the wire packets of one socket buffer, `iat` µs after the packet before; the window holds
    /// the last `capacity` (2..=64) packets.
    ///
    /// As many old packets leave as there is no room for, one by one. All the new ones but first and last
    /// are alike, so they come in at once.
    #[inline(always)]
    pub fn push(
        &mut self,
        capacity: u32,
        segments: &Segments,
        iat: u64,
        flags: u8,
        direction: usize,
    ) {
        if !IS_BPF && segments.count == 1 {
            self.push_one(capacity, Slot::new(iat, segments.last_len, flags, direction));
            return;
        }
        let [mut first, middle, last] = segments.slots(iat, flags, direction);
        let mut count = segments.count;
        if count == 1 {
            self.push_one(capacity, last);
            return;
        }
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

    /// As [`Window::push`], for a plain packet.
    #[inline(always)]
    fn push_one(&mut self, capacity: u32, slot: Slot) {
        let len = self.sums.len();
        if len >= capacity {
            self.remove_oldest(self.head, capacity);
        }
        self.add_packets(slot, 1);
        self.add_gaps(slot.iat(), less(0, len) & 1);
        let head = self.head;
        self.set_slot(head, slot);
        self.head = successor(head, capacity);
    }

    /// As [`Window::push`], for a super-packet of no more packets than the window holds.
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

        settled(self).add_packets(first, 1);
        settled(self).add_packets(middle, count - 2);
        settled(self).add_packets(last, 1);
        // The first has a gap, if there is a packet before it.
        settled(self).add_gaps(first.iat(), less(0, len) & 1);
        settled(self).add_gaps(0, count - 1);

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
        if !IS_BPF {
            return self.extrema_at_once(oldest as usize);
        }
        let mut extrema = Extrema { len_min: u32::MAX, len_max: 0, iat_min: u32::MAX, iat_max: 0 };
        for index in 0..CAPACITY as u32 {
            if index >= len {
                break;
            }
            let slot = self.slot(index);
            extrema.len_min = smaller(extrema.len_min, slot.length());
            extrema.len_max = larger(extrema.len_max, slot.length());
            // The gap before the oldest packet lies outside.
            let outside = less(index ^ oldest, 1);
            extrema.iat_min = smaller(extrema.iat_min, slot.iat() | outside);
            extrema.iat_max = larger(extrema.iat_max, slot.iat() & !outside);
        }
        extrema
    }

    /// As [`Window::extrema`], by loops that a host's compiler does several turns of at once.
    fn extrema_at_once(&self, oldest: usize) -> Extrema {
        fn range(numbers: impl Iterator<Item = u32>) -> (i32, i32) {
            numbers.fold((i32::MAX, 0), |(least, most), number| {
                (least.min(number as i32), most.max(number as i32))
            })
        }
        let slots = self.ring.get(..self.sums.len() as usize).unwrap_or(&self.ring);
        let (len_min, len_max) = range(slots.iter().map(|&bits| Slot::from_bits(bits).length()));
        // The gap before the oldest packet lies outside.
        let (before, behind) = slots.split_at(oldest.min(slots.len()));
        let [before, behind] = [before, behind.get(1..).unwrap_or_default()]
            .map(|slots| range(slots.iter().map(|&bits| Slot::from_bits(bits).iat())));
        let least = |least: i32| if least == i32::MAX { u32::MAX } else { least as u32 };
        Extrema {
            len_min: least(len_min),
            len_max: len_max as u32,
            iat_min: least(before.0.min(behind.0)),
            iat_max: before.1.max(behind.1) as u32,
        }
    }

    /// The packets in order of arrival, oldest first.
    pub fn packets(&self, capacity: u32) -> impl Iterator<Item = Slot> + '_ {
        let len = self.sums.len();
        let oldest = self.oldest(capacity);
        (0..len).map(move |index| self.slot((oldest + index) % capacity))
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

    /// Takes in `count` packets that are alike.
    #[inline(always)]
    fn add_packets(&mut self, slot: Slot, count: u32) {
        let sums = &mut self.sums;
        let (len, direction) = (slot.length(), slot.direction());
        let square = u64::from(len) * u64::from(len);
        *at(&mut sums.packets, direction) += count;
        *at(&mut sums.len_sum, direction) += len * count;
        *at(&mut sums.len_sq_sum, direction) += square * u64::from(count);
        sums.flags += tcp::lanes(slot.flags()) * u64::from(count);
        sums.len_entropy += grow(&mut self.len_bins, len_bin(len), count);
    }

    /// Takes out the packet in the oldest slot, and the gap behind it: the gaps inside are always those
    /// between packets inside. Returns the next oldest slot.
    #[inline(always)]
    fn remove_oldest(&mut self, oldest: u32, capacity: u32) -> u32 {
        let next = successor(oldest, capacity);
        self.remove_packet(self.slot(oldest));
        self.remove_gap(self.slot(next).iat());
        next
    }

    #[inline(always)]
    fn remove_packet(&mut self, slot: Slot) {
        let sums = &mut self.sums;
        let (len, direction) = (slot.length(), slot.direction());
        *at(&mut sums.packets, direction) -= 1;
        *at(&mut sums.len_sum, direction) -= len;
        *at(&mut sums.len_sq_sum, direction) -= u64::from(len) * u64::from(len);
        sums.flags -= tcp::lanes(slot.flags());
        sums.len_entropy -= shrink(&mut self.len_bins, len_bin(len));
    }

    /// Takes in `count` gaps that are alike.
    #[inline(always)]
    fn add_gaps(&mut self, iat: u32, count: u32) {
        let gap = u64::from(iat);
        self.sums.iat_sum += gap * u64::from(count);
        self.sums.iat_sq_sum += gap * gap * u64::from(count);
        self.sums.iat_entropy += grow(&mut self.iat_bins, iat_bin(iat), count);
    }

    #[inline(always)]
    fn remove_gap(&mut self, iat: u32) {
        let gap = u64::from(iat);
        self.sums.iat_sum -= gap;
        self.sums.iat_sq_sum -= gap * gap;
        self.sums.iat_entropy -= shrink(&mut self.iat_bins, iat_bin(iat));
    }
}

/// Counts more in a bin and returns what its S gains.
#[inline(always)]
fn grow(Histogram(bins): &mut Histogram, bin: u8, more: u32) -> u64 {
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
    entropy::c_log2_c(before) - entropy::c_log2_c(before - 1)
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
