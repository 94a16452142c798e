//! Runs `http1::fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| http1::fuzz::frames(data));
