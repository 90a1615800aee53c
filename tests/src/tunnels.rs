//! Packets in tunnels, with the answers with and without decapsulation written beside them by hand.
//!
//! The packet inside is most often one of 48 bytes (IPv4) or 68 (IPv6), 20 of them the payload of a datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    craft::{self, ARP, C_TAG, IPV4, IPV6, S_TAG, Tcp, V4},
    fixtures::Expect,
    frame::Frame,
    oracle::parse::flag::ACK,
};

/// A frame, and what must become of it.
#[derive(Debug, Clone)]
pub struct Tunnelled {
    /// What it is about.
    pub name: &'static str,
    /// The frame.
    pub frame: Frame,
    /// Without decapsulation.
    pub outside: Expect,
    /// With it.
    pub inside: Expect,
}

/// The type of a whole Ethernet frame.
pub(crate) const BRIDGING: u16 = 0x6558;
const OUTER: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const MIDDLE: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2)];
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];
const USER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];

const OUTER_VXLAN: &str = "17 192.0.2.1:5000 > 192.0.2.2:4789";
const OUTER_GENEVE: &str = "17 192.0.2.1:5000 > 192.0.2.2:6081";
const OUTER_GTP_U: &str = "17 192.0.2.1:5000 > 192.0.2.2:2152";
const OUTER_GRE: &str = "47 192.0.2.1 > 192.0.2.2";

fn account(flow: &'static str, packets: u64, bytes: u64, payload: u64) -> Expect {
    Expect::Account { flow, packets, bytes, payload }
}

fn user4() -> Expect {
    account("17 10.0.0.1:1000 > 10.0.0.2:53", 1, 48, 20)
}

fn user6() -> Expect {
    account("17 [fd00::1]:1000 > [fd00::2]:53", 1, 68, 20)
}

/// 48 bytes.
fn packet4() -> Vec<u8> {
    V4::new(USER[0], USER[1], 17).packet(&craft::udp(1000, 53, &[1; 20]))
}

fn v6(net: u16, next: u8, payload: &[u8]) -> Vec<u8> {
    let end = |host| Ipv6Addr::new(net, 0, 0, 0, 0, 0, 0, host);
    craft::ipv6(end(1), end(2), next, 64, payload)
}

/// 68 bytes.
fn packet6() -> Vec<u8> {
    v6(0xfd00, 17, &craft::udp(1000, 53, &[1; 20]))
}

/// IP in IPv4.
pub(crate) fn in_ip(proto: u8, payload: &[u8]) -> Vec<u8> {
    craft::ethernet(&[], IPV4, &V4::new(OUTER[0], OUTER[1], proto).packet(payload))
}

/// IP in IPv6.
pub(crate) fn in_ip6(next: u8, payload: &[u8]) -> Vec<u8> {
    craft::ethernet(&[], IPV6, &v6(0x2001, next, payload))
}

fn in_udp(port: u16, header: &[u8], payload: &[u8]) -> Vec<u8> {
    in_ip(17, &craft::udp(5000, port, &[header, payload].concat()))
}

fn frame4() -> Vec<u8> {
    craft::ethernet(&[], IPV4, &packet4())
}

/// As RFC 7348 has it: the identifier counts, and is 7.
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 7, 0];

/// A frame in VXLAN.
pub(crate) fn vxlan(frame: &[u8]) -> Vec<u8> {
    vxlan_between(OUTER, frame)
}

/// A frame in VXLAN, to the port that Linux used before there was one.
pub(crate) fn vxlan_linux(frame: &[u8]) -> Vec<u8> {
    in_udp(8472, &VXLAN, frame)
}

/// A frame in VXLAN between two hosts, as a frame.
fn vxlan_between([src, dst]: [Ipv4Addr; 2], frame: &[u8]) -> Vec<u8> {
    let datagram = craft::udp(5000, 4789, &[&VXLAN, frame].concat());
    craft::ethernet(&[], IPV4, &V4::new(src, dst, 17).packet(&datagram))
}

/// A packet in Geneve, `options` words of options before it.
pub(crate) fn geneve(ether_type: u16, options: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = ether_type.to_be_bytes();
    let mut header = vec![options, 0, high, low, 0, 0, 7, 0];
    header.resize(8 + 4 * usize::from(options), 0);
    in_udp(6081, &header, payload)
}

/// A packet in GRE; `words` are as many as `flags` say.
pub(crate) fn gre(flags: [u8; 2], words: usize, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [flags, ether_type.to_be_bytes()].concat();
    header.resize(4 + 4 * words, 9);
    in_ip(47, &[&header, payload].concat())
}

/// A packet in GTP-U. `length`: what the header says; `more`: its optional part.
pub(crate) fn gtp_u(flags: u8, kind: u8, length: usize, more: &[u8], payload: &[u8]) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    in_udp(2152, &[&[flags, kind, high, low, 0, 0, 0, 7], more].concat(), payload)
}

/// A packet in a PPPoE session.
pub(crate) fn pppoe(protocol: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = ((payload.len() + 2) as u16).to_be_bytes();
    let header = [&[0x11, 0, 0, 1][..], &length, &protocol].concat();
    craft::ethernet(&[], 0x8864, &[&header, payload].concat())
}

/// A packet behind a stack of MPLS labels.
pub(crate) fn mpls(labels: usize, payload: &[u8]) -> Vec<u8> {
    let mut stack = [0, 1, 0, 64].repeat(labels);
    stack[4 * labels - 2] |= 1;
    craft::ethernet(&[], 0x8847, &[&stack, payload].concat())
}

fn case(name: &'static str, data: Vec<u8>, outside: Expect, inside: Expect) -> Tunnelled {
    Tunnelled { name, frame: Frame::ethernet(0, data), outside, inside }
}

fn stays(name: &'static str, data: Vec<u8>, outside: Expect) -> Tunnelled {
    case(name, data, outside.clone(), outside)
}

/// All of them.
pub fn all() -> Vec<Tunnelled> {
    let mut all = over_udp();
    all.extend(over_ip());
    all.extend(below_ip());
    all.extend(tagged());
    all.extend(nested());
    all.extend(left_outside());
    all
}

fn over_udp() -> Vec<Tunnelled> {
    let vxlan_linux = in_udp(8472, &VXLAN, &craft::ethernet(&[], IPV6, &packet6()));
    let segment = Tcp { sport: 1000, dport: 80, flags: ACK, window: 512, options: 12 };
    let long = V4::new(USER[0], USER[1], 6).packet(&segment.segment(&[1; 1000]));
    let long = vxlan(&craft::ethernet(&[], IPV4, &long));
    let gtp = |bytes, payload| account(OUTER_GTP_U, 1, bytes, payload);
    vec![
        case("vxlan", vxlan(&frame4()), account(OUTER_VXLAN, 1, 98, 70), user4()),
        case(
            // RFC 7348, 5: "MUST be … ignored on receipt". These are a group policy's.
            "vxlan_other_bits",
            in_udp(4789, &[0x88, 0x40, 0x12, 0x34, 0, 0, 7, 0xff], &frame4()),
            account(OUTER_VXLAN, 1, 98, 70),
            user4(),
        ),
        case(
            "vxlan_linux_port_v6",
            vxlan_linux,
            account("17 192.0.2.1:5000 > 192.0.2.2:8472", 1, 118, 90),
            user6(),
        ),
        Tunnelled {
            // 8 + 14 + 52 bytes of headers count as the outer datagram's payload.
            name: "super_packet_in_vxlan",
            frame: Frame::ethernet(0, long).with_gso(100),
            outside: account(OUTER_VXLAN, 11, 11 * 28 + 1074, 1074),
            inside: account("6 10.0.0.1:1000 > 10.0.0.2:80", 10, 1520, 1000),
        },
        case(
            "geneve_ethernet",
            geneve(BRIDGING, 0, &frame4()),
            account(OUTER_GENEVE, 1, 98, 70),
            user4(),
        ),
        case(
            "geneve_ethernet_options",
            geneve(BRIDGING, 2, &frame4()),
            account(OUTER_GENEVE, 1, 106, 78),
            user4(),
        ),
        case("geneve_ip", geneve(IPV4, 0, &packet4()), account(OUTER_GENEVE, 1, 84, 56), user4()),
        case(
            "geneve_ip_options",
            geneve(IPV6, 2, &packet6()),
            account(OUTER_GENEVE, 1, 112, 84),
            user6(),
        ),
        case("gtp_u", gtp_u(0x30, 0xff, 48, &[], &packet4()), gtp(84, 56), user4()),
        case("gtp_u_v6", gtp_u(0x30, 0xff, 68, &[], &packet6()), gtp(104, 76), user6()),
        case(
            "gtp_u_sequence",
            gtp_u(0x32, 0xff, 52, &[0, 5, 0, 0], &packet4()),
            gtp(88, 60),
            user4(),
        ),
        case(
            "gtp_u_extension",
            gtp_u(0x34, 0xff, 56, &[0, 0, 0, 0x85, 1, 0, 9, 0], &packet4()),
            gtp(92, 64),
            user4(),
        ),
    ]
}

fn over_ip() -> Vec<Tunnelled> {
    let gre_of = |bytes, payload| account(OUTER_GRE, 1, bytes, payload);
    let options = craft::extension(41, 0, &packet6());
    vec![
        case("gre", gre([0, 0], 0, IPV4, &packet4()), gre_of(72, 52), user4()),
        case("gre_v6", gre([0, 0], 0, IPV6, &packet6()), gre_of(92, 72), user6()),
        case(
            "gre_checksum_key_sequence",
            gre([0xb0, 0], 3, IPV4, &packet4()),
            gre_of(84, 64),
            user4(),
        ),
        // RFC 2784, 2.2: bits 6 to 12 "MUST be ignored on receipt", of 1 to 5 those that are not RFC 2890's must be 0.
        case("gre_reserved_bits", gre([0x03, 0xf8], 0, IPV4, &packet4()), gre_of(72, 52), user4()),
        case("gre_bridging", gre([0, 0], 0, BRIDGING, &frame4()), gre_of(86, 66), user4()),
        case("4in4", in_ip(4, &packet4()), account("4 192.0.2.1 > 192.0.2.2", 1, 68, 48), user4()),
        case(
            "6in4",
            in_ip(41, &packet6()),
            account("41 192.0.2.1 > 192.0.2.2", 1, 88, 68),
            user6(),
        ),
        case("4in6", in_ip6(4, &packet4()), account("4 2001::1 > 2001::2", 1, 88, 48), user4()),
        case("6in6", in_ip6(41, &packet6()), account("41 2001::1 > 2001::2", 1, 108, 68), user6()),
        case(
            "6in6_destination_options",
            in_ip6(60, &options),
            account("41 2001::1 > 2001::2", 1, 116, 68),
            user6(),
        ),
    ]
}

fn below_ip() -> Vec<Tunnelled> {
    let cases = [
        ("pppoe_v4", pppoe([0, 0x21], &packet4()), user4()),
        ("pppoe_v6", pppoe([0, 0x57], &packet6()), user6()),
        ("mpls_one_label", mpls(1, &packet4()), user4()),
        ("mpls_four_labels", mpls(4, &packet6()), user6()),
        ("mpls_five_labels", mpls(5, &packet4()), Expect::NotIp),
    ];
    cases.map(|(name, data, inside)| case(name, data, Expect::NotIp, inside)).into()
}

/// Two tags outside and one inside: of all tags the two outermost name the flow.
fn tagged() -> Vec<Tunnelled> {
    let inner = craft::ethernet(&[(C_TAG, 7)], IPV4, &packet4());
    let tags = |tags: &[(u16, u16)]| {
        let plain = vxlan(&inner);
        craft::ethernet(tags, IPV4, &plain[14..])
    };
    let both = [(S_TAG, 5), (C_TAG, 6)];
    vec![
        case(
            "tag_in_vxlan",
            vxlan(&inner),
            account(OUTER_VXLAN, 1, 102, 74),
            account("17 10.0.0.1:1000 > 10.0.0.2:53 vlan 7", 1, 48, 20),
        ),
        case(
            "tag_in_vxlan_in_a_tag",
            tags(&both[..1]),
            account("17 192.0.2.1:5000 > 192.0.2.2:4789 vlan 5", 1, 102, 74),
            account("17 10.0.0.1:1000 > 10.0.0.2:53 vlan 5 vlan 7", 1, 48, 20),
        ),
        case(
            "tag_in_vxlan_in_two_tags",
            tags(&both),
            account("17 192.0.2.1:5000 > 192.0.2.2:4789 vlan 5 vlan 6", 1, 102, 74),
            account("17 10.0.0.1:1000 > 10.0.0.2:53 vlan 5 vlan 6", 1, 48, 20),
        ),
    ]
}

fn nested() -> Vec<Tunnelled> {
    let one = vxlan_between(INNER, &frame4());
    let two = vxlan_between(MIDDLE, &one);
    vec![
        case("vxlan_in_vxlan", vxlan(&one), account(OUTER_VXLAN, 1, 148, 120), user4()),
        case(
            "a_third_tunnel_is_not_entered",
            vxlan(&two),
            account(OUTER_VXLAN, 1, 198, 170),
            account("17 203.0.113.1:5000 > 203.0.113.2:4789", 1, 98, 70),
        ),
    ]
}

fn left_outside() -> Vec<Tunnelled> {
    let datagram = craft::udp(5000, 4789, &[&VXLAN[..], &frame4()].concat());
    let part = V4 { more: true, id: 1, ..V4::new(OUTER[0], OUTER[1], 17) }.packet(&datagram);
    let beyond = V4 { claim: Some(200), ..V4::new(USER[0], USER[1], 17) }
        .packet(&craft::udp(1000, 53, &[1; 20]));
    vec![
        stays(
            "arp_in_vxlan",
            vxlan(&craft::ethernet(&[], ARP, &[0; 28])),
            account(OUTER_VXLAN, 1, 78, 50),
        ),
        stays("gtp_echo", gtp_u(0x32, 1, 4, &[0, 5, 0, 0], &[]), account(OUTER_GTP_U, 1, 40, 12)),
        stays(
            "gtp_u_of_another_length",
            gtp_u(0x30, 0xff, 47, &[], &packet4()),
            account(OUTER_GTP_U, 1, 84, 56),
        ),
        stays(
            "fragment_of_a_tunnel",
            craft::ethernet(&[], IPV4, &part),
            account(OUTER_VXLAN, 1, 98, 70),
        ),
        stays("no_vxlan", in_udp(4789, &[], &[0; 32]), account(OUTER_VXLAN, 1, 60, 32)),
        stays(
            "vxlan_without_an_identifier",
            in_udp(4789, &[0xf7, 0, 0, 0, 0, 0, 7, 0], &frame4()),
            account(OUTER_VXLAN, 1, 98, 70),
        ),
        stays(
            // The type says IPv4, the packet is none.
            "vxlan_by_port_and_bit_alone",
            in_udp(4789, &VXLAN, &craft::ethernet(&[], IPV4, &packet6())),
            account(OUTER_VXLAN, 1, 118, 90),
        ),
        stays("gre_routing", gre([0x40, 0], 1, IPV4, &packet4()), account(OUTER_GRE, 1, 76, 56)),
        stays("gre_recursion", gre([0x04, 0], 0, IPV4, &packet4()), account(OUTER_GRE, 1, 72, 52)),
        stays("gre_pptp", gre([0x30, 1], 2, 0x880b, &packet4()), account(OUTER_GRE, 1, 80, 60)),
        // What was announced as IP is malformed if it is not whole, though the outer packet is.
        case(
            "inner_header_cut_off",
            vxlan(&frame4()[..24]),
            account(OUTER_VXLAN, 1, 60, 32),
            Expect::Malformed("truncated_ip"),
        ),
        case(
            "inner_length_beyond_the_packet",
            vxlan(&craft::ethernet(&[], IPV4, &beyond)),
            account(OUTER_VXLAN, 1, 98, 70),
            Expect::Malformed("bad_ip_length"),
        ),
    ]
}
