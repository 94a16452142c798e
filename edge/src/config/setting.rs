//! Types a configuration key can have: how each is read from text, checked, and written back.
//!
//! One trait for the file, the environment and the command line, so the three can never disagree.
//! The `sections!` macro turns one annotated table into the struct, its defaults, its documentation
//! and its key list. Start-up and reload only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// CPUs a worker may be pinned to have numbers below this.
pub const CPU_INDEX_MAX: u16 = 1023;

/// The TOML type a value was written as.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// `"text"`.
    Text,
    /// `42`.
    Integer,
    /// `true`.
    Boolean,
}

impl Form {
    /// The form with its article, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "a string in quotes",
            Self::Integer => "a whole number",
            Self::Boolean => "true or false",
        }
    }
}

/// A type of configuration value.
pub trait Setting: Clone + PartialEq + Sized {
    /// What bounds a key of this type: a numeric range, or a description of the values.
    type Range: 'static;
    /// TOML types it may be written as.
    const FORMS: &'static [Form];
    /// Reads it.
    ///
    /// # Errors
    /// A phrase that continues "KEY: ".
    fn from_text(text: &str) -> Result<Self, String>;
    /// Writes it as in a file. Secrets are hidden.
    fn to_toml(&self) -> String;
    /// Checks it against a key's range.
    ///
    /// # Errors
    /// A phrase that continues "KEY: ".
    fn check(&self, range: &Self::Range) -> Result<(), String>;
    /// The range for the reference.
    fn range_text(range: &Self::Range) -> String;
}

macro_rules! integer_setting {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            type Range = RangeInclusive<$type>;
            const FORMS: &'static [Form] = &[Form::Integer];
            fn from_text(text: &str) -> Result<Self, String> {
                let digits = text.trim().replace('_', "");
                digits.parse().map_err(|_| {
                    if digits.strip_prefix('-').unwrap_or(&digits).bytes().all(|b| b.is_ascii_digit())
                        && !digits.is_empty()
                    {
                        format!("{text} is outside 0..={}", <$type>::MAX)
                    } else {
                        format!("{text:?} is not a whole number")
                    }
                })
            }
            fn to_toml(&self) -> String { self.to_string() }
            fn check(&self, range: &Self::Range) -> Result<(), String> {
                if range.contains(self) { return Ok(()); }
                Err(format!("{self} is outside {}..={}", range.start(), range.end()))
            }
            fn range_text(range: &Self::Range) -> String {
                format!("{}..={}", range.start(), range.end())
            }
        }
    )*};
}

integer_setting!(u16, u32, u64);

impl Setting for bool {
    type Range = &'static str;
    const FORMS: &'static [Form] = &[Form::Boolean, Form::Text];
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" | "on" => Ok(true),
            "false" | "off" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }
    fn to_toml(&self) -> String {
        self.to_string()
    }
    fn check(&self, _: &Self::Range) -> Result<(), String> {
        Ok(())
    }
    fn range_text(range: &Self::Range) -> String {
        (*range).to_owned()
    }
}

/// Implements [`Setting`] for a text-like type with `parse` and `Display`.
macro_rules! text_setting {
    ($($type:ty [$($form:ident),*] |$value:ident| $toml:expr;)*) => {$(
        impl Setting for $type {
            type Range = &'static str;
            const FORMS: &'static [Form] = &[$(Form::$form),*];
            fn from_text(text: &str) -> Result<Self, String> { <$type>::parse(text.trim()) }
            fn to_toml(&self) -> String { let $value = self; $toml }
            fn check(&self, _: &Self::Range) -> Result<(), String> { Ok(()) }
            fn range_text(range: &Self::Range) -> String { (*range).to_owned() }
        }
    )*};
}

text_setting! {
    Listener [Text] |value| quoted(&value.to_string());
    Cpus [Text] |value| quoted(&value.to_string());
    Networks [Text] |value| quoted(&value.to_string());
    KernelTls [Text] |value| quoted(value.text());
    HostNames [Text] |value| quoted(&value.0.join(", "));
    IoChoice [Text] |value| quoted(value.text());
    OnPanic [Text] |value| quoted(value.text());
    LogLevel [Text] |value| quoted(value.text());
    LogFormat [Text] |value| quoted(value.text());
    HlsStart [Text] |value| quoted(value.text());
    HlsContainer [Text] |value| quoted(value.text());
    UnknownDomain [Text] |value| quoted(value.text());
    DuplicatePublish [Text] |value| quoted(value.text());
    FlushPolicy [Text, Integer] |value| value.to_toml_text();
    FilePath [Text] |value| quoted(&value.to_string());
    Secret [Text] |value| quoted(if value.is_set() { "***" } else { "" });
}

/// A TOML basic string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Where a service listens, or that it does not.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Listener {
    /// Not at all.
    Off,
    /// On this address; port 0 asks the kernel.
    Address(SocketAddr),
}

impl Listener {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::Address).map_err(|_| {
            let hint = if text.parse::<u16>().is_ok() {
                format!("; did you mean \"0.0.0.0:{text}\"?")
            } else if text.starts_with(':') {
                format!("; did you mean \"0.0.0.0{text}\"?")
            } else {
                String::new()
            };
            format!("{text:?} is neither IP:PORT nor \"off\"{hint}")
        })
    }

    /// The address, if it listens.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// CPUs the workers are pinned to, in order; empty means all the process may use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cpus(pub Vec<u16>);

impl Cpus {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::default());
        }
        let bad = || format!("{text:?} is neither \"all\" nor a list like \"0-3,8\"");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u16 = first.trim().parse().map_err(|_| bad())?;
            let last: u16 = last.trim().parse().map_err(|_| bad())?;
            if first > last || last > CPU_INDEX_MAX {
                return Err(bad());
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("CPU {cpu} is named twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("all");
        }
        for (index, cpu) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{cpu}")?;
        }
        Ok(())
    }
}

/// Networks by address and prefix length; an address alone is a network of one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Networks(pub Vec<IpNet>);

impl Networks {
    fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network = |part: &str| {
            part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                format!("{part:?} is not a network like \"10.0.0.0/8\" or \"2001:db8::/32\"")
            })
        };
        Ok(Self(parts.map(network).collect::<Result<_, String>>()?))
    }

    /// True if one of them has this address; an IPv4 address in mapped form counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

/// Host names, wildcards as `*.parent`, in lower case; empty means those something has by itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNames(pub Vec<String>);

impl HostNames {
    fn parse(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for name in text.split([',', ' ']).filter(|name| !name.is_empty()) {
            let name = name.to_ascii_lowercase();
            check_host_name(&name).map_err(|message| format!("{name:?}: {message}"))?;
            if names.contains(&name) {
                return Err(format!("{name} is named twice"));
            }
            names.push(name);
        }
        Ok(Self(names))
    }
}

/// Whether a text is a host name, an address, or a wildcard.
///
/// # Errors
/// What was expected.
pub fn check_host_name(name: &str) -> Result<(), String> {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if bare.is_empty() || name.len() > 253 || !bare.chars().all(fits) {
        return Err("expected a host name, an IP address, or *. and a domain".into());
    }
    Ok(())
}

macro_rules! choice {
    ($($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal,)*
    })*) => {$(
        $(#[doc = $doc])*
        #[derive(Copy, Clone, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $name {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    other => Err(format!("{other:?} is not one of {}", [$($text),*].join(", "))),
                }
            }

            /// The word used in files and on the command line.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    )*};
}

choice! {
    /// Which kernel interface the workers use.
    IoChoice {
        /// `io_uring` where the kernel allows it, else epoll, with a warning.
        Auto = "auto",
        /// `io_uring`, or refuse to start.
        Uring = "uring",
        /// epoll.
        Epoll = "epoll",
    }
    /// What becomes of the process when a worker panics.
    OnPanic {
        /// It ends, in order, with exit code 1.
        Exit = "exit",
        /// It goes on, with another worker in the place of that one.
        Restart = "restart",
    }
    /// Whether the kernel makes TLS records.
    KernelTls {
        /// Where it can.
        Auto = "auto",
        /// Always; the server refuses to start where it cannot.
        Require = "require",
        /// Never.
        Off = "off",
    }
    /// Least severe event that is logged.
    LogLevel {
        /// Faults of the server.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// One line per connect, publish, play, close.
        Info = "info",
        /// Details of sessions.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
    /// When a stream is packaged for HLS.
    HlsStart {
        /// From the first request on.
        Viewer = "viewer",
        /// As long as somebody publishes.
        Always = "always",
    }
    /// What HLS segments are made of.
    HlsContainer {
        /// Fragmented MP4, unless the request asks for something else.
        Auto = "auto",
        /// MPEG-TS.
        Ts = "ts",
        /// Fragmented MP4.
        Fmp4 = "fmp4",
    }
    /// What a host meets that is neither a domain nor a vhost of the configuration.
    UnknownDomain {
        /// It is refused, as soon as there is one domain.
        Refuse = "refuse",
        /// It is the default vhost.
        Open = "open",
    }
    /// What happens when somebody publishes a stream that has a publisher.
    DuplicatePublish {
        /// The newcomer is refused with `NetStream.Publish.BadName`.
        Reject = "reject",
        /// The newcomer takes the stream over; subscribers stay.
        Takeover = "takeover",
    }
}

/// When a stream's subscribers are sent what has been published.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FlushPolicy {
    /// When a video message is complete; audio rides along.
    Frame,
    /// At the end of each turn in which something was published.
    Immediate,
    /// At most once per window.
    Window {
        /// Length of the window in milliseconds, 1..=2000.
        ms: u16,
    },
}

impl FlushPolicy {
    /// Longest window that can be configured, in milliseconds.
    pub const WINDOW_MS_MAX: u16 = 2_000;

    fn parse(text: &str) -> Result<Self, String> {
        match (text, text.parse::<u16>()) {
            ("frame", _) => Ok(Self::Frame),
            ("immediate", _) => Ok(Self::Immediate),
            (_, Ok(ms)) if (1..=Self::WINDOW_MS_MAX).contains(&ms) => Ok(Self::Window { ms }),
            _ => Err(format!(
                "{text:?} is neither \"frame\" nor \"immediate\" nor a window of 1..={} ms",
                Self::WINDOW_MS_MAX
            )),
        }
    }

    fn to_toml_text(self) -> String {
        match self {
            Self::Frame => quoted("frame"),
            Self::Immediate => quoted("immediate"),
            Self::Window { ms } => ms.to_string(),
        }
    }
}

/// A file or folder; empty means none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilePath(Option<PathBuf>);

impl FilePath {
    // A Result because every parser of this file has the same shape.
    #[expect(clippy::unnecessary_wraps, reason = "same shape as the other parsers")]
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| PathBuf::from(text))))
    }

    /// The path, if one is set.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(path) => write!(f, "{}", path.display()),
            None => Ok(()),
        }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Fewest characters of a secret: shorter ones can be guessed.
    pub const CHARS_MIN: usize = 16;

    fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.chars().count() < Self::CHARS_MIN {
            return Err(format!("a secret needs at least {} characters", Self::CHARS_MIN));
        }
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("a secret consists of printable ASCII characters without spaces".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The secret itself, for comparing in constant time.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "***" } else { "none" })
    }
}

/// Whether a changed key takes effect without a restart.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reload {
    /// On reload, for connections and streams that begin afterwards unless the key says otherwise.
    Live,
    /// At the next start.
    Restart,
}

/// What is known about one key.
#[derive(Debug)]
pub struct KeySpec {
    /// Its name within the section.
    pub name: &'static str,
    /// Doc comment, line by line.
    pub doc: &'static [&'static str],
    /// Unit of the value, or empty.
    pub unit: &'static str,
    /// Allowed values.
    pub range_text: fn() -> String,
    /// TOML types it may be written as.
    pub forms: &'static [Form],
    /// Whether reload changes it.
    pub reload: Reload,
}

/// A table of the file.
pub trait Section {
    /// Its keys in reference order.
    fn keys(&self) -> &'static [KeySpec];
    /// Sets one key from text and checks its range.
    ///
    /// # Errors
    /// A phrase that continues "KEY: ". The key keeps its value.
    ///
    /// # Panics
    /// If `key` is not one of [`Section::keys`].
    fn set(&mut self, key: &str, text: &str) -> Result<(), String>;
    /// The value as written in a file.
    ///
    /// # Panics
    /// If `key` is not one of [`Section::keys`].
    fn show(&self, key: &str) -> String;
}

/// Declares sections of the configuration: struct, defaults, documentation and key list from one table.
macro_rules! sections {
    ($(
        $(#[doc = $doc:literal])*
        pub struct $struct:ident {
            $($(#[doc = $key_doc:literal])*
            $key:ident: $type:ty = $default:expr, $unit:literal, $range:expr, $reload:ident;)*
        }
    )*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $struct {
            $($(#[doc = $key_doc])*
            #[doc = concat!(" Default: `", stringify!($default), "`.")]
            pub $key: $type,)*
        }

        impl Default for $struct {
            fn default() -> Self { Self { $($key: $default),* } }
        }

        impl $struct {
            /// Doc comment of the section, line by line.
            pub const DOC: &'static [&'static str] = &[$($doc),*];

            /// Keys of the section.
            pub const KEYS: &'static [$crate::config::KeySpec] = &[$($crate::config::KeySpec {
                name: stringify!($key),
                doc: &[$($key_doc),*],
                unit: $unit,
                range_text: || <$type as $crate::config::Setting>::range_text(&$range),
                forms: <$type as $crate::config::Setting>::FORMS,
                reload: $crate::config::Reload::$reload,
            }),*];

            /// Takes one key's value from another instance, secrets included.
            #[allow(dead_code, reason = "entries, unlike sections, have no key that needs a restart")]
            pub(crate) fn copy_key(&mut self, from: &Self, key: &str) {
                match key {
                    $(stringify!($key) => self.$key.clone_from(&from.$key),)*
                    other => unreachable!("unknown key {other}"),
                }
            }

            /// Whether one key's value is the same in another instance, secrets included.
            pub(crate) fn same_key(&self, other: &Self, key: &str) -> bool {
                match key {
                    $(stringify!($key) => self.$key == other.$key,)*
                    other => unreachable!("unknown key {other}"),
                }
            }
        }

        impl $crate::config::Section for $struct {
            fn keys(&self) -> &'static [$crate::config::KeySpec] { Self::KEYS }

            fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $(stringify!($key) => {
                        let value = <$type as $crate::config::Setting>::from_text(text)?;
                        $crate::config::Setting::check(&value, &$range)?;
                        self.$key = value;
                    })*
                    other => unreachable!("unknown key {other}"),
                }
                Ok(())
            }

            fn show(&self, key: &str) -> String {
                match key {
                    $(stringify!($key) => $crate::config::Setting::to_toml(&self.$key),)*
                    other => unreachable!("unknown key {other}"),
                }
            }
        }
    )*};
}
pub(crate) use sections;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_reads_ranges_and_refuses_nonsense() {
        assert_eq!(Cpus::parse("0-2,5").unwrap().0, [0, 1, 2, 5]);
        assert!(Cpus::parse("all").unwrap().0.is_empty());
        for bad in ["", "3-1", "1,1", "0-99999", "a", "1,"] {
            assert!(Cpus::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bare_port_is_refused_with_the_address_that_was_meant() {
        let error = Listener::parse("1935").unwrap_err();
        assert!(error.contains("0.0.0.0:1935"), "{error}");
        assert_eq!(Listener::parse("off"), Ok(Listener::Off));
    }

    #[test]
    fn every_setting_survives_being_written_and_read() {
        for text in ["frame", "immediate", "100", "2000"] {
            let policy = FlushPolicy::parse(text).unwrap();
            let written = policy.to_toml();
            assert_eq!(FlushPolicy::parse(written.trim_matches('"')), Ok(policy));
        }
        for bad in ["0", "2001", "Frame", "-1"] {
            assert!(FlushPolicy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::parse("0123456789abcdef").unwrap();
        assert_eq!(format!("{secret:?}{}", secret.to_toml()), "***\"***\"");
        assert!(Secret::parse("short").is_err());
    }
}
