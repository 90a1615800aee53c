//! What a flow has carried since it began.

use super::{
    Field,
    Group::Totals,
    Type::{self, U8, U16, U64},
    Value, Vector,
};
use crate::flow::NO_WINDOW;

const fn field(
    name: &'static str,
    kind: Type,
    unit: &'static str,
    formula: &'static str,
    null: &'static str,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
) -> Field {
    Field { name, group: Totals, kind, unit, formula, null, value }
}

/// Of both directions together.
pub(super) const FLOW: &[Field] = &[field(
    "flow_duration_us",
    U64,
    "µs",
    "time of the last packet - time of the first",
    "",
    |v| {
        let summary = &v.record.summary;
        Value::Integer(summary.last_us.saturating_sub(summary.first_us))
    },
)];

/// The fields of one direction.
macro_rules! direction {
    ($prefix:literal, $direction:literal) => {
        &[
            field(concat!($prefix, "packets"), U64, "packets", "wire packets", "", |v| {
                Value::Integer(of::<$direction>(v).packets)
            }),
            field(
                concat!($prefix, "bytes"),
                U64,
                "B",
                "Σ len; len: IP length of a wire packet",
                "",
                |v| Value::Integer(of::<$direction>(v).bytes),
            ),
            field(
                concat!($prefix, "payload_bytes"),
                U64,
                "B",
                "Σ bytes above the transport header",
                "",
                |v| Value::Integer(of::<$direction>(v).payload_bytes),
            ),
            field(
                concat!($prefix, "fin"),
                U64,
                "packets",
                "packets with FIN",
                "",
                flag::<$direction, 0>,
            ),
            field(
                concat!($prefix, "syn"),
                U64,
                "packets",
                "packets with SYN",
                "",
                flag::<$direction, 1>,
            ),
            field(
                concat!($prefix, "rst"),
                U64,
                "packets",
                "packets with RST",
                "",
                flag::<$direction, 2>,
            ),
            field(
                concat!($prefix, "psh"),
                U64,
                "packets",
                "packets with PSH",
                "",
                flag::<$direction, 3>,
            ),
            field(
                concat!($prefix, "ack"),
                U64,
                "packets",
                "packets with ACK",
                "",
                flag::<$direction, 4>,
            ),
            field(
                concat!($prefix, "urg"),
                U64,
                "packets",
                "packets with URG",
                "",
                flag::<$direction, 5>,
            ),
            field(
                concat!($prefix, "ece"),
                U64,
                "packets",
                "packets with ECE",
                "",
                flag::<$direction, 6>,
            ),
            field(
                concat!($prefix, "cwr"),
                U64,
                "packets",
                "packets with CWR",
                "",
                flag::<$direction, 7>,
            ),
            field(
                concat!($prefix, "ttl_min"),
                U8,
                "",
                "smallest TTL or hop limit",
                NO_PACKET,
                |v| {
                    let totals = of::<$direction>(v);
                    value(totals.packets > 0, totals.ttl_min.into())
                },
            ),
            field(
                concat!($prefix, "ttl_max"),
                U8,
                "",
                "largest TTL or hop limit",
                NO_PACKET,
                |v| {
                    let totals = of::<$direction>(v);
                    value(totals.packets > 0, totals.ttl_max.into())
                },
            ),
            field(
                concat!($prefix, "init_window"),
                U16,
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
