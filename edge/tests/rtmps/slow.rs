//! A player by TLS that falls behind: records of a stream that is skipped are whole messages all the same.

use crate::certs::Folder;
use crate::server::{Secured, ways};
use crate::support::client::{Net, assert_complete};
use crate::support::media::{Kind, Source};
use crate::tunnel::Tunnel;

/// The stream runs much faster than its clock here: the ring must last for seconds all the same.
const SETTINGS: &str = "[defaults]\nlag_ms_max = 1000\nretention_ms = 600000\n\
                        retention_bytes = 268435456\nretention_messages = 1048576\n";
/// Pictures sent before a player that does not read must have been skipped.
const ROUNDS_MAX: usize = 5_000;

#[test]
fn a_player_that_falls_behind_skips_to_a_keyframe_and_gets_only_whole_messages() {
    for how in ways() {
        let secured = Secured::start_with(how, Folder::with_one(), SETTINGS);
        let tunnel = Tunnel::start(secured.rtmps, secured.folder.client());
        let mut net = Net::new(tunnel.addr);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players = [net.play("cam"), net.play("cam")];
        let [slow, witness] = players;
        net.until_started(&players);
        let mut source = Source { frame_bytes: 8_000, keyframe_bytes: 150_000, ..Source::new(9) };
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 3);
        net.until_received(&[witness], &source);
        for _ in 0..2 {
            let skips = || secured.server.metric("ringcast_subscriber_skips_total", "");
            let before = skips();
            net.clients[slow].is_frozen = true;
            for round in 0.. {
                assert!(round < ROUNDS_MAX, "the slow player is skipped");
                net.send_frames(publisher, &mut source, 5);
                net.until_received(&[witness], &source);
                if round % 20 == 0 && skips() > before {
                    break;
                }
            }
            net.clients[slow].is_frozen = false;
            // What was on its way comes first, then the newest keyframe.
            let sent = source.sent.len();
            net.until("the player to catch up", |net| {
                net.send_frame_for(publisher, &mut source, witness);
                net.clients[slow].last_sequence().is_some_and(|last| last as usize > sent)
            });
        }
        net.until_received(&players, &source);
        assert_eq!(assert_complete(&net.clients[witness], &source), 0);
        let client = &net.clients[slow];
        assert_eq!((client.ended, &client.error), (None, &None));
        assert!(client.frames().all(|item| item.intact));
        let video: Vec<_> = client.frames().filter(|item| item.kind != Kind::Audio).collect();
        let mut gaps = 0;
        for pair in video.windows(2) {
            assert!(pair[1].sequence > pair[0].sequence, "{how:?}: nothing twice");
            if pair[1].sequence != pair[0].sequence + 2 {
                gaps += 1;
                assert_eq!(pair[1].kind, Kind::Keyframe, "{how:?}: after a gap");
            }
        }
        assert!(gaps >= 2, "{how:?}: {gaps}");
        drop((net, tunnel));
        secured.expect_none_left();
    }
}
