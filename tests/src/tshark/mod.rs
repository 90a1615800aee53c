//! A capture as tshark reads it: who sent how many packets and bytes to whom.
//!
//! Taken from tshark's fields, frame by frame, and not from its `-z conv` tables: those round bytes, add up frames
//! and not IP packets, and have a packet in a tunnel twice. [`Capture::conversations`] is what the tables say, to
//! see that the fields say the same.
//!
//! Packets that tshark has in its conversations and the agent in no flow are told apart: see [`LeftOut`].

mod frame;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
};

pub use self::frame::LeftOut;
use self::frame::{FIELDS, Fragment, Frame, Packet, is_ip};
use crate::{
    sys::is_there_or_say,
    totals::{Sum, Totals},
};

/// The tables that are asked for.
const TABLES: [&str; 5] = ["ip", "ipv6", "tcp", "udp", "sctp"];

/// For how long the agent remembers whose a datagram's fragments are, in µs, see README.
const FRAGMENT_LIFETIME_US: u64 = 30_000_000;

/// A capture.
#[derive(Debug)]
pub struct Capture {
    output: String,
}

/// What was made of a capture's frames.
#[derive(Debug, Default)]
pub struct Reading {
    /// Frames in the file.
    pub frames: u64,
    /// What the frames say that are no reason to leave them out.
    pub totals: Totals,
    /// Frames left out.
    pub left_out: BTreeMap<LeftOut, u64>,
}

/// Whether tshark is there; says so if it is not.
pub fn is_there(test: &str) -> bool {
    is_there_or_say(test, "tshark")
}

impl Capture {
    /// Has tshark read a file.
    pub fn read(path: &Path) -> Self {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(path);
        // A user's preferences do not count here.
        command.env("WIRESHARK_CONFIG_DIR", "/nonexistent");
        for preference in ["ip.defragment:FALSE", "ipv6.defragment:FALSE"] {
            command.args(["-o", preference]);
        }
        for table in TABLES {
            command.args(["-z", &format!("conv,{table}")]);
        }
        command.args(["-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"]);
        command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
        let output = command.output().expect("start tshark");
        // Its exit code is not 0 for a capture that breaks off.
        assert!(output.status.code().is_some(), "{}: tshark crashed", path.display());
        Self { output: String::from_utf8_lossy(&output.stdout).into_owned() }
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        // The tables come behind them.
        let lines = self.output.lines().take_while(|line| line.starts_with(|c: char| c != '='));
        lines.map(Frame::new)
    }

    /// Who sent what to whom.
    pub fn reading(&self) -> Reading {
        let mut reading = Reading::default();
        let mut fragments = HashMap::new();
        for frame in self.frames() {
            reading.frames += 1;
            match frame.packet() {
                None => {}
                Some(Err(why)) => *reading.left_out.entry(why).or_default() += 1,
                Some(Ok(packet)) => {
                    let Packet { src, dst, vlans, bytes, fragment, mut protocol, mut ports } =
                        packet;
                    if let Some(Fragment { id, later }) = fragment {
                        let now_us = frame.time_us();
                        let datagram = (src, dst, vlans, id);
                        if !later {
                            fragments.insert(datagram, (now_us, protocol, ports));
                        } else if let Some((seen_us, first, its)) = fragments.get(&datagram)
                            && now_us.saturating_sub(*seen_us) < FRAGMENT_LIFETIME_US
                        {
                            (protocol, ports) = (*first, *its);
                        }
                    }
                    let ends = [(src, ports[0]), (dst, ports[1])];
                    reading.totals.add(protocol, ends, vlans, Sum { packets: 1, bytes });
                }
            }
        }
        reading
    }

    /// Whether each frame is one that the tables count just as the fields do: whole, without tunnels, fragments
    /// and extension headers, and read to its end.
    pub fn is_plain(&self) -> bool {
        self.frames().all(|frame| {
            let is = |field, value| frame.numbers(field).any(|found| found == value);
            let ip = frame.layers().filter(|layer| is_ip(layer)).count();
            let extended =
                |layer: &str| layer.starts_with("ipv6.") || ["ah", "mipv6"].contains(&layer);
            let odd = is("ip.frag_offset", 0) != is("ip.flags.mf", 0)
                || is("ip.flags.mf", 1)
                || is("ip.len", 0)
                || is("ipv6.plen", 0)
                || frame.layers().any(extended)
                || frame.texts("_ws.malformed").next().is_some();
            ip <= 1 && !odd && frame.number("frame.len") == frame.number("frame.cap_len")
        })
    }

    /// What the tables say: packets by way, as `tcp 10.0.0.1:2000 > 10.0.0.2:80`; addresses without a protocol.
    pub fn conversations(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut name = "";
        for line in self.output.lines().skip_while(|line| !line.starts_with('=')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [title, "Conversations"] => {
                    name = match title {
                        "TCP" => "tcp ",
                        "UDP" => "udp ",
                        "SCTP" => "sctp ",
                        _ => "",
                    };
                }
                // Frames and bytes to the left, with a unit, and to the right.
                [a, "<->", b, to_a, _, _, to_b, ..] => {
                    for (from, to, frames) in [(a, b, to_b), (b, a, to_a)] {
                        let frames: u64 = frames.parse().expect("a number of frames");
                        let [from, to] = [from, to].map(|end| bracketed(end, !name.is_empty()));
                        if frames > 0 {
                            *found.entry(format!("{name}{from} > {to}")).or_default() += frames;
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// An end of a conversation as Rust writes it.
fn bracketed(end: &str, with_port: bool) -> String {
    match end.rsplit_once(':') {
        Some((address, port)) if with_port && address.contains(':') => {
            format!("[{address}]:{port}")
        }
        _ => end.to_owned(),
    }
}
