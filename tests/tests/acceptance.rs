//! What the agent promises, on real traffic: a replayed capture is counted to the last byte, and a fast TCP
//! stream shows packets of the wire at the speed it has without the agent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, timed},
    compare::Options,
    frame::{Frame, Link},
    generate::mixed_frames,
    inject::{self, Pace, wait_until},
    lines::lives,
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::{FlowId, Oracle},
    pcap,
    scenario::{assert_conserved, observe},
    sys::is_root_or_say,
    traffic::{self, Version},
};

/// Bytes of the fast stream.
const BYTES: usize = 1 << 30;

/// Each of these tests wants the machine for itself.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A capture's frames as often as it takes to have so many. Generated ones where no captures are at hand.
fn replayed(count: usize) -> Vec<Vec<u8>> {
    let mut once: Vec<Vec<u8>> = Vec::new();
    for file in pcap::files() {
        for frame in pcap::read(&file) {
            let whole = frame.wire_len == frame.data.len();
            if whole && frame.link == Link::Ethernet && (14..9000).contains(&frame.wire_len) {
                once.push(frame.data);
            }
        }
    }
    if once.is_empty() {
        eprintln!("FEATURE_AGENT_PCAPS names no captures: generated frames are replayed");
        once = mixed_frames(99, count);
    }
    once.iter().cycle().take(count.next_multiple_of(once.len())).cloned().collect()
}

/// A flow whichever end began it, so that its lives fall together.
type Name = (u8, [(std::net::IpAddr, Option<u16>); 2], [Option<u16>; 2]);
/// Packets, bytes and payload bytes of both directions.
type Sums = [u64; 3];

fn name(id: &FlowId, one_way: bool) -> Name {
    let mut ends = [(id.src, id.sport), (id.dst, id.dport)];
    if !one_way {
        ends.sort_unstable();
    }
    (id.proto, ends, [id.vlan, id.vlan_inner])
}

#[test]
fn a_replayed_capture_of_a_hundred_thousand_packets_is_counted_exactly() {
    if !is_root_or_say("a_replayed_capture_of_a_hundred_thousand_packets_is_counted_exactly") {
        return;
    }
    let _alone = alone();
    let frames = replayed(100_000);
    let pair = Pair::bare(9000);
    let mut took = Duration::ZERO;
    let run = observe(&pair, &["--stride", "16", "--min-gap", "0ms"], |_| {
        let before = pair.near.counter(NEAR_IF, "rx_packets");
        let (sent, time) = timed(|| inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed));
        took = time;
        let arrived = wait_until(Duration::from_secs(10), || {
            pair.near.counter(NEAR_IF, "rx_packets") - before >= sent as u64
        });
        assert!(arrived, "{sent} frames sent");
    });
    // Every window of every line, against a capture taken beside it.
    let compared = run.assert_exact(Options { reasons: false, ..Options::default() });
    eprintln!(
        "{} frames in {took:.2?} ({:.0}/s): {compared:?}",
        frames.len(),
        frames.len() as f64 / took.as_secs_f64()
    );

    // And the totals per flow, against the bytes that were sent.
    let mut sent = Oracle::default();
    for data in &frames {
        sent.push(&Frame::ethernet(0, data.clone()));
    }
    let mut expected: BTreeMap<Name, Sums> = BTreeMap::new();
    let mut one_way: BTreeMap<&FlowId, bool> = BTreeMap::new();
    for flow in sent.flows() {
        one_way.insert(&flow.id, flow.one_way);
        let sums = expected.entry(name(&flow.id, flow.one_way)).or_default();
        sums[0] += flow.packets.len() as u64;
        sums[1] += flow.packets.iter().map(|p| u64::from(p.len)).sum::<u64>();
        sums[2] += flow.packets.iter().map(|p| u64::from(p.payload)).sum::<u64>();
    }
    let mut found: BTreeMap<Name, Sums> = BTreeMap::new();
    for life in lives(&run.lines).expect("compared before") {
        let last = life.last().expect("a life has a line");
        let id = last.flow();
        let one_way = one_way.get(&id).copied().unwrap_or(false);
        let sums = found.entry(name(&id, one_way)).or_default();
        for (sum, field) in sums.iter_mut().zip(["packets", "bytes", "payload_bytes"]) {
            *sum += last.int(&format!("fwd_{field}")) + last.int(&format!("bwd_{field}"));
        }
    }
    assert!(expected.len() > 100, "only {} flows", expected.len());
    for (name, sums) in &expected {
        assert_eq!(found.get(name), Some(sums), "packets, bytes, payload of {name:?}");
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(run.counts.seen, frames.len() as u64);
}

#[test]
fn a_fast_stream_is_segments_of_the_wire_at_the_speed_it_has_without_the_agent() {
    if !is_root_or_say(
        "a_fast_stream_is_segments_of_the_wire_at_the_speed_it_has_without_the_agent",
    ) {
        return;
    }
    let _alone = alone();
    let pair = Pair::new();
    let gbit = |time: Duration| BYTES as f64 * 8e-9 / time.as_secs_f64();
    let bulk = || timed(|| traffic::tcp_bulk(&pair, Version::V4, BYTES)).1;
    let (mut without, mut with) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        without = without.min(bulk());
        let agent = Agent::start(&pair.near, &["--iface", NEAR_IF]);
        with = with.min(bulk());
        let outcome = agent.stop();
        let (counts, lines) = (outcome.reconciliation(), outcome.lines());
        assert_conserved(&counts, &lines);
        assert_eq!(counts.table_full + counts.malformed + counts.not_ip, 0, "{counts:?}");
        assert!(lines.iter().all(|line| line.int("win_len_max") <= 1500));
        let last = lines.last().expect("a line");
        assert!(lines.iter().any(|line| line.int("win_len_max") == 1500));
        assert!(last.int("fwd_payload_bytes") >= BYTES as u64, "{}", last.raw);
        // Segments of 1448 bytes, not super-packets.
        assert!(last.int("fwd_packets") >= BYTES as u64 / 1448, "{}", last.raw);
    }
    let ratio = without.as_secs_f64() / with.as_secs_f64();
    eprintln!(
        "one TCP stream, best of three: {:.2} Gbit/s without the agent, {:.2} with: {ratio:.3}",
        gbit(without),
        gbit(with)
    );
    // Others may use the machine: this only finds an agent that stops the traffic.
    assert!(ratio > 0.4, "{ratio}");
}
