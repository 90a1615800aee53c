//! The program in the kernel over frames of our own, all of its arithmetic and its clock included.
//!
//! Tags outside of the frame are what a test run cannot have; `attachment` and `injected` have them live.

use std::collections::BTreeMap;

use agent_common::config::Config;
use feature_agent_tests::{
    awkward,
    craft::{self, IPV4, Tcp, V4},
    fixtures::{Expect, all, flow_name},
    frame::Frame,
    generate::mixed_frames,
    in_kernel::{
        InKernel, LARGE_RING, LONGEST, START_NS, assert_counted, assert_reasons, assert_values,
        config,
    },
    oracle::{
        Oracle, Rules, Speaker,
        parse::flag::{ACK, CWR, FIN, PSH, URG},
    },
    random::Random,
    sys::is_root_or_say,
};

/// Flows speak at every packet.
const CHATTY: Rules = Rules { stride: 1, ..Rules::PATIENT };

/// The thresholds of the command line's defaults.
const DEFAULTS: Rules = Rules {
    stride: 64,
    min_gap_us: 100_000,
    interval_us: 1_000_000,
    idle_us: 15_000_000,
    active_us: 300_000_000,
};

#[test]
fn every_fixture_gives_the_answers_of_the_table() {
    if !is_root_or_say("every_fixture_gives_the_answers_of_the_table") {
        return;
    }
    let mut kernel = InKernel::new(config(Rules::PATIENT, 64), 1024, LARGE_RING);
    let mut run = 0;
    for fixture in all() {
        // Live only: a test run has no tag outside of the frame.
        if fixture.frames.iter().any(|(frame, _)| frame.vlan_tci.is_some()) {
            continue;
        }
        let name = fixture.name;
        let mut oracle = Oracle::default();
        let mut expected: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
        for (at, (frame, expect)) in fixture.frames.iter().enumerate() {
            let frame = frame.clone().at(START_NS + frame.time_ns);
            oracle.push(&frame);
            let before = kernel.counters();
            let malformed_before =
                if let Expect::Malformed(reason) = expect { kernel.malformed(reason) } else { 0 };
            kernel.push(&frame);
            let after = kernel.counters();
            assert_eq!(after.unaccounted(), 0, "{name} frame {at}: {after:?}");
            let moved = [
                after.accounted - before.accounted,
                after.accounted_bytes - before.accounted_bytes,
                after.not_ip - before.not_ip,
                after.malformed() - before.malformed(),
            ];
            let right = match expect {
                Expect::Account { flow, packets, bytes, payload } => {
                    let sums = expected.entry(flow).or_default();
                    for (sum, part) in sums.iter_mut().zip([packets, bytes, payload]) {
                        *sum += part;
                    }
                    [*packets, *bytes, 0, 0]
                }
                Expect::NotIp => [0, 0, 1, 0],
                Expect::Malformed(reason) => {
                    assert_eq!(kernel.malformed(reason), malformed_before + 1, "{name}: {reason}");
                    [0, 0, 0, 1]
                }
            };
            assert_eq!(moved, right, "{name} frame {at}: accounted, bytes, not IP, malformed");
        }
        kernel.stop();
        let lines = kernel.lines();
        assert_values(&lines, &oracle, 64);
        // By hand: the sums of each flow's last lines, over all its lives.
        let mut found: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        let lives = feature_agent_tests::lines::lives(&lines).expect("compared before");
        for life in lives {
            let last = life.last().expect("a line");
            let sums = found.entry(flow_name(&last.flow())).or_default();
            for (sum, field) in sums.iter_mut().zip(["packets", "bytes", "payload_bytes"]) {
                *sum += last.int(&format!("fwd_{field}")) + last.int(&format!("bwd_{field}"));
            }
        }
        let expected: BTreeMap<String, [u64; 3]> =
            expected.into_iter().map(|(flow, sums)| (flow.to_owned(), sums)).collect();
        assert_eq!(found, expected, "{name}: packets, bytes, payload by flow");
        run += 1;
    }
    assert!(run > 50, "only {run} fixtures were run");
}

/// Mixed frames at times of every kind, some of them made super-packets.
fn timed_frames(seed: u64, count: usize) -> Vec<Frame> {
    let mut random = Random::new(seed);
    let mut now = START_NS;
    mixed_frames(seed, count)
        .into_iter()
        .map(|data| {
            now += match random.below(200) {
                0 => random.below(2_000_000_000),
                1..10 => random.below(50_000_000),
                10..60 => random.below(400_000),
                60..90 => random.below(1_000),
                _ => random.below(90_000),
            };
            if random.chance(1, 900) {
                now += random.between(14_000_000_000, 17_000_000_000);
            }
            // Two processors may read the clock in one order and pass the packets in the other.
            let late = if random.chance(1, 40) { random.below(20_000_000) } else { 0 };
            let frame = Frame::ethernet(now - late, data);
            match random.below(12) {
                0 => frame.with_gso(random.between(1, 1400) as u16),
                1 => frame.with_gso(random.between(1, 40) as u16),
                2 if random.chance(1, 20) => frame.with_gso(0xffff),
                _ => frame,
            }
        })
        .collect()
}

/// Frames and sweeps against the oracle: every value of every line, and which lines there are.
fn assert_like_the_oracle(rules: Rules, window: u32, seed: u64, count: usize) {
    assert_frames_like_the_oracle(rules, window, seed, &timed_frames(seed, count), false);
}

fn assert_frames_like_the_oracle(
    rules: Rules,
    window: u32,
    seed: u64,
    frames: &[Frame],
    decap: bool,
) {
    let mut random = Random::new(seed + 1);
    let config = Config { decap: decap.into(), ..config(rules, window) };
    let mut kernel = InKernel::new(config, 65_536, LARGE_RING);
    let mut speaker = Speaker::looking(rules, decap);
    let mut lines = Vec::new();
    let mut next_sweep = START_NS + 250_000_000;
    for (at, frame) in frames.iter().enumerate() {
        while next_sweep < frame.time_ns {
            let evict_after = if random.chance(1, 200) { 1_500_000 } else { u64::MAX };
            let report = kernel.sweep(next_sweep / 1000, evict_after);
            speaker.sweep(next_sweep / 1000, evict_after);
            assert_eq!((report.flows, report.waiting), (speaker.live() as u64, 0));
            next_sweep += 250_000_000;
        }
        kernel.push(frame);
        speaker.push(frame);
        if at % 512 == 0 {
            lines.extend(kernel.lines());
        }
    }
    kernel.stop();
    speaker.stop();
    lines.extend(kernel.lines());

    let counters = kernel.counters();
    assert_counted(&counters, speaker.oracle());
    assert_eq!(counters.ring_full, 0);
    assert_eq!(counters.vectors, lines.len() as u64);
    assert_eq!(counters.clock_backwards, speaker.backwards());
    assert!(counters.super_packets > 50 && counters.clock_backwards > 10, "{counters:?}");
    let compared = assert_values(&lines, speaker.oracle(), window as usize);
    assert_eq!(compared.packets, counters.accounted);
    assert!(compared.lines > frames.len() / 20, "{compared:?}");
    assert!(lines.iter().all(|line| line.int("missed") == 0));
    assert_reasons(&lines, &speaker);
    assert_eq!(counters.flows, speaker.oracle().flows().len() as u64, "flows begun");
}

#[test]
fn mixed_frames_by_the_defaults() {
    if !is_root_or_say("mixed_frames_by_the_defaults") {
        return;
    }
    assert_like_the_oracle(DEFAULTS, 64, 101, 6000);
}

#[test]
fn mixed_frames_in_tunnels() {
    if !is_root_or_say("mixed_frames_in_tunnels") {
        return;
    }
    let mut random = Random::new(7);
    let mut frames = timed_frames(106, 4000);
    for frame in &mut frames {
        let around = awkward::wrapped(&mut random, std::mem::take(&mut frame.data));
        frame.wire_len = around.len();
        frame.data = around;
    }
    let rules = Rules { stride: 5, min_gap_us: 0, interval_us: 300_000, ..DEFAULTS };
    for decap in [false, true] {
        assert_frames_like_the_oracle(rules, 9, 106, &frames, decap);
    }
}

#[test]
fn mixed_frames_in_a_window_of_two_and_a_vector_for_every_packet() {
    if !is_root_or_say("mixed_frames_in_a_window_of_two_and_a_vector_for_every_packet") {
        return;
    }
    assert_like_the_oracle(CHATTY, 2, 102, 3000);
}

#[test]
fn mixed_frames_in_a_window_of_three() {
    if !is_root_or_say("mixed_frames_in_a_window_of_three") {
        return;
    }
    let rules = Rules { stride: 3, min_gap_us: 500, interval_us: 20_000, ..DEFAULTS };
    assert_like_the_oracle(rules, 3, 103, 3000);
}

#[test]
fn mixed_frames_in_a_window_of_seventeen() {
    if !is_root_or_say("mixed_frames_in_a_window_of_seventeen") {
        return;
    }
    let rules = Rules {
        stride: 8,
        min_gap_us: 0,
        interval_us: 300_000,
        idle_us: 3_000_000,
        active_us: 4_000_000,
    };
    assert_like_the_oracle(rules, 17, 104, 3000);
}

#[test]
fn mixed_frames_in_a_full_window_and_a_vector_for_every_packet() {
    if !is_root_or_say("mixed_frames_in_a_full_window_and_a_vector_for_every_packet") {
        return;
    }
    assert_like_the_oracle(CHATTY, 64, 105, 3000);
}

/// Small packets around a super-packet of `count` segments, which so meets windows of every fill.
fn around_a_super_packet(count: usize) -> Vec<Frame> {
    let frame = |from_client: bool, flags, payload: usize, time_us: u64| {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (src, dst) = if from_client { (a, b) } else { (b, a) };
        let port = |own: bool| if own { 2000 + count as u16 } else { 80 };
        let tcp = Tcp {
            sport: port(from_client),
            dport: port(!from_client),
            flags,
            window: 77,
            options: 12,
        };
        let packet = V4::new(src.into(), dst.into(), 6).packet(&tcp.segment(&vec![1; payload]));
        Frame::ethernet(START_NS + time_us * 1000, craft::ethernet(&[], IPV4, &packet))
    };
    let gso = ((LONGEST - 70) / count).min(1400);
    let full = gso * count;
    let short = full - (count % gso.max(2)).min(gso - 1);
    let mut frames = Vec::new();
    for i in 0..count as u64 % 70 {
        frames.push(frame(i % 3 != 0, ACK, i as usize * 3, i * 7));
    }
    frames.push(frame(true, ACK | PSH | CWR, full, 1000).with_gso(gso as u16));
    frames.push(frame(false, ACK, 5, 1003));
    frames.push(frame(false, ACK | PSH | FIN | CWR | URG, short, 1500).with_gso(gso as u16));
    for i in 0..(count as u64 * 7) % 66 {
        frames.push(frame(i % 2 == 0, ACK | PSH, 300, 2000 + i));
    }
    frames
}

#[test]
fn super_packets_of_two_to_four_hundred_segments() {
    if !is_root_or_say("super_packets_of_two_to_four_hundred_segments") {
        return;
    }
    let rules = Rules { stride: 7, ..CHATTY };
    for (window, step) in [(64, 1), (2, 3), (3, 5), (17, 4)] {
        let mut kernel = InKernel::new(config(rules, window), 1024, LARGE_RING);
        let mut speaker = Speaker::new(rules);
        let mut lines = Vec::new();
        for count in (2..=400).step_by(step) {
            let before = kernel.counters().super_packets;
            for frame in around_a_super_packet(count) {
                kernel.push(&frame);
                speaker.push(&frame);
            }
            let flow = speaker.oracle().flows().last().expect("a flow");
            assert!(flow.packets.len() > 2 * count, "{count} segments each");
            assert_eq!(kernel.counters().super_packets, before + 2);
            lines.extend(kernel.lines());
        }
        kernel.stop();
        speaker.stop();
        lines.extend(kernel.lines());
        assert_counted(&kernel.counters(), speaker.oracle());
        assert_values(&lines, speaker.oracle(), window as usize);
        assert_reasons(&lines, &speaker);
    }
}

#[test]
fn the_verifier_walks_no_more_than_the_budget() {
    if !is_root_or_say("the_verifier_walks_no_more_than_the_budget") {
        return;
    }
    let budget: BTreeMap<&str, u32> = include_str!("../verifier-budget.toml")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, limit) = line.split_once('=').expect("name = limit");
            (name.trim(), limit.trim().replace('_', "").parse().expect("a number"))
        })
        .collect();
    let walked = |decap| {
        let config = Config { decap, ..config(DEFAULTS, 64) };
        InKernel::new(config, 1024, LARGE_RING).verified_instructions()
    };
    let plain = walked(0).into_iter().map(|(program, walked)| (program.to_owned(), walked));
    let packets = walked(1).into_iter().take(2);
    let decap = packets.map(|(program, walked)| (format!("{program}_decap"), walked));
    let found: Vec<_> = plain.chain(decap).collect();
    assert_eq!(found.len(), budget.len(), "one line a program");
    let mut over = Vec::new();
    for (program, walked) in found {
        let limit = budget.get(&program[..]).unwrap_or_else(|| panic!("no limit for {program}"));
        let Some(walked) = walked else {
            eprintln!("{program}: not held against the budget, kernels before 5.16 do not count");
            continue;
        };
        eprintln!("{program}: {walked} instructions walked, at most {limit}");
        if walked > *limit {
            over.push(program);
        }
    }
    assert!(over.is_empty(), "walked more than the budget: {}", over.join(", "));
}
