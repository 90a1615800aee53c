//! What the kernel program does with a packet and in a sweep, over a table in user space.
//!
//! Every decision is the core's: [`parse`](agent_common::parse), [`Flow::on_packet`](agent_common::flow::Flow),
//! [`Flow::on_sweep`](agent_common::flow::Flow). What is here is the order of the steps, which is that of
//! `agent-ebpf/src/programs.rs`, `account.rs` and `sweep.rs`; the tests hold the two together, line by line.

use std::mem;

use agent_common::{
    config::Config,
    counters::Counters,
    filter::{Instructions as _, Program, selects},
    flow::{Arrival, Outcome, Standing, SweepAction},
    key::FlowKey,
    parse::{Fragment, Frame, Headers, Place, Reject, locate},
    record::{Reason, Record},
    segments::GSO_BY_FRAGS,
    sweep::{SweepReport, SweepRequest, is_crowded},
};
use bytemuck::Zeroable as _;

use super::{
    fragments::Fragments,
    table::{Entry, FlowTable, Found, Hash},
};
use crate::{capture::Packet, prefetch::prefetch_behind, settings::FlowSettings};

/// A replay at work. Records gather in [`Engine::records`], in order.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    filter: Program,
    resegment: bool,
    max_flows: u64,
    table: FlowTable,
    fragments: Fragments,
    counters: Counters,
    request: SweepRequest,
    polls: Polls,
    records: Vec<Record>,
    /// Room for a batch's, each written where it stays.
    sightings: Vec<Option<Sighting>>,
}

/// Packets of a batch by which the fetching of a flow's entry goes ahead. All at once would wait for one another: a processor
/// fetches few lines at a time.
const FAR_AHEAD: usize = 12;

/// As [`FAR_AHEAD`], for what the entry itself has to tell first.
const AHEAD: usize = 4;

/// Bytes by which the fetching of a capture that lies in the page cache goes ahead: some batches of packets, since memory
/// delivers the more the longer it is asked before.
const CAPTURE_AHEAD: usize = 64 << 10;

/// What is known of a packet before it is taken into its flow.
#[derive(Debug)]
struct Sighting {
    key: FlowKey,
    hash: Hash,
    /// Where its flow may lie.
    at: Option<u32>,
    arrival: Arrival,
    place: Place,
    is_whole: bool,
}

/// When the daemon would have swept: every so often since the first packet.
#[derive(Debug)]
struct Polls {
    every_us: u64,
    next_us: Option<u64>,
}

impl Engine {
    /// An engine with nothing in its table; super-packets are split if `resegment`.
    pub fn new(settings: &FlowSettings, resegment: bool) -> Self {
        let FlowSettings { config, filter, poll, max_flows } = settings;
        Self {
            config: *config,
            filter: *filter,
            resegment,
            max_flows: (*max_flows).into(),
            table: FlowTable::new(*max_flows),
            fragments: Fragments::new(),
            counters: Counters::default(),
            request: SweepRequest::ordinary(config.idle_timeout_us),
            polls: Polls { every_us: poll.as_micros() as u64, next_us: None },
            records: Vec::new(),
            sightings: Vec::new(),
        }
    }

    /// Where every packet went.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Flows in the table.
    pub fn flows(&self) -> usize {
        self.table.len()
    }

    /// What was emitted and is not yet taken away.
    pub fn records(&mut self) -> &mut Vec<Record> {
        &mut self.records
    }

    /// The time of the next sweep, if it is not after `now_us`, the time of the next packet. Sweeps that would
    /// find nothing to do are left out.
    #[inline]
    pub fn next_poll(&mut self, now_us: u64) -> Option<u64> {
        let Polls { every_us, next_us } = &mut self.polls;
        let every_us = *every_us;
        let next = next_us.get_or_insert(now_us.saturating_add(every_us));
        if *next > now_us {
            return None;
        }
        if !is_crowded(self.table.len() as u64, self.max_flows) {
            // The first poll that is not before a flow wakes, or the first after the packet.
            let until = self.table.earliest_us().min(now_us.saturating_add(1));
            let left_out = until.saturating_sub(*next).div_ceil(every_us);
            *next = next.saturating_add(left_out.saturating_mul(every_us));
            if *next > now_us {
                return None;
            }
        }
        let poll = *next;
        *next = poll.saturating_add(every_us);
        Some(poll)
    }

    /// One poll, as the daemon does it: silent flows speak and end, and a table that is almost full gets room.
    pub fn poll(&mut self, now_us: u64) {
        let request = SweepRequest { now_us, ..self.request };
        let mut report = self.sweep(&request);
        if is_crowded(self.table.len() as u64, self.max_flows) {
            self.count_ages(&request, &mut report);
            if let Some(evict_after_us) = report.evict_after_us(&request, self.max_flows) {
                self.sweep(&SweepRequest { evict_after_us, ..request });
            }
        }
    }

    /// The end: every flow says its last vector.
    pub fn stop(&mut self) {
        self.sweep(&SweepRequest::stop());
    }

    /// Polls as time goes, and takes packets that follow one another into their flows.
    ///
    /// Flows lie all over the memory. All packets are looked at before the first is taken, so that the flow of each is
    /// on its way into the cache while those before it are dealt with.
    pub fn batch<'a>(&mut self, packets: impl Iterator<Item = Packet<'a>> + Clone) {
        let mut room = mem::take(&mut self.sightings);
        let count = self.look_at(packets.clone(), &mut room);
        let sightings = &mut room[..count];
        // Apart from all else: so many lookups go on at a time.
        for sighting in sightings.iter_mut().flatten() {
            sighting.at = self.table.find(sighting.hash);
        }
        self.take_all(packets, sightings);
        self.sightings = room;
    }

    /// Finds out to which flows packets belong. Returns how many there are.
    ///
    /// A function of its own, as [`Engine::take_all`]: in one the compiler would run out of registers.
    #[inline(never)]
    fn look_at<'a>(
        &mut self,
        packets: impl Iterator<Item = Packet<'a>>,
        room: &mut Vec<Option<Sighting>>,
    ) -> usize {
        let mut count = 0;
        for packet in packets {
            if count == room.len() {
                room.push(None);
            }
            prefetch_behind(packet.data, CAPTURE_AHEAD);
            self.look(&packet, &mut room[count]);
            count += 1;
        }
        count
    }

    /// Polls as time goes, and takes packets into their flows.
    #[inline(never)]
    fn take_all<'a>(
        &mut self,
        packets: impl Iterator<Item = Packet<'a>> + Clone,
        sightings: &[Option<Sighting>],
    ) {
        for first in sightings.iter().take(FAR_AHEAD).flatten() {
            self.table.prefetch(first.at);
        }
        let again = packets.clone();
        for (index, (packet, sighting)) in packets.zip(sightings).enumerate() {
            if let Some(Some(ahead)) = sightings.get(index + FAR_AHEAD) {
                self.table.prefetch(ahead.at);
            }
            if let Some(Some(ahead)) = sightings.get(index + AHEAD) {
                self.table.prefetch_slot(ahead.at);
            }
            while let Some(now_us) = self.next_poll(packet.time_ns / 1000) {
                self.poll(now_us);
            }
            if let Some(sighting) = sighting {
                self.take(sighting, || again.clone().nth(index));
            }
        }
    }

    /// Takes a packet into its flow. Returns it as it was accounted, which for a super-packet says what its
    /// segments were; `None` if nothing of it could be looked at.
    pub fn packet(&mut self, packet: &Packet<'_>) -> Option<Frame> {
        let mut sighting = None;
        self.look(packet, &mut sighting);
        let split = sighting.and_then(|sighting| self.take(&sighting, || Some(*packet)));
        split.or_else(|| packet.frame())
    }

    /// Finds out to which flow a packet belongs. One that belongs to none is counted here.
    #[inline]
    fn look(&mut self, packet: &Packet<'_>, sighting: &mut Option<Sighting>) {
        let Self { config, filter, table, fragments, counters, .. } = self;
        let now_us = packet.time_ns / 1000;
        let located = match packet.frame() {
            Some(frame) => locate(packet.data, &frame, config.decap != 0),
            None => Err(Reject::NotIp),
        };
        match located {
            Ok((mut headers, measures, place)) => {
                if !headers.join_fragments(fragments, || now_us) {
                    counters.orphan_fragments += 1;
                }
                let (key, from_b) = headers.key();
                // Copies, where they are needed: what a function can reach would have to lie in memory for every packet.
                if asks_for_all(filter, config) || is_selected(filter, config, headers, key) {
                    *sighting = Some(Sighting {
                        key,
                        hash: table.hash(&key),
                        at: None,
                        arrival: Arrival::new(&headers, &measures, from_b, now_us),
                        place,
                        is_whole: headers.fragment == Fragment::Whole,
                    });
                    return;
                }
                counters.filtered += 1;
            }
            Err(Reject::NotIp) => counters.not_ip += 1,
            Err(Reject::Malformed(reason)) => counters.malformed[reason as usize] += 1,
        }
        counters.seen += 1;
        *sighting = None;
    }

    /// Takes a packet into its flow. Returns a super-packet as it was accounted. `packet`: for the few whose bytes are
    /// looked at once more.
    #[inline]
    fn take<'a>(
        &mut self,
        sighting: &Sighting,
        packet: impl Fn() -> Option<Packet<'a>>,
    ) -> Option<Frame> {
        let Self { config, table, counters, records, .. } = self;
        let Sighting { key, hash, at, arrival, place, is_whole } = sighting;
        let (at, mut standing) = match table.find_or_insert(key, *hash, *at) {
            Found::Known(at) => (at, Standing::Known),
            Found::New(at) => (at, Standing::New),
            Found::Full => {
                counters.seen += 1;
                counters.table_full += 1;
                counters.table_full_bytes += arrival.measures.segments.bytes();
                return None;
            }
        };
        let entry = table.entry(at);
        let data = || packet().map_or(&[][..], |packet| packet.data);
        let size = if *is_whole { entry.sizes.gso_size(data, *place, arrival) } else { 0 };
        let mut frame = None;
        let split;
        let arrival = if size == 0 {
            arrival
        } else {
            // As the kernel has it: the whole packet, without what a capture may hold behind it.
            let wire_len = place.ip + arrival.measures.segments.bytes() as u32;
            let gso_size = if self.resegment { size } else { GSO_BY_FRAGS };
            frame = packet().and_then(|packet| packet.frame());
            frame = frame.map(|frame| Frame { wire_len, gso_size, ..frame });
            let located = frame.map(|frame| locate(data(), &frame, config.decap != 0));
            split = match located {
                Some(Ok((_, measures, _))) => Arrival { measures, ..*arrival },
                _ => *arrival,
            };
            &split
        };
        loop {
            let Entry { flow, .. } = entry;
            if standing == Standing::Known && flow.is_after(arrival) {
                counters.clock_backwards += 1;
            }
            let outcome = flow.on_packet(arrival, standing, config);
            let taken = !matches!(outcome, Outcome::Ended(_));
            if taken && flow.began_with(arrival) {
                counters.flows += 1;
            }
            if let Outcome::Due(reason) | Outcome::Ended(reason) = outcome {
                counters.vectors += 1;
                emit(entry, reason, arrival.now_us, config, records);
            }
            if taken {
                break;
            }
            standing = Standing::Known;
        }
        let wake_us = entry.flow.next_sweep_us(config);
        table.wake(at, wake_us);
        let segments = &arrival.measures.segments;
        counters.seen += u64::from(segments.count);
        counters.accounted += u64::from(segments.count);
        counters.accounted_bytes += segments.bytes();
        counters.super_packets += u64::from(segments.count > 1);
        frame
    }

    /// A walk over the table, but for the flows with which there is nothing to do; the report lacks their ages.
    fn sweep(&mut self, request: &SweepRequest) -> SweepReport {
        let Self { config, table, counters, records, .. } = self;
        let mut report = SweepReport::zeroed();
        let ordinary = *request == SweepRequest { now_us: request.now_us, ..self.request };
        for at in table.awake(if ordinary { request.now_us } else { u64::MAX }) {
            let entry = table.entry(at);
            let (reason, ends) = match entry.flow.on_sweep(entry.key.ifindex, request, config) {
                SweepAction::Keep => continue,
                SweepAction::Emit(reason) => (Some(reason), false),
                SweepAction::End(reason) => (reason, true),
            };
            if let Some(reason) = reason {
                counters.vectors += 1;
                emit(entry, reason, request.now_us, config, records);
            }
            if ends {
                report.ended += 1;
                table.remove(at);
            } else {
                let wake_us = entry.flow.next_sweep_us(config);
                table.wake(at, wake_us);
            }
        }
        table.settle();
        report.flows = table.len() as u64;
        report
    }

    /// Counts the flows by time of silence, as the kernel's sweep does.
    fn count_ages(&mut self, request: &SweepRequest, report: &mut SweepReport) {
        for at in self.table.awake(u64::MAX) {
            let last_us = self.table.entry(at).flow.summary.last_us;
            report.ages[request.age_slot(request.now_us.saturating_sub(last_us))] += 1;
        }
    }
}

/// Whether every packet is looked at.
#[inline]
fn asks_for_all(filter: &Program, config: &Config) -> bool {
    filter.is_empty() && config.sample == u32::MAX
}

#[inline(never)]
fn is_selected(filter: &Program, config: &Config, headers: Headers, key: FlowKey) -> bool {
    selects(filter, config.sample, &headers, &key)
}

fn emit(
    entry: &mut Entry,
    reason: Reason,
    now_us: u64,
    config: &Config,
    records: &mut Vec<Record>,
) {
    let record = records.push_mut(Record::zeroed());
    record.key = entry.key;
    entry.flow.prepare(config, record);
    entry.flow.emit(reason, now_us, record);
}
