//! When the process runs out of descriptors, accepting rests instead of spinning, and goes on by
//! itself later. A file of its own with one test: the limit belongs to the whole process.

mod common;

use common::{EpollWorld, PlainPeer, Server, UringWorld, World, any_port};
use std::fs::File;
use std::os::fd::AsRawFd;
use uring::{Io, IoConfig};

fn limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit to a local that outlives the call.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit
}

fn set_limit(limit: libc::rlimit) {
    // SAFETY: the kernel reads one rlimit from a local that outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Lowers the limit so that no further descriptor can be opened.
fn no_more() {
    // The lowest free number: everything below is in use, so this limit leaves none.
    let probe = File::open("/dev/null").unwrap();
    let lowest = libc::rlim_t::try_from(probe.as_raw_fd()).unwrap();
    drop(probe);
    set_limit(libc::rlimit { rlim_cur: lowest, ..limit() });
    assert!(File::open("/dev/null").is_err(), "the limit is not in force");
}

fn accepting_rests_and_recovers<W: World<P = PlainPeer>>() {
    let roomy = limit();
    for (backoff_ms, recovers) in [(1_000_000, false), (5, true)] {
        let config = IoConfig { accept_backoff_ms: backoff_ms, ..IoConfig::default() };
        let Some(mut server) = Server::<W>::open(config) else { return };
        let addr = server.listen();
        let _peers: Vec<_> = (0..3).map(|_| server.world.peer(addr)).collect();
        no_more();
        for _ in 0..100 {
            server.turn();
        }
        let counters = *server.world.io().counters();
        set_limit(roomy);
        assert_eq!(counters.accepted, 0);
        assert!(counters.accept_backoffs > 0, "{counters:?}");
        assert_eq!(counters.accept_backoffs, counters.accept_errors);
        if recovers {
            server.until("all accepted", |server| server.accepted.len() == 3);
        } else {
            assert_eq!(counters.accept_errors, 1, "one try, then rest");
            assert!(counters.enters <= counters.turns + 10, "{counters:?}");
        }
    }
    assert!(any_port().port() == 0);
}

#[test]
fn accepting_rests_without_descriptors_and_recovers_with_them() {
    accepting_rests_and_recovers::<UringWorld>();
    accepting_rests_and_recovers::<EpollWorld>();
}
