//! Packets and bytes by who sent them to whom, as the agent and other programs count them.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::lines::{Line, lives};

/// Protocols whose ports make conversations, with the names that tshark and people give them.
pub const PORTED: [(u8, &str); 3] = [(6, "tcp"), (17, "udp"), (132, "sctp")];

/// One direction of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The protocol whose ports count; `None` for all that goes from one address to another.
    pub protocol: Option<u8>,
    /// The sender; port 0 if ports do not count.
    pub src: SocketAddr,
    /// The receiver.
    pub dst: SocketAddr,
    /// VLAN ids, the outermost first, 0 for none.
    pub vlans: [u16; 2],
}

/// How much went there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// IP packets.
    pub packets: u64,
    /// Bytes of IP packets, headers included.
    pub bytes: u64,
}

/// Every packet twice: from address to address, and if its protocol is one of [`PORTED`], from port to port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<Way, Sum>);

impl Totals {
    /// Adds packets of an IP protocol.
    pub fn add(&mut self, protocol: u8, [src, dst]: [(IpAddr, u16); 2], vlans: [u16; 2], sum: Sum) {
        let mut add = |protocol, ports: [u16; 2]| {
            let [src, dst] = [SocketAddr::new(src.0, ports[0]), SocketAddr::new(dst.0, ports[1])];
            let total = self.0.entry(Way { protocol, src, dst, vlans }).or_default();
            total.packets += sum.packets;
            total.bytes += sum.bytes;
        };
        if sum.packets == 0 {
            return;
        }
        add(None, [0, 0]);
        if PORTED.iter().any(|(ported, _)| *ported == protocol) {
            add(Some(protocol), [src.1, dst.1]);
        }
    }

    /// What the agent's lines say: the sum over the last line of each life of a flow.
    pub fn of_lines(lines: &[Line]) -> Self {
        let mut totals = Self::default();
        for life in lives(lines).unwrap_or_else(|faults| panic!("{}", faults.join("\n"))) {
            let line = life.last().expect("a life has a line");
            let flow = line.flow();
            let ends = [(flow.src, flow.sport), (flow.dst, flow.dport)];
            let [a, b] = ends.map(|(address, port)| (address, port.unwrap_or(0)));
            let vlans = [flow.vlan, flow.vlan_inner].map(|id| id.unwrap_or(0));
            for (side, ends) in [("fwd", [a, b]), ("bwd", [b, a])] {
                let count = |what: &str| line.int(&format!("{side}_{what}"));
                let sum = Sum { packets: count("packets"), bytes: count("bytes") };
                totals.add(flow.proto, ends, vlans, sum);
            }
        }
        totals
    }

    /// One direction of each conversation.
    pub fn ways(&self) -> impl Iterator<Item = (&Way, &Sum)> {
        self.0.iter()
    }

    /// All packets.
    pub fn packets(&self) -> u64 {
        self.0.iter().filter(|(way, _)| way.protocol.is_none()).map(|(_, sum)| sum.packets).sum()
    }

    /// A sentence for each way on which the two differ.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut ways: Vec<&Way> = self.0.keys().chain(other.0.keys()).collect();
        ways.sort();
        ways.dedup();
        let of = |totals: &Self, way| totals.0.get(way).copied().unwrap_or_default();
        ways.into_iter()
            .map(|way| (way, of(self, way), of(other, way)))
            .filter(|(_, mine, theirs)| mine != theirs)
            .map(|(way, mine, theirs)| format!("{way}: {mine}, not {theirs}"))
            .collect()
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, src, dst, vlans: [outer, inner] } = self;
        let named = PORTED.iter().find(|(number, _)| Some(*number) == *protocol);
        match named {
            Some((_, name)) => write!(f, "{name} {src} > {dst}")?,
            None => write!(f, "{} > {}", src.ip(), dst.ip())?,
        }
        match (outer, inner) {
            (0, 0) => Ok(()),
            (outer, 0) => write!(f, " in VLAN {outer}"),
            (outer, inner) => write!(f, " in VLAN {outer}.{inner}"),
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.packets, self.bytes)
    }
}
