//! Runs `mux::fuzz::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mux::fuzz::segment(data));
