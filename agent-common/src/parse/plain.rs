//! What most packets are: TCP or UDP right behind an IP header without options, all of it near. One look tells.
//!
//! It finds nothing that [`super::walk`] would not find, and leaves to that whatever it is not sure of.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

use super::{
    Fragment, Frame, Headers, Link, Measures, Place,
    link::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, vlan_id},
    proto,
    source::Source,
};
use crate::{
    flow::NO_WINDOW,
    key::{Address, Endpoint, Kind},
    segments::Segments,
};

/// Bytes of each header, without options.
const LINK_HEADER: u32 = EthHdr::LEN as u32;
const V4_HEADER: u32 = Ipv4Hdr::LEN as u32;
const V6_HEADER: u32 = Ipv6Hdr::LEN as u32;
const TCP_HEADER: u32 = TcpHdr::LEN as u32;
const UDP_HEADER: u32 = UdpHdr::LEN as u32;

/// A packet of IPv4, of 40 bytes at least.
#[inline(always)]
pub(super) fn v4<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Option<(Headers, Measures, Place)> {
    let (offset, words) = behind(source, frame, ETHERTYPE_IPV4)?;
    // RFC 791, 3.1; behind it ports, and what TCP or UDP has there.
    let [first, second, third, udp, tcp] = words.map(u64::from_be);
    let (version_and_words, place_in_datagram) = (first >> 56, first as u16 & 0x3fff);
    if version_and_words != 0x45 || place_in_datagram != 0 {
        return None;
    }
    let ip = Ip {
        offset,
        len: (first >> 32) as u32 & 0xffff,
        header_len: V4_HEADER,
        proto: (second >> 48) as u8,
        version: 4,
        ttl: (second >> 56) as u8,
        src: Address::v4((second as u32).to_be_bytes()),
        dst: Address::v4(((third >> 32) as u32).to_be_bytes()),
    };
    let transport =
        Transport { ports: third as u32, udp_len: (udp >> 48) as u32, control: (tcp >> 32) as u32 };
    ip.before(frame, decap, transport)
}

/// A packet of IPv6.
#[inline(always)]
pub(super) fn v6<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Option<(Headers, Measures, Place)> {
    let (offset, [first, src @ .., dst_high, dst_low]) = behind(source, frame, ETHERTYPE_IPV6)?;
    // RFC 8200, 3.
    let first = u64::from_be(first);
    let payload = (first >> 16) as u32 & 0xffff;
    if first >> 60 != 6 || payload == 0 {
        return None;
    }
    // The least of a TCP header. Of a UDP datagram that is shorter nothing is found here.
    let [ports, second, _, control, _]: [u32; 5] = source.near(offset + V6_HEADER)?;
    let ip = Ip {
        offset,
        len: V6_HEADER + payload,
        header_len: V6_HEADER,
        proto: (first >> 8) as u8,
        version: 6,
        ttl: first as u8,
        src: Address::from_words(src),
        dst: Address::from_words([dst_high, dst_low]),
    };
    let transport = Transport {
        ports: u32::from_be(ports),
        udp_len: u32::from_be(second) >> 16,
        control: u32::from_be(control),
    };
    ip.before(frame, decap, transport)
}

/// The offset of an IP header right behind the link's, and the 40 bytes from there on.
#[inline(always)]
fn behind<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    ether_type: u16,
) -> Option<(u32, [u64; 5])> {
    match frame.link {
        Link::Ethernet => {
            // The type is the last two of its bytes.
            let [link, words @ ..]: [u64; 6] = source.near(LINK_HEADER - 8)?;
            (u64::from_be(link) as u16 == ether_type).then_some((LINK_HEADER, words))
        }
        Link::Ip => Some((0, source.near(0)?)),
        Link::CookedV1 | Link::CookedV2 | Link::Null => None,
    }
}

/// What an IP header tells.
#[derive(Clone, Copy)]
struct Ip {
    offset: u32,
    len: u32,
    header_len: u32,
    proto: u8,
    version: u8,
    ttl: u8,
    src: Address,
    dst: Address,
}

/// The words behind it, as whichever protocol it is would have them.
#[derive(Clone, Copy)]
struct Transport {
    ports: u32,
    udp_len: u32,
    /// Data offset, flags and window of TCP.
    control: u32,
}

impl Ip {
    /// The packet, if what is behind is TCP or UDP and all lengths are as they should be. Where tunnels are looked through,
    /// UDP is left to the layers.
    #[inline(always)]
    fn before(
        self,
        frame: &Frame,
        decap: bool,
        transport: Transport,
    ) -> Option<(Headers, Measures, Place)> {
        let Self { offset, len, header_len, proto, version, ttl, src, dst } = self;
        let Transport { ports, udp_len, control } = transport;
        if frame.gso_size != 0 || offset + len > frame.wire_len {
            return None;
        }
        let l4_len;
        let (mut tcp_flags, mut tcp_window) = (0, NO_WINDOW);
        if proto == proto::TCP {
            // RFC 9293, 3.1.
            l4_len = (control >> 28) * 4;
            if l4_len < TCP_HEADER {
                return None;
            }
            tcp_flags = (control >> 16) as u8;
            tcp_window = control & 0xffff;
        } else if proto == proto::UDP && !decap {
            l4_len = UDP_HEADER;
            if udp_len < UDP_HEADER || header_len + udp_len > len {
                return None;
            }
        } else {
            return None;
        }
        if header_len + l4_len > len {
            return None;
        }
        let headers = Headers {
            src: Endpoint { address: src, port: (ports >> 16) as u16 },
            dst: Endpoint { address: dst, port: ports as u16 },
            ifindex: frame.ifindex,
            kind: Kind::new([vlan_id(frame.vlan_tci), 0], proto, version),
            fragment: Fragment::Whole,
        };
        let measures = Measures {
            segments: Segments::new(len, header_len + l4_len, 0),
            tcp_window,
            tcp_flags,
            ttl,
        };
        Some((headers, measures, Place { ip: offset, l4: offset + header_len }))
    }
}
