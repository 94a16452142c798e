//! The `ringctl` program: asks and commands a running Ringcast through its admin address.
//!
//! Every command prints for people, or with `--json` exactly what the server answered. Exit codes: 0 done,
//! 1 the server refused or cannot be reached, 2 wrong usage.

#![forbid(unsafe_code)]

mod access;
mod client;
mod render;
mod sign;
mod tickets;
mod url;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::Value;
use ureq::http::Method;

use client::{Client, escape};
use render::{
    render_certs, render_clients, render_fields, render_reload, render_status, render_streams,
};

/// Longest wait for a hand-over: the new program's start and the standstill, and some more.
const UPGRADE_MAX: Duration = Duration::from_secs(30);

/// Looks after a running Ringcast server.
#[derive(Parser)]
#[command(name = "ringctl", version)]
struct Cli {
    /// Admin address of the server
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: String,
    /// File with the admin token; RINGCAST_ADMIN_TOKEN is used if absent
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the server's JSON answer
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show version, uptime, totals and workers
    Status,
    /// List streams
    Streams,
    /// Show everything about one stream
    Stream {
        /// APP/NAME, for example live/mystream
        path: String,
        /// Vhost of the stream
        #[arg(long, default_value = "default")]
        vhost: String,
    },
    /// List connections
    Clients {
        /// Only this role: undecided, publisher or subscriber
        #[arg(long)]
        role: Option<String>,
    },
    /// Close one connection
    Kick {
        /// Its id as listed by clients, for example 1-4711
        id: String,
    },
    /// List certificates: state, end, key, host names, and what is wrong
    Certs {
        /// Only certificates of this name or for this host name
        name: Option<String>,
        /// Only this state: valid, stale, expired, not_yet_valid or broken
        #[arg(long)]
        state: Option<String>,
    },
    /// Let connections end, then stop the server
    Drain,
    /// Start the program anew and hand listeners and plain RTMP connections over to it
    Upgrade,
    /// Read the configuration and changed certificates again
    Reload,
    /// List, make and change domains, their keys and quotas
    Domain {
        #[command(subcommand)]
        action: access::Domain,
    },
    /// Shut out a stream, for a while or until resumed, and cut who is there
    #[command(visible_alias = "pause")]
    Forbid {
        /// DOMAIN/NAME, or DOMAIN/APP/NAME where apps tell streams apart
        stream: String,
        #[command(flatten)]
        terms: access::Terms,
    },
    /// Shut out an address or network, and cut who is there
    Ban {
        /// Address, or ADDRESS/BITS
        address: String,
        #[command(flatten)]
        terms: access::Terms,
    },
    /// List streams and addresses that are shut out
    Bans,
    /// Let a stream or an address in again
    Resume {
        /// As listed by bans, or DOMAIN/NAME, DOMAIN/APP/NAME, an address
        target: String,
        /// Not now but after this time, for example 10m
        #[arg(long, value_name = "SPAN", value_parser = edge::address::parse_span)]
        after: Option<u64>,
    },
    /// Close who publishes a stream; nothing is forbidden
    Cut {
        /// DOMAIN/NAME, or DOMAIN/APP/NAME where apps tell streams apart
        stream: String,
        /// Who is closed
        #[arg(long, value_enum, default_value = "publish")]
        scope: access::Scope,
    },
    /// Make addresses to publish to or play from, signed
    Url(url::Arguments),
    /// Sign a request of a control client, or what a callback receiver checks; asks no server
    Sign {
        #[command(subcommand)]
        scheme: sign::Scheme,
    },
    /// Make or check a UserSig: a ticket that says who a user is
    Usersig {
        #[command(subcommand)]
        action: tickets::UserSig,
    },
    /// Make or check a privateMapKey: a ticket that says what a user may do in a room
    Privatemapkey {
        #[command(subcommand)]
        action: tickets::MapKey,
    },
    /// Show status and streams, refreshed every second, until interrupted
    Top,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringctl: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    match &cli.command {
        // Without a server, as long as a key is at hand.
        Command::Url(arguments) => return url::run(cli, arguments),
        Command::Sign { scheme } => return sign::run(cli, scheme),
        Command::Domain { action } => return access::domain(cli, action),
        Command::Forbid { stream, terms } => return access::forbid(cli, stream, terms),
        Command::Ban { address, terms } => return access::ban(cli, address, terms),
        Command::Bans => return access::bans(cli),
        Command::Resume { target, after } => return access::resume(cli, target, *after),
        Command::Cut { stream, scope } => return access::cut(cli, stream, *scope),
        Command::Usersig { action } => return tickets::usersig(cli, action),
        Command::Privatemapkey { action } => return tickets::map_key(cli, action),
        _ => {}
    }
    let client = Client::new(cli)?;
    let (method, path, render): (Method, String, fn(&Value) -> String) = match &cli.command {
        Command::Status => (Method::GET, "/api/v1/status".into(), render_status),
        Command::Streams => (Method::GET, "/api/v1/streams".into(), render_streams),
        Command::Stream { path, vhost } => {
            let path =
                format!("/api/v1/streams/{}?vhost={}", escape(path, true), escape(vhost, false));
            (Method::GET, path, render_fields)
        }
        Command::Clients { role } => {
            let query = role
                .as_ref()
                .map_or_else(String::new, |role| format!("?role={}", escape(role, false)));
            (Method::GET, format!("/api/v1/clients{query}"), render_clients)
        }
        Command::Kick { id } => {
            (Method::DELETE, format!("/api/v1/clients/{}", escape(id, false)), render_fields)
        }
        Command::Certs { name, state } => {
            let query: Vec<_> = [("name", name), ("state", state)]
                .into_iter()
                .filter_map(|(key, value)| {
                    Some(format!("{key}={}", escape(value.as_deref()?, false)))
                })
                .chain(["limit=10000".to_owned()])
                .collect();
            (Method::GET, format!("/api/v1/certs?{}", query.join("&")), render_certs)
        }
        Command::Reload => (Method::POST, "/api/v1/reload".into(), render_reload),
        Command::Drain => return drain(&client, cli.json),
        Command::Upgrade => return upgrade(&client, cli.json),
        Command::Top => return top(&client, cli.json),
        Command::Url(_)
        | Command::Sign { .. }
        | Command::Domain { .. }
        | Command::Forbid { .. }
        | Command::Ban { .. }
        | Command::Bans
        | Command::Resume { .. }
        | Command::Cut { .. }
        | Command::Usersig { .. }
        | Command::Privatemapkey { .. } => return Ok(()),
    };
    let answer = client.ask(&method, &path)?;
    if cli.json { print(&format!("{answer}\n")) } else { print(&render(&answer)) }
}

/// Writes to standard output; a reader that has left is no failure.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| error.to_string()),
    }
}

/// Shows who is left, until the server has ended. With `json` says no more than that it begins.
fn drain(client: &Client, json: bool) -> Result<(), String> {
    let answer = client.ask(&Method::POST, "/api/v1/drain")?;
    if json {
        return print(&format!("{answer}\n"));
    }
    print(&render_fields(&answer))?;
    let mut before = Value::Null;
    while let Ok(now) = client.ask(&Method::GET, "/api/v1/status") {
        let left = [&now["publishers"], &now["subscribers"], &now["connections"]];
        if before != *left[2] {
            let seconds = now["drain"]["left_ms"].as_u64().unwrap_or(0) / 1_000;
            print(&format!(
                "{} publishers, {} players, {} connections left; {seconds} s to go\n",
                left[0], left[1], left[2]
            ))?;
            before = left[2].clone();
        }
        thread::sleep(Duration::from_millis(200));
    }
    print("ended\n")
}

/// Waits until another process answers, or this one says why none does.
fn upgrade(client: &Client, json: bool) -> Result<(), String> {
    let before = client.ask(&Method::GET, "/api/v1/status")?;
    let attempts = before["upgrade"]["attempts"].as_u64().unwrap_or(0);
    client.ask(&Method::POST, "/api/v1/upgrade")?;
    let deadline = Instant::now() + UPGRADE_MAX;
    while Instant::now() < deadline {
        // Between the two processes a request may find nobody.
        if let Ok(now) = client.ask(&Method::GET, "/api/v1/status") {
            if now["pid"] != before["pid"] {
                return match json {
                    true => print(&format!("{now}\n")),
                    false => print(&format!(
                        "process {} has taken over from {}: version {}\n",
                        now["pid"],
                        before["pid"],
                        now["version"].as_str().unwrap_or("?")
                    )),
                };
            }
            let upgrade = &now["upgrade"];
            let has_begun = upgrade["attempts"].as_u64().unwrap_or(0) > attempts;
            if let (true, Some(error)) = (has_begun, upgrade["error"].as_str()) {
                return Err(format!("the server goes on as it was: {error}"));
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err("no other process has taken over in time; see the server's log".to_owned())
}

fn top(client: &Client, json: bool) -> Result<(), String> {
    loop {
        let status = client.ask(&Method::GET, "/api/v1/status")?;
        let streams = client.ask(&Method::GET, "/api/v1/streams")?;
        if json {
            print(&format!("{}\n", serde_json::json!({"status": status, "streams": streams})))?;
        } else {
            // Home and clear, as every terminal of the last forty years understands.
            let screen = format!("{}\n{}", render_status(&status), render_streams(&streams));
            print(&format!("\x1b[H\x1b[2J{screen}"))?;
        }
        thread::sleep(Duration::from_secs(1));
    }
}
