//! The engine over packets of our own; the tests on the real kernel hold it against the kernel program.

use std::time::Duration;

use agent_common::{config::Config, filter::Program, parse::Link, segments::GSO_BY_FRAGS};
use proptest::prelude::*;

use super::*;
use crate::{capture::Packet, settings::FlowSettings};

fn settings() -> FlowSettings {
    FlowSettings {
        config: Config::DEFAULT,
        filter: Program::ALL,
        poll: Duration::from_millis(250),
        max_flows: 100,
    }
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A raw IPv4 packet of TCP between two hosts; the option of the largest segment, or so many no-ops.
fn tcp(
    port: u16,
    from_client: bool,
    flags: u8,
    mss: Option<u16>,
    noops: u8,
    payload: u16,
) -> Vec<u8> {
    let (src, dst) = if from_client { (1, 2) } else { (2, 1) };
    let (sport, dport) = if from_client { (port, 80) } else { (80, port) };
    let options: Vec<u8> = match mss {
        Some(mss) => [&[2, 4][..], &mss.to_be_bytes()].concat(),
        None => vec![1; noops.into()],
    };
    let total = 40 + options.len() as u16 + payload;
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([(5 + options.len() as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.resize(total.into(), 0);
    bytes
}

fn packet(time_us: u64, data: &[u8]) -> Packet<'_> {
    Packet {
        time_ns: time_us * 1000,
        data,
        wire_len: data.len() as u32,
        link: Some(Link::Ip),
        link_type: 101,
        interface: 1,
    }
}

/// Shows packets to an engine; returns the segment size of the last.
fn size_of_last(engine: &mut Engine, packets: &[Vec<u8>]) -> u32 {
    let sizes = packets.iter().map(|data| {
        let frame = engine.packet(&packet(1, data)).expect("a packet");
        frame.gso_size
    });
    sizes.last().expect("packets")
}

#[test]
fn super_packets_are_split_by_what_both_syns_said_less_the_options() {
    let mut engine = Engine::new(&settings(), true);
    let packets = [
        tcp(1, true, SYN, Some(1460), 0, 0),
        tcp(1, false, SYN | ACK, Some(1400), 0, 0),
        tcp(1, true, ACK, None, 12, 3000),
    ];
    assert_eq!(size_of_last(&mut engine, &packets), 1388);
    // Three packets of the wire, each with its headers.
    assert_eq!(engine.counters().accounted, 2 + 3);
    assert_eq!(engine.counters().accounted_bytes, 2 * 44 + 3000 + 3 * 52);
    assert_eq!(engine.counters().super_packets, 1);
    // What fits is a packet, with any length of options.
    assert_eq!(size_of_last(&mut engine, &[tcp(1, false, ACK, None, 12, 1388)]), 0);
    assert_eq!(size_of_last(&mut engine, &[tcp(1, false, ACK, None, 0, 1400)]), 0);
    assert_eq!(size_of_last(&mut engine, &[tcp(1, false, ACK, None, 0, 1401)]), 1400);
}

#[test]
fn one_syn_is_better_than_none_and_none_tells_only_the_impossible() {
    let mut engine = Engine::new(&settings(), true);
    let seen = [tcp(1, true, SYN, Some(1000), 0, 0), tcp(1, false, ACK, None, 0, 1001)];
    assert_eq!(size_of_last(&mut engine, &seen), 1000);
    assert_eq!(size_of_last(&mut engine, &[tcp(2, true, ACK, None, 0, 9176)]), 0);
    assert_eq!(size_of_last(&mut engine, &[tcp(2, true, ACK, None, 0, 9177)]), GSO_BY_FRAGS);
    engine.stop();
    let kept = |record: &Record| (record.summary.super_packets, record.summary.super_packets_kept);
    let mut told: Vec<(u32, u32)> = engine.records().iter().map(kept).collect();
    told.sort_unstable();
    assert_eq!(told, [(0, 1), (1, 0)]);
}

#[test]
fn super_packets_can_be_kept() {
    let mut engine = Engine::new(&settings(), false);
    let packets = [tcp(1, true, SYN, Some(1460), 0, 0), tcp(1, true, ACK, None, 0, 3000)];
    assert_eq!(size_of_last(&mut engine, &packets), GSO_BY_FRAGS);
    assert_eq!((engine.counters().accounted, engine.counters().super_packets), (2, 0));
}

#[test]
fn a_packet_of_an_unknown_link_is_counted() {
    let mut engine = Engine::new(&settings(), true);
    assert!(engine.packet(&Packet { link: None, ..packet(1, &[1, 2, 3]) }).is_none());
    assert_eq!((engine.counters().seen, engine.counters().not_ip), (1, 1));
    assert_eq!(engine.counters().unaccounted(), 0);
}

proptest! {
    /// Sweeps that are left out would have changed nothing.
    #[test]
    fn an_engine_that_sweeps_at_every_poll_says_the_same(
        steps in prop::collection::vec(
            (prop_oneof![0u64..2_000, 0u64..4_000_000, 0u64..40_000_000], 1u16..6, any::<bool>(), any::<u8>()),
            1..60,
        ),
        stride in 1u32..5,
        idle_ms in 500u64..20_000,
    ) {
        let mut settings = settings();
        settings.config.stride = stride;
        settings.config.idle_timeout_us = idle_ms * 1000;
        settings.config.active_timeout_us = 7_000_000;
        let [mut lazy, mut eager] = [0; 2].map(|_| Engine::new(&settings, true));
        let (mut now_us, mut next_us) = (1_000_000, None);
        for (gap_us, port, from_client, flags) in steps {
            now_us += gap_us;
            let data = tcp(port, from_client, flags & 0x1f, None, 0, 10);
            while let Some(poll_us) = lazy.next_poll(now_us) {
                lazy.poll(poll_us);
            }
            let next_us = next_us.get_or_insert(now_us + 250_000);
            while *next_us <= now_us {
                eager.poll(*next_us);
                *next_us += 250_000;
            }
            lazy.packet(&packet(now_us, &data));
            eager.packet(&packet(now_us, &data));
        }
        lazy.stop();
        eager.stop();
        prop_assert_eq!(lazy.records(), eager.records());
        prop_assert_eq!(lazy.counters(), eager.counters());
    }

    /// Packets that are looked at before those ahead of them are taken come to the same, also where a flow ends, or a
    /// table is full, in between; of fragments the first tells the ports.
    #[test]
    fn batches_come_to_the_same_as_packets_one_by_one(
        steps in prop::collection::vec(
            (prop_oneof![0u64..2_000, 0u64..4_000_000], 1u16..9, any::<bool>(), any::<u8>(), 0u8..8, 0u16..3000),
            1..120,
        ),
        batch in 1usize..40,
        stride in 1u32..5,
        max_flows in 1u32..9,
    ) {
        let mut settings = settings();
        settings.config.stride = stride;
        settings.config.idle_timeout_us = 3_000_000;
        settings.max_flows = max_flows;
        let mut now_us = 1_000_000;
        let frames: Vec<(u64, Vec<u8>)> = steps
            .into_iter()
            .map(|(gap_us, port, from_client, flags, fragment, payload)| {
                now_us += gap_us;
                let mss = (flags & SYN != 0).then_some(500 + u16::from(flags));
                let mut data = tcp(port, from_client, flags & 0x1f, mss, 0, payload);
                match fragment {
                    0 => data[6] |= 0x20,
                    1 => data[7] |= 0x10,
                    _ => {}
                }
                (now_us, data)
            })
            .collect();
        let [mut single, mut batched] = [0; 2].map(|_| Engine::new(&settings, true));
        for (time_us, data) in &frames {
            while let Some(poll_us) = single.next_poll(*time_us) {
                single.poll(poll_us);
            }
            single.packet(&packet(*time_us, data));
        }
        for frames in frames.chunks(batch) {
            batched.batch(frames.iter().map(|(time_us, data)| packet(*time_us, data)));
        }
        single.stop();
        batched.stop();
        prop_assert_eq!(single.records(), batched.records());
        prop_assert_eq!(single.counters(), batched.counters());
    }
}
