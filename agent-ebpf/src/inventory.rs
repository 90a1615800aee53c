//! The sockets that were there before the agent: a walk over the open files of every task, run once at the start.

use agent_common::owner::MADE;
use aya_ebpf::helpers::generated::bpf_sock_from_file;

use crate::{kernel, owner};

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c): each word is a pointer or has the room of one.
#[repr(C)]
struct TaskFile {
    meta: u64,
    task: *const core::ffi::c_void,
    fd: u64,
    file: *const core::ffi::c_void,
}

/// One open file of one task; both are null at the end. The word of a socket that has one already stays: it was written
/// by who uses it. Of several processes that hold a socket, the first of the walk is taken, until one uses it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn owner_open(ctx: *const TaskFile) -> i32 {
    // SAFETY: the kernel calls the program with a valid context.
    let TaskFile { meta: _, task, fd: _, file } = *unsafe { &*ctx };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: the context's file.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
    if socket.is_null() {
        return 0;
    }
    let socket = socket.cast();
    let sock = kernel::sock_of(socket);
    if sock.is_null() {
        return 0;
    }
    owner::introduce(sock, &kernel::owner(task as u64, MADE));
    0
}
