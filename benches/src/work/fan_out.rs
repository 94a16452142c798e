//! Frames published and handed to many subscribers, whose sockets are simulated: they take all.
//!
//! What is left is our own work per frame and per subscriber: cursor, lease, bookkeeping. The
//! kernel's part is in the cases with real sockets.

use live::subscriber::{Subscriber, SubscriberConfig};

use super::gop_join::EVERYTHING;
use super::rig::Rig;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;

/// Frames per iteration; the keyframe comes in every sixth.
const FRAMES: u32 = 10;

struct FanOut {
    rig: Rig,
    subscribers: Vec<Subscriber>,
}

/// One worker, one stream, `CURSORS` subscribers (a tenth of many in the small case).
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build<const CURSORS: usize>(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let mut rig = Rig::new();
    let cursors = size.pick(CURSORS.div_ceil(10), CURSORS);
    let subscribers = joined(&mut rig, cursors);
    Ok(Box::new(FanOut { rig, subscribers }))
}

/// Subscribers that have been sent everything up to the head.
pub(super) fn joined(rig: &mut Rig, count: usize) -> Vec<Subscriber> {
    let head = rig.tap.refresh();
    let now = rig.now();
    let config = SubscriberConfig::default();
    let mut subscribers = Vec::with_capacity(count);
    for _ in 0..count {
        let mut subscriber = Subscriber::new(EVERYTHING, now);
        let join = subscriber.poll_join(&config, &rig.tap, &head, true, now);
        assert!(join.is_some(), "a keyframe is in the ring");
        while let Some(lease) = subscriber.next_lease(&rig.tap) {
            subscriber.on_sent(&rig.tap, &lease, lease.len(), now);
        }
        subscribers.push(subscriber);
    }
    subscribers
}

impl Work for FanOut {
    fn run(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut digest = Digest::default();
        let copied_before = self.rig.copied_bytes();
        for _ in 0..FRAMES {
            let head = self.rig.publish_frames(1);
            let now = self.rig.now();
            for subscriber in &mut self.subscribers {
                subscriber.set_target(head.head, now);
                while let Some(lease) = subscriber.next_lease(&self.rig.tap) {
                    digest.mix_ends(&lease);
                    subscriber.on_sent(&self.rig.tap, &lease, lease.len(), now);
                    outcome.units += 1;
                    outcome.bytes += lease.len() as u64;
                }
            }
        }
        outcome.copied_bytes = self.rig.copied_bytes() - copied_before;
        outcome.digest = digest.value();
        outcome
    }
}
