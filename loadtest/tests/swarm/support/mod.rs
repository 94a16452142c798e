//! A server of a hundred lines: sessions of the protocol crate over blocking sockets, one thread per
//! connection. It forwards what is published, from the last keyframe on, and can be told to do so
//! badly, which is what the tests are about.

pub(crate) mod http;
pub(crate) mod secure;

use rtmp::MessageHeader;
use rtmp::Millis;
use rtmp::chunk::Framing;
use rtmp::session::{Event, MediaKind, MediaPart, PlayError, ServerSession, SessionConfig};
use rtmp::tag;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What the server does wrong.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// Leaves out every 8th frame of video.
    Drops,
    /// Sends every 8th frame of video twice.
    Repeats,
    /// Exchanges every 8th frame of video with the one after it.
    Swaps,
    /// Changes a byte at the end of every frame of video.
    Damages,
    /// Moves audio by 120 ms.
    Skews,
    /// Stops sending for good after 20 frames of video.
    Stops,
    /// Reads no more once a stream is published.
    Deaf,
}

pub(crate) type Message = (MessageHeader, Arc<Vec<u8>>);

#[derive(Default)]
pub(crate) struct Stream {
    /// Sequence headers and metadata.
    preamble: Vec<Message>,
    gop: Vec<Message>,
    viewers: Vec<Sender<Message>>,
    frames: u32,
    held: Option<Message>,
}

impl Stream {
    fn publish(&mut self, message: Message, fault: Fault) {
        let (header, body) = &message;
        let is_video = header.kind == rtmp::kind::VIDEO;
        let is_header = if is_video {
            tag::video(body).sequence_header
        } else {
            header.kind != rtmp::kind::AUDIO || tag::audio(body).sequence_header
        };
        if is_header {
            return self.preamble.push(message);
        }
        if !is_video {
            let mut message = message;
            message.0.timestamp += if fault == Fault::Skews { 120 } else { 0 };
            return self.forward(message);
        }
        self.frames += 1;
        if tag::video(body).keyframe {
            self.gop.clear();
        }
        let is_eighth = self.frames.is_multiple_of(8);
        match fault {
            Fault::Drops if is_eighth => {}
            Fault::Stops if self.frames > 20 => {}
            Fault::Swaps if is_eighth => self.held = Some(message),
            Fault::Repeats if is_eighth => {
                self.forward(message.clone());
                self.forward(message);
            }
            Fault::Damages => {
                let mut damaged = body.to_vec();
                *damaged.last_mut().unwrap() ^= 1;
                self.forward((*header, Arc::new(damaged)));
            }
            _ => self.forward(message),
        }
        if !is_eighth && let Some(held) = self.held.take() {
            self.forward(held);
        }
    }

    /// Everything from the last keyframe on, and what follows.
    pub(crate) fn subscribe(&mut self) -> Receiver<Message> {
        let (sender, receiver) = channel();
        for message in self.preamble.iter().chain(&self.gop) {
            sender.send(message.clone()).unwrap();
        }
        self.viewers.push(sender);
        receiver
    }

    fn forward(&mut self, message: Message) {
        self.viewers.retain(|viewer| viewer.send(message.clone()).is_ok());
        self.gop.push(message);
    }
}

pub(crate) type Streams = Arc<Mutex<HashMap<String, Stream>>>;

/// Starts a server; it ends with the test's process.
pub(crate) fn serve(fault: Fault) -> SocketAddr {
    serve_with(fault).0
}

/// The same, and the streams it has.
pub(crate) fn serve_with(fault: Fault) -> (SocketAddr, Streams) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let streams = Streams::default();
    let held = Arc::clone(&streams);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let streams = Arc::clone(&streams);
            thread::spawn(move || Connection::new(streams, fault).run(socket));
        }
    });
    (addr, held)
}

struct Connection {
    streams: Streams,
    fault: Fault,
    session: ServerSession,
    started: Instant,
    /// Messages under way, by csid.
    bodies: HashMap<u32, Vec<u8>>,
    publishing: Option<String>,
    playing: Option<Receiver<Message>>,
}

impl Connection {
    fn new(streams: Streams, fault: Fault) -> Connection {
        let session = ServerSession::new(SessionConfig::default(), 7, Millis(0));
        let started = Instant::now();
        let (bodies, publishing, playing) = (HashMap::new(), None, None);
        Connection { streams, fault, session, started, bodies, publishing, playing }
    }

    fn run(mut self, mut socket: TcpStream) {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            if self.fault == Fault::Deaf && self.publishing.is_some() {
                // The client leaves first: it is over then.
                while !matches!(socket.take_error(), Ok(Some(_))) && socket.write(&[]).is_ok() {
                    thread::park_timeout(Duration::from_secs(30));
                }
                break;
            }
            let read = match socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => 0,
                Err(_) => break,
            };
            let mut out = Vec::new();
            if self.on_bytes(&buffer[..read], &mut out).is_err() {
                break;
            }
            for (header, body) in self.playing.iter().flat_map(Receiver::try_iter) {
                let chunk_bytes = self.session.chunk_sizes().1;
                Framing { chunk_bytes }.write_message(&header, &body, &mut out);
            }
            if socket.write_all(&out).is_err() {
                break;
            }
        }
        if let Some(name) = self.publishing {
            self.streams.lock().unwrap().remove(&name);
        }
    }

    fn on_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ()> {
        let now = Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap());
        let mut input = bytes;
        while let Some(event) = self.session.handle_bytes(now, &mut input).map_err(drop)? {
            self.on_event(event);
            self.session.take_replies(out);
        }
        self.session.take_replies(out);
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Connect(_) => self.session.accept_connect(),
            Event::Publish(request) => {
                self.session.accept_publish(request.msid);
                self.streams.lock().unwrap().insert(request.name.clone(), Stream::default());
                self.publishing = Some(request.name);
            }
            Event::Play(request) => self.play(request.msid, &request.name),
            Event::Media(part) => self.on_media(&part),
            Event::Data(data) => {
                let header = MessageHeader {
                    csid: 5,
                    kind: rtmp::kind::DATA_AMF0,
                    msid: 1,
                    timestamp: data.timestamp,
                    length: u32::try_from(data.body.len()).unwrap(),
                };
                self.publish((header, Arc::new(data.body.into_owned())));
            }
            _ => {}
        }
    }

    fn play(&mut self, msid: u32, name: &str) {
        let mut streams = self.streams.lock().unwrap();
        let Some(stream) = streams.get_mut(name) else {
            return self.session.reject_play(msid, PlayError::StreamNotFound, "no such stream");
        };
        self.session.accept_play(msid);
        self.playing = Some(stream.subscribe());
    }

    fn on_media(&mut self, part: &MediaPart<'_>) {
        let body = self.bodies.entry(part.csid).or_default();
        if part.first {
            body.clear();
        }
        body.extend_from_slice(part.body);
        if !part.last {
            return;
        }
        let body = std::mem::take(body);
        let header = MessageHeader {
            csid: if part.audio_or_video == MediaKind::Audio { 4 } else { 6 },
            kind: part.audio_or_video.type_id(),
            msid: 1,
            timestamp: part.timestamp,
            length: part.length,
        };
        self.publish((header, Arc::new(body)));
    }

    fn publish(&mut self, message: Message) {
        let Some(name) = &self.publishing else { return };
        if let Some(stream) = self.streams.lock().unwrap().get_mut(name) {
            stream.publish(message, self.fault);
        }
    }
}
