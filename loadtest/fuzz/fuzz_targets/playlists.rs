//! Runs `loadtest::fuzz::playlists`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loadtest::fuzz::playlists(data));
