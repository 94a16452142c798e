//! Runs `live::fuzz::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| live::fuzz::stream(data));
