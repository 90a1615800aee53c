//! The main job: load, attach, and then wait for whatever comes first.
//!
//! One thread runs all of this and never waits for the output, which has a thread of its own. When the
//! output's queue is full, records stay in the ring; when the ring is full, vectors stay due in the flow
//! table. So a slow consumer delays vectors, and sweeps, signals and counters go on.

mod attached;
mod names;
mod observe;
mod pump;
mod reload;
mod signals;
#[cfg(test)]
mod tests;

use std::{
    future::pending,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    task::yield_now,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::{info, warn};

// Until the kernel side is there: `use crate::bpf;`
use self::{
    attached::Attached,
    observe::Observer,
    pump::{Pump, Ring},
    signals::{Signals, Told},
};
use crate::bpf;
use crate::{
    config::{Given, Setting},
    manager::Manager,
    privilege::{self, Account},
    readable::Readable,
    report::Report,
    settings::{Output as Destination, Settings},
    sink::{self, Ending, Output},
    status::{self, Status},
    watch::{LinkEvent, Watch},
};

/// At the end, an output that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two status lines.
const STATUS: Duration = Duration::from_secs(1);

/// Reads the command line and the configuration file again.
pub type Reread<'a> = &'a dyn Fn() -> Result<Given>;

/// Does the main job, until a signal, a consumer that goes, or an error ends it.
pub fn run(settings: Settings, given: &Given, reread: Reread<'_>) -> Result<()> {
    let quiet = given.cli.verbosity.quiet;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (watch, interfaces) = Watch::start(&settings.interfaces)?;
        privilege::check()?;
        let account = settings.user.as_deref().map(Account::find).transpose()?;
        // Early, since a busy port is soon told.
        let observer = Observer::start(settings.metrics)?;
        // A named pipe waits for its reader here: the signals still have their ordinary effect.
        let output = Output::start(sink::open(&settings.output)?)?;
        let signals = Signals::new()?;

        let mut kernel = bpf::Kernel::load(&bpf::LoadOptions {
            config: settings.config,
            filter: settings.filter,
            max_flows: settings.max_flows,
            ring_bytes: settings.ring_bytes,
            kernel_log: settings.kernel_log,
        })?;
        kernel.self_check()?;
        let status = Status::new(quiet, settings.output == Destination::Stdout);
        let mut daemon = Daemon {
            attached: Attached::new(settings.direction, settings.attach),
            pump: Pump::new(kernel, output, &settings, status),
            watch,
            signals,
            observer,
            manager: Manager::new(settings.poll),
            settings,
            given: given.options.clone(),
            reread,
            quiet,
        };
        for interface in &interfaces {
            daemon.attached.attach(&mut daemon.pump, interface)?;
        }
        daemon.pump.source.prove_running()?;
        daemon.observer.programs = Some(daemon.pump.source.run_stats());
        privilege::reduce(account.as_ref(), daemon.attached.has_filters())?;
        info!("ready: watching {}, vectors to {}", daemon.wanted(), daemon.settings.output);
        daemon.manager.ready(&format!("watching {}", daemon.wanted()));
        Box::pin(daemon.run()).await
    })
}

/// Why the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It was told to.
    Signal(&'static str),
    /// Its consumer has gone, with nothing being written.
    ConsumerGone,
    /// The output takes no more; its ending says why.
    OutputEnded,
}

struct Daemon<'a> {
    /// Before the pump, which holds the programs: detached before they are unloaded.
    attached: Attached,
    pump: Pump<bpf::Kernel>,
    watch: Watch,
    signals: Signals,
    observer: Observer,
    manager: Manager,
    /// What is in force: after a reload, partly what it was before.
    settings: Settings,
    given: Vec<Setting>,
    reread: Reread<'a>,
    quiet: bool,
}

impl Daemon<'_> {
    async fn run(mut self) -> Result<()> {
        let outcome = self.serve().await;
        status::clear();
        self.manager.stopping();
        self.attached.detach_all();
        match outcome {
            Ok(stop) => self.stop(stop).await,
            Err(error) => {
                // What is queued is good; what is in the kernel cannot be had.
                self.pump.finish(PATIENCE).await;
                Err(error)
            }
        }
    }

    /// Everything between ready and stop.
    async fn serve(&mut self) -> Result<Stop> {
        let readable = Readable::new(self.pump.source.ring_fd());
        let readable = readable.context("cannot wait for the ring buffer")?;
        let mut poll = ticker(self.settings.poll);
        let mut drain = self.settings.latency.drain_every().map(ticker);
        let mut status = ticker(STATUS);
        let mut ring = Ring::Empty;
        loop {
            // In this order: what comes seldom first, so that traffic cannot keep it waiting.
            tokio::select! {
                biased;
                told = self.signals.next() => match told {
                    Told::Stop(signal) => return Ok(Stop::Signal(signal)),
                    Told::Reload => {
                        self.reload();
                        if poll.period() != self.settings.poll {
                            poll = ticker(self.settings.poll);
                        }
                    }
                },
                () = self.pump.output.ended() => return Ok(Stop::OutputEnded),
                event = self.watch.next() => self.link_event(event?)?,
                _ = poll.tick() => {
                    if self.pump.output.consumer_gone() {
                        return Ok(Stop::ConsumerGone);
                    }
                    self.sweep()?;
                    ring = self.pump.drain()?;
                }
                _ = status.tick() => self.pump.show_status()?,
                () = tick(&mut drain), if ring == Ring::Empty => ring = self.pump.drain()?,
                ready = readable.ready(), if ring == Ring::Empty => {
                    ready.context("cannot wait for the ring buffer")?;
                    ring = self.pump.drain()?;
                }
                () = self.pump.output.room(), if ring == Ring::NoRoom => ring = self.pump.drain()?,
                () = yield_now(), if ring == Ring::More => ring = self.pump.drain()?,
            }
        }
    }

    /// One poll, which is also when the agent tells others how it is.
    fn sweep(&mut self) -> Result<()> {
        let Self { pump, observer, manager, attached, settings, .. } = self;
        let begin = Instant::now();
        pump.sweep()?;
        observer.swept(begin, pump, attached, settings)?;
        if manager.is_due() {
            manager.alive(&pump.progress()?.to_string());
        }
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) -> Result<()> {
        match event {
            LinkEvent::Gone { name, index } => {
                self.attached.detach(index);
                self.pump.end_flows_of(index)?;
                if self.settings.interfaces.contains(&name) {
                    warn!("interface {name} is gone; it is watched again when it is back");
                } else {
                    info!("interface {name} is no longer watched");
                }
                if self.attached.is_empty() {
                    warn!("no interface is left to watch; waiting for {}", self.wanted());
                }
            }
            LinkEvent::Appeared(interface) => {
                let name = &interface.name;
                self.pump.keep_flows_of(interface.index);
                match self.attached.attach(&mut self.pump, &interface) {
                    Ok(()) => info!("interface {name} is watched now"),
                    Err(error) => warn!("interface {name} is there, but not watched: {error:#}"),
                }
            }
        }
        Ok(())
    }

    fn wanted(&self) -> String {
        self.settings.interfaces.join(", ")
    }

    /// The programs are detached: lets out what there is, and says where everything went.
    async fn stop(mut self, stop: Stop) -> Result<()> {
        if let Stop::Signal(name) = stop {
            info!("{name}: stopping");
        }
        if stop == Stop::ConsumerGone {
            self.pump.discard();
        }
        let Self { pump, signals, .. } = &mut self;
        let ending = tokio::select! {
            ending = async {
                pump.stop(PATIENCE).await?;
                anyhow::Ok(Some(pump.finish(PATIENCE).await))
            } => ending?,
            _ = signals.stop() => None,
        };
        let counters = self.pump.source.counters()?;
        let report = Report { counters, written: self.pump.output.written() };
        if !self.quiet {
            // Nobody may be listening.
            let _ = io::stderr().write_all(report.to_string().as_bytes());
        }
        self.verdict(stop, ending, &report)
    }

    /// Whether that was a good end.
    fn verdict(&self, stop: Stop, ending: Option<Ending>, report: &Report) -> Result<()> {
        let (lost, written) = (report.lost(), report.written);
        let output = &self.settings.output;
        let counts = format!("{written} vectors are written, {lost} did not get out");
        let gone = stop == Stop::ConsumerGone;
        match ending {
            Some(Ending::Closed) => Ok(()),
            Some(Ending::Complete | Ending::Stuck) if gone => Ok(()),
            Some(Ending::Complete) if lost == 0 => Ok(()),
            Some(Ending::Complete) => bail!("{output} was too slow at the end: {counts}"),
            Some(Ending::Stuck) => bail!("{output} took nothing for {PATIENCE:?}: {counts}"),
            Some(Ending::Failed(error)) if error.kind() == io::ErrorKind::StorageFull => bail!(
                "cannot write to {output}: {error}: {counts}. Make room there, or choose another \
                 place by --output"
            ),
            Some(Ending::Failed(error)) => bail!("cannot write to {output}: {error}: {counts}"),
            None => bail!("stopped at once by a second signal: {counts}"),
        }
    }
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = interval(period);
    // After a delay the next tick is a period away: none are made up for.
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

async fn tick(ticker: &mut Option<Interval>) {
    match ticker {
        Some(ticker) => {
            ticker.tick().await;
        }
        None => pending().await,
    }
}
