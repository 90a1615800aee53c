//! The pump between a kernel that is made up and consumers of all kinds.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{PipeReader, Read as _, pipe},
    os::fd::OwnedFd,
    rc::Rc,
    thread,
};

use agent_common::{
    counters::Counters,
    record::{Reason, Record},
    sweep::{SweepReport, SweepRequest},
};
use bytemuck::Zeroable as _;

use super::{pump::Source, *};
use crate::{
    settings,
    sink::{FileSink, Form, Plan, Totals},
};

/// A flow table and a ring that holds few records.
struct FakeKernel {
    ring: VecDeque<Record>,
    room: usize,
    flows: u64,
    counters: Counters,
    sweeps: Rc<Cell<u64>>,
    /// Packets still inside the program as it is detached: a flow that comes after the first sweep.
    late: u64,
}

impl FakeKernel {
    fn new(flows: u64, room: usize) -> Self {
        Self {
            ring: VecDeque::new(),
            room,
            flows,
            counters: Counters { flows, ..Counters::default() },
            sweeps: Rc::default(),
            late: 0,
        }
    }

    /// A record, if the ring has room for it.
    fn emit(&mut self, reason: Reason) -> bool {
        if self.ring.len() == self.room {
            self.counters.ring_full += 1;
            return false;
        }
        let mut record = Record::zeroed();
        record.key.version = 4;
        record.key.ifindex = 3;
        record.reason = reason as u32;
        record.sums.lengths[0].packets = 1;
        record.summary.seq = self.counters.vectors as u32;
        self.counters.vectors += 1;
        self.ring.push_back(record);
        true
    }
}

impl Source for FakeKernel {
    fn sweep(&mut self, request: &SweepRequest) -> Result<SweepReport> {
        self.sweeps.set(self.sweeps.get() + 1);
        let mut report = SweepReport::zeroed();
        if request.stop == 1 {
            while self.flows > 0 && self.emit(Reason::Stop) {
                self.flows -= 1;
                report.ended += 1;
            }
            report.waiting = self.flows;
        } else if request.evict_after_us < u64::MAX {
            report.ended = self.flows.min(50);
            self.flows -= report.ended;
        }
        report.flows = self.flows;
        report.ages[60] = u32::try_from(self.flows)?;
        self.flows += std::mem::take(&mut self.late);
        Ok(report)
    }

    fn drain(&mut self, budget: usize, each: &mut dyn FnMut(&Record)) -> Result<usize> {
        let count = budget.min(self.ring.len());
        self.ring.drain(..count).for_each(|record| each(&record));
        Ok(count)
    }

    fn counters(&self) -> Result<Counters> {
        Ok(self.counters)
    }
}

fn pump(kernel: FakeKernel, writer: impl Into<OwnedFd>) -> Pump<FakeKernel> {
    let settings = settings::tests::options().check().expect("settings");
    let settings = Settings { max_flows: 100, ..settings };
    // Small enough to fill, and not patient.
    let plan =
        Plan { queue: 1024, block_limit: Duration::from_mins(1), ..settings.outputs.clone() };
    let writer = writer.into();
    let outputs = Outputs::over(
        &plan,
        vec![Box::new(|counts| Box::new(FileSink::over(writer, Form::Json, Vec::new(), counts)))],
    );
    let mut pump = Pump::new(kernel, outputs.expect("a thread"), &settings, Status::Never);
    pump.names.insert(3, "test\"0");
    pump
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// Counts lines until the other end closes; each must carry the number it has in order.
fn reader(mut reader: PipeReader) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        for (number, line) in text.lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(line["seq"].as_u64(), Some(number as u64));
            assert_eq!(line["iface"], "test\"0");
        }
        text.lines().count() as u64
    })
}

fn report<S: Source>(pump: &Pump<S>) -> Report {
    let counters = pump.source.counters().expect("counters");
    let totals = |(name, totals): (&str, Totals)| (name.to_owned(), totals);
    let outputs = pump.outputs.totals().map(totals).collect();
    Report {
        hook: settings::HookChoice::Tc,
        counters,
        calls: None,
        taken: pump.outputs.taken(),
        ring_is_left: false,
        outputs,
    }
}

/// Ends the output, and tells how that went.
async fn finish<S>(pump: &mut Pump<S>, patience: Duration) -> Ending {
    pump.outputs.finish(patience).await;
    pump.outputs.reports().remove(0).ending
}

#[test]
fn at_the_end_every_flow_speaks_through_a_ring_that_is_too_small() {
    let (from, to) = pipe().expect("a pipe");
    let lines = reader(from);
    let mut kernel = FakeKernel::new(5_000, 300);
    kernel.late = 2;
    let sweeps = Rc::clone(&kernel.sweeps);
    let mut pump = pump(kernel, to);
    run(async {
        pump.stop(PATIENCE).await.expect("stopped");
        assert!(matches!(finish(&mut pump, PATIENCE).await, Ending::Complete));
    });
    assert!(sweeps.get() > 5_002 / 300);
    let report = report(&pump);
    assert_eq!((report.written(), report.lost()), (5_002, 0));
    assert_eq!(lines.join().expect("lines"), 5_002);
}

#[test]
fn a_slow_consumer_leaves_records_in_the_ring() {
    let (from, to) = pipe().expect("a pipe");
    let mut kernel = FakeKernel::new(0, 1_000_000);
    (0..20_000).for_each(|_| assert!(kernel.emit(Reason::Stride)));
    let mut pump = pump(kernel, to);
    run(async {
        let mut ring = Ring::More;
        while ring != Ring::NoRoom {
            ring = pump.drain().expect("drained");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(pump.source.ring.len() > 10_000, "{} left", pump.source.ring.len());
        pump.sweep().expect("a sweep does not wait");
        let lines = reader(from);
        while ring != Ring::Empty {
            pump.outputs.room().await;
            ring = pump.drain().expect("drained");
        }
        assert!(matches!(finish(&mut pump, PATIENCE).await, Ending::Complete));
        assert_eq!(lines.join().expect("lines"), 20_000);
    });
    assert_eq!(report(&pump).lost(), 0);
}

#[test]
fn a_consumer_that_goes_loses_what_is_counted_as_lost() {
    let (mut from, to) = pipe().expect("a pipe");
    let mut pump = pump(FakeKernel::new(3_000, 100), to);
    run(async {
        pump.source.emit(Reason::Stride);
        pump.drain().expect("drained");
        let mut line = [0; 100];
        from.read_exact(&mut line).expect("a line");
        drop(from);
        pump.outputs.look_for_consumers();
        assert!(pump.outputs.has_ended());
        pump.stop(PATIENCE).await.expect("stopped");
        assert!(matches!(finish(&mut pump, PATIENCE).await, Ending::Closed));
    });
    let report = report(&pump);
    assert_eq!((report.written(), report.lost()), (1, 3_000));
}

#[test]
fn a_consumer_that_takes_nothing_is_given_up() {
    let (from, to) = pipe().expect("a pipe");
    let mut pump = pump(FakeKernel::new(20_000, 100_000), to);
    run(async {
        let patience = Duration::from_millis(100);
        pump.stop(patience).await.expect("stopped");
        assert!(matches!(finish(&mut pump, patience).await, Ending::Stuck));
    });
    let report = report(&pump);
    assert_eq!(report.written() + report.lost(), 20_000);
    assert!(report.lost() > 10_000);
    drop(from);
}

#[test]
fn an_empty_table_is_not_walked_until_a_flow_has_begun() {
    let (_from, to) = pipe().expect("a pipe");
    let kernel = FakeKernel::new(0, 10);
    let sweeps = Rc::clone(&kernel.sweeps);
    let mut pump = pump(kernel, to);
    pump.sweep().expect("no sweep");
    assert_eq!(sweeps.get(), 0);
    (pump.source.flows, pump.source.counters.flows) = (1, 1);
    pump.sweep().expect("a sweep");
    pump.sweep().expect("another: the flow is still there");
    assert_eq!(sweeps.get(), 2);
    pump.source.flows = 0;
    pump.sweep().expect("one that finds the table empty");
    pump.sweep().expect("none");
    assert_eq!(sweeps.get(), 3);
}

#[test]
fn a_crowded_table_gets_room_at_once() {
    let (_from, to) = pipe().expect("a pipe");
    let kernel = FakeKernel::new(90, 100);
    let sweeps = Rc::clone(&kernel.sweeps);
    let mut pump = pump(kernel, to);
    pump.sweep().expect("a sweep");
    assert_eq!((sweeps.get(), pump.source.flows), (2, 40));
    pump.sweep().expect("a sweep");
    assert_eq!((sweeps.get(), pump.source.flows), (3, 40));
}

#[test]
fn a_table_that_cannot_be_emptied_is_an_error() {
    let (_from, to) = pipe().expect("a pipe");
    let mut pump = pump(FakeKernel::new(1, 0), to);
    let error = run(pump.stop(PATIENCE)).expect_err("stuck").to_string();
    assert!(error.starts_with("1 flows do not leave the table"), "{error}");
}
