//! What a server session answers to the exchanges that encoders and players depend on, byte for byte where
//! positions matter and as decoded text elsewhere.

mod session_support;

use rtmp::message::Control;
use rtmp::session::{PlayError, PublishError, SessionConfig, StatusLevel};
use session_support::{Peer, config};

fn connect(peer: &mut Peer, write: impl FnOnce(&mut rtmp::amf0::Writer<'_>)) {
    let events = peer.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        write(amf);
        amf.object_end();
    });
    assert_eq!(events, ["Connect live"]);
}

#[test]
fn connect_is_answered_by_window_bandwidth_chunk_size_result_and_bw_done_in_this_order() {
    let mut peer = Peer::shaken(config());
    connect(&mut peer, |_| {});
    assert!(!peer.session.has_replies());
    peer.session.accept_connect();
    assert_eq!(
        peer.replies(),
        [
            "0: window 2500000",
            "0: peer bandwidth 2500000 limit 2",
            "0: set chunk size 65536",
            "0: _result 1 {fmsVer: \"FMS/3,5,7,7009\", capabilities: 31} {level: \"status\", \
             code: \"NetConnection.Connect.Success\", description: \"Connection succeeded.\", \
             objectEncoding: 0, ringcast_id: \"c-1\"}",
            "0: onBWDone 0 null",
        ]
    );
}

#[test]
fn the_control_messages_before_the_connect_result_are_exact() {
    let mut peer = Peer::shaken(config());
    connect(&mut peer, |_| {});
    peer.session.accept_connect();
    let bytes = peer.reply_bytes();
    #[rustfmt::skip]
    let expected = [
        2, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0x00, 0x26, 0x25, 0xA0,
        2, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 0x00, 0x26, 0x25, 0xA0, 2,
        2, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0x00, 0x01, 0x00, 0x00,
    ];
    assert_eq!(bytes.get(..expected.len()), Some(&expected[..]));
}

#[test]
fn object_encoding_of_connect_is_echoed() {
    let mut peer = Peer::shaken(config());
    connect(&mut peer, |amf| {
        amf.key("objectEncoding");
        amf.number(3.0);
    });
    peer.session.accept_connect();
    assert!(peer.replies().iter().any(|line| line.contains("objectEncoding: 3")));
}

#[test]
fn enhanced_capabilities_are_answered_only_to_those_who_announce_any() {
    let mut peer = Peer::shaken(config());
    connect(&mut peer, |amf| {
        amf.key("fourCcList");
        amf.strict_array_begin(2);
        amf.string("hvc1");
        amf.string("av01");
        amf.key("videoFourCcInfoMap");
        amf.object_begin();
        amf.key("hvc1");
        amf.number(3.0);
        amf.object_end();
        amf.key("capsEx");
        amf.number(5.0);
    });
    peer.session.accept_connect();
    let replies = peer.replies();
    assert!(
        replies.iter().any(|line| line.contains(
            "capabilities: 31, capsEx: 15, fourCcList: [\"*\"], \
             videoFourCcInfoMap: {*: 4}, audioFourCcInfoMap: {*: 4}}"
        )),
        "{replies:?}"
    );
    assert_eq!(peer.connect.fourccs, ["hvc1", "av01"]);
    assert_eq!(peer.session.peer().caps_ex, 5);
}

#[test]
fn bw_done_can_be_switched_off() {
    let mut peer = Peer::shaken(SessionConfig { bw_done: false, ..config() });
    connect(&mut peer, |_| {});
    peer.session.accept_connect();
    assert!(!peer.replies().iter().any(|line| line.contains("onBWDone")));
}

#[test]
fn a_refused_connect_is_answered_by_error_and_ends_the_session() {
    let mut peer = Peer::shaken(config());
    connect(&mut peer, |_| {});
    peer.session.reject_connect("No such application.");
    assert_eq!(
        peer.replies(),
        ["0: _error 1 null {level: \"error\", code: \"NetConnection.Connect.Rejected\", \
          description: \"No such application.\"}"]
    );
    assert!(peer.session.is_closing());
}

#[test]
fn create_stream_is_answered_by_string_number_null_number_for_ffmpeg() {
    let mut peer = Peer::connected();
    peer.create_stream();
    #[rustfmt::skip]
    let expected = [
        3, 0, 0, 0, 0, 0, 29, 20, 0, 0, 0, 0,
        2, 0, 7, b'_', b'r', b'e', b's', b'u', b'l', b't',
        0, 0x40, 0x10, 0, 0, 0, 0, 0, 0,
        5,
        0, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(peer.reply_bytes(), expected);
}

#[test]
fn each_created_stream_has_an_id_of_its_own_from_one() {
    let mut peer = Peer::connected();
    for _ in 0..3 {
        peer.create_stream();
    }
    assert_eq!(
        peer.replies(),
        ["0: _result 4 null 1", "0: _result 4 null 2", "0: _result 4 null 3"]
    );
}

#[test]
fn publish_start_is_sent_on_the_message_stream_for_gstreamer() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.create_stream();
    peer.replies();
    assert_eq!(peer.publish(2, "name"), ["Publish 2 \"name\" Live"]);
    peer.session.accept_publish(2);
    assert_eq!(
        peer.replies(),
        ["2: onStatus 0 null {level: \"status\", code: \"NetStream.Publish.Start\", \
          description: \"Publishing has started.\"}"]
    );
}

#[test]
fn a_refused_publish_has_a_code_that_encoders_take_as_final() {
    for (error, code) in [
        (PublishError::BadName, "NetStream.Publish.BadName"),
        (PublishError::Denied, "NetStream.Publish.Denied"),
    ] {
        let mut peer = Peer::connected();
        peer.create_stream();
        peer.replies();
        peer.publish(1, "name");
        peer.session.reject_publish(1, error, "No.");
        assert_eq!(
            peer.replies(),
            [format!(
                "1: onStatus 0 null {{level: \"error\", code: \"{code}\", description: \"No.\"}}"
            )]
        );
        assert!(peer.session.is_closing());
    }
}

#[test]
fn play_is_answered_by_begin_reset_start_and_sample_access_without_data_start() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.replies();
    peer.play(1, "name");
    peer.session.accept_play(1);
    assert_eq!(
        peer.replies(),
        [
            "0: stream begin 1",
            "1: onStatus 0 null {level: \"status\", code: \"NetStream.Play.Reset\", \
             description: \"Resetting and playing.\"}",
            "1: onStatus 0 null {level: \"status\", code: \"NetStream.Play.Start\", \
             description: \"Playing has started.\"}",
            "1: \"|RtmpSampleAccess\" true true",
        ]
    );
}

#[test]
fn play_without_reset_is_not_told_of_one() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.replies();
    let events = peer.command(1, "play", 5.0, |amf| {
        amf.null();
        amf.string("name");
        amf.number(-1.0);
        amf.number(10.0);
        amf.boolean(false);
    });
    assert_eq!(events, ["Play 1 \"name\" raw \"name\" start -1 duration 10 reset false"]);
    peer.session.accept_play(1);
    assert!(!peer.replies().iter().any(|line| line.contains("Play.Reset")));
}

#[test]
fn a_refused_play_has_a_code_that_players_take_as_final() {
    for (error, code) in [
        (PlayError::StreamNotFound, "NetStream.Play.StreamNotFound"),
        (PlayError::Failed, "NetStream.Play.Failed"),
    ] {
        let mut peer = Peer::connected();
        peer.create_stream();
        peer.replies();
        peer.play(1, "name");
        peer.session.reject_play(1, error, "No.");
        assert!(peer.replies().iter().all(|line| line.starts_with("1: ") && line.contains(code)));
        assert!(peer.session.is_closing());
    }
}

#[test]
fn a_refusal_spares_the_other_stream_of_the_connection() {
    let mut peer = Peer::publishing();
    peer.create_stream();
    peer.publish(2, "other");
    peer.session.reject_publish(2, PublishError::BadName, "Taken.");
    assert!(!peer.session.is_closing());
    assert_eq!(peer.message(6, 9, 1, 0, &[0x17]).len(), 1);
}

#[test]
fn the_end_of_a_publisher_is_told_by_eof_and_unpublish_notify() {
    let mut peer = Peer::playing();
    peer.session.notify_unpublish(1);
    let replies = peer.replies();
    assert_eq!(replies.first().map(String::as_str), Some("0: stream eof 1"));
    assert!(replies.iter().any(|line| line.contains("NetStream.Play.UnpublishNotify")));
    peer.session.notify_play_stop(1);
    assert!(peer.replies().iter().any(|line| line.contains("NetStream.Play.Stop")));
    peer.session.notify_stream_eof(1);
    assert_eq!(peer.replies(), ["0: stream eof 1"]);
}

#[test]
fn long_texts_of_the_owner_are_cut() {
    let mut peer = Peer::playing();
    peer.session.notify_status(1, StatusLevel::Warning, "A.B", &"x".repeat(100_000));
    assert!(peer.reply_bytes().len() < 1_000);
}

#[test]
fn a_reconnect_request_goes_only_to_those_who_understand_it() {
    let mut peer = Peer::connected();
    assert!(!peer.session.reconnect_request(None, "Draining."));
    assert!(!peer.session.has_replies());

    let mut peer = Peer::shaken(config());
    connect(&mut peer, |amf| {
        amf.key("capsEx");
        amf.number(1.0);
    });
    peer.session.accept_connect();
    peer.replies();
    assert!(peer.session.reconnect_request(Some("rtmp://b/live"), "Draining."));
    assert_eq!(
        peer.replies(),
        [
            "0: onStatus 0 null {level: \"status\", code: \"NetConnection.Connect.ReconnectRequest\", \
          tcUrl: \"rtmp://b/live\", description: \"Draining.\"}"
        ]
    );
}

#[test]
fn the_preamble_follows_the_replies_in_the_same_buffer() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.replies();
    peer.play(1, "name");
    peer.session.accept_play(1);
    let header = rtmp::MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 5, length: 3 };
    assert_eq!(peer.session.write_message(&header, &[1, 2, 3]), Ok(()));
    let replies = peer.replies();
    assert_eq!(replies.len(), 5);
    assert!(replies[4].starts_with("1: "));
}

#[test]
fn nothing_is_written_in_part_when_the_reply_space_is_full() {
    let mut peer = Peer::playing();
    let body = vec![0; 1 << 20];
    let header = rtmp::MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 5, length: 1 << 20 };
    assert!(peer.session.write_message(&header, &body).is_err());
    assert!(!peer.session.has_replies());
    assert_eq!(peer.session.counters().notices_dropped, 1);
}

#[test]
fn a_ping_is_answered_with_its_own_timestamp() {
    let mut peer = Peer::connected();
    peer.control(Control::User { event: 6, data: 0xDEAD_BEEF, more: 0 });
    assert_eq!(
        peer.reply_bytes(),
        [2, 0, 0, 0, 0, 0, 6, 4, 0, 0, 0, 0, 0, 7, 0xDE, 0xAD, 0xBE, 0xEF]
    );
}
