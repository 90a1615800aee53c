//! Pipes that close, and readers that are slow.

use std::{
    io::{PipeReader, Read as _, pipe},
    os::fd::OwnedFd,
};

use super::*;

fn pipe_sink() -> (PipeReader, MakeSink) {
    let (reader, writer) = pipe().expect("a pipe");
    let writer = OwnedFd::from(writer);
    let sink: MakeSink =
        Box::new(|counts| Box::new(FileSink::over(writer, Form::Json, Vec::new(), counts)));
    (reader, sink)
}

fn piped(plan: &Plan) -> (PipeReader, Outputs) {
    let (reader, sink) = pipe_sink();
    (reader, Outputs::over(plan, vec![sink]).expect("a thread"))
}

fn small_queue(on_full: OnFull) -> Plan {
    Plan {
        queue: 300,
        on_full: Some(on_full),
        block_limit: Duration::from_millis(100),
        ..Plan::default()
    }
}

fn read_all(mut reader: PipeReader) -> thread::JoinHandle<Vec<(u64, u64)>> {
    thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        numbers(&text)
    })
}

#[test]
fn all_that_is_pushed_arrives_in_order() {
    let (reader, mut outputs) = piped(&small_queue(OnFull::Block));
    let read = read_all(reader);
    run(push_patiently(&mut outputs, 0..5000));
    let report = end(&mut outputs, PATIENCE).remove(0);
    assert!(matches!(report.ending, Ending::Complete), "{report:?}");
    assert!(report.totals.is_plain());
    drop(outputs);
    let received = read.join().expect("read");
    assert_eq!(received.len(), 5000);
    assert!(received.iter().all(|(_, lost)| *lost == 0));
    assert_eq!(assert_adds_up(&received, 5000), 0);
}

#[test]
fn a_slow_reader_of_a_full_queue_is_told_what_it_did_not_get() {
    for on_full in [OnFull::DropOldest, OnFull::DropNewest, OnFull::Block] {
        let (reader, mut outputs) = piped(&small_queue(on_full));
        run(push_patiently(&mut outputs, 0..2000));
        let before = totals(&outputs);
        assert!(before.dropped > 1000 && before.queued() < 600, "{on_full:?}: {before:?}");
        let read = read_all(reader);
        wait_until("the queue is empty", || totals(&outputs).queued() == 0);
        run(push_patiently(&mut outputs, 2000..2100));
        let after = end(&mut outputs, PATIENCE).remove(0).totals;
        drop(outputs);
        let received = read.join().expect("read");
        assert_eq!(assert_adds_up(&received, 2100), 0, "the last ones came through");
        let told: u64 = received.iter().map(|(_, lost)| lost).sum();
        assert_eq!((after.sent, after.dropped), (received.len() as u64, told), "{on_full:?}");
    }
}

#[test]
fn while_it_may_a_full_queue_drops_nothing() {
    let (reader, mut outputs) =
        piped(&Plan { block_limit: Duration::from_mins(1), ..small_queue(OnFull::Block) });
    push(&mut outputs, 0..500);
    assert!(!outputs.has_room());
    let read = read_all(reader);
    run(outputs.room());
    run(push_patiently(&mut outputs, 500..1000));
    assert!(end(&mut outputs, PATIENCE).remove(0).totals.is_plain());
    drop(outputs);
    assert_eq!(read.join().expect("read").len(), 1000);
}

#[test]
fn one_that_is_stuck_takes_nothing_from_the_others() {
    let (stuck, first) = pipe_sink();
    let (moving, second) = pipe_sink();
    let plan = small_queue(OnFull::Block);
    let mut outputs = Outputs::over(&plan, vec![first, second]).expect("threads");
    let read = read_all(moving);
    run(push_patiently(&mut outputs, 0..3000));
    let reports = end(&mut outputs, Duration::from_millis(100));
    assert!(matches!(reports[0].ending, Ending::Stuck), "{:?}", reports[0]);
    let Totals { offered, sent, dropped, .. } = reports[0].totals;
    assert!(offered == 3000 && sent < 100 && dropped > 2000, "{:?}", reports[0]);
    assert!(matches!(reports[1].ending, Ending::Complete), "{:?}", reports[1]);
    assert!(reports[1].totals.is_plain());
    drop(outputs);
    let received = read.join().expect("read");
    assert_eq!((received.len(), assert_adds_up(&received, 3000)), (3000, 0));
    drop(stuck);
}

#[test]
fn a_consumer_that_has_gone_is_noticed_without_a_write() {
    let (reader, mut outputs) = piped(&Plan::default());
    outputs.look_for_consumers();
    assert!(!outputs.has_ended());
    drop(reader);
    outputs.look_for_consumers();
    assert!(outputs.has_ended());
    run(outputs.ended());
    assert!(matches!(end(&mut outputs, PATIENCE).remove(0).ending, Ending::Closed));
}

#[test]
fn of_two_consumers_one_may_go() {
    let (gone, first) = pipe_sink();
    let (stays, second) = pipe_sink();
    let mut outputs = Outputs::over(&Plan::default(), vec![first, second]).expect("threads");
    let read = read_all(stays);
    push(&mut outputs, 0..10);
    drop(gone);
    run(push_patiently(&mut outputs, 10..1000));
    outputs.look_for_consumers();
    assert!(!outputs.has_ended());
    let reports = end(&mut outputs, PATIENCE);
    assert!(matches!(reports[0].ending, Ending::Closed), "{:?}", reports[0]);
    let Totals { sent, dropped, offered, .. } = reports[0].totals;
    assert!(sent <= 10 && sent + dropped == offered && offered == 1000, "{:?}", reports[0]);
    assert!(reports[1].totals.is_plain());
    drop(outputs);
    assert_eq!(read.join().expect("read").len(), 1000);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (mut reader, mut outputs) = piped(&Plan::default());
    push(&mut outputs, 0..1);
    let mut byte = [0];
    loop {
        reader.read_exact(&mut byte).expect("a line");
        if byte == *b"\n" {
            break;
        }
    }
    drop(reader);
    push(&mut outputs, 1..2);
    run(outputs.ended());
    let report = end(&mut outputs, PATIENCE).remove(0);
    assert!(matches!(report.ending, Ending::Closed), "{report:?}");
    assert_eq!((report.totals.sent, report.totals.dropped), (1, 1));
}

#[test]
fn a_pipe_that_closes_inside_a_line_counts_the_complete_ones() {
    let (mut reader, mut outputs) = piped(&Plan::default());
    // More than a pipe holds (64 KiB).
    push(&mut outputs, 0..100);
    let mut some = vec![0; 10_000];
    reader.read_exact(&mut some).expect("bytes");
    thread::sleep(Duration::from_millis(100));
    let mut rest = vec![0; 60_000];
    let read = reader.read(&mut rest).expect("bytes");
    drop(reader);
    run(outputs.ended());
    let report = end(&mut outputs, PATIENCE).remove(0);
    let text = [&some[..], &rest[..read]].concat();
    let read = text.split(|byte| *byte == b'\n').count() as u64 - 1;
    let Totals { sent, dropped, .. } = report.totals;
    assert!(sent >= read && sent + dropped == 100, "{read} read: {report:?}");
}

#[test]
fn a_reader_that_reads_no_more_is_not_waited_for() {
    let (reader, mut outputs) = piped(&Plan::default());
    push(&mut outputs, 0..1000);
    let report = end(&mut outputs, Duration::from_millis(50)).remove(0);
    assert!(matches!(report.ending, Ending::Stuck), "{report:?}");
    let Totals { offered, sent, .. } = report.totals;
    assert!(offered == 1000 && sent < 100, "{report:?}");
    drop(reader);
}
