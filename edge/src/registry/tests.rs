//! Entries that are retired, as the workers that go on see them.

use std::sync::Arc;

use live::path::StreamPath;
use live::publisher::{Publisher, PublisherConfig};

use super::*;

const DEAD: ConnectionId = ConnectionId { worker: 1, serial: 7 };
const LIVE: ConnectionId = ConnectionId { worker: 0, serial: 3 };

fn published(registry: &Registry) -> Arc<StreamEntry> {
    let path = StreamPath::new("default", "live", "cam").unwrap();
    let entry = registry.hold(&path, StreamsMax::NONE).unwrap();
    let Claim::Granted(None) = entry.claim(DEAD, DuplicatePublish::Takeover) else { panic!() };
    let (writer, _) = ring::stream_ring(ring::RingConfig::default());
    entry.begin(&Publisher::new(PublisherConfig::default(), writer));
    entry
}

#[test]
fn a_retired_entry_grants_nothing_and_its_path_is_free() {
    let registry = Registry::new(2);
    let entry = published(&registry);
    // Another worker holds it too, and a publisher there waits for the writer.
    registry.hold(entry.path(), StreamsMax::NONE).unwrap();
    assert!(matches!(entry.claim(LIVE, DuplicatePublish::Takeover), Claim::Pending { .. }));
    let ends = entry.ends().0;
    assert!(registry.retire(&entry, DEAD.worker, None));
    assert_eq!((entry.phase(), entry.ends().0), (StreamPhase::Waiting, ends + 1));
    assert!(matches!(entry.poll_claim(LIVE), ClaimPoll::Retired));
    assert!(matches!(entry.claim(LIVE, DuplicatePublish::Takeover), Claim::Retired));
    assert!(registry.is_empty());

    let max = StreamsMax { total: 1, of_vhost: 1 };
    let next = registry.hold(entry.path(), max).unwrap();
    assert!(!Arc::ptr_eq(&entry, &next) && next.ring().is_none());
    // Who still holds the old one lets go of that, not of the new one.
    assert!(registry.release(&entry).is_none() && registry.release(&entry).is_none());
    assert_eq!(registry.len(), 1);
    assert!(matches!(next.claim(LIVE, DuplicatePublish::Reject), Claim::Granted(None)));
    registry.release(&next);
    assert!(registry.is_empty());
}

#[test]
fn only_the_home_of_a_stream_takes_it_along() {
    let registry = Registry::new(2);
    let entry = published(&registry);
    assert!(!registry.retire(&entry, LIVE.worker, None), "it has players there, no more");
    let (writer, _) = ring::stream_ring(ring::RingConfig::default());
    let publisher = Box::new(Publisher::new(PublisherConfig::default(), writer));
    let parked = entry.park(publisher, true);
    assert!(!registry.retire(&entry, DEAD.worker, Some(parked.session + 1)), "another session's");
    assert!(!registry.retire(&entry, LIVE.worker, None));
    assert!(matches!(entry.claim(LIVE, DuplicatePublish::Reject), Claim::Granted(Some(_))));
    assert!(!registry.retire(&entry, DEAD.worker, Some(parked.session)), "somebody has it");
    assert!(registry.retire(&entry, LIVE.worker, None));
    assert!(!registry.retire(&entry, LIVE.worker, None), "once");
}
