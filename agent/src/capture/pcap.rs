//! Captures in the format of libpcap (draft-ietf-opsawg-pcap).

use agent_common::parse::Link;
use pcap_parser::pcap::parse_pcap_header;

use super::{
    Head,
    buffer::Buffer,
    error::{Fault, MAX_RECORD},
    interfaces::Interfaces,
    link::link,
};

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const MODIFIED_RECORD_HEADER: usize = 24;
/// The upper bits say whether and how long a check sum ends each frame.
const LINK_TYPE: u32 = 0x03ff_ffff;

/// How records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Little,
    Big,
    /// Little, and 8 more bytes in each header: of patched systems.
    Modified,
}

/// Reads records.
#[derive(Debug)]
pub(super) struct Pcap {
    layout: Layout,
    ns_per_tick: u64,
    link_type: u32,
    link: Option<Link>,
    interface: u32,
}

/// Whether a capture that begins so is one of this format.
pub(super) fn is_pcap(magic: [u8; 4]) -> bool {
    matches!(
        u32::from_le_bytes(magic),
        0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 | 0xd4c3_b2a1 | 0x4d3c_b2a1
    )
}

impl Pcap {
    /// Reads the file's header.
    pub(super) fn open(buffer: &mut Buffer, interfaces: &mut Interfaces) -> Result<Self, Fault> {
        if buffer.data().len() < FILE_HEADER && !buffer.fill(FILE_HEADER)? {
            return Err(Fault::CutOff { inside: "the file's header" });
        }
        let Ok((_, header)) = parse_pcap_header(buffer.data()) else {
            return Err(Fault::nonsense("the file's header is not one of a pcap file"));
        };
        if header.version_major != 2 {
            let (major, minor) = (header.version_major, header.version_minor);
            return Err(Fault::nonsense(format!(
                "it is of version {major}.{minor} of the pcap format; only 2.x is known"
            )));
        }
        buffer.consume(header.size());
        let layout = match (header.is_modified_format(), header.is_bigendian()) {
            (true, _) => Layout::Modified,
            (false, true) => Layout::Big,
            (false, false) => Layout::Little,
        };
        let link_type = header.network.0 as u32 & LINK_TYPE;
        Ok(Self {
            layout,
            ns_per_tick: if header.is_nanosecond_precision() { 1 } else { 1000 },
            link_type,
            link: link(link_type),
            interface: interfaces.nameless(0),
        })
    }

    /// The next packet, if the whole of it was read.
    #[inline]
    pub(super) fn next_at_hand(&self, buffer: &mut Buffer) -> Option<Head> {
        let head = self.head(buffer.data(), buffer.place())?;
        buffer.consume(head.place + head.len - buffer.place());
        Some(head)
    }

    /// The next packets, until there are `limit`, or one that was not read as a whole.
    #[inline]
    pub(super) fn gather(&self, buffer: &mut Buffer, heads: &mut Vec<Head>, limit: usize) {
        let (data, place) = (buffer.data(), buffer.place());
        let mut used = 0;
        while heads.len() < limit
            && let Some(head) = self.head(&data[used..], place + used)
        {
            used = head.place + head.len - place;
            heads.push(head);
        }
        buffer.consume(used);
    }

    /// The packet at the first byte of `data`, which has this place in the buffer; `None` if it is not whole.
    #[inline]
    fn head(&self, data: &[u8], place: usize) -> Option<Head> {
        let [seconds, ticks, captured, original] = self.words(data)?;
        let header = self.header_len();
        let len = captured as usize;
        if data.len() - header < len {
            return None;
        }
        Some(Head {
            // 2³² s and 2³² µs are less than 2⁶³ ns.
            time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(ticks) * self.ns_per_tick,
            place: place + header,
            len,
            wire_len: original.max(captured),
            link: self.link,
            link_type: self.link_type,
            interface: self.interface,
        })
    }

    /// The next packet; false if there is none.
    pub(super) fn next(&self, buffer: &mut Buffer, next: &mut Head) -> Result<bool, Fault> {
        loop {
            if let Some(head) = self.next_at_hand(buffer) {
                *next = head;
                return Ok(true);
            }
            let claimed = self.words(buffer.data()).map_or(0, |[_, _, captured, _]| captured);
            if claimed as usize > MAX_RECORD {
                return Err(Fault::TooLong { what: "a packet", claimed: claimed as usize });
            }
            if !buffer.fill(self.header_len() + claimed as usize)? {
                return ended(buffer);
            }
        }
    }

    /// The words that each record's header begins with: seconds, the rest of them, captured length, original length.
    /// `None` if the header is not whole.
    #[inline]
    fn words(&self, data: &[u8]) -> Option<[u32; 4]> {
        let header = data.get(..self.header_len())?.first_chunk::<RECORD_HEADER>()?;
        let words: [u32; 4] = bytemuck::pod_read_unaligned(header);
        let is_big = self.layout == Layout::Big;
        Some(words.map(|word| if is_big { u32::from_be(word) } else { u32::from_le(word) }))
    }

    #[inline]
    fn header_len(&self) -> usize {
        match self.layout {
            Layout::Little | Layout::Big => RECORD_HEADER,
            Layout::Modified => MODIFIED_RECORD_HEADER,
        }
    }
}

/// The answer where there are too few bytes for another record.
fn ended(buffer: &Buffer) -> Result<bool, Fault> {
    match buffer.data().len() {
        0 => Ok(false),
        1..RECORD_HEADER => Err(Fault::CutOff { inside: "a packet's header" }),
        _ => Err(Fault::CutOff { inside: "a packet" }),
    }
}
