//! Which packets of a capture tcpdump selects.

use std::{
    collections::BTreeSet,
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use crate::pcap;

/// The times, in ns, of the packets that match a filter expression.
pub fn selected(capture: &Path, expression: &str) -> BTreeSet<u64> {
    let file = File::open(capture).unwrap_or_else(|e| panic!("{}: {e}", capture.display()));
    // By standard input and output: as root it would give up the right to files before it opens them.
    let mut command = Command::new("tcpdump");
    command.args(["--time-stamp-precision=nano", "-n", "-r", "-", "-w", "-", expression]);
    let output = command.stdin(Stdio::from(file)).output().expect("start tcpdump");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tcpdump '{expression}': {said}");
    pcap::frames(&output.stdout[..]).iter().map(|frame| frame.time_ns).collect()
}
