//! A real nats-server, and a client of few lines that shares nothing with the agent's.

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{inject::wait_until, netns::Netns};

/// How long the server may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A server of this test's own, which can be killed, stopped and started again.
#[derive(Debug)]
pub struct NatsServer {
    address: String,
    folder: PathBuf,
    child: Option<Child>,
}

impl NatsServer {
    /// Listens on a free port of loopback; `config` is what its configuration file says besides.
    pub fn start(config: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let mut server = Self::configured(address, config);
        server.restart();
        server
    }

    /// Listens at an address inside of a namespace.
    pub fn start_in(ns: &Netns, address: &str, config: &str) -> Self {
        let mut server = Self::configured(address.to_owned(), config);
        ns.run(|| server.restart());
        server
    }

    fn configured(address: String, config: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("feature-agent-nats-{}-{number}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let config = config.replace("STORE", folder.join("store").to_str().expect("UTF-8"));
        fs::write(folder.join("server.conf"), format!("listen: \"{address}\"\n{config}\n"))
            .expect("a configuration file");
        Self { address, folder, child: None }
    }

    /// Starts it, again.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let program = env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into());
        let log = fs::File::create(self.folder.join("log")).expect("a log");
        let child = Command::new(&program)
            .arg("--config")
            .arg(self.folder.join("server.conf"))
            // Debian's folder for administrators, which an ordinary user's PATH lacks.
            .env("PATH", format!("{}:/usr/sbin", env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|e| {
            panic!(
                "{}: {e}; `cargo xtask test` gets it, Debian has it as nats-server",
                program.display()
            )
        }));
        let up = wait_until(PATIENCE, || TcpStream::connect(&self.address).is_ok());
        assert!(up, "nats-server is not up: {}", self.log());
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal");
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// Connects.
    pub fn client(&self) -> NatsClient {
        NatsClient::connect(&self.address, "")
    }

    /// Makes a stream that keeps what goes to `subjects`, in files.
    pub fn make_stream(&self, name: &str, subjects: &[&str], more: &Value) {
        let mut config = json!({"name": name, "subjects": subjects, "storage": "file"});
        let config = config.as_object_mut().expect("an object");
        config.extend(more.as_object().cloned().unwrap_or_default());
        let config = Value::Object(config.clone());
        self.client().api(&format!("STREAM.CREATE.{name}"), &config);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it went.
    pub subject: String,
    /// Its `Nats-Msg-Id`, if it has one.
    pub id: Option<String>,
    /// What it says.
    pub payload: Vec<u8>,
}

/// A client by the protocol's text: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.
#[derive(Debug)]
pub struct NatsClient {
    reader: BufReader<TcpStream>,
}

impl NatsClient {
    /// Connects; `login` is JSON between the braces of CONNECT, ended by a comma, or nothing.
    pub fn connect(address: &str, login: &str) -> Self {
        Self::try_connect(address, login).unwrap_or_else(|e| panic!("{address}: {e}"))
    }

    /// The same for one who tries again.
    pub fn try_connect(address: &str, login: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self { reader: BufReader::with_capacity(1 << 16, stream) };
        let info = client.op()?;
        assert!(info.starts_with("INFO "), "{info}");
        client.send(&format!(
            "CONNECT {{{login}\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nPING\r\n"
        ))?;
        let pong = client.op()?;
        if pong != "PONG" {
            return Err(std::io::Error::other(pong));
        }
        Ok(client)
    }

    fn send(&self, text: &str) -> std::io::Result<()> {
        self.reader.get_ref().write_all(text.as_bytes())
    }

    fn op(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Subscribes; returns once the server knows.
    pub fn subscribe(&mut self, subject: &str) {
        self.send(&format!("SUB {subject} 1\r\nPING\r\n")).expect("sent");
        assert_eq!(self.op().expect("an answer"), "PONG");
    }

    /// The next message; `None` when the connection is over.
    pub fn receive(&mut self) -> Option<Message> {
        loop {
            let op = self.op().ok()?;
            let words: Vec<&str> = op.split(' ').collect();
            match words[0] {
                "MSG" | "HMSG" => {
                    let size = |word: &str| word.parse::<usize>().expect("a size");
                    let all = size(words[words.len() - 1]);
                    let head = if words[0] == "HMSG" { size(words[words.len() - 2]) } else { 0 };
                    let mut bytes = vec![0; all + 2];
                    self.reader.read_exact(&mut bytes).ok()?;
                    let payload = bytes[head..all].to_vec();
                    let headers = String::from_utf8_lossy(&bytes[..head]).into_owned();
                    let id = headers.lines().find_map(|line| line.strip_prefix("Nats-Msg-Id: "));
                    let (subject, id) = (words[1].to_owned(), id.map(str::to_owned));
                    return Some(Message { subject, id, payload });
                }
                "PING" => self.send("PONG\r\n").ok()?,
                "PONG" | "+OK" => {}
                _ => panic!("the server says {op}"),
            }
        }
    }

    /// Asks and waits for the answer.
    pub fn request(&mut self, subject: &str, payload: &str) -> Message {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let inbox = format!("_INBOX.test.{}.{number}", std::process::id());
        let size = payload.len();
        self.send(&format!(
            "SUB {inbox} {number}\r\nPUB {subject} {inbox} {size}\r\n{payload}\r\n"
        ))
        .expect("sent");
        let answer = self.receive().expect("an answer");
        self.send(&format!("UNSUB {number}\r\n")).expect("sent");
        answer
    }

    /// Asks JetStream.
    pub fn api(&mut self, what: &str, request: &Value) -> Value {
        let answer = self.request(&format!("$JS.API.{what}"), &request.to_string());
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert!(answer.get("error").is_none(), "{what}: {answer}");
        answer
    }

    /// All that a stream keeps, in its order.
    pub fn kept(&mut self, stream: &str) -> Vec<Vec<u8>> {
        use base64::Engine as _;
        let state = &self.api(&format!("STREAM.INFO.{stream}"), &json!({}))["state"];
        let number = |name: &str| state[name].as_u64().expect("an integer");
        let all = number("first_seq")..=number("last_seq");
        let get = |seq| {
            let found = self.api(&format!("STREAM.MSG.GET.{stream}"), &json!({ "seq": seq }));
            let data = found["message"]["data"].as_str().expect("text").to_owned();
            base64::engine::general_purpose::STANDARD.decode(data).expect("base64")
        };
        all.map(get).collect()
    }
}

/// Collects what comes to a subject, from whatever servers, until it is told to stop.
#[derive(Debug)]
pub struct Collector {
    messages: Arc<Mutex<Vec<Message>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Collector {
    /// Subscribes, at once.
    pub fn start(server: &NatsServer, subject: &str) -> Self {
        let mut collector = Self { messages: Arc::default(), threads: Vec::new() };
        collector.join(server, subject);
        collector
    }

    /// Subscribes again: to a server that was started anew.
    pub fn join(&mut self, server: &NatsServer, subject: &str) {
        let mut client = server.client();
        client.subscribe(subject);
        // The next may be long in coming.
        client.reader.get_ref().set_read_timeout(None).expect("no time-out");
        let messages = Arc::clone(&self.messages);
        self.threads.push(thread::spawn(move || {
            while let Some(message) = client.receive() {
                messages.lock().expect("no one panics").push(message);
            }
        }));
    }

    /// How many came.
    pub fn len(&self) -> usize {
        self.messages.lock().expect("no one panics").len()
    }

    /// Whether none came.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What came. The server must be gone.
    pub fn finish(self) -> Vec<Message> {
        for thread in self.threads {
            thread.join().expect("a client");
        }
        std::mem::take(&mut self.messages.lock().expect("no one panics"))
    }
}

/// Each message once: one that was sent again has the same id, and says the same.
pub fn once_each(messages: Vec<Message>) -> Vec<Vec<u8>> {
    let mut by_id: HashMap<String, Vec<u8>> = HashMap::new();
    let mut order = Vec::new();
    for Message { id, payload, .. } in messages {
        let id = id.expect("an id");
        if let Some(first) = by_id.get(&id) {
            assert_eq!(first, &payload, "the same id");
        } else {
            by_id.insert(id, payload.clone());
            order.push(payload);
        }
    }
    order
}
