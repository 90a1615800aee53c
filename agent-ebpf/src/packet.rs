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
    fn load_paged<H: Header>(&self, offset: u32) -> Option<H> {
        let mut header = core::mem::MaybeUninit::<H>::uninit();
        let to = header.as_mut_ptr().cast();
        // SAFETY: the helper writes the whole of `header`, or fails.
        let status =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, to, size_of::<H>() as u32) };
        if status == 0 {
            // SAFETY: written by the helper; any bytes are a header.
            Some(unsafe { header.assume_init() })
        } else {
            None
        }
    }
}

impl Source for Packet {
    #[inline(always)]
    fn load<H: Header>(&self, offset: u32) -> Option<H> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data.wrapping_add(offset as usize);
        if start.wrapping_add(size_of::<H>()) > self.data_end {
            return self.load_paged(offset);
        }
        // SAFETY: checked against the end of the linear part, as the verifier checks again.
        Some(unsafe { start.cast::<H>().read_unaligned() })
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
