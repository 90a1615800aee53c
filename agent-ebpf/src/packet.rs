//! The one door to a socket buffer.

use core::{arch::asm, mem::MaybeUninit};

use agent_common::parse::{
    Frame, Link,
    source::{Header, Source},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes},
    programs::TcContext,
};

use crate::config;

/// Highest offset of a header: beyond any chain of extension headers that is looked through, and within
/// what the verifier allows a packet pointer.
const MAX_OFFSET: u32 = 0x7fff;

/// A socket buffer. But for where the bytes lie, every field of the context is read once, before any branch: a compiler that
/// folds two reads into one by a selected pointer makes a "dereference of modified ctx ptr". What only a rehearsal asks is
/// read there: that branch is gone once the program is loaded for real.
pub(crate) struct Packet {
    skb: *mut __sk_buff,
    len: u32,
    ifindex: u32,
    gso_size: u32,
    vlan_tci: u32,
    vlan_present: u32,
    /// A word of a map, whose contents the verifier does not follow.
    lethe: *mut u32,
}

impl Packet {
    /// The packet of a program's context.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext, lethe: *mut u32) -> Self {
        let skb = ctx.skb.skb;
        // SAFETY: the kernel calls the program with a valid context.
        let fields = unsafe { &*skb };
        Self {
            skb,
            len: fields.len,
            ifindex: fields.ifindex,
            gso_size: fields.gso_size,
            vlan_tci: fields.vlan_tci,
            vlan_present: fields.vlan_present,
            lethe,
        }
    }

    /// The program's context.
    #[inline(always)]
    pub(crate) fn context(&self) -> *mut __sk_buff {
        self.skb
    }

    /// What is known beside the bytes.
    #[inline(always)]
    pub(crate) fn frame(&self, link: Link) -> Frame {
        let mut wire_len = self.len;
        if config::rehearsal() {
            // SAFETY: the program's context.
            let fields = unsafe { &*self.skb };
            // SAFETY: a valid reference; volatile, so that it is read here only.
            let mark = unsafe { (&raw const fields.mark).read_volatile() };
            if mark != 0 {
                wire_len = mark;
            }
        }
        Frame {
            link,
            ifindex: self.ifindex,
            wire_len,
            gso_size: self.gso_size,
            vlan_tci: if self.vlan_present != 0 { self.vlan_tci as u16 } else { 0 },
        }
    }

    /// The packet's time in µs.
    #[inline(always)]
    pub(crate) fn now_us(&self) -> u64 {
        if config::rehearsal() {
            // SAFETY: the program's context.
            let fields = unsafe { &*self.skb };
            // SAFETY: a valid reference; volatile, so that it is read here only.
            let now_ns = unsafe { (&raw const fields.tstamp).read_volatile() };
            now_ns / 1000
        } else {
            now_us()
        }
    }

    /// Where `len` bytes of the linear part lie, or `None` if they do not lie within it.
    ///
    /// VERIFIER: asked anew each time. Of pointers that were read before a comparison it notes how many bytes are known to lie
    /// behind them, and each number is a path of its own through all that follows.
    #[inline(always)]
    fn linear(&self, offset: usize, len: usize) -> Option<*const u8> {
        // SAFETY: the program's context.
        let fields = unsafe { &*self.skb };
        // SAFETY: a valid reference; volatile, as above.
        let data = unsafe { (&raw const fields.data).read_volatile() };
        // SAFETY: as above.
        let data_end = unsafe { (&raw const fields.data_end).read_volatile() };
        let start = (data as usize as *const u8).wrapping_add(offset);
        (start.wrapping_add(len) <= data_end as usize as *const u8).then_some(start)
    }

    /// Copies a header outside the linear part; false if it is not there.
    #[inline(always)]
    fn copy_paged<H: Header>(&self, offset: u32, words: &mut Words) -> bool {
        let len = size_of::<H>() as u32;
        // SAFETY: `len` is at most the size of `words`.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, words.as_mut_ptr().cast(), len) == 0 }
    }
}

/// Room for the most that is read at once, IPv6's header of 40 bytes and what is before it: aligned, where a header itself
/// is not.
type Words = MaybeUninit<[u64; 6]>;

/// Copies a header of the linear part in as few pieces as there can be.
///
/// # Safety
///
/// Its bytes lie within the linear part. They may lie at any address: eBPF loads what the machine can, and
/// the verifier lets a packet be read so on all that have efficient unaligned access. A plain Rust read of
/// a header, which has no alignment, would become one load for each byte.
#[inline(always)]
unsafe fn copy_linear<H: Header>(from: *const u8, words: &mut Words) {
    let to = words.as_mut_ptr().cast::<u8>();
    // The longest pieces come first, so that each is aligned in `words`. No loop, which LLVM would leave one.
    let (size, mut at) = (size_of::<H>(), 0);
    if size >= 8 {
        // SAFETY: within the header, and within `words`.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size >= 16 {
        // SAFETY: as above.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size >= 24 {
        // SAFETY: as above.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size >= 32 {
        // SAFETY: as above.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size >= 40 {
        // SAFETY: as above.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size >= 48 {
        // SAFETY: as above.
        at += unsafe { piece::<u64>(from, to, at) };
    }
    if size & 4 != 0 {
        // SAFETY: as above.
        at += unsafe { piece::<u32>(from, to, at) };
    }
    if size & 2 != 0 {
        // SAFETY: as above.
        at += unsafe { piece::<u16>(from, to, at) };
    }
    if size & 1 != 0 {
        // SAFETY: as above.
        unsafe { piece::<u8>(from, to, at) };
    }
}

/// The same offset, which is at most [`MAX_OFFSET`].
///
/// VERIFIER: a mask that the compiler does not see. It would compare one copy of the number and use another,
/// which kernels before 6.10 do not know to be the same.
#[inline(always)]
fn bounded(offset: u32) -> usize {
    const { assert!(MAX_OFFSET == 0x7fff) };
    let mut offset = offset as usize;
    // SAFETY: changes nothing of an offset within the bound.
    unsafe {
        asm!("{0} &= 32767", inout(reg) offset, options(pure, nomem, nostack, preserves_flags));
    }
    offset
}

/// Copies one piece at an offset; returns its size.
///
/// # Safety
///
/// It lies within both, and is aligned in `to`.
#[inline(always)]
unsafe fn piece<T: Copy>(from: *const u8, to: *mut u8, at: usize) -> usize {
    // SAFETY: as the caller says.
    let piece = unsafe { from.wrapping_add(at).cast::<T>().read_volatile() };
    // SAFETY: as the caller says.
    unsafe { to.wrapping_add(at).cast::<T>().write(piece) };
    size_of::<T>()
}

impl Source for Packet {
    #[inline(always)]
    fn load<H: Header>(&self, offset: u32) -> Option<H> {
        const { assert!(size_of::<H>() <= size_of::<Words>() && align_of::<H>() <= 8) };
        if offset > MAX_OFFSET {
            return None;
        }
        let mut words = Words::uninit();
        if let Some(start) = self.linear(bounded(offset), size_of::<H>()) {
            // SAFETY: checked against the end of the linear part, as the verifier checks again.
            unsafe { copy_linear::<H>(start, &mut words) };
        } else if !self.copy_paged::<H>(offset, &mut words) {
            return None;
        }
        // SAFETY: all of its bytes are written, and any are a header.
        Some(unsafe { words.as_ptr().cast::<H>().read() })
    }

    #[inline(always)]
    fn near<H: Header>(&self, offset: u32) -> Option<H> {
        // VERIFIER: no bound of the offset, which is a constant by now.
        const { assert!(size_of::<H>() <= size_of::<Words>() && align_of::<H>() <= 8) };
        let mut words = Words::uninit();
        let start = self.linear(offset as usize, size_of::<H>())?;
        // SAFETY: checked against the end of the linear part, as the verifier checks again.
        unsafe { copy_linear::<H>(start, &mut words) };
        // SAFETY: all of its bytes are written, and any are a header.
        Some(unsafe { words.as_ptr().cast::<H>().read() })
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        // SAFETY: a word of this CPU's own.
        unsafe { self.lethe.write_volatile(number) };
        // SAFETY: as above.
        unsafe { self.lethe.read_volatile() }
    }
}

/// Time since boot in µs.
#[inline(always)]
pub(crate) fn now_us() -> u64 {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    now_ns / 1000
}
