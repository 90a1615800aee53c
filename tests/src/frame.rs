//! One captured or crafted frame: the input of the oracle.

/// A frame as a packet socket or a capture file shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was seen, nanoseconds since any fixed point.
    pub time_ns: u64,
    /// The bytes captured, from the link header (or the IP header, see `l3_only`) on.
    pub data: Vec<u8>,
    /// Bytes the frame had on the wire or as a super-packet; at least `data.len()`.
    pub wire_len: usize,
    /// The 16-bit tag control information the kernel took out of the frame, if it did.
    pub vlan_tci: Option<u16>,
    /// Payload bytes per segment of a super-packet, 0 for an ordinary packet.
    pub gso_size: u16,
    /// True when there is no link header: the data starts with the IP header.
    pub l3_only: bool,
}

impl Frame {
    /// A whole Ethernet frame seen at `time_ns`.
    pub fn ethernet(time_ns: u64, data: Vec<u8>) -> Self {
        let wire_len = data.len();
        Self { time_ns, data, wire_len, vlan_tci: None, gso_size: 0, l3_only: false }
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
        self.l3_only = true;
        self
    }
}
