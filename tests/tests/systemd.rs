//! The packaged units under a real systemd: started, reloaded, stopped, killed, hung and started again.

use std::{
    fs,
    io::Read as _,
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    process::ExitStatus,
    thread::{self, sleep},
    time::Duration,
};

use feature_agent_tests::{
    agent::Outcome,
    attached::tcx_programs,
    capture::{Capture, Sides},
    compare::{Options, compare},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::{Line, lives, parse_all},
    machine::{Machine, root_or_say},
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::Oracle,
    scenario::assert_conserved,
    sys::is_root_or_say,
};

/// `feature-agent@` for the watched interface, as systemd-escape(1) writes it.
const INSTANCE: &str = "feature-agent@veth\\x2dnear.service";
const PLAIN: &str = "feature-agent.service";
/// Longest wait for anything that systemd does.
const PATIENCE: Duration = Duration::from_secs(30);
/// After that each packet is in a vector: `--interval`, `--poll`, and what a slow machine takes.
const IN_VECTORS: Duration = Duration::from_millis(2_500);
/// The most that `systemd-analyze security` may find exposed, of 10.
const EXPOSURE: f64 = 2.5;

/// Sends frames; what a capture of them comes to.
fn traffic(pair: &Pair, seed: u64) -> Oracle {
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    inject::send(&pair.far, FAR_IF, &mixed_frames(seed, 3_000), Pace::FullSpeed);
    capture.settle(Duration::from_millis(300));
    Oracle::over(&capture.finish())
}

/// What the run that is over, of all that a unit had, printed: its books, beside the lines of its output.
fn outcome(machine: &Machine, invocation: &str, lines: &str) -> Outcome {
    let select = format!("_SYSTEMD_INVOCATION_ID={invocation}");
    let stderr = machine.journal(&[&select]);
    Outcome { status: ExitStatus::from_raw(0), stdout: lines.to_owned(), stderr }
}

/// Packets in the last lines of all flows.
fn packets_in(lines: &[Line]) -> u64 {
    let lives = lives(lines).unwrap_or_else(|faults| panic!("{faults:#?}"));
    lives.iter().map(|life| life.last().expect("a life has a line").packets()).sum()
}

fn is_up(machine: &Machine, pair: &Pair, unit: &str) {
    assert_eq!(machine.property(unit, "ActiveState"), "active");
    assert_eq!(tcx_programs(&pair.near, NEAR_IF), 2, "active before it is attached");
    let status = machine.property(unit, "StatusText");
    assert!(status.contains("watching veth-near") || status.contains("packets"), "{status}");
}

fn is_restarted(machine: &Machine, pair: &Pair, times: &str) {
    let again = wait_until(PATIENCE, || {
        machine.property(INSTANCE, "NRestarts") == times
            && machine.property(INSTANCE, "ActiveState") == "active"
    });
    assert!(again, "not started again:\n{}", machine.journal(&["--unit", INSTANCE]));
    is_up(machine, pair, INSTANCE);
}

#[test]
fn an_instance_is_stopped_killed_hung_and_restarted_and_loses_nothing() {
    const TEST: &str = "an_instance_is_stopped_killed_hung_and_restarted_and_loses_nothing";
    let Some(root) = root_or_say(TEST).filter(|_| is_root_or_say(TEST)) else { return };
    let pair = Pair::bare(CABLE_MTU);
    let machine = Machine::boot(&root, &pair.near);
    // As packaged, but for the times that a test would have to wait.
    let drop_in = "[Service]\nRestartSec=200ms\nWatchdogSec=3\n";
    machine.write("/run/systemd/system/feature-agent@.service.d/quick.conf", drop_in);
    machine.run("systemctl", &["daemon-reload"]);

    machine.run("systemctl", &["start", INSTANCE]);
    is_up(&machine, &pair, INSTANCE);
    let pid = machine.property(INSTANCE, "MainPID");
    let status = machine.said("cat", &[&format!("/proc/{pid}/status")]);
    let capabilities = status.lines().find(|line| line.starts_with("CapEff:")).expect("a line");
    assert_eq!(capabilities.split_whitespace().nth(1), Some("0000000000000000"), "by TCX, none");
    assert_eq!(
        machine.said("stat", &["--format=%U", &format!("/proc/{pid}")]).trim(),
        "feature-agent"
    );

    // Stopped: the books are in the journal, and each packet in them and in the lines.
    let oracle = traffic(&pair, 51);
    let invocation = machine.property(INSTANCE, "InvocationID");
    machine.run("systemctl", &["stop", INSTANCE]);
    assert_eq!(machine.property(INSTANCE, "Result"), "success");
    assert_eq!(tcx_programs(&pair.near, NEAR_IF), 0);
    let file = machine.path("/var/log/feature-agent/veth-near.jsonl");
    let first = fs::read_to_string(&file).expect("lines");
    let stopped = outcome(&machine, &invocation, &first);
    // Beside the file there is a socket that nobody listened to.
    let mut counts = stopped.reconciliation();
    assert_eq!(counts.lost, counts.written, "{}", stopped.stderr);
    counts.lost = 0;
    assert_conserved(&counts, &stopped.lines());
    assert_eq!(counts.seen, oracle.counts().seen, "{}", stopped.stderr);
    compare(&stopped.lines(), &oracle, Options::default()).unwrap_or_else(|e| panic!("{e}"));

    // Killed: systemd starts it again; what was in vectors is in the file, and no line is cut.
    machine.run("systemctl", &["start", INSTANCE]);
    let before = traffic(&pair, 52).counts().accounted;
    sleep(IN_VECTORS);
    machine.run("systemctl", &["kill", "--signal=KILL", INSTANCE]);
    is_restarted(&machine, &pair, "1");
    // Hung: the watchdog ends it, and it is started again.
    let between = traffic(&pair, 53).counts().accounted;
    sleep(IN_VECTORS);
    machine.run("systemctl", &["kill", "--signal=STOP", INSTANCE]);
    is_restarted(&machine, &pair, "2");
    let journal = machine.journal(&["--unit", INSTANCE]);
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    let after = traffic(&pair, 54).counts().accounted;
    machine.run("systemctl", &["stop", INSTANCE]);
    let all = fs::read_to_string(&file).expect("lines");
    let rest = all.strip_prefix(&first).expect("a file is appended to");
    assert!(rest.ends_with('\n'), "the last line is cut");
    let lines = parse_all(rest.lines()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        packets_in(&lines),
        before + between + after,
        "packets in last lines and in captures"
    );
}

#[test]
fn the_plain_unit_serves_a_socket_and_reads_its_file() {
    const TEST: &str = "the_plain_unit_serves_a_socket_and_reads_its_file";
    let Some(root) = root_or_say(TEST).filter(|_| is_root_or_say(TEST)) else { return };
    let pair = Pair::bare(CABLE_MTU);
    let machine = Machine::boot(&root, &pair.near);
    // Without an interface it fails, and is not tried again.
    let said = machine.said("sh", &["-c", &format!("systemctl start {PLAIN} 2>&1")]);
    assert!(said.contains("failed"), "{said}");
    sleep(Duration::from_millis(500));
    assert_eq!(machine.property(PLAIN, "NRestarts"), "0", "bad arguments do not get better");
    assert!(machine.journal(&["--unit", PLAIN]).contains("no interface is given"));

    machine.write("/etc/feature-agent/config.toml", "iface = \"veth-near\"\n");
    machine.run("systemctl", &["start", PLAIN]);
    is_up(&machine, &pair, PLAIN);
    let socket = machine.path("/run/feature-agent/features.sock");
    let mut consumer = UnixStream::connect(&socket).expect("connected");
    let reading = thread::spawn(move || {
        let mut text = String::new();
        consumer.read_to_string(&mut text).map(|_| text)
    });
    sleep(Duration::from_millis(300));
    let oracle = traffic(&pair, 55);
    // Read again, it goes on with every flow.
    machine.write("/etc/feature-agent/config.toml", "iface = \"veth-near\"\npoll = \"50ms\"\n");
    machine.run("systemctl", &["reload", PLAIN]);
    let reloaded =
        wait_until(PATIENCE, || machine.journal(&["--unit", PLAIN]).contains("poll is now 50ms"));
    assert!(reloaded, "{}", machine.journal(&["--unit", PLAIN]));
    is_up(&machine, &pair, PLAIN);
    let invocation = machine.property(PLAIN, "InvocationID");
    machine.run("systemctl", &["stop", PLAIN]);
    assert!(!socket.exists(), "the socket is left");
    let text = reading.join().expect("a thread").expect("lines");
    let stopped = outcome(&machine, &invocation, &text);
    assert_conserved(&stopped.reconciliation(), &stopped.lines());
    compare(&stopped.lines(), &oracle, Options::default()).unwrap_or_else(|e| panic!("{e}"));

    for unit in [PLAIN, INSTANCE] {
        let report = machine.said("systemd-analyze", &["security", "--no-pager", unit]);
        let level = report
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "))
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("no level for {unit} in:\n{report}"));
        assert!(level <= EXPOSURE, "{unit} is exposed by {level}:\n{report}");
    }
}

/// The file that README.md shows behind some words.
fn documented(words: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let (_, rest) = readme.split_once(&format!("{words}\n\n```\n")).expect(words);
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_plain_unit_pins_as_the_readme_says() {
    const TEST: &str = "the_plain_unit_pins_as_the_readme_says";
    let Some(root) = root_or_say(TEST).filter(|_| is_root_or_say(TEST)) else { return };
    let pair = Pair::bare(CABLE_MTU);
    let machine = Machine::boot(&root, &pair.near);
    let mount = documented("With `/etc/systemd/system/run-pins.mount`");
    machine.write("/etc/systemd/system/run-pins.mount", &mount);
    let drop_in = documented("and by `systemctl edit feature-agent`");
    machine.write("/etc/systemd/system/feature-agent.service.d/override.conf", &drop_in);
    let config = "iface = \"veth-near\"\npin = \"/run/pins/feature-agent\"\n";
    machine.write("/etc/feature-agent/config.toml", config);
    machine.run("systemctl", &["daemon-reload"]);
    for _ in 0..2 {
        machine.run("systemctl", &["start", PLAIN]);
        is_up(&machine, &pair, PLAIN);
        assert_eq!(machine.said("ls", &["/run/pins/feature-agent"]), "flows\nlayout\n");
        machine.run("systemctl", &["stop", PLAIN]);
        assert_eq!(machine.said("ls", &["/run/pins/feature-agent"]), "", "pins are left");
    }
}
