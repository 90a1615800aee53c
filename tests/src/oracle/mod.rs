//! An independent second opinion on what the agent must print.
//!
//! It keeps every wire packet of every flow and recomputes each record from the list. It shares no
//! code with the agent: what is written here follows the design's text only.

mod community;
mod emission;
mod flow;
mod link;
pub mod parse;
mod tunnel;
mod window;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

pub use community::community_id;
pub use emission::{Rules, Speaker, Vector};
pub use flow::{DirectionBy, Flow, FlowId, SuperPacket, Totals, WirePacket, segments};
pub use window::{FLAGS, Value, Values, entropy, iat_bin, len_bin, window_features};

use self::parse::{Packet, Parsed, Ports, Reason, flag, parse};
use crate::frame::Frame;

/// For how long a first fragment speaks for the later ones.
const FRAGMENTS_VALID: Duration = Duration::from_secs(30);

/// When flows end.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// A packet after a gap of this or more starts a new flow.
    pub idle_timeout: Duration,
    /// A closed flow that is silent for so long is forgotten.
    pub linger: Duration,
    /// Packets are looked for inside of tunnels.
    pub decap: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(15), linger: Duration::from_secs(2), decap: false }
    }
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Counted in `flows[flow]` as so many wire packets.
    Accounted {
        /// Index into [`Oracle::flows`].
        flow: usize,
        /// Wire packets.
        packets: usize,
    },
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// Counted by reason.
    Malformed(Reason),
}

/// Packets by fate, in wire packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Everything shown to the oracle.
    pub seen: u64,
    /// In a flow.
    pub accounted: u64,
    /// Not IP.
    pub not_ip: u64,
    /// Malformed.
    pub malformed: u64,
    /// Malformed by reason.
    pub reasons: BTreeMap<Reason, u64>,
}

type End = (IpAddr, u16);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    vlan: [u16; 2],
    proto: u8,
    ends: [End; 2],
    one_way: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FragmentKey {
    vlan: [u16; 2],
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    id: u32,
}

/// What a first fragment said, and when.
#[derive(Debug, Clone, Copy)]
struct FirstFragment {
    time_ns: u64,
    proto: u8,
    ports: Option<(u16, u16)>,
    one_way: bool,
}

/// The flows of one interface.
#[derive(Debug, Default)]
pub struct Oracle {
    config: Config,
    flows: Vec<Flow>,
    current: HashMap<Key, usize>,
    fragments: HashMap<FragmentKey, FirstFragment>,
    counts: Counts,
}

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(config: Config) -> Self {
        Self { config, ..Self::default() }
    }

    /// An oracle with the agent's default times that has seen `frames`.
    pub fn over<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Self {
        let mut oracle = Self::default();
        for frame in frames {
            oracle.push(frame);
        }
        oracle
    }

    /// Every life of every flow, in order of first packets.
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// Packets by fate.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Forgets flows, as a sweep does: the next packet of their keys begins new ones.
    pub fn forget(&mut self, gone: &HashSet<usize>) {
        self.current.retain(|_, index| !gone.contains(index));
    }

    /// The flows that a packet may still join.
    pub fn current(&self) -> Vec<usize> {
        self.current.values().copied().collect()
    }

    /// Takes one frame into account.
    pub fn push(&mut self, frame: &Frame) -> Verdict {
        match parse(frame, self.config.decap) {
            Parsed::NotIp => {
                self.counts.seen += 1;
                self.counts.not_ip += 1;
                Verdict::NotIp
            }
            Parsed::Malformed(reason) => {
                self.counts.seen += 1;
                self.counts.malformed += 1;
                *self.counts.reasons.entry(reason).or_default() += 1;
                Verdict::Malformed(reason)
            }
            Parsed::Packet(packet) => {
                let (flow, packets) = self.account(&packet, frame.time_ns);
                self.counts.seen += packets as u64;
                self.counts.accounted += packets as u64;
                Verdict::Accounted { flow, packets }
            }
        }
    }

    fn account(&mut self, packet: &Packet, time_ns: u64) -> (usize, usize) {
        let (proto, sport, dport, one_way) = self.join_fragment(packet, time_ns);
        let (src, dst) = ((packet.src, sport.unwrap_or(0)), (packet.dst, dport.unwrap_or(0)));
        let ordered = one_way || src <= dst;
        let ends = if ordered { [src, dst] } else { [dst, src] };
        let key = Key { vlan: packet.vlan, proto, ends, one_way };

        let syn = packet.flags & (flag::SYN | flag::ACK);
        let before = self.current.get(&key).copied();
        let live = before.filter(|index| {
            let flow = &self.flows[*index];
            let gap = Duration::from_micros((time_ns / 1000).saturating_sub(flow.last_ns / 1000));
            let ended = gap >= self.config.idle_timeout
                || (flow.closed() && (syn == flag::SYN || gap >= self.config.linger));
            !ended
        });
        let index = live.unwrap_or_else(|| {
            let direction_by = match syn {
                _ if proto != 6 => DirectionBy::First,
                flag::SYN => DirectionBy::Syn,
                syn if syn & flag::SYN != 0 => DirectionBy::SynAck,
                _ => DirectionBy::First,
            };
            let tag = |vid: u16| (vid != 0).then_some(vid);
            let mut id = FlowId {
                proto,
                src: packet.src,
                sport,
                dst: packet.dst,
                dport,
                vlan: tag(packet.vlan[0]),
                vlan_inner: tag(packet.vlan[1]),
            };
            if direction_by == DirectionBy::SynAck {
                (id.src, id.sport, id.dst, id.dport) = (id.dst, id.dport, id.src, id.sport);
            }
            self.flows.push(Flow {
                id,
                one_way,
                direction_by,
                midstream: proto == 6 && syn & flag::SYN == 0,
                succeeds: before,
                packets: Vec::new(),
                super_packets: Vec::new(),
                last_ns: time_ns,
                fins: [false; 2],
                reset: false,
            });
            self.current.insert(key, self.flows.len() - 1);
            self.flows.len() - 1
        });

        let flow = &mut self.flows[index];
        flow.last_ns = flow.last_ns.max(time_ns);
        let bwd = (packet.src, sport) != (flow.id.src, flow.id.sport);
        let before = flow.packets.len();
        for (len, payload, flags) in
            segments(packet.len, packet.headers, packet.gso_size, packet.flags)
        {
            flow.packets.push(WirePacket {
                time_us: flow.last_ns / 1000,
                len,
                payload,
                flags,
                bwd,
                ttl: packet.ttl,
                tcp_window: packet.tcp_window,
            });
            flow.fins[usize::from(bwd)] |= flags & flag::FIN != 0;
            flow.reset |= flags & flag::RST != 0;
        }
        let count = flow.packets.len() - before;
        let kept = packet.gso_kept;
        if kept || count > 1 {
            flow.super_packets.push(SuperPacket { last: flow.packets.len(), kept });
        }
        (index, count)
    }

    /// The protocol and ports of a packet; a later fragment's are those of its first one.
    fn join_fragment(
        &mut self,
        packet: &Packet,
        time_ns: u64,
    ) -> (u8, Option<u16>, Option<u16>, bool) {
        let key = packet.fragment.map(|(id, proto)| FragmentKey {
            vlan: packet.vlan,
            src: packet.src,
            dst: packet.dst,
            // RFC 8200, 4.5: fragments of one packet may name different next headers.
            proto: if packet.src.is_ipv6() { 0 } else { proto },
            id,
        });
        let (ports, one_way) = match packet.ports {
            Ports::None => (None, false),
            Ports::Known { sport, dport, one_way } => (Some((sport, dport)), one_way),
            Ports::OfFirstFragment => {
                let known = key.and_then(|key| self.fragments.get(&key).copied());
                let valid = FRAGMENTS_VALID.as_nanos() as u64;
                return match known {
                    Some(FirstFragment { time_ns: since, proto, ports, one_way })
                        if time_ns.saturating_sub(since) < valid =>
                    {
                        (proto, ports.map(|p| p.0), ports.map(|p| p.1), one_way)
                    }
                    _ if !matches!(packet.proto, 1 | 6 | 17 | 58 | 132) => {
                        (packet.proto, None, None, false)
                    }
                    // Type 0 has an answer in ICMP and none in ICMPv6.
                    _ => (packet.proto, Some(0), Some(0), packet.proto == 58),
                };
            }
        };
        if let Some(key) = key {
            let first = FirstFragment { time_ns, proto: packet.proto, ports, one_way };
            self.fragments.insert(key, first);
        }
        (packet.proto, ports.map(|p| p.0), ports.map(|p| p.1), one_way)
    }
}
