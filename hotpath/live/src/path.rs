//! Which stream a peer means: `vhost/app/name`, and the secret it presents with it.
//!
//! Clients put the same address into the two strings of RTMP (`connect.app`, and the name of
//! `publish` or `play`) in many ways; [`resolve`] turns every way into the same [`StreamPath`].
//! Never panics on what a peer sent, never allocates more than a small multiple of the input
//! (inputs over [`INPUT_BYTES_MAX`] are refused unread), never prints a secret. Called once per
//! publish or play by the connection, and by the API for names typed by people.
//!
//! ```text
//!   rtmp://user:pw@Push.Example:1935/live/room%201?auth_key=…
//!                  └── vhost ──┘     └app┘ └name─┘ └─ StreamKey ─┘      path: push.example/live/room 1
//! ```
//!
//! A `StreamPath` is public identity: it may be logged, and **it is safe as a relative file path**.
//! No segment is empty, `.` or `..`; none holds a control character, a line or direction mark or a
//! backslash, nor starts or ends with white space; the name and the vhost hold no `/`. What is not
//! promised is the length a file system takes (255 bytes on most, a name may have 1,024).

mod host;
mod key;
mod resolve;

pub use key::StreamKey;
pub use resolve::{Resolved, VhostSource, resolve};

use alloc::string::String;
use alloc::sync::Arc;
use core::cmp::Ordering;
use core::fmt::{self, Write as _};
use core::hash::{Hash, Hasher};
use core::str::FromStr;

/// The vhost of a peer that named none: neither a parameter nor a host in `tcUrl`.
pub const DEFAULT_VHOST: &str = "default";
/// Longest vhost, in characters.
pub const VHOST_CHARS_MAX: usize = 256;
/// Longest app, all levels together, in characters.
pub const APP_CHARS_MAX: usize = 256;
/// Longest stream name, in characters.
pub const NAME_CHARS_MAX: usize = 256;
/// Longest query a peer may present, in bytes.
pub const KEY_BYTES_MAX: usize = 8 * 1024;
/// Longest `app`, name or `tcUrl` that is looked at, in bytes.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;

// The offsets in `StreamPath` are u16: three parts of up to four bytes a character, two slashes.
const _: () = assert!(4 * (VHOST_CHARS_MAX + APP_CHARS_MAX + NAME_CHARS_MAX) + 2 <= 0xFFFF);

/// Live streams have no file type, so the prefixes players put before names mean nothing.
const TYPE_PREFIXES: [&str; 2] = ["mp4:", "flv:"];
/// The name of an application's default instance; the same application without it.
const DEFAULT_INSTANCE: &str = "_definst_";
/// Puts a vhost into an app or name for devices that cannot send a query.
const VHOST_MARKER: &str = "...vhost...";

/// Identity of a stream: vhost, app (one or more levels) and name. Cheap to clone and to hash.
///
/// Orders by vhost, then app, then name. Upper and lower case differ, except in the vhost, which is
/// kept in lower case.
#[derive(Clone)]
pub struct StreamPath {
    /// `vhost/app/name`. Neither vhost nor name holds a slash, so the text alone is the identity.
    text: Arc<str>,
    app_start: u16,
    name_start: u16,
}

impl StreamPath {
    /// Builds a path of parts taken literally: nothing is decoded, stripped or trimmed.
    ///
    /// # Errors
    /// Refuses what [`resolve`] could never return, so that every path can be reached by a client:
    /// too long or empty parts, `.` and `..`, control characters, backslashes, white space at the
    /// ends, a `mp4:` or `flv:` prefix, a `_definst_` level, a vhost that is not in its normal form.
    pub fn new(vhost: &str, app: &str, name: &str) -> Result<Self, PathError> {
        if host::normal_host(vhost)?.as_deref() != Some(vhost) {
            return Err(PathError::BadHost);
        }
        Self::of_normal_vhost(vhost, app, name)
    }

    /// Reads `app/name`, the form used by the API and the command line, within a vhost.
    ///
    /// # Errors
    /// As [`StreamPath::new`]; [`PathError::EmptyApp`] when there is no slash.
    pub fn in_vhost(vhost: &str, app_and_name: &str) -> Result<Self, PathError> {
        let (app, name) = app_and_name.rsplit_once('/').ok_or(PathError::EmptyApp)?;
        Self::new(vhost, app, name)
    }

    /// The same app and name in another vhost: for aliases, and for hosts that the configuration
    /// does not know and that therefore share the default vhost.
    ///
    /// # Errors
    /// [`PathError::BadHost`] or [`PathError::VhostTooLong`] when `vhost` is not in normal form.
    pub fn with_vhost(&self, vhost: &str) -> Result<Self, PathError> {
        Self::new(vhost, self.app(), self.name())
    }

    /// Host name in lower case without port, or an address; IPv6 without brackets.
    pub fn vhost(&self) -> &str {
        self.text.get(..usize::from(self.app_start).saturating_sub(1)).unwrap_or_default()
    }

    /// The app, its levels joined by single slashes.
    pub fn app(&self) -> &str {
        let end = usize::from(self.name_start).saturating_sub(1);
        self.text.get(usize::from(self.app_start)..end).unwrap_or_default()
    }

    /// The stream's name within its app.
    pub fn name(&self) -> &str {
        self.text.get(usize::from(self.name_start)..).unwrap_or_default()
    }

    /// `vhost/app/name`, as [`Display`](fmt::Display) prints it and [`FromStr`] reads it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `app/name` as it is written in a URL: what a client must send to reach this path.
    pub fn url_path(&self) -> UrlPath<'_> {
        UrlPath { path: self }
    }

    /// As `new`, for a vhost that `normal_host` produced.
    fn of_normal_vhost(vhost: &str, app: &str, name: &str) -> Result<Self, PathError> {
        if app.is_empty() {
            return Err(PathError::EmptyApp);
        }
        if name.is_empty() {
            return Err(PathError::EmptyName);
        }
        if app.chars().count() > APP_CHARS_MAX {
            return Err(PathError::AppTooLong);
        }
        if name.chars().count() > NAME_CHARS_MAX {
            return Err(PathError::NameTooLong);
        }
        for segment in app.split('/') {
            check_segment(segment)?;
        }
        check_segment(name)?;
        if name.contains('/') {
            return Err(PathError::Reserved);
        }
        let mut text = String::with_capacity(vhost.len() + app.len() + name.len() + 2);
        for (part, end) in [(vhost, "/"), (app, "/"), (name, "")] {
            text.push_str(part);
            text.push_str(end);
        }
        // Cannot fail: the const assertion above bounds all three parts together.
        let offset = |at: usize| u16::try_from(at).map_err(|_| PathError::NameTooLong);
        Ok(Self {
            app_start: offset(vhost.len() + 1)?,
            name_start: offset(vhost.len() + app.len() + 2)?,
            text: Arc::from(text),
        })
    }
}

/// A segment as it may stand in a path; the guarantee of this file's head, one line per clause.
fn check_segment(segment: &str) -> Result<(), PathError> {
    if segment == "." || segment == ".." {
        return Err(PathError::DotSegment);
    }
    if segment.chars().any(is_forbidden) {
        return Err(PathError::ForbiddenCharacter);
    }
    if segment.is_empty()
        || segment.trim() != segment
        || segment == DEFAULT_INSTANCE
        || segment.contains(VHOST_MARKER)
        || without_type_prefix(segment).is_some()
    {
        return Err(PathError::Reserved);
    }
    Ok(())
}

/// Control characters, and those that let a name rewrite the line it is printed on; backslash,
/// which some programs take for a slash.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || c == '\\'
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// The rest of a segment that starts with a type prefix.
fn without_type_prefix(segment: &str) -> Option<&str> {
    TYPE_PREFIXES.iter().find_map(|prefix| {
        let (head, rest) = segment.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some(rest)
    })
}

impl PartialEq for StreamPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for StreamPath {}

impl Hash for StreamPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for StreamPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StreamPath {
    fn cmp(&self, other: &Self) -> Ordering {
        let parts = |path: &Self| -> (usize, usize) {
            (usize::from(path.app_start), usize::from(path.name_start))
        };
        // Equal texts have equal offsets, so this agrees with `Eq`.
        debug_assert!(self.text != other.text || parts(self) == parts(other));
        (self.vhost(), self.app(), self.name()).cmp(&(other.vhost(), other.app(), other.name()))
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamPath({:?})", &*self.text)
    }
}

impl FromStr for StreamPath {
    type Err = PathError;

    /// Reads `vhost/app/name`, the inverse of [`Display`](fmt::Display).
    fn from_str(text: &str) -> Result<Self, PathError> {
        let (vhost, rest) = text.split_once('/').ok_or(PathError::EmptyApp)?;
        Self::in_vhost(vhost, rest)
    }
}

/// Prints `app/name` with everything but unreserved characters percent-encoded.
#[derive(Clone, Copy, Debug)]
pub struct UrlPath<'p> {
    path: &'p StreamPath,
}

impl fmt::Display for UrlPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, self.path.app())?;
        f.write_char('/')?;
        write_escaped(f, self.path.name())
    }
}

fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~=".contains(&byte) {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// Why an address names no stream. Holds nothing the peer sent, so it may be logged and sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathError {
    /// The address has no app: `rtmp://host/name`, or nothing at all.
    EmptyApp,
    /// The address ends after the app: `rtmp://host/app` with an empty stream key.
    EmptyName,
    /// Over [`VHOST_CHARS_MAX`].
    VhostTooLong,
    /// Over [`APP_CHARS_MAX`].
    AppTooLong,
    /// Over [`NAME_CHARS_MAX`].
    NameTooLong,
    /// Over [`KEY_BYTES_MAX`].
    KeyTooLong,
    /// Over [`INPUT_BYTES_MAX`].
    InputTooLong,
    /// A host or vhost that is neither a host name nor an address.
    BadHost,
    /// `.` or `..` between two slashes.
    DotSegment,
    /// A control character, a line or direction mark, or a backslash.
    ForbiddenCharacter,
    /// Something no client could ask for; only for names from the API and the configuration.
    Reserved,
}

impl PathError {
    /// A short fixed word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::EmptyApp => "empty_app",
            Self::EmptyName => "empty_name",
            Self::VhostTooLong => "vhost_too_long",
            Self::AppTooLong => "app_too_long",
            Self::NameTooLong => "name_too_long",
            Self::KeyTooLong => "key_too_long",
            Self::InputTooLong => "input_too_long",
            Self::BadHost => "bad_host",
            Self::DotSegment => "dot_segment",
            Self::ForbiddenCharacter => "forbidden_character",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyApp => "the address has no app; it should read rtmp://host/app/name",
            Self::EmptyName => {
                "the address has no stream name; it should read rtmp://host/app/name"
            }
            Self::VhostTooLong => "the vhost is longer than 256 characters",
            Self::AppTooLong => "the app is longer than 256 characters",
            Self::NameTooLong => "the stream name is longer than 256 characters",
            Self::KeyTooLong => "the query is longer than 8192 bytes",
            Self::InputTooLong => "the address is longer than 16384 bytes",
            Self::BadHost => "the host is neither a host name nor an address",
            Self::DotSegment => "the address has a level named . or ..",
            Self::ForbiddenCharacter => "the address has a control character or a backslash",
            Self::Reserved => "no client could ask for this name",
        })
    }
}

impl core::error::Error for PathError {}
