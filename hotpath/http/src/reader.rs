//! Bytes of one connection to requests.
//!
//! ```text
//!            ┌──────────── no body ────────────┐
//!  Head ─────┴─► Body ──── all skipped ────────┴─► Request, Head again
//!    │             │
//!    └─ HttpError ─┴─► Failed: says so again whatever comes
//! ```
//!
//! Called by the worker with whatever a receive brought, until all is taken. A request comes out
//! only when its body is over, so that what is left of the input begins with the next one (or with
//! frames, behind an upgrade). `Expect: 100-continue` is not answered: a peer that waits for it
//! sends its body all the same after a moment, as RFC 9110 §10.1.1 wants it to.
//!
//! Holds the bytes of an incomplete head, and the fields of a request while its body comes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::body::Body;
use crate::request::{self, Request};
use crate::scan::{HeadScan, Refused, Scanned};
use crate::{HttpError, Limits};

/// Reads the requests of one connection.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// What is here of a head that came in pieces; at most `head_bytes_max`.
    held: Vec<u8>,
    scan: HeadScan,
    state: State,
    bytes_in: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body(Box<(Request, Body)>),
    Failed(HttpError),
}

impl RequestReader {
    /// A reader before the first byte of a connection. Allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of one request, head and body.
    /// `Ok(None)`: all bytes are taken and more are needed. Limits may change between calls.
    ///
    /// # Errors
    /// When the request cannot be accepted. The connection is to be closed after
    /// [`HttpError::write_answer`]; what is left of the input means nothing any more, and further
    /// calls return the same error.
    pub fn handle_bytes(
        &mut self,
        limits: &Limits,
        input: &mut &[u8],
    ) -> Result<Option<Request>, HttpError> {
        let before = input.len();
        let result = self.advance(limits, input);
        self.bytes_in += (before - input.len()) as u64;
        if let Err(error) = result {
            self.held = Vec::new();
            self.state = State::Failed(error);
        }
        result
    }

    /// True between requests: an end of the connection here is no error.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Head) && self.scan.is_idle()
    }

    /// Bytes taken since the connection was opened. After an error: the place of the byte that
    /// decided it, which is the last of the head for whatever needs the whole head.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes of an incomplete head that are kept.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn advance(
        &mut self,
        limits: &Limits,
        input: &mut &[u8],
    ) -> Result<Option<Request>, HttpError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        if matches!(self.state, State::Head) {
            let Some((request, body)) = self.take_head(limits, input)? else { return Ok(None) };
            if body.is_empty() {
                return Ok(Some(request));
            }
            self.state = State::Body(Box::new((request, body)));
        }
        if let State::Body(pending) = &mut self.state
            && !pending.1.skip(limits, input)?
        {
            return Ok(None);
        }
        match core::mem::take(&mut self.state) {
            State::Body(pending) => Ok(Some(pending.0)),
            State::Head | State::Failed(_) => Ok(None),
        }
    }

    fn take_head(
        &mut self,
        limits: &Limits,
        input: &mut &[u8],
    ) -> Result<Option<(Request, Body)>, HttpError> {
        let Scanned { blank_bytes, end } =
            self.scan.scan(limits, input).map_err(|Refused { error, at }| {
                *input = input.get(at..).unwrap_or_default();
                error
            })?;
        if blank_bytes > 0 {
            self.held = Vec::new();
        }
        let (piece, rest) = input.split_at(end.unwrap_or(input.len()));
        let piece = piece.get(blank_bytes..).unwrap_or_default();
        *input = rest;
        if end.is_none() {
            self.held.extend_from_slice(piece);
            return Ok(None);
        }
        let headers = core::mem::take(&mut self.scan).headers();
        if self.held.is_empty() {
            return request::parse(limits, piece, headers).map(Some);
        }
        let mut head = core::mem::take(&mut self.held);
        head.extend_from_slice(piece);
        request::parse(limits, &head, headers).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    fn read(text: &[u8]) -> Result<Option<Request>, HttpError> {
        RequestReader::new().handle_bytes(&Limits::default(), &mut &*text)
    }

    #[test]
    fn a_players_request_is_understood() {
        let request = read(
            b"GET /live/a.flv?sign=x HTTP/1.1\r\nHost: Edge.Example:8080\r\nUser-Agent: Lavf/61\r\n\
              Range: bytes=0-\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\
              Referer: http://p/\r\nOrigin: http://o\r\nX-Forwarded-For: 1.2.3.4\r\n\
              x-forwarded-for: 5.6.7.8\r\nIf-None-Match: \"e\"\r\n\r\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(request.method, Method::Get);
        assert_eq!((&*request.path, &*request.query), ("/live/a.flv", "sign=x"));
        assert_eq!(request.host.as_deref(), Some("edge.example:8080"));
        assert!(request.is_http_1_1 && !request.keep_alive && request.accepts_gzip);
        assert_eq!(request.range, Some(crate::ByteRange::From(0)));
        assert_eq!(request.forwarded_for.as_deref(), Some("1.2.3.4, 5.6.7.8"));
        assert_eq!(request.user_agent.as_deref(), Some("Lavf/61"));
        assert_eq!(request.referer.as_deref(), Some("http://p/"));
        assert_eq!(request.origin.as_deref(), Some("http://o"));
        assert_eq!(request.if_none_match.as_deref(), Some("\"e\""));
        assert_eq!(request.request_headers, None);
        assert_eq!(request.upgrade, None);
    }

    #[test]
    fn a_reader_is_idle_between_requests_and_keeps_nothing_then() {
        let limits = Limits::default();
        let mut reader = RequestReader::new();
        assert!(reader.is_idle());
        let mut input = &b"\r\nGET / HTTP/1.0\r\n"[..];
        assert_eq!(reader.handle_bytes(&limits, &mut input), Ok(None));
        assert!(!reader.is_idle());
        assert_eq!(reader.held_bytes(), 16);
        let mut input = &b"Content-Length: 2\r\n\r\n."[..];
        assert_eq!(reader.handle_bytes(&limits, &mut input), Ok(None));
        assert!(!reader.is_idle());
        assert_eq!(reader.held_bytes(), 0);
        let mut input = &b"."[..];
        assert!(reader.handle_bytes(&limits, &mut input).unwrap().is_some());
        assert!(reader.is_idle());
        assert_eq!(reader.bytes_in(), 2 + 16 + 21 + 2);
    }

    #[test]
    fn an_error_stays_and_knows_its_place() {
        let limits = Limits::default();
        let mut reader = RequestReader::new();
        let mut input = &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..];
        assert_eq!(reader.handle_bytes(&limits, &mut input), Err(HttpError::LineEnd));
        assert_eq!(reader.bytes_in(), 14);
        let mut input = &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..];
        assert_eq!(reader.handle_bytes(&limits, &mut input), Err(HttpError::LineEnd));
        assert!(!reader.is_idle());
    }
}
