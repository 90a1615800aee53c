//! Where the bytes of a frame lie, and the one way to read a header from them.

use network_types::{icmp::Icmpv4Hdr, sctp::SctpHdr, udp::UdpHdr, vlan::VlanHdr};

/// A header that any bytes of its size are a value of.
///
/// # Safety
///
/// Every bit pattern is a valid value, and the type has no padding.
pub unsafe trait Header: Copy {}

// SAFETY: plain integers and byte arrays, `repr(C)`, no padding.
unsafe impl Header for VlanHdr {}
// SAFETY: as above.
unsafe impl Header for UdpHdr {}
// SAFETY: as above.
unsafe impl Header for SctpHdr {}
// SAFETY: as above.
unsafe impl Header for Icmpv4Hdr {}
// SAFETY: plain bytes.
unsafe impl<const N: usize> Header for [u8; N] {}
// SAFETY: plain numbers.
unsafe impl<const N: usize> Header for [u32; N] {}
// SAFETY: plain numbers.
unsafe impl<const N: usize> Header for [u64; N] {}

/// Bytes of a frame.
pub trait Source {
    /// The header at `offset`, or `None` if it does not lie wholly within the bytes there are.
    fn load<H: Header>(&self, offset: u32) -> Option<H>;

    /// The header at `offset`, a constant, if it can be had with the least of work; `None` says nothing of whether it is there.
    #[inline(always)]
    fn near<H: Header>(&self, offset: u32) -> Option<H> {
        self.load(offset)
    }

    /// The same number. The kernel's source passes it through memory that the verifier does not follow, so
    /// that it forgets by which of several ways an offset came to be, and walks what follows once.
    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        number
    }
}

impl Source for [u8] {
    #[inline]
    fn load<H: Header>(&self, offset: u32) -> Option<H> {
        let bytes = self.get(offset as usize..)?.get(..size_of::<H>())?;
        // SAFETY: `bytes` is as long as `H`, which any bytes are a value of; the read is unaligned.
        Some(unsafe { bytes.as_ptr().cast::<H>().read_unaligned() })
    }
}
