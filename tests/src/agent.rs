//! Runs the built `feature-agent` and collects what it says, every wait bounded.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    inject::wait_until,
    lines::{Line, parse_all},
    netns::Netns,
    sys,
};

/// How long the agent may take to load, attach and check itself, and to stop.
const PATIENCE: Duration = Duration::from_secs(20);

const READING: u8 = 0;
const PAUSED: u8 = 1;
const CLOSED: u8 = 2;

/// How to start the agent.
#[derive(Debug)]
pub struct Builder<'a> {
    ns: &'a Netns,
    args: Vec<String>,
    user: Option<u32>,
    environment: Vec<(String, String)>,
    program: PathBuf,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdout_state: Arc<AtomicU8>,
    stderr: Arc<Mutex<Vec<String>>>,
    lines: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

/// What an agent that has ended left behind.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The counts printed at exit, in wire packets and in vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciliation {
    /// Packets the programs saw.
    pub seen: u64,
    /// In flows.
    pub accounted: u64,
    /// Not IP.
    pub not_ip: u64,
    /// Malformed.
    pub malformed: u64,
    /// Not wanted.
    pub filtered: u64,
    /// Turned away by a full table.
    pub table_full: u64,
    /// Vectors printed.
    pub written: u64,
    /// Vectors that did not get out.
    pub lost: u64,
    /// Times a vector had to wait for room in the ring.
    pub delayed: u64,
}

impl<'a> Builder<'a> {
    /// An agent inside of `ns` with these arguments.
    pub fn new(ns: &'a Netns, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let program = binary().to_owned();
        Self { ns, args, user: None, environment: Vec::new(), program }
    }

    /// Runs it as another user and group.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a copy of the binary.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.program);
        self
    }

    /// Starts it without waiting for anything.
    pub fn spawn(self) -> Agent {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1").envs(self.environment);
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        let mut child = self.ns.run(move || command.spawn().expect("start the agent"));
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let stdout_state = Arc::new(AtomicU8::new(READING));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            thread::spawn({
                let (state, lines) = (Arc::clone(&stdout_state), Arc::clone(&lines));
                move || read_stdout(OwnedFd::from(stdout), &state, &lines)
            }),
            thread::spawn({
                let errors = Arc::clone(&errors);
                move || {
                    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                        errors.lock().expect("no reader panics").push(line);
                    }
                }
            }),
        ];
        Agent { child, stdout_state, stderr: errors, lines, readers }
    }

    /// Starts it and waits until it says that it is ready.
    pub fn start(self) -> Agent {
        let mut agent = self.spawn();
        let ready = wait_until(PATIENCE, || {
            agent.has_ended() || agent.stderr().lines().any(|line| line.contains("ready"))
        });
        assert!(ready, "not ready after {PATIENCE:?}; it said:\n{}", agent.stderr());
        assert!(!agent.has_ended(), "ended at start; it said:\n{}", agent.stderr());
        agent
    }
}

impl Agent {
    /// Starts an agent inside of `ns` and waits until it is ready.
    pub fn start(ns: &Netns, args: &[&str]) -> Self {
        Builder::new(ns, args).start()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no reader panics").join("\n")
    }

    /// The whole lines it has printed so far.
    pub fn lines_so_far(&self) -> Vec<Line> {
        let bytes = self.lines.lock().expect("no reader panics").clone();
        let text = String::from_utf8(bytes).expect("output is UTF-8");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        parse_all(whole.lines()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Stops to read its output, as a consumer that is too slow does.
    pub fn pause_stdout(&self) {
        self.stdout_state.store(PAUSED, Ordering::Release);
    }

    /// Reads its output again.
    pub fn resume_stdout(&self) {
        self.stdout_state.store(READING, Ordering::Release);
    }

    /// Closes the pipe it writes to, as a consumer that dies does.
    pub fn close_stdout(&self) {
        self.stdout_state.store(CLOSED, Ordering::Release);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process id"));
        kill(pid, signal).unwrap_or_else(|e| panic!("{signal}: {e}; it said:\n{}", self.stderr()));
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for the agent").is_some()
    }

    /// Asks it to stop and waits for the end.
    pub fn stop(self) -> Outcome {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end, which must come within the patience of a test.
    pub fn wait(mut self) -> Outcome {
        let ended = wait_until(PATIENCE, || self.has_ended());
        assert!(ended, "still running after {PATIENCE:?}; it said:\n{}", self.stderr());
        let status = self.child.wait().expect("wait for the agent");
        for reader in self.readers.drain(..) {
            reader.join().expect("reader of the agent's output");
        }
        let stdout = self.lines.lock().expect("no reader panics").clone();
        let stdout = String::from_utf8(stdout).expect("output is UTF-8");
        Outcome { status, stdout, stderr: self.stderr() }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _already_gone = self.child.kill();
            let _reaped = self.child.wait();
        }
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        let stdout = String::from_utf8(stdout).expect("output is UTF-8");
        Self { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }
}

impl Outcome {
    /// Its lines, all of them whole. Panics if one is no line.
    pub fn lines(&self) -> Vec<Line> {
        assert!(self.stdout.is_empty() || self.stdout.ends_with('\n'), "the last line is cut");
        parse_all(self.stdout.lines()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The reasons and counts of malformed packets it printed at exit, those that are not zero.
    pub fn malformed_reasons(&self) -> Vec<(String, u64)> {
        let line = self.stderr.lines().find_map(|line| line.strip_prefix("malformed: "));
        let pair = |part: &str| {
            let (name, count) = part.split_once(' ').expect("a name and a count");
            (name.to_owned(), count.parse().expect("a count"))
        };
        line.map_or_else(Vec::new, |line| line.split(", ").map(pair).collect())
    }

    /// The counts it printed at exit.
    pub fn reconciliation(&self) -> Reconciliation {
        let seen = "seen = accounted + not_ip + malformed + filtered + table_full: ";
        let numbers = |prefix: &str| -> Vec<u64> {
            let line = self.stderr.lines().find_map(|line| line.strip_prefix(prefix));
            let line = line.unwrap_or_else(|| panic!("no line {prefix:?} in:\n{}", self.stderr));
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
        };
        let [seen, accounted, not_ip, malformed, filtered, table_full] = numbers(seen)[..] else {
            panic!("six numbers expected in:\n{}", self.stderr)
        };
        let [written, lost, delayed] = numbers("vectors: ")[..] else {
            panic!("three numbers expected in:\n{}", self.stderr)
        };
        Reconciliation {
            seen,
            accounted,
            not_ip,
            malformed,
            filtered,
            table_full,
            written,
            lost,
            delayed,
        }
    }
}

/// Runs `replay` over a capture file, to its end.
pub fn replay(path: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(binary());
    command.arg("replay").arg(path).args(args).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command.output().expect("start the agent").into()
}

/// The built binary: `FEATURE_AGENT_BIN`, or the one beside the test, brought up to date by cargo.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("FEATURE_AGENT_BIN") {
            return PathBuf::from(path);
        }
        // target/debug/deps/live-… -> target/debug
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
        let binary = folder.join("feature-agent");
        // Set when cargo runs the test; a copy in a virtual machine has none.
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "-p", "feature-agent", "--bin", "feature-agent"]);
            build.arg("--target-dir").arg(folder.parent().expect("target"));
            if folder.ends_with("release") {
                build.arg("--release");
            }
            let status = build.status().expect("run cargo");
            assert!(status.success(), "cargo could not build the agent");
        }
        assert!(binary.exists(), "no {}; build it or set FEATURE_AGENT_BIN", binary.display());
        binary
    })
}

fn read_stdout(pipe: OwnedFd, state: &AtomicU8, lines: &Mutex<Vec<u8>>) {
    let mut pipe = File::from(pipe);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match state.load(Ordering::Acquire) {
            CLOSED => return,
            PAUSED => {
                sleep(Duration::from_millis(5));
                continue;
            }
            _ => {}
        }
        if !sys::wait_readable(&pipe, 20) {
            continue;
        }
        match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => lines.lock().expect("no reader panics").extend(&buffer[..n]),
        }
    }
}

/// How long something takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
