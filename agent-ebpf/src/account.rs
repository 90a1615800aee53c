//! A packet to its flow.

use agent_common::{
    counters::Counters,
    flow::{Outcome, Standing},
};

use crate::{
    config::Loaded,
    emit::{self, Action, Emitted},
    fragments::Fragments,
    table::{self, Locked, Passage},
};

/// How often to look again for a flow that the sweep is deleting on another CPU, or that has last words to
/// say before its successor begins.
const ATTEMPTS: u32 = 4;

/// What became of an attempt to let a flow take a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// Taken.
    Quiet,
    /// Taken, and a vector is due.
    Due,
    /// Not taken: the flow had ended before, and has last words to say.
    Ended,
    /// Not taken: another CPU is deleting the flow.
    Stale,
    /// Not taken: the table is full.
    NoPlace,
}

/// Accounts a packet, seen at `now_us`. `false`: it found no place in the table.
#[inline(always)]
pub(crate) fn packet(passage: &mut Passage, now_us: u64, counters: &mut Counters) -> bool {
    if !passage.headers.join_fragments(&Fragments, now_us) {
        counters.orphan_fragments += 1;
    }
    passage.address(now_us);
    let mut overdue = false;
    for _ in 0..ATTEMPTS {
        match attempt(passage, overdue, counters) {
            Attempt::Quiet => return true,
            Attempt::Due => {
                speak(passage, counters);
                return true;
            }
            Attempt::Ended => overdue = speak(passage, counters) == Emitted::RingFull,
            Attempt::Stale => {}
            Attempt::NoPlace => return false,
        }
    }
    false
}

/// Lets the packet's flow take it.
///
/// A function of its own, as is [`speak`]: the stacks of caller and called, each at most 256 bytes, are all
/// that a program has.
#[inline(never)]
fn attempt(passage: &Passage, overdue: bool, counters: &mut Counters) -> Attempt {
    let Some(entry) = table::find_or_insert(passage) else {
        return Attempt::NoPlace;
    };
    let arrival = &passage.arrival;
    let mut locked = Locked::new(entry);
    let Some((flow, new)) = locked.flow(passage.key()) else {
        return Attempt::Stale;
    };
    let standing = match (new, overdue) {
        (true, _) => Standing::New,
        (false, false) => Standing::Known,
        (false, true) => Standing::Overdue,
    };
    let backwards = !new && flow.is_after(arrival);
    let outcome = flow.on_packet(arrival, standing, &Loaded);
    drop(locked);

    counters.flows += u64::from(new);
    counters.clock_backwards += u64::from(backwards);
    match outcome {
        Outcome::Quiet => Attempt::Quiet,
        Outcome::Due(_) => Attempt::Due,
        Outcome::Ended(_) => Attempt::Ended,
    }
}

/// Emits the vector that is due at this packet.
#[inline(never)]
fn speak(passage: &Passage, counters: &mut Counters) -> Emitted {
    let Some(entry) = table::find(passage) else {
        return Emitted::Settled;
    };
    let arrival = &passage.arrival;
    emit::vector(entry, passage.key(), arrival.now_us, counters, |flow| {
        let last_words = flow.last_words(arrival, &Loaded);
        Action { emit: last_words.or_else(|| flow.due(arrival.now_us, &Loaded)), end: false }
    })
}
