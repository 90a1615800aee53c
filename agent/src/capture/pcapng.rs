//! Captures in the pcapng format (draft-ietf-opsawg-pcapng).
//!
//! Framing, section headers and interfaces' options are the library's. Packet blocks are read here: the
//! library's way through their options allocates, and one broken comment would lose the packet.

use agent_common::parse::Link;
use pcap_parser::{
    InterfaceDescriptionBlock, OptionCode, UnknownBlock,
    nom::{Err as Stopped, Needed},
    parse_interfacedescriptionblock_be, parse_interfacedescriptionblock_le,
    parse_sectionheaderblock, parse_unknownblock_be, parse_unknownblock_le,
};

use super::{
    Head,
    buffer::Buffer,
    clock::Clock,
    error::{Fault, MAX_RECORD},
    interfaces::Interfaces,
    link::link,
};

/// The same in either byte order.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type and length, before a block's body.
const BLOCK_HEADER: usize = 8;
/// Of an enhanced or obsolete packet, before its bytes.
const PACKET_FIELDS: usize = 20;
/// Of a simple packet.
const SIMPLE_PACKET_FIELDS: usize = 4;
/// The length once more, behind it.
const BLOCK_TRAILER: usize = 4;

/// Reads blocks.
#[derive(Debug, Default)]
pub(super) struct Pcapng {
    big_endian: bool,
    /// Of this section, in order.
    interfaces: Vec<Interface>,
    /// Of the packet before, for blocks without a time.
    last_ns: u64,
}

/// A described interface.
#[derive(Debug)]
struct Interface {
    index: u32,
    link_type: u32,
    link: Option<Link>,
    /// Most bytes captured of a packet.
    snap_len: usize,
    clock: Clock,
}

/// Whether a capture that begins so is one of this format.
pub(super) fn is_pcapng(magic: [u8; 4]) -> bool {
    u32::from_le_bytes(magic) == SECTION_HEADER
}

impl Pcapng {
    /// Reads the first section's header.
    pub(super) fn open(buffer: &mut Buffer) -> Result<Self, Fault> {
        let mut this = Self::default();
        this.section(buffer)?;
        Ok(this)
    }

    /// Whether bytes begin with a whole block that has a packet.
    #[inline]
    pub(super) fn is_whole(&self, data: &[u8]) -> bool {
        let [kind, len, ..] = data.as_chunks::<4>().0 else { return false };
        let is_packet = matches!(self.u32(*kind), ENHANCED_PACKET | PACKET | SIMPLE_PACKET);
        is_packet && data.len() >= self.u32(*len) as usize
    }

    /// The next packet; false if there is none.
    #[inline]
    pub(super) fn next(
        &mut self,
        buffer: &mut Buffer,
        interfaces: &mut Interfaces,
        next: &mut Head,
    ) -> Result<bool, Fault> {
        loop {
            let data = buffer.data();
            if data.first_chunk().copied().is_some_and(is_pcapng) {
                self.section(buffer)?;
                continue;
            }
            let parsed = if self.big_endian {
                parse_unknownblock_be(data)
            } else {
                parse_unknownblock_le(data)
            };
            match parsed {
                Ok((rest, block)) => {
                    let len = data.len() - rest.len();
                    check_trailer(block.block_len1, block.block_len2)?;
                    let found = self.block(&block, &data[..len], interfaces, next)?;
                    next.place += buffer.place() + BLOCK_HEADER;
                    buffer.consume(len);
                    if found {
                        return Ok(true);
                    }
                }
                Err(Stopped::Incomplete(needed)) => {
                    if !fill(buffer, needed)? {
                        let nothing = buffer.data().is_empty();
                        let cut_off = Fault::CutOff { inside: "a block" };
                        return if nothing { Ok(false) } else { Err(cut_off) };
                    }
                }
                Err(_) => {
                    let length = data.get(4..).and_then(<[u8]>::first_chunk);
                    let length = length.map_or(0, |bytes| self.u32(*bytes));
                    return Err(Fault::nonsense(format!(
                        "a block claims to be {length} bytes long, less than its own frame"
                    )));
                }
            }
        }
    }

    /// A section's header: from here on its byte order holds, and its interfaces alone.
    fn section(&mut self, buffer: &mut Buffer) -> Result<(), Fault> {
        loop {
            let data = buffer.data();
            match parse_sectionheaderblock(data) {
                Ok((rest, block)) => {
                    check_trailer(block.block_len1, block.block_len2)?;
                    if block.major_version != 1 {
                        let (major, minor) = (block.major_version, block.minor_version);
                        return Err(Fault::nonsense(format!(
                            "a section is of version {major}.{minor} of the pcapng format; only 1.x is known"
                        )));
                    }
                    self.big_endian = block.big_endian();
                    self.interfaces.clear();
                    let len = data.len() - rest.len();
                    buffer.consume(len);
                    return Ok(());
                }
                Err(Stopped::Incomplete(needed)) => {
                    if !fill(buffer, needed)? {
                        return Err(Fault::CutOff { inside: "a section's header" });
                    }
                }
                Err(_) => return Err(Fault::nonsense("a section's header makes no sense")),
            }
        }
    }

    /// Takes in any other block; whether it has a packet, whose place is counted from the block's body.
    #[inline]
    fn block(
        &mut self,
        block: &UnknownBlock<'_>,
        whole: &[u8],
        interfaces: &mut Interfaces,
        next: &mut Head,
    ) -> Result<bool, Fault> {
        // The library reads types as little-endian.
        let kind = if self.big_endian { block.block_type.swap_bytes() } else { block.block_type };
        let body = block.data;
        match kind {
            ENHANCED_PACKET => self.packet(body, Self::u32, next)?,
            PACKET => self.packet(body, |this, [a, b, ..]| this.u16([a, b]), next)?,
            SIMPLE_PACKET => self.simple_packet(body, next)?,
            INTERFACE_DESCRIPTION => {
                self.describe(whole, interfaces)?;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn describe(&mut self, block: &[u8], interfaces: &mut Interfaces) -> Result<(), Fault> {
        let parsed = if self.big_endian {
            parse_interfacedescriptionblock_be(block)
        } else {
            parse_interfacedescriptionblock_le(block)
        };
        let Ok((_, described)) = parsed else {
            return Err(Fault::nonsense("an interface's description makes no sense"));
        };
        let id = self.interfaces.len();
        let name = option(&described, OptionCode::IfName).map(text).unwrap_or_default();
        let index = match name.as_str() {
            "" => interfaces.nameless(id),
            name => interfaces.named(name),
        };
        // The library takes the offset as little-endian in any section.
        let offset = option(&described, OptionCode::IfTsoffset).and_then(<[u8]>::first_chunk);
        let offset = offset.map_or(0, |bytes| {
            if self.big_endian { i64::from_be_bytes(*bytes) } else { i64::from_le_bytes(*bytes) }
        });
        let link_type = described.linktype.0 as u32;
        self.interfaces.push(Interface {
            index,
            link_type,
            link: link(link_type),
            // 0 is no limit.
            snap_len: described.snaplen.checked_sub(1).map_or(usize::MAX, |less| less as usize + 1),
            clock: Clock::new(described.if_tsresol, offset),
        });
        Ok(())
    }

    /// An enhanced or obsolete packet block: five words, of which the first tells the interface.
    #[inline]
    fn packet(
        &mut self,
        body: &[u8],
        interface: impl Fn(&Self, [u8; 4]) -> u32,
        next: &mut Head,
    ) -> Result<(), Fault> {
        let (fields, _) = body.split_first_chunk::<PACKET_FIELDS>().ok_or(NO_HEADER)?;
        let (words, _) = fields.as_chunks::<4>();
        let [first, high, low, captured, original] = *words else { return Err(NO_HEADER) };
        let id = interface(self, first) as usize;
        let captured = self.u32(captured);
        if captured as usize > body.len() - PACKET_FIELDS {
            return Err(Fault::nonsense(format!(
                "a packet of {captured} captured bytes does not fit into its block"
            )));
        }
        let interface = self.interface(id)?;
        let ticks = u64::from(self.u32(high)) << 32 | u64::from(self.u32(low));
        let time_ns = interface.clock.ns(ticks);
        *next = Head {
            time_ns,
            place: PACKET_FIELDS,
            len: captured as usize,
            wire_len: self.u32(original).max(captured),
            link: interface.link,
            link_type: interface.link_type,
            interface: interface.index,
        };
        self.last_ns = time_ns;
        Ok(())
    }

    /// A simple packet block has no time and no captured length: the latter is the least of what it can be.
    fn simple_packet(&self, body: &[u8], next: &mut Head) -> Result<(), Fault> {
        let (original, bytes) = body.split_first_chunk().ok_or(NO_HEADER)?;
        let original = self.u32(*original);
        let interface = self.interface(0)?;
        let len = bytes.len().min(original as usize).min(interface.snap_len);
        *next = Head {
            time_ns: self.last_ns,
            place: SIMPLE_PACKET_FIELDS,
            len,
            wire_len: original.max(len as u32),
            link: interface.link,
            link_type: interface.link_type,
            interface: interface.index,
        };
        Ok(())
    }

    #[inline]
    fn interface(&self, id: usize) -> Result<&Interface, Fault> {
        self.interfaces.get(id).ok_or_else(|| {
            Fault::nonsense(format!(
                "a packet is of interface {id}, of which nothing was said before (known are {})",
                self.interfaces.len()
            ))
        })
    }

    #[inline]
    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    #[inline]
    fn u16(&self, bytes: [u8; 2]) -> u32 {
        u32::from(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }
}

const NO_HEADER: Fault = Fault::CutShort { what: "a packet's block" };

fn check_trailer(before: u32, behind: u32) -> Result<(), Fault> {
    if before == behind {
        return Ok(());
    }
    Err(Fault::nonsense(format!(
        "a block says at its beginning that it is {before} bytes long, and at its end {behind}"
    )))
}

/// Reads as many bytes more as the library asks for; false if the stream ends before.
fn fill(buffer: &mut Buffer, needed: Needed) -> Result<bool, Fault> {
    let more = match needed {
        Needed::Size(more) => more.get(),
        Needed::Unknown => 1,
    };
    let need = buffer.data().len() + more;
    if need > MAX_RECORD {
        // The library asks for all but the trailer first.
        return Err(Fault::TooLong { what: "a block", claimed: need + BLOCK_TRAILER });
    }
    Ok(buffer.fill(need)?)
}

/// The value of an interface's first option of this kind.
fn option<'a>(block: &'a InterfaceDescriptionBlock<'_>, code: OptionCode) -> Option<&'a [u8]> {
    let mut options = block.options.iter().take_while(|option| option.code != OptionCode::EndOfOpt);
    options.find(|option| option.code == code)?.as_bytes().ok()
}

/// Some writers end names by zeros.
fn text(bytes: &[u8]) -> String {
    // A copy first: a file may be written to while it is read.
    let bytes = bytes.to_vec();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}
