//! From a tunnel's IP header to the one inside, after the documents that define each.

use super::{
    link::{Start, behind_type},
    parse::Ip,
};
use crate::frame::Frame;

/// What a tunnel's header says of what follows.
enum Inside {
    Ethernet,
    /// IPv4 or IPv6, as an Ethernet type.
    Type(u16),
    /// Told by its first bits.
    Ip,
}

/// The IP header inside of the packet that begins at `outer`; `None` if there is none.
pub(super) fn inside(frame: &Frame, outer: &Start, ip: &Ip) -> Option<Start> {
    // A part of a packet shows no packet.
    if ip.fragment.is_some() {
        return None;
    }
    let at = ip.l4_at;
    let (what, at) = match ip.proto {
        4 => (Inside::Type(0x0800), at),
        41 => (Inside::Type(0x86dd), at),
        47 => gre(frame, at)?,
        17 => {
            let port = number(frame, at + 2)?;
            let there = ip.len.checked_sub(ip.headers + 8);
            frame.data.get(at..at + 8)?;
            match port {
                4789 | 8472 => vxlan(frame, at + 8)?,
                6081 => geneve(frame, at + 8)?,
                2152 => gtp_u(frame, at + 8, there.filter(|_| frame.gso_size == 0))?,
                _ => return None,
            }
        }
        _ => return None,
    };
    let (kind, at) = match what {
        Inside::Ethernet | Inside::Type(0x6558) => (number(frame, at + 12)?, at + 14),
        Inside::Type(kind) => (kind, at),
        Inside::Ip => (if frame.data.get(at)? >> 4 == 6 { 0x86dd } else { 0x0800 }, at),
    };
    let inner = behind_type(frame, true, kind, at, Vec::new(), 2).ok()??;
    let version = frame.data.get(inner.l3)? >> 4;
    if version != inner.version {
        return None;
    }
    Some(Start { tags: [&outer.tags[..], &inner.tags].concat(), ..inner })
}

fn number(frame: &Frame, at: usize) -> Option<u16> {
    let bytes = frame.data.get(at..at + 2)?;
    Some(u16::from(bytes[0]) << 8 | u16::from(bytes[1]))
}

/// RFC 2784 and 2890: version 0, and of the reserved bits those must be zero that RFC 1701 had for its routing.
fn gre(frame: &Frame, at: usize) -> Option<(Inside, usize)> {
    let flags = number(frame, at)?;
    let kind = number(frame, at + 2)?;
    let (checksum, key, sequence) = (0x8000, 0x2000, 0x1000);
    if flags & 0x4c07 != 0 {
        return None;
    }
    let optional = [checksum, key, sequence].into_iter().filter(|flag| flags & flag != 0);
    Some((Inside::Type(kind), at + 4 + 4 * optional.count()))
}

/// RFC 7348, 5: the I flag, the rest reserved and ignored.
fn vxlan(frame: &Frame, at: usize) -> Option<(Inside, usize)> {
    let header = frame.data.get(at..at + 8)?;
    (header[0] & 0x08 != 0).then_some((Inside::Ethernet, at + 8))
}

/// RFC 8926, 3.4: version 0, and no control packet.
fn geneve(frame: &Frame, at: usize) -> Option<(Inside, usize)> {
    let header = frame.data.get(at..at + 8)?;
    if header[0] >= 0x40 || header[1] >= 0x80 {
        return None;
    }
    let options = usize::from(header[0]) * 4;
    Some((Inside::Type(number(frame, at + 2)?), at + 8 + options))
}

/// 3GPP TS 29.281, 5.1: a G-PDU that is as long as it says.
fn gtp_u(frame: &Frame, at: usize, there: Option<usize>) -> Option<(Inside, usize)> {
    let header = frame.data.get(at..at + 8)?;
    let length = usize::from(number(frame, at + 2)?);
    if header[0] >> 4 != 3 || header[1] != 255 || there.is_some_and(|there| there != length + 8) {
        return None;
    }
    let optional = header[0] & 7;
    if optional == 0 {
        return Some((Inside::Ip, at + 8));
    }
    // Sequence number, N-PDU number and the type of an extension, all three if one is there.
    let mut next = *frame.data.get(at + 11)?;
    if optional & 4 == 0 {
        next = 0;
    }
    let mut at = at + 12;
    let mut passed = 0;
    while next != 0 {
        let len = usize::from(*frame.data.get(at)?) * 4;
        if len == 0 || passed == 4 {
            return None;
        }
        passed += 1;
        at += len;
        next = *frame.data.get(at - 1)?;
    }
    Some((Inside::Ip, at))
}
