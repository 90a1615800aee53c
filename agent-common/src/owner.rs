//! The process behind a flow.

use bytemuck::{Pod, Zeroable};

use crate::{barrier::copy, layout::laid_out};

/// Bytes of a process's name (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// [`Owner::claim`]: no process is known.
pub const NOBODY: u32 = 0;
/// [`Owner::claim`]: the process made the socket, or the one that it was accepted from.
pub const MADE: u32 = 1;
/// [`Owner::claim`]: the process has connected, accepted, sent or received by it.
pub const USED: u32 = 2;

/// What the claims are called.
pub const CLAIMS: [(u64, &str); 3] =
    [(NOBODY as u64, "nobody"), (MADE as u64, "made"), (USED as u64, "used")];

laid_out! {
/// The process that a flow's local socket belongs to, as it was when it laid claim to that. All zero: none is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Owner {
    /// When it was started, in ns of the boot clock: with `pid`, no other process's. 0 if the kernel does not tell.
    pub started_ns: u64,
    /// Its control group's number in the unified hierarchy; 0 if the kernel does not tell.
    pub cgroup: u64,
    /// Its name, of the thread that made the call; zeros behind it.
    pub comm: [u8; COMM_LEN],
    /// Process id (the thread group's) in the first PID namespace.
    pub pid: u32,
    /// User id in the first user namespace.
    pub uid: u32,
    /// How it laid claim to the socket: 0 nobody has, 1 it made the socket or the one that this was accepted from, 2 it has
    /// connected, accepted, sent or received by it.
    pub claim: u32,
    /// Zero.
    pub padding: u32,
}
}

const _: () = assert!(size_of::<Owner>() == 48);

impl Owner {
    /// No process.
    pub const NOBODY: Self = Self {
        started_ns: 0,
        cgroup: 0,
        comm: [0; COMM_LEN],
        pid: 0,
        uid: 0,
        claim: NOBODY,
        padding: 0,
    };

    /// Writes this over another, under a lock if need be: no call.
    #[inline(always)]
    pub fn write_to(&self, other: &mut Self) {
        copy(other, self);
    }

    /// Whether a process is known.
    pub fn is_known(&self) -> bool {
        self.claim != NOBODY
    }

    /// The name as bytes, without what is behind it.
    pub fn comm(&self) -> &[u8] {
        let end = self.comm.iter().position(|&byte| byte == 0).unwrap_or(COMM_LEN);
        &self.comm[..end]
    }

    /// Whether a kernel program could have written this.
    pub(crate) fn is_possible(&self) -> bool {
        CLAIMS.iter().any(|&(code, _)| code == u64::from(self.claim))
    }
}
