//! All of the outputs: a vector goes to each, and none waits for another.

use std::{
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use agent_common::record::Record;
use anyhow::{Context as _, Result};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};
use tracing::{info, warn};

#[cfg(feature = "arrow")]
use super::columns::ColumnSink;
use super::{
    Batch, Builder, Counts, FileSink, Form, OnFull, Patience, Plan, Queue, QueueOptions, Sink,
    SinkError, Target, Totals, Wants,
    nats::NatsSink,
    queue::News,
    unix::{self, Greeting, Listening},
    worker,
};
use crate::line::{Context, LineWriter};

/// How a test makes a sink.
#[cfg(test)]
pub(crate) type MakeSink = Box<dyn FnOnce(Arc<Counts>) -> Box<dyn Sink>>;

/// Time between two looks at outputs that are about to end.
pub(super) const LOOK: Duration = Duration::from_millis(2);

/// Outputs at work.
#[derive(Debug)]
pub struct Outputs {
    builder: Builder,
    pub(super) lanes: Vec<Lane>,
    news: Arc<News>,
    /// Vectors that were queued, each once.
    taken: u64,
}

/// One output.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) members: Arc<Members>,
    /// The socket that consumers connect to.
    listening: Option<Listening>,
    /// Tells when the consumer has gone.
    consumer: Option<OwnedFd>,
    pub(super) ending: Option<Ending>,
}

/// The queues of an output: one, or one for each of its consumers.
#[derive(Debug)]
pub(super) struct Members {
    options: QueueOptions,
    counts: Arc<Counts>,
    news: Arc<News>,
    queues: Mutex<Vec<Arc<Queue>>>,
}

/// How an output ended.
#[derive(Debug)]
pub enum Ending {
    /// All that was queued got out.
    Complete,
    /// The consumer has gone.
    Closed,
    /// A write failed.
    Failed(anyhow::Error),
    /// The consumer took nothing for as long as one is patient.
    Stuck,
}

/// The last word about an output.
#[derive(Debug)]
pub struct SinkReport {
    /// Its name.
    pub name: String,
    /// What became of the vectors.
    pub totals: Totals,
    /// How it ended.
    pub ending: Ending,
}

impl Members {
    fn new(options: QueueOptions, news: &Arc<News>) -> Arc<Self> {
        let (counts, news) = (Arc::default(), Arc::clone(news));
        Arc::new(Self { options, counts, news, queues: Mutex::default() })
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The output's counters.
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// A new queue, which gets what is made from now on.
    pub(super) fn join(&self) -> Arc<Queue> {
        let (counts, news) = (Arc::clone(&self.counts), Arc::clone(&self.news));
        let queue = Arc::new(Queue::new(self.options, counts, news));
        self.queues().push(Arc::clone(&queue));
        queue
    }

    /// Forgets consumers that have gone.
    fn leave(&self) {
        self.queues().retain(|queue| !queue.has_ended());
    }

    fn each(&self, work: impl FnMut(&Arc<Queue>)) {
        self.queues().iter().for_each(work);
    }

    fn all(&self, holds: impl FnMut(&Arc<Queue>) -> bool) -> bool {
        self.queues().iter().all(holds)
    }
}

impl Outputs {
    /// Opens every output and starts its thread.
    pub fn start(plan: &Plan) -> Result<Self> {
        Self::with(plan, Patience::Retry, |target| plan.queue_of(target))
    }

    pub(super) fn with(
        plan: &Plan,
        patience: Patience,
        options: impl Fn(&Target) -> QueueOptions,
    ) -> Result<Self> {
        let news = Arc::default();
        let mut lanes = Vec::with_capacity(plan.targets.len());
        let mut wants = Wants::default();
        for target in &plan.targets {
            wants = wants | target.wants(plan);
            let members = Members::new(options(target), &news);
            lanes.push(Lane::start(target, plan, members, patience)?);
        }
        let builder = Builder::new(wants, LineWriter::new(plan.shape));
        Ok(Self { builder, lanes, news, taken: 0 })
    }

    /// Outputs over sinks that a test made, as by --output `-` but for the queues.
    #[cfg(test)]
    pub(crate) fn over(plan: &Plan, sinks: Vec<MakeSink>) -> Result<Self> {
        let news = Arc::default();
        let mut wants = Wants { rows: true, ..Wants::default() };
        let mut lanes = Vec::new();
        for (index, sink) in sinks.into_iter().enumerate() {
            wants = wants | Target::Stdout.wants(plan);
            let members = Members::new(plan.queue_of(&Target::Stdout), &news);
            let sink = sink(Arc::clone(members.counts()));
            lanes.push(Lane::new(index.to_string(), members).run(sink, Patience::Retry)?);
        }
        let builder = Builder::new(wants, LineWriter::new(plan.shape));
        Ok(Self { builder, lanes, news, taken: 0 })
    }

    /// Vectors of the next batch so far.
    pub fn pending(&self) -> usize {
        self.builder.len()
    }

    /// Adds a vector to the next batch.
    pub fn push(&mut self, record: &Record, context: &Context<'_>) {
        self.builder.push(record, context);
    }

    /// Queues the batch for every output, at once.
    pub fn flush(&mut self) {
        if let Some(batch) = self.builder.take() {
            self.taken += batch.len() as u64;
            self.lanes.iter().for_each(|lane| lane.push(&batch));
        }
    }

    /// Whether no output asks to wait.
    pub fn has_room(&self) -> bool {
        self.full_for().is_none()
    }

    /// How long the outputs ask to wait; `None`: they do not.
    fn full_for(&self) -> Option<Duration> {
        let mut wait: Option<Duration> = None;
        for lane in &self.lanes {
            lane.members.each(|queue| wait = wait.max(queue.full_for()));
        }
        wait
    }

    /// Waits until no output asks to.
    pub async fn room(&self) {
        while let Some(wait) = self.full_for() {
            // Who frees room after the look leaves a permit.
            let _ = tokio::time::timeout(wait, self.news.room.notified()).await;
        }
    }

    /// Waits until no output takes vectors any more.
    pub async fn ended(&self) {
        while !self.has_ended() {
            self.news.ended.notified().await;
        }
    }

    /// Whether there were outputs, and none takes vectors any more.
    pub fn has_ended(&self) -> bool {
        !self.lanes.is_empty() && self.lanes.iter().all(Lane::has_ended)
    }

    /// Looks for consumers that have gone: also with nothing to write.
    pub fn look_for_consumers(&mut self) {
        for lane in &mut self.lanes {
            if lane.consumer.as_ref().is_some_and(has_gone) {
                lane.consumer = None;
                lane.members.each(|queue| queue.end(Err(SinkError::Closed)));
            }
        }
        let several = self.lanes.len() > 1;
        for lane in &mut self.lanes {
            if lane.ending.is_none() && lane.has_ended() {
                lane.end();
                if several {
                    info!("{} is closed; the other outputs go on", lane.name);
                }
            }
        }
    }

    /// Files are opened again, under their names.
    pub fn reopen(&self) {
        self.lanes.iter().for_each(|lane| lane.members.each(|queue| queue.reopen()));
    }

    /// What became of the vectors, by output.
    pub fn totals(&self) -> impl Iterator<Item = (&str, Totals)> {
        self.lanes.iter().map(|lane| (lane.name.as_str(), lane.members.counts.totals()))
    }

    /// Vectors that were queued, each once.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// From now on every output has others wait when its queue is full, up to `patience`; one that blocks for as long
    /// as it takes something within that. Nothing is left that could be missed meanwhile.
    pub fn be_patient(&self, patience: Duration) {
        self.lanes.iter().for_each(|lane| lane.members.each(|queue| queue.be_patient(patience)));
    }

    /// Vectors that got out, each once for every output.
    pub fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.members.counts.sent()).sum()
    }

    /// Waits until all that is queued got out, up to `patience`; for an output that blocks as long as something
    /// does within that. Nothing is taken any more.
    pub async fn finish(&mut self, patience: Duration) {
        let mut finishing = Finishing::new(self, patience);
        while !finishing.is_over() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What became of the vectors, and how each output ended: complete, unless it is known not to be.
    pub fn reports(&mut self) -> Vec<SinkReport> {
        let report = |lane: &mut Lane| SinkReport {
            name: lane.name.clone(),
            totals: lane.members.counts.totals(),
            ending: lane.ending.take().unwrap_or(Ending::Stuck),
        };
        self.lanes.iter_mut().map(report).collect()
    }
}

impl Lane {
    fn start(
        target: &Target,
        plan: &Plan,
        members: Arc<Members>,
        patience: Patience,
    ) -> Result<Self> {
        let mut lane = Self::new(target.to_string(), members);
        let (form, counts) = (plan.form(), Arc::clone(lane.members.counts()));
        let header = header_of(form);
        let sink: Box<dyn Sink> = match target {
            Target::Stdout => {
                let sink = FileSink::stdout(form, header, counts);
                Box::new(sink.context("cannot use standard output")?)
            }
            Target::File(path) => {
                let sink = FileSink::append(path, form, header, counts, plan.rotation);
                let what = || format!("cannot open {} for writing", path.display());
                Box::new(sink.with_context(what)?)
            }
            Target::Unix(path) => {
                let members = Arc::clone(&lane.members);
                lane.listening = Some(unix::listen(path, members, Greeting { form, header })?);
                return Ok(lane);
            }
            Target::Nats { remote, tls } => Box::new(NatsSink::new(remote, *tls, form, counts)),
            #[cfg(feature = "arrow")]
            Target::Columns(format, path) => {
                let sink = ColumnSink::create(path, *format, counts, plan.rotation);
                let what = || format!("cannot open {} for writing", path.display());
                Box::new(sink.with_context(what)?)
            }
            #[cfg(not(feature = "arrow"))]
            Target::Columns(format, _) => {
                anyhow::bail!(
                    "this program was built without {format}: build it with `--features arrow`"
                )
            }
            #[cfg(feature = "kafka")]
            Target::Kafka(remote) => {
                // A broker that leads a partition may be replaced within that.
                let limit = Duration::from_mins(1);
                Box::new(super::kafka::KafkaSink::new(remote, form, counts, limit))
            }
        };
        lane.run(sink, patience)
    }

    fn new(name: String, members: Arc<Members>) -> Self {
        Self { name, members, listening: None, consumer: None, ending: None }
    }

    /// Starts the thread of its one sink.
    fn run(mut self, sink: Box<dyn Sink>, patience: Patience) -> Result<Self> {
        self.consumer = sink.consumer().context("cannot look at the output")?;
        worker::start(self.name.clone(), sink, self.members.join(), patience)?;
        Ok(self)
    }

    fn push(&self, batch: &Arc<Batch>) {
        if self.listening.is_some() {
            self.members.leave();
        }
        let mut heard = false;
        self.members.each(|queue| {
            heard = true;
            if queue.push(batch) {
                warn!("{} is too slow: vectors are dropped, and counted", self.name);
            }
        });
        if !heard {
            self.members.counts.unheard(batch.len());
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.listening.is_none() && self.members.all(|queue| queue.has_ended())
    }

    /// Notes how it ended, once.
    pub(super) fn end(&mut self) {
        let mut ending = Ending::Complete;
        self.members.each(|queue| match queue.take_ending() {
            Some(Err(SinkError::Closed)) => ending = Ending::Closed,
            Some(Err(SinkError::Failed(error))) => ending = Ending::Failed(error),
            Some(Ok(())) | None => {}
        });
        self.ending.get_or_insert(ending);
    }
}

fn header_of(form: Form) -> Vec<u8> {
    match form {
        Form::Json => Vec::new(),
        Form::Csv => LineWriter::csv().header(),
    }
}

fn has_gone(consumer: &OwnedFd) -> bool {
    let mut state = [PollFd::new(consumer, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut state, Some(&at_once)).is_ok()
        && state[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// Outputs that are about to end.
pub(super) struct Finishing<'a> {
    patience: Duration,
    waiting: Vec<Last<'a>>,
}

/// One that has not ended.
struct Last<'a> {
    lane: &'a mut Lane,
    /// Whether consumers connect to it: one that does not read is their own fault.
    serves: bool,
    /// What it had sent at the last look that found a difference.
    sent: u64,
    since: Instant,
}

impl<'a> Finishing<'a> {
    pub(super) fn new(outputs: &'a mut Outputs, patience: Duration) -> Self {
        outputs.flush();
        let waiting = outputs.lanes.iter_mut().map(|lane| {
            // Nobody connects any more, and the socket's file goes.
            let serves = lane.listening.take().is_some();
            // The reader of a pipe sees its end when the sink closes it.
            lane.consumer = None;
            lane.members.each(|queue| queue.close());
            let sent = lane.members.counts.sent();
            Last { lane, serves, sent, since: Instant::now() }
        });
        Self { patience, waiting: waiting.collect() }
    }

    pub(super) fn is_over(&mut self) -> bool {
        let patience = self.patience;
        self.waiting.retain_mut(|Last { lane, serves, sent, since }| {
            if lane.has_ended() {
                lane.end();
                return false;
            }
            let now = lane.members.counts.sent();
            if now != *sent && lane.members.options.on_full == OnFull::Block {
                (*sent, *since) = (now, Instant::now());
            }
            if since.elapsed() >= patience {
                lane.ending = Some(if *serves { Ending::Closed } else { Ending::Stuck });
                return false;
            }
            true
        });
        self.waiting.is_empty()
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Closed => f.write_str("closed by its consumer"),
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Stuck => f.write_str("it took nothing"),
        }
    }
}
