//! Runs `http1::fuzz::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| http1::fuzz::requests(data));
