//! Tunnels: from an outer IP header to the packet inside, for those who ask for it.
//!
//! IP in IP (RFC 2003, 2473, 4213), GRE (RFC 2784, 2890), VXLAN (RFC 7348), Geneve (RFC 8926), GTP-U (3GPP TS
//! 29.281). What is inside must be IP; all else (ARP in VXLAN, a GTP echo) stays with the outer flow, and so do
//! fragments, which hold a part of a packet.

use network_types::{eth::EthHdr, udp::UdpHdr};

use super::{
    Fragment, Frame,
    ip::{self, IpLayer},
    link::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LinkLayer},
    proto,
    source::Source,
};

/// Transparent Ethernet bridging: an Ethernet frame follows.
const ETHERTYPE_BRIDGING: u16 = 0x6558;

/// Ports that tunnels over UDP are sent to (IANA), and the one of VXLAN that Linux used before it had one.
const PORT_VXLAN: u16 = 4789;
const PORT_VXLAN_LINUX: u16 = 8472;
const PORT_GENEVE: u16 = 6081;
const PORT_GTP_U: u16 = 2152;

/// Longest chain of GTP-U extension headers looked through.
const MAX_GTP_EXTENSIONS: u32 = 4;

/// What follows a tunnel's header: the type of it, and where.
type Inside = Option<(u16, u32)>;

/// Moves from a tunnel's IP header to the one inside; false, with nothing changed, if there is none.
#[inline(always)]
pub(super) fn pass<S: Source + ?Sized>(source: &S, frame: &Frame, place: &mut LinkLayer) -> bool {
    let Ok(outer) = ip::parse(source, frame, place) else { return false };
    if outer.fragment != Fragment::Whole {
        return false;
    }
    let at = outer.l4_offset;
    let inside = match outer.proto {
        proto::IPV4 => Some((ETHERTYPE_IPV4, at)),
        proto::IPV6 => Some((ETHERTYPE_IPV6, at)),
        proto::GRE => gre(source, at),
        proto::UDP => over_udp(source, frame, &outer),
        _ => None,
    };
    let Some((ether_type, offset)) = inside else { return false };
    // VERIFIER: by which kind of tunnel it came is forgotten, or what follows were walked for each.
    let (ether_type, offset) = (source.forget(ether_type.into()) as u16, source.forget(offset));
    let (ether_type, offset) = if ether_type == ETHERTYPE_BRIDGING {
        let Some(ether_type) = link::ether_type(source, offset) else { return false };
        (ether_type, offset + EthHdr::LEN as u32)
    } else {
        (ether_type, offset)
    };
    match link::inside(source, place, ether_type, offset) {
        Some(inner) if has_version(source, &inner) => {
            *place = inner;
            true
        }
        _ => false,
    }
}

/// Whether an IP header of the version that was announced lies there: a port number alone makes no tunnel. For VXLAN,
/// whose header has but one bit to go by, this and the type before it are what keeps other datagrams out.
#[inline(always)]
fn has_version<S: Source + ?Sized>(source: &S, inner: &LinkLayer) -> bool {
    match source.load::<[u8; 1]>(inner.ip_offset) {
        Some([first]) => first >> 4 == inner.version,
        None => false,
    }
}

#[inline(always)]
fn gre<S: Source + ?Sized>(source: &S, at: u32) -> Inside {
    let [flags, version, high, low] = source.load::<[u8; 4]>(at)?;
    // Source routing (RFC 1701) is no more, and version 1 (PPTP) carries PPP. Other bits are to be ignored (RFC 2784, 2.2).
    if flags & 0x4c != 0 || version & 0x07 != 0 {
        return None;
    }
    // Each of checksum, key and sequence number takes a word if its bit is set.
    let words = u32::from(flags >> 7 & 1) + u32::from(flags >> 5 & 1) + u32::from(flags >> 4 & 1);
    Some((u16::from_be_bytes([high, low]), at + 4 + 4 * words))
}

#[inline(always)]
fn over_udp<S: Source + ?Sized>(source: &S, frame: &Frame, outer: &IpLayer) -> Inside {
    let header: UdpHdr = source.load(outer.l4_offset)?;
    let at = outer.l4_offset + UdpHdr::LEN as u32;
    match u16::from_be_bytes(header.dst) {
        PORT_VXLAN | PORT_VXLAN_LINUX => vxlan(source, at),
        PORT_GENEVE => geneve(source, at),
        PORT_GTP_U => {
            let there = outer.len.saturating_sub(outer.header_len + UdpHdr::LEN as u32);
            gtp_u(source, at, if frame.gso_size == 0 { Some(there) } else { None })
        }
        _ => None,
    }
}

#[inline(always)]
fn vxlan<S: Source + ?Sized>(source: &S, at: u32) -> Inside {
    let header: [u8; 8] = source.load(at)?;
    // The bit that says that the identifier counts. All others are to be ignored (RFC 7348, 5), and some are in
    // use: those of group policies.
    if header[0] & 0x08 == 0 {
        return None;
    }
    Some((ETHERTYPE_BRIDGING, at + 8))
}

#[inline(always)]
fn geneve<S: Source + ?Sized>(source: &S, at: u32) -> Inside {
    let header: [u8; 8] = source.load(at)?;
    // Version 0, and no control packet.
    if header[0] >> 6 != 0 || header[1] & 0x80 != 0 {
        return None;
    }
    let options = u32::from(header[0] & 0x3f) * 4;
    Some((u16::from_be_bytes([header[2], header[3]]), at + 8 + options))
}

/// `there`: bytes behind the UDP header, unless that is yet to be cut.
#[inline(always)]
fn gtp_u<S: Source + ?Sized>(source: &S, at: u32, there: Option<u32>) -> Inside {
    const G_PDU: u8 = 0xff;
    let [flags, kind, high, low, ..] = source.load::<[u8; 8]>(at)?;
    let length = u32::from(u16::from_be_bytes([high, low]));
    // Version 1, GTP and not GTP prime; a packet of the user, and just as long as it says.
    if flags & 0xf0 != 0x30 || kind != G_PDU || there.is_some_and(|there| there != length + 8) {
        return None;
    }
    let mut offset = at + 8;
    if flags & 0x07 != 0 {
        let [.., extension] = source.load::<[u8; 4]>(offset)?;
        offset += 4;
        let mut next = if flags & 0x04 != 0 { extension } else { 0 };
        for _ in 0..MAX_GTP_EXTENSIONS {
            if next == 0 {
                break;
            }
            let [words] = source.load::<[u8; 1]>(offset)?;
            if words == 0 {
                return None;
            }
            offset = source.forget(offset + u32::from(words) * 4);
            let [last] = source.load::<[u8; 1]>(offset - 1)?;
            next = last;
        }
        if next != 0 {
            return None;
        }
    }
    // No type is said: the packet's first bits tell.
    let [first] = source.load::<[u8; 1]>(offset)?;
    let ether_type = if first >> 4 == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    Some((ether_type, offset))
}
