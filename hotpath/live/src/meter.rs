//! What a stream carries: bit rates, frame rate, GOP length, totals. For the API and the metrics.
//!
//! Fixed memory (about 2 KiB), no allocation, no floating point, no clock: time is an argument.
//! Called by the publisher once per message; read by whoever reports, at any later time.
//!
//! ```text
//!   now_ms / 500  …│ 17 │ 18 │ 19 │ 20 ▒│         buckets of bytes and frames, reused round and round
//!                  └──── window ─────▲──┘         rate = sum over the window / its length up to now
//! ```
//!
//! Rates count what arrived, by the clock. GOP lengths count what was encoded, by timestamps.

/// Window for what an operator watches, in milliseconds.
pub const SHORT_WINDOW_MS: u32 = 5_000;
/// Window for what an operator compares, in milliseconds.
pub const LONG_WINDOW_MS: u32 = 30_000;

const BUCKET_MS: u64 = 500;
/// One more than the long window has, because the newest bucket is incomplete.
const BUCKETS: usize = 61;
/// Complete GOPs behind the mean keyframe interval.
const GOPS: usize = 8;
/// A longer GOP than this is a timestamp jump.
const GOP_MS_MAX: u32 = 600_000;

const _: () = assert!(LONG_WINDOW_MS as u64 == (BUCKETS as u64 - 1) * BUCKET_MS);

/// Measures one stream; goes on over its publisher's sessions.
#[derive(Clone, Debug)]
pub struct StreamMeter {
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket: time divided by [`BUCKET_MS`].
    newest_bucket: u64,
    /// Beginning of the measurement: the session's first message.
    since_ms: Option<u64>,
    gop: Option<OpenGop>,
    gops: [Gop; GOPS],
    gop_count: u64,
    totals: Totals,
    activity: Activity,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    video_bytes: u64,
    audio_bytes: u64,
    video_frames: u64,
    audio_frames: u64,
}

#[derive(Clone, Copy, Debug)]
struct OpenGop {
    keyframe_timestamp: u32,
    keyframe_at_ms: u64,
    frames: u32,
}

/// A complete GOP: from one keyframe up to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gop {
    /// Length by timestamps, in milliseconds.
    pub ms: u32,
    /// Frames, with the keyframe.
    pub frames: u32,
}

/// Everything since the stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of video message bodies.
    pub video_bytes: u64,
    /// Bytes of audio message bodies.
    pub audio_bytes: u64,
    /// Bytes of configurations and data messages.
    pub other_bytes: u64,
    /// Video frames.
    pub video_frames: u64,
    /// Of them keyframes.
    pub keyframes: u64,
    /// Audio frames.
    pub audio_frames: u64,
}

/// When something arrived last, on the caller's clock, in milliseconds; `None` for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Anything.
    pub any_ms: Option<u64>,
    /// A video frame.
    pub video_ms: Option<u64>,
    /// An audio frame.
    pub audio_ms: Option<u64>,
}

/// Rates over one window up to the moment of asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bits per second of video message bodies.
    pub video_bps: u64,
    /// Bits per second of audio message bodies.
    pub audio_bps: u64,
    /// Video frames per thousand seconds: 29,970 for NTSC.
    pub video_milli_fps: u64,
    /// Audio frames per thousand seconds.
    pub audio_milli_fps: u64,
}

impl Default for StreamMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamMeter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self {
            buckets: [Bucket::default(); BUCKETS],
            newest_bucket: 0,
            since_ms: None,
            gop: None,
            gops: [Gop::default(); GOPS],
            gop_count: 0,
            totals: Totals::default(),
            activity: Activity::default(),
        }
    }

    /// A publisher takes over at `now_ms`: rates and GOPs start afresh, totals and last activity
    /// go on.
    pub fn begin_session(&mut self, now_ms: u64) {
        let (totals, activity) = (self.totals, self.activity);
        *self = Self { newest_bucket: now_ms / BUCKET_MS, totals, activity, ..Self::new() };
    }

    /// A video frame. Not for sequence headers: see [`StreamMeter::other`].
    pub fn video(&mut self, now_ms: u64, timestamp: u32, bytes: u32, keyframe: bool) {
        let bucket = self.bucket(now_ms);
        bucket.video_bytes += u64::from(bytes);
        bucket.video_frames += 1;
        self.totals.video_bytes += u64::from(bytes);
        self.totals.video_frames += 1;
        self.activity.video_ms = Some(now_ms);
        if keyframe {
            self.totals.keyframes += 1;
            self.close_gop(timestamp);
            self.gop =
                Some(OpenGop { keyframe_timestamp: timestamp, keyframe_at_ms: now_ms, frames: 1 });
        } else if let Some(gop) = &mut self.gop {
            gop.frames = gop.frames.saturating_add(1);
        }
    }

    /// An audio frame. Its timestamp takes no part in any figure.
    pub fn audio(&mut self, now_ms: u64, _timestamp: u32, bytes: u32) {
        let bucket = self.bucket(now_ms);
        bucket.audio_bytes += u64::from(bytes);
        bucket.audio_frames += 1;
        self.totals.audio_bytes += u64::from(bytes);
        self.totals.audio_frames += 1;
        self.activity.audio_ms = Some(now_ms);
    }

    /// A sequence header, metadata or another data message: counted in the totals only.
    pub fn other(&mut self, now_ms: u64, bytes: u32) {
        self.activity.any_ms = Some(now_ms);
        self.totals.other_bytes += u64::from(bytes);
    }

    /// Rates over the last `window_ms` up to `now_ms`, at most [`LONG_WINDOW_MS`]. Zero before the
    /// first frame; while a session is younger than the window, over its age (at least one bucket,
    /// so that a first keyframe does not show as gigabits).
    pub fn rates(&self, now_ms: u64, window_ms: u32) -> Rates {
        let Some(since_ms) = self.since_ms else { return Rates::default() };
        let now_ms = now_ms.max(self.newest_bucket.saturating_mul(BUCKET_MS));
        let now_bucket = now_ms / BUCKET_MS;
        let window_ms = u64::from(window_ms.min(LONG_WINDOW_MS)).max(BUCKET_MS);
        // Whole buckets before the current one; a window that is no multiple is rounded up.
        let first_bucket = now_bucket.saturating_sub(window_ms.div_ceil(BUCKET_MS));
        let mut sum = Bucket::default();
        // Buckets that were not reached yet hold what was there a round ago.
        for number in first_bucket..=now_bucket.min(self.newest_bucket) {
            let bucket = &self.buckets[slot_of(number)];
            sum.video_bytes += bucket.video_bytes;
            sum.audio_bytes += bucket.audio_bytes;
            sum.video_frames += bucket.video_frames;
            sum.audio_frames += bucket.audio_frames;
        }
        let from_ms = (first_bucket * BUCKET_MS).max(since_ms);
        let ms = now_ms.saturating_sub(from_ms).max(BUCKET_MS);
        Rates {
            video_bps: sum.video_bytes.saturating_mul(8_000) / ms,
            audio_bps: sum.audio_bytes.saturating_mul(8_000) / ms,
            video_milli_fps: sum.video_frames.saturating_mul(1_000_000) / ms,
            audio_milli_fps: sum.audio_frames.saturating_mul(1_000_000) / ms,
        }
    }

    /// The last complete GOP of this session.
    pub fn last_gop(&self) -> Option<Gop> {
        let newest = self.gop_count.checked_sub(1)?;
        self.gops.get(gop_slot(newest)).copied()
    }

    /// Mean length of up to eight last GOPs, in milliseconds.
    pub fn keyframe_interval_ms(&self) -> Option<u32> {
        let count = self.gop_count.min(GOPS as u64);
        let ms: u64 = self.gops.iter().map(|gop| u64::from(gop.ms)).sum();
        u32::try_from(ms.checked_div(count)?).ok()
    }

    /// Frame rate as encoded, from the last complete GOP: steady where [`Rates`] shows the
    /// network's jitter. In frames per thousand seconds.
    pub fn encoded_milli_fps(&self) -> Option<u64> {
        let gop = self.last_gop()?;
        (u64::from(gop.frames) * 1_000_000).checked_div(u64::from(gop.ms))
    }

    /// Time since the last keyframe by the clock, in milliseconds: shows publishers that have
    /// stopped sending them.
    pub fn since_keyframe_ms(&self, now_ms: u64) -> Option<u64> {
        self.gop.map(|gop| now_ms.saturating_sub(gop.keyframe_at_ms))
    }

    /// Everything since the stream began.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// When something arrived last.
    pub fn activity(&self) -> Activity {
        self.activity
    }

    /// The bucket for `now_ms`; empties those that time has passed over.
    fn bucket(&mut self, now_ms: u64) -> &mut Bucket {
        self.activity.any_ms = Some(now_ms);
        let number = (now_ms / BUCKET_MS).max(self.newest_bucket);
        if self.since_ms.is_none() {
            self.since_ms = Some(now_ms);
            self.newest_bucket = number;
        }
        let passed = (number - self.newest_bucket).min(BUCKETS as u64);
        for step in 0..passed {
            self.buckets[slot_of(number - step)] = Bucket::default();
        }
        self.newest_bucket = number;
        &mut self.buckets[slot_of(number)]
    }

    /// Ends the open GOP at the next keyframe's timestamp. One that lasted no time, or absurdly
    /// long, says more about the clock than about the encoder and is left out.
    fn close_gop(&mut self, timestamp: u32) {
        let Some(gop) = self.gop.take() else { return };
        let ms = timestamp.wrapping_sub(gop.keyframe_timestamp);
        if (1..=GOP_MS_MAX).contains(&ms) {
            self.gops[gop_slot(self.gop_count)] = Gop { ms, frames: gop.frames };
            self.gop_count += 1;
        }
    }
}

/// Where a bucket is kept. Always below [`BUCKETS`], so indexing with it cannot fail.
fn slot_of(number: u64) -> usize {
    usize::try_from(number % BUCKETS as u64).unwrap_or(0)
}

/// Where a GOP is kept; as [`slot_of`].
fn gop_slot(number: u64) -> usize {
    usize::try_from(number % GOPS as u64).unwrap_or(0)
}
