//! Files that are appended to, moved, rotated, full, or pipes.

use std::{fs::OpenOptions, io::Read as _, path::Path, process::Command, time::SystemTime};

use super::*;
use crate::sink::rotate::{compressed, dated};

fn write(path: &str, numbers: std::ops::Range<u64>) -> SinkReport {
    let mut outputs = Outputs::start(&plan(&[path])).expect("a file");
    outputs.look_for_consumers();
    push(&mut outputs, numbers);
    end(&mut outputs, PATIENCE).remove(0)
}

#[test]
fn a_file_is_appended_to_and_a_broken_line_ended() {
    let scratch = Scratch::new("append");
    let path = scratch.path("x.jsonl");
    for number in 0..2 {
        let report = write(&path, number..number + 1);
        assert!(matches!(report.ending, Ending::Complete), "{report:?}");
        assert_eq!(report.totals.sent, 1);
    }
    let mut text = fs::read_to_string(&path).expect("a file");
    assert_eq!(numbers(&text), [(0, 0), (1, 0)]);
    text.push_str("brok");
    fs::write(&path, &text).expect("a file");
    write(&path, 2..3);
    let all = fs::read_to_string(&path).expect("a file");
    let last = all.strip_prefix(&format!("{text}\n")).expect("what was there, and a line's end");
    assert_eq!(numbers(last), [(2, 0)]);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = Outputs::start(&plan(&["/nowhere/x.jsonl"])).expect_err("no folder");
    let text = format!("{error:#}");
    assert!(text.starts_with("cannot open /nowhere/x.jsonl for writing: No such file"), "{text}");
}

#[test]
fn a_full_disk_is_tried_again_and_holds_up_nobody() {
    let scratch = Scratch::new("full");
    let path = scratch.path("x.jsonl");
    let mut plan = plan(&["/dev/full", &path]);
    (plan.queue, plan.block_limit) = (200, Duration::from_millis(50));
    let mut outputs = Outputs::start(&plan).expect("files");
    run(push_patiently(&mut outputs, 0..2000));
    wait_until("a second try", || totals(&outputs).errors >= 2);
    let reports = end(&mut outputs, PATIENCE);
    let [full, fine] = &reports[..] else { panic!("two outputs") };
    let Ending::Failed(error) = &full.ending else { panic!("{full:?}") };
    let kind = error.root_cause().downcast_ref().map(io::Error::kind);
    assert_eq!(kind, Some(io::ErrorKind::StorageFull));
    assert_eq!((full.totals.offered, full.totals.sent, full.totals.dropped), (2000, 0, 2000));
    assert!(fine.totals.is_plain(), "{fine:?}");
    let text = fs::read_to_string(&path).expect("a file");
    assert_eq!(assert_adds_up(&numbers(&text), 2000), 0);
}

#[test]
fn a_file_that_was_moved_is_opened_again_when_asked() {
    let scratch = Scratch::new("reopen");
    let (path, moved) = (scratch.path("x.csv"), scratch.path("x.csv.1"));
    let plan = Plan { format: Format::Csv, ..plan(&[&path]) };
    let mut outputs = Outputs::start(&plan).expect("a file");
    push(&mut outputs, 0..10);
    wait_until("all is out", || totals(&outputs).sent == 10);
    fs::rename(&path, &moved).expect("moved");
    push(&mut outputs, 10..20);
    wait_until("all is out", || totals(&outputs).sent == 20);
    outputs.reopen();
    wait_until("there is a new file", || fs::exists(&path).expect("known"));
    push(&mut outputs, 20..30);
    end(&mut outputs, PATIENCE);
    let lines = |path| fs::read_to_string(path).expect("a file").lines().count();
    assert_eq!((lines(&moved), lines(&path)), (1 + 20, 1 + 10));
    for path in [&moved, &path] {
        let text = fs::read_to_string(path).expect("a file");
        assert!(text.starts_with("schema,ts,iface,"), "{text}");
        assert_eq!(text.matches("schema,ts").count(), 1);
    }
}

#[test]
fn files_are_rotated_between_lines_and_compressed() {
    let scratch = Scratch::new("rotate");
    let path = scratch.path("x.jsonl");
    let rotation = Rotation { size: Some(200_000), age: None, zstd: true };
    let plan = Plan { rotation, ..plan(&[&path]) };
    let mut outputs = Outputs::start(&plan).expect("a file");
    run(push_patiently(&mut outputs, 0..1000));
    assert!(end(&mut outputs, PATIENCE).remove(0).totals.is_plain());
    drop(outputs);
    let names = scratch.names();
    assert!(names.len() > 3, "{names:?}");
    let mut all = Vec::new();
    for name in &names {
        let bytes = fs::read(scratch.path(name)).expect("a file");
        let bytes = if name == "x.jsonl" {
            bytes
        } else {
            let form = name.strip_prefix("x-20").and_then(|rest| rest.strip_suffix("Z.jsonl.zst"));
            assert!(form.is_some(), "{name}");
            assert!(bytes.len() < 100_000, "{name} has {} bytes", bytes.len());
            zstd::decode_all(&bytes[..]).expect("zstd")
        };
        assert!(bytes.len() < 300_000, "{name} is of {} bytes", bytes.len());
        all.push(numbers(str::from_utf8(&bytes).expect("UTF-8")));
    }
    // Names sort as the files came: `x-…`, the older ones, before `x.jsonl`.
    let all = all.concat();
    assert!(all.is_sorted());
    assert_eq!((all.len(), assert_adds_up(&all, 1000)), (1000, 0));
}

#[test]
fn files_of_one_millisecond_have_names_in_their_order() {
    let scratch = Scratch::new("dated");
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_765_374_848);
    for time in ["54.848", "54.849", "54.850"] {
        let path = dated(Path::new(&scratch.path("x.jsonl")), at);
        assert_eq!(path, Path::new(&scratch.path(&format!("x-20261127T0742{time}Z.jsonl"))));
        // A name is also taken by its file's compressed form.
        fs::write(if time == "54.848" { compressed(&path) } else { path }, "").expect("a file");
    }
}

#[test]
fn an_old_file_is_closed_also_if_nothing_comes() {
    let scratch = Scratch::new("age");
    let path = scratch.path("x.jsonl");
    let rotation = Rotation { age: Some(Duration::from_millis(200)), ..Rotation::default() };
    let mut outputs = Outputs::start(&Plan { rotation, ..plan(&[&path]) }).expect("a file");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(scratch.names(), ["x.jsonl"], "an empty file stays");
    push(&mut outputs, 0..1);
    wait_until("it is closed", || scratch.names().len() == 2);
    end(&mut outputs, PATIENCE);
    assert_eq!(fs::read(&path).expect("a file"), b"");
}

#[test]
fn a_named_pipe_waits_for_its_reader_and_for_the_next() {
    let scratch = Scratch::new("fifo");
    let path = scratch.path("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let mut plan = plan(&[&path]);
    (plan.queue, plan.on_full) = (50, Some(OnFull::DropOldest));
    let mut outputs = Outputs::start(&plan).expect("a pipe without a reader");
    push(&mut outputs, 0..100);
    assert_eq!(totals(&outputs).sent, 0);
    let mut made = 100;
    let mut received = Vec::new();
    for _ in 0..2 {
        let mut reader = OpenOptions::new().read(true).open(&path).expect("the pipe");
        // The reader has all of it before it goes: what it leaves in a pipe is gone with it.
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while !String::from_utf8_lossy(&text).contains(&format!("\"seq\":{},", made - 1)) {
            let count = reader.read(&mut buffer).expect("bytes");
            text.extend_from_slice(&buffer[..count]);
        }
        assert!(text.ends_with(b"\n"));
        received.extend(numbers(str::from_utf8(&text).expect("UTF-8")));
        drop(reader);
        let errors = totals(&outputs).errors;
        // What is tried in vain goes back, to a queue that is not full yet.
        push(&mut outputs, made..made + 1);
        wait_until("the reader's end is noticed", || totals(&outputs).errors > errors);
        run(push_patiently(&mut outputs, made + 1..made + 100));
        made += 100;
    }
    let report = end(&mut outputs, PATIENCE).remove(0);
    let behind = assert_adds_up(&received, made);
    assert_eq!(received.len(), 100, "twice the queue's capacity: {received:?}");
    let Totals { sent, dropped, reconnects, .. } = report.totals;
    assert_eq!((sent, dropped), (100, made - 100));
    assert!(behind == 100 && reconnects >= 1, "{report:?}");
    assert!(matches!(report.ending, Ending::Failed(_)), "{report:?}");
}

#[test]
fn one_who_can_wait_gets_everything_out_through_a_small_queue() {
    let scratch = Scratch::new("blocking");
    let path = scratch.path("x.jsonl");
    let plan = Plan { queue: 1, ..plan(&[&path]) };
    let mut outputs = Blocking::start(&plan).expect("a file");
    for number in 0..3000 {
        outputs.write(&numbered(number), &Context::new("eth0", 0)).expect("written");
    }
    let report = outputs.finish().remove(0);
    assert!(matches!(report.ending, Ending::Complete) && report.totals.is_plain(), "{report:?}");
    let text = fs::read_to_string(&path).expect("a file");
    let received = numbers(&text);
    assert_eq!((received.len(), assert_adds_up(&received, 3000)), (3000, 0));
}

#[test]
fn one_who_can_wait_is_told_of_an_error() {
    let mut outputs = Blocking::start(&plan(&["/dev/full"])).expect("a file");
    let failed = (0..100_000)
        .find_map(|number| outputs.write(&numbered(number), &Context::new("x", 0)).err());
    let text = failed.expect("an error").to_string();
    assert!(text.starts_with("/dev/full: No space left"), "{text}");
    let error = Blocking::start(&plan(&["unix:/tmp/x"])).expect_err("a socket").to_string();
    assert!(error.starts_with("unix:/tmp/x is for a live stream"), "{error}");
}
