//! The flow tables: preallocated hashes with a lock in each value.
//!
//! Entries are deleted by the sweep alone, one at a time: it marks an entry [`DEAD`] under its lock, then
//! deletes it. A preallocated entry is reused at once, so a pointer from a lookup may come to lie over
//! another flow. Hence the rule: under the lock, an entry counts only if it holds the key that was looked
//! for and is not dead; else look again. It also keeps apart two flows whose keys have one digest.

use core::{ffi::c_void, marker::PhantomData, mem::offset_of};

use agent_common::{
    config::Thresholds,
    entry::{ALIVE, DEAD, Entry, NEW, Place},
    flow::Flow,
    key::FlowKey,
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, bpf_spin_lock},
    btf_maps::HashMap,
    helpers::generated,
    macros::btf_map,
};

use crate::config::{self, Loaded};

/// A flow table, and how its entries are locked.
pub(crate) trait Table {
    /// The rules of its flows.
    type Rules: Thresholds;
    /// The same.
    const RULES: Self::Rules;
    /// By what the map finds an entry.
    type Place<'a>: Copy;
    /// The map, for a walk.
    fn map() -> *mut c_void;
    /// Where the flow of a key lies.
    fn place(key: &FlowKey) -> Self::Place<'_>;
    /// The entry there.
    fn find(place: Self::Place<'_>) -> Option<*mut Entry>;
    /// Puts an entry there, unless there is one, or no room.
    fn insert(place: Self::Place<'_>, entry: &Entry);
    /// Deletes the entry there. It cannot be missing: nobody else deletes.
    fn remove(place: Self::Place<'_>);
    /// Takes an entry's lock in the name of `token`, which is no other's at the same time; false if others have it for
    /// too long.
    fn acquire(entry: *mut Entry, token: u32) -> bool;
    /// Whether the entry, which was there before the lock, is not one that came after.
    fn holds(entry: *mut Entry, token: u32) -> bool;
    /// Lets go of a lock.
    fn release(entry: *mut Entry, token: u32);
}

/// The flows of packets. Their locks are the kernel's.
pub(crate) struct Packets;

/// A value of that table: an [`Entry`], with the kernel's type for the lock.
#[repr(C)]
struct Guarded {
    lock: bpf_spin_lock,
    padding: u32,
    key: FlowKey,
    flow: Flow,
    state: u64,
}

const _: () = {
    assert!(size_of::<Guarded>() == size_of::<Entry>());
    assert!(offset_of!(Guarded, lock) == offset_of!(Entry, lock));
    assert!(offset_of!(Guarded, key) == offset_of!(Entry, key));
    assert!(offset_of!(Guarded, flow) == offset_of!(Entry, flow));
    assert!(offset_of!(Guarded, state) == offset_of!(Entry, state));
    assert!(offset_of!(Entry, lock) == 0);
};

/// The size is the loader's (`--max-flows`).
#[btf_map]
static FLOWS: HashMap<Place, Guarded, 65_536> = HashMap::new();

impl Table for Packets {
    type Rules = Loaded;
    const RULES: Loaded = Loaded;
    type Place<'a> = Place;

    #[inline(always)]
    fn map() -> *mut c_void {
        (&raw const FLOWS).cast_mut().cast()
    }

    #[inline(always)]
    fn place(key: &FlowKey) -> Place {
        Place { digest: key.digest(config::secret) }
    }

    #[inline(always)]
    fn find(place: Place) -> Option<*mut Entry> {
        FLOWS.get_ptr_mut(place).map(<*mut Guarded>::cast)
    }

    #[inline(always)]
    fn insert(place: Place, entry: &Entry) {
        let value = (&raw const *entry).cast::<Guarded>();
        // SAFETY: of one layout; the kernel leaves the lock out of the copy.
        let value = unsafe { &*value };
        let _ = FLOWS.insert(place, value, BPF_NOEXIST.into());
    }

    #[inline(always)]
    fn remove(place: Place) {
        let _ = FLOWS.remove(place);
    }

    #[inline(always)]
    fn acquire(entry: *mut Entry, _token: u32) -> bool {
        // SAFETY: an entry of the map, which begins with its lock.
        unsafe { generated::bpf_spin_lock(entry.cast()) };
        true
    }

    #[inline(always)]
    fn holds(_entry: *mut Entry, _token: u32) -> bool {
        true
    }

    #[inline(always)]
    fn release(entry: *mut Entry, _token: u32) {
        // SAFETY: taken by `acquire`.
        unsafe { generated::bpf_spin_unlock(entry.cast()) };
    }
}

/// The entry that is like a template, made if need be. `None`: the table is full.
#[inline(always)]
pub(crate) fn find_or_insert<T: Table>(
    place: T::Place<'_>,
    template: &Entry,
) -> Option<*mut Entry> {
    if let Some(entry) = T::find(place) {
        return Some(entry);
    }
    // It fails when the table is full, or when another CPU was first: the lookup tells.
    T::insert(place, template);
    T::find(place)
}

/// Looks until the entry of a place is not a dead one any more: the sweep, on another CPU, is between marking
/// it and deleting it, which takes less than a microsecond unless that CPU is interrupted.
#[inline(always)]
pub(crate) fn await_deletion<T: Table>(place: T::Place<'_>) {
    for _ in 0..LOOKS {
        let Some(entry) = T::find(place) else {
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
pub(crate) struct Locked<T: Table> {
    entry: *mut Entry,
    token: u32,
    table: PhantomData<T>,
}

impl<T: Table> Locked<T> {
    /// Takes an entry's lock, see [`Table::acquire`].
    #[inline(always)]
    pub(crate) fn new(entry: *mut Entry, token: u32) -> Option<Self> {
        T::acquire(entry, token).then_some(Self { entry, token, table: PhantomData })
    }

    /// The flow of `key` for a packet, and whether it is to begin with that. `None`: this is not, or not any
    /// more, the entry of `key`; look again.
    #[inline(always)]
    pub(crate) fn enter(&mut self, key: &FlowKey) -> Option<(&mut Flow, bool)> {
        if !self.is_of(key) || *self.state() == DEAD || !T::holds(self.entry, self.token) {
            return None;
        }
        let new = *self.state() == NEW;
        if new {
            *self.state() = ALIVE;
        }
        Some((self.flow(), new))
    }

    /// The flow of `key`, if it has begun and has not ended.
    #[inline(always)]
    pub(crate) fn living(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        if !self.is_of(key) || *self.state() != ALIVE || !T::holds(self.entry, self.token) {
            return None;
        }
        Some(self.flow())
    }

    /// Marks the flow dead: the caller deletes the entry as soon as the lock is free.
    #[inline(always)]
    pub(crate) fn kill(&mut self) {
        *self.state() = DEAD;
    }

    #[inline(always)]
    fn is_of(&self, key: &FlowKey) -> bool {
        // SAFETY: an entry of the map, whose key nobody writes while the lock is held.
        unsafe { &(*self.entry).key }.same(key)
    }

    // Each field by itself: a sweep keeps hold of the key meanwhile.

    #[inline(always)]
    fn state(&mut self) -> &mut u64 {
        // SAFETY: an entry of the map, this CPU's alone while the lock is held.
        unsafe { &mut (*self.entry).state }
    }

    #[inline(always)]
    fn flow(&mut self) -> &mut Flow {
        // SAFETY: as above.
        unsafe { &mut (*self.entry).flow }
    }
}

impl<T: Table> Drop for Locked<T> {
    #[inline(always)]
    fn drop(&mut self) {
        T::release(self.entry, self.token);
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
