//! The tests that the guests run, linked statically, with the agent beside them.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{apt::numbers, programs::Made};

/// Of a test program of `tests/tests/`, the tests with one of these in their names.
///
/// Every hook, both ways to attach, what detaches, the books, and parity. An emulated processor takes several seconds to
/// verify the kernel program once: what loads it often, or sends for long, is not here.
const SELECTION: [(&str, &[&str]); 10] = [
    ("doctor", &["the_doctor_is_right", "a_user_without_permission"]),
    (
        "attachment",
        &[
            "kill_leaves_nothing",
            "the_next_start_on_clsact",
            "other_programs_still_run",
            "an_interface_that_goes",
            "tags_out_of_band",
        ],
    ),
    ("kernel", &["every_fixture_gives"]),
    ("emission", &["a_full_ring_delays", "a_full_table_counts"]),
    ("parity", &["a_short_capture"]),
    ("tunnels", &["the_kernel_finds"]),
    ("injected", &["only_one_direction"]),
    (
        "live",
        &[
            "tcp_request_response",
            "udp_small_and_large",
            "icmp_echo",
            "a_loopback_interface",
            "both_processors",
        ],
    ),
    (
        "socket",
        &[
            "calls_are_counted_by_fentry",
            "calls_are_counted_by_kprobe",
            "both_hooks_tell_of_the_same_flows",
        ],
    ),
    (
        "process",
        &[
            "each_end_knows",
            "a_process_that_has_ended",
            "who_accepts",
            "what_is_only_passed_on",
            "a_connection_from_before",
        ],
    ),
];

/// What there is to see on a kernel before [`OLDEST`]: how the agent refuses it.
const ON_OLD: [(&str, &[&str]); 1] = [("doctor", &["an_old_kernel_is_refused"])];

/// The oldest kernel that the agent runs on.
const OLDEST: [u32; 2] = [5, 15];

/// Test programs, and what is run of each.
type Selection = &'static [(&'static str, &'static [&'static str])];

/// What is run on a kernel of this version.
fn selection(kernel: &str) -> Selection {
    if numbers(kernel) < OLDEST.to_vec() { &ON_OLD } else { &SELECTION }
}

/// The programs, built.
#[derive(Debug)]
pub(super) struct Suite {
    agent: PathBuf,
    /// Name and path of each of the selection.
    tests: Vec<(&'static str, PathBuf)>,
}

/// What a guest's tests came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    selection: Selection,
    /// When each program began, counted from power on, and how many of its tests passed; in order.
    programs: Vec<(Duration, u32)>,
    failed: u32,
    /// Lines in which tests say why they are not run.
    pub(super) skipped: Vec<String>,
}

impl Suite {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        let names = SELECTION.map(|(name, _)| name);
        let targets: Vec<&str> = names.iter().flat_map(|name| ["--test", name]).collect();
        let made = Made::build(&targets)?;
        let tests = names.iter().map(|&name| Ok((name, made.find(name)?)));
        Ok(Self { agent: made.find("feature-agent")?, tests: tests.collect::<Result<_>>()? })
    }

    /// What goes into a guest, by its path there.
    pub(super) fn files(&self) -> Vec<(String, &Path)> {
        let tests = self.tests.iter().map(|(name, path)| (format!("tests/{name}"), &**path));
        std::iter::once(("bin/feature-agent".to_owned(), &*self.agent)).chain(tests).collect()
    }

    /// The guest's script; `filter` goes to every program in place of the selection.
    pub(super) fn script(kernel: &str, filter: &[String]) -> String {
        let mut script = format!(
            "#!/bin/sh\n\
             export FEATURE_AGENT_BIN=/bin/feature-agent FEATURE_AGENT_KERNEL={kernel} RUST_BACKTRACE=1\n\
             export RUSTC_BOOTSTRAP=1\n\
             cd /tests\nfailed=0\n"
        );
        for (name, selected) in selection(kernel) {
            let words: Vec<String> = if filter.is_empty() {
                selected.iter().map(|&word| word.to_owned()).collect()
            } else {
                filter.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect()
            };
            // A String takes every write.
            let _ = writeln!(
                script,
                "echo '{PROGRAM}{name}'; ./{name} --nocapture --test-threads 2 {TIMES} {} || failed=1",
                words.join(" ")
            );
        }
        script.push_str("exit $failed\n");
        script
    }
}

/// Has the harness tell how long each test takes: a flag of an unstable one, hence `RUSTC_BOOTSTRAP`.
const TIMES: &str = "-Z unstable-options --report-time";
/// How the script announces a program.
const PROGRAM: &str = "program: ";

impl Tally {
    /// Of no test yet, on a kernel of this version.
    pub(super) fn new(kernel: &str) -> Self {
        Self { selection: selection(kernel), programs: Vec::new(), failed: 0, skipped: Vec::new() }
    }

    /// Takes in a line of a guest's, and when it came.
    pub(super) fn line(&mut self, at: Duration, line: &str) {
        if line.starts_with(PROGRAM) {
            self.programs.push((at, 0));
        } else if line.contains(": not run, ") {
            self.skipped.push(line.to_owned());
        } else if let Some((passed, failed)) = result(line) {
            if let Some((_, sum)) = self.programs.last_mut() {
                *sum += passed;
            }
            self.failed += failed;
        }
    }

    /// How many passed; an error unless all that was selected ran and passed.
    pub(super) fn check(&self, code: i32, filtered: bool) -> Result<u32> {
        let passed = self.programs.iter().map(|(_, passed)| passed).sum();
        if code != 0 || self.failed > 0 {
            bail!("{} tests failed (exit code {code})", self.failed);
        }
        let (ran, wanted) = (self.programs.len(), self.selection.len());
        if ran != wanted {
            bail!("only {ran} of {wanted} test programs ran");
        }
        for ((name, selected), &(_, ran)) in self.selection.iter().zip(&self.programs) {
            // A test that was renamed would be left out in silence.
            if !filtered && (ran as usize) < selected.len().max(1) {
                bail!(
                    "of `{name}` only {ran} tests ran: has one of {selected:?} another name now?"
                );
            }
        }
        if passed == 0 {
            bail!("no test has such a name");
        }
        Ok(passed)
    }

    /// How many seconds each program took of a guest that was there for so long; first the boot.
    pub(super) fn times(&self, took: Duration) -> String {
        let names = ["boot"].into_iter().chain(self.selection.iter().map(|(name, _)| *name));
        let begins = [Duration::ZERO].into_iter().chain(self.programs.iter().map(|(at, _)| *at));
        let ends = self.programs.iter().map(|(at, _)| *at).chain([took]);
        let times = names.zip(begins.zip(ends));
        let times = times
            .map(|(name, (begin, end))| format!("{name} {}", end.saturating_sub(begin).as_secs()));
        times.collect::<Vec<_>>().join(", ")
    }
}

/// Passed and failed of `test result: ok. 5 passed; 0 failed; …`.
fn result(line: &str) -> Option<(u32, u32)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ").map(|count| count.split(' ').next()?.parse().ok());
    Some((counts.next()??, counts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(results: impl Fn(&str, usize) -> String) -> Tally {
        let mut tally = Tally::new("6.1.192");
        for (name, selected) in SELECTION {
            tally.line(Duration::ZERO, &format!("{PROGRAM}{name}"));
            tally.line(Duration::ZERO, &results(name, selected.len().max(1)));
        }
        tally
    }

    #[test]
    fn all_that_is_selected_must_run_and_pass() {
        let ok = |passed: usize| format!("test result: ok. {passed} passed; 0 failed; 0 ignored");
        let all = tally(|_, count| ok(count));
        assert!(all.check(0, false).is_ok_and(|passed| passed > 10));
        assert!(all.check(1, false).is_err());
        let renamed = tally(|name, count| ok(if name == "live" { count - 1 } else { count }));
        assert!(renamed.check(0, false).is_err());
        assert!(renamed.check(0, true).is_ok());
        let failed = tally(|_, count| format!("test result: FAILED. {count} passed; 1 failed; 0"));
        assert!(failed.check(0, false).is_err());
        let nothing = tally(|_, _| ok(0));
        assert!(nothing.check(0, true).is_err());
        assert!(Tally::new("6.1.192").check(0, true).is_err());
    }

    #[test]
    fn on_an_old_kernel_the_refusal_is_all_there_is_to_see() {
        assert_eq!(selection("5.10.262").len(), 1);
        assert_eq!(selection("5.15.0").len(), SELECTION.len());
        assert!(!Suite::script("5.10.262", &[]).contains("live"));
    }

    #[test]
    fn it_is_told_how_long_each_program_took() {
        let mut tally = Tally::new("5.10.262");
        tally.line(Duration::from_secs(7), &format!("{PROGRAM}doctor"));
        assert_eq!(tally.times(Duration::from_secs(30)), "boot 7, doctor 23");
    }

    #[test]
    fn what_is_not_run_is_kept() {
        let mut tally = Tally::new("6.1.192");
        tally.line(Duration::ZERO, "by_tcx: not run, this kernel (6.1) is older than TCX (6.6)");
        assert_eq!(tally.skipped.len(), 1);
    }
}
