//! Body of the fuzz target `session_ops`: a peer that speaks well-formed messages in any order, and junk.
//!
//! What is asserted beyond "no panic": the events do not depend on how the bytes are cut; the parts of each
//! message follow one another without gap; media comes only for a stream that is being published; replies
//! are readable; memory stays below its limit; nothing comes out of a session that is closing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::config::SessionConfig;
use super::event::{Event, PlayError, PublishError};
use super::server::ServerSession;
use crate::Millis;
use crate::amf0::Writer;
use crate::chunk::{ChunkReader, Framing};
use crate::handshake::PACKET_BYTES;
use crate::limits::ReaderLimits;
use crate::message::{Control, MessageHeader, kind};

const NAMES: [&str; 20] = [
    "connect",
    "createStream",
    "publish",
    "play",
    "play2",
    "pause",
    "seek",
    "deleteStream",
    "closeStream",
    "FCPublish",
    "FCUnpublish",
    "releaseStream",
    "receiveAudio",
    "receiveVideo",
    "getStreamLength",
    "FCSubscribe",
    "_checkbw",
    "_result",
    "onStatus",
    "x",
];

/// Runs a session on what `data` describes, twice with different cuts.
///
/// # Panics
/// When the session breaks a promise.
pub fn session_ops(data: &[u8]) {
    let (policy, ops) = data.split_first().unwrap_or((&0, &[]));
    let stream = Peer::default().stream(ops);
    let whole = Run::new(*policy).feed(&stream, |_| usize::MAX);
    let mut state = u64::from(*policy) + 1;
    let cut = Run::new(*policy).feed(&stream, |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 40).unwrap_or(0) + 1
    });
    assert_eq!(whole, cut, "events depend on the cut");
}

/// Turns fuzz bytes into the bytes of a peer.
#[derive(Default)]
struct Peer {
    out: Vec<u8>,
    chunk_bytes: u32,
}

impl Peer {
    fn stream(mut self, mut ops: &[u8]) -> Vec<u8> {
        self.chunk_bytes = 128;
        // A peer that begins as it should gets the fuzzer past the first gates.
        let depth = ops.first().map_or(2, |op| op % 4);
        if depth > 0 {
            self.command(0, "connect", &[]);
            self.command(0, "createStream", &[]);
            self.command(0, "createStream", &[]);
        }
        if depth > 1 {
            self.command(1, "publish", &[2]);
        }
        while let Some((&op, rest)) = ops.split_first() {
            let taken = rest.len().min(usize::from(op >> 3) + 1);
            let (args, rest) = rest.split_at(taken);
            ops = rest;
            self.op(op % 8, args);
        }
        self.out
    }

    fn op(&mut self, op: u8, args: &[u8]) {
        let at = |index: usize| args.get(index).copied().unwrap_or(0);
        let msid = u32::from(at(0) % 4);
        match op {
            0 | 1 => {
                let name = NAMES.get(usize::from(at(1)) % NAMES.len()).copied().unwrap_or("x");
                self.command(msid, name, args.get(2..).unwrap_or_default());
            }
            2 => self.message(u32::from(at(1) % 5) + 3, kind::VIDEO, msid, args),
            3 => self.message(4, kind::AUDIO, msid, args),
            4 => {
                let (kind, mut body) = match at(1) % 3 {
                    0 => (kind::DATA_AMF0, Vec::new()),
                    1 => (kind::DATA_AMF3, Vec::from([0])),
                    _ => (kind::AGGREGATE, Vec::new()),
                };
                if at(2) % 2 == 0 && kind != kind::AGGREGATE {
                    Writer::new(&mut body).string("@setDataFrame");
                }
                body.extend_from_slice(args.get(3..).unwrap_or_default());
                self.message(5, kind, msid, &body);
            }
            5 => {
                let body = args.get(1..).unwrap_or_default();
                self.message(2, at(0) % 8, 0, body);
                let control = Control::parse(at(0) % 8, body, Default::default());
                if let Ok(Some(Control::SetChunkSize(bytes))) = control {
                    self.chunk_bytes = bytes.clamp(1, 1 << 20);
                }
            }
            6 => self.aggregate(msid, args),
            // Junk ends a session soon, so it is rare.
            _ if at(0) % 8 == 0 => self.out.extend_from_slice(args),
            _ => self.torn(msid, args),
        }
    }

    /// A video message of which only a first chunk is sent.
    fn torn(&mut self, msid: u32, args: &[u8]) {
        let body = args.repeat(200);
        let before = self.out.len();
        self.message(6, kind::VIDEO, msid, &body);
        let chunk_bytes = usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX);
        self.out.truncate(before.saturating_add(12).saturating_add(chunk_bytes));
    }

    fn command(&mut self, msid: u32, name: &str, args: &[u8]) {
        let mut body = Vec::new();
        let mut amf = Writer::new(&mut body);
        amf.string(name);
        amf.number(f64::from(args.len() > 1));
        if name == "connect" {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.object_end();
        } else {
            amf.null();
        }
        for arg in args {
            match arg % 4 {
                0 => amf.number(f64::from(arg >> 2)),
                1 => amf.boolean(arg & 4 != 0),
                2 => amf.string(if arg & 4 == 0 { "mp4:a" } else { "b?k=v" }),
                _ => amf.null(),
            }
        }
        self.message(3, kind::COMMAND_AMF0, msid, &body);
    }

    /// An aggregate whose tags have sizes that fit.
    fn aggregate(&mut self, msid: u32, args: &[u8]) {
        let mut body = Vec::new();
        for tag in args.chunks(7) {
            let kind = match tag.first().copied().unwrap_or(0) % 4 {
                0 => kind::AUDIO,
                1 => kind::VIDEO,
                2 => kind::DATA_AMF0,
                _ => 99,
            };
            let length = u8::try_from(tag.len()).unwrap_or(0);
            body.extend_from_slice(&[kind, 0, 0, length, 0, 0, length, 0, 0, 0, 0]);
            body.extend_from_slice(tag);
            body.extend_from_slice(&[0, 0, 0, length + 11]);
        }
        self.message(6, kind::AGGREGATE, msid, &body);
    }

    fn message(&mut self, csid: u32, kind: u8, msid: u32, body: &[u8]) {
        let length = super::inbound::len_u32(body.len());
        let header = MessageHeader { csid, kind, msid, timestamp: length, length };
        Framing { chunk_bytes: self.chunk_bytes }.write_message(&header, body, &mut self.out);
    }
}

/// One session and what it said.
struct Run {
    session: ServerSession,
    policy: u8,
    requests: u32,
    log: Vec<String>,
    /// csid, bytes so far and length of messages that have begun.
    open: Vec<(u32, u32, u32, usize)>,
    replies: ChunkReader,
}

impl Run {
    fn new(policy: u8) -> Self {
        let config = SessionConfig::default();
        let mut session = ServerSession::new(config, 1, Millis(0));
        let mut handshake = alloc::vec![0; 1 + 2 * PACKET_BYTES];
        if let Some(version) = handshake.first_mut() {
            *version = 3;
        }
        let shaken = session.handle_bytes(Millis(0), &mut handshake.as_slice());
        assert_eq!(shaken, Ok(None), "the handshake");
        session.take_replies(&mut Vec::new());
        let replies = ChunkReader::new(ReaderLimits::default());
        Self { session, policy, requests: 0, log: Vec::new(), open: Vec::new(), replies }
    }

    fn feed(mut self, stream: &[u8], mut cut: impl FnMut(usize) -> usize) -> Vec<String> {
        let mut fed = 0;
        while fed < stream.len() {
            let end = fed.saturating_add(cut(fed)).min(stream.len());
            let mut input = stream.get(fed..end).unwrap_or_default();
            fed = end;
            loop {
                let left = input.len();
                match self.session.handle_bytes(Millis(1), &mut input) {
                    Ok(Some(event)) => self.on_event(&event),
                    Ok(None) => {
                        let had_replies = self.session.has_replies();
                        self.check_replies();
                        if input.is_empty() {
                            break;
                        }
                        assert!(had_replies, "input left without a reason");
                    }
                    Err(error) => {
                        self.check_replies();
                        assert!(self.session.is_closing(), "an error that goes on");
                        self.log.push(String::from(error.label()));
                        return self.log;
                    }
                }
                assert!(input.len() <= left, "input grew");
            }
            assert!(self.session.held_bytes() < 2 << 20, "too much held");
            if self.session.is_closing() {
                return self.log;
            }
        }
        self.log
    }

    fn on_event(&mut self, event: &Event<'_>) {
        assert!(!self.session.is_closing(), "an event of a closing session");
        self.requests += 1;
        let accepted = (u32::from(self.policy) >> (self.requests % 8)) & 1 == 0;
        match event {
            Event::Connect(_) => self.session.accept_connect(),
            Event::Publish(request) if accepted => self.session.accept_publish(request.msid),
            Event::Publish(request) => {
                self.session.reject_publish(request.msid, PublishError::Denied, "no");
            }
            Event::Play(request) if accepted => self.session.accept_play(request.msid),
            Event::Play(request) => {
                self.session.reject_play(request.msid, PlayError::Failed, "no");
            }
            Event::Media(part) => return self.on_media(part),
            Event::MediaAborted { csid, .. } => {
                assert!(self.open.iter().any(|open| open.0 == *csid), "nothing to abort");
                self.open.retain(|open| open.0 != *csid);
            }
            Event::Unpublish { msid } => {
                assert!(!self.session.is_publishing(*msid), "still publishing");
                // What was open on the stream is void.
                let session = &self.session;
                self.open.retain(|open| session.is_publishing(open.1));
            }
            _ => {}
        }
        self.log.push(format!("{event:?}"));
    }

    /// Parts are not counted as requests and are joined, since they depend on the cut.
    fn on_media(&mut self, part: &super::event::MediaPart<'_>) {
        self.requests -= 1;
        assert!(self.session.is_publishing(part.msid), "media without a publisher");
        let known = self.open.iter().position(|open| open.0 == part.csid);
        assert_eq!(known.is_none(), part.first, "first part");
        let (offset, line) = match known {
            Some(index) => {
                let open = self.open.swap_remove(index);
                (open.2, open.3)
            }
            None => {
                let (kind, msid, timestamp) = (part.audio_or_video, part.msid, part.timestamp);
                self.log.push(format!("{kind:?} {msid} {timestamp} {}", part.length));
                (0, self.log.len() - 1)
            }
        };
        assert_eq!(offset, part.offset, "a gap");
        let end = offset + super::inbound::len_u32(part.body.len());
        assert_eq!(end == part.length, part.last, "last part");
        if let Some(text) = self.log.get_mut(line) {
            for byte in part.body {
                text.push_str(&format!(" {byte:02x}"));
            }
        }
        if !part.last {
            self.open.push((part.csid, part.msid, end, line));
        }
    }

    fn check_replies(&mut self) {
        let mut bytes = Vec::new();
        self.session.take_replies(&mut bytes);
        let mut input = bytes.as_slice();
        while let Some(part) = self.replies.next(&mut input).unwrap_or_else(|error| {
            unreachable!("a reply that cannot be read: {error}");
        }) {
            if part.header.kind == kind::SET_CHUNK_SIZE {
                let size = Control::parse(part.header.kind, part.body, Default::default());
                if let Ok(Some(Control::SetChunkSize(size))) = size {
                    let set = self.replies.set_chunk_size(size);
                    assert!(set.is_ok(), "our own chunk size");
                }
            }
        }
        assert_eq!(self.replies.held_bytes(), 0, "a reply that is not complete");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn sessions_keep_their_promises_on_anything(data in prop::collection::vec(any::<u8>(), 0..600)) {
            session_ops(&data);
        }
    }

    /// If this fails the fuzzer has gone blind.
    #[test]
    fn media_aggregates_and_aborts_are_within_reach() {
        let video = [26, 1, 0, 7, 7];
        let aggregate = [30, 1, 5, 5, 5];
        let torn = [31, 1, 5, 5, 5];
        let ops = [&video[..], &aggregate, &torn, &aggregate].concat();
        let log = Run::new(0).feed(&Peer::default().stream(&ops), |_| usize::MAX);
        let text = log.join("\n");
        assert!(text.contains("Video 1 4 4 01 00 07 07"), "{text}");
        assert!(text.contains("Video 1 19 4 01 05 05 05"), "{text}");
        assert!(text.contains("MediaAborted { csid: 6, msid: 1, kind: Video }"), "{text}");
    }

    #[test]
    fn the_shortest_inputs_are_harmless() {
        session_ops(&[]);
        for byte in 0..=255 {
            session_ops(&[byte]);
            session_ops(&[0, byte, byte]);
        }
    }
}
