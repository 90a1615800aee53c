//! Files that are cut off, damaged, or no captures.

use std::fs;

use proptest::prelude::*;

use super::{
    write::{
        Description, MICROSECONDS, ORDERS, Order, block, enhanced, obsolete, pcap_header,
        pcap_record, section, simple,
    },
    *,
};

/// A capture in pieces.
struct Sample {
    /// Without which it is none.
    header: Vec<u8>,
    /// Each with its count of packets.
    pieces: Vec<(Vec<u8>, usize)>,
}

impl Sample {
    fn whole(&self) -> Vec<u8> {
        let pieces = self.pieces.iter().flat_map(|(bytes, _)| bytes);
        self.header.iter().chain(pieces).copied().collect()
    }
}

/// A pcap file and a pcapng file.
fn samples(order: Order) -> [Sample; 2] {
    let record = |data: &[u8]| pcap_record(order, (1, 2), data, 60);
    let ethernet = Description { link_type: 1, ..Description::default() };
    let pcap = vec![(record(b"one"), 1), (record(b""), 1), (record(b"three"), 1)];
    let pcapng = vec![
        (ethernet.block(order), 0),
        (enhanced(order, 0, 1_000_002, b"one", 60), 1),
        (block(order, 99, b"who knows"), 0),
        (section(order), 0),
        (ethernet.block(order), 0),
        (simple(order, b"tw", 2), 1),
        (obsolete(order, 0, 3, b"three", 5), 1),
    ];
    [
        Sample { header: pcap_header(order, MICROSECONDS, 1), pieces: pcap },
        Sample { header: section(order), pieces: pcapng },
    ]
}

#[test]
fn a_cut_at_every_byte() {
    for sample in ORDERS.into_iter().flat_map(samples) {
        let whole = sample.whole();
        let packets = read(&whole);
        let Sample { header, pieces } = sample;
        for cut in 0..header.len() {
            let error = read_all(&[&whole[..cut]]).expect_err("no header").to_string();
            let expected = match cut {
                0 => "is empty",
                1..4 => "is no capture",
                _ => "holds no packet that can be read: it ends inside",
            };
            assert!(error.contains(expected), "{cut}: {error}");
        }
        let (mut before, mut count) = (header.len(), 0);
        for (piece, more) in &pieces {
            for len in 0..piece.len() {
                let outcome = read_all(&[&whole[..before + len]]).expect("a header");
                assert_eq!(outcome.packets, packets[..count], "{before} + {len}");
                if len == 0 {
                    assert!(outcome.errors.is_empty(), "a clean end: {:?}", outcome.errors);
                    continue;
                }
                let [(at, error)] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
                assert_eq!(*at, count);
                let expected = format!("cannot be read beyond byte {before}: it ends inside ");
                assert!(error.contains(&expected), "{error}");
            }
            before += piece.len();
            count += more;
        }
        assert_eq!(count, packets.len());
    }
}

/// The only error of a capture, and the packets before.
fn broken(content: &[u8]) -> (usize, String) {
    let outcome = read_all(&[content]).expect("a header");
    assert_eq!(outcome.errors.len(), 1, "{:?}", outcome.errors);
    assert_eq!(outcome.packets.len(), outcome.errors[0].0);
    outcome.errors.into_iter().next().expect("one")
}

#[test]
fn each_kind_of_damage_has_its_sentence() {
    for order in ORDERS {
        let words =
            |words: &[u32]| words.iter().flat_map(|word| order.u32(*word)).collect::<Vec<u8>>();
        let pcap =
            [pcap_header(order, MICROSECONDS, 1), pcap_record(order, (0, 0), b"abc", 3)].concat();
        let start = [
            section(order),
            Description { link_type: 1, ..Description::default() }.block(order),
            enhanced(order, 0, 0, b"abc", 3),
        ]
        .concat();
        let mut other_version = section(order);
        other_version[12..14].copy_from_slice(&order.u16(2));
        let mut no_order = section(order);
        no_order[8] = 0;
        let too_long = (16 << 20) + 1;
        for (start, damage, expected) in [
            (&pcap, words(&[0, 0, too_long, 60]), "a packet claims to be 16777217 bytes long"),
            (&pcap, words(&[0, 0, u32::MAX, 60]), "a packet claims to be 4294967295 bytes long"),
            (&pcap, words(&[0, 0, too_long - 1, 60]), "it ends inside a packet,"),
            (&start, words(&[77, u32::MAX, 0]), "a block claims to be 4294967295 bytes long"),
            (&start, words(&[77, 11, 0]), "a block claims to be 11 bytes long, less than its own"),
            (&start, words(&[77, 0, 0]), "a block claims to be 0 bytes long, less than its own"),
            (
                &start,
                words(&[77, 16, 0, 20]),
                "at its beginning that it is 16 bytes long, and at its end 20",
            ),
            (&start, block(order, 6, &[0; 16]), "a packet's block is shorter than its own header"),
            (&start, block(order, 2, &[]), "a packet's block is shorter than its own header"),
            (&start, block(order, 3, &[]), "a packet's block is shorter than its own header"),
            (&start, block(order, 1, &[0; 4]), "an interface's description makes no sense"),
            (
                &start,
                block(order, 6, &words(&[0, 0, 0, 5, 5, 0])),
                "a packet of 5 captured bytes does not fit",
            ),
            (
                &start,
                enhanced(order, 1, 0, b"", 0),
                "a packet is of interface 1, of which nothing was said before (known are 1)",
            ),
            (&start, obsolete(order, 9, 0, b"", 0), "a packet is of interface 9, "),
            (
                &start,
                [section(order), simple(order, b"", 0)].concat(),
                "a packet is of interface 0, ",
            ),
            (&start, other_version, "a section is of version 2.0 of the pcapng format"),
            (&start, no_order, "a section's header makes no sense"),
        ] {
            let (packets, error) = broken(&[start, &damage[..]].concat());
            assert_eq!(packets, 1, "{error}");
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("What came before it was read"), "{error}");
        }
    }
}

#[test]
fn what_is_no_capture_is_told_at_once() {
    let mut old = pcap_header(Order::Little, MICROSECONDS, 1);
    old[4] = 1;
    for (content, expected) in [
        (
            &b"\x7fELF and so on"[..],
            "is no capture: it begins with the bytes 7f 45 4c 46. pcap and",
        ),
        (b"hi", "is no capture: it begins with the bytes 68 69. "),
        (b"BZh91AY", "It looks like bzip2: pipe it, as in `bzcat"),
        (b"\xfd7zXZ\0", "It looks like xz: pipe it, as in `xzcat"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0", "is empty (decompressed by gzip)"),
        (b"\x1f\x8b", "holds no packet that can be read: the gzip data ends too early"),
        (b"\x1f\x8b\x07 what", "holds no packet that can be read: the gzip data is damaged"),
        (b"\x28\xb5\x2f\xfd", "holds no packet that can be read: the zstd data ends too early"),
        (&old, "it is of version 1.4 of the pcap format"),
    ] {
        let error = read_all(&[content]).expect_err("no capture").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_cannot_be_opened() {
    let folder = std::env::temp_dir();
    let missing = folder.join("feature-agent-no-such-file.pcap");
    let paths = |path: &PathBuf| Captures::open(slice::from_ref(path), NAMELESS);
    let error = format!("{:#}", paths(&missing).expect_err("it is not there"));
    assert_eq!(
        error,
        format!("cannot open `{}`: No such file or directory (os error 2)", missing.display())
    );
    let error = paths(&folder).expect_err("a directory").to_string();
    assert!(error.contains("is a directory. Name the captures in it"), "{error}");
    let twice = Captures::open(&["-".into(), "-".into()], NAMELESS).expect_err("once").to_string();
    assert!(twice.contains("stdin can be read but once"), "{twice}");
    assert!(fs::exists(&folder).is_ok_and(|there| there));
}

#[test]
fn a_file_that_is_made_shorter_while_it_is_read() {
    const RECORD: usize = 1000;
    let body = [7; RECORD - 16];
    let record = pcap_record(Order::Little, (1, 0), &body, 1500);
    let content = [pcap_header(Order::Little, MICROSECONDS, 1), record.repeat(200)].concat();
    let rests =
        [(14, 500), (199, 500), (199, 999), (10, 500), (10, 0), (10, 8), (20, 0), (20, 456)];
    for (whole, rest) in rests.into_iter().chain([(20, 457), (0, 0), (90, 0), (120, 3)]) {
        for limit in [1, 5, 64] {
            let file = Memory::new(&content);
            let mut captures = Captures::open(&[file.path()], NAMELESS).expect("a capture");
            let first = captures.next_batch(5).expect("packets").expect("whole").len();
            let left = 24 + RECORD * whole + rest;
            file.truncate(left as u64);
            let outcome = drain(&mut captures, limit);
            let Outcome { packets, errors } = outcome;
            // One more may be cut off, and one be empty, where the file was not looked at in time.
            let count = whole.saturating_sub(first);
            assert!((count..=count + 1).contains(&packets.len()), "{left}: {}", packets.len());
            assert!(packets[..count].iter().all(|packet| packet.data == body));
            assert!(packets[count..].iter().all(|packet| packet.data.len() == body.len()));
            let [(at, error)] = &errors[..] else { panic!("{left} bytes, {limit}: {errors:?}") };
            let given = 24 + RECORD * (first + packets.len());
            let expected = format!("cannot be read beyond byte {given}: it was made shorter while");
            assert!(error.contains(&expected), "{left} bytes, {limit}: {error}");
            assert_eq!(*at, packets.len());
        }
    }
}

#[test]
fn a_pcapng_file_that_is_made_shorter_while_it_is_read() {
    let order = Order::Little;
    let body = [7; 968];
    let head = [section(order), Description::ethernet("eth0").block(order)].concat();
    let packet = enhanced(order, 0, 1_000_000, &body, 1500);
    let content = [&head[..], &packet.repeat(200)].concat();
    for (whole, rest) in [(14, 500), (199, 500), (10, 0), (10, 8), (90, 0), (120, 3), (5, 998)] {
        let file = Memory::new(&content);
        let mut captures = Captures::open(&[file.path()], NAMELESS).expect("a capture");
        let first = captures.next_batch(5).expect("packets").expect("whole").len();
        file.truncate((head.len() + packet.len() * whole + rest) as u64);
        let Outcome { packets, errors } = drain(&mut captures, 5);
        assert_eq!(packets.len(), whole - first, "{whole} and {rest} bytes");
        assert!(packets.iter().all(|packet| packet.data == body));
        let [(_, error)] = &errors[..] else { panic!("{whole}: {errors:?}") };
        assert!(error.contains("it was made shorter while it was read"), "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        // Either answer is right; it is enough that there is one.
        if let Ok(outcome) = read_all(&[&bytes]) {
            prop_assert!(outcome.errors.len() <= 1);
        }
    }

    #[test]
    fn garbage_behind_a_capture(
        big: bool,
        pcapng: bool,
        bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 1..300),
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut content = samples(order)[usize::from(pcapng)].whole();
        let packets = read(&content);
        content.extend(bytes);
        let outcome = read_all(&[&content]).expect("a header");
        prop_assert_eq!(&outcome.packets[..packets.len()], packets);
        prop_assert!(outcome.errors.len() <= 1);
    }

    /// Fields that are right in their form and wrong in their meaning.
    #[test]
    fn a_changed_capture(
        big: bool,
        pcapng: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let order = if big { Order::Big } else { Order::Little };
        let mut content = samples(order)[usize::from(pcapng)].whole();
        for (place, byte) in changes {
            let place = place.index(content.len());
            content[place] = byte;
        }
        if let Ok(outcome) = read_all(&[&content]) {
            prop_assert!(outcome.errors.len() <= 1);
        }
    }
}
