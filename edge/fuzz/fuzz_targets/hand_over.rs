//! Runs `edge::fuzz::hand_over`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge::fuzz::hand_over(data));
