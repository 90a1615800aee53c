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
    /// Of what a process has open.
    pub open: OpenOffsets,
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

/// Offsets on the way from a process to its open sockets, and to what else names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct OpenOffsets {
    /// `struct socket`, `sk`.
    pub socket_sk: u32,
    /// `struct task_struct`, `tgid`: the process's number.
    pub task_tgid: u32,
    /// `struct task_struct`, `comm`: its name.
    pub task_comm: u32,
    /// `struct task_struct`, `cred`.
    pub task_cred: u32,
    /// `struct cred`, `uid`.
    pub cred_uid: u32,
    /// `struct task_struct`, `cgroups`.
    pub task_cgroups: u32,
    /// `struct css_set`, `dfl_cgrp`: its group in the unified hierarchy.
    pub css_set_dfl_cgrp: u32,
    /// `struct cgroup`, `kn`.
    pub cgroup_kn: u32,
    /// `struct kernfs_node`, `id`: the group's number.
    pub kernfs_node_id: u32,
}

impl Offsets {
    /// None is known.
    pub const UNKNOWN: Self = Self {
        task: TaskOffsets { group_leader: UNKNOWN, start_boottime: UNKNOWN },
        open: OpenOffsets {
            socket_sk: UNKNOWN,
            task_tgid: UNKNOWN,
            task_comm: UNKNOWN,
            task_cred: UNKNOWN,
            cred_uid: UNKNOWN,
            task_cgroups: UNKNOWN,
            css_set_dfl_cgrp: UNKNOWN,
            cgroup_kn: UNKNOWN,
            kernfs_node_id: UNKNOWN,
        },
    };
}
