//! The `swarm` program: see the library for what it does.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest::swarm(std::env::args_os())
}
