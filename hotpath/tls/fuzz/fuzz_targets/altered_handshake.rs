//! Runs `tls::fuzz::altered_handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tls::fuzz::altered_handshake(data));
