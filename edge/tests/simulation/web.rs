//! One viewer over HTTP: what it asks, how oddly it does so, and what it is answered.
//!
//! ```text
//!   requests that get an answer and go on ─► the stream's request ─┬─► 200, or 101 ─► tags ─► the end
//!   (pipelined or one by one)                (garbage behind it)   └─► refused
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;

use rtmp::Millis;

use super::dice::Dice;
use super::flv::FlvReader;
use super::fmp4::Fmp4Reader;
use super::link::Heard;
use super::unwrap::{Form, Piece, unwrap};
use super::viewer::Sabotage;
use super::wire::Wire;

/// A key of RFC 6455 §1.3, and its answer.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// What the server says with its last frame.
const END_REASON: &str = "the stream has ended";
const HEAD_BYTES_MAX: usize = 2_000;
/// From the last byte of a response that ends the connection to the end of that, in milliseconds.
const CLOSE_MS_MAX: u64 = 8_000;

/// What a request is to be answered with.
#[derive(Copy, Clone, Debug)]
enum Expected {
    /// This status; the connection goes on.
    Status(u16),
    /// The head of a stream's answer, which ends the connection, or of a refusal; and no body.
    HeadAlone,
    Stream,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// The next head is awaited.
    Head,
    Stream,
    /// Nothing may come but the end of the connection.
    Over {
        since_ms: u64,
    },
}

/// What the stream is made of, and its reader.
#[derive(Debug)]
enum Reader {
    Flv(FlvReader),
    Fmp4(Fmp4Reader),
}

impl Reader {
    fn bare_bytes(&self, input: &[u8]) -> Option<usize> {
        match self {
            Self::Flv(reader) => reader.bare_bytes(input),
            Self::Fmp4(_) => Fmp4Reader::bare_bytes(input),
        }
    }
}

/// What a viewer over HTTP asks for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Flv { audio: bool, video: bool },
    Fmp4,
}

#[derive(Debug)]
pub struct WebLink {
    peer: Option<Wire>,
    dice: Dice,
    sabotage: Sabotage,
    reader: Reader,
    form: Form,
    state: State,
    /// Requests that were not yet written.
    requests: VecDeque<(Vec<u8>, Expected)>,
    expected: VecDeque<Expected>,
    is_pipelining: bool,
    is_dribbling: bool,
    out: Vec<u8>,
    input: Vec<u8>,
    heard_bytes: u64,
    /// Init segments and fragments so far.
    pieces: u64,
    has_asked: bool,
    /// Pings that were not answered.
    pings: VecDeque<Vec<u8>>,
    /// What it said goodbye with.
    close_code: Option<u16>,
    /// It has sent what is no frame.
    is_rude: bool,
    /// The server drains: it may say that it goes away.
    pub may_be_drained: bool,
    /// It was told so.
    was_told_to_go: bool,
}

impl WebLink {
    pub fn new(
        peer: Wire,
        path: usize,
        wanted: Wanted,
        dice: &mut Dice,
        sabotage: Sabotage,
    ) -> Self {
        let mut dice = Dice::new(dice.next());
        let form = dice.pick(&[Form::Chunks, Form::Chunks, Form::Bare, Form::Frames, Form::Frames]);
        let mut requests = VecDeque::new();
        while dice.chance(300) {
            let (request, status) = dice.pick(&[
                ("GET /nothing HTTP/1.1\r\n", 404),
                ("GET /live/s0.txt?a=b HTTP/1.1\r\nAccept: */*\r\n", 404),
                ("GET /live/s0/0123456789abcdef/seg-1.m4s HTTP/1.1\r\n", 404),
                ("OPTIONS /live/s0.flv HTTP/1.1\r\nOrigin: http://a.test\r\n", 204),
            ]);
            let request = format!("{request}Host: sim.test\r\n\r\n").into_bytes();
            requests.push_back((request, Expected::Status(status)));
        }
        if dice.chance(200) {
            let suffix = dice.pick(&["flv", "flv", "mp4", "txt"]);
            let request = format!("HEAD /live/s{path}.{suffix} HTTP/1.1\r\nHost: sim.test\r\n\r\n");
            requests.push_back((request.into_bytes(), Expected::HeadAlone));
        }
        let mut request = stream_request(form, path, wanted, &mut dice).into_bytes();
        if form != Form::Frames && dice.chance(300) {
            let bytes = dice.index(3_000);
            request.extend((0..bytes).map(|_| dice.next().to_be_bytes()[0]));
        }
        requests.push_back((request, Expected::Stream));
        Self {
            peer: Some(peer),
            sabotage,
            reader: match wanted {
                Wanted::Flv { audio, video } => Reader::Flv(FlvReader::new(audio, video)),
                Wanted::Fmp4 => Reader::Fmp4(Fmp4Reader::default()),
            },
            form,
            state: State::Head,
            requests,
            expected: VecDeque::new(),
            is_pipelining: dice.chance(500),
            is_dribbling: dice.chance(200),
            out: Vec::new(),
            input: Vec::new(),
            heard_bytes: 0,
            pieces: 0,
            has_asked: false,
            pings: VecDeque::new(),
            close_code: None,
            is_rude: false,
            may_be_drained: false,
            was_told_to_go: false,
            dice,
        }
    }

    /// A drain can be told to it, even in the middle of its stream: it must not be cut off without.
    pub fn can_be_told_to_go(&self) -> bool {
        self.form == Form::Frames || self.state == State::Head
    }

    /// Of an answer nothing has come.
    pub fn awaits_head(&self) -> bool {
        self.state == State::Head
    }

    /// It asks for nothing before its stream.
    pub fn ask_for_the_stream_alone(&mut self) {
        self.requests.drain(..self.requests.len() - 1);
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn is_fragmented(&self) -> bool {
        matches!(self.reader, Reader::Fmp4(_))
    }

    pub fn is_open(&self) -> bool {
        self.peer.is_some()
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.peer.as_ref().map(Wire::local_addr)
    }

    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. }) || self.is_leaving()
    }

    /// It has done what ends the connection.
    fn is_leaving(&self) -> bool {
        self.is_rude || self.close_code.is_some()
    }

    pub fn next_at_ms(&self, now_ms: u64) -> u64 {
        let is_flushed = self.peer.as_ref().is_none_or(Wire::is_flushed);
        if is_flushed && (self.out.is_empty() || self.peer.is_none()) {
            u64::MAX
        } else {
            now_ms + 7
        }
    }

    /// Lets go of the socket, in order or with a reset.
    pub fn hang_up(&mut self, reset: bool) {
        if let Some(peer) = self.peer.take() {
            if reset { peer.reset() } else { peer.close() }
        }
    }

    pub fn turn(&mut self, now: Millis, read_bytes_max: usize) -> Result<Vec<Heard>, String> {
        let mut heard = Vec::new();
        let Some(peer) = &mut self.peer else { return Ok(heard) };
        if !peer.is_connected() {
            if peer.error().is_some() {
                self.peer = None;
                heard.push(Heard::Gone);
            }
            return Ok(heard);
        }
        let mut bytes = peer.read(read_bytes_max)?;
        let heard_before = self.heard_bytes;
        self.heard_bytes += bytes.len() as u64;
        if self.sabotage == Sabotage::Tear && heard_before < 50_000 && self.heard_bytes >= 50_000 {
            bytes.pop();
        }
        self.input.extend_from_slice(&bytes);
        self.read(now, &mut heard).map_err(|error| format!("HTTP cannot be read: {error}"))?;
        self.write()?;
        if !self.has_asked && self.requests.is_empty() && self.out.is_empty() {
            self.has_asked = true;
            heard.push(Heard::PlayStarted);
        }
        self.look_for_end(now, &mut heard)?;
        Ok(heard)
    }

    fn write(&mut self) -> Result<(), String> {
        let may_ask = self.is_pipelining || self.expected.is_empty();
        if self.out.is_empty()
            && may_ask
            && self.state == State::Head
            && let Some((request, expected)) = self.requests.pop_front()
        {
            self.out = request;
            self.expected.push_back(expected);
        }
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let bytes_max = if self.is_dribbling { 1 + self.dice.index(60) } else { usize::MAX };
        let written = peer.write(&self.out[..self.out.len().min(bytes_max)])?;
        self.out.drain(..written);
        Ok(())
    }

    fn look_for_end(&mut self, now: Millis, heard: &mut Vec<Heard>) -> Result<(), String> {
        let Some(peer) = &self.peer else { return Ok(()) };
        let is_broken = peer.error().is_some();
        if !is_broken && !peer.is_eof() {
            return match self.state {
                State::Over { since_ms } if since_ms + CLOSE_MS_MAX < now.0 => {
                    Err("the connection goes on behind the end of its response".to_owned())
                }
                _ => Ok(()),
            };
        }
        let is_whole = is_broken || !peer.is_truncated();
        self.peer = None;
        if !is_whole && matches!(self.state, State::Over { .. }) && !self.is_leaving() {
            return Err("TLS ends without a goodbye behind the end of a response".to_owned());
        }
        if !is_broken && self.state == State::Stream && !self.is_leaving() {
            match self.form {
                Form::Bare if self.input.is_empty() && is_whole => heard.push(ended()),
                _ => heard.push(Heard::CutOff),
            }
        } else if !is_broken && self.state == State::Head && self.has_asked {
            heard.push(Heard::CutOff);
        }
        heard.push(Heard::Gone);
        Ok(())
    }

    fn read(&mut self, now: Millis, heard: &mut Vec<Heard>) -> Result<(), String> {
        loop {
            let went_on = match self.state {
                State::Head => self.read_head(now, heard)?,
                State::Stream => self.read_pieces(now, heard)?,
                State::Over { .. } if self.input.is_empty() => false,
                State::Over { .. } => {
                    let bytes = self.input.len();
                    return Err(format!("{bytes} bytes behind the end: {:x?}", self.input));
                }
            };
            if !went_on {
                return Ok(());
            }
        }
    }

    /// True if an answer was read to its end.
    fn read_head(&mut self, now: Millis, heard: &mut Vec<Heard>) -> Result<bool, String> {
        let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") else {
            let is_long = self.input.len() > HEAD_BYTES_MAX;
            return if is_long { Err("a head without an end".to_owned()) } else { Ok(false) };
        };
        let head = String::from_utf8(self.input[..end].to_vec());
        let head = head.map_err(|error| error.to_string())?;
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
        };
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.ok_or_else(|| format!("no head: {head}"))?;
        let expected = *self.expected.front().ok_or("an answer nobody asked for")?;
        let length: usize = match field("Content-Length") {
            _ if matches!(expected, Expected::HeadAlone) => 0,
            Some(length) => length.parse().map_err(|_| format!("no length: {head}"))?,
            None if matches!(status, 101 | 200 | 204) => 0,
            None => return Err(format!("no length: {head}")),
        };
        let whole = end + 4 + length;
        if self.input.len() < whole {
            return Ok(false);
        }
        self.expected.pop_front();
        let is_form = match self.form {
            Form::Chunks => status == 200 && field("Transfer-Encoding") == Some("chunked"),
            Form::Bare => status == 200 && field("Transfer-Encoding").is_none(),
            Form::Frames => {
                status == 101 && field("Sec-WebSocket-Accept") == Some(WEBSOCKET_ACCEPT)
            }
        };
        match expected {
            Expected::Status(wanted)
                if wanted == status && field("Connection") != Some("close") => {}
            Expected::HeadAlone if status == 404 && field("Connection") != Some("close") => {}
            // As for the stream itself, whose end is the end of the connection.
            Expected::HeadAlone if status == 200 && field("Connection") == Some("close") => {
                self.state = State::Over { since_ms: now.0 };
                heard.push(Heard::Refused(status.to_string()));
            }
            // A drain answers whatever waits, and ends.
            _ if status == 503 && self.may_be_drained => {
                self.state = State::Over { since_ms: now.0 };
                heard.push(Heard::Refused(status.to_string()));
            }
            Expected::Stream if is_form && length == 0 => self.state = State::Stream,
            Expected::Stream if matches!(status, 403 | 404 | 503) => {
                self.state = State::Over { since_ms: now.0 };
                heard.push(Heard::Refused(status.to_string()));
            }
            _ => return Err(format!("{expected:?} is answered with {head}")),
        }
        self.input.drain(..whole);
        Ok(true)
    }

    fn read_pieces(&mut self, now: Millis, heard: &mut Vec<Heard>) -> Result<bool, String> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while self.state == State::Stream
            && let Some((piece, bytes)) =
                unwrap(self.form, rest, |input| self.reader.bare_bytes(input))?
        {
            rest = &rest[bytes..];
            match piece {
                Piece::Body(piece) => self.take_body(&piece, heard)?,
                Piece::Text(text) => match &mut self.reader {
                    Reader::Fmp4(reader) => reader.announce(text)?,
                    Reader::Flv(_) => return Err(format!("a text frame {text}")),
                },
                Piece::Pong(payload) if self.pings.pop_front().as_ref() == Some(&payload) => {}
                Piece::Pong(payload) => return Err(format!("no ping was {payload:x?}")),
                // The planted bug: as if the server had not sent it.
                _ if self.sabotage == Sabotage::HideEnd => {}
                Piece::LastChunk => {
                    self.state = State::Over { since_ms: now.0 };
                    heard.push(ended());
                }
                Piece::Close { code, reason } => {
                    self.state = State::Over { since_ms: now.0 };
                    self.on_close(code, reason, heard)?;
                }
            }
        }
        self.input = rest.to_vec();
        Ok(matches!(self.state, State::Over { .. }) && !self.input.is_empty())
    }

    fn take_body(&mut self, piece: &[u8], heard: &mut Vec<Heard>) -> Result<(), String> {
        let reader = match &mut self.reader {
            Reader::Flv(reader) => {
                heard.extend(reader.take(piece)?.map(Heard::Message));
                return Ok(());
            }
            Reader::Fmp4(reader) => reader,
        };
        let is_init = piece.get(4..8) == Some(b"ftyp");
        self.pieces += 1;
        let is_late = self.pieces > 20;
        let mut piece = piece.to_vec();
        match self.sabotage {
            Sabotage::LoseFragment if is_late && !is_init && self.pieces.is_multiple_of(50) => {
                return Ok(());
            }
            Sabotage::MisplaceSample if is_late && !is_init => misplace(&mut piece),
            _ => {}
        }
        let of_reader = reader.take(&piece, self.form == Form::Frames)?;
        if !(self.sabotage == Sabotage::LoseInit && is_init && is_late) {
            heard.extend(of_reader);
        }
        Ok(())
    }

    fn on_close(
        &mut self,
        code: u16,
        reason: String,
        heard: &mut Vec<Heard>,
    ) -> Result<(), String> {
        match code {
            1000 if reason == END_REASON => {
                heard.push(ended());
                if self.dice.chance(500) {
                    self.say(0x88, &1000_u16.to_be_bytes());
                }
            }
            1001 if self.may_be_drained => self.was_told_to_go = true,
            1008 => heard.push(Heard::Refused(reason)),
            1002..=1009 if self.is_rude => {}
            code if self.close_code == Some(code) => {}
            _ => return Err(format!("a close frame nobody waits for: {code} {reason}")),
        }
        Ok(())
    }

    // What viewers say besides their requests.

    /// True if the stream has begun to come, or the socket of frames stands.
    pub fn is_streaming(&self) -> bool {
        self.is_open() && self.state == State::Stream && !self.is_leaving()
    }

    pub fn ping(&mut self) {
        let bytes = self.dice.pick(&[0, 1, 4, 125]);
        let payload: Vec<u8> = (0..bytes).map(|_| self.dice.next().to_be_bytes()[0]).collect();
        self.say(0x89, &payload);
        self.pings.push_back(payload);
    }

    pub fn say_goodbye(&mut self) {
        let code = self.dice.pick(&[1000, 1001, 3000]);
        self.say(0x88, &u16::to_be_bytes(code));
        self.close_code = Some(code);
    }

    /// Bytes that mean nothing: ignored over plain HTTP, an end with a reason over a WebSocket.
    pub fn babble(&mut self) {
        if self.form == Form::Frames {
            // Reserved bits, no mask.
            self.out.extend_from_slice(&[0xFF, 0x05, 1, 2, 3, 4, 5]);
            self.is_rude = true;
            return;
        }
        let bytes = self.dice.index(9_000);
        self.out.extend((0..bytes).map(|_| self.dice.next().to_be_bytes()[0]));
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        let mask = self.dice.next().to_be_bytes();
        let length = u8::try_from(payload.len()).expect("short");
        self.out.extend_from_slice(&[first, 0x80 | length]);
        self.out.extend_from_slice(&mask[..4]);
        self.out
            .extend(payload.iter().zip(mask[..4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

fn ended() -> Heard {
    Heard::Status { msid: 1, code: "NetStream.Play.UnpublishNotify".to_owned() }
}

/// The planted bug: the table of a fragment says that its samples begin one byte later.
fn misplace(fragment: &mut [u8]) {
    if let Some(at) = fragment.windows(4).position(|window| window == b"trun") {
        // Type, version and flags, the count.
        let offset = at + 4 + 4 + 4;
        fragment[offset + 3] ^= 1;
    }
}

fn stream_request(form: Form, path: usize, wanted: Wanted, dice: &mut Dice) -> String {
    let query = match wanted {
        Wanted::Flv { audio: false, .. } => "?audio=0",
        Wanted::Flv { video: false, .. } => "?video=0",
        // Of fragments nobody can choose.
        _ => dice.pick(&["", "", "?audio=1", "?audio=0&video=0", "?x=%20"]),
    };
    let suffix = if wanted == Wanted::Fmp4 { "mp4" } else { "flv" };
    let version = if form == Form::Bare { "1.0" } else { "1.1" };
    let fields = match form {
        Form::Frames => format!(
            "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\nSec-WebSocket-Version: 13\r\n"
        ),
        _ => dice.pick(&["", "Connection: close\r\n", "Connection: keep-alive\r\n"]).to_owned(),
    };
    format!("GET /live/s{path}.{suffix}{query} HTTP/{version}\r\nHost: sim.test\r\n{fields}\r\n")
}
