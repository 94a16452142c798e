//! Recorded bytes fed to a session, with an application behind it that says yes to everything.
//!
//! Time stands still and the handshake's randomness has a fixed seed, so that replies are the same each time.

use std::borrow::Cow;

use rtmp::Millis;
use rtmp::chunk::ChunkReader;
use rtmp::limits::ReaderLimits;
use rtmp::message::{Control, MessageHeader};
use rtmp::reference::Message;
use rtmp::session::{
    ClientConfig, ClientEvent, ClientRole, ClientSession, ConnectRequest, DataMessage, Event,
    MediaPart, PlayRequest, PublishRequest, ServerSession, SessionConfig, SessionError,
};

use crate::folder::Capture;

const NOW: Millis = Millis(1_000);
const SEED: u64 = 7;
/// Stands where the recorded server had a number of its own.
const CONNECTION_ID: &str = "golden";
/// First bytes of a data message that are shown.
const DATA_BYTES_SHOWN: usize = 32;

/// How a recording is cut into calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    Whole,
    Bytes,
    At(usize),
}

impl Cut {
    pub(crate) fn parts(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        let (front, back) = match self {
            Self::Whole => (bytes, &[][..]),
            Self::Bytes => (&[][..], bytes),
            Self::At(split) => bytes.split_at(split),
        };
        let step = if matches!(self, Self::Bytes) { 1 } else { bytes.len().max(1) };
        front.chunks(bytes.len().max(1)).chain(back.chunks(step))
    }
}

/// One thing that was heard; media and data are whole messages.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Connect(ConnectRequest),
    Publish(PublishRequest),
    Play(PlayRequest),
    Media { msid: u32, kind: u8, timestamp: u32, body: Vec<u8> },
    Data { msid: u32, timestamp: u32, body: Vec<u8> },
    Other(String),
}

/// All that a session heard and answered.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    items: Vec<Item>,
    pub(crate) replies: Vec<u8>,
    pub(crate) error: Option<String>,
    bytes_in: u64,
    /// Messages that lack parts, each with its chunk stream.
    open: Vec<(u32, Item)>,
}

/// What becomes of c2s.bin in a server session.
pub(crate) fn server(c2s: &[u8], cut: Cut) -> Heard {
    let config = SessionConfig { connection_id: CONNECTION_ID.into(), ..SessionConfig::default() };
    let mut session = ServerSession::new(config, SEED, NOW);
    let mut heard = Heard::default();
    for part in cut.parts(c2s) {
        if heard.error.is_some() {
            break;
        }
        heard.listen(part, |input, heard| {
            let event = session.handle_bytes(NOW, input);
            match event {
                Ok(Some(event)) => heard.on_server_event(event, &mut session),
                Ok(None) => {
                    session.take_replies(&mut heard.replies);
                    return Ok(false);
                }
                Err(error) => {
                    session.take_replies(&mut heard.replies);
                    return Err(error);
                }
            }
            Ok(true)
        });
    }
    heard.bytes_in = session.bytes_in();
    heard
}

/// s2c.bin with the answer to createStream numbered as our client numbers its question. Our replies to
/// commands are shorter than a chunk, so each lies in one piece.
pub(crate) fn answers_renumbered(capture: &Capture) -> Vec<u8> {
    const OURS: f64 = 4.0;
    const RESULT: &[u8] = b"\x02\x00\x07_result\x00";
    const CREATE_STREAM: &[u8] = b"\x02\x00\x0ccreateStream\x00";
    let number_at = |bytes: &[u8]| f64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"));
    let question = capture.c2s.windows(CREATE_STREAM.len()).position(|name| name == CREATE_STREAM);
    let theirs = number_at(&capture.c2s[question.expect("createStream") + CREATE_STREAM.len()..]);
    let mut answers = capture.s2c.clone();
    for end in RESULT.len()..answers.len() {
        if answers[..end].ends_with(RESULT) {
            let number = number_at(&answers[end..]);
            let ours = if number == theirs { OURS } else { number };
            let renumbered = if number == OURS { theirs } else { ours };
            answers[end..end + 8].copy_from_slice(&renumbered.to_be_bytes());
        }
    }
    answers
}

/// What becomes of answers in a client session of ours.
pub(crate) fn client(s2c: &[u8], role: ClientRole, cut: Cut) -> Heard {
    let config = ClientConfig {
        tc_url: "rtmp://127.0.0.1/live".into(),
        app: "live".into(),
        stream: "golden".into(),
        role,
        ..ClientConfig::default()
    };
    let mut session = ClientSession::new(config, SEED, NOW);
    let mut heard = Heard::default();
    for part in cut.parts(s2c) {
        if heard.error.is_some() {
            break;
        }
        heard.listen(part, |input, heard| match session.handle_bytes(NOW, input)? {
            Some(event) => {
                heard.on_client_event(event);
                Ok(true)
            }
            None => {
                session.take_replies(&mut heard.replies);
                Ok(false)
            }
        });
    }
    heard.bytes_in = session.bytes_in();
    heard
}

/// Whole messages found by the chunk reader alone.
pub(crate) fn messages(chunks: &[u8], cut: Cut) -> Vec<Message> {
    let mut reader = ChunkReader::new(ReaderLimits::default());
    let mut open: Vec<Message> = Vec::new();
    let mut whole = Vec::new();
    for mut input in cut.parts(chunks) {
        while let Some(part) = reader.next(&mut input).expect("readable") {
            let MessageHeader { csid, kind, .. } = part.header;
            if part.first {
                open.retain(|message| message.header.csid != csid);
                open.push(Message { header: part.header, body: Vec::new() });
            }
            let index = open.iter().position(|message| message.header.csid == csid);
            let index = index.expect("begun by an earlier part");
            open[index].body.extend_from_slice(part.body);
            if part.last {
                let message = open.swap_remove(index);
                if let Ok(Some(Control::SetChunkSize(bytes))) =
                    Control::parse(kind, &message.body, rtmp::error::Place::default())
                {
                    reader.set_chunk_size(bytes).expect("a size in range");
                }
                whole.push(message);
            }
        }
        assert!(input.is_empty(), "{} bytes were left", input.len());
    }
    whole
}

impl Heard {
    /// Offers bytes until they are used up. `step` hands one event on, or tells that there is none.
    fn listen<'b>(
        &mut self,
        bytes: &'b [u8],
        mut step: impl FnMut(&mut &'b [u8], &mut Self) -> Result<bool, SessionError>,
    ) {
        let mut input = bytes;
        loop {
            let (left, replies) = (input.len(), self.replies.len());
            match step(&mut input, self) {
                Ok(true) => {}
                Ok(false) if input.is_empty() => return,
                // Taking the replies makes room; anything else would be a standstill.
                Ok(false) => assert!(
                    input.len() < left || self.replies.len() > replies,
                    "stuck with {left} bytes left"
                ),
                Err(error) => {
                    self.error = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn on_server_event(&mut self, event: Event<'_>, session: &mut ServerSession) {
        match event {
            Event::Connect(request) => {
                self.items.push(Item::Connect(*request));
                session.accept_connect();
            }
            Event::Publish(request) => {
                session.accept_publish(request.msid);
                self.items.push(Item::Publish(request));
            }
            Event::Play(request) => {
                session.accept_play(request.msid);
                self.items.push(Item::Play(*request));
            }
            Event::Media(part) => self.on_media(part),
            Event::Data(data) => self.on_data(data),
            other => self.items.push(Item::Other(format!("{other:?}"))),
        }
    }

    fn on_client_event(&mut self, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Media(part) => self.on_media(part),
            ClientEvent::Data(data) => self.on_data(data),
            other => self.items.push(Item::Other(format!("{other:?}"))),
        }
    }

    fn on_data(&mut self, data: DataMessage<'_>) {
        let DataMessage { msid, timestamp, body } = data;
        self.items.push(Item::Data { msid, timestamp, body: Cow::into_owned(body) });
    }

    fn on_media(&mut self, part: MediaPart<'_>) {
        if part.first {
            let MediaPart { msid, audio_or_video, timestamp, .. } = part;
            let kind = audio_or_video.type_id();
            self.open.push((part.csid, Item::Media { msid, kind, timestamp, body: Vec::new() }));
        }
        let index = self.open.iter().position(|(csid, _)| *csid == part.csid);
        let index = index.expect("begun by an earlier part");
        if let Item::Media { body, .. } = &mut self.open[index].1 {
            assert_eq!(body.len(), part.offset as usize, "parts come in order");
            body.extend_from_slice(part.body);
            assert_eq!(part.last, body.len() == part.length as usize, "the last part completes");
        }
        if part.last {
            self.items.push(self.open.swap_remove(index).1);
        }
    }

    /// Kind, timestamp and body of each media message.
    pub(crate) fn media(&self) -> impl Iterator<Item = (u8, u32, &[u8])> {
        self.items.iter().filter_map(|item| match item {
            Item::Media { kind, timestamp, body, .. } => Some((*kind, *timestamp, body.as_slice())),
            _ => None,
        })
    }

    pub(crate) fn assert_same(&self, other: &Self, name: &str, cut: Cut) {
        if self == other {
            return;
        }
        for (index, (whole, cut_up)) in self.items.iter().zip(&other.items).enumerate() {
            assert_eq!(whole.line(), cut_up.line(), "{name}, {cut:?}: event {index}");
        }
        assert_eq!(self.items.len(), other.items.len(), "{name}, {cut:?}: number of events");
        assert_eq!(self.error, other.error, "{name}, {cut:?}");
        assert_eq!(self.bytes_in, other.bytes_in, "{name}, {cut:?}: bytes consumed");
        assert!(self.replies == other.replies, "{name}, {cut:?}: other replies");
        panic!("{name}, {cut:?}: another message is left open");
    }

    /// One line for each event but media, of which there is one for each kind.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.items.iter().filter_map(Item::line).collect();
        for (kind, name) in [(8, "audio"), (9, "video")] {
            let mut hash = Fnv::default();
            let (mut count, mut bytes, mut last) = (0, 0, 0);
            for (_, timestamp, body) in self.media().filter(|(found, ..)| *found == kind) {
                count += 1;
                bytes += body.len();
                last = timestamp;
                hash.update(&timestamp.to_be_bytes());
                hash.update(body);
            }
            let hash = hash.0;
            lines.push(format!(
                "{name}: {count} messages, {bytes} bytes, last ts {last}, fnv {hash:016x}"
            ));
        }
        lines.push(format!("{} bytes consumed, {} messages open", self.bytes_in, self.open.len()));
        lines.extend(self.error.as_ref().map(|error| format!("error: {error}")));
        lines
    }
}

impl Item {
    fn line(&self) -> Option<String> {
        match self {
            Self::Connect(request) => Some(format!("{request:?}")),
            Self::Publish(request) => Some(format!("{request:?}")),
            Self::Play(request) => Some(format!("{request:?}")),
            Self::Media { .. } => None,
            Self::Data { msid, timestamp, body } => {
                let shown = body[..body.len().min(DATA_BYTES_SHOWN)].escape_ascii();
                let length = body.len();
                Some(format!("Data msid {msid} ts {timestamp} len {length}: {shown}"))
            }
            Self::Other(text) => Some(text.clone()),
        }
    }
}

/// FNV-1a, 64 bits: short enough to be read here.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3);
        }
    }
}
