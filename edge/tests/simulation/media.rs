//! What simulated publishers send, and the log of it that judges what subscribers receive.
//!
//! Every body names its publisher's session and its own place in that session's log, so a message
//! is recognised wherever it turns up, and is then compared with the log byte for byte.

use std::rc::Rc;

/// What a message is to a player.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Class {
    Video { keyframe: bool },
    Audio,
    VideoHeader,
    AudioHeader,
    Metadata,
}

pub const AUDIO: u8 = 8;
pub const VIDEO: u8 = 9;
pub const DATA: u8 = 18;

/// Longest distance of keyframes, in milliseconds.
const GOP_MS_MAX: u64 = 4_000;
/// Headers of the slices pictures are made of.
pub const SLICE_IDR: u8 = 0x65;
pub const SLICE: u8 = 0x41;
/// Over the numbers in a mark, so that none looks like the start code of a unit in MPEG-TS.
const MASK: u32 = 0xA5A5_A5A5;

impl Class {
    /// RTMP message type id.
    pub fn kind(self) -> u8 {
        match self {
            Self::Video { .. } | Self::VideoHeader => VIDEO,
            Self::Audio | Self::AudioHeader => AUDIO,
            Self::Metadata => DATA,
        }
    }

    /// Place among the three things a player must know before media; `None` for media.
    pub fn config(self) -> Option<usize> {
        match self {
            Self::VideoHeader => Some(0),
            Self::AudioHeader => Some(1),
            Self::Metadata => Some(2),
            Self::Video { .. } | Self::Audio => None,
        }
    }

    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Video { keyframe: true } => &[0x17, 1, 0, 0, 0],
            Self::Video { keyframe: false } => &[0x27, 1, 0, 0, 0],
            // An AVC decoder configuration of one SPS and one PPS, up to the length of the latter.
            Self::VideoHeader => &[
                0x17, 0, 0, 0, 0, 1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 10, 0x67, 0x42, 0xC0, 0x1E,
                0xD9, 0, 0xA0, 0x47, 0xFE, 0xC8, 1,
            ],
            Self::Audio => &[0xAF, 1],
            // AAC, 96 kHz: a frame lasts 10.7 ms, less than the shortest distance of two, so that sound
            // counted in samples never runs away from its timestamps.
            Self::AudioHeader => &[0xAF, 0, 0x10, 0x10],
            // onMetaData, then an array of one string named "sim" that is the rest.
            Self::Metadata => b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x03sim\x0c",
        }
    }
}

/// Which message: a session and a place in its log.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub session: u32,
    pub index: u32,
}

/// One message as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub class: Class,
    pub body: Rc<[u8]>,
    /// Timestamp given by the publisher.
    pub timestamp: u32,
    /// Virtual time at which it was handed to the publisher's socket.
    pub at_ms: u64,
    /// The video header, audio header and metadata that were in force.
    pub in_force: [Option<Mark>; 3],
    /// The media message of the same kind before this one.
    pub previous: Option<u32>,
}

/// All messages of one publisher's session.
#[derive(Debug)]
pub struct Session {
    pub path: usize,
    /// It sends keyframes at all.
    pub keyframes: bool,
    pub sent: Vec<Sent>,
    in_force: [Option<Mark>; 3],
    last: [Option<u32>; 2],
}

/// Everything that was published in a run.
#[derive(Debug, Default)]
pub struct Log {
    pub sessions: Vec<Session>,
}

impl Log {
    pub fn begin(&mut self, path: usize, keyframes: bool) -> u32 {
        let session =
            Session { path, keyframes, sent: Vec::new(), in_force: [None; 3], last: [None; 2] };
        self.sessions.push(session);
        u32::try_from(self.sessions.len() - 1).expect("few sessions")
    }

    /// Adds a message of `bytes` (at least what its marks need) and returns its body. A `repeated`
    /// configuration has the body it had before.
    pub fn add(
        &mut self,
        session: u32,
        class: Class,
        timestamp: u32,
        bytes: usize,
        at_ms: u64,
        repeated: bool,
    ) -> Rc<[u8]> {
        let log = &mut self.sessions[session as usize];
        let mark = Mark { session, index: u32::try_from(log.sent.len()).expect("few messages") };
        let before = class.config().and_then(|at| log.in_force[at]).filter(|_| repeated);
        let body = match before {
            Some(before) => Rc::clone(&log.sent[before.index as usize].body),
            None => body(class, mark, bytes),
        };
        let mut previous = None;
        match class.config() {
            Some(at) => log.in_force[at] = Some(before.unwrap_or(mark)),
            None => {
                let lane = &mut log.last[usize::from(class.kind() == VIDEO)];
                previous = lane.replace(mark.index);
            }
        }
        let in_force = log.in_force;
        let sent = Sent { class, body: Rc::clone(&body), timestamp, at_ms, in_force, previous };
        log.sent.push(sent);
        body
    }

    pub fn find(&self, mark: Mark) -> Option<&Sent> {
        self.sessions.get(mark.session as usize)?.sent.get(mark.index as usize)
    }
}

/// Bytes without a period that a copying mistake could hide behind.
fn noise() -> &'static [u8] {
    static NOISE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    NOISE.get_or_init(|| {
        let mut dice = super::dice::Dice::new(7);
        (0..(1 << 18)).flat_map(|_| dice.next().to_be_bytes()).collect()
    })
}

fn body(class: Class, mark: Mark, bytes: usize) -> Rc<[u8]> {
    let mut body = class.prefix().to_vec();
    let rest_bytes = bytes.saturating_sub(body.len() + 8);
    let length = u32::try_from(8 + rest_bytes).expect("small");
    match class {
        Class::Metadata => body.extend_from_slice(&length.to_be_bytes()),
        // The PPS: its length, its header, and the rest.
        Class::VideoHeader => {
            let [_, _, high, low] = (length + 1).to_be_bytes();
            body.extend_from_slice(&[high, low, 0x68]);
        }
        // A picture is one slice: its length, its header, and the rest.
        Class::Video { keyframe } => {
            body.extend_from_slice(&(length + 1).to_be_bytes());
            body.push(if keyframe { SLICE_IDR } else { SLICE });
        }
        Class::Audio | Class::AudioHeader => {}
    }
    body.extend_from_slice(&(mark.session ^ MASK).to_be_bytes());
    body.extend_from_slice(&(mark.index ^ MASK).to_be_bytes());
    let offset = (mark.session as usize * 7919 + mark.index as usize * 13) % (1 << 16);
    body.extend_from_slice(&noise()[offset..offset + rest_bytes]);
    if class == Class::Metadata {
        body.extend_from_slice(&[0, 0, 9]);
    }
    body.into()
}

/// What a body says of itself. `None` if it is not one of ours.
pub fn mark_of(kind: u8, body: &[u8]) -> Option<Mark> {
    let at = match (kind, body) {
        (VIDEO, [0x17, 0, ..]) => Class::VideoHeader.prefix().len() + 3,
        (VIDEO, [0x17 | 0x27, 1, ..]) => Class::Video { keyframe: true }.prefix().len() + 5,
        (AUDIO, [0xAF, 0, ..]) => Class::AudioHeader.prefix().len(),
        (AUDIO, [0xAF, 1, ..]) => Class::Audio.prefix().len(),
        (DATA, _) if body.starts_with(Class::Metadata.prefix()) => {
            Class::Metadata.prefix().len() + 4
        }
        _ => return None,
    };
    let word = |at: usize| {
        let bytes = body.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")) ^ MASK)
    };
    Some(Mark { session: word(at)?, index: word(at + 4)? })
}

/// How many of a session's messages a viewer of fragments must have: a fragment ends in front of the next
/// picture of another time, or of the next sound where there are no pictures.
pub fn fragments_end(sent: &[Sent]) -> usize {
    let has_video = sent.iter().any(|sent| matches!(sent.class, Class::Video { .. }));
    let sets_pace = |sent: &Sent| match sent.class {
        Class::Video { .. } => true,
        Class::Audio => !has_video,
        _ => false,
    };
    let Some(last) = sent.iter().rfind(|sent| sets_pace(sent)) else { return 0 };
    let is_before = |sent: &Sent| sets_pace(sent) && sent.timestamp != last.timestamp;
    let before = sent.iter().rposition(is_before).map_or(0, |before| before + 1);
    before + sent[before..].iter().position(sets_pace).unwrap_or(0)
}

/// Tracks have changed in the last seconds of these messages: in less than a GOP.
pub fn has_changed_lately(sent: &[Sent]) -> bool {
    let newest_at_ms = sent.last().map_or(0, |sent| sent.at_ms);
    let is_track = |sent: &&Sent| matches!(sent.class, Class::VideoHeader | Class::AudioHeader);
    let last = sent.iter().rfind(is_track);
    last.is_some_and(|last| last.at_ms + GOP_MS_MAX >= newest_at_ms)
}
