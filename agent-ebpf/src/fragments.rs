//! The ports of first fragments.

use agent_common::parse::{FRAGMENT_DATAGRAMS, FragmentKey, FragmentPorts, FragmentTable};
use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};

#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, FRAGMENT_DATAGRAMS> = LruHashMap::new();

/// The kernel's LRU map.
pub(crate) struct Fragments;

impl FragmentTable for Fragments {
    #[inline(always)]
    fn remember(&mut self, key: &FragmentKey, ports: &FragmentPorts) {
        // An LRU map makes room; should it fail all the same, later fragments count as orphans.
        let _ = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn recall(&mut self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: an entry is written whole, and a torn read of it would only make an orphan.
        unsafe { FRAGMENTS.get(key) }.copied()
    }
}
