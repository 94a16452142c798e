//! Two readers that share no code with the writers agree with what was meant.

mod common;

use std::io::Cursor;

use common::{Message, segments};
use mp4_atom::{Any, Decode, ReadFrom};
use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};
use mux::segment::{Container, Event};

fn message(kind: u8, timestamp: u32, body: &[u8]) -> Message {
    Message { kind, timestamp, body: body.to_vec() }
}

/// Three seconds with B-frames' composition times, and sound.
fn stream() -> Vec<Message> {
    let config =
        [0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 4, 0x67, 0x64, 0, 0x1F, 1, 0, 1, 0x68];
    let mut messages = vec![message(9, 0, &config), message(8, 0, &[0xAF, 0, 0x11, 0x90])];
    for low in 0..75_u8 {
        let at = u32::from(low);
        let first = if at % 25 == 0 { 0x17 } else { 0x27 };
        let composition = if at % 2 == 0 { 40 } else { 0xD8 };
        let high = if composition == 40 { 0 } else { 0xFF };
        let body = [first, 1, high, high, composition, 0, 0, 0, 2, 0x65, low];
        messages.push(message(9, 1000 + at * 40, &body));
        messages.push(message(8, 1000 + at * 40, &[0xAF, 1, 0x21, low]));
    }
    messages
}

#[test]
fn fragments_are_read_by_mp4_atom_with_times_that_join() {
    let (events, bytes) = segments(&stream(), Container::Fmp4, 0);
    let Event::Init { bytes: init, .. } = &events[0] else { panic!("no init") };
    let mut cursor = &bytes[init.clone()];
    let Any::Ftyp(_) = Any::decode(&mut cursor).unwrap() else { panic!("no ftyp") };
    let Any::Moov(moov) = Any::decode(&mut cursor).unwrap() else { panic!("no moov") };
    let scales: Vec<u32> = moov.trak.iter().map(|trak| trak.mdia.mdhd.timescale).collect();
    assert_eq!(scales, [90_000, 48_000]);
    assert!(cursor.is_empty());
    let mut next = [90_000, 48_000];
    let mut samples = [0, 0];
    for event in &events {
        let Event::Part { bytes: range, .. } = event else { continue };
        let mut reader = Cursor::new(&bytes[range.clone()]);
        let Any::Moof(moof) = Any::read_from(&mut reader).unwrap() else { panic!("no moof") };
        let Any::Mdat(mdat) = Any::read_from(&mut reader).unwrap() else { panic!("no mdat") };
        let mut data_bytes = 0;
        for traf in &moof.traf {
            let track = traf.tfhd.track_id as usize - 1;
            let start = traf.tfdt.as_ref().unwrap().base_media_decode_time;
            if track == 0 {
                assert_eq!(start, next[0], "pictures join exactly");
            }
            next[track] = start;
            for entry in &traf.trun[0].samples {
                samples[track] += 1;
                next[track] += u64::from(entry.duration.unwrap());
                data_bytes += entry.size.unwrap() as usize;
                if track == 0 {
                    assert!([3600, -3600].contains(&entry.cts.unwrap()));
                    assert_eq!(entry.duration, Some(3600));
                }
            }
        }
        assert_eq!(data_bytes, mdat.data.len());
    }
    assert_eq!(samples, [75, 75]);
}

#[test]
fn transport_packets_are_read_by_mpeg2ts_with_continuity_and_clock() {
    // The 33 bits of the clock end within the stream.
    let shift_ms = 95_443_717 - 2000 - 1000;
    let (_, bytes) = segments(&stream(), Container::Ts, shift_ms);
    let mut reader = TsPacketReader::new(Cursor::new(&bytes));
    let mut counters = std::collections::HashMap::new();
    let (mut pictures, mut clocks, mut times) = (0, 0, Vec::new());
    while let Some(packet) = reader.read_ts_packet().unwrap() {
        let pid = packet.header.pid.as_u16();
        let counter = packet.header.continuity_counter.as_u8();
        if let Some(last) = counters.insert(pid, counter) {
            assert_eq!(counter, (last + 1) & 15, "continuity of {pid:#x}");
        }
        let has_clock = packet.adaptation_field.as_ref().is_some_and(|field| field.pcr.is_some());
        if let Some(TsPayload::PesStart(pes)) = &packet.payload
            && pid == 0x100
        {
            pictures += 1;
            clocks += u32::from(has_clock);
            times.push(pes.header.dts.or(pes.header.pts).unwrap().as_u64());
        }
    }
    assert_eq!((pictures, clocks), (75, 75));
    assert!(times.windows(2).all(|two| (two[1] + (1 << 33) - two[0]) % (1 << 33) == 3600));
    assert!(times.iter().any(|&time| time < 90_000), "the clock wrapped");
}
