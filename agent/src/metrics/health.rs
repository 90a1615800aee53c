//! Whether the agent does its work, in one sentence.

use std::time::{Duration, Instant};

use super::snapshot::Snapshot;

/// A sweep may be late by so many polls, and never by less than a few seconds: a busy host is not ill.
const LATE_POLLS: u32 = 10;
const LATE_AT_LEAST: Duration = Duration::from_secs(5);

/// The good news, or what is wrong.
pub(super) fn health(latest: Option<&Snapshot>, now: Instant) -> Result<String, String> {
    let Some(Snapshot { swept, poll, interfaces, calls, .. }) = latest else {
        return Err("starting: no sweep has run yet".into());
    };
    let ago = now.saturating_duration_since(*swept);
    if ago > (*poll * LATE_POLLS).max(LATE_AT_LEAST) {
        return Err(format!("the last sweep was {:.1} s ago: the agent hangs", ago.as_secs_f64()));
    }
    let names = |attached: bool| {
        let named = interfaces.iter().filter(|(_, is)| *is == attached);
        let calls = (attached && calls.is_some()).then_some("calls on sockets");
        named.map(|(name, _)| name.as_str()).chain(calls).collect::<Vec<_>>().join(", ")
    };
    let (watched, missing) = (names(true), names(false));
    match (watched.is_empty(), missing.is_empty()) {
        (true, _) => Err(format!("nothing is watched: waiting for {missing}")),
        (false, true) => Ok(format!("watching {watched}")),
        (false, false) => Ok(format!("watching {watched}; waiting for {missing}")),
    }
}
