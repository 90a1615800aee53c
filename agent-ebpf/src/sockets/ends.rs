//! Between which ends a call sends or receives, read out of the kernel's structures.

use agent_common::{
    key::{Address, Endpoint, Kind},
    parse::{Fragment, Headers},
};
use bytemuck::{Pod, Zeroable};

use super::notes::Note;
use crate::kernel::{offset, read};

/// Address families (include/linux/socket.h).
const AF_UNSPEC: u16 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The end that is not this socket.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Far {
    /// The address, IPv4 mapped into IPv6, as two words.
    words: [u64; 2],
    /// Its port, in host order.
    port: u32,
    /// 4 or 6; 0: whoever the socket is connected to.
    version: u32,
}

/// Both ends.
pub(super) struct Ends {
    near: Endpoint,
    far: Endpoint,
    version: u8,
    namespace: u32,
}

/// The ends of a call; `None` if the socket's are no IP addresses.
#[inline(always)]
pub(super) fn of(note: &Note) -> Option<Ends> {
    let socket = note.socket;
    let far = if note.far.version == 0 { Far::peer(socket)? } else { note.far };
    let address = if far.version == 4 {
        let address: [u8; 4] = read(socket + u64::from(offset!(socket.rcv_saddr)));
        Address::v4(address)
    } else {
        let address: [u64; 2] = read(socket + u64::from(offset!(socket.v6_rcv_saddr)));
        Address::v6(bytemuck::cast(address))
    };
    let port: u16 = read(socket + u64::from(offset!(socket.sport)));
    let net: u64 = read(socket + u64::from(offset!(socket.net)));
    Some(Ends {
        near: Endpoint { address, port: u16::from_be(port) },
        far: Endpoint { address: Address::v6(bytemuck::cast(far.words)), port: far.port as u16 },
        version: far.version as u8,
        namespace: read(net + u64::from(offset!(socket.net_inum))),
    })
}

impl Ends {
    /// The headers that a packet would have which carried the bytes of the call.
    #[inline(always)]
    pub(super) fn headers(self, proto: u8, sent: bool) -> Headers {
        let Self { near, far, version, namespace } = self;
        let (src, dst) = if sent { (near, far) } else { (far, near) };
        Headers {
            src,
            dst,
            ifindex: namespace,
            kind: Kind::new([0; 2], proto, version),
            fragment: Fragment::Whole,
        }
    }
}

impl Far {
    /// Whoever the socket is connected to.
    pub(super) const THE_PEER: Self = Self { words: [0; 2], port: 0, version: 0 };

    #[inline(always)]
    fn v4(address: [u8; 4], port: u16) -> Self {
        let words = Address::v4(address).words();
        Self { words, port: u16::from_be(port).into(), version: 4 }
    }

    /// An IPv4 address that an IPv6 socket has mapped is one.
    #[inline(always)]
    fn v6(words: [u64; 2], port: u16) -> Self {
        let mapped = words[0] == 0 && words[1] as u32 == u32::from_be(0xffff);
        let version = if mapped { 4 } else { 6 };
        Self { words, port: u16::from_be(port).into(), version }
    }

    #[inline(always)]
    fn peer(socket: u64) -> Option<Self> {
        let family: u16 = read(socket + u64::from(offset!(socket.family)));
        let port = read(socket + u64::from(offset!(socket.dport)));
        match family {
            AF_INET => Some(Self::v4(read(socket + u64::from(offset!(socket.daddr))), port)),
            AF_INET6 => Some(Self::v6(read(socket + u64::from(offset!(socket.v6_daddr))), port)),
            _ => None,
        }
    }

    /// To whom a message goes; `any_is_v4`: where no family is named, IPv4 is meant.
    #[inline(always)]
    pub(super) fn named(message: u64, any_is_v4: bool) -> Self {
        let name: u64 = read(message + u64::from(offset!(socket.msg_name)));
        if name == 0 {
            return Self::THE_PEER;
        }
        let family: u16 = read(name);
        let port = read(name + 2);
        match family {
            AF_INET => Self::v4(read(name + 4), port),
            AF_UNSPEC if any_is_v4 => Self::v4(read(name + 4), port),
            AF_INET6 => Self::v6(read(name + 8), port),
            _ => Self::THE_PEER,
        }
    }

    /// From whom a datagram came.
    #[inline(always)]
    pub(super) fn sender(skb: u64) -> Self {
        let head: u64 = read(skb + u64::from(offset!(socket.skb_head)));
        let network: u16 = read(skb + u64::from(offset!(socket.skb_network_header)));
        let transport: u16 = read(skb + u64::from(offset!(socket.skb_transport_header)));
        let (ip, udp) = (head + u64::from(network), head + u64::from(transport));
        let first: u8 = read(ip);
        let port = read(udp);
        if first >> 4 == 4 { Self::v4(read(ip + 12), port) } else { Self::v6(read(ip + 8), port) }
    }
}
