//! What the backends say about the kernel they found.

use std::rc::Rc;
use uring::{Backend, Epoll, FeatureState, Io, IoConfig, Uring};

#[test]
fn every_feature_of_the_documented_table_is_reported() {
    let io: Uring<Rc<[u8]>> = match Uring::open(IoConfig::default()) {
        Ok(io) => io,
        Err(error) => return println!("skipped: {error}"),
    };
    let features = io.features();
    assert_eq!((features.backend, features.backend.name()), (Backend::Uring, "uring"));
    let mut names = vec![
        "wait_timeout",
        "completions_kept",
        "buffer_ring",
        "multishot_accept",
        "multishot_receive",
        "defer_taskrun",
        "restricted_operations",
        "min_wait",
        "receive_bundles",
        "zero_copy_send",
        "registered_files",
    ];
    names.retain(|name| features.state(name).is_none());
    assert!(names.is_empty(), "not reported: {names:?}");
    for feature in &features.list {
        println!("{feature} (since {})", feature.since);
        if let FeatureState::Refused { reason, fix, .. } = &feature.state {
            assert!(!reason.is_empty() && !fix.is_empty());
        }
    }
    assert!(features.is_on("defer_taskrun") || features.is_on("coop_taskrun"));
}

#[test]
fn sizes_out_of_range_are_refused_with_a_reason() {
    let wrong = [
        IoConfig { entries: 100, ..IoConfig::default() },
        IoConfig { recv_buffers: 0, ..IoConfig::default() },
        IoConfig { recv_buffer_bytes: 0, ..IoConfig::default() },
        IoConfig { connections_max: u32::MAX, ..IoConfig::default() },
    ];
    for config in wrong {
        let error = Uring::<Rc<[u8]>>::open(config).unwrap_err();
        assert_eq!(error.errno, libc::EINVAL, "{error}");
    }
    let error = Epoll::<Rc<[u8]>>::open(IoConfig { recv_buffers: 0, ..IoConfig::default() });
    assert!(error.is_err());
}
