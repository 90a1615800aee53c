//! The one door to the processor's prefetch.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes that are fetched for one packet. A super-packet's other bytes nobody reads.
const MOST: usize = 2 << 10;

/// Begins to fetch the first `LEN` bytes of a value into the cache, and does not wait for them.
#[inline]
pub(crate) fn prefetch<const LEN: usize, T>(value: &T) {
    const { assert!(LEN <= size_of::<T>()) };
    for line in 0..LEN.div_ceil(LINE) {
        fetch((&raw const *value).cast::<u8>().wrapping_add(line * LINE));
    }
}

/// The same for as many bytes as these, but no more than [`MOST`], `distance` behind them, which need not exist.
#[inline]
pub(crate) fn prefetch_behind(bytes: &[u8], distance: usize) {
    for at in (0..bytes.len().min(MOST)).step_by(LINE) {
        fetch(bytes.as_ptr().wrapping_add(distance + at));
    }
}

/// Stable Rust has the instruction for x86-64 only; elsewhere nothing is done.
#[inline]
fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which may name any address and changes nothing but time; every x86-64 has it.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
