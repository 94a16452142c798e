//! The `ringctl` program: asks and commands a running Ringcast through its admin address.
//!
//! Every command prints for people, or with `--json` exactly what the server answered. Exit codes: 0 done,
//! 1 the server refused or cannot be reached, 2 wrong usage.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};

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
    /// Read the configuration and changed certificates again
    Reload,
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
        Command::Drain => (Method::POST, "/api/v1/drain".into(), render_fields),
        Command::Reload => (Method::POST, "/api/v1/reload".into(), render_reload),
        Command::Top => return top(&client, cli.json),
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

struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl Client {
    fn new(cli: &Cli) -> Result<Self, String> {
        let token = match &cli.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| format!("{}: {error}", file.display()))?;
                Some(text.lines().next().unwrap_or_default().trim().to_owned())
            }
            None => std::env::var("RINGCAST_ADMIN_TOKEN").ok(),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let base =
            format!("http://{}", cli.admin.trim_start_matches("http://").trim_end_matches('/'));
        Ok(Self { agent, base, token: token.filter(|token| !token.is_empty()) })
    }

    fn ask(&self, method: &Method, path: &str) -> Result<Value, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let mut response = self
            .agent
            .run(request)
            .map_err(|error| format!("cannot ask {}: {error}", self.base))?;
        let status = response.status();
        let body: Value = response
            .body_mut()
            .read_json()
            .map_err(|error| format!("{} answered {status} without JSON: {error}", self.base))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = body["error"]["message"].as_str().unwrap_or("no reason given");
        Err(format!("{} ({message})", status.as_u16()))
    }
}

/// Percent-encodes what may not stand in a path or query; `/` stays in a path.
fn escape(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if path => out.push('/'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
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

fn render_status(status: &Value) -> String {
    let mut out = format!(
        "Ringcast {}  {}  up {}\n{} connections: {} publishers, {} subscribers; {} streams\n\
         received {}, sent {}\n",
        text(&status["version"]),
        text(&status["status"]),
        duration(&status["uptime_ms"]),
        status["connections"],
        status["publishers"],
        status["subscribers"],
        status["streams"],
        size(&status["ingress_bytes"]),
        size(&status["egress_bytes"]),
    );
    let rows = items(&status["workers"]).map(|worker| {
        let healthy = if worker["healthy"] == true { "yes" } else { "NO" };
        let busy = worker["busy_ratio"].as_f64().unwrap_or(0.0) * 100.0;
        [
            text(&worker["worker"]),
            healthy.into(),
            format!("{busy:.0}%"),
            text(&worker["connections"]),
        ]
    });
    out.push_str(&table(["worker", "healthy", "busy", "connections"], rows));
    out
}

fn render_streams(page: &Value) -> String {
    let head = ["vhost", "stream", "state", "video", "audio", "kb/s", "subs", "lag ms", "up"];
    let rows = items(&page["items"]).map(|stream| {
        let bits = ["video_bitrate_bps", "audio_bitrate_bps"].map(|key| number(&stream[key]));
        let picture = match (stream["width"].as_u64(), stream["height"].as_u64()) {
            (Some(width), Some(height)) => format!(" {width}x{height}"),
            _ => String::new(),
        };
        [
            text(&stream["vhost"]),
            format!("{}/{}", text(&stream["app"]), text(&stream["name"])),
            text(&stream["state"]),
            format!("{}{picture}", text(&stream["video_codec"])),
            text(&stream["audio_codec"]),
            (bits.iter().sum::<u64>() / 1_000).to_string(),
            text(&stream["subscribers"]),
            text(&stream["lag_ms_max"]),
            duration(&stream["uptime_ms"]),
        ]
    });
    table(head, rows) + &footer(page)
}

fn render_clients(page: &Value) -> String {
    let head = ["id", "role", "stream", "peer", "in", "out", "lag ms", "skips", "up", "agent"];
    let rows = items(&page["items"]).map(|client| {
        let stream = match (client["app"].as_str(), client["stream"].as_str()) {
            (Some(app), Some(stream)) => format!("{app}/{stream}"),
            (Some(app), None) => app.to_owned(),
            _ => "-".to_owned(),
        };
        [
            text(&client["id"]),
            text(&client["role"]),
            printable(&stream),
            text(&client["peer"]),
            size(&client["bytes_in"]),
            size(&client["bytes_out"]),
            text(&client["lag_ms"]),
            text(&client["skips"]),
            duration(&client["uptime_ms"]),
            text(&client["flash_ver"]),
        ]
    });
    table(head, rows) + &footer(page)
}

fn render_certs(page: &Value) -> String {
    let now_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let head = ["certificate", "state", "ends", "in", "key", "host names", "file"];
    let rows = items(&page["items"]).map(|cert| {
        let names: Vec<_> = items(&cert["names"]).map(text).collect();
        let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(" ");
        let more = match names.len().saturating_sub(3) {
            0 => String::new(),
            more => format!(" +{more}"),
        };
        let left = cert["not_after_unix_s"].as_u64().map(|end| match end.checked_sub(now_s) {
            Some(left) => duration(&(left * 1_000).into()),
            None => "over".to_owned(),
        });
        [
            format!(
                "{}{}",
                text(&cert["name"]),
                if cert["is_default"] == true { " *" } else { "" }
            ),
            text(&cert["state"]),
            text(&cert["not_after"]),
            left.unwrap_or_else(|| "-".to_owned()),
            text(&cert["key_type"]),
            shown + &more,
            text(&cert["cert_file"]),
        ]
    });
    let mut out = table(head, rows);
    for cert in items(&page["items"]) {
        for (kind, message) in std::iter::once(("error", &cert["error"]))
            .filter(|(_, message)| !message.is_null())
            .chain(items(&cert["warnings"]).map(|warning| ("warning", warning)))
        {
            let _ = writeln!(out, "{kind}: {}: {}", text(&cert["name"]), text(message));
        }
    }
    if items(&page["items"]).any(|cert| cert["is_default"] == true) {
        out.push_str("* for clients that ask for no name or an unknown one\n");
    }
    out + &footer(page)
}

fn render_reload(report: &Value) -> String {
    let mut out = String::new();
    for (key, title) in [("changed", "changed"), ("restart_required", "needs a restart")] {
        for change in items(&report[key]) {
            let (name, from, to) =
                (text(&change["key"]), text(&change["from"]), text(&change["to"]));
            let _ = writeln!(out, "{title}: {name}: {from} -> {to}");
        }
    }
    for warning in items(&report["warnings"]) {
        let _ = writeln!(out, "warning: {}", text(warning));
    }
    let certificates = &report["certificates"];
    for (key, title) in [("loaded", "taken"), ("removed", "removed"), ("failed_total", "refused")] {
        if number(&certificates[key]) > 0 {
            let _ = writeln!(out, "certificates {title}: {}", certificates[key]);
        }
    }
    for failure in items(&certificates["failed"]) {
        let _ = writeln!(out, "  {}: {}", text(&failure["name"]), text(&failure["error"]));
    }
    for problem in items(&certificates["problems"]) {
        let _ = writeln!(out, "warning: {}", text(problem));
    }
    if out.is_empty() { "nothing changed\n".to_owned() } else { out }
}

fn render_fields(value: &Value) -> String {
    let mut out = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let _ = writeln!(out, "{name:<20} {}", text(value));
    }
    out
}

fn footer(page: &Value) -> String {
    let (total, shown) = (number(&page["total"]), items(&page["items"]).count() as u64);
    let mut out = String::new();
    if shown < total {
        let _ = writeln!(out, "{shown} of {total} shown");
    }
    if items(&page["missing_workers"]).count() > 0 {
        let _ = writeln!(out, "no answer from workers {}", page["missing_workers"]);
    }
    out
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A value as people read it. Names come from peers: control characters are made harmless.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn size(bytes: &Value) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut rest = bytes.as_f64().unwrap_or(0.0);
    let mut unit = 0;
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{rest} B") } else { format!("{rest:.1} {}", UNITS[unit]) }
}

fn duration(ms: &Value) -> String {
    let seconds = number(ms) / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = [head.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut out = String::new();
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_peers_cannot_steer_the_terminal() {
        let page =
            json!({"total": 1, "items": [{"app": "a", "name": "\u{1b}[2J", "state": "live"}]});
        let shown = render_streams(&page);
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert!(shown.contains("a/\u{FFFD}[2J"));
    }

    #[test]
    fn a_certificate_shows_its_end_its_names_and_what_is_wrong_with_it() {
        let page = json!({"total": 1, "items": [{
            "name": "a", "state": "stale", "is_default": true, "names": ["a", "b", "c", "d", "e"],
            "not_after": "1970-01-02T00:00:00Z", "not_after_unix_s": 86_400, "key_type": "RSA 2048",
            "cert_file": "/a.crt", "error": "/a.crt: line 3: damaged", "warnings": ["odd"]
        }]});
        let shown = render_certs(&page);
        for part in [
            "a *  ",
            "over",
            "a b c +2",
            "error: a: /a.crt: line 3: damaged\n",
            "warning: a: odd\n",
        ] {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(size(&json!(512)), "512 B");
        assert_eq!(size(&json!(1_572_864)), "1.5 MiB");
        assert_eq!(duration(&json!(61_000)), "1m01s");
        assert_eq!(duration(&json!(90_061_000)), "1d01h");
    }

    #[test]
    fn a_path_keeps_its_slashes_and_a_query_does_not() {
        assert_eq!(escape("a/b c", true), "a/b%20c");
        assert_eq!(escape("a/b&c", false), "a%2Fb%26c");
    }
}
