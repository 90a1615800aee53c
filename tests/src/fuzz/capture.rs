//! The capture readers: any bytes as a file, of any format, compressed or not.

use std::io::Write as _;

use feature_agent::capture::{Captures, Packet};
use flate2::{Compression, write::GzEncoder};

use super::seeds::Memory;

/// The longest packet that is believed.
const MAX_PACKET: usize = 16 << 20;
/// Packets looked at: a kilobyte may decompress to millions of empty ones.
const MOST_PACKETS: usize = 5000;
/// The name of interfaces that have none.
const NAMELESS: &str = "capture";

/// What comes out of a file.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Time, length on the wire, link type, interface and what was captured.
    packets: Vec<(u64, u32, u32, String, Vec<u8>)>,
    /// Where it broke.
    broken: Option<u64>,
    /// Whether not all was looked at.
    cut: bool,
}

/// What is read lies within its bounds and is the same once more, compressed, and, as far as that goes, from a
/// part of the file.
pub(super) fn body(bytes: &[u8]) {
    let whole = read(bytes);
    let half = read(&bytes[..bytes.len() / 2]);
    if let (Some(whole), Some(half)) = (&whole, &half) {
        let common = half.packets.len().min(whole.packets.len());
        assert!(half.packets.len() == common, "more packets in a part");
        assert_eq!(half.packets[..], whole.packets[..common]);
    }
    assert!(whole.is_some() || half.is_none(), "a part is a capture, and the whole is none");
    // Compressed twice is not read. One in four: compressing takes longer than all else.
    if is_plain(bytes) && bytes.len().is_multiple_of(4) {
        assert_eq!(read(&gzip(bytes)), whole);
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    let gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let zstd =
        bytes.get(1..4).is_some_and(|end| matches!(end, [0xb5, 0x2f, 0xfd] | [0x2a, 0x4d, 0x18]));
    !gzip && !zstd
}

pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// All that is in a file; `None` if it is no capture.
fn read(bytes: &[u8]) -> Option<Outcome> {
    let memory = Memory::new(bytes);
    let mut captures = match Captures::open(&[memory.path()], NAMELESS) {
        Ok(captures) => captures,
        Err(error) => {
            assert!(format!("{error:#}").contains(' '), "{error:#} is no sentence");
            return None;
        }
    };
    let mut outcome = Outcome { packets: Vec::new(), broken: None, cut: false };
    loop {
        let (packet, interface) = match captures.next_packet() {
            None => break,
            Some(Err(broken)) => {
                assert!(outcome.broken.is_none(), "one file breaks twice: {broken}");
                outcome.broken = Some(broken.offset());
                continue;
            }
            Some(Ok(Packet { time_ns, data, wire_len, link: _, link_type, interface })) => {
                assert!(outcome.broken.is_none(), "a packet behind a break");
                assert!(data.len() <= (wire_len as usize).min(MAX_PACKET), "{} bytes", data.len());
                ((time_ns, wire_len, link_type, data.to_vec()), interface)
            }
        };
        let (time_ns, wire_len, link_type, data) = packet;
        let interface = captures.interface_name(interface);
        assert!(!interface.is_empty(), "an interface without a name");
        outcome.packets.push((time_ns, wire_len, link_type, interface.to_owned(), data));
        if outcome.packets.len() == MOST_PACKETS {
            outcome.cut = true;
            break;
        }
    }
    assert_eq!(captures.total(), Some(bytes.len() as u64));
    assert!(captures.position() <= bytes.len() as u64, "more was read than there is");
    let all = outcome.broken.is_none() && !outcome.cut;
    assert!(!all || captures.position() == bytes.len() as u64, "not all was read");
    Some(outcome)
}
