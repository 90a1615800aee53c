//! The same lines from a capture as from the kernel, see [`feature_agent_tests::parity`].

use std::time::Duration;

use agent_common::{counters::Counters, parse::Malformed};
use feature_agent::{filter, settings::FlowSettings};
use feature_agent_tests::{
    awkward::{self, Capture},
    parity::{Compared, Parity},
    pcap::{self, Temporary},
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

/// Flows speak and end soon, and super-packets stay what they are.
fn brief() -> FlowSettings {
    let mut settings = defaults();
    settings.config.window = 5;
    settings.config.stride = 4;
    settings.config.min_gap_us = 50_000;
    settings.config.interval_us = 3_000_000;
    settings.config.idle_timeout_us = 1_000_000;
    settings.config.active_timeout_us = 2_000_000;
    settings
}

fn report(what: &str, compared: &Compared) {
    let Compared { packets, left_out, lines, sweeps, kinds, counters } = compared;
    println!("{what}: {packets} packets ({left_out} left out), {sweeps} sweeps, {lines} lines");
    println!("  {kinds:?}\n  {counters:?}");
    assert!(*lines > 0 && packets > left_out, "nothing was compared");
}

/// Every kind of packet, and every counter, often enough.
fn assert_every_kind(compared: &Compared) {
    for kind in [
        "another interface",
        "cut off",
        "unknown link",
        "Ethernet",
        "raw IP",
        "cooked v1",
        "cooked v2",
        "null",
        "PPPoE or MPLS",
        "tunnel",
        "QinQ",
        "padding",
        "SCTP",
        "ICMP error",
        "first fragment",
        "later fragment",
        "super-packet over IPv4",
        "super-packet over IPv6",
        "super-packet kept",
        "BIG TCP over IPv4",
        "BIG TCP over IPv6",
    ] {
        assert!(compared.of(kind) > 30, "only {} of: {kind}", compared.of(kind));
    }
    let counters = &compared.counters;
    for (reason, count) in Malformed::ALL.iter().zip(counters.malformed) {
        assert!(count > 5, "only {count} packets malformed for {}", reason.name());
    }
    let rest = [counters.not_ip, counters.orphan_fragments, counters.clock_backwards];
    assert!(rest.iter().all(|count| *count > 50), "{counters:?}");
    assert_eq!(counters.ring_full, 0, "{counters:?}");
}

/// Both sides over the generated capture.
fn generated(name: &str, parity: impl FnOnce() -> Parity) -> Option<Compared> {
    if !is_root_or_say(name) {
        return None;
    }
    let Capture { interfaces, packets } = awkward::capture(11, 34_000);
    assert!(packets.len() >= 50_000, "{} packets", packets.len());
    let capture = Temporary::new(name, &pcap::pcapng_of(&interfaces, &packets));
    let compared = parity().run(&[capture.path().to_owned()]);
    report(name, &compared);
    Some(compared)
}

/// What the options are there for must have come up.
fn assert_met(met: &[(&str, u64)]) {
    assert!(met.iter().all(|(_, count)| *count > 20), "{met:?}");
}

#[test]
fn generated_by_the_defaults() {
    let parity = || Parity::new(&defaults(), true).noting_kinds();
    let Some(compared) = generated("generated_by_the_defaults", parity) else { return };
    assert_every_kind(&compared);
    assert_met(&["stride", "interval", "fin", "rst", "stop"].map(|kind| (kind, compared.of(kind))));
}

#[test]
fn generated_with_a_vector_for_every_packet() {
    let parity = || Parity::new(&talkative(), true);
    let name = "generated_with_a_vector_for_every_packet";
    let Some(compared) = generated(name, parity) else { return };
    assert!(compared.lines > 50_000, "{compared:?}");
}

#[test]
fn generated_in_tunnels() {
    let Some(compared) = generated("generated_in_tunnels", || Parity::new(&decap(), true)) else {
        return;
    };
    let malformed = compared.counters.malformed[Malformed::TruncatedIp as usize];
    assert_met(&[("cut off inside", malformed), ("split", compared.counters.super_packets)]);
}

#[test]
fn generated_with_super_packets_kept() {
    let parity = || Parity::new(&brief(), false);
    let Some(compared) = generated("generated_with_super_packets_kept", parity) else { return };
    assert_eq!(compared.counters.super_packets, 0, "split");
    assert_met(&["active", "idle"].map(|kind| (kind, compared.of(kind))));
}

#[test]
fn generated_through_a_filter_and_a_sample() {
    let name = "generated_through_a_filter_and_a_sample";
    let Some(compared) = generated(name, || Parity::new(&selective(), true)) else { return };
    let Counters { filtered, accounted, .. } = compared.counters;
    assert_met(&[("filtered", filtered), ("accounted", accounted)]);
}

#[test]
fn generated_in_a_table_too_small() {
    let parity = || Parity::new(&crowded(), true);
    let Some(compared) = generated("generated_in_a_table_too_small", parity) else { return };
    let Counters { table_full, table_full_bytes, .. } = compared.counters;
    let evict = compared.of("evict");
    assert_met(&[("full", table_full), ("bytes", table_full_bytes), ("evict", evict)]);
}

#[test]
fn a_short_capture_of_every_kind() {
    if !is_root_or_say("a_short_capture_of_every_kind") {
        return;
    }
    let Capture { interfaces, packets } = awkward::capture(12, 120);
    let capture = Temporary::new("short", &pcap::pcapng_of(&interfaces, &packets));
    for (what, settings) in [("talkative", talkative()), ("decap", decap())] {
        report(what, &Parity::new(&settings, true).run(&[capture.path().to_owned()]));
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
        sum.add(&parity.run(&[path]));
    }
    if pcap::folder().is_some() {
        report("one by one", &sum);
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
        report(what, &Parity::new(&settings, resegment).run(&pcap::files()));
    }
}
