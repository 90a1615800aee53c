//! The queue alone: whatever is pushed, taken, given back and dropped, the numbers add up.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// What happens to a queue.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of so many vectors comes.
    Push(usize),
    /// The sink takes what it likes to have at once, lets out so many, and gives back the rest.
    Take { most: usize, out: usize },
    /// As before, but loses what it took first.
    Lose { most: usize, out: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..=BATCH).prop_map(Step::Push),
        2 => (1..300_usize, 0..200_usize).prop_map(|(most, out)| Step::Take { most, out }),
        1 => (1..300_usize, 0..50_usize).prop_map(|(most, out)| Step::Lose { most, out }),
    ];
    prop::collection::vec(step, 1..60)
}

struct Consumer {
    queue: Queue,
    builder: Builder,
    pushed: u64,
    received: Vec<(u64, u64)>,
}

impl Consumer {
    fn new(capacity: usize, on_full: OnFull, block_limit: Option<Duration>) -> Self {
        let options = QueueOptions { capacity, on_full, block_limit };
        let wants = Wants { json: true, rows: true, csv: false };
        Self {
            queue: Queue::new(options, Arc::default(), Arc::default()),
            builder: Builder::new(wants, LineWriter::new(Shape::Flat)),
            pushed: 0,
            received: Vec::new(),
        }
    }

    fn push(&mut self, vectors: usize) {
        for _ in 0..vectors {
            self.builder.push(&numbered(self.pushed), &Context::new("eth0", 0));
            self.pushed += 1;
        }
        self.queue.push(&self.builder.take().expect("a batch"));
    }

    /// Lets out up to `out` vectors; false if there is nothing to let out.
    fn take(&mut self, most: usize, mut out: usize, lose: bool) -> bool {
        let Work::Write(mut hand) = self.queue.take(most, Some(Instant::now())) else {
            return false;
        };
        if lose {
            let rows: Vec<u64> =
                hand.portions().flat_map(|portion| portion.rows().map(|(_, lost)| lost)).collect();
            let out = out.min(rows.len());
            hand.taken(out);
            hand.lost_before(out, rows[..out].iter().sum());
            self.queue.give_back(hand);
            return true;
        }
        while out > 0
            && let Some(portion) = hand.first()
        {
            let some = out.min(portion.len());
            for (index, (row, lost)) in portion.rows().take(some).enumerate() {
                let line = portion.line(Form::Json, index);
                let line = numbers(str::from_utf8(&line).expect("UTF-8"));
                let number = u64::from(row.record.summary.seq);
                assert_eq!(line, [(number, lost)], "the line and the row");
                self.received.push((number, lost));
            }
            hand.sent(some);
            out -= some;
        }
        self.queue.give_back(hand);
        true
    }
}

fn on_full() -> impl Strategy<Value = OnFull> {
    prop_oneof![Just(OnFull::DropOldest), Just(OnFull::DropNewest), Just(OnFull::Block)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_not_received_is_told_and_counted(
        steps in steps(),
        capacity in 1..400_usize,
        on_full in on_full(),
    ) {
        let mut consumer = Consumer::new(capacity, on_full, Some(Duration::ZERO));
        for step in steps {
            match step {
                Step::Push(vectors) => consumer.push(vectors),
                Step::Take { most, out } => { consumer.take(most, out, false); }
                Step::Lose { most, out } => { consumer.take(most, out, true); }
            }
            let totals = consumer.queue.counts().totals();
            prop_assert_eq!(totals.offered, consumer.pushed);
            prop_assert_eq!(totals.sent, consumer.received.len() as u64);
        }
        consumer.queue.close();
        while consumer.take(1, usize::MAX, false) {}
        let behind = assert_adds_up(&consumer.received, consumer.pushed);
        let totals = consumer.queue.counts().totals();
        let told: u64 = consumer.received.iter().map(|(_, lost)| lost).sum();
        prop_assert_eq!((totals.dropped, totals.queued()), (told + behind, 0));
    }

    #[test]
    fn a_queue_holds_no_more_than_its_capacity(
        pushes in prop::collection::vec(1..=BATCH, 1..40),
        capacity in 1..400_usize,
        on_full in on_full(),
    ) {
        let mut consumer = Consumer::new(capacity, on_full, Some(Duration::ZERO));
        let mut pushed = 0;
        for vectors in pushes {
            consumer.push(vectors);
            pushed += vectors;
            let queued = consumer.queue.counts().totals().queued();
            prop_assert_eq!(queued, pushed.min(capacity) as u64);
        }
        while consumer.take(1, usize::MAX, false) {}
        let expected: Vec<u64> = match on_full {
            OnFull::DropNewest => (0..pushed.min(capacity) as u64).collect(),
            _ => (pushed.saturating_sub(capacity) as u64..pushed as u64).collect(),
        };
        let received: Vec<u64> = consumer.received.iter().map(|(number, _)| *number).collect();
        prop_assert_eq!(received, expected);
    }
}

#[test]
fn a_queue_that_blocks_asks_to_wait_up_to_its_limit_and_then_drops() {
    let limit = Duration::from_millis(60);
    let mut consumer = Consumer::new(100, OnFull::Block, Some(limit));
    assert_eq!(consumer.queue.full_for(), None);
    consumer.push(100);
    let wait = consumer.queue.full_for().expect("it is full");
    assert!(wait <= limit && wait > limit / 2, "{wait:?}");
    // What comes nevertheless is kept: less than a batch.
    consumer.push(5);
    assert_eq!(consumer.queue.counts().totals().dropped, 0);
    thread::sleep(limit);
    assert_eq!(consumer.queue.full_for(), None);
    consumer.push(5);
    assert_eq!(consumer.queue.counts().totals().dropped, 10);
    // It has no time again before it has been half empty.
    consumer.take(1, 20, false);
    assert_eq!(consumer.queue.full_for(), None);
    while consumer.take(1, usize::MAX, false) {}
    consumer.push(100);
    assert!(consumer.queue.full_for().is_some());
    assert_eq!(assert_adds_up(&consumer.received, consumer.pushed), 100);
}

#[test]
fn at_the_end_every_queue_blocks_while_something_moves() {
    let mut consumer = Consumer::new(10, OnFull::DropOldest, None);
    consumer.push(10);
    assert_eq!(consumer.queue.full_for(), None);
    consumer.queue.be_patient(Duration::from_mins(1));
    assert!(consumer.queue.full_for().is_some());
    let mut consumer = Consumer::new(10, OnFull::Block, Some(Duration::ZERO));
    consumer.push(10);
    assert_eq!(consumer.queue.full_for(), None);
    let patience = Duration::from_millis(50);
    consumer.queue.be_patient(patience);
    assert!(consumer.queue.full_for().is_some());
    thread::sleep(patience);
    assert_eq!(consumer.queue.full_for(), None);
    consumer.take(1, 0, false);
    assert!(consumer.queue.full_for().is_some(), "the sink took something");
}

#[test]
fn a_queue_that_has_ended_counts_what_comes_as_dropped() {
    let mut consumer = Consumer::new(10, OnFull::Block, None);
    consumer.push(8);
    let Work::Write(hand) = consumer.queue.take(1, None) else { panic!("nothing to write") };
    consumer.push(4);
    consumer.queue.end(Err(SinkError::Closed));
    consumer.queue.give_back(hand);
    consumer.push(3);
    let totals = consumer.queue.counts().totals();
    assert_eq!((totals.offered, totals.dropped), (15, 15));
    assert!(matches!(consumer.queue.take(1, None), Work::End));
    assert_eq!(consumer.queue.full_for(), None);
}
