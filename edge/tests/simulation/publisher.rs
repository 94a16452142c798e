//! A simulated encoder: connects, publishes audio and video with a temper of its own, and leaves.

use rtmp::Millis;
use rtmp::chunk::{CSID_AUDIO, CSID_CONTROL, CSID_DATA, CSID_VIDEO, Framing};
use rtmp::message::{MessageHeader, kind};
use rtmp::session::{ClientConfig, ClientRole};

use super::dice::Dice;
use super::link::{Heard, Link};
use super::media::{AUDIO, Class, DATA, Log, VIDEO};
use super::quotas::PUSH_HOST;
use super::wire::Wire;

/// Habits of one encoder.
#[derive(Clone, Debug)]
pub struct Temper {
    pub frame_ms: u64,
    pub gop_frames: u64,
    pub keyframes: bool,
    pub has_video: bool,
    pub has_audio: bool,
    /// Audio messages are put between the chunks of video messages.
    pub interleaves: bool,
    pub timestamp_first: u32,
    pub keyframe_bytes: u64,
}

impl Temper {
    pub fn draw(dice: &mut Dice) -> Self {
        let keyframes = !dice.chance(100);
        let has_video = !dice.chance(80);
        Self {
            frame_ms: dice.range(20, 80),
            gop_frames: dice.range(5, 40),
            keyframes,
            has_video,
            has_audio: !has_video || !dice.chance(100),
            interleaves: dice.chance(300),
            timestamp_first: dice.pick(&[0, 0, 0, 17, 90_000, 0xFF_F000, 0x7FFF_F000, 0xFFFF_F000]),
            keyframe_bytes: dice.pick(&[300, 4_000, 20_000, 60_000]),
        }
    }
}

#[derive(Debug)]
pub struct Publisher {
    pub path: usize,
    pub link: Link,
    /// Its place in the log, once the server has said that it publishes.
    pub session: Option<u32>,
    pub connection_id: Option<String>,
    pub refused: Option<String>,
    /// When it was asked to come again elsewhere, and when its connection was found gone.
    pub asked_at_ms: Option<u64>,
    pub gone_at_ms: Option<u64>,
    /// It sends nothing more, but stays.
    pub is_silent: bool,
    /// Nothing of what it sends changes.
    is_calm: bool,
    pub ends: bool,
    temper: Temper,
    framing: Framing,
    next_at_ms: u64,
    began_at_ms: u64,
    /// Added to the clock for timestamps: what gross jumps have made of it.
    offset: u32,
    frame: u64,
}

impl Publisher {
    pub fn new(peer: Wire, path: usize, dice: &mut Dice, now_ms: u64) -> Self {
        let chunk_bytes = dice.pick(&[128, 128, 512, 4_096, 60_000]);
        let config = ClientConfig {
            tc_url: format!("rtmp://{PUSH_HOST}/live"),
            app: "live".to_owned(),
            stream: format!("s{path}"),
            role: ClientRole::Publish,
            chunk_bytes_out: chunk_bytes,
            ..ClientConfig::default()
        };
        let temper = Temper::draw(dice);
        Self {
            path,
            link: Link::new(peer, config, dice.next(), Millis(now_ms)),
            session: None,
            connection_id: None,
            refused: None,
            asked_at_ms: None,
            gone_at_ms: None,
            is_silent: false,
            is_calm: false,
            ends: false,
            offset: temper.timestamp_first,
            temper,
            framing: Framing { chunk_bytes },
            next_at_ms: u64::MAX,
            began_at_ms: now_ms,
            frame: 0,
        }
    }

    /// It is on the air as far as it knows.
    pub fn is_live(&self) -> bool {
        self.session.is_some() && self.link.is_open() && !self.ends
    }

    pub fn next_at_ms(&self) -> u64 {
        let frame_at_ms =
            if self.is_live() && !self.is_silent { self.next_at_ms } else { u64::MAX };
        let sends_at_ms = if self.link.is_open() { self.link.next_at_ms() } else { u64::MAX };
        frame_at_ms.min(sends_at_ms)
    }

    pub fn turn(&mut self, log: &mut Log, dice: &mut Dice, now_ms: u64) -> Result<(), String> {
        for heard in self.link.turn(Millis(now_ms), usize::MAX)? {
            match heard {
                Heard::Connected(id) => self.connection_id = id,
                Heard::Published => {
                    self.session = Some(log.begin(self.path, self.temper.keyframes));
                    (self.next_at_ms, self.began_at_ms) = (now_ms, now_ms);
                }
                Heard::Refused(code) => {
                    self.refused = Some(code);
                    self.link.hang_up(false);
                }
                Heard::AskedToReconnect => self.asked_at_ms = Some(now_ms),
                Heard::Gone => self.gone_at_ms = Some(now_ms),
                _ => {}
            }
        }
        while self.is_live() && !self.is_silent && now_ms >= self.next_at_ms {
            self.send_frame(log, dice, now_ms);
        }
        if self.ends && self.link.is_flushed() {
            self.link.hang_up(false);
        }
        Ok(())
    }

    /// Leaves with a goodbye.
    pub fn end(&mut self) {
        let out = self.link.out();
        // What is queued goes first; the session's own last words follow it.
        debug_assert!(out.len() < 64 << 20, "bounded by the length of a run");
        self.link.session.close();
        self.ends = true;
    }

    /// Becomes an encoder of small, equal pictures, two to a group.
    pub fn calm_down(&mut self) {
        self.temper = Temper {
            frame_ms: 100,
            gop_frames: 2,
            keyframes: true,
            has_video: true,
            has_audio: true,
            interleaves: false,
            timestamp_first: 0,
            keyframe_bytes: 300,
        };
        self.offset = 0;
        self.is_calm = true;
    }

    /// Becomes that, with more pictures to a group.
    pub fn calm_down_with_groups_of(&mut self, gop_frames: u64) {
        self.calm_down();
        self.temper.gop_frames = gop_frames;
    }

    /// Becomes one of sound alone.
    pub fn calm_down_to_sound(&mut self) {
        self.calm_down();
        self.temper.has_video = false;
    }

    /// Becomes one whose pictures come so often.
    pub fn calm_down_to(&mut self, frame_ms: u64) {
        self.calm_down();
        self.temper.frame_ms = frame_ms;
    }

    /// Its messages are on their way for most of the time, sound between the chunks of pictures.
    pub fn send_in_parts(&mut self) {
        self.temper.interleaves = true;
        self.link.uplink_bytes_max = Some(8);
    }

    /// Sends nothing of what fell into the time until `now_ms`.
    pub fn skip_to(&mut self, now_ms: u64) {
        if self.is_live() {
            self.next_at_ms = now_ms;
        }
    }

    /// Sends other metadata.
    pub fn change_metadata(&mut self, log: &mut Log, now_ms: u64) {
        self.send(log, Class::Metadata, 200, now_ms, false);
    }

    /// Sends another video header.
    pub fn change_video(&mut self, log: &mut Log, now_ms: u64) {
        self.send(log, Class::VideoHeader, 30, now_ms, false);
    }

    /// Changes something in mid-stream that players must be told of, or must not notice. Says what.
    pub fn retune(&mut self, log: &mut Log, dice: &mut Dice, now_ms: u64) -> &'static str {
        match dice.index(4) {
            0 => {
                self.change_chunk_bytes(dice);
                "changes its chunk size"
            }
            1 => {
                self.send(log, Class::Metadata, dice.range(60, 4_000), now_ms, false);
                "sends other metadata"
            }
            2 if self.temper.has_video && self.frame > 0 => {
                // What is behind it is coded with it, so a keyframe follows, as encoders do.
                self.send(log, Class::VideoHeader, dice.range(20, 60), now_ms, false);
                self.frame = self.frame.next_multiple_of(self.temper.gop_frames);
                "sends another video header"
            }
            _ if self.temper.has_audio && self.frame > 0 => {
                self.send(log, Class::AudioHeader, dice.range(12, 20), now_ms, false);
                "sends another audio header"
            }
            _ => "has nothing to change",
        }
    }

    fn send_frame(&mut self, log: &mut Log, dice: &mut Dice, now_ms: u64) {
        let is_first = self.frame == 0;
        let keyframe = is_first || self.frame.is_multiple_of(self.temper.gop_frames);
        let is_restless = !self.is_calm;
        if is_restless && dice.chance(4) && !is_first {
            self.offset = self.offset.wrapping_add(dice.pick(&[40_000, 4_000_000_000, 1 << 31]));
        }
        if is_restless && dice.chance(15) {
            self.change_chunk_bytes(dice);
        }
        if is_first || is_restless && dice.chance(8) {
            self.send(log, Class::Metadata, dice.range(60, 400), now_ms, false);
        }
        if self.temper.has_audio && (is_first || (is_restless && keyframe && dice.chance(100))) {
            self.send(log, Class::AudioHeader, 12, now_ms, false);
        }
        if self.temper.has_video {
            if is_first || (is_restless && keyframe && dice.chance(100)) {
                self.send(log, Class::VideoHeader, dice.range(20, 60), now_ms, false);
            } else if is_restless && keyframe && dice.chance(300) {
                self.send(log, Class::VideoHeader, 0, now_ms, true);
            }
            self.send_video(log, dice, keyframe && self.temper.keyframes, now_ms);
        } else {
            self.send(log, Class::Audio, dice.range(10, 300), now_ms, false);
        }
        self.frame += 1;
        self.next_at_ms += self.temper.frame_ms;
    }

    fn send_video(&mut self, log: &mut Log, dice: &mut Dice, keyframe: bool, now_ms: u64) {
        let bytes = if keyframe { self.temper.keyframe_bytes } else { dice.range(20, 2_500) };
        let bytes = match self.is_calm {
            true => 300,
            false if dice.chance(3) => 700_000,
            false => bytes,
        };
        let class = Class::Video { keyframe };
        if !self.temper.has_audio {
            self.send(log, class, bytes, now_ms, false);
            return;
        }
        let audio_bytes = if self.is_calm { 100 } else { dice.range(10, 300) };
        if !self.temper.interleaves {
            self.send(log, class, bytes, now_ms, false);
            self.send(log, Class::Audio, audio_bytes, now_ms, false);
            return;
        }
        let video = self.frame_message(log, class, bytes, now_ms, false);
        let audio = self.frame_message(log, Class::Audio, audio_bytes, now_ms, false);
        let header = if self.timestamp(now_ms) >= 0xFF_FFFF { (16, 5) } else { (12, 1) };
        let chunk_bytes = self.framing.chunk_bytes as usize;
        let chunks = (video.len() - header.0) / (chunk_bytes + header.1);
        let cut = header.0 + chunk_bytes + dice.index(chunks.max(1)) * (chunk_bytes + header.1);
        let cut = cut.min(video.len());
        let out = self.link.out();
        out.extend_from_slice(&video[..cut]);
        out.extend_from_slice(&audio);
        out.extend_from_slice(&video[cut..]);
    }

    fn send(&mut self, log: &mut Log, class: Class, bytes: u64, now_ms: u64, repeated: bool) {
        let framed = self.frame_message(log, class, bytes, now_ms, repeated);
        self.link.out().extend_from_slice(&framed);
    }

    fn timestamp(&self, now_ms: u64) -> u32 {
        // A picture has the time it was taken at, however late it is sent.
        let taken_at_ms = now_ms.min(self.next_at_ms);
        // Wraps after 49.7 days, as the timestamps of encoders do.
        let elapsed_ms = (taken_at_ms - self.began_at_ms) & u64::from(u32::MAX);
        self.offset.wrapping_add(u32::try_from(elapsed_ms).expect("32 bits"))
    }

    fn frame_message(
        &self,
        log: &mut Log,
        class: Class,
        bytes: u64,
        now_ms: u64,
        repeated: bool,
    ) -> Vec<u8> {
        let session = self.session.expect("only a live publisher sends");
        let bytes = usize::try_from(bytes).expect("small");
        let timestamp = self.timestamp(now_ms);
        let body = log.add(session, class, timestamp, bytes, now_ms, repeated);
        let csid = match class.kind() {
            AUDIO => CSID_AUDIO,
            VIDEO => CSID_VIDEO,
            _ => CSID_DATA,
        };
        let body = match class.kind() {
            DATA => [b"\x02\x00\x0d@setDataFrame", &*body].concat(),
            _ => body.to_vec(),
        };
        self.framed(csid, class.kind(), self.link.session.msid().unwrap_or(1), timestamp, &body)
    }

    fn framed(&self, csid: u32, kind: u8, msid: u32, timestamp: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).expect("small");
        let mut framed = Vec::new();
        let header = MessageHeader { csid, kind, msid, timestamp, length };
        self.framing.write_message(&header, body, &mut framed);
        framed
    }

    fn change_chunk_bytes(&mut self, dice: &mut Dice) {
        let chunk_bytes: u32 = dice.pick(&[128, 200, 1_000, 4_096, 65_536]);
        let body = chunk_bytes.to_be_bytes();
        let framed = self.framed(CSID_CONTROL, kind::SET_CHUNK_SIZE, 0, 0, &body);
        self.link.out().extend_from_slice(&framed);
        self.framing = Framing { chunk_bytes };
    }
}
