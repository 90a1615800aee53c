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
            if !matches!(headers.proto, proto::ICMP | proto::ICMPV6) {
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

#[test]
fn the_reasons_stand_in_their_order() {
    for (index, reason) in Malformed::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
    }
}
