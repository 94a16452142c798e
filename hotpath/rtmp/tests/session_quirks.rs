//! Habits of encoders, players and devices, one test per habit.

mod session_support;

use rtmp::message::{Control, kind};
use rtmp::session::{Event, SessionConfig};
use session_support::{NOW, Peer, command_body, config, data_body};

/// The command object of `connect` as the closure writes it.
fn connect_with(write: impl FnOnce(&mut rtmp::amf0::Writer<'_>)) -> rtmp::session::ConnectRequest {
    let mut peer = Peer::shaken(config());
    let body = command_body("connect", 1.0, write);
    let bytes = peer.framed(3, kind::COMMAND_AMF0, 0, 0, &body);
    match peer.session.handle_bytes(NOW, &mut bytes.as_slice()) {
        Ok(Some(Event::Connect(request))) => *request,
        other => panic!("{other:?}"),
    }
}

// Connect

#[test]
fn connect_may_carry_an_ecma_array_and_further_arguments() {
    let request = connect_with(|amf| {
        amf.ecma_array_begin(0);
        amf.key("app");
        amf.string("live");
        amf.key("flashVer");
        amf.string("LNX 9,0,124,2");
        amf.object_end();
        amf.string("extra");
        amf.number(1.0);
    });
    assert_eq!(
        (request.app.as_str(), request.flash_ver.as_deref()),
        ("live", Some("LNX 9,0,124,2"))
    );
}

#[test]
fn keys_of_connect_may_differ_in_case_and_tc_url_may_be_missing() {
    let request = connect_with(|amf| {
        amf.object_begin();
        amf.key("App");
        amf.string("live");
        amf.key("tcurl");
        amf.string("rtmp://h/live");
        amf.object_end();
    });
    assert_eq!((request.app.as_str(), request.tc_url.as_deref()), ("live", Some("rtmp://h/live")));
    let request = connect_with(|amf| {
        amf.object_begin();
        amf.object_end();
    });
    assert_eq!((request.app.as_str(), request.tc_url), ("", None));
}

#[test]
fn values_of_connect_may_be_quoted_and_end_in_line_breaks() {
    let request = connect_with(|amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("'live'\n");
        amf.key("tcUrl");
        amf.string("'rtmp://h/live'");
        amf.object_end();
    });
    assert_eq!((request.app.as_str(), request.tc_url.as_deref()), ("live", Some("rtmp://h/live")));
}

#[test]
fn connect_may_come_in_the_amf3_envelope() {
    let mut peer = Peer::shaken(config());
    let mut body = vec![0];
    body.extend(command_body("connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.object_end();
    }));
    assert_eq!(peer.message(3, kind::COMMAND_AMF3, 0, 0, &body), ["Connect live"]);
}

#[test]
fn the_chunk_size_may_change_before_connect_and_within_another_message() {
    let mut peer = Peer::shaken(config());
    peer.control(Control::SetChunkSize(4_096));
    let events = peer.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.key("swfUrl");
        amf.string(&"s".repeat(1_000));
        amf.object_end();
    });
    assert_eq!(events, ["Connect live"]);
}

// Setup of a publisher

#[test]
fn obs_sends_its_setup_in_one_burst_without_waiting() {
    let mut peer = Peer::connected();
    let mut burst = Vec::new();
    for (msid, name, tid, args) in [
        (0, "releaseStream", 2.0, vec!["key"]),
        (0, "FCPublish", 3.0, vec!["key"]),
        (0, "createStream", 4.0, vec![]),
        (1, "publish", 5.0, vec!["key", "live"]),
    ] {
        let body = command_body(name, tid, |amf| {
            amf.null();
            args.iter().for_each(|arg| amf.string(arg));
        });
        burst.extend(peer.framed(3, kind::COMMAND_AMF0, msid, 0, &body));
    }
    burst.extend(peer.framed(4, kind::VIDEO, 1, 0, &[0x17, 0]));
    assert_eq!(peer.feed(&burst), ["Publish 1 \"key\" Live"]);
    assert!(peer.unread_bytes() > 0, "nothing behind publish is consumed before the answer");
    assert_eq!(
        peer.replies(),
        [
            "0: _result 2 null undefined",
            "0: _result 3 null undefined",
            "0: onFCPublish 0 null {level: \"status\", code: \"NetStream.Publish.Start\", \
             description: \"Go on with publish.\"}",
            "0: _result 4 null 1",
        ]
    );
    peer.session.accept_publish(1);
    assert_eq!(peer.feed(&[]), ["Media 1 video ts 0 at 0 of 2 whole [23, 0]"]);
}

#[test]
fn flash_sends_neither_release_stream_nor_fc_publish() {
    let mut peer = Peer::connected();
    peer.create_stream();
    assert_eq!(peer.publish(1, "name"), ["Publish 1 \"name\" Live"]);
}

#[test]
fn haivision_checks_bandwidth_before_and_fc_publishes_after_create_stream() {
    let mut peer = Peer::connected();
    peer.command(0, "_checkbw", 2.0, |amf| amf.null());
    peer.create_stream();
    peer.command(0, "FCPublish", 5.0, |amf| {
        amf.null();
        amf.string("name");
    });
    let replies = peer.replies();
    assert_eq!(replies.first().map(String::as_str), Some("0: _result 2 null null"));
    assert_eq!(peer.publish(1, "name"), ["Publish 1 \"name\" Live"]);
}

#[test]
fn the_publishing_type_may_be_absent_or_any_of_the_known() {
    for (kind, mode) in [
        (None, "Live"),
        (Some("live"), "Live"),
        (Some("record"), "Record"),
        (Some("append"), "Append"),
        (Some("default"), "Live"),
        (Some("?"), "Live"),
    ] {
        let mut peer = Peer::connected();
        peer.create_stream();
        let events = peer.command(1, "publish", 5.0, |amf| {
            amf.null();
            amf.string("name");
            if let Some(kind) = kind {
                amf.string(kind);
            }
        });
        assert_eq!(events, [format!("Publish 1 \"name\" {mode}")]);
    }
}

#[test]
fn the_publishing_name_may_be_empty_or_end_in_a_line_break() {
    for (sent, seen) in [("", ""), ("name\r\n", "name"), (" s?k=v ", "s?k=v"), ("?k=v", "?k=v")] {
        let mut peer = Peer::connected();
        peer.create_stream();
        assert_eq!(peer.publish(1, sent), [format!("Publish 1 {seen:?} Live")]);
    }
}

#[test]
fn a_stream_name_in_utf8_with_dots_and_escapes_is_kept_whole() {
    let mut peer = Peer::connected();
    peer.create_stream();
    assert_eq!(peer.publish(1, "пример.v1.2%20x"), ["Publish 1 \"пример.v1.2%20x\" Live"]);
}

#[test]
fn an_encoder_that_says_everything_on_message_stream_zero_is_understood() {
    let mut peer = Peer::connected();
    peer.create_stream();
    assert_eq!(peer.publish(0, "name"), ["Publish 1 \"name\" Live"]);
    peer.session.accept_publish(1);
    assert_eq!(
        peer.message(4, kind::AUDIO, 0, 0, &[0xAF]),
        ["Media 1 audio ts 0 at 0 of 1 whole [175]"]
    );
}

// Control messages

#[test]
fn undocumented_user_control_events_are_ignored() {
    let mut peer = Peer::connected();
    for event in [5, 8, 26, 27, 31, 32, 0xFFFF] {
        assert!(peer.control(Control::User { event, data: 1, more: 0 }).is_empty());
    }
    // SWF verification answers are longer than any control message.
    assert!(peer.message(2, kind::USER_CONTROL, 0, 0, &[0; 44]).is_empty());
    assert!(peer.message(2, kind::USER_CONTROL, 0, 0, &[0; 300]).is_empty());
    assert!(!peer.session.has_replies());
}

#[test]
fn a_buffer_length_is_reported() {
    let mut peer = Peer::playing();
    assert_eq!(
        peer.control(Control::User { event: 3, data: 1, more: 3_000 }),
        ["BufferLength { msid: 1, ms: 3000 }"]
    );
}

#[test]
fn what_is_received_is_acknowledged_at_half_the_window_even_if_none_was_announced() {
    let mut peer = Peer::connected_with(SessionConfig { window_ack_bytes: 100_000, ..config() });
    peer.create_stream();
    peer.publish(1, "name");
    peer.session.accept_publish(1);
    peer.replies();
    peer.message(6, kind::VIDEO, 1, 0, &[1; 60_000]);
    let replies = peer.replies();
    assert_eq!(replies.len(), 1);
    assert!(replies[0].starts_with("0: acknowledgement "), "{replies:?}");
}

#[test]
fn the_window_announced_by_the_peer_is_the_one_acknowledged_by() {
    let mut peer = Peer::publishing();
    peer.control(Control::WindowAckSize(20_000));
    for _ in 0..10 {
        peer.message(6, kind::VIDEO, 1, 0, &[1; 10_000]);
    }
    assert!(peer.replies().len() >= 8);
}

#[test]
fn an_acknowledgement_of_the_peer_is_reported() {
    let mut peer = Peer::playing();
    assert_eq!(peer.control(Control::Ack(77)), ["Acknowledged { bytes: 77 }"]);
    assert_eq!(peer.session.peer().acknowledged_bytes, Some(77));
}

#[test]
fn a_peer_bandwidth_that_differs_is_answered_by_a_window_once() {
    let mut peer = Peer::connected();
    let bandwidth = Control::SetPeerBandwidth { window: 70_000, limit_type: 2 };
    peer.control(bandwidth);
    peer.control(bandwidth);
    assert_eq!(peer.replies(), ["0: window 70000"]);
}

// Players

#[test]
fn container_prefixes_are_stripped_for_live_and_kept_in_the_raw_name() {
    for (sent, name) in
        [("mp4:0", "0"), ("flv:name", "name"), ("name", "name"), ("other:name", "other:name")]
    {
        let mut peer = Peer::connected();
        peer.create_stream();
        assert_eq!(
            peer.play(1, sent),
            [format!("Play 1 {name:?} raw {sent:?} start -2 duration -1 reset true")]
        );
    }
}

#[test]
fn ffmpeg_asks_for_the_length_of_the_stream() {
    let mut peer = Peer::connected();
    peer.command(0, "getStreamLength", 3.0, |amf| {
        amf.null();
        amf.string("name");
    });
    assert_eq!(peer.replies(), ["0: _result 3 null 0"]);
}

#[test]
fn librtmp_asks_for_subscription_first() {
    let mut peer = Peer::connected();
    peer.command(0, "FCSubscribe", 4.0, |amf| {
        amf.null();
        amf.string("name");
    });
    assert_eq!(
        peer.replies(),
        ["0: onFCSubscribe 0 null {level: \"status\", code: \"NetStream.Play.Start\", \
          description: \"Go on with play.\"}"]
    );
}

#[test]
fn pause_is_answered_by_notify_and_eof_and_going_on_by_notify_and_begin() {
    for name in ["pause", "pauseRaw", "pauseraw"] {
        let mut peer = Peer::playing();
        for (paused, code, user) in
            [(true, "NetStream.Pause.Notify", "eof"), (false, "NetStream.Unpause.Notify", "begin")]
        {
            let events = peer.command(1, name, 0.0, |amf| {
                amf.null();
                amf.boolean(paused);
                amf.number(1_500.0);
            });
            assert_eq!(events, [format!("Pause {{ msid: 1, paused: {paused}, at_ms: 1500 }}")]);
            let replies = peer.replies();
            assert!(replies[0].contains(code), "{replies:?}");
            assert_eq!(replies[1], format!("0: stream {user} 1"));
        }
    }
}

#[test]
fn seek_is_answered_by_notify_while_playing_and_by_failed_otherwise() {
    let seek = |amf: &mut rtmp::amf0::Writer<'_>| {
        amf.null();
        amf.number(9_000.0);
    };
    let mut peer = Peer::playing();
    assert_eq!(peer.command(1, "seek", 0.0, seek), ["Seek { msid: 1, at_ms: 9000 }"]);
    assert!(peer.replies()[0].contains("NetStream.Seek.Notify"));
    let mut peer = Peer::publishing();
    assert!(peer.command(1, "seek", 0.0, seek).is_empty());
    assert!(peer.replies()[0].contains("NetStream.Seek.Failed"));
}

#[test]
fn tracks_are_chosen_before_and_during_play() {
    let mut peer = Peer::connected();
    peer.create_stream();
    let off = |amf: &mut rtmp::amf0::Writer<'_>| {
        amf.null();
        amf.boolean(false);
    };
    assert_eq!(peer.command(1, "receiveVideo", 0.0, off), ["ReceiveVideo { msid: 1, on: false }"]);
    assert_eq!(peer.command(1, "receiveAudio", 0.0, off), ["ReceiveAudio { msid: 1, on: false }"]);
}

#[test]
fn a_second_play_on_the_stream_replaces_the_first() {
    let mut peer = Peer::playing();
    assert_eq!(
        peer.play(1, "other"),
        ["StopPlay { msid: 1 }", "Play 1 \"other\" raw \"other\" start -2 duration -1 reset true"]
    );
    peer.session.accept_play(1);
    assert!(peer.session.is_playing(1));
}

#[test]
fn play2_names_the_stream_in_an_object() {
    let mut peer = Peer::playing();
    let events = peer.command(1, "play2", 0.0, |amf| {
        amf.null();
        amf.object_begin();
        amf.key("streamName");
        amf.string("mp4:other");
        amf.key("start");
        amf.number(-1.0);
        amf.object_end();
    });
    assert_eq!(
        events,
        [
            "StopPlay { msid: 1 }",
            "Play 1 \"other\" raw \"mp4:other\" start -1 duration -1 reset true"
        ]
    );
}

#[test]
fn media_of_a_player_is_let_go_by() {
    let mut peer = Peer::playing();
    assert!(peer.message(4, kind::AUDIO, 1, 0, &[0xAF; 500]).is_empty());
    assert!(peer.message(5, kind::DATA_AMF0, 1, 0, &data_body("onMetaData")).is_empty());
    assert_eq!(peer.session.counters().messages_ignored, 2);
}

// The end

#[test]
fn a_connection_publishes_again_after_each_clean_end() {
    type Say = fn(&mut Peer) -> Vec<String>;
    let ends: [(&str, Say); 3] = [
        ("FCUnpublish", |peer| {
            peer.command(0, "FCUnpublish", 6.0, |amf| {
                amf.null();
                amf.string("name");
            })
        }),
        ("closeStream", |peer| peer.command(1, "closeStream", 0.0, |amf| amf.null())),
        ("deleteStream", |peer| {
            peer.command(0, "deleteStream", 7.0, |amf| {
                amf.null();
                amf.number(1.0);
            })
        }),
    ];
    for (name, end) in ends {
        let mut peer = Peer::publishing();
        assert_eq!(end(&mut peer), ["Unpublish { msid: 1 }"], "{name}");
        assert!(
            peer.replies().iter().any(|line| line.starts_with(
                "1: onStatus 0 null {level: \"status\", code: \"NetStream.Unpublish.Success\""
            )),
            "{name}"
        );
        if name == "deleteStream" {
            peer.create_stream();
        }
        assert_eq!(peer.publish(1, "again"), ["Publish 1 \"again\" Live"], "{name}");
        peer.session.accept_publish(1);
        assert_eq!(peer.message(4, kind::AUDIO, 1, 0, &[0xAF]).len(), 1, "{name}");
    }
}

#[test]
fn obs_ends_with_fc_unpublish_and_delete_stream_and_is_reported_once() {
    let mut peer = Peer::publishing();
    let mut events = peer.command(0, "FCUnpublish", 6.0, |amf| {
        amf.null();
        amf.string("name");
    });
    events.extend(peer.command(0, "deleteStream", 7.0, |amf| {
        amf.null();
        amf.number(1.0);
    }));
    assert_eq!(events, ["Unpublish { msid: 1 }"]);
    assert_eq!(peer.session.stream_count(), 0);
}

#[test]
fn gstreamer_deletes_its_stream_by_name() {
    let mut peer = Peer::publishing();
    let events = peer.command(0, "deleteStream", 0.0, |amf| {
        amf.null();
        amf.string("name");
    });
    assert_eq!(events, ["Unpublish { msid: 1 }"]);
    assert_eq!(peer.session.stream_count(), 0);
}

#[test]
fn fc_unpublish_ends_the_stream_it_names() {
    let mut peer = Peer::publishing();
    peer.create_stream();
    peer.publish(2, "other");
    peer.session.accept_publish(2);
    let events = peer.command(0, "FCUnpublish", 6.0, |amf| {
        amf.null();
        amf.string("other");
    });
    assert_eq!(events, ["Unpublish { msid: 2 }"]);
    assert!(peer.session.is_publishing(1));
}

#[test]
fn a_player_that_closes_or_deletes_its_stream_stops_playing() {
    let mut peer = Peer::playing();
    assert_eq!(peer.command(1, "closeStream", 0.0, |amf| amf.null()), ["StopPlay { msid: 1 }"]);
    let mut peer = Peer::playing();
    let events = peer.command(0, "deleteStream", 0.0, |amf| {
        amf.null();
        amf.number(1.0);
    });
    assert_eq!(events, ["StopPlay { msid: 1 }"]);
    // The next stream gets the id of the shared wire image again.
    peer.replies();
    peer.create_stream();
    assert_eq!(peer.replies(), ["0: _result 4 null 1"]);
}

#[test]
fn one_connection_publishes_and_plays_at_once() {
    let mut peer = Peer::publishing();
    peer.create_stream();
    peer.play(2, "other");
    peer.session.accept_play(2);
    assert!(peer.session.is_publishing(1) && peer.session.is_playing(2));
    assert_eq!(
        peer.message(4, kind::AUDIO, 1, 9, &[1]),
        ["Media 1 audio ts 9 at 0 of 1 whole [1]"]
    );
    assert!(peer.message(4, kind::AUDIO, 2, 9, &[1]).is_empty());
}

// Unknown commands

#[test]
fn unknown_commands_are_answered_when_they_ask_and_never_close() {
    let mut peer = Peer::publishing();
    for name in
        ["_checkbw", "checkBandwidth", "set_playlist", "secureTokenResponse", "onStatus", "x"]
    {
        peer.command(0, name, 9.0, |amf| amf.null());
        assert_eq!(peer.replies(), ["0: _result 9 null null"], "{name}");
        peer.command(0, name, 0.0, |amf| amf.null());
        assert!(peer.replies().is_empty(), "{name}");
    }
    assert!(!peer.session.is_closing());
}

#[test]
fn answers_of_the_peer_are_not_answered() {
    let mut peer = Peer::connected();
    for name in ["_result", "_error"] {
        peer.command(0, name, 9.0, |amf| amf.null());
    }
    assert!(!peer.session.has_replies());
}
