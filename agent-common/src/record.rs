//! What the kernel program and the replay hand to user space: one finished set of integers per vector.
//!
//! Native byte order: producer and consumer are one machine. [`Record::from_bytes`] is the only decoder.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::Summary,
    key::{FlowKey, LOCAL, LOCAL_NONE},
    layout::laid_out,
    owner::Owner,
    window::{Extrema, Lengths, Sums},
};

/// Why a vector was emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The flow had `--stride` packets since its last vector, and `--min-gap` had passed.
    Stride = 1,
    /// A packet waited for `--interval`.
    Interval = 2,
    /// A direction's first FIN; or the last packets of a flow closed by FINs.
    Fin = 3,
    /// The flow's first RST; or the last packets of a flow closed by it.
    Rst = 4,
    /// The flow ended in silence, with packets in no vector yet.
    Idle = 5,
    /// The flow is older than `--active-timeout`.
    Active = 6,
    /// The table was almost full, and the flow among the longest silent.
    Evict = 7,
    /// The agent stops.
    Stop = 8,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Stride,
        Self::Interval,
        Self::Fin,
        Self::Rst,
        Self::Idle,
        Self::Active,
        Self::Evict,
        Self::Stop,
    ];

    /// The reason's word in a vector.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stride => "stride",
            Self::Interval => "interval",
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Evict => "evict",
            Self::Stop => "stop",
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == code)
    }
}

/// Which rule decided who the initiator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DirectionBy {
    /// Sender of the first packet seen.
    First = 0,
    /// Sender of a SYN.
    Syn = 1,
    /// Receiver of a SYN-ACK.
    SynAck = 2,
}

impl DirectionBy {
    /// Every rule.
    pub const ALL: [Self; 3] = [Self::First, Self::Syn, Self::SynAck];

    /// The rule's word in a vector.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Syn => "syn",
            Self::SynAck => "synack",
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| *rule as u8 == code)
    }
}

/// Where a flow is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets, by tc (TCX or clsact) at a network interface.
    Tc,
    /// What processes send and receive, by fentry or kprobe at the calls of a socket.
    Socket,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 2] = [Self::Tc, Self::Socket];

    /// The hook's word in a vector.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Socket => "socket",
        }
    }
}

laid_out! {
/// One vector in integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    /// Whose it is.
    pub key: FlowKey,
    /// The flow as of its last packet.
    pub summary: Summary,
    /// The window as of the same packet.
    pub sums: Sums,
    /// Smallest and largest of the window.
    pub extrema: Extrema,
    /// The process behind the flow, as far as it is known.
    pub owner: Owner,
    /// A [`Reason`].
    pub reason: u32,
    /// Zero.
    pub padding: u32,
}
}

const _: () = assert!(size_of::<Record>() == 424);
const _: () = assert!(core::mem::offset_of!(Record, reason) == 416);

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not the size of a record.
    Size(usize),
    /// A code, or a count, that no producer writes; the field's name.
    Field(&'static str),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size(size) => write!(f, "{size} bytes are no record of {}", size_of::<Record>()),
            Self::Field(name) => write!(f, "the record's field `{name}` holds an impossible value"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Record {
    /// Reads a record, and refuses one that no kernel program or replay would write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() != size_of::<Self>() {
            return Err(DecodeError::Size(bytes.len()));
        }
        let record: Self = bytemuck::pod_read_unaligned(bytes);
        let Self { key, summary, sums, extrema: _, owner, reason, padding: _ } = &record;
        let valid = [
            ("reason", Reason::from_code(*reason).is_some()),
            ("direction_by", DirectionBy::from_code(summary.direction_by).is_some()),
            ("local", LOCAL.iter().any(|&(code, _)| code == u64::from(key.local))),
            ("owner", owner.is_possible()),
            ("version", matches!(key.version, 4 | 6)),
            ("packets", is_window(sums)),
            ("sums", are_possible(sums)),
        ];
        match valid.into_iter().find(|(_, valid)| !valid) {
            Some((name, _)) => Err(DecodeError::Field(name)),
            None => Ok(record),
        }
    }

    /// Why the vector was emitted.
    pub fn reason(&self) -> Reason {
        Reason::from_code(self.reason).unwrap_or(Reason::Stop)
    }

    /// Which rule decided the direction.
    pub fn direction_by(&self) -> DirectionBy {
        DirectionBy::from_code(self.summary.direction_by).unwrap_or(DirectionBy::First)
    }

    /// Where the flow is seen.
    pub fn hook(&self) -> Hook {
        if self.key.local == LOCAL_NONE { Hook::Tc } else { Hook::Socket }
    }
}

/// Whether a window can hold so many packets.
fn is_window(sums: &Sums) -> bool {
    sums.lengths.iter().all(|lengths| lengths.packets <= 64) && matches!(sums.len(), 1..=64)
}

/// Whether a window can have these sums: what is finished from others would make no sense, or not fit its type.
fn are_possible(sums: &Sums) -> bool {
    use crate::window::slot::{IAT_MAX, LEN_MAX};

    let [fwd, bwd] = &sums.lengths;
    let n = fwd.packets.saturating_add(bwd.packets);
    let of_lengths = |lengths: &Lengths| {
        let Lengths { sq_sum, sum, packets } = *lengths;
        is_possible(packets, LEN_MAX.into(), sum.into(), sq_sum)
    };
    sums.lengths.iter().all(of_lengths)
        && is_possible(n.saturating_sub(1), IAT_MAX, sums.iat_sum, sums.iat_sq_sum)
        && (0..8).all(|bit| u32::from(sums.flag_count(bit)) <= n)
}

/// Whether `n` numbers, none above `most`, can have this sum and this sum of squares.
fn is_possible(n: u32, most: u64, sum: u64, squares: u64) -> bool {
    let [n, most, sum, squares] = [n.into(), most, sum, squares].map(u128::from);
    // The latter is Cauchy's inequality.
    sum <= n * most && squares <= most * sum && sum * sum <= n * squares
}

#[cfg(test)]
mod tests {
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::window::slot::{IAT_MAX, LEN_MAX};

    proptest! {
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 400..440)) {
            if let Ok(record) = Record::from_bytes(&bytes) {
                prop_assert_eq!(bytemuck::bytes_of(&record), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_truncated_record_is_refused() {
        for size in (0..500).filter(|&size| size != size_of::<Record>()) {
            assert_eq!(Record::from_bytes(&vec![0; size]), Err(DecodeError::Size(size)));
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let mut record = Record::zeroed();
        assert_eq!(
            Record::from_bytes(bytemuck::bytes_of(&record)),
            Err(DecodeError::Field("reason"))
        );
        record.reason = Reason::Idle as u32;
        record.key.version = 4;
        assert_eq!(
            Record::from_bytes(bytemuck::bytes_of(&record)),
            Err(DecodeError::Field("packets"))
        );
        record.sums.lengths.iter_mut().for_each(|lengths| lengths.packets = u32::MAX);
        assert_eq!(
            Record::from_bytes(bytemuck::bytes_of(&record)),
            Err(DecodeError::Field("packets"))
        );
        let [fwd, bwd] = &mut record.sums.lengths;
        (fwd.packets, bwd.packets) = (1, 63);
        assert_eq!(Record::from_bytes(bytemuck::bytes_of(&record)), Ok(record));
        let impossible: [fn(&mut Sums); 6] = [
            |sums| sums.iat_sum = 63 * IAT_MAX + 1,
            |sums| (sums.iat_sum, sums.iat_sq_sum) = (64, 64),
            |sums| sums.lengths[0].sum = LEN_MAX + 1,
            |sums| sums.lengths[1].sq_sum = 1,
            |sums| (sums.lengths[0].sum, sums.lengths[0].sq_sum) = (2, 3),
            |sums| sums.flags = 65,
        ];
        for (at, spoil) in impossible.into_iter().enumerate() {
            let mut record = record;
            spoil(&mut record.sums);
            let decoded = Record::from_bytes(bytemuck::bytes_of(&record));
            assert_eq!(decoded, Err(DecodeError::Field("sums")), "{at}");
        }
    }
}
