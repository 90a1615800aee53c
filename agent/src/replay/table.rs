//! The flow table of a replay: what the kernel's is, without locks.

use agent_common::{flow::Flow, key::FlowKey};
use bytemuck::Zeroable as _;
use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use std::{array, hash::BuildHasher as _, mem::offset_of};

use super::{pages::ask_for_huge, resegment::SegmentSizes};
use crate::prefetch::prefetch;

/// A flow in the table. Aligned, so that it lies in as few cache lines as it can.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) key: FlowKey,
    pub(super) sizes: SegmentSizes,
    /// The end of it is its window's ring, see [`FlowTable::prefetch`].
    pub(super) flow: Flow,
}

/// An entry takes up an odd number of cache lines. Caches find the set of a line by the lower bits of its address: if
/// entries took up a power of two, the lines that all packets need would fight for few sets.
const _: () = assert!(size_of::<Entry>() / align_of::<Entry>() % 2 == 1);

/// Flows by key, at places that stay while they live. Memory grows with the flows there are at one time, up to
/// the limit.
#[derive(Debug)]
pub(super) struct FlowTable {
    limit: usize,
    seeds: [u64; 6],
    index: HashTable<Indexed>,
    entries: Vec<Entry>,
    /// For each place, from when on a sweep has something to do there; side by side, since a sweep reads all.
    wake_us: Vec<u64>,
    free: Vec<u32>,
    /// No flow wakes before this.
    earliest_us: u64,
}

/// Where the entry of a key lies. With the hash beside it, it is found, and fetched, before anything of the entry
/// itself is read.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    hash: Hash,
    place: u32,
}

/// The hash of a flow's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash(u32);

/// Entries for which there is room from the first on. They would be copied when it grows, and what nobody has touched is
/// no memory yet.
const ROOM: usize = 1 << 16;

/// `wake_us` of a place without a flow.
const NOBODY: u64 = u64::MAX;

/// What was found for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its flow, at this place.
    Known(usize),
    /// None: an entry was made here, in which a flow is to begin.
    New(usize),
    /// None, and the table is full.
    Full,
}

impl FlowTable {
    pub(super) fn new(limit: u32) -> Self {
        let mut entries = Vec::with_capacity(ROOM.min(limit as usize));
        ask_for_huge(entries.spare_capacity_mut());
        Self {
            limit: limit as usize,
            seeds: seeds(),
            index: HashTable::new(),
            entries,
            wake_us: Vec::new(),
            free: Vec::new(),
            earliest_us: u64::MAX,
        }
    }

    /// Flows in the table.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The hash of a key, to find its entry by: as in wyhash, products of words and secret numbers, which need not wait
    /// for one another.
    #[inline]
    pub(super) fn hash(&self, key: &FlowKey) -> Hash {
        let [a0, a1, b0, b1, place, kind]: [u64; 6] = bytemuck::cast(*key);
        let [s0, s1, s2, s3, s4, s5] = self.seeds;
        let ends = folded(a0 ^ s0, a1 ^ s1) ^ folded(b0 ^ s2, b1 ^ s3);
        Hash((ends ^ folded(place ^ s4, kind ^ s5)) as u32)
    }

    /// Where the entry of a key with this hash lies, or one of several; `None` if there is none.
    #[inline]
    pub(super) fn find(&self, hash: Hash) -> Option<u32> {
        let found = self.index.find(hash.spread(), |indexed| indexed.hash == hash)?;
        Some(found.place)
    }

    /// Fetches an entry that is soon asked for, but for its window's ring.
    #[inline]
    pub(super) fn prefetch(&self, at: Option<u32>) {
        if let Some(entry) = at.and_then(|place| self.entries.get(place as usize)) {
            prefetch::<{ offset_of!(Entry, flow) + Flow::WITHOUT_RING }, _>(entry);
        }
    }

    /// Fetches of the ring where the next packet goes, which the rest of the entry tells.
    #[inline]
    pub(super) fn prefetch_slot(&self, at: Option<u32>) {
        if let Some(entry) = at.and_then(|place| self.entries.get(place as usize)) {
            prefetch::<{ size_of::<u64>() }, _>(entry.flow.window.next_slot());
        }
    }

    /// The entry of a key, made if need be; `at` is where it may lie.
    #[inline]
    pub(super) fn find_or_insert(&mut self, key: &FlowKey, hash: Hash, at: Option<u32>) -> Found {
        let entries = &self.entries;
        let is_there =
            |place: u32| entries.get(place as usize).is_some_and(|entry| entry.key.same(key));
        if let Some(place) = at.filter(|&place| is_there(place)) {
            return Found::Known(place as usize);
        }
        let is_it = |indexed: &Indexed| indexed.hash == hash && is_there(indexed.place);
        if let Some(&Indexed { place, .. }) = self.index.find(hash.spread(), is_it) {
            return Found::Known(place as usize);
        }
        self.insert(hash, key)
    }

    fn insert(&mut self, hash: Hash, key: &FlowKey) -> Found {
        if self.index.len() >= self.limit {
            return Found::Full;
        }
        let Self { index, entries, wake_us, free, .. } = self;
        let entry = Entry { key: *key, sizes: SegmentSizes::default(), flow: Flow::zeroed() };
        let place = if let Some(place) = free.pop() {
            entries[place as usize] = entry;
            place
        } else {
            entries.push(entry);
            wake_us.push(NOBODY);
            entries.len() as u32 - 1
        };
        index.insert_unique(hash.spread(), Indexed { hash, place }, |other| other.hash.spread());
        Found::New(place as usize)
    }

    #[inline]
    pub(super) fn entry(&mut self, place: usize) -> &mut Entry {
        &mut self.entries[place]
    }

    /// Notes from when on a sweep has something to do with a flow.
    #[inline]
    pub(super) fn wake(&mut self, place: usize, at_us: u64) {
        self.wake_us[place] = at_us;
        self.earliest_us = self.earliest_us.min(at_us);
    }

    /// No flow wakes before this.
    pub(super) fn earliest_us(&self) -> u64 {
        self.earliest_us
    }

    /// The flow at a place has ended.
    pub(super) fn remove(&mut self, place: usize) {
        let hash = self.hash(&self.entries[place].key);
        let is_it = |indexed: &Indexed| indexed.place as usize == place;
        if let Ok(found) = self.index.find_entry(hash.spread(), is_it) {
            let _: (Indexed, hash_table::VacantEntry<'_, Indexed>) = found.remove();
            self.wake_us[place] = NOBODY;
            // No packet has this key: whoever looks here finds nothing.
            self.entries[place].key = FlowKey::zeroed();
            self.free.push(place as u32);
        }
    }

    /// The places of flows that wake at this time or before, of all if it is `u64::MAX`.
    pub(super) fn awake(&self, now_us: u64) -> Vec<usize> {
        let places = self.wake_us.iter().enumerate();
        let awake = places.filter(|&(_, &wake_us)| wake_us != NOBODY && wake_us <= now_us);
        awake.map(|(place, _)| place).collect()
    }

    /// Looks when the next one wakes, after all that were awake have been dealt with.
    pub(super) fn settle(&mut self) {
        self.earliest_us = self.wake_us.iter().copied().min().unwrap_or(NOBODY);
    }
}

/// Other numbers in each table: who sends the packets cannot choose them to have one hash.
fn seeds<const N: usize>() -> [u64; N] {
    let random = DefaultHashBuilder::default();
    array::from_fn(|place| random.hash_one(place))
}

/// Both halves of a product in one.
#[inline]
fn folded(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    product as u64 ^ (product >> 64) as u64
}

impl Hash {
    /// As many bits as the index takes, the entropy in the upper ones too (Fibonacci hashing, Knuth 6.4).
    #[inline]
    fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
