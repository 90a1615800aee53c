//! A capture of everything that a packet can be: links of each kind, tunnels, offload, cuts, times that jump.
//!
//! What [`mixed_frames`] makes is the ground: conversations over VLANs and QinQ, fragments, extension headers,
//! SCTP, ICMP errors, ARP, LLC, padding, and malformed packets of every kind. Here they are put into tunnels, shown
//! as other links have them, cut by a snap length, and joined by what only hosts with offload see.

use std::net::IpAddr;

use crate::{
    craft::{self, IPV4, IPV6, Tcp},
    fixtures,
    frame::Frame,
    generate::mixed_frames,
    oracle::parse::flag::{ACK, FIN, PSH, SYN},
    pcap::{Interface, Recorded},
    random::Random,
    tunnels,
};

/// A capture, to be written by [`crate::pcap::pcapng_of`].
#[derive(Debug)]
pub struct Capture {
    /// Names and link types.
    pub interfaces: Vec<Interface>,
    /// In order, which is not always that of their times.
    pub packets: Vec<Recorded>,
}

/// Name, link type, and how much of what [`mixed_frames`] makes, in parts of a whole.
const INTERFACES: [(&str, u16, usize); 9] = [
    ("eth0", ETHERNET, 40),
    ("eth1", ETHERNET, 8),
    ("tunnels", ETHERNET, 30),
    ("tun0", 101, 8),
    ("any", 113, 6),
    ("any2", 276, 6),
    ("lo0", 0, 6),
    ("enc0", 108, 2),
    ("wlan0", 105, 1),
];

const ETHERNET: u16 = 1;
/// Where frames are wrapped into tunnels.
const TUNNELS: usize = 2;

/// How often each packet that has an answer by hand comes up.
const ROUNDS: usize = 12;

/// At least `count` packets, the same for the same seed.
pub fn capture(seed: u64, count: usize) -> Capture {
    let mut random = Random::new(seed);
    let parts: usize = INTERFACES.iter().map(|(_, _, part)| part).sum();
    let mut sources: Vec<Vec<Shown>> = Vec::new();
    for (interface, (_, link_type, part)) in (0..).zip(INTERFACES) {
        let frames = mixed_frames(seed + interface, count * part / parts);
        let shown = frames.into_iter().map(|frame| {
            let frame =
                if interface == TUNNELS as u64 { wrapped(&mut random, frame) } else { frame };
            as_link(&mut random, link_type, frame)
        });
        sources.push(shown.map(Shown::whole).collect());
    }
    for _ in 0..ROUNDS {
        let alone = fixtures::all().into_iter().flat_map(|fixture| fixture.frames);
        let alone = alone.filter(|(frame, _)| frame.gso_size == 0 && frame.vlan_tci.is_none());
        sources[0].extend(alone.map(|(Frame { data, wire_len, .. }, _)| Shown { data, wire_len }));
        let alone = tunnels::all().into_iter().filter(|case| case.frame.gso_size == 0);
        sources[TUNNELS].extend(alone.map(|case| Shown::whole(case.frame.data)));
    }
    sources[0].extend(offloaded(false));
    sources[TUNNELS].extend(offloaded(true));
    Capture {
        interfaces: INTERFACES.map(|(name, link_type, _)| (name, link_type)).into(),
        packets: merged(&mut random, sources),
    }
}

/// A packet without its time.
struct Shown {
    data: Vec<u8>,
    wire_len: usize,
}

impl Shown {
    fn whole(data: Vec<u8>) -> Self {
        Self { wire_len: data.len(), data }
    }

    fn cut(mut self, len: usize) -> Self {
        self.data.truncate(len);
        self
    }
}

/// One stream, at times that jump, stand still and run back; some packets are cut off.
fn merged(random: &mut Random, sources: Vec<Vec<Shown>>) -> Vec<Recorded> {
    let mut now_ns = 1_700_000_000_000_000_000_u64;
    let mut left: u64 = sources.iter().map(|source| source.len() as u64).sum();
    let mut sources: Vec<_> = sources.into_iter().map(Vec::into_iter).collect();
    let mut packets = Vec::new();
    while left > 0 {
        let mut pick = random.below(left);
        let found = sources.iter_mut().enumerate().find_map(|(interface, source)| {
            if pick < source.len() as u64 {
                return source.next().map(|shown| (interface, shown));
            }
            pick -= source.len() as u64;
            None
        });
        let (interface, mut shown) = found.expect("as many as are left");
        left -= 1;
        now_ns += match random.below(12_000) {
            0 => 16_000_000_000,
            1..=9 => 2_500_000_000,
            10..=90 => random.below(400_000_000),
            91..=4000 => 0,
            _ => random.below(200_000),
        };
        let back = if random.chance(1, 50) { random.below(3_000_000) } else { 0 };
        shown = match random.below(40) {
            // As tcpdump's -s has it.
            0..4 => shown.cut(96),
            4 => shown.cut(random.below(160) as usize),
            _ => shown,
        };
        let Shown { data, wire_len } = shown;
        packets.push(Recorded { time_ns: now_ns - back, interface, data, wire_len });
    }
    packets
}

/// An Ethernet frame as an interface of another link type shows it.
fn as_link(random: &mut Random, link_type: u16, frame: Vec<u8>) -> Vec<u8> {
    let (Some(ether_type), Some(rest)) = (frame.get(12..14), frame.get(14..)) else { return frame };
    match link_type {
        101 => rest.to_vec(),
        // To us, of an Ethernet device, whose address has 6 bytes.
        113 => [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0xbe, 1, 0, 0], ether_type, rest].concat(),
        276 => {
            let behind = [0, 0, 0, 0, 0, 7, 0, 1, 0, 6, 2, 0, 0, 0, 0xbe, 1, 0, 0];
            [ether_type, &behind, rest].concat()
        }
        0 | 108 => {
            let family = match (ether_type, random.below(4)) {
                ([0x08, 0x00], _) => 2,
                ([0x86, 0xdd], 0) => 10,
                ([0x86, 0xdd], 1) => 24,
                ([0x86, 0xdd], 2) => 28,
                ([0x86, 0xdd], _) => 30,
                // Of something else, one of whose bytes may be a 2.
                (_, 0) => 7,
                (_, 1) => 0x0200_0002,
                (_, 2) => 0x0000_0200,
                _ => random.bits() as u32,
            };
            let little = link_type == 0 && random.chance(1, 2);
            let family = if little { u32::to_le_bytes(family) } else { u32::to_be_bytes(family) };
            [&family, rest].concat()
        }
        _ => frame,
    }
}

/// A frame in a tunnel, or in one in another; sometimes in more than are looked through.
pub fn wrapped(random: &mut Random, frame: Vec<u8>) -> Vec<u8> {
    let mut frame = frame;
    for _ in 0..[1, 1, 1, 1, 2, 2, 3][random.below(7) as usize] {
        frame = in_tunnel(random, &frame);
    }
    frame
}

fn in_tunnel(random: &mut Random, frame: &[u8]) -> Vec<u8> {
    let options = random.below(5) as u8;
    let packet = match frame.get(12..14) {
        Some([0x08, 0x00]) => Some((IPV4, &frame[14..])),
        Some([0x86, 0xdd]) => Some((IPV6, &frame[14..])),
        _ => None,
    };
    // What is no bare IP packet goes whole.
    let Some((ether_type, packet)) = packet.filter(|_| random.chance(3, 4)) else {
        return match random.below(4) {
            0 => tunnels::vxlan(frame),
            1 => tunnels::vxlan_linux(frame),
            2 => tunnels::geneve(tunnels::BRIDGING, options, frame),
            _ => tunnels::gre([0x20, 0], 1, tunnels::BRIDGING, frame),
        };
    };
    let (proto, ppp) = if ether_type == IPV4 { (4, [0, 0x21]) } else { (41, [0, 0x57]) };
    match random.below(9) {
        0 => tunnels::geneve(ether_type, options, packet),
        1 => tunnels::gre([0, 0], 0, ether_type, packet),
        2 => tunnels::gre([0xb0, 0], 3, ether_type, packet),
        3 => tunnels::in_ip(proto, packet),
        4 => tunnels::in_ip6(proto, packet),
        5 => tunnels::gtp_u(0x30, 0xff, packet.len(), &[], packet),
        6 => {
            let more = [0, 0, 0, 0x85, 1, 0, 9, 0];
            tunnels::gtp_u(0x34, 0xff, packet.len() + more.len(), &more, packet)
        }
        7 => tunnels::pppoe(ppp, packet),
        _ => tunnels::mpls(random.between(1, 5) as usize, packet),
    }
}

/// TCP with offload on both sides, over IPv4 and IPv6, up to BIG TCP: super-packets, of which the SYNs tell the
/// segments; and connections without SYNs. Most are captured in part.
fn offloaded(in_vxlan: bool) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (round, port) in (2000..2060_u16).enumerate() {
        let v6 = round % 2 == 1;
        let known = round % 4 < 3;
        let ends = if v6 { ["fd09::1", "fd09::2"] } else { ["10.9.0.1", "10.9.0.2"] };
        let ends = ends.map(|end| end.parse().expect("an address"));
        let mut push = |from_client, flags, mss, payload: usize| {
            let frame = segment(ends, port, from_client, flags, mss, payload);
            let whole = if in_vxlan { tunnels::vxlan(&frame) } else { frame };
            let whole = Shown::whole(whole);
            shown.push(if payload.is_multiple_of(3) && payload > 3000 {
                whole
            } else {
                whole.cut(256)
            });
        };
        if known {
            push(true, SYN, Some(1460), 0);
            push(false, SYN | ACK, Some(1400 - port % 3), 0);
        }
        for size in [1, 1388, 1389, 5000, 9300, 20_000, 60_000] {
            push(true, ACK | PSH, None, size);
            push(false, ACK, None, size + usize::from(port));
        }
        push(true, ACK | FIN, None, 3000);
        if !in_vxlan {
            for size in [70_000, 180_000, 500_000] {
                shown.extend((0..3).map(|kind| big(ends, port, size, kind)));
            }
        }
    }
    shown
}

fn segment(
    [client, server]: [IpAddr; 2],
    port: u16,
    from_client: bool,
    flags: u8,
    mss: Option<u16>,
    payload: usize,
) -> Vec<u8> {
    let (src, dst) = if from_client { (client, server) } else { (server, client) };
    let (sport, dport) = if from_client { (port, 443) } else { (443, port) };
    let options = if mss.is_some() { 4 } else { 12 };
    let mut segment = Tcp { sport, dport, flags, window: 9, options }.segment(&vec![0; payload]);
    if let Some(mss) = mss {
        segment[20..22].copy_from_slice(&[2, 4]);
        segment[22..24].copy_from_slice(&mss.to_be_bytes());
    }
    let (ether_type, packet) = craft::ip(src, dst, 6, 64, &segment);
    craft::ethernet(&[], ether_type, &packet)
}

/// BIG TCP, its headers alone captured: with a length of 0, and of IPv6 every other with the option of a jumbogram.
fn big(ends: [IpAddr; 2], port: u16, payload: usize, kind: usize) -> Shown {
    let mut frame = segment(ends, port, kind != 1, ACK, None, 0);
    if ends[0].is_ipv4() {
        frame[16..18].fill(0);
    } else {
        frame[18..20].fill(0);
        if kind == 0 {
            let length = (frame.len() - 54 + 8 + payload) as u32;
            let next = std::mem::replace(&mut frame[20], 0);
            let option = [&[next, 0, 0xc2, 4][..], &length.to_be_bytes()].concat();
            frame.splice(54..54, option);
        }
    }
    Shown { wire_len: frame.len() + payload, data: frame }
}
