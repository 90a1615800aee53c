//! What the begin of a call leaves for its end.

use aya_ebpf::{btf_maps::HashMap, helpers::generated::bpf_get_current_pid_tgid, macros::btf_map};
use bytemuck::{Pod, Zeroable};

use super::{ENTERED, counters, ends::Far, function};

/// A call that a thread is in.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Note {
    /// The `struct sock`.
    pub(super) socket: u64,
    /// The other end.
    pub(super) far: Far,
    /// Which function.
    pub(super) function: u32,
    /// Zero.
    pub(super) padding: u32,
}

/// By thread, which is in one call at a time: `udpv6_sendmsg` calls `udp_sendmsg` for an IPv4 address, whose note takes the
/// place of the other's, so that whichever ends first counts the call, and counts it once.
#[btf_map]
static NOTES: HashMap<u64, Note, 16_384> = HashMap::new();

/// A function begins.
#[inline(always)]
pub(super) fn leave(note: &Note) {
    let Some(counters) = counters(ENTERED + (note.function & 7)) else { return };
    let thread = thread();
    // SAFETY: a note is its thread's alone.
    if let Some(left) = unsafe { NOTES.get(thread) } {
        let nested =
            left.function == function::UDPV6_SENDMSG && note.function == function::UDP_SENDMSG;
        // Nobody was told of the end of the call before.
        if !nested && left.function != function::NONE {
            counters.missed += 1;
        }
    }
    if NOTES.insert(thread, note, 0).is_err() {
        counters.missed += 1;
    }
}

/// A function ends: what its begin has left, unless a function that it called took that.
#[inline(always)]
pub(super) fn take() -> Option<Note> {
    let thread = thread();
    // SAFETY: as above.
    let note = *unsafe { NOTES.get(thread) }?;
    let _ = NOTES.remove(thread);
    Some(note)
}

#[inline(always)]
fn thread() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_pid_tgid() }
}
