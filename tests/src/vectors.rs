//! Vectors without a kernel: numbered, so that whoever gets them can tell which are missing.

use std::sync::LazyLock;

use agent_common::{
    config::Config,
    flow::{Arrival, Flow, Standing},
    parse::{Frame, Link, parse},
    record::{Reason, Record},
};
use bytemuck::Zeroable as _;
use feature_agent::{
    line::Context,
    sink::{BATCH, Outputs},
};

use crate::{generate::mixed_frames, lines::ENVELOPE, random::Random};

/// Different vectors; then they come again, with other numbers.
const KINDS: usize = 256;
/// Unix time minus the records' clock, in µs.
const EPOCH_OFFSET_US: i64 = 1_760_000_000_000_000;

/// Makes vectors as the kernel does, of flows of every protocol with full windows.
#[derive(Debug)]
pub struct Vectors {
    records: Vec<Record>,
    next: u64,
    /// Names of interfaces, in turn.
    ifaces: Vec<String>,
}

impl Vectors {
    /// Vectors seen on these interfaces, in turn.
    pub fn new(ifaces: &[&str]) -> Self {
        let mut random = Random::new(5);
        let frames = mixed_frames(5, 4 * KINDS);
        let records = frames.iter().filter_map(|frame| record(frame, &mut random)).take(KINDS);
        let ifaces = ifaces.iter().map(|name| (*name).to_owned()).collect();
        Self { records: records.collect(), next: 0, ifaces }
    }

    /// Made so far: the next has this number, in its field `seq`.
    pub fn made(&self) -> u64 {
        self.next
    }

    /// Pushes one into the next batch.
    pub fn push_one(&mut self, outputs: &mut Outputs) {
        let place = self.next as usize;
        let iface = &self.ifaces[place % self.ifaces.len()];
        let record = &mut self.records[place % KINDS];
        record.summary.seq = u32::try_from(self.next).expect("fewer than 2^32");
        outputs.push(record, &Context::new(iface, EPOCH_OFFSET_US));
        self.next += 1;
        if outputs.pending() == BATCH {
            outputs.flush();
        }
    }

    /// Pushes so many, without a look at whether there is room.
    pub fn push(&mut self, outputs: &mut Outputs, vectors: u64) {
        (0..vectors).for_each(|_| self.push_one(outputs));
        outputs.flush();
    }

    /// Pushes so many, and waits where the outputs ask to, as the main loop does.
    pub async fn push_patiently(&mut self, outputs: &mut Outputs, vectors: u64) {
        for _ in 0..vectors {
            if outputs.pending() == 0 {
                outputs.room().await;
            }
            self.push_one(outputs);
        }
        outputs.flush();
    }
}

/// The vector of a flow of packets like this one.
fn record(frame: &[u8], random: &mut Random) -> Option<Record> {
    let wire_len = frame.len() as u32;
    let context = Frame { link: Link::Ethernet, ifindex: 2, wire_len, gso_size: 0, vlan_tci: 0 };
    let (headers, measures) = parse(frame, &context, false).ok()?;
    let (key, from_b) = headers.key();
    let (mut flow, mut record) = (Flow::zeroed(), Record::zeroed());
    let mut now_us = 1_000_000;
    for packet in 0..random.between(1, 200) {
        let magnitude = random.between(1, 20);
        now_us += random.below(1 << magnitude);
        let standing = if packet == 0 { Standing::New } else { Standing::Known };
        let from_b = from_b ^ random.chance(1, 3);
        flow.on_packet(
            &Arrival::new(&headers, &measures, from_b, now_us),
            standing,
            &Config::DEFAULT,
        );
    }
    record.key = key;
    flow.prepare(&Config::DEFAULT, &mut record);
    flow.emit(Reason::Stride, now_us, &mut record);
    Some(record)
}

/// What one consumer of numbered vectors got, held against what was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Vectors.
    pub received: u64,
    /// Told by `lost` of those.
    pub told: u64,
    /// The number that comes next if nothing is lost.
    pub next: u64,
}

impl Tally {
    /// A line of JSON or CSV came. Panics if vectors are missing that it does not tell of, or it tells of others.
    pub fn line(&mut self, line: &[u8]) {
        let (number, lost) = number_and_lost(line);
        self.vector(number, lost);
    }

    /// The vector of this number came, which tells of so many lost before it. Panics as [`Tally::line`] does.
    pub fn vector(&mut self, number: u64, lost: u64) {
        assert_eq!(number, self.next + lost, "{lost} told as lost after {self:?}");
        self.received += 1;
        self.told += lost;
        self.next = number + 1;
    }

    /// Vectors behind the last one, of so many made.
    pub fn behind(&self, made: u64) -> u64 {
        made - self.next
    }
}

/// The number of a vector, and how many it says were lost before it.
pub fn number_and_lost(line: &[u8]) -> (u64, u64) {
    // None of the fields before them holds a comma.
    static PLACES: LazyLock<[usize; 2]> = LazyLock::new(|| {
        ["seq", "lost"].map(|name| {
            ENVELOPE.iter().position(|field| *field == name).expect("a field of the envelope")
        })
    });

    let text = std::str::from_utf8(line).expect("UTF-8");
    if text.starts_with('{') {
        return (json_integer(text, "\"seq\":"), json_integer(text, "\"lost\":"));
    }
    let [seq, lost] = *PLACES;
    let mut columns = text.split(',').skip(seq);
    let seq_text = columns.next().expect("a column");
    let lost_text = columns.nth(lost - seq - 1).expect("a column");
    (seq_text.parse().expect("an integer"), lost_text.parse().expect("an integer"))
}

fn json_integer(text: &str, name: &str) -> u64 {
    let from = text.find(name).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len();
    let rest = &text[from..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|e| panic!("{name} in {text}: {e}"))
}

/// Waits for work of the outputs, which needs a runtime.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(work)
}
