//! The few system calls no safe crate offers, each behind one small wrapper.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::{Pid, geteuid},
};

/// True when the tests may touch namespaces and raw sockets. Otherwise says so in one line.
///
/// This, and a program to compare with that is not there, are the only grounds on which a test may return early.
pub fn is_root_or_say(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("{test}: not run, it needs root (euid {})", geteuid());
    }
    root
}

/// True when a program is installed that the product is compared with. Otherwise says so in one line: the tests'
/// command tries to install it, and goes on without.
pub fn is_there_or_say(test: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_there {
        eprintln!(
            "{test}: not run, there is no {program} to compare with (apt-get install {program})"
        );
    }
    is_there
}

/// True in a guest of `cargo xtask vm`.
pub fn is_emulated() -> bool {
    std::env::var_os("FEATURE_AGENT_KERNEL").is_some()
}

/// True in a guest whose clock counts instructions, each a nanosecond.
pub fn counts_instructions() -> bool {
    std::env::var_os("FEATURE_AGENT_CLOCK").is_some_and(|clock| clock == "instructions")
}

/// Binds the calling thread, and what it starts from now on, to one processor.
pub fn pin_to_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("processor number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("bind to one processor");
}

/// Lets no other ordinary process, and none that has called this too, interrupt the calling thread and those that it starts from
/// now on: `SCHED_FIFO` of sched(7).
pub(crate) fn run_uninterrupted() {
    // SAFETY: every field of it may be zero.
    let mut how: libc::sched_param = unsafe { std::mem::zeroed() };
    how.sched_priority = 1;
    // SAFETY: asks for nothing.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: this thread lives, and the pointer is to a live sched_param. By sched_setscheduler(2) musl would refuse.
    let refused = unsafe { libc::pthread_setschedparam(this, libc::SCHED_FIFO, &raw const how) };
    assert_eq!(refused, 0, "first in, first out: {}", io::Error::from_raw_os_error(refused));
}

/// Looks up an interface in the calling thread's namespace.
pub(crate) fn if_index(name: &str) -> i32 {
    let index = if_nametoindex(name).unwrap_or_else(|e| panic!("interface {name}: {e}"));
    i32::try_from(index).expect("interface index")
}

/// A raw packet socket bound to an interface; `protocol` 0 receives nothing.
pub(crate) fn packet_socket(ifindex: i32, protocol: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers; a returned descriptor is fresh.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(fd)?;
    // SAFETY: just returned by socket(2) and owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    bind_packet_socket(&fd, ifindex, protocol)?;
    Ok(fd)
}

/// Binds a packet socket to an interface and starts to receive `protocol` unless that is 0.
pub(crate) fn bind_packet_socket(fd: &OwnedFd, ifindex: i32, protocol: u16) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and length are those of a live sockaddr_ll.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) })
}

/// setsockopt(2) with a value of plain bytes.
pub(crate) fn set_option(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: pointer and length describe `value`, which outlives the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) })
}

/// getsockopt(2) of `N` bytes.
pub(crate) fn get_option<const N: usize>(
    fd: &OwnedFd,
    level: i32,
    name: i32,
) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut len = N as libc::socklen_t;
    let into = value.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, into, &raw mut len) })?;
    Ok(value)
}

/// Sends one batch of frames by sendmmsg(2); returns how many the kernel took, at least one.
pub(crate) fn send_batch(fd: &OwnedFd, frames: &[&[u8]]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all-zero is a valid mmsghdr.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let count = messages.len() as u32;
    // SAFETY: messages, parts and frames outlive the call; sending only reads the frames.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    check(sent)?;
    Ok(sent as usize)
}

/// Sets one ethtool flag (the old one-value commands) of an interface of the calling thread's namespace.
pub(crate) fn ethtool_set(interface: &str, command: u32, value: u32) -> io::Result<()> {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    let fd = packet_socket(if_index(interface), 0)?;
    let mut data = [command, value];
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
    // SAFETY: `request` names the interface and points at a live ethtool_value, two u32.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) })
}

/// A shared memory mapping of a packet socket's ring.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory that stays valid until drop, on any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of the ring.
    pub(crate) fn new(fd: &OwnedFd, len: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(null, len, access, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(at.cast()).expect("mmap returns no null"), len })
    }

    /// The status word at `offset`, shared with the kernel.
    pub(crate) fn status(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len, "status within the ring");
        // SAFETY: within the mapping by the assertion.
        let word = unsafe { self.start.add(offset) };
        // SAFETY: aligned and within the mapping; both sides access it atomically.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// The bytes of a slot that the kernel has handed over, as its status word says.
    pub(crate) fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= self.len, "slot within the ring");
        std::sync::atomic::fence(Ordering::Acquire);
        // SAFETY: within the mapping by the assertion.
        let start = unsafe { self.start.add(offset) };
        // SAFETY: the kernel does not write to a slot it handed over.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range mmap returned.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Waits up to `timeout_ms` milliseconds for something to read; the end of a stream counts.
pub(crate) fn wait_readable(fd: &impl AsRawFd, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    ready > 0
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
