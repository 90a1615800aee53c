//! Consumers that are slow, die and come back, and disks that are full: every vector arrives, or is counted and
//! told about.

#[cfg(feature = "arrow")]
mod columns;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod queue;
mod sockets;
mod streams;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use agent_common::record::{Reason, Record};
use bytemuck::Zeroable as _;

use super::*;
use crate::line::{Context, LineWriter, Shape};

const PATIENCE: Duration = Duration::from_secs(5);

/// A record whose number is its `seq`.
pub(super) fn numbered(number: u64) -> Record {
    let mut record = Record::zeroed();
    record.key.version = 4;
    record.reason = Reason::Stop as u32;
    record.sums.lengths[0].packets = 1;
    record.summary.seq = number as u32;
    record
}

/// Pushes numbered vectors, as the main loop does.
fn push(outputs: &mut Outputs, numbers: std::ops::Range<u64>) {
    for number in numbers {
        outputs.push(&numbered(number), &Context::new("eth0", 0));
        if outputs.pending() == BATCH {
            outputs.flush();
        }
    }
    outputs.flush();
}

/// As the main loop, which waits when it is asked to.
async fn push_patiently(outputs: &mut Outputs, numbers: std::ops::Range<u64>) {
    for number in numbers {
        outputs.room().await;
        push(outputs, number..number + 1);
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The numbers of the lines, and what each says was lost before it.
fn numbers(text: &str) -> Vec<(u64, u64)> {
    let number = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let int = |name: &str| line[name].as_u64().expect("an integer");
        (int("seq"), int("lost"))
    };
    text.lines().map(number).collect()
}

/// Checks that every number below `made` was received, or told as lost before the next; returns how many were lost
/// behind the last.
fn assert_adds_up(received: &[(u64, u64)], made: u64) -> u64 {
    let mut next = 0;
    for (number, lost) in received {
        assert_eq!(*number, next + lost, "of {received:?}");
        next = number + 1;
    }
    assert!(next <= made);
    made - next
}

/// The totals of the only output.
fn totals(outputs: &Outputs) -> Totals {
    outputs.totals().next().expect("an output").1
}

fn end(outputs: &mut Outputs, patience: Duration) -> Vec<SinkReport> {
    run(outputs.finish(patience));
    outputs.reports()
}

fn plan(targets: &[&str]) -> Plan {
    let target = |text: &&str| text.parse().expect("a target");
    Plan { targets: targets.iter().map(target).collect(), ..Plan::default() }
}

/// A folder of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("feature-agent-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("UTF-8");
        let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
