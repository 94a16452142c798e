//! The configuration: one immutable snapshot, shared by all threads, replaced as a whole.
//!
//! Made from, in rising order of precedence: defaults, the TOML file, `RINGCAST_SECTION_KEY`
//! environment variables, command line flags. Strict: an unknown key or a value out of range is an
//! error with its line and, where one is near, the key that was meant. Read by [`load`], documented by
//! [`mod@reference`], compared by [`diff`]. Workers get a new snapshot as `Command::ApplyConfig`.
//!
//! - [`setting`]: types of values, and the macro that declares a section.
//! - [`sections`]: every key, once.

mod certificates;
pub mod diff;
mod domains;
pub mod load;
pub mod reference;
pub mod sections;
pub mod setting;
mod suggest;

use std::collections::BTreeMap;

use crate::access::spec::DomainSpec;

pub use certificates::CERTIFICATES_MAX;
pub use load::{ConfigError, Loaded, Problem, Source};
pub use sections::{
    Access, Admin, CertificateEntry, Limits, Listen, Log, MESSAGE_BYTES_HARD_MAX, Shutdown, Tls,
    VhostSettings, Workers,
};
pub use setting::{
    Cpus, DuplicatePublish, FilePath, FlushPolicy, Form, HlsContainer, HlsStart, HostNames,
    IoChoice, KernelTls, KeySpec, Listener, LogFormat, LogLevel, Networks, OnPanic, Reload, Secret,
    Section, Setting, UnknownDomain,
};

/// Name of the vhost that takes every host the file does not name.
pub const DEFAULT_VHOST: &str = "default";
/// Domains of one server, those of the file and those made by the API each.
pub const DOMAINS_MAX: usize = 10_000;
/// Vhosts one file may name.
pub const VHOSTS_MAX: usize = 4_096;

/// A complete, validated configuration.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Config {
    /// `[listen]`.
    pub listen: Listen,
    /// `[tls]`.
    pub tls: Tls,
    /// `[workers]`.
    pub workers: Workers,
    /// `[log]`.
    pub log: Log,
    /// `[limits]`.
    pub limits: Limits,
    /// `[admin]`.
    pub admin: Admin,
    /// `[access]`.
    pub access: Access,
    /// `[shutdown]`.
    pub shutdown: Shutdown,
    /// `[defaults]`: the default vhost, and what others inherit.
    pub defaults: VhostSettings,
    /// `[vhost."NAME"]`, inheritance applied; names in lower case.
    pub vhosts: BTreeMap<String, VhostSettings>,
    /// `[certificate."NAME"]`.
    pub certificates: BTreeMap<String, CertificateEntry>,
    /// `[domain."NAME"]`; names in normal form.
    pub domains: BTreeMap<String, DomainSpec>,
}

/// Calls a macro with every section but the vhosts: field, type, name in the file.
macro_rules! for_each_section {
    ($callback:ident) => {
        $callback! {
            listen: Listen, tls: Tls, workers: Workers, log: Log, limits: Limits,
            admin: Admin, access: Access, shutdown: Shutdown, defaults: VhostSettings
        }
    };
}
pub(crate) use for_each_section;

macro_rules! section_access {
    ($($field:ident: $type:ident),*) => {
        /// Names of the sections, in reference order.
        pub const SECTIONS: &[&str] = &[$(stringify!($field)),*];

        impl Config {
            /// A section by its name in the file.
            pub fn section(&self, name: &str) -> Option<&dyn Section> {
                match name { $(stringify!($field) => Some(&self.$field),)* _ => None }
            }

            fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name { $(stringify!($field) => Some(&mut self.$field),)* _ => None }
            }
        }
    };
}
for_each_section!(section_access);

impl Config {
    /// The vhost a host name belongs to: exact name, then the wildcard `*.` of each parent domain,
    /// then the default. Upper case, a port and a final dot do not matter. Called once per connect.
    pub fn vhost(&self, host: &str) -> (&str, &VhostSettings) {
        if self.vhosts.is_empty() {
            return (DEFAULT_VHOST, &self.defaults);
        }
        let name = canonical_host(host);
        if let Some((name, settings)) = self.vhosts.get_key_value(&name) {
            return (name, settings);
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some((name, settings)) = self.vhosts.get_key_value(&format!("*.{parent}")) {
                return (name, settings);
            }
            rest = parent;
        }
        (DEFAULT_VHOST, &self.defaults)
    }

    /// The settings of a vhost by the name [`Config::vhost`] returned earlier. A vhost that a reload
    /// has removed since falls back to the defaults.
    pub fn vhost_settings(&self, name: &str) -> &VhostSettings {
        self.vhosts.get(name).unwrap_or(&self.defaults)
    }
}

/// Lower case, without port, brackets and final dot.
fn canonical_host(host: &str) -> String {
    let host = host.trim();
    let bare = if let Some(rest) = host.strip_prefix('[') {
        rest.split(']').next().unwrap_or(rest)
    } else {
        match host.split_once(':') {
            // More than one colon and no brackets is an IPv6 address without a port.
            Some((name, port)) if !port.contains(':') => name,
            _ => host,
        }
    };
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_finds_its_exact_vhost_then_the_wildcard_then_the_default() {
        let mut config = Config::default();
        for name in ["live.example.com", "*.example.com", "::1"] {
            config.vhosts.insert(name.into(), VhostSettings::default());
        }
        for (host, expected) in [
            ("live.example.com", "live.example.com"),
            ("LIVE.Example.com.:1935", "live.example.com"),
            ("a.b.example.com", "*.example.com"),
            ("example.com", DEFAULT_VHOST),
            ("[::1]:1935", "::1"),
            ("::1", "::1"),
            ("10.0.0.1:1935", DEFAULT_VHOST),
            ("", DEFAULT_VHOST),
        ] {
            assert_eq!(config.vhost(host).0, expected, "{host}");
        }
    }
}
