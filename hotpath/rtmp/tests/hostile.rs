//! Peers that mean harm: every class of bad chunk gets its typed error, and nothing they send
//! costs more than a limit says.
#![allow(clippy::cast_possible_truncation, reason = "test data is small")]

use proptest::collection::vec;
use proptest::prelude::*;
use rtmp::chunk::{ChunkReader, Framing};
use rtmp::error::{LimitExceeded, Place};
use rtmp::fuzz;
use rtmp::{MessageHeader, ProtocolError, ReaderLimits, kind};

/// Reads until the end or the first error; returns the parts seen.
fn drain(reader: &mut ChunkReader, mut input: &[u8]) -> Result<usize, ProtocolError> {
    let mut parts = 0;
    while reader.next(&mut input)?.is_some() {
        parts += 1;
    }
    Ok(parts)
}

#[test]
fn a_message_longer_than_the_limit_is_refused_by_its_header_alone() {
    let limits = ReaderLimits { message_bytes_max: 1_000, ..ReaderLimits::default() };
    let mut reader = ChunkReader::new(limits);
    let header = [0x06, 0, 0, 0, 0x00, 0x03, 0xE9, 9, 1, 0, 0, 0];
    let error = drain(&mut reader, &header).unwrap_err();
    let reason = LimitExceeded::MessageBytes { length: 1_001, max: 1_000 };
    assert_eq!(error, ProtocolError::LimitExceeded(reason, Place::on(6, 0)));
}

#[test]
fn ten_thousand_chunk_streams_cost_no_more_than_the_limit() {
    let mut reader = ChunkReader::new(ReaderLimits::default());
    let mut opened = 0;
    let error = (64_u32..10_064).find_map(|csid| {
        let [_, _, high, low] = (csid - 64).to_be_bytes();
        let header = [1, low, high, 0, 0, 0, 0, 0, 1, 8, 0, 0, 0, 0, 0xAA];
        opened += 1;
        drain(&mut reader, &header).err()
    });
    assert_eq!(opened, u32::from(ReaderLimits::default().chunk_streams_max) + 1);
    assert_eq!(error.map(|error| error.label()), Some("limit_chunk_streams"));
}

#[test]
fn a_chunk_size_of_one_serves_a_command_but_not_a_film() {
    let mut reader = ChunkReader::new(ReaderLimits::default());
    reader.set_chunk_size(1).unwrap();
    let framing = Framing { chunk_bytes: 1 };
    let message = |length: usize| {
        let header = MessageHeader {
            csid: 3,
            kind: kind::COMMAND_AMF0,
            msid: 0,
            timestamp: 0,
            length: length as u32,
        };
        let mut bytes = Vec::new();
        framing.write_message(&header, &vec![0xAA; length], &mut bytes);
        bytes
    };
    assert_eq!(drain(&mut reader, &message(4_096)), Ok(4_096));
    let error = drain(&mut reader, &message(1 << 20)).unwrap_err();
    assert_eq!(error.label(), "limit_tiny_chunks");
    assert!(reader.bytes_consumed() < 200_000, "{}", reader.bytes_consumed());
}

#[test]
fn ordinary_chunks_pay_for_tiny_ones() {
    let limits = ReaderLimits { tiny_chunks_max: 10, ..ReaderLimits::default() };
    let mut reader = ChunkReader::new(limits);
    let header = |length| MessageHeader { csid: 4, kind: 8, msid: 1, timestamp: 0, length };
    let mut tiny = Vec::new();
    Framing { chunk_bytes: 1 }.write_message(&header(6), &[0xAA; 6], &mut tiny);
    let mut large = Vec::new();
    Framing { chunk_bytes: 4_096 }.write_message(&header(4_096), &[0xAA; 4_096], &mut large);
    for _ in 0..1_000 {
        reader.set_chunk_size(1).unwrap();
        assert!(drain(&mut reader, &tiny).is_ok());
        reader.set_chunk_size(4_096).unwrap();
        assert!(drain(&mut reader, &large).is_ok());
    }
    reader.set_chunk_size(1).unwrap();
    let flood = tiny.repeat(10);
    assert_eq!(drain(&mut reader, &flood).unwrap_err().label(), "limit_tiny_chunks");
}

#[test]
fn a_flood_of_empty_messages_is_cut_off() {
    let mut reader = ChunkReader::new(ReaderLimits::default());
    drain(&mut reader, &[0x04, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0]).unwrap();
    let error = drain(&mut reader, &vec![0xC4; 1 << 20]).unwrap_err();
    assert_eq!(error.label(), "limit_tiny_chunks");
}

#[test]
fn honest_traffic_never_meets_the_guard() {
    let limits = ReaderLimits { tiny_chunks_max: 0, ..ReaderLimits::default() };
    let mut reader = ChunkReader::new(limits);
    let mut bytes = Vec::new();
    for length in (1..2_000).step_by(7) {
        let header = MessageHeader { csid: 4, kind: 8, msid: 1, timestamp: 0, length };
        Framing { chunk_bytes: 128 }.write_message(&header, &vec![0; length as usize], &mut bytes);
    }
    assert!(drain(&mut reader, &bytes).is_ok());
}

#[test]
fn every_truncation_of_a_recording_waits_without_an_error() {
    let header = MessageHeader { csid: 320, kind: 9, msid: 1, timestamp: u32::MAX, length: 300 };
    let mut bytes = Vec::new();
    Framing { chunk_bytes: 128 }.write_message(&header, &[0x11; 300], &mut bytes);
    for cut in 0..bytes.len() {
        let mut reader = ChunkReader::new(ReaderLimits::default());
        drain(&mut reader, &bytes[..cut]).unwrap();
        assert_eq!(reader.bytes_consumed() + reader.held_bytes() as u64, cut as u64);
        assert!(drain(&mut reader, &bytes[cut..]).is_ok());
        assert_eq!(reader.bytes_consumed(), bytes.len() as u64);
    }
}

/// Bytes that look like chunks more often than random ones do.
fn chunk_like() -> impl Strategy<Value = Vec<u8>> {
    let csid = prop_oneof![Just(2_u8), Just(3), Just(4), Just(0), Just(1)];
    let header = (0_u8..4, csid, any::<u8>()).prop_map(|(fmt, csid, next)| match csid {
        0 => vec![fmt << 6, next & 1],
        1 => vec![fmt << 6 | 1, next & 1, 0],
        _ => vec![fmt << 6 | csid],
    });
    let time = prop_oneof![Just([0, 0, 9].to_vec()), Just([0xFF, 0xFF, 0xFF, 0, 0, 0, 1].to_vec())];
    let length = prop_oneof![Just([0, 0, 0]), Just([0, 0, 4]), Just([0, 1, 0])];
    let fields = (time, length, 0_u8..10).prop_map(|(time, length, kind)| {
        let mut fields = time[..3].to_vec();
        fields.extend(length);
        fields.push(kind);
        fields.extend([1, 0, 0, 0]);
        fields.extend(&time[3..]);
        fields
    });
    let piece = prop_oneof![
        3 => header,
        3 => fields,
        1 => Just(vec![0, 0, 0, 1]),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_reader_agrees_with_the_reference_on_anything(bytes in chunk_like()) {
        fuzz::differential(&bytes);
    }

    #[test]
    fn segmentation_never_matters(bytes in chunk_like()) {
        fuzz::chunk_reader(&bytes);
    }

    #[test]
    fn random_bytes_harm_no_parser(bytes in vec(any::<u8>(), 0..300)) {
        fuzz::chunk_reader(&bytes);
        fuzz::differential(&bytes);
        fuzz::amf0(&bytes);
        fuzz::tag(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_harm_no_handshake(bytes in vec(any::<u8>(), 0..4_000)) {
        fuzz::handshake(&bytes);
        let mut bytes = bytes;
        if let Some(version) = bytes.get_mut(1) {
            *version = 3;
        }
        fuzz::handshake(&bytes);
    }
}
