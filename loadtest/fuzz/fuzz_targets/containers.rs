//! Runs `loadtest::fuzz::containers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loadtest::fuzz::containers(data));
