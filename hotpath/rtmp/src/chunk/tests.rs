//! The reader on hand-written chunks, one behaviour a test. Larger worlds are in `tests/`.

use std::vec;
use std::vec::Vec;

use super::*;
use crate::error::{LimitExceeded, Place, ProtocolError, Violation};
use crate::limits::ReaderLimits;
use crate::message::MessageHeader;

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// A part as the tests look at it: csid, timestamp, offset, body, and its three flags as letters.
type Seen = (u32, u32, u32, Vec<u8>, &'static str);

fn drain(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Seen>, ProtocolError> {
    let mut seen = Vec::new();
    while let Some(part) = reader.next(&mut input)? {
        let flags = match (part.first, part.last, part.replaced) {
            (true, true, false) => "first last",
            (true, false, false) => "first",
            (false, true, false) => "last",
            (false, false, false) => "",
            (true, true, true) => "first last replaced",
            (true, false, true) => "first replaced",
            _ => panic!("replaced without first"),
        };
        let MessageHeader { csid, timestamp, .. } = part.header;
        seen.push((csid, timestamp, part.offset, part.body.to_vec(), flags));
    }
    assert!(input.is_empty());
    Ok(seen)
}

fn reader_with(chunk_bytes: u32) -> ChunkReader {
    let mut reader = ChunkReader::new(ReaderLimits::default());
    reader.set_chunk_size(chunk_bytes).unwrap();
    reader
}

#[test]
fn a_message_comes_out_part_by_part_as_its_bytes_arrive() {
    let mut reader = reader_with(3);
    let message = hex("06 00 00 0A 00 00 05 09 01 00 00 00 A1 A2 A3 C6 A4 A5");
    let head = drain(&mut reader, &message[..13]).unwrap();
    assert_eq!(head, [(6, 10, 0, vec![0xA1], "first")]);
    let middle = drain(&mut reader, &message[13..17]).unwrap();
    assert_eq!(middle, [(6, 10, 1, vec![0xA2, 0xA3], ""), (6, 10, 3, vec![0xA4], "")]);
    let tail = drain(&mut reader, &message[17..]).unwrap();
    assert_eq!(tail, [(6, 10, 4, vec![0xA5], "last")]);
    assert_eq!(reader.bytes_consumed(), 18);
    assert_eq!(reader.held_bytes(), 0);
}

#[test]
fn parts_borrow_the_input_and_not_a_copy() {
    let mut reader = reader_with(128);
    let message = hex("06 00 00 0A 00 00 02 09 01 00 00 00 A1 A2");
    let mut input = message.as_slice();
    let part = reader.next(&mut input).unwrap().unwrap();
    assert_eq!(part.body.as_ptr(), message[12..].as_ptr());
}

#[test]
fn a_fresh_chunk_stream_may_start_with_type_1() {
    let mut reader = reader_with(128);
    // Seen from librtmp: a ping on csid 2.
    let seen = drain(&mut reader, &hex("42 00 00 07 00 00 06 04 00 06 00 00 00 0D")).unwrap();
    assert_eq!(seen, [(2, 7, 0, hex("00 06 00 00 00 0D"), "first last")]);
}

#[test]
fn a_fresh_chunk_stream_with_an_unknown_length_is_a_violation() {
    for (bytes, fmt, csid) in [("82 00 00 07", 2, 2), ("C4", 3, 4), ("80 01 00 00 00", 2, 65)] {
        let mut reader = reader_with(128);
        let error = drain(&mut reader, &hex(bytes)).unwrap_err();
        let reason = Violation::FreshChunkStream { fmt };
        assert_eq!(error, ProtocolError::Violation(reason, Place::on(csid, 0)));
    }
}

#[test]
fn type_3_starts_a_message_with_the_last_delta_which_type_0_resets() {
    let mut reader = reader_with(128);
    let bytes = hex("
        04 00 00 64 00 00 01 08 01 00 00 00 AA
        C4 AB
        84 00 00 0A AC
        C4 AD
        44 00 00 05 00 00 02 08 AE AE
        C4 AF AF");
    let times: Vec<_> = drain(&mut reader, &bytes).unwrap().into_iter().map(|s| s.1).collect();
    assert_eq!(times, [100, 100, 110, 120, 125, 130]);
}

#[test]
fn type_0_in_the_middle_replaces_the_message_once_and_is_a_violation_twice() {
    let mut reader = reader_with(2);
    let start = hex("06 00 00 0A 00 00 03 09 01 00 00 00 A1 A2");
    let fresh = hex("06 00 00 0B 00 00 03 09 01 00 00 00 B1 B2");
    drain(&mut reader, &start).unwrap();
    let seen = drain(&mut reader, &fresh).unwrap();
    assert_eq!(seen, [(6, 11, 0, vec![0xB1, 0xB2], "first replaced")]);
    let seen = drain(&mut reader, &hex("C6 B3")).unwrap();
    assert_eq!(seen, [(6, 11, 2, vec![0xB3], "last")]);
    assert_eq!(reader.partials_replaced(), 1);
    drain(&mut reader, &start).unwrap();
    let error = drain(&mut reader, &fresh).unwrap_err();
    assert_eq!(error, ProtocolError::Violation(Violation::PartialReplaced, Place::on(6, 44)));
}

#[test]
fn type_1_in_the_middle_continues_the_same_message_only() {
    let start = hex("06 00 00 0A 00 00 03 09 01 00 00 00 A1 A2");
    let mut reader = reader_with(2);
    drain(&mut reader, &start).unwrap();
    let seen = drain(&mut reader, &hex("46 00 00 63 00 00 03 09 A3")).unwrap();
    assert_eq!(seen, [(6, 10, 2, vec![0xA3], "last")]);
    for changed in ["46 00 00 63 00 00 04 09 A3", "46 00 00 63 00 00 03 08 A3"] {
        let mut reader = reader_with(2);
        drain(&mut reader, &start).unwrap();
        let error = drain(&mut reader, &hex(changed)).unwrap_err();
        let reason = Violation::HeaderChangedMidMessage;
        assert_eq!(error, ProtocolError::Violation(reason, Place::on(6, 14)));
    }
}

#[test]
fn type_1_in_the_middle_says_whether_type_3_has_an_extended_timestamp_from_now_on() {
    let mut reader = reader_with(1);
    let bytes = hex("
        06 00 00 0A 00 00 03 09 01 00 00 00 A1
        46 FF FF FF 00 00 03 09 01 02 03 04 A2
        C6 01 02 03 04 A3");
    let seen = drain(&mut reader, &bytes).unwrap();
    let bodies: Vec<_> = seen.iter().map(|seen| (seen.1, seen.3.clone())).collect();
    assert_eq!(bodies, [(10, vec![0xA1]), (10, vec![0xA2]), (10, vec![0xA3])]);
}

#[test]
fn an_aborted_message_is_forgotten_and_its_header_told() {
    let mut reader = reader_with(2);
    drain(&mut reader, &hex("06 00 00 0A 00 00 03 09 01 00 00 00 A1 A2")).unwrap();
    assert_eq!(reader.abort(7), None);
    let wanted = MessageHeader { csid: 6, kind: 9, msid: 1, timestamp: 10, length: 3 };
    assert_eq!(reader.abort(6), Some(wanted));
    assert_eq!(reader.abort(6), None);
    let seen = drain(&mut reader, &hex("06 00 00 0B 00 00 01 09 01 00 00 00 B1")).unwrap();
    assert_eq!(seen, [(6, 11, 0, vec![0xB1], "first last")]);
    // In the middle of a chunk there is nothing an Abort message could have come from.
    drain(&mut reader, &hex("06 00 00 0A 00 00 03 09 01 00 00 00 A1")).unwrap();
    assert_eq!(reader.abort(6), None);
}

#[test]
fn a_peek_torn_over_segments_turns_into_payload_without_a_copy() {
    // The payload of the second chunk starts like the extended timestamp 01 02 03 04.
    let bytes = hex("
        06 FF FF FF 00 00 06 09 01 00 00 00 01 02 03 04 A1 A2
        C6 01 02
        C6 03 05");
    for piece in [1, 2, 3, bytes.len()] {
        let mut reader = reader_with(2);
        let mut body = Vec::new();
        let mut held_max = 0;
        for piece in bytes.chunks(piece) {
            let seen = drain(&mut reader, piece).unwrap();
            body.extend(seen.into_iter().flat_map(|seen| seen.3));
            held_max = held_max.max(reader.held_bytes());
        }
        assert_eq!(body, [0xA1, 0xA2, 1, 2, 3, 5], "pieces of {piece}");
        assert_eq!(reader.extended_on_type3(), ExtendedOnType3::Omitted);
        assert!(held_max <= crate::limits::HEADER_BYTES_MAX);
        assert_eq!(reader.held_bytes(), 0);
        assert_eq!(reader.bytes_consumed(), bytes.len() as u64);
    }
}

#[test]
fn a_held_peek_may_hide_the_next_header() {
    // One byte of payload is left, and it and the header behind it look like C6 00 00 ...
    let bytes = hex("
        06 FF FF FF 00 00 03 09 01 00 00 00 07 C6 FF 00 A1 A2
        C6 07
        C6 A3 A4
        C6 A5");
    for piece in [1, 2, 3, 4, bytes.len()] {
        let mut reader = reader_with(2);
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece) {
            seen.extend(drain(&mut reader, piece).unwrap());
        }
        let body: Vec<_> = seen.iter().flat_map(|seen| seen.3.clone()).collect();
        assert_eq!(body, [0xA1, 0xA2, 7, 0xA3, 0xA4, 0xA5], "pieces of {piece}");
        let ends: Vec<_> = seen.iter().filter(|seen| seen.4.contains("last")).collect();
        assert_eq!(ends.len(), 2);
    }
}

#[test]
fn the_reading_of_type_3_is_learned_and_proof_of_omission_sticks() {
    let mut reader = reader_with(1);
    let start = hex("06 FF FF FF 00 00 02 09 01 00 00 00 01 02 03 04 A1");
    drain(&mut reader, &start).unwrap();
    assert_eq!(reader.extended_on_type3(), ExtendedOnType3::Unknown);
    drain(&mut reader, &hex("C6 01 02 03 04 A2")).unwrap();
    assert_eq!(reader.extended_on_type3(), ExtendedOnType3::Repeated);
    drain(&mut reader, &start).unwrap();
    drain(&mut reader, &hex("C6 A2")).unwrap();
    assert_eq!(reader.extended_on_type3(), ExtendedOnType3::Omitted);
    // From now on bytes equal to the timestamp are payload; nothing has to be waited for either.
    drain(&mut reader, &start).unwrap();
    let seen = drain(&mut reader, &hex("C6 01")).unwrap();
    assert_eq!(seen, [(6, 0x0102_0304, 1, vec![1], "last")]);
}

#[test]
fn an_extended_timestamp_is_a_delta_in_types_1_and_2() {
    let mut reader = reader_with(128);
    let bytes = hex("
        06 00 00 0A 00 00 01 09 01 00 00 00 A1
        46 FF FF FF 00 00 01 09 01 00 00 00 A2
        86 FF FF FF FF 00 00 00 A3
        C6 FF 00 00 00 A4");
    let times: Vec<_> = drain(&mut reader, &bytes).unwrap().into_iter().map(|s| s.1).collect();
    assert_eq!(times, [10, 0x0100_000A, 0x0000_000A, 0xFF00_000A]);
}

#[test]
fn chunk_streams_are_bounded() {
    let limits = ReaderLimits { chunk_streams_max: 3, ..ReaderLimits::default() };
    let mut reader = ChunkReader::new(limits);
    let open = |csid: u8| hex("00 00 00 00 00 00 01 08 00 00 00 00 AA").tap(0, csid);
    for csid in [2, 3, 63] {
        drain(&mut reader, &open(csid)).unwrap();
    }
    drain(&mut reader, &open(3)).unwrap();
    let error = drain(&mut reader, &open(4)).unwrap_err();
    let reason = LimitExceeded::ChunkStreams { max: 3 };
    assert_eq!(error, ProtocolError::LimitExceeded(reason, Place::on(4, 52)));
}

/// Sets one byte.
trait Tap {
    fn tap(self, index: usize, value: u8) -> Self;
}

impl Tap for Vec<u8> {
    fn tap(mut self, index: usize, value: u8) -> Self {
        self[index] = value;
        self
    }
}

#[test]
fn a_zero_chunk_size_is_a_violation_and_a_huge_one_is_as_good_as_the_largest() {
    let mut reader = reader_with(128);
    let zero = ProtocolError::Violation(Violation::ChunkSizeZero, Place::at(0));
    assert_eq!(reader.set_chunk_size(0), Err(zero));
    assert_eq!(reader.chunk_size(), 128);
    assert_eq!(reader.set_chunk_size(0x7FFF_FFFF), Ok(()));
    assert_eq!(reader.chunk_size(), crate::limits::CHUNK_BYTES_MAX);
}

#[test]
fn the_writer_uses_the_smallest_header_it_may() {
    let header = MessageHeader { csid: 4, kind: 8, msid: 1, timestamp: 100, length: 1 };
    let at = |timestamp| MessageHeader { timestamp, ..header };
    let longer = MessageHeader { length: 2, ..at(150) };
    let earlier = MessageHeader { timestamp: 50, ..longer };
    let elsewhere = MessageHeader { msid: 2, ..at(160) };
    for (compression, wanted) in [
        (Compression::Full, [0, 0, 0, 0, 0, 0]),
        (Compression::Delta, [0, 1, 1, 1, 0, 0]),
        (Compression::SameLength, [0, 2, 2, 1, 0, 0]),
        (Compression::Smallest, [0, 2, 3, 1, 0, 0]),
    ] {
        let mut writer = ChunkWriter::new(compression);
        let messages = [at(100), at(110), at(120), longer, earlier, elsewhere];
        let fmts = messages.map(|header| {
            let mut out = Vec::new();
            writer.write_message(&header, &[0xAA, 0xBB][..header.length as usize], &mut out);
            out[0] >> 6
        });
        assert_eq!(fmts, wanted, "{compression:?}");
    }
}
