//! A viewer over HTTP: a socket, a thread that reads it, and readers of what has come.

use std::cell::{RefCell, RefMut};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rtmp::session::MediaKind;

use super::PATIENCE;
use super::media::{Item, Kind, Source};
use super::server::wait_for;

/// A key of RFC 6455 §1.3, whose answer is known.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    has_ended: bool,
}

/// One connection to the server.
pub struct Viewer {
    socket: TcpStream,
    wants_head: bool,
    received: Arc<Mutex<Received>>,
    reading: RefCell<Reading>,
}

/// How a body carries a file.
#[derive(Copy, Clone, Debug)]
enum Wrap {
    Bare,
    Chunks,
    Frames,
}

/// What was read of an FLV file so far: each byte once, however often somebody looks.
#[derive(Default)]
struct Reading {
    wrap: Option<Wrap>,
    /// Bytes of the connection that were read.
    bytes: usize,
    /// Bytes of the file that make no whole tag yet.
    file: Vec<u8>,
    tags: Tags,
}

/// A response: its head, and what has come of its body.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What stands in an FLV file or in WebSocket frames of one.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    /// Flags of the file header: 4 sound, 1 pictures.
    pub flags: u8,
    pub items: Vec<Item>,
    pub scripts: usize,
    /// The header of the file was read.
    has_begun: bool,
}

impl Tags {
    /// Media without headers.
    pub fn frames(&self) -> Vec<Item> {
        self.items.iter().filter(|item| item.is_frame()).copied().collect()
    }

    /// What a viewer has is what was sent, once, without a gap, from a keyframe (or the first message) to the
    /// end, behind its headers. Returns how many were sent before it begins.
    pub fn assert_whole(&self, source: &Source) -> usize {
        let got = self.frames();
        let first = got.first().expect("something was received");
        let skipped = source.sent.iter().position(|item| item == first).expect("it was sent");
        let sent = &source.sent[skipped..];
        for (got, sent) in got.iter().zip(sent) {
            assert_eq!(got, sent, "every frame, once, in order, intact");
        }
        assert_eq!(got.len(), sent.len(), "every frame");
        assert!(skipped == 0 || first.kind == Kind::Keyframe, "begins at a keyframe: {first:?}");
        let headers: Vec<Kind> = self.items.iter().take(2).map(|item| item.kind).collect();
        assert_eq!(headers, [Kind::VideoHeader, Kind::AudioHeader], "headers first");
        assert_eq!(self.items.len() - got.len(), 2, "headers once");
        assert!(self.scripts > 0, "metadata");
        assert_eq!(self.flags, 5, "both tracks are announced");
        skipped
    }
}

impl Viewer {
    /// Connects and sends `bytes`.
    pub fn send(addr: SocketAddr, bytes: &[u8]) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.write_all(bytes).unwrap();
        Self::of(socket, bytes.starts_with(b"HEAD "))
    }

    /// Begins to read what is answered on a connection.
    pub fn of(socket: TcpStream, wants_head: bool) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let (mut reader, sink) = (socket.try_clone().unwrap(), Arc::clone(&received));
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(bytes @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().bytes.extend_from_slice(&buffer[..bytes]);
            }
            sink.lock().unwrap().has_ended = true;
        });
        Self { socket, wants_head, received, reading: RefCell::default() }
    }

    /// Asks for a path.
    pub fn get(addr: SocketAddr, path: &str) -> Self {
        Self::send(addr, format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
    }

    /// Asks for a path with another method, host or further fields.
    pub fn ask(addr: SocketAddr, method: &str, path: &str, host: &str, fields: &str) -> Self {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        Self::send(addr, request.as_bytes())
    }

    /// Asks for a WebSocket.
    pub fn websocket(addr: SocketAddr, path: &str, host: &str) -> Self {
        let fields = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        Self::ask(addr, "GET", path, host, &fields)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.received.lock().unwrap().bytes.clone()
    }

    /// Forgets what has come.
    pub fn forget(&mut self) {
        self.received.lock().unwrap().bytes.clear();
        *self.reading.borrow_mut() = Reading::default();
    }

    pub fn has_ended(&self) -> bool {
        self.received.lock().unwrap().has_ended
    }

    pub fn wait_end(&self) {
        wait_for("the server to end the connection", || self.has_ended());
    }

    /// The response so far, once its head is there.
    pub fn response(&self) -> Option<Response> {
        let bytes = self.bytes();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Response { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// The whole response, by its length or by the end of the connection.
    pub fn wait_response(&self) -> Response {
        let mut response = None;
        wait_for("a response", || {
            response = self.response().filter(|response| {
                let length = response.field("content-length").and_then(|text| text.parse().ok());
                length.map_or(self.has_ended(), |length: usize| response.body.len() >= length)
                    || response.status == 204
                    || self.wants_head
            });
            response.is_some()
        });
        response.unwrap()
    }

    /// The tags of an FLV response or of a WebSocket's frames.
    pub fn tags(&self) -> Tags {
        self.read_on().tags.clone()
    }

    /// Whether any tag has come.
    pub fn has_begun(&self) -> bool {
        !self.read_on().tags.items.is_empty()
    }

    /// Whether the last frame that the source has made has come.
    pub fn has_all(&self, source: &Source) -> bool {
        let place = |item: &Item| (item.tag, item.sequence);
        self.read_on().tags.items.last().map(place) == source.sent.last().map(place)
    }

    /// Reads what has come since the last look.
    fn read_on(&self) -> RefMut<'_, Reading> {
        let mut reading = self.reading.borrow_mut();
        if reading.wrap.is_none() {
            let Some(response) = self.response() else { return reading };
            reading.bytes = response.head.len() + 4;
            let is_chunked = response.field("transfer-encoding") == Some("chunked");
            reading.wrap = Some(match response.status {
                200 if is_chunked => Wrap::Chunks,
                200 => Wrap::Bare,
                101 => Wrap::Frames,
                status => panic!("status {status}: {}", response.head),
            });
        }
        let received = self.received.lock().unwrap();
        let Reading { wrap, bytes, file, tags } = &mut *reading;
        let mut rest = &received.bytes[*bytes..];
        match wrap {
            Some(Wrap::Chunks) => take_chunks(&mut rest, file),
            Some(Wrap::Frames) => {
                let frames = take_frames(&mut rest).into_iter();
                file.extend(frames.filter(|(opcode, _)| *opcode == 2).flat_map(|(_, it)| it));
            }
            Some(Wrap::Bare) | None => file.extend_from_slice(std::mem::take(&mut rest)),
        }
        *bytes = received.bytes.len() - rest.len();
        let mut rest = file.as_slice();
        take_tags(&mut rest, tags);
        let read = file.len() - rest.len();
        file.drain(..read);
        reading
    }

    /// What the chunks so far carry.
    pub fn unchunked_body(&self) -> Vec<u8> {
        self.response().map_or_else(Vec::new, |response| unchunked(&response.body))
    }

    /// The frames of a WebSocket.
    pub fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        self.response().map_or_else(Vec::new, |response| frames(&response.body))
    }
}

/// What whole chunks carry.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    take_chunks(&mut body, &mut file);
    file
}

/// Takes whole chunks; the last, empty one must be the end.
fn take_chunks(body: &mut &[u8], file: &mut Vec<u8>) {
    while let Some(line) = body.windows(2).position(|window| window == b"\r\n") {
        let digits = std::str::from_utf8(&body[..line]).unwrap();
        let length = usize::from_str_radix(digits, 16).unwrap();
        let Some(chunk) = body.get(line + 2..line + 2 + length + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with a line end");
        file.extend_from_slice(&chunk[..length]);
        *body = &body[line + 2 + length + 2..];
        assert!(length > 0 || body.is_empty(), "nothing behind the last chunk");
    }
}

/// Whole frames of a server, unmasked: opcode and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    take_frames(&mut bytes)
}

fn take_frames(bytes: &mut &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, second, tail @ ..] = *bytes {
        assert_eq!(first & 0xF0, 0x80, "final, no reserved bits");
        let (length, tail) = match (second, tail) {
            (126, [a, b, tail @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), tail),
            (127, [a, b, c, d, e, f, g, h, tail @ ..]) => {
                let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (usize::try_from(length).unwrap(), tail)
            }
            (126 | 127, _) => break,
            (length, tail) => (usize::from(*length), tail),
        };
        let Some(payload) = tail.get(..length) else { break };
        frames.push((first & 0x0F, payload.to_vec()));
        *bytes = &tail[length..];
    }
    frames
}

/// Takes whole tags; checks that each is followed by its size.
fn take_tags(file: &mut &[u8], tags: &mut Tags) {
    if !tags.has_begun {
        if file.len() < 13 {
            return;
        }
        assert_eq!(&file[..4], b"FLV\x01");
        assert_eq!(&file[5..13], &[0, 0, 0, 9, 0, 0, 0, 0]);
        tags.flags = file[4];
        tags.has_begun = true;
        *file = &file[13..];
    }
    while file.len() >= 11 {
        let length = usize::try_from(u32::from_be_bytes([0, file[1], file[2], file[3]])).unwrap();
        let timestamp = u32::from_be_bytes([file[7], file[4], file[5], file[6]]);
        if file.len() < 11 + length + 4 {
            break;
        }
        let body = &file[11..11 + length];
        let size = u32::from_be_bytes(file[11 + length..15 + length].try_into().unwrap());
        assert_eq!(size, u32::try_from(11 + length).unwrap());
        match file[0] {
            8 => tags.items.push(Item::parse(MediaKind::Audio, timestamp, body)),
            9 => tags.items.push(Item::parse(MediaKind::Video, timestamp, body)),
            18 => tags.scripts += 1,
            kind => panic!("a tag of type {kind}"),
        }
        *file = &file[15 + length..];
    }
}
