//! The stream that the cases are fed with: made up, but shaped like an encoder's.
//!
//! 720p at 30 frames per second with a keyframe every two seconds, and AAC at 43 frames per second;
//! 2.5 Mb/s together. Sizes vary as an encoder's do. Everything follows from a seed, so every run
//! sees the same bytes.

use rtmp::session::{MediaKind, MediaPart};

/// Time from keyframe to keyframe, in milliseconds.
pub const GOP_MS: u32 = 2_000;
/// Frames from keyframe to keyframe.
pub const GOP_FRAMES: u32 = 60;

const KEYFRAME_BYTES: usize = 60_000;
const FRAME_BYTES: usize = 9_000;
const AUDIO_BYTES: usize = 372;
/// 1,024 samples at 44,100 hertz, in microseconds.
const AUDIO_STEP_US: u32 = 23_220;

/// One media message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Audio or video.
    pub kind: MediaKind,
    /// Milliseconds from the start.
    pub timestamp: u32,
    /// Tag header and payload.
    pub body: Vec<u8>,
}

/// A stretch of stream that can be repeated for ever.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Sequence headers of video and audio, once at the start.
    pub headers: [Message; 2],
    /// Whole GOPs in order of time; the first message is a keyframe.
    pub messages: Vec<Message>,
    /// Length of `messages`, in milliseconds.
    pub duration_ms: u32,
}

impl Stream {
    /// A stream of `gops` GOPs of two seconds.
    pub fn new(gops: u32) -> Stream {
        let mut dice = Dice(0x9E37_79B9);
        let duration_ms = gops * GOP_MS;
        let mut messages = Vec::new();
        let mut audio_us = 10_000;
        for frame in 0..gops * GOP_FRAMES {
            let timestamp = frame * GOP_MS / GOP_FRAMES;
            while audio_us / 1_000 < timestamp {
                messages.push(audio(audio_us / 1_000, &mut dice));
                audio_us += AUDIO_STEP_US;
            }
            messages.push(video(timestamp, frame % GOP_FRAMES == 0, &mut dice));
        }
        Stream { headers: headers(), messages, duration_ms }
    }

    /// Payload bytes of all messages but the headers.
    pub fn payload_bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.body.len() as u64).sum()
    }
}

/// Goes through a stream again and again; time goes on.
#[derive(Debug)]
pub struct Player {
    stream: Stream,
    next: usize,
    base_ms: u32,
}

impl Player {
    /// Starts at the first keyframe.
    pub fn new(stream: Stream) -> Player {
        Player { stream, next: 0, base_ms: 0 }
    }

    /// The next message as one part, as a session reports it.
    pub fn next_part(&mut self) -> MediaPart<'_> {
        if self.next == self.stream.messages.len() {
            self.next = 0;
            self.base_ms = self.base_ms.wrapping_add(self.stream.duration_ms);
        }
        let message = &self.stream.messages[self.next];
        self.next += 1;
        whole(message, self.base_ms.wrapping_add(message.timestamp))
    }

    /// The sequence headers, to be published first.
    pub fn header_parts(&self) -> [MediaPart<'_>; 2] {
        self.stream.headers.each_ref().map(|message| whole(message, 0))
    }

    /// The stream it plays.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }
}

fn whole(message: &Message, timestamp: u32) -> MediaPart<'_> {
    MediaPart {
        msid: 1,
        audio_or_video: message.kind,
        timestamp,
        length: u32::try_from(message.body.len()).expect("messages are small"),
        csid: match message.kind {
            MediaKind::Audio => rtmp::chunk::CSID_AUDIO,
            MediaKind::Video => rtmp::chunk::CSID_VIDEO,
        },
        offset: 0,
        body: &message.body,
        first: true,
        last: true,
    }
}

fn headers() -> [Message; 2] {
    let avc = [
        0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 4, 0x67, 0x64, 0, 0x1F, 1, 0, 2, 0x68,
        0xEE,
    ];
    [
        Message { kind: MediaKind::Video, timestamp: 0, body: avc.to_vec() },
        Message { kind: MediaKind::Audio, timestamp: 0, body: vec![0xAF, 0, 0x12, 0x10] },
    ]
}

fn video(timestamp: u32, is_keyframe: bool, dice: &mut Dice) -> Message {
    let bytes = if is_keyframe { KEYFRAME_BYTES } else { dice.around(FRAME_BYTES) };
    let tag = if is_keyframe { 0x17 } else { 0x27 };
    let body = dice.body(&[tag, 1, 0, 0, 0], bytes);
    Message { kind: MediaKind::Video, timestamp, body }
}

fn audio(timestamp: u32, dice: &mut Dice) -> Message {
    let bytes = dice.around(AUDIO_BYTES);
    Message { kind: MediaKind::Audio, timestamp, body: dice.body(&[0xAF, 1], bytes) }
}

/// Marsaglia's xorshift: the same numbers everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between 70 and 130 per cent of `size`.
    fn around(&mut self, size: usize) -> usize {
        let permille = 700 + usize::try_from(self.next() % 601).expect("below 601");
        size * permille / 1_000
    }

    fn body(&mut self, tag: &[u8], payload_bytes: usize) -> Vec<u8> {
        let mut body = tag.to_vec();
        body.extend(
            std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(payload_bytes),
        );
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_the_rate_it_claims_and_is_in_order_of_time() {
        let stream = Stream::new(5);
        let bits_per_s = stream.payload_bytes() * 8 * 1_000 / u64::from(stream.duration_ms);
        assert!((2_400_000..2_600_000).contains(&bits_per_s), "{bits_per_s}");
        assert!(stream.messages.is_sorted_by_key(|message| message.timestamp));
    }

    #[test]
    fn a_player_repeats_the_stream_and_time_goes_on() {
        let mut player = Player::new(Stream::new(1));
        let count = player.stream().messages.len();
        let first: Vec<(u32, u32)> = (0..count).map(|_| key(player.next_part())).collect();
        let second: Vec<(u32, u32)> = (0..count).map(|_| key(player.next_part())).collect();
        assert!(first.iter().zip(&second).all(|(a, b)| b.0 == a.0 + GOP_MS && a.1 == b.1));
    }

    fn key(part: MediaPart<'_>) -> (u32, u32) {
        (part.timestamp, part.length)
    }
}
