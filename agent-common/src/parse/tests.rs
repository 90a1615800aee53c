//! The parser over arbitrary and half-arbitrary bytes; the kernel tests hold it against an oracle.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;

fn frame(link: Link, len: usize, gso_size: u32, vlan_tci: u16) -> Frame {
    Frame { link, ifindex: 1, wire_len: len as u32, gso_size, vlan_tci }
}

/// Bytes that get past the first checks: an EtherType and an IP version that agree.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let start = prop_oneof![
        Just((vec_of(&[0x08, 0x00]), 0x45u8)),
        Just((vec_of(&[0x08, 0x00]), 0x4fu8)),
        Just((vec_of(&[0x86, 0xdd]), 0x60u8)),
        Just((vec_of(&[0x81, 0x00, 0, 7, 0x08, 0x00]), 0x45u8)),
        Just((vec_of(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd]), 0x60u8)),
    ];
    (start, body).prop_map(|((ether, version), mut body)| {
        let mut bytes = Vec::from([0u8; 12]);
        bytes.extend(ether);
        if let Some(first) = body.first_mut() {
            *first = version;
        }
        bytes.extend(body);
        bytes
    })
}

fn vec_of(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes_are_parsed_or_refused(
        bytes in prop_oneof![frames(), prop::collection::vec(any::<u8>(), 0..200)],
        ethernet in any::<bool>(),
        gso in prop_oneof![Just(0u32), 1u32..2000],
        tci in prop_oneof![Just(0u16), any::<u16>()],
        extra in 0usize..100_000,
        decap in any::<bool>(),
    ) {
        let link = if ethernet { Link::Ethernet } else { Link::Ip };
        let frame = frame(link, bytes.len() + extra, gso, tci);
        if let Ok((headers, measures)) = parse(&bytes[..], &frame, decap) {
            prop_assert!(measures.segments.bytes() >= u64::from(measures.segments.headers));
            prop_assert!(measures.segments.payload_bytes() <= u64::from(frame.wire_len));
            let (key, swapped) = headers.key();
            let back = Headers { src: headers.dst, dst: headers.src, ..headers };
            let (other, other_swapped) = back.key();
            if !matches!(headers.proto(), proto::ICMP | proto::ICMPV6) {
                prop_assert_eq!(key, other);
                prop_assert!(swapped != other_swapped || headers.src == headers.dst);
            }
        }
    }

    #[test]
    fn a_prefix_is_never_more_than_the_whole(bytes in frames(), cut in 0usize..200, decap in any::<bool>()) {
        let frame = frame(Link::Ethernet, bytes.len(), 0, 0);
        let cut = cut.min(bytes.len());
        match (parse(&bytes[..], &frame, decap), parse(&bytes[..cut], &frame, decap)) {
            (Ok(whole), Ok(part)) => {
                prop_assert_eq!(whole.0.key(), part.0.key());
                prop_assert_eq!(whole.1, part.1);
            }
            (Err(_), Ok(_)) => prop_assert!(false, "a cut made a bad packet good"),
            (_, Err(_)) => {}
        }
    }
}

/// Frames of the shape that [`plain`] knows, each of whose fields may be off.
fn nearly_plain() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let proto = prop_oneof![4 => Just(6u8), 4 => Just(17u8), 1 => any::<u8>()];
    let first = prop_oneof![8 => Just(5u8), 1 => 0u8..16];
    let off_by = prop_oneof![6 => Just(0i32), 2 => -3i32..4, 1 => -60i32..2000];
    let data_offset = prop_oneof![6 => Just(5u8), 3 => 0u8..16];
    let fragment =
        prop_oneof![4 => Just(0u16), 2 => Just(0x4000u16), 1 => Just(0x2000u16), 1 => any::<u16>()];
    let bytes = prop::collection::vec(any::<u8>(), 54..100);
    let lengths = (off_by.clone(), off_by);
    (any::<bool>(), any::<bool>(), proto, first, lengths, data_offset, fragment, bytes).prop_map(
        |(ethernet, v6, proto, first, (off, udp_off), data_offset, fragment, mut bytes)| {
            let ip = if ethernet { 14 } else { 0 };
            let there = (bytes.len() - ip) as i32;
            let mut set =
                |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
            let l4 = if v6 { 40 } else { 20 };
            let word = |number: i32| (number as u16).to_be_bytes();
            if ethernet {
                set(12, if v6 { &[0x86, 0xdd] } else { &[8, 0] });
            }
            if v6 {
                set(ip, &[if first == 5 { 0x60 } else { first << 4 }]);
                set(ip + 4, &word(there - 40 + off));
                set(ip + 6, &[proto]);
            } else {
                set(ip, &[0x40 | first]);
                set(ip + 2, &word(there + off));
                set(ip + 6, &fragment.to_be_bytes());
                set(ip + 9, &[proto]);
            }
            let at = ip + l4 + if proto == 6 { 12 } else { 4 };
            match proto {
                6 if at < bytes.len() => bytes[at] = data_offset << 4,
                17 if at + 2 <= bytes.len() => {
                    bytes[at..at + 2].copy_from_slice(&word(there - l4 as i32 + udp_off));
                }
                _ => {}
            }
            (bytes, ethernet)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn what_is_plain_is_what_the_layers_say(
        (bytes, ethernet) in nearly_plain(),
        gso in prop_oneof![8 => Just(0u32), 1 => 1u32..2000],
        tci in prop_oneof![Just(0u16), any::<u16>()],
        more in prop_oneof![6 => Just(0i32), 1 => -60i32..2000],
        decap in any::<bool>(),
    ) {
        let link = if ethernet { Link::Ethernet } else { Link::Ip };
        let wire_len = (bytes.len() as i32 + more).max(0) as usize;
        let frame = frame(link, wire_len, gso, tci);
        let plain = [plain::v4(&bytes[..], &frame, decap), plain::v6(&bytes[..], &frame, decap)];
        prop_assert!(plain.iter().flatten().count() < 2);
        for plain in plain.into_iter().flatten() {
            prop_assert_eq!(Ok(plain), walk(&bytes[..], &frame, decap));
        }
    }
}

#[test]
fn most_packets_are_plain() {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut plain, mut all) = ([0, 0], [0, 0]);
    for _ in 0..4000 {
        let (bytes, ethernet) = nearly_plain().new_tree(&mut runner).expect("frames").current();
        let link = if ethernet { Link::Ethernet } else { Link::Ip };
        let frame = frame(link, bytes.len(), 0, 0);
        if let Ok((headers, ..)) = walk(&bytes[..], &frame, false) {
            let v6 = usize::from(headers.version() == 6);
            let is_near = bytes.len() >= if ethernet { 74 } else { 60 };
            if headers.fragment == Fragment::Whole && is_near && matches!(headers.proto(), 6 | 17) {
                all[v6] += 1;
                let found = [plain::v4, plain::v6][v6](&bytes[..], &frame, false);
                plain[v6] += usize::from(found.is_some());
            }
        }
    }
    // The others have IPv4 options, IPv6 extension headers, or a length of 0.
    for version in 0..2 {
        assert!(
            all[version] > 300 && plain[version] * 10 > all[version] * 9,
            "{plain:?} of {all:?}"
        );
    }
}

#[test]
fn the_reasons_stand_in_their_order() {
    for (index, reason) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}
