//! The offsets that the kernel program reads by, out of the running kernel's types.

use agent_common::offsets::{Offsets, OpenOffsets, SocketOffsets, TaskOffsets, UNKNOWN};
use anyhow::{Context as _, Result, ensure};
use tracing::debug;

use super::kernel_types::KernelTypes;

/// What the kernel program is to know of processes and of sockets. Where the kernel does not tell, a process is known by
/// its number alone; of sockets it must tell all.
pub(super) fn read(processes: bool, sockets: bool) -> Result<Offsets> {
    let mut offsets = Offsets::UNKNOWN;
    if !processes && !sockets {
        return Ok(offsets);
    }
    let types = KernelTypes::of_this_kernel();
    if processes {
        match types.as_ref().map(task) {
            Ok(Ok(task)) => offsets.task = task,
            Ok(Err(error)) => debug!("processes are known without the times they began: {error:#}"),
            Err(error) => debug!("processes are known without the times they began: {error:#}"),
        }
        match types.as_ref().map(open) {
            Ok(Ok(open)) => offsets.open = open,
            Ok(Err(error)) => debug!("sockets that are open are left out: {error:#}"),
            Err(error) => debug!("sockets that are open are left out: {error:#}"),
        }
    }
    if sockets {
        offsets.socket = socket(&types?).context("the socket hook cannot be on this kernel")?;
    }
    Ok(offsets)
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

/// What the socket hook reads.
fn socket(types: &KernelTypes) -> Result<SocketOffsets> {
    let of_socket = |member| types.offset("sock_common", member);
    // `struct sock` begins with its `sock_common`, and all is read as if it were that.
    let begin = types.offset("sock", "__sk_common")?;
    ensure!(begin == 0, "this kernel's `struct sock` does not begin with `__sk_common`");
    let tcp_recvmsg_flags = types.parameter("tcp_recvmsg", "flags")?;
    ensure!(
        matches!(tcp_recvmsg_flags, 3 | 4),
        "`flags` is not where any known kernel's `tcp_recvmsg` has it, but parameter {tcp_recvmsg_flags}"
    );
    Ok(SocketOffsets {
        sk: types.offset("socket", "sk")?,
        family: of_socket("skc_family")?,
        sport: types.offset("inet_sock", "inet_sport")?,
        dport: of_socket("skc_dport")?,
        daddr: of_socket("skc_daddr")?,
        rcv_saddr: of_socket("skc_rcv_saddr")?,
        v6_daddr: of_socket("skc_v6_daddr").unwrap_or(UNKNOWN),
        v6_rcv_saddr: of_socket("skc_v6_rcv_saddr").unwrap_or(UNKNOWN),
        net: of_socket("skc_net.net")?,
        net_inum: types.offset("net", "ns.inum")?,
        skb_head: types.offset("sk_buff", "head")?,
        skb_network_header: types.offset("sk_buff", "network_header")?,
        skb_transport_header: types.offset("sk_buff", "transport_header")?,
        msg_name: types.offset("msghdr", "msg_name")?,
        tcp_recvmsg_flags,
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
        let socket = socket(&types).expect("a socket's offsets");
        // In every kernel since 3.13: both addresses are one word, and all are read as one (`skc_addrpair`).
        assert_eq!((socket.daddr, socket.rcv_saddr), (0, 4));
        assert_eq!(socket.dport, 12);
        assert!(socket.v6_daddr != socket.v6_rcv_saddr);
        assert!(matches!(socket.tcp_recvmsg_flags, 3 | 4));
    }
}
