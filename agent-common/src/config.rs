//! Thresholds fixed when the program is loaded.

use bytemuck::{Pod, Zeroable};

/// How long a closed flow stays in the table, so that its last ACKs do not begin a ghost flow, in µs.
pub const LINGER_US: u64 = 2_000_000;

/// Every threshold of the packet path and the sweep. The kernel reads it from read-only data that the
/// loader fills in; `window` lies within 2..=64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Least time between two `stride` vectors of a flow, in µs.
    pub min_gap_us: u64,
    /// Longest time a packet waits for a vector (plus one poll), in µs.
    pub interval_us: u64,
    /// A flow silent for this long has ended, in µs.
    pub idle_timeout_us: u64,
    /// A flow older than this emits a vector and goes on, in µs.
    pub active_timeout_us: u64,
    /// Packets in the sliding window.
    pub window: u32,
    /// Packets between two vectors of a flow.
    pub stride: u32,
    /// Ring fill, in bytes, at which a record wakes user space; 0: every record does.
    pub wakeup_bytes: u32,
    /// A flow is seen if its [`crate::key::FlowKey::sample`] is at most this; `u32::MAX`: every flow.
    pub sample: u32,
    /// 1: packets are looked for inside of tunnels.
    pub decap: u32,
    /// 1: time is `skb->tstamp` in place of the boot clock, and a packet's length `skb->mark` if that is not 0,
    /// so that a test can replay a capture.
    pub rehearsal: u32,
    /// 1: flows learn which process is behind them.
    pub process: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Config>() == 64);

impl Config {
    /// The defaults of the command line.
    pub const DEFAULT: Self = Self {
        min_gap_us: 100_000,
        interval_us: 1_000_000,
        idle_timeout_us: 15_000_000,
        active_timeout_us: 300_000_000,
        window: 64,
        stride: 64,
        wakeup_bytes: 1 << 20,
        sample: u32::MAX,
        decap: 0,
        rehearsal: 0,
        process: 0,
        padding: 0,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Read access to the thresholds. The kernel's implementation loads each one from read-only data where
/// it is used, so that the verifier sees a constant; the host's is [`Config`] itself.
pub trait Thresholds {
    /// Whether there can be super-packets. Where there are none, the verifier is spared the walk through them.
    #[inline(always)]
    fn has_super_packets(&self) -> bool {
        true
    }
    /// See [`Config::min_gap_us`].
    fn min_gap_us(&self) -> u64;
    /// See [`Config::interval_us`].
    fn interval_us(&self) -> u64;
    /// See [`Config::idle_timeout_us`].
    fn idle_timeout_us(&self) -> u64;
    /// See [`Config::active_timeout_us`].
    fn active_timeout_us(&self) -> u64;
    /// See [`Config::window`].
    fn window(&self) -> u32;
    /// See [`Config::stride`].
    fn stride(&self) -> u32;
}

impl Thresholds for Config {
    fn min_gap_us(&self) -> u64 {
        self.min_gap_us
    }
    fn interval_us(&self) -> u64 {
        self.interval_us
    }
    fn idle_timeout_us(&self) -> u64 {
        self.idle_timeout_us
    }
    fn active_timeout_us(&self) -> u64 {
        self.active_timeout_us
    }
    fn window(&self) -> u32 {
        self.window
    }
    fn stride(&self) -> u32 {
        self.stride
    }
}
