//! Connections that do not go as in the book: in the kernel, in a replay, and by the oracle.

use std::time::Duration;

use agent_common::{filter::Program, parse::Link, record::Record};
use feature_agent::{
    capture::Packet,
    line::{LineWriter, Shape},
    replay::Engine,
    settings::FlowSettings,
};
use feature_agent_tests::{
    in_kernel::{InKernel, LARGE_RING, assert_reasons, assert_values, config},
    lines::{Line, parse_all},
    oracle::Speaker,
    stories::{RULES, Said, Story, all},
    sys::is_root_or_say,
};

fn assert_said(story: &Story, lines: &[Line]) {
    let said: Vec<Said> = lines.iter().map(Said::of).collect();
    assert_eq!(said, story.lines, "{}", story.name);
}

#[test]
fn a_replay_tells_them_as_they_are_written() {
    let settings = FlowSettings {
        config: config(RULES, 64),
        filter: Program::ALL,
        poll: Duration::from_hours(1),
        max_flows: 16,
    };
    let writer = LineWriter::new(Shape::Flat);
    for story in all() {
        let mut engine = Engine::new(&settings, true);
        for frame in &story.frames {
            let packet = Packet {
                time_ns: frame.time_ns,
                data: &frame.data,
                wire_len: frame.wire_len as u32,
                link: Some(Link::Ethernet),
                link_type: 1,
                interface: 1,
            };
            assert!(engine.packet(&packet).is_some(), "{}", story.name);
        }
        engine.stop();
        let line = |record: &Record| {
            let mut line = Vec::new();
            writer.append(&mut line, record, "lo", 0);
            String::from_utf8(line).expect("UTF-8")
        };
        let lines: Vec<String> = engine.records().iter().map(line).collect();
        let lines = parse_all(lines.iter().map(String::as_str)).expect("lines");
        assert_said(&story, &lines);
    }
}

#[test]
fn the_kernel_tells_them_as_they_are_written() {
    if !is_root_or_say("the_kernel_tells_them_as_they_are_written") {
        return;
    }
    let mut kernel = InKernel::new(config(RULES, 64), 1024, LARGE_RING);
    for story in all() {
        let mut speaker = Speaker::new(RULES);
        for frame in &story.frames {
            kernel.push(frame);
            speaker.push(frame);
        }
        kernel.stop();
        speaker.stop();
        let lines = kernel.lines();
        assert_said(&story, &lines);
        assert_values(&lines, speaker.oracle(), 64);
        assert_reasons(&lines, &speaker);
    }
    assert_eq!(kernel.counters().unaccounted(), 0);
}
