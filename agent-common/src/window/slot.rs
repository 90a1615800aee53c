//! One packet of the window in one word.

use super::bins;

/// Bits of a gap; a longer one saturates (268 s).
pub const IAT_BITS: u32 = 28;
/// Bits of a length; a longer one saturates (1 MiB).
pub const LEN_BITS: u32 = 20;
/// Largest gap the window can hold, in µs.
pub const IAT_MAX: u64 = (1 << IAT_BITS) - 1;
/// Largest packet length the window can hold, in bytes.
pub const LEN_MAX: u32 = (1 << LEN_BITS) - 1;

/// A wire packet as the window remembers it: iat (28 bits), len (20), TCP flags (8), direction (1), and the iat's bin
/// (5), so that it need not be found a second time when the packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// Packs a packet; `iat` in µs and `len` in bytes saturate, `direction` is 0 (fwd) or 1 (bwd).
    #[inline(always)]
    pub fn new(iat: u64, len: u32, flags: u8, direction: usize) -> Self {
        // VERIFIER: saturation without comparison, see `bins`. What lies above the field's bits, taken from
        // 0, has ones in all of its upper bits; shifted down, they fill the field.
        let iat = (iat | 0u64.wrapping_sub(iat >> IAT_BITS) >> (64 - IAT_BITS)) & IAT_MAX;
        let len = u64::from(len);
        let len =
            (len | 0u64.wrapping_sub(len >> LEN_BITS) >> (64 - LEN_BITS)) & u64::from(LEN_MAX);
        Self(
            iat | len << IAT_BITS
                | u64::from(flags) << (IAT_BITS + LEN_BITS)
                | (direction as u64) << (IAT_BITS + LEN_BITS + 8)
                | u64::from(bins::iat_bin(iat as u32)) << (IAT_BITS + LEN_BITS + 9),
        )
    }

    /// The word as it lies in the ring.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// A word of the ring.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Gap to the packet before, in µs.
    #[inline(always)]
    pub const fn iat(self) -> u32 {
        (self.0 & IAT_MAX) as u32
    }

    /// IP length in bytes.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        (self.0 >> IAT_BITS) as u32 & LEN_MAX
    }

    /// TCP flags as in byte 13 of the TCP header.
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        (self.0 >> (IAT_BITS + LEN_BITS)) as u8
    }

    /// 0: fwd, 1: bwd.
    #[inline(always)]
    pub const fn direction(self) -> usize {
        (self.0 >> (IAT_BITS + LEN_BITS + 8)) as usize & 1
    }

    /// The bin of the gap, see [`bins::iat_bin`].
    #[inline(always)]
    pub const fn iat_bin(self) -> u8 {
        (self.0 >> (IAT_BITS + LEN_BITS + 9)) as u8 & 31
    }
}

/// What is in a word: name, place of the lowest bit, bits.
pub const FIELDS: [(&str, u32, u32); 5] = [
    ("iat", 0, IAT_BITS),
    ("len", IAT_BITS, LEN_BITS),
    ("tcp_flags", IAT_BITS + LEN_BITS, 8),
    ("direction", IAT_BITS + LEN_BITS + 8, 1),
    ("iat_bin", IAT_BITS + LEN_BITS + 9, 5),
];
