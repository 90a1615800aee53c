//! See `tests/src/fuzz/replay.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feature_agent_tests::fuzz::run("replay", bytes));
