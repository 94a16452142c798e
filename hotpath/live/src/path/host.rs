//! Hosts in their normal form, and what a `tcUrl` says beside the app.
//!
//! Lenient about everything that does not change which stream is meant: scheme, user and password,
//! port, quotes around the URL. Strict about the host, because it becomes the vhost.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use core::net::Ipv6Addr;

use super::{PathError, VHOST_CHARS_MAX, is_forbidden};

/// A `tcUrl` taken apart. Texts are borrowed and still encoded; a missing part is empty.
#[derive(Clone, Copy, Default)]
pub(super) struct TcUrl<'u> {
    /// Host and port, without user and password.
    pub(super) authority: &'u str,
    /// What follows the authority, with its query.
    pub(super) path: &'u str,
}

impl<'u> TcUrl<'u> {
    /// Never fails: a text without `://` has no authority, it is a bare path.
    pub(super) fn parse(text: &'u str) -> Self {
        // Some clients send the quotes of their configuration file along.
        let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\0' | '\'' | '"'));
        let Some((_, rest)) = text.split_once("://") else {
            return Self { authority: "", path: text };
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Self { authority, path }
    }

    /// The host in normal form, and the port if there is a sound one.
    pub(super) fn host_and_port(self) -> Result<(Option<String>, Option<u16>), PathError> {
        let (host, port) = split_port(self.authority);
        Ok((normal_host(host)?, port.and_then(|digits| digits.parse().ok())))
    }
}

/// Cuts the port off. A bare IPv6 address (more than one colon, no brackets) has none.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(bracket) = authority.rfind(']') {
        let (host, rest) = authority.split_at(bracket + 1);
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The host of a vhost parameter: a port or a slash after it means nothing.
pub(super) fn host_of_param(value: &str) -> Result<Option<String>, PathError> {
    let host = value.split_once('/').map_or(value, |(host, _)| host);
    normal_host(split_port(host.trim()).0)
}

/// Lower case, no final dot; IPv6 in its shortest form without brackets and zone. `None` if empty.
pub(super) fn normal_host(host: &str) -> Result<Option<String>, PathError> {
    let host = host.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if let Some(inner) = host.strip_prefix('[') {
        return ipv6(inner.strip_suffix(']').ok_or(PathError::BadHost)?).map(Some);
    }
    if host.contains(':') {
        return ipv6(host).map(Some);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Ok(None);
    }
    let host = if host.is_ascii() { host.to_ascii_lowercase() } else { host.to_lowercase() };
    if host.chars().count() > VHOST_CHARS_MAX {
        return Err(PathError::VhostTooLong);
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| matches!(c, '-' | '_') || c.is_ascii_alphanumeric() || is_international(c))
    };
    if host.split('.').all(is_label) { Ok(Some(host)) } else { Err(PathError::BadHost) }
}

/// Host names outside ASCII are taken as they come: some players do not convert them.
fn is_international(c: char) -> bool {
    !c.is_ascii() && !c.is_whitespace() && !is_forbidden(c)
}

fn ipv6(text: &str) -> Result<String, PathError> {
    // The zone (`%eth0`) is a matter of the client's own machine.
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.to_owned().parse::<Ipv6Addr>().map_or(Err(PathError::BadHost), |a| Ok(a.to_string()))
}
