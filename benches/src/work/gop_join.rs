//! A player joins a running stream: place in the ring, preamble, first lease.

use live::preamble;
use live::subscriber::{Selection, Subscriber, SubscriberConfig};

use super::rig::Rig;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;

/// All of audio and video on the shared message stream.
pub(super) const EVERYTHING: Selection = Selection::all(rtmp::chunk::MEDIA_MSID);

struct Join {
    rig: Rig,
    config: SubscriberConfig,
    joins: u64,
}

/// Joins in the middle of a GOP.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build(size: Size) -> Result<Box<dyn Work>, Skipped> {
    let mut rig = Rig::new();
    rig.publish_frames(30);
    Ok(Box::new(Join { rig, config: SubscriberConfig::default(), joins: size.pick(50, 2_000) }))
}

impl Work for Join {
    fn run(&mut self) -> Outcome {
        let mut outcome = Outcome { units: self.joins, ..Outcome::default() };
        let mut digest = Digest::default();
        let now = self.rig.now();
        for _ in 0..self.joins {
            let head = self.rig.tap.refresh();
            let mut subscriber = Subscriber::new(EVERYTHING, now);
            let join = subscriber
                .poll_join(&self.config, &self.rig.tap, &head, true, now)
                .expect("a keyframe is in the ring");
            let blob = join.preamble.expect("sequence headers were published").bytes;
            preamble::entries(&blob).for_each(|(_, body)| digest.mix_ends(body));
            let lease = subscriber.next_lease(&self.rig.tap).expect("a keyframe to send");
            digest.mix_ends(&lease);
            outcome.bytes += lease.len() as u64;
            subscriber.on_sent(&self.rig.tap, &lease, lease.len(), now);
        }
        outcome.digest = digest.value();
        outcome
    }
}
