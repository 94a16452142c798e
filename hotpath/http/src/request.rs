//! One request, understood and checked, owned.
//!
//! [`parse`] is called by the reader with a whole head whose lines were found by `scan`. It never
//! sees bytes of a body; it says how long the body is.
//!
//! Spec: RFC 9112 §3, §6.3, §9.3; RFC 9110 §7.2, §14.1.2.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use core::fmt::{self, Write as _};

use crate::body::Body;
use crate::fields::{self, Fields};
use crate::target::{self, Target};
use crate::websocket::handshake;
use crate::{HttpError, Limits};

/// What is asked of the target. Methods are compared with case, as the specification demands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`: the same without the body.
    Head,
    /// `OPTIONS`: what a browser asks first when a page wants more than a simple request.
    Options,
    /// Anything else, whatever it means.
    Other,
}

/// A request. Its body, if it had one, was thrown away.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Path as sent, begins with `/`. Not decoded; without host, query and fragment. `/` for
    /// `OPTIONS *`.
    pub path: String,
    /// Query as sent, without `?`. May be empty.
    pub query: String,
    /// Host in lower case, with the port if one was given: of an absolute target, else of `Host`.
    pub host: Option<String>,
    /// HTTP/1.1, not 1.0.
    pub is_http_1_1: bool,
    /// The peer wants to go on with this connection behind the answer.
    pub keep_alive: bool,
    /// The peer wants to go on with WebSocket, and asked properly.
    pub upgrade: Option<WebSocketUpgrade>,
    /// `X-Forwarded-For`, all of them as one list. To be believed of trusted proxies only.
    pub forwarded_for: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Referer`.
    pub referer: Option<String>,
    /// `Origin`.
    pub origin: Option<String>,
    /// `Range`, if it is a single one of bytes. Others may be ignored, and are.
    pub range: Option<ByteRange>,
    /// `If-None-Match`, all of them as one list.
    pub if_none_match: Option<String>,
    /// The answer may be coded with gzip.
    pub accepts_gzip: bool,
    /// `Access-Control-Request-Headers`, all of them as one list.
    pub request_headers: Option<String>,
}

/// A valid request for WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSocketUpgrade {
    /// `Sec-WebSocket-Key`: base64 of 16 bytes.
    pub key: String,
    /// The first of the protocols the peer offered. Browsers close when none of theirs is chosen.
    pub protocol: Option<String>,
}

/// A part of a body that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// From `first` up to and including `last`.
    Within {
        /// First byte, from 0.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// From this byte to the end.
    From(u64),
    /// So many bytes at the end.
    Last(u64),
}

impl ByteRange {
    /// The bytes of a body of `length` this means, as start and end. `None` when there are none of
    /// them: the answer is 416.
    pub fn within(self, length: u64) -> Option<core::ops::Range<u64>> {
        let range = match self {
            Self::Within { first, last } => first..last.saturating_add(1).min(length),
            Self::From(first) => first..length,
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (range.start < range.end).then_some(range)
    }

    fn write(self, out: &mut String) {
        // Writing to a string cannot fail.
        let _infallible = match self {
            Self::Within { first, last } => write!(out, "Range: bytes={first}-{last}\r\n"),
            Self::From(first) => write!(out, "Range: bytes={first}-\r\n"),
            Self::Last(count) => write!(out, "Range: bytes=-{count}\r\n"),
        };
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (unit, range) = value.split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let range = range.trim_ascii();
        let dash = range.iter().position(|byte| *byte == b'-')?;
        match (range.get(..dash)?, range.get(dash + 1..)?) {
            (b"", count) => fields::decimal(count).map(Self::Last),
            (first, b"") => fields::decimal(first).map(Self::From),
            (first, last) => {
                let (first, last) = (fields::decimal(first)?, fields::decimal(last)?);
                (first <= last).then_some(Self::Within { first, last })
            }
        }
    }
}

impl Request {
    /// The head of a request of which a reader makes the same again; `None` where it takes more than that:
    /// another method than GET and HEAD, or WebSocket.
    pub fn to_head(&self) -> Option<String> {
        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options | Method::Other => return None,
        };
        if self.upgrade.is_some() {
            return None;
        }
        let mark = if self.query.is_empty() { "" } else { "?" };
        let version = if self.is_http_1_1 { "1.1" } else { "1.0" };
        let mut head = format!("{method} {}{mark}{} HTTP/{version}\r\n", self.path, self.query);
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        };
        match (&self.host, self.is_http_1_1) {
            (Some(host), _) => field("Host", host),
            (None, true) => field("Host", ""),
            (None, false) => {}
        }
        match (self.keep_alive, self.is_http_1_1) {
            (false, true) => field("Connection", "close"),
            (true, false) => field("Connection", "keep-alive"),
            _ => {}
        }
        let texts = [
            ("X-Forwarded-For", &self.forwarded_for),
            ("User-Agent", &self.user_agent),
            ("Referer", &self.referer),
            ("Origin", &self.origin),
            ("If-None-Match", &self.if_none_match),
            ("Access-Control-Request-Headers", &self.request_headers),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                field(name, text);
            }
        }
        if self.accepts_gzip {
            field("Accept-Encoding", "gzip");
        }
        if let Some(range) = self.range {
            range.write(&mut head);
        }
        head.push_str("\r\n");
        Some(head)
    }
}

/// The query of a viewer may carry a signature, so it is not shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("query_bytes", &self.query.len())
            .field("is_http_1_1", &self.is_http_1_1)
            .field("keep_alive", &self.keep_alive)
            .field("upgrade", &self.upgrade.is_some())
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// Parses a whole head with `headers` fields.
pub(crate) fn parse(
    limits: &Limits,
    head: &[u8],
    headers: usize,
) -> Result<(Request, Body), HttpError> {
    let mut headers = vec![httparse::EMPTY_HEADER; headers];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(bytes)) if bytes == head.len() => {}
        Ok(_) => return Err(HttpError::RequestLine),
        Err(error) => return Err(named(error, head)),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HttpError::RequestLine);
    };
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    };
    let is_http_1_1 = version == 1;
    let fields = Fields(parsed.headers);
    let target = Target::parse(method, target)?;
    let host = host(fields, &target, is_http_1_1)?;
    let body = Body::of(limits, fields, is_http_1_1)?;
    let upgrade = handshake::upgrade(method, is_http_1_1, !body.is_empty(), fields)?;
    let request = Request {
        method,
        path: target.path.into(),
        query: target.query.into(),
        host,
        is_http_1_1,
        keep_alive: keep_alive(fields, is_http_1_1),
        upgrade,
        forwarded_for: fields.joined("x-forwarded-for"),
        user_agent: fields.text("user-agent"),
        referer: fields.text("referer"),
        origin: fields.text("origin"),
        range: fields.only("range").ok().flatten().and_then(ByteRange::parse),
        if_none_match: fields.joined("if-none-match"),
        accepts_gzip: fields::accepts_gzip(fields),
        request_headers: fields.joined("access-control-request-headers"),
    };
    Ok((request, body))
}

/// The parser's words in ours.
fn named(error: httparse::Error, head: &[u8]) -> HttpError {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => HttpError::Header,
        httparse::Error::TooManyHeaders => HttpError::HeadTooLarge,
        httparse::Error::Version if has_other_version(head) => HttpError::Version,
        _ => HttpError::RequestLine,
    }
}

/// True when the request line ends with a version, which the parser did not know.
fn has_other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn host(
    fields: Fields<'_>,
    target: &Target<'_>,
    is_http_1_1: bool,
) -> Result<Option<String>, HttpError> {
    let field = fields.only("host").map_err(|_| HttpError::Host)?;
    if field.is_none() && is_http_1_1 {
        return Err(HttpError::Host);
    }
    // An empty field is legal: the target has no authority.
    let host = match field.map(<[u8]>::trim_ascii) {
        None | Some(b"") => None,
        Some(value) => {
            let text = str::from_utf8(value).map_err(|_| HttpError::Host)?;
            Some(target::host(text).ok_or(HttpError::Host)?)
        }
    };
    match target.authority {
        Some(authority) => target::host(authority).map(Some).ok_or(HttpError::Target),
        None => Ok(host),
    }
}

fn keep_alive(fields: Fields<'_>, is_http_1_1: bool) -> bool {
    !fields.has_element("connection", "close")
        && (is_http_1_1 || fields.has_element("connection", "keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_of_bytes_is_understood() {
        let range = |text: &str| ByteRange::parse(text.as_bytes());
        assert_eq!(range("bytes=0-0"), Some(ByteRange::Within { first: 0, last: 0 }));
        assert_eq!(range("Bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(range("bytes= -7"), Some(ByteRange::Last(7)));
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=2-1",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=a-b",
            "bytes=0-1-2",
            "bytes=+1-2",
            "bytes=18446744073709551616-",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_is_cut_to_the_body() {
        assert_eq!(ByteRange::Within { first: 2, last: 4 }.within(10), Some(2..5));
        assert_eq!(ByteRange::Within { first: 2, last: u64::MAX }.within(10), Some(2..10));
        assert_eq!(ByteRange::From(9).within(10), Some(9..10));
        assert_eq!(ByteRange::Last(3).within(10), Some(7..10));
        assert_eq!(ByteRange::Last(30).within(10), Some(0..10));
        for range in [ByteRange::From(10), ByteRange::Last(0), ByteRange::From(u64::MAX)] {
            assert_eq!(range.within(10), None);
        }
        assert_eq!(ByteRange::Last(1).within(0), None);
    }
}
