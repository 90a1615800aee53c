//! Super-packets in a capture: what their segments were.
//!
//! A host that captures its own traffic sees, with offload on, packets of up to 64 KB and more that were never on
//! a wire: the network card cuts them on the way out, and glues them on the way in. A live agent is told the
//! size of the segments (`gso_size`); a capture does not say it. For TCP it can be learnt: each side's SYN says
//! the largest segment that it takes (MSS, RFC 9293 3.7.1), which is its own MTU less 40 or 60 bytes, so that what
//! both can carry is the smaller of the two, less the options that each segment has (Linux:
//! `tcp_current_mss`). A longer payload is a super-packet, and is cut by that size.
//!
//! Where no SYN was seen nothing tells a super-packet from a jumbo frame, but one longer than any Ethernet
//! carries is kept as one packet and marked so.

use agent_common::{
    flow::Arrival,
    parse::Place,
    segments::{GSO_BY_FRAGS, tcp},
};

/// Longest IP packet on any Ethernet in use: jumbo frames of 9,216 bytes.
const LONGEST: u64 = 9216;

/// What the SYNs of a flow said: the largest segment that each end takes, end `a` first; 0 for unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentSizes([u16; 2]);

impl SegmentSizes {
    /// Looks at a packet of the flow, no fragment: learns from a SYN, and tells the `gso_size` of a super-packet, 0
    /// for any other packet. `data` are the bytes of the frame.
    #[inline]
    pub(super) fn gso_size<'a>(
        &mut self,
        data: impl FnOnce() -> &'a [u8],
        place: Place,
        arrival: &Arrival,
    ) -> u32 {
        let segments = &arrival.measures.segments;
        if arrival.is_tcp {
            // Of its headers those that are not IP's; TCP's is 20 bytes without options.
            let options_len = (segments.headers + place.ip).saturating_sub(place.l4 + 20);
            if arrival.measures.tcp_flags & tcp::SYN != 0 {
                self.learn(options(data(), place, options_len), arrival);
                return 0;
            }
            if let Some(size) = self.size(options_len) {
                return if segments.payload_bytes() > size.into() { size } else { 0 };
            }
        }
        if segments.bytes() > LONGEST { GSO_BY_FRAGS } else { 0 }
    }

    /// The payload of a segment with so many bytes of options, if it is known.
    fn size(self, options_len: u32) -> Option<u32> {
        let [a, b] = self.0.map(u32::from);
        let largest = if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
        largest.checked_sub(options_len).filter(|&size| size > 0)
    }

    fn learn(&mut self, options: &[u8], syn: &Arrival) {
        if syn.measures.tcp_flags & tcp::ACK == 0 {
            *self = Self::default();
        }
        if let Some(mss) = mss(options) {
            self.0[usize::from(syn.from_b != 0)] = mss;
        }
    }
}

/// As many of the options as were captured, of the TCP header that the parser found there.
fn options(data: &[u8], place: Place, len: u32) -> &[u8] {
    let options = data.get(place.l4 as usize + 20..).unwrap_or_default();
    options.get(..len as usize).unwrap_or(options)
}

/// The option "maximum segment size" (RFC 9293 3.2), if there is one.
fn mss(options: &[u8]) -> Option<u16> {
    let mut left = options;
    loop {
        left = match left {
            // No operation.
            [1, rest @ ..] => rest,
            [2, 4, high, low, ..] => {
                return Some(u16::from_be_bytes([*high, *low])).filter(|&mss| mss > 0);
            }
            // The list's end, or one that is cut off.
            [0, ..] | [] | [_] | [_, 0 | 1, ..] => return None,
            [_, len, ..] => left.get(usize::from(*len)..)?,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_found_among_others() {
        assert_eq!(mss(&[2, 4, 5, 180]), Some(1460));
        assert_eq!(mss(&[1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180]), Some(1460));
        assert_eq!(mss(&[3, 3, 7, 0, 2, 4, 5, 180]), None);
        for cut in [&[2, 4, 5][..], &[2], &[8, 10, 0], &[8, 0], &[9, 1], &[2, 4, 0, 0], &[]] {
            assert_eq!(mss(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn both_ends_count_and_options_are_taken_off() {
        assert_eq!(SegmentSizes([1460, 1400]).size(12), Some(1388));
        assert_eq!(SegmentSizes([0, 1400]).size(0), Some(1400));
        assert_eq!(SegmentSizes([0, 0]).size(0), None);
        assert_eq!(SegmentSizes([8, 9]).size(12), None);
    }
}
