//! Runs `mux::fuzz::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mux::fuzz::text(data));
