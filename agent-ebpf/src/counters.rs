//! Where every packet went, by CPU.

use agent_common::{counters::Counters, parse::Malformed};
use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};

#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// This CPU's counters.
#[inline(always)]
pub(crate) fn mine() -> Option<&'static mut Counters> {
    let counters = COUNTERS.get_ptr_mut(0)?;
    // SAFETY: bottom halves are off in tc programs and in test runs: nothing else on this CPU counts.
    Some(unsafe { &mut *counters })
}

/// Counts a packet that is malformed for a reason.
#[inline(always)]
pub(crate) fn malformed(counters: &mut Counters, reason: Malformed) {
    let index = reason as usize;
    if index < Malformed::ALL.len() {
        counters.malformed[index] += 1;
    }
}
