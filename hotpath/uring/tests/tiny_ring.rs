//! io_uring with a ring far too small for its load: entries wait in our own backlog, the completion
//! queue overflows and the kernel ends multishot operations. Nothing may be lost or reordered.

mod common;

use common::{Chance, Peer, Server, UringWorld, World};
use uring::{Io, IoConfig};

#[test]
fn a_ring_of_two_entries_serves_a_hundred_connections() {
    // With many completions a turn the two entries are never enough.
    let config = IoConfig {
        entries: 2,
        recv_buffer_bytes: 64,
        completions_per_turn_max: 1_024,
        ..IoConfig::default()
    };
    let Some(mut server) = Server::<UringWorld>::open(config) else { return };
    server.echo = true;
    server.send_bytes_max = 300;
    let addr = server.listen();
    let mut peers: Vec<_> = (0..100).map(|_| server.world.peer(addr)).collect();
    let sent: Vec<Vec<u8>> = (0..100u64).map(|seed| Chance(seed).bytes(3_000)).collect();
    let (mut written, mut back) = (vec![0; 100], vec![Vec::new(); 100]);
    server.until("all echoed", |_| {
        for (at, peer) in peers.iter_mut().enumerate() {
            written[at] += peer.write(&sent[at][written[at]..]);
            peer.read_into(&mut back[at]);
        }
        back.iter().all(|back| back.len() >= 3_000)
    });
    assert!(back == sent, "an echo differs");
    let counters = *server.world.io().counters();
    assert!(counters.completion_overflows > 0, "the test has lost its point: {counters:?}");
    assert!(counters.receive_rearmed > 0, "the test has lost its point: {counters:?}");
    for conn in server.accepted.clone() {
        server.close(conn);
    }
    server.until("all descriptors closed", |server| server.world.io().counters().closed == 100);
}
