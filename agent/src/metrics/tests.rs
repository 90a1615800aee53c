//! The page, the README's table, the dashboard, and the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use agent_common::counters::Counters;

use super::{classic::classic, definitions::PREFIX, health::health, page::Page, *};
use crate::sink::Totals;

fn snapshot() -> Snapshot {
    let output = OutputStats {
        name: "standard \"output\"".into(),
        totals: Totals { offered: 8, sent: 5, dropped: 1, ..Totals::default() },
    };
    let run_time = Duration::from_micros(3);
    Snapshot {
        swept: Instant::now(),
        swept_at: SystemTime::now(),
        poll: Duration::from_millis(250),
        counters: Counters {
            seen: 100,
            accounted: 50,
            accounted_bytes: 5_000,
            not_ip: 20,
            malformed: [1, 2, 3, 4, 0, 0, 0, 0, 0],
            filtered: 15,
            table_full: 5,
            vectors: 9,
            ..Counters::default()
        },
        calls: Some(Counters { seen: 7, accounted: 6, contended: 1, ..Counters::default() }),
        flows: 3,
        max_flows: 10,
        ring_used: Some(376),
        ring_size: 8 << 20,
        interfaces: vec![("eth0".into(), true), ("wg0".into(), false)],
        outputs: vec![output],
        programs: vec![ProgramStats { name: "tc_ethernet", runs: 12, run_time }],
    }
}

fn text() -> String {
    let board = Board::new();
    board.swept(Duration::from_millis(2));
    board.put(snapshot());
    Page::new(board).text().expect("written")
}

/// The samples of a page by series and labels. Panics at what OpenMetrics 1.0 does not allow.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut types = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples = BTreeMap::new();
    for line in body.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", family, help] => {
                assert!(helped.insert(family) && !help.is_empty(), "{line}");
            }
            ["#", "TYPE", family, kind] => assert!(types.insert(family, kind).is_none(), "{line}"),
            ["#", "UNIT", family, unit] => assert!(family.ends_with(&format!("_{unit}")), "{line}"),
            _ => {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                let series = name.split('{').next().expect("a name");
                let of_family = |(family, kind): (&&str, &&str)| {
                    series.strip_prefix(family).is_some_and(|rest| suffixes(kind).contains(&rest))
                };
                assert!(types.iter().any(of_family), "of no family: {line}");
                let value = value.parse().expect("a number");
                assert!(samples.insert(name.to_owned(), value).is_none(), "twice: {line}");
            }
        }
    }
    assert_eq!(helped, types.into_keys().collect());
    samples
}

/// What a family's name is followed by in its series.
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("there is no such type: {other}"),
    }
}

/// Names of all series.
fn series() -> BTreeSet<String> {
    let sweep =
        ["bucket", "sum", "count"].map(|part| format!("{PREFIX}_sweep_duration_seconds_{part}"));
    METRICS.iter().map(Metric::series).chain(sweep).collect()
}

/// Words of a text that look like series.
fn mentioned(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("feature_agent_"))
        .map(str::to_owned)
        .collect()
}

fn project(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_page_holds_every_metric_and_its_packets_add_up() {
    let samples = parse(&text());
    let found: BTreeSet<String> =
        samples.keys().filter_map(|name| name.split('{').next()).map(str::to_owned).collect();
    assert_eq!(found, series());
    let into = |(name, _): &(&String, &f64)| name.starts_with("feature_agent_packets_total{into=");
    let sum: f64 = samples.iter().filter(into).map(|(_, value)| value).sum();
    assert_eq!(sum.to_bits(), samples["feature_agent_packets_seen_total"].to_bits());
    let into = |(name, _): &(&String, &f64)| name.starts_with("feature_agent_calls_total{into=");
    let sum: f64 = samples.iter().filter(into).map(|(_, value)| value).sum();
    assert_eq!(sum.to_bits(), samples["feature_agent_calls_seen_total"].to_bits());
    let exact = [
        ("feature_agent_packets_malformed_total{reason=\"truncated_link\"}", 1.0),
        ("feature_agent_packets_unaccounted", 0.0),
        ("feature_agent_interface_attached{iface=\"wg0\"}", 0.0),
        ("feature_agent_output_vectors_sent_total{output=\"standard \\\"output\\\"\"}", 5.0),
        ("feature_agent_program_run_seconds_total{program=\"tc_ethernet\"}", 0.000_003),
        ("feature_agent_sweep_duration_seconds_bucket{le=\"0.001\"}", 0.0),
        ("feature_agent_sweep_duration_seconds_bucket{le=\"0.0025\"}", 1.0),
        ("feature_agent_sweep_duration_seconds_bucket{le=\"+Inf\"}", 1.0),
    ];
    for (name, value) in exact {
        assert_eq!(samples.get(name).map(|v| v.to_bits()), Some(f64::to_bits(value)), "{name}");
    }
}

#[test]
fn before_the_first_sweep_there_is_a_page() {
    let samples = parse(&Page::new(Board::new()).text().expect("written"));
    assert!(samples.contains_key("feature_agent_sweep_duration_seconds_count"));
    assert!(!samples.contains_key("feature_agent_packets_seen_total"));
}

#[test]
fn the_readme_explains_every_metric_and_no_other() {
    let readme = project("README.md");
    let (_, behind) = readme.split_once("\n## Metrics\n").expect("a chapter on metrics");
    let chapter = behind.split("\n## ").next().expect("its text");
    let mut named = mentioned(chapter);
    // The histogram has one row for its three series.
    assert!(named.remove("feature_agent_sweep_duration_seconds"));
    let mut known = series();
    known.retain(|name| !name.contains("_sweep_duration_"));
    named.retain(|name| !name.contains("_sweep_duration_"));
    assert_eq!(named, known);
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = project("grafana/feature-agent.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut places = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: an id twice");
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
        assert!(place.iter().all(Option::is_some) && places.insert(place), "{title}: {place:?}");
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().expect("an expression");
            let names = mentioned(expression);
            assert!(!names.is_empty(), "{title}: {expression}");
            asked.extend(names);
        }
    }
    let known = series();
    let unknown: Vec<&String> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "the dashboard asks for what is not there: {unknown:?}");
    let shown = known.iter().filter(|name| asked.contains(*name)).count();
    assert!(shown * 3 > known.len() * 2, "it shows {shown} of {} metrics", known.len());
    for needed in ["title", "uid", "schemaVersion", "templating", "time"] {
        assert!(!dashboard[needed].is_null(), "{needed}");
    }
}

#[test]
fn the_older_format_has_the_same_samples_each_with_a_type_that_it_knows() {
    let (page, mut types, mut samples) = (text(), BTreeMap::new(), BTreeMap::new());
    let page_of_today = parse(&page);
    let classic = classic(&page);
    let mut lines = classic.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a meaning");
            assert!(!help.is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
            let kind = kind.unwrap_or_else(|| panic!("no type after {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{name}: {kind}");
            assert!(types.insert(name, kind).is_none(), "twice: {line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            let series = name.split('{').next().expect("a name");
            let sum = series.rsplit_once('_').and_then(|(histogram, _)| types.get(histogram));
            let kind = types.get(series).or(sum).unwrap_or_else(|| panic!("of no type: {line}"));
            assert_eq!(*kind == "counter", series.ends_with("_total"), "{line}");
            samples.insert(name.to_owned(), value.parse::<f64>().expect("a number"));
        }
    }
    assert_eq!(samples, page_of_today);
    assert_eq!(types["feature_agent_build_info"], "gauge");
}

#[test]
fn health_is_a_sentence() {
    let now = Instant::now();
    assert!(health(None, now).expect_err("starting").starts_with("starting"));
    let fresh = snapshot();
    assert_eq!(
        health(Some(&fresh), now),
        Ok("watching eth0, calls on sockets; waiting for wg0".into())
    );
    let fresh = Snapshot { calls: None, ..fresh };
    let all = Snapshot { interfaces: vec![("eth0".into(), true)], ..fresh.clone() };
    let calls = Snapshot { interfaces: vec![], calls: snapshot().calls, ..fresh.clone() };
    assert_eq!(health(Some(&calls), calls.swept), Ok("watching calls on sockets".to_owned()));
    assert_eq!(health(Some(&all), now), Ok("watching eth0".into()));
    let none = Snapshot { interfaces: vec![("eth0".into(), false)], ..fresh.clone() };
    let said = health(Some(&none), now).expect_err("nothing to watch");
    assert_eq!(said, "nothing is watched: waiting for eth0");
    let late = now + Duration::from_secs(7);
    let said = health(Some(&fresh), late).expect_err("late");
    assert!(said.starts_with("the last sweep was ") && said.ends_with(" s ago: the agent hangs"));
    let slow = Snapshot { poll: Duration::from_secs(1), ..fresh };
    assert!(health(Some(&slow), late).is_ok(), "ten polls are not over");
}

fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    ask_for(address, request, "application/openmetrics-text; version=1.0.0")
}

fn ask_for(address: SocketAddr, request: &str, accept: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time-out");
    let request =
        format!("{request} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status.expect("a status"), body.to_owned())
}

#[test]
fn the_server_serves_what_hangs_at_the_board_and_nothing_else() {
    let board = Board::new();
    let server = Server::start(([127, 0, 0, 1], 0).into(), board.clone()).expect("a free port");
    let address = server.address();
    assert_eq!(ask(address, "GET /healthz").0, 503);
    board.put(snapshot());
    assert_eq!(
        ask(address, "GET /healthz"),
        (200, "watching eth0, calls on sockets; waiting for wg0\n".into())
    );
    let (status, page) = ask(address, "GET /metrics");
    assert_eq!(
        (status, parse(&page)["feature_agent_packets_seen_total"].to_bits()),
        (200, 100_f64.to_bits())
    );
    let (_, page) = ask_for(address, "GET /metrics", "*/*");
    assert!(page.contains("# TYPE feature_agent_packets_seen_total counter\n"), "{page}");
    assert_eq!(ask(address, "HEAD /metrics"), (200, String::new()));
    assert_eq!(ask(address, "POST /metrics").0, 405);
    assert_eq!(ask(address, "GET /etc/passwd").0, 404);

    let error = Server::start(address, board).expect_err("the port is taken");
    assert!(format!("{error:#}").contains("--metrics"), "{error:#}");
    drop(server);
    let gone = || TcpStream::connect(address).is_err();
    assert!((0..100).any(|_| gone() || {
        std::thread::sleep(Duration::from_millis(20));
        false
    }));
}

#[test]
fn scrapers_that_say_nothing_do_not_keep_others_out() {
    let board = Board::new();
    board.put(snapshot());
    let server = Server::start(([127, 0, 0, 1], 0).into(), board).expect("a free port");
    let silent: Vec<TcpStream> =
        (0..15).map(|_| TcpStream::connect(server.address()).expect("connected")).collect();
    assert_eq!(ask(server.address(), "GET /healthz").0, 200);
    drop(silent);
}
