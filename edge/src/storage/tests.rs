//! A real folder, and a store that fails when told to.

use super::*;

/// Remembers what was done; fails while `failing` holds the name's beginning.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<NotesInner>>);

#[derive(Debug, Default)]
struct NotesInner {
    done: Vec<String>,
    failing: Option<&'static str>,
}

impl Notes {
    fn note(&self, what: &str, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if inner.failing.is_some_and(|failing| name.starts_with(failing)) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        inner.done.push(format!("{what} {name}"));
        Ok(())
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().done)
    }

    fn fail(&self, failing: Option<&'static str>) {
        self.0.lock().unwrap().failing = failing;
    }
}

impl Store for Notes {
    fn put(&mut self, _: &Path, name: &str, _: &[u8]) -> io::Result<()> {
        self.note("put", name)
    }
    fn remove(&mut self, _: &Path, name: &str) -> io::Result<()> {
        self.note("remove", name)
    }
    fn folders(&mut self, _: &Path, _: &str) -> io::Result<Vec<(String, u64)>> {
        let names = ["0123456789abcdef", "00000000000000aa", "mine", "0123456789ABCDEF"];
        let mut found = Vec::from(names.map(|name| (name.to_owned(), 60_000)));
        found.push(("00000000000000bb".to_owned(), 10));
        Ok(found)
    }
    fn remove_folder(&mut self, _: &Path, folder: &str) -> io::Result<()> {
        self.note("remove folder", folder)
    }
}

struct Bench {
    queue: StorageQueue,
    notes: Notes,
    metrics: Arc<StorageMetrics>,
    thread: StorageThread<Notes>,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        let (queue, notes) = (StorageQueue::default(), Notes::default());
        let metrics = Arc::new(StorageMetrics::default());
        let thread = StorageThread::new(queue.clone(), notes.clone(), Arc::clone(&metrics));
        Self { queue, notes, metrics, thread, now_ms: 0 }
    }

    /// Works through `ms`, in steps of 10.
    fn pass(&mut self, ms: u64) {
        let inner = Arc::clone(&self.queue.inner);
        self.thread.take(&mut inner.lock());
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            self.thread.work(self.now_ms);
        }
    }
}

fn job(lane: u64, name: &str, action: Action) -> Job {
    Job { lane, root: Path::new("/nonexistent").into(), name: name.into(), action }
}

fn put(lane: u64, name: &str) -> Job {
    job(lane, name, Action::Put(Bytes::from_static(b"bytes")))
}

#[test]
fn jobs_of_a_lane_are_done_in_order() {
    let mut bench = Bench::new();
    for name in ["a/0", "a/1", "a.m3u8"] {
        assert!(bench.queue.push(put(1, name)));
    }
    bench.pass(100);
    assert_eq!(bench.notes.done(), ["put a/0", "put a/1", "put a.m3u8"]);
    assert_eq!((bench.queue.waiting_bytes(), bench.metrics.writes.value()), (0, 3));
}

#[test]
fn a_failing_lane_waits_and_holds_up_no_other() {
    let mut bench = Bench::new();
    bench.notes.fail(Some("a"));
    for (lane, name) in [(1, "a/0"), (1, "a.m3u8"), (2, "b/0"), (2, "b.m3u8")] {
        assert!(bench.queue.push(put(lane, name)));
    }
    bench.pass(250);
    assert_eq!(bench.notes.done(), ["put b/0", "put b.m3u8"]);
    assert_eq!(bench.metrics.failures.value(), 2, "at once and after 100 ms");
    bench.notes.fail(None);
    bench.pass(300);
    assert_eq!(bench.notes.done(), ["put a/0", "put a.m3u8"], "the playlist after its segment");
    assert_eq!((bench.metrics.retries.value(), bench.metrics.lost.value()), (2, 0));
}

#[test]
fn a_job_that_fails_too_often_is_given_up_and_counted() {
    let mut bench = Bench::new();
    bench.notes.fail(Some("a/0"));
    assert!(bench.queue.push(put(1, "a/0")));
    assert!(bench.queue.push(put(1, "a.m3u8")));
    bench.pass(10_000);
    assert_eq!(bench.notes.done(), ["put a.m3u8"]);
    assert_eq!(bench.metrics.failures.value(), u64::from(ATTEMPTS_MAX));
    assert_eq!((bench.metrics.lost.value(), bench.queue.waiting_bytes()), (1, 0));
}

#[test]
fn a_full_queue_refuses_and_counts() {
    let bench = Bench::new();
    for _ in 0..JOBS_MAX {
        assert!(bench.queue.push(put(1, "a")));
    }
    assert!(!bench.queue.push(put(1, "a")));
    assert_eq!(bench.queue.refused(), 1);
    let bench = Bench::new();
    let large = Bytes::from(vec![0; 1 << 20]);
    let taken = (0..300).filter(|_| bench.queue.push(job(1, "a", Action::Put(large.clone()))));
    assert_eq!(taken.count() as u64, WAITING_BYTES_MAX >> 20);
}

#[test]
fn a_removal_waits_for_its_time_unless_the_name_is_written_again() {
    let mut bench = Bench::new();
    for name in ["a/0", "a.m3u8"] {
        assert!(bench.queue.push(job(1, name, Action::Remove { after_ms: 1000 })));
    }
    bench.pass(900);
    assert_eq!(bench.notes.done(), [""; 0]);
    assert!(bench.queue.push(put(2, "a.m3u8")));
    bench.pass(200);
    assert_eq!(bench.notes.done(), ["put a.m3u8", "remove a/0"]);
    // The name can be removed again later.
    assert!(bench.queue.push(job(2, "a.m3u8", Action::Remove { after_ms: 100 })));
    bench.pass(200);
    assert_eq!(bench.notes.done(), ["remove a.m3u8"]);
}

#[test]
fn earlier_runs_are_removed_and_nothing_else() {
    let mut bench = Bench::new();
    assert!(bench.queue.push(job(
        1,
        "live/cam",
        Action::RemoveOtherRuns { keep: 0xAA, older_ms: 1000 }
    )));
    bench.pass(10);
    assert_eq!(bench.notes.done(), ["remove folder live/cam/0123456789abcdef"]);
}

#[test]
fn files_appear_whole_and_go_with_their_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Directory;
    let root = folder.path();
    store.put(root, "live/cam/00/seg-0.ts", b"one").unwrap();
    store.put(root, "live/cam/00/seg-0.ts", b"two").unwrap();
    assert_eq!(std::fs::read(root.join("live/cam/00/seg-0.ts")).unwrap(), b"two");
    let found = store.folders(root, "live/cam").unwrap();
    assert!(matches!(&found[..], [(name, 0..60_000)] if name == "00"), "{found:?}");
    assert!(store.folders(root, "live/none").unwrap().is_empty());
    store.put(root, "live/other.m3u8", b"x").unwrap();
    store.remove(root, "live/cam/00/seg-0.ts").unwrap();
    store.remove(root, "live/cam/00/seg-0.ts").unwrap();
    let left: Vec<_> = std::fs::read_dir(root.join("live")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    for name in ["../out", "a//b", "/etc/x", "a/./b", ""] {
        assert!(store.put(root, name, b"x").is_err(), "{name}");
    }
    // A file where a folder should be.
    assert!(store.put(root, "live/other.m3u8/seg", b"x").is_err());
}

#[test]
fn the_thread_does_what_waits_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let queue = StorageQueue::default();
    let thread = StorageThread::new(queue.clone(), Directory, Arc::default());
    let running = std::thread::spawn(move || thread.run());
    for number in 0..100 {
        let root = folder.path().into();
        let action = Action::Put(Bytes::from_static(b"x"));
        assert!(queue.push(Job { lane: number % 3, root, name: format!("a/{number}"), action }));
    }
    queue.stop();
    running.join().unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 100);
}
