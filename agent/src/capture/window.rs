//! The one door to files as they lie in the page cache, without a copy.
//!
//! A page may be missing when it is read: the file was made shorter meanwhile, or its medium does not deliver. Whoever reads
//! there gets SIGBUS, which would end the program. It finds zeros instead, and [`Window::missing`] tells.

use std::{
    ffi::c_void,
    fs::File,
    io,
    ops::Deref,
    ptr, slice,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering, compiler_fence},
    },
};

use nix::{
    libc::{BUS_ADRERR, c_int, siginfo_t},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction},
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
    place: &'static Place,
}

// SAFETY: the memory is the window's own, and is only read.
unsafe impl Send for Window {}

impl Window {
    /// `len` bytes, at least one, from an offset that is a multiple of [`page_size`].
    ///
    /// # Errors
    ///
    /// The file cannot be mapped, or there are too many windows.
    pub(super) fn open(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        if !is_guarded() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // At once: what a processor is asked to fetch ahead it fetches of pages that are there.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a place of the kernel's choice.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, flags, file, offset)? };
        let Some(place) = PLACES.iter().find(|place| place.take(start.addr(), len)) else {
            // SAFETY: mapped above, and nothing refers to it.
            let _ = unsafe { munmap(start, len) };
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        Ok(Self { start, len, place })
    }

    /// From where on something of what was read was not there.
    #[inline]
    pub(super) fn missing(&self) -> Option<usize> {
        // What the handler of this thread's signal wrote when something was read before.
        compiler_fence(Ordering::SeqCst);
        let missing = self.place.missing.load(Ordering::Relaxed);
        (missing != NOTHING).then_some(missing)
    }
}

impl Deref for Window {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped until this is dropped, and not written to here. Should another process write to the file at the same
        // time, the bytes change under the reference: each that matters is read once, to where it does not, or is nothing but
        // compared with a bound by checks that are made again for each access.
        unsafe { slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // First, or another window might come to lie there before.
        self.place.give_back();
        // SAFETY: mapped by `open`, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// The largest offset for a window that is not behind `offset`.
pub(super) fn floor(offset: u64) -> u64 {
    offset - offset % page_size() as u64
}

/// Where a window lies, for the handler of a signal, which can ask for nothing.
#[derive(Debug)]
struct Place {
    /// 0: of none.
    start: AtomicUsize,
    len: AtomicUsize,
    /// The first byte that was not there, from the start, or [`NOTHING`].
    missing: AtomicUsize,
}

const NOTHING: usize = usize::MAX;

/// For all windows that there are at one time; what finds no place is read, not mapped.
static PLACES: [Place; 128] = [const { Place::new() }; 128];

impl Place {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            missing: AtomicUsize::new(NOTHING),
        }
    }

    /// False if it is taken.
    fn take(&self, start: usize, len: usize) -> bool {
        let taken = self.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            self.missing.store(NOTHING, Ordering::Release);
            self.len.store(len, Ordering::Release);
        }
        taken.is_ok()
    }

    fn give_back(&self) {
        self.len.store(0, Ordering::Release);
        self.start.store(0, Ordering::Release);
    }

    /// How far behind its start an address lies; `None` if that is not within.
    fn offset_of(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.start.load(Ordering::Acquire))?;
        // Pages are mapped as a whole.
        (offset < self.len.load(Ordering::Acquire).next_multiple_of(page_size())).then_some(offset)
    }
}

/// Puts [`on_bus_error`] in place, once; false if it cannot be.
fn is_guarded() -> bool {
    static GUARDED: OnceLock<bool> = OnceLock::new();
    *GUARDED.get_or_init(|| {
        // Not asked for the first time inside of the handler.
        let _ = page_size();
        let handler = SigHandler::SigAction(on_bus_error);
        let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler calls nothing that a signal's may not.
        unsafe { sigaction(Signal::SIGBUS, &action) }.is_ok()
    })
}

/// Puts a page of zeros where one of a window is missing; ends the program for any other reason.
extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes it.
    let info = unsafe { &*info };
    // SAFETY: for this signal it has an address, if the kernel made it; if not, that is not used.
    let address = unsafe { info.si_addr() };
    if info.si_code == BUS_ADRERR {
        let page = address.map_addr(|address| address & !(page_size() - 1));
        let found = PLACES.iter().find_map(|place| {
            let missing = place.offset_of(page.addr())?;
            Some((place, missing))
        });
        if let Some((place, missing)) = found {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: a page of a window, of which there is nothing.
            if unsafe { mmap_anonymous(page, page_size(), ProtFlags::READ, flags) }.is_ok() {
                place.missing.fetch_min(missing, Ordering::Release);
                return;
            }
        }
    }
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no handler at all.
    let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
    // It ends the program upon return.
    let _ = raise(Signal::SIGBUS);
}
