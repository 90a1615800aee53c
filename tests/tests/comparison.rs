//! The comparison itself: right lines pass, and a change of any field is found.

use feature_agent_tests::{
    compare::{Options, Times, compare, is_time},
    frame::Frame,
    generate::mixed_frames,
    lines::{ENVELOPE, Line, feature_names},
    oracle::{Flow, Oracle, Value, Verdict},
};
use serde_json::json;

/// The lines a perfect agent prints: after every seventh packet of each flow, and at its end.
fn perfect_lines(oracle: &Oracle) -> Vec<String> {
    let mut lines = Vec::new();
    for flow in oracle.flows() {
        let last = flow.packets.len();
        let ends = (1..=last).filter(|k| k % 7 == 0 || *k == last);
        lines.extend(ends.enumerate().map(|(seq, k)| print(flow, seq, k)));
    }
    lines
}

fn print(flow: &Flow, seq: usize, k: usize) -> String {
    let id = &flow.id;
    let [split, kept] = flow.super_packets_after(k);
    let ts = flow.packets[k - 1].time_us;
    let process = [const { serde_json::Value::Null }; 7];
    let envelope = [
        json!("feature-agent/1:00c0ffee"),
        json!("ts goes here"),
        json!("eth0"),
        json!("tc"),
        json!(flow.community_id()),
        json!(id.proto),
        json!(id.src),
        json!(id.sport),
        json!(id.dst),
        json!(id.dport),
        json!(id.vlan),
        json!(id.vlan_inner),
        json!("stride"),
        json!(seq),
        json!(flow.direction_by.name()),
        json!(flow.midstream),
        json!(0),
        json!(split),
        json!(kept),
    ];
    let envelope = envelope.into_iter().chain(process).chain([json!(0)]);
    let values = flow.totals_after(k).into_iter().chain(flow.window_after(k, 64));
    let features = values.map(|(name, value)| {
        let value = match value {
            Value::Int(int) => json!(u64::try_from(int).expect("small")),
            Value::Float(float) => json!(float),
            Value::Null => json!(null),
        };
        (name, value)
    });
    let fields: Vec<String> = ENVELOPE
        .into_iter()
        .map(str::to_owned)
        .zip(envelope)
        .chain(features)
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    let ts = format!("{}.{:06}", ts / 1_000_000, ts % 1_000_000);
    format!("{{{}}}", fields.join(",")).replace("\"ts goes here\"", &ts)
}

fn mixed() -> Vec<Frame> {
    let timed = |(i, bytes)| Frame::ethernet(i as u64 * 37_123, bytes);
    mixed_frames(5, 3000).into_iter().enumerate().map(timed).collect()
}

/// An oracle that has seen one TCP flow with packets both ways.
fn one_flow() -> Oracle {
    let frames = mixed();
    let mut all = Oracle::default();
    let verdicts: Vec<Verdict> = frames.iter().map(|frame| all.push(frame)).collect();
    let good = |flow: &Flow| {
        let bwd = flow.packets.iter().filter(|packet| packet.bwd).count();
        flow.id.proto == 6 && (20..60).contains(&flow.packets.len()) && bwd > 5
    };
    let chosen = all.flows().iter().position(good).expect("such a flow");
    let of_it =
        |verdict: &Verdict| matches!(verdict, Verdict::Accounted { flow, .. } if *flow == chosen);
    let its = frames.iter().zip(&verdicts).filter(|(_, verdict)| of_it(verdict));
    Oracle::over(its.map(|(frame, _)| frame))
}

fn parsed(lines: &[String]) -> Vec<Line> {
    lines.iter().map(|raw| Line::parse(raw).expect("a line")).collect()
}

const EVERYTHING: Options = Options {
    window: 64,
    times: Times::Compare,
    windows: true,
    every_total: true,
    reasons: true,
    super_packets: true,
};

#[test]
fn perfect_lines_pass() {
    let oracle = Oracle::over(&mixed());
    let lines = parsed(&perfect_lines(&oracle));
    let compared = compare(&lines, &oracle, EVERYTHING).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(compared.packets, oracle.counts().accounted);
    assert_eq!(compared.flows, oracle.flows().len());
}

#[test]
fn a_change_of_any_field_is_found() {
    let oracle = one_flow();
    let lines = perfect_lines(&oracle);
    let at = lines
        .iter()
        .position(|raw| {
            let line = Line::parse(raw).expect("a line");
            line.int("win_packets") > 20 && line.int("win_bwd_packets") > 2
        })
        .expect("a full line");
    let line = Line::parse(&lines[at]).expect("a line");
    // Not compared with the oracle: they are the agent's own affair.
    let own = ["schema", "ts", "iface", "hook", "reason", "missed", "lost"];
    for (name, value) in &line.fields {
        if own.contains(&name.as_str()) {
            continue;
        }
        let other = match value {
            serde_json::Value::Number(n) if n.is_f64() => {
                json!(n.as_f64().expect("a float") * (1.0 + 1e-7) + 1e-7)
            }
            serde_json::Value::Number(n) => json!(n.as_u64().expect("an integer") + 1),
            serde_json::Value::String(_) if name == "src" || name == "dst" => json!("9.9.9.9"),
            serde_json::Value::String(_) => json!("other"),
            serde_json::Value::Bool(b) => json!(!b),
            serde_json::Value::Null => json!(1),
            other => panic!("{name} is {other}"),
        };
        let mut lines = lines.clone();
        lines[at] = with_field(&line, name, &other);
        let result = compare(&parsed(&lines), &oracle, EVERYTHING);
        assert!(result.is_err(), "a change of {name} to {other} was not found");
        // Without times a change of a time is not a difference, unless the line contradicts itself.
        if !is_time(name) {
            let options = Options { times: Times::Ignore, ..EVERYTHING };
            assert!(compare(&parsed(&lines), &oracle, options).is_err(), "{name}");
        }
    }
    assert_eq!(line.fields.len(), ENVELOPE.len() + feature_names().len());
}

/// The line with one field's value replaced.
fn with_field(line: &Line, changed: &str, other: &serde_json::Value) -> String {
    let fields: Vec<String> = line
        .fields
        .iter()
        .map(|(name, value)| {
            let value = if name == changed { other } else { value };
            if name == "ts" {
                format!("\"ts\":{:.6}", value.as_f64().expect("a time"))
            } else {
                format!("\"{name}\":{value}")
            }
        })
        .collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn missing_doubled_and_reordered_things_are_found() {
    let oracle = one_flow();
    let lines = perfect_lines(&oracle);
    let fails = |lines: &[String], what: &str| {
        assert!(compare(&parsed(lines), &oracle, EVERYTHING).is_err(), "{what} was not found");
    };
    let mut without = lines.clone();
    without.pop();
    fails(&without, "a flow without its last line");
    let mut twice = lines.clone();
    twice.push(lines[0].clone());
    fails(&twice, "a line printed twice");
    let mut swapped = lines.clone();
    swapped[0] = lines[0].replace("\"win_packets\"", "\"win_bytes\"");
    fails(&swapped, "a missing field");
    let mut moved = lines.clone();
    moved[0] = format!("{{\"dst\":\"1.1.1.1\",{}", &lines[0][1..].replace("\"dst\"", "\"dst2\""));
    fails(&moved, "a field out of order");
    assert!(Line::parse("{\"a\":1,\"a\":2}").is_err(), "a field twice");
    assert!(Line::parse("{\"a\":NaN}").is_err(), "NaN is no JSON");
    assert!(Line::parse("{\"a\":1} x").is_err(), "something behind the object");
}
