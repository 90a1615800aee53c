//! The one door to the kernel's own memory.

use core::mem::MaybeUninit;

use agent_common::offsets::{Offsets, UNKNOWN};
use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
};
use bytemuck::AnyBitPattern;

/// Replaced by the loader, by this name.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets::UNKNOWN);

/// One offset, read as a threshold is, see [`crate::config`].
macro_rules! offset {
    ($($name:ident).+) => {{
        let offsets = (&raw const OFFSETS).cast::<Offsets>();
        // SAFETY: `Global` is transparent, and the static lives as long as the program.
        unsafe { (&raw const (*offsets).$($name).+).read_volatile() }
    }};
}

/// What lies at an address of the kernel's; zeros if nothing can be read there.
#[inline(always)]
fn read<T: AnyBitPattern>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let (place, size) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
    // SAFETY: so many bytes of the stack; the helper faults at no address. What cannot be read it clears.
    let _ = unsafe { bpf_probe_read_kernel(place, size, address as *const core::ffi::c_void) };
    // SAFETY: written, or cleared, by the helper; any bytes are a value.
    unsafe { value.assume_init() }
}

/// When the process that runs was started, in ns of the boot clock; 0 if the kernel does not tell where it keeps that.
#[inline(always)]
pub(crate) fn process_started_ns() -> u64 {
    let (leader, started) = (offset!(task.group_leader), offset!(task.start_boottime));
    if leader == UNKNOWN || started == UNKNOWN {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let leader: u64 = read(task + u64::from(leader));
    read(leader + u64::from(started))
}
