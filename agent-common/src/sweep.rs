//! What the daemon asks of a sweep over the flow table, and what it is told.

use bytemuck::{Pod, Zeroable};

/// Slots of the histogram of silence.
pub const AGES: usize = 64;

/// One walk over the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SweepRequest {
    /// The time in µs; 0 lets the kernel take its own.
    pub now_us: u64,
    /// Flows silent for longer end now (emergency expiry), in µs; `u64::MAX` for none.
    pub evict_after_us: u64,
    /// 1: every flow ends, or every flow of one interface.
    pub stop: u32,
    /// Index of that interface; 0 for all.
    pub stop_ifindex: u32,
    /// Flows silent for t µs are counted in slot `t >> age_shift` of [`SweepReport::ages`].
    pub age_shift: u32,
    /// Which table: [`OF_PACKETS`] or [`OF_CALLS`]. Each has a program that walks it; this says which to run.
    pub table: u32,
}

const _: () = assert!(size_of::<SweepRequest>() == 32);

/// [`SweepRequest::table`]: the flows of packets.
pub const OF_PACKETS: u32 = 0;
/// [`SweepRequest::table`]: the flows of socket calls.
pub const OF_CALLS: u32 = 1;

impl SweepRequest {
    /// An ordinary sweep by the kernel's clock, given the idle time-out in µs.
    pub fn ordinary(idle_timeout_us: u64) -> Self {
        // The smallest shift that keeps every flow not yet idle within the histogram.
        let bits = u64::BITS - idle_timeout_us.leading_zeros();
        let age_shift = bits.saturating_sub(AGES.ilog2());
        Self {
            now_us: 0,
            evict_after_us: u64::MAX,
            stop: 0,
            stop_ifindex: 0,
            age_shift,
            table: OF_PACKETS,
        }
    }

    /// The last sweep: every flow emits a `stop` vector.
    pub fn stop() -> Self {
        Self { stop: 1, ..Self::ordinary(u64::MAX) }
    }

    /// The last sweep for an interface that is gone.
    pub fn stop_interface(ifindex: u32) -> Self {
        Self { stop_ifindex: ifindex, ..Self::stop() }
    }

    /// Whether every flow of an interface ends.
    #[inline(always)]
    pub fn stops(&self, ifindex: u32) -> bool {
        self.stop != 0 && (self.stop_ifindex == 0 || self.stop_ifindex == ifindex)
    }

    /// The slot of a flow silent for `silent_us`.
    #[inline(always)]
    pub fn age_slot(&self, silent_us: u64) -> usize {
        let slot = silent_us >> (self.age_shift & 63);
        if slot < AGES as u64 { slot as usize } else { AGES - 1 }
    }
}

/// What a sweep found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SweepReport {
    /// Flows left in the table.
    pub flows: u64,
    /// Flows that ended.
    pub ended: u64,
    /// Vectors that found no room in the ring; sweep again once it is drained.
    pub waiting: u64,
    /// Flows left, by time of silence, see [`SweepRequest::age_shift`].
    pub ages: [u32; AGES],
}

const _: () = assert!(size_of::<SweepReport>() == 280);

/// Table fill, in percent, above which flows are evicted.
pub const EMERGENCY_PERCENT: u64 = 80;
/// Table fill, in percent, that an eviction aims at.
pub const RELIEF_PERCENT: u64 = 70;

/// Whether a table of `max_flows` entries is so full that flows may have to end early.
pub fn is_crowded(flows: u64, max_flows: u64) -> bool {
    flows * 100 > max_flows * EMERGENCY_PERCENT
}

impl SweepReport {
    /// The time of silence in µs from which flows must end for the table to get room, longest silent
    /// first; `None` while it has room, or when no flow has been silent for a slot's width.
    pub fn evict_after_us(&self, request: &SweepRequest, max_flows: u64) -> Option<u64> {
        if !is_crowded(self.flows, max_flows) {
            return None;
        }
        let excess = self.flows - max_flows * RELIEF_PERCENT / 100;
        let mut ending = 0;
        let mut cutoff = None;
        for slot in (1..AGES).rev() {
            if ending >= excess {
                break;
            }
            if self.ages[slot] > 0 {
                ending += u64::from(self.ages[slot]);
                cutoff = Some((slot as u64) << request.age_shift);
            }
        }
        cutoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_not_yet_idle_has_a_slot_of_its_own_age() {
        for idle in [1, 63, 64, 65, 1_000_000, 15_000_000, 3_600_000_000, u64::MAX >> 1] {
            let request = SweepRequest::ordinary(idle);
            assert!(idle >> request.age_shift < AGES as u64, "{idle}");
            assert_eq!(request.age_slot(idle) as u64, idle >> request.age_shift);
            assert_eq!(request.age_slot(u64::MAX), AGES - 1);
        }
    }

    #[test]
    fn the_longest_silent_go_first_and_no_more_than_needed() {
        let request = SweepRequest::ordinary(15_000_000);
        let mut report = SweepReport { flows: 90, ..Zeroable::zeroed() };
        report.ages[50] = 15;
        report.ages[40] = 10;
        report.ages[30] = 65;
        let cutoff = report.evict_after_us(&request, 100);
        assert_eq!(cutoff, Some(40 << request.age_shift));
        report.flows = 80;
        assert_eq!(report.evict_after_us(&request, 100), None);
        let young = SweepReport { flows: 100, ages: [0; AGES], ..report };
        assert_eq!(young.evict_after_us(&request, 100), None);
    }
}
