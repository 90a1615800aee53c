//! The flow table: a preallocated hash with a lock in each value.
//!
//! Entries are deleted by the sweep alone, one at a time: it marks an entry [`DEAD`] under its lock, then
//! deletes it. A preallocated entry is reused at once, so a pointer from a lookup may come to lie over
//! another flow. Hence the rule: under the lock, an entry counts only if it holds the key that was looked
//! for and is not dead; else look again.

use core::mem::offset_of;

use agent_common::{
    entry::{self, ALIVE, DEAD, NEW},
    flow::{Arrival, Flow},
    key::FlowKey,
    owner::{NOBODY, Owner},
    parse::Headers,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, bpf_spin_lock},
    btf_maps::{HashMap, PerCpuArray},
    helpers::generated,
    macros::btf_map,
};

use crate::local::{self, Question};

/// A value of the table: an [`entry::Entry`], with the kernel's type for the lock.
#[repr(C)]
pub(crate) struct Entry {
    lock: bpf_spin_lock,
    padding: u32,
    key: FlowKey,
    flow: Flow,
    state: u64,
}

const _: () = {
    assert!(size_of::<Entry>() == size_of::<entry::Entry>());
    assert!(offset_of!(Entry, lock) == offset_of!(entry::Entry, lock));
    assert!(offset_of!(Entry, key) == offset_of!(entry::Entry, key));
    assert!(offset_of!(Entry, flow) == offset_of!(entry::Entry, flow));
    assert!(offset_of!(Entry, state) == offset_of!(entry::Entry, state));
};

/// The size is the loader's (`--max-flows`).
#[btf_map]
static FLOWS: HashMap<FlowKey, Entry, 65_536> = HashMap::new();

/// A packet on its way to its flow.
///
/// VERIFIER: in a map and not on the stack, so that the verifier forgets by which of the parser's many paths
/// the packet came, and walks what follows once.
#[repr(C)]
pub(crate) struct Passage {
    /// An entry as it is inserted, since no lock may lie in a per-CPU map: all zero but the key, the packet's.
    template: entry::Entry,
    /// The packet's headers.
    pub(crate) headers: Headers,
    /// The packet as its flow sees it.
    pub(crate) arrival: Arrival,
    /// The process behind the packet, if that was asked.
    pub(crate) owner: Owner,
    /// Room for [`local`].
    question: Question,
    /// Vectors that found no room in the ring.
    waiting: u64,
    /// A word for [`crate::packet::Packet`].
    pub(crate) lethe: u32,
}

impl Passage {
    /// This CPU's.
    #[inline(always)]
    pub(crate) fn mine() -> Option<&'static mut Self> {
        let passage = PASSAGE.get_ptr_mut(0)?;
        // SAFETY: this CPU's own, and bottom halves are off.
        Some(unsafe { &mut *passage })
    }

    /// The packet's key.
    #[inline(always)]
    pub(crate) fn key(&self) -> &FlowKey {
        &self.template.key
    }

    /// Finds out whose the packet is.
    #[inline(always)]
    pub(crate) fn address(&mut self, now_us: u64) {
        let (key, from_b) = self.headers.key();
        self.template.key = key;
        self.arrival = Arrival::new(&self.headers, from_b, now_us);
        self.waiting = 0;
        self.owner.claim = NOBODY;
    }

    /// Finds out which process is behind the packet.
    #[inline(always)]
    pub(crate) fn find_owner(&mut self, skb: *mut __sk_buff, from_initiator: bool) {
        let Self { headers, question, owner, .. } = self;
        local::of_packet(skb, headers, from_initiator, question, owner);
    }

    /// Whether a vector found no room in the ring.
    #[inline(always)]
    pub(crate) fn is_waiting(&self) -> bool {
        // SAFETY: a valid reference; volatile, see `emit::vector`.
        unsafe { (&raw const self.waiting).read_volatile() != 0 }
    }

    /// Key, packet, and the count of vectors that found no room in the ring.
    #[inline(always)]
    pub(crate) fn parts(&mut self) -> (&FlowKey, &Arrival, &mut u64) {
        (&self.template.key, &self.arrival, &mut self.waiting)
    }
}

#[btf_map]
static PASSAGE: PerCpuArray<Passage, 1> = PerCpuArray::new();

/// The table's map, for a walk.
#[inline(always)]
pub(crate) fn map() -> *mut core::ffi::c_void {
    (&raw const FLOWS).cast_mut().cast()
}

/// Deletes an entry that its owner marked dead.
#[inline(always)]
pub(crate) fn delete(key: &FlowKey) {
    // It cannot be missing: nobody else deletes.
    let _ = FLOWS.remove(key);
}

/// The entry of the packet's flow, made if need be. `None`: the table is full.
#[inline(always)]
pub(crate) fn find_or_insert(passage: &Passage) -> Option<*mut Entry> {
    if let Some(entry) = find(passage.key()) {
        return Some(entry);
    }
    let value = (&raw const passage.template).cast::<Entry>();
    // SAFETY: of one layout; the kernel leaves the lock out of the copy.
    let value = unsafe { &*value };
    // It fails when the table is full, or when another CPU was first: the lookup tells.
    let _ = FLOWS.insert(passage.key(), value, BPF_NOEXIST.into());
    find(passage.key())
}

/// The entry of a key.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<*mut Entry> {
    FLOWS.get_ptr_mut(key)
}

/// Looks until the entry of a key is not a dead one any more: the sweep, on another CPU, is between marking
/// it and deleting it, which takes less than a microsecond unless that CPU is interrupted.
#[inline(always)]
pub(crate) fn await_deletion(key: &FlowKey) {
    for _ in 0..LOOKS {
        let Some(entry) = find(key) else {
            break;
        };
        // SAFETY: an entry of the map; a torn read would only end the wait, or prolong it by one look.
        if unsafe { (*entry).state } != DEAD {
            break;
        }
    }
}

/// Looks of about 50 ns each.
const LOOKS: u32 = 32;

/// An entry whose lock is held. Until it is dropped nothing may be called that is not inlined: kernels
/// before 6.9 refuse any call under a lock.
pub(crate) struct Locked {
    entry: *mut Entry,
}

impl Locked {
    /// Takes an entry's lock.
    #[inline(always)]
    pub(crate) fn new(entry: *mut Entry) -> Self {
        // SAFETY: an entry of the map.
        unsafe { generated::bpf_spin_lock(lock_of(entry)) };
        Self { entry }
    }

    /// The flow of `key` for a packet, and whether it is to begin with that. `None`: this is not, or not any
    /// more, the entry of `key`; look again.
    #[inline(always)]
    pub(crate) fn enter(&mut self, key: &FlowKey) -> Option<(&mut Flow, bool)> {
        let entry = self.entry();
        if !entry.key.same(key) || entry.state == DEAD {
            return None;
        }
        let new = entry.state == NEW;
        entry.state = ALIVE;
        Some((&mut entry.flow, new))
    }

    /// The flow of `key`, if it has begun and has not ended.
    #[inline(always)]
    pub(crate) fn living(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let entry = self.entry();
        if !entry.key.same(key) || entry.state != ALIVE {
            return None;
        }
        Some(&mut entry.flow)
    }

    /// Marks the flow dead: the caller deletes the entry as soon as the lock is free.
    #[inline(always)]
    pub(crate) fn kill(&mut self) {
        self.entry().state = DEAD;
    }

    #[inline(always)]
    fn entry(&mut self) -> &mut Entry {
        // SAFETY: an entry of the map, this CPU's alone while the lock is held.
        unsafe { &mut *self.entry }
    }
}

/// An entry begins with its lock.
#[inline(always)]
fn lock_of(entry: *mut Entry) -> *mut bpf_spin_lock {
    const { assert!(offset_of!(Entry, lock) == 0) };
    entry.cast()
}

impl Drop for Locked {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: taken in `new`.
        unsafe { generated::bpf_spin_unlock(lock_of(self.entry)) };
    }
}

/// A look at a flow without its lock: what is read may be torn, and only tells whether to take the lock.
#[inline(always)]
pub(crate) fn peek(entry: *const Entry) -> Option<&'static Flow> {
    // SAFETY: an entry of the map, which outlives the program.
    let entry = unsafe { &*entry };
    if entry.state == ALIVE { Some(&entry.flow) } else { None }
}

/// As [`peek`], of an entry that may not have begun: all of it is 0 then.
#[inline(always)]
pub(crate) fn glance(entry: *const Entry) -> &'static Flow {
    // SAFETY: as in `peek`.
    unsafe { &(*entry).flow }
}
