//! Every metric, once: its name, meaning and value. The page, the README's table and the dashboard are held
//! against this list.

use std::time::UNIX_EPOCH;

use agent_common::{counters::Counters, features::schema_id, parse::Malformed};

use super::snapshot::Snapshot;
use crate::sink::Totals;

/// A metric, as OpenMetrics 1.0 has them.
#[derive(Debug)]
pub struct Metric {
    /// Its name, without `feature_agent_`, unit and `_total`.
    pub stem: &'static str,
    /// What its value is counted in, if not in things.
    pub unit: Unit,
    /// Counter, gauge or information.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// Its values, each with its labels.
    pub(super) samples: fn(&Snapshot) -> Vec<Sample>,
}

/// Base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// What a value does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is 1, and its labels say something; its name ends in `_info`.
    Info,
}

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// A value with its labels.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

/// A number: exact where it can be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Integer(u64),
    Real(f64),
}

/// What every name begins with.
pub(super) const PREFIX: &str = "feature_agent";

/// The histogram of sweep times, which is no list of samples: stem and help.
pub(super) const SWEEP: (&str, &str) =
    ("sweep_duration", "Time of one sweep over the flow table, taken every --poll");

impl Metric {
    /// The name of its series, as queries have it.
    pub fn series(&self) -> String {
        let ending = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        match self.unit.name() {
            Some(unit) => format!("{PREFIX}_{}_{unit}{ending}", self.stem),
            None => format!("{PREFIX}_{}{ending}", self.stem),
        }
    }
}

impl Unit {
    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Bytes => Some("bytes"),
            Self::Seconds => Some("seconds"),
        }
    }
}

/// Every metric but the histogram of sweep times, in the page's order.
pub const METRICS: &[Metric] = &[
    counter("packets_seen", "Wire packets that the kernel program saw", |s| one(s.counters.seen)),
    counter(
        "packets",
        "Wire packets by where they went; over all of them, the same as packets_seen",
        |s| {
            let c = &s.counters;
            by(
                "into",
                [
                    ("accounted", c.accounted),
                    ("not_ip", c.not_ip),
                    ("malformed", c.malformed()),
                    ("filtered", c.filtered),
                    ("table_full", c.table_full),
                ],
            )
        },
    ),
    gauge(
        "packets_unaccounted",
        "Packets seen that are in no counter: none but those on their way just now",
        |s| one(u64::try_from(s.counters.unaccounted().unsigned_abs()).unwrap_or(u64::MAX)),
    ),
    counter("packets_malformed", "Packets with headers cut off or inconsistent, by reason", |s| {
        by("reason", Malformed::ALL.map(Malformed::name).into_iter().zip(s.counters.malformed))
    }),
    bytes_counter("accounted", "Bytes (IP length) of packets in flows", |s| {
        one(s.counters.accounted_bytes)
    }),
    bytes_counter("table_full", "Bytes of packets that found the flow table full", |s| {
        one(s.counters.table_full_bytes)
    }),
    counter("super_packets", "Super-packets (GRO, TSO) among the socket buffers", |s| {
        one(s.counters.super_packets)
    }),
    counter("orphan_fragments", "Fragments whose first fragment was not seen", |s| {
        one(s.counters.orphan_fragments)
    }),
    counter("clock_backwards", "Packets timed before their flow's last one", |s| {
        one(s.counters.clock_backwards)
    }),
    counter("calls_seen", "Calls on sockets that sent or received, with the socket hook", |s| {
        of_calls(s, |calls| calls.seen)
    }),
    counter("calls", "Calls by where they went; over all of them, the same as calls_seen", |s| {
        let places = |c: &Counters| {
            by(
                "into",
                [
                    ("accounted", c.accounted),
                    ("not_ip", c.not_ip),
                    ("filtered", c.filtered),
                    ("table_full", c.table_full),
                    ("contended", c.contended),
                ],
            )
        };
        s.calls.as_ref().map(places).unwrap_or_default()
    }),
    counter("calls_missed", "Calls whose end the kernel did not tell of", |s| {
        of_calls(s, |calls| calls.missed)
    }),
    bytes_counter("calls_accounted", "Bytes that calls in flows sent and received", |s| {
        of_calls(s, |calls| calls.accounted_bytes)
    }),
    bytes_counter(
        "calls_turned_away",
        "Bytes of calls that found the flow table full, or whose flow others had for too long",
        |s| of_calls(s, |calls| calls.table_full_bytes + calls.contended_bytes),
    ),
    counter("flows", "Flows begun", |s| both(s, |counters| counters.flows)),
    gauge("table_flows", "Flows in the table after the last sweep", |s| one(s.flows)),
    gauge("table_capacity_flows", "Flows that the table holds: --max-flows", |s| one(s.max_flows)),
    counter("vectors", "Vectors made by the kernel program", |s| {
        both(s, |counters| counters.vectors)
    }),
    counter("vectors_delayed", "Times a vector had to wait for room in the ring", |s| {
        both(s, |counters| counters.ring_full)
    }),
    bytes_gauge("ring_used", "Vectors in the ring that the agent has not taken out yet", |s| {
        s.ring_used.into_iter().flat_map(one).collect()
    }),
    bytes_gauge("ring_size", "Bytes that the ring holds: --ring-size", |s| one(s.ring_size)),
    counter("output_vectors_sent", "Vectors that got out, by output", |s| {
        outputs(s, |output| output.sent)
    }),
    counter("output_vectors_dropped", "Vectors that an output did not get, by output", |s| {
        outputs(s, |output| output.dropped)
    }),
    counter(
        "output_vectors_unheard",
        "Of the dropped, vectors made while no consumer was connected, by output",
        |s| outputs(s, |output| output.unheard),
    ),
    counter("output_errors", "Errors of an output, each followed by another try", |s| {
        outputs(s, |output| output.errors)
    }),
    counter("output_reconnects", "Times that an output worked again after an error", |s| {
        outputs(s, |output| output.reconnects)
    }),
    gauge("output_consumers", "Consumers connected to an output that consumers connect to", |s| {
        outputs(s, |output| output.consumers)
    }),
    gauge("output_queue_vectors", "Vectors that wait for an output, by output", |s| {
        outputs(s, Totals::queued)
    }),
    gauge("interface_attached", "1 while programs are attached to the interface, else 0", |s| {
        s.interfaces
            .iter()
            .map(|(name, attached)| sample("iface", name, Value::Integer((*attached).into())))
            .collect()
    }),
    counter(
        "program_runs",
        "Runs of a kernel program while kernel.bpf_stats_enabled is 1: one per socket buffer",
        |s| s.programs.iter().map(|p| sample("program", p.name, Value::Integer(p.runs))).collect(),
    ),
    Metric {
        unit: Unit::Seconds,
        ..counter(
            "program_run",
            "Time of those runs; over program_runs: the cost of a packet",
            |s| {
                let time = |p: &super::ProgramStats| Value::Real(p.run_time.as_secs_f64());
                s.programs.iter().map(|p| sample("program", p.name, time(p))).collect()
            },
        )
    },
    Metric {
        unit: Unit::Seconds,
        ..gauge("last_sweep_timestamp", "Unix time of the last sweep", |s| {
            let since = s.swept_at.duration_since(UNIX_EPOCH).unwrap_or_default();
            vec![Sample { labels: Labels::new(), value: Value::Real(since.as_secs_f64()) }]
        })
    },
    Metric {
        kind: Kind::Info,
        ..gauge("build", "This build: its version, and the schema of its lines", |_| {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            let labels = vec![("version", version), ("schema", schema_id().to_string())];
            vec![Sample { labels, value: Value::Integer(1) }]
        })
    },
];

const fn counter(
    stem: &'static str,
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
) -> Metric {
    Metric { stem, unit: Unit::None, kind: Kind::Counter, help, samples }
}

const fn gauge(
    stem: &'static str,
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
) -> Metric {
    Metric { stem, unit: Unit::None, kind: Kind::Gauge, help, samples }
}

const fn bytes_counter(
    stem: &'static str,
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
) -> Metric {
    Metric { unit: Unit::Bytes, ..counter(stem, help, samples) }
}

const fn bytes_gauge(
    stem: &'static str,
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
) -> Metric {
    Metric { unit: Unit::Bytes, ..gauge(stem, help, samples) }
}

fn one(value: u64) -> Vec<Sample> {
    vec![Sample { labels: Labels::new(), value: Value::Integer(value) }]
}

/// Of calls on sockets, if they are seen.
fn of_calls(snapshot: &Snapshot, value: fn(&Counters) -> u64) -> Vec<Sample> {
    snapshot.calls.iter().flat_map(|calls| one(value(calls))).collect()
}

/// Of packets and calls.
fn both(snapshot: &Snapshot, value: fn(&Counters) -> u64) -> Vec<Sample> {
    one(value(&snapshot.counters) + snapshot.calls.as_ref().map_or(0, value))
}

fn sample(label: &'static str, name: &str, value: Value) -> Sample {
    Sample { labels: vec![(label, name.to_owned())], value }
}

fn by<'a>(label: &'static str, values: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<Sample> {
    values.into_iter().map(|(name, value)| sample(label, name, Value::Integer(value))).collect()
}

fn outputs(snapshot: &Snapshot, value: fn(&Totals) -> u64) -> Vec<Sample> {
    by(
        "output",
        snapshot.outputs.iter().map(|output| (output.name.as_str(), value(&output.totals))),
    )
}
