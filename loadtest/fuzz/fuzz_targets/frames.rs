//! Runs `loadtest::fuzz::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loadtest::fuzz::frames(data));
