//! The main job: load, attach, and then wait for whatever comes first.
//!
//! One thread runs all of this and never waits for an output: each has a thread of its own. When the queue of
//! one that blocks is full, records stay in the ring; when the ring is full, vectors stay due in the flow
//! table. So a slow consumer delays vectors, for as long as it may, and sweeps, signals and counters go on.

mod attached;
mod names;
mod observe;
mod own_stream;
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

use agent_common::parse::Link;
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
    interface::Interface,
    layout::layout_id,
    manager::Manager,
    privilege::{self, Account},
    readable::Readable,
    report::Report,
    settings::Settings,
    sink::{Ending, Outputs, SinkReport, Target},
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
        let mut pins = settings.pin.as_deref().map(bpf::Pins::take).transpose()?;
        let outputs = Outputs::start(&settings.outputs)?;
        let signals = Signals::new()?;

        let mut kernel = bpf::Kernel::load(&bpf::LoadOptions {
            config: settings.config,
            filter: own_stream::leave_out(&settings.filter, &settings.outputs)?,
            hook: settings.hook,
            max_flows: settings.max_flows,
            ring_bytes: settings.ring_bytes,
            kernel_log: settings.kernel_log,
            secrets: bpf::random_secrets(),
        })?;
        kernel.self_check(&links(&settings, &interfaces, account.as_ref()))?;
        // A call is its own process's.
        if settings.config.process != 0 && settings.hook.sees_packets() {
            kernel.watch_processes()?;
        }
        let to_stdout = settings.outputs.targets.contains(&Target::Stdout);
        let status = Status::new(quiet, to_stdout);
        let mut daemon = Daemon {
            attached: Attached::new(settings.direction, settings.attach),
            sockets: None,
            pump: Pump::new(kernel, outputs, &settings, status),
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
        if daemon.settings.hook.sees_calls() {
            let attachment = daemon.pump.source.attach_sockets(daemon.settings.socket_probe)?;
            info!("calls on sockets are seen by {}", attachment.kind().name());
            daemon.sockets = Some(attachment);
        }
        daemon.pump.source.prove_running()?;
        daemon.observer.programs.watch(&daemon.pump.source);
        if let Some(pins) = &mut pins {
            let (ring, owner) = (daemon.settings.pin_ring, account.as_ref().map(Account::ids));
            daemon.pump.source.pin(pins, ring, &layout_id(), owner)?;
        }
        privilege::reduce(account.as_ref(), daemon.attached.has_filters())?;
        info!("ready: watching {}, vectors to {}", daemon.wanted(), daemon.settings.destination());
        daemon.manager.ready(&format!("watching {}", daemon.wanted()));
        Box::pin(daemon.run()).await
    })
}

/// What packets begin with at these interfaces, and at others that there may be later, where no program could be loaded then.
fn links(settings: &Settings, interfaces: &[Interface], account: Option<&Account>) -> Vec<Link> {
    let both = [Link::Ethernet, Link::Ip];
    if !settings.hook.sees_packets() {
        Vec::new()
    } else if privilege::reduces(account) {
        both.to_vec()
    } else {
        let is_there = |link: &Link| interfaces.iter().any(|interface| interface.link == *link);
        both.into_iter().filter(is_there).collect()
    }
}

/// Why the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It was told to.
    Signal(&'static str),
    /// No output takes any more; their endings say why.
    OutputsEnded,
}

struct Daemon<'a> {
    /// Before the pump, which holds the programs: detached before they are unloaded.
    attached: Attached,
    /// The same at the kernel's functions.
    sockets: Option<bpf::SocketAttachment>,
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
        self.sockets = None;
        match outcome {
            Ok(stop) => self.stop(stop).await,
            Err(error) => {
                // What is queued is good; what is in the kernel cannot be had.
                self.pump.outputs.finish(PATIENCE).await;
                Err(error)
            }
        }
    }

    /// Everything between ready and stop.
    async fn serve(&mut self) -> Result<Stop> {
        let fd = self.pump.reads_ring().then(|| self.pump.source.ring_fd());
        let readable = fd.map(Readable::new).transpose();
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
                () = self.pump.outputs.ended() => return Ok(Stop::OutputsEnded),
                event = self.watch.next() => self.link_event(event?)?,
                _ = poll.tick() => {
                    self.pump.outputs.look_for_consumers();
                    self.sweep()?;
                    ring = self.pump.drain()?;
                }
                _ = status.tick() => self.pump.show_status()?,
                () = tick(&mut drain), if ring == Ring::Empty => ring = self.pump.drain()?,
                ready = ready(readable.as_ref()), if ring == Ring::Empty => {
                    ready.context("cannot wait for the ring buffer")?;
                    ring = self.pump.drain()?;
                }
                () = self.pump.outputs.room(), if ring == Ring::NoRoom => ring = self.pump.drain()?,
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
                    Ok(()) => {
                        // It may have been the first that a program was loaded for.
                        self.observer.programs.watch(&self.pump.source);
                        info!("interface {name} is watched now");
                    }
                    Err(error) => warn!("interface {name} is there, but not watched: {error:#}"),
                }
            }
        }
        Ok(())
    }

    fn wanted(&self) -> String {
        let calls = self.settings.hook.sees_calls().then_some("calls on sockets");
        let names = self.settings.interfaces.iter().map(String::as_str);
        names.chain(calls).collect::<Vec<_>>().join(", ")
    }

    /// The programs are detached: lets out what there is, and says where everything went.
    async fn stop(mut self, stop: Stop) -> Result<()> {
        if let Stop::Signal(name) = stop {
            info!("{name}: stopping");
        }
        let Self { pump, signals, .. } = &mut self;
        let in_time = tokio::select! {
            stopped = async {
                pump.stop(PATIENCE).await?;
                pump.outputs.finish(PATIENCE).await;
                anyhow::Ok(())
            } => stopped.map(|()| true)?,
            _ = signals.stop() => false,
        };
        let outputs = self.pump.outputs.reports();
        let report = Report {
            hook: self.settings.hook,
            counters: self.pump.source.counters()?,
            calls: self.pump.source.calls()?,
            taken: self.pump.outputs.taken(),
            ring_is_left: !self.pump.reads_ring(),
            outputs: outputs.iter().map(|end| (end.name.clone(), end.totals)).collect(),
        };
        if !self.quiet {
            // Nobody may be listening.
            let _ = io::stderr().write_all(report.to_string().as_bytes());
        }
        if !in_time {
            let (written, lost) = (report.written(), report.lost());
            bail!(
                "stopped at once by a second signal: {written} vectors are written, {lost} did not get out"
            );
        }
        verdict(outputs)
    }
}

/// Whether that was a good end: for every output.
fn verdict(outputs: Vec<SinkReport>) -> Result<()> {
    let faults: Vec<String> = outputs.into_iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("; ")) }
}

fn fault(SinkReport { name, totals, ending }: SinkReport) -> Option<String> {
    let (sent, lost) = (totals.sent, totals.offered - totals.sent);
    let counts = format!("{sent} vectors are written, {lost} did not get out");
    match ending {
        Ending::Complete | Ending::Closed => None,
        Ending::Stuck => Some(format!("{name} took nothing for {PATIENCE:?}: {counts}")),
        Ending::Failed(error) => {
            let full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
            let advice = if error.root_cause().downcast_ref().is_some_and(full) {
                ". Make room there, or choose another place by --output"
            } else {
                ""
            };
            Some(format!("cannot write to {name}: {error:#}: {counts}{advice}"))
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

/// Waits until a ring is readable that is this process's to read.
async fn ready(ring: Option<&Readable>) -> io::Result<()> {
    match ring {
        Some(ring) => ring.ready().await,
        None => pending().await,
    }
}
