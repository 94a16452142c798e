//! Media and data messages of publishers: what passes, what is stripped, what is void.

mod session_support;

use rtmp::message::{Control, kind};
use rtmp::session::SessionConfig;
use session_support::{Peer, data_body};

#[test]
fn set_data_frame_is_stripped_and_clear_data_frame_reported() {
    let mut peer = Peer::publishing();
    let body = [data_body("@setDataFrame"), data_body("onMetaData"), vec![8, 0, 0, 0, 0]].concat();
    assert_eq!(
        peer.message(5, kind::DATA_AMF0, 1, 3, &body),
        ["Data 1 ts 3 \\x02\\x00\\nonMetaData\\x08\\x00\\x00\\x00\\x00"]
    );
    let body = [data_body("@clearDataFrame"), data_body("onMetaData")].concat();
    assert_eq!(peer.message(5, kind::DATA_AMF0, 1, 3, &body), ["ClearMetadata { msid: 1 }"]);
}

#[test]
fn data_in_the_amf3_envelope_loses_its_selector_also_when_torn() {
    let mut peer = Peer::publishing();
    let body = [vec![0], data_body("@setDataFrame"), data_body("onMetaData")].concat();
    let bytes = peer.framed(5, kind::DATA_AMF3, 1, 3, &body);
    let expected = ["Data 1 ts 3 \\x02\\x00\\nonMetaData"];
    assert_eq!(peer.feed(&bytes), expected);
    let torn: Vec<String> = bytes.chunks(1).flat_map(|byte| peer.feed(byte)).collect();
    assert_eq!(torn, expected);
}

#[test]
fn data_without_set_data_frame_passes() {
    let mut peer = Peer::publishing();
    for name in ["onMetaData", "onTextData", "onCaptionInfo", "onCuePoint", "onFI"] {
        assert_eq!(
            peer.message(5, kind::DATA_AMF0, 1, 0, &data_body(name)),
            [format!("Data 1 ts 0 {}", data_body(name).escape_ascii())]
        );
    }
}

#[test]
fn empty_data_and_the_time_code_of_ffmpeg_go_no_further() {
    let mut peer = Peer::publishing();
    for body in [vec![], vec![0, 0, 0, 1], data_body("@setDataFrame")] {
        assert!(peer.message(5, kind::DATA_AMF0, 1, 0, &body).is_empty());
    }
    assert!(!peer.session.has_replies());
}

#[test]
fn metadata_that_is_too_long_is_dropped_and_the_session_goes_on() {
    let mut peer = Peer::publishing();
    let body = [data_body("onMetaData"), vec![5; 1 << 20]].concat();
    assert!(peer.message(5, kind::DATA_AMF0, 1, 0, &body).is_empty());
    assert_eq!(peer.session.counters().messages_skipped, 1);
    assert_eq!(peer.message(4, kind::AUDIO, 1, 0, &[1]).len(), 1);
}

// Media

#[test]
fn tags_that_nobody_understands_pass() {
    let mut peer = Peer::publishing();
    // A device's own audio codec, a frame type that is none, and a FourCC that is none.
    for body in [vec![0xFF, 1, 2], vec![0x7C, 1], vec![0x90, b'?', b'?', b'?', b'?']] {
        assert_eq!(peer.message(4, kind::VIDEO, 1, 0, &body).len(), 1);
    }
}

#[test]
fn an_end_mark_of_one_byte_passes_and_an_empty_message_does_not() {
    let mut peer = Peer::publishing();
    assert_eq!(peer.message(4, kind::AUDIO, 1, 0, &[0xAF]).len(), 1);
    assert!(peer.message(4, kind::AUDIO, 1, 0, &[]).is_empty());
    assert!(peer.message(3, kind::COMMAND_AMF0, 1, 0, &[]).is_empty());
}

#[test]
fn shared_objects_and_unknown_kinds_are_let_go_by() {
    let mut peer = Peer::publishing();
    for kind in [7, 16, 19, 21, 99] {
        assert!(peer.message(7, kind, 1, 0, &[0; 300]).is_empty());
    }
    assert_eq!(peer.session.counters().messages_skipped, 5);
}

#[test]
fn timestamps_pass_unchanged_over_24_and_32_bits() {
    let mut peer = Peer::publishing();
    for ts in [0, 0xFF_FFFE, 0xFF_FFFF, 0x100_0000, 0xFFFF_FFF0, 0xFFFF_FFFF, 3] {
        assert_eq!(
            peer.message(4, kind::AUDIO, 1, ts, &[1]),
            [format!("Media 1 audio ts {ts} at 0 of 1 whole [1]")]
        );
    }
}

#[test]
fn an_aborted_message_is_reported_and_its_rest_never_comes() {
    let mut peer = Peer::publishing();
    let message = peer.framed(6, kind::VIDEO, 1, 0, &[9; 300]);
    let first_chunk = message.get(..12 + 128).unwrap().to_vec();
    assert_eq!(peer.feed(&first_chunk).len(), 1);
    assert_eq!(peer.control(Control::Abort(6)), ["MediaAborted { csid: 6, msid: 1, kind: Video }"]);
    assert!(peer.control(Control::Abort(6)).is_empty());
    assert_eq!(
        peer.message(6, kind::VIDEO, 1, 1, &[8]),
        ["Media 1 video ts 1 at 0 of 1 whole [8]"]
    );
}

#[test]
fn a_new_message_in_the_middle_of_another_voids_the_first() {
    let mut peer = Peer::publishing();
    let message = peer.framed(6, kind::VIDEO, 1, 0, &[9; 300]);
    let first_chunk = message.get(..12 + 128).unwrap().to_vec();
    assert_eq!(peer.feed(&first_chunk).len(), 1);
    assert_eq!(
        peer.message(6, kind::VIDEO, 1, 40, &[8, 8]),
        [
            "MediaAborted { csid: 6, msid: 1, kind: Video }",
            "Media 1 video ts 40 at 0 of 2 whole [8, 8]"
        ]
    );
}

#[test]
fn the_rest_of_a_message_that_began_before_publish_is_not_passed_on() {
    let mut peer = Peer::connected();
    peer.create_stream();
    let message = peer.framed(6, kind::VIDEO, 1, 0, &[9; 200]);
    let (begin, rest) = message.split_at(12 + 128);
    assert!(peer.feed(begin).is_empty());
    peer.publish(1, "name");
    peer.session.accept_publish(1);
    assert!(peer.feed(rest).is_empty());
    assert_eq!(peer.message(6, kind::VIDEO, 1, 0, &[1]).len(), 1);
}

#[test]
fn the_rest_of_a_message_that_was_open_at_unpublish_is_not_passed_on() {
    let mut peer = Peer::publishing();
    let message = peer.framed(6, kind::VIDEO, 1, 0, &[9; 200]);
    let (begin, rest) = message.split_at(12 + 128);
    assert_eq!(peer.feed(begin).len(), 1);
    peer.command(1, "closeStream", 0.0, |amf| amf.null());
    peer.publish(1, "again");
    peer.session.accept_publish(1);
    assert!(peer.feed(rest).is_empty());
}

#[test]
fn a_message_on_stream_zero_is_never_passed_on_with_a_gap() {
    let mut peer = Peer::publishing();
    let message = peer.framed(6, kind::VIDEO, 0, 0, &[9; 300]);
    let (begin, rest) = message.split_at(12 + 128);
    let (middle, end) = rest.split_at(1 + 128);
    assert_eq!(peer.feed(begin).len(), 1);
    peer.create_stream();
    assert_eq!(peer.feed(middle).len(), 1, "stream 1 is the one published first");
    peer.publish(2, "other");
    peer.session.accept_publish(2);
    assert_eq!(peer.feed(end).len(), 1, "it still is");

    assert_eq!(peer.feed(begin).len(), 1);
    let closed = peer.command(1, "closeStream", 0.0, |amf| amf.null());
    assert_eq!(closed, ["Unpublish { msid: 1 }"]);
    assert!(peer.feed(rest).is_empty(), "it began on stream 1 and does not go on on stream 2");
    let events = peer.message(6, kind::VIDEO, 0, 0, &[1]);
    assert_eq!(events, ["Media 2 video ts 0 at 0 of 1 whole [1]"]);
}

#[test]
fn the_room_of_torn_messages_is_given_back() {
    let config = SessionConfig { assembly_bytes_max: 100_000, ..session_support::config() };
    let mut peer = Peer::connected_with(config);
    peer.create_stream();
    peer.publish(1, "name");
    peer.session.accept_publish(1);
    let body = [data_body("onMetaData"), vec![5; 20_000]].concat();
    let mut aggregate = vec![kind::DATA_AMF0, 0, 0x4E, 0x2D, 0, 0, 0, 0, 0, 0, 0];
    aggregate.extend_from_slice(&body);
    for round in 0..20 {
        assert_eq!(peer.message(5, kind::DATA_AMF0, 1, 0, &body).len(), 1, "round {round}");
        assert_eq!(peer.message(6, kind::AGGREGATE, 1, 0, &aggregate).len(), 1, "round {round}");
        // Aborted ones too.
        let torn = peer.framed(5, kind::DATA_AMF0, 1, 0, &body);
        peer.feed(torn.get(..12 + 128).unwrap());
        peer.control(Control::Abort(5));
    }
    assert!(peer.session.held_bytes() < 100_000);
}
