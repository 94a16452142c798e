//! Containers and playlists without I/O: message bodies in, bytes for viewers over HTTP out.
//!
//! ```text
//!                    ┌─► flv      header · tag framing ─► wrap                  HTTP-FLV, WS-FLV
//!  message bodies ───┤
//!  u32 ms, wrapping  └─► media ─► segment ─┬─► ts    packets  ┐ parts, segments,
//!                        samples, tracks   └─► fmp4  boxes    ┘ init ─► playlist  HLS, LL-HLS, MSE
//! ```
//!
//! This crate never opens a socket or a file, reads a clock or spawns a thread. It never panics on
//! a publisher's bytes and never keeps more of them than a named limit
//! ([`segment::PART_BYTES_MAX`] and one message; metadata of [`playlist::window`]). What it cannot
//! put into a container (codecs nobody reads there, further tracks of a multitrack message) it
//! leaves out, and says so in [`segment::Counters`]. Output goes into buffers of the caller.
//!
//! | what | where it is written down | here |
//! |---|---|---|
//! | FLV file and tags | FLV 10.1 annex E | [`flv`] |
//! | chunks, WebSocket frames | RFC 9112 §7.1, RFC 6455 §5.2 | [`wrap`] |
//! | fragmented MP4, CMAF | ISO 14496-12, -14, -15; 23000-19 | [`fmp4`] |
//! | codec names | RFC 6381; bindings of AV1, VP9, Opus, FLAC | [`media::codec_names`] |
//! | MPEG-TS | ISO 13818-1; 13818-7 (ADTS) | [`ts`] |
//! | playlists | RFC 8216bis | [`playlist`] |
//!
//! # Copies
//! FLV framing copies a payload once, into the ring it is shared from. Fragments and transport
//! packets cost two: into the part that is being built, and from there into the caller's buffer,
//! since the table of a fragment stands in front of its samples. Both per stream, none per viewer.
//!
//! # Libraries that were tried
//! | crate | outcome |
//! |---|---|
//! | mp4-atom 0.17 | judge in the tests. Its box types own a `Vec` for each table and write configuration records from the fields they understood; here a publisher's record is passed on byte for byte, and a fragment's table is written without allocation. |
//! | mpeg2ts 0.6 | judge in the tests. Its writer takes packets by value, with a 184-byte payload array that is copied twice, and leaves stuffing and continuity to the caller, which is most of the work. |
//! | m3u8-rs 6.0 | not taken: it neither writes nor reads the low-latency tags. |
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod flv;
pub mod fmp4;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod media;
pub mod playlist;
pub mod segment;
pub mod ts;
pub mod wrap;
