//! gzip and zstd, by their own tools' rules.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::{
    write::{MICROSECONDS, Order, pcap_header, pcap_record},
    *,
};

/// A capture of many packets, and the packets.
fn capture(count: u32) -> (Vec<u8>, Vec<Owned>) {
    let order = Order::Little;
    let mut content = pcap_header(order, MICROSECONDS, 1);
    let mut packets = Vec::new();
    for index in 0..count {
        let data = index.wrapping_mul(0x9e37_79b9).to_le_bytes().repeat(1 + index as usize % 50);
        content.extend(pcap_record(order, (index, 0), &data, data.len() as u32));
        packets.push(packet(u64::from(index) * 1_000_000_000, &data));
    }
    (content, packets)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("memory");
    encoder.include_checksum(true).expect("there is one");
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// A frame of zstd by hand: one raw block a piece of the content, and no check sum (RFC 8878, section 3.1.1).
fn zstd_raw(content: &[u8]) -> Vec<u8> {
    // No single segment; a window of 8 MiB.
    let mut frame = [&0xfd2f_b528_u32.to_le_bytes()[..], &[0, 13 << 3]].concat();
    let mut blocks = content.chunks(1000).peekable();
    while let Some(bytes) = blocks.next() {
        let header = (bytes.len() as u32) << 3 | u32::from(blocks.peek().is_none());
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(bytes);
    }
    frame
}

/// A frame of zstd that is to be skipped.
fn skippable(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_le_bytes();
    [&0x184d_2a53_u32.to_le_bytes()[..], &length, content].concat()
}

#[test]
fn members_and_frames_follow_each_other() {
    let (content, packets) = capture(3000);
    let (one, two) = content.split_at(content.len() / 3);
    let comment = b"\x1f\x8b\x08\x10\0\0\0\0\0\x03a comment\0";
    let commented = [comment, &gzip(two)[10..]].concat();
    for compressed in [
        gzip(&content),
        [gzip(one), gzip(b""), gzip(two)].concat(),
        [gzip(one), commented].concat(),
        [gzip(one), gzip(two), vec![0; 70_000]].concat(),
        [gzip(one), vec![0; 3], gzip(two)].concat(),
        zstd(&content),
        zstd_raw(&content),
        [zstd(one), zstd(two)].concat(),
        [skippable(b""), zstd(one), skippable(&vec![7; 70_000]), zstd_raw(two), skippable(b"x")]
            .concat(),
    ] {
        assert_eq!(read(&compressed), packets);
    }
}

/// The packets that lie in the first bytes of a capture.
fn whole_ones(packets: &[Owned], len: usize) -> usize {
    let ends = packets.iter().scan(24, |end, packet| {
        *end += 16 + packet.data.len();
        Some(*end)
    });
    ends.take_while(|end| *end <= len).count()
}

#[test]
fn all_before_a_cut_is_read() {
    let (content, packets) = capture(3000);
    for (compressed, stored) in
        [(zstd_raw(&content), true), (gzip(&content), false), (zstd(&content), false)]
    {
        for part in 1..20 {
            let cut = compressed.len() * part / 20;
            let Ok(outcome) = read_all(&[&compressed[..cut]]) else {
                // Its first block is a third of it.
                assert!(!stored && part < 8, "its begin is there");
                continue;
            };
            let count = outcome.packets.len();
            assert_eq!(outcome.packets, packets[..count]);
            if stored {
                let (blocks, part) = ((cut - 6) / 1003, (cut - 6) % 1003);
                assert_eq!(count, whole_ones(&packets, blocks * 1000 + part.saturating_sub(3)));
            }
            assert!(count > 0 || part < 19, "nothing of {cut} bytes");
            let [(at, error)] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
            assert_eq!(*at, count);
            assert!(error.contains("data ends too early, so it was cut off"), "{error}");
        }
    }
}

#[test]
fn a_cut_gzip_gives_what_gzip_gives() {
    let (content, packets) = capture(3000);
    let compressed = gzip(&content);
    let mut counts = Vec::new();
    for cut in (compressed.len() - 3000..compressed.len()).step_by(100) {
        let outcome = read_all(&[&compressed[..cut]]).expect("it begins well");
        let mut plain = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&compressed[..cut]);
        std::io::Read::read_to_end(&mut decoder, &mut plain).expect_err("cut off");
        assert_eq!(outcome.packets.len(), whole_ones(&packets, plain.len()));
        counts.push(outcome.packets.len());
    }
    assert!(counts.is_sorted() && counts.first() < counts.last(), "{counts:?}");
}

#[test]
fn a_wrong_check_sum_is_told_behind_the_packets() {
    // The last block is smaller, and larger, than what is read at once.
    for count in [10, 3000] {
        let (content, packets) = capture(count);
        let mut zipped = gzip(&content);
        let place = zipped.len() - 8;
        zipped[place] ^= 1;
        let mut frame = zstd(&content);
        *frame.last_mut().expect("a check sum") ^= 1;
        for (compressed, format) in [(zipped, "gzip"), (frame, "zstd")] {
            let outcome = read_all(&[&compressed]).expect("it begins well");
            assert_eq!(outcome.packets, packets);
            let [(at, error)] = &outcome.errors[..] else { panic!("{:?}", outcome.errors) };
            assert_eq!(*at, packets.len());
            let expected = format!(
                "cannot be read beyond byte {} of what {format} decompresses: the {format} data is \
                 damaged (",
                content.len()
            );
            assert!(error.contains(&expected), "{error}");
        }
    }
}

#[test]
fn a_damaged_block_takes_nothing_of_those_before_it() {
    let (content, packets) = capture(100);
    let frame = zstd_raw(&content);
    for block in 1..content.len() / 1000 {
        let mut damaged = frame.clone();
        // A type of block that there is not.
        damaged[6 + block * 1003] |= 6;
        let outcome = read_all(&[&damaged]).expect("it begins well");
        let whole = whole_ones(&packets, block * 1000);
        assert_eq!((outcome.packets.len(), outcome.errors.len()), (whole, 1), "block {block}");
    }
}

#[test]
fn what_follows_is_no_part_of_it() {
    let (content, packets) = capture(10);
    for compressed in [gzip(&content), zstd(&content)] {
        let outcome =
            read_all(&[&[&compressed[..], b"and more"].concat()]).expect("it begins well");
        assert_eq!(outcome.packets, packets);
        assert_eq!(outcome.errors.len(), 1);
        assert!(outcome.errors[0].1.contains("data is damaged"), "{:?}", outcome.errors);
    }
}

#[test]
fn damage_anywhere_never_panics() {
    let (content, packets) = capture(100);
    for compressed in [gzip(&content), zstd(&content), zstd_raw(&content)] {
        for place in (0..compressed.len()).step_by(compressed.len() / 200 + 1) {
            for bit in [1, 0x80] {
                let mut damaged = compressed.clone();
                damaged[place] ^= bit;
                let Ok(outcome) = read_all(&[&damaged]) else { continue };
                // Without a check sum damage may go unnoticed.
                let whole = outcome.packets == packets;
                assert!(whole || !outcome.errors.is_empty() || compressed == zstd_raw(&content));
            }
        }
    }
}

#[test]
fn what_zstd_cannot_do_alone_is_told() {
    let (content, _) = capture(10);
    let frame = zstd_raw(&content);
    // A window of 256 MiB; a dictionary of the number 7.
    let large = [&frame[..5], &[18 << 3], &frame[6..]].concat();
    let foreign = [&frame[..4], &[1], &frame[5..6], &[7], &frame[6..]].concat();
    for (compressed, way) in [(large, "`zstd -d --long=31`"), (foreign, "`zstd -d -D`")] {
        let error = read_all(&[&compressed]).expect_err("nothing can be read").to_string();
        assert!(error.contains(way), "{error}");
    }
}
