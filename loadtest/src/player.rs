//! One player: joins a stream, throws the media away and keeps what can be told from its heads.
//!
//! ```text
//!  connect ─ (TLS) ─ handshake ─ connect command ─ play ─ Play.Start ─ first byte ─ first keyframe
//!  started           Handshake                    asked   PlayStart    FirstByte    FirstKeyframe
//! ```
//!
//! Media is never copied but for the first [`HEAD_BYTES`] of a message, in which its marker is; the
//! checksum of the rest is computed for a sample of the messages, as the parts pass by. Latency
//! counts only media made after the player asked for it, so a cached GOP is not taken for delay.

use crate::account::Account;
use crate::marker::{self, HEAD_BYTES, Marker};
use crate::num::{MS_NS, MediaClock, SECOND_NS, as_ms};
use crate::playout::{Playout, Slope};
use crate::tally::{Measure, Tally};
use rtmp::session::{ClientConfig, ClientEvent, ClientSession, MediaKind, MediaPart};
use rtmp::{Millis, tag};
use std::sync::Arc;

/// Bytes of S0, S1 and S2.
const HANDSHAKE_BYTES: u64 = 1 + 2 * 1536;
/// After the first media, until the rate of a player is measured: the cached GOP is over then.
const SETTLE_NS: u64 = SECOND_NS;

/// How players judge.
#[derive(Clone, Debug)]
pub(crate) struct Judging {
    /// The clock inside the media.
    pub(crate) clock: MediaClock,
    /// Media a viewer would buffer before playback starts.
    pub(crate) buffer_ns: u64,
    /// One of this many messages has its checksum computed; 0: none.
    pub(crate) check_every: u32,
    /// From when on all players are there.
    pub(crate) steady_ns: u64,
    /// From when to when those who watch are disturbed.
    pub(crate) disturbed: Option<(u64, u64)>,
}

impl Judging {
    /// The part of the run, as far as a disturbance divides it, in which somebody who was there before
    /// it measures latency now.
    fn part(&self, now_ns: u64) -> Option<Measure> {
        let (begin_ns, end_ns) = self.disturbed?;
        Some(match now_ns {
            _ if now_ns < begin_ns => Measure::LatencyBefore,
            _ if now_ns < end_ns => Measure::LatencyDuring,
            _ => Measure::LatencyAfter,
        })
    }
}

/// Why a player's connection is over, in words for the report.
pub(crate) type Reason = String;

/// What remains of a player.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Summary {
    /// It came as far as `Play.Start`.
    pub(crate) joined: bool,
    /// Bytes and time from which its rate follows.
    pub(crate) steady_bytes: u64,
    pub(crate) steady_ns: u64,
    pub(crate) stalls: u32,
    pub(crate) stalled_ns: u64,
    pub(crate) played_ns: u64,
    /// Latency gained, milliseconds per second.
    pub(crate) slope: Option<f64>,
}

/// The message that is coming in on one of the two kinds.
#[derive(Clone, Debug)]
struct Head {
    bytes: [u8; HEAD_BYTES],
    length: usize,
    marker: Option<Marker>,
    /// Present while the message's checksum is being computed.
    check: Option<crc32fast::Hasher>,
    checked_bytes: u32,
}

impl Head {
    fn new() -> Head {
        Head { bytes: [0; HEAD_BYTES], length: 0, marker: None, check: None, checked_bytes: 0 }
    }

    fn begin(&mut self) {
        (self.length, self.marker, self.check, self.checked_bytes) = (0, None, None, 0);
    }

    fn known(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Takes the next part; reads the marker as soon as the head is complete.
    fn push(&mut self, part: &MediaPart<'_>, check_every: u32) {
        let room = HEAD_BYTES - self.length;
        let taken = part.body.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&part.body[..taken]);
        self.length += taken;
        if room > 0 && (self.length == HEAD_BYTES || part.last) {
            self.read_marker(part.audio_or_video, check_every);
        }
        self.digest(&part.body[taken..]);
    }

    fn read_marker(&mut self, kind: MediaKind, check_every: u32) {
        let found = match kind {
            MediaKind::Video => marker::of_video(self.known()),
            MediaKind::Audio => marker::of_audio(self.known()),
        };
        let Some(found) = found else { return };
        self.marker = Some(found.marker);
        if check_every > 0 && found.marker.sequence.is_multiple_of(check_every) {
            self.check = Some(crc32fast::Hasher::new());
            let bytes = self.bytes;
            self.digest(bytes[..self.length].get(found.rest_at..).unwrap_or_default());
        }
    }

    fn digest(&mut self, bytes: &[u8]) {
        if let Some(check) = &mut self.check {
            check.update(bytes);
            let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.checked_bytes = self.checked_bytes.saturating_add(count);
        }
    }

    /// Whether the checksum fits; `None` when it was not computed.
    fn verdict(&mut self) -> Option<bool> {
        let (check, marker) = (self.check.take()?, self.marker?);
        Some(marker.rest_crc == check.finalize() && marker.rest_bytes == self.checked_bytes)
    }
}

/// One player's connection. See the file's head.
#[derive(Debug)]
pub(crate) struct Player {
    session: ClientSession,
    /// It came in a join storm: it disturbs, and says nothing about those who watch.
    is_storm: bool,
    started_ns: u64,
    connected_ns: u64,
    handshake_done: bool,
    /// When the play command was queued, by both clocks; 0 before.
    asked_ns: u64,
    asked_media_ns: u64,
    joined: bool,
    /// When the first media came; 0 before.
    media_ns: u64,
    has_picture: bool,
    has_keyframe: bool,
    /// The stream is over: what follows is no stall.
    ended: bool,
    heads: [Head; 2],
    pub(crate) accounts: [Account; 2],
    /// Timestamp of the server minus that of the publisher, per kind.
    offsets: [Option<u32>; 2],
    playout: Playout,
    slope: Slope,
    steady_bytes: u64,
    /// When to leave; `u64::MAX`: at the end.
    pub(crate) leave_ns: u64,
}

impl Player {
    /// A player that calls connect now.
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        is_storm: bool,
        random: u64,
        now_ns: u64,
    ) -> Player {
        Player {
            session: ClientSession::new(config, random, millis(now_ns)),
            is_storm,
            started_ns: now_ns,
            connected_ns: 0,
            handshake_done: false,
            asked_ns: 0,
            asked_media_ns: 0,
            joined: false,
            media_ns: 0,
            has_picture: false,
            has_keyframe: false,
            ended: false,
            heads: [Head::new(), Head::new()],
            accounts: [Account::default(), Account::default()],
            offsets: [None; 2],
            playout: Playout::default(),
            slope: Slope::default(),
            steady_bytes: 0,
            leave_ns: u64::MAX,
        }
    }

    /// TCP, and TLS where there is any, is up: the handshake goes out.
    pub(crate) fn on_connected(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.connected_ns = now_ns;
        self.session.take_replies(out);
    }

    /// Bytes of the server. Appends answers to `out`.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &[u8],
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let now_ns = crate::num::now_ns();
        tally.counts.received_bytes += bytes.len() as u64;
        if self.media_ns != 0 && now_ns >= self.media_ns + SETTLE_NS {
            self.steady_bytes += bytes.len() as u64;
        }
        let mut input = bytes;
        loop {
            match self.session.handle_bytes(millis(now_ns), &mut input) {
                Ok(Some(event)) => self.on_event(event, now_ns, judging, tally)?,
                Ok(None) => {
                    let replied = self.session.has_replies();
                    self.note_progress(now_ns, judging, tally);
                    self.session.take_replies(out);
                    if input.is_empty() || !replied {
                        return Ok(());
                    }
                }
                Err(error) => return Err(reason_of(&error)),
            }
        }
    }

    /// Notes the moments that are no events: end of handshake, play command.
    fn note_progress(&mut self, now_ns: u64, judging: &Judging, tally: &mut Tally) {
        if !self.handshake_done && self.session.bytes_in() >= HANDSHAKE_BYTES {
            self.handshake_done = true;
            tally.record(Measure::Handshake, now_ns.saturating_sub(self.connected_ns));
        }
        if self.asked_ns == 0 && self.session.msid().is_some() {
            self.asked_ns = now_ns;
            self.asked_media_ns = judging.clock.now_ns();
        }
    }

    fn on_event(
        &mut self,
        event: ClientEvent<'_>,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
    ) -> Result<(), Reason> {
        match event {
            ClientEvent::Media(part) => self.on_part(&part, now_ns, judging, tally),
            ClientEvent::PlayStarted { .. } => {
                self.joined = true;
                tally.counts.joined += 1;
                tally.note_status("NetStream.Play.Start");
                self.note_progress(now_ns, judging, tally);
                tally.record(Measure::PlayStart, now_ns.saturating_sub(self.asked_ns));
            }
            ClientEvent::MediaAborted { kind, .. } => self.heads[index_of(kind)].begin(),
            ClientEvent::Status(status) => tally.note_status(&status.code),
            ClientEvent::StreamEnded(status) => {
                tally.note_status(&status.code);
                self.ended = true;
            }
            ClientEvent::StreamEof { .. } => self.ended = true,
            ClientEvent::ReconnectRequest { .. } => {
                tally.note_status("NetConnection.Connect.ReconnectRequest");
            }
            ClientEvent::PeerClosed => return Err("closed by command of the server".into()),
            _ => {}
        }
        Ok(())
    }

    fn on_part(&mut self, part: &MediaPart<'_>, now_ns: u64, judging: &Judging, tally: &mut Tally) {
        if self.media_ns == 0 {
            self.media_ns = now_ns;
            tally.record(Measure::FirstByte, now_ns.saturating_sub(self.started_ns));
        }
        let head = &mut self.heads[index_of(part.audio_or_video)];
        if part.first {
            head.begin();
        }
        head.push(part, judging.check_every);
        if part.last {
            self.on_message(part.audio_or_video, part.timestamp, now_ns, judging, tally);
        }
    }

    fn on_message(
        &mut self,
        kind: MediaKind,
        timestamp: u32,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
    ) {
        let index = index_of(kind);
        tally.counts.messages += 1;
        let (is_frame, is_key) = classify(kind, self.heads[index].known());
        if !is_frame {
            return;
        }
        if self.accounts.iter().all(|account| account.received == 0) && !self.has_picture {
            tally.record(Measure::FirstMedia, now_ns.saturating_sub(self.started_ns));
        }
        if kind == MediaKind::Video {
            self.on_picture(is_key, now_ns, tally);
        }
        if kind == MediaKind::Video || !self.has_picture {
            let late_ns = self.playout.on_media(now_ns, timestamp, judging.buffer_ns);
            note_stall(late_ns, tally);
        }
        let Some(marker) = self.heads[index].marker else {
            tally.counts.unmarked += 1;
            return;
        };
        if let Some(intact) = self.heads[index].verdict() {
            tally.counts.checked += 1;
            tally.counts.corrupt += u64::from(!intact);
        }
        if self.accounts[index].on_message(marker.tag, marker.sequence) {
            self.on_new(kind, timestamp, &marker, now_ns, judging, tally);
        }
    }

    fn on_picture(&mut self, is_key: bool, now_ns: u64, tally: &mut Tally) {
        if !self.has_picture {
            self.has_picture = true;
            tally.counts.off_keyframe += u64::from(!is_key);
        }
        if is_key && !self.has_keyframe {
            self.has_keyframe = true;
            let first =
                if self.is_storm { Measure::StormFirstKeyframe } else { Measure::FirstKeyframe };
            tally.record(first, now_ns.saturating_sub(self.started_ns));
            tally.record(Measure::PlayToKeyframe, now_ns.saturating_sub(self.asked_ns));
        }
    }

    /// A marked message that was not here before.
    fn on_new(
        &mut self,
        kind: MediaKind,
        timestamp: u32,
        marker: &Marker,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
    ) {
        self.offsets[index_of(kind)] = Some(timestamp.wrapping_sub(marker.timestamp));
        if let [Some(video), Some(audio)] = self.offsets {
            let apart = video.wrapping_sub(audio);
            let skew_ms = apart.min(apart.wrapping_neg());
            tally.record(Measure::Skew, u64::from(skew_ms) * MS_NS);
        }
        if self.asked_ns == 0 || marker.clock_ns < self.asked_media_ns {
            return;
        }
        let media_now_ns = match judging.clock {
            MediaClock::Monotonic => now_ns,
            MediaClock::Wall => judging.clock.now_ns(),
        };
        let latency_ns = media_now_ns.saturating_sub(marker.clock_ns);
        if kind == MediaKind::Audio {
            tally.record(Measure::LatencyAudio, latency_ns);
            return;
        }
        tally.record(Measure::Latency, latency_ns);
        if self.is_storm {
            return;
        }
        let is_steady = now_ns >= judging.steady_ns;
        let part = judging.part(now_ns);
        if let Some(part) = part.filter(|part| is_steady || *part != Measure::LatencyBefore) {
            tally.record(part, latency_ns);
        }
        if is_steady {
            tally.record(Measure::LatencySteady, latency_ns);
            self.slope.on_latency(now_ns, as_ms(latency_ns));
        }
    }

    /// Lets the session notice that the server is silent. Call about once a second.
    ///
    /// # Errors
    /// It has been silent for too long.
    pub(crate) fn on_tick(&mut self, now_ns: u64) -> Result<(), Reason> {
        self.session.handle_timeout(millis(now_ns)).map_err(|error| reason_of(&error))
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        self.session.close();
        self.session.take_replies(out);
    }

    /// Plays a stream at this moment.
    pub(crate) fn is_playing(&self) -> bool {
        self.joined && !self.ended
    }

    /// What remains; a stream that should go on but did not has stalled.
    pub(crate) fn finish(&mut self, now_ns: u64, tally: &mut Tally) -> Summary {
        if self.is_playing() {
            note_stall(self.playout.finish(now_ns), tally);
        }
        let settled_ns = self.media_ns + SETTLE_NS;
        let is_settled = self.media_ns != 0 && now_ns > settled_ns;
        let steady_ns = if is_settled { now_ns - settled_ns } else { 0 };
        Summary {
            joined: self.joined,
            steady_bytes: self.steady_bytes,
            steady_ns,
            stalls: self.playout.stalls,
            stalled_ns: self.playout.stalled_ns,
            played_ns: self.playout.played_ns,
            slope: self.slope.ms_per_s(now_ns),
        }
    }
}

fn note_stall(late_ns: u64, tally: &mut Tally) {
    if late_ns > 0 {
        tally.counts.stalls += 1;
        tally.record(Measure::Stall, late_ns);
    }
}

/// Whether a message brings a frame (not configuration), and whether a keyframe.
fn classify(kind: MediaKind, head: &[u8]) -> (bool, bool) {
    match kind {
        MediaKind::Video => {
            let info = tag::video(head);
            let is_other =
                info.sequence_header || info.end_of_sequence || info.metadata || info.command;
            (!is_other, info.keyframe && !is_other)
        }
        MediaKind::Audio => {
            let info = tag::audio(head);
            (!info.sequence_header && !info.end_of_sequence, false)
        }
    }
}

const fn index_of(kind: MediaKind) -> usize {
    match kind {
        MediaKind::Video => 0,
        MediaKind::Audio => 1,
    }
}

/// The time as sessions count it.
pub(crate) const fn millis(now_ns: u64) -> Millis {
    Millis(now_ns / MS_NS)
}

/// A session's error as one of few words: numbers that differ each time are left out.
pub(crate) fn reason_of(error: &rtmp::session::SessionError) -> Reason {
    match error {
        rtmp::session::SessionError::Refused { code, .. } => format!("refused: {code}"),
        other => other.label().into(),
    }
}
