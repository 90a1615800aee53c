//! A flow as the full list of its wire packets, and what a record of it must say.

use std::net::IpAddr;

use super::{
    community::community_id,
    parse::flag,
    window::{FLAGS, Value, Values, window_features},
};

/// One wire packet of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WirePacket {
    /// Arrival in whole microseconds, never before the packet ahead of it.
    pub time_us: u64,
    /// IP length in bytes.
    pub len: u32,
    /// Bytes above L4.
    pub payload: u32,
    /// TCP flags as on the wire.
    pub flags: u8,
    /// True when it travels towards the initiator.
    pub bwd: bool,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The TCP window field, for packets with a TCP header.
    pub tcp_window: Option<u16>,
}

/// How many of `packets` carry TCP flag `bit` (0 is FIN).
pub(super) fn flag_count(packets: &[WirePacket], bit: usize) -> u128 {
    packets.iter().filter(|p| p.flags >> bit & 1 == 1).count() as u128
}

/// Names a flow as its lines do, initiator first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// L4 protocol number.
    pub proto: u8,
    /// The initiator's address.
    pub src: IpAddr,
    /// The initiator's port, absent for protocols without ports.
    pub sport: Option<u16>,
    /// The other end's address.
    pub dst: IpAddr,
    /// The other end's port.
    pub dport: Option<u16>,
    /// Outermost VLAN id.
    pub vlan: Option<u16>,
    /// Second VLAN id.
    pub vlan_inner: Option<u16>,
}

/// Which rule named the initiator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectionBy {
    /// The first packet was a SYN; its sender is the initiator.
    Syn,
    /// The first packet was a SYN-ACK; its receiver is the initiator.
    SynAck,
    /// The sender of the first packet seen.
    First,
}

impl DirectionBy {
    /// The word in the line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::SynAck => "synack",
            Self::First => "first",
        }
    }
}

/// Several wire packets at once, or one of which it is not known how many it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuperPacket {
    /// Packets of the flow, up to its last.
    pub last: usize,
    /// Whether it counts as one.
    pub kept: bool,
}

/// One life of a flow.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Its name.
    pub id: FlowId,
    /// Both directions of this protocol and type are flows of their own.
    pub one_way: bool,
    /// Who decided the direction.
    pub direction_by: DirectionBy,
    /// A TCP flow first seen without its SYN.
    pub midstream: bool,
    /// The life of the same key that the first packet ended, if one was still there.
    pub succeeds: Option<usize>,
    /// Every wire packet in order of arrival.
    pub packets: Vec<WirePacket>,
    /// Those that came as one, in order of arrival.
    pub super_packets: Vec<SuperPacket>,
    pub(super) last_ns: u64,
    pub(super) fins: [bool; 2],
    pub(super) reset: bool,
}

impl Flow {
    /// Both sides sent FIN, or one sent RST.
    pub fn closed(&self) -> bool {
        self.reset || self.fins == [true, true]
    }

    /// Why it is closed, if it is: `rst` or `fin`.
    pub fn close_reason(&self) -> Option<&'static str> {
        let by_fins = self.fins == [true, true];
        if self.reset { Some("rst") } else { by_fins.then_some("fin") }
    }

    /// The time of its last packet, in whole microseconds.
    pub fn last_us(&self) -> u64 {
        self.last_ns / 1000
    }

    /// The Community ID, version 1, seed 0.
    pub fn community_id(&self) -> String {
        let FlowId { proto, src, sport, dst, dport, vlan: _, vlan_inner: _ } = self.id;
        community_id(proto, src, dst, sport.zip(dport), self.one_way)
    }

    /// The window features after `k` packets with a window of `n`: packets k-n+1 to k.
    pub fn window_after(&self, k: usize, n: usize) -> Values {
        window_features(&self.packets[k.saturating_sub(n)..k])
    }

    /// Super-packets among the first `k` packets: those counted as their wire packets, and those kept as one.
    pub fn super_packets_after(&self, k: usize) -> [u64; 2] {
        let among = self.super_packets.iter().filter(|it| it.last <= k);
        let kept = among.clone().filter(|it| it.kept).count();
        [among.count() - kept, kept].map(|count| count as u64)
    }

    /// The totals after `k` packets, counted from nothing.
    pub fn totals_after(&self, k: usize) -> Values {
        let mut totals = Totals::default();
        totals.add(&self.packets[..k]);
        totals.values()
    }
}

/// Running totals, so that a long flow's many records need one pass.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    packets: usize,
    first_us: u64,
    last_us: u64,
    sides: [Side; 2],
}

#[derive(Debug, Clone, Default)]
struct Side {
    packets: u128,
    bytes: u128,
    payload: u128,
    flags: [u128; 8],
    ttl: Option<(u8, u8)>,
    init_window: Option<u16>,
}

impl Totals {
    /// Packets counted so far.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Counts further packets, in order of arrival.
    pub fn add(&mut self, packets: &[WirePacket]) {
        for packet in packets {
            if self.packets == 0 {
                self.first_us = packet.time_us;
            }
            self.packets += 1;
            self.last_us = packet.time_us;
            let side = &mut self.sides[usize::from(packet.bwd)];
            if side.packets == 0 {
                side.init_window = packet.tcp_window;
            }
            side.packets += 1;
            side.bytes += u128::from(packet.len);
            side.payload += u128::from(packet.payload);
            for (bit, count) in side.flags.iter_mut().enumerate() {
                *count += u128::from(packet.flags >> bit & 1);
            }
            let (low, high) = side.ttl.unwrap_or((packet.ttl, packet.ttl));
            side.ttl = Some((low.min(packet.ttl), high.max(packet.ttl)));
        }
    }

    /// The named totals in the order of the schema.
    pub fn values(&self) -> Values {
        let mut out =
            vec![("flow_duration_us".into(), Value::Int((self.last_us - self.first_us).into()))];
        for (side, name) in self.sides.iter().zip(["fwd", "bwd"]) {
            let mut put = |field: &str, value| out.push((format!("{name}_{field}"), value));
            put("packets", Value::Int(side.packets));
            put("bytes", Value::Int(side.bytes));
            put("payload_bytes", Value::Int(side.payload));
            for (flag, count) in FLAGS.iter().zip(side.flags) {
                put(flag, Value::Int(count));
            }
            let or_null = |value: Option<u128>| value.map_or(Value::Null, Value::Int);
            put("ttl_min", or_null(side.ttl.map(|(low, _)| low.into())));
            put("ttl_max", or_null(side.ttl.map(|(_, high)| high.into())));
            put("init_window", or_null(side.init_window.map(u128::from)));
        }
        out
    }
}

/// The segments of one IP packet or super-packet: (length, payload, flags) of each.
///
/// FIN and PSH belong to the last segment, CWR to the first, every other flag to all.
pub fn segments(
    len: usize,
    headers: usize,
    gso_size: usize,
    flags: u8,
) -> impl Iterator<Item = (u32, u32, u8)> {
    let payload = len - headers;
    let count = if gso_size == 0 { 1 } else { payload.div_ceil(gso_size).max(1) };
    (0..count).map(move |i| {
        let part = if count == 1 { payload } else { gso_size.min(payload - i * gso_size) };
        let mut flags = flags;
        if i + 1 < count {
            flags &= !(flag::FIN | flag::PSH);
        }
        if i > 0 {
            flags &= !flag::CWR;
        }
        ((headers + part) as u32, part as u32, flags)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_those_of_the_wire() {
        let all = flag::ACK | flag::FIN | flag::PSH | flag::CWR | flag::URG;
        let got: Vec<_> = segments(52 + 2500, 52, 1000, all).collect();
        assert_eq!(
            got,
            [
                (1052, 1000, flag::ACK | flag::CWR | flag::URG),
                (1052, 1000, flag::ACK | flag::URG),
                (552, 500, flag::ACK | flag::URG | flag::FIN | flag::PSH),
            ]
        );
        assert_eq!(segments(52 + 2000, 52, 1000, 0).count(), 2);
        assert_eq!(segments(52, 52, 1000, all).collect::<Vec<_>>(), [(52, 0, all)]);
        assert_eq!(segments(60, 40, 0, all).collect::<Vec<_>>(), [(60, 20, all)]);
    }
}
