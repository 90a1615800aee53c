//! Words to the compiler, about what a BPF program can bear. On a host they are not said: there they would only be in
//! the optimiser's way.

use bytemuck::Pod;

/// Whether this is compiled for the kernel.
pub(crate) const IS_BPF: bool = cfg!(target_arch = "bpf");

/// The same reference, of whose memory the compiler now knows nothing.
///
/// VERIFIER: eBPF has ten registers and 512 bytes of stack. Where a structure is cleared on one of two
/// paths, LLVM carries every field of it in a value of its own past the point where they meet, and the
/// stack overflows. Past this barrier each field is read from memory, by one base and an offset.
#[inline(always)]
pub(crate) fn settled<T>(value: &mut T) -> &mut T {
    if IS_BPF { core::hint::black_box(value) } else { value }
}

/// The same number, of whose bits the compiler now knows nothing.
///
/// VERIFIER: LLVM makes a branch of a product with one bit, and each branch doubles the paths.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    if IS_BPF { core::hint::black_box(value) } else { value }
}

/// All ones if `a` < `b`, else zero.
///
/// VERIFIER: no comparison, see [`crate::window::bins`].
#[inline(always)]
pub(crate) fn less(a: u32, b: u32) -> u32 {
    ((i64::from(a) - i64::from(b)) >> 32) as u32
}

/// The lesser of two.
///
/// VERIFIER: no comparison, as [`less`].
#[inline(always)]
pub(crate) fn smaller(a: u32, b: u32) -> u32 {
    if IS_BPF { b ^ ((a ^ b) & less(a, b)) } else { a.min(b) }
}

/// The greater of two, see [`smaller`].
#[inline(always)]
pub(crate) fn larger(a: u32, b: u32) -> u32 {
    if IS_BPF { a ^ ((a ^ b) & less(a, b)) } else { a.max(b) }
}

/// Copies a structure word by word.
///
/// VERIFIER: an assignment may become a call of `memmove`, which a spin lock forbids, and whose loop over
/// bytes costs the verifier as much as the rest of the program.
#[inline(always)]
pub(crate) fn copy<T: Pod>(to: &mut T, from: &T) {
    const { assert!(align_of::<T>() == 8) };
    if !IS_BPF {
        *to = *from;
        return;
    }
    let (to, from) = ((&raw mut *to).cast::<u64>(), (&raw const *from).cast::<u64>());
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: within the structures, which are aligned and made of words.
        let word = unsafe { from.wrapping_add(index).read() };
        // SAFETY: as above; volatile, so that the loop stays one.
        unsafe { to.wrapping_add(index).write_volatile(word) };
    }
}

/// Clears a structure word by word, see [`copy`].
#[inline(always)]
pub(crate) fn clear<T: Pod>(value: &mut T) {
    const { assert!(align_of::<T>() == 8) };
    if !IS_BPF {
        *value = T::zeroed();
        return;
    }
    let value = (&raw mut *value).cast::<u64>();
    for index in 0..size_of::<T>() / 8 {
        // SAFETY: within the structure, which is aligned and made of words; zero is a value of it.
        unsafe { value.wrapping_add(index).write_volatile(0) };
    }
}
