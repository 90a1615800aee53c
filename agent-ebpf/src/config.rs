//! The thresholds, as the loader left them in read-only data.

use aya_ebpf::Global;

use agent_common::{
    config::{Config, Thresholds},
    filter::{Instruction, Instructions, Program},
    key::{DIGESTED, Secrets},
};

/// Replaced by the loader, by this name.
#[unsafe(no_mangle)]
static CONFIG: Global<Config> = Global::new(Config::DEFAULT);

/// One threshold. The read is volatile, or the compiler would put the default in its place; the verifier
/// knows the loaded value, for the map is frozen, and prunes what it rules out.
macro_rules! threshold {
    ($name:ident) => {{
        let config = (&raw const CONFIG).cast::<Config>();
        // SAFETY: `Global` is transparent, and the static lives as long as the program.
        unsafe { (&raw const (*config).$name).read_volatile() }
    }};
}

/// The thresholds of the packet path and the sweep, read where they are used.
#[derive(Clone, Copy)]
pub(crate) struct Loaded<const SUPER_PACKETS: bool = true>;

impl<const SUPER_PACKETS: bool> Thresholds for Loaded<SUPER_PACKETS> {
    #[inline(always)]
    fn has_super_packets(&self) -> bool {
        SUPER_PACKETS
    }
    #[inline(always)]
    fn min_gap_us(&self) -> u64 {
        threshold!(min_gap_us)
    }
    #[inline(always)]
    fn interval_us(&self) -> u64 {
        threshold!(interval_us)
    }
    #[inline(always)]
    fn idle_timeout_us(&self) -> u64 {
        threshold!(idle_timeout_us)
    }
    #[inline(always)]
    fn active_timeout_us(&self) -> u64 {
        threshold!(active_timeout_us)
    }
    #[inline(always)]
    fn window(&self) -> u32 {
        threshold!(window)
    }
    #[inline(always)]
    fn stride(&self) -> u32 {
        threshold!(stride)
    }
}

/// Random numbers, other ones for each agent; replaced by the loader, by this name.
#[unsafe(no_mangle)]
static SECRETS: Global<Secrets> = Global::new([0; DIGESTED]);

/// By what a word of a key is multiplied, see [`FlowKey::digest`].
#[inline(always)]
pub(crate) fn secret(word: usize) -> u64 {
    let secrets = (&raw const SECRETS).cast::<u64>();
    // SAFETY: one for each word; volatile as a threshold is.
    unsafe { secrets.wrapping_add(word).read_volatile() }
}

/// Replaced by the loader, by this name.
#[unsafe(no_mangle)]
static FILTER: Global<Program> = Global::new(Program::ALL);

/// The filter. The verifier knows its instructions, and what they rule out.
pub(crate) struct Filter;

impl Instructions for Filter {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the static lives as long as the program; volatile as a threshold is.
        unsafe { Program::len_at((&raw const FILTER).cast()).read_volatile() }
    }

    #[inline(always)]
    fn at(&self, index: u32) -> Instruction {
        // SAFETY: as above; the place lies within the program.
        unsafe { Program::place((&raw const FILTER).cast(), index).read_volatile() }
    }
}

/// See [`Config::wakeup_bytes`].
#[inline(always)]
pub(crate) fn wakeup_bytes() -> u32 {
    threshold!(wakeup_bytes)
}

/// See [`Config::sample`].
#[inline(always)]
pub(crate) fn sample() -> u32 {
    threshold!(sample)
}

/// See [`Config::decap`].
#[inline(always)]
pub(crate) fn decap() -> bool {
    threshold!(decap) != 0
}

/// See [`Config::process`].
#[inline(always)]
pub(crate) fn process() -> bool {
    threshold!(process) != 0
}

/// See [`Config::rehearsal`].
#[inline(always)]
pub(crate) fn rehearsal() -> bool {
    threshold!(rehearsal) != 0
}
