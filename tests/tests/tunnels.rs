//! Packets in tunnels, in the kernel and by the host's parser, with decapsulation and without.

use std::net::{IpAddr, SocketAddr};

use agent_common::{
    config::Config,
    key::{Endpoint, Family},
    parse::{self, Headers, Link, Reject, parse},
};
use feature_agent_tests::{
    craft::{self, IPV4, IPV6},
    fixtures::{Expect, flow_name},
    in_kernel::{InKernel, LARGE_RING, START_NS, config},
    oracle::Rules,
    sys::is_root_or_say,
    tunnels::all,
};

/// What became of a packet: its flow's name with packets, bytes and payload, or why it has none.
type Fate = Result<(String, [u64; 3]), &'static str>;

fn fate(expect: &Expect) -> Fate {
    match expect {
        Expect::Account { flow, packets, bytes, payload } => {
            Ok(((*flow).to_owned(), [*packets, *bytes, *payload]))
        }
        Expect::NotIp => Err("not_ip"),
        Expect::Malformed(reason) => Err(reason),
    }
}

fn by_host(link: Link, data: &[u8], gso_size: u16, decap: bool) -> Fate {
    let frame = parse::Frame {
        link,
        ifindex: 1,
        wire_len: data.len() as u32,
        gso_size: gso_size.into(),
        vlan_tci: 0,
    };
    match parse(data, &frame, decap) {
        Ok(headers) => {
            let segments = &headers.segments;
            let sums = [segments.count.into(), segments.bytes(), segments.payload_bytes()];
            Ok((sender_first(&headers), sums))
        }
        Err(Reject::NotIp) => Err("not_ip"),
        Err(Reject::Malformed(reason)) => Err(reason.name()),
    }
}

/// As [`flow_name`] writes it.
fn sender_first(headers: &Headers) -> String {
    let family = if headers.version == 4 { Family::V4 } else { Family::V6 };
    let end = |end: &Endpoint| {
        let ip: IpAddr = end.address.ip(family);
        if matches!(headers.proto, 6 | 17) {
            SocketAddr::new(ip, end.port).to_string()
        } else {
            ip.to_string()
        }
    };
    format!("{} {} > {}", headers.proto, end(&headers.src), end(&headers.dst))
}

#[test]
fn the_host_finds_the_flow_of_the_table() {
    for case in all() {
        for (decap, expect) in [(false, &case.outside), (true, &case.inside)] {
            let found = by_host(Link::Ethernet, &case.frame.data, case.frame.gso_size, decap);
            assert_eq!(found, fate(expect), "{}, decap {decap}", case.name);
        }
    }
}

#[test]
fn the_kernel_finds_the_flow_of_the_table() {
    if !is_root_or_say("the_kernel_finds_the_flow_of_the_table") {
        return;
    }
    for decap in [0, 1] {
        let config = Config { decap, ..config(Rules::PATIENT, 64) };
        let mut kernel = InKernel::new(config, 1024, LARGE_RING);
        for case in all() {
            let expect = fate(if decap == 0 { &case.outside } else { &case.inside });
            let what = format!("{}, decap {decap}", case.name);
            let before = kernel.counters();
            let refused = expect.as_ref().err().filter(|reason| **reason != "not_ip");
            let malformed = refused.map(|reason| kernel.malformed(reason));
            kernel.push(&case.frame.clone().at(START_NS));
            kernel.stop();
            let after = kernel.counters();
            assert_eq!(after.unaccounted(), 0, "{what}: {after:?}");
            let lines = kernel.lines();
            match &expect {
                Ok((flow, sums)) => {
                    let [line] = &lines[..] else { panic!("{what}: {lines:?}") };
                    let sum = |field| {
                        line.int(&format!("fwd_{field}")) + line.int(&format!("bwd_{field}"))
                    };
                    let found = ["packets", "bytes", "payload_bytes"].map(sum);
                    assert_eq!((&flow_name(&line.flow()), &found), (flow, sums), "{what}");
                }
                Err(reason) => {
                    assert!(lines.is_empty(), "{what}: {lines:?}");
                    let not_ip = after.not_ip - before.not_ip;
                    assert_eq!(not_ip, u64::from(*reason == "not_ip"), "{what}: not_ip");
                    let counted = refused.map(|reason| kernel.malformed(reason));
                    assert_eq!(counted, malformed.map(|n| n + 1), "{what}: {reason}");
                }
            }
        }
    }
}

/// A datagram of either version, its type with it, and its flow.
fn datagrams() -> [(u16, Vec<u8>, Fate); 2] {
    let datagram = craft::udp(1000, 53, &[1; 20]);
    let of = |ends: [&str; 2]| {
        let [src, dst] = ends.map(|end| end.parse().expect("an address"));
        craft::ip(src, dst, 17, 64, &datagram)
    };
    let (v4, v6) = (of(["10.0.0.1", "10.0.0.2"]), of(["fd00::1", "fd00::2"]));
    [
        (v4.0, v4.1, Ok(("17 10.0.0.1:1000 > 10.0.0.2:53".to_owned(), [1, 48, 20]))),
        (v6.0, v6.1, Ok(("17 [fd00::1]:1000 > [fd00::2]:53".to_owned(), [1, 68, 20]))),
    ]
}

#[test]
fn cooked_headers_name_the_type() {
    for (ether_type, packet, expect) in datagrams() {
        let kind = ether_type.to_be_bytes();
        let first = [&[0; 14], &kind[..], &packet].concat();
        let second = [&kind[..], &[0; 18], &packet].concat();
        assert_eq!(by_host(Link::CookedV1, &first, 0, false), expect);
        assert_eq!(by_host(Link::CookedV2, &second, 0, false), expect);
        assert_eq!(by_host(Link::CookedV1, &first[..15], 0, false), Err("truncated_link"));
        assert_eq!(by_host(Link::CookedV2, &second[..19], 0, false), Err("truncated_link"));
    }
    let arp = craft::ARP.to_be_bytes();
    let first = [&[0; 14], &arp[..], &[0; 28]].concat();
    let second = [&arp[..], &[0; 18], &[0; 28]].concat();
    assert_eq!(by_host(Link::CookedV1, &first, 0, false), Err("not_ip"));
    assert_eq!(by_host(Link::CookedV2, &second, 0, false), Err("not_ip"));
}

#[test]
fn null_headers_name_the_family_in_either_byte_order() {
    for (ether_type, packet, expect) in datagrams() {
        let families: &[u32] = if ether_type == IPV4 { &[2] } else { &[10, 24, 28, 30] };
        assert!(ether_type == IPV4 || ether_type == IPV6);
        for family in families {
            for bytes in [family.to_be_bytes(), family.to_le_bytes()] {
                let data = [&bytes[..], &packet].concat();
                assert_eq!(by_host(Link::Null, &data, 0, false), expect, "{bytes:?}");
                assert_eq!(by_host(Link::Null, &data[..3], 0, false), Err("truncated_link"));
            }
        }
        let other = [&7u32.to_be_bytes()[..], &packet].concat();
        assert_eq!(by_host(Link::Null, &other, 0, false), Err("not_ip"));
    }
}
