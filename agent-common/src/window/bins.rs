//! The histograms' bins, by which entropies are defined.

/// Bins of each histogram.
pub const BINS: usize = 32;

/// The bin of a packet length in bytes: 24 of 64 bytes up to 1536, then from 1536, 2048, 3072, 4096,
/// 6144, 8192, 12288 and 16384.
#[inline(always)]
pub fn len_bin(len: u32) -> u8 {
    match len {
        0..1536 => (len / 64) as u8,
        1536..2048 => 24,
        2048..3072 => 25,
        3072..4096 => 26,
        4096..6144 => 27,
        6144..8192 => 28,
        8192..12288 => 29,
        12288..16384 => 30,
        _ => 31,
    }
}

/// The bin of a gap in µs: floor(log2), with 0 in the first bin.
#[inline(always)]
pub fn iat_bin(iat: u32) -> u8 {
    // eBPF has no count-leading-zeros: halve the range five times.
    let mut value = iat;
    let mut bin = 0;
    if value >= 1 << 16 {
        value >>= 16;
        bin += 16;
    }
    if value >= 1 << 8 {
        value >>= 8;
        bin += 8;
    }
    if value >= 1 << 4 {
        value >>= 4;
        bin += 4;
    }
    if value >= 1 << 2 {
        value >>= 2;
        bin += 2;
    }
    if value >= 1 << 1 {
        bin += 1;
    }
    bin
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
        assert_eq!((len_bin(0), len_bin(63), len_bin(64), len_bin(1 << 20)), (0, 0, 1, 31));
        assert_eq!(iat_bin(0), 0);
        for power in 0..28 {
            assert_eq!(u32::from(iat_bin(1 << power)), power);
            assert_eq!(u32::from(iat_bin((2 << power) - 1)), power);
        }
    }
}
