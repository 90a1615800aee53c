//! The flow table of a replay: what the kernel's is, without locks.

use agent_common::{flow::Flow, key::FlowKey};
use bytemuck::Zeroable as _;
use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use std::hash::BuildHasher as _;

use super::resegment::SegmentSizes;

/// A flow in the table.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: FlowKey,
    pub(super) flow: Flow,
    pub(super) sizes: SegmentSizes,
}

/// Flows by key, at places that stay while they live. Memory grows with the flows there are at one time, up to
/// the limit.
#[derive(Debug)]
pub(super) struct FlowTable {
    limit: usize,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    entries: Vec<Entry>,
    /// For each place, from when on a sweep has something to do there; side by side, since a sweep reads all.
    wake_us: Vec<u64>,
    free: Vec<u32>,
    /// No flow wakes before this.
    earliest_us: u64,
}

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
        Self {
            limit: limit as usize,
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            entries: Vec::new(),
            wake_us: Vec::new(),
            free: Vec::new(),
            earliest_us: u64::MAX,
        }
    }

    /// Flows in the table.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The entry of a key, made if need be.
    #[inline]
    pub(super) fn find_or_insert(&mut self, key: &FlowKey) -> Found {
        let hash = hash(&self.hasher, key);
        let entries = &self.entries;
        if let Some(&place) = self.index.find(hash, |&place| entries[place as usize].key == *key) {
            return Found::Known(place as usize);
        }
        self.insert(hash, key)
    }

    fn insert(&mut self, hash: u64, key: &FlowKey) -> Found {
        if self.index.len() >= self.limit {
            return Found::Full;
        }
        let Self { hasher, index, entries, wake_us, free, .. } = self;
        let entry = Entry { key: *key, flow: Flow::zeroed(), sizes: SegmentSizes::default() };
        let place = if let Some(place) = free.pop() {
            entries[place as usize] = entry;
            place
        } else {
            entries.push(entry);
            wake_us.push(NOBODY);
            entries.len() as u32 - 1
        };
        index.insert_unique(hash, place, |&place| self::hash(hasher, &entries[place as usize].key));
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
        let hash = hash(&self.hasher, &self.entries[place].key);
        if let Ok(found) = self.index.find_entry(hash, |&other| other as usize == place) {
            let _: (u32, hash_table::VacantEntry<'_, u32>) = found.remove();
            self.wake_us[place] = NOBODY;
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

#[inline]
fn hash(hasher: &DefaultHashBuilder, key: &FlowKey) -> u64 {
    let words: &[u64; 6] = bytemuck::cast_ref(key);
    hasher.hash_one(words)
}
