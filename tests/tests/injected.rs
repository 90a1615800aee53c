//! Frames of every kind injected at full speed: per flow totals and all features but times are exact.

use std::{collections::BTreeMap, time::Duration};

use feature_agent_tests::{
    agent::Agent,
    capture::Sides,
    compare::Options,
    craft::{self, Tcp, V4},
    fixtures::{Expect, all, flow_name},
    frame::{Frame, Link},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    netns::{FAR_IF, NEAR_IF, Netns, Pair},
    oracle::parse::flag::{ACK, CWR, FIN, PSH, SYN, URG},
    pcap,
    scenario::{observe, observe_on},
    sys::is_root_or_say,
};

const TALKATIVE: [&str; 4] = ["--stride", "16", "--min-gap", "0ms"];

/// Sends frames from the far end and waits until the cable has taken them all.
fn inject_from_far(pair: &Pair, frames: &[Vec<u8>]) {
    let before = pair.near.counter(NEAR_IF, "rx_packets");
    let sent = inject::send(&pair.far, FAR_IF, frames, Pace::FullSpeed) as u64;
    let arrived = wait_until(Duration::from_secs(10), || {
        pair.near.counter(NEAR_IF, "rx_packets") - before >= sent
    });
    assert!(arrived, "{sent} frames sent");
}

#[test]
fn a_hundred_thousand_mixed_packets_in() {
    if !is_root_or_say("a_hundred_thousand_mixed_packets_in") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(2026, 100_000);
    let run = observe(&pair, &TALKATIVE, |_| inject_from_far(&pair, &frames));
    assert!(run.frames.len() >= 100_000, "{} frames captured", run.frames.len());
    let compared = run.assert_exact(Options::default());
    assert!(compared.flows > 3000 && compared.lines > 8000, "{compared:?}");
}

#[test]
fn mixed_packets_out() {
    if !is_root_or_say("mixed_packets_out") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(7, 30_000);
    let run = observe(&pair, &TALKATIVE, |_| {
        inject::send(&pair.near, NEAR_IF, &frames, Pace::FullSpeed);
    });
    assert_eq!(run.frames.len(), frames.len(), "all tags are in band on the way out");
    run.assert_exact(Options::default());
}

#[test]
fn only_one_direction_is_watched_when_told_so() {
    if !is_root_or_say("only_one_direction_is_watched_when_told_so") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(8, 2_000);
    let args = [&TALKATIVE[..], &["--direction", "ingress"]].concat();
    let run = observe_on(&pair.near, NEAR_IF, Sides::Ingress, &args, |_| {
        inject::send(&pair.near, NEAR_IF, &frames[..1000], Pace::FullSpeed);
        inject_from_far(&pair, &frames);
    });
    run.assert_exact(Options::default());
    let args = [&TALKATIVE[..], &["--direction", "egress"]].concat();
    let run = observe_on(&pair.near, NEAR_IF, Sides::Ingress, &args, |_| {
        inject_from_far(&pair, &frames);
    });
    assert_eq!((run.counts.seen, run.lines.len()), (0, 0));
}

#[test]
fn super_packets_of_all_sizes_and_flags() {
    if !is_root_or_say("super_packets_of_all_sizes_and_flags") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let all = ACK | PSH | FIN | CWR | URG;
    let run = observe(&pair, &TALKATIVE, |_| {
        for (i, (gso_size, payload)) in [
            (1448, 1449),
            (1448, 2896),
            (1448, 60_000),
            (536, 60_000),
            (100, 10_000),
            (64, 64 * 63),
            (64, 64 * 64),
            (64, 64 * 65),
            (1400, 1401),
        ]
        .into_iter()
        .enumerate()
        {
            let send = |flags, from_a: bool| {
                let (a, b) = ([10, 1, 1, 1].into(), [10, 1, 1, 2].into());
                let (src, dst) = if from_a { (a, b) } else { (b, a) };
                let port = 100 + i as u16;
                let tcp = Tcp { sport: port, dport: port, flags, window: 9, options: 12 };
                let packet = V4::new(src, dst, 6).packet(&tcp.segment(&vec![1; payload]));
                let frame = craft::ethernet(&[], craft::IPV4, &packet);
                inject::send_super_packet(&pair.far, FAR_IF, &frame, gso_size, false);
            };
            send(ACK, true);
            send(ACK | PSH, false);
            send(all, true);
            send(ACK | FIN, false);
        }
    });
    assert!(run.frames.iter().all(|frame| frame.gso_size > 0), "all are super-packets");
    run.assert_exact(Options::default());
}

#[test]
fn fixtures_with_a_tag_outside_of_the_frame() {
    if !is_root_or_say("fixtures_with_a_tag_outside_of_the_frame") {
        return;
    }
    let mut frames = Vec::new();
    let mut expected: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let mut malformed = BTreeMap::new();
    for (frame, expect) in all().into_iter().flat_map(|fixture| fixture.frames) {
        let Some(tci) = frame.vlan_tci else { continue };
        match expect {
            Expect::Account { flow, packets, bytes, payload } => {
                let sums = expected.entry(flow.to_owned()).or_default();
                *sums = [sums[0] + packets, sums[1] + bytes, sums[2] + payload];
            }
            Expect::Malformed(reason) => *malformed.entry(reason.to_owned()).or_default() += 1,
            Expect::NotIp => panic!("no such fixture"),
        }
        frames.push((frame, tci));
    }
    assert!(frames.len() >= 3);
    // Inside on the cable; the receiving kernel takes it out.
    let on_cable = |(frame, tci): &(Frame, u16)| {
        let mut data = frame.data.clone();
        let [high, low] = tci.to_be_bytes();
        data.splice(12..12, [0x81, 0x00, high, low]);
        data
    };
    let on_cable: Vec<Vec<u8>> = frames.iter().map(on_cable).collect();
    let pair = Pair::bare(CABLE_MTU);
    let run = observe(&pair, &[], |_| inject_from_far(&pair, &on_cable));
    for ((frame, tci), seen) in frames.iter().zip(&run.frames) {
        assert_eq!((seen.vlan_tci, &seen.data), (Some(*tci), &frame.data), "as in the table");
    }
    run.assert_exact(Options::default());
    let found: BTreeMap<String, [u64; 3]> = run
        .lines
        .iter()
        .map(|line| {
            let sum =
                |field: &str| line.int(&format!("fwd_{field}")) + line.int(&format!("bwd_{field}"));
            (flow_name(&line.flow()), ["packets", "bytes", "payload_bytes"].map(sum))
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(BTreeMap::from_iter(run.outcome.malformed_reasons()), malformed);
}

#[test]
fn two_interfaces_are_two_worlds() {
    if !is_root_or_say("two_interfaces_are_two_worlds") {
        return;
    }
    let (near, far) = (Netns::new(), Netns::new());
    for name in ["one", "two"] {
        near.ip(&format!(
            "link add {name} type veth peer name {name} netns {}\nlink set {name} up\n",
            far.name()
        ));
        far.ip(&format!("link set {name} up\n"));
    }
    let agent = Agent::start(&near, &["--iface", "one", "--iface", "two"]);
    let tcp = |flags| {
        let segment = Tcp { sport: 1, dport: 2, flags, window: 9, options: 0 }.segment(&[]);
        let packet = V4::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), 6).packet(&segment);
        craft::ethernet(&[], craft::IPV4, &packet)
    };
    inject::send(&far, "one", &[tcp(SYN), tcp(ACK)], Pace::FullSpeed);
    inject::send(&far, "two", &[tcp(SYN)], Pace::FullSpeed);
    std::thread::sleep(Duration::from_millis(200));
    let outcome = agent.stop();
    let lines = outcome.lines();
    feature_agent_tests::scenario::assert_conserved(&outcome.reconciliation(), &lines);
    for (name, packets) in [("one", 2), ("two", 1)] {
        let last = lines.iter().rfind(|line| line.text("iface") == name).expect("a line");
        assert_eq!(last.packets(), packets, "{name}");
    }
}

#[test]
fn real_captures_give_exact_lines() {
    if !is_root_or_say("real_captures_give_exact_lines") {
        return;
    }
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for file in pcap::files() {
        for frame in pcap::read(&file) {
            let whole = frame.wire_len == frame.data.len();
            // What a cable takes, with headers that lie within the part of the frame the capture keeps.
            if whole && frame.link == Link::Ethernet && (14..9000).contains(&frame.wire_len) {
                frames.push(frame.data);
            }
        }
    }
    if frames.is_empty() {
        eprintln!(
            "real_captures_give_exact_lines: FEATURE_AGENT_PCAPS names no captures, nothing to send"
        );
        return;
    }
    let pair = Pair::bare(9000);
    let run = observe(&pair, &TALKATIVE, |_| {
        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
        inject::send(&pair.near, NEAR_IF, &frames, Pace::FullSpeed);
    });
    run.assert_exact(Options { reasons: false, ..Options::default() });
}
