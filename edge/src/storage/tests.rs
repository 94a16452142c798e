//! A real folder, and a store that fails when told to.

use std::os::unix::net::UnixStream;

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

/// Two processes of an upgrade, the second of which works on a thread.
struct Upgrade {
    old: Bench,
    queue: StorageQueue,
    notes: Notes,
    thread: thread::JoinHandle<()>,
}

impl Upgrade {
    fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (old, new) = (Bench::new(), Bench::new());
        old.queue.pass_on(Baton::new(Arc::new(ours)));
        let thread = new.thread.after(Some(Baton::new(Arc::new(theirs))));
        let thread = thread::spawn(move || thread.run());
        Self { old, queue: new.queue, notes: new.notes, thread }
    }

    /// Waits until the new process has done so many jobs; what they were.
    fn wait_done(&self, count: usize) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut done = Vec::new();
        while done.len() < count {
            assert!(Instant::now() < deadline, "{done:?}");
            thread::sleep(Duration::from_millis(1));
            done.extend(self.notes.done());
        }
        done
    }

    fn finish(self) {
        self.queue.stop();
        self.thread.join().unwrap();
        assert_eq!((self.old.notes.done(), self.notes.done()), (vec![], vec![]));
    }
}

#[test]
fn the_next_process_writes_when_this_one_has_done_what_waited() {
    let mut upgrade = Upgrade::new();
    let old = &mut upgrade.old;
    old.notes.fail(Some("a"));
    for name in ["a/0", "a.m3u8"] {
        assert!(old.queue.push(put(1, name)));
    }
    for name in ["b/0", "b.m3u8"] {
        assert!(old.queue.push(job(2, name, Action::Remove { after_ms: 5_000 })));
    }
    assert!(upgrade.queue.push(put(1, "b.m3u8")));
    upgrade.old.pass(100);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(upgrade.notes.done(), [""; 0], "the old one is not done");
    upgrade.old.notes.fail(None);
    upgrade.old.pass(300);
    assert_eq!(upgrade.old.notes.done(), ["put a/0", "put a.m3u8"]);
    // What was to be removed is, but for what has been written anew. Not by the old one.
    assert_eq!(upgrade.wait_done(2), ["put b.m3u8", "remove b/0"]);
    upgrade.old.pass(6_000);
    upgrade.finish();
}

#[test]
fn the_next_process_does_not_wait_for_a_folder_that_fails() {
    let mut upgrade = Upgrade::new();
    let old = &mut upgrade.old;
    old.notes.fail(Some("a"));
    for (lane, name) in [(1, "a/0"), (1, "a/1"), (1, "a/2"), (1, "a.m3u8"), (2, "b/0")] {
        assert!(old.queue.push(put(lane, name)));
    }
    assert!(upgrade.queue.push(put(1, "c")));
    upgrade.old.pass(3_000);
    assert_eq!(upgrade.old.notes.done(), ["put b/0"]);
    assert_eq!(upgrade.old.metrics.lost.value(), 0, "it is tried as often as ever");
    upgrade.old.pass(1_000);
    assert_eq!((upgrade.old.metrics.lost.value(), upgrade.old.queue.waiting_bytes()), (4, 0));
    assert_eq!(upgrade.wait_done(1), ["put c"]);
    upgrade.finish();
}

#[test]
fn the_next_process_waits_for_half_a_minute_and_hears_of_removals_then() {
    let mut upgrade = Upgrade::new();
    // Each takes some attempts, so that no time is enough, and none is given up for failing.
    let old = &mut upgrade.old;
    let after_ms = PASS_ON_MS_MAX + 4_000;
    assert!(old.queue.push(job(2, "b/0", Action::Remove { after_ms })));
    for number in 0..100 {
        assert!(old.queue.push(put(1, &format!("a/{number}"))));
    }
    assert!(upgrade.queue.push(put(1, "c")));
    for _ in 0..PASS_ON_MS_MAX / 1_000 {
        assert_eq!(upgrade.notes.done(), [""; 0]);
        upgrade.old.notes.fail(Some("a"));
        upgrade.old.pass(900);
        upgrade.old.notes.fail(None);
        upgrade.old.now_ms += 1_600;
        upgrade.old.pass(10);
        if upgrade.old.now_ms > PASS_ON_MS_MAX + 10 {
            break;
        }
    }
    let done = upgrade.old.notes.done().len() as u64;
    assert_eq!(upgrade.old.metrics.lost.value() + done, 100);
    assert!(upgrade.old.metrics.lost.value() > 0);
    assert_eq!(upgrade.wait_done(2), ["put c", "remove b/0"]);
    upgrade.finish();
}

#[test]
fn the_end_of_a_process_lets_the_next_one_write_whatever_it_left() {
    let upgrade = Upgrade::new();
    assert!(upgrade.queue.push(put(1, "c")));
    let (ours, _) = UnixStream::pair().unwrap();
    // Dropped without a word, as by the end of a process.
    upgrade.old.queue.pass_on(Baton::new(Arc::new(ours)));
    assert_eq!(upgrade.wait_done(1), ["put c"]);
    upgrade.finish();
}

#[test]
fn of_three_processes_the_last_waits_for_the_first() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (first, theirs) = (ours, Baton::new(Arc::new(theirs)));
    let (ours, third) = UnixStream::pair().unwrap();
    let second = Bench::new();
    assert!(second.queue.push(put(1, "b")));
    // It has passed everything on, and is about to end.
    second.queue.pass_on(Baton::new(Arc::new(ours)));
    second.queue.stop();
    let thread = second.thread.after(Some(theirs));
    let thread = thread::spawn(move || thread.run());
    thread::sleep(STOP_MAX + Duration::from_millis(500));
    assert_eq!(second.notes.done(), [""; 0], "the first still writes");
    drop(first);
    thread.join().unwrap();
    assert_eq!(second.notes.done(), ["put b"]);
    let removals = Baton::new(Arc::new(third)).wait(&StorageQueue::default(), || ());
    assert!(removals.is_empty());
}

/// Takes longer for each job than a process has at its end.
struct Slow(Notes);

impl Store for Slow {
    fn put(&mut self, root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        thread::sleep(STOP_MAX + Duration::from_millis(100));
        self.0.put(root, name, bytes)
    }
    fn remove(&mut self, root: &Path, name: &str) -> io::Result<()> {
        self.0.remove(root, name)
    }
    fn folders(&mut self, root: &Path, folder: &str) -> io::Result<Vec<(String, u64)>> {
        self.0.folders(root, folder)
    }
    fn remove_folder(&mut self, root: &Path, folder: &str) -> io::Result<()> {
        self.0.remove_folder(root, folder)
    }
}

/// Ends a thread that is too slow for three jobs: what it has done, and how many jobs are counted as lost.
fn end_slow(baton: Option<Baton>) -> (Vec<String>, u64) {
    let (queue, notes) = (StorageQueue::default(), Notes::default());
    let metrics = Arc::new(StorageMetrics::default());
    let thread = StorageThread::new(queue.clone(), Slow(notes.clone()), Arc::clone(&metrics));
    for name in ["a/0", "a/1", "a.m3u8"] {
        assert!(queue.push(put(1, name)));
    }
    if let Some(baton) = baton {
        queue.pass_on(baton);
    }
    queue.stop();
    thread.run();
    (notes.done(), metrics.lost.value())
}

#[test]
fn what_is_left_at_the_end_is_counted() {
    assert_eq!(end_slow(None), (vec!["put a/0".to_owned()], 2));
}

#[test]
fn the_end_waits_longer_for_what_another_process_waits_for() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let (done, lost) = end_slow(Some(Baton::new(Arc::new(ours))));
    assert_eq!((done.len(), lost), (3, 0));
}
