//! The one door to the processor's prefetch.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Begins to fetch the first `LEN` bytes of a value into the cache, and does not wait for them.
///
/// Stable Rust has the instruction for x86-64 only; elsewhere nothing is done.
#[inline]
pub(super) fn prefetch<const LEN: usize, T>(value: &T) {
    const { assert!(LEN <= size_of::<T>()) };
    #[cfg(target_arch = "x86_64")]
    for line in 0..LEN.div_ceil(LINE) {
        let line = (&raw const *value).cast::<i8>().wrapping_add(line * LINE);
        // SAFETY: a hint, which may name any address and changes nothing but time; every x86-64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
