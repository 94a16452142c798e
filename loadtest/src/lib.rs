//! `swarm`: makes the load a streaming server has to carry, and judges how it carries it.
//!
//! Built on the same sessions and the same door to the kernel as the server itself: a few pinned
//! threads, each with thousands of connections, no runtime between.
//!
//! ```text
//!  source ─► marker (clock, number, checksum) ─► publisher ─► SERVER ─► player ─► viewer ─► account,
//!                                                   RTMP            RTMP, HTTP │      playout, tally
//!  command line ─► plan ─► one shard per thread ◄────────────────────────┘           │
//!  /proc, metrics page ─► probe ─────────────────────────────────► run ─► report ◄───┘
//! ```
//!
//! Reading order: `plan.rs`, `shard.rs`, `player.rs`, `viewer.rs`, `marker.rs`, `run.rs`, `report.rs`.
//! Every command is bounded in time and, unless the operator says otherwise, in reach: this machine.

#![forbid(unsafe_code)]

mod abuse;
mod account;
mod arrivals;
mod cli;
mod commands;
mod compare;
mod container;
mod corpus;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http;
mod link;
mod marker;
mod num;
mod plan;
mod player;
mod playlist;
mod playout;
mod plot;
mod probe;
mod publisher;
mod report;
mod run;
mod secure;
mod shard;
mod slo;
mod slope;
mod source;
mod tally;
mod target;
mod viewer;

use clap::Parser as _;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments, its name being the first.
pub fn swarm(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way as well; a reader that has left is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match commands::execute(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("swarm: {failure}");
            failure.code()
        }
    }
}
