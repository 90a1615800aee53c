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
    /// Of a socket, and what passes through it.
    pub socket: SocketOffsets,
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

/// Offsets in what a call on a socket is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SocketOffsets {
    /// `sk` in `struct socket`.
    pub sk: u32,
    /// `skc_family` in `struct sock_common`, with which a `struct sock` begins, as all that follow here.
    pub family: u32,
    /// `inet_sport` in `struct inet_sock`, which begins with its `struct sock`: the local port, in network order. Not
    /// `skc_num`: a connection that is closed has lost that, and may still be read from.
    pub sport: u32,
    /// `skc_dport`: the peer's port, in network order.
    pub dport: u32,
    /// `skc_daddr`: the peer's IPv4 address.
    pub daddr: u32,
    /// `skc_rcv_saddr`: the local IPv4 address.
    pub rcv_saddr: u32,
    /// `skc_v6_daddr`: the peer's IPv6 address; [`UNKNOWN`] in a kernel without IPv6.
    pub v6_daddr: u32,
    /// `skc_v6_rcv_saddr`: the local IPv6 address; [`UNKNOWN`] in a kernel without IPv6.
    pub v6_rcv_saddr: u32,
    /// `skc_net`: the network namespace.
    pub net: u32,
    /// `ns.inum` in `struct net`: the number of a network namespace.
    pub net_inum: u32,
    /// `head` in `struct sk_buff`: where its bytes begin.
    pub skb_head: u32,
    /// `network_header` in `struct sk_buff`: the IP header, counted from there.
    pub skb_network_header: u32,
    /// `transport_header` in `struct sk_buff`.
    pub skb_transport_header: u32,
    /// `msg_name` in `struct msghdr`: to whom.
    pub msg_name: u32,
    /// Which argument of `tcp_recvmsg` is `flags`, from 0.
    pub tcp_recvmsg_flags: u32,
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
        socket: SocketOffsets {
            sk: UNKNOWN,
            family: UNKNOWN,
            sport: UNKNOWN,
            dport: UNKNOWN,
            daddr: UNKNOWN,
            rcv_saddr: UNKNOWN,
            v6_daddr: UNKNOWN,
            v6_rcv_saddr: UNKNOWN,
            net: UNKNOWN,
            net_inum: UNKNOWN,
            skb_head: UNKNOWN,
            skb_network_header: UNKNOWN,
            skb_transport_header: UNKNOWN,
            msg_name: UNKNOWN,
            tcp_recvmsg_flags: UNKNOWN,
        },
    };
}
