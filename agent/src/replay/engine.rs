//! What the kernel program does with a packet and in a sweep, over a table in user space.
//!
//! Every decision is the core's: [`parse`](agent_common::parse), [`Flow::on_packet`](agent_common::flow::Flow),
//! [`Flow::on_sweep`](agent_common::flow::Flow). What is here is the order of the steps, which is that of
//! `agent-ebpf/src/programs.rs`, `account.rs` and `sweep.rs`; the tests hold the two together, line by line.

use agent_common::{
    config::Config,
    counters::Counters,
    filter::{Program, selects},
    flow::{Arrival, Outcome, Standing, SweepAction},
    parse::{Frame, Headers, Place, Reject, locate},
    record::{Reason, Record},
    segments::GSO_BY_FRAGS,
    sweep::{SweepReport, SweepRequest, is_crowded},
};
use bytemuck::Zeroable as _;

use super::{
    fragments::Fragments,
    table::{Entry, FlowTable, Found},
};
use crate::{capture::Packet, settings::FlowSettings};

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

    /// Takes a packet into its flow. Returns it as it was accounted, which for a super-packet says what its
    /// segments were; `None` if nothing of it could be looked at.
    #[inline]
    pub fn packet(&mut self, packet: &Packet<'_>) -> Option<Frame> {
        let Some(link) = packet.link else {
            self.counters.seen += 1;
            self.counters.not_ip += 1;
            return None;
        };
        let mut frame = Frame {
            link,
            ifindex: packet.interface,
            wire_len: packet.wire_len,
            gso_size: 0,
            vlan_tci: 0,
        };
        match locate(packet.data, &frame, self.config.decap != 0) {
            Ok((headers, place)) => {
                let now_us = packet.time_ns / 1000;
                self.account(packet.data, &mut frame, headers, place, now_us);
            }
            Err(reject) => {
                self.counters.seen += 1;
                match reject {
                    Reject::NotIp => self.counters.not_ip += 1,
                    Reject::Malformed(reason) => self.counters.malformed[reason as usize] += 1,
                }
            }
        }
        Some(frame)
    }

    #[inline]
    fn account(
        &mut self,
        data: &[u8],
        frame: &mut Frame,
        mut headers: Headers,
        place: Place,
        now_us: u64,
    ) {
        let Self { config, filter, table, fragments, counters, records, .. } = self;
        if !headers.join_fragments(fragments, now_us) {
            counters.orphan_fragments += 1;
        }
        let (key, from_b) = headers.key();
        if !selects(filter, config.sample, &headers, &key) {
            counters.seen += 1;
            counters.filtered += 1;
            return;
        }
        let (at, mut standing) = match table.find_or_insert(&key) {
            Found::Known(at) => (at, Standing::Known),
            Found::New(at) => (at, Standing::New),
            Found::Full => {
                counters.seen += 1;
                counters.table_full += 1;
                counters.table_full_bytes += headers.segments.bytes();
                return;
            }
        };
        let entry = table.entry(at);
        let size = entry.sizes.gso_size(data, &headers, place, from_b);
        if size != 0 {
            // As the kernel has it: the whole packet, without what a capture may hold behind it.
            frame.wire_len = place.ip + headers.segments.bytes() as u32;
            frame.gso_size = if self.resegment { size } else { GSO_BY_FRAGS };
            if let Ok((split, _)) = locate(data, frame, config.decap != 0) {
                headers.segments = split.segments;
            }
        }
        let arrival = Arrival::new(&headers, from_b, now_us);
        loop {
            let Entry { flow, .. } = entry;
            if standing == Standing::Known && flow.is_after(&arrival) {
                counters.clock_backwards += 1;
            }
            let outcome = flow.on_packet(&arrival, standing, config);
            let taken = !matches!(outcome, Outcome::Ended(_));
            if taken && flow.began_with(&arrival) {
                counters.flows += 1;
            }
            if let Outcome::Due(reason) | Outcome::Ended(reason) = outcome {
                counters.vectors += 1;
                emit(entry, reason, now_us, config, records);
            }
            if taken {
                break;
            }
            standing = Standing::Known;
        }
        let wake_us = entry.flow.next_sweep_us(config);
        table.wake(at, wake_us);
        let segments = &headers.segments;
        counters.seen += u64::from(segments.count);
        counters.accounted += u64::from(segments.count);
        counters.accounted_bytes += segments.bytes();
        counters.super_packets += u64::from(segments.split());
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

fn emit(
    entry: &mut Entry,
    reason: Reason,
    now_us: u64,
    config: &Config,
    records: &mut Vec<Record>,
) {
    let mut record = Record::zeroed();
    record.key = entry.key;
    record.extrema = entry.flow.window.extrema(config.window);
    entry.flow.emit(reason, now_us, &mut record);
    records.push(record);
}
