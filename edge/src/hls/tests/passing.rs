//! Packaging that goes on in another process.

use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use super::*;
use crate::hand_over::packaging::{BytesRecord, PackagingRecord};
use crate::hls::{Order, Passed};
use crate::storage::Baton;

/// What a bench passes on, behind the wire. It stands still.
fn export(bench: &mut Bench) -> Passed {
    let (sender, answer) = mpsc::channel();
    bench.shared.hls.order(Order::Export(sender));
    bench.turn();
    let Passed { record, files } = answer.try_recv().expect("an answer");
    let bytes = postcard::to_allocvec(&record).unwrap();
    Passed { record: postcard::from_bytes(&bytes).unwrap(), files }
}

/// Another process that goes on.
fn resume(before: &Bench, passed: Passed, settings: &HlsSettings) -> Bench {
    let mut bench = Bench::new();
    (bench.now_ms, bench.unix_ms) = (before.now_ms, before.unix_ms);
    let of = |_: &StreamPath| settings.clone();
    let beginning = bench.shared.hls.resume(passed, of, &bench.storage);
    let (seen, counted) = (Arc::clone(&bench.shared), Arc::clone(&bench.metrics));
    let (storage, now) = (bench.storage.clone(), bench.now());
    bench.packager = Packager::new(seen, counted, storage, || 0, beginning, now);
    bench
}

fn rendition(bench: &Bench, stream: &Stream, container: Container) -> Arc<Rendition> {
    bench.shared.hls.find(stream.entry.path(), Some(container), &settings()).expect("it is there")
}

/// A stream packaged by one process up to `ms`, and from then on by another.
fn pass(container: Container, picture_bytes: usize, ms: u64) -> (Bench, Bench, Stream) {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.picture_bytes = picture_bytes;
    stream.headers(&bench);
    let settings = HlsSettings { is_audio_only_offered: true, ..settings() };
    bench.open_as(&stream, Some(container), &settings);
    stream.play(&mut bench, ms);
    let passed = export(&mut bench);
    let mut after = resume(&bench, passed, &settings);
    let stream = stream.pass_to(&mut after);
    (bench, after, stream)
}

#[test]
fn a_run_goes_on_as_if_nothing_had_been() {
    for container in [Container::Fmp4, Container::Ts] {
        for (picture_bytes, ms) in [(700, 5_000), (700, 7_480), (9_000, 9_960), (9_000, 40)] {
            let settings = HlsSettings { is_audio_only_offered: true, ..settings() };
            let mut whole = Bench::new();
            let mut stream = Stream::start(&whole, "cam", 0);
            stream.picture_bytes = picture_bytes;
            stream.headers(&whole);
            let wanted = whole.open_as(&stream, Some(container), &settings);
            stream.play(&mut whole, ms + 8_000);

            let (before, mut bench, mut stream) = pass(container, picture_bytes, ms);
            let old = rendition(&before, &stream, container);
            let new = rendition(&bench, &stream, container);
            assert_eq!((new.number(), new.version()), (old.number(), 1), "it answers at once");
            let alone = [&old, &new].map(|one| one.sound().expect("offered").number());
            assert_eq!(alone[0], alone[1]);
            if old.has_begun() {
                assert_eq!(playlist(&new), playlist(&old));
            }
            stream.play(&mut bench, 8_000);
            let number = |one: &Rendition| format!("{:016x}", one.number());
            for (new, wanted) in [(&new, &wanted), (new.sound().unwrap(), wanted.sound().unwrap())]
            {
                let text = playlist(new);
                assert_eq!(text, playlist(wanted).replace(&number(wanted), &number(new)));
                for sequence in listed(&text) {
                    assert!(segment(new, sequence) == segment(wanted, sequence), "{sequence}");
                }
                for generation in 1..3 {
                    let name = Name::Init { generation };
                    assert_eq!(new.file(name), wanted.file(name));
                }
            }
        }
    }
}

/// Found by the simulation: the run that was over was shown again, and the one that goes on was gone.
#[test]
fn a_run_that_is_over_does_not_stand_in_the_way_of_the_one_after_it() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let over = bench.open(&stream, &settings());
    stream.play(&mut bench, 9_000);
    stream.leave(true);
    bench.wait(50);
    stream.begin(&bench);
    stream.headers(&bench);
    let going = bench.open(&stream, &settings());
    stream.play(&mut bench, 9_000);
    let text = playlist(&going);
    assert!(over.is_ended() && listed(&text)[0] > *listed(&playlist(&over)).last().unwrap());

    let passed = export(&mut bench);
    let mut after = resume(&bench, passed, &settings());
    let mut stream = stream.pass_to(&mut after);
    let found = after.open(&stream, &settings());
    assert_eq!((found.number(), playlist(&found)), (going.number(), text.clone()));
    // Who is in the middle of the run before finds its segments.
    let kept = after.shared.hls.by_key(over.number()).expect("it is kept");
    assert_eq!(playlist(&kept), playlist(&over));
    stream.play(&mut after, 9_000);
    assert!(listed(&playlist(&found)).last() > listed(&text).last());
    // Nobody asks for it any more, the other one is.
    for _ in 0..60 {
        let _asked = playlist(&found);
        stream.play(&mut after, 1_000);
    }
    assert!(after.shared.hls.by_key(over.number()).is_none());
    assert!(after.shared.hls.by_key(going.number()).is_some());
}

#[test]
fn who_was_told_to_go_on_goes_on() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.picture_bytes = 9_000;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &settings());
    stream.play(&mut bench, 5_000);
    drop(export(&mut bench));
    let before = playlist(&rendition);
    stream.play(&mut bench, 3_000);
    assert_eq!(playlist(&rendition), before, "it stands still");
    bench.shared.hls.order(Order::GoOn);
    stream.play(&mut bench, 3_000);
    let text = playlist(&rendition);
    assert_eq!(listed(&text), [0, 1, 2, 3, 4, 5], "{text}");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY").count(), 0, "{text}");
}

#[test]
fn who_has_passed_everything_on_leaves_it_alone() {
    let (mut before, mut bench, mut stream) = pass(Container::Fmp4, 9_000, 9_000);
    let new = rendition(&bench, &stream, Container::Fmp4);
    let text = playlist(&new);
    let bodies: Vec<Bytes> = listed(&text).iter().map(|&at| segment(&new, at)).collect();
    before.shared.hls.order(Order::LetGo(Baton::new(Arc::new(UnixStream::pair().unwrap().0))));
    before.wait(5_000);
    assert!(before.shared.registry.is_empty() || before.shared.registry.len() == 1);
    drop(before);
    for (&at, body) in listed(&text).iter().zip(&bodies) {
        assert!(segment(&new, at) == *body && body[4..8] == *b"moof", "segment {at}");
    }
    // Its segments leave the window like others.
    stream.play(&mut bench, 40_000);
    let first = listed(&text)[0];
    assert_eq!(new.file(Name::Segment { sequence: first }), Reply::Gone);
}

#[test]
fn segments_there_was_no_room_for_are_not_listed_and_counted() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    bench.open(&stream, &settings());
    stream.play(&mut bench, 13_000);
    let mut passed = export(&mut bench);
    let run = &mut passed.record.runs[0];
    assert!(run.main.segments.len() >= 5);
    run.main.segments[1].bytes = BytesRecord::Left;
    let mut after = resume(&bench, passed, &settings());
    let mut stream = stream.pass_to(&mut after);
    let new = rendition(&after, &stream, Container::Fmp4);
    stream.play(&mut after, 400);
    let text = playlist(&new);
    assert_eq!(listed(&text)[0], 2, "{text}");
    assert_eq!(after.metrics.segments_left.value(), 2);
    for sequence in listed(&text) {
        segment(&new, sequence);
    }
}

#[test]
fn a_run_that_cannot_go_on_begins_anew_behind_a_discontinuity() {
    type Spoil = fn(&mut PackagingRecord);
    let spoils: [Spoil; 6] = [
        |record| record.runs[0].segmenter = BytesRecord::Left,
        |record| record.runs[0].main.open = BytesRecord::Left,
        |record| record.runs[0].main.inits.clear(),
        |record| record.runs[0].main.open_part_ends.truncate(1),
        |record| drop(record.runs[0].main.segments.remove(1)),
        |record| record.runs[0].main.open_start = u64::MAX,
    ];
    for spoil in spoils {
        let mut bench = Bench::new();
        let mut stream = Stream::start(&bench, "cam", 0);
        stream.headers(&bench);
        bench.open(&stream, &settings());
        stream.play(&mut bench, 8_880);
        let mut passed = export(&mut bench);
        let main = &passed.record.runs[0].main;
        assert!(main.open_part_ends.len() > 1);
        let next = main.segments.last().unwrap().sequence + 2;
        spoil(&mut passed.record);
        let mut after = resume(&bench, passed, &settings());
        after.shared.hls.inherit(bench.shared.hls.numbers());
        let mut stream = stream.pass_to(&mut after);
        let new = after.open(&stream, &settings());
        stream.play(&mut after, 3_000);
        let text = playlist(&new);
        assert_eq!(listed(&text)[0], next, "{text}");
        assert!(text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:1\n"), "{text}");
        assert!(after.metrics.segments_left.value() > 0);
    }
}

#[test]
fn another_configuration_is_in_force_from_there_on() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    bench.open(&stream, &HlsSettings { is_low_latency: false, ..settings() });
    stream.play(&mut bench, 13_000);
    let passed = export(&mut bench);
    let other = HlsSettings {
        is_low_latency: true,
        is_audio_only_offered: true,
        segment_ms: 1_000,
        window: 3,
        ..settings()
    };
    let mut after = resume(&bench, passed, &other);
    let mut stream = stream.pass_to(&mut after);
    let new = rendition(&after, &stream, Container::Fmp4);
    let text = playlist(&new);
    assert_eq!(listed(&text).len(), 3, "{text}");
    stream.play(&mut after, 6_000);
    let text = playlist(&new);
    assert_eq!(listed(&text).len(), 3, "{text}");
    assert!(text.contains("#EXTINF:1.000") && text.contains("#EXT-X-PART:"), "{text}");
    for name in text.lines().filter_map(|line| line.split("/part-").nth(1)) {
        let mut numbers = name.split('.').map(|number| number.parse::<u64>());
        let (Some(Ok(sequence)), Some(Ok(part))) = (numbers.next(), numbers.next()) else {
            panic!("{name}")
        };
        let part = u32::try_from(part).unwrap();
        let reply = new.file(Name::Part { sequence, part });
        assert!(matches!(reply, Reply::Ready { .. } | Reply::Wait), "{name}: {reply:?}");
    }
    assert!(!listed(&playlist(new.sound().unwrap())).is_empty(), "the sound alone has begun");
    let passed = export_again(&mut bench);
    let none = resume(&bench, passed, &HlsSettings { is_on: false, ..settings() });
    assert!(none.shared.hls.renditions().is_empty());
}

/// What a bench that stood still already passes on.
fn export_again(bench: &mut Bench) -> Passed {
    bench.shared.hls.order(Order::GoOn);
    bench.turn();
    export(bench)
}
