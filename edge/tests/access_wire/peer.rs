//! RTMP clients that go to any domain of the server under test, whatever its address is: many on one thread.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp::Millis;
use rtmp::session::{
    ClientConfig, ClientEvent, ClientRole, ClientSession, MediaKind, SessionError, Status,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::PATIENCE;
use crate::support::media::{Item, Kind, Source};

/// What the server has answered to a publish or play.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// It goes on.
    Started,
    /// Code and description of the refusal.
    Refused(String, String),
}

/// One client.
pub(crate) struct Peer {
    socket: Option<TcpStream>,
    session: ClientSession,
    out: Vec<u8>,
    partial: HashMap<u32, Vec<u8>>,
    pub(crate) role: ClientRole,
    /// Name of the connection in the log and the API.
    pub(crate) id: Option<String>,
    /// `None` until it is answered.
    pub(crate) answer: Option<Answer>,
    /// Codes and descriptions that came after the answer.
    pub(crate) statuses: Vec<(String, String)>,
    pub(crate) items: Vec<Item>,
}

impl Peer {
    /// The connection is no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.socket.is_none()
    }

    /// Number of the last frame.
    pub(crate) fn last_sequence(&self) -> Option<u32> {
        self.items.iter().rev().find(|item| item.is_frame()).map(|item| item.sequence)
    }

    /// Media messages of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }

    fn transfer(&mut self, now: Millis, buffer: &mut [u8]) {
        self.receive(now, buffer);
        self.session.take_replies(&mut self.out);
        while let Some(socket) = self.socket.as_mut().filter(|_| !self.out.is_empty()) {
            match socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The reading side tells how it ended.
                Err(_) => self.out.clear(),
            }
        }
    }

    fn receive(&mut self, now: Millis, buffer: &mut [u8]) {
        for _ in 0..16 {
            let Some(socket) = &mut self.socket else { return };
            let mut input = match socket.read(buffer) {
                Ok(0) => return self.socket = None,
                Ok(count) => &buffer[..count],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.socket = None,
            };
            loop {
                match self.session.handle_bytes(now, &mut input) {
                    Ok(Some(event)) => note(
                        event,
                        &mut self.partial,
                        (&mut self.id, &mut self.answer, &mut self.statuses, &mut self.items),
                    ),
                    Ok(None) if !input.is_empty() && self.session.has_replies() => {
                        self.session.take_replies(&mut self.out);
                    }
                    Ok(None) => break,
                    Err(SessionError::Refused { code, description, .. }) => {
                        self.answer = Some(Answer::Refused(code, description));
                    }
                    Err(error) => panic!("the server broke the protocol: {error}"),
                }
            }
        }
    }
}

type Facts<'p> = (
    &'p mut Option<String>,
    &'p mut Option<Answer>,
    &'p mut Vec<(String, String)>,
    &'p mut Vec<Item>,
);

fn note(
    event: ClientEvent<'_>,
    partial: &mut HashMap<u32, Vec<u8>>,
    (id, answer, statuses, items): Facts<'_>,
) {
    match event {
        ClientEvent::Connected(info) => *id = info.connection_id,
        ClientEvent::Published { .. } | ClientEvent::PlayStarted { .. } => {
            *answer = Some(Answer::Started);
        }
        ClientEvent::Status(Status { code, description, .. })
        | ClientEvent::StreamEnded(Status { code, description, .. }) => {
            statuses.push((code, description));
        }
        ClientEvent::Media(part) => {
            let body = partial.entry(part.csid).or_default();
            if part.first {
                body.clear();
            }
            body.extend_from_slice(part.body);
            if part.last {
                items.push(Item::parse(part.audio_or_video, part.timestamp, body));
            }
        }
        _ => {}
    }
}

/// An address taken apart as clients do.
fn config(role: ClientRole, address: &str) -> ClientConfig {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let (tc_url, name) = path.rsplit_once('/').expect("an address has a path");
    let app = tc_url.splitn(4, '/').nth(3).expect("an address has an app");
    let stream = if query.is_empty() { name.to_owned() } else { format!("{name}?{query}") };
    ClientConfig {
        tc_url: tc_url.to_owned(),
        app: app.to_owned(),
        stream,
        role,
        chunk_bytes_out: 4_096,
        ..ClientConfig::default()
    }
}

/// All clients of a test. They connect to the server whatever host their address names.
pub(crate) struct Wire {
    server: SocketAddr,
    pub(crate) peers: Vec<Peer>,
    begun: Instant,
    buffer: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, peers: Vec::new(), begun: Instant::now(), buffer: vec![0; 65_536] }
    }

    /// From now on clients go to this server.
    pub(crate) fn move_to(&mut self, server: SocketAddr) {
        self.server = server;
    }

    /// A client that asks to publish; returns its index.
    pub(crate) fn publish(&mut self, address: &str) -> usize {
        self.open(ClientRole::Publish, address)
    }

    /// A client that asks to play; returns its index.
    pub(crate) fn play(&mut self, address: &str) -> usize {
        self.open(ClientRole::Play, address)
    }

    /// A client of either role.
    pub(crate) fn open(&mut self, role: ClientRole, address: &str) -> usize {
        self.open_as(config(role, address))
    }

    /// A client that says exactly this.
    pub(crate) fn open_as(&mut self, config: ClientConfig) -> usize {
        let socket = TcpStream::connect(self.server).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_nodelay(true).unwrap();
        let (role, random) = (config.role, self.peers.len() as u64);
        let session = ClientSession::new(Arc::new(config), random, self.now());
        self.peers.push(Peer {
            socket: Some(socket),
            session,
            out: Vec::new(),
            partial: HashMap::new(),
            role,
            id: None,
            answer: None,
            statuses: Vec::new(),
            items: Vec::new(),
        });
        self.peers.len() - 1
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap())
    }

    /// One round: waits a few milliseconds at most for any socket, then moves what can be moved.
    pub(crate) fn turn(&mut self) {
        {
            let sockets = self.peers.iter().filter_map(|peer| Some((peer.socket.as_ref()?, peer)));
            let mut fds: Vec<PollFd<'_>> = sockets
                .map(|(socket, peer)| {
                    let is_idle = peer.out.is_empty() && !peer.session.has_replies();
                    let out = if is_idle { PollFlags::empty() } else { PollFlags::OUT };
                    PollFd::new(socket, PollFlags::IN | out)
                })
                .collect();
            let timeout = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };
            // An interrupted wait is a short one.
            let _ = poll(&mut fds, Some(&timeout));
        }
        let now = self.now();
        for peer in &mut self.peers {
            peer.transfer(now, &mut self.buffer);
        }
    }

    /// Turns until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            self.turn();
        }
    }

    /// Waits for the server's answer to a client.
    pub(crate) fn answer(&mut self, peer: usize) -> Answer {
        self.until("an answer", |wire| {
            let peer = &wire.peers[peer];
            assert!(peer.answer.is_some() || !peer.has_ended(), "ended without an answer");
            peer.answer.is_some()
        });
        self.peers[peer].answer.clone().expect("awaited above")
    }

    /// A client that must be let in.
    #[track_caller]
    pub(crate) fn started(&mut self, role: ClientRole, address: &str) -> usize {
        let peer = self.open(role, address);
        assert_eq!(self.answer(peer), Answer::Started, "{role:?} {address}");
        peer
    }

    /// A client that must be refused; code and text. Then the connection must end.
    #[track_caller]
    pub(crate) fn refused(&mut self, role: ClientRole, address: &str) -> (String, String) {
        let peer = self.open(role, address);
        match self.answer(peer) {
            Answer::Refused(code, text) => {
                self.until_ended(peer);
                (code, text)
            }
            Answer::Started => panic!("{role:?} {address} was let in"),
        }
    }

    /// Waits until a client's connection is no more.
    pub(crate) fn until_ended(&mut self, peer: usize) {
        self.until("the end of a connection", |wire| wire.peers[peer].has_ended());
    }

    /// Queues metadata and sequence headers.
    pub(crate) fn send_headers(&mut self, peer: usize, source: &Source) {
        let peer = &mut self.peers[peer];
        peer.session.take_replies(&mut peer.out);
        peer.session.write_data(source.timestamp, &source.metadata(), &mut peer.out);
        let (video, audio) = (source.video_header(), source.audio_header());
        peer.session.write_media(MediaKind::Video, source.timestamp, &video, &mut peer.out);
        peer.session.write_media(MediaKind::Audio, source.timestamp, &audio, &mut peer.out);
    }

    /// Queues so many pictures with their audio.
    pub(crate) fn send_frames(&mut self, peer: usize, source: &mut Source, count: u32) {
        let peer = &mut self.peers[peer];
        peer.session.take_replies(&mut peer.out);
        for _ in 0..count {
            for (media, timestamp, body) in source.next_pair() {
                peer.session.write_media(media, timestamp, &body, &mut peer.out);
            }
        }
    }

    /// Publishes frames until a player has what was sent after this call.
    #[track_caller]
    pub(crate) fn expect_flow(&mut self, publisher: usize, player: usize, source: &mut Source) {
        self.send_frames(publisher, source, 3);
        let last = source.sent.last().expect("frames were sent").sequence;
        self.until("frames to flow", |wire| {
            assert!(!wire.peers[player].has_ended(), "the player was cut");
            wire.peers[player].last_sequence() == Some(last)
        });
    }

    /// Says goodbye as encoders and players do, then closes.
    pub(crate) fn leave(&mut self, peer: usize) {
        self.peers[peer].session.close();
        self.until("the goodbye to be sent", |wire| {
            let peer = &wire.peers[peer];
            peer.has_ended() || (peer.out.is_empty() && !peer.session.has_replies())
        });
        self.peers[peer].socket = None;
    }

    /// The sending side ends without a word: FIN, as when a process dies.
    pub(crate) fn vanish(&mut self, peer: usize) {
        if let Some(socket) = &self.peers[peer].socket {
            // Fails only when the server was quicker.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// The socket ends with a reset.
    pub(crate) fn reset(&mut self, peer: usize) {
        if let Some(socket) = self.peers[peer].socket.take() {
            rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        }
    }
}
