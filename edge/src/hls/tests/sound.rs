//! The sound alone beside the whole: one numbering, reports, and no second viewer.

use mp4_atom::{Any, Decode};
use mux::playlist::window::Edge;

use super::*;

const MAIN: &str = "cam.m3u8?k=v&session=00000000000000ff";
const SOUND: &str = "cam.m3u8?k=v&session=00000000000000ff&rendition=audio";

fn offered() -> HlsSettings {
    HlsSettings { is_audio_only_offered: true, ..settings() }
}

/// The playlist as a viewer reads it, judged.
fn read(rendition: &Rendition, query: &str) -> String {
    let reload = Reload::parse(query).unwrap();
    let reply = rendition.playlist(&reload, Some(&address("cam", "k=v")));
    let Reply::Ready { body, tail, .. } = reply else { panic!("{reply:?}") };
    let text = String::from_utf8(body.to_vec()).unwrap() + &tail;
    assert_eq!(validate::media(&text), [], "{text}");
    text
}

/// Both playlists, judged together.
fn read_both(rendition: &Rendition) -> (String, String) {
    let (main, sound) = (read(rendition, ""), read(rendition.sound().unwrap(), ""));
    assert_eq!(validate::renditions(&[(MAIN, &main), (SOUND, &sound)]), [], "{main}\n{sound}");
    (main, sound)
}

fn variants(rendition: &Rendition) -> Vec<String> {
    let text = body(rendition.multivariant(&address("cam", "k=v")));
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert_eq!(validate::multivariant(&text), [], "{text}");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn sound_alone_is_offered_behind_the_whole_with_the_same_segments() {
    for container in [Container::Fmp4, Container::Ts] {
        let mut bench = Bench::new();
        let mut stream = Stream::start(&bench, "cam", 0);
        stream.headers(&bench);
        let rendition = bench.open_as(&stream, Some(container), &offered());
        stream.play(&mut bench, 30_000);
        assert_eq!(variants(&rendition), [MAIN, SOUND]);
        let sound = rendition.sound().unwrap();
        let (main_text, sound_text) = read_both(&rendition);
        assert_eq!(listed(&main_text), listed(&sound_text));
        let lengths = |text: &str| {
            let lines = text.lines().filter(|line| line.starts_with("#EXTINF"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&main_text), lengths(&sound_text));
        let has_parts = container == Container::Fmp4;
        assert_eq!(main_text.contains("RENDITION-REPORT"), has_parts, "{main_text}");
        for sequence in listed(&sound_text) {
            let (whole, alone) = (segment(&rendition, sequence), segment(sound, sequence));
            // A quarter would be the sound, and what its container costs.
            assert!(!alone.is_empty() && alone.len() < whole.len() / 2, "{sequence}");
            let found = bench.shared.hls.by_key(sound.number()).unwrap();
            assert_eq!(segment(&found, sequence), alone);
        }
        assert!(rendition.number() != sound.number());
        assert_eq!(bench.shared.hls.renditions().len(), 1);
    }
}

#[test]
fn the_init_segment_of_the_sound_knows_no_picture() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    stream.play(&mut bench, 3000);
    for (rendition, tracks) in [(&rendition, 2), (rendition.sound().unwrap(), 1)] {
        let init = body(rendition.file(Name::Init { generation: 1 }));
        let mut cursor = &init[..];
        assert!(matches!(Any::decode(&mut cursor).unwrap(), Any::Ftyp(_)));
        let Any::Moov(moov) = Any::decode(&mut cursor).unwrap() else { panic!("no moov") };
        assert_eq!(moov.trak.len(), tracks);
    }
}

#[test]
fn a_report_tells_the_last_part_and_a_player_that_follows_it_is_not_too_early() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    stream.play(&mut bench, 3000);
    let sound = Arc::clone(rendition.sound().unwrap());
    for _ in 0..60 {
        stream.play(&mut bench, 40);
        let (text, _) = read_both(&rendition);
        let Edge { next_msn, next_part, parts_before } = sound.snapshot().edge;
        let (msn, part) = match next_part {
            0 => (next_msn - 1, parts_before - 1),
            _ => (next_msn, next_part - 1),
        };
        let wanted =
            format!("#EXT-X-RENDITION-REPORT:URI=\"{SOUND}\",LAST-MSN={msn},LAST-PART={part}\n");
        assert!(text.ends_with(&wanted), "{wanted}{text}");
        // It is there; the next one is waited for.
        read(&sound, &format!("_HLS_msn={msn}&_HLS_part={part}"));
        let next = format!("_HLS_msn={next_msn}&_HLS_part={next_part}");
        assert_eq!(sound.playlist(&Reload::parse(&next).unwrap(), None), Reply::Wait);
    }
}

#[test]
fn a_delta_update_has_its_report_and_an_ended_playlist_has_none() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &HlsSettings { window: 20, ..offered() });
    stream.play(&mut bench, 30_000);
    let delta = read(&rendition, "_HLS_skip=YES");
    assert!(delta.contains("#EXT-X-SKIP") && delta.contains("RENDITION-REPORT"), "{delta}");
    stream.leave(true);
    bench.turn();
    let (main, sound) = read_both(&rendition);
    for text in [main, sound] {
        assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    }
}

#[test]
fn changes_and_returns_are_the_same_discontinuities_in_both() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    stream.play(&mut bench, 5000);
    let mut other = AVC_CONFIG;
    other[7] = 0xE0;
    stream.send(&bench, MediaKind::Video, &other);
    stream.restart();
    stream.play(&mut bench, 3000);
    stream.leave(false);
    bench.wait(3000);
    stream.begin(&bench);
    stream.headers(&bench);
    stream.play(&mut bench, 5000);
    let count = |text: &str| text.matches("#EXT-X-DISCONTINUITY\n").count();
    let (main, sound) = read_both(&rendition);
    assert!(count(&main) > 1 && count(&main) == count(&sound), "{main}\n{sound}");
    stream.play(&mut bench, 30_000);
    let (main, sound) = read_both(&rendition);
    let number = |text: &str| {
        let tag = "#EXT-X-DISCONTINUITY-SEQUENCE:";
        text.lines().find_map(|line| line.strip_prefix(tag)).map(str::to_owned)
    };
    assert!(number(&main).is_some() && number(&main) == number(&sound), "{main}\n{sound}");
}

#[test]
fn sound_that_comes_late_is_offered_from_then_on() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.has_audio = false;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    stream.play(&mut bench, 7000);
    let sound = Arc::clone(rendition.sound().unwrap());
    assert_eq!(variants(&rendition), [MAIN]);
    assert_eq!(sound.playlist(&Reload::default(), None), Reply::NotFound);
    assert!(!read(&rendition, "").contains("RENDITION-REPORT"));
    let before = *listed(&read(&rendition, "")).last().unwrap();
    stream.has_audio = true;
    stream.send(&bench, MediaKind::Audio, &AAC_CONFIG);
    stream.restart();
    stream.play(&mut bench, 7000);
    assert_eq!(variants(&rendition), [MAIN, SOUND]);
    let (main, sound) = read_both(&rendition);
    assert!(listed(&sound)[0] > before, "{sound}");
    assert_eq!(listed(&main).last(), listed(&sound).last());
}

#[test]
fn a_stream_that_ends_without_sound_leaves_nobody_waiting_for_it() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.has_audio = false;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &HlsSettings { idle_ms: 5000, ..offered() });
    stream.play(&mut bench, 3000);
    stream.leave(true);
    bench.turn();
    let sound = rendition.sound().unwrap();
    assert_eq!(sound.playlist(&Reload::default(), None), Reply::NotFound);
    bench.wait(8000);
    assert_eq!(sound.playlist(&Reload::default(), None), Reply::Gone);
}

#[test]
fn both_keep_to_the_memory_of_one_stream_and_go_together() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.picture_bytes = 50_000;
    stream.headers(&bench);
    let bound = HlsSettings { memory_bytes_max: 8 << 20, idle_ms: 5000, ..offered() };
    let rendition = bench.open(&stream, &bound);
    for _ in 0..20 {
        stream.play(&mut bench, 1000);
        assert!(bench.shared.hls.bytes() <= 8 << 20, "{}", bench.shared.hls.bytes());
        // Who listens only keeps the stream packaged.
        read(rendition.sound().unwrap(), "");
    }
    assert!(bench.metrics.segments_forgotten.value() > 0);
    read_both(&rendition);
    bench.wait(8000);
    let sound = rendition.sound().unwrap();
    assert!(bench.shared.hls.by_key(sound.number()).is_none());
    assert_eq!(sound.file(Name::Segment { sequence: 1 }), Reply::Gone);
    assert_eq!(bench.shared.hls.bytes(), 0);
}

#[test]
fn a_viewer_of_both_is_one_viewer() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    stream.play(&mut bench, 4000);
    let sound = rendition.sound().unwrap();
    assert!(rendition.note_viewer(1, bench.now_ms, None));
    assert!(!sound.note_viewer(1, bench.now_ms, None));
    assert!(sound.note_viewer(2, bench.now_ms, None));
    assert_eq!((rendition.viewers(), sound.knows_viewer(1)), (2, true));
}

/// Found by the simulation: who watched the sound alone of a publisher waited in vain for its successor's.
#[test]
fn who_asks_for_sound_alone_that_is_not_there_is_told_once_the_stream_is_shown() {
    let mut bench = Bench::new();
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.has_audio = false;
    stream.headers(&bench);
    let rendition = bench.open(&stream, &offered());
    let sound = rendition.sound().unwrap();
    let ask = || sound.playlist(&Reload::default(), None);
    stream.play(&mut bench, 80);
    assert_eq!(ask(), Reply::Wait, "it may come");
    stream.play(&mut bench, 5_000);
    assert_eq!(variants(&rendition).len(), 1);
    assert_eq!(ask(), Reply::NotFound);
    let version = sound.version();
    stream.play(&mut bench, 5_000);
    assert_eq!(sound.version(), version, "nobody is woken for that again");
    stream.has_audio = true;
    stream.headers(&bench);
    stream.play(&mut bench, 5_000);
    assert_eq!(variants(&rendition).len(), 2);
    assert!(matches!(ask(), Reply::Ready { .. }));
}
