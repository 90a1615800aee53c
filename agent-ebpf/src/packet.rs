//! The one door to a socket buffer.

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

/// A socket buffer. Every field of the context is read once, before any branch: a compiler that folds two
/// reads into one by a selected pointer makes a "dereference of modified ctx ptr".
pub(crate) struct Packet {
    skb: *mut __sk_buff,
    data: *const u8,
    data_end: *const u8,
    len: u32,
    ifindex: u32,
    gso_size: u32,
    vlan_tci: u32,
    vlan_present: u32,
    tstamp: u64,
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
            data: fields.data as usize as *const u8,
            data_end: fields.data_end as usize as *const u8,
            len: fields.len,
            ifindex: fields.ifindex,
            gso_size: fields.gso_size,
            vlan_tci: fields.vlan_tci,
            vlan_present: fields.vlan_present,
            tstamp: fields.tstamp,
            lethe,
        }
    }

    /// What is known beside the bytes.
    #[inline(always)]
    pub(crate) fn frame(&self, link: Link) -> Frame {
        Frame {
            link,
            ifindex: self.ifindex,
            wire_len: self.len,
            gso_size: self.gso_size,
            vlan_tci: if self.vlan_present != 0 { self.vlan_tci as u16 } else { 0 },
        }
    }

    /// The packet's time in µs.
    #[inline(always)]
    pub(crate) fn now_us(&self) -> u64 {
        if config::packet_clock() { self.tstamp / 1000 } else { now_us() }
    }

    /// Bytes outside the linear part, copied by the kernel.
    #[inline(always)]
    fn load_paged(&self, offset: u32, len: usize) -> Option<Words> {
        let mut words = [0; WORDS];
        let to = words.as_mut_ptr().cast();
        // SAFETY: `len` is at most the size of `words`.
        let status = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to, len as u32) };
        if status == 0 { Some(words) } else { None }
    }
}

/// The bytes of a header, wherever they came from.
type Words = [u64; WORDS];

/// As many as the longest header takes: IPv6's 40 bytes.
const WORDS: usize = 5;

/// Reads `len` bytes in as few pieces as there can be.
///
/// # Safety
///
/// The bytes lie within the linear part. They may lie at any address: eBPF loads what the machine can, and
/// the verifier lets a packet be read so on all that have efficient unaligned access. A Rust read of a
/// header, which has no alignment, would become one load for each byte.
#[inline(always)]
unsafe fn load_linear(from: *const u8, len: usize) -> Words {
    let mut words = [0; WORDS];
    let mut at = 0;
    for word in &mut words {
        if len - at >= 8 {
            // SAFETY: within `len`, see above.
            *word = unsafe { from.add(at).cast::<u64>().read_volatile() };
            at += 8;
            continue;
        }
        let mut shift = 0;
        if (len - at) & 4 != 0 {
            // SAFETY: as above.
            *word |= u64::from(unsafe { from.add(at).cast::<u32>().read_volatile() });
            shift = 32;
            at += 4;
        }
        if (len - at) & 2 != 0 {
            // SAFETY: as above.
            *word |= u64::from(unsafe { from.add(at).cast::<u16>().read_volatile() }) << shift;
            shift += 16;
            at += 2;
        }
        if (len - at) & 1 != 0 {
            // SAFETY: as above.
            *word |= u64::from(unsafe { from.add(at).read_volatile() }) << shift;
            at += 1;
        }
    }
    words
}

impl Source for Packet {
    #[inline(always)]
    fn load<H: Header>(&self, offset: u32) -> Option<H> {
        const { assert!(size_of::<H>() <= size_of::<Words>()) };
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data.wrapping_add(offset as usize);
        let words = if start.wrapping_add(size_of::<H>()) > self.data_end {
            self.load_paged(offset, size_of::<H>())?
        } else {
            // SAFETY: checked against the end of the linear part, as the verifier checks again.
            unsafe { load_linear(start, size_of::<H>()) }
        };
        // SAFETY: `words` holds at least as many bytes, and any are a header.
        Some(unsafe { (&raw const words).cast::<H>().read_unaligned() })
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
