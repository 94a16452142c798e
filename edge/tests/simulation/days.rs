//! A month and more of a stream's life in seconds: activity for a moment, then the clock goes on by ten
//! minutes, thousands of times, with the churn of each day.
//!
//! One stream has the same publisher and the same viewers for the whole time: what they hear must keep its
//! distance from what was published to the millisecond. Another loses its publisher and changes its
//! viewers every day: at the end of each day the server must be as large as at the end of the first.
//!
//! The first stream publishes as many messages each day as fill seven segments of its ring, so what the ring
//! keeps is at the end of each day the same to the byte.

use edge::config::Config;
use uring::Nanos;

use super::server::Sizes;
use super::viewer::Pace;
use super::world::World;

/// Activity, and what follows it without any, in milliseconds.
const AWAKE_MS: u64 = 250;
const ASLEEP_MS: u64 = 600_000 - AWAKE_MS;
const STEPS_A_DAY: u64 = 144;
/// Paths of the stream that stays and of the one that changes.
const STEADY: usize = 0;
const CHURNING: usize = 1;

/// What does not close a peer that says nothing for ten minutes.
fn patient(first_timestamp_ms: u32) -> Config {
    let mut config = Config::default();
    config.limits.idle_ms_max = 3_600_000;
    let vhost = &mut config.defaults;
    vhost.idle_publisher_ms_max = 0;
    vhost.ping_interval_ms = 3_600_000;
    vhost.first_timestamp_ms = first_timestamp_ms;
    config
}

impl World {
    /// Lets so many days pass, in a stream whose timestamps begin at `first_timestamp_ms`.
    pub fn live_for_days(seed: u64, days: u64, first_timestamp_ms: u32) -> Result<(), String> {
        let mut world = Self::steady(seed, patient(first_timestamp_ms), 2);
        world.publish_steadily(STEADY);
        world.live_until(world.now_ms() + 200)?;
        for is_web in [false, true] {
            world.join_promptly(STEADY, is_web);
        }
        world.join_fragments(STEADY);
        world.make_prompt();
        let mut first_day: Option<Sizes> = None;
        let mut first_offset = None;
        let mut first_ring_bytes = None;
        for day in 0..days {
            world.begin_day()?;
            for _ in 0..STEPS_A_DAY {
                world.sleep_and_wake()?;
            }
            let offsets = [world.offset(0)?, world.offset(1)?, world.offset(2)?];
            let first = *first_offset.get_or_insert(offsets);
            if offsets != first {
                return Err(format!("day {day}: timestamps drift: {first:?} became {offsets:?}"));
            }
            let ring_bytes = world.server.ring_bytes(STEADY);
            let first = *first_ring_bytes.get_or_insert(ring_bytes);
            if ring_bytes != first {
                return Err(format!(
                    "day {day}: the ring keeps {ring_bytes} bytes, it was {first}"
                ));
            }
            let sizes = world.server.sizes();
            let first = *first_day.get_or_insert(sizes);
            // The ring of the other stream goes on from day to day at any place in its segments.
            let is_larger = sizes.ring_bytes > 2 * first.ring_bytes;
            if is_larger || (Sizes { ring_bytes: first.ring_bytes, ..sizes }) != first {
                return Err(format!("day {day}: the server grows: {first:?} became {sizes:?}"));
            }
        }
        world.leave()
    }

    /// The churning stream gets another publisher without a goodbye of the last, and other viewers.
    fn begin_day(&mut self) -> Result<(), String> {
        for publisher in &mut self.publishers {
            if publisher.path == CHURNING {
                publisher.link.hang_up(true);
            }
        }
        for viewer in &mut self.viewers {
            if viewer.plays[0].path == CHURNING {
                viewer.link.hang_up(false);
            }
        }
        self.live_until(self.now_ms() + 200)?;
        self.publish_steadily(CHURNING);
        self.live_until(self.now_ms() + 200)?;
        for is_web in [false, true, false] {
            self.join_promptly(CHURNING, is_web);
        }
        // 1.6 s and 144 times three pictures are 448 with their sound: seven times the 128 messages of a
        // small segment.
        self.live_until(self.now_ms() + 1_200)
    }

    fn sleep_and_wake(&mut self) -> Result<(), String> {
        self.net.advance_by(Nanos::from_millis(ASLEEP_MS));
        let now_ms = self.now_ms();
        self.publishers.iter_mut().for_each(|publisher| publisher.skip_to(now_ms));
        self.live_until(now_ms + AWAKE_MS)
    }

    pub fn publish_steadily(&mut self, path: usize) {
        self.publish(path);
        self.publishers.last_mut().expect("it has just come").calm_down();
    }

    pub fn join_promptly(&mut self, path: usize, is_web: bool) {
        self.join_as(path, is_web);
        self.make_prompt();
    }

    /// The last to come reads at once, and asks for nothing before its stream.
    pub fn make_prompt(&mut self) {
        let viewer = self.viewers.last_mut().expect("it has just come");
        viewer.pace = Pace::Prompt;
        if let Some(link) = viewer.link.web() {
            link.ask_for_the_stream_alone();
        }
        // A stream that says nothing for ten minutes is heard late by rule, and joined at its keyframe.
        viewer.forgive_gaps();
    }

    /// From what was published to what a viewer of the steady stream heard last, in milliseconds.
    fn offset(&self, viewer: usize) -> Result<u32, String> {
        let judge = &self.viewers[viewer].plays[0].judge;
        let kind = super::media::VIDEO;
        let (Some(last), Some((heard, at_ms))) = (judge.last(kind), judge.clock(kind)) else {
            return Err(format!("viewer {viewer} has heard nothing"));
        };
        if at_ms + 1_000 < self.now_ms() {
            return Err(format!("viewer {viewer} has heard nothing since {at_ms} ms"));
        }
        let sent = self.log.find(last).ok_or("it was judged")?;
        Ok(heard.wrapping_sub(sent.timestamp))
    }
}
