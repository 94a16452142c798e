//! `ringctl domain|forbid|ban|bans|resume|cut`: who may publish and play on a running server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use edge::address::parse_span;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use crate::client::{Client, escape};
use crate::render::{items, render_fields, table, text};
use crate::{Cli, print};

#[derive(Subcommand)]
pub(crate) enum Domain {
    /// List domains
    List,
    /// Show one domain; keys are shown as fingerprints
    Show {
        /// Its name
        name: String,
    },
    /// Make a domain
    Make {
        /// Host name, without wildcards
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Change a domain as a whole
    Change {
        /// Its name
        name: String,
        #[command(flatten)]
        spec: Spec,
    },
    /// Remove a domain; streams that run stay
    Remove {
        /// Its name
        name: String,
    },
    /// Change keys without a moment in which good addresses are refused: add, then switch, then retire
    Keys {
        /// Its name
        name: String,
        #[command(subcommand)]
        step: KeyStep,
        /// Scheme whose keys are changed: txsecret, aliyun_a, oss, usersig, jwt or hook
        #[arg(long)]
        scheme: String,
    },
    /// Show quotas, or change those that are given; 0 is no limit
    Quotas {
        /// Name of the domain
        name: String,
        #[command(flatten)]
        quotas: QuotaArguments,
    },
}

/// What a domain is to be: a file, or a few words for the usual cases.
#[derive(Args)]
pub(crate) struct Spec {
    /// File with the fields of [domain."NAME"]: JSON if it ends in .json, else TOML
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "push_domain", "style", "scheme"])]
    spec: Option<PathBuf>,
    /// push or play
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "spec")]
    kind: Option<String>,
    /// Push domain whose streams a play domain serves
    #[arg(long)]
    push_domain: Option<String>,
    /// plain, tencent, aliyun or oss
    #[arg(long)]
    style: Option<String>,
    /// One provider: open, txsecret or aliyun_a
    #[arg(long)]
    scheme: Option<String>,
    #[command(flatten)]
    key: NewKey,
}

/// A key, as the server finds it.
#[derive(Args)]
pub(crate) struct NewKey {
    /// File on the server that holds the key
    #[arg(long, value_name = "FILE", group = "new_key")]
    key_file: Option<String>,
    /// Environment variable of the server that holds the key
    #[arg(long, value_name = "NAME", group = "new_key")]
    key_env: Option<String>,
    /// File here whose first line is the key: sent to the server and kept in its store
    #[arg(long, value_name = "FILE", group = "new_key")]
    send_key_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum KeyStep {
    /// Add a backup key: from now on both are good
    Add {
        #[command(flatten)]
        key: NewKey,
        /// oss: access key id that goes with the key
        #[arg(long)]
        access_key_id: Option<String>,
    },
    /// Make the backup key the main one; both stay good
    Switch,
    /// Remove the backup key: what it signed is refused from now on
    Retire,
}

#[derive(Args)]
pub(crate) struct QuotaArguments {
    /// Publishers at one time
    #[arg(long)]
    publishers_max: Option<u32>,
    /// Players at one time
    #[arg(long)]
    subscribers_max: Option<u32>,
    /// Publishes and plays of one address at one time
    #[arg(long)]
    connections_per_address_max: Option<u32>,
    /// Bits per second of one publisher
    #[arg(long)]
    bitrate_bps_max: Option<u64>,
    /// Milliseconds over that limit before it is cut
    #[arg(long)]
    bitrate_cut_ms: Option<u32>,
}

#[derive(Copy, Clone, ValueEnum)]
pub(crate) enum Scope {
    /// Publishing
    Publish,
    /// Playing
    Play,
    /// Both
    All,
}

/// For how long and why.
#[derive(Args)]
pub(crate) struct Terms {
    /// How long, for example 90s, 10m, 12h or 7d; until resumed if absent
    #[arg(long = "for", value_name = "SPAN", value_parser = parse_span)]
    span_s: Option<u64>,
    /// Why, for other operators; not told to peers
    #[arg(long, default_value = "")]
    reason: String,
    /// What is shut out
    #[arg(long, value_enum)]
    scope: Option<Scope>,
}

pub(crate) fn domain(cli: &Cli, action: &Domain) -> Result<(), String> {
    let client = Client::new(cli)?;
    let path = |name: &str| format!("/api/v1/domains/{}", escape(name, false));
    let (answer, render): (Value, fn(&Value) -> String) = match action {
        Domain::List => (client.ask(&Method::GET, "/api/v1/domains?limit=10000")?, render_domains),
        Domain::Show { name } => (client.ask(&Method::GET, &path(name))?, render_domain),
        Domain::Make { name, spec } => {
            let mut body = spec.read()?;
            body.insert("name".to_owned(), json!(name));
            (client.send(&Method::POST, "/api/v1/domains", &Value::Object(body))?, render_domain)
        }
        Domain::Change { name, spec } => {
            let body = Value::Object(spec.read()?);
            (client.send(&Method::PUT, &path(name), &body)?, render_domain)
        }
        Domain::Remove { name } => (client.ask(&Method::DELETE, &path(name))?, render_fields),
        Domain::Keys { name, step, scheme } => {
            let mut body = match step {
                KeyStep::Add { key, .. } => key.read()?,
                KeyStep::Switch | KeyStep::Retire => Map::new(),
            };
            if let KeyStep::Add { access_key_id: Some(id), .. } = step {
                body.insert("access_key_id".to_owned(), json!(id));
            }
            let word = match step {
                KeyStep::Add { .. } => "add",
                KeyStep::Switch => "switch",
                KeyStep::Retire => "retire",
            };
            body.insert("step".to_owned(), json!(word));
            body.insert("scheme".to_owned(), json!(scheme));
            let path = format!("{}/keys", path(name));
            (client.send(&Method::POST, &path, &Value::Object(body))?, render_domain)
        }
        Domain::Quotas { name, quotas } => {
            let (path, body) = (format!("{}/quotas", path(name)), quotas.body());
            let answer = if body.is_empty() {
                client.ask(&Method::GET, &path)?
            } else {
                client.send(&Method::PUT, &path, &Value::Object(body))?
            };
            (answer, render_fields)
        }
    };
    show(cli, &answer, render)
}

/// Shuts out a stream, named DOMAIN/NAME or DOMAIN/APP/NAME.
pub(crate) fn forbid(cli: &Cli, stream: &str, terms: &Terms) -> Result<(), String> {
    let mut body = named_stream(stream)?;
    terms.add_to(&mut body);
    post_forbid(cli, body)
}

/// Shuts out an address or network, for both roles if none is named.
pub(crate) fn ban(cli: &Cli, address: &str, terms: &Terms) -> Result<(), String> {
    let mut body = Map::from_iter([("address".to_owned(), json!(address)), scope(Scope::All)]);
    terms.add_to(&mut body);
    post_forbid(cli, body)
}

/// Closes who publishes a stream, and who plays it if the scope says so; forbids nothing.
pub(crate) fn cut(cli: &Cli, stream: &str, of: Scope) -> Result<(), String> {
    let mut body = named_stream(stream)?;
    body.extend([("oneshot".to_owned(), json!(true)), scope(of)]);
    post_forbid(cli, body)
}

pub(crate) fn bans(cli: &Cli) -> Result<(), String> {
    let answer = Client::new(cli)?.ask(&Method::GET, "/api/v1/forbids")?;
    show(cli, &answer, render_forbids)
}

/// Lets a stream or an address in again, now or after a time.
pub(crate) fn resume(cli: &Cli, target: &str, after_s: Option<u64>) -> Result<(), String> {
    let client = Client::new(cli)?;
    let path = format!("/api/v1/forbids/{}", escape(&full_target(target)?, true));
    let answer = match after_s {
        None => client.ask(&Method::DELETE, &path)?,
        Some(after_s) => client.send(&Method::PUT, &path, &json!({"for_s": after_s}))?,
    };
    show(cli, &answer, render_fields)
}

fn post_forbid(cli: &Cli, body: Map<String, Value>) -> Result<(), String> {
    let client = Client::new(cli)?;
    let answer = client.send(&Method::POST, "/api/v1/forbids", &Value::Object(body))?;
    show(cli, &answer, render_forbidden)
}

fn show(cli: &Cli, answer: &Value, render: fn(&Value) -> String) -> Result<(), String> {
    if cli.json { print(&format!("{answer}\n")) } else { print(&render(answer)) }
}

fn scope(scope: Scope) -> (String, Value) {
    let word = match scope {
        Scope::Publish => "publish",
        Scope::Play => "play",
        Scope::All => "all",
    };
    ("scope".to_owned(), json!(word))
}

/// `DOMAIN/NAME` or `DOMAIN/APP/NAME`.
fn named_stream(stream: &str) -> Result<Map<String, Value>, String> {
    let bad = || format!("{stream:?} is neither DOMAIN/NAME nor DOMAIN/APP/NAME");
    let (domain, rest) = stream.split_once('/').ok_or_else(bad)?;
    let (app, name) = match rest.rsplit_once('/') {
        Some((app, name)) => (Some(app), name),
        None => (None, rest),
    };
    if domain.is_empty() || name.is_empty() || app == Some("") {
        return Err(bad());
    }
    let mut body = Map::new();
    body.insert("domain".to_owned(), json!(domain));
    body.insert("stream".to_owned(), json!(name));
    if let Some(app) = app {
        body.insert("app".to_owned(), json!(app));
    }
    Ok(body)
}

/// A target as `bans` lists it, or an address, or `DOMAIN/NAME` or `DOMAIN/APP/NAME`.
fn full_target(target: &str) -> Result<String, String> {
    if target.starts_with("stream:") || target.starts_with("address:") {
        return Ok(target.to_owned());
    }
    let address = target.split('/').next().unwrap_or(target);
    if address.parse::<std::net::IpAddr>().is_ok() && target.matches('/').count() < 2 {
        return Ok(format!("address:{target}"));
    }
    let named = named_stream(target)?;
    let part = |name: &str| named.get(name).and_then(Value::as_str);
    let app = part("app").unwrap_or("live");
    let (domain, stream) = (part("domain").unwrap_or_default(), part("stream").unwrap_or_default());
    Ok(format!("stream:{}/{app}/{stream}", domain.to_ascii_lowercase()))
}

impl Terms {
    fn add_to(&self, body: &mut Map<String, Value>) {
        body.insert("reason".to_owned(), json!(self.reason));
        if let Some(span_s) = self.span_s {
            body.insert("for_s".to_owned(), json!(span_s));
        }
        body.extend(self.scope.map(scope));
    }
}

impl NewKey {
    fn read(&self) -> Result<Map<String, Value>, String> {
        let mut fields = Map::new();
        for (name, value) in [("key_file", &self.key_file), ("key_env", &self.key_env)] {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(path) = &self.send_key_file {
            let text = read(path)?;
            let key = text.lines().next().unwrap_or_default();
            fields.insert("key".to_owned(), json!(key));
        }
        Ok(fields)
    }
}

impl Spec {
    fn read(&self) -> Result<Map<String, Value>, String> {
        if let Some(path) = &self.spec {
            let text = read(path)?;
            let parsed = if path.extension().is_some_and(|extension| extension == "json") {
                serde_json::from_str(&text).map_err(|error| error.to_string())
            } else {
                toml::from_str(&text).map_err(|error| error.message().to_owned())
            };
            return parsed.map_err(|error| format!("{}: {error}", path.display()));
        }
        let mut fields = Map::new();
        let words =
            [("type", &self.kind), ("push_domain", &self.push_domain), ("style", &self.style)];
        for (name, value) in words {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(scheme) = &self.scheme {
            let mut provider = self.key.read()?;
            provider.insert("scheme".to_owned(), json!(scheme));
            fields.insert("provider".to_owned(), json!([provider]));
        }
        Ok(fields)
    }
}

impl QuotaArguments {
    fn body(&self) -> Map<String, Value> {
        let quotas = [
            ("publishers_max", self.publishers_max.map(u64::from)),
            ("subscribers_max", self.subscribers_max.map(u64::from)),
            ("connections_per_address_max", self.connections_per_address_max.map(u64::from)),
            ("bitrate_bps_max", self.bitrate_bps_max),
            ("bitrate_cut_ms", self.bitrate_cut_ms.map(u64::from)),
        ];
        let given =
            quotas.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        given.collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn render_domains(page: &Value) -> String {
    let head = ["domain", "type", "region", "providers", "serves", "pub", "subs", "from", "fault"];
    let rows = items(&page["items"]).map(|domain| {
        let spec = &domain["spec"];
        let schemes: Vec<_> = items(&spec["provider"]).map(|p| text(&p["scheme"])).collect();
        [
            text(&domain["name"]),
            text(&spec["type"]),
            text(&spec["region"]),
            if schemes.is_empty() { "open".to_owned() } else { schemes.join(" ") },
            text(&spec["push_domain"]),
            text(&domain["publishers"]),
            text(&domain["subscribers"]),
            text(&domain["source"]),
            text(&domain["fault"]),
        ]
    });
    table(head, rows)
}

fn render_domain(domain: &Value) -> String {
    let mut shown = domain.clone();
    let spec = shown.as_object_mut().and_then(|fields| fields.remove("spec"));
    let mut out = render_fields(&shown);
    let Some(Value::Object(mut spec)) = spec else { return out };
    let providers = spec.remove("provider");
    out.push_str(&render_fields(&Value::Object(spec)));
    for provider in providers.iter().flat_map(items) {
        out.push_str("provider\n");
        for line in render_fields(provider).lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    if domain["persisted"] == false {
        out.push_str("it is forgotten when the server ends: there is no access.store\n");
    }
    out
}

fn render_forbids(page: &Value) -> String {
    let rows = items(&page["items"]).map(|forbid| {
        [&forbid["target"], &forbid["scope"], &forbid["until"], &forbid["reason"]].map(text)
    });
    table(["target", "scope", "until", "reason"], rows)
}

fn render_forbidden(answer: &Value) -> String {
    let mut out = match &answer["forbid"] {
        Value::Null => String::new(),
        forbid => render_fields(forbid),
    };
    out.push_str(&format!("{} closed\n", text(&answer["cut"])));
    if items(&answer["missing_workers"]).next().is_some() {
        out.push_str(&format!("no answer from workers {}\n", answer["missing_workers"]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        // All subcommands are built, which ordinary use does only for the one asked for.
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn targets_are_understood_as_people_write_them() {
        for (written, meant) in [
            ("10.0.0.1", "address:10.0.0.1"),
            ("10.0.0.0/8", "address:10.0.0.0/8"),
            ("::1", "address:::1"),
            ("Push.example.com/cam", "stream:push.example.com/live/cam"),
            ("push.example.com/show/cam", "stream:push.example.com/show/cam"),
            ("10.0.0.1/live/cam", "stream:10.0.0.1/live/cam"),
            ("stream:a/b/c", "stream:a/b/c"),
        ] {
            assert_eq!(full_target(written), Ok(meant.to_owned()));
        }
        assert!(full_target("cam").is_err() && full_target("a//b").is_err());
    }
}
