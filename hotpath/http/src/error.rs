//! Why a request is refused, and the status that says so.
//!
//! Every [`HttpError`] ends the connection: where a message ends is unknown once it was not
//! understood. Those marked * are where implementations disagree, and what smuggling lives on.
//!
//! | status | errors |
//! |---|---|
//! | 400 | [`LineEnd`]*, [`ControlCharacter`], [`RequestLine`], [`Target`], [`Header`]*, [`FoldedHeader`]*, [`Host`], [`BodyLength`]*, [`Chunk`]*, [`BadUpgrade`] |
//! | 413 | [`BodyTooLarge`] |
//! | 414 | [`UriTooLong`] |
//! | 426 | [`UpgradeVersion`] |
//! | 431 | [`HeadTooLarge`] |
//! | 501 | [`TransferCoding`] |
//! | 505 | [`Version`] |
//!
//! [`LineEnd`]: HttpError::LineEnd
//! [`ControlCharacter`]: HttpError::ControlCharacter
//! [`RequestLine`]: HttpError::RequestLine
//! [`Target`]: HttpError::Target
//! [`Header`]: HttpError::Header
//! [`FoldedHeader`]: HttpError::FoldedHeader
//! [`Host`]: HttpError::Host
//! [`BodyLength`]: HttpError::BodyLength
//! [`Chunk`]: HttpError::Chunk
//! [`BadUpgrade`]: HttpError::BadUpgrade
//! [`BodyTooLarge`]: HttpError::BodyTooLarge
//! [`UriTooLong`]: HttpError::UriTooLong
//! [`UpgradeVersion`]: HttpError::UpgradeVersion
//! [`HeadTooLarge`]: HttpError::HeadTooLarge
//! [`TransferCoding`]: HttpError::TransferCoding
//! [`Version`]: HttpError::Version

use alloc::vec::Vec;
use core::fmt;

use crate::response::{Head, Length};

/// Why a peer's request cannot be accepted. The connection is to be closed after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// A line does not end with CR LF, or one of the two stands alone.
    LineEnd,
    /// A control character in the head.
    ControlCharacter,
    /// The first line is not `METHOD SP TARGET SP VERSION`.
    RequestLine,
    /// The target is in none of the forms allowed for its method.
    Target,
    /// A field has no valid name and value; white space before the colon, for instance.
    Header,
    /// A field is continued on the next line, which is obsolete and read differently everywhere.
    FoldedHeader,
    /// `Host` is missing, repeated or no host.
    Host,
    /// The length of the body is not known for sure: malformed, given twice or in two ways.
    BodyLength,
    /// A chunked body does not follow its grammar.
    Chunk,
    /// Asks for WebSocket but not as the protocol demands.
    BadUpgrade,
    /// The body is longer than allowed.
    BodyTooLarge,
    /// The request line alone is longer than a head may be.
    UriTooLong,
    /// Asks for a version of WebSocket other than 13.
    UpgradeVersion,
    /// The head is longer than allowed, or has too many fields.
    HeadTooLarge,
    /// The body is coded in a way that is not spoken here.
    TransferCoding,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    Version,
}

impl HttpError {
    /// All errors, for tables of metrics.
    pub const ALL: [Self; 16] = [
        Self::LineEnd,
        Self::ControlCharacter,
        Self::RequestLine,
        Self::Target,
        Self::Header,
        Self::FoldedHeader,
        Self::Host,
        Self::BodyLength,
        Self::Chunk,
        Self::BadUpgrade,
        Self::BodyTooLarge,
        Self::UriTooLong,
        Self::UpgradeVersion,
        Self::HeadTooLarge,
        Self::TransferCoding,
        Self::Version,
    ];

    /// Short name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::LineEnd => "line_end",
            Self::ControlCharacter => "control_character",
            Self::RequestLine => "request_line",
            Self::Target => "target",
            Self::Header => "header",
            Self::FoldedHeader => "folded_header",
            Self::Host => "host",
            Self::BodyLength => "body_length",
            Self::Chunk => "chunk",
            Self::BadUpgrade => "bad_upgrade",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UpgradeVersion => "upgrade_version",
            Self::HeadTooLarge => "head_too_large",
            Self::TransferCoding => "transfer_coding",
            Self::Version => "version",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> Status {
        Status(match self {
            Self::LineEnd
            | Self::ControlCharacter
            | Self::RequestLine
            | Self::Target
            | Self::Header
            | Self::FoldedHeader
            | Self::Host
            | Self::BodyLength
            | Self::Chunk
            | Self::BadUpgrade => 400,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UpgradeVersion => 426,
            Self::HeadTooLarge => 431,
            Self::TransferCoding => 501,
            Self::Version => 505,
        })
    }

    /// Writes the whole answer: head, and the error as a line of text. It says that the connection
    /// closes, and to who asks for another WebSocket version, which one is spoken.
    pub fn write_answer(&self, out: &mut Vec<u8>) {
        let text = self.message();
        let upgrade = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        let head = Head {
            status: self.status().code(),
            content_type: "text/plain; charset=utf-8",
            length: Length::Known(text.len() as u64 + 1),
            keep_alive: false,
            cache_control: "no-store",
            extra: if *self == Self::UpgradeVersion { &upgrade } else { &[] },
        };
        head.write(out);
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }

    fn message(self) -> &'static str {
        match self {
            Self::LineEnd => "lines end with CR LF",
            Self::ControlCharacter => "control character in the request's head",
            Self::RequestLine => "not a request line",
            Self::Target => "request target in no form allowed for its method",
            Self::Header => "malformed header field",
            Self::FoldedHeader => "folded header field",
            Self::Host => "Host header missing, repeated or malformed",
            Self::BodyLength => "length of the request's body is ambiguous",
            Self::Chunk => "malformed chunked body",
            Self::BadUpgrade => "not a WebSocket handshake",
            Self::BodyTooLarge => "request body too large",
            Self::UriTooLong => "request line too long",
            Self::UpgradeVersion => "WebSocket version 13 only",
            Self::HeadTooLarge => "request head too large",
            Self::TransferCoding => "transfer coding not supported",
            Self::Version => "HTTP/1.1 and HTTP/1.0 only",
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl core::error::Error for HttpError {}

/// Status code of an answer (RFC 9110 §15).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Status(pub u16);

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        self.0
    }

    /// The phrase behind it; empty for codes that are not used here.
    pub fn reason(self) -> &'static str {
        match self.0 {
            101 => "Switching Protocols",
            200 => "OK",
            204 => "No Content",
            206 => "Partial Content",
            301 => "Moved Permanently",
            302 => "Found",
            304 => "Not Modified",
            307 => "Temporary Redirect",
            308 => "Permanent Redirect",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            406 => "Not Acceptable",
            408 => "Request Timeout",
            409 => "Conflict",
            410 => "Gone",
            412 => "Precondition Failed",
            413 => "Content Too Large",
            414 => "URI Too Long",
            415 => "Unsupported Media Type",
            416 => "Range Not Satisfiable",
            421 => "Misdirected Request",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

impl From<Status> for u16 {
    fn from(status: Status) -> Self {
        status.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::string::String;

    use super::*;

    #[test]
    fn every_error_has_its_own_label_a_known_status_and_an_answer_that_closes() {
        let labels = HttpError::ALL.iter().map(HttpError::label).collect::<HashSet<_>>();
        assert_eq!(labels.len(), HttpError::ALL.len());
        for error in HttpError::ALL {
            assert_ne!(error.status().reason(), "", "{error:?}");
            let mut out = Vec::new();
            error.write_answer(&mut out);
            let text = String::from_utf8(out).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&std::format!("HTTP/1.1 {}\r\n", error.status())), "{head}");
            assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
            assert!(head.contains(&std::format!("\r\nContent-Length: {}\r\n", body.len())));
        }
    }

    #[test]
    fn who_asks_for_another_websocket_version_is_told_which_one_is_spoken() {
        let mut out = Vec::new();
        HttpError::UpgradeVersion.write_answer(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    }
}
