//! Whole streams, in both directions, under every cipher of both versions.

use crate::certs::suites;
use crate::server::{Secured, ways};
use crate::support::client::{Net, assert_complete, assert_headers_first};
use crate::support::media::Source;
use crate::tunnel::Tunnel;

#[test]
fn every_cipher_of_both_versions_carries_a_stream_in_both_directions() {
    for how in ways(1) {
        let secured = Secured::start(how);
        for (index, suite) in suites().into_iter().enumerate() {
            let tunnel = Tunnel::start(secured.rtmps, secured.certs.client(suite, false));
            let name = format!("cam{index}");
            let mut net = Net::new(tunnel.addr);
            let publisher = net.publish(&name);
            let player = net.play(&name);
            net.until_started(&[publisher, player]);
            // Messages of many records, of one, and far smaller than one.
            let mut source = Source { keyframe_bytes: 150_000, ..Source::new(7) };
            net.send_headers(publisher, &source);
            for _ in 0..5 {
                net.send_frames(publisher, &mut source, 5);
                net.turn();
            }
            net.until_received(&[player], &source);
            assert_eq!(assert_complete(&net.clients[player], &source), 0, "{suite:?}");
            assert_headers_first(&net.clients[player]);
            let facts = tunnel.facts();
            assert_eq!(facts.len(), 2);
            assert!(facts.iter().all(|facts| (facts.version, facts.cipher) == suite), "{facts:?}");
            net.unpublish(publisher);
        }
        secured.expect_handed_over(2 * 6);
        secured.expect_none_left();
        let sealed = secured.server.metric("ringcast_tls_sealed_bytes_total", "");
        assert_eq!(sealed == 0, secured.is_kernel, "{sealed} bytes were sealed by the server");
    }
}
