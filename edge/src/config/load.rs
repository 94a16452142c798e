//! Reads a configuration: defaults, file, environment, flags; collects every problem, not only the first.
//!
//! Runs at start and at reload, on the control thread. The result is either complete and valid or a
//! [`ConfigError`] that lists what to change, each with file and line or variable or flag.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::setting::check_host_name;
use super::suggest::nearest;
use super::{Config, DEFAULT_VHOST, FlushPolicy, Form, Listener, SECTIONS, Section, VHOSTS_MAX};

/// Largest configuration file that is read.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Problems reported at once.
pub const PROBLEMS_MAX: usize = 50;
/// Where RTMPS is served if there are certificates and nothing else is said.
pub const RTMPS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 443);
/// Prefix of environment variables.
pub const ENV_PREFIX: &str = "RINGCAST_";

/// Where a configuration comes from; kept, so that a reload reads the same places again.
#[derive(Clone, Default)]
pub struct Source {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// `RINGCAST_*` variables.
    pub env: Vec<(String, String)>,
    /// Flags: name as typed, `section.key`, value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// A valid configuration and what should be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things that are not wrong but probably not meant.
    pub warnings: Vec<String>,
    /// Environment variables that changed a key, for the log: nothing overrides silently.
    pub overridden: Vec<String>,
}

/// One thing to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// `FILE:LINE`, a variable, a flag, or empty.
    pub place: String,
    /// What is wrong and, where known, what was meant.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

/// The configuration cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// What to change, in file order, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Variables may hold the admin token, so only their names are shown.
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Source")
            .field("file", &self.file)
            .field("env", &names)
            .field("flags", &self.flags)
            .finish()
    }
}

impl Source {
    /// Takes the `RINGCAST_*` variables of the process.
    pub fn with_process_env(mut self) -> Self {
        self.env = std::env::vars().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        self.env.sort();
        self
    }

    /// Reads and validates.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loader = Loader::default();
        if let Some(path) = &self.file {
            loader.read_file(path);
        }
        loader.apply_env(&self.env);
        loader.apply_flags(&self.flags);
        loader.finish()
    }
}

/// Reads one file only, as `ringcast check` does: no environment, no flags.
///
/// # Errors
/// [`ConfigError`] with every problem found.
pub fn check_file(path: &Path) -> Result<Loaded, ConfigError> {
    Source { file: Some(path.to_owned()), ..Source::default() }.load()
}

/// Reads a text as if it were a file called `fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check_text(text: &str) -> Result<Loaded, ConfigError> {
    let mut loader = Loader::default();
    loader.read_text(text, "fuzz");
    loader.finish()
}

#[derive(Default)]
pub(super) struct Loader {
    pub(super) config: Config,
    /// Keys each vhost sets itself, applied over the final defaults.
    vhost_keys: Vec<VhostKey>,
    vhost_names: Vec<String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    overridden: Vec<String>,
    /// Where a key was set, for problems found after reading: `section.key` to place.
    places: HashMap<String, String>,
}

struct VhostKey {
    vhost: String,
    key: &'static str,
    text: String,
    place: String,
}

impl Loader {
    pub(super) fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { place: place.into(), message: message.into() });
        }
    }

    fn read_file(&mut self, path: &Path) {
        let shown = path.display().to_string();
        let text = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return self.problem(shown, format!("larger than {FILE_BYTES_MAX} bytes"));
            }
            Ok(_) => fs::read_to_string(path),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => self.read_text(&text, &shown),
            Err(error) => self.problem(shown, format!("cannot be read: {error}")),
        }
    }

    fn read_text(&mut self, text: &str, file: &str) {
        let place = |offset: usize| {
            let before = text.get(..offset).unwrap_or(text);
            format!("{file}:{}", before.matches('\n').count() + 1)
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                return self.problem(place(offset), error.message());
            }
        };
        for (name, value) in in_order(&table) {
            let at = place(name.span().start);
            let name = name.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(keys) if name == "vhost" => self.read_vhosts(keys, &place),
                DeValue::Table(keys) if name == "certificate" => {
                    self.read_certificates(keys, &place);
                }
                DeValue::Table(keys) if name == "domain" => {
                    self.read_domains(keys, &place);
                }
                DeValue::Table(keys) => match self.config.section(name).map(Section::keys) {
                    Some(specs) => self.read_section(name, specs, keys, &place),
                    None => self.unknown_section(&at, name),
                },
                _ => self.unknown_top_level_key(&at, name),
            }
        }
    }

    fn unknown_section(&mut self, at: &str, name: &str) {
        let known = SECTIONS.iter().copied().chain(["vhost", "domain", "certificate"]);
        let hint = meant(nearest(name, known));
        self.problem(at, format!("unknown section [{name}]{hint}"));
    }

    fn unknown_top_level_key(&mut self, at: &str, name: &str) {
        let hint = if SECTIONS.contains(&name) || matches!(name, "vhost" | "domain" | "certificate")
        {
            format!("; it is a section, write [{name}]")
        } else {
            match section_of_key(name) {
                Some(section) => format!("; {name} belongs under [{section}]"),
                None => String::new(),
            }
        };
        self.problem(at, format!("unknown key {name} outside any section{hint}"));
    }

    fn read_section(
        &mut self,
        section: &str,
        specs: &'static [super::KeySpec],
        keys: &DeTable<'_>,
        place: &impl Fn(usize) -> String,
    ) {
        for (key, value) in in_order(keys) {
            let at = place(key.span().start);
            let title = format!("[{section}]");
            if let Some((spec, text)) = self.read_key(&title, specs, key.get_ref(), value, &at) {
                self.set(section, spec.name, &text, &at);
            }
        }
    }

    /// Finds the key and the text of its value; reports what does not fit.
    pub(super) fn read_key(
        &mut self,
        title: &str,
        specs: &'static [super::KeySpec],
        key: &str,
        value: &Spanned<DeValue<'_>>,
        at: &str,
    ) -> Option<(&'static super::KeySpec, String)> {
        let Some(spec) = specs.iter().find(|spec| spec.name == key) else {
            let hint = match nearest(key, specs.iter().map(|spec| spec.name)) {
                Some(near) => meant(Some(near)),
                None => section_of_key(key)
                    .map_or_else(String::new, |other| format!("; it belongs under [{other}]")),
            };
            self.problem(at, format!("unknown key {key} in {title}{hint}"));
            return None;
        };
        let found = match value.get_ref() {
            DeValue::String(text) => Some((Form::Text, text.to_string())),
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| (Form::Integer, number.to_string())),
            DeValue::Boolean(on) => Some((Form::Boolean, on.to_string())),
            _ => None,
        };
        match found {
            Some((form, text)) if spec.forms.contains(&form) => Some((spec, text)),
            _ => {
                let wanted: Vec<_> = spec.forms.iter().map(|form| form.describe()).collect();
                let wanted = wanted.join(" or ");
                let found = value.get_ref().type_str();
                self.problem(at, format!("{key} in {title}: expected {wanted}, found {found}"));
                None
            }
        }
    }

    fn set(&mut self, section: &str, key: &str, text: &str, place: &str) {
        let result = match self.config.section_mut(section) {
            Some(found) => found.set(key, text),
            None => Err(format!("unknown section {section}")),
        };
        match result {
            Ok(()) => drop(self.places.insert(format!("{section}.{key}"), place.to_owned())),
            Err(message) => self.problem(place, format!("{key} in [{section}]: {message}")),
        }
    }

    fn read_vhosts(&mut self, vhosts: &DeTable<'_>, place: &impl Fn(usize) -> String) {
        for (name, value) in in_order(vhosts) {
            let at = place(name.span().start);
            let name = name.get_ref().to_ascii_lowercase();
            let DeValue::Table(keys) = value.get_ref() else {
                self.problem(
                    at,
                    format!("unknown key {name} in [vhost]; write [vhost.\"{name}\"]"),
                );
                continue;
            };
            if let Err(message) = check_vhost_name(&name) {
                self.problem(at, format!("[vhost.\"{name}\"]: {message}"));
                continue;
            }
            if self.vhost_names.contains(&name) {
                self.problem(at, format!("[vhost.\"{name}\"] is there twice"));
                continue;
            }
            if self.vhost_names.len() == VHOSTS_MAX {
                self.problem(at, format!("more than {VHOSTS_MAX} vhosts"));
                return;
            }
            self.vhost_names.push(name.clone());
            let title = format!("[vhost.\"{name}\"]");
            for (key, value) in in_order(keys) {
                let at = place(key.span().start);
                let specs = super::VhostSettings::KEYS;
                if let Some((spec, text)) = self.read_key(&title, specs, key.get_ref(), value, &at)
                {
                    let vhost = name.clone();
                    self.vhost_keys.push(VhostKey { vhost, key: spec.name, text, place: at });
                }
            }
        }
    }

    fn read_domains(&mut self, domains: &DeTable<'_>, place: &impl Fn(usize) -> String) {
        let (found, problems) = super::domains::read(domains);
        for (offset, message) in problems {
            self.problem(place(offset), message);
        }
        self.config.domains = found;
    }

    fn apply_env(&mut self, env: &[(String, String)]) {
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            let rest = rest.to_ascii_lowercase();
            let target = rest.split_once('_').and_then(|(section, key)| {
                let keys = self.config.section(section)?.keys();
                Some((section.to_owned(), keys.iter().find(|spec| spec.name == key)?.name))
            });
            if let Some((section, key)) = target {
                self.set(&section, key, value, name);
                self.overridden.push(format!("{name} sets {section}.{key}"));
            } else if let Some((vhost, key)) = self.vhost_of_env(&rest) {
                self.overridden.push(format!("{name} sets vhost.\"{vhost}\".{key}"));
                let (text, place) = (value.clone(), name.clone());
                self.vhost_keys.push(VhostKey { vhost, key, text, place });
            } else {
                // Not an error: container platforms invent variables from a service's name.
                let known = env_names();
                let near = nearest(name, known.iter().map(String::as_str));
                let hint = meant(near.map(str::to_ascii_uppercase).as_deref());
                self.warnings.push(format!("environment variable {name} is not a setting{hint}"));
            }
        }
    }

    /// `vhost_live_example_com_grace_ms` for a vhost that the file names.
    fn vhost_of_env(&self, rest: &str) -> Option<(String, &'static str)> {
        let rest = rest.strip_prefix("vhost_")?;
        self.vhost_names.iter().find_map(|name| {
            let flat = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
            let key = rest.strip_prefix(&flat)?.strip_prefix('_')?;
            let spec = super::VhostSettings::KEYS.iter().find(|spec| spec.name == key)?;
            Some((name.clone(), spec.name))
        })
    }

    fn apply_flags(&mut self, flags: &[(&'static str, &'static str, String)]) {
        for (flag, target, value) in flags {
            if let Some((section, key)) = target.split_once('.') {
                self.set(section, key, value, flag);
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        self.apply_vhosts();
        self.read_token_file();
        self.default_rtmps();
        self.check_relations();
        self.check_domains();
        self.warn_about_what_is_not_served();
        if self.problems.is_empty() {
            let Self { config, warnings, overridden, .. } = self;
            Ok(Loaded { config, warnings, overridden })
        } else {
            Err(ConfigError { problems: self.problems })
        }
    }

    fn apply_vhosts(&mut self) {
        for name in &self.vhost_names {
            self.config.vhosts.insert(name.clone(), self.config.defaults.clone());
        }
        for VhostKey { vhost, key, text, place } in std::mem::take(&mut self.vhost_keys) {
            let Some(settings) = self.config.vhosts.get_mut(&vhost) else { continue };
            if let Err(message) = settings.set(key, &text) {
                self.problem(&place, format!("{key} in [vhost.\"{vhost}\"]: {message}"));
            }
            self.places.insert(format!("vhost.\"{vhost}\".{key}"), place);
        }
    }

    fn read_token_file(&mut self) {
        let Some(path) = self.config.admin.token_file.path().map(Path::to_owned) else { return };
        let place = self.place_of("admin", "token_file");
        if self.config.admin.token.is_set() {
            return self.problem(place, "set either admin.token or admin.token_file, not both");
        }
        let result = fs::read_to_string(&path).map_err(|error| error.to_string()).and_then(
            |text| match text.lines().next().map(str::trim) {
                Some(token) if !token.is_empty() => self.config.admin.set("token", token),
                _ => Err("its first line is empty".into()),
            },
        );
        if let Err(message) = result {
            self.problem(place, format!("token_file {}: {message}", path.display()));
        }
    }

    fn place_of(&self, section: &str, key: &str) -> String {
        self.places.get(&format!("{section}.{key}")).cloned().unwrap_or_default()
    }

    /// Certificates are there to be served: on 443 unless a file, variable or flag says otherwise.
    fn default_rtmps(&mut self) {
        let wants = self.config.tls.dir.path().is_some() || !self.config.certificates.is_empty();
        if wants && self.place_of("listen", "rtmps").is_empty() {
            self.config.listen.rtmps = Listener::Address(RTMPS_DEFAULT);
        }
    }

    /// What no single key can check.
    fn check_relations(&mut self) {
        if let Some(address) = self.config.listen.admin.address()
            && !address.ip().is_loopback()
            && !self.config.admin.token.is_set()
        {
            let place = self.place_of("listen", "admin");
            let message = format!(
                "admin address {address} is not loopback: set admin.token, admin.token_file or \
                 RINGCAST_ADMIN_TOKEN"
            );
            self.problem(place, message);
        }
        let (count, cpus) = (self.config.workers.count, &self.config.workers.cpus.0);
        if !cpus.is_empty() && usize::from(count) > cpus.len() {
            let message = format!("{count} workers cannot be pinned to {} CPUs", cpus.len());
            self.problem(self.place_of("workers", "count"), message);
        }
        let defaults = self.config.defaults.clone();
        self.check_vhost("defaults", &defaults);
        for (name, settings) in self.config.vhosts.clone() {
            self.check_vhost(&format!("vhost.\"{name}\""), &settings);
        }
    }

    fn check_vhost(&mut self, section: &str, settings: &super::VhostSettings) {
        let (lag, retention) = (settings.lag_ms_max, settings.retention_ms);
        if lag > retention {
            let message = format!(
                "lag_ms_max ({lag}) exceeds retention_ms ({retention}) in [{section}]: the ring would \
                 lose the data before the subscriber skips"
            );
            self.relation_problem(section, ["lag_ms_max", "retention_ms"], message);
        }
        let (part, segment) = (settings.hls_part_ms, settings.hls_segment_ms);
        if part > segment {
            let message =
                format!("hls_part_ms ({part}) exceeds hls_segment_ms ({segment}) in [{section}]");
            self.relation_problem(section, ["hls_part_ms", "hls_segment_ms"], message);
        }
        if let FlushPolicy::Window { ms } = settings.flush
            && u32::from(ms) > settings.flush_ms_max
        {
            let max = settings.flush_ms_max;
            let message = format!("flush ({ms}) exceeds flush_ms_max ({max}) in [{section}]");
            self.relation_problem(section, ["flush", "flush_ms_max"], message);
        }
    }

    /// Reports a broken relation once, where one of its two keys is set; a vhost that only inherits
    /// it is not reported again.
    fn relation_problem(&mut self, section: &str, keys: [&str; 2], message: String) {
        let place = keys.iter().map(|key| self.place_of(section, key)).find(|at| !at.is_empty());
        match place {
            Some(place) => self.problem(place, message),
            None if self.problems.is_empty() => self.problem("", message),
            None => {}
        }
    }

    /// What needs all domains to be known, and their keys: a file that names a missing key is refused.
    fn check_domains(&mut self) {
        for (name, message) in super::domains::faults(&self.config.domains) {
            self.problem(format!("[domain.\"{name}\"]"), message);
        }
    }

    fn warn_about_what_is_not_served(&mut self) {
        let has_certificates =
            self.config.tls.dir.path().is_some() || !self.config.certificates.is_empty();
        if let Some(address) = self.config.listen.rtmps.address()
            && !has_certificates
        {
            self.warnings.push(format!(
                "listen.rtmps = {address}: there are no certificates (tls.dir); nothing listens there"
            ));
        }
    }
}

/// Entries in the order they are written; the parser sorts them by name.
pub(super) fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn meant(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

fn section_of_key(key: &str) -> Option<&'static str> {
    let config = Config::default();
    SECTIONS.iter().copied().find(|section| {
        config.section(section).is_some_and(|found| found.keys().iter().any(|s| s.name == key))
    })
}

/// Names of all variables that are settings whatever the file says, in lower case.
fn env_names() -> Vec<String> {
    let config = Config::default();
    let mut names = Vec::new();
    for section in SECTIONS {
        for spec in config.section(section).map_or(&[][..], Section::keys) {
            names.push(env_name(section, spec.name).to_ascii_lowercase());
        }
    }
    names
}

/// The variable that overrides a key.
pub fn env_name(section: &str, key: &str) -> String {
    format!("{ENV_PREFIX}{section}_{key}").to_ascii_uppercase()
}

fn check_vhost_name(name: &str) -> Result<(), String> {
    if name == DEFAULT_VHOST {
        return Err("the default vhost is configured under [defaults]".into());
    }
    check_host_name(name)
}
