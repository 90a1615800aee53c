//! The one door to the kernel's own memory.

use core::mem::MaybeUninit;

use agent_common::{
    offsets::{Offsets, UNKNOWN},
    owner::Owner,
};
use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
};
use bytemuck::AnyBitPattern;

/// Replaced by the loader, by this name.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Global<Offsets> = Global::new(Offsets::UNKNOWN);

/// One offset, read as a threshold is, see [`crate::config`].
macro_rules! offset {
    ($($name:ident).+) => {{
        let offsets = (&raw const $crate::kernel::OFFSETS).cast::<agent_common::offsets::Offsets>();
        // SAFETY: `Global` is transparent, and the static lives as long as the program.
        unsafe { (&raw const (*offsets).$($name).+).read_volatile() }
    }};
}

pub(crate) use offset;

/// What lies at an address of the kernel's; zeros if nothing can be read there.
#[inline(always)]
pub(crate) fn read<T: AnyBitPattern>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let (place, size) = (value.as_mut_ptr().cast(), size_of::<T>() as u32);
    // SAFETY: so many bytes of the stack; the helper faults at no address. What cannot be read it clears.
    let _ = unsafe { bpf_probe_read_kernel(place, size, address as *const core::ffi::c_void) };
    // SAFETY: written, or cleared, by the helper; any bytes are a value.
    unsafe { value.assume_init() }
}

/// When the process of a task was started, in ns of the boot clock; 0 if the kernel does not tell where it keeps that.
#[inline(always)]
fn started_ns(task: u64) -> u64 {
    let (leader, started) = (offset!(task.group_leader), offset!(task.start_boottime));
    if leader == UNKNOWN || started == UNKNOWN {
        return 0;
    }
    let leader: u64 = read(task + u64::from(leader));
    read(leader + u64::from(started))
}

/// When the process that runs was started, see [`started_ns`].
#[inline(always)]
pub(crate) fn process_started_ns() -> u64 {
    // SAFETY: the helper has no preconditions.
    started_ns(unsafe { bpf_get_current_task() })
}

/// The process of a task that does not run now.
#[inline(always)]
pub(crate) fn owner(task: u64, claim: u32) -> Owner {
    let at = |pointer: u64, offset: u32| pointer + u64::from(offset);
    let cred: u64 = read(at(task, offset!(open.task_cred)));
    let groups: u64 = read(at(task, offset!(open.task_cgroups)));
    let group: u64 = read(at(groups, offset!(open.css_set_dfl_cgrp)));
    let node: u64 = read(at(group, offset!(open.cgroup_kn)));
    Owner {
        started_ns: started_ns(task),
        cgroup: read(at(node, offset!(open.kernfs_node_id))),
        comm: read(at(task, offset!(open.task_comm))),
        pid: read(at(task, offset!(open.task_tgid))),
        uid: read(at(cred, offset!(open.cred_uid))),
        claim,
        padding: 0,
    }
}

/// The `struct sock` of a `struct socket` that the verifier knows; it knows what it is, too.
#[inline(always)]
pub(crate) fn sock_of(socket: *const core::ffi::c_void) -> *mut core::ffi::c_void {
    let member = socket.wrapping_byte_add(offset!(open.socket_sk) as usize);
    // SAFETY: the verifier lets a member of a structure that it knows be read, and the kernel catches the fault.
    unsafe { member.cast::<*mut core::ffi::c_void>().read_volatile() }
}
