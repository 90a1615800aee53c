//! The oracle's own rules, its reading of frames against etherparse's, and its arithmetic's identities.

use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use feature_agent_tests::{
    craft::{self, IPV4, IPV6, Tcp, V4},
    frame::{Frame, Link},
    generate::mixed_frames,
    oracle::{
        Config, DirectionBy, Oracle, Value, Verdict, WirePacket,
        parse::{
            Parsed, Ports,
            flag::{ACK, FIN, PSH, RST, SYN},
            parse,
        },
        segments, window_features,
    },
    pcap,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn tcp(time_ns: u64, from_client: bool, flags: u8) -> Frame {
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let ((src, sport), (dst, dport)) =
        if from_client { ((a, 4000), (b, 80)) } else { ((b, 80), (a, 4000)) };
    let segment = Tcp { sport, dport, flags, window: 500, options: 0 }.segment(&[]);
    Frame::ethernet(time_ns, craft::ethernet(&[], IPV4, &V4::new(src, dst, 6).packet(&segment)))
}

fn packets(oracle: &Oracle) -> Vec<usize> {
    oracle.flows().iter().map(|flow| flow.packets.len()).collect()
}

#[test]
fn direction_is_decided_by_the_first_packet() {
    for (from_client, flags, by, midstream) in [
        (true, SYN, DirectionBy::Syn, false),
        (false, SYN | ACK, DirectionBy::SynAck, false),
        (true, ACK, DirectionBy::First, true),
    ] {
        let oracle = Oracle::over(&[tcp(0, from_client, flags), tcp(1, !from_client, ACK)]);
        let [flow] = oracle.flows() else { panic!("one flow") };
        assert_eq!((flow.direction_by, flow.midstream), (by, midstream));
        assert_eq!(flow.id.sport, Some(4000), "the client is the initiator");
        assert_eq!(flow.packets[0].bwd, !from_client);
        assert_eq!(flow.packets[1].bwd, from_client);
    }
}

#[test]
fn a_syn_on_a_closed_flow_starts_a_new_one_and_a_late_ack_does_not() {
    let oracle = Oracle::over(&[
        tcp(0, true, SYN),
        tcp(1, true, FIN | ACK),
        tcp(2, true, SYN),
        tcp(3, false, FIN | ACK),
        tcp(4, true, ACK),
        tcp(5, true, SYN),
        tcp(6, false, RST),
        tcp(7, false, SYN | ACK),
        tcp(8, true, SYN),
    ]);
    // A half-closed flow keeps a second SYN; a closed one does not.
    assert_eq!(packets(&oracle), [5, 3, 1]);
}

#[test]
fn silence_ends_a_flow() {
    let limit = 15 * SECOND;
    let frames = [tcp(0, true, ACK), tcp(limit - 1, true, ACK), tcp(2 * limit - 1, true, ACK)];
    assert_eq!(packets(&Oracle::over(&frames)), [2, 1]);
    let frames = [tcp(0, true, RST), tcp(2 * SECOND - 1, true, ACK), tcp(5 * SECOND, true, ACK)];
    assert_eq!(packets(&Oracle::over(&frames)), [2, 1], "a closed flow lingers for 2 s");
}

#[test]
fn a_clock_that_runs_backwards_stands_still() {
    let frames = [tcp(9_999, true, ACK), tcp(5_000, true, ACK), tcp(12_000, false, ACK)];
    let oracle = Oracle::over(&frames);
    let times: Vec<u64> = oracle.flows()[0].packets.iter().map(|p| p.time_us).collect();
    assert_eq!(times, [9, 9, 12]);
}

#[test]
fn fragments_follow_their_first_one_for_thirty_seconds() {
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let part = |time, id, offset, more, bytes: &[u8]| {
        let packet = V4 { id, offset, more, ..V4::new(a, b, 17) }.packet(bytes);
        Frame::ethernet(time, craft::ethernet(&[], IPV4, &packet))
    };
    let datagram = craft::udp(7, 9, &[0; 24]);
    let oracle = Oracle::over(&[
        part(0, 1, 0, true, &datagram[..16]),
        part(1, 1, 2, true, &datagram[16..24]),
        part(2, 1, 3, false, &datagram[24..]),
        part(3, 2, 2, false, &datagram[16..]),
        part(31 * SECOND, 1, 2, false, &datagram[16..]),
    ]);
    let seen: Vec<_> = oracle.flows().iter().map(|f| (f.id.sport, f.packets.len())).collect();
    assert_eq!(seen, [(Some(7), 3), (Some(0), 1), (Some(0), 1)]);
    let payloads: Vec<u32> = oracle.flows()[0].packets.iter().map(|p| p.payload).collect();
    assert_eq!(payloads, [8, 8, 8]);
}

#[test]
fn icmp_pairs_are_one_flow_and_errors_are_one_way() {
    let icmp = |src: [u8; 4], dst: [u8; 4], kind, code| {
        let packet = V4::new(src.into(), dst.into(), 1).packet(&craft::icmp(kind, code, b"data"));
        Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet))
    };
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let oracle = Oracle::over(&[
        icmp(a, b, 8, 0),
        icmp(b, a, 0, 0),
        icmp(b, a, 8, 0),
        icmp(a, b, 3, 1),
        icmp(b, a, 3, 1),
        icmp(a, b, 3, 3),
    ]);
    let seen: Vec<_> =
        oracle.flows().iter().map(|f| (f.id.sport, f.id.dport, f.packets.len())).collect();
    let expected = [(8, 0, 2), (8, 0, 1), (3, 1, 1), (3, 1, 1), (3, 3, 1)]
        .map(|(s, d, n)| (Some(s), Some(d), n));
    assert_eq!(seen, expected);
    assert!(oracle.flows()[0].packets[1].bwd);
}

#[test]
fn lengths_come_from_the_frame_where_ip_cannot_say() {
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let datagram = craft::udp_claiming(1, 2, 0, &[0; 100]);
    let zero = V4 { claim: Some(0), ..V4::new(a, b, 17) }.packet(&datagram);
    let padded = V4::new(a, b, 17).packet(&craft::udp(1, 2, &[]));
    let mut padded = craft::ethernet(&[], IPV4, &padded);
    padded.resize(60, 0);
    for (frame, len, payload) in [(craft::ethernet(&[], IPV4, &zero), 128, 100), (padded, 28, 0)] {
        let oracle = Oracle::over(&[Frame::ethernet(0, frame)]);
        let packet = oracle.flows()[0].packets[0];
        assert_eq!((packet.len, packet.payload), (len, payload));
    }
}

#[test]
fn reads_generated_frames_as_etherparse_does() {
    let frames = mixed_frames(3, 30_000);
    let mut compared = 0;
    for bytes in &frames {
        let Parsed::Packet(packet) = parse(&Frame::ethernet(0, bytes.clone()), false) else {
            continue;
        };
        // etherparse knows no chains as long as ours and stops at some of our port-less protocols.
        let Ok(sliced) = SlicedPacket::from_ethernet(bytes) else { continue };
        let (src, dst, len) = match sliced.net.as_ref().expect("an IP packet") {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                let len = usize::from(header.total_len());
                (header.source_addr().into(), header.destination_addr().into(), len)
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let len = 40 + usize::from(header.payload_length());
                (header.source_addr().into(), header.destination_addr().into(), len)
            }
            NetSlice::Arp(_) => panic!("ARP is not IP"),
        };
        assert_eq!((packet.src, packet.dst, packet.len), (src, dst, len));
        let vids: Vec<u16> = sliced.vlan_ids().iter().map(|id| id.value()).collect();
        let vid = |at: usize| vids.get(at).copied().unwrap_or(0);
        assert_eq!(packet.vlan, [vid(0), vid(1)]);
        let (sport, dport, payload) = match sliced.transport {
            Some(TransportSlice::Tcp(tcp)) => {
                assert_eq!(packet.tcp_window, Some(tcp.window_size()));
                let flags = [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg()];
                for (bit, set) in flags.into_iter().enumerate() {
                    assert_eq!(packet.flags >> bit & 1 == 1, set);
                }
                (tcp.source_port(), tcp.destination_port(), tcp.payload().len())
            }
            Some(TransportSlice::Udp(udp)) if packet.fragment.is_none() => {
                // Ours counts to the end of the IP packet, whatever the UDP length says.
                (udp.source_port(), udp.destination_port(), packet.len - packet.headers)
            }
            _ => continue,
        };
        assert_eq!(packet.ports, Ports::Known { sport, dport, one_way: false });
        assert_eq!(packet.len - packet.headers, payload);
        compared += 1;
    }
    assert!(compared > 15_000, "only {compared} compared");
}

#[test]
fn reads_the_real_captures() {
    let files = pcap::files();
    let mut frames = 0;
    let mut oracle = Oracle::default();
    for file in &files {
        for frame in pcap::read(file) {
            frames += 1;
            oracle.push(&frame);
        }
    }
    let counts = oracle.counts();
    assert_eq!(counts.seen, frames);
    assert_eq!(counts.seen, counts.accounted + counts.not_ip + counts.malformed);
    if !files.is_empty() {
        assert!(counts.accounted > 5_000, "{counts:?}");
    }
}

fn wire_packets() -> impl Strategy<Value = Vec<WirePacket>> {
    let one = (0u64..1 << 30, 20u32..70_000, any::<u8>(), any::<bool>());
    proptest::collection::vec(one, 1..65).prop_map(|list| {
        let mut time_us = 0;
        list.into_iter()
            .map(|(gap, len, flags, bwd)| {
                time_us += gap;
                WirePacket { time_us, len, payload: 0, flags, bwd, ttl: 1, tcp_window: None }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn never_panics_on_any_bytes(
        data in proptest::collection::vec(any::<u8>(), 0..200),
        ethertype in prop_oneof![Just(IPV4), Just(IPV6), Just(0x8100u16)],
        more in 0usize..100_000,
        gso in any::<u16>(),
        tci in any::<Option<u16>>(),
        link in prop_oneof![
            Just(Link::Ethernet), Just(Link::Ip), Just(Link::CookedV1), Just(Link::CookedV2), Just(Link::Null),
        ],
        decap in any::<bool>(),
    ) {
        let data = if link == Link::Ethernet { craft::ethernet(&[], ethertype, &data) } else { data };
        let wire_len = data.len() + more;
        let frame =
            Frame { time_ns: 0, data, wire_len, vlan_tci: tci, gso_size: gso, link };
        Oracle::new(Config { decap, ..Config::default() }).push(&frame);
    }

    #[test]
    fn a_super_packet_is_its_segments(
        payload in 1usize..60_000, gso in 1u16..9000, options in 0usize..11, flags in any::<u8>(),
    ) {
        let headers = 40 + options * 4;
        let parts: Vec<_> = segments(headers + payload, headers, gso.into(), flags).collect();
        prop_assert_eq!(parts.len(), payload.div_ceil(gso.into()));
        prop_assert_eq!(parts.iter().map(|p| p.1 as usize).sum::<usize>(), payload);
        prop_assert!(parts.iter().all(|p| p.0 as usize == headers + p.1 as usize));
        prop_assert!(parts[..parts.len() - 1].iter().all(|p| p.1 == u32::from(gso)));
        prop_assert_eq!(parts.last().unwrap().2 & (FIN | PSH), flags & (FIN | PSH));
    }

    #[test]
    fn windows_hold_their_identities(packets in wire_packets()) {
        let values = window_features(&packets);
        let get = |name: &str| values.iter().find(|(n, _)| n == name).unwrap().1;
        let float = |name: &str| match get(name) {
            Value::Float(f) => f,
            other => panic!("{name} is {other:?}"),
        };
        let n = packets.len() as f64;
        let mean = float("win_len_mean");
        let two_pass =
            packets.iter().map(|p| (f64::from(p.len) - mean).powi(2)).sum::<f64>() / n;
        prop_assert!((float("win_len_var") - two_pass).abs() <= 1e-6 * two_pass.max(1.0));
        prop_assert!((0.0..=n.log2() + 1e-12).contains(&(float("win_len_entropy") + 0.0)));
        if packets.len() > 1 {
            let h = float("win_iat_entropy");
            prop_assert!(h >= -1e-12 && h <= (n - 1.0).log2() + 1e-12);
        }
    }
}

#[test]
fn verdicts_count_super_packets_as_wire_packets() {
    let segment = Tcp { sport: 1, dport: 2, flags: ACK, window: 3, options: 0 }.segment(&[0; 1000]);
    let packet = V4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6).packet(&segment);
    let frame = Frame::ethernet(0, craft::ethernet(&[], IPV4, &packet));
    let mut oracle = Oracle::default();
    let at = Duration::from_millis(1).as_nanos() as u64;
    let verdict = oracle.push(&frame.clone().with_gso(100).at(at));
    assert_eq!(verdict, Verdict::Accounted { flow: 0, packets: 10 });
    assert_eq!(oracle.push(&frame.with_gso(0xffff)), Verdict::Accounted { flow: 0, packets: 1 });
    assert_eq!(oracle.counts().seen, 11);
}
