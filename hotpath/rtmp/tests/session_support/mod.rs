//! A peer that says anything, and sees what a server session answers, as text.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this")]

use rtmp::chunk::Framing;
use rtmp::handshake::{Client, ClientVariant};
use rtmp::message::{Control, MessageHeader, kind};
use rtmp::session::transcript::Transcript;
use rtmp::session::{ConnectRequest, Event, MediaKind, ServerSession, SessionConfig, SessionError};
use rtmp::{Millis, amf0};

pub const NOW: Millis = Millis(1_000);

/// A peer with a server session at its other end.
pub struct Peer {
    pub session: ServerSession,
    pub now: Millis,
    /// The last `connect`, as the owner got it.
    pub connect: ConnectRequest,
    framing: Framing,
    replies: Transcript,
    /// Bytes the session did not consume yet.
    unread: Vec<u8>,
}

pub fn config() -> SessionConfig {
    SessionConfig { connection_id: "c-1".into(), ..SessionConfig::default() }
}

impl Peer {
    /// Handshake done, nothing said.
    pub fn shaken(config: SessionConfig) -> Self {
        let mut session = ServerSession::new(config, 7, NOW);
        let mut out = Vec::new();
        let mut client = Client::new(ClientVariant::Simple, 8, &mut out);
        assert_eq!(session.handle_bytes(NOW, &mut out.as_slice()), Ok(None));
        let mut replies = Vec::new();
        session.take_replies(&mut replies);
        let mut out = Vec::new();
        assert_eq!(client.handle_bytes(&mut replies.as_slice(), &mut out), Ok(true));
        assert_eq!(session.handle_bytes(NOW, &mut out.as_slice()), Ok(None));
        Self {
            session,
            now: NOW,
            connect: ConnectRequest::default(),
            framing: Framing { chunk_bytes: 128 },
            replies: Transcript::without_handshake(),
            unread: Vec::new(),
        }
    }

    /// Connected to app `live`; replies so far are thrown away.
    pub fn connected_with(config: SessionConfig) -> Self {
        let mut peer = Self::shaken(config);
        let events = peer.command(0, "connect", 1.0, |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.object_end();
        });
        assert_eq!(events, ["Connect live"]);
        peer.session.accept_connect();
        peer.replies();
        peer
    }

    pub fn connected() -> Self {
        Self::connected_with(config())
    }

    /// Connected, publishing `name` on stream 1.
    pub fn publishing() -> Self {
        let mut peer = Self::connected();
        peer.create_stream();
        assert_eq!(peer.publish(1, "name"), ["Publish 1 \"name\" Live"]);
        peer.session.accept_publish(1);
        peer.replies();
        peer
    }

    /// Connected, playing `name` on stream 1.
    pub fn playing() -> Self {
        let mut peer = Self::connected();
        peer.create_stream();
        assert_eq!(peer.play(1, "name").len(), 1);
        peer.session.accept_play(1);
        peer.replies();
        peer
    }

    pub fn create_stream(&mut self) {
        assert!(self.command(0, "createStream", 4.0, |amf| amf.null()).is_empty());
    }

    pub fn publish(&mut self, msid: u32, name: &str) -> Vec<String> {
        self.command(msid, "publish", 5.0, |amf| {
            amf.null();
            amf.string(name);
            amf.string("live");
        })
    }

    pub fn play(&mut self, msid: u32, name: &str) -> Vec<String> {
        self.command(msid, "play", 5.0, |amf| {
            amf.null();
            amf.string(name);
        })
    }

    /// Sends a command; `write` adds everything after the transaction.
    pub fn command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        write: impl FnOnce(&mut amf0::Writer<'_>),
    ) -> Vec<String> {
        self.try_command(msid, name, transaction, write).expect("the session goes on")
    }

    pub fn try_command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        write: impl FnOnce(&mut amf0::Writer<'_>),
    ) -> Result<Vec<String>, SessionError> {
        let body = command_body(name, transaction, write);
        self.try_message(3, kind::COMMAND_AMF0, msid, 0, &body)
    }

    pub fn control(&mut self, control: Control) -> Vec<String> {
        let mut body = Vec::new();
        control.write_body(&mut body);
        let events = self.message(2, control.kind(), 0, 0, &body);
        if let Control::SetChunkSize(chunk_bytes) = control {
            self.framing = Framing { chunk_bytes };
        }
        events
    }

    pub fn message(&mut self, csid: u32, kind: u8, msid: u32, ts: u32, body: &[u8]) -> Vec<String> {
        self.try_message(csid, kind, msid, ts, body).expect("the session goes on")
    }

    pub fn try_message(
        &mut self,
        csid: u32,
        kind: u8,
        msid: u32,
        timestamp: u32,
        body: &[u8],
    ) -> Result<Vec<String>, SessionError> {
        let bytes = self.framed(csid, kind, msid, timestamp, body);
        self.try_feed(&bytes)
    }

    pub fn framed(&self, csid: u32, kind: u8, msid: u32, timestamp: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        let header = MessageHeader { csid, kind, msid, timestamp, length };
        let mut bytes = Vec::new();
        self.framing.write_message(&header, body, &mut bytes);
        bytes
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.try_feed(bytes).expect("the session goes on")
    }

    /// Offers bytes behind those not consumed yet, until the session wants no more.
    pub fn try_feed(&mut self, bytes: &[u8]) -> Result<Vec<String>, SessionError> {
        self.unread.extend_from_slice(bytes);
        let all = core::mem::take(&mut self.unread);
        let mut input = all.as_slice();
        let mut events = Vec::new();
        while let Some(event) = self.session.handle_bytes(self.now, &mut input)? {
            events.push(describe(&event));
            if let Event::Connect(request) = event {
                self.connect = *request;
            }
        }
        self.unread = input.to_vec();
        Ok(events)
    }

    pub fn unread_bytes(&self) -> usize {
        self.unread.len()
    }

    pub fn reply_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.session.take_replies(&mut bytes);
        bytes
    }

    /// The replies since the last call: `msid N: text`.
    pub fn replies(&mut self) -> Vec<String> {
        let bytes = self.reply_bytes();
        self.replies.feed(&bytes).iter().map(|line| short(line)).collect()
    }
}

/// A transcript line without what is the same in all replies.
pub fn short(line: &str) -> String {
    let (facts, text) = line.split_once(": ").unwrap_or((line, ""));
    let msid = facts.split(" msid ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("?");
    format!("{msid}: {text}")
}

pub fn command_body(
    name: &str,
    transaction: f64,
    write: impl FnOnce(&mut amf0::Writer<'_>),
) -> Vec<u8> {
    let mut body = Vec::new();
    let mut amf = amf0::Writer::new(&mut body);
    amf.string(name);
    amf.number(transaction);
    write(&mut amf);
    body
}

pub fn data_body(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::Writer::new(&mut body).string(name);
    body
}

/// One event in a line.
pub fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Connect(request) => format!("Connect {}", request.app),
        Event::Publish(request) => {
            format!("Publish {} {:?} {:?}", request.msid, request.name, request.mode)
        }
        Event::Play(request) => format!(
            "Play {} {:?} raw {:?} start {} duration {} reset {}",
            request.msid,
            request.name,
            request.name_raw,
            request.start,
            request.duration,
            request.reset
        ),
        Event::Media(part) => {
            let kind = match part.audio_or_video {
                MediaKind::Audio => "audio",
                MediaKind::Video => "video",
            };
            let mark = match (part.first, part.last) {
                (true, true) => " whole",
                (true, false) => " first",
                (false, true) => " last",
                (false, false) => "",
            };
            format!(
                "Media {} {kind} ts {} at {} of {}{mark} {:?}",
                part.msid, part.timestamp, part.offset, part.length, part.body
            )
        }
        Event::Data(data) => {
            format!("Data {} ts {} {}", data.msid, data.timestamp, data.body.escape_ascii())
        }
        other => format!("{other:?}"),
    }
}
