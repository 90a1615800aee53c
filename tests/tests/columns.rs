//! Files of columns: every value is that of the line, live and of a capture; and a file is whole whatever happens to
//! the agent or the disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, Outcome, binary},
    columns::{Seen, assert_same, count, tables},
    consumers::output_counts,
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::{Line, PROCESS, parse_all},
    mount::Tmpfs,
    netns::{FAR_IF, NEAR_IF, Pair},
    pcap::{self, Temporary},
    random::Random,
    sys::is_root_or_say,
};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(20);

/// Speaks much.
const TALKATIVE: [&str; 4] = ["--stride", "1", "--min-gap", "0ms"];

/// A folder that goes with its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fat-{}-{name}", std::process::id()));
        let _stale = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// The arguments of outputs to lines and to columns, in a folder.
fn outputs(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    ["", "arrow:", "parquet:"]
        .iter()
        .flat_map(|kind| {
            let ending = if kind.is_empty() { "jsonl" } else { kind.trim_end_matches(':') };
            ["--output".to_owned(), format!("{kind}{folder}/x.{ending}")]
        })
        .collect()
}

fn lines(folder: &Path) -> Vec<Line> {
    let text = fs::read_to_string(folder.join("x.jsonl")).expect("lines");
    parse_all(text.lines()).expect("lines")
}

/// The folder's files of this ending, in order of their names.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("it").path());
    let mut files: Vec<_> =
        entries.filter(|p| p.extension().is_some_and(|e| e == ending)).collect();
    files.sort();
    files
}

fn assert_columns_are_lines(folder: &Path, seen: &mut Seen) -> usize {
    let lines = lines(folder);
    for format in ["arrow", "parquet"] {
        assert_same(&tables(&folder.join(format!("x.{format}"))), &lines, seen);
    }
    lines.len()
}

#[test]
fn every_value_of_a_replay_is_that_of_the_line() {
    let scratch = Scratch::new("replay");
    let mut random = Random::new(77);
    let mut now_ns = 1_700_000_000_123_456_789_u64;
    let mut packets: Vec<(u64, Vec<u8>)> = Vec::new();
    for frame in mixed_frames(77, 6_000) {
        now_ns += random.below(3_000_000);
        packets.push((now_ns, frame));
    }
    let capture = Temporary::new("columns", &pcap::file_of(&packets));
    let replay = Command::new(binary())
        .arg("replay")
        .arg(capture.path())
        .args(TALKATIVE)
        .args(outputs(&scratch.0))
        .output()
        .expect("start the program");
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let mut seen = Seen::new();
    let count = assert_columns_are_lines(&scratch.0, &mut seen);
    assert!(count > 3_000, "only {count} lines");
    assert_eq!(seen.len(), agent_common::features::fields().count());
    for field in agent_common::features::fields() {
        let [values, nulls] = seen[field.name];
        // What only a host tells: its processes, and flows without an interface.
        let (is_process, is_iface) = (PROCESS.contains(&field.name), field.name == "iface");
        assert_eq!(values > 0, !is_process, "{}: {values} values", field.name);
        let has_nulls = !field.null.is_empty() && !is_iface;
        assert_eq!(nulls > 0, has_nulls, "{}: {nulls} nulls", field.name);
    }
}

fn start(pair: &Pair, args: &[String]) -> Agent {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Agent::start(&pair.near, &[&["--iface", NEAR_IF], &TALKATIVE[..], &args].concat())
}

fn send(pair: &Pair, seed: u64, count: usize) {
    inject::send(&pair.far, FAR_IF, &mixed_frames(seed, count), Pace::FullSpeed);
}

fn assert_ended_well(outcome: &Outcome) {
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
}

#[test]
fn a_live_agent_finishes_its_files_when_it_is_told_to_end_or_to_reopen() {
    if !is_root_or_say("a_live_agent_finishes_its_files_when_it_is_told_to_end_or_to_reopen") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let scratch = Scratch::new("live");
    let agent = start(&pair, &outputs(&scratch.0));
    send(&pair, 51, 3_000);
    let parquet = scratch.0.join("x.parquet");
    assert!(!parquet.exists(), "it has its name and no end");
    let reopened = wait_until(PATIENCE, || {
        agent.signal(Signal::SIGHUP);
        sleep(Duration::from_millis(100));
        parquet.exists() && scratch.0.join("x.arrow").exists()
    });
    assert!(reopened, "{}", agent.stderr());
    send(&pair, 52, 3_000);
    assert_ended_well(&agent.stop());
    let lines = lines(&scratch.0);
    for format in ["arrow", "parquet"] {
        let files = files(&scratch.0, format);
        assert!(files.len() >= 2, "{files:?}");
        // Those with a date come before the last, `x-…` before `x.`.
        let tables: Vec<_> = files.iter().flat_map(|file| tables(file)).collect();
        assert_same(&tables, &lines, &mut Seen::new());
    }
    assert!(files(&scratch.0, "partial").is_empty());
}

#[test]
fn a_killed_agent_loses_at_most_the_open_row_group() {
    if !is_root_or_say("a_killed_agent_loses_at_most_the_open_row_group") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let scratch = Scratch::new("killed");
    let agent = start(&pair, &outputs(&scratch.0));
    let partial = |format: &str| scratch.0.join(format!("x.{format}.partial"));
    let size = |format: &str| fs::metadata(partial(format)).map_or(0, |file| file.len());
    let mut seed = 60;
    let grown = wait_until(PATIENCE, || {
        seed += 1;
        send(&pair, seed, 3_000);
        sleep(Duration::from_millis(300));
        size("arrow") > 1_000_000 && size("parquet") > 100_000
    });
    assert!(grown, "no row group was written: {}", agent.stderr());
    // The footer follows the row group.
    let noted = wait_until(PATIENCE, || scratch.0.join("x.parquet.partial.footer").exists());
    assert!(noted);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let first = lines(&scratch.0);
    fs::remove_file(scratch.0.join("x.jsonl")).expect("it is there");

    // The next agent completes what is there.
    let agent = start(&pair, &outputs(&scratch.0));
    assert!(agent.stderr().contains("was left behind"), "{}", agent.stderr());
    send(&pair, 99, 500);
    assert_ended_well(&agent.stop());
    assert_columns_are_lines(&scratch.0, &mut Seen::new());
    for format in ["arrow", "parquet"] {
        let files = files(&scratch.0, format);
        let [recovered, _] = &files[..] else { panic!("{files:?}") };
        let tables = tables(recovered);
        let rows = count(&tables);
        assert!(rows >= 8_192, "{rows} rows in {format}");
        // The lines may have come a little less far than the rows, or farther.
        let known = rows.min(first.len());
        let mut whole = 0;
        let tables: Vec<_> = tables
            .into_iter()
            .map(|table| {
                let begin = whole;
                whole = (begin + table.num_rows()).min(known);
                table.slice(0, whole - begin)
            })
            .collect();
        assert_same(&tables, &first[..known], &mut Seen::new());
    }
}

#[test]
fn a_full_disk_delays_a_file_of_columns_and_loses_nothing() {
    if !is_root_or_say("a_full_disk_delays_a_file_of_columns_and_loses_nothing") {
        return;
    }
    for format in ["arrow", "parquet"] {
        let pair = Pair::bare(CABLE_MTU);
        let disk = Tmpfs::new(24 << 20);
        let ballast = disk.path().join("ballast");
        fs::write(&ballast, vec![0; (24 << 20) - (200 << 10)]).expect("ballast");
        let output = format!("{format}:{}/x.{format}", disk.path().display());
        let args = ["--output", "-", "--output", &output, "--queue", "200000"];
        let agent = start(&pair, &args.map(str::to_owned));
        let mut seed = 70;
        let full = wait_until(PATIENCE, || {
            seed += 1;
            send(&pair, seed, 3_000);
            sleep(Duration::from_millis(300));
            agent.stderr().contains("No space left")
        });
        assert!(full, "{}", agent.stderr());
        fs::remove_file(&ballast).expect("room is made");
        assert!(wait_until(PATIENCE, || agent.stderr().contains("works again")));
        let outcome = agent.stop();
        assert_ended_well(&outcome);
        let counts = output_counts(&outcome, &output);
        let lines = outcome.lines();
        assert_eq!((counts.sent, counts.dropped), (lines.len() as u64, 0));
        assert!(counts.errors > 0);
        assert_same(&tables(&disk.path().join(format!("x.{format}"))), &lines, &mut Seen::new());
    }
}
