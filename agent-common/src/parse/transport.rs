//! The transport layer: ports, TCP flags, and where the payload begins.

use network_types::{icmp::Icmpv4Hdr, sctp::SctpHdr, tcp::TcpHdr, udp::UdpHdr};

use super::{Fragment, Frame, Malformed, Reject, icmp_ports, ip::IpLayer, proto, source::Source};
use crate::flow::NO_WINDOW;

/// What the transport layer says of a packet; zeros, and [`NO_WINDOW`], where it says nothing.
#[derive(Clone, Copy)]
pub(super) struct TransportLayer {
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) tcp_flags: u8,
    pub(super) tcp_window: u32,
    pub(super) header_len: u32,
}

#[inline(always)]
pub(super) fn parse<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    ip: &IpLayer,
) -> Result<TransportLayer, Reject> {
    let none = TransportLayer {
        src_port: 0,
        dst_port: 0,
        tcp_flags: 0,
        tcp_window: NO_WINDOW,
        header_len: 0,
    };
    if matches!(ip.fragment, Fragment::Later { .. }) {
        return Ok(none);
    }
    let l4 = match ip.proto {
        proto::TCP => tcp(source, ip),
        proto::UDP => udp(source, frame, ip),
        proto::SCTP => sctp(source, ip),
        proto::ICMP | proto::ICMPV6 => icmp(source, ip),
        _ => return Ok(none),
    }
    .map_err(Reject::Malformed)?;
    if ip.header_len + l4.header_len > ip.len {
        return Err(Reject::Malformed(Malformed::TruncatedL4));
    }
    Ok(l4)
}

#[inline(always)]
fn tcp<S: Source + ?Sized>(source: &S, ip: &IpLayer) -> Result<TransportLayer, Malformed> {
    // RFC 9293, 3.1. In words, as IP's.
    const { assert!(size_of::<TcpHdr>() == size_of::<[u32; 5]>()) };
    let [ports, _, _, control, _]: [u32; 5] =
        source.load(ip.l4_offset).ok_or(Malformed::TruncatedL4)?;
    let [ports, control] = [ports, control].map(u32::from_be);
    if ip.header_len + TcpHdr::LEN as u32 > ip.len {
        return Err(Malformed::TruncatedL4);
    }
    let header_len = (control >> 28) * 4;
    // The header is at least five words, and lies within the packet.
    if header_len < TcpHdr::LEN as u32 || ip.header_len + header_len > ip.len {
        return Err(Malformed::BadL4);
    }
    Ok(TransportLayer {
        src_port: (ports >> 16) as u16,
        dst_port: ports as u16,
        // Those of [`crate::segments::tcp`].
        tcp_flags: (control >> 16) as u8,
        tcp_window: control & 0xffff,
        header_len,
    })
}

#[inline(always)]
fn udp<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    ip: &IpLayer,
) -> Result<TransportLayer, Malformed> {
    let header: UdpHdr = source.load(ip.l4_offset).ok_or(Malformed::TruncatedL4)?;
    let header_len = UdpHdr::LEN as u32;
    let len = u32::from(u16::from_be_bytes(header.len));
    // A first fragment's length is that of the whole datagram, a jumbogram's is 0 (RFC 2675), and a
    // super-packet's is still to be written.
    let whole = ip.fragment == Fragment::Whole && frame.gso_size == 0;
    if len != 0 && (len < header_len || whole && ip.header_len + len > ip.len) {
        return Err(Malformed::BadL4);
    }
    Ok(TransportLayer {
        src_port: u16::from_be_bytes(header.src),
        dst_port: u16::from_be_bytes(header.dst),
        tcp_flags: 0,
        tcp_window: NO_WINDOW,
        header_len,
    })
}

#[inline(always)]
fn sctp<S: Source + ?Sized>(source: &S, ip: &IpLayer) -> Result<TransportLayer, Malformed> {
    let header: SctpHdr = source.load(ip.l4_offset).ok_or(Malformed::TruncatedL4)?;
    Ok(TransportLayer {
        src_port: u16::from_be_bytes(header.src),
        dst_port: u16::from_be_bytes(header.dst),
        tcp_flags: 0,
        tcp_window: NO_WINDOW,
        header_len: SctpHdr::LEN as u32,
    })
}

/// ICMP and ICMPv6 share the eight bytes that matter.
#[inline(always)]
fn icmp<S: Source + ?Sized>(source: &S, ip: &IpLayer) -> Result<TransportLayer, Malformed> {
    let header: Icmpv4Hdr = source.load(ip.l4_offset).ok_or(Malformed::TruncatedL4)?;
    let (src_port, dst_port) = icmp_ports(ip.proto, header.type_, header.code);
    Ok(TransportLayer {
        src_port,
        dst_port,
        tcp_flags: 0,
        tcp_window: NO_WINDOW,
        header_len: Icmpv4Hdr::LEN as u32,
    })
}
