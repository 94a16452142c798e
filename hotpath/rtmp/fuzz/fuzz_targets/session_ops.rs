//! Runs `rtmp::session::ops::session_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtmp::session::ops::session_ops(data));
