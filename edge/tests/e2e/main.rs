//! End to end: real encoders publish into a real `ringcast` process, real players take out of it.
//!
//! Each test starts its own server on ports chosen by the kernel, runs the programs people use as
//! child processes with bounded time, and compares what the players wrote, packet by packet, with
//! what the publisher read. Nothing here knows how the server works inside: it is started by its
//! flags, awaited by its ready line and watched through its admin API.
//!
//! ```text
//!   clip.flv ──► publisher ──► ringcast ──► player ──► file
//!       └──────────── framemd5 of the packets ───────────┘  same hashes, same relative timestamps
//! ```
//!
//! A program that is not installed skips its test with a printed reason; with
//! `EDGE_E2E=required`, as `tools/test` sets it, that is a failure. The newer ffmpeg (Enhanced
//! RTMP) is named by `EDGE_E2E_FFMPEG_NEW`. Set `EDGE_E2E_KEEP=1` to keep the files of tests that pass.

mod browser;
mod child;
mod hls;
mod media;
mod players;
mod publishers;
mod server;

mod access;
mod codecs;
mod console;
mod http;
mod http_browser;
mod http_cases;
mod lifecycle;
mod long_time;
mod obs;
mod playing;
mod relay;
mod rtmps;
mod upgrade;
mod workers;
