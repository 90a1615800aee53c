//! Connections that do not go as in the book: in the kernel, in a replay, and by the oracle.

use feature_agent_tests::{
    in_kernel::{InKernel, LARGE_RING, assert_reasons, assert_values, config},
    in_replay::InReplay,
    lines::Line,
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
    for story in all() {
        let mut replay = InReplay::new(config(RULES, 64));
        for frame in &story.frames {
            replay.push(frame.clone(), 1);
        }
        let lines: Vec<Line> = replay.stop().into_iter().map(|(_, line)| line).collect();
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
