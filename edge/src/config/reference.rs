//! The commented reference of every key, generated from the doc comments in [`super::sections`].
//!
//! `ringcast config` prints it; `config.reference.toml` is its committed copy. It is a valid file that
//! says what the defaults say.

use std::fmt::Write as _;

use super::load::env_name;
use super::{
    Access, Admin, CertificateEntry, Config, KeySpec, Limits, Listen, Log, Reload, SECTIONS,
    Section, Shutdown, Tls, VhostSettings, Workers,
};

const WIDTH_CHARS: usize = 98;

/// The reference with the values of `config`: the defaults give the committed file. Secrets are hidden,
/// so a configuration with a secret is printed for reading, not for use.
pub fn reference(config: &Config) -> String {
    let shown = if *config == Config::default() { "its default" } else { "the value in use" };
    let mut out = format!(
        "# Ringcast configuration reference: every key with {shown}.\n\
         # A file needs only the keys it changes. Unknown keys are errors; `ringcast check FILE` tells.\n\
         # Each key can be overridden by the environment variable named with it, and those of a vhost by\n\
         # RINGCAST_VHOST_NAME_KEY (NAME in capitals, other characters as _). Flags override both.\n\
         # Reload (SIGHUP, POST /api/v1/reload) takes all changes or none; keys marked \"restart\" wait.\n",
    );
    for name in SECTIONS {
        let Some(section) = config.section(name) else { continue };
        out.push('\n');
        comment(&mut out, &text(section_doc(name)));
        let _ = writeln!(out, "[{name}]");
        for spec in section.keys() {
            key(&mut out, name, section, spec);
        }
    }
    vhosts(&mut out, config);
    certificates(&mut out, config);
    super::domains::reference(&mut out, config);
    out
}

macro_rules! section_docs {
    ($($field:ident: $type:ident),*) => {
        fn section_doc(name: &str) -> &'static [&'static str] {
            match name { $(stringify!($field) => $type::DOC,)* _ => &[] }
        }
    };
}
super::for_each_section!(section_docs);

fn key(out: &mut String, section_name: &str, section: &dyn Section, spec: &KeySpec) {
    out.push('\n');
    comment(out, &text(spec.doc));
    let unit = if spec.unit.is_empty() { String::new() } else { format!(" {}", spec.unit) };
    let reload = match spec.reload {
        Reload::Live => "reload: yes",
        Reload::Restart => "reload: no, restart",
    };
    comment(out, &format!("Values: {}{unit}. {reload}.", (spec.range_text)()));
    let _ = writeln!(out, "# {}", env_name(section_name, spec.name));
    let _ = writeln!(out, "{} = {}", spec.name, section.show(spec.name));
}

fn vhosts(out: &mut String, config: &Config) {
    out.push('\n');
    comment(
        out,
        "A vhost has the keys of [defaults] and inherits those it does not set. NAME is the host in \
         the peer's URL, or *.DOMAIN for all hosts below a domain. Every other host is the default vhost.",
    );
    if config.vhosts.is_empty() {
        out.push_str("#\n# [vhost.\"live.example.com\"]\n# flush = 100\n");
    }
    for (name, settings) in &config.vhosts {
        let _ = writeln!(out, "[vhost.\"{name}\"]");
        for spec in VhostSettings::KEYS {
            if !settings.same_key(&config.defaults, spec.name) {
                let _ = writeln!(out, "{} = {}", spec.name, settings.show(spec.name));
            }
        }
        out.push('\n');
    }
}

fn certificates(out: &mut String, config: &Config) {
    out.push('\n');
    let keys =
        CertificateEntry::KEYS.iter().map(|spec| format!("{}: {}", spec.name, text(spec.doc)));
    comment(
        out,
        &format!(
            "{} NAME is free; \"default\" is for clients that ask for no name. Two entries may serve the \
             same name with keys of two kinds. An entry comes before tls.dir. Not settable by variables. \
             {} reload: yes.",
            text(CertificateEntry::DOC),
            keys.collect::<Vec<_>>().join(" "),
        ),
    );
    super::certificates::write_reference(out, config);
}

fn text(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

pub(super) fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH_CHARS {
            let _ = writeln!(out, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
