//! A line on a terminal that shows life while the network is silent.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether the line stands on the terminal now; log messages take it away first.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Back to the line's begin, and erase it.
const ERASE: &[u8] = b"\r\x1b[K";

/// What the line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Packets seen.
    pub packets: u64,
    /// Flows in the table.
    pub flows: u64,
    /// Vectors written.
    pub vectors: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, flows, vectors } = self;
        write!(f, "{packets} packets, {flows} flows, {vectors} vectors")
    }
}

/// When the line may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Standard error is no terminal, or is to be silent.
    Never,
    /// Vectors go to the same terminal: until the first comes.
    UntilVectors,
    /// Vectors go elsewhere.
    Always,
}

impl Status {
    /// The rule for this process; `output_is_stdout` says whether vectors go to standard output.
    pub fn new(quiet: bool, output_is_stdout: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            Self::Never
        } else if output_is_stdout && io::stdout().is_terminal() {
            Self::UntilVectors
        } else {
            Self::Always
        }
    }

    /// Whether there is anything to show now.
    pub fn wanted(self) -> bool {
        self != Self::Never
    }

    /// Shows a line, until there are vectors where they go to the same terminal.
    pub fn show(self, progress: &dyn fmt::Display, vectors: u64) {
        if self == Self::Never || (self == Self::UntilVectors && vectors > 0) {
            return;
        }
        SHOWN.store(true, Ordering::Relaxed);
        // The cursor goes back to the begin: whatever another program writes there covers the line.
        say(format!("\r{progress}\x1b[K\r").as_bytes());
    }

    /// Vectors are about to be written.
    pub fn vectors_come(&mut self) {
        if *self == Self::UntilVectors {
            clear();
            *self = Self::Never;
        }
    }
}

/// Takes the line away, if it stands there.
pub fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        say(ERASE);
    }
}

/// Standard error may be closed: nothing can be said about that.
fn say(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_on_the_same_terminal_end_the_line() {
        let mut status = Status::UntilVectors;
        status.vectors_come();
        assert_eq!(status, Status::Never);
        let mut status = Status::Always;
        status.vectors_come();
        assert_eq!(status, Status::Always);
    }

    #[test]
    fn quiet_is_quiet() {
        assert_eq!(Status::new(true, true), Status::Never);
    }

    #[test]
    fn progress_reads_well() {
        let progress = Progress { packets: 10, flows: 2, vectors: 3 };
        assert_eq!(progress.to_string(), "10 packets, 2 flows, 3 vectors");
    }
}
