//! A frame as tshark reads it, and what the agent should make of it.
//!
//! No header is read here: what tshark says of one is compared with what it says of another.

use std::net::IpAddr;

use crate::totals::PORTED;

/// What is asked of tshark; every occurrence in a frame, the outermost first.
pub(super) const FIELDS: [&str; 37] = [
    "frame.number",
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    "frame.protocols",
    "_ws.malformed",
    "vlan.id",
    "ieee8021ad.id",
    "ieee8021ad.svid",
    "ieee8021ad.cvid",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.hdr_len",
    "ip.len",
    "ip.id",
    "ip.flags.mf",
    "ip.frag_offset",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "ipv6.plen",
    "ipv6.hopopts.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.ident",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.hdr_len",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "sctp.srcport",
    "sctp.dstport",
];

/// What may lie before an IP header with the agent looking for it, and how long it is.
const LINKS: [(&str, u64); 8] = [
    ("eth", 14),
    ("ethertype", 0),
    ("vlan", TAG),
    ("ieee8021ad", TAG),
    ("sll", 16),
    ("null", 4),
    ("loop", 4),
    ("raw", 0),
];

/// Length of a VLAN tag.
const TAG: u64 = 4;

/// Most VLAN tags and IPv6 extension headers that the agent looks through, see README.
const DEPTH: (usize, usize) = (2, 8);

/// Bytes of a transport header that the agent wants to see, by protocol.
const NEEDED: [(u8, u64); 5] = [(1, 8), (6, 20), (17, 8), (58, 8), (132, 12)];

/// IPv6 extension headers, by protocol number.
const EXTENSIONS: [u64; 5] = [0, 43, 44, 51, 60];

/// Shortest IPv6 header and shortest extension header.
const V6: (u64, u64) = (40, 8);

/// Protocol number for when nothing is known of what lies behind the IP header (IPv6: nothing does).
const NOTHING: u8 = 59;

/// Longest payload that the length field of an IPv6 header can say.
const LONGEST: u64 = 0xffff;

/// Why a packet that tshark reads is in no flow of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// Something lies between link layer and IP header (MPLS, PPP, …), which tshark looks through.
    Carried,
    /// The IP length goes beyond the frame; tshark warns and reads on.
    BeyondFrame,
    /// The transport header was not captured, or is not in the packet; tshark shows the packet without it.
    CutOff,
    /// More VLAN tags or IPv6 extension headers than the agent looks through.
    TooDeep,
    /// The length in the UDP header, or that of the TCP header, is impossible; tshark warns and reads on.
    BadTransport,
}

pub(super) fn is_ip(layer: &str) -> bool {
    matches!(layer, "ip" | "ipv6")
}

/// An IP packet.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) vlans: [u16; 2],
    pub(super) bytes: u64,
    pub(super) fragment: Option<Fragment>,
    pub(super) protocol: u8,
    pub(super) ports: [u16; 2],
}

#[derive(Debug)]
pub(super) struct Fragment {
    /// Identification and, for IPv4, protocol.
    pub(super) id: (u64, u8),
    pub(super) later: bool,
}

/// What tshark says of a frame.
#[derive(Debug)]
pub(super) struct Frame<'a>(Vec<&'a str>);

impl<'a> Frame<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(columns.len(), FIELDS.len(), "{line}");
        Self(columns)
    }

    /// What stands in a field, the outermost first.
    pub(super) fn texts(&self, field: &str) -> impl Iterator<Item = &'a str> {
        let column = FIELDS.iter().position(|name| *name == field).expect("a field asked for");
        self.0[column].split(';').filter(|text| !text.is_empty())
    }

    pub(super) fn numbers(&self, field: &str) -> impl Iterator<Item = u64> {
        self.texts(field).map(|text| match (text, text.strip_prefix("0x")) {
            // Newer versions name truth.
            ("True", _) => 1,
            ("False", _) => 0,
            (_, Some(digits)) => u64::from_str_radix(digits, 16).expect("a hexadecimal number"),
            (_, None) => text.parse().unwrap_or_else(|e| panic!("{text}: {e}")),
        })
    }

    /// The outermost number in a field.
    pub(super) fn number(&self, field: &str) -> Option<u64> {
        self.numbers(field).next()
    }

    fn address(&self, field: &str) -> Option<IpAddr> {
        self.texts(field).next().map(|text| text.parse().expect("an address"))
    }

    /// The protocols of the frame, outermost first.
    pub(super) fn layers(&self) -> impl Iterator<Item = &'a str> {
        self.texts("frame.protocols").flat_map(|text| text.split(':'))
    }

    /// The outermost IP packet; `None` if there is none of which tshark says the addresses.
    pub(super) fn packet(&self) -> Option<Result<Packet, LeftOut>> {
        let links: Vec<&str> = self.layers().take_while(|layer| !is_ip(layer)).collect();
        let mut above = self.layers().skip_while(|layer| !is_ip(layer));
        let version = above.next()?;
        let above: Vec<&str> = above.collect();
        let [src, dst] =
            [format!("{version}.src"), format!("{version}.dst")].map(|end| self.address(&end));
        let (src, dst) = (src?, dst?);

        let Some(link) = self.link(&links) else {
            return Some(Err(LeftOut::Carried));
        };
        let captured = self.number("frame.cap_len")?;
        let there = self.number("frame.len")?.max(captured).saturating_sub(link.len);
        let extent = Extent { there, captured: captured.saturating_sub(link.len) };
        let packet =
            if version == "ip" { self.v4(extent, &above) } else { self.v6(extent, &above) };
        let is_deep = link.tags.len() > DEPTH.0;
        // A priority tag names no VLAN.
        let mut ids = link.tags.into_iter().filter(|id| *id != 0);
        let vlans = [0; 2].map(|none: u16| ids.next().map_or(none, |id| id as u16));
        packet.map(|packet| match packet {
            Ok(_) if is_deep => Err(LeftOut::TooDeep),
            packet => packet.map(|packet| Packet { src, dst, vlans, ..packet }),
        })
    }

    /// What these layers in front of an IP header are; `None` if one is none that the agent knows.
    fn link(&self, layers: &[&str]) -> Option<Link> {
        let mut link = Link { len: 0, tags: Vec::new() };
        let mut tags = self.numbers("vlan.id");
        let mut service_tags = self.numbers("ieee8021ad.id");
        for layer in layers {
            let (_, len) = LINKS.iter().find(|(known, _)| known == layer)?;
            link.len += len;
            match *layer {
                "vlan" => link.tags.extend(tags.next()),
                "ieee8021ad" => match self.number("ieee8021ad.svid") {
                    // Two of them in a row are one layer.
                    Some(outer) => {
                        link.len += TAG;
                        link.tags.push(outer);
                        link.tags.extend(self.number("ieee8021ad.cvid"));
                    }
                    None => link.tags.extend(service_tags.next()),
                },
                _ => {}
            }
        }
        Some(link)
    }

    /// When the frame was seen, in µs.
    pub(super) fn time_us(&self) -> u64 {
        let text = self.texts("frame.time_epoch").next().expect("a time");
        let (seconds, parts) = text.split_once('.').expect("a fraction");
        format!("{seconds}{}", &parts[..6]).parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn v4(&self, extent: Extent, above: &[&str]) -> Option<Result<Packet, LeftOut>> {
        // Before a network card cuts it, a packet may have a length of 0.
        let bytes = match self.number("ip.len")? {
            0 => extent.there,
            len => len,
        };
        if bytes > extent.there {
            return Some(Err(LeftOut::BeyondFrame));
        }
        let protocol = self.number("ip.proto")? as u8;
        let later = self.number("ip.frag_offset")? != 0;
        let first = self.number("ip.flags.mf")? != 0;
        let id = (self.number("ip.id")?, protocol);
        let fragment = (later || first).then_some(Fragment { id, later });
        let header_len = self.number("ip.hdr_len")?;
        Some(self.transport(extent, above, bytes, header_len, protocol, fragment))
    }

    fn v6(&self, extent: Extent, above: &[&str]) -> Option<Result<Packet, LeftOut>> {
        let next = self.number("ipv6.nxt")?;
        let payload = self.number("ipv6.plen")?;
        // A jumbogram, or a packet before a network card cuts it, has a length of 0.
        let is_jumbo = payload == 0 && (next == 0 || extent.there > V6.0 + LONGEST);
        let bytes = if is_jumbo { extent.there } else { V6.0 + payload };
        if bytes > extent.there {
            return Some(Err(LeftOut::BeyondFrame));
        }
        let (extensions, above): (Vec<&str>, Vec<&str>) =
            above.iter().partition(|layer| layer.starts_with("ipv6.") || **layer == "ah");
        if above.is_empty() {
            let last =
                extensions.last().and_then(|layer| self.numbers(&format!("{layer}.nxt")).last());
            let one_more = last.is_some_and(|next| EXTENSIONS.contains(&next));
            let needed = V6.0 + V6.1 * (extensions.len() as u64 + u64::from(one_more));
            if bytes.min(extent.captured) < needed {
                return Some(Err(LeftOut::CutOff));
            }
        }
        if extensions.len() > DEPTH.1 {
            return Some(Err(LeftOut::TooDeep));
        }
        let fragment = self.number("ipv6.fraghdr.offset").map(|offset| Fragment {
            id: (self.number("ipv6.fraghdr.ident").unwrap_or_default(), 0),
            later: offset != 0,
        });
        let is_atomic = self.number("ipv6.fraghdr.more") == Some(0);
        let fragment = fragment.filter(|fragment| fragment.later || !is_atomic);
        let named = PORTED.iter().find(|(_, name)| above.first() == Some(name));
        let protocol = match (named, self.number("ipv6.fraghdr.nxt")) {
            (Some((number, _)), _) => *number,
            (None, Some(number)) => number as u8,
            (None, None) => next as u8,
        };
        // Extension headers not counted: at least so much.
        Some(self.transport(extent, &above, bytes, V6.0, protocol, fragment))
    }

    /// A packet with its ports; its ends are still to be put in.
    fn transport(
        &self,
        extent: Extent,
        above: &[&str],
        bytes: u64,
        header_len: u64,
        protocol: u8,
        fragment: Option<Fragment>,
    ) -> Result<Packet, LeftOut> {
        let nowhere = IpAddr::from([0; 4]);
        let mut packet = Packet {
            src: nowhere,
            dst: nowhere,
            vlans: [0; 2],
            bytes,
            fragment,
            protocol,
            ports: [0; 2],
        };
        if packet.fragment.as_ref().is_some_and(|fragment| fragment.later) {
            return Ok(packet);
        }
        let needed =
            NEEDED.iter().find(|(number, _)| *number == protocol).map_or(0, |(_, len)| *len);
        if bytes.min(extent.captured) < header_len + needed {
            return Err(LeftOut::CutOff);
        }
        let Some((_, name)) = PORTED.iter().find(|(_, name)| above.first() == Some(name)) else {
            return Ok(packet);
        };
        let room = bytes - header_len;
        let is_whole = packet.fragment.is_none();
        let is_good = match *name {
            "tcp" => self.number("tcp.hdr_len").is_none_or(|len| (20..=room).contains(&len)),
            "udp" => self
                .number("udp.length")
                .is_none_or(|len| len == 0 || len >= 8 && (!is_whole || len <= room)),
            _ => true,
        };
        if !is_good {
            return Err(LeftOut::BadTransport);
        }
        let port = |end| self.number(&format!("{name}.{end}port"));
        match (port("src"), port("dst")) {
            (Some(src), Some(dst)) => packet.ports = [src as u16, dst as u16],
            // It did not look.
            _ => packet.protocol = NOTHING,
        }
        Ok(packet)
    }
}

/// What lies in front of an IP header.
#[derive(Debug)]
struct Link {
    len: u64,
    /// VLAN ids, the outermost first.
    tags: Vec<u64>,
}

/// Bytes from the IP header to the frame's end.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// On the wire.
    there: u64,
    /// In the file.
    captured: u64,
}
