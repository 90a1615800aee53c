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

const LEN_AT: u32 = IAT_BITS;
const FLAGS_AT: u32 = LEN_AT + LEN_BITS;
const DIRECTION_AT: u32 = FLAGS_AT + 8;
/// The upper end of the word, where a shift is all that it takes to read.
const IAT_BIN_AT: u32 = 64 - 5;

/// A wire packet as the window remembers it: iat (28 bits), len (20), TCP flags (8), direction (1), nothing (2), and the
/// iat's bin (5), so that it need not be found a second time when the packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

/// A wire packet as the window sums it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Gap to the packet before, in µs.
    pub iat: u32,
    /// IP length in bytes.
    pub len: u32,
    /// TCP flags as in byte 13 of the TCP header.
    pub flags: u8,
    /// 0: fwd, 1: bwd.
    pub direction: usize,
    /// The bin of the gap, see [`bins::iat_bin`].
    pub iat_bin: u8,
}

impl Packet {
    /// `iat` in µs and `len` in bytes saturate, `direction` is 0 (fwd) or 1 (bwd).
    #[inline(always)]
    pub fn new(iat: u64, len: u32, flags: u8, direction: usize) -> Self {
        // VERIFIER: saturation without comparison, see `bins`. What lies above the field's bits, taken from
        // 0, has ones in all of its upper bits; shifted down, they fill the field.
        let iat = (iat | 0u64.wrapping_sub(iat >> IAT_BITS) >> (64 - IAT_BITS)) & IAT_MAX;
        let len = u64::from(len);
        let len =
            (len | 0u64.wrapping_sub(len >> LEN_BITS) >> (64 - LEN_BITS)) & u64::from(LEN_MAX);
        let (iat, len) = (iat as u32, len as u32);
        Self { iat, len, flags, direction, iat_bin: bins::iat_bin(iat) }
    }
}

impl Slot {
    /// Packs a packet.
    #[inline(always)]
    pub fn of(packet: Packet) -> Self {
        let Packet { iat, len, flags, direction, iat_bin } = packet;
        Self(
            u64::from(iat)
                | u64::from(len) << LEN_AT
                | u64::from(flags) << FLAGS_AT
                | (direction as u64) << DIRECTION_AT
                | u64::from(iat_bin) << IAT_BIN_AT,
        )
    }

    /// The packet that was packed.
    #[inline(always)]
    pub const fn packet(self) -> Packet {
        Packet {
            iat: (self.0 & IAT_MAX) as u32,
            len: (self.0 >> LEN_AT) as u32 & LEN_MAX,
            flags: (self.0 >> FLAGS_AT) as u8,
            direction: (self.0 >> DIRECTION_AT) as usize & 1,
            iat_bin: (self.0 >> IAT_BIN_AT) as u8,
        }
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
}

/// What is in a word: name, place of the lowest bit, bits.
pub const FIELDS: [(&str, u32, u32); 5] = [
    ("iat", 0, IAT_BITS),
    ("len", LEN_AT, LEN_BITS),
    ("tcp_flags", FLAGS_AT, 8),
    ("direction", DIRECTION_AT, 1),
    ("iat_bin", IAT_BIN_AT, 5),
];
