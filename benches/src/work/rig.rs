//! A live stream on one thread: media into a publisher, its ring, and a tap to read it by.

use live::publisher::{Keep, Progress, Publisher, PublisherConfig};
use ring::{Arena, Head, RingConfig, Tap};
use rtmp::Millis;
use rtmp::session::MediaKind;

use crate::media::{Player, Stream};

/// Free segments an arena keeps; more than the retention below ever gives back at once.
const SEGMENTS_CACHED_MAX: usize = 32;

/// See the module's text.
#[derive(Debug)]
pub struct Rig {
    /// Where the media comes from.
    pub media: Player,
    /// The stream's writer.
    pub publisher: Publisher,
    /// The worker's free buffers.
    pub arena: Arena,
    /// The worker's reader.
    pub tap: Tap,
    now: Millis,
}

impl Rig {
    /// A stream that has been live for longer than its retention, so that buffers go round.
    pub fn new() -> Rig {
        let ring_config = RingConfig::default();
        let mut arena = Arena::new(&ring_config, SEGMENTS_CACHED_MAX);
        let (writer, ring) = ring::stream_ring(ring_config);
        let config = PublisherConfig { retention_ms: 4_000, ..PublisherConfig::default() };
        let mut publisher = Publisher::new(config, writer);
        publisher.begin_session(&mut arena, Millis(0));
        let media = Player::new(Stream::new(1));
        for part in media.header_parts() {
            let taken = publisher.handle_media(&mut arena, &part, Millis(0));
            assert_eq!(taken, Ok(Progress::Committed));
        }
        let mut rig = Rig { media, publisher, arena, tap: ring.tap(), now: Millis(0) };
        for _ in 0..10 * crate::media::GOP_FRAMES {
            rig.publish_frame();
            rig.tap.refresh();
        }
        rig
    }

    /// Publishes messages up to and with the next video message. Returns how many.
    pub fn publish_frame(&mut self) -> u64 {
        for count in 1.. {
            let part = self.media.next_part();
            self.now = Millis(u64::from(part.timestamp));
            let is_video = part.audio_or_video == MediaKind::Video;
            let taken = self.publisher.handle_media(&mut self.arena, &part, self.now);
            assert_eq!(taken, Ok(Progress::Committed));
            if is_video {
                self.publisher.look(self.now);
                self.publisher.trim(&mut self.arena, Keep::All);
                return count;
            }
        }
        unreachable!("a stream has video");
    }

    /// Publishes some frames and looks at the result.
    pub fn publish_frames(&mut self, count: u32) -> Head {
        for _ in 0..count {
            self.publish_frame();
        }
        self.tap.refresh()
    }

    /// Time of the newest message.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Payload bytes copied so far, the detour of interleaved messages included.
    pub fn copied_bytes(&self) -> u64 {
        let counters = self.publisher.counters();
        counters.copied_bytes + counters.copied_aside_bytes
    }
}

impl Default for Rig {
    fn default() -> Rig {
        Rig::new()
    }
}
