//! A stream's life over real sockets: publishers that are lost, return, are replaced, fall silent
//! or end; timestamps across all of it; changes in mid-stream.

mod support;

use rtmp::message::kind;
use rtmp::session::{ClientRole, MediaKind};
use support::client::{Client, Ended, Net, Seen, assert_complete};
use support::media::{Item, Kind, Source};
use support::raw::{RawPeer, command_body, message};
use support::server::{Server, matrix};

const UNPUBLISHED: &str = "NetStream.Play.UnpublishNotify";
const TAKEN: &str = "NetStream.Publish.BadName";

fn never_goes_back(client: &Client) {
    let at: Vec<u32> = client.frames().map(|item| item.timestamp).collect();
    assert!(at.windows(2).all(|pair| pair[0] <= pair[1]), "timestamps go on: {at:?}");
}

/// What a player sees of a new publisher session: headers, then a keyframe, then every frame.
fn assert_resumed(client: &Client, seen_before: usize, source: &Source, from: usize) {
    let after = &client.seen[seen_before..];
    let items: Vec<&Item> = after
        .iter()
        .filter_map(|seen| match seen {
            Seen::Media { item, .. } => Some(item),
            _ => None,
        })
        .collect();
    let first_frame = items.iter().position(|item| item.is_frame()).expect("a frame");
    let kinds: Vec<Kind> = items[..first_frame].iter().map(|item| item.kind).collect();
    assert!(kinds.contains(&Kind::VideoHeader) && kinds.contains(&Kind::AudioHeader), "{kinds:?}");
    assert_eq!(items[first_frame].kind, Kind::Keyframe);
    let got: Vec<u32> =
        items.iter().filter(|item| item.is_frame()).map(|item| item.sequence).collect();
    let sent: Vec<u32> = source.sent[from..].iter().map(|item| item.sequence).collect();
    assert_eq!(got, sent, "client {:?}", client.id);
    assert!(items.iter().all(|item| item.intact));
}

#[test]
fn a_lost_publisher_that_returns_within_the_grace_period_keeps_its_players() {
    for how in matrix(&[1, 2, 4]) {
        for is_reset in [true, false] {
            let server = Server::start(how, "");
            let mut net = Net::new(server.rtmp);
            let first = net.open(ClientRole::Publish, "cam", Some(0));
            net.until_started(&[first]);
            let players: Vec<usize> = (0..6).map(|_| net.play("cam")).collect();
            net.until_started(&players);
            let mut source = Source::new(1);
            net.send_headers(first, &source);
            net.send_frames(first, &mut source, 25);
            net.until_received(&players, &source);
            let before: Vec<usize> = players.iter().map(|&p| net.clients[p].seen.len()).collect();
            if is_reset {
                net.reset(first)
            } else {
                net.vanish(first)
            }
            server.wait_log("unpublish", "how", "lost");

            // An encoder that has restarted: from zero, with a keyframe, on another worker.
            let other = (how.workers > 1).then_some(how.workers - 1);
            let second = net.open(ClientRole::Publish, "cam", other.or(Some(0)));
            net.until_started(&[second]);
            let from = source.sent.len();
            source.restart();
            source.timestamp = 0;
            net.send_headers(second, &source);
            net.send_frames(second, &mut source, 25);
            net.until_received(&players, &source);
            for (&player, &before) in players.iter().zip(&before) {
                let client = &net.clients[player];
                assert!(!client.has_status(UNPUBLISHED), "{how:?}: players are told nothing");
                assert!(!client.seen.iter().any(|seen| matches!(seen, Seen::Eof { .. })));
                assert_resumed(client, before, &source, from);
                never_goes_back(client);
            }
            server.wait_log("publish", "result", "resumed");
        }
    }
}

#[test]
fn a_returning_publisher_is_heard_from_its_first_keyframe() {
    for how in matrix(&[2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let first = net.publish("cam");
        net.until_started(&[first]);
        let player = net.play("cam");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(first, &source);
        net.send_frames(first, &mut source, 13);
        net.until_received(&[player], &source);
        net.vanish(first);
        server.wait_log("unpublish", "how", "lost");
        let second = net.publish("cam");
        net.until_started(&[second]);
        let seen = net.clients[player].seen.len();
        net.send_headers(second, &source);
        // 7 pictures to the end of the old GOP: not decodable after the gap.
        let mut unusable = source.clone();
        net.send_frames(second, &mut unusable, 7);
        net.send_frames(second, &mut unusable, 10);
        net.until_received(&[player], &unusable);
        let video: Vec<Item> = net.clients[player].seen[seen..]
            .iter()
            .filter_map(|seen| match seen {
                Seen::Media { item, .. } if item.is_frame() && item.kind != Kind::Audio => {
                    Some(*item)
                }
                _ => None,
            })
            .collect();
        assert_eq!(video[0].kind, Kind::Keyframe);
        assert_eq!(video.len(), 10, "every picture from the keyframe on");
        never_goes_back(&net.clients[player]);
    }
}

#[test]
fn players_are_told_when_the_grace_period_is_over_and_a_later_publisher_finds_them() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "[defaults]\ngrace_ms = 300\n");
        let mut net = Net::new(server.rtmp);
        let first = net.open(ClientRole::Publish, "cam", Some(0));
        net.until_started(&[first]);
        let players: Vec<usize> = (0..4).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut source = Source::new(1);
        net.send_headers(first, &source);
        net.send_frames(first, &mut source, 12);
        net.until_received(&players, &source);
        net.reset(first);
        net.until("the end of the stream", |net| {
            players.iter().all(|&player| net.clients[player].has_status(UNPUBLISHED))
        });
        server.wait_log("unpublish", "how", "lost");
        for &player in &players {
            assert_complete(&net.clients[player], &source);
            assert_eq!(net.clients[player].ended, None, "a player may wait for the next one");
        }
        let before: Vec<usize> = players.iter().map(|&p| net.clients[p].seen.len()).collect();
        let second = net.publish("cam");
        net.until_started(&[second]);
        let from = source.sent.len();
        source.restart();
        net.send_headers(second, &source);
        // One GOP: there is one keyframe to start with.
        net.send_frames(second, &mut source, 9);
        net.until_received(&players, &source);
        for (&player, &before) in players.iter().zip(&before) {
            assert_resumed(&net.clients[player], before, &source, from);
        }
    }
}

#[test]
fn a_clean_unpublish_ends_at_once_and_the_same_connection_may_publish_again() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "[defaults]\ngrace_ms = 3600000\n");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..4).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 12);
        net.clients[publisher].command(0, "FCUnpublish", |amf| {
            amf.string("cam");
        });
        net.clients[publisher].command(0, "deleteStream", |amf| {
            amf.number(1.0);
        });
        net.until("the end of the stream", |net| {
            players.iter().all(|&player| net.clients[player].has_status(UNPUBLISHED))
        });
        for &player in &players {
            assert_complete(&net.clients[player], &source);
            let seen = &net.clients[player].seen;
            assert!(matches!(seen.last(), Some(Seen::Status { .. })), "the goodbye comes last");
            let eofs = seen.iter().filter(|seen| matches!(seen, Seen::Eof { msid: 1 })).count();
            assert_eq!(eofs, 1, "one StreamEOF per end");
        }
        server.wait_log("unpublish", "how", "clean");

        let before: Vec<usize> = players.iter().map(|&p| net.clients[p].seen.len()).collect();
        net.clients[publisher].command(0, "createStream", |_| {});
        net.clients[publisher].command(1, "publish", |amf| {
            amf.string("cam");
            amf.string("live");
        });
        net.until("the second publish", |net| {
            net.clients[publisher].has_status("NetStream.Publish.Start")
        });
        let from = source.sent.len();
        source.restart();
        source.timestamp = 0;
        net.send_headers(publisher, &source);
        // One GOP: there is one keyframe to start with.
        net.send_frames(publisher, &mut source, 9);
        net.until_received(&players, &source);
        for (&player, &before) in players.iter().zip(&before) {
            assert_resumed(&net.clients[player], before, &source, from);
            never_goes_back(&net.clients[player]);
        }
    }
}

#[test]
fn a_second_publisher_takes_over_and_the_first_is_told_and_closed() {
    for how in matrix(&[1, 2]) {
        for newcomer in 0..how.workers {
            let server = Server::start(how, "");
            let mut net = Net::new(server.rtmp);
            let first = net.open(ClientRole::Publish, "cam", Some(0));
            net.until_started(&[first]);
            let players: Vec<usize> = (0..6).map(|_| net.play("cam")).collect();
            net.until_started(&players);
            let mut old = Source::new(1);
            net.send_headers(first, &old);
            net.send_frames(first, &mut old, 15);
            net.until_received(&players, &old);
            let before: Vec<usize> = players.iter().map(|&p| net.clients[p].seen.len()).collect();
            let second = net.open(ClientRole::Publish, "cam", Some(newcomer));
            net.until_started(&[second]);
            net.until("the end of the first", |net| net.clients[first].ended.is_some());
            let ended = &net.clients[first];
            assert!(ended.has_status(TAKEN), "{how:?}: {:?}", ended.seen);
            let mut new = Source::new(2).starting_at(500_000);
            net.send_headers(second, &new);
            net.send_frames(second, &mut new, 15);
            net.until_received(&players, &new);
            for (&player, &before) in players.iter().zip(&before) {
                let client = &net.clients[player];
                assert!(!client.has_status(UNPUBLISHED));
                assert_resumed(client, before, &new, 0);
                never_goes_back(client);
            }
            server.wait_log("publish", "result", "takeover");
            assert_eq!(server.metric("ringcast_publish_takeovers_total", ""), 1);
        }
    }
}

#[test]
fn where_duplicates_are_rejected_the_second_gets_bad_name_and_the_first_goes_on() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "[defaults]\nduplicate_publish = \"reject\"\n");
        let mut net = Net::new(server.rtmp);
        let first = net.open(ClientRole::Publish, "cam", Some(0));
        net.until_started(&[first]);
        let player = net.play("cam");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(first, &source);
        net.send_frames(first, &mut source, 5);
        for worker in 0..how.workers {
            let second = net.open(ClientRole::Publish, "cam", Some(worker));
            net.until("the refusal", |net| net.clients[second].ended.is_some());
            assert!(net.clients[second].has_status(TAKEN), "{:?}", net.clients[second].error);
        }
        net.send_frames(first, &mut source, 12);
        net.until_received(&[player], &source);
        assert_eq!(assert_complete(&net.clients[player], &source), 0);
    }
}

#[test]
fn a_publisher_that_falls_silent_is_closed_as_lost() {
    for how in matrix(&[1]) {
        let settings = "[defaults]\nidle_publisher_ms_max = 1500\n";
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let first = net.publish("cam");
        net.until_started(&[first]);
        let player = net.play("cam");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(first, &source);
        net.send_frames(first, &mut source, 12);
        net.until("the end of the silent one", |net| net.clients[first].ended.is_some());
        server.wait_log("close", "reason", "publisher_idle");
        server.wait_log("unpublish", "how", "lost");
        assert!(!net.clients[player].has_status(UNPUBLISHED));
        let before = net.clients[player].seen.len();
        let second = net.publish("cam");
        net.until_started(&[second]);
        let from = source.sent.len();
        source.restart();
        net.send_headers(second, &source);
        net.send_frames(second, &mut source, 12);
        net.until_received(&[player], &source);
        assert_resumed(&net.clients[player], before, &source, from);
    }
}

#[test]
fn distances_in_time_are_exact_wherever_a_publisher_starts() {
    for how in matrix(&[1]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        for (at, name) in [
            (0, "zero"),
            (0x00FF_FFFF - 1_000, "three-bytes"),
            ((1 << 31) - 1_000, "sign"),
            (u32::MAX - 999, "wrap"),
        ] {
            let publisher = net.publish(name);
            net.until_started(&[publisher]);
            let early = net.play(name);
            net.until_started(&[early]);
            // 40 ms a picture: crosses the border after 25 of 60.
            let mut source = Source { step_ms: 40, ..Source::new(1).starting_at(at) };
            net.send_headers(publisher, &source);
            net.send_frames(publisher, &mut source, 45);
            let late = net.play(name);
            net.until_started(&[late]);
            net.send_frames(publisher, &mut source, 15);
            net.until_received(&[early, late], &source);
            assert_eq!(assert_complete(&net.clients[early], &source), 0, "{name}");
            assert_complete(&net.clients[late], &source);
            let first = net.clients[early].frames().next().unwrap().timestamp;
            assert!(first <= 1_000, "{name}: a stream starts near 0, not at {first}");
        }
    }
}

#[test]
fn a_stream_that_runs_past_three_bytes_of_time_goes_on_with_extended_timestamps() {
    for how in matrix(&[1]) {
        let server = Server::start(how, "[defaults]\nlag_ms_max = 600000\nretention_ms = 600000\n");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("long");
        net.until_started(&[publisher]);
        let early = net.play("long");
        net.until_started(&[early]);
        // Pictures 4.9 s apart: as far as a stream may go without being taken for a jump.
        let mut source = Source { step_ms: 4_900, gop: 1, keyframe_bytes: 5_000, ..Source::new(1) };
        net.send_headers(publisher, &source);
        while source.timestamp < 0x00FF_FFFF + 60_000 {
            net.send_frames(publisher, &mut source, 50);
            net.until_received(&[early], &source);
        }
        let late = net.play("long");
        net.until_started(&[late]);
        net.send_frames(publisher, &mut source, 3);
        net.until_received(&[early, late], &source);
        assert_eq!(assert_complete(&net.clients[early], &source), 0);
        assert!(assert_complete(&net.clients[late], &source) > 0);
        let last = net.clients[late].frames().last().unwrap().timestamp;
        assert!(last > 0x00FF_FFFF);
    }
}

#[test]
fn a_new_sequence_header_in_mid_stream_reaches_players_and_late_joiners() {
    for how in matrix(&[2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let early = net.play("cam");
        net.until_started(&[early]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 10);
        source.header_version = 2;
        let header = source.video_header();
        net.clients[publisher].write_raw(6, 1, MediaKind::Video, source.timestamp, &header);
        source.restart();
        net.send_frames(publisher, &mut source, 10);
        net.until_received(&[early], &source);
        let late = net.play("cam");
        net.until_received(&[late], &source);
        assert_eq!(assert_complete(&net.clients[early], &source), 0);
        assert_eq!(assert_complete(&net.clients[late], &source), 20);
        let versions = |client: &Client| -> Vec<u32> {
            let headers = client.items().filter(|item| item.kind == Kind::VideoHeader);
            headers.map(|item| item.tag).collect()
        };
        let of_early = versions(&net.clients[early]);
        assert_eq!(of_early.first(), Some(&1), "{of_early:?}");
        assert_eq!(of_early.last(), Some(&2), "{of_early:?}");
        assert_eq!(versions(&net.clients[late]), [2], "only the new one");
        let change = net.clients[early]
            .items()
            .position(|item| (item.kind, item.tag) == (Kind::VideoHeader, 2));
        let next = net.clients[early].items().nth(change.unwrap() + 1).unwrap();
        assert_eq!((next.kind, next.sequence), (Kind::Keyframe, 20), "header, then its keyframe");
    }
}

#[test]
fn a_publisher_that_says_goodbye_and_closes_ends_its_stream() {
    for how in matrix(&[2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let player = net.play("cam");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        net.send_frames(publisher, &mut source, 5);
        net.unpublish(publisher);
        net.vanish(publisher);
        net.until("the end of the stream", |net| net.clients[player].has_status(UNPUBLISHED));
        net.until("the end of the publisher", |net| net.clients[publisher].ended.is_some());
        assert_eq!(net.clients[publisher].ended, Some(Ended::Fin));
        assert_complete(&net.clients[player], &source);
        server.wait_log("close", "reason", "peer_closed");
    }
}

#[test]
fn a_player_that_comes_in_the_grace_period_starts_with_the_returning_publisher() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let first = net.publish("cam");
        net.until_started(&[first]);
        let mut source = Source::new(1);
        net.send_headers(first, &source);
        net.send_frames(first, &mut source, 12);
        let early = net.play("cam");
        net.until_received(&[early], &source);
        net.reset(first);
        server.wait_log("unpublish", "how", "lost");
        let late: Vec<usize> =
            (0..how.workers).map(|w| net.open(ClientRole::Play, "cam", Some(w))).collect();
        net.until_started(&late);
        let second = net.publish("cam");
        net.until_started(&[second]);
        let from = source.sent.len();
        source.restart();
        net.send_headers(second, &source);
        // One GOP: there is one keyframe to start with.
        net.send_frames(second, &mut source, 9);
        net.until_received(&late, &source);
        for player in late {
            assert_eq!(assert_complete(&net.clients[player], &source), from);
        }
    }
}

#[test]
fn media_sent_right_behind_publish_is_not_lost_while_a_takeover_is_decided() {
    for how in matrix(&[1, 2]) {
        let server = Server::start(how, "");
        let mut net = Net::new(server.rtmp);
        let first = net.open(ClientRole::Publish, "cam", Some(0));
        net.until_started(&[first]);
        let players: Vec<usize> = (0..4).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut old = Source::new(1);
        net.send_headers(first, &old);
        net.send_frames(first, &mut old, 12);
        net.until_received(&players, &old);
        // Lands on any worker; four times, so that another than the first is among them.
        for tag in 2..6 {
            let before: Vec<usize> = players.iter().map(|&p| net.clients[p].seen.len()).collect();
            let mut new = Source::new(tag);
            let mut burst = message(
                3,
                kind::COMMAND_AMF0,
                1,
                &command_body("publish", 3.0, |amf| {
                    amf.null();
                    amf.string("cam");
                }),
            );
            burst.extend(message(6, kind::VIDEO, 1, &new.video_header()));
            burst.extend(message(4, kind::AUDIO, 1, &new.audio_header()));
            for (media, _, body) in (0..12).flat_map(|_| new.next_pair()) {
                let csid = if media == MediaKind::Video { 6 } else { 4 };
                burst.extend(message(csid, media.type_id(), 1, &body));
            }
            let mut peer = RawPeer::connected(server.rtmp);
            peer.create_stream(2.0);
            peer.read_until(b"_result");
            assert!(peer.send(&burst));
            net.until_received(&players, &new);
            for (&player, &before) in players.iter().zip(&before) {
                assert_resumed(&net.clients[player], before, &new, 0);
                never_goes_back(&net.clients[player]);
            }
            // Dropped while it publishes: the next one returns within the grace period.
        }
    }
}

#[test]
fn takeovers_one_after_another_while_frames_flow_lose_no_player() {
    // Frames come much faster than their own clock: on a busy machine a player would be found to lag.
    let settings = "[defaults]\nretention_ms = 600000\nlag_ms_max = 600000\n";
    for how in matrix(&[1, 2, 4]) {
        let server = Server::start(how, settings);
        let mut net = Net::new(server.rtmp);
        let mut publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let players: Vec<usize> = (0..8).map(|_| net.play("cam")).collect();
        net.until_started(&players);
        let mut source = Source::new(0);
        net.send_headers(publisher, &source);
        for tag in 1..12_u32 {
            let worker = u16::try_from(tag).unwrap() % how.workers;
            let next = net.open(ClientRole::Publish, "cam", Some(worker));
            net.until("the takeover", |net| {
                if net.clients[publisher].ended.is_none() && source.sent.len() < 4_000 {
                    net.send_frames(publisher, &mut source, 1);
                }
                net.clients[next].has_started()
            });
            publisher = next;
            source = Source::new(tag).starting_at(tag * 100_000_000);
            net.send_headers(publisher, &source);
            net.send_frames(publisher, &mut source, 12);
        }
        net.until_received(&players, &source);
        for &player in &players {
            let client = &net.clients[player];
            assert!(client.frames().all(|item| item.intact));
            assert!(!client.has_status(UNPUBLISHED));
            never_goes_back(client);
            let last: Vec<u32> =
                client.frames().filter(|i| i.tag == source.tag).map(|i| i.sequence).collect();
            let all: Vec<u32> = (0..24).collect();
            assert_eq!(last, all, "{how:?}: all of the last one");
        }
        assert_eq!(server.metric("ringcast_publish_takeovers_total", ""), 11);
    }
}

#[test]
fn a_silent_publisher_that_nobody_watches_gives_way_to_one_on_another_worker() {
    for how in matrix(&[2]) {
        let server = Server::start(how, "[defaults]\nidle_publisher_ms_max = 0\n");
        let mut net = Net::new(server.rtmp);
        let first = net.open(ClientRole::Publish, "cam", Some(0));
        net.until_started(&[first]);
        let second = net.open(ClientRole::Publish, "cam", Some(1));
        net.until_started(&[second]);
        net.until("the end of the first", |net| net.clients[first].ended.is_some());
        assert!(net.clients[first].has_status(TAKEN));
        drop(server);
    }
}
