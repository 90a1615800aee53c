//! Who uses a socket: a word that each socket carries, written by whoever makes, connects, accepts or uses it.
//!
//! The programs run inside the calls of the processes themselves, so that no process is too short-lived. Their answer
//! is always "go on".

use agent_common::owner::{MADE, NOBODY, Owner, USED};
use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE, bpf_spin_lock,
    },
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
        bpf_get_current_uid_gid, bpf_sk_storage_get, bpf_spin_lock as lock,
        bpf_spin_unlock as unlock,
    },
    macros::{btf_map, cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};

use crate::kernel;

/// What a socket carries.
#[repr(C)]
struct Word {
    lock: bpf_spin_lock,
    padding: u32,
    owner: Owner,
}

/// aya's own has no flag for it: a socket that is accepted begins with the word of the one it was accepted from.
#[repr(C)]
struct Words {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Word,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: no pointer is ever followed: they only tell types to the loader.
unsafe impl Sync for Words {}

#[btf_map]
static OWNERS: Words = Words {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// "Go on".
const ALLOW: i32 = 1;

/// A process makes a socket.
#[cgroup_sock(sock_create)]
#[expect(clippy::needless_pass_by_value, reason = "the macro passes the context so")]
pub(crate) fn owner_made(ctx: SockContext) -> i32 {
    if let Some(word) = word_of(ctx.sock.cast()) {
        write(word, MADE);
    }
    ALLOW
}

/// The calls of a process that lay claim to a socket. `getpeername` is also what accept(2) does with the socket that it
/// has taken off the queue, on behalf of who accepts (`inet_getname`, net/ipv4/af_inet.c).
macro_rules! claims {
    ($($name:ident: $hook:ident, $claim:ident;)+) => {
        $(
            #[doc = concat!("A process is in ", stringify!($hook), ".")]
            #[cgroup_sock_addr($hook)]
            pub(crate) fn $name(ctx: SockAddrContext) -> i32 {
                $claim(&ctx);
                ALLOW
            }
        )+
    };
}

claims! {
    owner_connect4: connect4, claim;
    owner_connect6: connect6, claim;
    owner_sendmsg4: sendmsg4, claim;
    owner_sendmsg6: sendmsg6, claim;
    owner_recvmsg4: recvmsg4, claim;
    owner_recvmsg6: recvmsg6, claim;
    owner_accept4: getpeername4, claim_first;
    owner_accept6: getpeername6, claim_first;
}

/// The last to do this is whose packets pass.
#[inline(always)]
fn claim(ctx: &SockAddrContext) {
    let Some(word) = word_of(socket(ctx)) else { return };
    // SAFETY: the word of a socket that is in use. A torn look only writes once more, or once less.
    let known = unsafe { &(*word).owner };
    // SAFETY: the helper has no preconditions.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    if known.claim != USED || known.pid != pid {
        write(word, USED);
    }
}

/// The first to do this is who accepted: others may ask for the peer's name later.
#[inline(always)]
fn claim_first(ctx: &SockAddrContext) {
    let Some(word) = word_of(socket(ctx)) else { return };
    // SAFETY: as above.
    if unsafe { (*word).owner.claim } != USED {
        write(word, USED);
    }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut core::ffi::c_void {
    // SAFETY: the kernel calls the program with a valid context.
    let fields = unsafe { &*ctx.sock_addr };
    // SAFETY: the kernel fills it in.
    unsafe { fields.__bindgen_anon_1.sk.cast() }
}

/// The word of a socket, made if need be. `None`: there is no memory.
#[inline(always)]
fn word_of(socket: *mut core::ffi::c_void) -> Option<*mut Word> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: the map's; the socket is the context's.
    let word = unsafe { bpf_sk_storage_get(map(), socket, core::ptr::null_mut(), create) };
    (!word.is_null()).then_some(word.cast())
}

#[inline(always)]
fn map() -> *mut core::ffi::c_void {
    (&raw const OWNERS).cast_mut().cast()
}

/// Writes that the process which runs has laid claim to a socket.
#[inline(always)]
fn write(word: *mut Word, claim: u32) {
    let owner = current(claim);
    with_lock(word, |known| owner.write_to(known));
}

/// Writes whose a socket is that the verifier knows, unless it says so itself.
#[inline(always)]
pub(crate) fn introduce(socket: *mut core::ffi::c_void, owner: &Owner) {
    let Some(word) = word_of(socket) else { return };
    with_lock(word, |known| {
        if known.claim == NOBODY {
            owner.write_to(known);
        }
    });
}

/// Does what takes no call to a word, under its lock.
#[inline(always)]
fn with_lock(word: *mut Word, work: impl FnOnce(&mut Owner)) {
    // SAFETY: the word of a socket that is in use.
    let word = unsafe { &mut *word };
    // SAFETY: its lock.
    unsafe { lock(&raw mut word.lock) };
    work(&mut word.owner);
    // SAFETY: taken above.
    unsafe { unlock(&raw mut word.lock) };
}

/// The process which runs.
#[inline(always)]
pub(crate) fn current(claim: u32) -> Owner {
    let started_ns = kernel::process_started_ns();
    let mut owner = Owner { claim, started_ns, ..Owner::NOBODY };
    // SAFETY: the helper has no preconditions.
    owner.pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    // SAFETY: as above.
    owner.uid = unsafe { bpf_get_current_uid_gid() } as u32;
    // SAFETY: as above.
    owner.cgroup = unsafe { bpf_get_current_cgroup_id() };
    let (comm, len) = ((&raw mut owner.comm).cast(), owner.comm.len() as u32);
    // SAFETY: so many bytes are the name's. It fails only for a thread without a name, and then clears it.
    let _ = unsafe { bpf_get_current_comm(comm, len) };
    owner
}

/// What a socket says of its process: copied to `owner`, which is nobody if it says nothing.
///
/// # Safety
///
/// `socket` is a full socket that the verifier knows.
#[inline(always)]
pub(crate) unsafe fn of_socket(socket: *mut core::ffi::c_void, owner: &mut Owner) {
    // SAFETY: the map's; the caller's socket.
    let word = unsafe { bpf_sk_storage_get(map(), socket, core::ptr::null_mut(), 0) };
    if word.is_null() {
        owner.claim = NOBODY;
        return;
    }
    with_lock(word.cast(), |known| known.write_to(owner));
}
