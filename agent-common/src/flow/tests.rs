//! The rules by which a flow speaks and ends.

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;
use crate::{config::Config, owner, segments::Segments};

fn arrival(now_us: u64, tcp_flags: u8, from_b: bool) -> Arrival {
    Arrival {
        now_us,
        measures: Measures {
            segments: Segments::new(100, 40, 0),
            tcp_window: 1000,
            tcp_flags,
            ttl: 64,
        },
        from_b: u8::from(from_b),
        is_tcp: true,
    }
}

fn begun(first: &Arrival, config: &Config) -> (Flow, Outcome) {
    let mut flow = Flow::zeroed();
    let outcome = flow.on_packet(first, Standing::New, config);
    (flow, outcome)
}

fn emit(flow: &mut Flow, reason: Reason, now_us: u64) -> Record {
    let mut record = Record::zeroed();
    flow.prepare(&Config::DEFAULT, &mut record);
    flow.emit(reason, now_us, &mut record);
    record
}

fn sweep(now_us: u64) -> SweepRequest {
    SweepRequest { now_us, ..SweepRequest::ordinary(15_000_000) }
}

#[test]
fn who_begins_is_told_by_the_handshake() {
    let config = Config::DEFAULT;
    let cases = [
        (tcp::SYN, true, 1, DirectionBy::Syn, 0),
        (tcp::SYN | tcp::ACK, true, 0, DirectionBy::SynAck, 0),
        (tcp::ACK, true, 1, DirectionBy::First, 1),
    ];
    for (flags, from_b, initiator_is_b, by, midstream) in cases {
        let (flow, _) = begun(&arrival(5, flags, from_b), &config);
        assert_eq!(flow.summary.initiator_is_b, initiator_is_b);
        assert_eq!(flow.summary.direction_by, by as u8);
        assert_eq!(flow.summary.midstream, midstream);
    }
}

#[test]
fn fins_and_resets_speak_once_each() {
    let config = Config::DEFAULT;
    let (mut flow, outcome) = begun(&arrival(0, tcp::SYN, false), &config);
    assert_eq!(outcome, Outcome::Quiet);
    let fin = tcp::FIN | tcp::ACK;
    assert_eq!(
        flow.on_packet(&arrival(1, fin, false), Standing::Known, &config),
        Outcome::Due(Reason::Fin)
    );
    emit(&mut flow, Reason::Fin, 1);
    assert_eq!(
        flow.on_packet(&arrival(2, fin, false), Standing::Known, &config),
        Outcome::Quiet,
        "retransmitted"
    );
    assert_eq!(
        flow.on_packet(&arrival(3, fin, true), Standing::Known, &config),
        Outcome::Due(Reason::Fin)
    );
    // Not emitted: still due at the next packet.
    assert_eq!(
        flow.on_packet(&arrival(4, tcp::ACK, false), Standing::Known, &config),
        Outcome::Due(Reason::Fin)
    );
    emit(&mut flow, Reason::Fin, 4);
    assert_eq!(
        flow.on_packet(&arrival(5, tcp::RST, true), Standing::Known, &config),
        Outcome::Due(Reason::Rst)
    );
    emit(&mut flow, Reason::Rst, 5);
    assert_eq!(
        flow.on_packet(&arrival(6, tcp::RST, true), Standing::Known, &config),
        Outcome::Quiet
    );
    assert_eq!(flow.on_sweep(1, &sweep(2_000_005), &config), SweepAction::Emit(Reason::Interval));
    flow.vector_us = 2_000_000;
    assert_eq!(flow.on_sweep(1, &sweep(2_000_005), &config), SweepAction::Keep);
    assert_eq!(flow.on_sweep(1, &sweep(2_000_006), &config), SweepAction::End(Some(Reason::Rst)));
}

#[test]
fn a_syn_on_a_closed_flow_begins_another() {
    let config = Config::DEFAULT;
    let (mut flow, _) = begun(&arrival(0, tcp::SYN, false), &config);
    flow.on_packet(&arrival(1, tcp::RST, true), Standing::Known, &config);
    let syn = arrival(2, tcp::SYN, true);
    assert_eq!(flow.on_packet(&syn, Standing::Known, &config), Outcome::Ended(Reason::Rst));
    let last = emit(&mut flow, Reason::Rst, 2);
    assert_eq!(last.summary.totals.map(|t| t.packets), [1, 1]);
    assert_eq!(flow.on_packet(&syn, Standing::Known, &config), Outcome::Quiet);
    assert_eq!((flow.summary.seq, flow.summary.initiator_is_b), (0, 1));
    assert_eq!(flow.summary.totals.map(|t| t.packets), [1, 0]);
    // A retransmitted SYN of an open flow does not.
    assert_eq!(
        flow.on_packet(&arrival(3, tcp::SYN, true), Standing::Known, &config),
        Outcome::Quiet
    );
    assert_eq!(flow.summary.totals[0].packets, 2);
}

#[test]
fn silence_ends_a_flow_whether_or_not_a_sweep_saw_it() {
    let config = Config::DEFAULT;
    let idle = config.idle_timeout_us;
    let (mut flow, _) = begun(&arrival(10, tcp::ACK, false), &config);
    assert_eq!(
        flow.on_sweep(1, &sweep(10 + idle - 1), &config),
        SweepAction::Emit(Reason::Interval)
    );
    assert_eq!(flow.on_sweep(1, &sweep(10 + idle), &config), SweepAction::End(Some(Reason::Idle)));
    let late = arrival(10 + idle, tcp::ACK, false);
    assert_eq!(flow.on_packet(&late, Standing::Known, &config), Outcome::Ended(Reason::Idle));
    emit(&mut flow, Reason::Interval, 11);
    assert_eq!(flow.on_sweep(1, &sweep(10 + idle), &config), SweepAction::End(None));
    assert_eq!(flow.on_packet(&late, Standing::Known, &config), Outcome::Quiet);
    assert_eq!(flow.summary.first_us, 10 + idle);
}

#[test]
fn stride_waits_for_the_gap_and_interval_for_no_one() {
    let config = Config { stride: 4, ..Config::DEFAULT };
    let (mut flow, _) = begun(&arrival(0, tcp::SYN, false), &config);
    for now in 1..3 {
        assert_eq!(
            flow.on_packet(&arrival(now, tcp::ACK, false), Standing::Known, &config),
            Outcome::Quiet
        );
    }
    assert_eq!(
        flow.on_packet(&arrival(3, tcp::ACK, true), Standing::Known, &config),
        Outcome::Due(Reason::Stride)
    );
    emit(&mut flow, Reason::Stride, 3);
    for now in 4..20 {
        assert_eq!(
            flow.on_packet(&arrival(now, tcp::ACK, false), Standing::Known, &config),
            Outcome::Quiet
        );
    }
    assert_eq!(flow.on_sweep(1, &sweep(100_002), &config), SweepAction::Keep);
    assert_eq!(flow.on_sweep(1, &sweep(100_003), &config), SweepAction::Emit(Reason::Stride));
    emit(&mut flow, Reason::Stride, 100_003);
    assert_eq!(
        flow.on_sweep(1, &sweep(9_000_000), &config),
        SweepAction::Keep,
        "nothing new to say"
    );
    let late = flow.on_packet(&arrival(9_000_000, tcp::ACK, false), Standing::Known, &config);
    assert_eq!(late, Outcome::Due(Reason::Interval));
}

#[test]
fn active_emits_and_keeps() {
    let config = Config { idle_timeout_us: u64::MAX, ..Config::DEFAULT };
    let (mut flow, _) = begun(&arrival(0, tcp::SYN, false), &config);
    emit(&mut flow, Reason::Interval, 1_000_000);
    let active = config.active_timeout_us;
    assert_eq!(flow.on_sweep(1, &sweep(active - 1), &config), SweepAction::Keep);
    assert_eq!(flow.on_sweep(1, &sweep(active), &config), SweepAction::Emit(Reason::Active));
    emit(&mut flow, Reason::Active, active);
    assert_eq!(flow.on_sweep(1, &sweep(2 * active - 1), &config), SweepAction::Keep);
}

#[test]
fn a_waiting_vector_is_counted_once() {
    let config = Config::DEFAULT;
    let (mut flow, _) = begun(&arrival(0, tcp::SYN, false), &config);
    flow.delay();
    flow.delay();
    assert_eq!(emit(&mut flow, Reason::Interval, 1).summary.missed, 1);
    flow.delay();
    assert_eq!(emit(&mut flow, Reason::Interval, 2).summary.missed, 2);
}

proptest! {
    /// Whatever comes: time in a flow never runs backwards, and its totals are all that arrived.
    #[test]
    fn totals_grow_by_what_arrives(
        packets in prop::collection::vec((0u64..3_000_000, any::<u8>(), any::<bool>(), 1u32..400), 1..300),
        stride in 1u32..100,
    ) {
        let config = Config { stride, ..Config::DEFAULT };
        let mut now = 1_000_000_000;
        let mut flow = Flow::zeroed();
        let packets_of = |summary: &Summary| summary.totals[0].packets + summary.totals[1].packets;
        // A packet stays untaken as long as its flow has to say its last words first.
        let (mut taken, mut arrived, mut ended) = (0, 0, 0);
        for (index, (step, flags, from_b, count)) in packets.into_iter().enumerate() {
            now = now + step - 500_000;
            let mut arrival = arrival(now, flags, from_b);
            arrival.measures.segments = Segments::new(40 + 1000 * count, 40, 1000);
            let standing = if index == 0 { Standing::New } else { Standing::Known };
            let before = flow;
            let mut outcome = flow.on_packet(&arrival, standing, &config);
            if let Outcome::Ended(reason) = outcome {
                prop_assert_eq!(&flow, &before);
                emit(&mut flow, reason, now);
                outcome = flow.on_packet(&arrival, Standing::Known, &config);
                prop_assert!(!matches!(outcome, Outcome::Ended(_)));
            }
            arrived += u64::from(count);
            if packets_of(&flow.summary) == u64::from(count) && index > 0 {
                ended += packets_of(&before.summary);
            } else {
                prop_assert!(flow.summary.last_us >= before.summary.last_us);
            }
            taken = packets_of(&flow.summary);
            prop_assert_eq!(ended + taken, arrived);
            if let Outcome::Due(reason) = outcome {
                let record = emit(&mut flow, reason, now);
                prop_assert_eq!(packets_of(&record.summary), taken);
                prop_assert_eq!(u64::from(record.sums.len()), taken.min(64));
            }
        }
        prop_assert!(taken > 0);
    }
}

fn owner(claim: u32, pid: u32) -> Owner {
    Owner { pid, claim, ..Owner::NOBODY }
}

#[test]
fn a_process_is_asked_for_until_one_has_used_the_socket() {
    let config = Config::DEFAULT;
    let asked = |flow: &Flow, now_us| flow.asks_for_owner(&arrival(now_us, 0, false), &config);
    let (mut flow, _) = begun(&arrival(1, tcp::SYN, false), &config);
    flow.own(&owner(owner::NOBODY, 1));
    assert_eq!(emit(&mut flow, Reason::Stop, 1).owner, Owner::NOBODY);
    flow.own(&owner(owner::MADE, 2));
    assert_eq!(emit(&mut flow, Reason::Stop, 1).owner, owner(owner::MADE, 2));
    assert!(asked(&flow, 1));
    flow.own(&owner(owner::NOBODY, 3));
    flow.own(&owner(owner::USED, 4));
    flow.own(&owner(owner::USED, 5));
    flow.own(&owner(owner::MADE, 6));
    assert_eq!(emit(&mut flow, Reason::Stop, 1).owner, owner(owner::USED, 4));
    assert!(!asked(&flow, 2));

    // What comes after the idle time-out is another flow's, and so is its process.
    let later_us = 2 + config.idle_timeout_us;
    assert!(asked(&flow, later_us));
    flow.on_packet(&arrival(later_us, tcp::SYN, false), Standing::Known, &config);
    assert_eq!(emit(&mut flow, Reason::Stop, later_us).owner, Owner::NOBODY);
}

#[test]
fn a_flow_that_is_nobodys_is_asked_ever_more_seldom() {
    let config = Config::DEFAULT;
    let (mut flow, _) = begun(&arrival(1, 0, false), &config);
    let mut asked = 0;
    for _ in 0..10_000 {
        asked += u32::from(flow.asks_for_owner(&arrival(1, 0, false), &config));
        flow.on_packet(&arrival(1, 0, false), Standing::Known, &config);
    }
    assert_eq!(asked, 15 + 10, "1 to 15, and 16 to 8192 by doubling");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A replay leaves out the sweeps that would find nothing to do.
    #[test]
    fn the_next_sweep_is_the_first_with_something_to_do(
        packets in prop::collection::vec((0u64..3_000_000, 0u8..=255, any::<bool>(), any::<bool>()), 1..40),
        stride in 1u32..8,
        window in 2u32..=64,
        min_gap_us in 0u64..500_000,
        interval_us in 1u64..2_000_000,
        idle_timeout_us in 1_000u64..4_000_000,
        active_timeout_us in 1_000u64..8_000_000,
        around in 0u64..4,
        later in 0u64..10_000_000,
    ) {
        let config = Config {
            min_gap_us, interval_us, idle_timeout_us, active_timeout_us, window, stride, ..Config::DEFAULT
        };
        let mut now_us = 1_000;
        let mut flow = Flow::zeroed();
        let mut standing = Standing::New;
        for (gap_us, flags, from_b, emits) in packets {
            // Also back in time.
            now_us = (now_us + gap_us).saturating_sub(500_000);
            let arrival = arrival(now_us, flags, from_b);
            let outcome = flow.on_packet(&arrival, standing, &config);
            standing = Standing::Known;
            // A vector that finds no room stays due.
            if let (Outcome::Due(reason) | Outcome::Ended(reason), true) = (outcome, emits) {
                emit(&mut flow, reason, now_us);
            }
            let wakes_us = flow.next_sweep_us(&config);
            for at_us in [wakes_us.saturating_sub(around), wakes_us.saturating_add(around), now_us + later] {
                let action = flow.on_sweep(1, &sweep(at_us), &config);
                prop_assert_eq!(action == SweepAction::Keep, at_us < wakes_us, "{} {}", at_us, wakes_us);
            }
        }
    }
}
