//! Runs `edge::fuzz::access`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge::fuzz::access(data));
