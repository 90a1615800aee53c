//! The example with a model at its end, as a user runs it: from a capture to scores of live traffic.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use feature_agent_tests::{agent::binary, inject::wait_until, sys::is_root_or_say};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// With the installation of Python's packages, the first time.
const PATIENCE: Duration = Duration::from_mins(8);

#[test]
fn scan_and_exfiltration_score_above_normal_traffic() {
    if !is_root_or_say("scan_and_exfiltration_score_above_normal_traffic") {
        return;
    }
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/score/demo.sh");
    let mut demo = Command::new(demo)
        .env("FEATURE_AGENT_BIN", binary())
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start the demo, a script of bash");
    let ended = wait_until(PATIENCE, || demo.try_wait().expect("wait for the demo").is_some());
    if !ended {
        let group = Pid::from_raw(i32::try_from(demo.id()).expect("process id"));
        // It cleans up before it goes.
        killpg(group, Signal::SIGTERM).expect("it runs");
    }
    let status = demo.wait().expect("wait for the demo");
    assert!(ended, "the demo took longer than {PATIENCE:?}");
    assert!(status.success(), "the demo says above what failed: {status}");
}
