//! Real traffic in namespaces against the capture and the oracle, without the agent.

use std::time::Duration;

use feature_agent_tests::{
    capture::{Capture, Sides},
    frame::Frame,
    netns::{NEAR_IF, Pair},
    oracle::{DirectionBy, Oracle},
    sys::is_root_or_say,
    traffic::{self, End, Version},
};

fn captured(pair: &Pair, traffic: impl FnOnce(&Pair)) -> (Vec<Frame>, Oracle) {
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    traffic(pair);
    capture.settle(Duration::from_millis(200));
    let frames = capture.finish();
    let oracle = Oracle::over(&frames);
    assert_eq!(oracle.counts().malformed, 0, "a real stack sends nothing malformed");
    (frames, oracle)
}

#[test]
fn tcp_bulk_travels_in_super_packets_of_mtu_sized_segments() {
    if !is_root_or_say("tcp_bulk_travels_in_super_packets_of_mtu_sized_segments") {
        return;
    }
    let pair = Pair::new();
    let bytes = 20 << 20;
    let (frames, oracle) = captured(&pair, |pair| traffic::tcp_bulk(pair, Version::V4, bytes));
    assert!(frames.iter().any(|frame| frame.gso_size > 0), "no super-packet was captured");
    let [flow] = oracle.flows() else { panic!("one flow, not {:?}", oracle.flows().len()) };
    assert_eq!(flow.direction_by, DirectionBy::Syn);
    assert_eq!(flow.packets.iter().map(|p| p.len).max(), Some(1500));
    let sent: usize = flow.packets.iter().filter(|p| !p.bwd).map(|p| p.payload as usize).sum();
    assert_eq!(sent, bytes, "every byte once: nothing was lost or sent twice");
    assert!(flow.closed());
}

#[test]
fn without_offloads_the_oracle_reads_the_same_totals() {
    if !is_root_or_say("without_offloads_the_oracle_reads_the_same_totals") {
        return;
    }
    let pair = Pair::new();
    pair.far.set_offloads("veth-far", false);
    let bytes = 4 << 20;
    let (frames, oracle) = captured(&pair, |pair| traffic::tcp_bulk(pair, Version::V4, bytes));
    assert!(frames.iter().all(|frame| frame.gso_size == 0), "offloads are off");
    let flow = &oracle.flows()[0];
    assert_eq!(
        flow.packets.iter().filter(|p| !p.bwd).map(|p| p.payload as usize).sum::<usize>(),
        bytes
    );
    assert!(flow.packets.iter().all(|p| p.len <= 1500));
}

#[test]
fn short_connections_are_one_flow_each() {
    if !is_root_or_say("short_connections_are_one_flow_each") {
        return;
    }
    let pair = Pair::new();
    let (_, oracle) = captured(&pair, |pair| {
        traffic::tcp_short(pair, Version::V4, 50, End::Fin);
        traffic::tcp_short(pair, Version::V4, 50, End::Reset);
    });
    assert_eq!(oracle.flows().len(), 100);
    assert!(oracle.flows().iter().all(|flow| flow.closed() && !flow.midstream));
}

#[test]
fn large_datagrams_travel_as_fragments_of_one_flow() {
    if !is_root_or_say("large_datagrams_travel_as_fragments_of_one_flow") {
        return;
    }
    let pair = Pair::new();
    pair.enable_ipv6();
    std::thread::sleep(Duration::from_millis(500));
    for version in [Version::V4, Version::V6] {
        let (frames, oracle) = captured(&pair, |pair| traffic::udp(pair, version, 20, 4000, true));
        let flows: Vec<_> = oracle.flows().iter().filter(|flow| flow.id.proto == 17).collect();
        assert_eq!(flows.len(), 1, "{version:?}");
        assert_eq!(flows[0].packets.len(), 20 * 2 * 3, "{version:?}");
        assert!(frames.len() >= 120);
        let payload: u32 = flows[0].packets.iter().map(|p| p.payload).sum();
        assert_eq!(payload, 20 * 2 * 4000, "{version:?}");
    }
}

#[test]
fn echo_and_requests_over_both_versions() {
    if !is_root_or_say("echo_and_requests_over_both_versions") {
        return;
    }
    let pair = Pair::new();
    pair.enable_ipv6();
    std::thread::sleep(Duration::from_millis(500));
    for version in [Version::V4, Version::V6] {
        let (_, oracle) = captured(&pair, |pair| {
            traffic::icmp_echo(pair, version, 30, 56);
            traffic::tcp_request_response(pair, version, 50, 200, 3000);
        });
        let echo = oracle.flows().iter().find(|f| matches!(f.id.proto, 1 | 58)).expect("echo");
        assert_eq!(echo.packets.len(), 60, "{version:?}");
        assert_eq!(echo.packets.iter().filter(|p| p.bwd).count(), 30, "{version:?}");
        let tcp = oracle.flows().iter().find(|f| f.id.proto == 6).expect("tcp");
        let back: u32 = tcp.packets.iter().filter(|p| p.bwd).map(|p| p.payload).sum();
        assert_eq!(back, 50 * 3000, "{version:?}");
    }
}

#[test]
fn many_flows_are_many_flows() {
    if !is_root_or_say("many_flows_are_many_flows") {
        return;
    }
    let pair = Pair::new();
    let (_, oracle) = captured(&pair, |pair| traffic::udp_many_flows(pair, 500));
    assert_eq!(oracle.flows().iter().filter(|flow| flow.id.proto == 17).count(), 500);
}
