//! The one door to files as they lie in the page cache, without a copy.
//!
//! A page of a file that was made shorter meanwhile is not there any more, and whoever reads it gets SIGBUS. It finds zeros
//! instead, and [`was_cut`] tells.

use std::{
    ffi::c_void,
    fs::File,
    io,
    ops::Deref,
    ptr, slice,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    libc::{BUS_ADRERR, c_int, siginfo_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
    param::page_size,
};

/// A part of a file.
#[derive(Debug)]
pub(super) struct Window {
    start: *mut c_void,
    len: usize,
}

// SAFETY: the memory is the window's own, and is only read.
unsafe impl Send for Window {}

impl Window {
    /// `len` bytes, at least one, from an offset that is a multiple of [`page_size`].
    pub(super) fn open(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        guard()?;
        // SAFETY: a place of the kernel's choice.
        let start = unsafe {
            mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, offset)?
        };
        Ok(Self { start, len })
    }
}

impl Deref for Window {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until this is dropped. Who else writes to the file changes what is read here, of which any is good:
        // it is parsed as what a stranger sent.
        unsafe { slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// The largest offset for a window that is not behind `offset`.
pub(super) fn floor(offset: u64) -> u64 {
    offset - offset % page_size() as u64
}

static WAS_CUT: AtomicBool = AtomicBool::new(false);

/// Whether any file was made shorter while a window lay over it.
#[inline]
pub(super) fn was_cut() -> bool {
    WAS_CUT.load(Ordering::Relaxed)
}

/// Puts [`on_bus_error`] in place, once.
fn guard() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        let handler = SigHandler::SigAction(on_bus_error);
        let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler calls nothing that a signal's may not.
        result = unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop).map_err(io::Error::from);
    });
    result
}

/// Puts a page of zeros where one of a file is missing.
extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes it.
    let info = unsafe { &*info };
    // SAFETY: for this signal it has an address.
    let address = unsafe { info.si_addr() };
    let page = address.map_addr(|address| address & !(page_size() - 1));
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: with this code, a page of a mapped file, of which there is nothing.
    let filled = info.si_code == BUS_ADRERR
        && unsafe { mmap_anonymous(page, page_size(), ProtFlags::READ, flags) }.is_ok();
    if filled {
        WAS_CUT.store(true, Ordering::Relaxed);
    } else {
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler at all. Upon return the same happens again, and ends the program as it would have.
        let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
    }
}
