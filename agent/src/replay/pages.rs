//! The one door to what the kernel is told of memory.

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};

/// Bytes of a huge page, of most machines.
const HUGE: usize = 2 << 20;

/// Asks for huge pages under memory that is used here and there: where a small page lies the processor has forgotten by the
/// time that it is used again. Whether there are any is the kernel's to say (transparent_hugepage.rst).
pub(super) fn ask_for_huge<T>(room: &mut [MaybeUninit<T>]) {
    let ends = room.as_mut_ptr_range();
    let start = ends.start.map_addr(|at| at.next_multiple_of(HUGE));
    let len = ends.end.addr().saturating_sub(start.addr()) / HUGE * HUGE;
    if len > 0 {
        // SAFETY: whole pages within the room, whose contents this does not change.
        let _ = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) };
    }
}
