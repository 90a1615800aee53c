//! Processes of a test's own that talk to each other over sockets: the test program once more, in a role.
//!
//! A test program that wants them has a test that calls [`play`], and names it to [`Peer::start`].

use std::{
    env,
    io::{self, BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use crate::{netns::Netns, sys::run_uninterrupted, trade};

/// Where TCP servers listen.
pub const TCP_PORT: u16 = 7000;
/// Where UDP servers listen.
pub const UDP_PORT: u16 = 7001;

/// Variable of a peer's environment that tells its role.
const ROLE: &str = "FEATURE_AGENT_TEST_ROLE";
/// What lines begin with that are a peer's, and not the test harness's.
const MARK: &str = "peer: ";

/// What a peer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Echoes what comes by TCP and UDP to these addresses, until it is let go.
    Serve(Vec<IpAddr>),
    /// Accepts by the listening socket that is its standard input, and echoes, until it is killed.
    Accept,
    /// Makes so many connections, and sends so many datagrams, to each address, and reads the echo.
    Talk(usize, Vec<IpAddr>),
    /// Sends one datagram to an address, and ends at once.
    Cry(IpAddr),
    /// Serves so many clients of [`trade`] at each address.
    Market(usize, Vec<IpAddr>),
    /// Is so many clients of each.
    Visit(usize, Vec<IpAddr>),
}

/// A flow that a peer has made, by the ports: of TCP if `tcp`, else of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Talked {
    /// IP protocol number.
    pub proto: u8,
    /// The peer's own port.
    pub port: u16,
    /// Version of the addresses.
    pub v6: bool,
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// Closed, it lets the peer go.
    stdin: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    /// Its name, as the kernel has it.
    pub comm: String,
}

impl Peer {
    /// Starts one in `ns`, by the test `entry` of this program, and waits until it is ready.
    pub fn start(ns: &Netns, entry: &str, role: &Role, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env::current_exe().expect("the test's own path"));
        command.args([entry, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role.text());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        let mut child = ns.run(move || command.spawn().expect("start a peer"));
        let stdin = child.stdin.take();
        let said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut peer = Self { child, stdin, said, comm: String::new() };
        peer.comm = peer.hear();
        peer
    }

    /// Its process id.
    pub fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// The books of one that trades, once it is done.
    pub fn books(&mut self) -> trade::Books {
        let count: usize = self.hear().parse().expect("a count");
        (0..count).map(|_| trade::parse(&self.hear())).collect()
    }

    /// The flows of one that talks, once it has made them.
    pub fn talked(&mut self) -> Vec<Talked> {
        let count: usize = self.hear().parse().expect("a count");
        (0..count).map(|_| Talked::parse(&self.hear())).collect()
    }

    /// Lets it go, and waits for its end.
    pub fn finish(mut self) {
        self.stdin.take();
        let status = self.child.wait().expect("wait for a peer");
        assert!(status.success(), "a peer failed: {status}");
    }

    fn hear(&mut self) -> String {
        loop {
            let line = self.said.next().expect("a peer ended before its word").expect("readable");
            // The harness says which test runs on the same line.
            if let Some((_, word)) = line.split_once(MARK) {
                return word.to_owned();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Plays the role that this process was started for; returns at once if it was started for none.
pub fn play() {
    let Ok(role) = env::var(ROLE) else { return };
    let name = std::fs::read_to_string("/proc/thread-self/comm").expect("this thread's name");
    let role = Role::parse(&role);
    if matches!(role, Role::Market(..) | Role::Visit(..)) {
        // A call is not told of by fentry that is made amid another's program, on one processor: on a kernel that lets
        // programs be interrupted that would be one of the other's, time and again where all is slow.
        run_uninterrupted();
    }
    match role {
        Role::Serve(addresses) => {
            for address in addresses {
                let tcp = TcpListener::bind((address, TCP_PORT)).expect("bind");
                let udp = UdpSocket::bind((address, UDP_PORT)).expect("bind");
                thread::spawn(move || accept(&tcp));
                thread::spawn(move || answer(&udp));
            }
            say(name.trim_end());
        }
        Role::Accept => {
            let listener = io::stdin().as_fd().try_clone_to_owned().expect("standard input");
            say(name.trim_end());
            accept(&TcpListener::from(listener));
        }
        Role::Talk(count, addresses) => {
            say(name.trim_end());
            let kept: Vec<(Talked, Kept)> =
                addresses.iter().flat_map(|to| (0..count).flat_map(|nth| talk(*to, nth))).collect();
            say(&kept.len().to_string());
            for (talked, _) in &kept {
                say(&talked.text());
            }
        }
        Role::Market(count, addresses) => {
            tell(&trade::serve(&addresses, count, || say(name.trim_end())));
        }
        Role::Visit(count, addresses) => {
            say(name.trim_end());
            tell(&trade::visit(&addresses, count));
        }
        Role::Cry(to) => {
            let socket = any(to);
            socket.send_to(b"a cry", (to, UDP_PORT)).expect("send");
            say(name.trim_end());
            return;
        }
    }
    // Until this is closed.
    let _end = io::stdin().read(&mut [0]);
}

/// A socket that stays open for as long as its process, so that no port is used twice.
#[expect(dead_code, reason = "held, not read")]
enum Kept {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// One connection and one datagram, each with its echo.
fn talk(to: IpAddr, nth: usize) -> [(Talked, Kept); 2] {
    let message = vec![b'x'; 100 + nth];
    let mut echo = vec![0; message.len()];
    let mut tcp = TcpStream::connect((to, TCP_PORT)).expect("connect");
    tcp.write_all(&message).expect("send");
    tcp.read_exact(&mut echo).expect("the echo");
    let udp = any(to);
    udp.send_to(&message, (to, UDP_PORT)).expect("send");
    udp.recv(&mut echo).expect("the echo");
    let talked = |proto, local: SocketAddr| Talked { proto, port: local.port(), v6: to.is_ipv6() };
    [
        (talked(6, tcp.local_addr().expect("an address")), Kept::Tcp(tcp)),
        (talked(17, udp.local_addr().expect("an address")), Kept::Udp(udp)),
    ]
}

fn any(to: IpAddr) -> UdpSocket {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    UdpSocket::bind(any).expect("bind")
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        thread::spawn(move || {
            let mut from = stream.try_clone().expect("clone");
            // It ends when the client does, however that ends.
            let _copied = io::copy(&mut from, &mut stream);
        });
    }
}

fn answer(socket: &UdpSocket) {
    let mut message = [0; 2048];
    while let Ok((size, from)) = socket.recv_from(&mut message) {
        socket.send_to(&message[..size], from).expect("answer");
    }
}

fn tell(books: &trade::Books) {
    say(&books.len().to_string());
    for (name, sum) in books {
        say(&trade::text(name, sum));
    }
}

fn say(word: &str) {
    println!("{MARK}{word}");
    io::stdout().flush().expect("standard output");
}

impl Role {
    fn text(&self) -> String {
        let list = |addresses: &[IpAddr]| -> String {
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        match self {
            Self::Serve(addresses) => format!("serve {}", list(addresses)),
            Self::Accept => "accept".to_owned(),
            Self::Talk(count, addresses) => format!("talk {count} {}", list(addresses)),
            Self::Cry(to) => format!("cry {to}"),
            Self::Market(count, addresses) => format!("market {count} {}", list(addresses)),
            Self::Visit(count, addresses) => format!("visit {count} {}", list(addresses)),
        }
    }

    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let list = |words: &[&str]| -> Vec<IpAddr> {
            words.iter().map(|word| word.parse().expect("an address")).collect()
        };
        match words[..] {
            ["serve", ref addresses @ ..] => Self::Serve(list(addresses)),
            ["accept"] => Self::Accept,
            ["talk", count, ref addresses @ ..] => {
                Self::Talk(count.parse().expect("a count"), list(addresses))
            }
            ["market", count, ref addresses @ ..] => {
                Self::Market(count.parse().expect("a count"), list(addresses))
            }
            ["visit", count, ref addresses @ ..] => {
                Self::Visit(count.parse().expect("a count"), list(addresses))
            }
            ["cry", to] => Self::Cry(to.parse().expect("an address")),
            _ => panic!("no role: {text}"),
        }
    }
}

impl Talked {
    fn text(self) -> String {
        format!("{} {} {}", self.proto, self.port, self.v6)
    }

    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [proto, port, v6] = words[..] else { panic!("no flow: {text}") };
        Self {
            proto: proto.parse().expect("a protocol"),
            port: port.parse().expect("a port"),
            v6: v6.parse().expect("true or false"),
        }
    }
}
