//! The agent on a veth with real traffic, its lines against an oracle over a capture taken beside it.

use std::{thread::sleep, time::Duration};

use feature_agent_tests::{
    capture::Sides,
    compare::Options,
    netns::{FAR_IF, NEAR_IF, Netns, Pair},
    oracle::Value,
    scenario::{Run, observe, observe_on},
    sys::{is_root_or_say, pin_to_cpu},
    traffic::{self, End, Version},
};

/// Speaks at every packet count there is, so that as many windows as possible are compared.
const TALKATIVE: [&str; 4] = ["--stride", "7", "--min-gap", "0ms"];

fn with_ipv6() -> Pair {
    let pair = Pair::new();
    pair.enable_ipv6();
    pair
}

/// Lines of the flows with this protocol.
fn count_lines(run: &Run, proto: u64) -> usize {
    run.lines.iter().filter(|line| line.int("proto") == proto).count()
}

#[test]
fn tcp_bulk_is_counted_as_segments_of_the_wire() {
    if !is_root_or_say("tcp_bulk_is_counted_as_segments_of_the_wire") {
        return;
    }
    for version in [Version::V4, Version::V6] {
        let pair = with_ipv6();
        let run = observe(&pair, &[], |_| traffic::tcp_bulk(&pair, version, 200 << 20));
        let largest = run.frames.iter().map(|frame| frame.gso_size).max();
        assert!(largest > Some(1000), "no super-packet was captured: {largest:?}");
        run.assert_exact(Options::default());
        assert!(run.lines.iter().all(|line| line.int("win_len_max") <= 1500));
        assert!(run.lines.iter().any(|line| line.int("win_len_max") == 1500));
    }
}

#[test]
fn without_offloads_the_counts_are_the_same_kind() {
    if !is_root_or_say("without_offloads_the_counts_are_the_same_kind") {
        return;
    }
    let pair = Pair::new();
    pair.near.set_offloads(NEAR_IF, false);
    pair.far.set_offloads(FAR_IF, false);
    let run = observe(&pair, &TALKATIVE, |_| {
        traffic::tcp_bulk(&pair, Version::V4, 8 << 20);
        traffic::tcp_request_response(&pair, Version::V4, 50, 10_000, 30_000);
    });
    run.assert_exact(Options { super_packets: false, ..Options::default() });
}

#[test]
fn a_super_packet_leaving_through_a_plain_device_counts_as_its_segments() {
    if !is_root_or_say("a_super_packet_leaving_through_a_plain_device_counts_as_its_segments") {
        return;
    }
    // The stack builds super-packets, the agent sees them; the device cannot cut them, so the kernel does,
    // and the capture behind sees the segments themselves.
    let pair = Pair::new();
    pair.near.set_segmentation_offload(NEAR_IF, false);
    let run = observe(&pair, &TALKATIVE, |_| {
        traffic::tcp_request_response(&pair, Version::V4, 100, 100, 60_000);
    });
    let cut = run.frames.iter().all(|frame| frame.gso_size == 0);
    assert!(cut, "the capture shows segments");
    run.assert_exact(Options { super_packets: false, ..Options::default() });
}

#[test]
fn tcp_request_response() {
    if !is_root_or_say("tcp_request_response") {
        return;
    }
    let pair = with_ipv6();
    let run = observe(&pair, &TALKATIVE, |_| {
        traffic::tcp_request_response(&pair, Version::V4, 500, 200, 1000);
        traffic::tcp_request_response(&pair, Version::V6, 300, 20, 20_000);
    });
    run.assert_exact(Options::default());
    assert!(run.lines.len() > 200, "only {} lines", run.lines.len());
}

#[test]
fn other_window_sizes() {
    if !is_root_or_say("other_window_sizes") {
        return;
    }
    let pair = Pair::new();
    for window in [2, 3, 33, 63] {
        let text = window.to_string();
        let args = [&TALKATIVE[..], &["--window", &text]].concat();
        let run = observe(&pair, &args, |_| {
            traffic::tcp_request_response(&pair, Version::V4, 60, 200, 9000);
            traffic::udp(&pair, Version::V4, 60, 300, true);
        });
        run.assert_exact(Options { window, ..Options::default() });
        let largest = run.lines.iter().map(|line| line.int("win_packets")).max();
        assert_eq!(largest, Some(window as u64));
    }
}

#[test]
fn many_short_connections() {
    if !is_root_or_say("many_short_connections") {
        return;
    }
    let pair = with_ipv6();
    let run = observe(&pair, &[], |_| {
        traffic::tcp_short(&pair, Version::V4, 1000, End::Fin);
        traffic::tcp_short(&pair, Version::V4, 1000, End::Reset);
        traffic::tcp_short(&pair, Version::V6, 500, End::Fin);
    });
    let compared = run.assert_exact(Options::default());
    assert!(compared.flows >= 2500, "{compared:?}");
    for reason in ["fin", "rst"] {
        let count = run.lines.iter().filter(|line| line.text("reason") == reason).count();
        assert!(count >= 1000, "{count} lines for {reason}");
    }
}

#[test]
fn udp_small_and_large_and_fragmented() {
    if !is_root_or_say("udp_small_and_large_and_fragmented") {
        return;
    }
    let pair = with_ipv6();
    let run = observe(&pair, &TALKATIVE, |_| {
        for version in [Version::V4, Version::V6] {
            traffic::udp(&pair, version, 600, 64, false);
            traffic::udp(&pair, version, 150, 1400, true);
            traffic::udp(&pair, version, 60, 8000, true);
        }
    });
    run.assert_exact(Options::default());
    // Six flows; the fragments joined theirs, or there would be more.
    let flows = run.oracle.flows().iter().filter(|flow| flow.id.proto == 17).count();
    assert_eq!(flows, 6);
    assert!(count_lines(&run, 17) > 150);
}

#[test]
fn icmp_echo() {
    if !is_root_or_say("icmp_echo") {
        return;
    }
    let pair = with_ipv6();
    let run = observe(&pair, &TALKATIVE, |_| {
        for version in [Version::V4, Version::V6] {
            traffic::icmp_echo(&pair, version, 200, 56);
            traffic::icmp_echo(&pair, version, 20, 5000);
        }
    });
    run.assert_exact(Options::default());
    assert!(count_lines(&run, 1) > 30 && count_lines(&run, 58) > 30);
}

#[test]
fn refused_datagrams_and_the_errors_about_them() {
    if !is_root_or_say("refused_datagrams_and_the_errors_about_them") {
        return;
    }
    let pair = Pair::new();
    let run = observe(&pair, &[], |_| traffic::udp_many_flows(&pair, 2000));
    let compared = run.assert_exact(Options::default());
    assert!(compared.flows > 2000, "{compared:?}");
    assert!(count_lines(&run, 1) > 0, "the near host's errors are a flow of their own");
}

#[test]
fn times_are_those_of_the_capture_but_for_the_way_between_them() {
    if !is_root_or_say("times_are_those_of_the_capture_but_for_the_way_between_them") {
        return;
    }
    let pair = Pair::new();
    let pause = Duration::from_millis(20);
    let run = observe(&pair, &["--stride", "16", "--min-gap", "0ms"], |_| {
        traffic::udp_paced(&pair, Version::V4, 60, 200, true, pause);
    });
    run.assert_exact(Options::default());
    let flow = &run.oracle.flows()[0];
    for line in run.lines.iter().filter(|line| line.int("win_packets") > 1) {
        let k = line.packets() as usize;
        let window = flow.window_after(k, 64);
        for name in ["win_span_us", "win_iat_max_us", "win_iat_mean_us", "win_iat_std_us"] {
            let expected = window.iter().find(|(n, _)| n == name).expect("a feature").1;
            let expected = match expected {
                Value::Int(int) => int as f64,
                Value::Float(float) => float,
                Value::Null => panic!("{name} has a value"),
            };
            let printed = line.float_or_null(name).expect("a value");
            let apart = (printed - expected).abs();
            assert!(apart < 5000.0, "{name} is {printed}, the capture says {expected}");
        }
        let ts = line.float_or_null("ts").expect("a time");
        let captured = flow.packets[k - 1].time_us as f64 / 1e6;
        assert!((ts - captured).abs() < 0.02, "ts {ts}, the capture says {captured}");
    }
}

#[test]
fn a_flow_that_falls_silent_speaks_within_interval_and_poll() {
    if !is_root_or_say("a_flow_that_falls_silent_speaks_within_interval_and_poll") {
        return;
    }
    let pair = Pair::new();
    let args = ["--interval", "300ms", "--poll", "100ms", "--idle-timeout", "2s"];
    let run = observe(&pair, &args, |agent| {
        traffic::udp(&pair, Version::V4, 3, 100, true);
        sleep(Duration::from_millis(700));
        let lines = agent.lines_so_far();
        assert_eq!(lines.len(), 1, "one vector of the whole flow: {lines:?}");
        assert_eq!((lines[0].text("reason"), lines[0].packets()), ("interval", 6));
        sleep(Duration::from_secs(2));
        assert_eq!(agent.lines_so_far().len(), 1, "nothing new to say when it is forgotten");
    });
    run.assert_exact(Options::default());
    assert_eq!(run.lines.len(), 1, "the flow was gone before the stop");
}

#[test]
fn a_loopback_interface_is_counted_once() {
    if !is_root_or_say("a_loopback_interface_is_counted_once") {
        return;
    }
    let ns = Netns::new();
    ns.ip("link set lo up\n");
    let run = observe_on(&ns, "lo", Sides::Ingress, &TALKATIVE, |_| {
        ns.run(|| {
            pin_to_cpu(0);
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
            let to = socket.local_addr().expect("bound");
            for _ in 0..200 {
                socket.send_to(&[0; 500], to).expect("send");
            }
        });
    });
    run.assert_exact(Options::default());
    assert_eq!(run.counts.accounted, 200);
}

#[test]
fn both_processors_at_once_lose_nothing() {
    if !is_root_or_say("both_processors_at_once_lose_nothing") {
        return;
    }
    let pair = Pair::new();
    let run = observe(&pair, &["--stride", "8", "--min-gap", "0ms"], |_| {
        traffic::on_both_processors(&pair, 2000);
    });
    // Two processors may show one packet before the other to the agent and after it to the capture.
    run.assert_exact(Options::totals_only());
}
