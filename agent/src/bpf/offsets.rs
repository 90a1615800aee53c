//! The offsets that the kernel program reads by, out of the running kernel's types.

use agent_common::offsets::{Offsets, OpenOffsets, TaskOffsets};
use anyhow::Result;
use tracing::debug;

use super::kernel_types::KernelTypes;

/// What the kernel program is to know; nothing but for processes. Where the kernel does not tell, a process is known by its
/// number alone.
pub(super) fn read(processes: bool) -> Offsets {
    let mut offsets = Offsets::UNKNOWN;
    if processes {
        match KernelTypes::of_this_kernel().and_then(|types| task(&types)) {
            Ok(task) => offsets.task = task,
            Err(error) => debug!("processes are known without the times they began: {error:#}"),
        }
        match KernelTypes::of_this_kernel().and_then(|types| open(&types)) {
            Ok(open) => offsets.open = open,
            Err(error) => debug!("sockets that are open are left out: {error:#}"),
        }
    }
    offsets
}

/// What names a process exactly.
fn task(types: &KernelTypes) -> Result<TaskOffsets> {
    Ok(TaskOffsets {
        group_leader: types.offset("task_struct", "group_leader")?,
        start_boottime: types.offset("task_struct", "start_boottime")?,
    })
}

/// What finds the sockets that are open.
fn open(types: &KernelTypes) -> Result<OpenOffsets> {
    Ok(OpenOffsets {
        socket_sk: types.offset("socket", "sk")?,
        task_tgid: types.offset("task_struct", "tgid")?,
        task_comm: types.offset("task_struct", "comm")?,
        task_cred: types.offset("task_struct", "cred")?,
        cred_uid: types.offset("cred", "uid")?,
        task_cgroups: types.offset("task_struct", "cgroups")?,
        css_set_dfl_cgrp: types.offset("css_set", "dfl_cgrp")?,
        cgroup_kn: types.offset("cgroup", "kn")?,
        kernfs_node_id: types.offset("kernfs_node", "id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a kernel without type information may lack an answer.
    #[test]
    fn this_kernel_tells_what_is_asked() {
        let types = match KernelTypes::of_this_kernel() {
            Ok(types) => types,
            Err(error) => return eprintln!("not run, {error:#}"),
        };
        let task = task(&types).expect("a process's offsets");
        assert!(task.group_leader != task.start_boottime);
        open(&types).expect("the offsets on the way to an open socket");
    }
}
