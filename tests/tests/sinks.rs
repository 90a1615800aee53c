//! Several consumers of one running agent: one that is slow, dies, comes back or is full is its own affair, and each
//! is told what it did not get.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::net::UnixStream,
    path::Path,
    thread::{self, JoinHandle},
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, Outcome},
    consumers::{Missed, assert_part_of, output_counts},
    gate::Gate,
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::{Line, parse_all},
    mount::Tmpfs,
    nats::{Collector, NatsServer, once_each},
    netns::{FAR_IF, FAR_IP, NEAR_IF, Pair},
    scenario::assert_conserved,
    sys::is_root_or_say,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

/// Speaks much.
const TALKATIVE: [&str; 6] = ["--iface", NEAR_IF, "--stride", "2", "--min-gap", "0ms"];

fn start(pair: &Pair, args: &[&str]) -> Agent {
    Agent::start(&pair.near, &[&TALKATIVE[..], args].concat())
}

fn send(pair: &Pair, seed: u64, count: usize) {
    inject::send(&pair.far, FAR_IF, &mixed_frames(seed, count), Pace::FullSpeed);
}

/// What standard output got, which is everything.
fn everything(outcome: &Outcome) -> Vec<Line> {
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    let lines = outcome.lines();
    let mut counts = outcome.reconciliation();
    let stdout = output_counts(outcome, "standard output");
    (counts.written, counts.lost) = (stdout.sent, stdout.dropped);
    assert_conserved(&counts, &lines);
    lines
}

fn lines_of(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).expect("the file");
    parse_all(text.lines()).expect("lines")
}

/// Reads lines to the end of the stream.
fn consume(stream: UnixStream, pause: Duration) -> JoinHandle<Vec<Line>> {
    thread::spawn(move || {
        let mut stream = stream;
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 14];
        while let Ok(count) = stream.read(&mut buffer)
            && count > 0
        {
            text.extend_from_slice(&buffer[..count]);
            thread::sleep(pause);
        }
        let text = String::from_utf8(text).expect("UTF-8");
        // One that goes has perhaps a part of a line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        parse_all(whole.lines()).expect("lines")
    })
}

#[test]
fn a_full_disk_is_tried_again_and_the_file_goes_on() {
    if !is_root_or_say("a_full_disk_is_tried_again_and_the_file_goes_on") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let disk = Tmpfs::new(16 << 20);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 15 << 20]).expect("ballast");
    let file = disk.path().join("vectors.jsonl");
    let path = file.to_str().expect("UTF-8");
    let args = ["--output", "-", "--output", path, "--queue", "500", "--on-full", "drop-oldest"];
    let agent = start(&pair, &args);
    // Standard output is fast enough for a short queue if it is given a little time.
    let some = |seed| {
        for part in mixed_frames(seed, 4000).chunks(200) {
            inject::send(&pair.far, FAR_IF, part, Pace::FullSpeed);
            thread::sleep(Duration::from_millis(5));
        }
    };
    some(21);
    let full = wait_until(PATIENCE, || agent.stderr().contains("No space left"));
    assert!(full, "{}", agent.stderr());
    some(22);
    fs::remove_file(&ballast).expect("room is made");
    let again = wait_until(PATIENCE, || {
        some(23);
        agent.stderr().contains("works again")
    });
    assert!(again, "{}", agent.stderr());
    let outcome = agent.stop();
    let all = everything(&outcome);
    let part = lines_of(&file);
    let counts = output_counts(&outcome, path);
    assert_eq!((counts.sent, counts.sent + counts.dropped), (part.len() as u64, all.len() as u64));
    assert!(counts.errors > 0 && counts.dropped > 0, "{counts:?}");
    let missed = assert_part_of(&part, &all);
    assert_eq!((missed.told, missed.behind), (counts.dropped, 0));
}

#[test]
fn consumers_of_a_socket_come_go_and_are_slow() {
    if !is_root_or_say("consumers_of_a_socket_come_go_and_are_slow") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let folder = Tmpfs::new(1 << 20);
    let path = folder.path().join("features.sock");
    let socket = format!("unix:{}", path.display());
    // Standard output waits for nobody, and nobody for it: its own queue blocks.
    let agent = start(&pair, &["--output", "-", "--output", &socket, "--queue", "2000"]);
    let connect = || UnixStream::connect(&path).expect("connected");
    let fast = consume(connect(), Duration::ZERO);
    let slow = consume(connect(), Duration::from_millis(10));
    let dying = connect();
    thread::sleep(Duration::from_millis(100));
    send(&pair, 31, 10_000);
    drop(dying);
    send(&pair, 32, 10_000);
    let back = consume(connect(), Duration::ZERO);
    thread::sleep(Duration::from_millis(100));
    send(&pair, 33, 10_000);
    let outcome = agent.stop();
    let all = everything(&outcome);
    assert!(!path.exists(), "the socket's file is removed");
    let mut received = 0;
    for (reader, name) in [(fast, "fast"), (slow, "slow"), (back, "back")] {
        let part = reader.join().expect("a consumer");
        assert!(!part.is_empty(), "{name} got nothing");
        // The first of one that came later says nothing about those before it.
        let first = all.iter().position(|line| line.raw == part[0].raw).expect("known");
        let missed = assert_part_of(&part, &all[first..]);
        assert!(name != "slow" || missed.told > 0, "{name} missed nothing");
        received += part.len() as u64;
    }
    let counts = output_counts(&outcome, &socket);
    assert!(counts.sent >= received && counts.dropped > 0, "{received} received: {counts:?}");
}

#[test]
fn a_hang_up_has_files_opened_again() {
    if !is_root_or_say("a_hang_up_has_files_opened_again") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let disk = Tmpfs::new(64 << 20);
    let (file, moved) = (disk.path().join("vectors.jsonl"), disk.path().join("vectors.jsonl.1"));
    let agent = start(&pair, &["--output", "-", "--output", file.to_str().expect("UTF-8")]);
    send(&pair, 41, 3000);
    let some = wait_until(PATIENCE, || {
        File::open(&file).is_ok_and(|f| f.metadata().is_ok_and(|m| m.len() > 0))
    });
    assert!(some, "nothing was written");
    fs::rename(&file, &moved).expect("moved");
    agent.signal(Signal::SIGHUP);
    assert!(wait_until(PATIENCE, || file.exists()), "no new file: {}", agent.stderr());
    send(&pair, 42, 3000);
    let outcome = agent.stop();
    let all = everything(&outcome);
    let (before, behind) = (lines_of(&moved), lines_of(&file));
    assert!(!before.is_empty() && !behind.is_empty());
    let both: Vec<Line> = before.into_iter().chain(behind).collect();
    let missed = assert_part_of(&both, &all);
    assert_eq!((both.len(), missed.told), (all.len(), 0));
}

#[test]
fn the_agents_own_stream_is_no_traffic() {
    if !is_root_or_say("the_agents_own_stream_is_no_traffic") {
        return;
    }
    let pair = Pair::new();
    for (ns, interface) in [(&pair.near, NEAR_IF), (&pair.far, FAR_IF)] {
        ns.ip(&format!("link set {interface} mtu {CABLE_MTU}\n"));
    }
    let mut server = NatsServer::start_in(&pair.far, &format!("{FAR_IP}:4222"), "");
    let collector = pair.far.run(|| Collector::start(&server, "features.>"));
    let url = format!("nats://{FAR_IP}:4222/features.{{iface}}");
    let agent = start(&pair, &["--output", "-", "--output", &url, "--queue", "1000000"]);
    for seed in 51..61 {
        send(&pair, seed, 500);
        thread::sleep(Duration::from_millis(100));
    }
    let outcome = agent.stop();
    let all = everything(&outcome);
    let counts = outcome.reconciliation();
    let sent = output_counts(&outcome, &url);
    // Each message is at least a packet, and so is what the server says to it.
    assert!(counts.filtered > sent.sent / 100 && counts.filtered > 100, "{counts:?}: {sent:?}");
    let own = |line: &Line| line.raw.contains("port\":4222,");
    assert_eq!(all.iter().filter(|line| own(line)).count(), 0, "vectors of the agent's own stream");
    assert_eq!((sent.sent, sent.dropped), (all.len() as u64, 0));
    assert!(wait_until(PATIENCE, || collector.len() == all.len()), "{} came", collector.len());
    pair.far.run(|| server.kill());
    let messages = collector.finish();
    assert!(messages.iter().all(|message| message.subject == format!("features.{NEAR_IF}")));
    let lines = messages.iter().map(|message| String::from_utf8_lossy(&message.payload));
    assert!(lines.eq(all.iter().map(|line| line.raw.as_str())), "the same lines");
}

#[test]
fn consumers_of_each_kind_are_killed_stopped_and_slowed() {
    if !is_root_or_say("consumers_of_each_kind_are_killed_stopped_and_slowed") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let mut server = NatsServer::start_in(&pair.near, "127.0.0.1:4222", "");
    let collector = pair.near.run(|| Collector::start(&server, "x"));
    let gate = pair.near.run(|| Gate::to(server.address()));
    let nats = format!("nats://{}/x", gate.address());
    let disk = Tmpfs::new(256 << 20);
    let (file, socket) = (disk.path().join("vectors.jsonl"), disk.path().join("features.sock"));
    let (path, listening) = (file.display().to_string(), format!("unix:{}", socket.display()));
    let outputs = [&path, "-", &listening, &nats].map(|output| ["--output", output]).concat();
    let queues = ["--queue", "3000", "--on-full", "drop-oldest"];
    let agent = start(&pair, &[&outputs[..], &queues].concat());
    let connect = || UnixStream::connect(&socket).expect("connected");
    let fast = consume(connect(), Duration::ZERO);
    let (stopped, dying) = (connect(), connect());
    let some = |seed| {
        for part in mixed_frames(seed, 4000).chunks(100) {
            inject::send(&pair.far, FAR_IF, part, Pace::FullSpeed);
            thread::sleep(Duration::from_millis(5));
        }
    };
    some(61);
    agent.pause_stdout();
    gate.hold();
    some(62);
    drop(dying);
    gate.shut();
    some(63);
    some(64);
    let noticed = wait_until(PATIENCE, || agent.stderr().contains("nats://127.0.0.1"));
    assert!(noticed, "{}", agent.stderr());
    agent.resume_stdout();
    gate.open();
    some(65);
    let outcome = agent.stop();
    drop(stopped);
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);

    // The file noticed nothing.
    let all = lines_of(&file);
    let of_file = output_counts(&outcome, &path);
    assert_eq!((of_file.sent, of_file.dropped, of_file.errors), (all.len() as u64, 0, 0));
    let mut counts = outcome.reconciliation();
    (counts.written, counts.lost) = (of_file.sent, 0);
    assert_conserved(&counts, &all);

    let fast = fast.join().expect("a consumer");
    let first = all.iter().position(|line| line.raw == fast[0].raw).expect("known");
    assert_eq!(assert_part_of(&fast, &all[first..]), Missed::default(), "the fast one");

    let of_stdout = output_counts(&outcome, "standard output");
    let missed = assert_part_of(&outcome.lines(), &all);
    assert!(missed.told > 0, "standard output was not slow enough");
    assert_eq!((of_stdout.sent, of_stdout.dropped), (outcome.lines().len() as u64, missed.told));

    let of_nats = output_counts(&outcome, &nats);
    assert!(wait_until(PATIENCE, || collector.len() as u64 >= of_nats.sent));
    pair.near.run(|| server.kill());
    let received = once_each(collector.finish());
    let lines = received.iter().map(|line| std::str::from_utf8(line).expect("UTF-8"));
    let received = parse_all(lines).expect("lines");
    let missed = assert_part_of(&received, &all);
    assert!(of_nats.errors > 0 && missed.told > 0, "{of_nats:?}");
    assert_eq!((of_nats.sent, of_nats.dropped), (received.len() as u64, missed.told));

    let of_socket = output_counts(&outcome, &listening);
    assert!(of_socket.dropped > 0, "the stopped and the dead got less: {of_socket:?}");
}
