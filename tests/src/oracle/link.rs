//! From the first byte of a frame to its IP header.

use super::parse::{Reason, byte, word};
use crate::frame::{Frame, Link};

/// Where an IP header lies, and what was in front of it.
#[derive(Debug, Clone)]
pub(super) struct Start {
    /// 4 or 6.
    pub(super) version: u8,
    /// Offset in the frame.
    pub(super) l3: usize,
    /// VLAN ids, priority tags (VID 0) included, outermost first.
    pub(super) tags: Vec<u16>,
}

/// The first IP header; `None` if there is none. `decap`: also behind PPPoE and MPLS.
pub(super) fn start(frame: &Frame, decap: bool) -> Result<Option<Start>, Reason> {
    let tags: Vec<u16> = frame.vlan_tci.map(|tci| tci & 0xfff).into_iter().collect();
    let cut = Reason::TruncatedLink;
    let (kind, l3) = match frame.link {
        Link::Ip => {
            return match byte(frame, 0, Reason::TruncatedIp)? >> 4 {
                version @ (4 | 6) => Ok(Some(Start { version, l3: 0, tags })),
                _ => Err(Reason::BadIpVersion),
            };
        }
        Link::Null => {
            let family = frame.data.get(..4).ok_or(cut)?;
            // A family is a small number, at one end or the other.
            let version = match *family {
                [family, 0, 0, 0] | [0, 0, 0, family] => match family {
                    2 => 4,
                    10 | 24 | 28 | 30 => 6,
                    _ => return Ok(None),
                },
                _ => return Ok(None),
            };
            return Ok(Some(Start { version, l3: 4, tags }));
        }
        Link::Ethernet => (word(frame, 12, cut)?, 14),
        Link::CookedV1 => (word(frame, 14, cut)?, 16),
        Link::CookedV2 => {
            byte(frame, 19, cut)?;
            (word(frame, 0, cut)?, 20)
        }
    };
    behind_type(frame, decap, kind, l3, tags, 2)
}

/// What follows a type field: tags, at most so many of them, and then IP or something else.
pub(super) fn behind_type(
    frame: &Frame,
    decap: bool,
    kind: u16,
    at: usize,
    mut tags: Vec<u16>,
    most_tags: usize,
) -> Result<Option<Start>, Reason> {
    let (mut kind, mut at) = (kind, at);
    // 802.1Q, 802.1ad, and the older type for the outer tag of QinQ.
    while matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
        if tags.len() >= most_tags {
            return Err(Reason::VlanDepth);
        }
        let tci = word(frame, at, Reason::TruncatedLink)?;
        kind = word(frame, at + 2, Reason::TruncatedLink)?;
        tags.push(tci & 0xfff);
        at += 4;
    }
    let version = match kind {
        0x0800 => Some(4),
        0x86dd => Some(6),
        0x8864 if decap => {
            let header = frame.data.get(at..at + 8);
            at += 8;
            match header {
                // Version 1, type 1, code 0: a session's data, of PPP's IPv4 or IPv6.
                Some([0x11, 0, _, _, _, _, 0x00, 0x21]) => Some(4),
                Some([0x11, 0, _, _, _, _, 0x00, 0x57]) => Some(6),
                _ => None,
            }
        }
        0x8847 | 0x8848 if decap => behind_labels(frame, &mut at),
        _ => None,
    };
    Ok(version.map(|version| Start { version, l3: at, tags }))
}

/// The version of the packet behind at most four MPLS labels.
fn behind_labels(frame: &Frame, at: &mut usize) -> Option<u8> {
    let labels = frame.data.get(*at..)?.chunks_exact(4).take(4);
    let depth = labels.into_iter().position(|label| label[2] & 1 == 1)? + 1;
    *at += 4 * depth;
    let version = frame.data.get(*at)? >> 4;
    matches!(version, 4 | 6).then_some(version)
}
