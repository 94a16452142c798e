//! The storage thread: bytes put under names, and names removed, behind everybody's back.
//!
//! Who has something to keep (HLS packaging now) hands over [`Job`]s through a bounded [`StorageQueue`]
//! and goes on; a disk that is slow, full or gone is felt by this thread alone. A [`Store`] is what the
//! bytes go to: [`Directory`] here, and the seam for others.
//!
//! ```text
//!   packager ── push ──► queue (jobs, bytes: bounded) ──► lanes ──► Store::put, Store::remove
//!                └ full: refused, counted                  │ ▲
//!                                                          └─┘ a failed job is tried again, its lane waits
//!   later: removals that are not due yet, by time
//! ```
//!
//! Jobs of one lane (one rendition) are done in order, so a playlist is never written before its
//! segments. A lane that fails waits longer each time and holds up no other. After [`ATTEMPTS_MAX`] the
//! job is given up: counted, and logged with its name. What is left when the process ends is counted and
//! logged, too.
//!
//! Of two processes of an upgrade the new one writes when the old one has written what waited there
//! ([`Baton`]): no older playlist lands on a newer one, and no playlist before its segments. The old one has
//! half a minute for it, and gives up a lane whose first job it has to give up. Removals that are not due
//! then go with the baton.

mod baton;
mod directory;
mod lanes;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::log::event;
use crate::metrics::StorageMetrics;

pub use baton::Baton;
pub use directory::Directory;
use lanes::Lanes;

/// Jobs that may wait; more are refused.
pub const JOBS_MAX: usize = 8_192;
/// Bytes that may wait; more are refused, unless nothing waits.
pub const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Removals that may wait for their time; more are refused, and the files stay.
pub const REMOVALS_MAX: usize = 262_144;
/// How often a job is tried.
pub const ATTEMPTS_MAX: u32 = 6;
/// Wait before the second attempt, in milliseconds; twice as long before each further one.
const RETRY_MS: u64 = 100;
/// Longest time the thread goes on after it was told to end, unless another process waits for it.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Longest time the thread goes on with what another process waits for, in milliseconds.
const PASS_ON_MS_MAX: u64 = 30_000;
/// Distance of two looks in that time, at the end of the process.
const PASS_ON_LOOK: Duration = Duration::from_millis(1);
/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Where bytes go.
pub trait Store {
    /// Puts `bytes` under `name`, a relative path of plain segments, below `root`. Whoever reads finds
    /// what was there before or all of it.
    ///
    /// # Errors
    /// What kept it from being stored.
    fn put(&mut self, root: &Path, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes what is stored under `name`; that nothing is there is no error.
    ///
    /// # Errors
    /// What kept it from being removed.
    fn remove(&mut self, root: &Path, name: &str) -> io::Result<()>;

    /// Names of the folders directly below `folder`, and for how many milliseconds nothing was put into or
    /// removed from each; none if there is no such folder.
    ///
    /// # Errors
    /// What kept it from being read.
    fn folders(&mut self, root: &Path, folder: &str) -> io::Result<Vec<(String, u64)>>;

    /// Removes `folder` with everything in it.
    ///
    /// # Errors
    /// What kept it from being removed.
    fn remove_folder(&mut self, root: &Path, folder: &str) -> io::Result<()>;
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Store these bytes. A removal of the same name that waits is called off.
    Put(Bytes),
    /// Remove the name, after so many milliseconds.
    Remove {
        /// How long to wait.
        after_ms: u64,
    },
    /// Remove the folders below this one that are named as runs of the packager are, but for one and for
    /// young ones: what an earlier process has left behind.
    RemoveOtherRuns {
        /// The run that stays.
        keep: u64,
        /// Those that have changed within so many milliseconds stay too.
        older_ms: u64,
    },
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Jobs of one lane are done in order.
    pub lane: u64,
    /// Folder below which names are found.
    pub root: Arc<Path>,
    /// The name, below `root`.
    pub name: String,
    /// What to do.
    pub action: Action,
}

impl Job {
    fn bytes(&self) -> u64 {
        match &self.action {
            Action::Put(bytes) => bytes.len() as u64,
            Action::Remove { .. } | Action::RemoveOtherRuns { .. } => 0,
        }
    }
}

/// A name as the packager makes them for its runs: 16 hexadecimal digits.
fn is_run(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Goes with the last of these jobs and those before.
    baton: Option<Baton>,
    is_stopping: bool,
}

/// The way to the storage thread. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StorageQueue {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<Waiting>,
    news: Condvar,
    /// Jobs and bytes handed over and not done or given up yet, those in lanes included.
    jobs: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Only queue operations run under this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_done(&self, job: &Job) {
        self.jobs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
    }
}

impl StorageQueue {
    /// Hands a job over. False, and counted, if too much waits already.
    pub fn push(&self, job: Job) -> bool {
        let (jobs, bytes) = (self.inner.jobs.load(Ordering::Relaxed), self.waiting_bytes());
        if jobs >= JOBS_MAX as u64 || bytes > 0 && bytes + job.bytes() > WAITING_BYTES_MAX {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.inner.jobs.fetch_add(1, Ordering::Relaxed);
        self.inner.bytes.fetch_add(job.bytes(), Ordering::Relaxed);
        self.inner.lock().jobs.push_back(job);
        self.inner.news.notify_one();
        true
    }

    /// Bytes that wait to be stored.
    pub fn waiting_bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    /// Jobs refused so far.
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// Another process goes on from here. It waits until what was pushed so far is done, and is told so by
    /// the end of `baton`.
    pub fn pass_on(&self, baton: Baton) {
        self.inner.lock().baton = Some(baton);
        self.inner.news.notify_one();
    }

    /// The thread is to end, and nobody waits for what it has.
    fn is_hurried(&self) -> bool {
        let waiting = self.inner.lock();
        waiting.is_stopping && waiting.baton.is_none()
    }

    /// Asks the thread to do what waits and to end.
    pub fn stop(&self) {
        self.inner.lock().is_stopping = true;
        self.inner.news.notify_one();
    }
}

/// The thread's work.
#[derive(Debug)]
pub struct StorageThread<S> {
    queue: StorageQueue,
    store: S,
    metrics: Arc<StorageMetrics>,
    lanes: Lanes,
    /// That of the process before this one, until it comes.
    awaited: Option<Baton>,
    /// That which another process waits for…
    baton: Option<Baton>,
    /// … and when it goes, whatever is left.
    pass_by_ms: Option<u64>,
    start: Instant,
}

impl<S: Store> StorageThread<S> {
    /// A thread's work on `store`, fed by `queue`.
    pub fn new(queue: StorageQueue, store: S, metrics: Arc<StorageMetrics>) -> Self {
        Self {
            queue,
            store,
            metrics,
            lanes: Lanes::default(),
            awaited: None,
            baton: None,
            pass_by_ms: None,
            start: Instant::now(),
        }
    }

    /// It begins when the process before this one has done what waited there.
    #[must_use]
    pub fn after(mut self, baton: Option<Baton>) -> Self {
        self.awaited = baton;
        self
    }

    /// Works until [`StorageQueue::stop`], and then a little longer on what waits.
    pub fn run(mut self) {
        if let Some(baton) = self.awaited.take() {
            // Before anything of this process: what is written again is not removed.
            let removals = baton.wait(&self.queue, || self.tell_waiting());
            let now_ms = self.now_ms();
            for job in &removals {
                self.remove_later(job, now_ms);
            }
        }
        while !self.wait() {
            let now_ms = self.now_ms();
            self.work(now_ms);
        }
        self.finish();
    }

    /// Does what waits when the process ends, and tells of what is left behind.
    fn finish(&mut self) {
        while self.baton.is_some() {
            let now_ms = self.now_ms();
            self.work(now_ms);
            thread::sleep(PASS_ON_LOOK);
        }
        let stop_by = Instant::now() + STOP_MAX;
        let mut now_ms = self.now_ms();
        while self.lanes.has_jobs() && Instant::now() < stop_by {
            // Nobody waits for retries any more: all of them are due.
            now_ms += RETRY_MS << ATTEMPTS_MAX;
            self.work(now_ms);
        }
        let left = self.lanes.take_all();
        self.give_up(&left);
    }

    /// Another process begins when all is done, or it has waited for long enough.
    fn pass_on(&mut self, now_ms: u64) {
        if self.baton.is_none() {
            return;
        }
        let pass_by_ms = *self.pass_by_ms.get_or_insert(now_ms + PASS_ON_MS_MAX);
        if now_ms >= pass_by_ms {
            let left = self.lanes.take_all();
            self.give_up(&left);
        }
        if !self.lanes.has_jobs()
            && let Some(baton) = self.baton.take()
        {
            baton.pass(self.lanes.take_later(now_ms));
        }
    }

    /// These are not done, and never will be.
    fn give_up(&self, jobs: &[Job]) {
        let Some(first) = jobs.first() else { return };
        jobs.iter().for_each(|job| self.queue.inner.on_done(job));
        let count = jobs.len() as u64;
        self.metrics.lost.add(count);
        let (name, bytes) = (&first.name, jobs.iter().map(Job::bytes).sum::<u64>());
        tracing::error!(
            event = event::STORAGE_FAILED,
            count,
            bytes,
            name,
            "given up: no time for what waits"
        );
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes new jobs, waiting for them if there is nothing else to do. True when told to end.
    fn wait(&mut self) -> bool {
        let sleep = match self.lanes.next_due_ms() {
            Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(self.now_ms())),
            None => SLEEP_MAX,
        };
        let inner = Arc::clone(&self.queue.inner);
        let mut waiting = inner.lock();
        let has_news = !waiting.jobs.is_empty() || waiting.is_stopping || waiting.baton.is_some();
        if !has_news && !sleep.is_zero() {
            let waited = inner.news.wait_timeout(waiting, sleep.min(SLEEP_MAX));
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.take(&mut waiting);
        waiting.is_stopping
    }

    fn take(&mut self, waiting: &mut Waiting) {
        for job in waiting.jobs.drain(..) {
            self.lanes.push(job);
        }
        // Behind them: with these it goes.
        if let Some(baton) = waiting.baton.take() {
            self.baton = Some(baton);
        }
    }

    /// Does what is due, once around all lanes. With the last of it the next process may begin.
    fn work(&mut self, now_ms: u64) {
        while let Some(job) = self.lanes.pop_due(now_ms) {
            self.queue.inner.jobs.fetch_add(1, Ordering::Relaxed);
            self.lanes.push(job);
        }
        for lane in self.lanes.runnable(now_ms) {
            let Some(job) = self.lanes.front(lane).cloned() else { continue };
            match self.execute(&job, now_ms) {
                Ok(()) => {
                    if self.lanes.on_done(lane) {
                        let name = &job.name;
                        tracing::info!(event = event::STORAGE_FAILED, name, "storing works again");
                    }
                    self.queue.inner.on_done(&job);
                }
                Err(error) => self.on_error(lane, &job, &error, now_ms),
            }
        }
        self.pass_on(now_ms);
        self.tell_waiting();
    }

    fn tell_waiting(&self) {
        self.metrics.waiting_bytes.set(self.queue.waiting_bytes());
        self.metrics.refused.set_total(self.queue.refused());
    }

    fn execute(&mut self, job: &Job, now_ms: u64) -> io::Result<()> {
        let Job { root, name, .. } = job;
        match &job.action {
            Action::Put(bytes) => {
                self.lanes.call_off_removal(root, name);
                self.store.put(root, name, bytes)?;
                self.metrics.writes.increment();
                self.metrics.written_bytes.add(bytes.len() as u64);
            }
            Action::Remove { after_ms: 0 } => {
                self.store.remove(root, name)?;
                self.metrics.removals.increment();
            }
            Action::Remove { .. } => self.remove_later(job, now_ms),
            Action::RemoveOtherRuns { keep, older_ms } => {
                let keep = format!("{keep:016x}");
                for (run, age_ms) in self.store.folders(root, name)? {
                    if is_run(&run) && run != keep && age_ms >= *older_ms {
                        self.store.remove_folder(root, &format!("{name}/{run}"))?;
                        self.metrics.removals.increment();
                    }
                }
            }
        }
        Ok(())
    }

    fn remove_later(&mut self, job: &Job, now_ms: u64) {
        let Action::Remove { after_ms } = job.action else { return };
        if !self.lanes.remove_later(job, now_ms + after_ms) {
            self.metrics.lost.increment();
            let name = &job.name;
            tracing::warn!(event = event::STORAGE_FAILED, name, "too many removals wait");
        }
    }

    fn on_error(&mut self, lane: u64, job: &Job, error: &io::Error, now_ms: u64) {
        self.metrics.failures.increment();
        let root = job.root.display();
        let name = &job.name;
        let attempts = self.lanes.on_failed(lane, now_ms, RETRY_MS);
        if attempts < ATTEMPTS_MAX {
            self.metrics.retries.increment();
            if attempts == 1 {
                tracing::warn!(event = event::STORAGE_FAILED, %root, name, "{error}; trying again");
            }
            return;
        }
        self.lanes.on_done(lane);
        self.queue.inner.on_done(job);
        self.metrics.lost.increment();
        tracing::error!(event = event::STORAGE_FAILED, %root, name, "{error}; given up");
        if self.baton.is_some() {
            // Others wait that have nothing to do with this folder.
            let rest = self.lanes.take_lane(lane);
            self.give_up(&rest);
        }
    }
}
