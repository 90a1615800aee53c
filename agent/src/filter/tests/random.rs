//! Random expressions over random packets, against a plain reading of both.

use std::fmt::Debug;

use agent_common::{
    filter::Facts,
    key::{Address, Endpoint, Family, Kind, proto},
    parse::{Fragment, Headers},
};
use proptest::prelude::*;

use super::*;
use crate::filter::ast::{Expression, Net, Primitive, Side, Version};

/// Few values, so that packets match.
const V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv4Addr::new(10, 129, 2, 3),
    Ipv4Addr::new(192, 168, 1, 1),
    Ipv4Addr::UNSPECIFIED,
];
const V6: [Ipv6Addr; 6] = [
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1),
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::UNSPECIFIED,
    Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(),
];
const PORTS: [u16; 8] = [0, 3, 8, 22, 80, 443, 8080, u16::MAX];
const PROTOCOLS: [u8; 8] =
    [proto::ICMP, proto::TCP, proto::TCP, proto::UDP, proto::SCTP, proto::ICMPV6, 47, 112];
const VLANS: [u16; 4] = [0, 7, 9, 4095];

fn one<T: Copy + Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = T> + Clone {
    prop::sample::select(of)
}

fn headers() -> impl Strategy<Value = Headers> {
    let v4 = [
        one(&V4).prop_map(|ip| Address::v4(ip.octets())).boxed(),
        one(&V4).prop_map(|ip| Address::v4(ip.octets())).boxed(),
    ];
    let v6 = [
        one(&V6).prop_map(|ip| Address::v6(ip.octets())).boxed(),
        one(&V6).prop_map(|ip| Address::v6(ip.octets())).boxed(),
    ];
    let addresses = prop_oneof![(Just(4), v4), (Just(6), v6)];
    let ports = [one(&PORTS), one(&PORTS)];
    (addresses, ports, one(&PROTOCOLS), one(&VLANS), one(&VLANS)).prop_map(
        |((version, [src, dst]), [src_port, dst_port], proto, vlan, vlan_inner)| Headers {
            src: Endpoint { address: src, port: src_port },
            dst: Endpoint { address: dst, port: dst_port },
            ifindex: 1,
            kind: Kind::new([vlan, if vlan == 0 { 0 } else { vlan_inner }], proto, version),
            fragment: Fragment::Whole,
        },
    )
}

/// Whether an expression is true of a packet, read plainly.
fn is_true(expression: &Expression, packet: &Headers) -> bool {
    match expression {
        Expression::Primitive(primitive) => holds(primitive, packet),
        Expression::Not(inner) => !is_true(inner, packet),
        Expression::And(left, right) => is_true(left, packet) && is_true(right, packet),
        Expression::Or(left, right) => is_true(left, packet) || is_true(right, packet),
    }
}

fn holds(primitive: &Primitive, packet: &Headers) -> bool {
    let family = if packet.version() == 4 { Family::V4 } else { Family::V6 };
    let is_version = |version: Version| version as u8 == packet.version();
    let on = |side: Side, holds: &dyn Fn(&Endpoint) -> bool| match side {
        Side::Src => holds(&packet.src),
        Side::Dst => holds(&packet.dst),
        Side::Either => holds(&packet.src) || holds(&packet.dst),
        Side::Both => holds(&packet.src) && holds(&packet.dst),
    };
    match primitive {
        Primitive::Version(version) => is_version(*version),
        Primitive::Protocol(version, number) => {
            version.is_none_or(is_version) && *number == packet.proto()
        }
        Primitive::Net(side, net) => on(*side, &|end| match (net, end.address.ip(family)) {
            (Net::V4 { address, mask }, IpAddr::V4(ip)) => ip & mask == *address,
            (Net::V6 { address, mask }, IpAddr::V6(ip)) => ip & mask == *address,
            _ => false,
        }),
        Primitive::Ports(side, protocol, range) => {
            [proto::TCP, proto::UDP, proto::SCTP].contains(&packet.proto())
                && protocol.is_none_or(|protocol| protocol == packet.proto())
                && on(*side, &|end| range.contains(&end.port))
        }
        Primitive::Vlan(None) => packet.kind.vlan() != 0,
        Primitive::Vlan(Some(id)) => [packet.kind.vlan(), packet.kind.vlan_inner()].contains(id),
    }
}

/// An expression and its text, without parentheses around it.
type Said = (Expression, String);

fn sides() -> impl Strategy<Value = (Side, &'static str)> + Clone {
    one(&[
        (Side::Either, ""),
        (Side::Src, "src"),
        (Side::Dst, "dst"),
        (Side::Either, "src or dst"),
        (Side::Either, "dst or src"),
        (Side::Both, "src and dst"),
        (Side::Both, "dst and src"),
    ])
}

fn hosts() -> impl Strategy<Value = (Net, String)> {
    prop_oneof![
        one(&V4).prop_map(|ip| (Net::host(ip.into()), format!("{ip}"))),
        one(&V6).prop_map(|ip| (Net::host(ip.into()), format!("{ip}"))),
    ]
}

fn nets() -> impl Strategy<Value = (Net, String)> {
    let v4 = (one(&V4), 0..=32_u32, any::<bool>()).prop_map(|(ip, length, as_mask)| {
        let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - length).unwrap_or(0));
        let address = ip & mask;
        let text =
            if as_mask { format!("{address} mask {mask}") } else { format!("{address}/{length}") };
        (Net::V4 { address, mask }, text)
    });
    let any_mask = (one(&V4), any::<u32>()).prop_map(|(ip, mask)| {
        let mask = Ipv4Addr::from_bits(mask);
        (Net::V4 { address: ip & mask, mask }, format!("{} mask {mask}", ip & mask))
    });
    let v6 = (one(&V6), 0..=128_u32).prop_map(|(ip, length)| {
        let mask = Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - length).unwrap_or(0));
        (Net::V6 { address: ip & mask, mask }, format!("{}/{length}", ip & mask))
    });
    prop_oneof![v4, any_mask, v6]
}

fn addresses() -> impl Strategy<Value = (Primitive, String)> {
    let nets = prop_oneof![
        hosts().prop_map(|(net, text)| (net, format!("host {text}"))),
        nets().prop_map(|(net, text)| (net, format!("net {text}"))),
    ];
    (sides(), nets, any::<bool>()).prop_map(|((side, side_text), (net, net_text), named)| {
        let protocol = match net.version() {
            _ if !named => "",
            Version::V4 => "ip",
            Version::V6 => "ip6",
        };
        (Primitive::Net(side, net), format!("{protocol} {side_text} {net_text}"))
    })
}

fn ports() -> impl Strategy<Value = (Primitive, String)> {
    let protocols = one(&[
        (None, ""),
        (Some(proto::TCP), "tcp"),
        (Some(proto::UDP), "udp"),
        (Some(proto::SCTP), "sctp"),
    ]);
    let range = (one(&PORTS), one(&PORTS), -1..2_i16).prop_map(|(a, b, off)| {
        let b = b.saturating_add_signed(off);
        (a.min(b), a.max(b))
    });
    (sides(), protocols, range, any::<bool>()).prop_map(
        |((side, side_text), (protocol, protocol_text), (low, high), single)| {
            let (high, text) = if single {
                (low, format!("port {low}"))
            } else {
                (high, format!("portrange {low}-{high}"))
            };
            let text = format!("{protocol_text} {side_text} {text}");
            (Primitive::Ports(side, protocol, low..=high), text)
        },
    )
}

fn others() -> impl Strategy<Value = (Primitive, String)> {
    let (v4, v6) = (Some(Version::V4), Some(Version::V6));
    prop_oneof![
        prop::sample::select(vec![
            (Primitive::Version(Version::V4), "ip"),
            (Primitive::Version(Version::V6), "ip6"),
            (Primitive::Protocol(None, proto::TCP), "tcp"),
            (Primitive::Protocol(None, proto::UDP), "udp"),
            (Primitive::Protocol(None, proto::SCTP), "sctp"),
            (Primitive::Protocol(v4, proto::ICMP), "icmp"),
            (Primitive::Protocol(v6, proto::ICMPV6), "icmp6"),
            (Primitive::Protocol(v4, 112), "carp"),
            (Primitive::Protocol(None, 47), "proto gre"),
            (Primitive::Vlan(None), "vlan"),
        ])
        .prop_map(|(primitive, text)| (primitive, text.to_owned())),
        (one(&PROTOCOLS), prop::sample::select(vec![(None, ""), (v4, "ip"), (v6, "ip6")]))
            .prop_map(|(number, (version, text))| {
                (Primitive::Protocol(version, number), format!("{text} proto {number}"))
            }),
        one(&[7_u16, 9, 4095]).prop_map(|id| (Primitive::Vlan(Some(id)), format!("vlan {id}"))),
    ]
}

/// Operands joined from the left, without parentheses.
fn chain(operands: Vec<(u8, Said)>) -> Said {
    let mut operands = operands.into_iter();
    let (_, (mut expression, mut text)) = operands.next().expect("one at least");
    for (joint, (right, right_text)) in operands {
        let (join, word): (fn(_, _) -> _, _) = match joint % 4 {
            0 => (Expression::And, "and"),
            1 => (Expression::And, "&&"),
            2 => (Expression::Or, "or"),
            _ => (Expression::Or, "||"),
        };
        expression = join(Box::new(expression), Box::new(right));
        text = format!("{text} {word} {right_text}");
    }
    (expression, text)
}

fn expressions() -> impl Strategy<Value = Said> {
    let primitive = prop_oneof![2 => addresses(), 2 => ports(), 1 => others()]
        .prop_map(|(primitive, text)| (Expression::Primitive(primitive), text));
    primitive.prop_recursive(4, 16, 4, |inner| {
        let not = |(expression, text): Said, sign: &str| {
            (Expression::Not(Box::new(expression)), format!("{sign}({text})"))
        };
        let in_parentheses = |(expression, text): Said| (expression, format!("({text})"));
        let operand = prop_oneof![
            inner.clone().prop_map(in_parentheses),
            inner.clone().prop_map(move |said| not(said, "not ")),
            inner.clone().prop_map(move |said| not(said, "!")),
        ];
        prop::collection::vec((any::<u8>(), operand), 1..5).prop_map(chain)
    })
}

/// Words of the language in any order.
fn babble() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "ip",
        "ip6",
        "tcp",
        "udp",
        "icmp",
        "src",
        "dst",
        "host",
        "net",
        "mask",
        "port",
        "portrange",
        "proto",
        "vlan",
        "and",
        "or",
        "not",
        "!",
        "&&",
        "||",
        "(",
        ")",
        "(",
        ")",
        "/",
        "\\tcp",
        "80",
        "0",
        "443",
        "80-443",
        "10",
        "10.0.0.1",
        "192.168",
        "0x1f",
        "8",
        "::1",
        "fe80::",
        "64",
        "arp",
        "len",
        "less",
        "multicast",
        "example.org",
        "\\",
        "4096",
        "4294967296",
        "-",
        ":",
        ".",
    ]);
    prop::collection::vec(word, 0..14).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_compiled_is_what_is_said(
        (expression, text) in expressions(),
        packets in prop::collection::vec(headers(), 24),
    ) {
        // A second bare `vlan` is refused, a long filter too: both have tests of their own.
        let program = match compile(&text) {
            Ok(program) => program,
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.contains("second tag") || said.contains("instructions"), "{}", said);
                return Ok(());
            }
        };
        for packet in packets {
            let matches = program.matches(&Facts::of(&packet));
            prop_assert_eq!(matches, is_true(&expression, &packet), "{} on {:?}", text, packet);
        }
    }

    #[test]
    fn an_excluded_endpoint_is_all_that_is_excluded(
        (expression, text) in expressions(),
        address in prop_oneof![one(&V4).prop_map(IpAddr::from), one(&V6).prop_map(IpAddr::from)],
        port in one(&PORTS),
        packets in prop::collection::vec(headers(), 24),
    ) {
        let Ok(program) = compile(&text) else { return Ok(()) };
        let Ok(program) = exclude(&program, address, port) else { return Ok(()) };
        let end = |side| {
            let net = Primitive::Net(side, Net::host(address.to_canonical()));
            let ports = Primitive::Ports(side, Some(proto::TCP), port..=port);
            move |packet: &Headers| holds(&net, packet) && holds(&ports, packet)
        };
        let (from, to) = (end(Side::Src), end(Side::Dst));
        for packet in packets {
            let kept = is_true(&expression, &packet) && !from(&packet) && !to(&packet);
            prop_assert_eq!(program.matches(&Facts::of(&packet)), kept, "{} on {:?}", text, packet);
        }
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in prop_oneof![any::<String>(), babble()]) {
        if let Err(error) = compile(&text) {
            let said = error.to_string();
            let lines: Vec<&str> = said.lines().collect();
            prop_assert_eq!(lines.len(), if error.column().is_some() { 3 } else { 1 }, "{}", said);
            prop_assert!(error.column().is_none_or(|column| column <= text.chars().count() + 1));
        }
    }
}
