//! What a frame is, read with plain code from the bytes alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    link::{Start, start},
    tunnel::inside,
};
use crate::frame::Frame;

/// Why a frame is counted as malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The link header or a VLAN tag is cut.
    TruncatedLink,
    /// An IP header or extension header is cut.
    TruncatedIp,
    /// The version nibble contradicts the Ethernet type, or is neither 4 nor 6 without a link header.
    BadIpVersion,
    /// IPv4 header length below 5 words or above the total length.
    BadIpHeader,
    /// The IP length exceeds the bytes on the wire.
    BadIpLength,
    /// More than eight IPv6 extension headers.
    ExtChain,
    /// More than two VLAN tags.
    VlanDepth,
    /// The L4 header is cut.
    TruncatedL4,
    /// The L4 header contradicts itself or the IP length.
    BadL4,
}

impl Reason {
    /// The name the agent counts it under.
    pub fn name(self) -> &'static str {
        match self {
            Self::TruncatedLink => "truncated_link",
            Self::TruncatedIp => "truncated_ip",
            Self::BadIpVersion => "bad_ip_version",
            Self::BadIpHeader => "bad_ip_header",
            Self::BadIpLength => "bad_ip_length",
            Self::ExtChain => "ext_chain",
            Self::VlanDepth => "vlan_depth",
            Self::TruncatedL4 => "truncated_l4",
            Self::BadL4 => "bad_l4",
        }
    }
}

/// The verdict on a frame before any state is consulted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IP, but not to be trusted.
    Malformed(Reason),
    /// One IP packet or super-packet.
    Packet(Packet),
}

/// What L4 says about the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// A protocol without ports.
    None,
    /// Source and destination; `one_way` when the reverse direction is another flow.
    Known {
        /// Source port or its ICMP stand-in.
        sport: u16,
        /// Destination port or its ICMP stand-in.
        dport: u16,
        /// True for ICMP types that have no counterpart.
        one_way: bool,
    },
    /// A later fragment: the first one knows.
    OfFirstFragment,
}

/// An IP packet's facts, lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// VLAN ids, outermost first; 0 for none.
    pub vlan: [u16; 2],
    /// IP source.
    pub src: IpAddr,
    /// IP destination.
    pub dst: IpAddr,
    /// L4 protocol number.
    pub proto: u8,
    /// Ports, as far as this packet alone tells.
    pub ports: Ports,
    /// Fragment identification when this is a fragment, and the protocol of the fragmented part.
    pub fragment: Option<(u32, u8)>,
    /// IP length: headers and everything behind, without link padding.
    pub len: usize,
    /// All headers up to the end of L4's.
    pub headers: usize,
    /// TCP flags as on the wire, 0 for other protocols.
    pub flags: u8,
    /// The TCP window field, for TCP headers only.
    pub tcp_window: Option<u16>,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Payload bytes per segment of a super-packet; 0 when this is one packet.
    pub gso_size: usize,
    /// A super-packet of which nothing tells the segments.
    pub gso_kept: bool,
}

/// TCP's flag bits in the order of the byte.
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// Acknowledgement.
    pub const ACK: u8 = 16;
    /// Urgent.
    pub const URG: u8 = 32;
    /// ECN echo.
    pub const ECE: u8 = 64;
    /// Congestion window reduced.
    pub const CWR: u8 = 128;
}

/// Reads one frame; `decap`: the packet inside of tunnels, PPPoE and MPLS.
pub fn parse(frame: &Frame, decap: bool) -> Parsed {
    match try_parse(frame, decap) {
        Ok(Some(packet)) => Parsed::Packet(packet),
        Ok(None) => Parsed::NotIp,
        Err(reason) => Parsed::Malformed(reason),
    }
}

/// ICMP's stand-in for ports after the Community ID specification: (source, destination, one-way).
pub fn icmp_ports(v6: bool, kind: u8, code: u8) -> (u16, u16, bool) {
    let counterpart: Option<u8> = if v6 {
        match kind {
            128 => Some(129),
            129 => Some(128),
            130 => Some(131),
            131 => Some(130),
            133 => Some(134),
            134 => Some(133),
            135 => Some(136),
            136 => Some(135),
            139 => Some(140),
            140 => Some(139),
            144 => Some(145),
            145 => Some(144),
            _ => None,
        }
    } else {
        match kind {
            0 => Some(8),
            8 => Some(0),
            9 => Some(10),
            10 => Some(9),
            13 => Some(14),
            14 => Some(13),
            15 => Some(16),
            16 => Some(15),
            17 => Some(18),
            18 => Some(17),
            _ => None,
        }
    };
    match counterpart {
        Some(other) => (kind.into(), other.into(), false),
        None => (kind.into(), code.into(), true),
    }
}

pub(super) fn byte(frame: &Frame, at: usize, cut: Reason) -> Result<u8, Reason> {
    frame.data.get(at).copied().ok_or(cut)
}

pub(super) fn word(frame: &Frame, at: usize, cut: Reason) -> Result<u16, Reason> {
    let bytes = frame.data.get(at..at + 2).ok_or(cut)?;
    Ok(u16::from(bytes[0]) << 8 | u16::from(bytes[1]))
}

fn try_parse(frame: &Frame, decap: bool) -> Result<Option<Packet>, Reason> {
    let Some(mut start) = start(frame, decap)? else { return Ok(None) };
    let mut ip = ip(frame, &start);
    // At most two tunnels; whatever keeps from looking inside, the packet stays with what is outside.
    let most = if decap { 2 } else { 0 };
    for _ in 0..most {
        let Some(inner) = ip.as_ref().ok().and_then(|ip| inside(frame, &start, ip)) else { break };
        ip = self::ip(frame, &inner);
        start = inner;
    }
    let ip = ip?;
    // Priority tags count as tags, but their VID 0 names no VLAN.
    let mut vids = start.tags.into_iter().filter(|vid| *vid != 0);
    let vlan = [vids.next().unwrap_or(0), vids.next().unwrap_or(0)];
    let gso_size = match frame.gso_size {
        0 | 0xffff => 0,
        size => usize::from(size),
    };
    let l4 = l4(frame, &ip, frame.gso_size > 0)?;
    Ok(Some(Packet {
        vlan,
        src: ip.src,
        dst: ip.dst,
        proto: ip.proto,
        ports: l4.ports,
        fragment: ip.fragment.map(|(id, proto, _)| (id, proto)),
        len: ip.len,
        headers: ip.headers + l4.header,
        flags: l4.flags,
        tcp_window: l4.tcp_window,
        ttl: ip.ttl,
        gso_size,
        gso_kept: frame.gso_size == 0xffff,
    }))
}

/// What an IP header says.
pub(super) struct Ip {
    src: IpAddr,
    dst: IpAddr,
    pub(super) proto: u8,
    ttl: u8,
    pub(super) len: usize,
    pub(super) headers: usize,
    /// Where the transport header lies in the frame.
    pub(super) l4_at: usize,
    /// Identification, protocol of the fragmented part, whether this is the first.
    pub(super) fragment: Option<(u32, u8, bool)>,
}

fn ip(frame: &Frame, start: &Start) -> Result<Ip, Reason> {
    let there = frame.wire_len - start.l3;
    let read = if start.version == 4 { ipv4 } else { ipv6 };
    read(frame, start.l3, there, frame.gso_size > 0)
}

fn ipv4(frame: &Frame, l3: usize, there: usize, gso: bool) -> Result<Ip, Reason> {
    let header = frame.data.get(l3..l3 + 20).ok_or(Reason::TruncatedIp)?;
    if header[0] >> 4 != 4 {
        return Err(Reason::BadIpVersion);
    }
    let headers = usize::from(header[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let len = if gso || total == 0 { there } else { total };
    if headers < 20 || headers > len {
        return Err(Reason::BadIpHeader);
    }
    if len > there {
        return Err(Reason::BadIpLength);
    }
    let frag = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = (frag & 0x1fff, frag & 0x2000 != 0);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let proto = header[9];
    Ok(Ip {
        src: IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15])),
        dst: IpAddr::V4(Ipv4Addr::new(header[16], header[17], header[18], header[19])),
        proto,
        ttl: header[8],
        len,
        headers,
        l4_at: l3 + headers,
        fragment: (offset > 0 || more).then_some((id, proto, offset == 0)),
    })
}

fn ipv6(frame: &Frame, l3: usize, there: usize, gso: bool) -> Result<Ip, Reason> {
    let header = frame.data.get(l3..l3 + 40).ok_or(Reason::TruncatedIp)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::BadIpVersion);
    }
    let address = |at: usize| {
        let bytes: [u8; 16] = header[at..at + 16].try_into().expect("16 bytes");
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let jumbo = payload == 0 && (header[6] == 0 || there - 40 > 65535);
    let mut len = if gso || jumbo { there } else { 40 + payload };
    if len > there {
        return Err(Reason::BadIpLength);
    }
    // The jumbo option of a super-packet that is cut, which Linux puts in and takes out again.
    let own_option = gso && frame.gso_size != 0xffff && payload == 0 && header[6] == 0 && {
        let option = frame.data.get(l3 + 40..l3 + 44);
        option.is_some_and(|option| option[1..3] == [0, 0xc2])
    };
    let mut proto = header[6];
    let mut headers = 40;
    let mut fragment = None;
    let mut walked = 0;
    while matches!(proto, 0 | 43 | 44 | 60 | 51) {
        walked += 1;
        if walked > 8 {
            return Err(Reason::ExtChain);
        }
        if headers + 8 > len {
            return Err(Reason::TruncatedIp);
        }
        let at = l3 + headers;
        // None is shorter, and one of which less was captured is cut.
        let start = frame.data.get(at..at + 8).ok_or(Reason::TruncatedIp)?;
        let (next, words) = (start[0], usize::from(start[1]));
        headers += match proto {
            44 => 8,
            51 => (words + 2) * 4,
            _ => (words + 1) * 8,
        };
        if headers > len {
            return Err(Reason::TruncatedIp);
        }
        if proto == 44 {
            let frag = word(frame, at + 2, Reason::TruncatedIp)?;
            let high = u32::from(word(frame, at + 4, Reason::TruncatedIp)?);
            let low = u32::from(word(frame, at + 6, Reason::TruncatedIp)?);
            let (offset, more) = (frag >> 3, frag & 1 != 0);
            if offset > 0 || more {
                fragment = Some((high << 16 | low, next, offset == 0));
            }
            if offset > 0 {
                proto = next;
                break;
            }
        }
        proto = next;
    }
    let l4_at = l3 + headers;
    if own_option {
        len -= 8;
        headers -= 8;
    }
    Ok(Ip {
        src: address(8),
        dst: address(24),
        proto,
        ttl: header[7],
        len,
        headers,
        l4_at,
        fragment,
    })
}

struct L4 {
    ports: Ports,
    header: usize,
    flags: u8,
    tcp_window: Option<u16>,
}

fn l4(frame: &Frame, ip: &Ip, gso: bool) -> Result<L4, Reason> {
    let plain = |ports| L4 { ports, header: 0, flags: 0, tcp_window: None };
    if matches!(ip.fragment, Some((_, _, false))) {
        return Ok(plain(Ports::OfFirstFragment));
    }
    if !matches!(ip.proto, 1 | 6 | 17 | 58 | 132) {
        return Ok(plain(Ports::None));
    }
    let room = ip.len - ip.headers;
    let needed = match ip.proto {
        6 => 20,
        132 => 12,
        _ => 8,
    };
    let at = ip.l4_at;
    if room < needed {
        return Err(Reason::TruncatedL4);
    }
    let bytes = frame.data.get(at..at + needed).ok_or(Reason::TruncatedL4)?;
    let sport = u16::from_be_bytes([bytes[0], bytes[1]]);
    let dport = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ports = Ports::Known { sport, dport, one_way: false };
    match ip.proto {
        6 => {
            let header = usize::from(bytes[12] >> 4) * 4;
            if header < 20 || header > room {
                return Err(Reason::BadL4);
            }
            let tcp_window = Some(u16::from_be_bytes([bytes[14], bytes[15]]));
            Ok(L4 { ports, header, flags: bytes[13], tcp_window })
        }
        17 => {
            let claimed = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            let whole = ip.fragment.is_none() && !gso;
            if (claimed != 0 && claimed < 8) || (whole && claimed > room) {
                return Err(Reason::BadL4);
            }
            Ok(L4 { header: 8, ..plain(ports) })
        }
        132 => Ok(L4 { header: 12, ..plain(ports) }),
        proto => {
            let (sport, dport, one_way) = icmp_ports(proto == 58, bytes[0], bytes[1]);
            Ok(L4 { header: 8, ..plain(Ports::Known { sport, dport, one_way }) })
        }
    }
}
