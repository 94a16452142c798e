//! A peer that sends what it likes: one blocking socket, bytes made by hand, and an eye on how it ends.

use super::Scene;
use crate::num::Prng;
use rtmp::amf0;
use rtmp::chunk::Framing;
use rtmp::message::{MessageHeader, kind};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// First packet of a handshake.
const HELLO_BYTES: usize = 1536;
/// Bytes of the server that are kept, the newest.
const KEPT_BYTES: usize = 16 * 1024;
/// Longest wait for one answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest time a write may rest before a peer that never reads is taken for stuck.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// Longest look for something to read between two sends.
const GLANCE: Duration = Duration::from_millis(1);

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    socket: TcpStream,
    app: String,
    patience: Duration,
    pub(crate) prng: Prng,
    received: Vec<u8>,
    sent_bytes: u64,
    end: Option<&'static str>,
}

impl Peer {
    /// Connects.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn connect(addr: SocketAddr, scene: &Scene) -> std::io::Result<Peer> {
        let socket = TcpStream::connect_timeout(&addr, ANSWER_MAX)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(WRITE_MAX))?;
        Ok(Peer {
            socket,
            app: scene.app.clone(),
            patience: scene.patience,
            prng: Prng::new(u64::from(addr.port())),
            received: Vec::new(),
            sent_bytes: 0,
            end: None,
        })
    }

    /// `fin`, `reset`, or `open`.
    pub(crate) fn end(&self) -> &'static str {
        self.end.unwrap_or("open")
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// What the server said last that one can read.
    pub(crate) fn said(&self) -> String {
        if self.received.starts_with(b"HTTP/") {
            let line = self.received.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return String::from_utf8_lossy(line).into_owned();
        }
        let starts = [b"NetConnection.".as_slice(), b"NetStream."];
        let found = (0..self.received.len()).rev().find_map(|at| {
            self.received.get(at..).filter(|rest| starts.iter().any(|s| rest.starts_with(s)))
        });
        let code =
            found.unwrap_or_default().split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.');
        String::from_utf8_lossy(code.into_iter().next().unwrap_or_default()).into_owned()
    }

    /// Sends; false once the server has ended the connection, or takes nothing more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        if self.has_ended() {
            return false;
        }
        let mut left = bytes;
        while !left.is_empty() {
            match self.socket.write(left) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    left = left.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // How it ended is what a read tells; a reset may hide what was said before it.
                Err(_) => {
                    self.read_for(GLANCE);
                    self.end.get_or_insert("reset");
                    return false;
                }
            }
        }
        true
    }

    /// Sends so many times what `bytes` makes, reading in between what the server answers.
    pub(crate) fn flood(&mut self, times: usize, mut bytes: impl FnMut(&mut Peer) -> Vec<u8>) {
        for _ in 0..times {
            let bytes = bytes(self);
            if !self.send(&bytes) {
                return;
            }
            self.read_for(GLANCE);
        }
    }

    /// Sends one byte after another with a pause between, until the server has enough or patience is over.
    pub(crate) fn drip(&mut self, bytes: &[u8], pause: Duration) {
        let deadline = Instant::now() + self.patience;
        for byte in bytes {
            if !self.send(&[*byte]) || Instant::now() >= deadline {
                return;
            }
            self.read_for(pause);
        }
    }

    /// Reads whatever comes within `span`.
    fn read_for(&mut self, span: Duration) {
        let mut buffer = [0; 16 * 1024];
        if self.has_ended() {
            return;
        }
        if self.socket.set_read_timeout(Some(span)).is_err() {
            thread::yield_now();
        }
        match self.socket.read(&mut buffer) {
            Ok(0) => self.end = Some("fin"),
            Ok(count) => {
                self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let excess = self.received.len().saturating_sub(KEPT_BYTES);
                self.received.drain(..excess);
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.end = Some("reset"),
        }
    }

    /// Reads until the server ends the connection, or patience is over.
    pub(crate) fn wait_end(&mut self) {
        let deadline = Instant::now() + self.patience;
        while !self.has_ended() && Instant::now() < deadline {
            self.read_for(Duration::from_millis(50));
        }
    }

    fn wait_for(&mut self, needle: &[u8]) {
        let deadline = Instant::now() + ANSWER_MAX;
        let has = |received: &[u8]| received.windows(needle.len()).any(|part| part == needle);
        while !has(&self.received) && !self.has_ended() && Instant::now() < deadline {
            self.read_for(Duration::from_millis(10));
        }
    }

    /// Does the RTMP handshake.
    pub(crate) fn shake(&mut self) {
        let mut hello = vec![3];
        hello.resize(1 + HELLO_BYTES, 0);
        self.send(&hello);
        let deadline = Instant::now() + ANSWER_MAX;
        while self.received.len() < 1 + 2 * HELLO_BYTES && Instant::now() < deadline {
            if self.has_ended() {
                return;
            }
            self.read_for(Duration::from_millis(10));
        }
        let echo = self.received.get(1..=HELLO_BYTES).unwrap_or_default().to_vec();
        self.received.clear();
        self.send(&echo);
    }

    /// Handshake and connect.
    pub(crate) fn introduce(&mut self) {
        self.shake();
        let app = self.app.clone();
        let bytes = command(0, "connect", |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string(&app);
            amf.key("tcUrl");
            amf.string(&format!("rtmp://127.0.0.1/{app}"));
            amf.object_end();
        });
        self.send(&bytes);
        self.wait_for(b"NetConnection.Connect.Success");
    }

    /// A stream of its own, published or played on message stream 1.
    pub(crate) fn begin(&mut self, what: &str, name: &str) {
        self.introduce();
        self.send(&command(0, "createStream", |amf| amf.null()));
        self.wait_for(b"_result");
        let bytes = command(1, what, |amf| {
            amf.null();
            amf.string(name);
        });
        self.send(&bytes);
        self.wait_for(b".Start");
    }
}

/// A command in chunks of 128 bytes.
pub(crate) fn command(msid: u32, name: &str, write: impl FnOnce(&mut amf0::Writer<'_>)) -> Vec<u8> {
    raw_command(msid, name, |body| write(&mut amf0::Writer::new(body)))
}

/// A command whose arguments are bytes.
pub(crate) fn raw_command(msid: u32, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    let mut amf = amf0::Writer::new(&mut body);
    amf.string(name);
    amf.number(1.0);
    write(&mut body);
    message(3, kind::COMMAND_AMF0, msid, &body)
}

/// One message in chunks of 128 bytes.
pub(crate) fn message(csid: u32, kind: u8, msid: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let header = MessageHeader { csid, kind, msid, timestamp: 0, length };
    let mut out = Vec::new();
    Framing { chunk_bytes: 128 }.write_message(&header, body, &mut out);
    out
}

/// Header of a message whose body does not come, or not in this way.
pub(crate) fn announcement(csid: u8, kind: u8, msid: u32, length: u32) -> Vec<u8> {
    let [_, high, middle, low] = length.to_be_bytes();
    let mut bytes = vec![csid, 0, 0, 0, high, middle, low, kind];
    bytes.extend_from_slice(&msid.to_le_bytes());
    bytes
}
