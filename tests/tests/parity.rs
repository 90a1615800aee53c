//! The same lines from a capture as from the kernel, see [`feature_agent_tests::parity`].

use std::time::Duration;

use feature_agent::{filter, settings::FlowSettings};
use feature_agent_tests::{
    craft::{self, IPV4, Tcp, V4},
    generate::mixed_frames,
    parity::{Compared, Parity},
    pcap::{self, Temporary},
    random::Random,
    sys::is_root_or_say,
};

/// The command line's defaults, with a smaller table, which is walked the faster.
fn defaults() -> FlowSettings {
    FlowSettings {
        config: agent_common::config::Config::DEFAULT,
        filter: agent_common::filter::Program::ALL,
        poll: Duration::from_millis(250),
        max_flows: 4096,
    }
}

/// A vector for every packet, of small windows.
fn talkative() -> FlowSettings {
    let mut settings = defaults();
    settings.config.window = 3;
    settings.config.stride = 1;
    settings.config.min_gap_us = 0;
    settings
}

fn decap() -> FlowSettings {
    let mut settings = talkative();
    settings.config.decap = 1;
    settings
}

/// Few flows are asked for.
fn selective() -> FlowSettings {
    let mut settings = talkative();
    settings.filter =
        filter::compile("not udp port 53 and (ip or portrange 1-40000)").expect("a filter");
    settings.config.sample = u32::MAX / 2;
    settings
}

/// The table is full again and again.
fn crowded() -> FlowSettings {
    FlowSettings { max_flows: 40, ..defaults() }
}

/// Conversations of every kind, in times that jump, stand still and run back.
fn generated() -> Vec<(u64, Vec<u8>)> {
    let mut random = Random::new(11);
    let mut now_ns = 1_700_000_000_000_000_000_u64;
    let mut packets = Vec::new();
    for frame in mixed_frames(7, 12_000) {
        now_ns += match random.below(1000) {
            0 => 16_000_000_000,
            1..=3 => 2_500_000_000,
            4..=30 => random.below(400_000_000),
            31..=400 => 0,
            _ => random.below(200_000),
        };
        let back = if random.chance(1, 50) { random.below(3_000_000) } else { 0 };
        packets.push((now_ns - back, frame));
    }
    packets.extend(offloaded(now_ns + 1_000_000));
    packets
}

/// TCP with offload on both sides: super-packets, of which the SYNs tell the segments; and one without SYNs.
fn offloaded(start_ns: u64) -> Vec<(u64, Vec<u8>)> {
    let segment = |port: u16, from_client: bool, flags: u8, mss: Option<u16>, payload: usize| {
        let (client, server) = ([10, 9, 0, 1], [10, 9, 0, 2]);
        let (src, dst) = if from_client { (client, server) } else { (server, client) };
        let (sport, dport) = if from_client { (port, 443) } else { (443, port) };
        let options = if mss.is_some() { 4 } else { 12 };
        let mut segment =
            Tcp { sport, dport, flags, window: 9, options }.segment(&vec![0; payload]);
        if let Some(mss) = mss {
            segment[20..22].copy_from_slice(&[2, 4]);
            segment[22..24].copy_from_slice(&mss.to_be_bytes());
        }
        craft::ethernet(&[], IPV4, &V4::new(src.into(), dst.into(), 6).packet(&segment))
    };
    let mut frames = Vec::new();
    for port in 2000..2040 {
        let known = port % 4 != 0;
        if known {
            frames.push(segment(port, true, 0x02, Some(1460), 0));
            frames.push(segment(port, false, 0x12, Some(1400 - port % 3), 0));
        }
        for size in [1, 1388, 1389, 5000, 9300, 20_000, 60_000] {
            frames.push(segment(port, true, 0x18, None, size));
            frames.push(segment(port, false, 0x10, None, size + usize::from(port)));
        }
        frames.push(segment(port, true, 0x19, None, 3000));
    }
    (0_u64..).map(|index| start_ns + index * 70_000).zip(frames).collect()
}

fn report(what: &str, compared: Compared) {
    let Compared { packets, left_out, lines, sweeps } = compared;
    println!("{what}: {packets} packets ({left_out} left out), {sweeps} sweeps, {lines} lines");
    assert!(lines > 0 && packets > left_out, "nothing was compared");
}

#[test]
fn a_generated_capture_gives_the_kernels_lines() {
    if !is_root_or_say("a_generated_capture_gives_the_kernels_lines") {
        return;
    }
    let capture = Temporary::new("parity", &pcap::file_of(&generated()));
    let paths = [capture.path().to_owned()];
    let cases = [
        ("defaults", defaults(), true),
        ("talkative", talkative(), true),
        ("decap", decap(), true),
        ("kept", defaults(), false),
        ("selective", selective(), true),
        ("crowded", crowded(), true),
    ];
    for (what, settings, resegment) in cases {
        report(what, Parity::new(&settings, resegment).run(&paths));
    }
}

#[test]
fn real_captures_one_by_one_give_the_kernels_lines() {
    let name = "real_captures_one_by_one_give_the_kernels_lines";
    if !is_root_or_say(name) {
        return;
    }
    let mut sum = Compared::default();
    let mut parity = Parity::new(&talkative(), true);
    for path in pcap::files() {
        let Compared { packets, left_out, lines, sweeps } = parity.run(&[path]);
        sum.packets += packets;
        sum.left_out += left_out;
        sum.lines += lines;
        sum.sweeps += sweeps;
    }
    if pcap::folder().is_some() {
        report("one by one", sum);
    }
}

#[test]
fn real_captures_as_one_stream_give_the_kernels_lines() {
    let name = "real_captures_as_one_stream_give_the_kernels_lines";
    if !is_root_or_say(name) || pcap::folder().is_none() {
        return;
    }
    let cases = [
        ("defaults", defaults(), true),
        ("decap", decap(), true),
        ("kept", talkative(), false),
        ("selective", selective(), true),
        ("crowded", crowded(), true),
    ];
    for (what, settings, resegment) in cases {
        report(what, Parity::new(&settings, resegment).run(&pcap::files()));
    }
}
