//! TCP connections that do not go as in the book, packet by packet, with the lines of each written beside it by
//! hand.
//!
//! Flows speak for a FIN, an RST, when another flow of their key begins, and at the end, see [`Rules::PATIENT`].

use std::net::Ipv4Addr;

use crate::{
    craft::{self, IPV4, Tcp, V4},
    frame::Frame,
    in_kernel::START_NS,
    lines::Line,
    oracle::{
        Rules,
        parse::flag::{ACK, FIN, PSH, RST, SYN},
    },
};

/// A sequence of packets and what must be said of it.
#[derive(Debug, Clone)]
pub struct Story {
    /// What it is about.
    pub name: &'static str,
    /// The packets.
    pub frames: Vec<Frame>,
    /// The lines, in order.
    pub lines: Vec<Said>,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Who began it: the client or the server.
    pub initiator: Side,
    /// Why it is the initiator.
    pub direction_by: &'static str,
    /// Whether the flow was there before.
    pub midstream: bool,
    /// Vectors of the flow before this one.
    pub seq: u64,
    /// Why it is said.
    pub reason: &'static str,
    /// Packets of the initiator and of the other end.
    pub packets: [u64; 2],
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// 10.0.0.1, port 1000.
    Client,
    /// 10.0.0.2, port 80.
    Server,
}

use Side::{Client, Server};

/// Thresholds of the stories.
pub const RULES: Rules = Rules::PATIENT;

const SECOND: u64 = 1000;

/// (ms since the beginning, who, flags, payload)
type Packet = (u64, Side, u8, usize);

fn story(name: &'static str, packets: &[Packet], lines: Vec<Said>) -> Story {
    let frames = packets.iter().map(|&(ms, from, flags, payload)| {
        let end = |side| match side {
            Client => (Ipv4Addr::new(10, 0, 0, 1), 1000),
            Server => (Ipv4Addr::new(10, 0, 0, 2), 80),
        };
        let ((src, sport), (dst, dport)) = match from {
            Client => (end(Client), end(Server)),
            Server => (end(Server), end(Client)),
        };
        let segment = Tcp { sport, dport, flags, window: 512, options: 0 };
        let packet = V4::new(src, dst, 6).packet(&segment.segment(&vec![1; payload]));
        Frame::ethernet(START_NS + ms * 1_000_000, craft::ethernet(&[], IPV4, &packet))
    });
    Story { name, frames: frames.collect(), lines }
}

/// A flow by a SYN of one side, its `seq`-th line.
fn by_syn(initiator: Side, seq: u64, reason: &'static str, packets: [u64; 2]) -> Said {
    Said { initiator, direction_by: "syn", midstream: false, seq, reason, packets }
}

/// A flow that was there before.
fn midstream(initiator: Side, seq: u64, reason: &'static str, packets: [u64; 2]) -> Said {
    Said { direction_by: "first", midstream: true, ..by_syn(initiator, seq, reason, packets) }
}

impl Said {
    /// What a line of the agent says.
    pub fn of(line: &Line) -> Self {
        let initiator = if line.int("sport") == 1000 { Client } else { Server };
        let direction_by =
            ["syn", "synack", "first"].into_iter().find(|by| *by == line.text("direction_by"));
        let reason = crate::lines::REASONS.into_iter().find(|known| *known == line.text("reason"));
        Self {
            initiator,
            direction_by: direction_by.expect("a rule"),
            midstream: line.get("midstream").as_bool().expect("a boolean"),
            seq: line.int("seq"),
            reason: reason.expect("a reason"),
            packets: ["fwd_packets", "bwd_packets"].map(|name| line.int(name)),
        }
    }
}

/// All of them.
pub fn all() -> Vec<Story> {
    let mut all = beginnings();
    all.extend(ends());
    all.extend(begun_again());
    all
}

fn beginnings() -> Vec<Story> {
    vec![
        story(
            "a_syn_sent_again",
            &[
                (0, Client, SYN, 0),
                (SECOND, Client, SYN, 0),
                (1050, Server, SYN | ACK, 0),
                (1051, Server, SYN | ACK, 0),
                (1100, Client, ACK, 0),
            ],
            vec![by_syn(Client, 0, "stop", [3, 2])],
        ),
        story(
            "both_open_at_once",
            // RFC 9293, 3.5: figure 7.
            &[
                (0, Client, SYN, 0),
                (1, Server, SYN, 0),
                (2, Client, SYN | ACK, 0),
                (3, Server, SYN | ACK, 0),
            ],
            vec![by_syn(Client, 0, "stop", [2, 2])],
        ),
        story(
            "seen_from_the_answer_on",
            &[(0, Server, SYN | ACK, 0), (1, Client, ACK, 0), (2, Client, ACK | PSH, 10)],
            vec![Said { direction_by: "synack", ..by_syn(Client, 0, "stop", [2, 1]) }],
        ),
        story(
            "seen_from_the_middle_on",
            &[(0, Server, ACK | PSH, 100), (1, Client, ACK, 0), (2, Client, ACK, 5)],
            vec![midstream(Server, 0, "stop", [1, 2])],
        ),
        story(
            "a_syn_in_the_middle_of_what_goes_on_changes_nothing",
            &[(0, Server, ACK | PSH, 100), (1, Client, SYN, 0), (2, Server, ACK, 0)],
            vec![midstream(Server, 0, "stop", [2, 1])],
        ),
    ]
}

fn ends() -> Vec<Story> {
    vec![
        story(
            "half_closed",
            &[
                (0, Client, SYN, 0),
                (1, Server, SYN | ACK, 0),
                (2, Client, FIN | ACK, 0),
                // For longer than a closed flow lingers.
                (5 * SECOND, Server, ACK | PSH, 1000),
                (5 * SECOND, Client, ACK, 0),
                // The one side is closed, the flow is not.
                (6 * SECOND, Client, SYN, 0),
                (9 * SECOND, Server, FIN | ACK, 0),
                (9 * SECOND, Client, ACK, 0),
            ],
            vec![
                by_syn(Client, 0, "fin", [2, 1]),
                by_syn(Client, 1, "fin", [4, 3]),
                by_syn(Client, 2, "stop", [5, 3]),
            ],
        ),
        story(
            "a_fin_sent_again_says_nothing_new",
            &[
                (0, Client, SYN, 0),
                (1, Client, FIN | ACK, 0),
                (2, Client, FIN | ACK, 0),
                (3, Client, FIN | ACK, 0),
            ],
            vec![by_syn(Client, 0, "fin", [2, 0]), by_syn(Client, 1, "stop", [4, 0])],
        ),
        story(
            "refused",
            &[(0, Client, SYN, 0), (1, Server, RST | ACK, 0), (2, Server, RST, 0)],
            vec![by_syn(Client, 0, "rst", [1, 1]), by_syn(Client, 1, "stop", [1, 2])],
        ),
        story(
            "what_comes_late_for_an_rst_stays_with_it",
            &[
                (0, Client, SYN, 0),
                (1, Server, SYN | ACK, 0),
                (2, Client, RST, 0),
                (3, Server, ACK | PSH, 1000),
                // No SYN alone.
                (4, Server, SYN | ACK, 0),
                (5, Server, FIN | ACK, 0),
            ],
            vec![by_syn(Client, 0, "rst", [2, 1]), by_syn(Client, 1, "stop", [2, 4])],
        ),
        story(
            "an_rst_after_both_fins",
            &[(0, Client, FIN | ACK, 0), (1, Server, FIN | ACK, 0), (2, Client, RST, 0)],
            vec![
                midstream(Client, 0, "fin", [1, 0]),
                midstream(Client, 1, "fin", [1, 1]),
                midstream(Client, 2, "rst", [2, 1]),
                midstream(Client, 3, "stop", [2, 1]),
            ],
        ),
        story(
            "a_lonely_fin",
            &[(0, Server, FIN, 0)],
            vec![midstream(Server, 0, "fin", [1, 0]), midstream(Server, 1, "stop", [1, 0])],
        ),
        story(
            "all_flags_at_once",
            &[(0, Server, 0xff, 0)],
            // SYN with ACK: who answers is not who began.
            vec![
                Said { direction_by: "synack", ..by_syn(Client, 0, "rst", [0, 1]) },
                Said { direction_by: "synack", ..by_syn(Client, 1, "stop", [0, 1]) },
            ],
        ),
    ]
}

fn begun_again() -> Vec<Story> {
    vec![
        story(
            "a_syn_of_the_other_side_after_both_fins",
            &[
                (0, Client, SYN, 0),
                (1, Server, SYN | ACK, 0),
                (2, Client, FIN | ACK, 0),
                (3, Server, FIN | ACK, 0),
                (4, Client, ACK, 0),
                (5, Server, SYN, 0),
                (6, Client, SYN | ACK, 0),
                (7, Server, ACK, 0),
                (8, Server, ACK | PSH, 7),
            ],
            vec![
                by_syn(Client, 0, "fin", [2, 1]),
                by_syn(Client, 1, "fin", [2, 2]),
                // The last ACK was in no vector yet.
                by_syn(Client, 2, "fin", [3, 2]),
                by_syn(Server, 0, "stop", [3, 1]),
            ],
        ),
        story(
            "a_syn_after_an_rst",
            &[
                (0, Client, SYN, 0),
                (1, Server, RST | ACK, 0),
                (2, Client, SYN, 0),
                (3, Server, RST | ACK, 0),
                (4, Server, SYN, 0),
            ],
            vec![
                by_syn(Client, 0, "rst", [1, 1]),
                by_syn(Client, 0, "rst", [1, 1]),
                by_syn(Server, 0, "stop", [1, 0]),
            ],
        ),
        story(
            "a_syn_after_silence",
            &[
                (0, Client, SYN, 0),
                (1, Server, SYN | ACK, 0),
                (15 * SECOND, Server, ACK, 0),
                (30 * SECOND, Server, SYN, 0),
            ],
            vec![by_syn(Client, 0, "idle", [1, 2]), by_syn(Server, 0, "stop", [1, 0])],
        ),
        story(
            "anything_after_silence",
            &[
                (0, Client, SYN, 0),
                (14_999, Client, ACK, 0),
                (14_999 + 15 * SECOND, Server, ACK | PSH, 3),
                (15_000 + 15 * SECOND, Client, ACK, 0),
            ],
            vec![by_syn(Client, 0, "idle", [2, 0]), midstream(Server, 0, "stop", [1, 1])],
        ),
        story(
            "closed_and_silent_with_all_said",
            &[(0, Client, SYN, 0), (1, Server, RST, 0), (20 * SECOND, Server, ACK, 0)],
            vec![by_syn(Client, 0, "rst", [1, 1]), midstream(Server, 0, "stop", [1, 0])],
        ),
    ]
}
