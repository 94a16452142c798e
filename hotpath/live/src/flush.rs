//! When a worker sends what a stream has new: the flush policy.
//!
//! Coalescing is the largest lever on the cost of a subscriber, so the policy decides how many
//! messages share one send. One [`FlushClock`] per stream and worker; fed with the head that the
//! worker sees and the time of its turn, it answers whether the subscribers are due now and when to
//! look again.
//!
//! - `frame`: due when a video message is complete; audio and data ride along and wait at most
//!   [`AUDIO_RIDE_MS_MAX`]. A stream without video is flushed every [`AUDIO_ONLY_MS`].
//! - `immediate`: due in every turn in which something was published.
//! - `window(ms)`: due when the window is over.
//!
//! Under load the window of every policy widens up to a limit ([`FlushClock::widen`]).

use ring::Position;
use rtmp::Millis;

/// Longest wait of audio and data for the next video message under `frame`, in milliseconds.
pub const AUDIO_RIDE_MS_MAX: u64 = 40;
/// Flush interval of a stream without video under `frame`, in milliseconds.
pub const AUDIO_ONLY_MS: u64 = 30;

/// How a stream's new bytes are gathered into sends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum FlushPolicy {
    /// With each complete video message: lowest delay that is still one send per frame.
    #[default]
    Frame,
    /// At the end of every turn in which something was published.
    Immediate,
    /// Every so many milliseconds (1 to 10,000).
    Window(u32),
}

/// What a worker sees of a stream's head in one turn.
#[derive(Copy, Clone, Debug)]
pub struct HeadView {
    /// End of the last committed message.
    pub head: Position,
    /// End of the last complete video message.
    pub flush_mark: Position,
    /// False for a stream that has shown no video so far.
    pub has_video: bool,
}

/// The flush state of one stream on one worker.
#[derive(Debug)]
pub struct FlushClock {
    policy: FlushPolicy,
    /// Smallest distance between two flushes, widened under load, in milliseconds.
    window_ms_min: u32,
    flushed_to: Position,
    flushed_at: Millis,
    /// When the first byte behind `flushed_to` was seen.
    pending_since: Option<Millis>,
}

impl FlushClock {
    /// A clock that considers everything up to `head` as flushed at `now`.
    pub fn new(policy: FlushPolicy, head: Position, now: Millis) -> Self {
        Self { policy, window_ms_min: 0, flushed_to: head, flushed_at: now, pending_since: None }
    }

    /// Changes the policy (configuration reload).
    pub fn set_policy(&mut self, policy: FlushPolicy) {
        self.policy = policy;
    }

    /// Sets the smallest distance between two flushes; 0 leaves the policy alone.
    pub fn widen(&mut self, window_ms_min: u32) {
        self.window_ms_min = window_ms_min;
    }

    /// Looks at the head once per turn; true if the subscribers are to be served up to
    /// `view.head` now. The caller then serves them and the clock counts it as done.
    pub fn poll_flush(&mut self, view: HeadView, now: Millis) -> bool {
        if view.head <= self.flushed_to {
            self.pending_since = None;
            return false;
        }
        self.pending_since.get_or_insert(now);
        if !self.due(view, now) {
            return false;
        }
        self.flushed_to = view.head;
        self.flushed_at = now;
        self.pending_since = None;
        true
    }

    /// When to look again although no new message may have come; `None` if nothing waits.
    pub fn poll_timeout(&self, has_video: bool) -> Option<Millis> {
        let pending_since = self.pending_since?;
        let by_policy = match self.policy {
            FlushPolicy::Frame if has_video => pending_since.0 + AUDIO_RIDE_MS_MAX,
            FlushPolicy::Frame => self.flushed_at.0 + AUDIO_ONLY_MS,
            FlushPolicy::Immediate => pending_since.0,
            FlushPolicy::Window(window_ms) => self.flushed_at.0 + u64::from(window_ms),
        };
        Some(Millis(by_policy.max(self.flushed_at.0 + u64::from(self.window_ms_min))))
    }

    fn due(&self, view: HeadView, now: Millis) -> bool {
        let since_flush_ms = now.0.saturating_sub(self.flushed_at.0);
        if since_flush_ms < u64::from(self.window_ms_min) {
            return false;
        }
        match self.policy {
            FlushPolicy::Immediate => true,
            FlushPolicy::Window(window_ms) => since_flush_ms >= u64::from(window_ms),
            FlushPolicy::Frame if !view.has_video => since_flush_ms >= AUDIO_ONLY_MS,
            FlushPolicy::Frame => {
                let waited_ms = self.pending_since.map_or(0, |since| now.0.saturating_sub(since.0));
                view.flush_mark > self.flushed_to || waited_ms >= AUDIO_RIDE_MS_MAX
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(head: u64, flush_mark: u64) -> HeadView {
        HeadView { head: Position(head), flush_mark: Position(flush_mark), has_video: true }
    }

    fn clock(policy: FlushPolicy) -> FlushClock {
        FlushClock::new(policy, Position(0), Millis(1_000))
    }

    #[test]
    fn frame_flushes_when_a_video_message_is_complete() {
        let mut clock = clock(FlushPolicy::Frame);
        assert!(!clock.poll_flush(view(100, 0), Millis(1_001)));
        assert!(clock.poll_flush(view(300, 300), Millis(1_002)));
        assert!(!clock.poll_flush(view(300, 300), Millis(1_003)));
    }

    #[test]
    fn frame_lets_audio_wait_at_most_the_ride_time() {
        let mut clock = clock(FlushPolicy::Frame);
        assert!(!clock.poll_flush(view(100, 0), Millis(1_010)));
        assert_eq!(clock.poll_timeout(true), Some(Millis(1_050)));
        assert!(!clock.poll_flush(view(100, 0), Millis(1_049)));
        assert!(clock.poll_flush(view(100, 0), Millis(1_050)));
        assert_eq!(clock.poll_timeout(true), None);
    }

    #[test]
    fn a_stream_without_video_is_flushed_by_its_timer() {
        let mut clock = clock(FlushPolicy::Frame);
        let audio = HeadView { head: Position(9), flush_mark: Position(0), has_video: false };
        assert!(!clock.poll_flush(audio, Millis(1_020)));
        assert_eq!(clock.poll_timeout(false), Some(Millis(1_030)));
        assert!(clock.poll_flush(audio, Millis(1_030)));
    }

    #[test]
    fn immediate_flushes_in_each_turn_with_news() {
        let mut clock = clock(FlushPolicy::Immediate);
        assert!(clock.poll_flush(view(1, 0), Millis(1_000)));
        assert!(!clock.poll_flush(view(1, 0), Millis(1_000)));
        assert!(clock.poll_flush(view(2, 0), Millis(1_000)));
    }

    #[test]
    fn window_waits_until_it_is_over() {
        let mut clock = clock(FlushPolicy::Window(100));
        assert!(!clock.poll_flush(view(50, 50), Millis(1_099)));
        assert_eq!(clock.poll_timeout(true), Some(Millis(1_100)));
        assert!(clock.poll_flush(view(50, 50), Millis(1_100)));
        assert!(!clock.poll_flush(view(90, 90), Millis(1_150)));
        assert!(clock.poll_flush(view(90, 90), Millis(1_200)));
    }

    #[test]
    fn a_widened_clock_holds_back_every_policy() {
        let mut clock = clock(FlushPolicy::Immediate);
        clock.widen(20);
        assert!(!clock.poll_flush(view(5, 5), Millis(1_019)));
        assert_eq!(clock.poll_timeout(true), Some(Millis(1_020)));
        assert!(clock.poll_flush(view(5, 5), Millis(1_020)));
    }
}
