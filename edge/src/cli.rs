//! The command line: what the flags are called and which configuration key each overrides.
//!
//! `ringcast` alone is `ringcast serve`. Flags override the environment, which overrides the file. Scripts
//! depend on the names here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Source;

const EXAMPLES: &str = "\
Examples:
  ringcast                                 serve RTMP on port 1935, no file needed
  ringcast --rtmp 0.0.0.0:1936 --workers 2 another port, two workers
  ringcast --config ringcast.toml          settings from a file
  ringcast config > ringcast.toml          start a file: every key, commented, with its default
  ringcast check ringcast.toml             is the file right? (exit code 0 or 1)

Publish with   ffmpeg -re -i FILE -c copy -f flv rtmp://127.0.0.1/live/mystream
Watch with     ffplay rtmp://127.0.0.1/live/mystream
Look inside    ringctl status

Signals: SIGTERM drains and exits, SIGINT exits at once, SIGHUP reloads the configuration.
SIGQUIT starts the program anew and hands listeners and plain RTMP connections over to it.";

/// Self-hosted live-streaming edge: RTMP in, thousands of players out.
#[derive(Debug, Parser)]
#[command(name = "ringcast", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; serve if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of serve, when it is not named.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What `ringcast` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (the same as no command)
    #[command(after_help = EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Check a configuration file: exit code 0 if it is valid, 1 if not
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every configuration key with its meaning, range and value
    Config {
        /// Show the values of this file and of the environment instead of the defaults
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Flags of serve. ADDR is IP:PORT or "off"; port 0 lets the kernel choose.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address for RTMP [default: 0.0.0.0:1935]
    #[arg(long, value_name = "ADDR")]
    pub rtmp: Option<String>,
    /// Address for RTMP over TLS [default: 0.0.0.0:443 with --tls-dir, else off]
    #[arg(long, value_name = "ADDR")]
    pub rtmps: Option<String>,
    /// Address for viewers' HTTP
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Address for health, metrics and API [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Folder of certificates: NAME.crt + NAME.key, or NAME/fullchain.pem + NAME/privkey.pem
    #[arg(long, value_name = "DIR")]
    pub tls_dir: Option<String>,
    /// Number of worker threads; 0 means one per CPU [default: 0]
    #[arg(long, value_name = "N")]
    pub workers: Option<String>,
    /// CPUs the workers are pinned to, like 0-3,8 [default: all]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<String>,
    /// Kernel interface: uring, epoll or auto [default: auto]
    #[arg(long, value_name = "IO")]
    pub io: Option<String>,
    /// When players are sent what was published: frame, immediate or milliseconds [default: frame]
    #[arg(long, value_name = "WHEN")]
    pub flush: Option<String>,
}

impl ServeArgs {
    /// Where the configuration of this command line comes from, the environment included.
    pub fn source(&self) -> Source {
        let flags = [
            ("--rtmp", "listen.rtmp", &self.rtmp),
            ("--rtmps", "listen.rtmps", &self.rtmps),
            ("--http", "listen.http", &self.http),
            ("--admin", "listen.admin", &self.admin),
            ("--tls-dir", "tls.dir", &self.tls_dir),
            ("--workers", "workers.count", &self.workers),
            ("--cpus", "workers.cpus", &self.cpus),
            ("--io", "workers.io", &self.io),
            ("--flush", "defaults.flush", &self.flush),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(flag, key, value)| Some((flag, key, value.clone()?)))
            .collect();
        Source { file: self.config.clone(), env: Vec::new(), flags }.with_process_env()
    }
}
