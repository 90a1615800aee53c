//! The agent as a service: what it tells those who watch over it.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::chown, net::UnixDatagram},
    thread::sleep,
    time::{Duration, Instant},
};

use feature_agent_tests::{
    agent::{Agent, Builder, binary},
    attached::{tc_filters, tcx_programs},
    capture::{Capture, Sides},
    craft::{self, IPV4, V4},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    lines::lives,
    mount::Tmpfs,
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::Oracle,
    privileges::{Copy, NOBODY, capabilities},
    scenario::assert_conserved,
    scrape::{get, samples},
    sys::is_root_or_say,
};
use nix::sys::signal::Signal;

const METRICS: &str = "127.0.0.1:9469";
const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn address() -> SocketAddr {
    METRICS.parse().expect("an address")
}

/// Bytes of the ring that a vector takes.
const IN_RING: u64 = size_of::<agent_common::record::Record>() as u64 + 8;

/// `kernel.bpf_stats_enabled` while it lives.
struct BpfStats(String);

const BPF_STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfStats {
    fn on() -> Self {
        let before = fs::read_to_string(BPF_STATS).expect("the sysctl");
        fs::write(BPF_STATS, "1").expect("root");
        Self(before)
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        fs::write(BPF_STATS, &self.0).expect("root");
    }
}

#[test]
fn scraped_numbers_are_those_of_the_capture_and_of_the_report() {
    if !is_root_or_say("scraped_numbers_are_those_of_the_capture_and_of_the_report") {
        return;
    }
    let _stats = BpfStats::on();
    let pair = Pair::bare(CABLE_MTU);
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    let args = ["--iface", NEAR_IF, "--metrics", METRICS, "--poll", "100ms"];
    let agent = Agent::start(&pair.near, &args);
    let frames = mixed_frames(31, 10_000);
    let sent_frames = inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    capture.settle(Duration::from_millis(300));
    sleep(Duration::from_millis(500));

    let page = get(&pair.near, address(), "/metrics", OPEN).expect("served");
    assert_eq!(page.status, 200);
    assert!(page.headers.contains("application/openmetrics-text"), "{}", page.headers);
    assert!(page.body.ends_with("# EOF\n"), "{}", page.body);
    let plain = get(&pair.near, address(), "/metrics", "*/*").expect("served");
    assert!(plain.headers.contains("text/plain; version=0.0.4"), "{}", plain.headers);
    let healthy = get(&pair.near, address(), "/healthz", "*/*").expect("served");
    assert_eq!((healthy.status, healthy.body), (200, format!("watching {NEAR_IF}\n")));

    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let counts = outcome.reconciliation();
    assert_conserved(&counts, &outcome.lines());
    let oracle = Oracle::over(&capture.finish());
    let samples = samples(&page.body);
    let value = |name: &str| {
        let value = samples.get(name).unwrap_or_else(|| panic!("no {name} in:\n{}", page.body));
        *value as u64
    };
    let into = |place: &str| value(&format!("feature_agent_packets_total{{into=\"{place}\"}}"));
    let places = ["accounted", "not_ip", "malformed", "filtered", "table_full"].map(into);
    assert_eq!(value("feature_agent_packets_seen_total"), places.iter().sum::<u64>());
    assert_eq!(
        (counts.seen, places),
        (
            oracle.counts().seen,
            [counts.accounted, counts.not_ip, counts.malformed, counts.filtered, counts.table_full]
        )
    );
    assert_eq!(value("feature_agent_packets_unaccounted"), 0);
    let output =
        |of: &str| value(&format!("feature_agent_output_{of}{{output=\"standard output\"}}"));
    let sent = output("vectors_sent_total");
    assert!(sent > 0 && sent <= counts.written, "{sent} of {}", counts.written);
    let on_their_way = output("queue_vectors") + value("feature_agent_ring_used_bytes") / IN_RING;
    assert_eq!(output("vectors_dropped_total"), 0);
    assert_eq!(sent + on_their_way, value("feature_agent_vectors_total"));
    assert!(value("feature_agent_table_flows") > 0);
    assert!(value("feature_agent_sweep_duration_seconds_count") >= 3);
    // One run a socket buffer, and each frame is one.
    let runs = value("feature_agent_program_runs_total{program=\"tc_ethernet\"}");
    assert_eq!(runs, sent_frames as u64);
    let seconds = samples["feature_agent_program_run_seconds_total{program=\"tc_ethernet\"}"];
    assert!((1e-4..10.0).contains(&seconds), "{seconds} s for {runs} packets");
}

#[test]
fn health_follows_the_interface() {
    if !is_root_or_say("health_follows_the_interface") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let args = ["--iface", NEAR_IF, "--metrics", METRICS, "--poll", "50ms"];
    let agent = Agent::start(&pair.near, &args);
    let status = || get(&pair.near, address(), "/healthz", "*/*").expect("served").status;
    let becomes = |wanted| wait_until(Duration::from_secs(5), || status() == wanted);
    assert!(becomes(200));
    pair.near.ip(&format!("link del {NEAR_IF}\n"));
    assert!(becomes(503), "healthy without an interface");
    let page = get(&pair.near, address(), "/metrics", OPEN).expect("served").body;
    let attached = format!("feature_agent_interface_attached{{iface=\"{NEAR_IF}\"}}");
    assert_eq!(samples(&page)[&attached] as u64, 0);
    pair.connect(CABLE_MTU);
    assert!(becomes(200), "not healthy with the interface back; it said:\n{}", agent.stderr());
    assert!(agent.stop().status.success());
}

#[test]
fn a_scraper_that_says_nothing_keeps_nobody_waiting() {
    if !is_root_or_say("a_scraper_that_says_nothing_keeps_nobody_waiting") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let args = ["--iface", NEAR_IF, "--metrics", METRICS];
    let agent = Agent::start(&pair.near, &args);
    let _silent = pair.near.run(|| std::net::TcpStream::connect(address())).expect("connected");
    // Healthy from the first sweep on.
    let healthy = || get(&pair.near, address(), "/healthz", "*/*").expect("served").status == 200;
    assert!(wait_until(Duration::from_secs(5), healthy));
    assert!(agent.stop().status.success());
}

#[test]
fn a_port_that_is_taken_is_told_in_a_sentence() {
    if !is_root_or_say("a_port_that_is_taken_is_told_in_a_sentence") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let args = ["--iface", NEAR_IF, "--metrics", METRICS];
    let first = Agent::start(&pair.near, &args);
    let outcome = Builder::new(&pair.near, &args).spawn().wait();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(
        outcome.stderr.contains(&format!("cannot serve metrics at {METRICS}"))
            && outcome.stderr.contains("Address already in use"),
        "{}",
        outcome.stderr
    );
    assert!(first.stop().status.success());
}

/// The service manager's end of the line.
struct Manager {
    socket: UnixDatagram,
    told: Vec<(Instant, String)>,
}

impl Manager {
    /// Listens at a path.
    fn new(path: &str) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("time-out");
        Self { socket, told: Vec::new() }
    }

    /// Whether something that begins so is told within some seconds; it is then the last of what was told.
    fn hears(&mut self, begin: &str) -> bool {
        wait_until(Duration::from_secs(10), || {
            let mut text = [0; 500];
            let Ok(length) = self.socket.recv(&mut text) else { return false };
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            let found = text.starts_with(begin);
            self.told.push((Instant::now(), text));
            found
        })
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_and_that_it_lives() {
    if !is_root_or_say("systemd_is_told_when_it_is_ready_and_that_it_lives") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let folder = Tmpfs::new(64 << 10);
    let path = folder.path().join("notify").to_str().expect("UTF-8").to_owned();
    let mut manager = Manager::new(&path);
    let agent = Builder::new(&pair.near, &["--iface", NEAR_IF, "--poll", "50ms"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "800000")
        .spawn();
    assert!(manager.hears("READY=1\n"), "not ready; it said:\n{}", agent.stderr());
    assert_eq!(manager.told.len(), 1, "it lives before it is ready: {:?}", manager.told);
    assert_eq!(tcx_programs(&pair.near, NEAR_IF), 2, "ready before it is attached");
    let status = format!("READY=1\nSTATUS=watching {NEAR_IF}");
    assert_eq!(manager.told[0].1, status);
    for _ in 0..5 {
        assert!(manager.hears("WATCHDOG=1\nSTATUS=0 packets, 0 flows, 0 vectors"));
    }
    let gaps = manager.told.windows(2).map(|two| two[1].0 - two[0].0);
    let longest = gaps.max().expect("six messages");
    assert!(longest < Duration::from_millis(800), "the watchdog would have bitten: {longest:?}");
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(manager.hears("STOPPING=1\n"), "{:?}", manager.told);
}

#[test]
fn a_watchdog_shorter_than_the_poll_is_made_longer() {
    if !is_root_or_say("a_watchdog_shorter_than_the_poll_is_made_longer") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let folder = Tmpfs::new(64 << 10);
    let path = folder.path().join("notify").to_str().expect("UTF-8").to_owned();
    let mut manager = Manager::new(&path);
    let agent = Builder::new(&pair.near, &["--iface", NEAR_IF, "--poll", "30s"])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .spawn();
    assert!(manager.hears("READY=1\n"), "not ready; it said:\n{}", agent.stderr());
    assert_eq!(manager.told[0].1, "WATCHDOG_USEC=120000000");
    assert!(agent.stop().status.success());
}

/// The bits of CAP_NET_ADMIN and CAP_BPF (include/uapi/linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;

/// Whether this kernel wants CAP_BPF for the use of what is loaded.
fn use_takes_cap_bpf() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(5), Some(19))
}

#[test]
fn as_another_user_it_goes_on_with_what_attaching_again_takes() {
    if !is_root_or_say("as_another_user_it_goes_on_with_what_attaching_again_takes") {
        return;
    }
    let bpf = if use_takes_cap_bpf() { BPF } else { 0 };
    for (attach, kept) in [("tcx", bpf), ("clsact", bpf | NET_ADMIN)] {
        let pair = Pair::bare(CABLE_MTU);
        let frames = mixed_frames(32, 1_000);
        let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
        let args =
            ["--iface", NEAR_IF, "--attach", attach, "--user", "nobody", "--metrics", METRICS];
        let agent = Agent::start(&pair.near, &args);
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
        for ids in ["Uid:", "Gid:"] {
            let line = status.lines().find_map(|line| line.strip_prefix(ids)).expect(ids);
            let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("id")).collect();
            assert_eq!(ids, [NOBODY; 4], "{attach}");
        }
        let mut held = capabilities(agent.pid());
        held.sort_unstable();
        assert_eq!(held.pop(), Some((kept, kept)), "{attach}: the main thread");
        assert!(held.iter().all(|sets| *sets == (0, 0)), "{attach}: the others: {held:x?}");

        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
        capture.settle(Duration::from_millis(300));
        let before = Oracle::over(&capture.finish()).counts().seen;
        pair.near.ip(&format!("link del {NEAR_IF}\n"));
        sleep(Duration::from_millis(300));
        pair.connect(CABLE_MTU);
        let again = wait_until(Duration::from_secs(5), || {
            tcx_programs(&pair.near, NEAR_IF) + tc_filters(&pair.near, NEAR_IF).len() == 2
        });
        assert!(again, "{attach}: not attached again; it said:\n{}", agent.stderr());
        sleep(Duration::from_millis(300));
        let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
        inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
        capture.settle(Duration::from_millis(300));
        let after = Oracle::over(&capture.finish()).counts().seen;
        let outcome = agent.stop();
        assert!(outcome.status.success(), "{attach}: {}", outcome.stderr);
        let counts = outcome.reconciliation();
        assert_eq!((counts.seen, counts.lost), (before + after, 0), "{attach}: {}", outcome.stderr);
        assert_eq!(tc_filters(&pair.near, NEAR_IF), [""; 0], "{attach}: a filter is left");
    }
}

#[test]
fn an_ordinary_user_gives_up_its_capabilities_in_every_thread() {
    if !is_root_or_say("an_ordinary_user_gives_up_its_capabilities_in_every_thread") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let copy = Copy::new(binary(), "ordinary");
    let folder = Tmpfs::new(1 << 20);
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
    let output = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (file, socket) = (output("v.jsonl"), format!("unix:{}", output("v.sock")));
    let args = ["--iface", NEAR_IF, "--attach", "tcx", "--metrics", METRICS];
    let args = [&args[..], &["--output", "-", "--output", &file, "--output", &socket]].concat();
    let agent = copy.with_three_capabilities(&pair.near, &args).start();
    let held = capabilities(agent.pid());
    assert!(held.len() >= 5, "main, two outputs, listener, metrics: {held:x?}");
    let bpf = if use_takes_cap_bpf() { BPF } else { 0 };
    let surplus: Vec<_> = held.iter().filter(|sets| **sets != (0, 0)).collect();
    assert!(surplus.iter().all(|sets| **sets == (bpf, bpf)) && surplus.len() <= 1, "{held:x?}");
    assert!(agent.stop().status.success());
}

#[test]
fn an_unknown_user_is_told_before_anything_is_done() {
    if !is_root_or_say("an_unknown_user_is_told_before_anything_is_done") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let args = ["--iface", NEAR_IF, "--user", "nobody-at-all"];
    let outcome = Builder::new(&pair.near, &args).spawn().wait();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.stderr.contains("there is no user `nobody-at-all`"), "{}", outcome.stderr);
}

#[test]
fn a_reload_changes_what_can_change_and_loses_no_flow() {
    if !is_root_or_say("a_reload_changes_what_can_change_and_loses_no_flow") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    pair.near
        .ip("link add extra0 type veth peer name extra1\nlink set extra0 up\nlink set extra1 up\n");
    let folder = Tmpfs::new(64 << 10);
    let file = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (config, notify) = (file("config.toml"), file("notify"));
    let write = |text: &str| fs::write(&config, text).expect("written");
    let mut manager = Manager::new(&notify);
    write(&format!("iface = \"{NEAR_IF}\"\nwindow = 16\nstride = 4\nmin-gap = \"0ms\"\n"));
    let agent = Builder::new(&pair.near, &["--config", &config, "--stride", "2"])
        .env("NOTIFY_SOCKET", &notify)
        .start();
    let datagram = craft::udp(5, 6, b"hello");
    let packet = V4::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), 17).packet(&datagram);
    let frames = vec![craft::ethernet(&[], IPV4, &packet); 4];
    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);

    write(&format!(
        "iface = [\"{NEAR_IF}\", \"extra0\"]\nwindow = 32\nstride = 4\nmin-gap = \"0ms\"\n\
         poll = \"50ms\"\nverbose = 1\nmetrics = \"{METRICS}\"\n"
    ));
    agent.signal(Signal::SIGHUP);
    assert!(manager.hears("RELOADING=1\nMONOTONIC_USEC="), "{:?}", manager.told);
    assert!(manager.hears("READY=1\nSTATUS=watching veth-near, extra0"), "{:?}", manager.told);
    let healthy = || get(&pair.near, address(), "/healthz", "*/*").is_ok_and(|a| a.status == 200);
    assert!(wait_until(Duration::from_secs(5), healthy), "{}", agent.stderr());
    assert!(wait_until(Duration::from_secs(5), || tcx_programs(&pair.near, "extra0") == 2));
    let said = agent.stderr();
    assert!(said.contains("--window cannot change while the agent runs"), "{said}");
    assert!(!said.contains("--stride"), "the flag wins, before and after:\n{said}");
    assert!(said.contains("poll is now 50ms") && said.contains("extra0 is watched now"), "{said}");

    // What is wrong changes nothing.
    write("iface = \"extra0\"\nwindw = 4\n");
    agent.signal(Signal::SIGHUP);
    assert!(manager.hears("READY=1"), "{:?}", manager.told);
    let refused = "config.toml:2: there is no option `windw`; did you mean `window`?";
    let is_refused = || agent.stderr().contains(refused);
    assert!(wait_until(Duration::from_secs(5), is_refused), "{}", agent.stderr());
    assert_eq!(tcx_programs(&pair.near, NEAR_IF), 2);

    inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    sleep(Duration::from_millis(300));
    // An interface that is not in the file any more is let go, with its flows.
    write("iface = \"extra0\"\n");
    agent.signal(Signal::SIGHUP);
    assert!(wait_until(Duration::from_secs(5), || tcx_programs(&pair.near, NEAR_IF) == 0));
    let outcome = agent.stop();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    let lines: Vec<_> = outcome
        .lines()
        .into_iter()
        .filter(|line| line.text("iface") == NEAR_IF && line.int("dport") == 6)
        .collect();
    let last = lines.last().expect("a line");
    assert_eq!((last.packets(), last.text("reason")), (8, "stop"), "{lines:#?}");
    assert_eq!(last.int("win_packets"), 8, "one window over both halves");
    assert_eq!(lives(&lines).expect("lives").len(), 1, "one flow from before to after: {lines:#?}");
}
