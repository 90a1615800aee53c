//! Mixed frames of every kind the agent must tell apart, the same for the same seed.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    craft::{self, ARP, C_TAG, IPV4, IPV6, S_TAG, Tcp, V4},
    oracle::parse::flag::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG},
    random::Random,
};

/// One conversation still to be sent, frames in order.
type Script = VecDeque<Vec<u8>>;

/// How many conversations go on at the same time, at most.
const AT_ONCE: usize = 600;

/// The longest IP packet generated, bytes.
pub const MTU: usize = 1500;

/// The MTU a cable needs for the generated frames: two tags of 4 bytes more.
pub const CABLE_MTU: u32 = 1508;

/// At least `count` frames of interleaved conversations, whole ones only.
///
/// No frame is longer than a cable with [`CABLE_MTU`] takes, nor shorter than an Ethernet header.
/// Flow keys are not reused except where a conversation does so itself.
pub fn mixed_frames(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut maker = Maker { random: Random::new(seed), made: 0 };
    let mut frames = Vec::with_capacity(count + 1000);
    let mut open: Vec<Script> = Vec::new();
    let at_once = AT_ONCE.min(count / 100 + 1);
    loop {
        while frames.len() < count && open.len() < at_once {
            open.push(maker.conversation());
        }
        if open.is_empty() {
            return frames;
        }
        let pick = maker.random.below(open.len() as u64) as usize;
        match open[pick].pop_front() {
            Some(frame) => frames.push(frame),
            None => drop(open.swap_remove(pick)),
        }
    }
}

/// [`mixed_frames`] with their times in ns, which jump, stand still and run back.
pub fn timed_frames(seed: u64, count: usize) -> Vec<(u64, Vec<u8>)> {
    let mut random = Random::new(seed);
    let mut now_ns = 1_700_000_000_000_000_000_u64;
    let mut packets = Vec::new();
    for frame in mixed_frames(seed, count) {
        now_ns += match random.below(1000) {
            0 => 16_000_000_000,
            1..=3 => 2_500_000_000,
            4..=30 => random.below(400_000_000),
            31..=400 => 0,
            _ => random.below(200_000),
        };
        let back = if random.chance(1, 50) { random.below(3_000_000) } else { 0 };
        packets.push((now_ns - back, frame));
    }
    packets
}

struct Maker {
    random: Random,
    made: u32,
}

/// The two ends of a conversation and the tags around it.
struct Ends {
    client: IpAddr,
    server: IpAddr,
    sport: u16,
    dport: u16,
    tags: Vec<(u16, u16)>,
    ttl: [u8; 2],
}

impl Ends {
    fn frame(&self, from_client: bool, proto: u8, l4: &[u8]) -> Vec<u8> {
        let (src, dst, ttl) = if from_client {
            (self.client, self.server, self.ttl[0])
        } else {
            (self.server, self.client, self.ttl[1])
        };
        let (ethertype, packet) = craft::ip(src, dst, proto, ttl, l4);
        craft::ethernet(&self.tags, ethertype, &packet)
    }

    fn ports(&self, from_client: bool) -> (u16, u16) {
        if from_client { (self.sport, self.dport) } else { (self.dport, self.sport) }
    }
}

impl Maker {
    fn ends(&mut self) -> Ends {
        self.made += 1;
        let n = self.made;
        let r = &mut self.random;
        let (client, server) = if r.chance(1, 3) {
            let low = [0xfd00, 0, 0, 0, 0, 0, (n >> 16) as u16, n as u16];
            let high = [0xfdff, 0, 0, 0, 0, 0, 0, r.between(1, 50) as u16];
            (IpAddr::V6(low.into()), IpAddr::V6(high.into()))
        } else {
            let client = Ipv4Addr::from(0x0a00_0000 + n);
            (IpAddr::V4(client), IpAddr::V4(Ipv4Addr::new(192, 0, 2, r.between(1, 50) as u8)))
        };
        let vid = |r: &mut Random| (r.below(16) << 12 | r.between(1, 4094)) as u16;
        let tags = match r.below(10) {
            0 => vec![(C_TAG, vid(r))],
            1 => vec![(S_TAG, vid(r)), (C_TAG, vid(r))],
            2 => vec![(C_TAG, 0x6000)],
            _ => Vec::new(),
        };
        let ends = Ends {
            client,
            server,
            sport: r.between(1024, 65535) as u16,
            dport: r.between(1, 65535) as u16,
            tags,
            ttl: [r.between(1, 255) as u8, r.between(1, 255) as u8],
        };
        // Either end may have the smaller address.
        if r.chance(1, 2) {
            return Ends { client: ends.server, server: ends.client, ..ends };
        }
        ends
    }

    fn conversation(&mut self) -> Script {
        match self.random.below(100) {
            0..40 => self.tcp(),
            40..60 => self.udp(),
            60..70 => self.icmp(),
            70..75 => self.fragments(),
            75..80 => self.extensions(),
            80..84 => self.other_protocols(),
            84..87 => self.syn_scan(),
            87..91 => VecDeque::from([self.not_ip()]),
            _ => VecDeque::from([self.malformed()]),
        }
    }

    fn payload(&mut self, most: u64) -> Vec<u8> {
        let len = match self.random.below(4) {
            0 => self.random.below(64.min(most) + 1),
            1 => most,
            _ => self.random.below(most + 1),
        };
        vec![0x5a; len as usize]
    }

    fn tcp(&mut self) -> Script {
        let ends = self.ends();
        let mut out = Script::new();
        let lives = if self.random.chance(1, 8) { 2 } else { 1 };
        // A second life needs a SYN, or it would be the first one's tail.
        let mut start = self.random.below(10);
        for _ in 0..lives {
            self.tcp_life(&ends, start, &mut out);
            start = 9;
        }
        out
    }

    /// `start` 0: seen from the SYN-ACK on; 1: the SYN-ACK is missing; 2: seen from the middle on.
    fn tcp_life(&mut self, ends: &Ends, start: u64, out: &mut Script) {
        let options = self.random.below(6) as usize * 4;
        let mut put = |this: &mut Self, from_client: bool, flags, payload: &[u8]| {
            let (sport, dport) = ends.ports(from_client);
            let window = this.random.below(65536) as u16;
            let segment = Tcp { sport, dport, flags, window, options }.segment(payload);
            out.push_back(ends.frame(from_client, 6, &segment));
        };
        if start != 0 && start != 2 {
            let extra = self.random_bit(ECE | CWR);
            put(self, true, SYN | extra, &[]);
        }
        if start != 1 && start != 2 {
            let extra = self.random_bit(ECE);
            put(self, false, SYN | ACK | extra, &[]);
        }
        put(self, true, ACK, &[]);
        let packets = match self.random.below(10) {
            0 => self.random.between(100, 400),
            1..4 => self.random.between(20, 100),
            _ => self.random.between(1, 20),
        };
        for _ in 0..packets {
            let from_client = self.random.chance(2, 5);
            let extra =
                self.random_bit(PSH) | self.random_bit(URG | ECE) & self.random_bit(CWR | URG);
            let payload = self.payload((MTU - 40 - 20 - options) as u64);
            put(self, from_client, ACK | extra, &payload);
        }
        match self.random.below(4) {
            0 => put(self, true, RST | ACK, &[]),
            1 => put(self, false, RST, &[]),
            _ => {
                put(self, true, FIN | ACK, &[]);
                put(self, false, FIN | ACK | PSH, b"bye");
                put(self, true, ACK, &[]);
            }
        }
    }

    fn random_bit(&mut self, bits: u8) -> u8 {
        if self.random.chance(1, 3) { bits } else { 0 }
    }

    fn syn_scan(&mut self) -> Script {
        let ends = self.ends();
        let port = ends.dport;
        (0..self.random.between(5, 40))
            .map(|i| {
                let dport = port.wrapping_add(i as u16);
                let tcp = Tcp { sport: ends.sport, dport, flags: SYN, window: 1024, options: 4 };
                ends.frame(true, 6, &tcp.segment(&[]))
            })
            .collect()
    }

    fn udp(&mut self) -> Script {
        let ends = self.ends();
        let most = (MTU - 48) as u64;
        let limit = if self.random.chance(1, 2) { 64 } else { most };
        (0..self.random.between(1, 120))
            .map(|_| {
                let from_client = self.random.chance(1, 2);
                let (sport, dport) = ends.ports(from_client);
                let payload = self.payload(limit);
                let l4 = match self.random.below(12) {
                    0 => craft::udp_claiming(sport, dport, 0, &payload),
                    1 => craft::udp_claiming(sport, dport, 8, &payload),
                    _ => craft::udp(sport, dport, &payload),
                };
                let mut frame = ends.frame(from_client, 17, &l4);
                // Ethernet padding is no part of the packet.
                frame.resize(frame.len().max(60), 0);
                frame
            })
            .collect()
    }

    fn icmp(&mut self) -> Script {
        let ends = self.ends();
        let v6 = ends.client.is_ipv6();
        let proto = if v6 { 58 } else { 1 };
        let pairs: &[(u8, u8)] =
            if v6 { &[(128, 129), (133, 134), (135, 136)] } else { &[(8, 0), (13, 14), (17, 18)] };
        let one_way: &[u8] = if v6 { &[1, 2, 3, 4] } else { &[3, 5, 11, 12] };
        let mut out = Script::new();
        if self.random.chance(1, 3) {
            let kind = one_way[self.random.below(4) as usize];
            for _ in 0..self.random.between(1, 10) {
                let (code, from_client) = (self.random.below(4) as u8, self.random.chance(1, 2));
                let quoted = self.payload(548);
                out.push_back(ends.frame(from_client, proto, &craft::icmp(kind, code, &quoted)));
            }
        } else {
            let (ask, answer) = pairs[self.random.below(3) as usize];
            for _ in 0..self.random.between(1, 20) {
                let payload = self.payload(1400);
                if self.random.chance(9, 10) {
                    out.push_back(ends.frame(true, proto, &craft::icmp(ask, 0, &payload)));
                }
                out.push_back(ends.frame(false, proto, &craft::icmp(answer, 0, &payload)));
            }
        }
        out
    }

    fn fragments(&mut self) -> Script {
        let ends = self.ends();
        let mut out = Script::new();
        for round in 0..self.random.between(1, 6) {
            let from_client = self.random.chance(1, 2);
            let (sport, dport) = ends.ports(from_client);
            let size = self.random.between(2000, 8000) as usize;
            let datagram = craft::udp(sport, dport, &vec![7; size]);
            let parts: Vec<&[u8]> = datagram.chunks(1400 / 8 * 8).collect();
            let last = parts.len() - 1;
            let (src, dst) =
                if from_client { (ends.client, ends.server) } else { (ends.server, ends.client) };
            for (i, part) in parts.iter().enumerate() {
                let (offset, more) = ((i * 1400 / 8) as u16, i < last);
                let (ethertype, packet) = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        let id = round as u16;
                        (IPV4, V4 { id, offset, more, ..V4::new(src, dst, 17) }.packet(part))
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        let body = craft::fragment(17, offset, more, round as u32, part);
                        (IPV6, craft::ipv6(src, dst, 44, 64, &body))
                    }
                    _ => unreachable!("both ends are of one version"),
                };
                out.push_back(craft::ethernet(&ends.tags, ethertype, &packet));
            }
        }
        // Now and then the first fragment was lost.
        if self.random.chance(1, 5) {
            out.pop_front();
        }
        out
    }

    fn extensions(&mut self) -> Script {
        let ends = self.ends();
        let src = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, (self.made >> 16) as u16, self.made as u16);
        let dst = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
        (0..self.random.between(1, 30))
            .map(|_| {
                let payload = self.payload(600);
                let mut body = craft::udp(ends.sport, ends.dport, &payload);
                let mut next = 17;
                for _ in 0..self.random.below(8) {
                    let words = self.random.below(3) as u8;
                    (body, next) = match self.random.below(4) {
                        0 => (craft::extension(next, words, &body), 60),
                        1 => (craft::extension(next, words, &body), 43),
                        // An atomic fragment is an ordinary packet.
                        2 => (craft::fragment(next, 0, false, 9, &body), 44),
                        _ => (craft::authentication(next, words * 2, &body), 51),
                    };
                }
                if self.random.chance(1, 3) {
                    (body, next) = (craft::extension(next, 0, &body), 0);
                }
                craft::ethernet(&ends.tags, IPV6, &craft::ipv6(src, dst, next, 64, &body))
            })
            .collect()
    }

    fn other_protocols(&mut self) -> Script {
        let ends = self.ends();
        let proto =
            [2, 4, 33, 41, 47, 50, 59, 89, 103, 112, 132, 136][self.random.below(12) as usize];
        (0..self.random.between(1, 40))
            .map(|_| {
                let from_client = self.random.chance(1, 2);
                let (sport, dport) = ends.ports(from_client);
                let payload = self.payload(1300);
                let l4 = if proto == 132 { craft::sctp(sport, dport, &payload) } else { payload };
                let (src, dst) = if from_client {
                    (ends.client, ends.server)
                } else {
                    (ends.server, ends.client)
                };
                let (ethertype, packet) = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) if self.random.chance(1, 2) => {
                        let options = vec![1; self.random.below(11) as usize * 4];
                        (IPV4, V4 { options, ..V4::new(src, dst, proto) }.packet(&l4))
                    }
                    _ => craft::ip(src, dst, proto, 64, &l4),
                };
                craft::ethernet(&ends.tags, ethertype, &packet)
            })
            .collect()
    }

    fn not_ip(&mut self) -> Vec<u8> {
        let body = self.payload(200);
        match self.random.below(5) {
            0 => craft::ethernet(&[], ARP, &[0; 28]),
            1 => craft::ethernet(&[(C_TAG, 5)], ARP, &[0; 28]),
            // 802.3 with LLC: the type field is a length.
            2 => craft::ethernet(&[], body.len() as u16, &body),
            3 => craft::ethernet(&[], 0x88cc, &body),
            _ => craft::ethernet(&[], 0x8847, &body),
        }
    }

    fn malformed(&mut self) -> Vec<u8> {
        let kinds = malformed_packets();
        let pick = self.random.below(kinds.len() as u64) as usize;
        kinds.into_iter().nth(pick).expect("below the length").1
    }
}

/// One frame of every kind of malformed packet that a cable carries: (name of the reason, frame).
pub fn malformed_packets() -> Vec<(&'static str, Vec<u8>)> {
    let (a, b) = (Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 2));
    let a6 = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 1);
    let b6 = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0, 2);
    let v4 = |proto| V4::new(a, b, proto);
    let eth4 = |packet: &[u8]| craft::ethernet(&[], IPV4, packet);
    let eth6 = |packet: &[u8]| craft::ethernet(&[], IPV6, packet);
    let datagram = craft::udp(1, 2, b"12345678");
    let tcp = Tcp { sport: 1, dport: 2, flags: ACK, window: 1, options: 0 };
    let edit = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[at] = value;
        packet
    };
    let chain = |count: u8| {
        let mut body = craft::udp(1, 2, b"x");
        let mut next = 17;
        for _ in 0..count {
            (body, next) = (craft::extension(next, 0, &body), 60);
        }
        craft::ipv6(a6, b6, next, 64, &body)
    };
    let tagged = craft::ethernet(&[(S_TAG, 7), (C_TAG, 8)], IPV4, &v4(17).packet(&datagram));
    vec![
        // The first tag is taken by the kernel on ingress, the second one is cut.
        ("truncated_link", tagged[..20].to_vec()),
        (
            "vlan_depth",
            craft::ethernet(&[(S_TAG, 7), (C_TAG, 8), (C_TAG, 9)], IPV4, &v4(17).packet(&datagram)),
        ),
        ("truncated_ip", eth4(&v4(17).packet(&datagram)[..19])),
        ("truncated_ip", eth6(&craft::ipv6(a6, b6, 17, 64, &datagram)[..39])),
        ("bad_ip_version", eth4(&edit(v4(17).packet(&datagram), 0, 0x65))),
        ("bad_ip_version", eth6(&edit(craft::ipv6(a6, b6, 17, 64, &datagram), 0, 0x40))),
        ("bad_ip_header", eth4(&edit(v4(17).packet(&datagram), 0, 0x44))),
        ("bad_ip_header", eth4(&V4 { claim: Some(19), ..v4(17) }.packet(&datagram))),
        ("bad_ip_header", eth4(&edit(v4(17).packet(&datagram), 0, 0x4f))),
        ("bad_ip_length", eth4(&V4 { claim: Some(37), ..v4(17) }.packet(&datagram))),
        ("bad_ip_length", eth6(&edit(craft::ipv6(a6, b6, 17, 64, &datagram), 5, 17))),
        ("ext_chain", eth6(&chain(9))),
        ("truncated_ip", eth6(&craft::ipv6(a6, b6, 60, 64, &[17, 0, 0, 0, 0, 0, 0]))),
        ("truncated_ip", eth6(&craft::ipv6(a6, b6, 60, 64, &craft::extension(17, 0, &[])[..4]))),
        ("truncated_l4", eth4(&v4(6).packet(&tcp.segment(&[])[..19]))),
        ("truncated_l4", eth4(&v4(17).packet(&datagram[..7]))),
        ("truncated_l4", eth4(&v4(132).packet(&craft::sctp(1, 2, &[])[..11]))),
        ("truncated_l4", eth4(&v4(1).packet(&[8, 0, 0, 0, 0, 0, 0]))),
        ("truncated_l4", eth6(&craft::ipv6(a6, b6, 58, 64, &[128, 0, 0, 0, 0, 0, 0]))),
        ("bad_l4", eth4(&v4(6).packet(&edit(tcp.segment(b"data"), 12, 0x40)))),
        ("bad_l4", eth4(&v4(6).packet(&edit(tcp.segment(b"data"), 12, 0x70)))),
        ("bad_l4", eth4(&v4(17).packet(&craft::udp_claiming(1, 2, 7, b"12345678")))),
        ("bad_l4", eth4(&v4(17).packet(&craft::udp_claiming(1, 2, 17, b"12345678")))),
    ]
}
