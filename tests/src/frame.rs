//! One captured or crafted frame: the input of the oracle.

/// What a frame begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
    /// Linux's cooked header of 16 bytes (LINKTYPE_LINUX_SLL).
    CookedV1,
    /// Linux's cooked header of 20 bytes (LINKTYPE_LINUX_SLL2).
    CookedV2,
    /// An address family of 4 bytes, in either byte order (LINKTYPE_NULL, LINKTYPE_LOOP).
    Null,
}

impl Link {
    /// By its number in captures (<https://www.tcpdump.org/linktypes.html>), if the agent reads it.
    pub fn by_number(link_type: u32) -> Option<Self> {
        match link_type {
            1 => Some(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Self::Ip),
            113 => Some(Self::CookedV1),
            276 => Some(Self::CookedV2),
            0 | 108 => Some(Self::Null),
            _ => None,
        }
    }
}

impl From<Link> for agent_common::parse::Link {
    fn from(link: Link) -> Self {
        match link {
            Link::Ethernet => Self::Ethernet,
            Link::Ip => Self::Ip,
            Link::CookedV1 => Self::CookedV1,
            Link::CookedV2 => Self::CookedV2,
            Link::Null => Self::Null,
        }
    }
}

/// A frame as a packet socket or a capture file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was seen, nanoseconds since any fixed point.
    pub time_ns: u64,
    /// The bytes captured, from the link header on, see `link`.
    pub data: Vec<u8>,
    /// Bytes the frame had on the wire or as a super-packet; at least `data.len()`.
    pub wire_len: usize,
    /// The 16-bit tag control information the kernel took out of the frame, if it did.
    pub vlan_tci: Option<u16>,
    /// Payload bytes per segment of a super-packet, 0 for an ordinary packet.
    pub gso_size: u16,
    /// What the data starts with.
    pub link: Link,
}

impl Frame {
    /// A whole Ethernet frame seen at `time_ns`.
    pub fn ethernet(time_ns: u64, data: Vec<u8>) -> Self {
        let wire_len = data.len();
        Self { time_ns, data, wire_len, vlan_tci: None, gso_size: 0, link: Link::Ethernet }
    }

    /// The same frame as a super-packet whose segments carry `gso_size` payload bytes.
    #[must_use]
    pub fn with_gso(mut self, gso_size: u16) -> Self {
        self.gso_size = gso_size;
        self
    }

    /// The same frame with a tag the kernel holds outside of the bytes.
    #[must_use]
    pub fn with_tci(mut self, tci: u16) -> Self {
        self.vlan_tci = Some(tci);
        self
    }

    /// The same frame at another time, in nanoseconds.
    #[must_use]
    pub fn at(mut self, time_ns: u64) -> Self {
        self.time_ns = time_ns;
        self
    }

    /// The same frame without its 14 bytes of Ethernet header, as a tunnel device shows it.
    #[must_use]
    pub fn without_link(mut self) -> Self {
        self.data.drain(..14);
        self.wire_len -= 14;
        self.link = Link::Ip;
        self
    }
}
