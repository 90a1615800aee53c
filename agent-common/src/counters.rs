//! Where every packet went.

use bytemuck::{Pod, Zeroable};

use crate::parse::Malformed;

/// Counters of one CPU. Packets are wire packets, except where nothing of them could be read.
///
/// Conservation: `seen = accounted + not_ip + Σ malformed + filtered + table_full + contended`. Of a call on a
/// socket as of a packet, with what it sent or received for its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Packets that reached the program.
    pub seen: u64,
    /// Packets in a flow.
    pub accounted: u64,
    /// Bytes (Σ IP length) in a flow.
    pub accounted_bytes: u64,
    /// ARP, LLC and all else that is no IP.
    pub not_ip: u64,
    /// By reason, in the order of [`Malformed::ALL`].
    pub malformed: [u64; Malformed::ALL.len()],
    /// Packets the filter left out.
    pub filtered: u64,
    /// Packets that found no place in the flow table.
    pub table_full: u64,
    /// Bytes (Σ IP length) of those.
    pub table_full_bytes: u64,
    /// Calls on sockets whose flow others had for too long.
    pub contended: u64,
    /// Bytes of those.
    pub contended_bytes: u64,
    /// Calls on sockets whose end no program was told, or whose begin found no room to be noted: they are not seen.
    pub missed: u64,
    /// Super-packets (GRO, TSO) among the socket buffers.
    pub super_packets: u64,
    /// Later fragments whose first fragment was not seen.
    pub orphan_fragments: u64,
    /// Packets timed before their flow's last one.
    pub clock_backwards: u64,
    /// Flows begun.
    pub flows: u64,
    /// Records put into the ring.
    pub vectors: u64,
    /// Times the ring had no room; the vector came later.
    pub ring_full: u64,
}

impl Counters {
    /// All malformed packets.
    pub fn malformed(&self) -> u64 {
        self.malformed.iter().sum()
    }

    /// Packets seen that no counter holds: 0, or there is an error in the program.
    pub fn unaccounted(&self) -> i128 {
        let held = [
            self.accounted,
            self.not_ip,
            self.malformed(),
            self.filtered,
            self.table_full,
            self.contended,
        ];
        i128::from(self.seen) - held.into_iter().map(i128::from).sum::<i128>()
    }

    /// Adds the counters of another CPU.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_add);
    }

    /// Takes out what is not to count.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_sub);
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        let mine: &mut [u64; size_of::<Self>() / 8] = bytemuck::cast_mut(self);
        let theirs: &[u64; size_of::<Self>() / 8] = bytemuck::cast_ref(other);
        for (mine, theirs) in mine.iter_mut().zip(theirs) {
            *mine = with(*mine, *theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_in_no_counter_shows() {
        let mut sum = Counters::default();
        let one = Counters {
            seen: 11,
            accounted: 4,
            not_ip: 3,
            table_full: 1,
            contended: 1,
            ..Counters::default()
        };
        sum.add(&one);
        sum.add(&Counters { malformed: [0, 1, 0, 0, 0, 0, 0, 0, 1], ..Counters::default() });
        assert_eq!(sum.unaccounted(), 0);
        sum.seen += 1;
        assert_eq!(sum.unaccounted(), 1);
    }
}
