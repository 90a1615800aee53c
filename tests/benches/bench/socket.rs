//! What `--hook socket` costs those who call.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Result, ensure};
use feature_agent_tests::{
    agent::{Agent, binary},
    attached::has_kprobes,
    netns::Netns,
    sys::counts_instructions,
};

use crate::{
    Plan,
    proc::{on_one_cpu, thread_time},
    table::{Paired, Row, median},
};

pub(crate) const TITLE: &str = "socket hook, per call";
pub(crate) const METHOD: &str = "The caller's own time on its processor, over a loopback interface of its own, 64 bytes a call: \
    with the agent attached by fentry or by kprobe less without, in turn. Quartiles over the rounds. Where the unit is \
    instructions, the processor is emulated and its clock counts them: they repeat, and say nothing of what one takes.";

/// By what the agent is told to see calls.
const PROBES: [&str; 2] = ["fentry", "kprobe"];

/// Bytes of a call.
const LENGTH: usize = 64;

/// Makes so many pairs of calls, one that sends and one that receives; what one call takes.
type Exchange = fn(u32) -> Result<f64>;

/// What is measured.
const EXCHANGES: [(&str, Exchange); 2] = [("UDP", datagrams), ("TCP", segments)];

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let wanted: Vec<_> =
        EXCHANGES.into_iter().filter(|(what, _)| plan.wants(TITLE, what)).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if !has_kprobes() {
        eprintln!("bench: {TITLE}: left out, this kernel is built without fentry and kprobes");
        return Ok(Vec::new());
    }
    binary();
    let ns = Netns::new();
    ns.ip("link set lo up\n");
    let emulated = counts_instructions();
    // Of an emulated processor, which takes long to start an agent, every sample comes to nearly the same.
    let (rounds, samples, pairs) = if emulated { (1, 3, 1_000) } else { (9, 1, 100_000) };
    let (rounds, pairs) = (plan.pick(rounds, 1), plan.pick(pairs, 100));
    let measure = || -> Result<Vec<Vec<f64>>> {
        on_one_cpu(|| {
            ns.run(|| wanted.iter().map(|(_, one)| sample(*one, pairs, samples)).collect())
        })
    };
    let mut measured = vec![[Paired::default(), Paired::default()]; wanted.len()];
    for _ in 0..rounds {
        let base = measure()?;
        for (at, probe) in PROBES.iter().enumerate() {
            let agent = Agent::start(&ns, &["--hook", "socket", "--socket-probe", probe]);
            let whole = measure()?;
            let outcome = agent.stop();
            ensure!(outcome.status.success(), "the agent failed:\n{}", outcome.stderr);
            for (paired, (base, whole)) in measured.iter_mut().zip(base.iter().zip(whole)) {
                paired[at].base.extend(base);
                paired[at].whole.extend(whole);
            }
        }
    }
    let unit = if emulated { "instructions" } else { "ns" };
    let mut rows = Vec::new();
    for ((what, _), paired) in wanted.iter().zip(measured) {
        let base = median(&paired[0].base);
        rows.push(Row::new(format!("a call, {what}, no hook"), base, unit));
        for (probe, paired) in PROBES.iter().zip(paired) {
            let mut row = paired.row(format!("a call, {what}, {probe}"), unit, 1.0);
            row.times_empty = None;
            let share = 100.0 * row.value / base;
            rows.push(row.remark(format!("{share:.0} % of the call")));
        }
    }
    Ok(rows)
}

/// Sends datagrams to the socket itself.
fn datagrams(pairs: u32) -> Result<f64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(socket.local_addr()?)?;
    cost(pairs, || {
        socket.send(&[0; LENGTH])?;
        socket.recv(&mut [0; LENGTH])
    })
}

/// Writes to one end of a connection, and reads from the other.
fn segments(pairs: u32) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut from = TcpStream::connect(listener.local_addr()?)?;
    from.set_nodelay(true)?;
    let (mut to, _) = listener.accept()?;
    cost(pairs, || {
        from.write_all(&[0; LENGTH])?;
        to.read(&mut [0; LENGTH])
    })
}

/// So many samples, after one that only warms up.
fn sample(exchange: Exchange, pairs: u32, samples: usize) -> Result<Vec<f64>> {
    exchange(pairs)?;
    (0..samples).map(|_| exchange(pairs)).collect()
}

/// The caller's time for one call, as the mean of both of a pair, of so many pairs.
fn cost(pairs: u32, mut pair: impl FnMut() -> io::Result<usize>) -> Result<f64> {
    let begin = thread_time()?;
    for _ in 0..pairs {
        ensure!(pair()? == LENGTH, "a message came in pieces");
    }
    let took = thread_time()?.saturating_sub(begin);
    Ok(took.as_nanos() as f64 / f64::from(2 * pairs))
}
