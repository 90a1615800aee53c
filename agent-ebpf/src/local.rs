//! The process behind a packet, by the socket of this host that it is from or for.

use agent_common::{
    key::{Address, proto},
    owner::{NOBODY, Owner},
    parse::Headers,
};
use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED,
        bpf_fib_lookup, bpf_sock, bpf_sock_tuple,
    },
    helpers::generated::{
        bpf_fib_lookup as look_up_route, bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
        bpf_sk_release,
    },
};

use crate::owner;

/// Interface index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
/// `skb->pkt_type` of a frame for another machine (include/uapi/linux/if_packet.h).
const OTHERHOST: u32 = 3;
/// Address families (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Room for what is asked: in a map, since the stack is full of the parser's.
#[repr(C)]
pub(crate) struct Question {
    tuple: Tuple,
    route: bpf_fib_lookup,
}

/// `struct bpf_sock_tuple` by its members, which both families' begin with.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tuple {
    words: [u32; 9],
}

/// Finds the process behind a packet, or nobody.
///
/// A packet on its way out of where it was made has its socket with it. One on its way in has not met its own yet, though
/// one that came over a veth has its sender's: it is looked for, as the kernel will, if the packet is for this host at
/// all. What is only passed on, by a router or a bridge, is nobody's here. On a loopback interface both ends are here,
/// and it is the initiator's process that counts.
#[inline(always)]
pub(crate) fn of_packet(
    skb: *mut __sk_buff,
    headers: &Headers,
    from_initiator: bool,
    question: &mut Question,
    owner: &mut Owner,
) {
    owner.claim = NOBODY;
    // SAFETY: the kernel calls the program with a valid context.
    let fields = unsafe { &*skb };
    // VERIFIER: volatile, or LLVM reads it early and keeps it through all of the parser's paths.
    // SAFETY: a valid reference.
    let came_by = unsafe { (&raw const fields.ingress_ifindex).read_volatile() };
    if came_by == 0 {
        // SAFETY: the kernel fills it in.
        let own = unsafe { &fields.__bindgen_anon_2.sk };
        // SAFETY: a valid reference.
        let own = unsafe { (&raw const *own).read_volatile() };
        if own.is_null() {
            return;
        }
        // SAFETY: the context's socket.
        let full = unsafe { bpf_sk_fullsock(own) };
        if !full.is_null() {
            // SAFETY: a full socket.
            unsafe { owner::of_socket(full.cast(), owner) };
        }
        return;
    }
    if came_by != headers.ifindex {
        return;
    }
    let on_loopback = headers.ifindex == LOOPBACK;
    if !on_loopback && !is_for_this_host(skb, headers, &mut question.route) {
        return;
    }
    let swapped = on_loopback && from_initiator;
    let size = question.tuple.ask(headers, swapped);
    let tuple = (&raw mut question.tuple).cast::<bpf_sock_tuple>();
    let here = BPF_F_CURRENT_NETNS as u64;
    let socket: *mut bpf_sock = match headers.proto() {
        // SAFETY: the context's packet, a tuple of that size.
        proto::TCP => unsafe { bpf_sk_lookup_tcp(skb.cast(), tuple, size, here, 0) },
        // SAFETY: as above.
        proto::UDP => unsafe { bpf_sk_lookup_udp(skb.cast(), tuple, size, here, 0) },
        _ => return,
    };
    if socket.is_null() {
        return;
    }
    // SAFETY: looked up, so it is full.
    unsafe { owner::of_socket(socket.cast(), owner) };
    // SAFETY: looked up, and not used any more.
    unsafe { bpf_sk_release(socket.cast()) };
}

/// Whether a packet that comes in will be delivered here, and not passed on: a socket that is bound to no address
/// would be found for any.
#[inline(always)]
fn is_for_this_host(skb: *mut __sk_buff, headers: &Headers, route: &mut bpf_fib_lookup) -> bool {
    // SAFETY: the kernel calls the program with a valid context.
    let fields = unsafe { &*skb };
    // VERIFIER: volatile, as above.
    // SAFETY: a valid reference.
    if unsafe { (&raw const fields.pkt_type).read_volatile() } == OTHERHOST {
        return false;
    }
    let (v4, from, to) = (headers.version() == 4, &headers.src.address, &headers.dst.address);
    route.family = if v4 { AF_INET } else { AF_INET6 };
    route.l4_protocol = headers.proto();
    route.sport = 0;
    route.dport = 0;
    route.__bindgen_anon_1.tot_len = 0;
    route.ifindex = headers.ifindex;
    route.__bindgen_anon_2.flowinfo = 0;
    route.__bindgen_anon_3.ipv6_src = network_words(from, v4);
    route.__bindgen_anon_4.ipv6_dst = network_words(to, v4);
    route.__bindgen_anon_5.tbid = 0;
    // SAFETY: the context's packet; the size is the structure's.
    let verdict =
        unsafe { look_up_route(skb.cast(), route, size_of::<bpf_fib_lookup>() as i32, 0) };
    verdict == i64::from(BPF_FIB_LKUP_RET_NOT_FWDED)
        || verdict == i64::from(BPF_FIB_LKUP_RET_FWD_DISABLED)
}

/// An address as the kernel's structures have it: an IPv4 address is the first word.
#[inline(always)]
fn network_words(address: &Address, v4: bool) -> [u32; 4] {
    let [high, low] = address.words();
    if v4 {
        [address.tail(), 0, 0, 0]
    } else {
        [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32]
    }
}

impl Tuple {
    /// Asks for the socket that a packet is for, or, swapped, is from; returns the size of the question.
    #[inline(always)]
    fn ask(&mut self, headers: &Headers, swapped: bool) -> u32 {
        let (remote, local) =
            if swapped { (&headers.dst, &headers.src) } else { (&headers.src, &headers.dst) };
        let ports = u32::from(remote.port.to_be()) | u32::from(local.port.to_be()) << 16;
        if headers.version() == 4 {
            self.words[0] = remote.address.tail();
            self.words[1] = local.address.tail();
            self.words[2] = ports;
            return 12;
        }
        let (from, to) =
            (network_words(&remote.address, false), network_words(&local.address, false));
        let mut word = 0;
        while word < 4 {
            self.words[word] = from[word];
            self.words[4 + word] = to[word];
            word += 1;
        }
        self.words[8] = ports;
        36
    }
}
