//! Time stamps of captures, in any unit, as nanoseconds since the Unix epoch.

const NS_PER_SECOND: i128 = 1_000_000_000;

/// What an interface's time stamps count, and from when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    unit: Unit,
    offset_ns: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A tick is so many nanoseconds.
    Multiple(u64),
    /// So many ticks are a nanosecond.
    Part(u64),
    /// A tick is 2⁻ⁿ s.
    Binary(u32),
}

impl Clock {
    /// By the options `if_tsresol` and `if_tsoffset` of pcapng (draft-ietf-opsawg-pcapng, section 4.2): units of
    /// 10⁻ʳ s, or of 2⁻ʳ s if the top bit is set, and seconds to add.
    pub(super) fn new(resolution: u8, offset_s: i64) -> Self {
        let exponent = u32::from(resolution & 0x7f);
        let unit = match (resolution & 0x80 != 0, exponent) {
            (true, _) => Unit::Binary(exponent),
            (false, 0..=9) => Unit::Multiple(10_u64.pow(9 - exponent)),
            // In a unit too small for the divisor, 2⁶⁴ ticks are less than a nanosecond.
            (false, _) => 10_u64.checked_pow(exponent - 9).map_or(Unit::Multiple(0), Unit::Part),
        };
        Self { unit, offset_ns: i128::from(offset_s) * NS_PER_SECOND }
    }

    /// Nanoseconds since the epoch, rounded down; the nearest that there is for what lies outside.
    #[inline]
    pub(super) fn ns(&self, ticks: u64) -> u64 {
        let ns = match self.unit {
            Unit::Multiple(ns) => u128::from(ticks) * u128::from(ns),
            Unit::Part(ticks_per_ns) => u128::from(ticks / ticks_per_ns),
            Unit::Binary(exponent) => (u128::from(ticks) * NS_PER_SECOND as u128) >> exponent,
        };
        // Both are below 2⁹⁵.
        (ns as i128 + self.offset_ns).clamp(0, i128::from(u64::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_by_hand() {
        assert_eq!(Clock::new(6, 0).ns(1_500_000_000_123_456), 1_500_000_000_123_456_000);
        assert_eq!(Clock::new(9, 0).ns(1_500_000_000_123_456_789), 1_500_000_000_123_456_789);
        assert_eq!(Clock::new(0, 0).ns(7), 7_000_000_000);
        assert_eq!(Clock::new(12, 0).ns(1999), 1);
        assert_eq!(Clock::new(0x8a, 0).ns(1024 + 512), 1_500_000_000);
        assert_eq!(Clock::new(0xbf, 0).ns(1 << 63), 1_000_000_000);
        assert_eq!(Clock::new(6, 10).ns(1), 10_000_001_000);
        assert_eq!(Clock::new(6, -1).ns(1_000_001), 1000);
    }

    #[test]
    fn what_lies_outside_is_the_nearest_there_is() {
        assert_eq!(Clock::new(0, 0).ns(u64::MAX), u64::MAX);
        assert_eq!(Clock::new(0x7f, 0).ns(u64::MAX), 0);
        assert_eq!(Clock::new(0xff, 0).ns(u64::MAX), 0);
        assert_eq!(Clock::new(6, i64::MAX).ns(0), u64::MAX);
        assert_eq!(Clock::new(6, i64::MIN).ns(u64::MAX), 0);
    }

    proptest! {
        /// Against exact seconds as a fraction.
        #[test]
        fn any_unit_and_offset(resolution: u8, offset: i64, ticks: u64) {
            let exponent = u32::from(resolution & 0x7f);
            let base: f64 = if resolution & 0x80 == 0 { 10.0 } else { 2.0 };
            let seconds = ticks as f64 / base.powi(exponent as i32) + offset as f64;
            let expected = (seconds * 1e9).clamp(0.0, 2_f64.powi(64));
            let tolerance = (offset.unsigned_abs() as f64 * 1e9 + expected) * 1e-14 + 2.0;
            let ns = Clock::new(resolution, offset).ns(ticks) as f64;
            prop_assert!((ns - expected).abs() <= tolerance, "{ns} is not {expected}");
        }
    }
}
