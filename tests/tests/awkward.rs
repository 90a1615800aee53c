//! A replay against the oracle, over links of every kind, tunnels, offload and cuts.

use std::collections::BTreeMap;

use agent_common::config::Config;
use feature_agent_tests::{
    awkward::{self, Capture},
    frame::{Frame, Link},
    in_kernel::{assert_reasons, assert_values, config},
    in_replay::InReplay,
    lines::Line,
    oracle::{Counts, Rules, Speaker},
};

const RULES: Rules = Rules {
    stride: 9,
    min_gap_us: 20_000,
    interval_us: 500_000,
    idle_us: 4_000_000,
    ..Rules::PATIENT
};

fn assert_like_the_oracle(decap: bool) {
    let config = Config { decap: decap.into(), ..config(RULES, 21) };
    let mut replay = InReplay::new(config);
    let mut speakers: BTreeMap<u32, Speaker> = BTreeMap::new();
    let Capture { interfaces, packets } = awkward::capture(5, 12_000);
    for packet in packets {
        let (_, link_type) = interfaces[packet.interface];
        let Some(link) = Link::by_number(link_type.into()) else { continue };
        let frame = Frame {
            link,
            wire_len: packet.wire_len,
            ..Frame::ethernet(packet.time_ns, packet.data)
        };
        let interface = packet.interface as u32 + 1;
        let accounted = replay.push(frame, interface);
        let speaker = speakers.entry(interface).or_insert_with(|| Speaker::looking(RULES, decap));
        speaker.push(&accounted);
    }
    let counters = *replay.counters();
    let mut lines: BTreeMap<u32, Vec<Line>> = BTreeMap::new();
    for (interface, line) in replay.stop() {
        lines.entry(interface).or_default().push(line);
    }
    let mut sum = Counts::default();
    let mut supers = [0; 2];
    for (interface, speaker) in &mut speakers {
        speaker.stop();
        let lines = &lines[interface];
        assert_values(lines, speaker.oracle(), 21);
        assert_reasons(lines, speaker);
        let Counts { seen, accounted, not_ip, malformed, reasons } = speaker.oracle().counts();
        sum.seen += seen;
        sum.accounted += accounted;
        sum.not_ip += not_ip;
        sum.malformed += malformed;
        for (reason, count) in reasons {
            *sum.reasons.entry(*reason).or_default() += count;
        }
        for flow in speaker.oracle().flows() {
            for (sum, count) in supers.iter_mut().zip(flow.super_packets_after(usize::MAX)) {
                *sum += count;
            }
        }
    }
    assert_eq!(
        [counters.seen, counters.accounted, counters.not_ip, counters.malformed()],
        [sum.seen, sum.accounted, sum.not_ip, sum.malformed]
    );
    assert!(sum.reasons.len() == 9 && sum.accounted > 50_000, "{sum:?}");
    assert!(
        supers.iter().all(|count| *count > 200) && counters.super_packets == supers[0],
        "{supers:?}"
    );
}

#[test]
fn a_replay_says_what_the_oracle_does() {
    assert_like_the_oracle(false);
}

#[test]
fn a_replay_says_of_tunnels_what_the_oracle_does() {
    assert_like_the_oracle(true);
}
