//! Heads of answers.
//!
//! What every answer of a server for viewers has is written here once: that any page may read it
//! (CORS), whether the connection goes on, how long the body is. Values that come from elsewhere
//! cannot end a line: one with a control character is left out whole.
//!
//! Spec: RFC 9112 §4, §6.3, §9.6; Fetch §3.2 for the two `Access-Control` fields.

use alloc::vec::Vec;

use crate::Status;
use crate::fields::is_token;

/// How the body of an answer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// After so many bytes.
    Known(u64),
    /// In chunks, the last of which is empty. Not for peers of HTTP/1.0.
    Chunked,
    /// With the connection, which is therefore not kept whatever [`Head::keep_alive`] says.
    UntilClose,
    /// There is none and its length is not said: 101, 204, 304.
    None,
}

/// Head of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Status code.
    pub status: u16,
    /// `Content-Type`; empty for none.
    pub content_type: &'a str,
    /// Length of the body. To `HEAD`, that of the body which is not sent.
    pub length: Length,
    /// The connection goes on behind the answer.
    pub keep_alive: bool,
    /// `Cache-Control`; empty for none.
    pub cache_control: &'a str,
    /// Further fields by name and value. Left out: names that are none, values with control
    /// characters.
    pub extra: &'a [(&'a str, &'a str)],
}

impl Head<'_> {
    /// Writes the head with the empty line behind it to the end of `out`.
    ///
    /// # Panics
    /// When the status has not three digits: a mistake of the caller, not of a peer.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_status(self.status, out);
        field("Access-Control-Allow-Origin", "*", out);
        field("Access-Control-Expose-Headers", "*", out);
        field("Connection", self.connection(), out);
        if !self.content_type.is_empty() {
            field("Content-Type", self.content_type, out);
        }
        if let Length::Known(bytes) = self.length {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(bytes, out);
            out.extend_from_slice(b"\r\n");
        }
        if self.length == Length::Chunked {
            field("Transfer-Encoding", "chunked", out);
        }
        if !self.cache_control.is_empty() {
            field("Cache-Control", self.cache_control, out);
        }
        for (name, value) in self.extra {
            field(name, value, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn connection(&self) -> &'static str {
        match (self.status, self.length) {
            (101, _) => "Upgrade",
            (_, Length::UntilClose) => "close",
            _ if self.keep_alive => "keep-alive",
            _ => "close",
        }
    }
}

/// Writes the status line and who answers.
pub(crate) fn write_status(status: u16, out: &mut Vec<u8>) {
    assert!((100..1000).contains(&status), "status of three digits");
    out.extend_from_slice(b"HTTP/1.1 ");
    push_decimal(status.into(), out);
    out.push(b' ');
    out.extend_from_slice(Status(status).reason().as_bytes());
    out.extend_from_slice(b"\r\nServer: ringcast\r\n");
}

/// Writes one field, or nothing if it would be none or more than one.
pub(crate) fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    if !is_token(name.as_bytes()) || value.chars().any(char::is_control) {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        let [low, ..] = (number % 10).to_le_bytes();
        *digit = b'0' + low;
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;

    const HEAD: Head<'_> = Head {
        status: 200,
        content_type: "video/x-flv",
        length: Length::Known(7),
        keep_alive: true,
        cache_control: "no-cache",
        extra: &[],
    };

    fn written(head: Head<'_>) -> String {
        let mut out = Vec::new();
        head.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_says_what_every_answer_says() {
        assert_eq!(
            written(HEAD),
            "HTTP/1.1 200 OK\r\nServer: ringcast\r\nAccess-Control-Allow-Origin: *\r\n\
             Access-Control-Expose-Headers: *\r\nConnection: keep-alive\r\n\
             Content-Type: video/x-flv\r\nContent-Length: 7\r\nCache-Control: no-cache\r\n\r\n"
        );
    }

    #[test]
    fn a_body_that_ends_with_the_connection_closes_it() {
        let text = written(Head { length: Length::UntilClose, cache_control: "", ..HEAD });
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(!text.contains("Content-Length") && !text.contains("Cache-Control"));
        let text = written(Head { status: 304, length: Length::None, content_type: "", ..HEAD });
        assert!(text.starts_with("HTTP/1.1 304 Not Modified\r\n"));
        assert!(text.contains("\r\nConnection: keep-alive\r\n") && !text.contains("Content-"));
        let text = written(Head { keep_alive: false, status: 299, ..HEAD });
        assert!(text.starts_with("HTTP/1.1 299 \r\n") && text.contains("Connection: close"));
    }

    #[test]
    fn fields_that_would_be_none_or_more_than_one_are_left_out() {
        let extra = [
            ("X-Tengine-Error", "no such stream"),
            ("X-Split", "a\r\nSet-Cookie: b"),
            ("X-Lf", "a\nb"),
            ("X-Zero", "a\0"),
            ("X-Next-Line", "a\u{85}b"),
            ("X Space", "a"),
            ("X-Colon:", "a"),
            ("", "a"),
            ("X-Utf8", "直播"),
        ];
        let text =
            written(Head { extra: &extra, content_type: "a\rb", cache_control: "\n", ..HEAD });
        let lines = text.lines().skip(6).collect::<Vec<_>>();
        assert_eq!(lines, ["X-Tengine-Error: no such stream", "X-Utf8: 直播", ""]);
    }

    #[test]
    fn numbers_are_written_like_everywhere() {
        for number in [0, 9, 10, 255, 256, 1_000, 4_294_967_296, u64::MAX] {
            let mut out = Vec::new();
            push_decimal(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
