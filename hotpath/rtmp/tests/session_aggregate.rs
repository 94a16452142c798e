//! Aggregate messages: several tags in one message, cut in all possible ways.

mod session_support;

use rtmp::message::kind;
use session_support::{Peer, data_body};

/// A sub-message with its back pointer.
fn sub(kind: u8, timestamp: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let [_, l2, l1, l0] = length.to_be_bytes();
    let [t3, t2, t1, t0] = timestamp.to_be_bytes();
    let mut bytes = vec![kind, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0];
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&(length + 11).to_be_bytes());
    bytes
}

fn three_tags() -> Vec<u8> {
    [
        sub(kind::VIDEO, 0xFF_FFF0, &[0x17, 1, 2, 3]),
        sub(kind::AUDIO, 0x100_0000, &[0xAF, 9]),
        sub(kind::DATA_AMF0, 0x100_0008, &data_body("onCuePoint")),
        sub(kind::VIDEO, 0x100_0010, &[0x27, 4]),
    ]
    .concat()
}

const EXPECTED: [&str; 4] = [
    "Media 1 video ts 5000 at 0 of 4 whole [23, 1, 2, 3]",
    "Media 1 audio ts 5016 at 0 of 2 whole [175, 9]",
    "Data 1 ts 5024 \\x02\\x00\\nonCuePoint",
    "Media 1 video ts 5032 at 0 of 2 whole [39, 4]",
];

#[test]
fn tags_come_out_with_their_distance_to_the_first() {
    let mut peer = Peer::publishing();
    assert_eq!(peer.message(6, kind::AGGREGATE, 1, 5_000, &three_tags()), EXPECTED);
}

#[test]
fn the_last_back_pointer_may_be_missing() {
    let mut peer = Peer::publishing();
    let mut body = three_tags();
    body.truncate(body.len() - 4);
    assert_eq!(peer.message(6, kind::AGGREGATE, 1, 5_000, &body), EXPECTED);
    assert_eq!(peer.message(6, kind::AGGREGATE, 1, 5_000, &body), EXPECTED);
}

#[test]
fn every_cut_gives_the_same_tags() {
    let mut peer = Peer::publishing();
    let bytes = peer.framed(6, kind::AGGREGATE, 1, 5_000, &three_tags());
    let whole = joined(&peer.feed(&bytes));
    for split in 0..=bytes.len() {
        let (front, back) = bytes.split_at(split);
        let mut events = peer.feed(front);
        events.extend(peer.feed(back));
        assert_eq!(joined(&events), whole, "split at {split}");
    }
    let events: Vec<String> = bytes.chunks(1).flat_map(|byte| peer.feed(byte)).collect();
    assert_eq!(joined(&events), whole, "byte by byte");
}

#[test]
fn another_message_may_lie_between_the_chunks_of_an_aggregate() {
    let mut peer = Peer::publishing();
    let body = [sub(kind::VIDEO, 0, &[7; 200]), sub(kind::AUDIO, 10, &[0xAF, 1])].concat();
    let aggregate = peer.framed(6, kind::AGGREGATE, 1, 0, &body);
    let audio = peer.framed(4, kind::AUDIO, 1, 3, &[0xAF, 2]);
    let (begin, rest) = aggregate.split_at(12 + 128);
    let bytes = [begin, &audio, rest].concat();
    let events = peer.feed(&bytes);
    assert_eq!(
        joined(&events),
        [
            "Media 1 audio ts 3 of 2 [175, 2]".to_owned(),
            format!("Media 1 video ts 0 of 200 {:?}", [7; 200]),
            "Media 1 audio ts 10 of 2 [175, 1]".to_owned(),
        ]
    );
}

#[test]
fn a_size_beyond_the_aggregate_ends_it_and_nothing_else() {
    let mut peer = Peer::publishing();
    let mut body = sub(kind::AUDIO, 0, &[0xAF]);
    let mut lying = sub(kind::VIDEO, 0, &[1; 50]);
    lying[1] = 0xFF;
    body.extend(lying);
    assert_eq!(
        peer.message(6, kind::AGGREGATE, 1, 0, &body),
        ["Media 1 audio ts 0 at 0 of 1 whole [175]"]
    );
    assert_eq!(peer.message(6, kind::AUDIO, 1, 0, &[1]).len(), 1);
}

#[test]
fn empty_and_unknown_tags_are_passed_over() {
    let mut peer = Peer::publishing();
    let body = [sub(kind::AUDIO, 0, &[]), sub(99, 0, &[5; 30]), sub(kind::AUDIO, 0, &[1])].concat();
    assert_eq!(
        peer.message(6, kind::AGGREGATE, 1, 0, &body),
        ["Media 1 audio ts 0 at 0 of 1 whole [1]"]
    );
}

#[test]
fn an_aggregate_that_is_replaced_voids_its_open_tag() {
    let mut peer = Peer::publishing();
    let aggregate = peer.framed(6, kind::AGGREGATE, 1, 0, &sub(kind::VIDEO, 0, &[7; 300]));
    peer.feed(aggregate.get(..12 + 128).unwrap());
    assert_eq!(
        peer.message(6, kind::AUDIO, 1, 0, &[1]),
        [
            "MediaAborted { csid: 6, msid: 1, kind: Video }",
            "Media 1 audio ts 0 at 0 of 1 whole [1]"
        ]
    );
}

#[test]
fn an_aggregate_on_a_stream_that_is_not_published_is_let_go_by() {
    let mut peer = Peer::playing();
    assert!(peer.message(6, kind::AGGREGATE, 1, 0, &three_tags()).is_empty());
}

/// Puts the parts of each message together: cuts differ, messages must not.
fn joined(events: &[String]) -> Vec<String> {
    let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
    let mut whole = Vec::new();
    for event in events {
        let Some((head, body)) = event.strip_suffix(']').and_then(|text| text.split_once(" ["))
        else {
            whole.push(event.clone());
            continue;
        };
        let words: Vec<&str> = head.split(' ').collect();
        let key = format!("Media {} {} ts {} of {}", words[1], words[2], words[4], words[8]);
        let bytes = body.split(", ").map(|byte| byte.parse::<u8>().unwrap());
        let length: usize = words[8].parse().unwrap();
        let mut held = match messages.iter().position(|(open, _)| *open == key) {
            Some(index) => messages.swap_remove(index).1,
            None => Vec::new(),
        };
        held.extend(bytes);
        if held.len() == length {
            whole.push(format!("{key} {held:?}"));
        } else {
            messages.push((key, held));
        }
    }
    whole
}
