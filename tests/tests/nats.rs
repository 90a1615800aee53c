//! Vectors to a real nats-server that is killed, stopped, cut off and started again: each arrives, or is counted and
//! told about.

use std::{thread, time::Duration};

use feature_agent::sink::{Ending, Format, OnFull, Outputs, Plan, SinkReport, Totals};
use feature_agent_tests::{
    gate::Gate,
    inject::wait_until,
    nats::{Collector, NatsServer, once_each},
    vectors::{Tally, Vectors, number_and_lost, run},
};
use nix::sys::signal::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const JETSTREAM: &str = "jetstream { store_dir: \"STORE\" }";

fn plan(outputs: &[&str]) -> Plan {
    let targets = outputs.iter().map(|text| text.parse().expect("an output")).collect();
    Plan { targets, queue: 1_000_000, ..Plan::default() }
}

fn totals(outputs: &Outputs) -> Totals {
    outputs.totals().next().expect("an output").1
}

fn wait_for(what: &str, outputs: &Outputs, holds: impl Fn(&Totals) -> bool) {
    let held = wait_until(PATIENCE, || holds(&totals(outputs)));
    assert!(held, "waited in vain until {what}: {:?}", totals(outputs));
}

fn end(outputs: &mut Outputs) -> SinkReport {
    run(outputs.finish(Duration::from_secs(10)));
    outputs.reports().remove(0)
}

fn assert_complete(outputs: &mut Outputs) -> Totals {
    let SinkReport { totals, ending, .. } = end(outputs);
    assert!(matches!(ending, Ending::Complete), "{ending}: {totals}");
    assert_eq!(totals.offered, totals.sent + totals.dropped);
    totals
}

fn tally(payloads: &[Vec<u8>]) -> Tally {
    let mut tally = Tally::default();
    for payload in payloads {
        tally.line(payload);
    }
    tally
}

#[test]
fn a_subscriber_gets_one_message_a_vector() {
    let mut server = NatsServer::start("");
    let collector = Collector::start(&server, "features.>");
    let url = format!("nats://{}/features.{{iface}}", server.address());
    let mut outputs = Outputs::start(&plan(&[&url])).expect("an output");
    let mut vectors = Vectors::new(&["eth0", "eth0.100"]);
    vectors.push(&mut outputs, 3000);
    let totals = assert_complete(&mut outputs);
    assert!(totals.is_plain(), "{totals}");
    assert!(wait_until(PATIENCE, || collector.len() == 3000), "{}", collector.len());
    server.kill();
    let messages = collector.finish();
    for (number, message) in messages.iter().enumerate() {
        let iface = ["eth0", "eth0_100"][number % 2];
        assert_eq!(message.subject, format!("features.{iface}"));
        let line: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!(line["seq"].as_u64(), Some(number as u64));
        assert_eq!(line["iface"], ["eth0", "eth0.100"][number % 2]);
        assert_ne!(message.payload.last(), Some(&b'\n'));
    }
}

#[test]
fn lines_of_csv_come_without_their_ends() {
    let mut server = NatsServer::start("");
    let collector = Collector::start(&server, "x");
    let url = format!("nats://{}/x", server.address());
    let mut outputs =
        Outputs::start(&Plan { format: Format::Csv, ..plan(&[&url]) }).expect("an output");
    Vectors::new(&["eth0"]).push(&mut outputs, 300);
    assert_complete(&mut outputs);
    assert!(wait_until(PATIENCE, || collector.len() == 300));
    server.kill();
    let messages = once_each(collector.finish());
    assert_eq!(tally(&messages), Tally { received: 300, told: 0, next: 300 });
    assert!(messages.iter().all(|line| !line.ends_with(b"\n") && !line.ends_with(b"\r")));
}

#[test]
fn a_stream_acknowledges_and_outlives_its_server() {
    let mut server = NatsServer::start(JETSTREAM);
    server.make_stream("S", &["features.>"], &json!({}));
    let url = format!("nats://{}/features.a", server.address());
    let plan = Plan { queue: 2000, on_full: Some(OnFull::DropOldest), ..plan(&[&url]) };
    let mut outputs = Outputs::start(&plan).expect("an output");
    let mut vectors = Vectors::new(&["eth0"]);
    for round in 0..60 {
        vectors.push(&mut outputs, 100);
        thread::sleep(Duration::from_millis(10));
        match round {
            10 => server.kill(),
            40 => server.restart(),
            _ => {}
        }
    }
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    let totals = assert_complete(&mut outputs);
    assert!(totals.errors > 0 && totals.reconnects > 0 && totals.dropped > 0, "{totals}");
    let kept = server.client().kept("S");
    let tally = tally(&kept);
    // What the stream keeps and what was counted is what was made, and the marks say which.
    assert_eq!((totals.offered, totals.sent), (6000, kept.len() as u64));
    assert_eq!((tally.told, tally.behind(6000)), (totals.dropped, 0));
}

#[test]
fn what_a_stream_refuses_is_sent_again_and_at_last_lost() {
    let server = NatsServer::start(JETSTREAM);
    server.make_stream("S", &["x"], &json!({"max_msgs": 10, "discard": "new"}));
    let url = format!("nats://{}/x", server.address());
    let mut outputs = Outputs::start(&plan(&[&url])).expect("an output");
    Vectors::new(&["eth0"]).push(&mut outputs, 30);
    wait_for("it gives up", &outputs, |totals| totals.dropped == 20);
    let Totals { sent, errors, .. } = totals(&outputs);
    assert_eq!((sent, errors), (10, 5));
    let mut client = server.client();
    assert_eq!(tally(&client.kept("S")), Tally { received: 10, told: 0, next: 10 });
    // Room again: the next vector tells what was lost before it.
    client.api("STREAM.PURGE.S", &json!({}));
    let mut rest = Vectors::new(&["eth0"]);
    rest.push(&mut outputs, 1);
    assert_complete(&mut outputs);
    let kept = client.kept("S");
    assert_eq!((kept.len(), number_and_lost(&kept[0])), (1, (0, 20)));
}

#[test]
fn a_connection_that_is_cut_loses_nothing() {
    let mut server = NatsServer::start("");
    let collector = Collector::start(&server, "x");
    let gate = Gate::to(server.address());
    let url = format!("nats://{}/x", gate.address());
    let plan = Plan { queue: 3000, on_full: Some(OnFull::DropNewest), ..plan(&[&url]) };
    let mut outputs = Outputs::start(&plan).expect("an output");
    let mut vectors = Vectors::new(&["eth0"]);
    for round in 0..100 {
        vectors.push(&mut outputs, 100);
        thread::sleep(Duration::from_millis(5));
        match round % 30 {
            10 => gate.shut(),
            20 => gate.open(),
            _ => {}
        }
    }
    gate.open();
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    vectors.push(&mut outputs, 1);
    let totals = assert_complete(&mut outputs);
    assert!(totals.errors > 0 && totals.reconnects > 0, "{totals}");
    let last = vectors.made() - 1;
    let arrived = || collector.len() as u64 >= totals.sent;
    assert!(wait_until(PATIENCE, arrived), "{} of {totals}", collector.len());
    server.kill();
    let received = once_each(collector.finish());
    assert_eq!(number_and_lost(received.last().expect("messages")).0, last);
    let tally = tally(&received);
    assert_eq!((tally.received, tally.told), (totals.sent, totals.dropped));
    assert_eq!(tally.received + tally.told, vectors.made());
}

#[test]
fn a_server_that_is_killed_when_all_is_out_costs_nothing() {
    let mut server = NatsServer::start("");
    let mut collector = Collector::start(&server, "x");
    let gate = Gate::to(server.address());
    let mut outputs =
        Outputs::start(&plan(&[&format!("nats://{}/x", gate.address())])).expect("one");
    let mut vectors = Vectors::new(&["eth0"]);
    vectors.push(&mut outputs, 1000);
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    assert!(wait_until(PATIENCE, || collector.len() == 1000));
    server.kill();
    gate.shut();
    vectors.push(&mut outputs, 1000);
    wait_for("it is noticed", &outputs, |totals| totals.errors > 1);
    server.restart();
    // The subscriber first: nobody keeps what comes before it.
    collector.join(&server, "x");
    gate.open();
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    assert_eq!(assert_complete(&mut outputs).dropped, 0);
    assert!(wait_until(PATIENCE, || collector.len() >= 2000));
    server.kill();
    let received = once_each(collector.finish());
    assert_eq!(tally(&received), Tally { received: 2000, told: 0, next: 2000 });
}

/// Hampers a server, kept to by a stream or not, for 7 s. What was made then is received, or counted and told about, and a
/// file beside it notices nothing.
fn hampered(
    name: &str,
    stream: bool,
    hamper: impl Fn(&NatsServer, &Gate),
    relieve: impl Fn(&NatsServer, &Gate),
) -> Totals {
    let mut server = NatsServer::start(JETSTREAM);
    if stream {
        server.make_stream("S", &["x"], &json!({}));
    }
    let collector = Collector::start(&server, "x");
    let gate = Gate::to(server.address());
    let file = std::env::temp_dir().join(format!("feature-agent-{name}-{}", std::process::id()));
    let file = file.to_str().expect("UTF-8");
    let url = format!("nats://{}/x", gate.address());
    let mut outputs =
        Outputs::start(&Plan { queue: 1000, ..plan(&[&url, file]) }).expect("outputs");
    let mut vectors = Vectors::new(&["eth0"]);
    run(vectors.push_patiently(&mut outputs, 500));
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    hamper(&server, &gate);
    for _ in 0..70 {
        run(vectors.push_patiently(&mut outputs, 100));
        thread::sleep(Duration::from_millis(100));
    }
    let of_file = outputs.totals().nth(1).expect("two outputs").1;
    assert!(of_file.queued() < 1000 && of_file.dropped == 0, "{of_file}");
    wait_for("vectors are dropped", &outputs, |totals| totals.dropped > 0);
    relieve(&server, &gate);
    wait_for("all is out", &outputs, |totals| totals.queued() == 0);
    vectors.push(&mut outputs, 1);
    run(outputs.finish(Duration::from_secs(10)));
    let reports = outputs.reports();
    assert!(reports[1].totals.is_plain(), "{}", reports[1].totals);
    let totals = reports[0].totals;
    let received = if stream {
        server.client().kept("S")
    } else {
        assert!(wait_until(PATIENCE, || collector.len() as u64 >= totals.sent));
        server.kill();
        once_each(collector.finish())
    };
    let tally = tally(&received);
    assert_eq!((tally.received, tally.told), (totals.sent, totals.dropped));
    assert_eq!(tally.next, vectors.made());
    std::fs::remove_file(file).expect("the file");
    totals
}

fn stopped(name: &str, stream: bool) {
    let totals = hampered(
        name,
        stream,
        |server, _| server.signal(Signal::SIGSTOP),
        |server, _| server.signal(Signal::SIGCONT),
    );
    assert!(totals.errors > 0, "{totals}");
}

#[test]
fn one_that_is_stopped_holds_up_nobody() {
    stopped("stopped", false);
}

#[test]
fn a_stream_that_is_stopped_holds_up_nobody() {
    stopped("stopped-stream", true);
}

#[test]
fn one_that_is_slow_holds_up_nobody() {
    hampered("slow", false, |_, gate| gate.slow(), |_, gate| gate.open());
}

#[test]
fn a_stream_that_is_slow_holds_up_nobody() {
    hampered("slow-stream", true, |_, gate| gate.slow(), |_, gate| gate.open());
}

/// What the agent said is known to no one else: its log is the test's, so the error is found by the counts.
#[test]
fn a_user_and_a_password_let_in_and_nothing_else_does() {
    let server = NatsServer::start("authorization { user: me, password: \"p@ss/word\" }");
    let address = server.address();
    let mut outputs =
        Outputs::start(&plan(&[&format!("nats://me:p%40ss%2Fword@{address}/x")])).expect("one");
    let name = outputs.totals().next().expect("one").0.to_owned();
    assert_eq!(name, format!("nats://{address}/x"));
    Vectors::new(&["eth0"]).push(&mut outputs, 10);
    assert!(assert_complete(&mut outputs).is_plain());
    let mut outputs =
        Outputs::start(&plan(&[&format!("nats://me:wrong@{address}/x")])).expect("one");
    Vectors::new(&["eth0"]).push(&mut outputs, 10);
    wait_for("it is refused", &outputs, |totals| totals.errors > 0);
    let SinkReport { totals, ending, .. } = end(&mut outputs);
    let said = ending.to_string();
    assert!(said.contains("authorization violation") && !said.contains("wrong"), "{said}");
    assert_eq!((totals.sent, totals.dropped), (0, 10));
}

#[test]
fn a_subject_that_is_not_allowed_is_no_success() {
    let server = NatsServer::start(
        "authorization { users = [{ user: me, password: x, permissions: { publish: [\"fine\", \"_INBOX.>\"] } }] }",
    );
    let address = server.address();
    // It may not ask for streams either, and goes on.
    let mut outputs =
        Outputs::start(&plan(&[&format!("nats://me:x@{address}/fine")])).expect("one");
    Vectors::new(&["eth0"]).push(&mut outputs, 100);
    assert!(assert_complete(&mut outputs).is_plain());
    let mut outputs =
        Outputs::start(&plan(&[&format!("nats://me:x@{address}/other")])).expect("one");
    Vectors::new(&["eth0"]).push(&mut outputs, 100);
    wait_for("it gives up", &outputs, |totals| totals.dropped == 100);
    assert_eq!(totals(&outputs).sent, 0);
}
