//! What a request is for: the forms a target has, and the host.
//!
//! | form | who sends it | path |
//! |---|---|---|
//! | origin, `/app/stream.flv?x` | everybody | as sent |
//! | absolute, `http://host/app/stream.flv?x` | proxies; some clients always | without scheme and host |
//! | asterisk, `*` | `OPTIONS` only | `/` |
//! | authority, `host:443` | `CONNECT` only, which is refused | – |
//!
//! Spec: RFC 9112 §3.2, RFC 9110 §4.2.4 and §7.2.

use alloc::string::String;

use crate::{HttpError, Method};

/// A target taken apart. Nothing is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Of the absolute form.
    pub(crate) authority: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(method: Method, text: &'a str) -> Result<Self, HttpError> {
        if text == "*" && method == Method::Options {
            return Ok(Self { path: "/", query: "", authority: None });
        }
        if text.starts_with('/') {
            return Ok(Self::with_authority(None, text));
        }
        let (scheme, rest) = text.split_once("://").ok_or(HttpError::Target)?;
        if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(HttpError::Target);
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).ok_or(HttpError::Target)?;
        Ok(Self::with_authority(Some(authority), rest))
    }

    fn with_authority(authority: Option<&'a str>, rest: &'a str) -> Self {
        // A fragment is never sent by who keeps to the rules, and means nothing to a server.
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Self { path: if path.is_empty() { "/" } else { path }, query, authority }
    }
}

/// The host and port of `text` in lower case. `None` when it is none; user names are refused too.
pub(crate) fn host(text: &str) -> Option<String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            let address = rest.get(..end)?;
            address.parse::<core::net::Ipv6Addr>().ok()?;
            text.split_at_checked(end + 2)?
        }
        None => text.split_at_checked(text.find(':').unwrap_or(text.len()))?,
    };
    let is_literal = name.starts_with('[');
    if name.is_empty() || !(is_literal || name.bytes().all(is_name_byte)) {
        return None;
    }
    let mut host = name.to_ascii_lowercase();
    if !port.is_empty() {
        let digits = port.strip_prefix(':')?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        // The grammar lets a port be empty, which means the usual one.
        if !digits.is_empty() {
            if !is_number || digits.parse::<u16>().is_err() {
                return None;
            }
            host.push_str(port);
        }
    }
    Some(host)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: Method, text: &str) -> Option<(&str, &str, Option<&str>)> {
        Target::parse(method, text).ok().map(|target| (target.path, target.query, target.authority))
    }

    #[test]
    fn each_form_is_reduced_to_path_and_query() {
        let get = |text| parsed(Method::Get, text);
        assert_eq!(get("/"), Some(("/", "", None)));
        assert_eq!(get("/a/b.flv?x=1?y&z=/#f?g"), Some(("/a/b.flv", "x=1?y&z=/", None)));
        assert_eq!(get("/a#f?g"), Some(("/a", "", None)));
        assert_eq!(get("//a/b"), Some(("//a/b", "", None)));
        assert_eq!(get("/a%20b?"), Some(("/a%20b", "", None)));
        assert_eq!(get("http://h:80/a?b"), Some(("/a", "b", Some("h:80"))));
        assert_eq!(get("HTTPS://h"), Some(("/", "", Some("h"))));
        assert_eq!(get("ws://h?b"), Some(("/", "b", Some("h"))));
        assert_eq!(get("/http://h/"), Some(("/http://h/", "", None)));
        assert_eq!(parsed(Method::Options, "*"), Some(("/", "", None)));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["*", "a", "a/b", "h:443", "http:/h", "ftp://h/", "?a", "#", "*/", "://h"] {
            assert_eq!(parsed(Method::Get, text), None, "{text}");
        }
        assert_eq!(parsed(Method::Options, "**"), None);
    }

    #[test]
    fn hosts_are_lower_case_with_their_port() {
        for (text, expected) in [
            ("Live.Example.COM", "live.example.com"),
            ("a:8080", "a:8080"),
            ("a:", "a"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
            ("[::1]", "[::1]"),
            ("under_score", "under_score"),
        ] {
            assert_eq!(host(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "", ":80", "a b", "a/b", "user@a", "a:b", "a:+1", "a:65536", "a:1:2", "[::1", "[]",
            "[a]", "[::1]x", "::1", "ä", "a\\b", "a?b", "a,b:c", "[::1]:-1", "a\"",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }
}
