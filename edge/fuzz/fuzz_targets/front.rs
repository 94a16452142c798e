//! Runs `edge::fuzz::front`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edge::fuzz::front(data));
