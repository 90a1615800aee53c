//! `--hook socket`: what processes send and receive, counted at the calls.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use feature_agent_tests::{
    agent::{Agent, Builder, Outcome, timed},
    lines::Line,
    netns::Netns,
    peers::{self, Peer, Role},
    sys::is_root_or_say,
    trade::{Books, Ends},
};

/// Not a test: what other processes of these tests do.
#[test]
fn peer() {
    peers::play();
}

/// Whether this kernel has kprobes, as a distribution's has.
fn has_kprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/kprobe/type").exists()
}

/// True where calls on sockets can be seen. Elsewhere another test of these holds what the agent says.
fn has_hook_or_say(test: &str) -> bool {
    if !has_kprobes() {
        println!("{test}: not run, this kernel is built without kprobes and fentry");
    }
    has_kprobes()
}

/// A host of its own, whose addresses no other test has.
struct Host {
    ns: Netns,
    addresses: [IpAddr; 2],
}

impl Host {
    fn new(number: u8) -> Self {
        let ns = Netns::new();
        ns.sysctl("net/ipv6/conf/all/disable_ipv6", "0");
        ns.sysctl("net/ipv6/conf/lo/disable_ipv6", "0");
        ns.ip(&format!("link set lo up\naddr add fd77::{number}/128 dev lo nodad"));
        let addresses = [
            IpAddr::from([127, 77, number, 1]),
            format!("fd77::{number}").parse().expect("an address"),
        ];
        Self { ns, addresses }
    }
}

/// The calls' books, as the agent prints them at exit.
#[derive(Debug)]
struct Calls {
    seen: u64,
    accounted: u64,
    not_ip: u64,
    filtered: u64,
    table_full: u64,
    contended: u64,
    missed: u64,
    bytes: u64,
}

fn calls(outcome: &Outcome) -> Calls {
    let line = outcome.stderr.lines().find(|line| line.starts_with("calls on sockets: seen = "));
    let line = line.unwrap_or_else(|| panic!("no books of calls in:\n{}", outcome.stderr));
    let digits = |c: char| !c.is_ascii_digit();
    let numbers: Vec<u64> = line.split(digits).filter_map(|word| word.parse().ok()).collect();
    let [seen, accounted, not_ip, filtered, table_full, contended, missed, bytes] = numbers[..]
    else {
        panic!("eight numbers expected: {line}")
    };
    Calls { seen, accounted, not_ip, filtered, table_full, contended, missed, bytes }
}

/// The last word of each flow of a process, from its socket's side.
fn told(lines: &[Line], pid: u64) -> BTreeMap<(u8, SocketAddr, SocketAddr), Line> {
    let mut told = BTreeMap::new();
    for line in lines.iter().filter(|line| line.int_or_null("pid") == Some(pid)) {
        let end = |address: &str, port: &str| {
            let port = u16::try_from(line.int(port)).expect("a port");
            SocketAddr::new(line.text(address).parse().expect("an address"), port)
        };
        let proto = u8::try_from(line.int("proto")).expect("a protocol");
        told.insert((proto, end("src", "sport"), end("dst", "dport")), line.clone());
    }
    told
}

/// Holds the lines of a process against its own books: every flow of them is there, with exactly what was sent and received.
fn assert_books(lines: &[Line], peer: &Peer, books: &Books) {
    let told = told(lines, peer.pid());
    for (Ends { proto, local, remote, only_bytes }, sum) in books {
        let sent_first = told.get(&(*proto, *local, *remote));
        let received_first = told.get(&(*proto, *remote, *local));
        let (line, [out, back]) = match (sent_first, received_first) {
            (Some(line), None) => (line, ["fwd", "bwd"]),
            (None, Some(line)) => (line, ["bwd", "fwd"]),
            found => panic!("{proto} {local} {remote}: {found:?}"),
        };
        let count = |side: &str, what: &str| line.int(&format!("{side}_{what}"));
        let raw = &line.raw;
        assert_eq!(count(out, "bytes"), sum.sent, "sent by {proto} {local} to {remote}: {raw}");
        assert_eq!(
            count(back, "bytes"),
            sum.received,
            "received by {proto} {local} of {remote}: {raw}"
        );
        assert_eq!(count(out, "payload_bytes"), sum.sent);
        if !only_bytes {
            assert_eq!(
                (count(out, "packets"), count(back, "packets")),
                (sum.sends, sum.receipts),
                "{raw}"
            );
        }
        assert_eq!((line.text("hook"), line.text("comm")), ("socket", peer.comm.as_str()), "{raw}");
        assert!(line.get("iface").is_null() && line.get("vlan").is_null(), "{raw}");
        assert_eq!(
            (line.get("midstream").as_bool(), line.int("fwd_syn")),
            (Some(false), 0),
            "{raw}"
        );
    }
    assert_eq!(told.len(), books.len(), "flows of {}", peer.comm);
}

/// One agent at a time: each sees the calls of all processes.
static ALONE: Mutex<()> = Mutex::new(());

/// A server and a client trade at these addresses while an agent looks on. False if a call found its flow locked for too
/// long, as may be where a processor is taken away from the guest: that is counted, and the books are not equal.
fn trade(host: &Host, probe: &str, market: &[IpAddr], visited: &[IpAddr]) -> bool {
    let args = ["--hook", "socket", "--socket-probe", probe, "--process", "--interval", "200ms"];
    let agent = Agent::start(&host.ns, &args);
    assert!(agent.stderr().contains(&format!("calls on sockets are seen by {probe}")));
    let count = 3;
    let market = Role::Market(count, market.to_vec());
    let mut server = Peer::start(&host.ns, "peer", &market, |_| ());
    let visit = Role::Visit(count, visited.to_vec());
    let mut client = Peer::start(&host.ns, "peer", &visit, |_| ());
    // A client that fails leaves its server waiting.
    let bought = client.books();
    let sold = server.books();
    thread::sleep(Duration::from_secs(1));
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    println!("{}", outcome.stderr);
    let lines = outcome.lines();
    let calls = calls(&outcome);
    let Calls { seen, accounted, not_ip, filtered, table_full, contended, missed, bytes } = calls;
    assert_eq!(seen, accounted + not_ip + filtered + table_full + contended);
    assert_eq!((not_ip, filtered, table_full, missed), (0, 0, 0, 0));
    assert!(!outcome.stderr.contains("error in the agent"), "{}", outcome.stderr);
    assert_eq!(last_words(&lines), bytes, "the flows' last lines against the books");
    assert_eq!(bought.len(), visited.len() * 3 * count);
    if contended == 0 {
        assert_books(&lines, &server, &sold);
        assert_books(&lines, &client, &bought);
    }
    server.finish();
    client.finish();
    contended == 0
}

/// Bytes of all flows, as of the last line of each life.
fn last_words(lines: &[Line]) -> u64 {
    let mut lives: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        let ends = ["src", "sport", "dst", "dport", "proto", "pid"].map(|name| line.get(name));
        let life = lives.entry(format!("{ends:?}")).or_default();
        // Another life of the same flow begins: the one before is over.
        if line.int("seq") == 0 || life.is_empty() {
            life.push(line);
        } else if let Some(last) = life.last_mut() {
            *last = line;
        }
    }
    let bytes = |line: &&Line| line.int("fwd_bytes") + line.int("bwd_bytes");
    lives.values().flatten().map(bytes).sum()
}

/// At addresses of either version; then by sockets of IPv6 at both ends that carry IPv4, whose flows are IPv4's.
fn by(number: u8, probe: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::new(number);
    let exact = |market: &[IpAddr], visited: &[IpAddr]| {
        (0..5).any(|_| trade(&host, probe, market, visited))
    };
    assert!(exact(&host.addresses, &host.addresses), "calls find their flows locked every time");
    // From any other address, one that is bound to none would answer by this one.
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    assert!(exact(&[Ipv6Addr::UNSPECIFIED.into()], &[mapped]), "the same");
}

#[test]
fn calls_are_counted_by_fentry() {
    if is_root_or_say("calls_are_counted_by_fentry")
        && has_hook_or_say("calls_are_counted_by_fentry")
    {
        by(1, "fentry");
    }
}

#[test]
fn calls_are_counted_by_kprobe() {
    if is_root_or_say("calls_are_counted_by_kprobe")
        && has_hook_or_say("calls_are_counted_by_kprobe")
    {
        by(2, "kprobe");
    }
}

#[test]
fn a_kernel_without_is_refused_with_a_sentence() {
    if !is_root_or_say("a_kernel_without_is_refused_with_a_sentence") || has_kprobes() {
        return;
    }
    let ns = Netns::new();
    for (probe, word) in
        [("auto", "neither fentry nor kprobes"), ("fentry", "by fentry"), ("kprobe", "by kprobes")]
    {
        let args = ["--hook", "socket", "--socket-probe", probe];
        let outcome = Builder::new(&ns, &args).spawn().wait();
        assert!(!outcome.status.success());
        assert!(outcome.stderr.contains(word), "{probe}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("feature-agent doctor"), "{}", outcome.stderr);
    }
}

/// Time of a datagram sent and received, in ns: the median of several rounds.
fn round_trip(ns: &Netns) -> u128 {
    const CALLS: u32 = 500;
    ns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(socket.local_addr().expect("an address")).expect("connect");
        let mut rounds: Vec<u128> = (0..15)
            .map(|_| {
                let ((), took) = timed(|| {
                    for _ in 0..CALLS {
                        socket.send(&[0; 64]).expect("send");
                        socket.recv(&mut [0; 64]).expect("receive");
                    }
                });
                took.as_nanos() / u128::from(CALLS)
            })
            .collect();
        rounds.sort_unstable();
        rounds[rounds.len() / 2]
    })
}

/// Under emulation only the ratios mean something: `cargo xtask vm 6.12 -- what_a_call_costs` prints them.
#[test]
fn what_a_call_costs() {
    if !is_root_or_say("what_a_call_costs") || !has_hook_or_say("what_a_call_costs") {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::new(3);
    let none = round_trip(&host.ns);
    let mut costs = vec![("none", none)];
    for probe in ["fentry", "kprobe"] {
        let agent = Agent::start(&host.ns, &["--hook", "socket", "--socket-probe", probe]);
        costs.push((probe, round_trip(&host.ns)));
        let outcome = agent.stop();
        assert!(calls(&outcome).accounted >= 15_000, "{}", outcome.stderr);
    }
    for (probe, cost) in costs {
        let ratio = cost as f64 / none as f64;
        println!("a datagram sent and received, {probe}: {cost} ns, {ratio:.2} times as without");
    }
}
