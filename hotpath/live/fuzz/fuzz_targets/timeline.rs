//! Runs `live::fuzz::timeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| live::fuzz::timeline(data));
