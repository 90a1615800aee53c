//! From integers to numbers: the only floating point of the product.
//!
//! Numerators are exact integers and every f64 operation is correctly rounded (IEEE 754), so that results
//! are the same everywhere. A quotient by nothing is null.

use super::Value;
use crate::window::entropy::{FRACTION_BITS, c_log2_c};

/// Σx / n.
pub(super) fn mean<'a>(sum: u64, n: u32) -> Value<'a> {
    if n == 0 { Value::Null } else { Value::Float(sum as f64 / f64::from(n)) }
}

/// The population's variance, (n·Σx² − (Σx)²) / n².
pub(super) fn variance<'a>(sum: u64, sq_sum: u64, n: u32) -> Value<'a> {
    if n == 0 { Value::Null } else { Value::Float(spread(sum, sq_sum, n)) }
}

/// The population's standard deviation.
pub(super) fn std<'a>(sum: u64, sq_sum: u64, n: u32) -> Value<'a> {
    if n == 0 { Value::Null } else { Value::Float(libm::sqrt(spread(sum, sq_sum, n))) }
}

/// The entropy, in bits, of a histogram of n counts with S = `s` in fixed point.
pub(super) fn entropy<'a>(s: u64, n: u32) -> Value<'a> {
    if n == 0 {
        return Value::Null;
    }
    let scale = (1u64 << FRACTION_BITS) as f64;
    // T[n] ≥ S but for the table's rounding.
    let scaled = c_log2_c(n).saturating_sub(s) as f64;
    Value::Float(scaled / (f64::from(n) * scale))
}

/// A count per second over a span in µs.
pub(super) fn per_second<'a>(count: u64, span_us: u64) -> Value<'a> {
    if span_us == 0 {
        return Value::Null;
    }
    Value::Float((count * 1_000_000) as f64 / span_us as f64)
}

fn spread(sum: u64, sq_sum: u64, n: u32) -> f64 {
    let n = u128::from(n);
    let sum = u128::from(sum);
    // By Cauchy's inequality no difference is negative; 128 bits hold 64 saturated squares.
    let numerator = n * u128::from(sq_sum) - sum * sum;
    // The same number, by a conversion that takes a tenth of the time.
    let numerator = u64::try_from(numerator).map_or(numerator as f64, |small| small as f64);
    numerator / (n * n) as u64 as f64
}
