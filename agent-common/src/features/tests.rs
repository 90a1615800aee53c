//! Names, nulls and values of the fields; the oracle of the tests crate holds the arithmetic.

use std::{collections::HashSet, net::IpAddr, vec::Vec};

use bytemuck::Zeroable;

use super::*;
use crate::{
    key::{Address, Endpoint, FlowKey, icmp_ports, is_swapped},
    owner::{Owner, USED},
    record::Reason,
    window::{Lengths, Sums},
};

fn key(src: &str, sport: u16, dst: &str, dport: u16, proto: u8) -> FlowKey {
    let address = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(ip) => Address::v4(ip.octets()),
        IpAddr::V6(ip) => Address::v6(ip.octets()),
    };
    let src = Endpoint { address: address(src), port: sport };
    let dst = Endpoint { address: address(dst), port: dport };
    let (a, b) = if is_swapped(proto, &src, &dst) { (dst, src) } else { (src, dst) };
    FlowKey {
        a: a.address,
        b: b.address,
        port_a: a.port,
        port_b: b.port,
        proto,
        version: if src.address.octets()[..10] == [0; 10] { 4 } else { 6 },
        ..FlowKey::zeroed()
    }
}

/// The baseline values that the specification publishes.
#[test]
fn community_ids_are_the_published_ones() {
    let cases = [
        ("128.232.110.120", 34855, "66.35.250.204", 80, 6, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("66.35.250.204", 80, "128.232.110.120", 34855, 6, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        ("192.168.1.52", 54585, "8.8.8.8", 53, 17, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
        ("192.168.170.8", 7, "192.168.170.56", 80, 132, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
    ];
    for (src, sport, dst, dport, proto, id) in cases {
        assert_eq!(CommunityId::of(&key(src, sport, dst, dport, proto)).as_str(), id);
    }
}

#[test]
fn an_icmp_echo_and_its_reply_are_one_flow() {
    let (request, reply) = (icmp_ports(1, 8, 0), icmp_ports(1, 0, 0));
    let there = key("192.168.0.89", request.0, "192.168.0.1", request.1, 1);
    let back = key("192.168.0.1", reply.0, "192.168.0.89", reply.1, 1);
    assert_eq!(there, back);
    assert_eq!(CommunityId::of(&there).as_str(), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
    // An unreachable message is answered by none: its ends keep their order.
    let (kind, code) = icmp_ports(1, 3, 1);
    assert_ne!(
        key("192.168.0.89", kind, "192.168.0.1", code, 1),
        key("192.168.0.1", kind, "192.168.0.89", code, 1)
    );
}

#[test]
fn names_are_unique_and_definitions_complete() {
    let mut seen = HashSet::new();
    for field in fields() {
        assert!(seen.insert(field.name), "{} stands twice", field.name);
        assert!(!field.formula.is_empty(), "{} is not explained", field.name);
    }
}

#[test]
fn the_schema_has_a_name_of_its_own() {
    let id = schema_id();
    let (version, hash) = id.as_str().split_once(':').unwrap();
    assert_eq!(version, SCHEMA_VERSION);
    assert_eq!(hash.len(), 8);
    assert!(hash.chars().all(|c| c.is_ascii_hexdigit()));
}

/// A window of 64 packets, each as long and as late as a slot can say.
fn full_window() -> Sums {
    const LEN: u32 = 1_048_575;
    Sums {
        lengths: [Lengths { packets: 32, sum: 32 * LEN, sq_sum: 32 * u64::from(LEN).pow(2) }; 2],
        iat_sum: 63 * ((1 << 28) - 1),
        iat_sq_sum: 63 * ((1 << 28) - 1) * ((1 << 28) - 1),
        flags: 0x4040_4040_4040_4040,
        ..Sums::zeroed()
    }
}

/// Whatever integers stand in a record that decodes, no value is NaN or infinite, and a null is a
/// documented one.
fn vector<'a>(
    record: &'a Record,
    process: Option<Process<'a>>,
    lost: u64,
    schema: &'a SchemaId,
) -> Vector<'a> {
    Vector { record, iface: "x", process, epoch_offset_us: 0, lost, schema }
}

#[test]
fn every_value_is_finite_or_a_documented_null() {
    let mut record = Record::zeroed();
    record.key.version = 4;
    record.reason = Reason::Stop as u32;
    record.sums.lengths[0].packets = 1;
    let one = record;
    record.sums = full_window();
    for record in [one, record] {
        let schema = schema_id();
        let vector = vector(&record, None, 0, &schema);
        let nulls: Vec<&str> = fields()
            .filter_map(|field| match (field.value)(&vector) {
                Value::Float(value) => {
                    assert!(value.is_finite() && value >= 0.0, "{} {value}", field.name);
                    None
                }
                Value::Null => {
                    assert!(!field.null.is_empty(), "{} is null without a rule", field.name);
                    Some(field.name)
                }
                _ => None,
            })
            .collect();
        assert_eq!(nulls.contains(&"win_iat_mean_us"), record == one);
    }
}

/// What stands in a column must fit into it, whatever a record holds that a kernel program may write.
#[test]
fn every_value_is_of_its_fields_type() {
    let mut record = Record::zeroed();
    record.key.version = 6;
    record.key.proto = u8::MAX;
    record.sums.lengths[0].packets = 1;
    let least = record;
    record.key.proto = 6;
    (record.key.port_a, record.key.port_b) = (u16::MAX, u16::MAX);
    (record.key.vlan, record.key.vlan_inner) = (u16::MAX, u16::MAX);
    for totals in &mut record.summary.totals {
        (totals.packets, totals.bytes, totals.payload_bytes) = (u64::MAX, u64::MAX, u64::MAX);
        (totals.flags, totals.ttl_min, totals.ttl_max) = ([u64::MAX; 8], u8::MAX, u8::MAX);
        totals.init_window = u16::MAX.into();
    }
    record.summary.last_us = u64::MAX;
    (record.summary.seq, record.summary.missed) = (u32::MAX, u32::MAX);
    (record.summary.super_packets, record.summary.super_packets_kept) = (u32::MAX, u32::MAX);
    record.sums = full_window();
    record.owner =
        Owner { pid: u32::MAX, uid: u32::MAX, cgroup: u64::MAX, claim: USED, ..Owner::NOBODY };
    let extrema = &mut record.extrema;
    (extrema.len_min, extrema.len_max) = (u32::MAX, u32::MAX);
    (extrema.iat_min, extrema.iat_max) = (u32::MAX, u32::MAX);
    let schema = schema_id();
    let words = Reason::ALL.map(|reason| Record { reason: reason as u32, ..record });
    for record in words.iter().chain([&least]) {
        let process = Process { comm: "c", exe: Some("e"), cgroup: Some("/"), container_id: None };
        let vector = vector(record, Some(process), u64::MAX, &schema);
        for field in fields() {
            let value = (field.value)(&vector);
            let fits = match (field.kind, value) {
                (_, Value::Null) => !field.null.is_empty(),
                (Type::U8, Value::Integer(n)) => u8::try_from(n).is_ok(),
                (Type::U16, Value::Integer(n)) => u16::try_from(n).is_ok(),
                (Type::U32, Value::Integer(n)) => u32::try_from(n).is_ok(),
                (Type::U64, Value::Integer(_))
                | (Type::Float, Value::Float(_))
                | (Type::Time, Value::UnixMicros(_))
                | (Type::Bool, Value::Bool(_))
                | (
                    Type::Text,
                    Value::Text(_) | Value::Word(_) | Value::Address(_) | Value::CommunityId(_),
                ) => true,
                (Type::Word(words), Value::Word(word)) => words.contains(&word),
                _ => false,
            };
            assert!(fits, "{}: {value:?} is no {:?}", field.name, field.kind);
        }
    }
}
