//! Expressions against a plain reading of them, and the sentences of refusals.

mod random;
mod refusals;

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

fn compiled(text: &str) -> Program {
    compile(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn these_mean_the_same() {
    for (left, right) in [
        // A value takes the last keywords.
        ("tcp port 80 or 443", "tcp port 80 or tcp port 443"),
        ("host 10.0.0.1 or 10.0.0.2", "host 10.0.0.1 or host 10.0.0.2"),
        ("host 10.0.0.1 and not 10.0.0.2", "host 10.0.0.1 and not host 10.0.0.2"),
        ("tcp dst port (80 or 443)", "tcp dst port 80 or tcp dst port 443"),
        ("not host 10.0.0.1", "not (host 10.0.0.1)"),
        ("not host not 10.0.0.1", "host 10.0.0.1"),
        ("ip proto 6 or 17", "ip proto 6 or ip proto 17"),
        ("port 80 and (443 or 53)", "port 80 and (port 443 or port 53)"),
        (
            "port 80 and (host 1.1.1.1 or 2.2.2.2) or 443",
            "port 80 and (host 1.1.1.1 or host 2.2.2.2) or port 443",
        ),
        (
            "src net 10 or 192.168 or 172.16.0.0/12",
            "src net 10.0.0.0/8 or src net 192.168.0.0/16 or src net 172.16.0.0/12",
        ),
        // An address alone is a host.
        ("10.0.0.1", "src or dst host 10.0.0.1"),
        ("tcp and 10.0.0.1", "tcp and host 10.0.0.1"),
        ("src 10.0.0.1", "src host 10.0.0.1"),
        ("fe80::1", "ip6 host fe80::1"),
        // `and` and `or` have one precedence, `not` a higher one.
        ("tcp or udp and port 53", "(tcp or udp) and port 53"),
        ("udp and port 53 or tcp", "(udp and port 53) or tcp"),
        ("not tcp and udp", "(not tcp) and udp"),
        ("! tcp && udp || icmp", "((not tcp) and udp) or icmp"),
        ("!tcp&&udp||icmp", "((not tcp) and udp) or icmp"),
        // Sides.
        ("port 80", "src or dst port 80"),
        ("dst or src port 80", "src port 80 or dst port 80"),
        ("src and dst port 80", "src port 80 and dst port 80"),
        ("dst and src net 10", "src net 10 and dst net 10"),
        // Networks.
        ("net 10", "net 10.0.0.0/8"),
        ("net 10/8", "net 10.0.0.0/8"),
        ("net 192.168", "net 192.168.0.0 mask 255.255.0.0"),
        ("net 192.168.1", "net 192.168.1.0/24"),
        ("net 10.0.0.1", "host 10.0.0.1"),
        ("net 10.0.0.1/32", "host 10.0.0.1"),
        ("net 0.0.0.0/0", "ip"),
        ("net ::/0", "ip6"),
        ("net fe80::1", "host fe80::1"),
        ("ip net 10", "net 10"),
        // Numbers.
        ("port 0x50 or port 0120", "port 80"),
        ("portrange 443-80", "portrange 80-443"),
        ("portrange 80", "port 80"),
        // Protocols.
        ("icmp", "ip proto 1"),
        ("icmp", "ip proto \\icmp"),
        ("icmp6", "ip6 proto ipv6-icmp"),
        ("tcp", "proto tcp"),
        ("tcp", "proto \\tcp"),
        ("proto gre or ospf", "proto 47 or proto 89"),
        ("esp", "proto 50"),
        ("vrrp", "ip proto 112"),
        ("tcp port 80", "tcp and port 80"),
        ("port 80 and udp", "udp port 80"),
        ("not not tcp", "tcp"),
        ("", "  \t\n"),
    ] {
        assert_eq!(
            compiled(left).instructions(),
            compiled(right).instructions(),
            "{left} | {right}"
        );
    }
}

#[test]
fn usual_filters_are_short() {
    for (text, instructions) in [
        ("", 0),
        ("tcp", 1),
        ("ip6 and udp", 1),
        ("tcp and udp", 1),
        ("icmp and port 8", 1),
        ("tcp and dst port 443", 1),
        ("src net 10.0.0.0/8 and tcp", 1),
        ("src host 10.0.0.1 and tcp src port 443", 1),
        ("tcp port 443", 3),
        ("host 10.0.0.1", 3),
        ("net fe80::/10", 3),
        ("vlan 7", 3),
        ("not port 22", 4),
        ("tcp port 443 and net 10.0.0.0/8", 7),
        ("host 2001:db8::1", 7),
        ("tcp portrange 1024-65535 or udp port 53 or icmp", 9),
    ] {
        assert_eq!(compiled(text).instructions().len(), instructions, "{text}");
    }
}

#[test]
fn a_filter_may_be_too_long() {
    let ports = |count: u16| {
        (1..=count).map(|port| format!("src port {port}")).collect::<Vec<_>>().join(" or ")
    };
    // A test each, and one `or` less.
    assert_eq!(compiled(&ports(32)).instructions().len(), 63);
    let error = compile(&ports(33)).expect_err("there is no room");
    assert_eq!(error.column(), None);
    assert!(error.to_string().contains("takes 65 instructions"), "{error}");
    let error = compile(&ports(300)).expect_err("far too long");
    assert!(error.to_string().contains("more than 256 conditions"), "{error}");
    // The same condition again takes no room.
    assert_eq!(compiled(&["tcp"; 200].join(" or ")), compiled("tcp"));

    let full = compiled(&ports(32));
    let error = exclude(&full, Ipv4Addr::LOCALHOST.into(), 4222).expect_err("there is no room");
    assert!(error.to_string().contains("127.0.0.1 port 4222"), "{error}");
}

#[test]
fn an_endpoint_is_left_out() {
    let program = exclude(&Program::ALL, Ipv4Addr::new(10, 0, 0, 9).into(), 4222).expect("room");
    assert_eq!(
        program,
        compiled(
            "not (src host 10.0.0.9 and tcp src port 4222 or (dst host 10.0.0.9 and tcp dst port 4222))"
        )
    );
    // A socket for both versions writes IPv4 addresses so; on the wire they are IPv4.
    let mapped = Ipv4Addr::new(10, 0, 0, 9).to_ipv6_mapped();
    assert_eq!(exclude(&Program::ALL, mapped.into(), 4222), Ok(program));
    let v6 = exclude(&program, Ipv6Addr::LOCALHOST.into(), 9092).expect("room");
    assert_eq!(v6.instructions().len(), 4 + 12 + 1);
}
