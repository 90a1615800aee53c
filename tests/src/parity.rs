//! Replay and kernel program side by side over one capture: every line, byte for byte.
//!
//! The engine of the replay goes first and says when it sweeps and as what it accounts a packet; the loaded
//! program is shown just that by `BPF_PROG_TEST_RUN`. Then both have the same lines, in the same order; those of
//! one sweep as a set.

use std::{collections::BTreeMap, path::PathBuf};

use agent_common::{
    counters::Counters,
    key::proto,
    parse::{self, Fragment, Link, Malformed, locate, parse},
    record::Record,
    sweep::SweepRequest,
};
use feature_agent::{
    bpf::{Kernel, LoadOptions, random_secrets},
    capture::{Captures, Packet},
    line::{Context, LineWriter, Shape},
    replay::Engine,
    settings::FlowSettings,
};

use crate::{
    frame::{self, Frame},
    in_kernel,
    netns::Netns,
};

/// Most bytes of a packet that are shown to the kernel, which takes about a page: all headers lie within.
const SHOWN: usize = 3000;

/// Least bytes of a packet that the kernel takes, those of an Ethernet header.
const LEAST: usize = 14;

/// Both sides, the kernel's loaded once for many captures.
pub struct Parity {
    /// Where interfaces have the indices that those of a capture have.
    ns: Netns,
    sides: Sides,
}

struct Sides {
    settings: FlowSettings,
    resegment: bool,
    kernel: Kernel,
    writer: LineWriter,
    /// The highest index of an interface in the namespace.
    devices: u32,
    noting: bool,
}

/// What was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Packets of the capture.
    pub packets: u64,
    /// Packets that cannot be shown to the kernel, since their link header is cut off or of an unknown kind. It is
    /// asserted of each that the replay counts it as just that.
    pub left_out: u64,
    /// Lines.
    pub lines: u64,
    /// Sweeps.
    pub sweeps: u64,
    /// Lines by reason, and, if asked for, packets of each kind that wants care.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The replay's; the kernel's are the same, but for packets left out.
    pub counters: Counters,
}

impl Compared {
    /// Takes another comparison's numbers in.
    pub fn add(&mut self, other: &Self) {
        let Self { packets, left_out, lines, sweeps, kinds, counters } = other;
        self.packets += packets;
        self.left_out += left_out;
        self.lines += lines;
        self.sweeps += sweeps;
        self.counters.add(counters);
        for (kind, count) in kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
    }

    /// How often a reason or a kind of packet came up.
    pub fn of(&self, kind: &str) -> u64 {
        self.kinds.get(kind).copied().unwrap_or(0)
    }

    fn note(&mut self, kind: &'static str) {
        *self.kinds.entry(kind).or_default() += 1;
    }
}

impl Parity {
    /// Loads the kernel program with these settings.
    pub fn new(settings: &FlowSettings, resegment: bool) -> Self {
        let mut settings = settings.clone();
        settings.config.rehearsal = 1;
        let kernel = load(&settings);
        let writer = LineWriter::new(Shape::Flat);
        let sides = Sides { settings, resegment, kernel, writer, devices: 1, noting: false };
        Self { ns: Netns::new(), sides }
    }

    /// Notes the packets' kinds, too.
    #[must_use]
    pub fn noting_kinds(mut self) -> Self {
        self.sides.noting = true;
        self
    }

    /// Replays the captures, as one stream, on both sides. Panics at the first difference.
    pub fn run(&mut self, paths: &[PathBuf]) -> Compared {
        let Self { ns, sides } = self;
        ns.run(|| sides.run(ns, paths))
    }
}

impl Sides {
    fn run(&mut self, ns: &Netns, paths: &[PathBuf]) -> Compared {
        let mut compared = Compared::default();
        let mut captures = Captures::open(paths, "capture").unwrap_or_else(|e| panic!("{e:#}"));
        let mut engine = Engine::new(&self.settings, self.resegment);
        let before = self.counters();
        let mut by_replay_alone = Counters::default();
        let mut fragments = false;
        let name = format!("{paths:?}");
        loop {
            let packet = match captures.next_packet() {
                None => break,
                // Where a file breaks off is not the question here.
                Some(Err(_)) => continue,
                Some(Ok(packet)) => packet,
            };
            let Packet { time_ns, data, wire_len, link, link_type, interface } = packet;
            // Of its own, so that the captures can be asked for names.
            let data = &data.to_vec()[..];
            let packet = Packet { time_ns, data, wire_len, link, link_type, interface };
            self.make_devices(ns, interface);
            compared.packets += 1;
            while let Some(now_us) = engine.next_poll(time_ns / 1000) {
                self.same_lines(&mut engine, &captures, Order::AsTheyCame, &name, &mut compared);
                engine.poll(now_us);
                self.poll(now_us);
                compared.sweeps += 1;
                self.same_lines(&mut engine, &captures, Order::OfOneSweep, &name, &mut compared);
            }
            let counted = *engine.counters();
            let accounted = engine.packet(&packet);
            if let Some(frame) = shown(&packet, accounted.as_ref()) {
                in_kernel::show(&mut self.kernel, interface, &frame);
            } else {
                let mut alone = *engine.counters();
                alone.subtract(&counted);
                assert_eq!(alone, left_out(accounted.is_some()), "{name}: {packet:?}");
                by_replay_alone.add(&alone);
                compared.left_out += 1;
            }
            if let Some(frame) = &accounted {
                let headers = parse(packet.data, frame, self.settings.config.decap != 0);
                fragments |= headers.is_ok_and(|(headers, _)| headers.fragment != Fragment::Whole);
            }
            if self.noting {
                note_kinds(&packet, accounted, &mut compared);
            }
            // A look at the ring costs more than a packet.
            if !engine.records().is_empty() || compared.packets.is_multiple_of(64) {
                self.same_lines(&mut engine, &captures, Order::AsTheyCame, &name, &mut compared);
            }
        }
        self.same_lines(&mut engine, &captures, Order::AsTheyCame, &name, &mut compared);
        engine.stop();
        self.kernel.sweep(&SweepRequest::stop()).unwrap_or_else(|e| panic!("{e:#}"));
        self.same_lines(&mut engine, &captures, Order::OfOneSweep, &name, &mut compared);
        let mut counters = self.counters();
        counters.subtract(&before);
        counters.add(&by_replay_alone);
        assert_eq!(counters, *engine.counters(), "{name}: of the kernel and of the replay");
        assert_eq!(counters.unaccounted(), 0, "{name}");
        compared.counters = counters;
        if fragments {
            // The ports of first fragments are remembered beyond a capture.
            self.kernel = load(&self.settings);
        }
        compared
    }

    /// Makes interfaces up to an index: the kernel runs a packet on none but those that there are.
    fn make_devices(&mut self, ns: &Netns, index: u32) {
        while self.devices < index {
            self.devices += 1;
            let index = self.devices;
            ns.ip(&format!("link add parity{index} index {index} type ifb\n"));
        }
    }

    fn counters(&self) -> Counters {
        self.kernel.counters().unwrap_or_else(|e| panic!("{e:#}"))
    }

    /// As the daemon does it.
    fn poll(&mut self, now_us: u64) {
        let ordinary = SweepRequest::ordinary(self.settings.config.idle_timeout_us);
        let request = SweepRequest { now_us, ..ordinary };
        let report = self.kernel.sweep(&request).unwrap_or_else(|e| panic!("{e:#}"));
        if let Some(evict_after_us) =
            report.evict_after_us(&request, self.settings.max_flows.into())
        {
            let request = SweepRequest { evict_after_us, ..request };
            self.kernel.sweep(&request).unwrap_or_else(|e| panic!("{e:#}"));
        }
    }

    /// Takes what either side has said since the last time, and compares.
    fn same_lines(
        &mut self,
        engine: &mut Engine,
        captures: &Captures,
        order: Order,
        name: &str,
        compared: &mut Compared,
    ) {
        let Self { kernel, writer, .. } = self;
        let line = |record: &Record| {
            let mut line = Vec::new();
            let interface = captures.interface_name(record.key.ifindex);
            writer.append(&mut line, record, &Context::new(interface, 0));
            String::from_utf8(line).expect("UTF-8")
        };
        let mut theirs = Vec::new();
        kernel
            .drain(usize::MAX, &mut |record| theirs.push(line(record)))
            .unwrap_or_else(|e| panic!("{e:#}"));
        let records = engine.records();
        for record in &*records {
            compared.note(record.reason().name());
        }
        let mut ours: Vec<String> = records.drain(..).map(|record| line(&record)).collect();
        if order == Order::OfOneSweep {
            ours.sort();
            theirs.sort();
        }
        let only = |these: &[String], those: &[String]| -> String {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        assert!(
            ours == theirs,
            "{name}, packet {}, {order:?}: only in the replay:\n{}only in the kernel:\n{}",
            compared.packets,
            only(&ours, &theirs),
            only(&theirs, &ours)
        );
        compared.lines += ours.len() as u64;
    }
}

/// Whether lines are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    AsTheyCame,
    /// A set: the kernel walks its table as it likes.
    OfOneSweep,
}

fn load(settings: &FlowSettings) -> Kernel {
    let FlowSettings { config, filter, max_flows, .. } = settings;
    let options = LoadOptions {
        config: *config,
        filter: *filter,
        hook: feature_agent::settings::HookChoice::Tc,
        max_flows: *max_flows,
        ring_bytes: 32 << 20,
        kernel_log: false,
        secrets: random_secrets(),
    };
    Kernel::load(&options).unwrap_or_else(|e| panic!("{e:#}"))
}

/// The packet as the kernel has it: behind an Ethernet header, or behind none; `None` if its link header is cut off
/// or unknown. `accounted`: as the replay did it.
fn shown(packet: &Packet<'_>, accounted: Option<&parse::Frame>) -> Option<Frame> {
    let accounted = accounted?;
    let ethernet = |ether_type: &[u8], rest: &[u8]| [&[0; 12], ether_type, rest].concat();
    let data = packet.data;
    let (link, bytes) = match accounted.link {
        Link::Ethernet => (frame::Link::Ethernet, data.get(..LEAST).and(Some(data.to_vec()))?),
        Link::Ip => (frame::Link::Ip, data.to_vec()),
        Link::CookedV1 => (frame::Link::Ethernet, ethernet(data.get(14..16)?, &data[16..])),
        Link::CookedV2 => (frame::Link::Ethernet, ethernet(data.get(..2)?, data.get(20..)?)),
        Link::Null => {
            let family = *data.first_chunk()?;
            let families = [u32::from_le_bytes(family), u32::from_be_bytes(family)];
            let ether_type = if families.contains(&2) {
                [0x08, 0x00]
            } else if families.iter().any(|family| [10, 24, 28, 30].contains(family)) {
                [0x86, 0xdd]
            } else {
                // AppleTalk, as one that is no IP.
                [0x80, 0x9b]
            };
            (frame::Link::Ethernet, ethernet(&ether_type, &data[4..]))
        }
    };
    let wire_len = accounted.wire_len as usize + bytes.len() - data.len();
    let mut data = bytes[..bytes.len().min(SHOWN)].to_vec();
    if data.len() < LEAST {
        // No IP header lies in so few bytes; one of them is read.
        let first = data.first().copied().unwrap_or(0x40);
        data.resize(LEAST, 0);
        data[0] = first;
    }
    let gso_size = u16::try_from(accounted.gso_size).expect("a size of segments");
    Some(Frame { time_ns: packet.time_ns, data, wire_len, vlan_tci: None, gso_size, link })
}

/// What the replay counts of a packet that cannot be shown to the kernel.
fn left_out(known_link: bool) -> Counters {
    let mut counters = Counters { seen: 1, ..Counters::default() };
    if known_link {
        counters.malformed[Malformed::TruncatedLink as usize] = 1;
    } else {
        counters.not_ip = 1;
    }
    counters
}

/// Notes what there was to be compared.
fn note_kinds(packet: &Packet<'_>, accounted: Option<parse::Frame>, compared: &mut Compared) {
    let mut note = |kind, holds| {
        if holds {
            compared.note(kind);
        }
    };
    note("another interface", packet.interface != 1);
    note("cut off", packet.data.len() < packet.wire_len as usize);
    let Some(frame) = accounted else { return note("unknown link", true) };
    note(
        match frame.link {
            Link::Ethernet => "Ethernet",
            Link::Ip => "raw IP",
            Link::CookedV1 => "cooked v1",
            Link::CookedV2 => "cooked v2",
            Link::Null => "null",
        },
        true,
    );
    let Ok((headers, measures, place)) = locate(packet.data, &frame, false) else {
        let behind_labels = locate(packet.data, &frame, true).is_ok();
        return note("PPPoE or MPLS", behind_labels);
    };
    let inside = locate(packet.data, &frame, true);
    note("tunnel", inside.is_ok_and(|(.., inside)| inside.ip != place.ip));
    note("QinQ", headers.kind.vlan_inner() != 0);
    note("padding", u64::from(frame.wire_len) > u64::from(place.ip) + measures.segments.bytes());
    note("SCTP", headers.proto() == proto::SCTP);
    let error = match headers.proto() {
        proto::ICMP => [3, 5, 11, 12].contains(&headers.src.port),
        proto::ICMPV6 => [1, 2, 3, 4].contains(&headers.src.port),
        _ => false,
    };
    note("ICMP error", error && headers.fragment == Fragment::Whole);
    note("first fragment", matches!(headers.fragment, Fragment::First { .. }));
    note("later fragment", matches!(headers.fragment, Fragment::Later { .. }));
    let super_packet = measures.segments.count > 1;
    note("super-packet over IPv4", super_packet && headers.version() == 4);
    note("super-packet over IPv6", super_packet && headers.version() == 6);
    note("super-packet kept", measures.segments.kept > 0);
    let long = measures.segments.bytes() > 65_575;
    note("BIG TCP over IPv4", long && headers.version() == 4);
    note("BIG TCP over IPv6", long && headers.version() == 6);
}
