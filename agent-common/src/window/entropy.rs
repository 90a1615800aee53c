//! Shannon entropy of a histogram, kept in integers.
//!
//! For counts c with Σc = n the entropy is H = log2(n) − S/n bits with S = Σ c·log2(c). S is kept in
//! fixed point and moves only by differences of one table, so that taking a packet out cancels putting it
//! in exactly and nothing drifts. log2(n) comes from the same table: H = (T\[n\] − S) / n.

/// Binary places of the fixed point.
pub const FRACTION_BITS: u32 = 48;

/// Largest count a bin can hold: the window's capacity.
pub const MAX_COUNT: usize = 64;

/// Published bound on the error of an entropy against exact arithmetic, in bits.
///
/// Each table entry is off by at most 2⁻⁴⁸, at most 33 of them meet in one value, and the division
/// rounds once: (33·2⁻⁴⁸)/n + 6·2⁻⁵³ < 1.2·10⁻¹³.
pub const ERROR_BOUND_BITS: f64 = 1.2e-13;

/// T\[c\] = c·log2(c) in fixed point, T\[0\] = T\[1\] = 0. A power-of-two length lets an index be masked.
static C_LOG2_C: [u64; 128] = table();

/// T\[c+1\] − T\[c\], what one more in a bin adds to S. A power-of-two length lets an index be masked.
static STEPS: [u64; MAX_COUNT] = {
    let mut steps = [0; MAX_COUNT];
    let mut count = 0;
    while count < MAX_COUNT {
        steps[count] = C_LOG2_C[count + 1] - C_LOG2_C[count];
        count += 1;
    }
    steps
};

/// T\[c+1\] − T\[c\] for `count` < 64.
#[inline(always)]
pub fn step(count: u32) -> u64 {
    STEPS[(count & 63) as usize]
}

/// T\[c\] for `count` ≤ 64.
#[inline(always)]
pub fn c_log2_c(count: u32) -> u64 {
    // The mask is for the verifier: a guarded index was rejected once LLVM had moved the guard.
    C_LOG2_C[(count & 127) as usize]
}

const fn table() -> [u64; 128] {
    let mut table = [0; 128];
    let mut count = 2;
    while count <= MAX_COUNT {
        // As many guard bits as 64·log2(64) leaves room for, rounded away at the end.
        let product = (count as u64) * log2(count as u64, FRACTION_BITS + 7);
        table[count] = (product + 64) >> 7;
        count += 1;
    }
    table
}

/// log2 of a positive integer below 2³² with `places` binary places, truncated, digit by digit: squaring
/// the mantissa doubles the logarithm, and its integer part is the next binary digit.
const fn log2(value: u64, places: u32) -> u64 {
    const ONE: u128 = 1 << 62;
    let integer = value.ilog2();
    let mut mantissa = ((value as u128) << 62) >> integer;
    let mut result = integer as u64;
    let mut place = 0;
    while place < places {
        mantissa = (mantissa * mantissa) >> 62;
        result <<= 1;
        if mantissa >= 2 * ONE {
            mantissa >>= 1;
            result |= 1;
        }
        place += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_c_log2_c() {
        for (count, &entry) in C_LOG2_C.iter().enumerate().take(MAX_COUNT + 1) {
            let exact = if count == 0 { 0.0 } else { count as f64 * (count as f64).log2() };
            let error = (entry as f64 / (1u64 << FRACTION_BITS) as f64 - exact).abs();
            // f64's own rounding of c·log2(c) ≤ 384 is up to 2⁻⁴⁵.
            assert!(error < 6e-14, "T[{count}] is off by {error}");
        }
        for power in 0..=6u64 {
            assert_eq!(C_LOG2_C[1 << power], (power << power) << FRACTION_BITS);
        }
    }
}
