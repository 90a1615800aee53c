//! When flows speak, frame by frame in the kernel: each case's lines are written beside it by hand.

use std::cell::RefCell;

use agent_common::key::DIGESTED;
use feature_agent_tests::{
    craft::{self, IPV4, Tcp, V4},
    frame::Frame,
    generate::mixed_frames,
    in_kernel::{InKernel, LARGE_RING, assert_values, config},
    lines::{Line, lives},
    oracle::{
        Oracle, Rules, Verdict,
        parse::flag::{ACK, FIN, PSH, RST, SYN},
    },
    sys::is_root_or_say,
};

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;
/// One thing that happens; times in microseconds.
#[derive(Clone, Copy)]
enum Event {
    /// A datagram from the client.
    Udp(u64),
    /// A segment with these flags, from the client or not.
    Tcp(u64, bool, u8),
    /// A super-packet of as many segments of 100 bytes from the client.
    Super(u64, u16),
    /// A walk over the table.
    Sweep(u64),
    /// A walk that also ends what has been silent for so long.
    Evict(u64, u64),
    /// The last walk.
    Stop,
}
use Event::{Evict, Stop, Super, Sweep, Tcp as T, Udp};

/// The client's and the server's side.
const CLIENT: bool = true;
const SERVER: bool = false;

fn tcp_frame(time_us: u64, from_client: bool, flags: u8, payload: usize) -> Frame {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (src, dst, sport, dport) = if from_client { (a, b, 1000, 80) } else { (b, a, 80, 1000) };
    let segment = Tcp { sport, dport, flags, window: 7, options: 0 }.segment(&vec![0; payload]);
    let packet = V4::new(src.into(), dst.into(), 6).packet(&segment);
    Frame::ethernet(time_us * 1000, craft::ethernet(&[], IPV4, &packet))
}

fn udp_frame(time_us: u64, port: u16) -> Frame {
    let packet = V4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17);
    let packet = packet.packet(&craft::udp(port, 53, b"hello"));
    Frame::ethernet(time_us * 1000, craft::ethernet(&[], IPV4, &packet))
}

/// Runs events that begin at time 0 (in the kernel's eyes at 100 s) and checks reason, `seq` and packets of
/// each line in order, all of one flow or of its lives.
fn check(name: &str, rules: Rules, events: &[Event], expected: &[(&str, u64, u64)]) {
    thread_local! {
        /// The last one is loaded for each case with other thresholds only: that takes most of the time.
        static KERNEL: RefCell<Option<(Rules, InKernel)>> = const { RefCell::new(None) };
    }
    KERNEL.with_borrow_mut(|loaded| {
        if loaded.as_ref().is_none_or(|(loaded_for, _)| *loaded_for != rules) {
            *loaded = Some((rules, InKernel::new(config(rules, 64), 64, LARGE_RING)));
        }
        let (_, kernel) = loaded.as_mut().expect("just loaded");
        check_in(kernel, name, events, expected);
        // Nothing is left for the next case.
        kernel.stop();
        kernel.lines();
    });
}

fn check_in(kernel: &mut InKernel, name: &str, events: &[Event], expected: &[(&str, u64, u64)]) {
    let start = 100 * SECOND;
    for event in events {
        match *event {
            Udp(at) => kernel.push(&udp_frame(start + at, 1000)),
            T(at, from_client, flags) => {
                kernel.push(&tcp_frame(start + at, from_client, flags, 10));
            }
            Super(at, count) => {
                let frame = tcp_frame(start + at, CLIENT, ACK, usize::from(count) * 100);
                kernel.push(&frame.with_gso(100));
            }
            Sweep(at) => drop(kernel.sweep(start + at, u64::MAX)),
            Evict(at, after) => drop(kernel.sweep(start + at, after)),
            Stop => drop(kernel.stop()),
        }
    }
    let lines = kernel.lines();
    let found: Vec<(&str, u64, u64)> =
        lines.iter().map(|line| (line.text("reason"), line.int("seq"), line.packets())).collect();
    assert_eq!(found, expected, "{name}: reason, seq, packets");
    assert_eq!(kernel.counters().unaccounted(), 0, "{name}");
}

#[test]
fn stride_and_min_gap() {
    if !is_root_or_say("stride_and_min_gap") {
        return;
    }
    let rules = Rules { stride: 3, min_gap_us: 100 * MS, ..Rules::PATIENT };
    let early = [Udp(0), Udp(1), Udp(2), Udp(3), Udp(4), Udp(5), Udp(100 * MS + 1)];
    check("the first needs no gap", rules, &early, &[("stride", 0, 3)]);
    let later = [&early[..], &[Udp(100 * MS + 2), Udp(100 * MS + 3), Stop]].concat();
    check(
        "the next waits for it",
        rules,
        &later,
        &[("stride", 0, 3), ("stride", 1, 8), ("stop", 2, 9)],
    );
    let swept =
        [&early[..6], &[Sweep(100 * MS + 1), Sweep(100 * MS + 2), Sweep(200 * MS)]].concat();
    check("a sweep sees the gap pass", rules, &swept, &[("stride", 0, 3), ("stride", 1, 6)]);
    let supers = [Super(0, 2), Super(1, 2), Super(100 * MS + 1, 30), Stop];
    check(
        "a super-packet is one moment",
        rules,
        &supers,
        &[("stride", 0, 4), ("stride", 1, 34), ("stop", 2, 34)],
    );
    let no_gap = Rules { stride: 2, min_gap_us: 0, ..Rules::PATIENT };
    let five = [Udp(0), Udp(0), Udp(0), Udp(0), Udp(1)];
    check("no gap", no_gap, &five, &[("stride", 0, 2), ("stride", 1, 4)]);
}

#[test]
fn interval() {
    if !is_root_or_say("interval") {
        return;
    }
    let rules = Rules { interval_us: SECOND, ..Rules::PATIENT };
    let events = [Udp(0), Udp(SECOND - 1), Udp(SECOND), Udp(SECOND + 1), Udp(2 * SECOND - 1)];
    check("since the first packet", rules, &events, &[("interval", 0, 3)]);
    let events = [&events[..], &[Udp(2 * SECOND)]].concat();
    check("since the last vector", rules, &events, &[("interval", 0, 3), ("interval", 1, 6)]);
    let silent = [Udp(0), Sweep(SECOND - 1), Sweep(SECOND), Sweep(SECOND + 1), Sweep(5 * SECOND)];
    check("a sweep, and nothing new after it", rules, &silent, &[("interval", 0, 1)]);
    let rules = Rules { stride: 2, ..rules };
    let both = [Udp(0), Udp(SECOND)];
    check("stride before interval", rules, &both, &[("stride", 0, 2)]);
}

#[test]
fn fin_and_rst() {
    if !is_root_or_say("fin_and_rst") {
        return;
    }
    let fins = [
        T(0, CLIENT, SYN),
        T(1, SERVER, SYN | ACK),
        T(2, CLIENT, FIN | ACK),
        T(3, CLIENT, FIN | ACK),
        T(4, SERVER, ACK),
        T(5, SERVER, FIN | ACK),
        T(6, CLIENT, ACK),
    ];
    let first = [("fin", 0, 3), ("fin", 1, 6)];
    check("each direction's first FIN", Rules::PATIENT, &fins, &first);
    let last = [&fins[..], &[Sweep(6 + 2 * SECOND - 1), Sweep(6 + 2 * SECOND), Stop]].concat();
    check("last words after 2 s", Rules::PATIENT, &last, &[&first[..], &[("fin", 2, 7)]].concat());
    let told = [&fins[..6], &[Sweep(5 + 2 * SECOND), Stop]].concat();
    check("nothing left to say", Rules::PATIENT, &told, &first);

    let reset = [T(0, CLIENT, SYN), T(1, SERVER, RST | ACK), T(2, SERVER, RST), T(3, CLIENT, ACK)];
    check("the first RST", Rules::PATIENT, &reset, &[("rst", 0, 2)]);
    let last = [&reset[..], &[Sweep(3 + 2 * SECOND), Stop]].concat();
    check("last words of a reset flow", Rules::PATIENT, &last, &[("rst", 0, 2), ("rst", 1, 4)]);
    let both = [T(0, CLIENT, ACK), T(1, CLIENT, FIN | RST | ACK)];
    check("RST before FIN", Rules::PATIENT, &both, &[("rst", 0, 2)]);
    let rules = Rules { stride: 2, ..Rules::PATIENT };
    let strided = [T(0, CLIENT, ACK), T(1, CLIENT, FIN | ACK), T(2, SERVER, ACK)];
    check("FIN before stride", rules, &strided, &[("fin", 0, 2)]);
    let opened = [T(0, CLIENT, SYN | FIN)];
    check("a first packet that ends it", Rules::PATIENT, &opened, &[("fin", 0, 1)]);
}

#[test]
fn a_new_flow_begins_after_silence_and_by_a_syn_on_a_closed_one() {
    if !is_root_or_say("a_new_flow_begins_after_silence_and_by_a_syn_on_a_closed_one") {
        return;
    }
    let idle = Rules::PATIENT.idle_us;
    let gap = [Udp(0), Udp(idle - 1), Udp(2 * idle - 1), Udp(2 * idle), Stop];
    check("silence", Rules::PATIENT, &gap, &[("idle", 0, 2), ("stop", 0, 2)]);
    let swept = [Udp(0), Sweep(idle - 1), Sweep(idle), Udp(idle), Stop];
    check("silence, and a sweep", Rules::PATIENT, &swept, &[("idle", 0, 1), ("stop", 0, 1)]);
    let rules = Rules { stride: 1, ..Rules::PATIENT };
    let told = [Udp(0), Udp(idle), Stop];
    check(
        "nothing left to say",
        rules,
        &told,
        &[("stride", 0, 1), ("stride", 0, 1), ("stop", 1, 1)],
    );
    let reset = [T(0, CLIENT, SYN), T(1, SERVER, RST), T(2, CLIENT, ACK), T(3, CLIENT, SYN), Stop];
    check("SYN after RST", Rules::PATIENT, &reset, &[("rst", 0, 2), ("rst", 1, 3), ("stop", 0, 1)]);
    let closed = [
        T(0, CLIENT, FIN),
        T(1, SERVER, FIN),
        T(2, CLIENT, ACK),
        T(3, SERVER, SYN | ACK),
        T(4, SERVER, SYN),
        Stop,
    ];
    check(
        "SYN after FINs, by the other side",
        Rules::PATIENT,
        &closed,
        &[("fin", 0, 1), ("fin", 1, 2), ("fin", 2, 4), ("stop", 0, 1)],
    );
    let half = [T(0, CLIENT, FIN), T(1, CLIENT, SYN), Stop];
    check("half-closed goes on", Rules::PATIENT, &half, &[("fin", 0, 1), ("stop", 1, 2)]);
}

#[test]
fn active_evict_and_stop() {
    if !is_root_or_say("active_evict_and_stop") {
        return;
    }
    let rules = Rules { active_us: 10 * SECOND, ..Rules::PATIENT };
    let events = [
        Udp(0),
        Udp(9 * SECOND),
        Sweep(10 * SECOND - 1),
        Sweep(10 * SECOND),
        Sweep(11 * SECOND),
        Udp(15 * SECOND),
        Sweep(20 * SECOND - 1),
        Sweep(20 * SECOND),
        Stop,
    ];
    check(
        "since the first packet, then the last such vector; the flow goes on",
        rules,
        &events,
        &[("active", 0, 2), ("active", 1, 3), ("stop", 2, 3)],
    );
    let events = [Udp(0), Evict(5 * SECOND - 1, 5 * SECOND), Evict(5 * SECOND, 5 * SECOND), Stop];
    check("the longest silent", Rules::PATIENT, &events, &[("evict", 0, 1)]);
    let rules = Rules { stride: 1, ..Rules::PATIENT };
    let events = [Udp(0), Evict(5 * SECOND, 5 * SECOND), Stop];
    check("nothing left to say", rules, &events, &[("stride", 0, 1)]);
    let events = [Udp(0), Stop, Stop];
    check("stop speaks always, once", rules, &events, &[("stride", 0, 1), ("stop", 1, 1)]);
}

/// Sweeps and takes out until a walk finds nothing that waits.
fn until_nothing_waits(
    kernel: &mut InKernel,
    mut sweep: impl FnMut(&mut InKernel) -> u64,
) -> Vec<Line> {
    let mut lines = kernel.lines();
    for _ in 0..100_000 {
        let waiting = sweep(kernel);
        lines.extend(kernel.lines());
        if waiting == 0 {
            return lines;
        }
    }
    panic!("vectors wait for ever");
}

#[test]
fn a_full_ring_delays_every_kind_of_vector_and_loses_none() {
    if !is_root_or_say("a_full_ring_delays_every_kind_of_vector_and_loses_none") {
        return;
    }
    let rules = Rules { stride: 2, interval_us: SECOND, ..Rules::PATIENT };
    // One page: ten records.
    let mut kernel = InKernel::new(config(rules, 64), 4096, 4096);
    // A flow that ended but has no room to say so goes on: lives would not be those of the oracle.
    let mut names = Oracle::default();
    let mut seen = std::collections::HashMap::new();
    let mut oracle = Oracle::default();
    let mut time_us = SECOND;
    for data in mixed_frames(31, 3000) {
        let frame = Frame::ethernet(0, data);
        if let Verdict::Accounted { flow, .. } = names.push(&frame)
            && *seen.entry(names.flows()[flow].id.clone()).or_insert(flow) != flow
        {
            continue;
        }
        time_us += 101;
        let frame = frame.at(time_us * 1000);
        kernel.push(&frame);
        oracle.push(&frame);
    }
    let full = kernel.counters();
    assert!(full.ring_full > 1000 && full.vectors <= 11, "{full:?}");
    let mut lines =
        until_nothing_waits(&mut kernel, |kernel| kernel.sweep(time_us + 1, u64::MAX).waiting);
    lines.extend(until_nothing_waits(&mut kernel, |kernel| kernel.stop().waiting));

    let counters = kernel.counters();
    assert_eq!(counters.unaccounted(), 0, "{counters:?}");
    assert_eq!(counters.vectors, lines.len() as u64);
    assert_eq!(counters.accounted, oracle.counts().accounted);
    let compared = assert_values(&lines, &oracle, 64);
    assert_eq!(compared.packets, counters.accounted);
    for reason in ["stride", "fin", "rst", "stop"] {
        let late = |line: &&Line| line.text("reason") == reason && line.int("missed") > 0;
        assert!(lines.iter().any(|line| late(&line)), "no {reason} was late");
    }
}

#[test]
fn missed_counts_vectors_not_attempts() {
    if !is_root_or_say("missed_counts_vectors_not_attempts") {
        return;
    }
    let rules = Rules { stride: 1, ..Rules::PATIENT };
    let mut kernel = InKernel::new(config(rules, 64), 64, 4096);
    // Others fill the ring.
    for port in 0..20 {
        kernel.push(&udp_frame(SECOND, 2000 + port));
    }
    for at in 0..5 {
        kernel.push(&udp_frame(SECOND + at, 1000));
    }
    assert!(kernel.sweep(SECOND + 9, u64::MAX).waiting > 0);
    kernel.lines();
    kernel.push(&udp_frame(SECOND + 10, 1000));
    kernel.push(&udp_frame(SECOND + 11, 1000));
    let lines = kernel.lines();
    let of_it: Vec<(u64, u64, u64)> = lines
        .iter()
        .filter(|line| line.int("sport") == 1000)
        .map(|line| (line.int("seq"), line.packets(), line.int("missed")))
        .collect();
    assert_eq!(of_it, [(0, 6, 1), (1, 7, 1)], "seq, packets, missed");
}

#[test]
fn ends_that_wait_for_room_lose_no_packet() {
    if !is_root_or_say("ends_that_wait_for_room_lose_no_packet") {
        return;
    }
    for end in [FIN, RST, PSH] {
        let mut kernel = InKernel::new(config(Rules::PATIENT, 64), 64, 4096);
        let mut at = SECOND;
        let mut packets = 0;
        // Each life of the one flow ends by flags or by silence, and nobody drains.
        for _ in 0..40 {
            for (from_client, flags) in [(CLIENT, SYN), (CLIENT, end), (SERVER, end), (CLIENT, ACK)]
            {
                at += 1;
                packets += 1;
                kernel.push(&tcp_frame(at, from_client, flags, 10));
            }
            if end == PSH {
                at += Rules::PATIENT.idle_us;
            }
        }
        assert!(kernel.counters().ring_full > 0);
        let lines = until_nothing_waits(&mut kernel, |kernel| kernel.stop().waiting);
        let last: u64 = lives(&lines)
            .unwrap_or_else(|faults| panic!("{faults:#?}"))
            .iter()
            .map(|life| life.last().expect("a line").packets())
            .sum();
        assert_eq!(last, packets, "packets in last vectors, flags {end:#x}");
        assert_eq!(kernel.counters().accounted, packets);
    }
}

#[test]
fn a_full_table_counts_packets_and_bytes() {
    if !is_root_or_say("a_full_table_counts_packets_and_bytes") {
        return;
    }
    let mut kernel = InKernel::new(config(Rules::PATIENT, 64), 16, LARGE_RING);
    for port in 0..50 {
        kernel.push(&udp_frame(SECOND, port));
    }
    let full = kernel.counters();
    assert_eq!((full.accounted, full.table_full), (16, 34));
    // 20 + 8 + 5 bytes each.
    assert_eq!((full.accounted_bytes, full.table_full_bytes), (16 * 33, 34 * 33));
    assert_eq!(kernel.stop().ended, 16);
    assert_eq!(kernel.lines().len(), 16);
    for port in 0..16 {
        kernel.push(&udp_frame(2 * SECOND, port));
    }
    assert_eq!(kernel.counters().accounted, 32, "there is room again");
}

#[test]
fn a_flow_is_never_taken_for_another_in_its_place() {
    if !is_root_or_say("a_flow_is_never_taken_for_another_in_its_place") {
        return;
    }
    // Flows whose keys' words have one sum have one place, by these.
    let (rules, secrets) = (Rules::PATIENT, [1; DIGESTED]);
    let mut kernel = InKernel::with_secrets(config(rules, 64), 16, LARGE_RING, secrets);
    let frame = |[src, dst]: [u8; 2], time_us| {
        let packet = V4::new([10, 0, 0, src].into(), [10, 0, 0, dst].into(), 17);
        let packet = packet.packet(&craft::udp(1000, 53, b"hello"));
        Frame::ethernet(time_us * 1000, craft::ethernet(&[], IPV4, &packet))
    };
    let (first, second, elsewhere) = ([1, 4], [2, 3], [1, 5]);
    for (time, flow) in [first, second, first, second, elsewhere, first].into_iter().enumerate() {
        kernel.push(&frame(flow, SECOND + time as u64));
    }
    let counters = kernel.counters();
    assert_eq!((counters.accounted, counters.table_full, counters.flows), (4, 2, 2));
    assert_eq!((counters.table_full_bytes, counters.unaccounted()), (2 * 33, 0));
    kernel.stop();
    let lines = kernel.lines();
    let mut found: Vec<_> = lines.iter().map(|line| (line.text("dst"), line.packets())).collect();
    found.sort_unstable();
    assert_eq!(found, [("10.0.0.4", 3), ("10.0.0.5", 1)]);
    // The place is free again.
    kernel.push(&frame(second, 2 * SECOND));
    kernel.stop();
    let lines = kernel.lines();
    assert_eq!((lines[0].text("dst"), lines[0].packets(), lines.len()), ("10.0.0.3", 1, 1));
}

#[test]
fn a_sweep_tells_the_ages_of_what_is_left() {
    if !is_root_or_say("a_sweep_tells_the_ages_of_what_is_left") {
        return;
    }
    let mut kernel = InKernel::new(config(Rules::PATIENT, 64), 64, LARGE_RING);
    let tick = 1 << 20;
    for age in [0, 0, 1, 5, 5, 5] {
        let port = kernel.counters().accounted as u16;
        kernel.push(&udp_frame(10 * tick - age * tick, port));
    }
    let report = kernel.sweep(10 * tick, u64::MAX);
    let ages: Vec<(usize, u32)> =
        report.ages.into_iter().enumerate().filter(|(_, flows)| *flows > 0).collect();
    assert_eq!(ages, [(0, 2), (1, 1), (5, 3)]);
    assert_eq!((report.flows, report.ended, report.waiting), (6, 0, 0));
}
