//! The window: any packets, against the oracle's list of them.

use std::collections::VecDeque;

use agent_common::{
    record::{Reason, Record},
    segments::{GSO_BY_FRAGS, Segments},
    window::Window,
};
use bytemuck::Zeroable as _;
use feature_agent::line::{LineWriter, Shape};

use super::{input::Input, record};
use crate::{
    compare::{Times, differences},
    lines::Line,
    oracle::{WirePacket, segments, window_features},
    random::Random,
};

/// Longest gap that the window tells from longer ones, in µs.
const IAT_LIMIT: u64 = (1 << 28) - 1;
/// More wire packets of one super-packet would only take longer.
const MOST_SEGMENTS: u32 = 300;
/// So would more socket buffers.
const MOST_BUFFERS: usize = 200;

/// One socket buffer: 12 bytes of an input.
struct Buffer {
    flags: u8,
    bwd: bool,
    /// Whether to compare after it.
    look: bool,
    headers: u32,
    gso: u32,
    payload: u32,
    iat: u64,
}

impl Buffer {
    fn decode(input: &mut Input<'_>) -> Self {
        let flags = input.u8();
        let bits = input.u8();
        let headers = input.u8().into();
        let gso = input.u16().into();
        let payload = (u32::from(input.u8()) << 16 | u32::from(input.u16())) & 0x1f_ffff;
        let iat = u64::from(input.u32()) << (bits >> 4);
        let most = if gso == 0 || gso == GSO_BY_FRAGS { u32::MAX } else { gso * MOST_SEGMENTS };
        let (bwd, look) = (bits & 1 != 0, bits & 6 == 6);
        Self { flags, bwd, look, headers, gso, payload: payload.min(most), iat }
    }
}

/// The line of a window is what the oracle makes of the list of its packets.
pub(super) fn body(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let capacity = 2 + u32::from(input.u8()) % 63;
    let mut window = Window::zeroed();
    let mut packets: VecDeque<WirePacket> = VecDeque::new();
    let mut time_us = 0;
    let mut told = false;
    for _ in 0..MOST_BUFFERS {
        if input.is_empty() {
            break;
        }
        let buffer = Buffer::decode(&mut input);
        let Buffer { flags, bwd, headers, gso, payload, iat, .. } = buffer;
        let wire = Segments::new(headers + payload, headers, gso);
        window.push(capacity, &wire, iat, flags, bwd.into());

        time_us += iat;
        let gso = if gso == GSO_BY_FRAGS { 0 } else { gso };
        let parts = segments((headers + payload) as usize, headers as usize, gso as usize, flags);
        packets.extend(parts.map(|(len, payload, flags)| WirePacket {
            time_us,
            len,
            payload,
            flags,
            bwd,
            ttl: 0,
            tcp_window: None,
        }));
        let gone = packets.len().saturating_sub(capacity as usize);
        packets.drain(..gone);
        told = buffer.look;
        if told {
            check(&window, capacity, packets.make_contiguous());
        }
    }
    if !told && !packets.is_empty() {
        check(&window, capacity, packets.make_contiguous());
    }
}

fn check(window: &Window, capacity: u32, packets: &[WirePacket]) {
    let mut made = Record::zeroed();
    made.key.version = 4;
    made.reason = Reason::Stride as u32;
    made.sums = window.sums;
    made.extrema = window.extrema(capacity);
    let decoded = Record::from_bytes(bytemuck::bytes_of(&made));
    assert_eq!(decoded, Ok(made), "what a window makes is no record");

    let line = record::line(&LineWriter::new(Shape::Flat), &made, "eth0");
    let line = Line::parse(&line).unwrap_or_else(|e| panic!("{e}"));
    let mut different = Vec::new();
    differences(&line, &window_features(packets), Times::Compare, &mut different);
    assert!(different.is_empty(), "{}: {packets:?}", different.join(", "));

    let held = window.packets(capacity).map(|packet| (packet.len, packet.flags, packet.direction));
    let longest = agent_common::window::slot::LEN_MAX;
    let expected = packets.iter().map(|p| (p.len.min(longest), p.flags, usize::from(p.bwd)));
    assert!(held.eq(expected), "{packets:?}");
}

/// Plain packets, super-packets, and what lies at the limits.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(11);
    let mut seeds = Vec::new();
    for (capacity, buffers) in [(0, 3), (2, 40), (14, 40), (62, 1), (62, 130), (62, 199)] {
        for super_packets in [0, 4] {
            let mut seed = vec![capacity];
            for _ in 0..buffers {
                let gso = match random.below(8) {
                    pick if pick >= super_packets => 0,
                    0 => 0xffff,
                    _ => random.between(1, 1500),
                };
                let payload = if gso == 0 { random.below(1500) } else { gso * random.below(90) };
                let iat = random.below(2 * IAT_LIMIT) >> random.below(29);
                seed.push(random.bits() as u8);
                seed.push(random.bits() as u8 & 0x0f);
                seed.push(random.between(20, 120) as u8);
                seed.extend((gso as u16).to_le_bytes());
                seed.push((payload >> 16) as u8);
                seed.extend((payload as u16).to_le_bytes());
                seed.extend((iat as u32).to_le_bytes());
            }
            seeds.push(seed);
        }
    }
    seeds
}
