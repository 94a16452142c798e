//! Readers that share no code with the writers agree with what a rendition gives out.

use std::collections::HashMap;
use std::io::Cursor;

use mp4_atom::{Any, Decode, ReadFrom};
use mpeg2ts::ts::{ReadTsPacket, TsPacketReader, TsPayload};

use super::*;

fn watched(container: Container, timestamp: u32) -> (Bench, Stream, Arc<Rendition>) {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", timestamp);
    stream.headers(&bench);
    let rendition = bench.open_as(&stream, Some(container), &settings());
    stream.play(&mut bench, 9000);
    (bench, stream, rendition)
}

#[test]
fn fragments_of_all_segments_join_over_4_7_hours() {
    let (_bench, _stream, rendition) = watched(Container::Fmp4, 0x00FF_FFFF - 1000);
    let init = body(rendition.file(Name::Init { generation: 1 }));
    let mut cursor = &init[..];
    assert!(matches!(Any::decode(&mut cursor).unwrap(), Any::Ftyp(_)));
    let Any::Moov(moov) = Any::decode(&mut cursor).unwrap() else { panic!("no moov") };
    assert_eq!(moov.trak.len(), 2);
    let mut next = [None, None];
    let mut pictures = 0;
    for sequence in listed(&playlist(&rendition)) {
        let bytes = segment(&rendition, sequence);
        let mut reader = Cursor::new(&bytes[..]);
        while reader.position() < bytes.len() as u64 {
            let Any::Moof(moof) = Any::read_from(&mut reader).unwrap() else { panic!("no moof") };
            let Any::Mdat(mdat) = Any::read_from(&mut reader).unwrap() else { panic!("no mdat") };
            let mut data_bytes = 0;
            for traf in &moof.traf {
                let track = traf.tfhd.track_id as usize - 1;
                let start = traf.tfdt.as_ref().unwrap().base_media_decode_time;
                if track == 0 {
                    assert_eq!(start, next[track].unwrap_or(start), "pictures join exactly");
                    pictures += traf.trun[0].samples.len();
                }
                let samples = traf.trun[0].samples.iter();
                let length = samples.map(|sample| {
                    data_bytes += sample.size.unwrap() as usize;
                    u64::from(sample.duration.unwrap())
                });
                next[track] = Some(start + length.sum::<u64>());
            }
            assert_eq!(data_bytes, mdat.data.len());
        }
    }
    assert!(pictures > 150, "{pictures}");
}

#[test]
fn transport_packets_of_all_segments_have_continuity_and_steady_times() {
    let (_bench, _stream, rendition) = watched(Container::Ts, 0x00FF_FFFF - 1000);
    let mut counters = HashMap::new();
    let mut times = Vec::new();
    for sequence in listed(&playlist(&rendition)) {
        let bytes = segment(&rendition, sequence);
        let mut reader = TsPacketReader::new(Cursor::new(&bytes[..]));
        let mut first = Vec::new();
        while let Some(packet) = reader.read_ts_packet().unwrap() {
            let pid = packet.header.pid.as_u16();
            first.push(pid);
            let counter = packet.header.continuity_counter.as_u8();
            if let Some(last) = counters.insert(pid, counter) {
                assert_eq!(counter, (last + 1) & 15, "continuity of {pid:#x}");
            }
            if let Some(TsPayload::PesStart(pes)) = &packet.payload
                && pid == 0x100
            {
                times.push(pes.header.dts.or(pes.header.pts).unwrap().as_u64());
            }
        }
        assert_eq!(first[0], 0, "each segment begins with its tables");
    }
    assert!(times.len() > 150 && times.windows(2).all(|two| two[1] - two[0] == 3600));
}
