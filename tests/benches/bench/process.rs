//! What `--process` costs those who use sockets.

use std::{net::UdpSocket, time::Instant};

use anyhow::Result;
use feature_agent_tests::{
    agent::{Agent, binary},
    netns::{NEAR_IF, Pair},
    traffic::Version,
};

use crate::{
    Plan,
    proc::on_one_cpu,
    table::{Paired, Row, median},
};

pub(crate) const TITLE: &str = "--process, per call";
pub(crate) const METHOD: &str = "The time of a call from user space, packet and programs included, over a veth with the \
    agent on it: with --process less without, the agents started in turn. The datagram is sent by a socket that is not \
    connected. Quartiles over the rounds.";

const DATAGRAM: &str = "a datagram sent";

#[expect(clippy::unnecessary_wraps, reason = "as all measurements are")]
pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    if !plan.wants(TITLE, DATAGRAM) {
        return Ok(Vec::new());
    }
    binary();
    let count = plan.pick(200_000, 100);
    let pair = Pair::new();
    let mut paired = Paired::default();
    // The first round only warms up.
    for round in 0..=plan.pick(9, 1) {
        let timed = |options: &[&str]| {
            let agent = Agent::start(&pair.near, &[&["--iface", NEAR_IF], options].concat());
            let time = on_one_cpu(|| datagram(&pair, count));
            drop(agent.stop());
            time
        };
        let (base, whole) = (timed(&[]), timed(&["--process"]));
        if round > 0 {
            paired.base.push(base);
            paired.whole.push(whole);
        }
    }
    let base = median(&paired.base);
    let mut row = paired.row(DATAGRAM, "ns", 1.0);
    row.times_empty = None;
    let share = 100.0 * row.value / base;
    Ok(vec![row.remark(format!("{share:.1} % of the call"))])
}

/// ns of one, as the mean of so many.
fn datagram(pair: &Pair, count: u32) -> f64 {
    let to = (Version::V4.far(), 9);
    // Nobody reads: what does not fit is dropped, which costs no more.
    let _sink = pair.far.run(|| UdpSocket::bind(to).expect("bind"));
    let socket = pair.near.run(|| UdpSocket::bind((Version::V4.near(), 0)).expect("bind"));
    let begin = Instant::now();
    for _ in 0..count {
        socket.send_to(b"datagram", to).expect("send");
    }
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}
