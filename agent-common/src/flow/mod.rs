//! A flow: its totals, its window, and the rules by which it speaks and ends.
//!
//! The kernel calls this under the entry's lock, so nothing here may become a function call: all is
//! inlined, and structures are written field by field.

mod owned;
mod totals;

use bytemuck::{Pod, Zeroable};

use crate::{
    barrier::{clear, copy, elapsed, reread, saturating_sum, settled},
    config::{LINGER_US, Thresholds},
    layout::laid_out,
    owner::Owner,
    parse::{Headers, Measures},
    record::{DirectionBy, Reason, Record},
    segments::tcp,
    sweep::SweepRequest,
    window::Window,
};

pub use self::totals::{NO_WINDOW, Totals};

laid_out! {
/// What a vector says of the flow beside its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Summary {
    /// Time of the first packet, in µs of the kernel's boot clock (or of the capture).
    pub first_us: u64,
    /// Time of the last packet.
    pub last_us: u64,
    /// Totals by direction: fwd, bwd.
    pub totals: [Totals; 2],
    /// Vectors emitted before this one.
    pub seq: u32,
    /// Vectors that had to wait for room in the ring.
    pub missed: u32,
    /// 1 if the initiator is end `b` of the key.
    pub initiator_is_b: u8,
    /// A [`DirectionBy`].
    pub direction_by: u8,
    /// 1 for a TCP flow whose first packet had no SYN.
    pub midstream: u8,
    /// Zero.
    pub reserved: u8,
    /// Super-packets, each counted as its wire packets.
    pub super_packets: u32,
    /// Super-packets whose segments' sizes are unknown, each counted as one packet.
    pub super_packets_kept: u32,
    /// Zero.
    pub padding: u32,
}
}

const _: () = assert!(size_of::<Summary>() == 232);

laid_out! {
/// A flow's whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// What its vectors say.
    pub summary: Summary,
    /// When its last vector was emitted; before the first one, its first packet's time.
    vector_us: u64,
    /// Since when [`crate::config::Config::active_timeout_us`] runs.
    active_us: u64,
    /// Wire packets in no vector yet.
    pending: u32,
    /// A [`Reason`] that waits to be emitted, 0 for none: FIN and RST are not forgotten when the ring is full.
    due: u8,
    /// By what it is closed, in bits: 1 a FIN from the initiator, 2 a FIN to it, 4 an RST.
    closed: u8,
    /// 1 while a vector waits for room in the ring.
    delayed: u8,
    /// Packets whose flags are in `recent_flags`.
    recent: u8,
    /// Flags of the last few packets by direction, in bytes as the window's sums have them: the totals lack these.
    recent_flags: [u64; 2],
    /// Its sliding window.
    pub window: Window,
    /// The process behind it, as far as it is known.
    owner: Owner,
}
}

const _: () = assert!(size_of::<Flow>() == 232 + 40 + 656 + 48);

impl Flow {
    /// How many of its first bytes nearly every packet reads or writes: all before the window's ring.
    pub const WITHOUT_RING: usize = core::mem::offset_of!(Self, window) + Window::WITHOUT_RING;
}

const FIN_FWD: u8 = 1;
const FIN_BWD: u8 = 2;
const RESET: u8 = 4;

/// A packet as a flow sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Time in µs.
    pub now_us: u64,
    /// What is measured of it.
    pub measures: Measures,
    /// 1 if the sender is end `b` of the key, else 0.
    ///
    /// VERIFIER: not a `bool`, whose known range lets the compiler drop the mask of an index.
    pub from_b: u8,
    /// Whether the flow is TCP.
    pub is_tcp: bool,
}

impl Arrival {
    /// The packet of these headers, from end `b` or not, at a time in µs.
    #[inline(always)]
    pub fn new(headers: &Headers, measures: &Measures, from_b: bool, now_us: u64) -> Self {
        Self { now_us, measures: *measures, from_b: u8::from(from_b), is_tcp: headers.is_tcp() }
    }
}

/// What is known of a flow when a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: its entry was just made.
    New,
    /// It has begun.
    Known,
    /// It has ended, but its last words find no room in the ring: it goes on. A delay, not a loss.
    Overdue,
}

/// What a packet did to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken; no vector is due.
    Quiet,
    /// Taken; a vector is due.
    Due(Reason),
    /// Not taken: the flow had ended before, with packets in no vector yet. Emit its last vector with this
    /// reason, then offer the packet again, as [`Standing::Overdue`] if the vector must wait.
    Ended(Reason),
}

/// What a sweep has to do with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepAction {
    /// Nothing.
    Keep,
    /// Emit a vector.
    Emit(Reason),
    /// Emit a vector, if there is a reason, and delete the entry.
    End(Option<Reason>),
}

impl Flow {
    /// Makes this the state of a flow that begins with `arrival`, which is still to be taken.
    #[inline(always)]
    fn begin(&mut self, arrival: &Arrival) {
        let opening = arrival.measures.tcp_flags & (tcp::SYN | tcp::ACK);
        let (initiator_is_b, direction_by) = if !arrival.is_tcp || opening & tcp::SYN == 0 {
            (arrival.from_b, DirectionBy::First)
        } else if opening & tcp::ACK == 0 {
            (arrival.from_b, DirectionBy::Syn)
        } else {
            (arrival.from_b ^ 1, DirectionBy::SynAck)
        };
        let Self {
            summary,
            vector_us,
            active_us,
            pending,
            due,
            closed,
            delayed,
            recent,
            recent_flags,
            window,
            owner,
        } = self;
        clear(summary);
        clear(owner);
        summary.first_us = arrival.now_us;
        summary.last_us = arrival.now_us;
        summary.totals[0].init_window = NO_WINDOW;
        summary.totals[1].init_window = NO_WINDOW;
        summary.initiator_is_b = initiator_is_b;
        summary.direction_by = direction_by as u8;
        summary.midstream = u8::from(arrival.is_tcp && opening & tcp::SYN == 0);
        *vector_us = arrival.now_us;
        *active_us = arrival.now_us;
        *pending = 0;
        *due = 0;
        *closed = 0;
        *delayed = 0;
        *recent = 0;
        clear(recent_flags);
        window.clear();
    }

    /// A packet of this flow, or of the next one with the same key.
    #[inline(always)]
    pub fn on_packet<T: Thresholds>(
        &mut self,
        arrival: &Arrival,
        standing: Standing,
        thresholds: &T,
    ) -> Outcome {
        let begins = match standing {
            Standing::New => true,
            Standing::Known => match self.ended(arrival, thresholds) {
                Some(reason) if self.pending > 0 => return Outcome::Ended(reason),
                ended => ended.is_some(),
            },
            Standing::Overdue => false,
        };
        if begins {
            self.begin(arrival);
        }
        match settled(self).take(arrival, thresholds) {
            Some(reason) => Outcome::Due(reason),
            None => Outcome::Quiet,
        }
    }

    /// The reason of the vector that a flow which had ended before this packet still has to emit.
    #[inline(always)]
    pub fn last_words<T: Thresholds>(&self, arrival: &Arrival, thresholds: &T) -> Option<Reason> {
        if self.pending > 0 { self.ended(arrival, thresholds) } else { None }
    }

    /// Why the flow had ended before this packet, which then begins another: it was silent for the idle
    /// time-out, or it was closed and this is a SYN.
    #[inline(always)]
    fn ended<T: Thresholds>(&self, arrival: &Arrival, thresholds: &T) -> Option<Reason> {
        if elapsed(self.summary.last_us, arrival.now_us) >= thresholds.idle_timeout_us() {
            return Some(Reason::Idle);
        }
        let opens = arrival.measures.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        if opens { self.close_reason() } else { None }
    }

    /// Accounts a packet, whatever came before; returns the reason of a vector that is due.
    #[inline(always)]
    fn take<T: Thresholds>(&mut self, arrival: &Arrival, thresholds: &T) -> Option<Reason> {
        let last_us = self.summary.last_us;
        let now_us = self.clamped(arrival.now_us);
        let direction = usize::from(arrival.from_b ^ self.summary.initiator_is_b) & 1;

        self.summary.last_us = now_us;
        self.summary.super_packets_kept += arrival.measures.segments.kept;
        self.pending = saturating_sum(self.pending, arrival.measures.segments.count);
        let totals = &mut self.summary.totals[direction];
        totals.see(arrival);
        let (capacity, iat_us) = (thresholds.window(), now_us - last_us);
        if !thresholds.has_super_packets() || reread(&arrival.measures.segments.count) == 1 {
            totals.add_packet(&arrival.measures.segments);
            self.note_flags(arrival.measures.tcp_flags, direction);
            self.window.push_packet(
                capacity,
                &arrival.measures.segments,
                iat_us,
                arrival.measures.tcp_flags,
                direction,
            );
        } else {
            self.summary.super_packets += 1;
            totals.add_segments(&arrival.measures.segments, arrival.measures.tcp_flags);
            self.window.push_segments(
                capacity,
                &arrival.measures.segments,
                iat_us,
                arrival.measures.tcp_flags,
                direction,
            );
        }
        if arrival.measures.tcp_flags & (tcp::FIN | tcp::RST) != 0 {
            self.close(arrival.measures.tcp_flags, direction);
        }
        self.due_at(now_us, thresholds)
    }

    /// Whether `arrival` was timed before the flow's last packet.
    #[inline(always)]
    pub fn is_after(&self, arrival: &Arrival) -> bool {
        self.summary.last_us > arrival.now_us
    }

    /// Writes what a vector says whatever its reason, for [`Flow::emit`] to complete.
    ///
    /// VERIFIER: apart, for it is walked once for each reason unless it comes before one is known.
    #[inline(always)]
    pub fn prepare<T: Thresholds>(&mut self, thresholds: &T, record: &mut Record) {
        record.extrema = self.window.extrema(thresholds.window());
        settled(self).settle_flags();
    }

    /// Makes a vector at `now_us`, which is prepared, and counts it as emitted. The key is left to the caller, who needs no
    /// lock for it.
    #[inline(always)]
    pub fn emit(&mut self, reason: Reason, now_us: u64, record: &mut Record) {
        copy(&mut record.summary, &self.summary);
        copy(&mut record.sums, &self.window.sums);
        copy(&mut record.owner, &self.owner);
        record.reason = reason as u32;
        record.padding = 0;
        self.summary.seq += 1;
        let now_us = self.clamped(now_us);
        self.vector_us = now_us;
        self.pending = 0;
        self.due = 0;
        self.delayed = 0;
        if matches!(reason, Reason::Active) {
            self.active_us = now_us;
        }
    }

    /// Whether nothing came before `arrival`, which is taken: the flow began with it.
    #[inline(always)]
    pub fn began_with(&self, arrival: &Arrival) -> bool {
        let [fwd, bwd] = &self.summary.totals;
        fwd.packets + bwd.packets == u64::from(arrival.measures.segments.count)
    }

    /// A time, or the flow's last if that is later: two CPUs may take the time in one order and the lock in
    /// the other.
    #[inline(always)]
    fn clamped(&self, now_us: u64) -> u64 {
        let last_us = self.summary.last_us;
        if now_us < last_us { last_us } else { now_us }
    }

    /// Notes that a vector found no room in the ring: it stays due.
    #[inline(always)]
    pub fn delay(&mut self) {
        if self.delayed == 0 {
            self.delayed = 1;
            self.summary.missed += 1;
        }
    }

    /// Why a vector is due now, if one is.
    #[inline(always)]
    pub fn due<T: Thresholds>(&self, now_us: u64, thresholds: &T) -> Option<Reason> {
        self.due_at(self.clamped(now_us), thresholds)
    }

    /// As [`Flow::due`], at a time that is not before the flow's last packet.
    #[inline(always)]
    fn due_at<T: Thresholds>(&self, now_us: u64, thresholds: &T) -> Option<Reason> {
        if self.due != 0 {
            return Some(if self.due == Reason::Rst as u8 { Reason::Rst } else { Reason::Fin });
        }
        if self.pending == 0 {
            return None;
        }
        let since = elapsed(self.vector_us, now_us);
        let gap_passed = self.summary.seq == 0 || since >= thresholds.min_gap_us();
        if self.pending >= thresholds.stride() && gap_passed {
            Some(Reason::Stride)
        } else if since >= thresholds.interval_us() {
            Some(Reason::Interval)
        } else {
            None
        }
    }

    /// What a sweep has to do with this flow, whose packets pass an interface.
    #[inline(always)]
    pub fn on_sweep<T: Thresholds>(
        &self,
        ifindex: u32,
        request: &SweepRequest,
        thresholds: &T,
    ) -> SweepAction {
        if request.stops(ifindex) {
            return SweepAction::End(Some(Reason::Stop));
        }
        let now_us = request.now_us;
        let silent = now_us.saturating_sub(self.summary.last_us);
        let close_reason = self.close_reason();
        let end = if silent >= LINGER_US && close_reason.is_some() {
            close_reason
        } else if silent >= thresholds.idle_timeout_us() {
            Some(Reason::Idle)
        } else if silent >= request.evict_after_us {
            Some(Reason::Evict)
        } else {
            None
        };
        if let Some(reason) = end {
            return SweepAction::End(if self.pending > 0 { Some(reason) } else { None });
        }
        if let Some(reason) = self.due(now_us, thresholds) {
            return SweepAction::Emit(reason);
        }
        if now_us.saturating_sub(self.active_us) >= thresholds.active_timeout_us() {
            return SweepAction::Emit(Reason::Active);
        }
        SweepAction::Keep
    }

    /// The time from which on an ordinary sweep has something to do with this flow, unless a packet comes before:
    /// when [`Flow::on_sweep`] ceases to answer [`SweepAction::Keep`].
    pub fn next_sweep_us<T: Thresholds>(&self, thresholds: &T) -> u64 {
        let last_us = self.summary.last_us;
        let idle_us = thresholds.idle_timeout_us();
        let silence_us =
            if self.close_reason().is_some() { LINGER_US.min(idle_us) } else { idle_us };
        let end_us = last_us.saturating_add(silence_us);
        let active_us = self.active_us.saturating_add(thresholds.active_timeout_us());
        end_us.min(active_us).min(self.due_us(thresholds))
    }

    /// The time from which on [`Flow::due`] has a reason.
    fn due_us<T: Thresholds>(&self, thresholds: &T) -> u64 {
        if self.due != 0 {
            return 0;
        }
        if self.pending == 0 {
            return u64::MAX;
        }
        let waits_us = if self.pending < thresholds.stride() {
            thresholds.interval_us()
        } else if self.summary.seq == 0 {
            0
        } else {
            thresholds.interval_us().min(thresholds.min_gap_us())
        };
        let due_us = self.vector_us.saturating_add(waits_us);
        if due_us <= self.summary.last_us { 0 } else { due_us }
    }

    /// By what the flow is closed: an RST, or a FIN in both directions.
    #[inline(always)]
    fn close_reason(&self) -> Option<Reason> {
        if self.closed & RESET != 0 {
            Some(Reason::Rst)
        } else if self.closed == FIN_FWD | FIN_BWD {
            Some(Reason::Fin)
        } else {
            None
        }
    }

    /// Notes each direction's first FIN, and the first RST.
    #[inline(always)]
    fn close(&mut self, tcp_flags: u8, direction: usize) {
        let fin = if direction == 0 { FIN_FWD } else { FIN_BWD };
        if tcp_flags & tcp::RST != 0 {
            if self.closed & RESET == 0 {
                self.due = Reason::Rst as u8;
            }
            self.closed |= RESET;
        } else {
            if self.closed & (fin | RESET) == 0 {
                self.due = Reason::Fin as u8;
            }
            self.closed |= fin;
        }
    }
}

#[cfg(test)]
mod tests;
