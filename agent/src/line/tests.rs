//! Lines parse, hold every field in order, and both shapes hold the same values.

use agent_common::{
    flow::NO_WINDOW,
    key::{Address, FlowKey, LOCAL_NONE},
    record::{DirectionBy, Reason},
    window::{
        Lengths, Sums,
        slot::{IAT_MAX, LEN_MAX},
    },
};
use bytemuck::Zeroable as _;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{text::tests::written, *};

/// A record with every kind of value, over IPv4 or IPv6.
pub(crate) fn record(version: u8) -> Record {
    let (a, b) = match version {
        4 => (Address::v4([192, 0, 2, 1]), Address::v4([198, 51, 100, 200])),
        _ => (Address::v6([0x20; 16]), Address::v6([0x2a; 16])),
    };
    let key = FlowKey { a, b, port_a: 443, port_b: 50_123, proto: 6, version, ..FlowKey::zeroed() };
    let mut record = Record { key, ..smallest() };
    record.reason = Reason::Stride as u32;
    record.summary.direction_by = DirectionBy::Syn as u8;
    record.summary.first_us = 4_000_000;
    record.summary.last_us = 5_366_300;
    for (totals, packets) in record.summary.totals.iter_mut().zip([67, 33]) {
        totals.packets = packets;
        totals.bytes = packets * 723;
        totals.flags[4] = packets;
        totals.init_window = NO_WINDOW;
    }
    record.sums.lengths = [
        Lengths { packets: 43, sum: 32_714, sq_sum: 32_000_000 },
        Lengths { packets: 21, sum: 15_876, sq_sum: 16_000_000 },
    ];
    record.sums.iat_sum = 317_016;
    record.sums.iat_sq_sum = 1_709_000_000;
    record
}

/// One packet, no ports, no gaps.
fn smallest() -> Record {
    let mut record = Record::zeroed();
    record.key.version = 4;
    record.key.proto = 47;
    record.reason = Reason::Stop as u32;
    record.sums.lengths[0].packets = 1;
    record
}

fn line(shape: Shape, record: &Record, iface: &str, offset: i64) -> String {
    let mut out = Vec::new();
    LineWriter::new(shape).append(&mut out, record, &Context::new(iface, offset));
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    assert!(text.ends_with('\n'));
    text
}

fn parsed(line: &str) -> Json {
    serde_json::from_str(line).expect("a line is JSON")
}

/// The keys as they stand, which a map would sort: each is what follows `{"` or `,"` outside of text.
fn keys(line: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find('"') {
        let mut strings = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<String>();
        let text = strings.next().expect("a string").expect("a string");
        rest = &rest[start + strings.byte_offset()..];
        if rest.starts_with(':') {
            keys.push(text);
        }
    }
    keys
}

#[test]
fn a_flat_line_holds_every_field_in_order() {
    for record in [record(4), record(6), smallest()] {
        let line = line(Shape::Flat, &record, "eth0", 0);
        let names: Vec<&str> = fields().map(|field| field.name).collect();
        assert_eq!(keys(&line), names);
        assert_eq!(parsed(&line).as_object().map(serde_json::Map::len), Some(names.len()));
    }
}

#[test]
fn both_shapes_hold_the_same_values() {
    for record in [record(4), record(6), smallest()] {
        let flat = parsed(&line(Shape::Flat, &record, "eth0", 77));
        let array_line = line(Shape::Array, &record, "eth0", 77);
        let array = parsed(&array_line);
        let (envelope, others): (Vec<&Field>, Vec<&Field>) =
            fields().partition(|field| field.group == Group::Envelope);
        let mut names: Vec<&str> = envelope.iter().map(|field| field.name).collect();
        assert!(envelope.iter().all(|field| array[field.name] == flat[field.name]));
        let features: Vec<Json> = others.iter().map(|field| flat[field.name].clone()).collect();
        assert_eq!(array["features"], Json::from(features));
        names.push("features");
        assert_eq!(keys(&array_line), names);
    }
}

#[test]
fn values_are_those_of_the_record() {
    let record = record(4);
    let line = parsed(&line(Shape::Flat, &record, "eth0", 1_700_000_000_000_000));
    assert_eq!(line["proto"], 6);
    assert_eq!(line["src"], "192.0.2.1");
    assert_eq!(line["dst"], "198.51.100.200");
    assert_eq!(line["sport"], 443);
    assert_eq!(line["vlan"], Json::Null);
    assert_eq!(line["reason"], "stride");
    assert_eq!(line["midstream"], false);
    assert_eq!(line["win_packets"], 64);
    assert_eq!(line["fwd_packets"].as_u64().zip(line["bwd_packets"].as_u64()), Some((67, 33)));
    let mean = f64::from(record.sums.lengths.iter().map(|lengths| lengths.sum).sum::<u32>()) / 64.0;
    assert_eq!(line["win_len_mean"].as_f64(), Some(mean));
}

#[test]
fn odd_interface_names_survive() {
    for name in ["eth0", "a\"b\\c", "\u{1}\u{7f}", "naïve✓", "\u{fffd}", "{\":,"] {
        for shape in [Shape::Flat, Shape::Array] {
            assert_eq!(parsed(&line(shape, &smallest(), name, 0))["iface"], name);
        }
    }
}

#[test]
fn time_has_six_decimals_whatever_its_sign() {
    let seconds = |micros| written(|room| write_seconds(room, micros));
    assert_eq!(seconds(0), "0.000000");
    assert_eq!(seconds(1), "0.000001");
    assert_eq!(seconds(-1), "-0.000001");
    assert_eq!(seconds(-1_500_000), "-1.500000");
    assert_eq!(seconds(1_700_000_000_123_456), "1700000000.123456");
    assert_eq!(seconds(i64::MIN), "-9223372036854.775808");
    let record = record(4);
    let line = line(Shape::Flat, &record, "eth0", 10 - record.summary.last_us as i64);
    assert!(line.contains(",\"ts\":0.000010,"), "{line}");
}

#[test]
fn ipv4_addresses_are_as_the_standard_library_writes_them() {
    for octets in [[0, 0, 0, 0], [255, 255, 255, 255], [10, 0, 99, 100], [1, 20, 200, 9]] {
        let address = IpAddr::from(octets);
        assert_eq!(written(|room| write_address(room, address)), address.to_string());
    }
}

proptest! {
    #[test]
    fn ipv6_addresses_are_as_the_standard_library_writes_them(groups: [u16; 8], zeros: u8, short: u8) {
        let mut groups = groups;
        for (place, group) in groups.iter_mut().enumerate() {
            *group >>= if short >> place & 1 == 0 { 0 } else { *group & 15 };
            *group *= u16::from(zeros >> place & 1);
        }
        let mapped = [0, 0, 0, 0, 0, 0xffff, groups[6], groups[7]];
        for address in [groups, mapped].map(IpAddr::from) {
            prop_assert_eq!(written(|room| write_address(room, address)), address.to_string());
        }
    }
}

#[test]
fn the_place_of_what_was_lost_is_told() {
    for writer in [LineWriter::new(Shape::Flat), LineWriter::new(Shape::Array), LineWriter::csv()] {
        let mut out = b"before".to_vec();
        let mut places = Vec::new();
        for record in [record(4), record(6), smallest()] {
            places.push(writer.append(&mut out, &record, &Context::new("eth0", 0)).lost);
        }
        assert_eq!(places.len(), 3);
        let text = str::from_utf8(&out).expect("UTF-8");
        let field = fields().position(|field| field.name == LOST).expect("the field");
        for (line, place) in text["before".len()..].split_inclusive('\n').zip(places) {
            let offset = line.as_ptr().addr() - text.as_ptr().addr();
            let (before, behind) = line.split_at(place - offset);
            assert!(behind.starts_with("0,"), "{behind}");
            match writer.syntax {
                Syntax::Json => assert!(before.ends_with("\"lost\":"), "{before}"),
                Syntax::Csv => assert_eq!(before.matches(',').count(), field),
            }
        }
    }
}

/// The values of a line of CSV, by the rules of RFC 4180.
fn cells(line: &str) -> Vec<String> {
    let line = line.strip_suffix("\r\n").expect("CRLF");
    let mut cells = vec![String::new()];
    let mut inside = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("a cell");
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                cell.push(chars.next().expect("a quote"));
            }
            '"' => inside = !inside,
            ',' if !inside => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    assert!(!inside, "a quote is open: {line}");
    cells
}

#[test]
fn csv_holds_the_same_values() {
    for (record, iface) in [(record(4), "eth0"), (record(6), "a\"b,c"), (smallest(), "x y")] {
        let writer = LineWriter::csv();
        let mut out = Vec::new();
        writer.append(&mut out, &record, &Context::new(iface, 77));
        let values = cells(str::from_utf8(&out).expect("UTF-8"));
        let names = cells(str::from_utf8(&writer.header()).expect("UTF-8"));
        assert!(names.iter().map(String::as_str).eq(fields().map(|field| field.name)));
        let json = parsed(&line(Shape::Flat, &record, iface, 77));
        assert_eq!(values.len(), names.len());
        for (name, value) in names.iter().zip(&values) {
            match &json[name] {
                Json::Null => assert_eq!(value, ""),
                Json::String(text) => assert_eq!(value, text),
                other if name == "ts" => assert_eq!(value.parse().ok(), other.as_f64()),
                other => assert_eq!(value, &other.to_string()),
            }
        }
    }
}

/// The largest integers that there can be, and floats of many digits.
#[test]
fn the_longest_line_finds_room() {
    let iface = "\u{1}\"".repeat(1000);
    let process = Arc::new(Process::called(&iface));
    let context = Context { iface: &iface, process: Some(&process), epoch_offset_us: i64::MIN };
    for version in [4, 6] {
        let mut longest: Record = bytemuck::pod_read_unaligned(&[0xff; size_of::<Record>()]);
        longest.key.version = version;
        longest.key.proto = 6;
        longest.reason = Reason::Interval as u32;
        longest.summary.direction_by = DirectionBy::SynAck as u8;
        longest.key.local = LOCAL_NONE;
        let sum = 31 * LEN_MAX + 1;
        longest.sums = Sums {
            lengths: [Lengths { packets: 32, sum, sq_sum: u64::from(LEN_MAX) * u64::from(sum) }; 2],
            iat_sum: 62 * IAT_MAX + 1,
            iat_sq_sum: IAT_MAX * (62 * IAT_MAX + 1),
            flags: 0x4040_4040_4040_4040,
            len_entropy: 12_345,
            iat_entropy: 12_345,
        };
        for shape in [Shape::Flat, Shape::Array] {
            let mut out = Vec::new();
            LineWriter::new(shape).append(&mut out, &longest, &context);
            let line = parsed(str::from_utf8(&out).expect("UTF-8"));
            for name in ["iface", "comm", "exe", "cgroup"] {
                assert_eq!(line[name], Json::from(iface.clone()));
            }
            assert_eq!(line["vlan"], Json::from(65535));
        }
        let mut csv = Vec::new();
        LineWriter::csv().append(&mut csv, &longest, &context);
        assert_eq!(cells(str::from_utf8(&csv).expect("UTF-8")).len(), fields().count());
    }
}
