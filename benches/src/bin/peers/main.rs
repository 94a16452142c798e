//! Ringcast and other RTMP servers side by side: same client, same machine, in turn.
//!
//! ```text
//!   for each round                       A B C D  A B C D …: what the machine does meanwhile hits all
//!     for each number of players
//!       for each server ── start (CPU 0) ─► swarm publishes and plays (CPU 1) ─► stop ─► row
//!     for each server ──── start ─► swarm publishes many streams ─► stop ─► fan-in row
//!     for each other mode and server: a line of its own (`modes.rs`)
//! ```
//!
//! Each server is a fresh process for each row, but those given by `--peer`, which are running
//! already. What swarm cannot tell (a server that is not installed, a run that failed) is a row
//! that says so. Bounded in time: every child has a limit, and rows that no longer fit into
//! `--minutes` are left out and named.

mod certificate;
mod client;
mod line;
mod modes;
mod quiet;
mod results;
mod row;
mod servers;
mod table;
mod viewers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use client::{FanIn, Play, Swarm};
use line::Line;
use modes::{Context, Sizes};
use row::{Cell, FanInRow, Rates, Row};
use servers::{Peer, Server};

const EXAMPLES: &str = "\
Examples:
  benches/peers                                      players and fan-in: about 8 minutes
  benches/peers --only storm,stalled,ramp            other questions, one or more
  benches/peers --only rtmps --players 100,500       what TLS costs
  benches/peers --only http,hls,ll-hls,packaging --flush frame    viewers over HTTP
  benches/peers --players 1000 --rounds 3 --seconds 20 --out benches/results/peers.toml
  benches/peers --peer srs,rtmp://127.0.0.1:1936/live,4711    a server that is running already
  benches/peers --smoke                              short form for CI: three minutes, no times judged

On a quiet machine only: the figures are those of CPU 0, which nothing else should use.";

/// What is measured.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Mode {
    /// Cost and delay of players of one stream
    Players,
    /// Cost of streams nobody watches
    FanIn,
    /// First picture of players that come one by one, and all in one instant
    Joins,
    /// 2,000 players come at once to a stream of 8 Mb/s while others watch it
    Storm,
    /// One player among 1,000 stops reading
    Stalled,
    /// How many players one core serves at the full rate: a search
    Capacity,
    /// Latency, flush window and CPU on the way to saturation
    Ramp,
    /// One worker and two under the same load
    Scaling,
    /// Players over TLS
    Rtmps,
    /// Viewers by HTTP-FLV and WebSocket next to players by RTMP
    Http,
    /// Segments a core serves, next to nginx with the same bytes as files
    Hls,
    /// Glass to glass in parts of 200 ms
    LlHls,
    /// What a packaged stream costs
    Packaging,
}

impl Mode {
    const DEFAULT: [Mode; 2] = [Mode::Players, Mode::FanIn];

    /// Modes whose lines are not repeated in every round: they search or draw a curve.
    fn is_once(self) -> bool {
        matches!(self, Mode::Capacity | Mode::Ramp)
    }
}

/// Compares Ringcast with other RTMP servers by what they cost and how late they are.
#[derive(Debug, Parser)]
#[command(name = "peers", after_help = EXAMPLES)]
struct Args {
    /// What is measured; by default players and fan-in, with --smoke everything
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Mode>,
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
    /// Players that watch, in stalled and scaling; a tenth of them in storm
    #[arg(long, default_value_t = 1_000)]
    watchers: u32,
    /// Players of the join storm
    #[arg(long, default_value_t = 2_000)]
    storm: u32,
    /// Players of joins
    #[arg(long, default_value_t = 100)]
    joiners: u32,
    /// Players that stop reading, in stalled
    #[arg(long, default_value_t = 1)]
    stalled: u32,
    /// Most players of capacity and ramp
    #[arg(long, default_value_t = 6_000)]
    players_max: u32,
    /// Seconds in which the players of ramp come
    #[arg(long, default_value_t = 40)]
    ramp_seconds: u32,
    /// CPUs of the workers in scaling: one worker on the first, then one on each
    #[arg(long, value_parser = two_cpus, default_value = "0,1", value_name = "CPU,CPU")]
    worker_cpus: [usize; 2],
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
    #[arg(long, value_parser = two_cpus, default_value = "0,1", value_name = "CPU,CPU")]
    cpus: [usize; 2],
    /// The server program
    #[arg(long, value_name = "FILE")]
    ringcast: PathBuf,
    /// The load generator
    #[arg(long, value_name = "FILE")]
    swarm: PathBuf,
    /// Write the results, with machine, kernel, commit and command
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// All modes with 20 players, 3 seconds, one round; fails if a row is missing or a server falls
    /// behind
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
        if self.only.is_empty() {
            let all = Mode::value_variants();
            self.only = if self.smoke { all } else { &Mode::DEFAULT }.to_vec();
        }
        self
    }

    fn sizes(&self) -> Sizes {
        if self.smoke {
            return Sizes::smoke();
        }
        Sizes {
            watchers: self.watchers,
            storm: self.storm,
            joiners: self.joiners,
            stalled: self.stalled,
            players_max: self.players_max,
            ramp_s: self.ramp_seconds.max(1),
            ..Sizes::full(self.seconds)
        }
    }

    /// Seconds a stream runs before its first player: more than a GOP, so that a server that keeps one
    /// has one.
    fn lead_s(&self) -> f64 {
        if self.smoke { 1.0 } else { 2.5 }
    }

    /// The flush policy of modes that have one row of ours.
    fn first_flush(&self) -> &str {
        self.flush.first().map_or("frame", String::as_str)
    }

    /// The servers of a mode that is not about flush policies.
    fn servers_of(&self, mode: Mode) -> Vec<Server> {
        let (program, flush) = (&self.ringcast, self.first_flush());
        let mut servers = match mode {
            // How far the window widens depends on the policy it begins with.
            Mode::Capacity | Mode::Ramp => self.servers(),
            Mode::Scaling => {
                let cpus = &self.worker_cpus;
                let on = |count: usize| Server::ringcast_on(program, flush, &cpus[..count]);
                return vec![on(1), on(2)];
            }
            Mode::Rtmps => {
                let mut servers = vec![Server::ringcast_tls(program, flush, "off")];
                if has_kernel_tls() {
                    servers.push(Server::ringcast_tls(program, flush, "require"));
                }
                // Our own plain figure: what TLS costs is the ratio to it.
                servers.push(Server::ringcast(program, flush));
                if !self.no_nginx {
                    servers.push(Server::nginx_tls());
                    servers.push(Server::nginx_before_ringcast(program, flush));
                }
                servers.extend(self.peer.iter().cloned().map(Server::running));
                servers.retain(|server| server.is_started_here() || server.is_tls());
                return servers;
            }
            Mode::Http => return vec![Server::ringcast_http(program, flush, &[])],
            Mode::Hls => {
                let always = ("RINGCAST_DEFAULTS_HLS_START", "always");
                let settings = [always, ("RINGCAST_DEFAULTS_HLS_SEGMENT_MS", "1000")];
                return vec![Server::ringcast_http(program, flush, &settings)];
            }
            Mode::LlHls => {
                let settings = [("RINGCAST_DEFAULTS_HLS_PART_MS", "200")];
                return vec![Server::ringcast_http(program, flush, &settings)];
            }
            // The servers it compares are its own (`packaged`).
            Mode::Packaging => return vec![Server::ringcast_http(program, flush, &[])],
            _ => {
                let mut servers = vec![Server::ringcast(program, flush)];
                if !self.no_nginx {
                    servers.push(Server::nginx());
                }
                servers.extend(self.peer.iter().cloned().map(Server::running));
                servers
            }
        };
        servers.retain(|server| !server.is_tls());
        if self.smoke {
            // The policies and the rival are in the rows of players; a storm tells of both ends too.
            servers.truncate(if mode == Mode::Storm { 2 } else { 1 });
        }
        servers
    }

    /// Ringcast that packages nothing, and everything in each container.
    fn packaged(&self) -> Vec<(&'static str, Server)> {
        let with =
            |settings: &[_]| Server::ringcast_http(&self.ringcast, self.first_flush(), settings);
        let always = ("RINGCAST_DEFAULTS_HLS_START", "always");
        let container = |name| ("RINGCAST_DEFAULTS_HLS_CONTAINER", name);
        vec![
            ("not packaged", with(&[])),
            ("fmp4", with(&[always, container("fmp4")])),
            ("ts", with(&[always, container("ts")])),
        ]
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
        lines: Vec::new(),
        left_out: Vec::new(),
    };
    bench.run(&args);
    if args.smoke {
        println!(
            "short form, debug builds: the figures show that there are some, not how good they are"
        );
    }
    if !bench.cells.is_empty() {
        print!("{}", table::players(&bench.cells));
    }
    print!("{}", table::fan_in(&bench.fan_in));
    print!("{}", line::text(&bench.lines));
    for what in &bench.left_out {
        println!("left out, no time: {what}");
    }
    if let Some(out) = &args.out
        && let Err(error) = results::write(out, &bench.cells, &bench.fan_in, &bench.lines)
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
    lines: Vec<Line>,
    left_out: Vec<String>,
}

impl Bench {
    fn run(&mut self, args: &Args) {
        for round in 0..args.rounds {
            for &mode in &args.only {
                match mode {
                    Mode::Players => self.players(args, round),
                    Mode::FanIn => self.fan_in(args, round),
                    _ if round > 0 && mode.is_once() => {}
                    _ => self.other(args, mode, round),
                }
            }
        }
    }

    fn players(&mut self, args: &Args, round: u32) {
        for &players in &args.players {
            for server in args.servers().iter().filter(|server| !server.is_tls()) {
                self.play(args, server, players, round);
            }
        }
    }

    fn fan_in(&mut self, args: &Args, round: u32) {
        let servers = args.servers();
        let counts = |server: &&Server| server.counts_for_fan_in() && !server.is_tls();
        for server in servers.iter().filter(counts) {
            self.publish(args, server, round);
        }
    }

    /// The modes that make lines.
    fn other(&mut self, args: &Args, mode: Mode, round: u32) {
        let sizes = args.sizes();
        let has_loads = matches!(mode, Mode::Rtmps | Mode::Http);
        let loads = if has_loads { args.players.clone() } else { vec![0] };
        for (load, server) in
            loads.iter().flat_map(|load| args.servers_of(mode).into_iter().map(|one| (*load, one)))
        {
            let name = server.name.clone();
            let what = format!("{mode:?}, {name}, round {}", round + 1).to_lowercase();
            if self.is_late(what.clone()) {
                continue;
            }
            let deadline = self.deadline;
            let context = Context {
                swarm: &self.swarm,
                sizes: &sizes,
                cpu: args.cpus[0],
                lead_s: args.lead_s(),
            };
            let lines = match mode {
                Mode::Joins => context.joins(&server),
                Mode::Storm => vec![context.storm(&server)],
                Mode::Stalled => vec![context.stalled(&server)],
                Mode::Capacity => {
                    vec![context.capacity(&server, &|| Instant::now() >= deadline)]
                }
                Mode::Ramp => context.ramp(&server),
                Mode::Scaling => vec![context.scaling(&server)],
                Mode::Rtmps => vec![context.rtmps(&server, load)],
                Mode::Http => context.http(&server, load),
                Mode::Hls => context.hls(&server, !args.no_nginx),
                Mode::LlHls => context.ll_hls(&server),
                Mode::Packaging => context.packaging(&args.packaged()),
                Mode::Players | Mode::FanIn => unreachable!("they have rows of their own"),
            };
            let error = lines.iter().find_map(|line| line.outcome.as_ref().err());
            eprintln!("{what}: {}", error.map_or("measured", String::as_str));
            self.lines.extend(lines);
        }
    }

    fn play(&mut self, args: &Args, server: &Server, players: u32, round: u32) {
        let name = &server.name;
        if self.is_late(format!("{name}, {players} players, round {}", round + 1)) {
            return;
        }
        let play = Play { players, seconds: args.seconds, lead_s: args.lead_s() };
        let outcome = server.start(args.cpus[0]).and_then(|running| {
            let outcome = self.swarm.play(&running, &play);
            running.stop();
            outcome
        });
        eprintln!("{name}, {players} players, round {}: {}", round + 1, said(&outcome));
        self.cells.push(Cell { server: name.clone(), load: players, outcome });
    }

    fn publish(&mut self, args: &Args, server: &Server, round: u32) {
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
        let fan_in = self.fan_in.iter().filter_map(|cell| cell.outcome.as_ref().err());
        let lines = self.lines.iter().filter_map(|line| line.outcome.as_ref().err());
        failures.extend(errors.chain(fan_in).chain(lines).cloned());
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

fn two_cpus(text: &str) -> Result<[usize; 2], String> {
    let cpus = text.split_once(',').map(|(first, second)| (first.parse(), second.parse()));
    match cpus {
        Some((Ok(first), Ok(second))) => Ok([first, second]),
        _ => Err("expected two CPUs like 0,1".into()),
    }
}

/// Whether this kernel has TLS to offer.
fn has_kernel_tls() -> bool {
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp");
    known.is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"))
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
        assert_eq!((args.players.as_slice(), args.rounds), ([20].as_slice(), 1));
        assert_eq!(args.only, Mode::value_variants());
    }

    #[test]
    fn cpus_come_in_pairs() {
        assert_eq!(two_cpus("2,3"), Ok([2, 3]));
        assert!(two_cpus("2").is_err() && two_cpus("2,3,4").is_err() && two_cpus("a,b").is_err());
    }

    #[test]
    fn each_mode_has_its_servers() {
        let args = ["peers", "--ringcast", "r", "--swarm", "s", "--no-nginx", "--flush", "100"];
        let peers = ["--peer", "a,rtmp://127.0.0.1/live,1", "--peer", "b,rtmps://127.0.0.1/live,1"];
        let args = Args::parse_from(args.into_iter().chain(peers)).with_smoke();
        assert_eq!(args.only, Mode::DEFAULT);
        let names = |mode| -> Vec<String> {
            args.servers_of(mode).into_iter().map(|server| server.name).collect()
        };
        assert_eq!(names(Mode::Storm), ["ringcast 100 ms", "a"]);
        assert_eq!(names(Mode::Scaling), ["ringcast 1 worker", "ringcast 2 workers"]);
        let rtmps = names(Mode::Rtmps);
        assert_eq!(rtmps.first().map(String::as_str), Some("ringcast rtmps user space"));
        assert!(rtmps.contains(&"b".to_owned()) && !rtmps.contains(&"a".to_owned()), "{rtmps:?}");
    }
}
