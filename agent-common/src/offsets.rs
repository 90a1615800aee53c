//! Where the kernel's structures have what its program reads of them: no two kernels' are the same, and this one's own
//! type information tells.

use bytemuck::{Pod, Zeroable};

/// An offset that the kernel does not tell, or that nobody asked for.
pub const UNKNOWN: u32 = u32::MAX;

/// All offsets, in bytes. The kernel program reads them from read-only data that the loader fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Offsets {
    /// Of a process.
    pub task: TaskOffsets,
}

/// Offsets in `struct task_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TaskOffsets {
    /// `group_leader`: the first thread of the process.
    pub group_leader: u32,
    /// `start_boottime`: when the thread was started, in ns of the boot clock.
    pub start_boottime: u32,
}

impl Offsets {
    /// None is known.
    pub const UNKNOWN: Self =
        Self { task: TaskOffsets { group_leader: UNKNOWN, start_boottime: UNKNOWN } };
}
