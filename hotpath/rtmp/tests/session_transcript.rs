//! The text of a byte stream: what each message looks like, whatever the cuts.

mod session_support;

use rtmp::chunk::{ChunkWriter, Compression, Framing};
use rtmp::message::{Control, MessageHeader, kind};
use rtmp::session::transcript::Transcript;
use session_support::{command_body, data_body};

fn header(csid: u32, kind: u8, timestamp: u32, body: &[u8]) -> MessageHeader {
    let length = u32::try_from(body.len()).unwrap();
    MessageHeader { csid, kind, msid: u32::from(kind > 7 && kind != 20), timestamp, length }
}

fn recording() -> Vec<u8> {
    let mut out = vec![3; 1];
    out.extend_from_slice(&[0; 3_072]);
    let framing = Framing { chunk_bytes: 128 };
    let mut add = |csid, kind, timestamp, body: &[u8]| {
        framing.write_message(&header(csid, kind, timestamp, body), body, &mut out);
    };
    let connect = command_body("connect", 1.0, |amf| {
        amf.object_begin();
        amf.key("app");
        amf.string("live");
        amf.key("fourCcList");
        amf.strict_array_begin(2);
        amf.string("av01");
        amf.boolean(true);
        amf.object_end();
        amf.undefined();
    });
    add(3, kind::COMMAND_AMF0, 0, &connect);
    for control in [
        Control::Ack(9),
        Control::WindowAckSize(10),
        Control::SetPeerBandwidth { window: 11, limit_type: 2 },
        Control::User { event: 3, data: 1, more: 300 },
        Control::User { event: 31, data: 1, more: 0 },
    ] {
        let mut body = Vec::new();
        control.write_body(&mut body);
        add(2, control.kind(), 0, &body);
    }
    add(5, kind::DATA_AMF0, 0, &[data_body("onMetaData"), vec![8, 0, 0, 0, 0, 0, 0, 9]].concat());
    add(6, kind::VIDEO, 0, &[0x17, 0, 0, 0, 0, 1, 2]);
    add(6, kind::VIDEO, 0x100_0000, &[0x17; 300]);
    add(4, kind::AUDIO, 5, &[0xAF, 1, 2, 3]);
    out
}

const EXPECTED: [&str; 8] = [
    "handshake version 3",
    "csid 3 fmt 0 chunks 1 command msid 0 ts 0 len 62: connect 1 {app: \"live\", \
     fourCcList: [\"av01\", true]} undefined",
    "csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 4: acknowledgement 9",
    "csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 4: window 10",
    "csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 5: peer bandwidth 11 limit 2",
    "csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 10: buffer length 1 300 ms",
    "csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 6: user control 31 1",
    "csid 5 fmt 0 chunks 1 data msid 1 ts 0 len 21: \"onMetaData\" ecma {}",
];

#[test]
fn each_message_is_one_line_with_its_chunk_facts() {
    let lines = Transcript::new().feed(&recording());
    assert_eq!(lines.get(..8), Some(&EXPECTED.map(String::from)[..]));
    assert!(lines[8].starts_with("csid 6 fmt 0 chunks 1 video msid 1 ts 0 len 7: "));
    assert!(lines[8].contains(" sequence header ") && lines[8].contains("17000000000102 crc "));
    assert!(lines[9].starts_with("csid 6 fmt 0 chunks 3 video msid 1 ts 16777216 len 300: "));
    assert!(lines[10].starts_with("csid 4 fmt 0 chunks 1 audio msid 1 ts 5 len 4: "));
    assert_eq!(lines.len(), 11);
}

#[test]
fn the_text_does_not_depend_on_the_cut() {
    let recording = recording();
    let whole = Transcript::new().feed(&recording);
    for split in (0..recording.len()).step_by(7) {
        let (front, back) = recording.split_at(split);
        let mut transcript = Transcript::new();
        let mut lines = transcript.feed(front);
        lines.extend(transcript.feed(back));
        assert_eq!(lines, whole, "split at {split}");
        assert!(transcript.finish().is_empty());
    }
}

#[test]
fn header_types_and_chunk_size_changes_are_followed() {
    let mut writer = ChunkWriter::new(Compression::Smallest);
    let mut out = Vec::new();
    let body = [0xAF; 200];
    for timestamp in [0, 20, 40] {
        writer.write_message(&header(4, kind::AUDIO, timestamp, &body), &body, &mut out);
    }
    let size = 4_096u32.to_be_bytes();
    writer.write_message(&header(2, 1, 0, &size), &size, &mut out);
    writer.set_chunk_size(4_096);
    writer.write_message(&header(4, kind::AUDIO, 60, &body), &body, &mut out);
    let lines = Transcript::without_handshake().feed(&out);
    let facts: Vec<&str> = lines.iter().map(|line| line.split(" msid").next().unwrap()).collect();
    assert_eq!(facts[0], "csid 4 fmt 0 chunks 2 audio");
    assert!(facts[1].starts_with("csid 4 fmt ") && !facts[1].contains("fmt 0"), "{}", facts[1]);
    assert!(facts[1].ends_with("chunks 2 audio"));
    assert!(lines[3].ends_with(": set chunk size 4096"));
    assert!(facts[4].ends_with("chunks 1 audio"));
    assert!(lines[4].contains(" ts 60 "));
}

#[test]
fn what_is_unfinished_aborted_or_unreadable_is_said() {
    let framing = Framing { chunk_bytes: 128 };
    let body = [9; 300];
    let mut message = Vec::new();
    framing.write_message(&header(6, kind::VIDEO, 0, &body), &body, &mut message);
    let first_chunk = &message[..12 + 128];

    let mut transcript = Transcript::without_handshake();
    assert!(transcript.feed(first_chunk).is_empty());
    assert_eq!(transcript.finish(), ["csid 6 fmt 0 chunks 1 video msid 1 ts 0 len 300 unfinished"]);

    let mut transcript = Transcript::without_handshake();
    transcript.feed(first_chunk);
    let csid = 6u32.to_be_bytes();
    let mut abort = Vec::new();
    framing.write_message(&header(2, kind::ABORT, 0, &csid), &csid, &mut abort);
    let lines = transcript.feed(&abort);
    assert!(lines[1].ends_with(" aborted"), "{lines:?}");

    let mut transcript = Transcript::without_handshake();
    let lines = transcript.feed(&[0xC7, 0, 0, 0, 0, 0]);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("unreadable: "));
    assert!(transcript.feed(&message).is_empty());

    assert_eq!(Transcript::new().finish(), ["handshake lacks 3073 bytes"]);
}

#[test]
fn a_peer_cannot_break_lines_or_make_them_endless() {
    let framing = Framing { chunk_bytes: 128 };
    let body = command_body("a\nb", 1.0, |amf| amf.string(&"x".repeat(60_000)));
    let mut out = Vec::new();
    framing.write_message(&header(3, kind::COMMAND_AMF0, 0, &body), &body, &mut out);
    let lines = Transcript::without_handshake().feed(&out);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("a b 1") && lines[0].ends_with('…') && lines[0].len() < 17_000);
}
