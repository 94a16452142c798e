//! Players over real sockets: every byte to everyone, joins, slow ones, unusual ones.

mod support;

use std::time::{Duration, Instant};

use rtmp::chunk::Framing;
use rtmp::message::MessageHeader;
use rtmp::session::{ClientRole, MediaKind};
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
    let settings = "[defaults]\nlag_ms_max = 1000\nstall_ms_max = 3000\nretention_ms = 2000\n";
    for how in matrix(&[1, 2]) {
        let (server, mut net, publisher) = publish(how, settings, "cam");
        let frozen = net.play("cam");
        let players: Vec<usize> = (0..50).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        net.until_started(&[frozen]);
        net.shrink_receive_buffer(frozen);
        net.clients[frozen].is_frozen = true;
        let mut source = Source { frame_bytes: 10_000, keyframe_bytes: 40_000, ..Source::new(9) };
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
        // One GOP: there is one keyframe to start with.
        net.send_frames(publisher, &mut source, 9);
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

#[test]
fn players_that_come_and_go_do_not_disturb_those_who_stay() {
    for how in matrix(&[2]) {
        let (server, mut net, publisher) = publish(how, "", "cam");
        let staying: Vec<usize> = (0..10).map(|_| net.play("cam")).collect();
        net.until_started(&staying);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        for round in 0..40_usize {
            let guests: Vec<usize> = (0..5).map(|_| net.play("cam")).collect();
            for turn in 0..3 {
                net.send_frames(publisher, &mut source, 1);
                net.turn();
                // In every state of a player's life: while it connects, joins and plays.
                let leaving = guests[(round + turn) % guests.len()];
                if turn % 2 == 0 { net.reset(leaving) } else { net.vanish(leaving) }
            }
            for guest in guests {
                net.reset(guest);
            }
        }
        net.until_received(&staying, &source);
        for &player in &staying {
            assert_eq!(assert_complete(&net.clients[player], &source), 0);
        }
        let total = 1 + staying.len() as u64;
        wait_for("the guests to be gone", || server.metric("ringcast_connections", "") == total);
    }
}

#[test]
fn without_gop_cache_a_late_joiner_starts_with_the_next_keyframe() {
    for how in matrix(&[1, 2]) {
        let (_server, mut net, publisher) = publish(how, "[defaults]\ngop_cache = false\n", "cam");
        let early = net.play("cam");
        net.until_started(&[early]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 14);
        net.until_received(&[early], &source);
        let late = net.play("cam");
        net.until_started(&[late]);
        net.send_frames(publisher, &mut source, 10);
        net.until_received(&[early, late], &source);
        let client = &net.clients[late];
        assert_eq!(assert_complete(client, &source), 2 * 20, "the keyframe after it had come");
        assert_headers_first(client);
    }
}

#[test]
fn a_stream_without_video_is_played_from_its_head_with_its_header_first() {
    for how in matrix(&[1, 2]) {
        let (_server, mut net, publisher) = publish(how, "", "radio");
        let early = net.play("radio");
        net.until_started(&[early]);
        let mut source = Source::new(1);
        let header = source.audio_header();
        net.clients[publisher].write_raw(4, 1, MediaKind::Audio, 0, &header);
        let mut send = |net: &mut Net, count: u32| {
            for _ in 0..count {
                let [_, (media, at, body)] = source.next_pair();
                net.clients[publisher].write_raw(4, 1, media, at, &body);
            }
            source.sent.last().map(|item| item.sequence)
        };
        let last = send(&mut net, 20);
        net.until("the audio", |net| net.clients[early].last_sequence() == last);
        let late = net.play("radio");
        net.until_started(&[late]);
        let last = send(&mut net, 20);
        net.until("the audio", |net| {
            [early, late].iter().all(|&player| net.clients[player].last_sequence() == last)
        });
        for player in [early, late] {
            let client = &net.clients[player];
            assert_eq!(client.items().next().map(|item| item.kind), Some(Kind::AudioHeader));
            let numbers: Vec<u32> = client.frames().map(|item| item.sequence).collect();
            assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 2), "{numbers:?}");
            assert!(client.frames().all(|item| item.intact));
        }
        assert_eq!(net.clients[early].frames().count(), 40);
        assert_eq!(net.clients[late].frames().count(), 20);
    }
}

#[test]
fn audio_interleaved_with_the_chunks_of_a_picture_arrives_whole_and_is_counted() {
    for how in matrix(&[1]) {
        let (server, mut net, publisher) = publish(how, "", "cam");
        let player = net.play("cam");
        net.until_started(&[player]);
        let mut source = Source { gop: 1, ..Source::new(1) };
        net.send_headers(publisher, &source);
        let framing = Framing { chunk_bytes: 4_096 };
        let framed = |csid, media: MediaKind, timestamp, body: &[u8]| {
            let length = u32::try_from(body.len()).unwrap();
            let header = MessageHeader { csid, kind: media.type_id(), msid: 1, timestamp, length };
            let mut out = Vec::new();
            framing.write_message(&header, body, &mut out);
            out
        };
        let mut audio_bytes = 0;
        for _ in 0..30 {
            let [(_, at, picture), (_, _, audio)] = source.next_pair();
            let picture = framed(6, MediaKind::Video, at, &picture);
            audio_bytes += audio.len() as u64;
            // Header and first chunk, the whole audio message, the rest of the picture.
            let (head, rest) = picture.split_at(12 + 4_096);
            let audio = framed(4, MediaKind::Audio, at, &audio);
            net.clients[publisher].write_bytes(&[head, &audio, rest].concat());
            net.turn();
        }
        net.until_received(&[player], &source);
        assert_eq!(assert_complete(&net.clients[player], &source), 0);
        let total: u64 = source.sent.iter().map(|item| item.body_bytes as u64).sum();
        let headers = (source.video_header().len() + source.audio_header().len()) as u64;
        wait_for("the bytes to be counted", || {
            server.metric("ringcast_payload_received_bytes_total", "") == total + headers
        });
        assert_eq!(server.metric("ringcast_payload_copied_bytes_total", ""), total + headers);
        let aside = server.metric("ringcast_payload_copied_aside_bytes_total", "");
        assert_eq!(aside, audio_bytes, "only what had to wait is copied once more");
    }
}

#[test]
fn a_player_that_falls_behind_skips_to_a_keyframe_and_gets_only_whole_messages() {
    // The stream runs much faster than its clock here: the ring must last for seconds all the same.
    let settings = "[defaults]\nlag_ms_max = 1000\nretention_ms = 600000\n\
                    retention_bytes = 268435456\nretention_messages = 1048576\n";
    for how in matrix(&[2]) {
        for is_unusual in [false, true] {
            let (server, mut net, publisher) = publish(how, settings, "cam");
            let players = [net.play("cam"), net.play("cam")];
            let [slow, witness] = players;
            net.until_started(&players);
            net.shrink_receive_buffer(slow);
            let mut source =
                Source { frame_bytes: 8_000, keyframe_bytes: 30_000, ..Source::new(9) };
            net.send_headers(publisher, &source);
            if is_unusual {
                net.clients[slow].command(1, "receiveAudio", |amf| amf.boolean(false));
            }
            net.send_frames(publisher, &mut source, 3);
            net.until_received(&[witness], &source);
            net.until("its own part", |net| net.clients[slow].frames().count() >= 3);
            let freezes = if is_unusual { 1 } else { 2 };
            for _ in 0..freezes {
                net.clients[slow].is_frozen = true;
                let skips = server.metric("ringcast_subscriber_skips_total", "");
                for round in 0.. {
                    assert!(round < 5_000, "the slow player is skipped");
                    net.send_frames(publisher, &mut source, 5);
                    net.until_received(&[witness], &source);
                    if round % 20 == 0
                        && server.metric("ringcast_subscriber_skips_total", "") > skips
                    {
                        break;
                    }
                }
                net.clients[slow].is_frozen = false;
                // What the socket still held comes first, then the newest keyframe.
                let before = source.sent.len();
                net.until("the player to catch up", |net| {
                    net.send_frame_for(publisher, &mut source, witness);
                    let last = net.clients[slow].last_sequence();
                    last.is_some_and(|last| last as usize > before)
                });
            }
            let client = &net.clients[slow];
            assert_eq!((client.ended, &client.error), (None, &None));
            assert!(client.frames().all(|item| item.intact));
            let video: Vec<_> = client.frames().filter(|i| i.kind != Kind::Audio).collect();
            let mut gaps = 0;
            for pair in video.windows(2) {
                assert!(pair[1].sequence > pair[0].sequence, "{how:?}: nothing twice");
                if pair[1].sequence != pair[0].sequence + 2 {
                    gaps += 1;
                    assert_eq!(pair[1].kind, Kind::Keyframe, "{how:?}: after a gap");
                }
            }
            assert!(gaps >= freezes, "{how:?}: {gaps}");
            net.until_received(&[witness], &source);
            assert_eq!(assert_complete(&net.clients[witness], &source), 0);
        }
    }
}

#[test]
fn a_player_may_change_to_another_stream_on_the_same_message_stream() {
    for how in matrix(&[2]) {
        for closes_first in [true, false] {
            let (_server, mut net, first) = publish(how, "", "one");
            let second = net.publish("two");
            let player = net.play("one");
            net.until_started(&[second]);
            net.until_started(&[player]);
            let (mut one, mut two) = (Source::new(1), Source::new(2));
            net.send_headers(first, &one);
            net.send_headers(second, &two);
            net.send_frames(first, &mut one, 12);
            net.send_frames(second, &mut two, 12);
            net.until_received(&[player], &one);
            if closes_first {
                net.clients[player].command(1, "closeStream", |_| {});
            }
            net.clients[player].command(1, "play", |amf| amf.string("two"));
            net.until_received(&[player], &two);
            net.send_frames(first, &mut one, 3);
            net.send_frames(second, &mut two, 12);
            net.until_received(&[player], &two);
            let client = &net.clients[player];
            let change =
                client.seen.iter().position(|seen| matches!(seen, Seen::Metadata { width: 2, .. }));
            let after = &client.seen[change.expect("metadata of the second")..];
            let items: Vec<_> = after
                .iter()
                .filter_map(|seen| match seen {
                    Seen::Media { item, .. } => Some(*item),
                    _ => None,
                })
                .collect();
            assert_eq!(items[0].kind, Kind::VideoHeader, "{how:?}");
            let frames: Vec<_> = items.iter().filter(|item| item.is_frame()).collect();
            assert_eq!(frames[0].kind, Kind::Keyframe);
            assert!(frames.iter().all(|item| item.tag == 2 && item.intact), "nothing of the first");
            assert!(frames.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1));
        }
    }
}

#[test]
fn a_refused_second_stream_leaves_the_first_alone() {
    let settings = "[defaults]\nplay_wait_ms = 0\nduplicate_publish = \"reject\"\n";
    for how in matrix(&[2]) {
        let (_server, mut net, publisher) = publish(how, settings, "mine");
        let other = net.publish("taken");
        net.until_started(&[other]);
        let player = net.play("mine");
        net.until_started(&[player]);
        for client in [publisher, player] {
            net.clients[client].command(0, "createStream", |_| {});
        }
        net.clients[publisher].command(2, "publish", |amf| amf.string("taken"));
        net.clients[player].command(2, "play", |amf| amf.string("nothing"));
        net.until("the refusals", |net| {
            net.clients[publisher].has_status("NetStream.Publish.BadName")
                && net.clients[player].has_status("NetStream.Play.StreamNotFound")
        });
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 25);
        net.until_received(&[player], &source);
        assert_eq!(assert_complete(&net.clients[player], &source), 0);
        assert_eq!(net.clients[other].ended, None);
    }
}

#[test]
fn silence_closes_whoever_takes_nothing_and_not_a_player_that_only_listens() {
    for how in matrix(&[1]) {
        let settings = "[limits]\nidle_ms_max = 4000\n[defaults]\nping_interval_ms = 0\n";
        let (server, mut net, publisher) = publish(how, settings, "cam");
        let player = net.play("cam");
        let idle = net.play("nobody-publishes-this");
        net.until_started(&[player, idle]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.until("the idle one to be closed", |net| {
            net.send_frames(publisher, &mut source, 1);
            net.during(Duration::from_millis(10));
            net.clients[idle].ended.is_some()
        });
        server.wait_log("timeout", "class", "idle_timeout");
        // As long again: the player has sent nothing since its play command.
        net.until_received(&[player], &source);
        let until = Instant::now() + Duration::from_millis(5_000);
        while Instant::now() < until {
            net.send_frames(publisher, &mut source, 1);
            net.during(Duration::from_millis(10));
        }
        net.until_received(&[player], &source);
        assert_eq!(assert_complete(&net.clients[player], &source), 0);
    }
}
