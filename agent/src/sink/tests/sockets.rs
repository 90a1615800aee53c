//! Consumers that connect, read slowly, go and come.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::{UnixListener, UnixStream},
};

use super::*;

fn listening(scratch: &Scratch, queue: usize) -> (String, Outputs) {
    let path = scratch.path("features.sock");
    let plan = Plan { queue, ..plan(&[&format!("unix:{path}")]) };
    (path, Outputs::start(&plan).expect("a socket"))
}

fn connect(path: &str, outputs: &Outputs) -> UnixStream {
    let before = totals(outputs).consumers;
    let stream = UnixStream::connect(path).expect("connected");
    wait_until("the consumer is known", || totals(outputs).consumers > before);
    stream
}

/// Reads to the end, each line with a pause before it.
fn read_all(stream: UnixStream, pause: Duration) -> thread::JoinHandle<Vec<(u64, u64)>> {
    thread::spawn(move || {
        let mut text = String::new();
        for line in BufReader::new(stream).lines() {
            text.push_str(&line.expect("UTF-8"));
            text.push('\n');
            thread::sleep(pause);
        }
        numbers(&text)
    })
}

#[test]
fn each_consumer_gets_what_is_made_from_then_on() {
    let scratch = Scratch::new("join");
    let (path, mut outputs) = listening(&scratch, 10_000);
    push(&mut outputs, 0..10);
    let first = read_all(connect(&path, &outputs), Duration::ZERO);
    push(&mut outputs, 10..1000);
    let second = read_all(connect(&path, &outputs), Duration::ZERO);
    push(&mut outputs, 1000..3000);
    let report = end(&mut outputs, PATIENCE).remove(0);
    assert!(matches!(report.ending, Ending::Complete), "{report:?}");
    assert!(!fs::exists(&path).expect("known"), "the socket's file is removed");
    for (reader, from) in [(first, 10), (second, 1000)] {
        let received = reader.join().expect("read");
        let expected: Vec<_> = (from..3000).map(|number| (number, 0)).collect();
        assert_eq!(received, expected);
    }
    let Totals { offered, sent, dropped, unheard, .. } = report.totals;
    assert_eq!((offered, sent, dropped, unheard), (10 + 2990 + 2000, 4990, 10, 10));
}

#[test]
fn one_that_is_slow_or_goes_is_its_own_affair() {
    let scratch = Scratch::new("slow");
    let (path, mut outputs) = listening(&scratch, 500);
    let fast = read_all(connect(&path, &outputs), Duration::ZERO);
    let slow = read_all(connect(&path, &outputs), Duration::from_micros(200));
    let mut dying = connect(&path, &outputs);
    let stuck = connect(&path, &outputs);
    for part in 0..100 {
        push(&mut outputs, part * 100..(part + 1) * 100);
        thread::sleep(Duration::from_millis(5));
        if part == 50 {
            let mut bytes = [0; 1000];
            dying.read_exact(&mut bytes).expect("bytes");
            dying.shutdown(std::net::Shutdown::Both).expect("gone");
        }
    }
    let report = end(&mut outputs, Duration::from_millis(500)).remove(0);
    assert!(matches!(report.ending, Ending::Closed), "one was stuck: {report:?}");
    let fast = fast.join().expect("read");
    assert_eq!((fast.len(), assert_adds_up(&fast, 10_000)), (10_000, 0));
    drop((dying, stuck, outputs));
    let slow = slow.join().expect("read");
    assert!(slow.len() < 10_000, "it was not slow");
    assert!(slow.iter().any(|(_, lost)| *lost > 0), "it was not told");
    // It had all that was queued, or the agent was gone before it had.
    assert_adds_up(&slow, 10_000);
    let Totals { offered, sent, dropped, .. } = report.totals;
    assert!(offered > 30_000 && sent >= fast.len() as u64 && dropped > 0, "{report:?}");
}

#[test]
fn one_that_has_gone_is_forgotten() {
    let scratch = Scratch::new("leave");
    let (path, mut outputs) = listening(&scratch, 100);
    drop(connect(&path, &outputs));
    wait_until("it is forgotten", || {
        push(&mut outputs, 0..1);
        totals(&outputs).consumers == 0
    });
    push(&mut outputs, 0..7);
    let before = totals(&outputs).unheard;
    push(&mut outputs, 0..7);
    assert_eq!(totals(&outputs).unheard, before + 7);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new("stale");
    let path = scratch.path("features.sock");
    let plan = plan(&[&format!("unix:{path}")]);
    // Dropping a listener leaves its file, as a process that is killed does.
    drop(UnixListener::bind(&path).expect("bound"));
    let outputs = Outputs::start(&plan).expect("the stale socket is replaced");
    drop(connect(&path, &outputs));
    let error = Outputs::start(&plan).expect_err("in use").to_string();
    assert_eq!(error, format!("cannot listen at {path}: another process does"));
    assert!(fs::exists(&path).expect("known"));
    drop(outputs);
    assert!(!fs::exists(&path).expect("known"));
    fs::write(&path, "a file").expect("a file");
    let error = Outputs::start(&plan).expect_err("a file").to_string();
    assert_eq!(error, format!("cannot listen at {path}: there is a file that is no socket"));
}

#[test]
fn every_consumer_of_csv_gets_the_names_first() {
    let scratch = Scratch::new("csv");
    let path = scratch.path("features.sock");
    let plan = Plan { format: Format::Csv, ..plan(&[&format!("unix:{path}")]) };
    let mut outputs = Outputs::start(&plan).expect("a socket");
    let streams = [connect(&path, &outputs), connect(&path, &outputs)];
    push(&mut outputs, 0..5);
    end(&mut outputs, PATIENCE);
    for mut stream in streams {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("UTF-8");
        assert!(text.starts_with("schema,ts,iface,"), "{text}");
        assert_eq!(text.matches("\r\n").count(), 6);
    }
}
