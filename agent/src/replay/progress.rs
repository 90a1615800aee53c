//! The line on a terminal that says how far a replay is.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Time between two looks of the line.
const EVERY: Duration = Duration::from_millis(200);

/// Speed so far, and when to show it.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    shown: Instant,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) packets: u64,
    /// Bytes of the files read.
    pub(super) position: u64,
    /// Of so many, if that is known.
    pub(super) total: Option<u64>,
    since: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, shown: now }
    }

    /// Whether the line is old enough for another.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.shown.elapsed() >= EVERY;
        if due {
            self.shown = Instant::now();
        }
        due
    }

    pub(super) fn stand(&self, packets: u64, position: u64, total: Option<u64>) -> Stand {
        Stand { packets, position, total, since: self.begun.elapsed() }
    }
}

/// Cells of the bar.
const WIDTH: usize = 20;

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, position, total, since } = *self;
        let seconds = since.as_secs_f64().max(1e-9);
        let speed = packets as f64 / seconds / 1e6;
        if let Some(total) = total.filter(|&total| total > 0) {
            let share = (position as f64 / total as f64).min(1.0);
            let bar = "█".repeat((share * WIDTH as f64) as usize);
            write!(f, "▕{bar:░<WIDTH$}▏ {:3.0} %, ", share * 100.0)?;
            if share > 0.0 {
                let left = Duration::from_secs_f64((seconds / share - seconds).round());
                write!(f, "{} left, ", humantime::format_duration(left))?;
            }
        }
        write!(f, "{packets} packets, {speed:.1} million a second")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_long() {
        let since = Duration::from_secs(2);
        let stand = Stand { packets: 10_000_000, position: 25, total: Some(100), since };
        assert_eq!(
            stand.to_string(),
            "▕█████░░░░░░░░░░░░░░░▏  25 %, 6s left, 10000000 packets, 5.0 million a second"
        );
        let stand = Stand { total: None, ..stand };
        assert_eq!(stand.to_string(), "10000000 packets, 5.0 million a second");
    }
}
