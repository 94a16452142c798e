//! What is written to a folder: layout, order, retention, failure.

use std::fs;
use std::path::Path;
use std::thread::JoinHandle;

use super::*;
use crate::metrics::StorageMetrics;
use crate::storage::{Directory, StorageThread};

fn kept_in(dir: &Path, keep_ms: u64) -> HlsSettings {
    HlsSettings { dir: Some(dir.into()), dir_keep_ms: keep_ms, idle_ms: 600_000, ..settings() }
}

fn start_storage(bench: &Bench) -> (JoinHandle<()>, Arc<StorageMetrics>) {
    let metrics = Arc::new(StorageMetrics::default());
    let thread = StorageThread::new(bench.storage.clone(), Directory, Arc::clone(&metrics));
    (std::thread::spawn(move || thread.run()), metrics)
}

fn finish(bench: &Bench, storage: JoinHandle<()>) {
    bench.storage.stop();
    storage.join().unwrap();
}

#[test]
fn a_folder_holds_a_playlist_that_can_be_served_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (storage, metrics) = start_storage(&bench);
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &kept_in(folder.path(), 0));
    stream.play(&mut bench, 30_000);
    stream.leave(true);
    bench.turn();
    finish(&bench, storage);
    let text = fs::read_to_string(folder.path().join("live/cam.m3u8")).unwrap();
    assert_eq!(validate::media(&text), [], "{text}");
    assert!(text.ends_with("#EXT-X-ENDLIST\n") && !text.contains("PART"), "{text}");
    let names = text.lines().filter(|line| !line.starts_with('#'));
    for (name, sequence) in names.zip(listed(&text)) {
        let stored = fs::read(folder.path().join("live").join(name)).unwrap();
        assert_eq!(stored, segment(&rendition, sequence));
    }
    let run = folder.path().join(format!("live/cam/{:016x}", rendition.number()));
    // With 0 everything is kept.
    assert!(run.join("seg-0.m4s").exists() && run.join("init-1.mp4").exists());
    assert_eq!((metrics.lost.value(), metrics.removals.value()), (0, 0));
}

#[test]
fn what_left_the_window_is_removed_and_the_rest_when_packaging_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (storage, _) = start_storage(&bench);
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let settings = HlsSettings { idle_ms: 2000, ..kept_in(folder.path(), 1) };
    let rendition = bench.open(&stream, &settings);
    let run = folder.path().join(format!("live/cam/{:016x}", rendition.number()));
    for _ in 0..40 {
        stream.play(&mut bench, 1000);
        playlist(&rendition);
    }
    // The clock of the storage thread is the real one: wait until it has caught up.
    let is_there = |name: &str| run.join(name).exists();
    while is_there("seg-0.m4s") || !is_there("seg-19.m4s") {
        std::thread::yield_now();
    }
    stream.leave(true);
    bench.wait(4000);
    while folder.path().join("live").exists() {
        std::thread::yield_now();
    }
    finish(&bench, storage);
}

#[test]
fn a_folder_that_cannot_be_written_hurts_nobody_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut bench = Bench::new();
    let (storage, metrics) = start_storage(&bench);
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    let rendition = bench.open(&stream, &kept_in(&file, 1000));
    stream.play(&mut bench, 20_000);
    assert_eq!(listed(&playlist(&rendition)).len(), 6);
    finish(&bench, storage);
    assert!(metrics.failures.value() > 0 && metrics.lost.value() > 0);
    assert_eq!((metrics.writes.value(), bench.storage.waiting_bytes()), (0, 0));
}

#[test]
fn only_the_container_of_the_vhost_is_written_and_other_vhosts_have_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new();
    let (storage, _) = start_storage(&bench);
    let mut stream = Stream::start(&bench, "cam", 0);
    stream.headers(&bench);
    bench.open_as(&stream, Some(Container::Ts), &kept_in(folder.path(), 0));
    let mut other = Stream::start_in(&bench, "live.example", "cam", 0);
    other.headers(&bench);
    bench.open(&other, &kept_in(folder.path(), 0));
    for _ in 0..100 {
        stream.frame(&bench);
        other.frame(&bench);
        bench.wait(40);
    }
    finish(&bench, storage);
    assert!(!folder.path().join("live").exists());
    assert!(folder.path().join("live.example/live/cam.m3u8").exists());
}
