//! `feature-agent replay`: from capture files to the lines that the agent would have written live.
//!
//! Packets come from [`Captures`], go through the [`Engine`], and its records become lines as the kernel's do.
//! One thread does all of it and waits for the output: a capture does not run away.

mod engine;
mod fragments;
mod pages;
mod progress;
mod resegment;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use agent_common::record::Record;
use anyhow::{Context as _, Error, Result, bail};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use tracing::{error, warn};

pub use self::engine::Engine;
use self::progress::Progress;
use crate::{
    capture::{Captures, link_type_name},
    line::Context,
    report::Report,
    settings::ReplaySettings,
    sink::{Blocking, Ending, SinkError, Target},
    status::{self, Status},
};

/// Packets looked at before the first of them is taken: what is known of them fits into the first cache.
const BATCH: usize = 64;

/// Records that gather before they become lines: what makes lines of them has to come into the cache for all of these but
/// once.
const HELD: usize = 64;

/// Batches between two looks at the clock.
const TURN: u64 = 1 << 10;

/// Replays the captures, until they or the output end.
///
/// # Errors
///
/// A file cannot be read to its end (all that was read before is written), the output takes no more, or a signal
/// came.
pub fn run(settings: &ReplaySettings, quiet: bool) -> Result<()> {
    let mut captures = Captures::open(&settings.files, &settings.interface)?;
    let mut out = Blocking::start(&settings.outputs)?;
    let interrupted = interruption()?;
    let mut engine = Engine::new(&settings.flows, settings.resegment);
    let mut status = Status::new(quiet, settings.outputs.targets.contains(&Target::Stdout));
    let mut progress = Progress::new();
    let mut unknown: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut packets, mut batches, mut broken) = (0_u64, 0_u64, 0);
    // Who feeds a pipe packet by packet wants lines as they come.
    let hold = captures.total().is_some();
    let enough = if hold { HELD } else { 1 };

    let mut open = true;
    while open && !interrupted.load(Ordering::Relaxed) {
        match captures.next_batch(BATCH) {
            None => break,
            Some(Err(fault)) => {
                status::clear();
                error!("{fault}");
                broken += 1;
            }
            Some(Ok(batch)) => {
                batches += 1;
                packets += batch.len() as u64;
                let not_ip = engine.counters().not_ip;
                engine.batch(batch.clone());
                // What is of an unknown type is among them.
                if engine.counters().not_ip > not_ip {
                    for packet in batch.filter(|packet| packet.link.is_none()) {
                        *unknown.entry(packet.link_type).or_default() += 1;
                    }
                }
            }
        }
        if engine.records().len() >= enough {
            status.vectors_come();
            open = write(&mut out, engine.records(), &captures, hold)?;
        }
        if batches % TURN == 0 && status.wanted() && progress.is_due() {
            let stand = progress.stand(packets, captures.position(), captures.total());
            status.show(&stand, out.sent());
        }
    }
    status::clear();
    engine.stop();
    if open {
        write(&mut out, engine.records(), &captures, true)?;
    }
    let taken = out.taken();
    let outputs = out.finish();
    for (link_type, packets) in unknown {
        let name = link_type_name(link_type);
        warn!(
            "link type {link_type} ({name}) is not looked into: {packets} packets count as not IP"
        );
    }
    if !quiet {
        let totals = outputs.iter().map(|end| (end.name.clone(), end.totals)).collect();
        let report = Report {
            hook: crate::settings::HookChoice::Tc,
            calls: None,
            counters: *engine.counters(),
            taken,
            ring_is_left: false,
            outputs: totals,
        };
        // Nobody may be listening.
        let _ = io::stderr().write_all(report.to_string().as_bytes());
    }
    for end in outputs {
        if let Ending::Failed(error) = end.ending {
            return Err(cannot_write(error.context(end.name)));
        }
    }
    if interrupted.load(Ordering::Relaxed) {
        bail!("stopped by a signal after {packets} packets; the lines are complete up to there");
    }
    match broken {
        0 => Ok(()),
        1 => {
            bail!("a capture could not be read to its end, see above; all lines before are written")
        }
        _ => bail!("{broken} captures could not be read to their ends, see above"),
    }
}

/// Set by SIGINT or SIGTERM; a second one ends the program at once.
fn interruption() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(&interrupted)))
            .context("cannot wait for signals")?;
    }
    Ok(interrupted)
}

/// Lets records out; unless few may be held back, at once. False: nobody reads any more.
fn write(
    out: &mut Blocking,
    records: &mut Vec<Record>,
    captures: &Captures,
    hold: bool,
) -> Result<bool> {
    let all = records.iter().try_for_each(|record| {
        let iface = captures.interface_name(record.key.ifindex);
        out.write(record, &Context::new(iface, 0))
    });
    records.clear();
    match if hold { all } else { all.and_then(|()| out.flush()) } {
        Ok(()) => Ok(true),
        Err(SinkError::Closed) => Ok(false),
        Err(SinkError::Failed(error)) => Err(cannot_write(error)),
    }
}

fn cannot_write(error: Error) -> Error {
    error.context("cannot write all of the vectors")
}
