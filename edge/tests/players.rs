//! Players over real sockets: every byte to everyone, joins, slow ones, unusual ones.

mod support;

use rtmp::session::ClientRole;
use support::client::{Net, Seen, assert_complete, assert_headers_first};
use support::media::{Kind, Source};
use support::server::{How, Server, matrix, wait_for};

const PLAYERS: usize = 200;

/// A server with a publisher that has been accepted.
fn publish(how: How, settings: &str, name: &str) -> (Server, Net, usize) {
    let server = Server::start(how, settings);
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish(name);
    net.until_started(&[publisher]);
    (server, net, publisher)
}

#[test]
fn two_hundred_players_get_every_byte_and_the_payload_is_copied_once() {
    for how in matrix(&[1, 2, 4]) {
        println!("{how:?}");
        let (server, mut net, publisher) = publish(how, "", "cam");
        let mut source = Source::new(7);
        // A third waits before anything is sent, the others come while frames flow.
        let mut players: Vec<usize> = (0..PLAYERS / 3).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let early = players.len();
        net.send_headers(publisher, &source);
        while players.len() < PLAYERS {
            net.send_frames(publisher, &mut source, 2);
            players.extend((0..20).map(|_| net.play("cam")));
            net.turn();
        }
        let late = players.split_off(early);
        net.until_started(&late);
        net.send_frames(publisher, &mut source, 30);
        net.until_received(&players, &source);
        net.until_received(&late, &source);
        for &player in &players {
            assert_eq!(assert_complete(&net.clients[player], &source), 0, "joined before media");
            assert_headers_first(&net.clients[player]);
        }
        let mut begun_later = 0;
        for &player in &late {
            begun_later += usize::from(assert_complete(&net.clients[player], &source) > 0);
            assert_headers_first(&net.clients[player]);
        }
        assert!(begun_later > 0, "some joined in mid-stream");
        let headers = source.video_header().len() + source.audio_header().len();
        let bodies: usize = source.sent.iter().map(|item| item.body_bytes).sum();
        let expected = (headers + bodies) as u64;
        wait_for("the received bytes to be counted", || {
            server.metric("ringcast_payload_received_bytes_total", "") == expected
        });
        assert_eq!(server.metric("ringcast_payload_copied_bytes_total", ""), expected);
        assert_eq!(server.metric("ringcast_subscriber_skips_total", ""), 0);
    }
}

#[test]
fn a_late_joiner_starts_with_metadata_headers_and_the_newest_keyframe() {
    for how in matrix(&[1, 2]) {
        let (server, mut net, publisher) = publish(how, "", "cam");
        let mut source = Source::new(3);
        net.send_headers(publisher, &source);
        // 3 whole GOPs and 4 pictures of the fourth.
        net.send_frames(publisher, &mut source, 34);
        let early = net.play("cam");
        net.until_received(&[early], &source);
        for worker in 0..how.workers {
            let late = net.open(ClientRole::Play, "cam", Some(worker));
            net.until_received(&[late], &source);
            let client = &net.clients[late];
            assert_eq!(client.worker(), Some(worker));
            assert_eq!(assert_complete(client, &source), 2 * 30, "{how:?}: the newest keyframe");
            let kinds: Vec<Kind> = client.items().take(3).map(|item| item.kind).collect();
            assert_eq!(kinds[2], Kind::Keyframe, "{kinds:?}");
            assert_headers_first(client);
            let at: Vec<u32> = client.items().take(3).map(|item| item.timestamp).collect();
            assert_eq!(at[0], at[2], "headers bear the time of the keyframe");
        }
        drop(server);
    }
}

#[test]
fn two_streams_do_not_mix() {
    for how in matrix(&[2]) {
        let (_server, mut net, first) = publish(how, "", "one");
        let second = net.publish("two");
        net.until_started(&[second]);
        let (mut one, mut two) = (Source::new(1), Source::new(2));
        let of_one: Vec<usize> = (0..5).map(|_| net.play("one")).collect();
        let of_two: Vec<usize> = (0..5).map(|_| net.play("two")).collect();
        net.send_headers(first, &one);
        net.send_headers(second, &two);
        for _ in 0..20 {
            net.send_frames(first, &mut one, 2);
            net.send_frames(second, &mut two, 1);
            net.turn();
        }
        net.until_received(&of_one, &one);
        net.until_received(&of_two, &two);
        for (players, source) in [(&of_one, &one), (&of_two, &two)] {
            for &player in players {
                let client = &net.clients[player];
                assert!(client.frames().all(|item| item.tag == source.tag));
                assert!(client.seen.iter().all(|seen| match seen {
                    Seen::Metadata { width, .. } => *width == source.tag,
                    _ => true,
                }));
                assert_complete(client, source);
            }
        }
    }
}

#[test]
fn a_player_that_never_reads_is_skipped_or_closed_and_fifty_others_notice_nothing() {
    let settings = "[defaults]\nlag_ms_max = 1000\nstall_ms_max = 500\nretention_ms = 2000\n";
    for how in matrix(&[1, 2]) {
        let (server, mut net, publisher) = publish(how, settings, "cam");
        let frozen = net.play("cam");
        let players: Vec<usize> = (0..50).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        net.until_started(&[frozen]);
        net.clients[frozen].is_frozen = true;
        // More than the socket buffers of both ends can hold: 16 KiB per millisecond of stream.
        let mut source = Source { frame_bytes: 40_000, keyframe_bytes: 60_000, ..Source::new(9) };
        net.send_headers(publisher, &source);
        let closed = |server: &Server| server.has_logged("close", "reason", "stalled");
        for round in 0.. {
            assert!(round < 5_000, "the frozen player is closed");
            net.send_frames(publisher, &mut source, 2);
            net.until("the pictures to be sent", |net| net.clients[publisher].is_flushed());
            net.until_received(&players, &source);
            if closed(&server) {
                break;
            }
        }
        for &player in &players {
            assert_complete(&net.clients[player], &source);
        }
        assert!(server.metric("ringcast_sends_blocked_total", "") > 0);
        assert_eq!(server.events("close").len(), 1, "only the frozen one was closed");
    }
}

#[test]
fn a_paused_player_gets_nothing_and_goes_on_with_a_keyframe() {
    for how in matrix(&[1]) {
        let (_server, mut net, publisher) = publish(how, "", "cam");
        let players = [net.play("cam"), net.play("cam")];
        let [pausing, witness] = players;
        net.until_started(&players);
        let mut source = Source::new(4);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 13);
        net.until_received(&players, &source);
        pause(&mut net, pausing, true);
        net.until("the answer to pause", |net| {
            net.clients[pausing].has_status("NetStream.Pause.Notify")
        });
        let before = net.clients[pausing].frames().count();
        net.send_frames(publisher, &mut source, 20);
        net.until_received(&[witness], &source);
        assert_eq!(net.clients[pausing].frames().count(), before, "nothing while paused");
        pause(&mut net, pausing, false);
        net.until("the answer to unpause", |net| {
            net.clients[pausing].has_status("NetStream.Unpause.Notify")
        });
        net.send_frames(publisher, &mut source, 12);
        net.until_received(&players, &source);
        let resumed: Vec<_> = net.clients[pausing].frames().skip(before).copied().collect();
        assert_eq!(resumed[0].kind, Kind::Keyframe);
        let numbers: Vec<u32> = resumed.iter().map(|item| item.sequence).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        assert_complete(&net.clients[witness], &source);
    }
}

fn pause(net: &mut Net, player: usize, is_on: bool) {
    net.clients[player].command(1, "pause", |amf| {
        amf.boolean(is_on);
        amf.number(0.0);
    });
}

#[test]
fn a_player_that_wants_no_video_gets_all_audio_and_video_again_from_a_keyframe() {
    for how in matrix(&[1]) {
        let (_server, mut net, publisher) = publish(how, "", "cam");
        let players = [net.play("cam"), net.play("cam")];
        let [listener, witness] = players;
        net.until_started(&players);
        let mut source = Source::new(5);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 12);
        net.until_received(&players, &source);
        let select = |net: &mut Net, is_on| {
            net.clients[listener].command(1, "receiveVideo", |amf| {
                amf.boolean(is_on);
            });
            // The echo of a ping would do; a status of another command comes after it in order.
            let before = net.clients[listener].seen.len();
            net.clients[listener].command(1, "seek", |amf| {
                amf.number(0.0);
            });
            net.until("the answer to seek", |net| {
                let seen = &net.clients[listener].seen[before..];
                seen.iter().any(|seen| matches!(seen, Seen::Status { .. }))
            });
        };
        select(&mut net, false);
        let (from, all) = (source.sent.len(), net.clients[listener].frames().count());
        net.send_frames(publisher, &mut source, 20);
        net.until_received(&players, &source);
        let audio: Vec<u32> =
            net.clients[listener].frames().skip(all).map(|item| item.sequence).collect();
        let expected: Vec<u32> = source.sent[from..]
            .iter()
            .filter(|item| item.kind == Kind::Audio)
            .map(|item| item.sequence)
            .collect();
        assert_eq!(audio, expected, "all of the audio and nothing else");
        select(&mut net, true);
        let all = net.clients[listener].frames().count();
        net.send_frames(publisher, &mut source, 20);
        net.until_received(&players, &source);
        let video = net.clients[listener].frames().skip(all).find(|item| item.kind != Kind::Audio);
        assert_eq!(video.expect("video again").kind, Kind::Keyframe);
        assert_complete(&net.clients[witness], &source);
    }
}

#[test]
fn playing_before_the_publisher_comes_waits_and_then_starts() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let players: Vec<usize> = (0..4).map(|_| net.play("soon")).collect();
        net.until_started(&players);
        let publisher = net.publish("soon");
        net.until_started(&[publisher]);
        let mut source = Source::new(6);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 15);
        net.until_received(&players, &source);
        for player in players {
            assert_eq!(assert_complete(&net.clients[player], &source), 0);
            assert_headers_first(&net.clients[player]);
        }
    }
}

#[test]
fn waiting_longer_than_play_wait_ms_ends_with_stream_not_found() {
    for (settings, how) in ["[defaults]\nplay_wait_ms = 0\n", "[defaults]\nplay_wait_ms = 300\n"]
        .into_iter()
        .flat_map(|settings| matrix(&[1]).into_iter().map(move |how| (settings, how)))
    {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let player = net.play("nothing");
        net.until("the end of the connection", |net| net.clients[player].ended.is_some());
        let client = &net.clients[player];
        let code = "NetStream.Play.StreamNotFound";
        assert!(client.has_status(code), "{settings}: {:?} {:?}", client.seen, client.error);
        assert_eq!(client.items().count(), 0);
    }
}

#[test]
fn one_connection_publishes_two_streams() {
    for how in matrix(&[2]) {
        let (_server, mut net, publisher) = publish(how, "", "first");
        net.clients[publisher].command(0, "createStream", |_| {});
        net.clients[publisher].command(2, "publish", |amf| {
            amf.string("second");
            amf.string("live");
        });
        net.until("the second stream", |net| {
            net.clients[publisher].has_status("NetStream.Publish.Start")
        });
        let (mut one, mut two) = (Source::new(1), Source::new(2));
        let of_one = net.play("first");
        let of_two = net.play("second");
        net.until_started(&[of_one, of_two]);
        net.send_headers(publisher, &one);
        for _ in 0..12 {
            net.send_frames(publisher, &mut one, 1);
            net.send_frames_on(publisher, 2, &mut two, 1);
            net.turn();
        }
        net.until_received(&[of_one], &one);
        net.until_received(&[of_two], &two);
        assert_eq!(assert_complete(&net.clients[of_one], &one), 0);
        assert_eq!(assert_complete(&net.clients[of_two], &two), 0);
    }
}

#[test]
fn one_connection_plays_two_streams() {
    for how in matrix(&[2]) {
        let (_server, mut net, first) = publish(how, "", "one");
        let second = net.publish("two");
        let player = net.play("one");
        net.until_started(&[second, player]);
        net.clients[player].command(0, "createStream", |_| {});
        net.clients[player].command(2, "play", |amf| {
            amf.string("two");
        });
        net.until("the second stream", |net| {
            let is_second = |seen: &Seen| matches!(seen, Seen::Begin { msid: 2 });
            net.clients[player].seen.iter().any(is_second)
        });
        let (mut one, mut two) = (Source::new(1), Source::new(2));
        net.send_headers(first, &one);
        net.send_headers(second, &two);
        for _ in 0..15 {
            net.send_frames(first, &mut one, 1);
            net.send_frames(second, &mut two, 1);
            net.turn();
        }
        net.until("both to the end", |net| {
            [(1, &one), (2, &two)].iter().all(|&(msid, source)| {
                let last = on_msid(net, player, msid).last().map(|item| item.sequence);
                last == source.sent.last().map(|item| item.sequence)
            })
        });
        for (msid, source) in [(1, &one), (2, &two)] {
            let got = on_msid(&net, player, msid);
            assert!(got.iter().all(|item| item.tag == source.tag && item.intact), "msid {msid}");
            let numbers: Vec<u32> = got.iter().map(|item| item.sequence).collect();
            let all: Vec<u32> = source.sent.iter().map(|item| item.sequence).collect();
            assert_eq!(numbers, all, "msid {msid}");
        }
    }
}

fn on_msid(net: &Net, client: usize, wanted: u32) -> Vec<support::media::Item> {
    let seen = net.clients[client].seen.iter();
    let items = seen.filter_map(|seen| match seen {
        Seen::Media { msid, item } if *msid == wanted && item.is_frame() => Some(*item),
        _ => None,
    });
    items.collect()
}
