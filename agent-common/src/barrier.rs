//! Words to the compiler, about what a BPF program can bear. On a host they are not said: there they would only be in
//! the optimiser's way.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

use bytemuck::Pod;

/// Whether this is compiled for the kernel.
pub(crate) const IS_BPF: bool = cfg!(target_arch = "bpf");

/// The same reference, of whose memory the compiler now knows nothing.
///
/// VERIFIER: eBPF has ten registers and 512 bytes of stack. Where a structure is cleared on one of two
/// paths, LLVM carries every field of it in a value of its own past the point where they meet, and the
/// stack overflows. Past this barrier each field is read from memory, by one base and an offset.
///
/// It costs a move from a register to itself, where `core::hint::black_box` costs a way through the stack. (The kernel
/// refuses line info of no instruction at all.)
#[inline(always)]
pub fn settled<T>(value: &mut T) -> &mut T {
    #[cfg(target_arch = "bpf")]
    {
        let mut place = &raw mut *value;
        // SAFETY: changes nothing; as far as LLVM knows, it may write to any memory.
        unsafe { asm!("{0} = {0}", inout(reg) place, options(nostack, preserves_flags)) };
        // SAFETY: the reference that was given.
        unsafe { &mut *place }
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// The same number, of whose bits the compiler now knows nothing.
///
/// VERIFIER: LLVM makes a branch of a product with one bit, and each branch doubles the paths.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: changes nothing; as far as LLVM knows, it may change the number.
        unsafe {
            asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// The same number, of which the verifier, too, does not know that it is: what a comparison tells of this one it does not
/// tell of the other.
///
/// VERIFIER: what is compared in each turn of a loop and lies on the stack meanwhile has other bounds in each, and a path
/// of its own from each to the end. So has a pointer that goes along; made from such a number it lives for one turn.
#[inline(always)]
pub(crate) fn parted(value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = u64::from(value);
        // SAFETY: changes nothing; as far as LLVM knows, it may change the number.
        unsafe {
            asm!("{0} |= 0", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
        };
        value as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// All ones if `a` < `b`, else zero.
///
/// VERIFIER: no comparison, see [`crate::window::bins`].
#[inline(always)]
pub(crate) fn less(a: u32, b: u32) -> u32 {
    ((i64::from(a) - i64::from(b)) >> 32) as u32
}

/// A number in memory, read for this use alone.
///
/// VERIFIER: of a number that is compared, and used again further on, kernels before 6.2 keep apart the paths of both
/// outcomes to the last use, where functions have every number tracked.
#[inline(always)]
pub(crate) fn reread<T: Copy>(number: &T) -> T {
    if !IS_BPF {
        return *number;
    }
    // SAFETY: a valid reference; volatile, so that no other reading of it takes this one's place.
    unsafe { (&raw const *number).read_volatile() }
}

/// The time from `then` to `now`, 0 if that is earlier. Times lie below 2^63.
///
/// VERIFIER: no comparison, of which LLVM makes three.
#[inline(always)]
pub(crate) fn elapsed(then: u64, now: u64) -> u64 {
    if !IS_BPF {
        return now.saturating_sub(then);
    }
    let time = now.wrapping_sub(then);
    time & !((time as i64 >> 63) as u64)
}

/// `a` − `b`, 0 if `b` is larger; see [`elapsed`].
#[inline(always)]
pub(crate) fn difference(a: u32, b: u32) -> u32 {
    if !IS_BPF {
        return a.saturating_sub(b);
    }
    let difference = u64::from(a).wrapping_sub(b.into());
    (difference & !((difference as i64 >> 63) as u64)) as u32
}

/// The sum, or the largest number if that is too large; see [`elapsed`].
#[inline(always)]
pub(crate) fn saturating_sum(a: u32, b: u32) -> u32 {
    if !IS_BPF {
        return a.saturating_add(b);
    }
    let sum = u64::from(a) + u64::from(b);
    (sum | 0u64.wrapping_sub(sum >> 32)) as u32
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
