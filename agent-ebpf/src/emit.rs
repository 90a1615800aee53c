//! Records into the ring.

use agent_common::{
    counters::Counters,
    entry::Entry,
    flow::Flow,
    key::FlowKey,
    record::{Reason, Record},
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::RingBuf,
    helpers::generated::bpf_ringbuf_query,
    macros::btf_map,
};

use crate::{
    config,
    table::{Locked, Table},
};

/// The size is the loader's (`--ring-size`).
#[btf_map]
static RECORDS: RingBuf<Record, { 8 << 20 }> = RingBuf::new();

/// Bytes of the ring that a record takes, its header included.
const RECORD_BYTES: u64 = size_of::<Record>() as u64 + 8;

/// What to do with a flow, decided under its lock.
pub(crate) struct Action {
    /// Emit a vector for this reason.
    pub(crate) emit: Option<Reason>,
    /// The flow ends: its entry is marked dead, and the caller deletes it.
    pub(crate) end: bool,
}

/// Asks `decide`, under the flow's lock, and emits a vector if it says so. Room in the ring is taken before
/// the lock, since no helper may be called under it; if there is none, the flow stays due and `waiting`
/// counts one more. Returns whether the flow ended: its entry is to be deleted.
#[inline(always)]
pub(crate) fn vector<T: Table>(
    entry: *mut Entry,
    key: &FlowKey,
    token: u32,
    now_us: u64,
    counters: &mut Counters,
    waiting: &mut u64,
    decide: impl Fn(&Flow) -> Action,
) -> bool {
    let Some(mut slot) = RECORDS.reserve(0) else {
        counters.ring_full += 1;
        // VERIFIER: told by memory. Of a result LLVM makes a second look at the pointer, and before Linux 6.3
        // one that is known not to be null may be null at a second look.
        // SAFETY: a valid reference.
        unsafe { (&raw mut *waiting).write_volatile(*waiting + 1) };
        if let Some(mut locked) = Locked::<T>::new(entry, token)
            && let Some(flow) = locked.living(key)
        {
            flow.delay();
        }
        return false;
    };
    // SAFETY: every field is written below before the record is submitted.
    let record = unsafe { &mut *slot.as_mut_ptr() };
    record.key = *key;
    let mut action = Action { emit: None, end: false };
    let Some(mut locked) = Locked::<T>::new(entry, token) else {
        // What is due stays so.
        slot.discard(BPF_RB_NO_WAKEUP.into());
        return false;
    };
    if let Some(flow) = locked.living(key) {
        // Before a reason is known.
        flow.prepare(&T::RULES, record);
        action = decide(flow);
        if let Some(reason) = action.emit {
            flow.emit(reason, now_us, record);
        }
        if action.end {
            locked.kill();
        }
    }
    drop(locked);
    if action.emit.is_some() {
        counters.vectors += 1;
        slot.submit(wakeup());
    } else {
        slot.discard(BPF_RB_NO_WAKEUP.into());
    }
    action.end
}

/// Whether this record wakes user space. A wake-up costs more than many records: but for low latency, only
/// the records at the mark do; user space has a timer for the rest.
#[inline(always)]
fn wakeup() -> u64 {
    let mark = u64::from(config::wakeup_bytes());
    if mark == 0 {
        return 0;
    }
    let ring = (&raw const RECORDS).cast_mut().cast();
    // SAFETY: the ring's map.
    let fill = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) };
    // A few, since two CPUs may pass the mark at once.
    if fill >= mark && fill < mark + 4 * RECORD_BYTES {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}
