//! The agent itself, on traffic between two namespaces.

use std::{
    collections::HashMap,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use feature_agent_tests::{
    agent::{Agent, Outcome, binary, timed},
    inject::Injector,
    netns::{FAR_IF, NEAR_IF, Pair},
    sys::pin_to_cpu,
    traffic::{self, Version},
};

use crate::{
    Plan,
    frames::{self, From},
    proc::{bpf_field, cpu_time, memory_kib},
    table::{Row, Target, median, number},
};

pub(crate) const TITLE: &str = "live, default options";
pub(crate) const METHOD: &str = "The release build on one end of a veth between two namespaces made for it, its lines \
    read from a pipe. UDP: 1,000 flows of 60 to 1,400 bytes from a packet socket on one core, which also runs the \
    kernel program. CPU: user and system time of the daemon, sweeps included, out of /proc. Lost: sent, less those \
    the cable dropped before the program, less seen. Unaccounted: packets in no counter, and packets accounted but in \
    no flow's last line. TCP: one connection with its ends on one core, which also runs the program.";

const FLOWS: u32 = 1_000;
/// Packets per second of the steady rate.
const RATE: f64 = 100_000.0;

const STEADY: &str = "100,000 packets/s";
const FULL: &str = "full speed";
const TCP: &str = "TCP";

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    // Built before anything is measured.
    binary();
    if plan.wants(TITLE, STEADY) {
        rows.extend(steady(plan)?);
    }
    if plan.wants(TITLE, FULL) {
        rows.extend(full_speed(plan)?);
    }
    if plan.wants(TITLE, TCP) {
        rows.extend(tcp(plan));
    }
    Ok(rows)
}

fn start(pair: &Pair) -> (Agent, Duration) {
    timed(|| Agent::start(&pair.near, &["--iface", NEAR_IF]))
}

/// A rate that is easy for the machine: what does the agent take of it?
fn steady(plan: &Plan) -> Result<Vec<Row>> {
    let pair = Pair::bare(1500);
    let (agent, until_ready) = start(&pair);
    let idle = cpu_share(&agent, || sleep(plan.pick(Duration::from_secs(5), SHORT)))?;
    let dropped_before = pair.near.counter(NEAR_IF, "rx_dropped");
    let mut load = Load::default();
    let busy = cpu_share(&agent, || {
        load = inject(&pair, Some(RATE), plan.pick(Duration::from_secs(10), SHORT));
    })?;
    let memory = memory_kib(agent.pid())?;
    let maps: u64 = bpf_field(agent.pid(), "map_id", "memlock")?.into_iter().sum();
    let dropped = pair.near.counter(NEAR_IF, "rx_dropped") - dropped_before;
    let tally = Tally::of(&agent.stop(), load.sent, dropped)?;

    let mib = |kind: &str| memory.get(kind).map_or(0.0, |kib| *kib as f64 / 1024.0);
    let kinds = ["RssAnon", "RssFile", "RssShmem"].map(|kind| format!("{kind} {:.1}", mib(kind)));
    let mut rows = tally.rows(STEADY, &load);
    rows.extend([
        Row::new(format!("{STEADY}: daemon's CPU"), busy, "% of a core")
            .target(Target::AtMost(1.0)),
        Row::new("no packets: daemon's CPU", idle, "% of a core"),
        Row::new("resident memory", mib("VmRSS"), "MiB")
            .target(Target::AtMost(30.0))
            .remark(format!("{}; the mapped ring is 16 MiB of it", kinds.join(", "))),
        Row::new("memory of the kernel's maps", maps as f64 / f64::from(1 << 20), "MiB")
            .remark("the table of 65,536 flows, the ring of 8 MiB"),
        Row::new("start until ready", until_ready.as_secs_f64() * 1e3, "ms")
            .remark("load, verify, self-check, attach"),
    ]);
    Ok(rows)
}

/// As fast as one core sends.
fn full_speed(plan: &Plan) -> Result<Vec<Row>> {
    let pair = Pair::bare(1500);
    let time = plan.pick(Duration::from_millis(1500), SHORT);
    let (mut alone, mut with, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let mut total = Load::default();
    let mut sum = Tally::default();
    for _ in 0..plan.pick(5, 1) {
        alone.push(inject(&pair, None, time).rate());
        let (agent, _) = start(&pair);
        let dropped_before = pair.near.counter(NEAR_IF, "rx_dropped");
        let mut load = Load::default();
        cpu.push(cpu_share(&agent, || load = inject(&pair, None, time))?);
        let dropped = pair.near.counter(NEAR_IF, "rx_dropped") - dropped_before;
        sum.add(&Tally::of(&agent.stop(), load.sent, dropped)?);
        with.push(load.rate());
        total.sent += load.sent;
        total.time += load.time;
    }
    let more = 1e9 / median(&with) - 1e9 / median(&alone);
    let mut rows = vec![
        Row::of(format!("{FULL}: sent without the agent"), alone, "packets/s"),
        Row::of(format!("{FULL}: sent with it"), with, "packets/s")
            .remark(format!("{more:.0} ns more a packet, all in")),
    ];
    rows.extend(sum.rows(FULL, &total));
    rows.push(Row::of(format!("{FULL}: daemon's CPU"), cpu, "% of a core"));
    Ok(rows)
}

/// One bulk connection, with and without the agent in turn.
fn tcp(plan: &Plan) -> Vec<Row> {
    let bytes = plan.pick(1 << 30, 32 << 20);
    let pair = Pair::new();
    let gbits = || {
        let ((), time) = timed(|| traffic::tcp_bulk(&pair, Version::V4, bytes));
        bytes as f64 * 8.0 / time.as_secs_f64() / 1e9
    };
    let (mut without, mut with, mut share) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=plan.pick(11, 1) {
        let alone = gbits();
        let (agent, _) = start(&pair);
        let watched = gbits();
        drop(agent.stop());
        if round > 0 {
            without.push(alone);
            with.push(watched);
            share.push(100.0 * watched / alone);
        }
    }
    vec![
        Row::of(format!("{TCP} without the agent"), without, "Gbit/s"),
        Row::of(format!("{TCP} with it"), with, "Gbit/s"),
        Row::of(format!("{TCP} with it, of that without"), share, "%"),
    ]
}

/// What a quick run does of each.
const SHORT: Duration = Duration::from_millis(300);

/// The daemon's CPU time while `work` runs, in percent of a core.
fn cpu_share(agent: &Agent, work: impl FnOnce()) -> Result<f64> {
    let before = cpu_time(agent.pid())?;
    let ((), time) = timed(work);
    let spent = cpu_time(agent.pid())?.saturating_sub(before);
    Ok(100.0 * spent.as_secs_f64() / time.as_secs_f64())
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    sent: u64,
    time: Duration,
}

impl Load {
    fn rate(&self) -> f64 {
        self.sent as f64 / self.time.as_secs_f64()
    }
}

/// Sends datagrams of every flow in turn, at a rate or as fast as may be.
fn inject(pair: &Pair, rate: Option<f64>, time: Duration) -> Load {
    let frames: Vec<Vec<u8>> = (0..FLOWS)
        .map(|flow| frames::udp4(flow, From::Client, 32 + (flow * 37 % 1340) as usize))
        .collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let injector = Injector::new(&pair.far, FAR_IF);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pin_to_cpu(0);
            let mut sent = 0;
            let start = Instant::now();
            while start.elapsed() < time {
                let due =
                    rate.map_or(u64::MAX, |rate| (start.elapsed().as_secs_f64() * rate) as u64);
                if sent >= due {
                    sleep(Duration::from_micros(500));
                    continue;
                }
                let at = (sent % u64::from(FLOWS)) as usize;
                let batch = (frames.len() - at).min(64).min((due - sent) as usize);
                sent += injector.send(&frames[at..at + batch]) as u64;
            }
            Load { sent, time: start.elapsed() }
        });
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Where the packets went.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    seen: u64,
    /// Sent, and neither seen nor dropped by the cable.
    lost: i64,
    /// By the cable, before the program: its backlog was full.
    dropped: u64,
    unaccounted: u64,
    vectors: u64,
}

impl Tally {
    fn of(outcome: &Outcome, sent: u64, dropped: u64) -> Result<Self> {
        ensure!(outcome.status.success(), "the agent failed:\n{}", outcome.stderr);
        let counts = outcome.reconciliation();
        let held = counts.accounted
            + counts.not_ip
            + counts.malformed
            + counts.filtered
            + counts.table_full;
        let told = told(&outcome.stdout)?;
        Ok(Self {
            seen: counts.seen,
            lost: sent as i64 - dropped as i64 - counts.seen as i64,
            dropped,
            unaccounted: counts.seen.abs_diff(held) + counts.accounted.abs_diff(told) + counts.lost,
            vectors: counts.written,
        })
    }

    fn add(&mut self, other: &Self) {
        let Self { seen, lost, dropped, unaccounted, vectors } = other;
        self.seen += seen;
        self.lost += lost;
        self.dropped += dropped;
        self.unaccounted += unaccounted;
        self.vectors += vectors;
    }

    fn rows(&self, what: &str, load: &Load) -> Vec<Row> {
        let per_second = |count: u64| count as f64 / load.time.as_secs_f64();
        vec![
            Row::new(format!("{what}: seen"), per_second(self.seen), "packets/s").remark(format!(
                "{} of {} sent",
                number(self.seen as f64),
                number(load.sent as f64)
            )),
            Row::new(format!("{what}: lost"), self.lost as f64, "packets")
                .target(Target::AtMost(0.0))
                .remark(format!("{} dropped before the program", number(self.dropped as f64))),
            Row::new(format!("{what}: unaccounted"), self.unaccounted as f64, "packets")
                .target(Target::AtMost(0.0)),
            Row::new(format!("{what}: vectors"), per_second(self.vectors), "/s"),
        ]
    }
}

/// Packets in the last line of each flow. No flow here lives twice.
fn told(lines: &str) -> Result<u64> {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for line in lines.lines() {
        let field = |name: &str| {
            let (_, behind) = line.split_once(name)?;
            behind.split([',', '}']).next()
        };
        let packets = |name| field(name)?.parse::<u64>().ok();
        let counts = (|| {
            let sum = packets("\"fwd_packets\":")? + packets("\"bwd_packets\":")?;
            Some((field("\"community_id\":")?, sum))
        })();
        let (flow, sum) = counts.with_context(|| format!("no line of a flow: {line}"))?;
        last.insert(flow, sum);
    }
    Ok(last.into_values().sum())
}
