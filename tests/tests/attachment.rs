//! Beside other programs, after a crash, without permission, and when the interface comes and goes.

use std::{collections::BTreeMap, net::UdpSocket, thread::sleep, time::Duration};

use feature_agent_tests::{
    agent::{Agent, Builder, Outcome, binary},
    attached::{attach_ipv6_dropper, has_tcx_or_say, programs, tc_filters, tcx_programs},
    capture::{Capture, Sides},
    compare::{Options, compare},
    craft::{self, C_TAG, IPV4, IPV6, V4},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::{Line, lives},
    netns::{FAR_IF, NEAR_IF, Netns, Pair},
    oracle::Oracle,
    privileges::{Copy, NOBODY},
    scenario::{assert_conserved, observe},
    sys::is_root_or_say,
    traffic::{self, Version},
};
use nix::sys::signal::Signal;

const IFACE: [&str; 2] = ["--iface", NEAR_IF];

fn start(pair: &Pair, attach: &str) -> Agent {
    Agent::start(&pair.near, &[&IFACE[..], &["--attach", attach]].concat())
}

fn assert_equals_capture(outcome: &Outcome, oracle: &Oracle) {
    let lines: Vec<Line> = outcome.lines();
    assert_conserved(&outcome.reconciliation(), &lines);
    compare(&lines, oracle, Options::default()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn two_agents_side_by_side_see_the_same() {
    if !is_root_or_say("two_agents_side_by_side_see_the_same") {
        return;
    }
    let name = "two_agents_side_by_side_see_the_same";
    for (first, second) in [("clsact", "clsact"), ("tcx", "tcx"), ("tcx", "clsact")] {
        if first == "tcx" && !has_tcx_or_say(name) {
            break;
        }
        let pair = Pair::bare(CABLE_MTU);
        let frames = mixed_frames(21, 10_000);
        let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
        let agents = [start(&pair, first), start(&pair, second)];
        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
        capture.settle(Duration::from_millis(300));
        let outcomes = agents.map(Agent::stop);
        let oracle = Oracle::over(&capture.finish());
        for outcome in &outcomes {
            assert_equals_capture(outcome, &oracle);
        }
        assert_eq!(tcx_programs(&pair.near, NEAR_IF), 0, "{first} and {second}");
        assert_eq!(tc_filters(&pair.near, NEAR_IF), [""; 0], "{first} and {second}");
    }
}

/// Interface, receiver, and how many packets.
type Seen = (&'static str, &'static str, u64);

/// Packets by interface and receiver.
fn packets(outcome: &Outcome) -> BTreeMap<(String, String), u64> {
    let lines = outcome.lines();
    assert_conserved(&outcome.reconciliation(), &lines);
    let mut packets = BTreeMap::new();
    for life in lives(&lines).unwrap_or_else(|faults| panic!("{}", faults.join("\n"))) {
        let line = life.last().expect("a life has a line");
        let place = (line.text("iface").to_owned(), line.text("dst").to_owned());
        *packets.entry(place).or_default() += line.packets();
    }
    packets
}

#[test]
fn a_bridge_and_its_ports_are_places_of_their_own() {
    if !is_root_or_say("a_bridge_and_its_ports_are_places_of_their_own") {
        return;
    }
    let [sender, bridge, receiver] = [Netns::new(), Netns::new(), Netns::new()];
    bridge.ip("link add br0 type bridge\naddr add 10.5.0.3/24 dev br0\n");
    for (port, end, address) in [("port1", &sender, "10.5.0.1"), ("port2", &receiver, "10.5.0.2")] {
        bridge.ip(&format!("link add {port} type veth peer name end netns {}\n", end.name()));
        bridge.ip(&format!("link set {port} master br0 up\n"));
        end.ip(&format!("addr add {address}/24 dev end\nlink set end up\n"));
    }
    bridge.ip("link set br0 up\n");
    let (host, through) = ("10.5.0.3", "10.5.0.2");
    let send = |to: &str, count: u64| {
        sender.run(|| {
            let socket = UdpSocket::bind("10.5.0.1:1000").expect("a socket");
            for _ in 0..count {
                // Nobody listens, and says so.
                let _ = socket.send_to(&[0; 50], (to, 9));
                sleep(Duration::from_millis(2));
            }
        });
    };
    let arrived = |ns: &Netns, interface: &str| ns.counter(interface, "rx_packets");
    // Ports forward, and neighbours are known, a little later.
    let forwards = || {
        send(host, 1);
        send(through, 1);
        arrived(&receiver, "end") > 2 && arrived(&bridge, "br0") > 2
    };
    assert!(wait_until(Duration::from_secs(10), forwards), "the bridge does not forward");

    let cases: [(&[&str], &str, &[Seen]); 5] = [
        // Twice, in flows of two interfaces.
        (
            &["br0", "port1"],
            "both",
            &[("br0", host, 40), ("port1", host, 40), ("port1", through, 70)],
        ),
        // What passes between ports does not pass the bridge's own interface.
        (&["br0"], "both", &[("br0", host, 40)]),
        (&["port1"], "both", &[("port1", host, 40), ("port1", through, 70)]),
        (
            &["port1", "port2"],
            "both",
            &[("port1", host, 40), ("port1", through, 70), ("port2", through, 70)],
        ),
        // Once each, where it enters.
        (&["port1", "port2"], "ingress", &[("port1", host, 40), ("port1", through, 70)]),
    ];
    let agents = cases.map(|(places, direction, _)| {
        let places: Vec<&str> = places.iter().flat_map(|place| ["--iface", place]).collect();
        let options = ["--direction", direction, "--filter", "udp", "--max-flows", "100"];
        Agent::start(&bridge, &[&places[..], &options].concat())
    });
    send(host, 40);
    send(through, 70);
    for (agent, (places, direction, expected)) in agents.into_iter().zip(cases) {
        let expected = expected
            .iter()
            .map(|(iface, to, packets)| (((*iface).to_owned(), (*to).to_owned()), *packets));
        assert_eq!(packets(&agent.stop()), expected.collect(), "{places:?} {direction}");
    }
}

#[test]
fn kill_leaves_nothing_attached_under_tcx() {
    let name = "kill_leaves_nothing_attached_under_tcx";
    if !is_root_or_say(name) || !has_tcx_or_say(name) {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let agent = start(&pair, "tcx");
    assert_eq!(tcx_programs(&pair.near, NEAR_IF), 2, "ingress and egress");
    assert_eq!(tc_filters(&pair.near, NEAR_IF), [""; 0], "no filter beside the link");
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let gone = wait_until(Duration::from_secs(2), || tcx_programs(&pair.near, NEAR_IF) == 0);
    assert!(gone, "programs outlived their agent");
}

#[test]
fn the_next_start_on_clsact_removes_its_own_leftovers_only() {
    if !is_root_or_say("the_next_start_on_clsact_removes_its_own_leftovers_only") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    attach_ipv6_dropper(&pair.near, NEAR_IF);
    let foreign = tc_filters(&pair.near, NEAR_IF);
    assert_eq!(foreign.len(), 1);

    let agent = start(&pair, "clsact");
    assert_eq!(tc_filters(&pair.near, NEAR_IF).len(), 3, "{:?}", tc_filters(&pair.near, NEAR_IF));
    agent.signal(Signal::SIGKILL);
    agent.wait();
    assert_eq!(tc_filters(&pair.near, NEAR_IF).len(), 3, "filters outlive their process");

    let agent = start(&pair, "clsact");
    let filters = tc_filters(&pair.near, NEAR_IF);
    assert_eq!(filters.len(), 3, "the new agent's two and the foreign one: {filters:?}");
    assert!(filters.contains(&foreign[0]), "{filters:?}");
    agent.stop();
    assert_eq!(tc_filters(&pair.near, NEAR_IF), foreign);
}

#[test]
fn starting_a_second_agent_on_clsact_does_not_stop_the_first() {
    if !is_root_or_say("starting_a_second_agent_on_clsact_does_not_stop_the_first") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(22, 2_000);
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    let first = start(&pair, "clsact");
    let second = start(&pair, "clsact");
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    second.stop();
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    capture.settle(Duration::from_millis(300));
    let outcome = first.stop();
    assert_equals_capture(&outcome, &Oracle::over(&capture.finish()));
}

#[test]
fn other_programs_still_run() {
    if !is_root_or_say("other_programs_still_run") {
        return;
    }
    for attach in ["clsact", "tcx"] {
        if attach == "tcx" && !has_tcx_or_say("other_programs_still_run") {
            break;
        }
        let pair = Pair::new();
        pair.enable_ipv6();
        attach_ipv6_dropper(&pair.near, NEAR_IF);
        let run = observe(&pair, &["--attach", attach], |_| {
            traffic::udp(&pair, Version::V4, 20, 100, true);
            let socket = pair.far.run(|| UdpSocket::bind("[fd09::2]:0").expect("bind"));
            let near = pair.near.run(|| UdpSocket::bind("[fd09::1]:999").expect("bind"));
            near.set_read_timeout(Some(Duration::from_millis(300))).expect("time-out");
            for _ in 0..10 {
                socket.send_to(b"dropped", "[fd09::1]:999").expect("send");
            }
            assert!(near.recv(&mut [0; 10]).is_err(), "the other program drops IPv6");
        });
        assert!(run.outcome.status.success());
        if attach == "tcx" {
            // A TCX program comes before every filter: it saw what the filter dropped.
            run.assert_exact(Options::default());
        }
    }
}

#[test]
fn the_agent_changes_no_traffic() {
    if !is_root_or_say("the_agent_changes_no_traffic") {
        return;
    }
    // What arrives at the far end is the same bytes with and without the agent, tags and malformed ones too.
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(23, 5_000);
    let mut arrived = Vec::new();
    for attach in [None, Some("clsact"), Some("tcx")] {
        if attach == Some("tcx") && !has_tcx_or_say("the_agent_changes_no_traffic") {
            break;
        }
        let agent = attach.map(|attach| start(&pair, attach));
        let capture = Capture::start(&pair.far, FAR_IF, Sides::Ingress);
        inject::send(&pair.near, NEAR_IF, &frames, Pace::FullSpeed);
        capture.settle(Duration::from_millis(200));
        drop(agent);
        let seen: Vec<_> =
            capture.finish().into_iter().map(|f| (f.data, f.wire_len, f.vlan_tci)).collect();
        arrived.push(seen);
    }
    assert!(arrived[0].len() > 4_900);
    for (way, seen) in ["clsact", "TCX"].iter().zip(&arrived[1..]) {
        assert!(arrived[0] == *seen, "{way} changed the traffic");
    }
}

#[test]
fn an_interface_that_goes_and_comes_back_is_watched_again() {
    if !is_root_or_say("an_interface_that_goes_and_comes_back_is_watched_again") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let datagram = craft::udp(5, 6, b"hello");
    let packet = V4::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), 17).packet(&datagram);
    let frame = craft::ethernet(&[], IPV4, &packet);
    let mut agent = Agent::start(&pair.near, &[&IFACE[..], &["--interval", "100ms"]].concat());
    inject::send(&pair.far, FAR_IF, &vec![frame.clone(); 10], Pace::FullSpeed);
    pair.near.ip(&format!("link del {NEAR_IF}\n"));
    let is_last = |line: &Line| (line.packets(), line.text("reason")) == (10, "stop");
    let said = wait_until(Duration::from_secs(5), || agent.lines_so_far().iter().any(is_last));
    assert!(
        said,
        "the flow of an interface that is gone did not stop: {:#?}",
        agent.lines_so_far()
    );
    assert!(!agent.has_ended(), "it gave up:\n{}", agent.stderr());
    pair.connect(CABLE_MTU);
    let again = wait_until(Duration::from_secs(5), || programs(&pair.near, NEAR_IF) == 2);
    assert!(again, "not attached to the new interface; it said:\n{}", agent.stderr());
    sleep(Duration::from_millis(300));
    inject::send(&pair.far, FAR_IF, &vec![frame; 7], Pace::FullSpeed);
    sleep(Duration::from_millis(500));
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let counts = outcome.reconciliation();
    assert_eq!((counts.seen, counts.accounted), (17, 17));
    let lines = outcome.lines();
    assert_eq!((counts.written, counts.lost), (lines.len() as u64, 0));
    // Two interfaces of one name, so two flows of one name; the old one's had stopped before the new one was there.
    let of_old = lines.iter().position(is_last).expect("the old one's last line was there") + 1;
    let (old, new) = lines.split_at(of_old);
    for (lines, packets) in [(old, 10), (new, 7)] {
        let lives = lives(lines).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let last: Vec<u64> = lives.iter().map(|life| life.last().expect("one").packets()).collect();
        assert_eq!(last, [packets]);
    }
}

#[test]
fn an_interface_that_comes_back_as_another_kind_is_watched() {
    if !is_root_or_say("an_interface_that_comes_back_as_another_kind_is_watched") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let agent = Agent::start(&pair.near, &IFACE);
    pair.near.ip(&format!("link del {NEAR_IF}\n"));
    // Its packets begin with an IP header, for which this agent had no use before. Nobody has it open: what it is given
    // to send is dropped, but seen.
    pair.near.ip(&format!(
        "tuntap add dev {NEAR_IF} mode tun\naddr add 10.7.0.1/24 dev {NEAR_IF}\nlink set {NEAR_IF} up\n"
    ));
    let again = wait_until(Duration::from_secs(5), || programs(&pair.near, NEAR_IF) == 2);
    assert!(again, "not attached to the new interface; it said:\n{}", agent.stderr());
    pair.near.run(|| {
        let socket = UdpSocket::bind("10.7.0.1:0").expect("bind");
        for _ in 0..7 {
            socket.send_to(b"hello", "10.7.0.2:9").expect("send");
        }
    });
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let lines = outcome.lines();
    assert_conserved(&outcome.reconciliation(), &lines);
    let [line] = &lines[..] else { panic!("one flow: {lines:?}") };
    assert_eq!((line.text("dst"), line.packets()), ("10.7.0.2", 7));
    assert_eq!(line.int("fwd_bytes"), 7 * (20 + 8 + 5));
}

#[test]
fn an_unknown_interface_is_named_with_those_there_are() {
    if !is_root_or_say("an_unknown_interface_is_named_with_those_there_are") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let outcome = Builder::new(&pair.near, &["--iface", "eth77"]).spawn().wait();
    assert!(!outcome.status.success());
    for word in ["eth77", NEAR_IF, "lo"] {
        assert!(outcome.stderr.contains(word), "{word} is not in:\n{}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn without_permission_it_says_which_and_how_to_get_it() {
    if !is_root_or_say("without_permission_it_says_which_and_how_to_get_it") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let copy = Copy::new(binary(), "without");
    let builder = Builder::new(&pair.near, &IFACE).program(copy.path());
    let outcome = builder.user(NOBODY).spawn().wait();
    assert!(!outcome.status.success());
    assert!(outcome.stderr.contains("CAP_"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("sudo") || outcome.stderr.contains("setcap"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn bad_settings_are_refused_in_words() {
    if !is_root_or_say("bad_settings_are_refused_in_words") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    for args in [
        &["--window", "1"][..],
        &["--window", "65"],
        &["--stride", "0"],
        &["--max-flows", "0"],
        &["--interval", "soon"],
        &["--ring-size", "many"],
        &["--direction", "up"],
        &["--output", "/no/such/folder/file"],
    ] {
        let outcome = Builder::new(&pair.near, &[&IFACE[..], args].concat()).spawn().wait();
        assert!(!outcome.status.success(), "{args:?} was accepted");
        assert!(!outcome.stderr.trim().is_empty(), "{args:?} was refused without a word");
        assert!(!outcome.stderr.contains("panicked"), "{args:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{args:?}");
    }
    let outcome = Builder::new(&pair.near, &["config", "--iface=a", "--window=1"]).spawn().wait();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("window = 1  # command line"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("--window must lie within 2 and 64"), "{}", outcome.stderr);
}

#[test]
fn tags_out_of_band_and_in_band_name_the_same_vlan() {
    if !is_root_or_say("tags_out_of_band_and_in_band_name_the_same_vlan") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frame = |from_a: bool, tags: &[(u16, u16)]| {
        let (a, b) = ("fd01::1".parse().expect("v6"), "fd01::2".parse().expect("v6"));
        let (src, dst, sport, dport) = if from_a { (a, b, 1, 2) } else { (b, a, 2, 1) };
        let packet = craft::ipv6(src, dst, 17, 64, &craft::udp(sport, dport, b"x"));
        craft::ethernet(tags, IPV6, &packet)
    };
    let tags = [(C_TAG, 0x6123), (C_TAG, 0x0456)];
    let run = observe(&pair, &[], |_| {
        // Inwards the kernel takes the first tag out of the frame, outwards it is still inside.
        inject::send(&pair.far, FAR_IF, &[frame(true, &tags)], Pace::FullSpeed);
        inject::send(&pair.near, NEAR_IF, &[frame(false, &tags)], Pace::FullSpeed);
    });
    run.assert_exact(Options::default());
    let [line] = &run.lines[..] else { panic!("one flow: {:?}", run.lines) };
    assert_eq!((line.int("vlan"), line.int("vlan_inner"), line.packets()), (0x123, 0x456, 2));
}
