//! A viewer over HTTP: a socket, a thread that reads it, and readers of what has come.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rtmp::session::MediaKind;

use crate::support::PATIENCE;
use crate::support::media::Item;
use crate::support::server::wait_for;

/// A key of RFC 6455 §1.3, whose answer is known.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    has_ended: bool,
}

/// One connection to the server.
pub(crate) struct Viewer {
    socket: TcpStream,
    wants_head: bool,
    received: Arc<Mutex<Received>>,
}

/// A response: its head, and what has come of its body.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A field of the head.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What stands in an FLV file or in WebSocket frames of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tags {
    /// Flags of the file header: 4 sound, 1 pictures.
    pub(crate) flags: u8,
    pub(crate) items: Vec<Item>,
    pub(crate) scripts: usize,
}

impl Viewer {
    /// Connects and sends `bytes`.
    pub(crate) fn send(addr: SocketAddr, bytes: &[u8]) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        let received = Arc::new(Mutex::new(Received::default()));
        let (mut reader, sink) = (socket.try_clone().unwrap(), Arc::clone(&received));
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(bytes @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().bytes.extend_from_slice(&buffer[..bytes]);
            }
            sink.lock().unwrap().has_ended = true;
        });
        Self { socket, wants_head: bytes.starts_with(b"HEAD "), received }
    }

    /// Asks for a path.
    pub(crate) fn get(addr: SocketAddr, path: &str) -> Self {
        Self::send(addr, format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
    }

    /// Asks for a path with another method, host or further fields.
    pub(crate) fn ask(
        addr: SocketAddr,
        method: &str,
        path: &str,
        host: &str,
        fields: &str,
    ) -> Self {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        Self::send(addr, request.as_bytes())
    }

    /// Asks for a WebSocket.
    pub(crate) fn websocket(addr: SocketAddr, path: &str, host: &str) -> Self {
        let fields = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        Self::ask(addr, "GET", path, host, &fields)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.received.lock().unwrap().bytes.clone()
    }

    /// Forgets what has come.
    pub(crate) fn forget(&mut self) {
        self.received.lock().unwrap().bytes.clear();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.received.lock().unwrap().has_ended
    }

    pub(crate) fn wait_end(&self) {
        wait_for("the server to end the connection", || self.has_ended());
    }

    /// The response so far, once its head is there.
    pub(crate) fn response(&self) -> Option<Response> {
        let bytes = self.bytes();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Response { status, head, body: bytes[end + 4..].to_vec() })
    }

    /// The whole response, by its length or by the end of the connection.
    pub(crate) fn wait_response(&self) -> Response {
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
    pub(crate) fn tags(&self) -> Tags {
        let Some(response) = self.response() else { return Tags::default() };
        match response.status {
            200 if response.field("transfer-encoding") == Some("chunked") => {
                parse_flv(&unchunked(&response.body))
            }
            200 => parse_flv(&response.body),
            101 => {
                let frames = frames(&response.body);
                let file: Vec<u8> = frames
                    .iter()
                    .filter(|(opcode, _)| *opcode == 2)
                    .flat_map(|(_, payload)| payload.clone())
                    .collect();
                parse_flv(&file)
            }
            status => panic!("status {status}: {}", response.head),
        }
    }

    /// What the chunks so far carry.
    pub(crate) fn unchunked_body(&self) -> Vec<u8> {
        self.response().map_or_else(Vec::new, |response| unchunked(&response.body))
    }

    /// The frames of a WebSocket.
    pub(crate) fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        self.response().map_or_else(Vec::new, |response| frames(&response.body))
    }
}

/// What whole chunks carry; the last, empty one must be the end.
fn unchunked(body: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut rest = body;
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let digits = std::str::from_utf8(&rest[..line]).unwrap();
        let length = usize::from_str_radix(digits, 16).unwrap();
        let Some(chunk) = rest.get(line + 2..line + 2 + length + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with a line end");
        file.extend_from_slice(&chunk[..length]);
        rest = &rest[line + 2 + length + 2..];
        assert!(length > 0 || rest.is_empty(), "nothing behind the last chunk");
    }
    file
}

/// Whole frames of a server, unmasked: opcode and payload.
fn frames(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut rest = bytes;
    while let [first, second, tail @ ..] = rest {
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
        rest = &tail[length..];
    }
    frames
}

/// Whole tags; checks that each is followed by its size.
fn parse_flv(file: &[u8]) -> Tags {
    let mut tags = Tags::default();
    if file.len() < 13 {
        return tags;
    }
    assert_eq!(&file[..4], b"FLV\x01");
    assert_eq!(&file[5..13], &[0, 0, 0, 9, 0, 0, 0, 0]);
    tags.flags = file[4];
    let mut rest = &file[13..];
    while rest.len() >= 11 {
        let length = usize::try_from(u32::from_be_bytes([0, rest[1], rest[2], rest[3]])).unwrap();
        let timestamp = u32::from_be_bytes([rest[7], rest[4], rest[5], rest[6]]);
        if rest.len() < 11 + length + 4 {
            break;
        }
        let body = &rest[11..11 + length];
        let size = u32::from_be_bytes(rest[11 + length..15 + length].try_into().unwrap());
        assert_eq!(size, u32::try_from(11 + length).unwrap());
        match rest[0] {
            8 => tags.items.push(Item::parse(MediaKind::Audio, timestamp, body)),
            9 => tags.items.push(Item::parse(MediaKind::Video, timestamp, body)),
            18 => tags.scripts += 1,
            kind => panic!("a tag of type {kind}"),
        }
        rest = &rest[15 + length..];
    }
    tags
}
