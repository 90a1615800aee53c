//! `BPF_PROG_TEST_RUN`: a loaded program over bytes of our own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions};

use super::{Kernel, Program, classifier};

/// The parts of `struct __sk_buff` that a test run may set (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketContext {
    /// Interface index, 0 for the loopback interface.
    pub ifindex: u32,
    /// Time in ns, used if the program was loaded with [`agent_common::config::Config::rehearsal`].
    pub tstamp_ns: u64,
    /// Bytes on the wire if the packet has more than those given, else 0; used as the time is.
    pub wire_len: u32,
    /// Payload bytes per segment of a super-packet, else 0.
    pub gso_size: u32,
    /// Segments of a super-packet, else 0.
    pub gso_segs: u32,
}

/// Size of `struct __sk_buff` up to and with `gso_size`, to a multiple of 8.
const CONTEXT: usize = 184;
const MARK: usize = 8;
const IFINDEX: usize = 40;
const TSTAMP: usize = 152;
const GSO_SEGS: usize = 164;
const GSO_SIZE: usize = 176;

impl PacketContext {
    fn to_bytes(self) -> [u8; CONTEXT] {
        let Self { ifindex, tstamp_ns, wire_len, gso_size, gso_segs } = self;
        let mut bytes = [0; CONTEXT];
        bytes[MARK..][..4].copy_from_slice(&wire_len.to_ne_bytes());
        bytes[IFINDEX..][..4].copy_from_slice(&ifindex.to_ne_bytes());
        bytes[TSTAMP..][..8].copy_from_slice(&tstamp_ns.to_ne_bytes());
        bytes[GSO_SEGS..][..4].copy_from_slice(&gso_segs.to_ne_bytes());
        bytes[GSO_SIZE..][..4].copy_from_slice(&gso_size.to_ne_bytes());
        bytes
    }
}

impl Kernel {
    /// Runs a program over a packet (at least 14 bytes, at most about a page), `repeat` times; returns the
    /// mean time of a run. The packet is accounted as any other.
    pub fn run(
        &mut self,
        program: Program,
        packet: &[u8],
        context: &PacketContext,
        repeat: u32,
    ) -> Result<Duration> {
        let context = context.to_bytes();
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let result = classifier(&mut self.ebpf, program)?
            .test_run(options)
            .with_context(|| format!("cannot run the kernel program `{}`", program.name()))?;
        Ok(result.duration)
    }
}
