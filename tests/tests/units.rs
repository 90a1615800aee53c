//! The systemd units, where systemd can judge them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use feature_agent_tests::{agent::binary, mount::Tmpfs, sys::is_root_or_say};

const UNITS: [&str; 2] = ["feature-agent.service", "feature-agent@.service"];
/// The most that `systemd-analyze security` may find exposed, of 10.
const EXPOSURE: f64 = 2.5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn unit(name: &str) -> String {
    fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a program prints, on both outputs, if it is there.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The version of `systemd-analyze`, if it is there and can judge a file on its own.
fn analyze_or_say(test: &str) -> bool {
    let version = said("systemd-analyze", &["--version"]).and_then(|text| {
        text.split_whitespace().nth(1).and_then(|version| version.parse::<u32>().ok())
    });
    // security --offline: systemd 250.
    let can = version.is_some_and(|version| version >= 250);
    if !can {
        eprintln!(
            "{test}: not run, no systemd-analyze of version 250 or later (it is {version:?})"
        );
    }
    can
}

#[test]
fn the_units_expose_little() {
    if !analyze_or_say("the_units_expose_little") {
        return;
    }
    for name in UNITS {
        let path = folder().join(name);
        let path = path.to_str().expect("UTF-8");
        let report =
            said("systemd-analyze", &["security", "--offline=true", path]).expect("it runs");
        let level = report
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for ")?.1.split_once(": "))
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("no level for {name} in:\n{report}"));
        assert!(level <= EXPOSURE, "{name} is exposed by {level}:\n{report}");
    }
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    if !analyze_or_say("systemd_finds_no_fault_in_the_units")
        || !is_root_or_say("systemd_finds_no_fault_in_the_units")
    {
        return;
    }
    // The program and the manual need not be installed here: something else stands in for them.
    let folder = Tmpfs::new(64 << 10);
    for name in UNITS {
        let text = unit(name).replace("/usr/bin/feature-agent", "/bin/true");
        let text = text.replace("Documentation=man:feature-agent(1)\n", "");
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8");
        let report = said("systemd-analyze", &["verify", path]).expect("it runs");
        let ours: Vec<&str> =
            report.lines().filter(|line| line.contains("feature-agent")).collect();
        assert!(ours.is_empty(), "{name}: {ours:#?}");
    }
}

#[test]
fn both_units_are_shut_alike() {
    // Everything of [Service] but what makes an instance.
    let lines = |name| -> BTreeSet<String> {
        let text = unit(name);
        let (_, service) = text.split_once("[Service]\n").expect("a service");
        let differs = ["ExecStart=", "RuntimeDirectory="];
        let lines = service.lines().filter(|line| !differs.iter().any(|d| line.starts_with(d)));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(UNITS[0]), lines(UNITS[1]));
}

/// The number before a word.
fn before(text: &str, word: &str) -> f64 {
    let (number, _) = text.split_once(word).unwrap_or_else(|| panic!("no {word} in {text}"));
    let number = number.split_whitespace().next_back().expect("a number").replace(',', "");
    number.parse().unwrap_or_else(|error| panic!("{number}: {error}"))
}

#[test]
fn the_memory_limit_fits_the_flows_that_the_units_name() {
    for name in UNITS {
        let text = unit(name);
        let flows = before(&text, " flows. Sinks' queues");
        let (_, limit) = text.split_once("\nMemoryMax=").expect("a limit");
        let limit: f64 = limit.split('M').next().and_then(|n| n.parse().ok()).expect("in MiB");
        let flows = format!("{flows}");
        let args = ["config", "--config", "/dev/null", "--iface", "lo", "--max-flows", &flows];
        let config = said(&binary().display().to_string(), &args).expect("it runs");
        let taken = before(&config, " MiB of kernel memory");
        // The agent itself, and two full queues of 8,192 vectors of 1.6 kB.
        let rest = 25.0 + 2.0 * 13.2;
        assert!(taken > 300.0 && taken + rest <= limit, "{taken} MiB and {rest} of {limit}");
    }
}
