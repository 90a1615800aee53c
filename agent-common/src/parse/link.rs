//! The link layer: Ethernet with up to two VLAN tags, nothing at all, or what captures have in its place.

use core::mem::offset_of;

use network_types::{eth::EthHdr, vlan::VlanHdr};

use super::{Frame, Link, MAX_VLAN_TAGS, Malformed, Reject, source::Source};
use crate::barrier::less;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_MULTICAST: u16 = 0x8848;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;

/// Most MPLS labels looked through.
const MAX_LABELS: u32 = 4;

/// Where the IP header lies, and the VLANs in front of it.
pub(super) struct LinkLayer {
    /// Offset of the IP header.
    pub(super) ip_offset: u32,
    /// 4 or 6.
    pub(super) version: u8,
    pub(super) vlan: u16,
    pub(super) vlan_inner: u16,
}

impl LinkLayer {
    /// The same, see [`Source::forget`].
    #[inline(always)]
    pub(super) fn forgotten<S: Source + ?Sized>(&self, source: &S) -> Self {
        Self {
            ip_offset: source.forget(self.ip_offset),
            version: source.forget(self.version.into()) as u8,
            vlan: source.forget(self.vlan.into()) as u16,
            vlan_inner: source.forget(self.vlan_inner.into()) as u16,
        }
    }
}

/// `decap`: PPPoE and MPLS are looked through.
#[inline(always)]
pub(super) fn parse<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Result<LinkLayer, Reject> {
    match frame.link {
        Link::Ethernet => {
            let ether_type = ether_type(source, 0).ok_or(TRUNCATED)?;
            typed(source, frame, decap, ether_type, EthHdr::LEN as u32)
        }
        Link::Ip => raw_ip(source, frame),
        // https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html: the type is the last of its fields.
        Link::CookedV1 => {
            let header: [u8; 16] = source.load(0).ok_or(TRUNCATED)?;
            typed(source, frame, decap, u16::from_be_bytes([header[14], header[15]]), 16)
        }
        // https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html: the type is the first of its fields.
        Link::CookedV2 => {
            let header: [u8; 20] = source.load(0).ok_or(TRUNCATED)?;
            typed(source, frame, decap, u16::from_be_bytes([header[0], header[1]]), 20)
        }
        Link::Null => null(source, frame),
    }
}

/// The type of the Ethernet header at `offset`: its last field, and all of it that is read.
#[inline(always)]
pub(super) fn ether_type<S: Source + ?Sized>(source: &S, offset: u32) -> Option<u16> {
    const { assert!(offset_of!(EthHdr, ether_type) + 2 == EthHdr::LEN) };
    let at = offset + offset_of!(EthHdr, ether_type) as u32;
    Some(u16::from_be_bytes(source.load(at)?))
}

/// What follows a type field: at `ip_offset` tags, then the packet.
#[inline(always)]
fn typed<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
    ether_type: u16,
    ip_offset: u32,
) -> Result<LinkLayer, Reject> {
    let mut tags = Tags { ether_type, ip_offset, vlan: vlan_id(frame.vlan_tci), vlan_inner: 0 };
    // VERIFIER: no loop, for kernels before 6.3 refuse one that LLVM ends with a call.
    const { assert!(MAX_VLAN_TAGS == 2) };
    if tags.next(source)? && frame.vlan_tci == 0 {
        tags.next(source)?;
    }
    if decap {
        tags.pass_labels(source);
    }
    tags.end()
}

/// The packet inside a tunnel, behind a type field: as [`typed`], but all that is in the way of IP is a reason
/// not to look inside. Its tags add to those outside; of all, the two
/// outermost are kept.
#[inline(always)]
pub(super) fn inside<S: Source + ?Sized>(
    source: &S,
    outside: &LinkLayer,
    ether_type: u16,
    ip_offset: u32,
) -> Option<LinkLayer> {
    let LinkLayer { vlan, vlan_inner, .. } = *outside;
    let mut tags = Tags { ether_type, ip_offset, vlan, vlan_inner };
    const { assert!(MAX_VLAN_TAGS == 2) };
    if tags.next(source).ok()? {
        tags.next(source).ok()?;
    }
    tags.pass_labels(source);
    let inside = tags.end().ok()?;
    // VERIFIER: forgotten, as what `locate` finds in front of an IP header.
    Some(LinkLayer { ip_offset: source.forget(inside.ip_offset), ..inside })
}

const TRUNCATED: Reject = Reject::Malformed(Malformed::TruncatedLink);

/// A walk over the tags between the Ethernet header and the packet.
struct Tags {
    ether_type: u16,
    ip_offset: u32,
    vlan: u16,
    vlan_inner: u16,
}

impl Tags {
    /// Passes a tag; false if there is none.
    #[inline(always)]
    fn next<S: Source + ?Sized>(&mut self, source: &S) -> Result<bool, Reject> {
        if !is_vlan(self.ether_type) {
            return Ok(false);
        }
        let header: VlanHdr = source.load(self.ip_offset).ok_or(TRUNCATED)?;
        let id = vlan_id(u16::from_be_bytes(header.tci));
        // A priority tag (VID 0) names no VLAN: the next one counts as the outermost. In a tunnel both may be taken.
        // VERIFIER: masks, for each comparison doubles the paths to what is inside.
        let [none, no_inner] = [self.vlan, self.vlan_inner].map(|id| less(id.into(), 1) as u16);
        self.vlan |= id & none;
        self.vlan_inner |= id & !none & no_inner;
        self.ip_offset += VlanHdr::LEN as u32;
        self.ether_type = u16::from_be(header.ether_type);
        Ok(true)
    }

    /// Passes a PPPoE session header (RFC 2516) or a stack of MPLS labels (RFC 3032) in front of an IP packet;
    /// in front of all else nothing changes.
    #[inline(always)]
    fn pass_labels<S: Source + ?Sized>(&mut self, source: &S) {
        let behind = match self.ether_type {
            ETHERTYPE_PPPOE_SESSION => pppoe(source, self.ip_offset),
            ETHERTYPE_MPLS | ETHERTYPE_MPLS_MULTICAST => mpls(source, self.ip_offset),
            _ => None,
        };
        if let Some((ether_type, ip_offset)) = behind {
            self.ether_type = ether_type;
            self.ip_offset = ip_offset;
        }
    }

    /// What the walk has come to.
    #[inline(always)]
    fn end(&self) -> Result<LinkLayer, Reject> {
        let Self { ether_type, ip_offset, vlan, vlan_inner } = *self;
        if is_vlan(ether_type) {
            return Err(Reject::Malformed(Malformed::VlanDepth));
        }
        let version = match ether_type {
            ETHERTYPE_IPV4 => 4,
            ETHERTYPE_IPV6 => 6,
            _ => return Err(Reject::NotIp),
        };
        Ok(LinkLayer { ip_offset, version, vlan, vlan_inner })
    }
}

/// Type and offset of the IP packet in a PPPoE session.
#[inline(always)]
fn pppoe<S: Source + ?Sized>(source: &S, at: u32) -> Option<(u16, u32)> {
    let [version, code, _, _, _, _, high, low] = source.load::<[u8; 8]>(at)?;
    if version != 0x11 || code != 0 {
        return None;
    }
    // The PPP protocol (IANA).
    let ether_type = match u16::from_be_bytes([high, low]) {
        0x0021 => ETHERTYPE_IPV4,
        0x0057 => ETHERTYPE_IPV6,
        _ => return None,
    };
    Some((ether_type, at + 8))
}

/// Type and offset of the IP packet behind a stack of labels, which do not say what they carry: its first bits
/// tell, as they tell routers (RFC 4928).
#[inline(always)]
fn mpls<S: Source + ?Sized>(source: &S, at: u32) -> Option<(u16, u32)> {
    let mut offset = at;
    let mut bottom = false;
    for _ in 0..MAX_LABELS {
        let [_, _, last, _] = source.load::<[u8; 4]>(offset)?;
        offset = source.forget(offset + 4);
        if last & 1 != 0 {
            bottom = true;
            break;
        }
    }
    if !bottom {
        return None;
    }
    let [first] = source.load::<[u8; 1]>(offset)?;
    match first >> 4 {
        4 => Some((ETHERTYPE_IPV4, offset)),
        6 => Some((ETHERTYPE_IPV6, offset)),
        _ => None,
    }
}

#[inline(always)]
fn raw_ip<S: Source + ?Sized>(source: &S, frame: &Frame) -> Result<LinkLayer, Reject> {
    let [first]: [u8; 1] = source.load(0).ok_or(Reject::Malformed(Malformed::TruncatedIp))?;
    match first >> 4 {
        version @ (4 | 6) => {
            Ok(LinkLayer { ip_offset: 0, version, vlan: vlan_id(frame.vlan_tci), vlan_inner: 0 })
        }
        _ => Err(Reject::Malformed(Malformed::BadIpVersion)),
    }
}

/// The address family of the host that captured, in its byte order (LOOP: in network order), then a packet.
#[inline(always)]
fn null<S: Source + ?Sized>(source: &S, frame: &Frame) -> Result<LinkLayer, Reject> {
    let family: [u8; 4] = source.load(0).ok_or(TRUNCATED)?;
    let family = u32::from_be_bytes(family);
    let version = match family.min(family.swap_bytes()) {
        2 => 4,
        // Linux; NetBSD and OpenBSD; FreeBSD; macOS.
        10 | 24 | 28 | 30 => 6,
        _ => return Err(Reject::NotIp),
    };
    Ok(LinkLayer { ip_offset: 4, version, vlan: vlan_id(frame.vlan_tci), vlan_inner: 0 })
}

/// The 12 bits of a VLAN id (IEEE 802.1Q).
#[inline(always)]
pub(super) fn vlan_id(tci: u16) -> u16 {
    tci & 0x0fff
}

/// 802.1Q, 802.1ad, and the QinQ tag in use before 802.1ad.
#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100)
}
