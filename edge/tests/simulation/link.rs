//! One client connection: a session over a simulated socket, with everything received on record.
//!
//! What the client's own reader made of the bytes is compared at the end with what the slow
//! reference reader makes of them.

use std::net::SocketAddr;

use super::media::{AUDIO, DATA, VIDEO};
use super::wire::Wire;
use rtmp::limits::ReaderLimits;
use rtmp::session::{ClientConfig, ClientEvent, ClientSession, MediaKind, MediaPart};
use rtmp::{Millis, reference};

/// S0, S1 and S2.
const HANDSHAKE_BYTES: usize = 1 + 1536 + 1536;

/// What happened on a connection.
#[derive(Debug)]
pub enum Heard {
    Connected(Option<String>),
    Published,
    PlayStarted,
    Status {
        msid: u32,
        code: String,
    },
    Message(Received),
    /// An init segment of fragmented MP4: the sequence headers in it.
    Init(Vec<Received>),
    /// The server goes away, and asks to come again elsewhere.
    AskedToReconnect,
    /// The server refused, with this code.
    Refused(String),
    /// The other end went in order, but not where a stream may end.
    CutOff,
    /// The other end is gone.
    Gone,
}

/// A whole media or data message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub kind: u8,
    pub msid: u32,
    pub timestamp: u32,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Link {
    peer: Option<Wire>,
    pub session: ClientSession,
    out: Vec<u8>,
    unread: Vec<u8>,
    record: Vec<u8>,
    messages: Vec<Received>,
    /// Bytes it sends at most in a millisecond: its way to the server is no wider.
    pub uplink_bytes_max: Option<usize>,
    /// When it last sent something there.
    sent_at_ms: u64,
    /// Messages in the making, by chunk stream.
    partial: Vec<(u32, Received)>,
}

impl Link {
    pub fn new(peer: Wire, config: ClientConfig, random: u64, now: Millis) -> Self {
        Self {
            peer: Some(peer),
            session: ClientSession::new(config, random, now),
            out: Vec::new(),
            unread: Vec::new(),
            record: Vec::new(),
            messages: Vec::new(),
            uplink_bytes_max: None,
            sent_at_ms: 0,
            partial: Vec::new(),
        }
    }

    pub fn is_open(&self) -> bool {
        self.peer.is_some()
    }

    /// Its own address, while its socket is open.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.peer.as_ref().map(Wire::local_addr)
    }

    /// Nothing waits for room in the socket.
    pub fn is_flushed(&self) -> bool {
        let is_taken = self.peer.as_ref().is_none_or(Wire::is_flushed);
        is_taken && self.out.is_empty() && !self.session.has_replies()
    }

    /// When more of what it has to say may go.
    pub fn next_at_ms(&self) -> u64 {
        match self.uplink_bytes_max {
            Some(_) if !self.out.is_empty() => self.sent_at_ms + 1,
            _ => u64::MAX,
        }
    }

    /// What is to be sent behind everything so far.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.session.take_replies(&mut self.out);
        &mut self.out
    }

    /// Moves bytes both ways, at most `read_bytes_max` in.
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
        let bytes = peer.read(read_bytes_max)?;
        self.record.extend_from_slice(&bytes);
        self.unread.extend_from_slice(&bytes);
        self.feed(now, &mut heard)?;
        let Some(peer) = &mut self.peer else { return Ok(heard) };
        self.session.take_replies(&mut self.out);
        let allowed = match self.uplink_bytes_max {
            Some(_) if self.sent_at_ms == now.0 => 0,
            // What would take seconds goes faster.
            Some(bytes_max) => bytes_max.max(self.out.len() / 64).min(self.out.len()),
            None => self.out.len(),
        };
        if allowed > 0 {
            self.sent_at_ms = now.0;
        }
        let written = peer.write(&self.out[..allowed])?;
        self.out.drain(..written);
        if peer.is_eof() || peer.error().is_some() {
            self.peer = None;
            heard.push(Heard::Gone);
        }
        Ok(heard)
    }

    fn feed(&mut self, now: Millis, heard: &mut Vec<Heard>) -> Result<(), String> {
        let unread = std::mem::take(&mut self.unread);
        let mut input = unread.as_slice();
        loop {
            match self.session.handle_bytes(now, &mut input) {
                Ok(Some(event)) => {
                    note(event, &mut self.partial, &mut self.messages, heard)?;
                }
                Ok(None) if input.is_empty() => return Ok(()),
                Ok(None) => self.session.take_replies(&mut self.out),
                Err(rtmp::session::SessionError::Refused { code, .. }) => {
                    heard.push(Heard::Refused(code));
                    return Ok(());
                }
                Err(error) => return Err(format!("the server's bytes cannot be read: {error}")),
            }
        }
    }

    /// Lets go of the socket, in order or with a reset.
    pub fn hang_up(&mut self, reset: bool) {
        if let Some(peer) = self.peer.take() {
            if reset { peer.reset() } else { peer.close() }
        }
    }

    /// The whole recording, read again by the reference reader, must say the same.
    pub fn judge_by_reference(&self) -> Result<(), String> {
        let Some(recording) = self.record.get(HANDSHAKE_BYTES..) else { return Ok(()) };
        let transcript = reference::read_all(recording, ReaderLimits::default());
        if let Some(error) = transcript.error {
            return Err(format!("the reference reader refuses the recording: {error}"));
        }
        let media = |kind| matches!(kind, AUDIO | VIDEO | DATA);
        let said: Vec<_> =
            transcript.messages.iter().filter(|message| media(message.header.kind)).collect();
        let notices = |body: &[u8]| !body.starts_with(b"\x02\x00\x0aonMetaData");
        let said: Vec<_> = said
            .into_iter()
            .filter(|message| message.header.kind != DATA || !notices(&message.body))
            .collect();
        if said.len() != self.messages.len() {
            let (reference, ours) = (said.len(), self.messages.len());
            return Err(format!("the reference reader sees {reference} messages, ours {ours}"));
        }
        for (reference, ours) in said.iter().zip(&self.messages) {
            let header = &reference.header;
            let same = (header.kind, header.msid, header.timestamp)
                == (ours.kind, ours.msid, ours.timestamp)
                && reference.body == ours.body;
            if !same {
                return Err(format!("the readers disagree on {header:?}"));
            }
        }
        Ok(())
    }
}

fn note(
    event: ClientEvent<'_>,
    partial: &mut Vec<(u32, Received)>,
    messages: &mut Vec<Received>,
    heard: &mut Vec<Heard>,
) -> Result<(), String> {
    let mut take = |message: Received| {
        messages.push(message.clone());
        heard.push(Heard::Message(message));
    };
    match event {
        ClientEvent::Connected(info) => heard.push(Heard::Connected(info.connection_id)),
        ClientEvent::Published { .. } => heard.push(Heard::Published),
        ClientEvent::PlayStarted { .. } => heard.push(Heard::PlayStarted),
        ClientEvent::Status(status) | ClientEvent::StreamEnded(status) => {
            heard.push(Heard::Status { msid: status.msid, code: status.code });
        }
        ClientEvent::Media(part) => {
            if let Some(whole) = assemble(&part, partial)? {
                take(whole);
            }
        }
        ClientEvent::Data(data) if data.body.starts_with(b"\x02\x00\x0aonMetaData") => {
            let (msid, timestamp) = (data.msid, data.timestamp);
            take(Received { kind: DATA, msid, timestamp, body: data.body.to_vec() });
        }
        ClientEvent::ReconnectRequest { .. } => heard.push(Heard::AskedToReconnect),
        ClientEvent::MediaAborted { .. } => return Err("the server aborted a message".to_owned()),
        _ => {}
    }
    Ok(())
}

fn assemble(
    part: &MediaPart<'_>,
    partial: &mut Vec<(u32, Received)>,
) -> Result<Option<Received>, String> {
    let found = partial.iter().position(|(csid, _)| *csid == part.csid);
    if part.first {
        if found.is_some() {
            return Err("a message begins inside another on its chunk stream".to_owned());
        }
        let kind = match part.audio_or_video {
            MediaKind::Audio => AUDIO,
            MediaKind::Video => VIDEO,
        };
        let (msid, timestamp) = (part.msid, part.timestamp);
        partial.push((part.csid, Received { kind, msid, timestamp, body: Vec::new() }));
    }
    let found = partial.iter().position(|(csid, _)| *csid == part.csid);
    let Some(at) = found else { return Err("a part without a beginning".to_owned()) };
    partial[at].1.body.extend_from_slice(part.body);
    Ok(part.last.then(|| partial.swap_remove(at).1))
}
