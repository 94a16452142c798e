//! One viewer: judges the media that has come, whatever protocol and container brought it.
//!
//! Media comes as [`Piece`]s and is never kept but for the first [`HEAD_BYTES`] of a message, in which
//! its marker is; the checksum of the rest is computed for a sample of the messages, as the pieces
//! pass by. Latency counts only media made after the viewer asked for it, so a cached GOP is not taken
//! for delay.

use crate::account::Account;
use crate::marker::{self, HEAD_BYTES, Marker, Wrapping};
use crate::num::{MS_NS, MediaClock, SECOND_NS, as_ms};
use crate::playout::{Playout, Slope};
use crate::tally::{Measure, Tally};
use rtmp::session::MediaKind;
use rtmp::tag;

/// After the first media, until the rate of a viewer is measured: the cached GOP is over then.
const SETTLE_NS: u64 = SECOND_NS;

/// How viewers judge.
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

    /// Whether the message with this number has its checksum computed.
    pub(crate) fn checks(&self, sequence: u32) -> bool {
        self.check_every > 0 && sequence.is_multiple_of(self.check_every)
    }
}

/// What remains of a viewer.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Summary {
    /// It came as far as `Play.Start`, or a response with media.
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

/// What the bytes of a message are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The body of an FLV tag: its header tells the rest.
    Tag,
    /// A frame as containers carry it.
    Frame {
        /// How its codec is marked; `None`: not at all.
        wrapping: Option<Wrapping>,
        is_key: bool,
    },
}

/// Some bytes of a message, or all of it. Pieces of one kind come in order, one message at a time.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Piece<'b> {
    pub(crate) kind: MediaKind,
    /// Decoding time in milliseconds, wrapping at 2^32.
    pub(crate) timestamp: u32,
    pub(crate) shape: Shape,
    /// It opens a message, and it completes one.
    pub(crate) first: bool,
    pub(crate) last: bool,
    pub(crate) body: &'b [u8],
}

/// What is around a viewer while it judges.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) now_ns: u64,
    pub(crate) judging: &'a Judging,
    pub(crate) tally: &'a mut Tally,
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

    /// Takes the next piece; reads the marker as soon as the head is complete.
    fn push(&mut self, piece: &Piece<'_>, judging: &Judging) {
        let room = HEAD_BYTES - self.length;
        let taken = piece.body.len().min(room);
        self.bytes[self.length..self.length + taken].copy_from_slice(&piece.body[..taken]);
        self.length += taken;
        if room > 0 && (self.length == HEAD_BYTES || piece.last) {
            self.read_marker(piece, judging);
        }
        self.digest(&piece.body[taken..]);
    }

    fn read_marker(&mut self, piece: &Piece<'_>, judging: &Judging) {
        let found = match (piece.shape, piece.kind) {
            (Shape::Frame { wrapping, .. }, _) => {
                wrapping.and_then(|one| one.find(self.known(), 0))
            }
            (Shape::Tag, MediaKind::Video) => marker::of_video(self.known()),
            (Shape::Tag, MediaKind::Audio) => marker::of_audio(self.known()),
        };
        let Some(found) = found else { return };
        self.marker = Some(found.marker);
        if judging.checks(found.marker.sequence) {
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

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Viewer {
    /// It came in a join storm: it disturbs, and says nothing about those who watch.
    is_storm: bool,
    started_ns: u64,
    /// When it asked for the stream, by both clocks; 0 before.
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
    pub(crate) playout: Playout,
    slope: Slope,
    steady_bytes: u64,
}

impl Viewer {
    /// A viewer that calls connect now. With `waits` playback starts when the player says so and
    /// not some media after the first.
    pub(crate) fn new(is_storm: bool, waits: bool, now_ns: u64) -> Viewer {
        Viewer {
            is_storm,
            started_ns: now_ns,
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
            playout: if waits { Playout::waiting() } else { Playout::default() },
            slope: Slope::default(),
            steady_bytes: 0,
        }
    }

    /// So many bytes were received, protocol included.
    pub(crate) fn on_received(&mut self, bytes: usize, scene: &mut Scene<'_>) {
        scene.tally.counts.received_bytes += bytes as u64;
        if self.media_ns != 0 && scene.now_ns >= self.media_ns + SETTLE_NS {
            self.steady_bytes += bytes as u64;
        }
    }

    /// The stream is being asked for, for the first time.
    pub(crate) fn on_asked(&mut self, scene: &Scene<'_>) {
        if self.asked_ns == 0 {
            self.asked_ns = scene.now_ns;
            self.asked_media_ns = scene.judging.clock.now_ns();
        }
    }

    /// The server agrees.
    pub(crate) fn on_joined(&mut self, scene: &mut Scene<'_>) {
        if !self.joined {
            self.joined = true;
            scene.tally.counts.joined += 1;
            let took_ns = scene.now_ns.saturating_sub(self.asked_ns);
            scene.tally.record(Measure::PlayStart, took_ns);
        }
    }

    /// The stream is over.
    pub(crate) fn on_ended(&mut self) {
        self.ended = true;
    }

    /// A message is not completed.
    pub(crate) fn on_aborted(&mut self, kind: MediaKind) {
        self.heads[index_of(kind)].begin();
    }

    /// Bytes of media.
    pub(crate) fn on_piece(&mut self, piece: &Piece<'_>, scene: &mut Scene<'_>) {
        self.on_media(scene);
        let head = &mut self.heads[index_of(piece.kind)];
        if piece.first {
            head.begin();
        }
        head.push(piece, scene.judging);
        if piece.last {
            self.on_message(piece, scene);
        }
    }

    /// The first bytes of media are here, at the latest.
    pub(crate) fn on_media(&mut self, scene: &mut Scene<'_>) {
        if self.media_ns == 0 {
            self.media_ns = scene.now_ns;
            let took_ns = scene.now_ns.saturating_sub(self.started_ns);
            scene.tally.record(Measure::FirstByte, took_ns);
        }
    }

    fn on_message(&mut self, piece: &Piece<'_>, scene: &mut Scene<'_>) {
        let (kind, timestamp, now_ns) = (piece.kind, piece.timestamp, scene.now_ns);
        let index = index_of(kind);
        scene.tally.counts.messages += 1;
        let (is_frame, is_key) = match piece.shape {
            Shape::Frame { is_key, .. } => (true, is_key),
            Shape::Tag => classify(kind, self.heads[index].known()),
        };
        if !is_frame {
            return;
        }
        if self.accounts.iter().all(|account| account.received == 0) && !self.has_picture {
            let took_ns = now_ns.saturating_sub(self.started_ns);
            scene.tally.record(Measure::FirstMedia, took_ns);
        }
        if kind == MediaKind::Video {
            self.on_picture(is_key, scene);
        }
        if kind == MediaKind::Video || !self.has_picture {
            let late_ns = self.playout.on_media(now_ns, timestamp, scene.judging.buffer_ns);
            note_stall(late_ns, scene.tally);
        }
        let Some(marker) = self.heads[index].marker else {
            scene.tally.counts.unmarked += 1;
            return;
        };
        if let Some(intact) = self.heads[index].verdict() {
            scene.tally.counts.checked += 1;
            scene.tally.counts.corrupt += u64::from(!intact);
        }
        if self.accounts[index].on_message(marker.tag, marker.sequence) {
            self.on_new((kind, is_key), timestamp, &marker, scene);
        }
    }

    fn on_picture(&mut self, is_key: bool, scene: &mut Scene<'_>) {
        let (now_ns, tally) = (scene.now_ns, &mut *scene.tally);
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
        (kind, is_key): (MediaKind, bool),
        timestamp: u32,
        marker: &Marker,
        scene: &mut Scene<'_>,
    ) {
        let (now_ns, judging) = (scene.now_ns, scene.judging);
        self.offsets[index_of(kind)] = Some(timestamp.wrapping_sub(marker.timestamp));
        if let [Some(video), Some(audio)] = self.offsets {
            let apart = video.wrapping_sub(audio);
            let skew_ms = apart.min(apart.wrapping_neg());
            scene.tally.record(Measure::Skew, u64::from(skew_ms) * MS_NS);
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
            scene.tally.record(Measure::LatencyAudio, latency_ns);
            return;
        }
        scene.tally.record(Measure::Latency, latency_ns);
        if is_key {
            scene.tally.record(Measure::LatencyKeyframe, latency_ns);
        }
        if let Some(moment_ns) = self.playout.moment_ns(timestamp) {
            let until_ns = moment_ns.saturating_sub(now_ns);
            scene.tally.record(Measure::GlassToGlass, latency_ns + until_ns);
        }
        if !self.is_storm {
            self.on_steady_latency(now_ns, latency_ns, scene);
        }
    }

    fn on_steady_latency(&mut self, now_ns: u64, latency_ns: u64, scene: &mut Scene<'_>) {
        let is_steady = now_ns >= scene.judging.steady_ns;
        let part = scene.judging.part(now_ns);
        if let Some(part) = part.filter(|part| is_steady || *part != Measure::LatencyBefore) {
            scene.tally.record(part, latency_ns);
        }
        if is_steady {
            scene.tally.record(Measure::LatencySteady, latency_ns);
            self.slope.on_latency(now_ns, as_ms(latency_ns));
        }
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
