//! Many subscribers of every kind at once.

use crate::certs::suites;
use crate::server::{Secured, default_way};
use crate::support::client::{Net, assert_complete, assert_headers_first};
use crate::support::media::Source;
use crate::support::server::How;
use crate::tunnel::Tunnel;

const PLAYERS: usize = 200;

#[test]
fn two_hundred_subscribers_of_every_cipher_and_without_get_every_frame() {
    let how = How { workers: 2, ..default_way() };
    let secured = Secured::start(how);
    let tunnels: Vec<Tunnel> = suites()
        .into_iter()
        .map(|suite| Tunnel::start(secured.rtmps, secured.certs.client(suite, false)))
        .collect();
    // The first publishes and is one of the six kinds; the last two are plain, on either port.
    let addrs = tunnels.iter().map(|tunnel| tunnel.addr);
    let addrs: Vec<_> = addrs.chain([secured.server.rtmp, secured.rtmps]).collect();
    let mut publishing = Net::new(addrs[0]);
    let publisher = publishing.publish("cam");
    publishing.until_started(&[publisher]);
    let mut source = Source { frame_bytes: 400, ..Source::new(7) };
    publishing.send_headers(publisher, &source);

    let each = PLAYERS / addrs.len();
    let mut nets: Vec<(Net, Vec<usize>)> = Vec::new();
    for &addr in &addrs {
        let mut net = Net::new(addr);
        let players: Vec<usize> = (0..each).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        nets.push((net, players));
    }
    for _ in 0..12 {
        publishing.send_frames(publisher, &mut source, 2);
        publishing.turn();
        for (net, _) in &mut nets {
            net.turn();
        }
    }
    publishing.until("all frames to be sent", |net| net.clients[publisher].is_flushed());
    for (net, players) in &mut nets {
        net.until_received(players, &source);
        for &player in &*players {
            assert_eq!(assert_complete(&net.clients[player], &source), 0, "joined before media");
            assert_headers_first(&net.clients[player]);
        }
    }
    secured.expect_handed_over((6 * each + 1) as u64);
    drop((publishing, nets));
    secured.expect_none_left();
}
