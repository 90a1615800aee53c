//! What the sliding window says of the flow's last N packets.

use super::{
    Field, Group,
    Type::{self, U8, U32, U64},
    Value, Vector,
    derive::{entropy, mean, per_second, std, variance},
};
use crate::window::{Lengths, Sums};

const fn integer(
    name: &'static str,
    kind: Type,
    unit: &'static str,
    formula: &'static str,
    null: &'static str,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
) -> Field {
    Field { name, group: Group::Window, kind, unit, formula, null, value }
}

const fn float(
    name: &'static str,
    unit: &'static str,
    formula: &'static str,
    null: &'static str,
    value: for<'a> fn(&Vector<'a>) -> Value<'a>,
) -> Field {
    Field { name, group: Group::Window, kind: Type::Float, unit, formula, null, value }
}

const NO_GAP: &str = "one packet in the window";
const NO_SPAN: &str = "win_span_us is 0";
const NO_PACKET: &str = "no packet of this direction in the window";

/// Of both directions together.
pub(super) const FIELDS: &[Field] = &[
    integer(
        "win_packets",
        U8,
        "packets",
        "n: wire packets in the window, at most --window",
        "",
        |v| Value::Integer(sums(v).len().into()),
    ),
    integer("win_span_us", U64, "µs", "Σ iat over the n-1 gaps in the window", "", |v| {
        Value::Integer(sums(v).iat_sum)
    }),
    integer("win_len_sum", U64, "B", "Σ len", "", |v| Value::Integer(len_sum(v))),
    float("win_len_mean", "B", "Σ len / n", "", |v| mean(len_sum(v), sums(v).len())),
    float("win_len_var", "B²", "(n·Σ len² - (Σ len)²) / n²", "", |v| {
        variance(len_sum(v), len_sq_sum(v), sums(v).len())
    }),
    float("win_len_std", "B", "√ win_len_var", "", |v| {
        std(len_sum(v), len_sq_sum(v), sums(v).len())
    }),
    integer("win_len_min", U32, "B", "shortest len", "", |v| {
        Value::Integer(v.record.extrema.len_min.into())
    }),
    integer("win_len_max", U32, "B", "longest len", "", |v| {
        Value::Integer(v.record.extrema.len_max.into())
    }),
    float(
        "win_len_entropy",
        "bits",
        "log2 n - Σ c·log2(c) / n over the counts c of 32 len bins: 24 of 64 B, then from 1536, 2048, \
         3072, 4096, 6144, 8192, 12288, 16384",
        "",
        |v| entropy(sums(v).len_entropy, sums(v).len()),
    ),
    float("win_iat_mean_us", "µs", "Σ iat / (n-1)", NO_GAP, |v| mean(sums(v).iat_sum, gaps(v))),
    float("win_iat_var_us2", "µs²", "((n-1)·Σ iat² - (Σ iat)²) / (n-1)²", NO_GAP, |v| {
        variance(sums(v).iat_sum, sums(v).iat_sq_sum, gaps(v))
    }),
    float("win_iat_std_us", "µs", "√ win_iat_var_us2", NO_GAP, |v| {
        std(sums(v).iat_sum, sums(v).iat_sq_sum, gaps(v))
    }),
    integer(
        "win_iat_min_us",
        U32,
        "µs",
        "shortest iat; iat: ⌊t/1 µs⌋ - ⌊t'/1 µs⌋ of neighbours",
        NO_GAP,
        |v| gap(v, v.record.extrema.iat_min),
    ),
    integer("win_iat_max_us", U32, "µs", "longest iat; saturates at 2^28-1", NO_GAP, |v| {
        gap(v, v.record.extrema.iat_max)
    }),
    float(
        "win_iat_entropy",
        "bits",
        "log2(n-1) - Σ c·log2(c) / (n-1) over the counts c of 32 iat bins ⌊log2 iat⌋, 0 with 1",
        NO_GAP,
        |v| entropy(sums(v).iat_entropy, gaps(v)),
    ),
    integer("win_fin", U8, "packets", "packets with FIN", "", flag::<0>),
    integer("win_syn", U8, "packets", "packets with SYN", "", flag::<1>),
    integer("win_rst", U8, "packets", "packets with RST", "", flag::<2>),
    integer("win_psh", U8, "packets", "packets with PSH", "", flag::<3>),
    integer("win_ack", U8, "packets", "packets with ACK", "", flag::<4>),
    integer("win_urg", U8, "packets", "packets with URG", "", flag::<5>),
    integer("win_ece", U8, "packets", "packets with ECE", "", flag::<6>),
    integer("win_cwr", U8, "packets", "packets with CWR", "", flag::<7>),
    float("win_packets_per_s", "1/s", "n · 10^6 / win_span_us", NO_SPAN, |v| {
        per_second(sums(v).len().into(), sums(v).iat_sum)
    }),
    float("win_bytes_per_s", "B/s", "win_len_sum · 10^6 / win_span_us", NO_SPAN, |v| {
        per_second(len_sum(v), sums(v).iat_sum)
    }),
];

/// The fields of one direction.
macro_rules! direction {
    ($prefix:literal, $direction:literal) => {
        &[
            integer(concat!($prefix, "packets"), U8, "packets", "n of this direction", "", |v| {
                Value::Integer(of(v, $direction).packets.into())
            }),
            integer(concat!($prefix, "len_sum"), U32, "B", "Σ len of this direction", "", |v| {
                Value::Integer(of(v, $direction).sum.into())
            }),
            float(
                concat!($prefix, "len_mean"),
                "B",
                "Σ len / n of this direction",
                NO_PACKET,
                |v| mean(of(v, $direction).sum.into(), of(v, $direction).packets),
            ),
            float(
                concat!($prefix, "len_std"),
                "B",
                "√((n·Σ len² - (Σ len)²) / n²) of this direction",
                NO_PACKET,
                |v| {
                    let Lengths { sq_sum, sum, packets } = *of(v, $direction);
                    std(sum.into(), sq_sum, packets)
                },
            ),
        ]
    };
}

/// From the initiator.
pub(super) const FWD: &[Field] = direction!("win_fwd_", 0);
/// To the initiator.
pub(super) const BWD: &[Field] = direction!("win_bwd_", 1);

fn sums<'a>(vector: &Vector<'a>) -> &'a Sums {
    &vector.record.sums
}

fn of<'a>(vector: &Vector<'a>, direction: usize) -> &'a Lengths {
    &sums(vector).lengths[direction]
}

fn len_sum(vector: &Vector<'_>) -> u64 {
    let [fwd, bwd] = &sums(vector).lengths;
    u64::from(fwd.sum) + u64::from(bwd.sum)
}

fn len_sq_sum(vector: &Vector<'_>) -> u64 {
    let [fwd, bwd] = &sums(vector).lengths;
    fwd.sq_sum + bwd.sq_sum
}

fn gaps(vector: &Vector<'_>) -> u32 {
    sums(vector).len().saturating_sub(1)
}

fn gap<'a>(vector: &Vector<'a>, gap: u32) -> Value<'a> {
    if gaps(vector) == 0 { Value::Null } else { Value::Integer(gap.into()) }
}

fn flag<'a, const BIT: usize>(vector: &Vector<'a>) -> Value<'a> {
    Value::Integer(sums(vector).flag_count(BIT).into())
}
