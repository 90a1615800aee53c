//! Whose vector it is, when and why.

use super::{
    CommunityId, Field,
    Group::Envelope,
    Process,
    Type::{Bool, Text, Time, U8, U16, U32, U64, Word},
    Value, Vector,
};
use crate::record::{DirectionBy, Hook, Reason};

const fn field(
    name: &'static str,
    kind: super::Type,
    unit: &'static str,
    formula: &'static str,
    null: &'static str,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
) -> Field {
    Field { name, group: Envelope, kind, unit, formula, null, value }
}

/// Name of the one field that differs between the consumers of a vector.
pub const LOST: &str = "lost";

const NO_PORTS: &str = "protocol without ports";
const NO_VLAN: &str = "no such tag";

const NO_INTERFACE: &str = "hook socket";
const NO_PROCESS: &str = "without --process; no local socket is known";
const NOT_FOUND: &str = "as pid; it was gone, or hidden, when it was looked for";

const HOOKS: &[&str] = &[Hook::Tc.name(), Hook::Socket.name()];
const RULES: &[&str] =
    &[DirectionBy::First.name(), DirectionBy::Syn.name(), DirectionBy::SynAck.name()];
const REASONS: &[&str] = &{
    let mut words = [""; Reason::ALL.len()];
    let mut place = 0;
    while place < words.len() {
        words[place] = Reason::ALL[place].name();
        place += 1;
    }
    words
};

/// The envelope's fields.
pub(super) const FIELDS: &[Field] = &[
    field("schema", Text, "", "version, and a hash over every field's definition", "", |v| {
        Value::Word(v.schema.as_str())
    }),
    field("ts", Time, "s", "unix time of the flow's last packet, six decimals", "", |v| {
        let micros = v.record.summary.last_us as i64;
        Value::UnixMicros(micros.saturating_add(v.epoch_offset_us))
    }),
    field("iface", Text, "", "interface", NO_INTERFACE, |v| match v.record.hook() {
        Hook::Tc => Value::Text(v.iface),
        Hook::Socket => Value::Null,
    }),
    field(
        "hook",
        Word(HOOKS),
        "",
        "what counts as a packet: tc (one on the wire), socket (a call that sends or receives; len is its bytes)",
        "",
        |v| Value::Word(v.record.hook().name()),
    ),
    field("community_id", Text, "", "Community ID version 1, seed 0", "", |v| {
        Value::CommunityId(CommunityId::of(&v.record.key))
    }),
    field("proto", U8, "", "IP protocol number", "", |v| Value::Integer(v.record.key.proto.into())),
    field("src", Text, "", "address of the initiator", "", |v| address(v, true)),
    field("sport", U16, "", "its port; ICMP: type, as Community ID has it", NO_PORTS, |v| {
        port(v, true)
    }),
    field("dst", Text, "", "address of the other end", "", |v| address(v, false)),
    field(
        "dport",
        U16,
        "",
        "its port; ICMP: answering type, else code, as Community ID has it",
        NO_PORTS,
        |v| port(v, false),
    ),
    field("vlan", U16, "", "outermost VLAN id", NO_VLAN, |v| vlan(v.record.key.vlan)),
    field("vlan_inner", U16, "", "second VLAN id", NO_VLAN, |v| vlan(v.record.key.vlan_inner)),
    field(
        "reason",
        Word(REASONS),
        "",
        "why now: stride, interval, fin, rst, idle, active, evict, stop",
        "",
        |v| Value::Word(v.record.reason().name()),
    ),
    field("seq", U32, "", "vectors of this flow before this one", "", |v| {
        Value::Integer(v.record.summary.seq.into())
    }),
    field(
        "direction_by",
        Word(RULES),
        "",
        "what told the initiator: syn (its sender), synack (its receiver), first (packet seen)",
        "",
        |v| Value::Word(v.record.direction_by().name()),
    ),
    field("midstream", Bool, "", "a TCP flow first seen without its SYN", "", |v| {
        Value::Bool(v.record.summary.midstream != 0)
    }),
    field("missed", U32, "", "vectors of this flow delayed by a full ring", "", |v| {
        Value::Integer(v.record.summary.missed.into())
    }),
    field(
        "super_packets",
        U32,
        "",
        "super-packets (GRO, TSO) of this flow, each counted as its wire packets",
        "",
        |v| Value::Integer(v.record.summary.super_packets.into()),
    ),
    field(
        "super_packets_kept",
        U32,
        "",
        "super-packets of this flow whose segments' sizes are unknown, each counted as one packet",
        "",
        |v| Value::Integer(v.record.summary.super_packets_kept.into()),
    ),
    field(
        "pid",
        U32,
        "",
        "process of the local socket, by its id in the first PID namespace",
        NO_PROCESS,
        |v| of_process(v, |v| Value::Integer(v.record.owner.pid.into())),
    ),
    field("comm", Text, "", "its name when it used the socket first", NO_PROCESS, |v| {
        named(v, |process| Some(process.comm))
    }),
    field("exe", Text, "", "path of its program", NOT_FOUND, |v| named(v, |process| process.exe)),
    field("uid", U32, "", "its user's id in the first user namespace", NO_PROCESS, |v| {
        of_process(v, |v| Value::Integer(v.record.owner.uid.into()))
    }),
    field("cgroup", Text, "", "path of its control group", NOT_FOUND, |v| {
        named(v, |process| process.cgroup)
    }),
    field("cgroup_id", U64, "", "number of its control group", NO_PROCESS, |v| {
        of_process(v, |v| Value::Integer(v.record.owner.cgroup))
    }),
    field(
        "container_id",
        Text,
        "",
        "container that this path names",
        "as cgroup; it names none",
        |v| named(v, |process| process.container_id),
    ),
    field(
        LOST,
        U64,
        "vectors",
        "vectors made since this consumer's last one that it did not get",
        "",
        |v| Value::Integer(v.lost),
    ),
];

fn is_b(vector: &Vector<'_>, initiator: bool) -> bool {
    (vector.record.summary.initiator_is_b != 0) == initiator
}

fn address<'a>(vector: &Vector<'a>, initiator: bool) -> Value<'a> {
    let key = &vector.record.key;
    let address = if is_b(vector, initiator) { &key.b } else { &key.a };
    Value::Address(address.ip(key.family()))
}

fn port<'a>(vector: &Vector<'a>, initiator: bool) -> Value<'a> {
    let key = &vector.record.key;
    if !key.has_ports() {
        return Value::Null;
    }
    let port = if is_b(vector, initiator) { key.port_b } else { key.port_a };
    Value::Integer(port.into())
}

/// A value that only the vector of a known process has.
fn of_process<'a>(vector: &Vector<'a>, value: fn(&Vector<'a>) -> Value<'a>) -> Value<'a> {
    if vector.record.owner.is_known() { value(vector) } else { Value::Null }
}

/// What a process is called in one way or another.
fn named<'a>(vector: &Vector<'a>, name: fn(Process<'a>) -> Option<&'a str>) -> Value<'a> {
    vector.process.and_then(name).map_or(Value::Null, Value::Text)
}

fn vlan<'a>(id: u16) -> Value<'a> {
    if id == 0 { Value::Null } else { Value::Integer(id.into()) }
}
