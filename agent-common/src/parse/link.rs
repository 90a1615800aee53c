//! The link layer: Ethernet with up to two VLAN tags, or nothing at all.

use network_types::{eth::EthHdr, vlan::VlanHdr};

use super::{Frame, Link, MAX_VLAN_TAGS, Malformed, Reject, source::Source};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Where the IP header lies, and the VLANs in front of it.
pub(super) struct LinkLayer {
    /// Offset of the IP header.
    pub(super) ip_offset: u32,
    /// 4 or 6.
    pub(super) version: u8,
    pub(super) vlan: u16,
    pub(super) vlan_inner: u16,
}

#[inline(always)]
pub(super) fn parse<S: Source + ?Sized>(source: &S, frame: &Frame) -> Result<LinkLayer, Reject> {
    match frame.link {
        Link::Ethernet => ethernet(source, frame),
        Link::Ip => raw_ip(source, frame),
    }
}

#[inline(always)]
fn ethernet<S: Source + ?Sized>(source: &S, frame: &Frame) -> Result<LinkLayer, Reject> {
    let header: EthHdr = source.load(0).ok_or(TRUNCATED)?;
    let mut tags = Tags {
        ether_type: u16::from_be(header.ether_type),
        ip_offset: EthHdr::LEN as u32,
        vlan: vlan_id(frame.vlan_tci),
        vlan_inner: 0,
    };
    // VERIFIER: no loop, for kernels before 6.3 refuse one that LLVM ends with a call.
    const { assert!(MAX_VLAN_TAGS == 2) };
    if tags.next(source)? && frame.vlan_tci == 0 {
        tags.next(source)?;
    }
    let Tags { ether_type, ip_offset, vlan, vlan_inner } = tags;
    if is_vlan(ether_type) {
        return Err(Reject::Malformed(Malformed::VlanDepth));
    }
    let version = match ether_type {
        ETHERTYPE_IPV4 => 4,
        ETHERTYPE_IPV6 => 6,
        _ => return Err(Reject::NotIp),
    };
    Ok(LinkLayer { ip_offset: source.forget(ip_offset), version, vlan, vlan_inner })
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
        // A priority tag (VID 0) names no VLAN: the next one counts as the outermost.
        if self.vlan == 0 {
            self.vlan = id;
        } else {
            self.vlan_inner = id;
        }
        self.ip_offset += VlanHdr::LEN as u32;
        self.ether_type = u16::from_be(header.ether_type);
        Ok(true)
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

/// The 12 bits of a VLAN id (IEEE 802.1Q).
#[inline(always)]
fn vlan_id(tci: u16) -> u16 {
    tci & 0x0fff
}

/// 802.1Q, 802.1ad, and the QinQ tag in use before 802.1ad.
#[inline(always)]
fn is_vlan(ether_type: u16) -> bool {
    matches!(ether_type, 0x8100 | 0x88a8 | 0x9100)
}
