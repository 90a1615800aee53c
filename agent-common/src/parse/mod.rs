//! From the bytes of a frame to the headers of one IP packet.
//!
//! Generic over where the bytes lie ([`source::Source`]): the kernel's packet access and a host's slice
//! run the same code. Every offset is checked against the source; nothing is trusted.

mod ip;
mod link;
mod plain;
pub mod source;
mod transport;
mod tunnel;

use bytemuck::Zeroable as _;

use self::source::Source;
use crate::{
    barrier::IS_BPF,
    key::{Address, Endpoint, FlowKey, Kind, icmp_ports, is_swapped, proto},
    segments::Segments,
};

/// What lies at the first byte of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header (also on loopback interfaces).
    Ethernet,
    /// An IP header (tun, WireGuard, PPP, raw captures).
    Ip,
    /// Linux's cooked header of 16 bytes (captures on `any`: LINKTYPE_LINUX_SLL).
    CookedV1,
    /// Linux's cooked header of 20 bytes (LINKTYPE_LINUX_SLL2).
    CookedV2,
    /// BSD's four bytes of address family, in either byte order (LINKTYPE_NULL, LINKTYPE_LOOP).
    Null,
}

/// What is known of a frame beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Link type.
    pub link: Link,
    /// Interface index.
    pub ifindex: u32,
    /// Bytes on the wire, or in the socket buffer, from the first byte on; a capture may hold fewer.
    pub wire_len: u32,
    /// Payload bytes per segment of a super-packet, else 0.
    pub gso_size: u32,
    /// The VLAN tag taken out of the frame by the hardware or the kernel; 0 for none.
    pub vlan_tci: u16,
}

/// Why a packet belongs to no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ARP, LLC, and all else that is no IP.
    NotIp,
    /// Truncated or inconsistent headers.
    Malformed(Malformed),
}

/// What is wrong with a packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Malformed {
    /// The link header, or a VLAN tag, is cut off.
    TruncatedLink,
    /// An IP header or extension header is cut off.
    TruncatedIp,
    /// The version field is not that of the link's protocol.
    BadIpVersion,
    /// IPv4 header length below 20 or beyond the packet.
    BadIpHeader,
    /// The IP length goes beyond the frame.
    BadIpLength,
    /// More than [`MAX_EXTENSIONS`] IPv6 extension headers.
    ExtChain,
    /// More than [`MAX_VLAN_TAGS`] VLAN tags.
    VlanDepth,
    /// The transport header is cut off.
    TruncatedL4,
    /// TCP data offset or UDP length impossible.
    BadL4,
}

impl Malformed {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 9] = [
        Self::TruncatedLink,
        Self::TruncatedIp,
        Self::BadIpVersion,
        Self::BadIpHeader,
        Self::BadIpLength,
        Self::ExtChain,
        Self::VlanDepth,
        Self::TruncatedL4,
        Self::BadL4,
    ];

    /// The reason's name in counters and logs.
    pub const fn name(self) -> &'static str {
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

/// Longest chain of IPv6 extension headers looked through.
pub const MAX_EXTENSIONS: u32 = 8;

/// Most tunnels looked through, one in another.
pub const MAX_TUNNELS: u32 = 2;
/// Most VLAN tags of a frame, the one taken out of it included.
pub const MAX_VLAN_TAGS: u32 = 2;

/// A fragment's place in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first fragment: holds the transport header.
    First {
        /// Identification field.
        id: u32,
    },
    /// A later fragment: no transport header.
    Later {
        /// Identification field.
        id: u32,
    },
}

/// What the headers of one packet tell of whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// Interface index.
    pub ifindex: u32,
    /// VLAN ids, IP protocol number behind the extension headers, IP version.
    pub kind: Kind,
    /// Place in a fragmented datagram.
    pub fragment: Fragment,
}

/// What its flow measures of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// The wire packets.
    pub segments: Segments,
    /// TCP window field; [`crate::flow::NO_WINDOW`] where there is no TCP header.
    pub tcp_window: u32,
    /// TCP flags, 0 for other protocols.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// Which datagram a fragment belongs to (RFC 791, RFC 8200 4.5). Inside of a tunnel too these are all: as in a flow's
/// key, there is no tunnel identifier, and of tenants with the same addresses one may take the other's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender.
    pub src: Address,
    /// Receiver.
    pub dst: Address,
    /// Identification field.
    pub id: u32,
    /// Interface index.
    pub ifindex: u32,
    /// Outermost VLAN id.
    pub vlan: u16,
    /// Second VLAN id.
    pub vlan_inner: u16,
    /// IP protocol number; 0 for IPv6, whose fragments may each name another next header.
    pub proto: u8,
    /// 4 or 6.
    pub version: u8,
    /// Zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<FragmentKey>() == 48);

/// What the first fragment of a datagram told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct FragmentPorts {
    /// When the first fragment passed, in µs.
    pub seen_us: u64,
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// IP protocol number behind all extension headers.
    pub proto: u32,
}

/// How long the first fragment's ports hold for later ones, in µs: Linux gives up reassembly after as long
/// (`IP_FRAG_TIME`), and identification fields come around again.
pub const FRAGMENT_LIFETIME_US: u64 = 30_000_000;

/// How many datagrams' ports are remembered, the last ones seen.
pub const FRAGMENT_DATAGRAMS: usize = 8192;

/// Where the ports of first fragments are remembered: a small LRU map.
pub trait FragmentTable {
    /// Remembers the ports of a first fragment.
    fn remember(&mut self, key: &FragmentKey, ports: &FragmentPorts);
    /// The ports of the first fragment of a datagram, if it was seen.
    fn recall(&mut self, key: &FragmentKey) -> Option<FragmentPorts>;
}

/// The headers of the packet in a frame. `decap`: those of the packet inside, through PPPoE, MPLS and at most
/// [`MAX_TUNNELS`] tunnels.
#[inline(always)]
pub fn parse<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Result<(Headers, Measures), Reject> {
    locate(source, frame, decap).map(|(headers, measures, _)| (headers, measures))
}

/// As [`locate`], and gives what `admit` makes of what is found.
///
/// VERIFIER: asked in a place of its own for each way to it, or LLVM carries every field on the stack to the one.
#[inline(always)]
pub fn parse_into<S: Source + ?Sized, T>(
    source: &S,
    frame: &Frame,
    decap: bool,
    mut admit: impl FnMut(Headers, Measures, Place) -> T,
) -> Result<T, Reject> {
    if let Some((headers, measures, place)) = plain::v4(source, frame, decap) {
        return Ok(admit(headers, measures, place));
    }
    if let Some((headers, measures, place)) = plain::v6(source, frame, decap) {
        return Ok(admit(headers, measures, place));
    }
    let (headers, measures, place) = walk(source, frame, decap)?;
    Ok(admit(headers, measures, place))
}

/// Where the headers lie that [`parse`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of the IP header, inside of all tunnels looked through.
    pub ip: u32,
    /// Offset of the transport header.
    pub l4: u32,
}

/// As [`parse`], and tells where the headers lie.
#[inline(always)]
pub fn locate<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Result<(Headers, Measures, Place), Reject> {
    parse_into(source, frame, decap, |headers, measures, place| (headers, measures, place))
}

/// Layer by layer, whatever the packet.
#[inline(always)]
fn walk<S: Source + ?Sized>(
    source: &S,
    frame: &Frame,
    decap: bool,
) -> Result<(Headers, Measures, Place), Reject> {
    // VERIFIER: forgotten, or each way to an IP header is walked to the end of the program.
    let mut link = link::parse(source, frame, decap)?.forgotten(source);
    if decap {
        const { assert!(MAX_TUNNELS == 2) };
        if tunnel::pass(source, frame, &mut link) {
            link = link.forgotten(source);
            tunnel::pass(source, frame, &mut link);
        }
        link = link.forgotten(source);
    }
    let ip = ip::parse(source, frame, &link)?;
    let l4 = transport::parse(source, frame, &ip)?;
    let headers = Headers {
        src: Endpoint { address: ip.src, port: l4.src_port },
        dst: Endpoint { address: ip.dst, port: l4.dst_port },
        ifindex: frame.ifindex,
        kind: Kind::new([link.vlan, link.vlan_inner], ip.proto, ip.version),
        fragment: ip.fragment,
    };
    let measures = Measures {
        segments: Segments::new(ip.len, ip.header_len + l4.header_len, frame.gso_size),
        tcp_window: l4.tcp_window,
        tcp_flags: l4.tcp_flags,
        ttl: ip.ttl,
    };
    Ok((headers, measures, Place { ip: link.ip_offset, l4: ip.l4_offset }))
}

impl Headers {
    /// Gives a later fragment the protocol and ports of its datagram's first, and remembers those of a
    /// first. False for a later fragment whose first was not seen: it belongs to the flow without ports.
    /// Of a whole packet the time is not asked.
    #[inline(always)]
    pub fn join_fragments<F: FragmentTable>(
        &mut self,
        table: &mut F,
        now_us: impl Fn() -> u64,
    ) -> bool {
        match self.fragment {
            Fragment::Whole => true,
            Fragment::First { id } => {
                let ports = FragmentPorts {
                    seen_us: now_us(),
                    src: self.src.port,
                    dst: self.dst.port,
                    proto: self.proto().into(),
                };
                table.remember(&self.fragment_key(id), &ports);
                true
            }
            Fragment::Later { id } => match table.recall(&self.fragment_key(id)) {
                Some(ports) if now_us().saturating_sub(ports.seen_us) < FRAGMENT_LIFETIME_US => {
                    self.src.port = ports.src;
                    self.dst.port = ports.dst;
                    let vlans = [self.kind.vlan(), self.kind.vlan_inner()];
                    self.kind = Kind::new(vlans, ports.proto as u8, self.version());
                    true
                }
                _ => false,
            },
        }
    }

    /// The flow's key, and whether the packet comes from its end `b`.
    #[inline(always)]
    pub fn key(&self) -> (FlowKey, bool) {
        let mut key = FlowKey::zeroed();
        let from_b = self.write_key(&mut key);
        (key, from_b)
    }

    /// Writes the flow's key; returns whether the packet comes from its end `b`.
    #[inline(always)]
    pub fn write_key(&self, key: &mut FlowKey) -> bool {
        let Self { src, dst, ifindex, kind, .. } = self;
        let swapped = is_swapped(kind.proto(), src, dst);
        let ends;
        let (a, b) = if !IS_BPF {
            ends = Endpoint::ordered(src, dst, swapped);
            (&ends.0, &ends.1)
        } else if swapped {
            (dst, src)
        } else {
            (src, dst)
        };
        key.write(a, b, *ifindex, *kind);
        swapped
    }

    /// Whether the protocol is TCP.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.proto() == proto::TCP
    }

    /// IP protocol number behind the extension headers.
    #[inline(always)]
    pub fn proto(&self) -> u8 {
        self.kind.proto()
    }

    /// 4 or 6.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.kind.version()
    }

    #[inline(always)]
    fn fragment_key(&self, id: u32) -> FragmentKey {
        FragmentKey {
            src: self.src.address,
            dst: self.dst.address,
            id,
            ifindex: self.ifindex,
            vlan: self.kind.vlan(),
            vlan_inner: self.kind.vlan_inner(),
            proto: if self.version() == 4 { self.proto() } else { 0 },
            version: self.version(),
            padding: [0; 2],
        }
    }
}

#[cfg(test)]
mod tests;
