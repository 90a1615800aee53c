//! See `tests/src/fuzz/window.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feature_agent_tests::fuzz::run("window", bytes));
