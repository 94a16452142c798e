//! One request after the other over one connection, and over another when the server ends it.
//!
//! ```text
//!            ask                   End                       ask
//!  Closed ─────────► Asked ──────────────► Free ────────────────► Asked
//!    ▲    (on_connected)  │ redirected: asks again        │
//!    └────────────────────┴── server said close, or left ─┘   wants_connection
//! ```
//!
//! A request that a server answers by leaving, before the first byte, is sent again a few times: that is
//! the race of keep-alive. Redirections on the same server are followed. Never owns a socket: it says
//! when it wants another connection, and is told when that is up.

use super::response::{Event, Head, Reader};
use super::{resolve, websocket};
use crate::player::Reason;
use std::sync::Arc;

/// Redirections followed for one request.
const REDIRECTS_MAX: u8 = 5;
/// Connections in a row that end without an answer.
const ATTEMPTS_MAX: u8 = 3;

/// A request, from its first byte to its last.
pub(super) fn request(authority: &str, path: &str, upgrades: bool) -> String {
    let fields = if upgrades { websocket::fields() } else { String::new() };
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: swarm/{}\r\nAccept: */*\r\n\
         {fields}\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// What came of the request that is out.
#[derive(Debug)]
pub(crate) enum Got<'i> {
    /// A response that is no redirection begins.
    Head(Head),
    Body(&'i [u8]),
    /// The response is whole.
    End,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Exchange {
    authority: Arc<str>,
    upgrades: bool,
    /// Path and query of what was asked for last, after redirections.
    path: String,
    reader: Reader,
    is_connected: bool,
    /// A request waits for a connection.
    is_waiting: bool,
    /// The server will close the connection, or we must not use it again.
    is_used_up: bool,
    /// Where to go when the body of a redirection is over.
    redirected: Option<String>,
    redirects: u8,
    attempts: u8,
}

impl Exchange {
    pub(crate) fn new(authority: Arc<str>, upgrades: bool) -> Exchange {
        Exchange {
            authority,
            upgrades,
            path: String::new(),
            reader: Reader::new(),
            is_connected: false,
            is_waiting: false,
            is_used_up: false,
            redirected: None,
            redirects: 0,
            attempts: 0,
        }
    }

    /// Path and query of the request that is out or was last.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What a reference found in the response stands for.
    ///
    /// # Errors
    /// It leads elsewhere.
    pub(crate) fn resolve(&self, base: &str, reference: &str) -> Result<String, Reason> {
        resolve(&self.authority, base, reference)
            .ok_or_else(|| "http: leads to another server".into())
    }

    /// Nothing is asked for.
    pub(crate) fn is_free(&self) -> bool {
        self.reader.is_idle() && !self.is_waiting
    }

    /// Asks for a path. The last response must be over.
    pub(crate) fn ask(&mut self, path: String, out: &mut Vec<u8>) {
        self.redirects = 0;
        self.attempts = 0;
        self.path = path;
        self.send(out);
    }

    fn send(&mut self, out: &mut Vec<u8>) {
        if !self.is_connected || self.is_used_up {
            self.is_waiting = true;
            return;
        }
        self.is_waiting = false;
        self.reader.expect();
        let request = request(&self.authority, &self.path, self.upgrades);
        out.extend_from_slice(request.as_bytes());
    }

    /// A connection is up: what waits for it goes out.
    pub(crate) fn on_connected(&mut self, out: &mut Vec<u8>) {
        (self.is_connected, self.is_used_up) = (true, false);
        self.reader.reset();
        if self.is_waiting {
            self.send(out);
        }
    }

    /// Another connection is wanted; this one is of no use any more.
    pub(crate) fn wants_connection(&self) -> bool {
        self.is_waiting && (self.is_used_up || !self.is_connected) && self.reader.is_idle()
    }

    /// Whether the server has upgraded to WebSocket.
    pub(crate) fn is_upgrade(&self, head: &Head) -> bool {
        self.upgrades && websocket::is_accepted(head)
    }

    /// Takes bytes of the server; `None` when more are needed. Answers of the exchange itself are
    /// appended to `out`.
    ///
    /// # Errors
    /// What came is no response, or leads in circles or elsewhere.
    pub(crate) fn next<'i>(
        &mut self,
        input: &mut &'i [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Got<'i>>, Reason> {
        while let Some(event) = self.reader.next(input)? {
            match event {
                Event::Head(head) => {
                    self.attempts = 0;
                    self.is_used_up = !head.keep_alive;
                    if let Some(path) = self.redirection(&head)? {
                        self.redirected = Some(path);
                    } else {
                        return Ok(Some(Got::Head(head)));
                    }
                }
                Event::Body(_) if self.redirected.is_some() => {}
                Event::Body(body) => return Ok(Some(Got::Body(body))),
                Event::End => match self.redirected.take() {
                    Some(path) => {
                        self.path = path;
                        self.send(out);
                    }
                    None => return Ok(Some(Got::End)),
                },
            }
        }
        Ok(None)
    }

    fn redirection(&mut self, head: &Head) -> Result<Option<String>, Reason> {
        let (301 | 302 | 303 | 307 | 308, Some(location)) = (head.status, &head.location) else {
            return Ok(None);
        };
        self.redirects += 1;
        if self.redirects > REDIRECTS_MAX {
            return Err("http: redirected without end".into());
        }
        self.resolve(&self.path, location).map(Some)
    }

    /// The server has ended the connection. True when that ends a response in good order.
    ///
    /// # Errors
    /// It did so in the midst of a response, or again and again instead of one.
    pub(crate) fn on_eof(&mut self, out: &mut Vec<u8>) -> Result<bool, Reason> {
        (self.is_connected, self.is_used_up) = (false, true);
        if self.reader.on_eof() {
            if let Some(path) = self.redirected.take() {
                self.path = path;
                self.send(out);
                return Ok(false);
            }
            return Ok(true);
        }
        if self.reader.is_waiting() && self.attempts < ATTEMPTS_MAX {
            self.attempts += 1;
            self.reader.reset();
            self.is_waiting = true;
            return Ok(false);
        }
        if self.is_free() {
            // Nobody is asked anything: the next request will want another connection.
            return Ok(false);
        }
        if self.is_waiting {
            return Ok(false);
        }
        Err("closed by the server".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> (Exchange, Vec<u8>) {
        let mut exchange = Exchange::new("h:1".into(), false);
        let mut out = Vec::new();
        exchange.ask("/a/x".into(), &mut out);
        assert!(exchange.wants_connection() && out.is_empty());
        exchange.on_connected(&mut out);
        assert!(!exchange.wants_connection() && !exchange.is_free());
        (exchange, out)
    }

    /// Statuses, bodies and ends, as one text.
    fn feed(exchange: &mut Exchange, bytes: &[u8], out: &mut Vec<u8>) -> Result<String, Reason> {
        let mut told = String::new();
        for mut input in bytes.chunks(1) {
            while let Some(got) = exchange.next(&mut input, out)? {
                match got {
                    Got::Head(head) => told += &format!("{} ", head.status),
                    Got::Body(body) => told += std::str::from_utf8(body).unwrap(),
                    Got::End => told += ".",
                }
            }
        }
        Ok(told)
    }

    #[test]
    fn a_request_names_host_and_path_and_the_connection_is_used_again() {
        let (mut exchange, mut out) = exchange();
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.starts_with("GET /a/x HTTP/1.1\r\nHost: h:1\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\n"));
        out.clear();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(feed(&mut exchange, answer, &mut out).unwrap(), "200 hi.");
        exchange.ask("/b".into(), &mut out);
        assert!(out.starts_with(b"GET /b ") && !exchange.wants_connection());
    }

    #[test]
    fn redirections_are_followed_here_and_nowhere_else() {
        let moved = |to: &str| {
            format!("HTTP/1.1 302 F\r\nLocation: {to}\r\nContent-Length: 1\r\n\r\nx").into_bytes()
        };
        let (mut one, mut out) = exchange();
        out.clear();
        assert_eq!(feed(&mut one, &moved("../y?z=1"), &mut out).unwrap(), "");
        assert!(out.starts_with(b"GET /y?z=1 "), "{}", String::from_utf8_lossy(&out));
        assert_eq!(one.path(), "/y?z=1");
        let (mut other, mut out) = exchange();
        assert!(feed(&mut other, &moved("http://other/"), &mut out).is_err());
        let (mut circle, mut out) = exchange();
        let error = feed(&mut circle, &moved("/a/x").repeat(9), &mut out).unwrap_err();
        assert_eq!(error, "http: redirected without end");
    }

    #[test]
    fn a_server_that_closes_between_requests_is_asked_again_on_another_connection() {
        let (mut exchange, mut out) = exchange();
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(feed(&mut exchange, answer, &mut out).unwrap(), "200 .");
        out.clear();
        exchange.ask("/b".into(), &mut out);
        assert!(out.is_empty() && exchange.wants_connection());
        exchange.on_connected(&mut out);
        assert!(out.starts_with(b"GET /b "));
        // It leaves without a word: once more, and in the end it is its fault.
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(exchange.on_eof(&mut out), Ok(false));
            assert!(exchange.wants_connection());
            exchange.on_connected(&mut out);
        }
        assert_eq!(exchange.on_eof(&mut out), Err("closed by the server".into()));
    }

    #[test]
    fn a_body_may_end_with_the_connection_and_a_cut_one_is_an_error() {
        let (mut exchange, mut out) = exchange();
        assert_eq!(
            feed(&mut exchange, b"HTTP/1.1 200 OK\r\n\r\nabc", &mut out).unwrap(),
            "200 abc"
        );
        assert_eq!(exchange.on_eof(&mut out), Ok(true));
        let (mut cut, mut out) = self::exchange();
        feed(&mut cut, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", &mut out).unwrap();
        assert!(cut.on_eof(&mut out).is_err());
    }

    #[test]
    fn an_end_while_nothing_is_asked_is_no_error() {
        let (mut exchange, mut out) = exchange();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        feed(&mut exchange, answer, &mut out).unwrap();
        assert_eq!(exchange.on_eof(&mut out), Ok(false));
        assert!(!exchange.wants_connection());
        exchange.ask("/c".into(), &mut out);
        assert!(exchange.wants_connection());
    }
}
