//! What a flow has carried since it began.

use super::{Field, Group::Totals, Type::Integer, Value, Vector};
use crate::flow::NO_WINDOW;

const fn field(
    name: &'static str,
    unit: &'static str,
    formula: &'static str,
    null: &'static str,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
) -> Field {
    Field { name, group: Totals, kind: Integer, unit, formula, null, value }
}

/// Of both directions together.
pub(super) const FLOW: &[Field] =
    &[field("flow_duration_us", "µs", "time of the last packet - time of the first", "", |v| {
        let summary = &v.record.summary;
        Value::Integer(summary.last_us.saturating_sub(summary.first_us))
    })];

/// The fields of one direction.
macro_rules! direction {
    ($prefix:literal, $direction:literal) => {
        &[
            field(concat!($prefix, "packets"), "packets", "wire packets", "", |v| {
                Value::Integer(of::<$direction>(v).packets)
            }),
            field(
                concat!($prefix, "bytes"),
                "B",
                "Σ len; len: IP length of a wire packet",
                "",
                |v| Value::Integer(of::<$direction>(v).bytes),
            ),
            field(
                concat!($prefix, "payload_bytes"),
                "B",
                "Σ bytes above the transport header",
                "",
                |v| Value::Integer(of::<$direction>(v).payload_bytes),
            ),
            field(
                concat!($prefix, "fin"),
                "packets",
                "packets with FIN",
                "",
                flag::<$direction, 0>,
            ),
            field(
                concat!($prefix, "syn"),
                "packets",
                "packets with SYN",
                "",
                flag::<$direction, 1>,
            ),
            field(
                concat!($prefix, "rst"),
                "packets",
                "packets with RST",
                "",
                flag::<$direction, 2>,
            ),
            field(
                concat!($prefix, "psh"),
                "packets",
                "packets with PSH",
                "",
                flag::<$direction, 3>,
            ),
            field(
                concat!($prefix, "ack"),
                "packets",
                "packets with ACK",
                "",
                flag::<$direction, 4>,
            ),
            field(
                concat!($prefix, "urg"),
                "packets",
                "packets with URG",
                "",
                flag::<$direction, 5>,
            ),
            field(
                concat!($prefix, "ece"),
                "packets",
                "packets with ECE",
                "",
                flag::<$direction, 6>,
            ),
            field(
                concat!($prefix, "cwr"),
                "packets",
                "packets with CWR",
                "",
                flag::<$direction, 7>,
            ),
            field(concat!($prefix, "ttl_min"), "", "smallest TTL or hop limit", NO_PACKET, |v| {
                let totals = of::<$direction>(v);
                value(totals.packets > 0, totals.ttl_min.into())
            }),
            field(concat!($prefix, "ttl_max"), "", "largest TTL or hop limit", NO_PACKET, |v| {
                let totals = of::<$direction>(v);
                value(totals.packets > 0, totals.ttl_max.into())
            }),
            field(
                concat!($prefix, "init_window"),
                "",
                "TCP window field of the direction's first packet, unscaled",
                "not TCP, or no packet in this direction",
                |v| {
                    let window = of::<$direction>(v).init_window;
                    value(window != NO_WINDOW, window)
                },
            ),
        ]
    };
}

const NO_PACKET: &str = "no packet in this direction";

/// From the initiator.
pub(super) const FWD: &[Field] = direction!("fwd_", 0);
/// To the initiator.
pub(super) const BWD: &[Field] = direction!("bwd_", 1);

fn of<'a, const DIRECTION: usize>(vector: &Vector<'a>) -> &'a crate::flow::Totals {
    &vector.record.summary.totals[DIRECTION]
}

fn flag<'a, const DIRECTION: usize, const BIT: usize>(vector: &Vector<'a>) -> Value<'a> {
    Value::Integer(of::<DIRECTION>(vector).flags[BIT])
}

fn value<'a>(there: bool, value: u32) -> Value<'a> {
    if there { Value::Integer(value.into()) } else { Value::Null }
}
