//! A small world looked at completely: every header type, form of csid, extended timestamp and
//! reading of type 3, with chunk sizes and body lengths around each boundary.
//!
//! The bytes are put together here, by hand, so neither writer nor reference has a say in what is
//! right; the reference is checked on the way.
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

use rtmp::chunk::EXTENDED_TIMESTAMP;
use rtmp::fuzz::read_in_pieces;
use rtmp::reference::{Message, read_all};
use rtmp::{MessageHeader, ReaderLimits};

const CSIDS: [u32; 5] = [3, 63, 64, 320, 65_599];
const CHUNK_BYTES: [u32; 3] = [1, 2, 128];
const BODY_BYTES: [u32; 5] = [0, 1, 127, 128, 129];
/// Times of the first message, and deltas of the second.
const TIMES: [u32; 4] = [0, 0x00FF_FFFE, 0x00FF_FFFF, u32::MAX];

fn basic_header(fmt: u8, csid: u32, out: &mut Vec<u8>) {
    let fmt = fmt << 6;
    match csid {
        2..64 => out.push(fmt | csid as u8),
        64..320 => out.extend([fmt, (csid - 64) as u8]),
        _ => out.extend([fmt | 1, ((csid - 64) % 256) as u8, ((csid - 64) / 256) as u8]),
    }
}

/// One message, chunked; `time` is what its time field says, or what the last one said for fmt 3.
fn chunked(
    fmt: u8,
    header: &MessageHeader,
    time: u32,
    repeats: bool,
    chunk_bytes: u32,
    out: &mut Vec<u8>,
) -> Message {
    let body: Vec<u8> = (0..header.length).map(|index| 0xA0 | (index % 16) as u8).collect();
    basic_header(fmt, header.csid, out);
    if fmt <= 2 {
        out.extend(&time.min(EXTENDED_TIMESTAMP).to_be_bytes()[1..]);
    }
    if fmt <= 1 {
        out.extend(&header.length.to_be_bytes()[1..]);
        out.push(header.kind);
    }
    if fmt == 0 {
        out.extend(header.msid.to_le_bytes());
    }
    let extended = time >= EXTENDED_TIMESTAMP;
    if extended && (fmt <= 2 || repeats) {
        out.extend(time.to_be_bytes());
    }
    for (index, chunk) in body.chunks(chunk_bytes as usize).enumerate() {
        if index > 0 {
            basic_header(3, header.csid, out);
            if extended && repeats {
                out.extend(time.to_be_bytes());
            }
        }
        out.extend(chunk);
    }
    Message { header: *header, body }
}

/// A message of type 0, one of `fmt`, one of type 3, and something behind them.
fn recording(
    csid: u32,
    fmt: u8,
    (time, delta): (u32, u32),
    repeats: bool,
    chunk_bytes: u32,
    length: u32,
) -> (Vec<u8>, Vec<Message>) {
    let mut out = Vec::new();
    let control = MessageHeader { csid: 2, kind: 1, msid: 0, timestamp: 0, length: 4 };
    out.extend([0x02, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]);
    out.extend(chunk_bytes.to_be_bytes());
    let mut messages = vec![Message { header: control, body: chunk_bytes.to_be_bytes().to_vec() }];

    let first = MessageHeader { csid, kind: 9, msid: 0x0403_0201, timestamp: time, length };
    messages.push(chunked(0, &first, time, repeats, chunk_bytes, &mut out));
    // The delta after a type 0 header is zero, and a type 3 header refers to its time field.
    let (field, delta) = match fmt {
        0 => (delta, 0),
        3 => (time, 0),
        _ => (delta, delta),
    };
    let timestamp = if fmt == 0 { field } else { time.wrapping_add(delta) };
    let second = MessageHeader { timestamp, ..first };
    messages.push(chunked(fmt, &second, field, repeats, chunk_bytes, &mut out));
    let third = MessageHeader { timestamp: timestamp.wrapping_add(delta), ..second };
    messages.push(chunked(3, &third, field, repeats, chunk_bytes, &mut out));
    // Something must follow for a peek to fail on.
    let last = MessageHeader { csid: 5, kind: 8, msid: 1, timestamp: 1, length: 1 };
    messages.push(chunked(0, &last, 1, repeats, chunk_bytes, &mut out));
    (out, messages)
}

#[test]
fn every_small_message_reads_as_it_was_put_together() {
    let limits = ReaderLimits::default();
    let mut cases = 0;
    for csid in CSIDS {
        for fmt in 0..=3 {
            for times in TIMES.iter().flat_map(|time| TIMES.map(|delta| (*time, delta))) {
                for repeats in [true, false] {
                    for chunk_bytes in CHUNK_BYTES {
                        for length in BODY_BYTES {
                            let (bytes, messages) =
                                recording(csid, fmt, times, repeats, chunk_bytes, length);
                            let case = format!(
                                "csid {csid} fmt {fmt} times {times:x?} repeats {repeats} \
                                 chunk {chunk_bytes} body {length}"
                            );
                            let oracle = read_all(&bytes, limits);
                            assert_eq!(oracle.error, None, "reference, {case}");
                            assert_eq!(oracle.messages, messages, "reference, {case}");
                            for piece in [1, bytes.len()] {
                                let ours = read_in_pieces(&bytes, limits, |_| piece);
                                assert_eq!(ours, oracle, "pieces of {piece}, {case}");
                            }
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 5 * 4 * 16 * 2 * 3 * 5);
}

#[test]
fn every_split_point_gives_the_same_transcript() {
    let limits = ReaderLimits::default();
    for csid in [3, 64, 320] {
        for fmt in 0..=3 {
            for repeats in [true, false] {
                let times = (0x0100_0000, 0x00FF_FFFF);
                let (bytes, messages) = recording(csid, fmt, times, repeats, 2, 3);
                for split in 0..=bytes.len() {
                    let ours = read_in_pieces(&bytes, limits, |at| {
                        if at < split { split - at } else { bytes.len() }
                    });
                    assert_eq!(ours.messages, messages, "csid {csid} fmt {fmt} split {split}");
                    assert_eq!(ours.error, None);
                }
            }
        }
    }
}
