//! The window against a naive second opinion: the last N packets, recomputed in u128 and f64.

use std::{collections::VecDeque, vec::Vec};

use bytemuck::Zeroable;
use proptest::prelude::*;

use super::*;
use crate::window::{entropy::ERROR_BOUND_BITS, slot::IAT_MAX, slot::LEN_MAX};

/// One wire packet, as plain numbers.
#[derive(Clone, Copy, Debug)]
struct Plain {
    iat: u64,
    len: u64,
    flags: u8,
    direction: usize,
}

/// One socket buffer.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    gso: u32,
    payload: u32,
    headers: u32,
    iat: u64,
    flags: u8,
    direction: usize,
}

impl Buffer {
    fn segments(&self) -> Segments {
        Segments::new(self.payload + self.headers, self.headers, self.gso)
    }

    /// Its wire packets, by hand.
    fn packets(&self) -> Vec<Plain> {
        let mut left = u64::from(self.payload);
        let size = if self.gso == 0 { u64::MAX } else { u64::from(self.gso) };
        let mut packets = Vec::new();
        loop {
            let payload = left.min(size);
            left -= payload;
            let (first, last) = (packets.is_empty(), left == 0);
            let mut flags = self.flags;
            if !last {
                flags &= !0b1001;
            }
            if !first {
                flags &= !0x80;
            }
            packets.push(Plain {
                iat: if first { self.iat.min(IAT_MAX) } else { 0 },
                len: (payload + u64::from(self.headers)).min(u64::from(LEN_MAX)),
                flags,
                direction: self.direction,
            });
            if last {
                return packets;
            }
        }
    }
}

fn check(window: &Window, last: &VecDeque<Plain>, capacity: u32) {
    let sums = &window.sums;
    for direction in 0..2 {
        let of = || last.iter().filter(move |p| p.direction == direction);
        let lengths = &sums.lengths[direction];
        assert_eq!(lengths.packets as usize, of().count());
        assert_eq!(u128::from(lengths.sum), of().map(|p| u128::from(p.len)).sum());
        let squares: u128 = of().map(|p| u128::from(p.len).pow(2)).sum();
        assert_eq!(u128::from(lengths.sq_sum), squares);
    }
    for bit in 0..8 {
        let with = last.iter().filter(|p| p.flags >> bit & 1 == 1).count();
        assert_eq!(usize::from(sums.flag_count(bit)), with, "flag {bit}");
    }
    let gaps: Vec<u64> = last.iter().skip(1).map(|p| p.iat).collect();
    assert_eq!(u128::from(sums.iat_sum), gaps.iter().map(|&g| u128::from(g)).sum());
    assert_eq!(u128::from(sums.iat_sq_sum), gaps.iter().map(|&g| u128::from(g).pow(2)).sum());

    let lens: Vec<u64> = last.iter().map(|p| p.len).collect();
    near(sums.len_entropy, &lens, |len| usize::from(len_bin(*len as u32)));
    near(sums.iat_entropy, &gaps, |gap| if *gap < 2 { 0 } else { gap.ilog2() as usize });

    let extrema = window.extrema(capacity);
    assert_eq!(u64::from(extrema.len_min), *lens.iter().min().unwrap());
    assert_eq!(u64::from(extrema.len_max), *lens.iter().max().unwrap());
    assert_eq!(u64::from(extrema.iat_min), gaps.iter().min().copied().unwrap_or(u32::MAX.into()));
    assert_eq!(u64::from(extrema.iat_max), gaps.iter().max().copied().unwrap_or(0));

    let held: Vec<_> = window.packets(capacity).map(|p| (p.len, p.flags, p.direction)).collect();
    let want: Vec<_> = last.iter().map(|p| (p.len as u32, p.flags, p.direction)).collect();
    assert_eq!(held, want);
}

fn near(s: u64, values: &[u64], bin: impl Fn(&u64) -> usize) {
    let n = values.len();
    if n == 0 {
        assert_eq!(s, 0);
        return;
    }
    let mut counts = [0usize; 32];
    for value in values {
        counts[bin(value)] += 1;
    }
    let probabilities = counts.iter().filter(|&&c| c > 0).map(|&c| c as f64 / n as f64);
    let exact: f64 = probabilities.map(|p| -p * p.log2()).sum();
    let fixed = (entropy::c_log2_c(n as u32) - s) as f64 / n as f64 / (1u64 << 48) as f64;
    // The oracle's own f64 sum adds a few 2⁻⁵².
    assert!((exact - fixed).abs() < ERROR_BOUND_BITS + 1e-14, "{exact} {fixed}");
}

fn run(
    capacity: u32,
    buffers: impl IntoIterator<Item = Buffer>,
    mut each: impl FnMut(&Window, &VecDeque<Plain>),
) {
    let mut window = Window::zeroed();
    let mut last = VecDeque::new();
    for buffer in buffers {
        window.push(capacity, &buffer.segments(), buffer.iat, buffer.flags, buffer.direction);
        last.extend(buffer.packets());
        while last.len() > capacity as usize {
            last.pop_front();
        }
        each(&window, &last);
    }
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    let iat = prop_oneof![0u64..5, 0u64..100_000, IAT_MAX - 2..IAT_MAX + 3, 0..u64::MAX];
    let shape = prop_oneof![
        4 => (Just(0u32), 0u32..1500),
        1 => (Just(0u32), 0u32..1_200_000),
        1 => (1u32..1500, 0u32..400).prop_map(|(gso, count)| (gso, gso * count)),
        1 => (500u32..9000, 0u32..65_000),
    ];
    let one = (shape, 20u32..120, iat, any::<u8>(), 0usize..2).prop_map(
        |((gso, payload), headers, iat, flags, direction)| Buffer {
            gso,
            payload,
            headers,
            iat,
            flags,
            direction,
        },
    );
    prop::collection::vec(one, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_accumulator_equals_the_naive_one(capacity in 2u32..=64, buffers in buffers()) {
        run(capacity, buffers, |window, last| check(window, last, capacity));
    }

    #[test]
    fn a_super_packet_is_its_segments_pushed_one_by_one(capacity in 2u32..=64, buffers in buffers()) {
        let mut window = Window::zeroed();
        let mut single = Window::zeroed();
        for buffer in buffers {
            window.push(capacity, &buffer.segments(), buffer.iat, buffer.flags, buffer.direction);
            for packet in buffer.packets() {
                let alone = Segments::new(packet.len as u32, 0, 0);
                single.push(capacity, &alone, packet.iat, packet.flags, packet.direction);
            }
            prop_assert_eq!(window.sums, single.sums);
            prop_assert_eq!(window.extrema(capacity), single.extrema(capacity));
        }
    }
}

#[test]
fn ten_million_pushes_do_not_drift() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut window = Window::zeroed();
    let mut last = VecDeque::new();
    for _ in 0..10_000_000u32 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let packet = Plain {
            iat: (state >> 8) & IAT_MAX >> (state & 15),
            len: (state >> 36) & 0xffff,
            flags: state as u8,
            direction: (state >> 60) as usize & 1,
        };
        let alone = Segments::new(packet.len as u32, 0, 0);
        window.push(64, &alone, packet.iat, packet.flags, packet.direction);
        if last.len() == 64 {
            last.pop_front();
        }
        last.push_back(packet);
    }
    check(&window, &last, 64);
}
