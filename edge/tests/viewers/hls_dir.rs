//! The change of process under a folder of HLS files (`hls_dir`): whoever serves it as it is finds one
//! playlist that goes on, every file it names, and nothing that stays for ever.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mux::playlist::validate;
use rustix::fs::{CWD, Mode, mkfifoat};

use crate::hls::{addresses, by_number};
use crate::hls_upgrade::get;
use crate::support::media::Source;
use crate::support::server::{How, matrix, wait_for};
use crate::upgrade::{SEGMENT_MS, Show, frames_of};

/// The folder of one stream, and what was found there.
struct Folder {
    root: PathBuf,
    init: Option<(String, Vec<u8>)>,
    /// Segments by their number.
    segments: BTreeMap<u64, (String, Vec<u8>)>,
    /// Media sequence of the last playlist, and the number behind its last segment.
    window: (u64, u64),
}

impl Folder {
    fn new(root: &Path) -> Self {
        let root = root.join("live");
        Self { root, init: None, segments: BTreeMap::new(), window: (0, 0) }
    }

    /// Reads the playlist and every file it names. `None` before there is one.
    fn look(&mut self) -> Option<String> {
        let text = match fs::read_to_string(self.root.join("cam.m3u8")) {
            Err(_) if self.segments.is_empty() => return None,
            text => text.expect("a playlist that was there stays there"),
        };
        assert_eq!(validate::media(&text), [], "{text}");
        assert!(!text.contains("#EXT-X-DISCONTINUITY"), "a seam: {text}");
        let field = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag));
        let first: u64 = field("#EXT-X-MEDIA-SEQUENCE:").unwrap().parse().unwrap();
        let names: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let window = (first, first + names.len() as u64);
        let (before, next) = (self.window, self.next());
        assert!(window.0 >= before.0 && window.1 >= before.1, "from {before:?} to {window:?}");
        assert!(self.segments.is_empty() || first <= next, "segment {next} was left out: {text}");
        self.window = window;
        let init = field("#EXT-X-MAP:URI=\"").unwrap().trim_end_matches('"').to_owned();
        let body = self.read(&init);
        let known = self.init.get_or_insert_with(|| (init.clone(), body.clone()));
        assert!(*known == (init, body), "one description");
        for (sequence, name) in (first..).zip(names) {
            assert!(name.ends_with(&format!("/seg-{sequence}.m4s")), "{text}");
            let found = (name.to_owned(), self.read(name));
            let known = self.segments.entry(sequence).or_insert_with(|| found.clone());
            assert!(*known == found, "segment {sequence} is another one");
        }
        Some(text)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Number of the segment that comes next.
    fn next(&self) -> u64 {
        self.segments.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Every file there is, in order.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.root.clone()]);
        while let Some(folder) = folders.pop() {
            // One that is gone meanwhile has no files.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let kind = entry.file_type();
                let found =
                    if kind.is_ok_and(|it| it.is_dir()) { &mut folders } else { &mut files };
                found.push(entry.path());
            }
        }
        files.sort();
        files
    }

    /// Files of segments that have left the playlist.
    fn stale(&self) -> Vec<PathBuf> {
        let gone = self.segments.range(..self.window.0);
        gone.map(|(_, (name, _))| self.root.join(name)).filter(|path| path.exists()).collect()
    }

    /// Every frame of the source from the first one found on, once.
    fn assert_whole(&self) -> Vec<u32> {
        let init = self.init.iter().map(|(_, body)| body);
        let segments = self.segments.values().map(|(_, body)| body);
        let file: Vec<u8> = init.chain(segments).flatten().copied().collect();
        let numbers = frames_of(&file);
        let is_whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(is_whole, "every frame once: {numbers:?}");
        numbers
    }
}

/// Until the condition holds, the stream flowing no faster than time does.
fn watch(
    show: &mut Show,
    folder: &mut Folder,
    what: &str,
    mut done: impl FnMut(&mut Folder) -> bool,
) {
    let (before, began_ms) = (folder.next(), show.source.timestamp);
    wait_for(what, || {
        // No window ahead of the folder: the server may have had no processor for a while.
        if show.segments_since(began_ms) <= folder.next() - before + 1 {
            show.send(25);
        }
        show.net.during(Duration::from_millis(50));
        folder.look();
        done(folder)
    });
}

/// A stream that is written to `dir` in segments of half a second.
fn start(how: How, dir: &Path, settings: &str) -> Show {
    let settings = format!(
        "[defaults]\nhls_start = \"always\"\nhls_segment_ms = {SEGMENT_MS}\nhls_idle_ms = 1000\n\
         hls_dir = \"{}\"\n{settings}",
        dir.display()
    );
    let (keyframe_bytes, frame_bytes, audio_bytes) = (2_400, 600, 40);
    let source =
        Source { step_ms: 2, gop: 50, keyframe_bytes, frame_bytes, audio_bytes, ..Source::new(7) };
    Show::start_with(how, &settings, source)
}

#[test]
fn files_of_a_folder_go_on_over_two_upgrades_and_none_of_them_is_forgotten() {
    for how in matrix(&[2]) {
        println!("{how:?}");
        let dir = tempfile::tempdir().unwrap();
        let mut show = start(how, dir.path(), "hls_window = 3\nhls_dir_keep_ms = 1500\n");
        let mut folder = Folder::new(dir.path());
        for _ in 0..2 {
            // Some files wait for their removal when the process changes.
            watch(&mut show, &mut folder, "a stale file", |folder| !folder.stale().is_empty());
            let (before, next) = (folder.files(), folder.next());
            show.upgrade_and(|| drop(folder.look()));
            let (init, _) = folder.init.clone().unwrap();
            let kept = [folder.root.join("cam.m3u8"), folder.root.join(init)];
            watch(&mut show, &mut folder, "the removal of what was there before", |folder| {
                let mut left = before.iter().filter(|path| !kept.contains(path));
                folder.next() > next + 3 && !left.any(|path| path.exists())
            });
            folder.assert_whole();
        }
        // All of it, to the last frame, and no draft of a file.
        show.net.unpublish(show.publisher);
        let mut text = String::new();
        wait_for("the end of the playlist", || {
            text = folder.look().expect("it is there");
            text.ends_with("#EXT-X-ENDLIST\n")
        });
        assert_eq!(
            folder.assert_whole().last(),
            show.source.sent.last().map(|item| &item.sequence)
        );
        let is_known = |path: &PathBuf| path.extension().is_some_and(|it| it != "new");
        assert!(folder.files().iter().all(is_known), "{:?}", folder.files());
        wait_for("the end of the first process", || show.server.try_exit().is_some());
        wait_for("the folder to be removed", || !folder.root.exists());
    }
}

/// Number behind the last segment that the server tells of.
fn told(show: &Show) -> u64 {
    let http = show.server.http;
    let variants = get(http, "/live/cam.m3u8");
    let playlist = get(http, &addresses(variants.text())[0]);
    let (last, _) = by_number(playlist.text()).pop_last().unwrap();
    last + 1
}

#[test]
fn a_folder_that_hangs_over_an_upgrade_is_written_in_order_when_it_is_back() {
    for how in matrix(&[1]) {
        println!("{how:?}");
        let dir = tempfile::tempdir().unwrap();
        let mut show = start(how, dir.path(), "hls_window = 60\nhls_dir_keep_ms = 0\n");
        let mut folder = Folder::new(dir.path());
        watch(&mut show, &mut folder, "two segments", |folder| folder.next() >= 2);
        // Whoever opens a pipe to write waits for a reader: the disk, at its next playlist.
        let (playlist, draft) = (folder.root.join("cam.m3u8"), folder.root.join("cam.m3u8.new"));
        wait_for("a moment without a draft", || mkfifoat(CWD, &draft, Mode::RWXU).is_ok());
        let flow = |show: &mut Show| {
            show.send(25);
            show.net.during(Duration::from_millis(50));
        };
        let next = folder.next();
        wait_for("segments that wait for the disk", || {
            flow(&mut show);
            told(&show) > next + 3
        });
        // It hangs by now, unless it had no processor.
        let before = loop {
            let (before, at) = (folder.files(), told(&show));
            wait_for("one more", || {
                flow(&mut show);
                told(&show) > at
            });
            if folder.files() == before {
                break before;
            }
        };
        show.upgrade();
        let since = Instant::now();
        let at = told(&show);
        wait_for("segments of the new process", || {
            flow(&mut show);
            told(&show) > at + 3 && since.elapsed() >= Duration::from_secs(2)
        });
        assert_eq!(folder.files(), before, "nothing is written before what was there first");
        // The disk is back. What it wrote last is a pipe until the playlist after that.
        fs::read(&draft).unwrap();
        let is_pipe = |path: &Path| fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo());
        wait_for("the next playlist", || !is_pipe(&draft) && !is_pipe(&playlist));
        let next = told(&show);
        watch(&mut show, &mut folder, "the rest", |folder| folder.next() > next + 2);
        show.net.unpublish(show.publisher);
        wait_for("the end of the playlist", || {
            folder.look().is_some_and(|text| text.ends_with("#EXT-X-ENDLIST\n"))
        });
        assert_eq!(
            folder.assert_whole().last(),
            show.source.sent.last().map(|item| &item.sequence)
        );
        wait_for("the end of the first process", || show.server.try_exit().is_some());
    }
}
