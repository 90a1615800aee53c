//! The ports of first fragments, as the kernel program's map keeps them.

use std::num::NonZeroUsize;

use agent_common::parse::{FRAGMENT_DATAGRAMS, FragmentKey, FragmentPorts, FragmentTable};
use hashbrown::DefaultHashBuilder;
use lru::LruCache;

/// The datagrams last seen.
#[derive(Debug)]
pub(super) struct Fragments(LruCache<FragmentKey, FragmentPorts, DefaultHashBuilder>);

impl Fragments {
    pub(super) fn new() -> Self {
        const DATAGRAMS: NonZeroUsize = NonZeroUsize::new(FRAGMENT_DATAGRAMS).unwrap();
        Self(LruCache::with_hasher(DATAGRAMS, DefaultHashBuilder::default()))
    }
}

impl FragmentTable for Fragments {
    fn remember(&mut self, key: &FragmentKey, ports: &FragmentPorts) {
        self.0.put(*key, *ports);
    }

    fn recall(&mut self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.0.get(key).copied()
    }
}
