//! Too little room, dying consumers, signals and full disks: nothing is lost in silence.

use std::{
    collections::HashMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, Builder, Reconciliation},
    capture::{Capture, Sides},
    compare::Options,
    craft::{self, V4},
    frame::Frame,
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::{Line, parse_all},
    mount::Tmpfs,
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::{FlowId, Oracle, Verdict},
    scenario::{assert_conserved, observe},
    sys::is_root_or_say,
};
use nix::sys::signal::Signal;

fn assert_sums(counts: &Reconciliation) {
    let parts =
        counts.accounted + counts.not_ip + counts.malformed + counts.filtered + counts.table_full;
    assert_eq!(counts.seen, parts, "{counts:?}");
}

#[test]
fn a_ring_too_small_delays_vectors_and_loses_none() {
    if !is_root_or_say("a_ring_too_small_delays_vectors_and_loses_none") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    // A flow that ended but cannot say so yet goes on with the next packets: a delay, not a loss. Lives would
    // then not be those of the oracle, so no flow lives twice here.
    let frames = without_second_lives(mixed_frames(11, 60_000));
    let args = ["--ring-size", "64KiB", "--stride", "2", "--min-gap", "0ms", "--poll", "50ms"];
    let run = observe(&pair, &args, |agent| {
        agent.pause_stdout();
        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
        thread::sleep(Duration::from_millis(300));
        agent.resume_stdout();
    });
    assert!(run.counts.delayed > 0, "the ring was never full: {:?}", run.counts);
    assert!(run.lines.iter().any(|line| line.int("missed") > 0), "no line says so");
    run.assert_exact(Options::default());
}

/// The frames without those of flows whose name was there before.
fn without_second_lives(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut oracle = Oracle::default();
    let mut names = HashMap::new();
    let first_life = |bytes: &Vec<u8>| match oracle.push(&Frame::ethernet(0, bytes.clone())) {
        Verdict::Accounted { flow, .. } => {
            *names.entry(oracle.flows()[flow].id.clone()).or_insert(flow) == flow
        }
        _ => true,
    };
    frames.into_iter().filter(first_life).collect()
}

#[test]
fn a_table_too_small_counts_what_it_turns_away() {
    if !is_root_or_say("a_table_too_small_counts_what_it_turns_away") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(12, 20_000);
    let run = observe(&pair, &["--max-flows", "64"], |_| {
        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    });
    assert!(run.outcome.status.success());
    assert!(run.counts.table_full > 0, "{:?}", run.counts);
    assert_conserved(&run.counts, &run.lines);
    let expected = run.oracle.counts();
    assert_eq!(run.counts.seen, expected.seen);
    assert_eq!(run.counts.not_ip, expected.not_ip);
    assert_eq!(run.counts.malformed, expected.malformed);
    assert_eq!(run.counts.accounted + run.counts.table_full, expected.accounted);
}

#[test]
fn a_table_that_fills_up_evicts_the_longest_silent() {
    if !is_root_or_say("a_table_that_fills_up_evicts_the_longest_silent") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let args =
        ["--max-flows", "512", "--poll", "50ms", "--idle-timeout", "10s", "--interval", "60s"];
    let run = observe(&pair, &args, |_| {
        // Twice as many flows as the table holds, but slowly enough for old ones to make room.
        for round in 0..7u16 {
            let frames: Vec<Vec<u8>> = (0..150)
                .map(|i| {
                    let datagram = craft::udp(1000 + round, 1000 + i, b"one packet");
                    let packet = V4::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), 17);
                    craft::ethernet(&[], craft::IPV4, &packet.packet(&datagram))
                })
                .collect();
            inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
            thread::sleep(Duration::from_millis(600));
        }
    });
    let evicted = run.lines.iter().filter(|line| line.text("reason") == "evict").count();
    assert!(evicted > 400, "{evicted} evicted");
    run.assert_exact(Options::default());
}

#[test]
fn a_consumer_that_dies_ends_the_agent_quietly() {
    if !is_root_or_say("a_consumer_that_dies_ends_the_agent_quietly") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(13, 20_000);
    let agent = Agent::start(&pair.near, &["--iface", NEAR_IF]);
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    agent.close_stdout();
    let later = mixed_frames(14, 3_000);
    inject::send(&pair.far, FAR_IF, &later, Pace::Every(Duration::from_micros(200)));
    let outcome = agent.wait();
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    let counts = outcome.reconciliation();
    assert_sums(&counts);
    assert!(counts.seen > 0 && counts.lost > 0, "{counts:?}");
    for word in ["panic", "ERROR", "Broken pipe", "backtrace"] {
        assert!(!outcome.stderr.contains(word), "not quiet:\n{}", outcome.stderr);
    }
}

/// Injects in the background until told to stop.
fn under_load<T>(pair: &Pair, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    let frames = mixed_frames(15, 20_000);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                for part in frames.chunks(500) {
                    inject::send(&pair.far, FAR_IF, part, Pace::FullSpeed);
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                }
            }
        });
        thread::sleep(Duration::from_millis(700));
        let result = work();
        stop.store(true, Ordering::Release);
        load.join().expect("the load");
        result
    })
}

#[test]
fn signals_under_load_conserve() {
    if !is_root_or_say("signals_under_load_conserve") {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let pair = Pair::bare(CABLE_MTU);
        let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
        let agent =
            Agent::start(&pair.near, &["--iface", NEAR_IF, "--stride", "4", "--min-gap", "1ms"]);
        let outcome = under_load(&pair, || {
            agent.signal(signal);
            agent.wait()
        });
        let oracle = Oracle::over(&capture.finish());
        assert_eq!(outcome.status.code(), Some(0), "{signal}: {}", outcome.stderr);
        let counts = outcome.reconciliation();
        let lines = outcome.lines();
        assert_conserved(&counts, &lines);
        assert!(counts.seen > 1000 && counts.seen < oracle.counts().seen, "{counts:?}");
        assert_no_more_than_captured(&lines, &oracle);
    }
}

/// Per flow, over all its lives: what was printed is no more than what was there.
fn assert_no_more_than_captured(lines: &[Line], oracle: &Oracle) {
    let mut there: HashMap<&FlowId, u64> = HashMap::new();
    for flow in oracle.flows() {
        *there.entry(&flow.id).or_default() += flow.packets.len() as u64;
    }
    for line in lines {
        let most = there.get(&line.flow()).copied().unwrap_or(0);
        assert!(line.packets() <= most, "{} packets captured: {}", most, line.raw);
    }
}

#[test]
fn a_disk_that_stays_full_is_an_error_at_the_end_with_a_count() {
    if !is_root_or_say("a_disk_that_stays_full_is_an_error_at_the_end_with_a_count") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let disk = Tmpfs::new(64 << 10);
    let file = disk.path().join("vectors.jsonl");
    let file = file.to_str().expect("UTF-8");
    let mut agent = Agent::start(
        &pair.near,
        &["--iface", NEAR_IF, "--stride", "2", "--min-gap", "0ms", "--output", file],
    );
    let frames = mixed_frames(16, 10_000);
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    let said = wait_until(Duration::from_secs(5), || agent.stderr().contains("does not work"));
    assert!(said, "{}", agent.stderr());
    assert!(!agent.has_ended(), "{}", agent.stderr());
    let outcome = agent.stop();
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(file), "the sentence names the file:\n{}", outcome.stderr);
    let counts = outcome.reconciliation();
    assert_sums(&counts);
    assert!(counts.lost > 0, "{counts:?}");
    let whole = fs::read_to_string(file).expect("the file");
    let whole = &whole[..=whole.rfind('\n').expect("one whole line")];
    assert_eq!(parse_all(whole.lines()).expect("lines").len() as u64, counts.written);
}

#[test]
fn a_file_gets_every_line() {
    if !is_root_or_say("a_file_gets_every_line") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let disk = Tmpfs::new(64 << 20);
    let file = disk.path().join("vectors.jsonl");
    let agent =
        Agent::start(&pair.near, &["--iface", NEAR_IF, "--output", file.to_str().expect("UTF-8")]);
    let frames = mixed_frames(17, 5_000);
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    let outcome = agent.stop();
    assert_eq!((outcome.status.code(), outcome.stdout.as_str()), (Some(0), ""));
    let text = fs::read_to_string(file).expect("the file");
    assert_conserved(&outcome.reconciliation(), &parse_all(text.lines()).expect("lines"));
}

#[test]
fn quiet_says_nothing_but_does_all() {
    if !is_root_or_say("quiet_says_nothing_but_does_all") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(18, 1_000);
    let agent =
        Builder::new(&pair.near, &["--iface", NEAR_IF, "-q", "--interval", "100ms"]).spawn();
    let speaks = wait_until(Duration::from_secs(20), || {
        inject::send(&pair.far, FAR_IF, &frames[..50], Pace::FullSpeed);
        !agent.lines_so_far().is_empty()
    });
    assert!(speaks, "no line; it said:\n{}", agent.stderr());
    let outcome = agent.stop();
    assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""));
}

#[test]
fn array_shape_holds_the_same_numbers() {
    if !is_root_or_say("array_shape_holds_the_same_numbers") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(19, 5_000);
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    let agent = Agent::start(&pair.near, &["--iface", NEAR_IF, "--shape", "array"]);
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    capture.settle(Duration::from_millis(300));
    let outcome = agent.stop();
    let oracle = Oracle::over(&capture.finish());
    let lines: Vec<Line> =
        outcome.stdout.lines().map(|raw| Line::from_array(raw).expect("a line")).collect();
    assert_conserved(&outcome.reconciliation(), &lines);
    feature_agent_tests::compare::compare(&lines, &oracle, Options::default())
        .unwrap_or_else(|e| panic!("{e}"));
}
