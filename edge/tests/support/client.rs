//! Many RTMP clients on one thread: non-blocking sockets, one `poll`, and for each client what it
//! saw, in order.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp::Millis;
use rtmp::amf0;
use rtmp::message::MessageHeader;
use rtmp::session::{
    ClientConfig, ClientEvent, ClientRole, ClientSession, MediaKind, SessionError,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::PATIENCE;
use super::media::{Item, Kind, Source};

/// Frames that may be on their way to who reads when [`Net::send_frame_for`] sends more.
const AHEAD_MAX: usize = 20;

/// One thing a client saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Started { msid: u32 },
    Metadata { msid: u32, width: u32 },
    Media { msid: u32, item: Item },
    Status { msid: u32, code: String },
    Begin { msid: u32 },
    Eof { msid: u32 },
    Reconnect,
}

/// How the server ended a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Fin,
    Reset,
}

/// One RTMP client.
pub struct Client {
    socket: Option<TcpStream>,
    session: ClientSession,
    config: Arc<ClientConfig>,
    out: Vec<u8>,
    held_back: Option<Vec<u8>>,
    partial: HashMap<u32, Vec<u8>>,
    /// Only a connection of this worker will do.
    wanted_worker: Option<u16>,
    /// Reads nothing while set.
    pub is_frozen: bool,
    /// `ringcast_id` of the connect reply.
    pub id: Option<String>,
    pub seen: Vec<Seen>,
    pub bytes_in: u64,
    pub ended: Option<Ended>,
    pub error: Option<SessionError>,
}

impl Client {
    /// The server has answered publish or play.
    pub fn has_started(&self) -> bool {
        self.seen.iter().any(|seen| matches!(seen, Seen::Started { .. }))
    }

    /// Media messages in order, on any message stream.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Media { item, .. } => Some(item),
            _ => None,
        })
    }

    /// Frames, that is media without headers.
    pub fn frames(&self) -> impl Iterator<Item = &Item> {
        self.items().filter(|item| item.is_frame())
    }

    /// The last frame.
    pub fn last_frame(&self) -> Option<&Item> {
        self.seen.iter().rev().find_map(|seen| match seen {
            Seen::Media { item, .. } if item.is_frame() => Some(item),
            _ => None,
        })
    }

    /// The last frame's number.
    pub fn last_sequence(&self) -> Option<u32> {
        self.last_frame().map(|item| item.sequence)
    }

    /// Whether a status with this code came.
    pub fn has_status(&self, code: &str) -> bool {
        let refused =
            matches!(&self.error, Some(SessionError::Refused { code: found, .. }) if found == code);
        refused
            || self
                .seen
                .iter()
                .any(|seen| matches!(seen, Seen::Status { code: found, .. } if found == code))
    }

    /// Worker that serves it.
    pub fn worker(&self) -> Option<u16> {
        self.id.as_ref()?.split('-').next()?.parse().ok()
    }

    /// Queues a command the session does not send by itself.
    pub fn command(&mut self, msid: u32, name: &str, write: impl FnOnce(&mut amf0::Writer<'_>)) {
        self.session.send_command(msid, name, 9.0, write);
    }

    /// Queues a media message on any message stream and chunk stream.
    pub fn write_raw(&mut self, csid: u32, msid: u32, media: MediaKind, at: u32, body: &[u8]) {
        self.session.take_replies(&mut self.out);
        let length = u32::try_from(body.len()).unwrap();
        let header = MessageHeader { csid, kind: media.type_id(), msid, timestamp: at, length };
        self.session.framing().write_message(&header, body, &mut self.out);
    }

    /// Queues bytes as they are, behind what is queued.
    pub fn write_bytes(&mut self, bytes: &[u8]) {
        self.session.take_replies(&mut self.out);
        self.out.extend_from_slice(bytes);
    }

    fn write_media(&mut self, media: MediaKind, at: u32, body: &[u8]) {
        self.session.take_replies(&mut self.out);
        assert!(self.session.write_media(media, at, body, &mut self.out), "it publishes");
    }

    /// Takes the last bytes of what is queued out again, to be written later. Whatever else there is to say
    /// meanwhile, a pong for one, has to wait: it would stand in the middle of a chunk.
    pub fn hold_back(&mut self, bytes: usize) {
        self.session.take_replies(&mut self.out);
        let rest = self.out.split_off(self.out.len().saturating_sub(bytes));
        assert!(self.held_back.replace(rest).is_none(), "nothing else is held back");
    }

    /// Queues what was held back.
    pub fn let_go(&mut self) {
        let rest = self.held_back.take().expect("something was held back");
        self.out.extend_from_slice(&rest);
    }

    /// Everything queued is with the kernel.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty() && (self.held_back.is_some() || !self.session.has_replies())
    }

    fn transfer(&mut self, now: Millis, buffer: &mut [u8]) {
        if self.socket.is_none() {
            return;
        }
        if !self.is_frozen {
            self.receive(now, buffer);
        }
        if self.held_back.is_none() {
            self.session.take_replies(&mut self.out);
        }
        while let Some(socket) = self.socket.as_mut().filter(|_| !self.out.is_empty()) {
            match socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    // The reading side tells how it ended; what it still has to say is read first.
                    self.out.clear();
                }
            }
        }
    }

    fn receive(&mut self, now: Millis, buffer: &mut [u8]) {
        for _ in 0..16 {
            let Some(socket) = &mut self.socket else { return };
            let count = match socket.read(buffer) {
                Ok(0) => return self.end(Ended::Fin),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.end(Ended::Reset),
            };
            self.bytes_in += count as u64;
            let mut input = buffer.get(..count).unwrap_or_default();
            while let Some(event) = self.next_event(now, &mut input) {
                self.note(event);
            }
            // After a refusal the bytes that follow are of no interest, but the end is.
            if self.error.is_none() && !self.session.is_closed() {
                assert!(input.is_empty(), "the client consumes all it is given");
            }
        }
    }

    fn next_event(&mut self, now: Millis, input: &mut &[u8]) -> Option<Noted> {
        loop {
            match self.session.handle_bytes(now, input) {
                Ok(Some(event)) => {
                    if let Some(noted) = Noted::of(event, &mut self.partial) {
                        return Some(noted);
                    }
                }
                Ok(None) if !input.is_empty() && self.session.has_replies() => {
                    self.session.take_replies(&mut self.out);
                }
                Ok(None) => return None,
                Err(error) => {
                    self.error = Some(error);
                    return None;
                }
            }
        }
    }

    fn note(&mut self, noted: Noted) {
        match noted {
            Noted::Connected(id) => self.id = id,
            Noted::Seen(seen) => self.seen.push(seen),
        }
    }

    fn end(&mut self, how: Ended) {
        self.ended = Some(how);
        self.socket = None;
    }
}

enum Noted {
    Connected(Option<String>),
    Seen(Seen),
}

impl Noted {
    fn of(event: ClientEvent<'_>, partial: &mut HashMap<u32, Vec<u8>>) -> Option<Self> {
        Some(Self::Seen(match event {
            ClientEvent::Connected(info) => return Some(Self::Connected(info.connection_id)),
            ClientEvent::Published { msid } | ClientEvent::PlayStarted { msid } => {
                Seen::Started { msid }
            }
            ClientEvent::Status(status) | ClientEvent::StreamEnded(status) => {
                Seen::Status { msid: status.msid, code: status.code }
            }
            ClientEvent::StreamBegin { msid } => Seen::Begin { msid },
            ClientEvent::StreamEof { msid } => Seen::Eof { msid },
            ClientEvent::ReconnectRequest { .. } => Seen::Reconnect,
            ClientEvent::Data(data) => {
                let width = metadata_width(&data.body)?;
                Seen::Metadata { msid: data.msid, width }
            }
            ClientEvent::Media(part) => {
                let body = partial.entry(part.csid).or_default();
                if part.first {
                    body.clear();
                }
                body.extend_from_slice(part.body);
                if !part.last {
                    return None;
                }
                assert_eq!(body.len(), part.length as usize, "whole messages");
                let item = Item::parse(part.audio_or_video, part.timestamp, body);
                Seen::Media { msid: part.msid, item }
            }
            _ => return None,
        }))
    }
}

/// The width in `onMetaData`; `None` for other data.
fn metadata_width(body: &[u8]) -> Option<u32> {
    let at = body.windows(7).position(|window| window == b"\x00\x05width")? + 8;
    let bytes = body.get(at..at + 8)?.try_into().ok()?;
    if !body.starts_with(b"\x02\x00\x0aonMetaData") {
        return None;
    }
    // Through text: a whole number stays whole.
    f64::from_be_bytes(bytes).to_string().parse().ok()
}

/// All clients of a test.
pub struct Net {
    addr: SocketAddr,
    pub clients: Vec<Client>,
    begun: Instant,
    buffer: Vec<u8>,
    random: u64,
}

impl Net {
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            clients: Vec::new(),
            begun: Instant::now(),
            buffer: vec![0; 65_536],
            random: 1,
        }
    }

    /// A client that publishes `live/NAME`; returns its index.
    pub fn publish(&mut self, name: &str) -> usize {
        self.open(ClientRole::Publish, name, None)
    }

    /// A client that plays `live/NAME`; returns its index.
    pub fn play(&mut self, name: &str) -> usize {
        self.open(ClientRole::Play, name, None)
    }

    /// A client that publishes `live/NAME` of the domain `host`.
    pub fn publish_at(&mut self, host: &str, name: &str) -> usize {
        self.open_at(host, ClientRole::Publish, name, None)
    }

    /// A client that plays `live/NAME` of the domain `host`.
    pub fn play_at(&mut self, host: &str, name: &str) -> usize {
        self.open_at(host, ClientRole::Play, name, None)
    }

    /// Opens a client; with a worker, tries connections until one lands there.
    pub fn open(&mut self, role: ClientRole, name: &str, worker: Option<u16>) -> usize {
        self.open_at(&self.addr.to_string(), role, name, worker)
    }

    fn open_at(&mut self, host: &str, role: ClientRole, name: &str, worker: Option<u16>) -> usize {
        let config = Arc::new(ClientConfig {
            tc_url: format!("rtmp://{host}/live"),
            app: "live".to_owned(),
            stream: name.to_owned(),
            role,
            chunk_bytes_out: 4_096,
            ..ClientConfig::default()
        });
        let client = self.connect(config, worker);
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn connect(&mut self, config: Arc<ClientConfig>, wanted_worker: Option<u16>) -> Client {
        let socket = TcpStream::connect(self.addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        self.random += 1;
        Client {
            socket: Some(socket),
            session: ClientSession::new(Arc::clone(&config), self.random, self.now()),
            config,
            out: Vec::new(),
            held_back: None,
            partial: HashMap::new(),
            wanted_worker,
            is_frozen: false,
            id: None,
            seen: Vec::new(),
            bytes_in: 0,
            ended: None,
            error: None,
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap())
    }

    /// One round: waits up to a few milliseconds for any socket, then moves what can be moved.
    pub fn turn(&mut self) {
        {
            let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.clients.len());
            for client in &self.clients {
                let Some(socket) = &client.socket else { continue };
                let mut flags = PollFlags::empty();
                if !client.is_frozen {
                    flags |= PollFlags::IN;
                }
                if !client.is_flushed() {
                    flags |= PollFlags::OUT;
                }
                fds.push(PollFd::new(socket, flags));
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, Some(&timeout));
        }
        let now = self.now();
        let mut moved = Vec::new();
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.transfer(now, &mut self.buffer);
            let elsewhere = match (client.wanted_worker, client.worker()) {
                (Some(wanted), Some(worker)) => wanted != worker,
                _ => false,
            };
            if elsewhere {
                assert!(!client.has_started(), "looked at right after connect");
                moved.push(index);
            }
        }
        for index in moved {
            let (config, worker) = {
                let client = &self.clients[index];
                (Arc::clone(&client.config), client.wanted_worker)
            };
            self.clients[index] = self.connect(config, worker);
        }
    }

    /// Turns until the condition holds.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() >= deadline {
                let states: Vec<String> = self.clients.iter().take(12).map(describe).collect();
                panic!("waited in vain for {what}; clients:\n{}", states.join("\n"));
            }
            self.turn();
        }
    }

    /// Turns for as long as something takes that has no end of its own.
    pub fn during(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn();
        }
    }

    /// Waits until the clients have been told that they publish or play.
    pub fn until_started(&mut self, clients: &[usize]) {
        self.until("the answers to publish and play", |net| {
            clients.iter().all(|&index| net.clients[index].has_started())
        });
    }

    /// Sends metadata and sequence headers.
    pub fn send_headers(&mut self, publisher: usize, source: &Source) {
        let client = &mut self.clients[publisher];
        client.session.take_replies(&mut client.out);
        let sent = client.session.write_data(source.timestamp, &source.metadata(), &mut client.out);
        assert!(sent, "it publishes");
        client.write_media(MediaKind::Video, source.timestamp, &source.video_header());
        client.write_media(MediaKind::Audio, source.timestamp, &source.audio_header());
    }

    /// Queues so many pictures with their audio.
    pub fn send_frames(&mut self, publisher: usize, source: &mut Source, count: u32) {
        for _ in 0..count {
            for (media, timestamp, body) in source.next_pair() {
                self.clients[publisher].write_media(media, timestamp, &body);
            }
        }
    }

    /// Queues one picture more, unless `reader` has many still to come: a stream that runs faster than its
    /// clock leaves behind whoever has no processor for a moment.
    pub fn send_frame_for(&mut self, publisher: usize, source: &mut Source, reader: usize) {
        let taken = self.clients[reader].last_sequence().unwrap_or(0) as usize;
        if source.sent.len() < taken + AHEAD_MAX {
            self.send_frames(publisher, source, 1);
        }
    }

    /// Queues the same on any message stream, for connections that publish several.
    pub fn send_frames_on(&mut self, publisher: usize, msid: u32, source: &mut Source, count: u32) {
        for _ in 0..count {
            for (media, timestamp, body) in source.next_pair() {
                let csid = 10 * msid + u32::from(media == MediaKind::Audio);
                self.clients[publisher].write_raw(csid, msid, media, timestamp, &body);
            }
        }
    }

    /// Waits until the clients have the last frame that the source has made.
    pub fn until_received(&mut self, players: &[usize], source: &Source) {
        let last = source.sent.last().expect("something was sent");
        self.until("the last frame", |net| {
            players.iter().all(|&index| {
                let client = &net.clients[index];
                assert_eq!((client.ended, &client.error), (None, &None), "client {index}");
                client
                    .last_frame()
                    .is_some_and(|item| (item.tag, item.sequence) == (last.tag, last.sequence))
            })
        });
    }

    /// Says goodbye as encoders do, and waits until it is with the kernel.
    pub fn unpublish(&mut self, publisher: usize) {
        self.clients[publisher].session.close();
        self.until("the goodbye to be sent", |net| net.clients[publisher].is_flushed());
    }

    /// Makes the kernel hold little for a client that does not read.
    pub fn shrink_receive_buffer(&mut self, index: usize) {
        let socket = self.clients[index].socket.as_ref().expect("it is connected");
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, 16_384).unwrap();
    }

    /// The client reads nothing, and the kernel holds little for it: soon the server is in the middle of a
    /// message.
    pub fn freeze(&mut self, index: usize) {
        self.shrink_receive_buffer(index);
        self.clients[index].is_frozen = true;
    }

    /// It reads again, and with room enough: through a window far smaller than a segment of loopback the
    /// rest would come at the pace of the sender's timer.
    pub fn thaw(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.is_frozen = false;
        let socket = client.socket.as_ref().expect("it is connected");
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, 1 << 20).unwrap();
    }

    /// The sending side ends without a word: FIN, as when a process dies.
    pub fn vanish(&mut self, index: usize) {
        if let Some(socket) = &self.clients[index].socket {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }

    /// The socket ends with a reset.
    pub fn reset(&mut self, index: usize) {
        if let Some(socket) = self.clients[index].socket.take() {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        }
    }
}

fn describe(client: &Client) -> String {
    let tail: Vec<&Seen> = client.seen.iter().rev().take(3).rev().collect();
    format!(
        "  {:?} {} id={:?} started={} seen={} bytes={} unsent={} ended={:?} error={:?} last={tail:?}",
        client.config.role,
        client.config.stream,
        client.id,
        client.has_started(),
        client.seen.len(),
        client.bytes_in,
        client.out.len(),
        client.ended,
        client.error,
    )
}

/// The player got, from the frame it began with, exactly what was sent, intact, in order, with the
/// distances in time that were sent. Returns the number of the frame it began with.
pub fn assert_complete(player: &Client, source: &Source) -> usize {
    let got: Vec<&Item> = player.frames().collect();
    let first = got.first().expect("the player got something");
    assert_eq!(first.kind, Kind::Keyframe, "a player begins with a keyframe");
    let from = first.sequence as usize;
    let sent = source.sent.get(from..).expect("the frame was sent");
    let shift_ms = first.timestamp.wrapping_sub(sent[0].timestamp);
    for (got, sent) in got.iter().zip(sent) {
        let expected = Item { timestamp: sent.timestamp.wrapping_add(shift_ms), ..*sent };
        assert_eq!(**got, expected, "client {:?}", player.id);
    }
    assert_eq!(got.len(), sent.len(), "client {:?} got every frame", player.id);
    assert!(got.iter().all(|item| item.intact));
    from
}

/// Metadata and both sequence headers come before the first frame.
pub fn assert_headers_first(player: &Client) {
    let first_frame = player
        .seen
        .iter()
        .position(|seen| matches!(seen, Seen::Media { item, .. } if item.is_frame()))
        .expect("a frame");
    let before = &player.seen[..first_frame];
    let at = |wanted: fn(&Seen) -> bool| before.iter().position(wanted);
    let metadata = at(|seen| matches!(seen, Seen::Metadata { .. })).expect("metadata");
    let is =
        |seen: &Seen, kind: Kind| matches!(seen, Seen::Media { item, .. } if item.kind == kind);
    let video = before.iter().position(|seen| is(seen, Kind::VideoHeader)).expect("video header");
    let audio = before.iter().position(|seen| is(seen, Kind::AudioHeader)).expect("audio header");
    assert!(metadata < video && metadata < audio, "metadata comes first: {before:?}");
}
