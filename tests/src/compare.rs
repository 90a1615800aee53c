//! The agent's lines against the oracle's flows.

use std::collections::HashMap;

use crate::{
    lines::{Line, close, lives},
    oracle::{Flow, FlowId, Oracle, Totals, Value, Values},
};

/// What a comparison leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The oracle's clock is another one: everything that depends on time is left out.
    Ignore,
    /// The oracle saw the very times the agent saw.
    Compare,
}

/// How to compare a run.
#[expect(clippy::struct_excessive_bools, reason = "each says of one thing whether it is compared")]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The agent's `--window`.
    pub window: usize,
    /// Whether times are compared.
    pub times: Times,
    /// Whether window features are compared; without, totals still are.
    ///
    /// Off where two processors may have shown agent and capture different orders.
    pub windows: bool,
    /// Whether totals before a life's last line are compared. Needs the order, as windows do.
    pub every_total: bool,
    /// Whether malformed packets are compared by reason, not only in number.
    ///
    /// Off for frames with several faults, of which one observer may meet another one first.
    pub reasons: bool,
    /// Whether super-packets are compared.
    ///
    /// Off where the kernel cuts them between the agent and the capture.
    pub super_packets: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            window: 64,
            times: Times::Ignore,
            windows: true,
            every_total: true,
            reasons: true,
            super_packets: true,
        }
    }
}

impl Options {
    /// Only each life's last totals, for traffic whose order two observers may see differently.
    pub fn totals_only() -> Self {
        Self { windows: false, every_total: false, ..Self::default() }
    }
}

/// What was compared, so that a test can assert that it was not nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Lines.
    pub lines: usize,
    /// Lives of flows.
    pub flows: usize,
    /// Wire packets in all final totals.
    pub packets: u64,
}

/// Compares every line with the oracle, and the sets of flows with each other.
///
/// The error is a list of differences, the first twenty spelled out.
pub fn compare(lines: &[Line], oracle: &Oracle, options: Options) -> Result<Compared, String> {
    let lives = lives(lines).map_err(|faults| summary(&faults))?;
    let mut faults = Vec::new();
    let mut compared = Compared { lines: lines.len(), flows: lives.len(), packets: 0 };

    let mut expected: HashMap<&FlowId, Vec<&Flow>> = HashMap::new();
    for flow in oracle.flows() {
        expected.entry(&flow.id).or_default().push(flow);
    }
    let mut printed: HashMap<FlowId, Vec<&Vec<&Line>>> = HashMap::new();
    for life in &lives {
        printed.entry(life[0].flow()).or_default().push(life);
    }
    for (id, flows) in &expected {
        let found = printed.get(*id).map_or(0, Vec::len);
        if found != flows.len() {
            let packets: Vec<usize> = flows.iter().map(|flow| flow.packets.len()).collect();
            faults.push(format!("{id:?}: {found} lives printed, expected packets {packets:?}"));
        }
    }
    for (id, lives) in &printed {
        let Some(flows) = expected.get(id) else {
            faults.push(format!("no such flow: {}", lives[0][0].raw));
            continue;
        };
        for (life, flow) in lives.iter().zip(flows) {
            compared.packets += life.last().expect("a life has a line").packets();
            compare_life(life, flow, options, &mut faults);
        }
    }
    if faults.is_empty() { Ok(compared) } else { Err(summary(&faults)) }
}

fn compare_life(life: &[&Line], flow: &Flow, options: Options, faults: &mut Vec<String>) {
    let last = life.last().expect("a life has a line");
    if last.packets() != flow.packets.len() as u64 {
        faults.push(format!(
            "{:?}: last line has {} packets, expected {}: {}",
            flow.id,
            last.packets(),
            flow.packets.len(),
            last.raw
        ));
        return;
    }
    let mut totals = Totals::default();
    for line in life {
        let k = line.packets() as usize;
        totals.add(&flow.packets[totals.packets()..k]);
        let mut different = envelope(line, flow);
        if options.every_total || k == flow.packets.len() {
            if options.super_packets {
                super_packets(line, flow, &mut different);
            }
            differences(line, &totals.values(), options.times, &mut different);
        }
        if options.windows {
            let window = flow.window_after(k, options.window);
            differences(line, &window, options.times, &mut different);
        }
        if !different.is_empty() {
            faults.push(format!("after {k} packets: {}: {}", different.join(", "), line.raw));
        }
    }
}

fn super_packets(line: &Line, flow: &Flow, different: &mut Vec<String>) {
    let expected = flow.super_packets_after(line.packets() as usize);
    for (name, expected) in ["super_packets", "super_packets_kept"].iter().zip(expected) {
        let printed = line.get(name).to_string();
        if printed != expected.to_string() {
            different.push(format!("{name} is {printed}, expected {expected}"));
        }
    }
}

fn envelope(line: &Line, flow: &Flow) -> Vec<String> {
    let mut different = Vec::new();
    let mut same = |name: &str, printed: &str, expected: &str| {
        if printed != expected {
            different.push(format!("{name} is {printed}, expected {expected}"));
        }
    };
    same("community_id", line.text("community_id"), &flow.community_id());
    same("direction_by", line.text("direction_by"), flow.direction_by.name());
    same("midstream", &line.get("midstream").to_string(), &flow.midstream.to_string());
    different
}

/// True for fields whose value depends on the clock.
pub fn is_time(name: &str) -> bool {
    name.starts_with("win_iat_")
        || ["flow_duration_us", "win_span_us", "win_packets_per_s", "win_bytes_per_s"]
            .contains(&name)
}

/// Adds each expected value that a line does not have.
pub fn differences(line: &Line, expected: &Values, times: Times, out: &mut Vec<String>) {
    for (name, value) in expected {
        if times == Times::Ignore && is_time(name) {
            continue;
        }
        let printed = line.get(name);
        let same = match value {
            Value::Null => printed.is_null(),
            Value::Int(int) => printed.as_u64().is_some_and(|p| u128::from(p) == *int),
            Value::Float(float) if name.ends_with("entropy") => {
                printed.as_f64().is_some_and(|p| (p - float).abs() <= 1e-9)
            }
            Value::Float(float) => printed.as_f64().is_some_and(|p| close(p, *float)),
        };
        if !same {
            out.push(format!("{name} is {printed}, expected {value:?}"));
        }
    }
}

fn summary(faults: &[String]) -> String {
    let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    format!("{} differences:\n{shown}", faults.len())
}
