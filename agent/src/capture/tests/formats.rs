//! Every variant of both formats.

use agent_common::parse::Link;
use proptest::prelude::*;

use super::{
    write::{
        Description, MICROSECONDS, MODIFIED, NANOSECONDS, ORDERS, Order, block, enhanced, obsolete,
        pcap_header, pcap_record, section, simple,
    },
    *,
};

#[test]
fn pcap_in_either_order_and_unit() {
    for order in ORDERS {
        for (magic, unit) in [(MICROSECONDS, 1000), (NANOSECONDS, 1)] {
            let content = [
                pcap_header(order, magic, 1),
                pcap_record(order, (1_700_000_000, 999_999), b"first", 5),
                pcap_record(order, (0, 0), b"", 1500),
                pcap_record(order, (u32::MAX, u32::MAX), b"less on the wire", 3),
            ]
            .concat();
            let expected = [
                packet(1_700_000_000_000_000_000 + 999_999 * unit, b"first"),
                Owned { wire_len: 1500, ..packet(0, b"") },
                packet(u64::from(u32::MAX) * (1_000_000_000 + unit), b"less on the wire"),
            ];
            assert_eq!(read(&content), expected, "{order:?} {magic:x}");
        }
    }
}

#[test]
fn modified_pcap() {
    let record = |time, data: &[u8]| {
        let mut record = pcap_record(Order::Little, time, data, data.len() as u32);
        record.splice(16..16, [9; 8]);
        record
    };
    let content =
        [pcap_header(Order::Little, MODIFIED, 1), record((1, 2), b"abc"), record((3, 4), b"de")];
    let expected = [packet(1_000_002_000, b"abc"), packet(3_000_004_000, b"de")];
    assert_eq!(read(&content.concat()), expected);
}

#[test]
fn link_types() {
    for (link_type, link) in [
        (1, Some(Link::Ethernet)),
        (12, Some(Link::Ip)),
        (14, Some(Link::Ip)),
        (101, Some(Link::Ip)),
        (228, Some(Link::Ip)),
        (229, Some(Link::Ip)),
        (113, Some(Link::CookedV1)),
        (276, Some(Link::CookedV2)),
        (0, Some(Link::Null)),
        (108, Some(Link::Null)),
        (105, None),
        (0x03ff_ffff, None),
    ] {
        // Frames end with a check sum of 4 bytes, says the field beside.
        let header = pcap_header(Order::Little, MICROSECONDS, 0x4400_0000 | link_type);
        let content = [header, pcap_record(Order::Little, (0, 0), b"x", 1)].concat();
        let file = Memory::new(&content);
        let mut captures = Captures::open(&[file.path()], NAMELESS).expect("a capture");
        let packet = captures.next_packet().expect("one").expect("readable");
        assert_eq!((packet.link_type, packet.link), (link_type, link));
    }
}

#[test]
fn pcapng_of_two_sections_in_each_pair_of_orders() {
    for one in ORDERS {
        for two in ORDERS {
            let content = [
                section(one),
                Description { resolution: Some(9), ..Description::ethernet("eth0") }.block(one),
                block(one, 0x0bad_cafe, b"nobody knows"),
                Description { link_type: 101, ..Description::ethernet("tun0") }.block(one),
                enhanced(one, 0, 1_700_000_000_123_456_789, b"one", 3),
                enhanced(one, 1, 1_700_000_000_123_456, b"four", 2),
                obsolete(one, 1, 5_000_001, b"five5", 1514),
                section(two),
                Description { link_type: 101, resolution: Some(3), ..Description::default() }
                    .block(two),
                Description::default().block(two),
                Description { offset: Some(-7), ..Description::ethernet("eth0") }.block(two),
                block(two, 5, b"statistics"),
                simple(two, b"simple", 6),
                enhanced(two, 2, 8_000_001, b"", 0),
                enhanced(two, 1, 9_000_001, b"x", 1),
                enhanced(two, 0, 2, b"y", 1),
            ]
            .concat();
            let of = |interface: &str, packet| Owned { interface: interface.to_owned(), ..packet };
            let ip = |packet| Owned { link_type: 101, ..packet };
            let expected = [
                of("eth0", packet(1_700_000_000_123_456_789, b"one")),
                of("tun0", ip(packet(1_700_000_000_123_456_000, b"four"))),
                of("tun0", ip(Owned { wire_len: 1514, ..packet(5_000_001_000, b"five5") })),
                ip(packet(5_000_001_000, b"simple")),
                of("eth0", packet(1_000_001_000, b"")),
                of("capture1", Owned { link_type: 0, ..packet(9_000_001_000, b"x") }),
                ip(packet(2_000_000, b"y")),
            ];
            assert_eq!(read(&content), expected, "{one:?} {two:?}");
        }
    }
}

#[test]
fn indices_follow_names() {
    let order = Order::Little;
    let content = [
        section(order),
        Description::ethernet("a").block(order),
        Description::ethernet("b\0").block(order),
        enhanced(order, 1, 0, b"", 0),
        section(order),
        Description::ethernet("b").block(order),
        Description::ethernet("").block(order),
        enhanced(order, 0, 0, b"", 0),
        enhanced(order, 1, 0, b"", 0),
    ]
    .concat();
    let file = Memory::new(&content);
    let mut captures = Captures::open(&[file.path()], NAMELESS).expect("a capture");
    let mut next = || captures.next_packet().expect("a packet").expect("readable").interface;
    assert_eq!([next(), next(), next()], [2, 2, 3]);
    let names = [0, 1, 2, 3, 4].map(|index| captures.interface_name(index));
    assert_eq!(names, ["", "a", "b", "capture1", ""]);
}

#[test]
fn simple_packets_end_at_the_snap_length() {
    for order in ORDERS {
        let description = Description { link_type: 1, snap_len: 6, ..Description::default() };
        let content = [
            section(order),
            description.block(order),
            simple(order, b"cutoff", 1514),
            simple(order, b"short", 5),
        ]
        .concat();
        let expected = [Owned { wire_len: 1514, ..packet(0, b"cutoff") }, packet(0, b"short")];
        assert_eq!(read(&content), expected);
    }
}

#[test]
fn captures_without_packets() {
    for order in ORDERS {
        assert_eq!(read(&pcap_header(order, MICROSECONDS, 1)), []);
        assert_eq!(read(&section(order)), []);
    }
    let none = Captures::open(&[], NAMELESS).expect("no files");
    assert_eq!((none.position(), none.total()), (0, Some(0)));
}

#[test]
fn a_packet_greater_than_the_buffer() {
    let long: Vec<u8> =
        (0..15_u32 << 20).map(|byte| byte.wrapping_mul(0x9e37_79b9) as u8).collect();
    let order = Order::Big;
    let time = (1, 0);
    let pcap = [
        pcap_header(order, MICROSECONDS, 1),
        pcap_record(order, time, b"before", 6),
        pcap_record(order, time, &long, long.len() as u32),
        pcap_record(order, time, b"behind", 6),
    ];
    let pcapng = [
        section(order),
        Description { link_type: 1, ..Description::default() }.block(order),
        enhanced(order, 0, 1_000_000, b"before", 6),
        enhanced(order, 0, 1_000_000, &long, long.len() as u32),
        enhanced(order, 0, 1_000_000, b"behind", 6),
    ];
    for content in [pcap.concat(), pcapng.concat()] {
        let packets = read(&content);
        let expected = [b"before".as_slice(), &long, b"behind"];
        assert!(packets.iter().map(|packet| packet.data.as_slice()).eq(expected));
    }
}

proptest! {
    /// Any packets, in both formats and orders: what was written is read, across the buffer's edges too.
    #[test]
    fn any_packets(
        big: bool,
        packets in prop::collection::vec(
            (any::<u32>(), 0..1_000_000_000_u32, 0..9000_usize, any::<u32>()),
            0..80,
        ),
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut pcap = pcap_header(order, NANOSECONDS, 1);
        let description = Description { link_type: 1, resolution: Some(9), ..Description::default() };
        let mut pcapng = [section(order), description.block(order)].concat();
        let mut expected = Vec::new();
        for (seconds, ns, len, wire_len) in &packets {
            let data = &wire_len.to_le_bytes().repeat(len / 4 + 1)[..*len];
            let time = u64::from(*seconds) * 1_000_000_000 + u64::from(*ns);
            pcap.extend(pcap_record(order, (*seconds, *ns), data, *wire_len));
            pcapng.extend(enhanced(order, 0, time, data, *wire_len));
            let wire_len = (*wire_len).max(data.len() as u32);
            expected.push(Owned { wire_len, ..packet(time, data) });
        }
        prop_assert_eq!(&read(&pcap), &expected);
        prop_assert_eq!(&read(&pcapng), &expected);
    }
}
