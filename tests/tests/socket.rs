//! `--hook socket`: what processes send and receive, counted at the calls.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use feature_agent_tests::{
    agent::{Agent, Builder, Outcome, Reconciliation},
    attached::has_kprobes,
    capture::Sides,
    compare::Options,
    lines::Line,
    netns::Netns,
    peers::{self, Peer, Role},
    scenario::{Run, observe_on},
    sys::is_root_or_say,
    trade::{Books, Ends},
};

/// Not a test: what other processes of these tests do.
#[test]
fn peer() {
    peers::play();
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

/// Connections of one client to each address.
const COUNT: usize = 3;

/// A server and a client that have traded, and what they have written down.
struct Deal {
    server: Peer,
    sold: Books,
    client: Peer,
    bought: Books,
}

impl Deal {
    /// The server is at the first addresses, the client goes to the others.
    fn make(ns: &Netns, market: &[IpAddr], visited: &[IpAddr]) -> Self {
        let market = Role::Market(COUNT, market.to_vec());
        let mut server = Peer::start(ns, "peer", &market, |_| ());
        let visit = Role::Visit(COUNT, visited.to_vec());
        let mut client = Peer::start(ns, "peer", &visit, |_| ());
        // A client that fails leaves its server waiting.
        let bought = client.books();
        let sold = server.books();
        assert_eq!(bought.len(), visited.len() * 3 * COUNT);
        Self { server, sold, client, bought }
    }

    /// Holds lines of calls against the books of both.
    fn assert_told(&self, lines: &[Line]) {
        assert_books(lines, &self.server, &self.sold);
        assert_books(lines, &self.client, &self.bought);
    }

    fn finish(self) {
        self.server.finish();
        self.client.finish();
    }
}

/// At addresses of either version; then by sockets of IPv6 at both ends that carry IPv4, whose flows are IPv4's: of another
/// address, one that is bound to none would answer by this one.
fn deals(host: &Host) -> [Deal; 2] {
    let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    [
        Deal::make(&host.ns, &host.addresses, &host.addresses),
        Deal::make(&host.ns, &[Ipv6Addr::UNSPECIFIED.into()], &[mapped]),
    ]
}

/// The agent's books of calls, which add up, and are those of its lines of calls.
fn assert_calls(outcome: &Outcome, lines: &[Line]) -> Calls {
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let calls = calls(outcome);
    let Calls { seen, accounted, not_ip, filtered, table_full, contended, missed: _, bytes } =
        calls;
    assert_eq!(seen, accounted + not_ip + filtered + table_full + contended);
    assert_eq!((not_ip, filtered, table_full), (0, 0, 0));
    assert!(!outcome.stderr.contains("error in the agent"), "{}", outcome.stderr);
    assert_eq!(last_words(lines), bytes, "the flows' last lines against the books");
    calls
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

/// Repeats a trial in which a call was left out: it found its flow locked for too long, as may be where a processor is taken
/// away from the guest; or the kernel did not tell of it, for by fentry it runs no program that the scheduler has interrupted
/// on that processor. That is counted, and the books are not equal. The trial says how many calls that were.
fn until_none_is_left_out(trial: impl FnMut(i32) -> u64) {
    assert!((0..5).map(trial).any(|left_out| left_out == 0), "calls are left out every time");
}

impl Calls {
    /// Those that are in no flow.
    fn left_out(&self) -> u64 {
        self.contended + self.missed
    }
}

fn by(number: u8, probe: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::new(number);
    let args = ["--hook", "socket", "--socket-probe", probe, "--process", "--interval", "200ms"];
    until_none_is_left_out(|_| {
        let agent = Agent::start(&host.ns, &args);
        assert!(agent.stderr().contains(&format!("calls on sockets are seen by {probe}")));
        let deals = deals(&host);
        let outcome = agent.stop();
        println!("{}", outcome.stderr);
        let lines = outcome.lines();
        let left_out = assert_calls(&outcome, &lines).left_out();
        for deal in deals {
            if left_out == 0 {
                deal.assert_told(&lines);
            }
            deal.finish();
        }
        left_out
    });
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

/// Holds the lines of packets against what a client has written down: the initiator's payload is what it sent, the other's what
/// it received.
fn assert_packets(lines: &[Line], client: &Peer, bought: &Books) {
    for (Ends { proto, local, remote, .. }, sum) in bought {
        let is_flow = |line: &&Line| {
            let port = |name| line.int_or_null(name);
            line.int("proto") == u64::from(*proto)
                && (port("sport"), port("dport"))
                    == (Some(local.port().into()), Some(remote.port().into()))
                && line.text("dst") == remote.ip().to_string()
        };
        let line = lines.iter().rfind(is_flow);
        let line = line.unwrap_or_else(|| panic!("no packets of {proto} {local} {remote}"));
        let (sent, received) = (line.int("fwd_payload_bytes"), line.int("bwd_payload_bytes"));
        if *proto == 17 {
            assert_eq!((sent, received), (sum.sent, sum.received), "{}", line.raw);
        } else {
            // A segment may be sent twice; what is asserted of the capture is exact.
            assert!(sent >= sum.sent && received >= sum.received, "{sum:?}: {}", line.raw);
        }
        assert_eq!(line.int("pid"), client.pid(), "{}", line.raw);
    }
}

#[test]
fn both_hooks_tell_of_the_same_flows() {
    let name = "both_hooks_tell_of_the_same_flows";
    if !is_root_or_say(name) || !has_hook_or_say(name) {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::new(4);
    let args = ["--hook", "both", "--process", "--interval", "200ms"];
    until_none_is_left_out(|_| {
        let mut deal = None;
        let run = observe_on(&host.ns, "lo", Sides::Ingress, &args, |_| {
            deal = Some(Deal::make(&host.ns, &host.addresses, &host.addresses));
        });
        let deal = deal.expect("a deal");
        assert_eq!(run.counts.written, run.lines.len() as u64);
        let (calls, packets): (Vec<Line>, Vec<Line>) =
            run.lines.into_iter().partition(|line| line.text("hook") == "socket");
        let books = assert_calls(&run.outcome, &calls);
        let left_out = books.left_out();
        let all = format!("; bytes accounted: {}", books.bytes + last_words(&packets));
        let said = run.outcome.stderr.lines().any(|line| line.ends_with(&all));
        assert!(said, "not {all} in {}", run.outcome.stderr);
        let counts = Reconciliation { written: packets.len() as u64, ..run.counts };
        // Two processors may show one packet before the other to the agent and after it to the capture.
        let run = Run { lines: packets, counts, ..run };
        run.assert_exact(Options::totals_only());
        if left_out == 0 {
            deal.assert_told(&calls);
            assert_packets(&run.lines, &deal.client, &deal.bought);
        }
        deal.finish();
        left_out
    });
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
