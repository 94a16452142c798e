//! The Ringcast server process: workers that move media, and one control thread that looks after them.
//!
//! This crate opens no socket of the data path itself and contains no unsafe code; the kernel is
//! reached through the workers' `Io`. The control thread (admin HTTP, signals, configuration, metrics)
//! talks to workers through [`command`] only, and no worker ever waits for it.

#![forbid(unsafe_code)]

pub mod access;
pub mod address;
pub mod certs;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod hand_over;
pub mod hls;
pub mod host;
pub mod inherit;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod server;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;

mod connection;
mod framing;
mod front;
mod http;
mod provoke;
pub mod registry;
pub mod runtime;
pub mod shared;
pub mod signature;
pub mod storage;
mod transport;
pub mod worker;
