//! `feature-agent replay`: from capture files to the lines that the agent would have written live.
//!
//! Packets come from [`Captures`], go through the [`Engine`], and its records become lines as the kernel's do.
//! One thread does all of it and waits for the output: a capture does not run away.

mod engine;
mod fragments;
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
use anyhow::{Context as _, Result, bail};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use tracing::{error, warn};

pub use self::engine::Engine;
use self::progress::Progress;
use crate::{
    capture::{Captures, link_type_name},
    line::LineWriter,
    report::Report,
    settings::{Output, ReplaySettings},
    sink::{self, Batch, Sink, SinkError, Written},
    status::{self, Status},
};

/// Bytes of lines that are written at once.
const BATCH: usize = 256 << 10;
/// Packets between two looks at the clock.
const TURN: u64 = 1 << 14;

/// Replays the captures, until they or the output end.
///
/// # Errors
///
/// A file cannot be read to its end (all that was read before is written), the output takes no more, or a signal
/// came.
pub fn run(settings: &ReplaySettings, quiet: bool) -> Result<()> {
    let mut captures = Captures::open(&settings.files, &settings.interface)?;
    let mut out = Lines::open(settings)?;
    let interrupted = interruption()?;
    let mut engine = Engine::new(&settings.flows, settings.resegment);
    let mut status = Status::new(quiet, settings.output == Output::Stdout);
    let mut progress = Progress::new();
    let mut unknown: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut packets, mut broken) = (0, 0);
    // Who feeds a pipe packet by packet wants lines as they come.
    let hold = captures.total().is_some();

    let mut open = true;
    while open && !interrupted.load(Ordering::Relaxed) {
        match captures.next_packet() {
            None => break,
            Some(Err(fault)) => {
                status::clear();
                error!("{fault}");
                broken += 1;
            }
            Some(Ok(packet)) => {
                packets += 1;
                while let Some(now_us) = engine.next_poll(packet.time_ns / 1000) {
                    engine.poll(now_us);
                }
                engine.packet(&packet);
                if packet.link.is_none() {
                    *unknown.entry(packet.link_type).or_default() += 1;
                }
            }
        }
        if !engine.records().is_empty() {
            status.vectors_come();
            open = out.write(engine.records(), &captures, hold)?;
        }
        if packets % TURN == 0 && status.wanted() && progress.is_due() {
            let stand = progress.stand(packets, captures.position(), captures.total());
            status.show(&stand, out.written.get());
        }
    }
    status::clear();
    engine.stop();
    if open {
        out.write(engine.records(), &captures, true)?;
        out.finish()?;
    }
    for (link_type, packets) in unknown {
        let name = link_type_name(link_type);
        warn!(
            "link type {link_type} ({name}) is not looked into: {packets} packets count as not IP"
        );
    }
    if !quiet {
        let report = Report { counters: *engine.counters(), written: out.written.get() };
        // Nobody may be listening.
        let _ = io::stderr().write_all(report.to_string().as_bytes());
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

/// From records to the output.
struct Lines<'a> {
    output: &'a Output,
    sink: Box<dyn Sink>,
    writer: LineWriter,
    batch: Batch,
    written: Written,
}

impl<'a> Lines<'a> {
    fn open(settings: &'a ReplaySettings) -> Result<Self> {
        Ok(Self {
            output: &settings.output,
            sink: sink::open(&settings.output)?,
            writer: LineWriter::new(settings.shape),
            batch: Batch::default(),
            written: Written::default(),
        })
    }

    /// Makes lines of the records, and lets them out, unless few may be held back. False: nobody reads any more.
    fn write(
        &mut self,
        records: &mut Vec<Record>,
        captures: &Captures,
        hold: bool,
    ) -> Result<bool> {
        for record in records.drain(..) {
            let iface = captures.interface_name(record.key.ifindex);
            self.writer.append(&mut self.batch.lines, &record, iface, 0);
            self.batch.vectors += 1;
        }
        if hold && self.batch.lines.len() < BATCH {
            return Ok(true);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<bool> {
        let result = self.sink.write(&self.batch, &self.written);
        self.batch.lines.clear();
        self.batch.vectors = 0;
        self.judge(result)
    }

    fn finish(&mut self) -> Result<()> {
        if self.flush()? {
            let result = self.sink.finish(&self.written);
            self.judge(result)?;
        }
        Ok(())
    }

    fn judge(&self, result: Result<(), SinkError>) -> Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(SinkError::Closed) => Ok(false),
            Err(SinkError::Failed(error)) => Err(error).with_context(|| {
                let written = self.written.get();
                format!("cannot write to {}: {written} vectors are written, no more", self.output)
            }),
        }
    }
}
