//! Log messages: to standard error, one line each.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry, filter::Targets, fmt, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{cli::Verbosity, status};

/// The crate whose messages the kernel program sends.
const KERNEL_PROGRAM: &str = "agent_ebpf";

/// By which the levels are changed.
static LEVELS: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Changes how much is said.
pub fn change(verbosity: Verbosity) {
    if let Some(levels) = LEVELS.get() {
        // It fails only when logging has ended.
        let _ = levels.reload(targets(verbosity));
    }
}

/// Starts logging, once per process.
pub fn init(verbosity: Verbosity) {
    let layer = fmt::layer()
        .with_writer(stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .compact();
    let (levels, handle) = reload::Layer::new(targets(verbosity));
    let registry = tracing_subscriber::registry().with(levels);
    // Whoever comes second finds a logger there, and `init` says so.
    let _ = LEVELS.set(handle);
    // The journal notes the time itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        registry.with(layer.without_time()).init();
    } else {
        registry.with(layer).init();
    }
}

fn targets(verbosity: Verbosity) -> Targets {
    let Verbosity { verbose, quiet } = verbosity;
    let (ours, kernel, others) = match (quiet, verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF, LevelFilter::ERROR),
        (false, 0) => (LevelFilter::INFO, LevelFilter::OFF, LevelFilter::WARN),
        (false, 1) => (LevelFilter::DEBUG, LevelFilter::OFF, LevelFilter::WARN),
        (false, _) => (LevelFilter::TRACE, LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new()
        .with_default(others)
        .with_target(env!("CARGO_CRATE_NAME"), ours)
        .with_target(KERNEL_PROGRAM, kernel)
        // What goes wrong there is told by whom it concerns.
        .with_targets(
            ["async_nats", "librdkafka", "rdkafka"]
                .map(|library| (library, if verbose >= 2 { others } else { LevelFilter::OFF })),
        )
}

/// Where a message is written: where the status line stood, if one did.
fn stderr() -> io::Stderr {
    status::clear();
    io::stderr()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn enabled(verbose: u8, quiet: bool, target: &str, level: Level) -> bool {
        targets(Verbosity { verbose, quiet }).would_enable(target, &level)
    }

    #[test]
    fn verbosity_sets_the_levels() {
        let ours = "feature_agent::daemon";
        assert!(enabled(0, false, ours, Level::INFO) && !enabled(0, false, ours, Level::DEBUG));
        assert!(enabled(1, false, ours, Level::DEBUG));
        assert!(enabled(0, true, ours, Level::ERROR) && !enabled(0, true, ours, Level::WARN));
        assert!(!enabled(1, false, KERNEL_PROGRAM, Level::WARN));
        assert!(enabled(2, false, KERNEL_PROGRAM, Level::DEBUG));
        assert!(!enabled(1, false, "mio::poll", Level::INFO));
        assert!(!enabled(1, false, "async_nats::connector", Level::ERROR));
        assert!(enabled(2, false, "async_nats::connector", Level::DEBUG));
    }
}
