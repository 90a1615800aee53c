//! The harness against itself and the kernel: what was sent is what the capture and the oracle say.

use std::time::Duration;

use feature_agent_tests::{
    capture::{Capture, Sides},
    craft::{self, Tcp, V4},
    generate::{CABLE_MTU, malformed_packets, mixed_frames},
    inject::{self, Pace, wait_until},
    netns::{FAR_IF, NEAR_IF, Pair},
    oracle::{Oracle, parse::flag},
    sys::is_root_or_say,
};

#[test]
fn capture_shows_every_injected_frame() {
    if !is_root_or_say("capture_shows_every_injected_frame") {
        return;
    }
    let pair = Pair::bare(CABLE_MTU);
    let frames = mixed_frames(1, 20_000);
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    let sent = inject::send(&pair.far, FAR_IF, &frames, Pace::FullSpeed);
    assert_eq!(sent, frames.len());
    wait_until(Duration::from_secs(5), || capture.frames_so_far() >= sent);
    let captured = capture.finish();
    assert_eq!(captured.len(), sent);
    for (frame, sent) in captured.iter().zip(&frames) {
        let tag = if frame.vlan_tci.is_some() { 4 } else { 0 };
        assert_eq!(frame.wire_len + tag, sent.len());
    }
    // With the first tag out of band or in band, the oracle reads the same.
    let direct = Oracle::over(&as_frames(&frames));
    let seen = Oracle::over(&captured);
    assert_eq!(direct.counts(), seen.counts());
    assert_eq!(direct.flows().len(), seen.flows().len());
    for (a, b) in direct.flows().iter().zip(seen.flows()) {
        assert_eq!(a.id, b.id);
        assert_eq!(a.totals_after(a.packets.len())[1..], b.totals_after(b.packets.len())[1..]);
    }
}

#[test]
fn capture_shows_super_packets_whole() {
    if !is_root_or_say("capture_shows_super_packets_whole") {
        return;
    }
    let pair = Pair::bare(1500);
    let capture = Capture::start(&pair.near, NEAR_IF, Sides::Both);
    let flags = flag::ACK | flag::PSH | flag::FIN | flag::CWR;
    let segment = Tcp { sport: 7, dport: 8, flags, window: 9, options: 12 }.segment(&[1; 5000]);
    let packet = V4::new([10, 1, 1, 1].into(), [10, 1, 1, 2].into(), 6).packet(&segment);
    let frame = craft::ethernet(&[], craft::IPV4, &packet);
    inject::send_super_packet(&pair.far, FAR_IF, &frame, 1448, false);
    wait_until(Duration::from_secs(2), || capture.frames_so_far() >= 1);
    let captured = capture.finish();
    assert_eq!(captured.len(), 1);
    assert_eq!((captured[0].wire_len, captured[0].gso_size), (frame.len(), 1448));
    let oracle = Oracle::over(&captured);
    let lengths: Vec<u32> = oracle.flows()[0].packets.iter().map(|p| p.len).collect();
    assert_eq!(lengths, [1500, 1500, 1500, 5000 - 3 * 1448 + 52]);
}

#[test]
fn malformed_packets_are_malformed_for_the_named_reason() {
    for (reason, frame) in malformed_packets() {
        let mut oracle = Oracle::default();
        oracle.push(&as_frames(std::slice::from_ref(&frame))[0]);
        let reasons: Vec<&str> = oracle.counts().reasons.keys().map(|r| r.name()).collect();
        assert_eq!(reasons, [reason], "{frame:02x?}");
    }
}

fn as_frames(frames: &[Vec<u8>]) -> Vec<feature_agent_tests::frame::Frame> {
    use feature_agent_tests::frame::Frame;
    frames.iter().map(|bytes| Frame::ethernet(0, bytes.clone())).collect()
}
