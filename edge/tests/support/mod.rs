//! Support for the tests that drive a real `ringcast` process over real sockets: the process
//! ([`server`]), many RTMP clients on one thread ([`client`]), media that proves itself
//! ([`media`]), viewers over HTTP ([`viewer`]) and peers that do not keep to the protocol ([`raw`]).
//!
//! Nothing here sleeps for effect: everything waits for a condition, with a deadline that only a
//! failing test reaches.

#![allow(dead_code, unreachable_pub, reason = "shared by test files that each use a part")]

pub mod client;
pub mod confine;
pub mod media;
pub mod raw;
pub mod server;
pub mod viewer;

use std::time::Duration;

/// Longest wait for something that must happen; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);
