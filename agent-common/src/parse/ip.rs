//! The network layer: IPv4 with options, IPv6 with its extension headers.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{Fragment, Frame, MAX_EXTENSIONS, Malformed, Reject, link::LinkLayer, source::Source};
use crate::{
    barrier::{difference, less, opaque},
    key::Address,
    segments::GSO_BY_FRAGS,
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Longest IPv6 packet that its length field can say without the jumbo option.
const MAX_PAYLOAD: u32 = 0xffff;

/// What the network layer says of a packet.
pub(super) struct IpLayer {
    pub(super) src: Address,
    pub(super) dst: Address,
    pub(super) version: u8,
    /// Protocol behind the extension headers.
    pub(super) proto: u8,
    pub(super) ttl: u8,
    pub(super) fragment: Fragment,
    /// Length of the packet, all segments of a super-packet together.
    pub(super) len: u32,
    /// Bytes from the IP header to the transport header.
    pub(super) header_len: u32,
    /// Offset of the transport header in the frame.
    pub(super) l4_offset: u32,
}

#[inline(always)]
pub(super) fn parse<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    link: &LinkLayer,
) -> Result<IpLayer, Reject> {
    if link.version == 4 {
        v4(source, frame, link.ip_offset)
    } else {
        v6(source, frame, link.ip_offset)
    }
    .map_err(Reject::Malformed)
}

#[inline(always)]
fn v4<S: Source + ?Sized>(source: &S, frame: &Frame, at: u32) -> Result<IpLayer, Malformed> {
    // RFC 791, 3.1. In words, for of bytes LLVM makes a load each.
    const { assert!(size_of::<Ipv4Hdr>() == size_of::<[u32; 5]>()) };
    let [first, second, third, src, dst]: [u32; 5] =
        source.load(at).ok_or(Malformed::TruncatedIp)?;
    let [first, second, third] = [first, second, third].map(u32::from_be);
    if first >> 28 != 4 {
        return Err(Malformed::BadIpVersion);
    }
    let header_len = (first >> 24 & 0xf) * 4;
    if header_len < Ipv4Hdr::LEN as u32 {
        return Err(Malformed::BadIpHeader);
    }
    let total = first & 0xffff;
    // A length of 0 is what a host writes when its network card is to cut the packet (BIG TCP, or a
    // capture taken before segmentation).
    let len = packet_len(frame, at, total, total == 0)?;
    if header_len > len {
        return Err(Malformed::BadIpHeader);
    }
    Ok(IpLayer {
        src: Address::v4(src.to_ne_bytes()),
        dst: Address::v4(dst.to_ne_bytes()),
        version: 4,
        proto: (third >> 16) as u8,
        ttl: (third >> 24) as u8,
        fragment: fragment(second & 0x1fff != 0, second & 0x2000 != 0, second >> 16),
        len,
        header_len,
        l4_offset: source.forget(at + header_len),
    })
}

#[inline(always)]
fn v6<S: Source + ?Sized>(source: &S, frame: &Frame, at: u32) -> Result<IpLayer, Malformed> {
    // RFC 8200, 3: version to hop limit, and the addresses.
    const { assert!(size_of::<Ipv6Hdr>() == size_of::<[u64; 5]>()) };
    let [first, src @ .., dst_high, dst_low]: [u64; 5] =
        source.load(at).ok_or(Malformed::TruncatedIp)?;
    let first = u64::from_be(first);
    if first >> 60 != 6 {
        return Err(Malformed::BadIpVersion);
    }
    let fixed = Ipv6Hdr::LEN as u32;
    let payload = (first >> 16) as u32 & 0xffff;
    let (next_header, hop_limit) = ((first >> 8) as u8, first as u8);
    let there = difference(frame.wire_len, at + fixed);
    // RFC 2675 jumbograms have a length of 0 and a hop-by-hop option; BIG TCP leaves the option out.
    let jumbo = payload == 0 && (next_header == HOP_BY_HOP || there > MAX_PAYLOAD);
    let len = packet_len(frame, at, fixed + payload, jumbo)?;
    let taken_out = if jumbo && frame.gso_size > 0 && next_header == HOP_BY_HOP {
        // One that is kept as a whole keeps the option too.
        // VERIFIER: a mask, for another comparison before this one makes a quarter more to walk.
        let is_cut = less(frame.gso_size, GSO_BY_FRAGS);
        source.forget(taken_out(source, at + fixed) & is_cut)
    } else {
        0
    };

    let mut proto = next_header;
    let mut header_len = fixed;
    let mut place = Fragment::Whole;
    let mut ended = false;
    for _ in 0..=MAX_EXTENSIONS {
        // What lies behind a later fragment's header is no header.
        if !is_extension(proto) || matches!(place, Fragment::Later { .. }) {
            ended = true;
            break;
        }
        let extension: [u8; 8] = source.load(at + header_len).ok_or(Malformed::TruncatedIp)?;
        let [next, length, high, low, id @ ..] = extension;
        let length = u32::from(length);
        header_len += match proto {
            FRAGMENT => {
                let field = u16::from_be_bytes([high, low]);
                place = fragment(field & 0xfff8 != 0, field & 1 != 0, u32::from_be_bytes(id));
                8
            }
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        if header_len > len {
            return Err(Malformed::TruncatedIp);
        }
        header_len = source.forget(header_len);
        proto = next;
    }
    if !ended {
        return Err(Malformed::ExtChain);
    }
    Ok(IpLayer {
        src: Address::from_words(src),
        dst: Address::from_words([dst_high, dst_low]),
        version: 6,
        proto,
        ttl: hop_limit,
        fragment: place,
        len: len - taken_out,
        header_len: header_len - taken_out,
        l4_offset: source.forget(at + header_len),
    })
}

/// Bytes of a super-packet's headers that none of its segments has: to one of over 64 KiB Linux adds the option of a
/// jumbogram (newer kernels do no more), and takes it out when it cuts (`ipv6_hopopt_jumbo_remove`,
/// include/net/ipv6.h). `at`: offset of the hop-by-hop header.
#[inline(always)]
fn taken_out<S: Source + ?Sized>(source: &S, at: u32) -> u32 {
    const JUMBO_PAYLOAD: u8 = 0xc2;
    let Some(start) = source.load::<[u8; 4]>(at) else { return 0 };
    // VERIFIER: LLVM would look at the bytes also where there are none, which is a register that was never written.
    let [_, length, option, _] = (opaque(u32::from_be_bytes(start).into()) as u32).to_be_bytes();
    if length == 0 && option == JUMBO_PAYLOAD { 8 } else { 0 }
}

/// Length of an IP packet at `at`: what its header says (`claimed`), or all there is behind a super-packet's
/// or jumbogram's header, whose length field cannot say it.
#[inline(always)]
fn packet_len(frame: &Frame, at: u32, claimed: u32, jumbo: bool) -> Result<u32, Malformed> {
    let there = difference(frame.wire_len, at);
    if frame.gso_size > 0 || jumbo {
        Ok(there)
    } else if claimed > there {
        Err(Malformed::BadIpLength)
    } else {
        Ok(claimed)
    }
}

#[inline(always)]
fn fragment(offset: bool, more: bool, id: u32) -> Fragment {
    match (offset, more) {
        (true, _) => Fragment::Later { id },
        (false, true) => Fragment::First { id },
        // An IPv6 "atomic fragment" (RFC 6946) is a whole packet.
        (false, false) => Fragment::Whole,
    }
}

/// The extension headers that Linux walks (`ipv6_ext_hdr`, net/ipv6/exthdrs_core.c), but 59, which ends.
#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}
