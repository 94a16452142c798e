//! Reads responses as their bytes come, in pieces of any size.
//!
//! ```text
//!  Idle ─expect─► Head ─┬─► Length ──┐
//!                       ├─► Chunks ──┼─► End ─► Idle
//!                       ├─► (none) ──┘
//!                       ├─► UntilClose ── end of the connection ─► Idle
//!                       └─► Upgraded      101: every byte that follows is body
//! ```
//!
//! Bounded: a head of [`HEAD_BYTES_MAX`] is kept until it is whole, of a body nothing is. Interim
//! responses are passed over. Spec: RFC 9112 §4, §6, §7.1.

/// Longest head, and most fields in it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const FIELDS_MAX: usize = 64;
/// Longest line that says how long a chunk is, and longest trailer.
const LINE_BYTES_MAX: usize = 256;
/// Most interim responses before the real one.
const INTERIM_MAX: u8 = 8;
/// Characters of a refusal that are kept.
const REASON_CHARS_MAX: usize = 60;

/// What a player needs of a head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// The connection can be used for another request.
    pub(crate) keep_alive: bool,
    pub(crate) location: Option<String>,
    /// `Sec-WebSocket-Accept` of a response that upgrades to it.
    pub(crate) accept: Option<String>,
    /// Why a viewer is refused, in the server's words.
    pub(crate) reason: Option<String>,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event<'i> {
    Head(Head),
    /// Some of the body; never empty.
    Body(&'i [u8]),
    /// The response is whole.
    End,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Head,
    Length(u64),
    Chunks(Chunk),
    UntilClose,
    Upgraded,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Chunk {
    Size,
    Data(u64),
    /// The line break behind the data.
    Behind,
    Trailer,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// The head, or a line of a chunked body, as far as it is here.
    kept: Vec<u8>,
    /// A head was read whose response is over with it.
    is_over: bool,
    interim: u8,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader { state: State::Idle, kept: Vec::new(), is_over: false, interim: 0 }
    }

    /// A request is out.
    pub(super) fn expect(&mut self) {
        debug_assert_eq!(self.state, State::Idle, "one request at a time");
        self.state = State::Head;
        self.interim = 0;
    }

    /// The connection is another one: what was expected comes no more.
    pub(super) fn reset(&mut self) {
        *self = Reader::new();
    }

    /// No response is awaited or under way.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// A response is awaited of which no byte is here.
    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::Head && self.kept.is_empty()
    }

    /// The connection is over. True when that ends the body in good order.
    pub(super) fn on_eof(&mut self) -> bool {
        let is_end = self.state == State::UntilClose;
        if is_end {
            self.state = State::Idle;
        }
        is_end
    }

    /// Takes bytes from `input`; `None` when more are needed.
    ///
    /// # Errors
    /// What came is no response, or longer than allowed.
    pub(super) fn next<'i>(
        &mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Event<'i>>, &'static str> {
        loop {
            if std::mem::take(&mut self.is_over) {
                self.state = State::Idle;
                return Ok(Some(Event::End));
            }
            match self.state {
                State::Idle if input.is_empty() => return Ok(None),
                State::Idle => return Err("http: bytes nobody asked for"),
                State::Head => match self.head(input)? {
                    Some(head) => return Ok(Some(Event::Head(head))),
                    None if input.is_empty() => return Ok(None),
                    None => {}
                },
                State::Length(ref mut left) => {
                    let Some(body) = take(input, left) else { return Ok(None) };
                    self.is_over = *left == 0;
                    return Ok(Some(Event::Body(body)));
                }
                State::Chunks(Chunk::Data(ref mut left)) => {
                    let Some(body) = take(input, left) else { return Ok(None) };
                    if *left == 0 {
                        self.state = State::Chunks(Chunk::Behind);
                    }
                    return Ok(Some(Event::Body(body)));
                }
                State::Chunks(chunk) => {
                    let Some(line) = self.line(input)? else { return Ok(None) };
                    self.chunk_line(chunk, &line)?;
                }
                State::UntilClose | State::Upgraded => {
                    let body = std::mem::take(input);
                    return Ok((!body.is_empty()).then_some(Event::Body(body)));
                }
            }
        }
    }

    /// The head, once it is whole; `None` also behind an interim one.
    fn head(&mut self, input: &mut &[u8]) -> Result<Option<Head>, &'static str> {
        let before = self.kept.len();
        let room = (HEAD_BYTES_MAX - before).min(input.len());
        self.kept.extend_from_slice(&input[..room]);
        // Where the head ends: a line break right after another.
        let from = before.saturating_sub(3);
        let Some(end) = end_of_head(&self.kept, from) else {
            *input = &input[room..];
            let is_long = self.kept.len() >= HEAD_BYTES_MAX;
            return if is_long { Err("http: the head is too long") } else { Ok(None) };
        };
        *input = &input[end - before..];
        let kept = std::mem::take(&mut self.kept);
        let (head, state) = parse(&kept[..end])?;
        match state {
            Some(state) => {
                self.is_over = state == State::Length(0);
                self.state = state;
                Ok(Some(head))
            }
            None => {
                self.interim += 1;
                let is_endless = self.interim > INTERIM_MAX;
                if is_endless { Err("http: interim responses without end") } else { Ok(None) }
            }
        }
    }

    /// A whole line without its break.
    fn line(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            if byte == b'\n' {
                let mut line = std::mem::take(&mut self.kept);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
            if self.kept.len() >= LINE_BYTES_MAX {
                return Err("http: a line of a chunked body is too long");
            }
            self.kept.push(byte);
        }
        Ok(None)
    }

    fn chunk_line(&mut self, chunk: Chunk, line: &[u8]) -> Result<(), &'static str> {
        let next = match chunk {
            Chunk::Behind if line.is_empty() => Chunk::Size,
            Chunk::Behind => return Err("http: a chunk is longer than it says"),
            Chunk::Trailer if line.is_empty() => {
                self.is_over = true;
                return Ok(());
            }
            Chunk::Trailer => Chunk::Trailer,
            Chunk::Size | Chunk::Data(_) => {
                match chunk_bytes(line).ok_or("http: no size of a chunk")? {
                    0 => Chunk::Trailer,
                    bytes => Chunk::Data(bytes),
                }
            }
        };
        self.state = State::Chunks(next);
        Ok(())
    }
}

/// Up to `left` bytes of the input; `None` if there are none.
fn take<'i>(input: &mut &'i [u8], left: &mut u64) -> Option<&'i [u8]> {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (body, rest) = input.split_at(count);
    *input = rest;
    *left -= count as u64;
    (count > 0).then_some(body)
}

fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(from + found + 4)
}

fn chunk_bytes(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    let digits = text.split(';').next()?.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// A whole head, and what its body is; without a state it is an interim one.
fn parse(bytes: &[u8]) -> Result<(Head, Option<State>), &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("http: the head is cut off"),
        Err(httparse::Error::TooManyHeaders) => return Err("http: too many fields in the head"),
        Err(_) => return Err("http: no response of HTTP"),
    }
    let status = response.code.unwrap_or_default();
    let is_http_1_1 = response.version == Some(1);
    let mut head = Head { status, keep_alive: is_http_1_1, ..Head::default() };
    let (mut length, mut is_chunked, mut is_websocket) = (None, false, false);
    for field in response.headers.iter() {
        let value = String::from_utf8_lossy(field.value);
        let has = |token: &str| value.split(',').any(|one| one.trim().eq_ignore_ascii_case(token));
        match field.name.to_ascii_lowercase().as_str() {
            "connection" if has("close") => head.keep_alive = false,
            "connection" if has("keep-alive") => head.keep_alive = true,
            "content-length" => {
                let number = value.trim().parse::<u64>().map_err(|_| "http: no content length")?;
                if length.is_some_and(|earlier| earlier != number) {
                    return Err("http: two content lengths");
                }
                length = Some(number);
            }
            "transfer-encoding" if has("chunked") => is_chunked = true,
            "transfer-encoding" => return Err("http: a transfer coding we do not know"),
            "location" => head.location = Some(value.into_owned()),
            "upgrade" => is_websocket = has("websocket"),
            "sec-websocket-accept" => head.accept = Some(value.trim().to_owned()),
            "x-tengine-error" => {
                head.reason = Some(value.chars().take(REASON_CHARS_MAX).collect());
            }
            _ => {}
        }
    }
    if !is_websocket {
        head.accept = None;
    }
    let state = match status {
        101 => State::Upgraded,
        100..=199 => return Ok((head, None)),
        204 | 304 => State::Length(0),
        _ if is_chunked => State::Chunks(Chunk::Size),
        _ => length.map_or(State::UntilClose, State::Length),
    };
    head.keep_alive &= state != State::UntilClose;
    Ok((head, Some(state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body, and whether it ended.
    type Found = (u16, Vec<u8>, bool);

    /// Each response in `bytes`, read in pieces.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Found>, &'static str> {
        let mut reader = Reader::new();
        reader.expect();
        let mut found: Vec<Found> = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    Event::Head(head) => found.push((head.status, Vec::new(), false)),
                    Event::Body(body) => found.last_mut().unwrap().1.extend_from_slice(body),
                    Event::End => {
                        found.last_mut().unwrap().2 = true;
                        reader.expect();
                    }
                }
            }
        }
        Ok(found)
    }

    #[test]
    fn every_kind_of_body_is_read_in_pieces_of_any_size() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
            HTTP/1.1 103 Early\r\nLink: a\r\n\r\n\
            HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n\
            HTTP/1.1 204 Nothing\r\n\r\n\
            HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n\
            HTTP/1.0 200 OK\r\n\r\nto the end";
        let wanted = [
            (200, b"hello".to_vec(), true),
            (404, b"abc0123456789".to_vec(), true),
            (204, vec![], true),
            (200, vec![], true),
            (200, b"to the end".to_vec(), false),
        ];
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(read(bytes, piece).unwrap(), wanted, "{piece}");
        }
    }

    #[test]
    fn heads_say_whether_the_connection_stays_and_where_to_go() {
        let head = |text: &str| parse(text.as_bytes()).unwrap().0;
        assert!(head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n").keep_alive);
        assert!(!head("HTTP/1.1 200 OK\r\n\r\n").keep_alive);
        let closes = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\n";
        assert!(!head(closes).keep_alive);
        let moved = head("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(moved.location.as_deref(), Some("/x"));
        let upgraded = "HTTP/1.1 101 S\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: abc=\r\n\r\n";
        assert_eq!(head(upgraded).accept.as_deref(), Some("abc="));
        let refused = "HTTP/1.1 403 F\r\nX-Tengine-Error: denied by x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(head(refused).reason.as_deref(), Some("denied by x"));
    }

    #[test]
    fn nonsense_is_refused_and_nothing_grows_without_end() {
        for bytes in [
            &b"RTMP\x03 whatever\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(read(bytes, 1).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let long = [&b"HTTP/1.1 200 OK\r\nA: "[..], &[b'x'; HEAD_BYTES_MAX]].concat();
        assert_eq!(read(&long, 1000), Err("http: the head is too long"));
        let line =
            [&b"HTTP/1.1 200 O\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &[b'0'; 999]].concat();
        assert!(read(&line, 10).is_err());
        let interim = b"HTTP/1.1 100 C\r\n\r\n".repeat(20);
        assert!(read(&interim, 100).is_err());
        let mut reader = Reader::new();
        assert_eq!(reader.next(&mut &b"x"[..]), Err("http: bytes nobody asked for"));
    }
}
