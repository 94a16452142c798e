//! Captures of real clients, fed to the sessions cut in every way: whole, byte by byte, in two at every
//! split point. What is heard and what is answered must not change, and must be what is stored.
//!
//! ```text
//!   testdata/CLIENT-VERSION-WHAT/   about.toml       who, how, when, and what was learned
//!                                   c2s.bin s2c.bin  recorded by tools/record-captures, never rewritten
//!                                   transcript.txt   both directions, and what our sessions make of them
//!                                   replies.bin      what a server session with NOW and SEED answers
//! ```
//!
//! `RINGCAST_UPDATE=1 cargo test -p rtmp --test golden` writes transcript.txt and replies.bin anew; look at
//! the difference before keeping it. A new interoperability report is a new folder, nothing else.
//!
//! Split points: every one of the first `DENSE_BYTES` bytes taken alone, which hold handshake, setup and
//! the first pictures; each `SPLIT_STEP`th of the whole file. The text of a transcript is slow to make, so
//! there messages and events are compared, and the text at each `TEXT_SPLIT_STEP`th and byte by byte.

#[path = "golden/folder.rs"]
mod folder;
#[path = "golden/replay.rs"]
mod replay;

use std::thread;

use folder::Capture;
use replay::{Cut, Heard};
use rtmp::limits::ReaderLimits;
use rtmp::message::kind;
use rtmp::session::ClientRole;
use rtmp::session::transcript::Transcript;
use rtmp::{reference, tag};

/// Clients that must be there, by the start of their folder's name and its end.
const REQUIRED: [(&str, &str); 13] = [
    ("ffmpeg-5.1", "h264-aac-publish"),
    ("ffmpeg-5.1", "play"),
    ("ffmpeg-9", "hevc-publish"),
    ("ffmpeg-9", "av1-opus-publish"),
    ("ffmpeg-9", "av1-opus-play"),
    ("gstreamer-1.22", "publish"),
    ("gstreamer-1.22", "play"),
    ("vlc-3", "play"),
    ("rtmpdump-2.4", "play"),
    ("nginx-rtmp-1.2", "push"),
    ("nginx-rtmp-1.2", "pull"),
    ("obs-29", "publish"),
    ("obs-29", "publish-empty-key"),
];

/// C0 C1 C2, or S0 S1 S2.
const HANDSHAKE_BYTES: usize = 3_073;
/// As much of what follows the handshake as holds a command.
const COMMAND_BYTES: usize = 512;
const DENSE_BYTES: usize = 8 * 1_024;
const SPLIT_STEP: usize = 97;
const TEXT_SPLIT_STEP: usize = 2_003;
/// Both recordings of a folder.
const FOLDER_BYTES_MAX: usize = 200_000;
/// All recordings.
const TESTDATA_BYTES_MAX: usize = 2_000_000;

/// Runs a check of each capture in a thread of its own.
fn for_each_capture(check: impl Fn(&Capture) + Sync) {
    let captures = folder::load_all();
    thread::scope(|scope| {
        for capture in &captures {
            let check = &check;
            let thread = thread::Builder::new().name(capture.name.clone());
            thread.spawn_scoped(scope, move || check(capture)).expect("a thread");
        }
    });
}

/// The start of a recording, of which each split point is tried, and all of it.
fn lengths(bytes: &[u8]) -> [&[u8]; 2] {
    [&bytes[..bytes.len().min(DENSE_BYTES)], bytes]
}

/// How bytes are cut to compare with the whole.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = Cut> {
    let step = if bytes.len() <= DENSE_BYTES { 1 } else { SPLIT_STEP };
    (0..=bytes.len()).step_by(step).map(Cut::At).chain([Cut::Bytes])
}

fn assert_cuts_do_not_matter(
    name: &str,
    bytes: &[u8],
    cuts: impl Iterator<Item = Cut>,
    replay: impl Fn(&[u8], Cut) -> Heard,
) {
    let whole = replay(bytes, Cut::Whole);
    for cut in cuts {
        whole.assert_same(&replay(bytes, cut), name, cut);
    }
}

#[test]
fn every_required_client_has_a_capture() {
    let names: Vec<String> = folder::load_all().into_iter().map(|capture| capture.name).collect();
    for (client, what) in REQUIRED {
        let wanted = |name: &String| {
            let version = name.strip_suffix(what).and_then(|name| name.strip_suffix('-'));
            // What is left is client and version: `9.0.2-av1-opus` is neither.
            version.and_then(|name| name.strip_prefix(client)).is_some_and(|rest| {
                rest.chars().all(|letter| letter == '.' || letter.is_ascii_digit())
            })
        };
        assert!(names.iter().any(wanted), "no capture {client}…-{what} among {names:#?}");
    }
}

#[test]
fn captures_are_small_and_say_where_they_come_from() {
    let mut total = 0;
    for capture in folder::load_all() {
        let bytes = capture.c2s.len() + capture.s2c.len();
        assert!(bytes <= FOLDER_BYTES_MAX, "{}: {bytes} bytes", capture.name);
        assert!(capture.c2s.len() > HANDSHAKE_BYTES, "{}: no more than a handshake", capture.name);
        total += bytes;
        capture.check_about();
    }
    assert!(total <= TESTDATA_BYTES_MAX, "{total} bytes");
}

#[test]
fn transcripts_and_replies_are_the_stored_ones() {
    for_each_capture(|capture| {
        let (heard, told) = heard_and_told(capture);
        let sections = [
            ("c2s.bin: the client says", text(&capture.c2s, Cut::Whole)),
            ("s2c.bin: the server said, the day of the recording", text(&capture.s2c, Cut::Whole)),
            ("a server session hears c2s.bin", heard.lines()),
            ("and answers", text(&heard.replies, Cut::Whole)),
            ("a client session of ours hears s2c.bin", told.lines()),
        ];
        let mut transcript = String::new();
        for (title, lines) in sections {
            transcript.push_str(&format!("# {title}\n"));
            lines.iter().for_each(|line| transcript.push_str(&format!("{line}\n")));
        }
        // The text first: its difference explains that of the bytes.
        capture.expect_stored("transcript.txt", transcript.as_bytes());
        capture.expect_stored("replies.bin", &heard.replies);
    });
}

#[test]
fn no_capture_ends_in_an_error() {
    for_each_capture(|capture| {
        let (heard, told) = heard_and_told(capture);
        assert_eq!(heard.error, None, "{}: server session", capture.name);
        assert_eq!(told.error, None, "{}: client session", capture.name);
    });
}

/// Hashing the answer to a digest handshake is what takes most of the time of a replay. So the split points
/// of the handshake are tried once for each client, which shakes hands alike whatever it does next, and
/// those behind it with a handshake that hashes nothing.
#[test]
fn a_server_session_hears_and_answers_the_same_at_every_split_point() {
    for_each_capture(|capture| {
        let (name, c2s) = (&capture.name, &capture.c2s);
        if capture.is_first_of_client {
            let start = &c2s[..c2s.len().min(HANDSHAKE_BYTES + COMMAND_BYTES)];
            let handshake = (0..=HANDSHAKE_BYTES).map(Cut::At);
            assert_cuts_do_not_matter(name, start, handshake.chain([Cut::Bytes]), replay::server);
        }

        let [dense, _] = lengths(c2s);
        let dense = [&[3][..], &[0; HANDSHAKE_BYTES - 1], &dense[HANDSHAKE_BYTES..]].concat();
        let behind = (HANDSHAKE_BYTES..=dense.len()).map(Cut::At);
        assert_cuts_do_not_matter(name, &dense, behind.chain([Cut::Bytes]), replay::server);

        let all = (0..=c2s.len()).step_by(SPLIT_STEP).map(Cut::At);
        assert_cuts_do_not_matter(name, c2s, all.chain([Cut::Bytes]), replay::server);
    });
}

#[test]
fn a_client_session_hears_and_answers_the_same_at_every_split_point() {
    for_each_capture(|capture| {
        let (answers, role) = (replay::answers_renumbered(capture), capture.role());
        for bytes in lengths(&answers) {
            let replay = |bytes: &[u8], cut| replay::client(bytes, role, cut);
            assert_cuts_do_not_matter(&capture.name, bytes, cuts(bytes), replay);
        }
    });
}

#[test]
fn the_reader_finds_what_the_reference_reader_finds_at_every_split_point() {
    for_each_capture(|capture| {
        for (name, bytes) in [("c2s", &capture.c2s), ("s2c", &capture.s2c)] {
            let name = format!("{}/{name}.bin", capture.name);
            for chunks in lengths(&bytes[HANDSHAKE_BYTES..]) {
                let expected = reference::read_all(chunks, ReaderLimits::default());
                assert_eq!(expected.error, None, "{name}");
                assert!(!expected.messages.is_empty(), "{name}");
                for cut in cuts(chunks).chain([Cut::Whole]) {
                    let found = replay::messages(chunks, cut);
                    assert!(found == expected.messages, "{name}, {cut:?}: other messages");
                }
            }
        }
    });
}

#[test]
fn the_text_does_not_depend_on_the_cut() {
    for_each_capture(|capture| {
        for bytes in [&capture.c2s, &capture.s2c] {
            let whole = text(bytes, Cut::Whole);
            let splits = (0..bytes.len()).step_by(TEXT_SPLIT_STEP).map(Cut::At);
            for cut in splits.chain([Cut::Bytes]) {
                assert!(text(bytes, cut) == whole, "{}, {cut:?}: another text", capture.name);
            }
        }
    });
}

#[test]
fn all_media_becomes_events() {
    for_each_capture(|capture| {
        let (heard, told) = heard_and_told(capture);
        let (bytes, heard) = match capture.role() {
            ClientRole::Publish => (&capture.c2s, heard),
            ClientRole::Play => (&capture.s2c, told),
        };
        let sent = reference::read_all(&bytes[HANDSHAKE_BYTES..], ReaderLimits::default());
        let sent = sent.messages.iter().filter(|message| {
            matches!(message.header.kind, kind::AUDIO | kind::VIDEO) && !message.body.is_empty()
        });
        let sent = sent.map(|message| {
            (message.header.kind, message.header.timestamp, message.body.as_slice())
        });
        assert!(heard.media().eq(sent), "{}: media was lost or changed", capture.name);
        assert!(heard.media().count() > 10, "{}: hardly any media", capture.name);
    });
}

#[test]
fn our_client_gets_as_far_as_the_recorded_one_did() {
    for_each_capture(|capture| {
        let started = match capture.role() {
            ClientRole::Publish => "Published { msid: 1 }",
            ClientRole::Play => "PlayStarted { msid: 1 }",
        };
        let lines = heard_and_told(capture).1.lines();
        assert!(lines.iter().any(|line| line == started), "{}: {lines:#?}", capture.name);
    });
}

#[test]
fn what_players_were_sent_starts_with_metadata_then_headers_then_a_keyframe() {
    let mut players = 0;
    for capture in folder::load_all().iter().filter(|capture| capture.role() == ClientRole::Play) {
        players += 1;
        let sent = reference::read_all(&capture.s2c[HANDSHAKE_BYTES..], ReaderLimits::default());
        let position = |what: &str, wanted: &dyn Fn(u8, &[u8]) -> bool| {
            let found = sent.messages.iter().position(|sent| wanted(sent.header.kind, &sent.body));
            found.unwrap_or_else(|| panic!("{}: no {what}", capture.name))
        };
        let metadata = position("metadata", &|kind, body| {
            kind == kind::DATA_AMF0 && body.starts_with(b"\x02\x00\x0aonMetaData")
        });
        let video = |wanted: &'static dyn Fn(&tag::VideoInfo) -> bool| {
            move |kind, body: &[u8]| kind == kind::VIDEO && wanted(&tag::video(body))
        };
        let header = position("video header", &video(&|info| info.sequence_header));
        let picture = position("picture", &video(&|info| !info.sequence_header && !info.metadata));
        let keyframe = position("keyframe", &video(&|info| info.keyframe && !info.sequence_header));
        let audio_header = position("audio header", &|kind, body| {
            kind == kind::AUDIO && tag::audio(body).sequence_header
        });
        let audio = position("audio", &|kind, body| {
            kind == kind::AUDIO && !tag::audio(body).sequence_header
        });
        assert!(metadata < header && metadata < audio_header, "{}", capture.name);
        assert!(header < keyframe && picture == keyframe, "{}", capture.name);
        assert!(audio_header < audio, "{}", capture.name);
    }
    assert!(players >= 6, "only {players} players");
}

/// A server session that hears the client, and a client session of ours that hears the server.
fn heard_and_told(capture: &Capture) -> (Heard, Heard) {
    let answers = replay::answers_renumbered(capture);
    (replay::server(&capture.c2s, Cut::Whole), replay::client(&answers, capture.role(), Cut::Whole))
}

fn text(bytes: &[u8], cut: Cut) -> Vec<String> {
    let mut transcript = Transcript::new();
    let mut lines: Vec<String> = cut.parts(bytes).flat_map(|part| transcript.feed(part)).collect();
    lines.extend(transcript.finish());
    lines
}
