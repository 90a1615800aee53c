//! The histograms' bins, by which entropies are defined.

use super::slot::{LEN_BITS, LEN_MAX};
use crate::barrier::{IS_BPF, opaque};

/// Bins of each histogram.
pub const BINS: usize = 32;

/// Width of the narrow length bins, as a shift.
const NARROW: u32 = 6;

/// Steps of [`NARROW`] up to the largest length.
const STEPS: usize = 1 << (LEN_BITS - NARROW);

/// The bin of each length in steps of 64 bytes.
///
/// VERIFIER: a table, for every comparison that the packet path makes for each packet doubles the paths
/// that the verifier walks, and a super-packet's loop makes 63 packets of one. Up to the largest length, for nearly
/// all packets need the first line of it.
static LEN_BINS: [u8; STEPS] = {
    let mut bins = [0; STEPS];
    let mut step = 0;
    while step < STEPS {
        bins[step] = match step << NARROW {
            0..1536 => step as u8,
            1536..2048 => 24,
            2048..3072 => 25,
            3072..4096 => 26,
            4096..6144 => 27,
            6144..8192 => 28,
            8192..12288 => 29,
            12288..16384 => 30,
            _ => 31,
        };
        step += 1;
    }
    bins
};

/// ⌊log2⌋ of 2^(k+1)−1 by the top five bits of its product with [`DE_BRUIJN`].
static LOG2: [u8; 32] = {
    let mut table = [0; 32];
    let mut power = 0;
    while power < 32 {
        let ones = u32::MAX >> (31 - power);
        table[(ones.wrapping_mul(DE_BRUIJN) >> 27) as usize] = power as u8;
        power += 1;
    }
    table
};

/// Maps the 32 numbers of the form 2^k−1, k > 0, to 32 different five-bit numbers.
const DE_BRUIJN: u32 = 0x07c4_acdd;

/// The bin of a packet length in bytes, below 2^20: 24 of 64 bytes up to 1536, then from 1536, 2048, 3072,
/// 4096, 6144, 8192, 12288 and 16384.
#[inline(always)]
pub fn len_bin(len: u32) -> u8 {
    debug_assert!(len <= LEN_MAX);
    // VERIFIER: LLVM would leave out the mask, and kernels forget the bounds of what lay on the stack as half a word.
    LEN_BINS[opaque((len >> NARROW).into()) as usize % STEPS]
}

/// The bin of a gap in µs: floor(log2), with 0 in the first bin.
#[inline(always)]
pub fn iat_bin(iat: u32) -> u8 {
    // eBPF has no count-leading-zeros. Every bit below the highest is set (and bit 0, so that 0 counts as
    // 1), and the 32 numbers that can then stand here are told apart by one multiplication.
    if !IS_BPF {
        return (iat | 1).ilog2() as u8;
    }
    let mut ones = iat | 1;
    ones |= ones >> 1;
    ones |= ones >> 2;
    ones |= ones >> 4;
    ones |= ones >> 8;
    ones |= ones >> 16;
    LOG2[(ones.wrapping_mul(DE_BRUIJN) >> 27) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_begin_where_they_say() {
        let starts = [1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384];
        for (bin, start) in (24..).zip(starts) {
            assert_eq!((len_bin(start - 1), len_bin(start)), (bin - 1, bin));
        }
        assert_eq!((len_bin(0), len_bin(63), len_bin(64), len_bin(LEN_MAX)), (0, 0, 1, 31));
        assert!([16384, 32767, 32768, 65535, 65536].map(len_bin) == [31; 5]);
        assert_eq!(iat_bin(0), 0);
        for power in 0..28 {
            assert_eq!(u32::from(iat_bin(1 << power)), power);
            assert_eq!(u32::from(iat_bin((2 << power) - 1)), power);
        }
    }
}
