//! Runs `rtmp::fuzz::tag`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtmp::fuzz::tag(data));
