//! The table of calls' flows, with locks of its own: programs of these kinds may not even touch a map that holds one of
//! the kernel's.

use core::{
    ffi::c_void,
    intrinsics::{AtomicOrdering, atomic_cxchg},
};

use agent_common::{entry::Entry, key::FlowKey};
use aya_ebpf::{bindings::BPF_NOEXIST, btf_maps::HashMap, macros::btf_map};

use crate::{config::Loaded, table::Table};

/// The size is the loader's (`--max-flows`).
#[btf_map]
static SOCKETS: HashMap<FlowKey, Entry, 65_536> = HashMap::new();

/// The flows of calls. The lock is an entry's first word: who has it, in the form of a token, or 0.
///
/// A token and not just a bit, for an insertion clears the word of an entry that was deleted, under the feet of whoever
/// has found it before and locked it since: who finds another's token there, or none, has not got the entry, and
/// leaves the word alone.
pub(crate) struct Sockets;

/// How often a lock is tried: some ten microseconds, which is many times what it is held for, unless its holder is
/// interrupted.
const TRIES: u32 = 1024;

impl Table for Sockets {
    // A call is one packet.
    type Rules = Loaded<false>;
    const RULES: Loaded<false> = Loaded;
    type Place<'a> = &'a FlowKey;

    #[inline(always)]
    fn map() -> *mut c_void {
        (&raw const SOCKETS).cast_mut().cast()
    }

    #[inline(always)]
    fn place(key: &FlowKey) -> &FlowKey {
        key
    }

    #[inline(always)]
    fn find(key: &FlowKey) -> Option<*mut Entry> {
        SOCKETS.get_ptr_mut(key)
    }

    #[inline(always)]
    fn insert(key: &FlowKey, entry: &Entry) {
        let _ = SOCKETS.insert(key, entry, BPF_NOEXIST.into());
    }

    #[inline(always)]
    fn remove(key: &FlowKey) {
        let _ = SOCKETS.remove(key);
    }

    #[inline(always)]
    fn acquire(entry: *mut Entry, token: u32) -> bool {
        for _ in 0..TRIES {
            if exchange(entry, 0, token) == 0 {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn holds(entry: *mut Entry, token: u32) -> bool {
        // SAFETY: an entry of the map; volatile, for an insertion may write it.
        unsafe { lock_of(entry).read_volatile() == token }
    }

    #[inline(always)]
    fn release(entry: *mut Entry, token: u32) {
        exchange(entry, token, 0);
    }
}

/// An entry begins with its lock.
#[inline(always)]
fn lock_of(entry: *mut Entry) -> *mut u32 {
    const { assert!(core::mem::offset_of!(Entry, lock) == 0) };
    entry.cast()
}

/// Puts `new` into the lock's word if it is `old`; what it was. Nothing passes over it either way.
#[inline(always)]
fn exchange(entry: *mut Entry, old: u32, new: u32) -> u32 {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    let lock = lock_of(entry);
    // SAFETY: an entry of the map.
    let (was, _) = unsafe { atomic_cxchg::<u32, ORDER, ORDER>(lock, old, new) };
    was
}
