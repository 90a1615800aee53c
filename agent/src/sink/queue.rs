//! The bounded queue before a consumer, and what happens when it is full.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::sync::Notify;

use super::{Batch, Counts, Portion, SinkError};

/// What happens when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// The vectors that wait for the longest time go
    DropOldest,
    /// The vectors that come go
    DropNewest,
    /// Vectors wait in the kernel, for all outputs, up to --block-limit; then as drop-oldest
    Block,
}

/// How a queue is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Vectors that wait at most.
    pub capacity: usize,
    /// What happens beyond.
    pub on_full: OnFull,
    /// How long a full queue may hold the others up; `None`: for ever.
    pub block_limit: Option<Duration>,
}

/// A consumer's queue: filled by the main loop, which never waits for it, and emptied by a sink's thread.
#[derive(Debug)]
pub struct Queue {
    options: QueueOptions,
    state: Mutex<State>,
    /// To the sink: vectors, or the end.
    work: Condvar,
    /// To the one who fills it, if it waits in a thread of its own: room, or the end.
    space: Condvar,
    /// The same to the main loop.
    news: Arc<News>,
    counts: Arc<Counts>,
}

/// What wakes the main loop.
#[derive(Debug, Default)]
pub(super) struct News {
    /// A queue may have room.
    pub(super) room: Notify,
    /// A sink has ended.
    pub(super) ended: Notify,
}

#[derive(Debug)]
struct State {
    portions: VecDeque<Portion>,
    /// Vectors in them.
    len: usize,
    /// Vectors lost since the last of them.
    lost: u64,
    phase: Phase,
    /// Whether the sink is to open its file again.
    reopen: bool,
    /// How long this queue has held the others up since it was last half empty.
    held: Duration,
    holds_since: Option<Instant>,
    /// Whether vectors were dropped since it was last half empty.
    overflowing: bool,
    /// At the end everyone has time: how much.
    patience: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    Open,
    /// Nothing comes any more; what is there goes out.
    Closing,
    /// The sink has ended: how.
    Ended(Result<(), SinkError>),
}

/// What a sink's thread is to do.
#[derive(Debug)]
pub enum Work {
    /// Let these out.
    Write(Hand),
    /// It is time for what it asked to be woken for.
    Idle,
    /// Open the file again.
    Reopen,
    /// Everything is out, and no more comes.
    End,
}

/// Portions that a sink has taken. What it leaves of them goes back to the queue.
#[derive(Debug)]
pub struct Hand {
    portions: VecDeque<Portion>,
    counts: Arc<Counts>,
    /// Vectors lost before the first of these.
    lost: u64,
}

impl Hand {
    /// The vectors to let out first.
    pub fn first(&mut self) -> Option<&mut Portion> {
        while self.portions.front().is_some_and(Portion::is_empty) {
            self.portions.pop_front();
        }
        let first = self.portions.front_mut()?;
        first.lost += std::mem::take(&mut self.lost);
        Some(first)
    }

    /// All of the portions, none of them empty.
    pub fn portions(&self) -> impl Iterator<Item = &Portion> {
        self.portions.iter().filter(|portion| !portion.is_empty())
    }

    /// The first vectors got out.
    pub fn sent(&mut self, vectors: usize) {
        self.counts.send(vectors);
        self.taken(vectors);
    }

    /// The first vectors are the sink's, which counts them as sent, or as dropped, later.
    pub fn taken(&mut self, mut vectors: usize) {
        while vectors > 0
            && let Some(portion) = self.first()
        {
            let some = vectors.min(portion.len());
            portion.advance(some);
            vectors -= some;
        }
    }

    /// Vectors that were the sink's, and before the first of these, are lost. What they would have told about those
    /// before them, `told`, is told by the next.
    pub fn lost_before(&mut self, vectors: usize, told: u64) {
        self.counts.lose(vectors);
        self.lost += vectors as u64 + told;
    }
}

impl Queue {
    /// An empty queue that counts in `counts`, and tells `news` when there is room again, or it has ended.
    pub(super) fn new(options: QueueOptions, counts: Arc<Counts>, news: Arc<News>) -> Self {
        let state = State {
            portions: VecDeque::new(),
            len: 0,
            lost: 0,
            phase: Phase::Open,
            reopen: false,
            held: Duration::ZERO,
            holds_since: None,
            overflowing: false,
            patience: None,
        };
        let (work, space) = (Condvar::new(), Condvar::new());
        Self { options, state: Mutex::new(state), work, space, news, counts }
    }

    /// The sink's counters.
    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has ended its sink; the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a batch, at once. Returns true when this is the first that does not fit, so that somebody says so.
    pub(super) fn push(&self, batch: &Arc<Batch>) -> bool {
        let mut state = self.state();
        self.counts.offer(batch.len());
        if !matches!(state.phase, Phase::Open) {
            self.counts.lose(batch.len());
            return false;
        }
        let lost = std::mem::take(&mut state.lost);
        state.portions.push_back(Portion::new(batch, lost));
        state.len += batch.len();
        if state.blocks_for(&self.options).is_some() {
            // What is pushed before the time is up goes beyond the capacity by less than a batch.
            self.work.notify_one();
            return false;
        }
        let excess = state.len.saturating_sub(self.options.capacity);
        let dropped = match self.options.on_full {
            OnFull::DropNewest => state.drop_newest(excess),
            OnFull::DropOldest | OnFull::Block => state.drop_oldest(excess),
        };
        self.counts.lose(dropped);
        self.work.notify_one();
        dropped > 0 && !std::mem::replace(&mut state.overflowing, true)
    }

    /// How long whoever fills the queue is to wait for room in it; `None`: there is room, or what does not fit
    /// is dropped.
    pub(super) fn full_for(&self) -> Option<Duration> {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Open) {
            return None;
        }
        if state.len < self.options.capacity {
            state.stop_holding();
            return None;
        }
        state.holds_since.get_or_insert_with(Instant::now);
        state.blocks_for(&self.options)
    }

    /// From now on the others have time: `patience`, and for a sink that blocks as long as it takes something within
    /// that.
    pub(super) fn be_patient(&self, patience: Duration) {
        let mut state = self.state();
        state.patience = Some(patience);
        state.held = Duration::ZERO;
        state.holds_since = None;
    }

    /// Takes portions of up to `most` vectors together, but at least one; waits for them until `until`.
    pub(super) fn take(&self, most: usize, until: Option<Instant>) -> Work {
        let mut state = self.state();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Work::Reopen;
            }
            if !state.portions.is_empty() {
                return Work::Write(self.take_now(&mut state, most));
            }
            if !matches!(state.phase, Phase::Open) {
                return Work::End;
            }
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Work::Idle,
                Some(left) => {
                    let waited = self.work.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn take_now(&self, state: &mut State, most: usize) -> Hand {
        let mut portions = VecDeque::new();
        let mut vectors = 0;
        while let Some(portion) = state.portions.front()
            && (portions.is_empty() || vectors + portion.len() <= most)
        {
            vectors += portion.len();
            portions.extend(state.portions.pop_front());
        }
        state.len -= vectors;
        let half_empty = state.len <= self.options.capacity / 2;
        // At the end one that blocks is waited for as long as it moves.
        let moves = self.options.on_full == OnFull::Block;
        if if state.patience.is_some() { moves } else { half_empty } {
            state.holds_since = None;
            state.held = Duration::ZERO;
        }
        if half_empty {
            state.overflowing = false;
        }
        self.news.room.notify_one();
        self.space.notify_one();
        Hand { portions, counts: Arc::clone(&self.counts), lost: 0 }
    }

    /// Puts back what a sink could not let out.
    pub(super) fn give_back(&self, hand: Hand) {
        let mut state = self.state();
        let lost = hand.lost;
        let left = hand.portions.into_iter().rev().filter(|portion| !portion.is_empty());
        for portion in left {
            if matches!(state.phase, Phase::Ended(_)) {
                self.counts.lose(portion.len());
                continue;
            }
            state.len += portion.len();
            state.portions.push_front(portion);
        }
        match state.portions.front_mut() {
            Some(portion) => portion.lost += lost,
            None => state.lost += lost,
        }
    }

    /// Waits for a while, but not beyond the end, and not if the file is to be opened again.
    pub(super) fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = self.state();
        while matches!(state.phase, Phase::Open) && !state.reopen {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Asks the sink to open its file again.
    pub(super) fn reopen(&self) {
        self.state().reopen = true;
        self.work.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        self.work.notify_one();
    }

    /// Whether nothing comes any more.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.state().phase, Phase::Open)
    }

    /// The sink has ended; the first who says so is right. What is left in the queue is dropped.
    pub(super) fn end(&self, how: Result<(), SinkError>) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Ended(_)) {
            state.phase = Phase::Ended(how);
        }
        self.counts.lose(std::mem::take(&mut state.len));
        state.portions.clear();
        self.work.notify_one();
        self.news.room.notify_one();
        self.news.ended.notify_one();
        self.space.notify_one();
    }

    /// Waits until there is room, or the sink has ended.
    pub(super) fn wait_for_room(&self) {
        let mut state = self.state();
        while state.len >= self.options.capacity && !matches!(state.phase, Phase::Ended(_)) {
            state = self.space.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether the sink has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state().phase, Phase::Ended(_))
    }

    /// How the sink has ended, told once.
    pub(super) fn take_ending(&self) -> Option<Result<(), SinkError>> {
        match &mut self.state().phase {
            Phase::Ended(how) => Some(std::mem::replace(how, Ok(()))),
            Phase::Open | Phase::Closing => None,
        }
    }
}

impl State {
    /// For how long the queue, when it is full, has others wait from now on; `None`: not at all.
    fn blocks_for(&self, options: &QueueOptions) -> Option<Duration> {
        let limit = match self.patience {
            None if options.on_full != OnFull::Block => return None,
            None => options.block_limit,
            patience => patience,
        };
        let held = self.held + self.holds_since.map_or(Duration::ZERO, |since| since.elapsed());
        match limit {
            None => Some(Duration::MAX),
            Some(limit) => limit.checked_sub(held).filter(|left| !left.is_zero()),
        }
    }

    fn stop_holding(&mut self) {
        if let Some(since) = self.holds_since.take() {
            self.held += since.elapsed();
        }
    }

    fn drop_oldest(&mut self, excess: usize) -> usize {
        let mut vectors = excess;
        let mut lost = 0;
        self.len -= excess;
        while let Some(portion) = self.portions.front_mut() {
            portion.lost += std::mem::take(&mut lost);
            let some = vectors.min(portion.len());
            portion.lose_oldest(some);
            vectors -= some;
            if !portion.is_empty() {
                return excess;
            }
            lost = portion.lost;
            self.portions.pop_front();
        }
        self.lost += lost;
        excess
    }

    /// Of the last portion alone: with each it is as long as its room.
    fn drop_newest(&mut self, excess: usize) -> usize {
        let Some(portion) = self.portions.back_mut().filter(|_| excess > 0) else { return 0 };
        // What a sink gave back may have filled the queue beyond its capacity.
        let some = excess.min(portion.len());
        portion.cut_newest(some);
        self.lost += some as u64;
        if portion.is_empty() {
            self.lost += portion.lost;
            self.portions.pop_back();
        }
        self.len -= some;
        some
    }
}
