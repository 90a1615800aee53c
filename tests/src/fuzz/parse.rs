//! The parser: any frame, of any link type, in any circumstances.

use agent_common::{
    flow::NO_WINDOW,
    key::Family,
    parse::{Fragment, Headers, Measures, Place, Reject, locate},
};

use super::input::Input;
use crate::{
    fixtures,
    frame::{Frame, Link},
    generate::mixed_frames,
    oracle::{
        self,
        parse::{Packet, Parsed, Ports, parse as second_opinion},
    },
    tunnels,
};

const LINKS: [Link; 5] = [Link::Ethernet, Link::Ip, Link::CookedV1, Link::CookedV2, Link::Null];
const DECAP: u8 = 1;

/// What is known of a frame beside its bytes: 11 bytes of an input, before the frame's.
struct Circumstances {
    link: Link,
    frame: agent_common::parse::Frame,
    decap: bool,
    /// Where to cut the frame off, in 256ths of it.
    cut: u8,
}

impl Circumstances {
    fn decode(input: &mut Input<'_>) -> Self {
        let link = input.pick(&LINKS);
        let decap = input.u8() & DECAP != 0;
        let cut = input.u8();
        let gso_size = input.u16().into();
        let vlan_tci = input.u16();
        let beyond = input.u32();
        let wire_len = (input.rest().len() as u32).saturating_add(beyond);
        let frame = agent_common::parse::Frame {
            link: link.into(),
            ifindex: 1,
            wire_len,
            gso_size,
            vlan_tci,
        };
        Self { link, frame, decap, cut }
    }

    /// The input that gives this frame.
    fn encode(link: u8, decap: bool, frame: &Frame) -> Vec<u8> {
        let mut bytes = vec![link, u8::from(decap), 128];
        bytes.extend(frame.gso_size.to_le_bytes());
        bytes.extend(frame.vlan_tci.unwrap_or(0).to_le_bytes());
        bytes.extend(((frame.wire_len - frame.data.len()) as u32).to_le_bytes());
        bytes.extend(&frame.data);
        bytes
    }
}

/// A packet lies within its frame, is what the oracle says, and is not another if less of it was captured.
pub(super) fn body(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Circumstances { link, frame, decap, cut } = Circumstances::decode(&mut input);
    let data = input.rest();
    let whole = locate(data, &frame, decap);
    if let Ok((headers, measures, place)) = &whole {
        within(headers, measures, *place, &frame);
        let at = place.ip as usize;
        let inner = Frame {
            time_ns: 0,
            data: data[at..].to_vec(),
            wire_len: frame.wire_len as usize - at,
            vlan_tci: None,
            gso_size: frame.gso_size as u16,
            link: Link::Ip,
        };
        let Parsed::Packet(packet) = second_opinion(&inner, false) else {
            panic!("the oracle finds no packet at byte {at}, and the parser {headers:?}")
        };
        same(headers, measures, &packet);
        let l4 = place.l4 as usize;
        let there = l4 - at + transport_header(headers, data, l4);
        // A jumbogram's option is in none of the segments.
        let taken_out = if frame.gso_size > 0 { there.saturating_sub(packet.headers) } else { 0 };
        assert!(matches!(taken_out, 0 | 8), "{headers:?}");
        assert_eq!(there - taken_out, packet.headers, "{headers:?}");
    }
    let shown = Frame {
        time_ns: 0,
        data: data.to_vec(),
        wire_len: frame.wire_len as usize,
        vlan_tci: (frame.vlan_tci != 0).then_some(frame.vlan_tci),
        gso_size: frame.gso_size as u16,
        link,
    };
    same_verdict(whole.as_ref(), second_opinion(&shown, decap));
    let less = locate(&data[..data.len() * usize::from(cut) / 256], &frame, decap);
    not_more(&whole, &less, decap);
}

/// What is claimed lies in the frame, as long as that was on the wire.
fn within(
    headers: &Headers,
    measures: &Measures,
    place: Place,
    frame: &agent_common::parse::Frame,
) {
    let Measures { segments, .. } = measures;
    assert!(place.ip < place.l4 && place.l4 <= frame.wire_len, "{place:?} of {frame:?}");
    assert!(segments.count >= 1 && segments.bytes() >= segments.headers.into(), "{segments:?}");
    let behind = u64::from(frame.wire_len - place.l4);
    assert!(segments.payload_bytes() <= behind, "{segments:?} of {frame:?}");
    let plain = segments.count == 1;
    assert!(!plain || segments.bytes() <= u64::from(frame.wire_len - place.ip), "{segments:?}");
    let (key, swapped) = headers.key();
    let ends = if swapped { [headers.dst, headers.src] } else { [headers.src, headers.dst] };
    assert_eq!([(key.a, key.port_a), (key.b, key.port_b)], ends.map(|e| (e.address, e.port)));
}

/// Bytes of the transport header at `l4`.
fn transport_header(headers: &Headers, data: &[u8], l4: usize) -> usize {
    match (headers.fragment, headers.proto()) {
        (Fragment::Later { .. }, _) => 0,
        (_, 1 | 17 | 58) => 8,
        (_, 132) => 12,
        (_, 6) => usize::from(data[l4 + 12] >> 4) * 4,
        _ => 0,
    }
}

fn same_verdict(ours: Result<&(Headers, Measures, Place), &Reject>, theirs: Parsed) {
    match (ours, theirs) {
        (Ok((headers, measures, _)), Parsed::Packet(packet)) => {
            assert_eq!(
                [headers.kind.vlan(), headers.kind.vlan_inner()],
                packet.vlan,
                "{headers:?}"
            );
            same(headers, measures, &packet);
        }
        // Of several faults either may meet another first.
        (Err(Reject::NotIp), Parsed::NotIp) | (Err(Reject::Malformed(_)), Parsed::Malformed(_)) => {
        }
        (ours, theirs) => panic!("{ours:?}, and {theirs:?} says the oracle"),
    }
}

/// The parser and the oracle have found the same packet, but for the tags before it.
fn same(ours: &Headers, measures: &Measures, theirs: &Packet) {
    let family = if ours.version() == 4 { Family::V4 } else { Family::V6 };
    let ips = [ours.src, ours.dst].map(|end| end.address.ip(family));
    assert_eq!(ips, [theirs.src, theirs.dst]);
    let ports = match theirs.ports {
        Ports::Known { sport, dport, .. } => (sport, dport),
        Ports::None | Ports::OfFirstFragment => (0, 0),
    };
    assert_eq!((ours.src.port, ours.dst.port), ports);
    let window = theirs.tcp_window.map_or(NO_WINDOW, u32::from);
    assert_eq!(
        (ours.proto(), measures.ttl, measures.tcp_flags, measures.tcp_window),
        (theirs.proto, theirs.ttl, theirs.flags, window)
    );
    let fragment = match ours.fragment {
        Fragment::Whole => None,
        Fragment::First { id } | Fragment::Later { id } => Some(id),
    };
    assert_eq!(fragment, theirs.fragment.map(|(id, _)| id));
    let ours = measures.segments;
    assert_eq!(ours.headers as usize, theirs.headers);
    let segments = oracle::segments(theirs.len, theirs.headers, theirs.gso_size, 0);
    let mut count = 0;
    // Of very many the first ones are enough.
    for (len, ..) in segments.take(2000) {
        count += 1;
        let expected = if count == ours.count { ours.last_len } else { ours.len };
        assert_eq!(len, expected, "segment {count} of {ours:?}");
    }
    assert!(count == ours.count || count == 2000, "{count}: {ours:?}");
}

/// Where less was captured, what is still found is the same. Inside of tunnels less may be looked through.
fn not_more(
    whole: &Result<(Headers, Measures, Place), Reject>,
    less: &Result<(Headers, Measures, Place), Reject>,
    decap: bool,
) {
    match (whole, less) {
        (Ok((whole, measures, at)), Ok((less, of_less, less_at))) if at == less_at => {
            assert_eq!(whole.key(), less.key());
            assert_eq!(measures, of_less);
        }
        (Ok((_, _, at)), Ok((_, _, less_at))) => {
            assert!(decap && less_at.ip < at.ip, "{less_at:?} in a part of {at:?}");
        }
        (Err(reject), Ok((less, ..))) => {
            assert!(decap, "a cut made a packet of {reject:?}: {less:?}");
        }
        (_, Err(_)) => {}
    }
}

/// Every fixture, every tunnel, and generated frames; each behind every link header.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let fixtures = fixtures::all().into_iter().flat_map(|fixture| fixture.frames);
    let tunnels = tunnels::all().into_iter().map(|tunnelled| tunnelled.frame);
    let mixed = mixed_frames(1, 300).into_iter().map(|data| Frame::ethernet(0, data));
    let frames = fixtures.map(|(frame, _)| frame).chain(tunnels).chain(mixed);
    frames.flat_map(|frame| encoded(&frame)).collect()
}

fn encoded(frame: &Frame) -> Vec<Vec<u8>> {
    let is_ip = frame.link == Link::Ip;
    if is_ip || frame.data.len() < 14 {
        let link = u8::from(is_ip);
        return vec![Circumstances::encode(link, false, frame)];
    }
    let with = |header: &[u8], skip: usize| {
        let data = [header, &frame.data[skip..]].concat();
        let wire_len = frame.wire_len + data.len() - frame.data.len();
        Frame { data, wire_len, ..frame.clone() }
    };
    let ether_type = [frame.data[12], frame.data[13]];
    let family = if ether_type == [0x86, 0xdd] { 10 } else { 2 };
    let cooked_v1 = with(&[0; 14], 12);
    let cooked_v2 = with(&[&ether_type[..], &[0; 18]].concat(), 14);
    vec![
        Circumstances::encode(0, false, frame),
        Circumstances::encode(0, true, frame),
        Circumstances::encode(1, true, &with(&[], 14)),
        Circumstances::encode(2, true, &cooked_v1),
        Circumstances::encode(3, true, &cooked_v2),
        Circumstances::encode(4, false, &with(&[family, 0, 0, 0], 14)),
    ]
}
