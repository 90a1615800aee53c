//! Finishing a record into features, and its line.

use std::hint::black_box;

use agent_common::{
    config::Config,
    flow::{Arrival, Flow, Standing},
    parse::{Frame, Link, parse},
    record::{Reason, Record},
};
use anyhow::{Result, anyhow};
use bytemuck::Zeroable as _;
use feature_agent::line::{Context, LineWriter, Shape};
use feature_agent_tests::random::Random;

use crate::{
    Plan,
    frames::{self, From},
    proc::thread_time,
    table::{Row, Target, number},
};

pub(crate) const TITLE: &str = "finishing and JSON";
pub(crate) const METHOD: &str = "Bytes of 4,096 records (TCP and UDP, IPv4 and IPv6, windows full and not) decoded, \
    finished and written as lines into a buffer of 128 lines, in CPU time of one thread; median of 11 rounds in turn.";

/// Lines of a batch, as the daemon makes them.
const BATCH: usize = 128;

pub(crate) fn rows(plan: &Plan) -> Result<Vec<Row>> {
    let mut cases = vec![("flat", Shape::Flat), ("array", Shape::Array)];
    let what = |name: &str| format!("vectors/s, --shape {name}");
    cases.retain(|(name, _)| plan.wants(TITLE, &what(name)));
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let records = (0..4096).map(record).collect::<Result<Vec<Record>>>()?;
    let passes = plan.pick(16, 1);
    let mut measured = vec![(Vec::new(), 0); cases.len()];
    for round in 0..=plan.pick(11, 1) {
        for ((_, shape), (rates, bytes)) in cases.iter().zip(&mut measured) {
            let writer = LineWriter::new(*shape);
            let start = thread_time()?;
            *bytes = 0;
            for _ in 0..passes {
                *bytes += write_all(&writer, &records)?;
            }
            let spent = thread_time()?.saturating_sub(start).as_secs_f64();
            if round > 0 {
                rates.push((passes * records.len()) as f64 / spent);
            }
        }
    }
    let row = |((name, _), (rates, bytes)): ((&str, Shape), (Vec<f64>, usize))| {
        let row = Row::of(what(name), rates, "").target(Target::AtLeast(300_000.0));
        let each = number((1e9 / row.value).round());
        let length = number((bytes / (passes * records.len())) as f64);
        row.remark(format!("{each} ns each, lines of {length} bytes"))
    };
    Ok(cases.into_iter().zip(measured).map(row).collect())
}

/// Returns how many bytes were written.
fn write_all(writer: &LineWriter, records: &[Record]) -> Result<usize> {
    let mut written = 0;
    let mut buffer = Vec::new();
    for batch in records.chunks(BATCH) {
        buffer.clear();
        for record in batch {
            let record = Record::from_bytes(black_box(bytemuck::bytes_of(record)))?;
            writer.append(&mut buffer, &record, &Context::new("eth0", 1_760_000_000_000_000));
        }
        written += black_box(&buffer).len();
    }
    Ok(written)
}

/// A record as the kernel makes one: of a flow of up to 200 packets.
fn record(number: u32) -> Result<Record> {
    let mut random = Random::new(number.into());
    let mut flow = Flow::zeroed();
    let mut record = Record::zeroed();
    let mut now_us = 1_000_000 + random.below(1 << 40);
    for index in 0..random.between(1, 200) {
        let from = if random.chance(1, 2) { From::Client } else { From::Server };
        let payload = random.below(1400) as usize;
        let packet = match number % 4 {
            0 => frames::udp4(number, from, payload),
            1 => frames::tcp6(number, from, payload),
            _ => frames::tcp4(number, from, payload),
        };
        let frame = Frame {
            link: Link::Ethernet,
            ifindex: 2,
            wire_len: packet.len() as u32,
            gso_size: 0,
            vlan_tci: 0,
        };
        let (headers, measures) =
            parse(&packet[..], &frame, false).map_err(|reject| anyhow!("a frame is {reject:?}"))?;
        let (key, from_b) = headers.key();
        record.key = key;
        // Gaps of every order of size.
        let magnitude = random.between(1, 20);
        now_us += random.below(1 << magnitude);
        let standing = if index == 0 { Standing::New } else { Standing::Known };
        flow.on_packet(
            &Arrival::new(&headers, &measures, from_b, now_us),
            standing,
            &Config::DEFAULT,
        );
    }
    flow.prepare(&Config::DEFAULT, &mut record);
    flow.emit(Reason::Stride, now_us, &mut record);
    Ok(record)
}
