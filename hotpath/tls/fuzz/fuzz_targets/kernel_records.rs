//! Runs `tls::fuzz::kernel_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tls::fuzz::kernel_records(data));
