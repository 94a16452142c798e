//! Runs `rtmp::fuzz::differential`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtmp::fuzz::differential(data));
