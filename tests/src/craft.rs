//! Builds frames byte by byte, well-formed or deliberately not.
//!
//! Checksums are left zero where nobody on the way looks at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet type of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethernet type of ARP.
pub const ARP: u16 = 0x0806;
/// An 802.1Q tag.
pub const C_TAG: u16 = 0x8100;
/// An 802.1ad tag.
pub const S_TAG: u16 = 0x88a8;

/// An Ethernet frame between two made-up stations, with tags (type, control information), outermost first.
pub fn ethernet(tags: &[(u16, u16)], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0xbe, 1, 2, 0, 0, 0, 0xbe, 2];
    for (kind, tci) in tags {
        out.extend(kind.to_be_bytes());
        out.extend(tci.to_be_bytes());
    }
    out.extend(ethertype.to_be_bytes());
    out.extend(payload);
    out
}

/// An IPv4 header's variable parts.
#[derive(Debug, Clone)]
pub struct V4 {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Protocol number.
    pub proto: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Fragment offset in units of 8 bytes.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
    /// Options; a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Total length to claim in place of the right one.
    pub claim: Option<u16>,
}

impl V4 {
    /// An ordinary header.
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, proto: u8) -> Self {
        Self {
            src,
            dst,
            proto,
            ttl: 64,
            id: 0,
            offset: 0,
            more: false,
            options: Vec::new(),
            claim: None,
        }
    }

    /// The packet with this header and `payload` behind it.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        assert!(header.is_multiple_of(4) && header <= 60, "options of whole words");
        let total = self.claim.unwrap_or((header + payload.len()) as u16);
        let mut out = vec![0x40 | (header / 4) as u8, 0];
        out.extend(total.to_be_bytes());
        out.extend(self.id.to_be_bytes());
        out.extend((self.offset | u16::from(self.more) << 13).to_be_bytes());
        out.extend([self.ttl, self.proto, 0, 0]);
        out.extend(self.src.octets());
        out.extend(self.dst.octets());
        out.extend(&self.options);
        out.extend(payload);
        out
    }
}

/// An IPv6 packet; `next` is the first header behind the fixed one.
pub fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend((payload.len() as u16).to_be_bytes());
    out.extend([next, hops]);
    out.extend(src.octets());
    out.extend(dst.octets());
    out.extend(payload);
    out
}

/// An IPv6 extension header (hop-by-hop, routing, destination) of `8 * (words + 1)` bytes and what follows.
pub fn extension(next: u8, words: u8, behind: &[u8]) -> Vec<u8> {
    let mut out = vec![next, words];
    out.resize(8 * (usize::from(words) + 1), 0);
    out.extend(behind);
    out
}

/// An IPv6 authentication header of `4 * (words + 2)` bytes and what follows.
pub fn authentication(next: u8, words: u8, behind: &[u8]) -> Vec<u8> {
    let mut out = vec![next, words];
    out.resize(4 * (usize::from(words) + 2), 0);
    out.extend(behind);
    out
}

/// An IPv6 fragment header, offset in units of 8 bytes, and what follows.
pub fn fragment(next: u8, offset: u16, more: bool, id: u32, behind: &[u8]) -> Vec<u8> {
    let mut out = vec![next, 0];
    out.extend((offset << 3 | u16::from(more)).to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend(behind);
    out
}

/// A TCP header's variable parts.
#[derive(Debug, Clone, Copy)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Flag byte.
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// Bytes of options, all no-ops; a multiple of 4.
    pub options: usize,
}

impl Tcp {
    /// The segment with `payload` behind the header.
    pub fn segment(&self, payload: &[u8]) -> Vec<u8> {
        assert!(self.options.is_multiple_of(4) && self.options <= 40, "options of whole words");
        let mut out = Vec::with_capacity(20 + self.options + payload.len());
        out.extend(self.sport.to_be_bytes());
        out.extend(self.dport.to_be_bytes());
        out.extend([0; 8]);
        out.extend([(5 + self.options / 4) as u8 * 16, self.flags]);
        out.extend(self.window.to_be_bytes());
        out.extend([0; 4]);
        out.resize(20 + self.options, 1);
        out.extend(payload);
        out
    }
}

/// A UDP datagram.
pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    udp_claiming(sport, dport, (payload.len() + 8) as u16, payload)
}

/// A UDP datagram that claims another length.
pub fn udp_claiming(sport: u16, dport: u16, claim: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + payload.len());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend(claim.to_be_bytes());
    out.extend([0; 2]);
    out.extend(payload);
    out
}

/// An ICMP or ICMPv6 message: 8 bytes of header and `payload`.
pub fn icmp(kind: u8, code: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, code, 0, 0, 0, 0, 0, 0];
    out.extend(payload);
    out
}

/// An SCTP packet: the common header and `chunks`.
pub fn sctp(sport: u16, dport: u16, chunks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + chunks.len());
    out.extend(sport.to_be_bytes());
    out.extend(dport.to_be_bytes());
    out.extend([0; 8]);
    out.extend(chunks);
    out
}

/// A packet of either version, its Ethernet type with it.
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, ttl: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            (IPV4, V4 { ttl, ..V4::new(src, dst, proto) }.packet(payload))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => (IPV6, ipv6(src, dst, proto, ttl, payload)),
        _ => panic!("{src} and {dst} are of different versions"),
    }
}
