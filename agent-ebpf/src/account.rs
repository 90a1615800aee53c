//! A packet to its flow.

use agent_common::{
    barrier::settled,
    counters::Counters,
    filter::selects,
    flow::{Flow, Outcome, Standing},
};

use crate::{
    config::{self, Filter},
    emit::{self, Action},
    fragments::Fragments,
    packet::Packet,
    passage::Passage,
    table::{self, Locked, Packets, Table},
};

/// How often to look again for a flow that the sweep is deleting on another CPU, or that has last words to
/// say before its successor begins.
const ATTEMPTS: u32 = 3;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is in a flow.
    Accounted,
    /// It is of no flow that is asked for.
    Filtered,
    /// It found no place in the table.
    TableFull,
    /// Others had its flow for too long.
    Contended,
}

/// Accounts a packet.
///
/// VERIFIER: all in one function. Before Linux 6.2 a program with functions has every number tracked
/// precisely, and none of the paths that this one has by the thousand are found alike.
#[inline(always)]
pub(crate) fn packet(passage: &mut Passage, packet: &Packet, counters: &mut Counters) -> Fate {
    if !passage.headers.join_fragments(&mut Fragments, || packet.now_us()) {
        counters.orphan_fragments += 1;
    }
    passage.address();
    if !selects(&Filter, config::sample(), &passage.headers, passage.key()) {
        return Fate::Filtered;
    }
    // VERIFIER: read from memory from here on, see `observe`; which end it came from, too, is a path of its own.
    let passage = settled(passage);
    let context = packet.context();
    flow::<Packets>(
        passage,
        counters,
        || packet.now_us(),
        move |passage, flow| {
            let from_initiator = flow.would_be_from_initiator(&passage.arrival);
            passage.find_owner(context, from_initiator);
        },
    )
}

/// Lets the flow of an addressed passage take it in. `find_owner` is asked for the process behind it where that is wanted.
///
/// `now_us` is asked when the flow is found. To read its clock a processor waits until all that it began before is done, as
/// it does for a lock: one wait for both costs less than two (where processes are asked for, that comes between), and of two
/// packets the first is more often the first to get in.
#[inline(always)]
pub(crate) fn flow<T: Table>(
    passage: &mut Passage,
    counters: &mut Counters,
    now_us: impl Fn() -> u64,
    find_owner: impl Fn(&mut Passage, &Flow),
) -> Fate {
    for _ in 0..ATTEMPTS {
        let place = T::place(passage.key());
        let Some(entry) = table::find_or_insert::<T>(place, &passage.template) else {
            return Fate::TableFull;
        };
        passage.arrival.now_us = now_us();
        if config::process() && table::glance(entry).asks_for_owner(&passage.arrival, &T::RULES) {
            find_owner(passage, table::glance(entry));
        }
        // A flow whose last words wait for room in the ring goes on.
        let overdue = passage.is_waiting();
        let arrival = &passage.arrival;
        let Some(mut locked) = Locked::<T>::new(entry, passage.token) else {
            return Fate::Contended;
        };
        let Some((flow, new)) = locked.enter(passage.key()) else {
            drop(locked);
            table::await_deletion::<T>(T::place(passage.key()));
            continue;
        };
        if !new && flow.is_after(arrival) {
            counters.clock_backwards += 1;
        }
        let standing = match (new, overdue) {
            (true, _) => Standing::New,
            (false, false) => Standing::Known,
            (false, true) => Standing::Overdue,
        };
        let outcome = flow.on_packet(arrival, standing, &T::RULES);
        if config::process() && !matches!(outcome, Outcome::Ended(_)) {
            flow.own(&passage.owner);
        }
        if flow.began_with(arrival) && !matches!(outcome, Outcome::Ended(_)) {
            counters.flows += 1;
        }
        drop(locked);
        if outcome == Outcome::Quiet {
            return Fate::Accounted;
        }
        let token = passage.token;
        let (key, arrival, waiting) = passage.parts();
        emit::vector::<T>(entry, key, token, arrival.now_us, counters, waiting, |flow| {
            let last_words = flow.last_words(arrival, &T::RULES);
            Action { emit: last_words.or_else(|| flow.due(arrival.now_us, &T::RULES)), end: false }
        });
        if !matches!(outcome, Outcome::Ended(_)) {
            return Fate::Accounted;
        }
    }
    Fate::TableFull
}
