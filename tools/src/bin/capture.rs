//! Command line of the recording TCP proxy.

use std::net::{TcpListener, ToSocketAddrs};
use std::process::ExitCode;

use tools::capture::{Options, record};
use tools::cli::{self, Arguments, UsageError};

const HELP: &str = "\
Records what a client and a server say to each other.

  capture --listen ADDR --to ADDR --out DIR [--connections N]
          [--client TEXT] [--command TEXT] [--date YYYY-MM-DD]

Writes DIR/c2s.bin, DIR/s2c.bin and DIR/about.toml; further connections go to DIR-2, DIR-3, ...
Prints `listening ADDR` once it accepts, and ends after N connections (default 1).

Examples
  capture --listen 127.0.0.1:1936 --to 127.0.0.1:1935 --out obs-29-publish --client 'OBS 29.0.2'
  capture --listen 127.0.0.1:0 --to 127.0.0.1:1935 --out vlc-play --command 'vlc rtmp://…' --date 2026-01-31
";

fn main() -> ExitCode {
    cli::run(HELP, capture)
}

fn capture(mut arguments: Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let listen = arguments.take_required("--listen")?;
    let to = arguments.take_required("--to")?;
    let to = to.to_socket_addrs()?.next();
    let connections = arguments.take_value("--connections")?.unwrap_or_else(|| "1".into());
    let options = Options {
        to: to.ok_or_else(|| UsageError("--to has no address".into()))?,
        out: arguments.take_required("--out")?.into(),
        connections: connections
            .parse()
            .map_err(|_| UsageError(format!("--connections {connections} is no number")))?,
        client: arguments.take_value("--client")?.unwrap_or_default(),
        command: arguments.take_value("--command")?.unwrap_or_default(),
        date: arguments.take_value("--date")?.unwrap_or_default(),
    };
    arguments.finish()?;
    let listener = TcpListener::bind(listen)?;
    println!("listening {}", listener.local_addr()?);
    record(&listener, &options)?;
    Ok(ExitCode::SUCCESS)
}
