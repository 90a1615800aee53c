//! Which process is behind a flow: when a packet is asked, and whose word counts.

use super::{Arrival, Flow};
use crate::{
    barrier::copy,
    config::Thresholds,
    owner::{NOBODY, Owner, USED},
};

/// Packets of a flow that are all asked, if its process is not known.
const EAGER: u64 = 16;

impl Flow {
    /// Whether `arrival` is asked whose socket it is of: as long as that is not known for certain, the first few packets
    /// are, and of the many of a flow that is nobody's here ever fewer. One that begins another flow is.
    #[inline(always)]
    pub fn asks_for_owner<T: Thresholds>(&self, arrival: &Arrival, thresholds: &T) -> bool {
        let [fwd, bwd] = &self.summary.totals;
        let packets = fwd.packets + bwd.packets;
        let is_asked = packets < EAGER || packets.is_power_of_two();
        (self.owner.claim != USED && is_asked) || self.ended(arrival, thresholds).is_some()
    }

    /// Takes the process that a packet of this flow told, unless a better word is known.
    #[inline(always)]
    pub fn own(&mut self, owner: &Owner) {
        if owner.claim != NOBODY && self.owner.claim != USED {
            copy(&mut self.owner, owner);
        }
    }

    /// Whether a packet comes from who began the flow, as far as that is known.
    #[inline(always)]
    pub fn would_be_from_initiator(&self, arrival: &Arrival) -> bool {
        self.summary.first_us == 0 || self.summary.initiator_is_b == arrival.from_b
    }
}
