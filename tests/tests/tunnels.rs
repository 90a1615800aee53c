//! Packets in tunnels, in the kernel and by the host's parser, with decapsulation and without.

use agent_common::config::Config;
use feature_agent_tests::{
    craft::{self, IPV4, IPV6},
    fixtures::flow_name,
    frame::{Frame, Link},
    host::{Fate, parsed, written},
    in_kernel::{InKernel, LARGE_RING, START_NS, config},
    oracle::{self, Oracle, Rules, Verdict, WirePacket},
    sys::is_root_or_say,
    tunnels::all,
};

fn by_host(link: Link, data: &[u8], gso_size: u16, decap: bool) -> Fate {
    let data = data.to_vec();
    parsed(&Frame { link, gso_size, ..Frame::ethernet(0, data) }, decap)
}

#[test]
fn the_host_finds_the_flow_of_the_table() {
    for case in all() {
        for (decap, expect) in [(false, &case.outside), (true, &case.inside)] {
            let found = by_host(Link::Ethernet, &case.frame.data, case.frame.gso_size, decap);
            assert_eq!(found, written(expect), "{}, decap {decap}", case.name);
        }
    }
}

#[test]
fn the_oracle_finds_the_flow_of_the_table() {
    for case in all() {
        for (decap, expect) in [(false, &case.outside), (true, &case.inside)] {
            let mut oracle = Oracle::new(oracle::Config { decap, ..oracle::Config::default() });
            let found = match oracle.push(&case.frame) {
                Verdict::Accounted { flow, packets } => {
                    let flow = &oracle.flows()[flow];
                    let sum = |of: fn(&WirePacket) -> u32| {
                        flow.packets.iter().map(|packet| u64::from(of(packet))).sum()
                    };
                    Ok((flow_name(&flow.id), [packets as u64, sum(|p| p.len), sum(|p| p.payload)]))
                }
                Verdict::NotIp => Err("not_ip"),
                Verdict::Malformed(reason) => Err(reason.name()),
            };
            assert_eq!(found, written(expect), "{}, decap {decap}", case.name);
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
            let expect = written(if decap == 0 { &case.outside } else { &case.inside });
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
