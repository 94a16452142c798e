//! A live stream between its one publisher and its many subscribers. Sans-IO.
//!
//! Never touches a socket, a clock or a thread: time is an argument, bytes are slices, memory that
//! workers share is `ring`'s business. Never panics on what a publisher sent.
//!
//! ```text
//!   rtmp::session Event::Media ──► Publisher ── the one copy ──► ring::Writer ── head ──► ring::Tap
//!                                   │ timeline · preamble · meter                            │
//!                                   ▼                                                        ▼
//!                                 join position, flush mark                 Subscriber ── Lease ──► send
//! ```
//!
//! A stream's life, seen from its subscribers:
//!
//! ```text
//!            publish                unclean loss               grace over / clean unpublish
//!   Waiting ─────────► Live ─────────────────────► Grace ─────────────────────────► Waiting
//!                       ▲  clean unpublish ─► Waiting │
//!                       └────────── publish ──────────┘  (timeline goes on, next keyframe resumes)
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod flush;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
pub mod image;
pub mod meter;
pub mod path;
pub mod preamble;
pub mod publisher;
#[cfg(feature = "serde")]
pub mod record;
pub mod retention;
pub mod subscriber;
pub mod timeline;
mod wait;
