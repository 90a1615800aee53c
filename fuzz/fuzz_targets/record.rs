//! See `tests/src/fuzz/record.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| feature_agent_tests::fuzz::run("record", bytes));
