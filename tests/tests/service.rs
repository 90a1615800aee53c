//! The agent as a service: what it tells those who watch over it.

use std::{fs, net::SocketAddr, thread::sleep, time::Duration};

use feature_agent_tests::{
    agent::{Agent, Builder},
    capture::{Capture, Sides},
    generate::{CABLE_MTU, mixed_frames},
    inject::{self, Pace, wait_until},
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::Oracle,
    scenario::assert_conserved,
    scrape::{get, samples},
    sys::is_root_or_say,
};

const METRICS: &str = "127.0.0.1:9469";
const OPEN: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

fn address() -> SocketAddr {
    METRICS.parse().expect("an address")
}

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
    let sent = value("feature_agent_output_vectors_sent_total{output=\"standard output\"}");
    assert!(sent > 0 && sent <= counts.written, "{sent} of {}", counts.written);
    assert_eq!(sent, value("feature_agent_vectors_total"), "all but the last words");
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
    let answer = get(&pair.near, address(), "/healthz", "*/*").expect("served");
    assert_eq!(answer.status, 200, "{}", answer.body);
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
