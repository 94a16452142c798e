//! Ringcast and other RTMP servers side by side: same client, same machine, in turn.
//!
//! ```text
//!   for each round                       A B C D  A B C D …: what the machine does meanwhile hits all
//!     for each number of players
//!       for each server ── start (CPU 0) ─► swarm publishes and plays (CPU 1) ─► stop ─► row
//!     for each server ──── start ─► swarm publishes many streams ─► stop ─► fan-in row
//! ```
//!
//! Each server is a fresh process for each row, but those given by `--peer`, which are running
//! already. What swarm cannot tell (a server that is not installed, a run that failed) is a row
//! that says so. Bounded in time: every child has a limit, and rows that no longer fit into
//! `--minutes` are left out and named.

mod client;
mod quiet;
mod results;
mod row;
mod servers;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use client::{FanIn, Play, Swarm};
use row::{Cell, FanInRow, Rates, Row};
use servers::{Peer, Server};

const EXAMPLES: &str = "\
Examples:
  benches/peers                                      everything: about 8 minutes
  benches/peers --players 1000 --rounds 3 --seconds 20 --out benches/results/peers.toml
  benches/peers --peer srs,rtmp://127.0.0.1:1936/live,4711    a server that is running already
  benches/peers --smoke                              short form for CI: under a minute, no times judged

On a quiet machine only: the figures are those of CPU 0, which nothing else should use.";

/// Compares Ringcast with other RTMP servers by what they cost and how late they are.
#[derive(Debug, Parser)]
#[command(name = "peers", after_help = EXAMPLES)]
struct Args {
    /// Numbers of players
    #[arg(long, value_delimiter = ',', default_value = "100,500,1000")]
    players: Vec<u32>,
    /// Flush policies of Ringcast: frame, immediate or milliseconds
    #[arg(long, value_delimiter = ',', default_value = "frame,100,350")]
    flush: Vec<String>,
    /// Seconds during which all players are there
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// How often everything is repeated
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// Publishers of the fan-in rows; 0 leaves them out
    #[arg(long, default_value_t = 200)]
    publishers: u32,
    /// Minutes after which no further row is begun
    #[arg(long, default_value_t = 20)]
    minutes: u32,
    /// Another server that is running: NAME,URL,PID (pin it to CPU 0 yourself)
    #[arg(long, value_name = "NAME,URL,PID")]
    peer: Vec<Peer>,
    /// Leave nginx-rtmp out
    #[arg(long)]
    no_nginx: bool,
    /// CPU of the servers, and CPU of the players and publishers
    #[arg(
        long,
        value_delimiter = ',',
        num_args = 2,
        default_value = "0,1",
        value_name = "CPU,CPU"
    )]
    cpus: Vec<usize>,
    /// The server program
    #[arg(long, value_name = "FILE")]
    ringcast: PathBuf,
    /// The load generator
    #[arg(long, value_name = "FILE")]
    swarm: PathBuf,
    /// Write the results, with machine, kernel, commit and command
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// 20 players, 3 seconds, one round; fails if a row is missing or a server falls behind
    #[arg(long)]
    smoke: bool,
}

impl Args {
    fn with_smoke(mut self) -> Args {
        if self.smoke {
            self.players = vec![20];
            self.publishers = 20;
            self.seconds = 3;
            self.rounds = 1;
        }
        self
    }

    fn servers(&self) -> Vec<Server> {
        let ringcast = |flush: &String| Server::ringcast(&self.ringcast, flush);
        let mut servers: Vec<Server> = self.flush.iter().map(ringcast).collect();
        if !self.no_nginx {
            // After the first of ours: neighbours in time are compared most often.
            servers.insert(servers.len().min(1), Server::nginx());
        }
        servers.extend(self.peer.iter().cloned().map(Server::running));
        servers
    }
}

fn main() -> ExitCode {
    let args = Args::parse().with_smoke();
    let mut bench = Bench {
        swarm: Swarm { program: args.swarm.clone(), cpu: args.cpus[1], rates: Rates::default() },
        deadline: Instant::now() + Duration::from_secs(60 * u64::from(args.minutes)),
        cells: Vec::new(),
        fan_in: Vec::new(),
        left_out: Vec::new(),
    };
    bench.run(&args);
    if args.smoke {
        println!(
            "short form, debug builds: the figures show that there are some, not how good they are"
        );
    }
    print!("{}", table::players(&bench.cells));
    print!("{}", table::fan_in(&bench.fan_in));
    for what in &bench.left_out {
        println!("left out, no time: {what}");
    }
    if let Some(out) = &args.out
        && let Err(error) = results::write(out, &bench.cells, &bench.fan_in)
    {
        eprintln!("peers: {}: {error}", out.display());
        return ExitCode::FAILURE;
    }
    let failures = bench.failures(args.smoke);
    for failure in &failures {
        eprintln!("peers: {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Bench {
    swarm: Swarm,
    deadline: Instant,
    cells: Vec<Cell<Row>>,
    fan_in: Vec<Cell<FanInRow>>,
    left_out: Vec<String>,
}

impl Bench {
    fn run(&mut self, args: &Args) {
        let servers = args.servers();
        for round in 0..args.rounds {
            for &players in &args.players {
                for server in &servers {
                    self.play(args, server, players, round);
                }
            }
            for server in servers.iter().filter(|server| server.counts_for_fan_in()) {
                self.fan_in(args, server, round);
            }
        }
    }

    fn play(&mut self, args: &Args, server: &Server, players: u32, round: u32) {
        let name = &server.name;
        if self.is_late(format!("{name}, {players} players, round {}", round + 1)) {
            return;
        }
        let play =
            Play { players, seconds: args.seconds, lead_s: if args.smoke { 1.0 } else { 2.5 } };
        let outcome = server.start(args.cpus[0]).and_then(|running| {
            let outcome = self.swarm.play(&running, &play);
            running.stop();
            outcome
        });
        eprintln!("{name}, {players} players, round {}: {}", round + 1, said(&outcome));
        self.cells.push(Cell { server: name.clone(), load: players, outcome });
    }

    fn fan_in(&mut self, args: &Args, server: &Server, round: u32) {
        let name = &server.name;
        let publishers = args.publishers;
        if publishers == 0 || self.is_late(format!("{name}, fan-in, round {}", round + 1)) {
            return;
        }
        let fan_in = FanIn { publishers, seconds: args.seconds };
        let outcome = server.start(args.cpus[0]).and_then(|running| {
            let outcome = self.swarm.fan_in(&running, &fan_in);
            running.stop();
            outcome
        });
        eprintln!("{name}, fan-in, round {}: {}", round + 1, said(&outcome));
        self.fan_in.push(Cell { server: name.clone(), load: publishers, outcome });
    }

    fn is_late(&mut self, what: String) -> bool {
        let is_late = Instant::now() >= self.deadline;
        if is_late {
            self.left_out.push(what);
        }
        is_late
    }

    /// What makes the run a failure: rows that could not be had and, for the short form, rows
    /// left out and servers that did not keep the rate.
    fn failures(&self, is_smoke: bool) -> Vec<String> {
        let mut failures: Vec<String> = Vec::new();
        let errors = self.cells.iter().filter_map(|cell| cell.outcome.as_ref().err());
        failures.extend(
            errors.chain(self.fan_in.iter().filter_map(|c| c.outcome.as_ref().err())).cloned(),
        );
        if is_smoke {
            failures.extend(self.left_out.iter().map(|what| format!("left out: {what}")));
            let behind = self.cells.iter().filter_map(|cell| {
                let behind = cell.outcome.as_ref().ok()?.behind.as_ref()?;
                Some(format!("{}: {behind}", cell.server))
            });
            failures.extend(behind);
        }
        failures
    }
}

fn said<T>(outcome: &Result<T, String>) -> &str {
    outcome.as_ref().map_or_else(String::as_str, |_| "measured")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_short_form_is_short_and_has_every_server() {
        let args = ["peers", "--ringcast", "r", "--swarm", "s", "--smoke"];
        let args = Args::parse_from(args).with_smoke();
        let names: Vec<String> = args.servers().into_iter().map(|server| server.name).collect();
        assert_eq!(names, ["ringcast frame", "nginx-rtmp", "ringcast 100 ms", "ringcast 350 ms"]);
        assert_eq!((args.players, args.rounds), (vec![20], 1));
    }
}
