//! `--filter` and tcpdump: the same expression selects the same packets.
//!
//! The two differ on purpose where tcpdump's programs look at fixed places in a frame: behind VLAN tags, IPv6
//! extension headers, and in later fragments. Behind tags they agree once tcpdump is told of them (`vlan and …`);
//! fragments and extension headers are left out, and so is what reaches no filter, because it is in no flow.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use agent_common::{
    filter::{Facts, Program},
    parse,
};
use feature_agent::filter;
use feature_agent_tests::{
    agent::replay,
    craft::{self, C_TAG, IPV4, IPV6, S_TAG, Tcp},
    frame::{Frame, Link},
    generate::timed_frames,
    oracle::parse::{Packet, Parsed, Ports},
    pcap::{self, Temporary},
    sys::is_there_or_say,
    tcpdump,
};

/// Expressions that select some of the crafted packets, and leave some out.
const EXPRESSIONS: [&str; 77] = [
    // Protocols.
    "ip",
    "ip6",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "igmp",
    "ah",
    "esp",
    "pim",
    "vrrp",
    "proto 47",
    "proto \\tcp",
    "ip proto 17",
    "ip proto \\udp",
    "ip6 proto 6",
    "ip6 proto 47 or 58",
    "proto 6 or 132",
    // Hosts.
    "host 10.0.0.1",
    "src host 10.0.0.1",
    "dst host 10.0.0.1",
    "src or dst host 192.168.1.255",
    "src and dst host 10.0.0.1",
    "ip host 172.16.0.9",
    "host 10.0.0.1 or 172.16.0.9",
    "host 10.0.0.1 and not 172.16.0.9",
    "host 2001:db8::1",
    "src host fe80::1",
    "ip6 dst host 2001:db8:0:1::1",
    "not host 10.0.0.1",
    // Networks.
    "net 10.0.0.0/8",
    "net 10",
    "net 10.0",
    "src net 10.0.0.0/31",
    "dst net 192.168.1.0 mask 255.255.255.0",
    "net 192.168.1.254/31",
    "net 128.0.0.0/1",
    "net 0.0.0.0/0",
    "net 2001:db8::/32",
    "src net 2001:db8::/64",
    "dst net fe80::/10",
    "net 2001:db8:0:1::/64 or 172.16.0.0/12",
    "src net 10 and dst net 192.168.1",
    "not net 10.0.0.0/8",
    // Ports.
    "port 53",
    "src port 53",
    "dst port 53",
    "src and dst port 443",
    "tcp port 443",
    "udp port 53",
    "sctp port 80",
    "tcp dst port 80",
    "port 0x35",
    "port 80 or 443",
    "port (80 or 443) and not 53",
    "portrange 54-442",
    "portrange 0-53",
    "portrange 443-80",
    "udp portrange 80-443",
    "tcp src portrange 1024-65535",
    "dst portrange 65535",
    "not port 53",
    "port 0",
    // All of it.
    "tcp port 443 and net 10.0.0.0/8",
    "tcp or udp and port 53",
    "udp and port 53 or tcp",
    "not (tcp or udp)",
    "not tcp and not udp",
    "! tcp && udp || icmp",
    "ip and not host 10.0.0.1 and portrange 1-1023",
    "ip6 and tcp and not port 443",
    "port 53 and (src net 10 or dst net fe80::/10)",
    "tcp and (src port 80 or dst port 443) and host 192.168.1.255",
    "(net 10 or ip6) and (udp portrange 53-80 or sctp)",
    "not (port 80 or net 172.16.0.0/12) and tcp",
    "host 10.0.0.1 and tcp and src portrange 400-500",
];

/// Packets of which each may be told by its time, behind so many tags each.
struct Group {
    tags: usize,
    packets: Vec<(u64, Vec<u8>)>,
    file: Temporary,
}

impl Group {
    /// What tcpdump has to be asked for to have the expression asked of these packets.
    fn asked(&self, expression: &str) -> String {
        let tags = "vlan and ".repeat(self.tags);
        format!("{tags}({expression})")
    }

    /// The packets that a filter passes.
    fn passed(&self, program: &Program) -> BTreeSet<u64> {
        let passes = |data: &[u8]| {
            let frame = parse::Frame {
                link: parse::Link::Ethernet,
                ifindex: 1,
                wire_len: data.len() as u32,
                gso_size: 0,
                vlan_tci: 0,
            };
            let (headers, _) = parse::parse(data, &frame, false).expect("an ordinary packet");
            program.matches(&Facts::of(&headers))
        };
        let passed = self.packets.iter().filter(|(_, data)| passes(data));
        passed.map(|(time_ns, _)| *time_ns).collect()
    }
}

/// How many tags are in front of a packet in which tcpdump sees all that the agent sees; `None` if it may not.
fn is_ordinary(data: &[u8]) -> Option<usize> {
    let frame = Frame::ethernet(0, data.to_vec());
    let Parsed::Packet(Packet { ports, proto, .. }) =
        feature_agent_tests::oracle::parse::parse(&frame, false)
    else {
        return None;
    };
    let ethertype = |at: usize| u16::from_be_bytes([data[at], data[at + 1]]);
    let tags = (0..=2).take_while(|tag| ![IPV4, IPV6].contains(&ethertype(12 + 4 * tag))).count();
    let ip = 14 + 4 * tags;
    let has_extensions = data[ip] >> 4 == 6 && data[ip + 6] != proto;
    (!has_extensions && ports != Ports::OfFirstFragment).then_some(tags)
}

/// Sorts packets into groups; what is left out is counted.
fn groups(name: &str, frames: impl IntoIterator<Item = Vec<u8>>) -> (Vec<Group>, usize) {
    let mut sorted = [const { Vec::new() }; 3];
    let mut left_out = 0;
    for (index, data) in (0_u64..).zip(frames) {
        match is_ordinary(&data) {
            Some(tags) => sorted[tags].push((1_700_000_000_000_000_000 + index * 1000, data)),
            None => left_out += 1,
        }
    }
    let groups = sorted.into_iter().enumerate().map(|(tags, packets)| {
        let file = Temporary::new(&format!("{name}-{tags}"), &pcap::file_of(&packets));
        Group { tags, packets, file }
    });
    (groups.collect(), left_out)
}

/// Ethernet frames of each protocol between few hosts, and from and to ports on both sides of the expressions'.
fn crafted() -> Vec<Vec<u8>> {
    let v4 = [[10, 0, 0, 1], [10, 0, 0, 2], [172, 16, 0, 9], [192, 168, 1, 255]];
    let v6 = [
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    ];
    let hosts = [v4.map(|a| IpAddr::V4(Ipv4Addr::from(a))).to_vec(), v6.map(IpAddr::V6).to_vec()];
    let ports = [0, 53, 54, 80, 442, 443, 1024, 65_535];
    let mut segments: Vec<(u8, Vec<u8>)> = Vec::new();
    for (sport, dport) in pairs(&ports) {
        segments.push((6, Tcp { sport, dport, flags: 16, window: 1, options: 0 }.segment(&[])));
        segments.push((17, craft::udp(sport, dport, &[])));
        segments.push((132, craft::sctp(sport, dport, &[])));
    }
    for protocol in [1, 2, 47, 50, 58, 89, 103, 112] {
        // What might be taken for ports.
        segments.push((protocol, [0, 53, 1, 187, 0, 80, 0, 0].to_vec()));
    }
    let mut frames = Vec::new();
    for (src, dst) in hosts.iter().flat_map(|hosts| pairs(hosts)) {
        for (index, (protocol, segment)) in segments.iter().enumerate() {
            let (ethertype, packet) = craft::ip(src, dst, *protocol, 64, segment);
            let tags = [(S_TAG, 7), (C_TAG, 42)];
            // Tags before some.
            let tags = [&tags[..0], &tags[..0], &tags[1..], &tags[..]][index % 4];
            frames.push(craft::ethernet(tags, ethertype, &packet));
        }
        if src.is_ipv4() {
            let (ethertype, packet) = craft::ip(src, dst, 51, 64, &[0; 24]);
            frames.push(craft::ethernet(&[], ethertype, &packet));
        }
    }
    frames
}

fn pairs<T: Copy>(of: &[T]) -> Vec<(T, T)> {
    of.iter().flat_map(|a| of.iter().map(|b| (*a, *b))).collect()
}

/// Compares, packet by packet; returns how many packets the filter passed.
fn compare(groups: &[Group], expression: &str) -> usize {
    let program = filter::compile(expression).unwrap_or_else(|e| panic!("{e}"));
    let mut passed = 0;
    for group in groups.iter().filter(|group| !group.packets.is_empty()) {
        let ours = group.passed(&program);
        let theirs = tcpdump::selected(group.file.path(), &group.asked(expression));
        let first = ours.symmetric_difference(&theirs).next();
        let packet = group.packets.iter().find(|(time_ns, _)| Some(time_ns) == first);
        assert!(
            packet.is_none(),
            "'{expression}' behind {} tags: {} packets pass, tcpdump selects {}; the first is {:02x?}",
            group.tags,
            ours.len(),
            theirs.len(),
            packet.expect("one of them"),
        );
        assert_eq!(ours, theirs, "'{expression}'");
        passed += ours.len();
    }
    passed
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.packets.len()).sum()
}

#[test]
fn crafted_packets_are_those_that_tcpdump_selects() {
    if !is_there_or_say("crafted_packets_are_those_that_tcpdump_selects", "tcpdump") {
        return;
    }
    let frames = crafted();
    let (groups, left_out) = groups("filter-crafted", frames.clone());
    assert_eq!(left_out, 0);
    assert!(groups.iter().all(|group| group.packets.len() > 500));
    let packets: Vec<_> = groups.iter().flat_map(|group| group.packets.clone()).collect();
    let file = Temporary::new("filter-crafted-all", &pcap::file_of(&packets));
    for expression in EXPRESSIONS {
        let passed = compare(&groups, expression);
        assert!(0 < passed && passed < count(&groups), "'{expression}' passes {passed}");
        // The program, as it is used.
        let books = replay(file.path(), &["--filter", expression]).reconciliation();
        let all = frames.len() as u64;
        assert_eq!(
            (books.accounted, books.filtered),
            (passed as u64, all - passed as u64),
            "{expression}"
        );
    }
}

#[test]
fn vlans_are_those_that_tcpdump_selects() {
    if !is_there_or_say("vlans_are_those_that_tcpdump_selects", "tcpdump") {
        return;
    }
    let (groups, _) = groups("filter-vlans", crafted());
    // tcpdump's `vlan` without a second one looks at the outermost tag, ours at both.
    for (group, expression, asked) in [
        (1, "vlan", "vlan"),
        (1, "vlan 42", "vlan 42"),
        (1, "not vlan 42", "not vlan 42"),
        (1, "vlan 7", "vlan 7"),
        (1, "vlan 42 and tcp port 443", "vlan 42 and tcp port 443"),
        (1, "udp and vlan", "vlan and udp"),
        (2, "vlan 7", "vlan 7"),
        (2, "vlan 7 and vlan 42", "vlan 7 and vlan 42"),
        (2, "vlan 42 and udp port 53", "vlan and vlan 42 and udp port 53"),
        (0, "vlan", "vlan"),
        (0, "not vlan 7", "not vlan 7"),
    ] {
        let ours = groups[group].passed(&filter::compile(expression).expect(expression));
        let theirs = tcpdump::selected(groups[group].file.path(), asked);
        assert_eq!(ours, theirs, "'{expression}'");
    }
}

#[test]
fn generated_and_real_packets_are_those_that_tcpdump_selects() {
    if !is_there_or_say("generated_and_real_packets_are_those_that_tcpdump_selects", "tcpdump") {
        return;
    }
    let generated = timed_frames(7, 12_000).into_iter().map(|(_, data)| data);
    let real = pcap::files().into_iter().flat_map(|path| pcap::read(&path));
    let real = real.filter_map(|frame| match (frame.link, frame.data.first()? >> 4) {
        (Link::Ethernet, _) => Some(frame.data),
        (Link::Ip, 6) => Some(craft::ethernet(&[], IPV6, &frame.data)),
        (Link::Ip, _) => Some(craft::ethernet(&[], IPV4, &frame.data)),
        _ => None,
    });
    let (groups, left_out) = groups("filter-real", generated.chain(real));
    let compared = count(&groups);
    println!("{compared} packets compared, {left_out} left out");
    assert!(
        compared > 15_000 && left_out < compared / 2,
        "{compared} compared, {left_out} left out"
    );
    for expression in EXPRESSIONS {
        compare(&groups, expression);
    }
}
