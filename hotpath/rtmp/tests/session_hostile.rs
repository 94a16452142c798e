//! Peers that do what they must not: each gets a typed error or is let go by, and memory stays bounded.

mod session_support;

use rtmp::Millis;
use rtmp::chunk::CSID_COMMAND;
use rtmp::message::{Control, kind};
use rtmp::session::config::{COMMAND_BYTES_MAX, STREAMS_MAX, STRING_BYTES_MAX};
use rtmp::session::{ServerSession, SessionConfig, SessionError, WaitingFor};
use session_support::{NOW, Peer, command_body, config};

fn nothing(amf: &mut rtmp::amf0::Writer<'_>) {
    amf.null();
}

/// Sends a command that must end the session; returns label and replies.
fn fatal(
    peer: &mut Peer,
    msid: u32,
    name: &str,
    write: impl FnOnce(&mut rtmp::amf0::Writer<'_>),
) -> (&'static str, Vec<String>) {
    let error = peer.try_command(msid, name, 9.0, write).expect_err("a fatal command");
    assert!(error.disposition().close && peer.session.is_closing());
    assert!(error.offset() > 3_000, "the offset counts from the first byte: {error}");
    (error.label(), peer.replies())
}

// Order of commands

#[test]
fn streams_before_connect_are_refused() {
    for name in ["createStream", "publish", "play", "play2"] {
        let mut peer = Peer::shaken(config());
        let (label, replies) = fatal(&mut peer, 0, name, nothing);
        assert_eq!(label, "not_connected");
        assert_eq!(
            replies,
            ["0: _error 9 null {level: \"error\", code: \"NetConnection.Call.Failed\", \
              description: \"Connect first.\"}"]
        );
    }
}

#[test]
fn other_commands_before_connect_are_tolerated() {
    let mut peer = Peer::shaken(config());
    peer.command(0, "releaseStream", 2.0, nothing);
    assert_eq!(peer.replies(), ["0: _result 2 null null"]);
}

#[test]
fn a_second_connect_is_refused() {
    let mut peer = Peer::connected();
    let (label, replies) = fatal(&mut peer, 0, "connect", |amf| {
        amf.object_begin();
        amf.object_end();
    });
    assert_eq!(label, "second_connect");
    assert!(replies[0].starts_with("0: _error 9 "), "{replies:?}");
}

#[test]
fn publishing_twice_on_one_stream_is_refused_on_that_stream() {
    let mut peer = Peer::publishing();
    let error = peer.try_command(1, "publish", 9.0, |amf| {
        amf.null();
        amf.string("other");
    });
    assert!(matches!(error, Err(SessionError::PublishOnBusyStream { msid: 1, .. })));
    assert!(
        peer.replies()[0].starts_with(
            "1: onStatus 0 null {level: \"error\", code: \"NetStream.Publish.BadName\""
        )
    );
}

#[test]
fn roles_do_not_mix_on_one_stream() {
    let mut peer = Peer::publishing();
    assert_eq!(fatal(&mut peer, 1, "play", nothing).0, "play_busy_stream");
    let mut peer = Peer::playing();
    assert_eq!(fatal(&mut peer, 1, "publish", nothing).0, "publish_busy_stream");
}

#[test]
fn publish_and_play_need_a_created_stream() {
    let mut peer = Peer::connected();
    let (label, replies) = fatal(&mut peer, 5, "publish", nothing);
    assert_eq!(label, "publish_unknown_stream");
    assert!(replies[0].starts_with("5: onStatus "));
    let mut peer = Peer::connected();
    assert_eq!(fatal(&mut peer, 0, "play", nothing).0, "play_unknown_stream");
}

// Sizes

#[test]
fn giant_strings_are_refused() {
    let giant = "x".repeat(STRING_BYTES_MAX + 1);
    let mut peer = Peer::shaken(config());
    let (label, _) = fatal(&mut peer, 0, "connect", |amf| {
        amf.object_begin();
        amf.key("tcUrl");
        amf.string(&giant);
        amf.object_end();
    });
    assert_eq!(label, "string_too_long");
    for name in ["publish", "play"] {
        let mut peer = Peer::connected();
        peer.create_stream();
        let (label, _) = fatal(&mut peer, 1, name, |amf| {
            amf.null();
            amf.string(&giant);
        });
        assert_eq!(label, "string_too_long", "{name}");
    }
}

#[test]
fn a_name_of_the_longest_length_is_taken() {
    let mut peer = Peer::connected();
    peer.create_stream();
    assert_eq!(peer.publish(1, &"x".repeat(STRING_BYTES_MAX)).len(), 1);
}

#[test]
fn a_command_above_the_limit_is_refused_at_its_header() {
    let mut peer = Peer::connected();
    let body = vec![0; COMMAND_BYTES_MAX as usize + 1];
    let bytes = peer.framed(CSID_COMMAND, kind::COMMAND_AMF0, 0, 0, &body);
    let error = peer.try_feed(bytes.get(..13).unwrap()).expect_err("too long");
    assert_eq!(error.label(), "command_too_long");
}

#[test]
fn unfinished_messages_of_many_chunk_streams_fill_the_assembly_and_no_more() {
    let mut peer = Peer::connected_with(SessionConfig { assembly_bytes_max: 100_000, ..config() });
    peer.control(Control::SetChunkSize(4_000));
    let mut worst = 0;
    let mut error = None;
    for csid in 3..60 {
        let bytes = peer.framed(csid, kind::DATA_AMF0, 0, 0, &[2; 8_000]);
        // The first of two chunks.
        match peer.try_feed(bytes.get(..12 + 4_000).unwrap()) {
            Ok(_) => worst = worst.max(peer.session.held_bytes()),
            Err(found) => {
                error = Some(found);
                break;
            }
        }
    }
    assert!(matches!(error, Some(SessionError::AssemblyFull { .. })), "{error:?}");
    assert!(worst <= 2 * 100_000 + 64 * 1024, "held {worst}");
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut peer = Peer::publishing();
    let bytes = peer.framed(5, kind::DATA_AMF0, 1, 0, &[2; 200_000]);
    let before = peer.session.held_bytes();
    peer.feed(bytes.get(..20).unwrap());
    assert!(peer.session.held_bytes() < before + 8 * 1024);
}

// Floods

#[test]
fn a_storm_of_create_stream_is_refused_above_the_limit_and_survived() {
    let mut peer = Peer::connected();
    for _ in 0..STREAMS_MAX + 100 {
        peer.create_stream();
        peer.session.take_replies(&mut Vec::new());
    }
    assert_eq!(peer.session.stream_count(), STREAMS_MAX);
    assert_eq!(peer.session.counters().errors_survived, 100);
    assert!(!peer.session.is_closing());
}

#[test]
fn a_flood_whose_answers_nobody_takes_is_not_consumed_and_grows_nothing() {
    for flood in ["ping", "command"] {
        let mut peer = Peer::connected_with(SessionConfig { reply_bytes_max: 32_768, ..config() });
        let one = if flood == "ping" {
            peer.framed(2, kind::USER_CONTROL, 0, 0, &[0, 6, 1, 2, 3, 4])
        } else {
            peer.framed(3, kind::COMMAND_AMF0, 0, 0, &command_body("x", 1.0, nothing))
        };
        let bytes = one.repeat(100_000);
        assert!(peer.feed(&bytes).is_empty());
        let left = peer.unread_bytes();
        assert!(left > bytes.len() / 2, "{flood}: only what the reply space allows is consumed");
        assert!(peer.session.held_bytes() < 128 * 1024);
        // Once the replies are taken the session goes on where it was.
        assert!(peer.reply_bytes().len() <= 32_768);
        peer.feed(&[]);
        assert!(peer.unread_bytes() < left, "{flood}");
    }
}

#[test]
fn nothing_is_consumed_while_a_request_is_unanswered() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.publish(1, "name");
    let bytes = peer.framed(4, kind::AUDIO, 1, 0, &[1]).repeat(10);
    assert!(peer.feed(&bytes).is_empty());
    assert_eq!(peer.unread_bytes(), bytes.len());
}

// Malformed

#[test]
fn control_messages_that_are_too_short_are_malformed() {
    for kind in [1, 2, 3, 5, 6] {
        let mut peer = Peer::connected();
        let error = peer.try_message(2, kind, 0, 0, &[0, 0, 1]).expect_err("too short");
        assert_eq!(error.label(), "malformed_control_body");
        assert!(error.offset() > 3_073);
    }
}

#[test]
fn a_chunk_size_of_zero_is_refused() {
    let mut peer = Peer::connected();
    let error = peer.try_message(2, 1, 0, 0, &[0; 4]).expect_err("zero");
    assert_eq!(error.label(), "violation_chunk_size_zero");
}

#[test]
fn commands_that_are_not_readable_are_malformed() {
    for (body, label) in [
        (&[0x05][..], "command_malformed"),
        (&[0x02, 0, 9, b'x'], "malformed_amf_truncated"),
        (&[0x02, 0, 1, b'x', 0x40], "unsupported_amf_marker"),
    ] {
        let mut peer = Peer::connected();
        let error = peer.try_message(3, kind::COMMAND_AMF0, 0, 0, body).expect_err("unreadable");
        assert_eq!(error.label(), label, "{body:?}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut peer = Peer::connected();
    let mut body = command_body("x", 1.0, |amf| amf.null());
    for _ in 0..1_000 {
        body.extend_from_slice(&[0x0A, 0, 0, 0, 1]);
    }
    let error = peer.try_message(3, kind::COMMAND_AMF0, 0, 0, &body).expect_err("too deep");
    assert_eq!(error.label(), "limit_amf_depth");
}

#[test]
fn a_wrong_first_byte_is_refused_and_the_rest_is_thrown_away() {
    let mut session = ServerSession::new(config(), 1, NOW);
    let mut input: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    let error = session.handle_bytes(NOW, &mut input).expect_err("not RTMP");
    assert_eq!(error.label(), "violation_handshake_version");
    assert!(session.is_closing() && !session.has_replies());
    assert_eq!(session.handle_bytes(NOW, &mut input), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn every_error_says_where_it_was() {
    let mut peer = Peer::publishing();
    let error = peer.try_message(2, 1, 0, 0, &[0; 4]).expect_err("zero");
    let offset = error.offset();
    assert_eq!(offset, peer.session.bytes_in());
    assert!(error.to_string().contains(&format!("byte {offset}")), "{error}");
}

// Owner's mistakes

#[test]
#[should_panic(expected = "without a request")]
fn an_answer_that_nobody_asked_for_is_a_mistake_of_the_owner() {
    Peer::connected().session.accept_connect();
}

#[test]
#[should_panic(expected = "without a request")]
fn accepting_a_play_as_a_publish_is_a_mistake_of_the_owner() {
    let mut peer = Peer::connected();
    peer.create_stream();
    peer.play(1, "name");
    peer.session.accept_publish(1);
}

// Time

fn timed() -> SessionConfig {
    SessionConfig {
        handshake_ms_max: 10,
        connect_ms_max: 20,
        idle_ms_max: 100,
        ping_interval_ms: 40,
        ..config()
    }
}

fn expect_timeout(result: Result<(), SessionError>, expected: WaitingFor) {
    match result {
        Err(SessionError::Timeout { waiting_for, .. }) => assert_eq!(waiting_for, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_that_does_not_shake_hands_is_closed() {
    let mut session = ServerSession::new(timed(), 1, Millis(0));
    assert_eq!(session.poll_timeout(), Some(Millis(10)));
    assert_eq!(session.handle_timeout(Millis(9)), Ok(()));
    // Dripping bytes does not help.
    assert_eq!(session.handle_bytes(Millis(9), &mut [3u8, 0].as_slice()), Ok(None));
    expect_timeout(session.handle_timeout(Millis(10)), WaitingFor::Handshake);
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_peer_that_idles_after_the_handshake_is_closed() {
    let mut peer = Peer::shaken(timed());
    let deadline = Millis(NOW.0 + 20);
    assert_eq!(peer.session.poll_timeout(), Some(deadline));
    expect_timeout(peer.session.handle_timeout(deadline), WaitingFor::Connect);
}

#[test]
fn a_silent_peer_is_pinged_and_then_closed() {
    let mut peer = Peer::connected_with(timed());
    assert_eq!(peer.session.poll_timeout(), Some(Millis(NOW.0 + 40)));
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 40)), Ok(()));
    assert_eq!(peer.replies(), ["0: ping 1040"]);
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 80)), Ok(()));
    assert_eq!(peer.session.poll_timeout(), Some(Millis(NOW.0 + 100)));
    expect_timeout(peer.session.handle_timeout(Millis(NOW.0 + 100)), WaitingFor::Activity);
}

#[test]
fn a_pong_gives_the_round_trip_and_keeps_the_peer_alive() {
    let mut peer = Peer::connected_with(timed());
    peer.session.handle_timeout(Millis(NOW.0 + 40)).unwrap();
    peer.now = Millis(NOW.0 + 47);
    peer.control(Control::User { event: 7, data: 1_040, more: 0 });
    assert_eq!(peer.session.peer().rtt_ms, Some(7));
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 100)), Ok(()));
}

#[test]
fn a_player_that_only_takes_bytes_is_alive() {
    let mut peer = Peer::connected_with(SessionConfig { ping_interval_ms: 0, ..timed() });
    peer.session.note_send_progress(Millis(NOW.0 + 90));
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 150)), Ok(()));
    assert_eq!(peer.session.poll_timeout(), Some(Millis(NOW.0 + 190)));
}

#[test]
fn a_peer_is_not_idle_while_the_owner_thinks() {
    let mut peer = Peer::connected_with(timed());
    peer.create_stream();
    peer.publish(1, "name");
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 500)), Ok(()));
    peer.session.accept_publish(1);
    assert_eq!(peer.session.handle_timeout(Millis(NOW.0 + 599)), Ok(()));
    expect_timeout(peer.session.handle_timeout(Millis(NOW.0 + 600)), WaitingFor::Activity);
}

#[test]
fn a_late_answer_after_the_end_is_not_sent() {
    let mut peer = Peer::shaken(timed());
    peer.command(0, "connect", 1.0, |amf| {
        amf.object_begin();
        amf.object_end();
    });
    assert_eq!(peer.session.poll_timeout(), None, "the owner is awaited, not the peer");
    peer.session.reject_connect("No.");
    peer.replies();
    peer.session.accept_connect();
    assert!(peer.replies().is_empty());
}
