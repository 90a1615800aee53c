//! The maps that `--pin` pins, as a process in another language reads them: `examples/pinned/windows.py`.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{MetadataExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::{self, sleep},
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, Builder, binary},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    mount::Mounted,
    netns::{FAR_IF, NEAR_IF, Pair},
    privileges::{Copy, NOBODY},
    sys::is_root_or_say,
    traffic::{self, Version},
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What of a line says whose it is.
const KEY: [&str; 7] = ["proto", "src", "sport", "dst", "dport", "vlan", "vlan_inner"];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/pinned").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The example over a folder of pins.
fn reader(folder: &Path, args: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.arg("-B").arg(example("windows.py")).arg(folder).args(args);
    python.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    python
}

fn read(folder: &Path, args: &[&str]) -> Vec<Value> {
    lines_of(&reader(folder, args).output().expect("python3"))
}

fn lines_of(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn key(line: &Value) -> String {
    // A protocol without ports has none in a line, and zeros in a key.
    KEY.map(|name| match &line[name] {
        Value::Null => "0".to_owned(),
        value => value.to_string(),
    })
    .join(" ")
}

/// Panics unless each number of the reader's line is in the agent's, to the last digit but in an entropy.
fn assert_same(read: &Value, line: &Value) {
    for (name, value) in read.as_object().expect("an object") {
        let expected = &line[name];
        if KEY.contains(&name.as_str()) || ["seq", "ifindex"].contains(&name.as_str()) {
            continue;
        }
        match (value.as_f64(), expected.as_f64()) {
            (Some(a), Some(b)) if value.is_f64() => {
                assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{name}: {a} and {b} in {line}");
            }
            _ => assert_eq!(value, expected, "{name} of {read} and {line}"),
        }
    }
}

#[test]
fn the_committed_layout_is_that_of_the_program() {
    let mut layout = Vec::new();
    feature_agent::layout::print(&mut layout).expect("printed");
    let layout = String::from_utf8(layout).expect("UTF-8");
    let path = example("layout.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &layout).expect("written");
    }
    let committed = fs::read_to_string(&path).expect("committed");
    assert!(committed == layout, "{}: UPDATE_GOLDEN=1 writes it anew", path.display());
}

#[test]
fn a_reader_of_the_table_finds_what_the_lines_say() {
    if !is_root_or_say("a_reader_of_the_table_finds_what_the_lines_say") {
        return;
    }
    for window in ["64", "5"] {
        let (pair, pins) = (Pair::bare(CABLE_MTU), Mounted::new("bpf", None));
        let folder = pins.path().join("agent");
        let args = ["--iface", NEAR_IF, "--interval", "100ms", "--poll", "50ms"];
        let more = ["--idle-timeout", "1m", "--window", window, "--pin", text(&folder)];
        let agent = Agent::start(&pair.near, &[&args[..], &more].concat());
        inject::send(&pair.far, FAR_IF, &mixed_frames(41, 5_000), Pace::FullSpeed);
        // Each packet is in a vector once nothing more is said. Flows that are closed may leave the table meanwhile.
        let mut lines = 0;
        wait_until(Duration::from_secs(20), || {
            let before = std::mem::replace(&mut lines, agent.lines_so_far().len());
            sleep(Duration::from_millis(500));
            before == lines
        });
        let entries = read(&folder, &[]);
        assert!(!folder.join("records").exists(), "the agent reads the ring");
        let lines = agent.lines_so_far();
        let lines = lines.iter().map(|line| serde_json::from_str(&line.raw).expect("JSON"));
        let last: HashMap<String, Value> = lines.map(|line: Value| (key(&line), line)).collect();
        let outcome = agent.stop();
        assert!(outcome.status.success(), "{}", outcome.stderr);
        assert!(entries.len() > 50, "{} entries", entries.len());
        assert!(
            entries.iter().any(|entry| entry["win_packets"] == window.parse::<u64>().expect("n"))
        );
        for entry in &entries {
            let line = last.get(&key(entry)).unwrap_or_else(|| panic!("no line for {entry}"));
            assert_eq!(entry["seq"].as_u64(), line["seq"].as_u64().map(|seq| seq + 1), "{line}");
            assert_same(entry, line);
        }
        assert!(!folder.exists(), "the pins are left");
    }
}

#[test]
fn no_entry_is_torn_while_packets_come() {
    if !is_root_or_say("no_entry_is_torn_while_packets_come") {
        return;
    }
    let (pair, pins) = (Pair::new(), Mounted::new("bpf", None));
    let folder = pins.path().join("agent");
    let agent = Agent::start(&pair.near, &["--iface", NEAR_IF, "--pin", text(&folder)]);
    // It looks at each window's packets and their sums, and ends when they disagree.
    let mut watching =
        Running(reader(&folder, &["--every", "0"]).stdout(Stdio::null()).spawn().expect("python3"));
    for _ in 0..5 {
        traffic::udp(&pair, Version::V4, 40_000, 100, false);
        assert!(watching.0.try_wait().expect("a child").is_none(), "{}", watching.stderr());
    }
    drop(watching);
    assert!(agent.stop().status.success());
}

/// A reader that ends with the test.
struct Running(Child);

impl Running {
    fn stderr(&mut self) -> String {
        let stderr = self.0.stderr.take().expect("piped");
        std::io::read_to_string(stderr).expect("UTF-8")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_ring_that_is_left_to_its_reader_reaches_it_whole() {
    if !is_root_or_say("a_ring_that_is_left_to_its_reader_reaches_it_whole") {
        return;
    }
    let (pair, pins) = (Pair::bare(CABLE_MTU), Mounted::new("bpf", None));
    let folder = pins.path().join("agent");
    // A small ring, so that it goes round many times.
    let args = ["--iface", NEAR_IF, "--pin", text(&folder), "--pin-ring", "--ring-size", "64KiB"];
    let agent =
        Agent::start(&pair.near, &[&args[..], &["--stride", "4", "--min-gap", "0s"]].concat());
    let ready = agent.stderr();
    assert!(
        ready.contains(&format!("vectors to the reader of {}/records", folder.display())),
        "{ready}"
    );
    let mut reading = reader(&folder, &["--records"]);
    let reading = thread::spawn(move || reading.output().expect("python3"));
    let frames = mixed_frames(42, 5_000);
    inject::send(&pair.far, FAR_IF, &frames, Pace::Every(Duration::from_micros(200)));
    sleep(Duration::from_millis(300));
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let records = lines_of(&reading.join().expect("a reader that ends"));
    let left =
        outcome.stderr.lines().find_map(|line| line.strip_prefix("vectors: ")).expect("books");
    assert!(left.starts_with(&format!("{} left to the ring's reader", records.len())), "{left}");
    assert_eq!(outcome.stdout, "");
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut packets = 0;
    for record in &records {
        let carried =
            ["fwd_packets", "bwd_packets"].map(|name| record[name].as_u64().expect("a count"));
        let carried = carried.iter().sum::<u64>();
        let before = last
            .insert(key(record), carried)
            .filter(|before| *before <= carried && record["seq"] != 0);
        packets += carried - before.unwrap_or(0);
    }
    let seen = outcome.stderr.lines().find(|line| line.starts_with("seen = ")).expect("books");
    let accounted = seen.rsplit(" = ").next().and_then(|sum| sum.split(" + ").next());
    assert_eq!(Some(packets.to_string().as_str()), accounted, "{seen}");
}

#[test]
fn a_ring_without_a_reader_is_told_at_the_end() {
    if !is_root_or_say("a_ring_without_a_reader_is_told_at_the_end") {
        return;
    }
    let (pair, pins) = (Pair::bare(CABLE_MTU), Mounted::new("bpf", None));
    let folder = pins.path().join("agent");
    let args = ["--iface", NEAR_IF, "--pin", text(&folder), "--pin-ring", "--ring-size", "64KiB"];
    let agent = Agent::start(&pair.near, &args);
    inject::send(&pair.far, FAR_IF, &mixed_frames(43, 5_000), Pace::FullSpeed);
    let outcome = agent.stop();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(
        outcome.stderr.contains("the reader of the ring took nothing for 5s"),
        "{}",
        outcome.stderr
    );
    assert!(!folder.exists(), "the pins are left");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn pins_are_one_agents_and_what_a_killed_one_left_is_replaced() {
    if !is_root_or_say("pins_are_one_agents_and_what_a_killed_one_left_is_replaced") {
        return;
    }
    let (pair, pins) = (Pair::bare(CABLE_MTU), Mounted::new("bpf", None));
    let folder = pins.path().join("agent");
    let args = ["--iface", NEAR_IF, "--pin", text(&folder)];
    let ring = [&args[..], &["--pin-ring"]].concat();
    let first = Agent::start(&pair.near, &ring);
    assert_eq!(names(&folder), ["flows", "layout", "records"]);
    let modes = ["flows", "records"]
        .map(|name| fs::metadata(folder.join(name)).expect("a pin").mode() & 0o777);
    assert_eq!(modes, [0o640, 0o660]);

    let refused = |args: &[&str]| {
        let outcome = Builder::new(&pair.near, args).spawn().wait();
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        outcome.stderr
    };
    let said = refused(&args);
    assert!(said.contains("another agent pins there. Choose a folder"), "{said}");
    assert_eq!(names(&folder), ["flows", "layout", "records"], "the other's are touched");

    first.signal(Signal::SIGKILL);
    first.wait();
    assert_eq!(names(&folder), ["flows", "layout", "records"], "pins outlive their agent");
    let second = Agent::start(&pair.near, &args);
    let said = second.stderr();
    assert!(said.contains("removed flows, records, layout in"), "{said}");
    assert_eq!(names(&folder), ["flows", "layout"]);
    assert_eq!(read(&folder, &[]), [0; 0], "a new table");
    second.signal(Signal::SIGKILL);
    second.wait();

    // A map that is not what its name says, and a link that no agent made.
    fs::remove_file(folder.join("layout")).expect("removed");
    symlink("elsewhere", folder.join("layout")).expect("made");
    let said = refused(&args);
    assert!(said.contains("layout is no agent's. Remove it, or choose another folder"), "{said}");
    assert_eq!(names(&folder), ["flows", "layout"]);
    fs::remove_file(folder.join("layout")).expect("removed");
    fs::rename(folder.join("flows"), folder.join("records")).expect("renamed");
    let said = refused(&args);
    assert!(said.contains("records is no agent's."), "{said}");
    assert_eq!(names(&folder), ["records"]);
}

#[test]
fn a_folder_elsewhere_is_refused_in_a_sentence() {
    if !is_root_or_say("a_folder_elsewhere_is_refused_in_a_sentence") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let refused = |folder: &str| {
        let outcome =
            Builder::new(&pair.near, &["--iface", NEAR_IF, "--pin", folder]).spawn().wait();
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        outcome.stderr
    };
    let said = refused("/tmp/feature-agent-pins");
    assert!(
        said.contains("/tmp is not on a bpf file system. Name a folder below /sys/fs/bpf"),
        "{said}"
    );
    assert!(!Path::new("/tmp/feature-agent-pins").exists());
    let said = refused("/no/such/place");
    assert!(said.contains("cannot look at /no/such: No such file"), "{said}");
}

#[test]
fn other_users_clear_their_pins_away() {
    if !is_root_or_say("other_users_clear_their_pins_away") {
        return;
    }
    let (pair, pins) = (Pair::bare(CABLE_MTU), Mounted::new("bpf", None));
    let folder = pins.path().join("agent");
    let args = ["--iface", NEAR_IF, "--pin", text(&folder)];
    // From root to another.
    let agent = Agent::start(&pair.near, &[&args[..], &["--user", "nobody"]].concat());
    for name in ["", "flows", "layout"] {
        let owner = fs::symlink_metadata(folder.join(name)).expect("there").uid();
        assert_eq!(owner, NOBODY, "{name}");
    }
    assert!(agent.stop().status.success());
    assert!(!folder.exists(), "the pins are left");
    // An ordinary user from the beginning, as the units have it. A folder that was there stays.
    fs::create_dir(&folder).expect("made");
    chown(&folder, Some(NOBODY), Some(NOBODY)).expect("chown");
    let copy = Copy::new(binary(), "pins");
    let agent = copy.with_three_capabilities(&pair.near, &args).start();
    assert_eq!(names(&folder), ["flows", "layout"]);
    assert!(agent.stop().status.success());
    assert_eq!(names(&folder), [""; 0]);
    chown(&folder, Some(0), Some(0)).expect("chown");
    let outcome = copy.with_three_capabilities(&pair.near, &args).spawn().wait();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains("Permission denied"), "{}", outcome.stderr);
    assert!(wait_until(Duration::from_secs(1), || names(&folder).is_empty()));
}
