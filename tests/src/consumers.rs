//! What one of several consumers got, against everything there was.

use crate::{agent::Outcome, lines::Line};

/// What the agent says at exit about one of several outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputCounts {
    /// Vectors that got out.
    pub sent: u64,
    /// Vectors that were given up.
    pub dropped: u64,
    /// Errors.
    pub errors: u64,
}

/// The counts of the output of this name.
pub fn output_counts(outcome: &Outcome, name: &str) -> OutputCounts {
    let prefix = format!("output {name}: ");
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix(&prefix));
    let line = line.unwrap_or_else(|| panic!("no line {prefix:?} in:\n{}", outcome.stderr));
    let mut counts = OutputCounts::default();
    for part in line.split(", ") {
        let (count, what) = part.split_once(' ').expect("a count and a word");
        let count = count.parse().expect("a count");
        match what {
            "sent" => counts.sent = count,
            "dropped" => counts.dropped = count,
            "errors" => counts.errors = count,
            _ => {}
        }
    }
    counts
}

/// What a consumer did not get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missed {
    /// Told by `lost` of its lines.
    pub told: u64,
    /// Behind its last line.
    pub behind: u64,
}

/// Checks that a consumer's lines are those of `all` in order, each telling by `lost` how many were left out before
/// it, and equal but for that.
pub fn assert_part_of(part: &[Line], all: &[Line]) -> Missed {
    let mut missed = Missed::default();
    let mut next = 0;
    for line in part {
        let lost = line.int("lost");
        let at = next + usize::try_from(lost).expect("small");
        let expected = all.get(at).unwrap_or_else(|| panic!("no line {at} for {}", line.raw));
        assert_eq!(without_lost(line), without_lost(expected), "line {at}, {lost} of them lost");
        missed.told += lost;
        next = at + 1;
    }
    missed.behind = (all.len() - next) as u64;
    missed
}

fn without_lost(line: &Line) -> String {
    let (before, behind) = line.raw.split_once("\"lost\":").expect("the field");
    format!("{before}{}", behind.trim_start_matches(|c: char| c.is_ascii_digit()))
}
