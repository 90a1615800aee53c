//! What is on its way to its flow.

use agent_common::{
    entry::Entry,
    flow::Arrival,
    key::FlowKey,
    owner::{NOBODY, Owner},
    parse::{Headers, Measures},
};
use aya_ebpf::{bindings::__sk_buff, btf_maps::PerCpuArray, macros::btf_map};

use crate::local::{self, Question};

/// A packet on its way to its flow.
///
/// VERIFIER: in a map and not on the stack, so that the verifier forgets by which of the parser's many paths
/// the packet came, and walks what follows once.
#[repr(C)]
pub(crate) struct Passage {
    /// An entry as it is inserted, since no lock may lie in a per-CPU map: all zero but the key, the packet's.
    pub(crate) template: Entry,
    /// The packet's headers.
    pub(crate) headers: Headers,
    /// The packet as its flow sees it.
    pub(crate) arrival: Arrival,
    /// The process behind the packet, if that was asked.
    pub(crate) owner: Owner,
    /// Room for [`local`].
    question: Question,
    /// Vectors that found no room in the ring.
    waiting: u64,
    /// A word for [`crate::packet::Packet`].
    pub(crate) lethe: u32,
    /// By which the locks of entries are taken, see [`crate::table::Table::acquire`].
    pub(crate) token: u32,
}

impl Passage {
    /// This CPU's.
    #[inline(always)]
    pub(crate) fn mine() -> Option<&'static mut Self> {
        let passage = PASSAGE.get_ptr_mut(0)?;
        // SAFETY: this CPU's own, and bottom halves are off.
        Some(unsafe { &mut *passage })
    }

    /// The packet's key.
    #[inline(always)]
    pub(crate) fn key(&self) -> &FlowKey {
        &self.template.key
    }

    /// Takes in what was parsed of a packet.
    #[inline(always)]
    pub(crate) fn admit(&mut self, headers: Headers, measures: Measures) {
        self.headers = headers;
        self.arrival.measures = measures;
    }

    /// Finds out whose the packet is, which is now complete.
    #[inline(always)]
    pub(crate) fn address(&mut self) {
        let from_b = self.headers.write_key(&mut self.template.key);
        self.arrival.from_b = from_b.into();
        self.arrival.is_tcp = self.headers.is_tcp();
        self.waiting = 0;
        self.owner.claim = NOBODY;
    }

    /// Finds out which process is behind the packet.
    #[inline(always)]
    pub(crate) fn find_owner(&mut self, skb: *mut __sk_buff, from_initiator: bool) {
        let Self { headers, question, owner, .. } = self;
        local::of_packet(skb, headers, from_initiator, question, owner);
    }

    /// Whether a vector found no room in the ring.
    #[inline(always)]
    pub(crate) fn is_waiting(&self) -> bool {
        // SAFETY: a valid reference; volatile, see `emit::vector`.
        unsafe { (&raw const self.waiting).read_volatile() != 0 }
    }

    /// Key, packet, and the count of vectors that found no room in the ring.
    #[inline(always)]
    pub(crate) fn parts(&mut self) -> (&FlowKey, &Arrival, &mut u64) {
        (&self.template.key, &self.arrival, &mut self.waiting)
    }
}

#[btf_map]
static PASSAGE: PerCpuArray<Passage, 1> = PerCpuArray::new();
