//! Media that proves itself: every body carries its stream's tag, a sequence number, filler that
//! follows from both, and a checksum of all of it, behind a legacy AVC or AAC tag.
//!
//! ```text
//!   AVC frame   17|27 01 00 00 00 ┐
//!   AAC frame   af 01             ┴ tag (4) · sequence (4) · filler · FNV-1a of the rest (8)
//! ```

use rtmp::session::MediaKind;

/// What a message is to a player.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    VideoHeader,
    AudioHeader,
    Keyframe,
    Frame,
    Audio,
    /// Not made by a [`Source`].
    Strange,
}

/// One media message, sent or received.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    /// Tag of its source; version for headers.
    pub tag: u32,
    /// Number among the frames of its source; 0 for headers.
    pub sequence: u32,
    pub timestamp: u32,
    pub body_bytes: usize,
    /// The checksum fits (always true for headers).
    pub intact: bool,
}

impl Item {
    /// Reads a received body.
    pub fn parse(media: MediaKind, timestamp: u32, body: &[u8]) -> Self {
        let body_bytes = body.len();
        let header = |kind, version: Option<&u8>| Self {
            kind,
            tag: version.map_or(0, |&version| u32::from(version)),
            sequence: 0,
            timestamp,
            body_bytes,
            intact: true,
        };
        let (kind, payload) = match (media, body) {
            (MediaKind::Video, [0x17, 0, _, _, _, config @ ..]) => {
                return header(Kind::VideoHeader, config.last());
            }
            (MediaKind::Audio, [0xaf, 0, config @ ..]) => {
                return header(Kind::AudioHeader, config.last());
            }
            (MediaKind::Video, [0x17, 1, 0, 0, 0, payload @ ..]) => (Kind::Keyframe, payload),
            (MediaKind::Video, [0x27, 1, 0, 0, 0, payload @ ..]) => (Kind::Frame, payload),
            (MediaKind::Audio, [0xaf, 1, payload @ ..]) => (Kind::Audio, payload),
            _ => (Kind::Strange, [].as_slice()),
        };
        let Some((content, sum)) = payload.split_last_chunk::<8>() else {
            return Self { kind, tag: 0, sequence: 0, timestamp, body_bytes, intact: false };
        };
        let word = |at: usize| {
            let bytes = content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_be_bytes(bytes.unwrap_or_default())
        };
        let intact = fnv(content) == u64::from_be_bytes(*sum);
        Self { kind, tag: word(0), sequence: word(4), timestamp, body_bytes, intact }
    }

    /// Neither header nor stranger.
    pub fn is_frame(&self) -> bool {
        matches!(self.kind, Kind::Keyframe | Kind::Frame | Kind::Audio)
    }
}

/// FNV-1a over words of 8 bytes, so that tests built without optimisation stay quick.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    let mut words = bytes.chunks_exact(8);
    let sum = words.by_ref().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        step(sum, u64::from_be_bytes(word.try_into().unwrap_or_default()))
    });
    words.remainder().iter().fold(sum, |sum, &byte| step(sum, u64::from(byte)))
}

/// Makes the messages of one stream and remembers them.
#[derive(Clone, Debug)]
pub struct Source {
    pub tag: u32,
    /// Timestamp of the next picture.
    pub timestamp: u32,
    pub step_ms: u32,
    /// Pictures from one keyframe to the next.
    pub gop: u32,
    pub keyframe_bytes: usize,
    pub frame_bytes: usize,
    pub audio_bytes: usize,
    /// Version of the video sequence header.
    pub header_version: u8,
    /// Every frame made so far, in order.
    pub sent: Vec<Item>,
    pub pictures: u32,
}

impl Source {
    /// Pictures every 10 ms, a keyframe every 10 of them, audio between.
    pub fn new(tag: u32) -> Self {
        Self {
            tag,
            timestamp: 0,
            step_ms: 10,
            gop: 10,
            keyframe_bytes: 9_000,
            frame_bytes: 700,
            audio_bytes: 90,
            header_version: 1,
            sent: Vec::new(),
            pictures: 0,
        }
    }

    /// Starts at another timestamp.
    pub fn starting_at(mut self, timestamp: u32) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// The next picture is a keyframe, as from an encoder that has just started.
    pub fn restart(&mut self) {
        self.pictures = 0;
    }

    /// `onMetaData` with a width that is the source's tag.
    pub fn metadata(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut amf = rtmp::amf0::Writer::new(&mut body);
        amf.string("onMetaData");
        amf.ecma_array_begin(1);
        amf.key("width");
        amf.number(f64::from(self.tag));
        amf.object_end();
        body
    }

    /// AVC sequence header; its last byte is the version.
    pub fn video_header(&self) -> Vec<u8> {
        let mut body = vec![0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 30, 0xff, 0xe1, 0, 4];
        body.extend_from_slice(&[0x67, 0x42, 0xc0, 30, 1, 0, 2, 0x68]);
        body.push(self.header_version);
        body
    }

    /// AAC sequence header, 44.1 kHz stereo.
    pub fn audio_header(&self) -> Vec<u8> {
        vec![0xaf, 0, 0x12, 0x10]
    }

    /// One picture and the audio that goes with it.
    pub fn next_pair(&mut self) -> [(MediaKind, u32, Vec<u8>); 2] {
        let is_key = self.pictures.is_multiple_of(self.gop);
        self.pictures += 1;
        let (first, bytes) = match is_key {
            true => (0x17, self.keyframe_bytes),
            false => (0x27, self.frame_bytes),
        };
        let video = self.body(MediaKind::Video, &[first, 1, 0, 0, 0], bytes);
        let audio = self.body(MediaKind::Audio, &[0xaf, 1], self.audio_bytes);
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(self.step_ms);
        [(MediaKind::Video, timestamp, video), (MediaKind::Audio, timestamp, audio)]
    }

    fn body(&mut self, media: MediaKind, head: &[u8], bytes: usize) -> Vec<u8> {
        let sequence = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let mut body = head.to_vec();
        body.extend_from_slice(&self.tag.to_be_bytes());
        body.extend_from_slice(&sequence.to_be_bytes());
        let seed = self.tag.wrapping_mul(31).wrapping_add(sequence).to_le_bytes();
        body.resize(head.len() + bytes.max(8), seed[0] ^ seed[1]);
        let sum = fnv(body.get(head.len()..).unwrap_or_default());
        body.extend_from_slice(&sum.to_be_bytes());
        self.sent.push(Item::parse(media, self.timestamp, &body));
        body
    }
}
