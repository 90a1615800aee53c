//! Many vectors through each sink: every one is received, or counted and told about.
//!
//! A few thousand in the ordinary tests; `cargo xtask endurance` has it do ten million, a day's worth of a busy host.

#[cfg(feature = "kafka")]
mod kafka;

use std::{
    env, fs,
    fs::File,
    io::{BufRead as _, BufReader, Read, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use feature_agent::sink::{BATCH, Ending, Format, OnFull, Outputs, Plan, Rotation, Totals};
use feature_agent_tests::{
    columns,
    inject::wait_until,
    nats::NatsServer,
    vectors::{Tally, Vectors, run},
};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::dup2_stdout,
};
use serde_json::json;

/// Says how many vectors; then everything takes longer, and is told.
const VECTORS: &str = "FEATURE_AGENT_ENDURANCE";
/// In the ordinary tests.
const A_FEW: u64 = 20_000;
/// How long a consumer may take for the last ones.
const PATIENCE: Duration = Duration::from_mins(1);
/// Vectors that a subscriber may be behind before its server cuts it off, and tells nobody.
const FAR_BEHIND: u64 = 50_000;
/// A file that is read is given back to the disk in pieces of this size.
const PIECE: u64 = 64 << 20;

fn vectors() -> u64 {
    env::var(VECTORS).map_or(A_FEW, |text| text.parse().expect("a number of vectors"))
}

/// A folder of a test's own, on a disk: gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = place.join(format!("endurance-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a consumer reads along, line by line.
fn read_lines(from: impl Read, received: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    let mut reader = BufReader::with_capacity(1 << 17, from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).expect("bytes") > 0 {
        assert_eq!(line.last(), Some(&b'\n'), "a whole line");
        // The names that CSV begins with; and the harness's word about another test, while standard output is ours.
        if !line.starts_with(b"schema,") && !line.starts_with(b"test ") {
            tally.line(&line);
            received.store(tally.received, Ordering::Relaxed);
        }
        line.clear();
    }
    tally
}

/// A file that is written while it is read: at its end it waits, and what was read is given back to the disk.
struct Growing {
    file: File,
    read: u64,
    freed: u64,
    ended: Arc<AtomicBool>,
}

impl Read for Growing {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            let count = self.file.read(bytes)?;
            self.read += count as u64;
            if self.read - self.freed >= PIECE {
                let flags =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(&self.file, flags, self.freed.cast_signed(), PIECE.cast_signed())?;
                self.freed += PIECE;
            }
            if count > 0 || ended {
                return Ok(count);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// How a sink is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Everything waits for it: nothing may be lost.
    Patient,
    /// As fast as vectors are made: its queue overflows, and what is lost is counted.
    Flood,
}

/// A running consumer.
struct Consumer {
    received: Arc<AtomicU64>,
    thread: JoinHandle<Tally>,
    /// Set when everything is out.
    ended: Arc<AtomicBool>,
    /// Between the sink and the consumer.
    server: Option<NatsServer>,
    /// How many vectors it may be behind those that are made.
    leash: u64,
}

impl Consumer {
    fn start(work: impl FnOnce(&AtomicU64, Arc<AtomicBool>) -> Tally + Send + 'static) -> Self {
        let (received, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&received), Arc::clone(&ended));
        let thread = thread::spawn(move || work(&count, end));
        Self { received, ended, thread, server: None, leash: u64::MAX }
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits for a consumer that is far behind.
    async fn keep_up(&self, made: u64, outputs: &Outputs) {
        while made - self.received() - totals(outputs).dropped > self.leash {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Everything is out, so many vectors: what it got.
    fn end(self, sent: u64) -> Tally {
        self.ended.store(true, Ordering::Release);
        if let Some(mut server) = self.server {
            let received = || self.received.load(Ordering::Relaxed);
            assert!(wait_until(PATIENCE, || received() >= sent), "{} of {sent}", received());
            server.kill();
        }
        self.thread.join().expect("a consumer")
    }
}

fn plan(target: &str, pace: Pace) -> Plan {
    let on_full = match pace {
        Pace::Patient => OnFull::Block,
        Pace::Flood => OnFull::DropOldest,
    };
    Plan {
        targets: vec![target.parse().expect("an output")],
        on_full: Some(on_full),
        // A sink that is slower than vectors are made may hold them up for all of the time.
        block_limit: Duration::from_hours(24),
        ..Plan::default()
    }
}

fn totals(outputs: &Outputs) -> Totals {
    outputs.totals().next().expect("an output").1
}

/// Pushes the vectors, and holds what was received against what was counted.
fn endure(name: &str, mut outputs: Outputs, pace: Pace, consumer: Consumer) {
    let (mut vectors, all) = (Vectors::new(&["eth0"]), vectors());
    let start = Instant::now();
    run(async {
        while vectors.made() < all {
            let some = (all - vectors.made()).min(BATCH as u64);
            match pace {
                Pace::Patient => vectors.push_patiently(&mut outputs, some).await,
                Pace::Flood => vectors.push(&mut outputs, some),
            }
            consumer.keep_up(vectors.made(), &outputs).await;
        }
        outputs.finish(PATIENCE).await;
    });
    let report = outputs.reports().remove(0);
    let Totals { offered, sent, dropped, errors, .. } = report.totals;
    assert!(
        matches!(report.ending, Ending::Complete),
        "{name}: {}, {}",
        report.ending,
        report.totals
    );
    assert_eq!((offered, errors), (all, 0), "{name}: {}", report.totals);
    drop(outputs);
    let tally = consumer.end(sent);
    let took = start.elapsed().as_secs_f64();
    assert_eq!(tally.received + tally.told + tally.behind(all), all, "{name}: {tally:?}");
    assert_eq!((tally.received, tally.told), (sent, dropped), "{name}: {tally:?}");
    match pace {
        Pace::Patient => assert_eq!(dropped, 0, "{name}: everything waits for it"),
        Pace::Flood => assert!(sent > 0, "{name}: nothing came through"),
    }
    if env::var_os(VECTORS).is_some() {
        let rate = all as f64 / took;
        let counts = format!("{sent} received, {dropped} dropped and told");
        eprintln!("{name}: {all} vectors in {took:.1} s, {rate:.0}/s: {counts}");
    }
}

/// Lines of a pipe that is the process's standard output for a moment.
fn through_stdout(name: &str, format: Format, pace: Pace) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let before = std::io::stdout().as_fd().try_clone_to_owned().expect("a descriptor");
    std::io::stdout().flush().expect("flushed");
    dup2_stdout(&writer).expect("another standard output");
    let outputs = Outputs::start(&Plan { format, ..plan("-", pace) });
    dup2_stdout(&before).expect("the former standard output");
    drop(writer);
    let consumer = Consumer::start(move |received, _| read_lines(reader, received));
    endure(name, outputs.expect("an output"), pace, consumer);
}

fn through_file(name: &str, format: Format) {
    let folder = Folder::new(&name.replace([' ', ','], "-"));
    let path = folder.path("vectors");
    let outputs = Outputs::start(&Plan { format, ..plan(&path, Pace::Patient) }).expect("a file");
    let file = File::options().read(true).write(true).open(&path).expect("the file");
    let consumer = Consumer::start(move |received, ended| {
        read_lines(Growing { file, read: 0, freed: 0, ended }, received)
    });
    endure(name, outputs, Pace::Patient, consumer);
}

fn through_socket(name: &str, format: Format, pace: Pace) {
    let folder = Folder::new(&name.replace([' ', ','], "-"));
    let path = folder.path("features.sock");
    let plan = Plan { format, ..plan(&format!("unix:{path}"), pace) };
    let outputs = Outputs::start(&plan).expect("a socket");
    let stream = UnixStream::connect(&path).expect("connected");
    assert!(wait_until(PATIENCE, || totals(&outputs).consumers == 1), "the consumer is not known");
    let consumer = Consumer::start(move |received, _| read_lines(stream, received));
    endure(name, outputs, pace, consumer);
}

fn through_nats(name: &str, format: Format, pace: Pace, stream: bool) {
    let server = NatsServer::start(
        "jetstream { store_dir: \"STORE\" }\nmax_pending: 1GB\nwrite_deadline: \"60s\"",
    );
    if stream {
        // It keeps what came last, and not a day's worth.
        server.make_stream("S", &["x"], &json!({"max_bytes": 256 << 20}));
    }
    let mut client = server.client();
    client.subscribe("x");
    let url = format!("nats://{}/x", server.address());
    let outputs = Outputs::start(&Plan { format, ..plan(&url, pace) }).expect("an output");
    let mut consumer = Consumer::start(move |received, _| {
        let mut tally = Tally::default();
        while let Some(message) = client.receive() {
            tally.line(&message.payload);
            received.store(tally.received, Ordering::Relaxed);
        }
        tally
    });
    (consumer.server, consumer.leash) = (Some(server), FAR_BEHIND);
    endure(name, outputs, pace, consumer);
}

#[test]
fn standard_output() {
    // One after the other: there is but one standard output.
    through_stdout("standard output, waited for", Format::Jsonl, Pace::Patient);
    through_stdout("standard output, flooded", Format::Jsonl, Pace::Flood);
    through_stdout("standard output, csv", Format::Csv, Pace::Patient);
}

#[test]
fn a_file() {
    through_file("file", Format::Jsonl);
    through_file("file, csv", Format::Csv);
}

#[test]
fn a_rotated_and_compressed_file() {
    through_rotated("file, rotated and compressed", "", "jsonl", true, read_compressed);
}

#[test]
fn files_of_columns() {
    for format in ["arrow", "parquet"] {
        let name = format!("{format}, rotated");
        through_rotated(&name, &format!("{format}:"), format, false, move |path, _, tally| {
            // What is written has another ending.
            let is_closed = path.extension().is_some_and(|ending| ending == format);
            if is_closed {
                for (number, lost) in columns::numbers_and_lost(path) {
                    tally.vector(number, lost);
                }
            }
            is_closed
        });
    }
}

#[test]
fn a_socket() {
    through_socket("unix socket, waited for", Format::Jsonl, Pace::Patient);
    through_socket("unix socket, flooded", Format::Jsonl, Pace::Flood);
    through_socket("unix socket, csv", Format::Csv, Pace::Patient);
}

#[test]
fn a_nats_server() {
    through_nats("nats, waited for", Format::Jsonl, Pace::Patient, false);
    through_nats("nats, flooded", Format::Jsonl, Pace::Flood, false);
    through_nats("nats, csv", Format::Csv, Pace::Patient, false);
}

#[test]
fn a_stream_of_jetstream() {
    through_nats("nats JetStream, waited for", Format::Jsonl, Pace::Patient, true);
    through_nats("nats JetStream, flooded", Format::Jsonl, Pace::Flood, true);
}

/// Reads a file if it is compressed, or the last one; tells whether it did.
fn read_compressed(path: &Path, is_over: bool, tally: &mut Tally) -> bool {
    // One that is neither may be gone by now: it is being compressed.
    let open = || File::open(path).expect("a file");
    let is_closed = path.extension().is_some_and(|ending| ending == "zst");
    if is_closed {
        read_all(zstd::Decoder::new(open()).expect("zstd"), tally);
    } else if is_over {
        read_all(open(), tally);
    }
    is_closed || is_over
}

fn read_all(from: impl Read, tally: &mut Tally) {
    for line in BufReader::with_capacity(1 << 17, from).split(b'\n') {
        tally.line(&line.expect("a line"));
    }
}

/// Files that are closed one after the other. `read` reads one of them, unless it is still written, and tells whether it
/// did; it is told whether all is over.
fn through_rotated(
    name: &str,
    kind: &str,
    ending: &str,
    zstd: bool,
    read: impl Fn(&Path, bool, &mut Tally) -> bool + Send + 'static,
) {
    let folder = Folder::new(&name.replace([' ', ','], "-"));
    let target = format!("{kind}{}", folder.path(&format!("vectors.{ending}")));
    let size = if vectors() > A_FEW { 256 << 20 } else { 4 << 20 };
    let rotation = Rotation { size: Some(size), age: None, zstd };
    let plan = Plan { rotation, ..plan(&target, Pace::Patient) };
    let outputs = Outputs::start(&plan).expect("a file");
    let place = folder.0.clone();
    let consumer = Consumer::start(move |received, ended| {
        let mut tally = Tally::default();
        loop {
            let is_over = ended.load(Ordering::Acquire);
            let entries = fs::read_dir(&place).expect("a folder");
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| entry.expect("an entry").path()).collect();
            // The oldest first, by the time in their names; the one that is written sorts behind those.
            paths.sort();
            for path in paths {
                if read(&path, is_over, &mut tally) {
                    received.store(tally.received, Ordering::Relaxed);
                    fs::remove_file(path).expect("removed");
                }
            }
            if is_over {
                return tally;
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    endure(name, outputs, Pace::Patient, consumer);
}
