//! Captures written byte by byte, and read back.

mod broken;
mod compressed;
mod formats;
mod mapped;
mod merged;
mod real;
mod write;

use self::write::Memory;
use super::*;

/// The default interface's name.
const NAMELESS: &str = "capture";

/// A packet that outlives its reader's next step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    time_ns: u64,
    data: Vec<u8>,
    wire_len: u32,
    link_type: u32,
    interface: String,
}

/// Of Ethernet, of the default interface.
fn packet(time_ns: u64, data: &[u8]) -> Owned {
    let wire_len = data.len() as u32;
    Owned { time_ns, data: data.to_vec(), wire_len, link_type: 1, interface: NAMELESS.to_owned() }
}

/// What one after the other comes out of captures.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    packets: Vec<Owned>,
    /// Each with the number of packets before it.
    errors: Vec<(usize, String)>,
}

/// All there is, by batches of at most so many packets.
fn drain(captures: &mut Captures, limit: usize) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(next) = captures.next_batch(limit) {
        let batch = match next {
            Err(broken) => {
                outcome.errors.push((outcome.packets.len(), broken.to_string()));
                continue;
            }
            Ok(batch) => batch,
        };
        assert!((1..=limit).contains(&batch.len()), "{} packets", batch.len());
        let packets: Vec<(Owned, u32)> = batch
            .map(|Packet { time_ns, data, wire_len, link, link_type, interface }| {
                assert_eq!(link, link::link(link_type));
                let data = data.to_vec();
                let owned = Owned { time_ns, data, wire_len, link_type, interface: String::new() };
                (owned, interface)
            })
            .collect();
        outcome.packets.extend(packets.into_iter().map(|(packet, interface)| {
            let interface = captures.interface_name(interface).to_owned();
            Owned { interface, ..packet }
        }));
    }
    assert!(captures.next_packet().is_none(), "the end is the end");
    if let Some(total) = captures.total() {
        assert!(captures.position() <= total, "read more than there is");
        if outcome.errors.is_empty() {
            assert_eq!(captures.position(), total, "all is read");
        }
    }
    outcome
}

fn read_all(contents: &[&[u8]]) -> Result<Outcome> {
    let files: Vec<Memory> = contents.iter().map(|content| Memory::new(content)).collect();
    let paths: Vec<PathBuf> = files.iter().map(Memory::path).collect();
    let outcome = drain(&mut Captures::open(&paths, NAMELESS)?, 1);
    let batched = drain(&mut Captures::open(&paths, NAMELESS)?, 5);
    assert_eq!(batched, outcome, "by batches");
    Ok(outcome)
}

/// Reads a capture that has nothing wrong.
fn read(content: &[u8]) -> Vec<Owned> {
    let outcome = read_all(&[content]).expect("a capture");
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    outcome.packets
}
