//! Pipes that close, disks that are full, readers that are slow: every vector is counted.

use std::{
    fs,
    io::{PipeReader, Read as _, pipe},
    path::PathBuf,
    thread,
    time::Duration,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn batch(vectors: u64, line: &str) -> Batch {
    let lines = format!("{line}\n").repeat(vectors as usize).into_bytes();
    Batch { lines, vectors }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn piped() -> (PipeReader, Output) {
    let (reader, writer) = pipe().expect("a pipe");
    let sink = StreamSink::from(OwnedFd::from(writer));
    (reader, Output::start(Box::new(sink)).expect("a thread"))
}

/// A path of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("feature-agent-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn all_that_is_sent_arrives_in_order() {
    let (mut reader, mut output) = piped();
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("UTF-8");
        text
    });
    run(async {
        for number in 0..1000 {
            output.room().await;
            let mut next = output.batch();
            assert!(next.lines.is_empty());
            next.lines.extend_from_slice(format!("{number}\n").as_bytes());
            next.vectors = 1;
            output.send(next).expect("there is room");
        }
        let ending = output.finish(PATIENCE).await;
        assert!(matches!(ending, Ending::Complete), "{ending:?}");
        assert_eq!(output.written(), 1000);
    });
    let numbers: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(read.join().expect("read").lines().collect::<Vec<_>>(), numbers);
}

#[test]
fn a_slow_reader_fills_the_queue_and_nothing_is_dropped() {
    let (mut reader, mut output) = piped();
    run(async {
        let mut sent = 0;
        let line = "x".repeat(1000);
        // The pipe, the batch in hand and the queue fill up.
        for _ in 0..1000 {
            if !output.has_room() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if !output.has_room() {
                    break;
                }
            }
            output.send(batch(100, &line)).expect("there is room");
            sent += 100;
        }
        assert!(!output.has_room(), "the queue has no end");
        assert_eq!(output.send(batch(1, &line)), Err(batch(1, &line)));
        assert!(output.written() < sent);
        let read = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).expect("bytes");
            memchr::memchr_iter(b'\n', &bytes).count() as u64
        });
        output.room().await;
        let ending = output.finish(PATIENCE).await;
        assert!(matches!(ending, Ending::Complete), "{ending:?}");
        assert_eq!(output.written(), sent);
        assert_eq!(read.join().expect("read"), sent);
    });
}

#[test]
fn a_consumer_that_has_gone_is_noticed_without_a_write() {
    let (reader, output) = piped();
    assert!(!output.consumer_gone());
    drop(reader);
    assert!(output.consumer_gone());
    assert!(!output.has_ended());
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (mut reader, mut output) = piped();
    run(async {
        output.send(batch(1, "first")).expect("there is room");
        let mut first = [0; 6];
        reader.read_exact(&mut first).expect("a line");
        drop(reader);
        output.send(batch(1, "second")).expect("there is room");
        output.ended().await;
        assert!(output.has_ended());
        let ending = output.finish(PATIENCE).await;
        assert!(matches!(ending, Ending::Closed), "{ending:?}");
        assert_eq!(output.written(), 1);
    });
}

#[test]
fn a_pipe_that_closes_inside_a_line_counts_the_complete_ones() {
    let (mut reader, mut output) = piped();
    run(async {
        // Larger than a pipe holds (64 KiB): the second batch is out in part when the reader goes.
        output.send(batch(3, "short")).expect("there is room");
        output.send(batch(2, &"y".repeat(100_000))).expect("there is room");
        let mut some = [0; 18 + 10];
        reader.read_exact(&mut some).expect("bytes");
        drop(reader);
        output.ended().await;
        let ending = output.finish(PATIENCE).await;
        assert!(matches!(ending, Ending::Closed), "{ending:?}");
        assert_eq!(output.written(), 3);
    });
}

#[test]
fn a_full_disk_is_an_error() {
    let sink = open(&settings::Output::File("/dev/full".into())).expect("/dev/full opens");
    let mut output = Output::start(sink).expect("a thread");
    run(async {
        output.send(batch(7, "x")).expect("there is room");
        output.ended().await;
        let ending = output.finish(PATIENCE).await;
        let Ending::Failed(error) = ending else { panic!("{ending:?}") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(output.written(), 0);
    });
}

#[test]
fn a_reader_that_reads_no_more_is_not_waited_for() {
    let (reader, mut output) = piped();
    run(async {
        output.send(batch(1, "out")).expect("there is room");
        output.send(batch(1, &"z".repeat(200_000))).expect("there is room");
        let patience = Duration::from_millis(50);
        let ending = output.finish(patience).await;
        assert!(matches!(ending, Ending::Stuck), "{ending:?}");
        assert_eq!(output.written(), 1);
    });
    drop(reader);
}

#[test]
fn a_file_is_appended_to_and_a_broken_line_ended() {
    let scratch = Scratch::new("append");
    let write = |line: &str| {
        let sink = open(&settings::Output::File(scratch.0.clone())).expect("a file");
        let mut output = Output::start(sink).expect("a thread");
        assert!(!output.consumer_gone());
        output.send(batch(1, line)).expect("there is room");
        let ending = run(output.finish(PATIENCE));
        assert!(matches!(ending, Ending::Complete), "{ending:?}");
        assert_eq!(output.written(), 1);
    };
    write("one");
    write("two");
    fs::write(&scratch.0, "one\ntwo\nbrok").expect("a file");
    write("three");
    let text = fs::read_to_string(&scratch.0).expect("a file");
    assert_eq!(text, "one\ntwo\nbrok\nthree\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = open(&settings::Output::File("/nowhere/x.jsonl".into())).err().expect("no folder");
    let text = format!("{error:#}");
    assert!(text.starts_with("cannot open /nowhere/x.jsonl for writing: No such file"), "{text}");
}
