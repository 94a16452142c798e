//! From the strings of `connect`, `publish` and `play` to a [`StreamPath`] and a [`StreamKey`].
//!
//! The rule: put a `/` between app and name, cut at the first `?` (or `#`), decode the path once,
//! split it at its last `/`. Everything else here undoes habits of clients:
//!
//! ```text
//!   app                     name       what it is                            path       key
//!   live                    ch?k=v     plain                                 live/ch    k=v
//!   live/ch?k=v             (empty)    all in the server field               live/ch    k=v
//!   live/ch?a=b             ?k=v       key field holds a query only          live/ch    a=b&k=v
//!   live/ch?k=a             b          slash inside the query, two levels    live/ch    k=a/b
//!   live?k=v                ch         query of the server, one level        live/ch    k=v
//!   a/b?vhost=x             ch         slash after a host ends the query     a/b/ch     vhost=x
//!   live...vhost...x        ch         vhost without a query                 live/ch    (empty)
//! ```
//!
//! Rows four and five cannot be told apart in general. A path of one level has no name yet, so the
//! slash begins the name; a path of two levels is complete, so the slash belongs to the query,
//! unless it follows a `vhost` or `domain` parameter, whose value cannot hold a slash.
//!
//! The vhost, first hit: parameter `vhost`, parameter `domain`, `...vhost...`, host of `tcUrl`,
//! [`DEFAULT_VHOST`]. A caller that knows the TLS server name uses it in the last case, and a
//! caller that serves a shared default vhost maps hosts it does not know to it; both by
//! [`StreamPath::with_vhost`].

use alloc::borrow::ToOwned;
use alloc::string::String;

use super::host::{TcUrl, host_of_param, normal_host};
use super::key::{decode, raw_pairs};
use super::{
    DEFAULT_INSTANCE, DEFAULT_VHOST, INPUT_BYTES_MAX, PathError, StreamKey, StreamPath,
    VHOST_MARKER, without_type_prefix,
};

/// Which stream a peer means, and what it presents for it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The stream.
    pub path: StreamPath,
    /// Who named the vhost in `path`.
    pub vhost_source: VhostSource,
    /// The parameters of app and name in reading order, then those that only `tcUrl` has. Raw.
    pub query: StreamKey,
    /// Host of `tcUrl` in normal form, also when a parameter named another vhost: the domain for
    /// questions of access.
    pub host: Option<String>,
    /// Port in `tcUrl`; `None` when absent or not a port.
    pub port: Option<u16>,
}

/// Where a vhost was found. Earlier ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VhostSource {
    /// A `vhost` or `domain` parameter, or `...vhost...` in the path.
    Explicit,
    /// The host in `tcUrl`.
    Host,
    /// Nobody named one: the path is in [`DEFAULT_VHOST`].
    Default,
}

/// Finds the stream that `connect` (`app`, `tcUrl`) and `publish` or `play` (`name`) mean.
///
/// # Errors
/// See [`PathError`]; never for a bad port, scheme or escape, which change nothing.
pub fn resolve(connect_app: &str, tc_url: Option<&str>, name: &str) -> Result<Resolved, PathError> {
    let tc_url = tc_url.unwrap_or_default();
    if [connect_app, tc_url, name].iter().any(|input| input.len() > INPUT_BYTES_MAX) {
        return Err(PathError::InputTooLong);
    }
    let tc_url = TcUrl::parse(tc_url);
    let app = if is_blank(connect_app) { tc_url.path } else { connect_app };
    let mut address = Address::join(trim(app), trim(name));
    address.add_missing(cut(tc_url.path).1);

    let query = StreamKey::new(trim(&address.query))?;
    let (host, port) = tc_url.host_and_port()?;
    let decoded = decode(&address.path);
    let levels = Levels::read(&decoded)?;
    if levels.app.is_empty() && !is_blank(app) {
        // `rtmp://host/live` with an empty key: what is there is the app.
        return Err(PathError::EmptyName);
    }
    let explicit = explicit_vhost(&query, levels.marked_vhost)?;
    let vhost_source = match (&explicit, &host) {
        (Some(_), _) => VhostSource::Explicit,
        (None, Some(_)) => VhostSource::Host,
        (None, None) => VhostSource::Default,
    };
    let vhost = explicit.as_deref().or(host.as_deref()).unwrap_or(DEFAULT_VHOST);
    let path = StreamPath::of_normal_vhost(vhost, &levels.app, levels.name)?;
    Ok(Resolved { path, vhost_source, query, host, port })
}

/// App and name put together: one path, still encoded, and one raw query.
struct Address {
    path: String,
    query: String,
}

impl Address {
    fn join(app: &str, name: &str) -> Self {
        let (path, query) = cut(app);
        let mut address = Self { path: path.to_owned(), query: query.to_owned() };
        if let Some(at) = slash_after_host(&address.query) {
            address.end_query_at(at);
        }
        if name.is_empty() {
            address.find_name_in_query();
        } else if let Some(query) = name.strip_prefix(['?', '#']) {
            address.add_query(query);
        } else if address.continues_in_name() {
            address.query.push('/');
            address.query.push_str(name);
        } else {
            let (path, query) = cut(name);
            address.path.push('/');
            address.path.push_str(path);
            address.add_query(query);
        }
        address
    }

    /// True when the slash between app and name lies inside the value of the last parameter.
    fn continues_in_name(&self) -> bool {
        let ends_with_host = self.query.rsplit('&').next().is_some_and(is_host_param);
        !self.query.is_empty() && self.level_count() >= 2 && !ends_with_host
    }

    /// `app?k=v/name` sent whole as the app: the name is behind the last slash of the first query.
    fn find_name_in_query(&mut self) {
        if self.level_count() > 1 {
            return;
        }
        if let Some(at) = cut(&self.query).0.rfind('/') {
            self.end_query_at(at);
        }
    }

    /// Moves what follows byte `at` of the query, a slash, to the path; a second `?` ends it.
    fn end_query_at(&mut self, at: usize) {
        let moved = self.query.split_off(at);
        let (path, query) = cut(&moved);
        self.path.push_str(path);
        self.add_query(query);
    }

    fn add_query(&mut self, query: &str) {
        if !query.is_empty() && !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(query);
    }

    /// Adds the parameters of `tcUrl` whose names app and name did not have. Usually none: `tcUrl`
    /// ends with the app.
    fn add_missing(&mut self, query: &str) {
        let known_bytes = self.query.len();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let is_known = |known: &str| raw_pairs(known).any(|(name, _)| name == param_name(part));
            if !self.query.get(..known_bytes).is_some_and(is_known) {
                self.add_query(part);
            }
        }
    }

    fn level_count(&self) -> usize {
        self.path.split('/').filter(|level| !level.is_empty() && *level != DEFAULT_INSTANCE).count()
    }
}

/// The levels of a decoded path, cleaned.
struct Levels<'p> {
    app: String,
    name: &'p str,
    /// What stood behind `...vhost...`.
    marked_vhost: Option<&'p str>,
}

impl<'p> Levels<'p> {
    fn read(path: &'p str) -> Result<Self, PathError> {
        let mut levels = Self { app: String::new(), name: "", marked_vhost: None };
        for raw in path.split('/') {
            let (level, vhost) = clean_level(raw)?;
            levels.marked_vhost = levels.marked_vhost.or(vhost);
            if level.is_empty() || level == DEFAULT_INSTANCE {
                continue;
            }
            let app_level = core::mem::replace(&mut levels.name, level);
            if !levels.app.is_empty() {
                levels.app.push('/');
            }
            levels.app.push_str(app_level);
        }
        Ok(levels)
    }
}

/// Takes white space, type prefixes and a vhost marker off one level.
fn clean_level(raw: &str) -> Result<(&str, Option<&str>), PathError> {
    let mut level = trim(raw);
    while let Some(rest) = without_type_prefix(level) {
        level = trim(rest);
        if level.is_empty() {
            return Err(PathError::EmptyName);
        }
    }
    match level.split_once(VHOST_MARKER) {
        Some((level, vhost)) => Ok((trim(level), Some(vhost))),
        None => Ok((level, None)),
    }
}

fn explicit_vhost(query: &StreamKey, marked: Option<&str>) -> Result<Option<String>, PathError> {
    for name in ["vhost", "domain"] {
        if let Some(value) = query.value(name)
            && let Some(host) = host_of_param(&value)?
        {
            return Ok(Some(host));
        }
    }
    marked.map_or(Ok(None), normal_host)
}

/// Where the slash is that ends a query: in the value of a parameter that holds a host.
fn slash_after_host(query: &str) -> Option<usize> {
    let mut start = 0;
    for part in query.split('&') {
        if is_host_param(part)
            && let Some(at) = part.find('/')
        {
            return Some(start + at);
        }
        start += part.len() + 1;
    }
    None
}

fn is_host_param(part: &str) -> bool {
    part.contains('=') && matches!(param_name(part), "vhost" | "domain")
}

fn param_name(part: &str) -> &str {
    part.split_once('=').map_or(part, |(name, _)| name)
}

/// Path and query; `#` begins a query like `?` does.
fn cut(text: &str) -> (&str, &str) {
    text.split_once(['?', '#']).unwrap_or((text, ""))
}

/// Devices append line ends, people paste spaces.
fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

fn is_blank(app: &str) -> bool {
    app.chars().all(|c| c.is_whitespace() || matches!(c, '\0' | '/'))
}
