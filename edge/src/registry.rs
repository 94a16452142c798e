//! Which stream lives where: the only table all workers share.
//!
//! One [`StreamEntry`] per stream path, from the first publisher or subscriber to the last. It holds
//! the ring, the state every worker reads on its tick, and the slot through which the [`Publisher`]
//! (the ring's writer) moves between workers when a publisher returns elsewhere.
//!
//! The two mutexes here are taken by commands only (publish, play, their ends, a takeover), never
//! for a media byte: media goes through atomics of the entry and of the ring. Lock order:
//! `Registry::streams`, then `StreamEntry::slot`; neither is held over a system call.
//!
//! ```text
//!   worker A (home)                     entry                         worker B
//!   LocalStream{publisher} ── owner ──► slot ◄── claim ────── new publisher's connection
//!         ▲                              │ yield_wanted
//!         └── sees it on its tick, ends its session, parks the Publisher ──► B's next poll takes it
//! ```
//!
//! A worker that has panicked leaves a writer nobody may trust. Its stream ends and its entry is retired:
//! out of the table, with no right to publish to be had. Who wants the stream then gets another entry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use live::path::StreamPath;
use live::publisher::Publisher;
use ring::{Position, StreamRing};

use crate::command::ConnectionId;
use crate::config::DuplicatePublish;
use crate::hand_over::record::Past;

/// Where in its life a stream is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// Nobody publishes; subscribers may wait.
    Waiting,
    /// A publisher is connected.
    Live,
    /// The publisher was lost and may return; subscribers stay.
    Grace,
}

/// One stream, shared by all workers.
#[derive(Debug)]
pub struct StreamEntry {
    path: StreamPath,
    phase: AtomicU8,
    /// How many times the stream has ended (clean unpublish or grace over).
    ends: AtomicU64,
    /// Head of the ring at the last end.
    end_position: AtomicU64,
    /// How many publishers' sessions have begun.
    sessions: AtomicU64,
    /// Head of the ring when the last one began.
    session_position: AtomicU64,
    has_video: AtomicBool,
    /// Longest distance of two keyframes of this session, in milliseconds.
    gop_ms: AtomicU32,
    /// Chunk size of the wire image; fixed once the ring exists.
    chunk_bytes: AtomicU32,
    /// A publisher elsewhere waits for this stream's writer.
    yield_wanted: AtomicBool,
    /// The writer is lost, and the stream over for good. Set under the lock of the slot.
    is_retired: AtomicBool,
    ring: OnceLock<StreamRing>,
    /// One bit per worker that has subscribers of this stream, and one for the packager behind them.
    /// The first word lies here, since it is looked at for each message published.
    tapped: AtomicU64,
    tapped_beyond_64: Box<[AtomicU64]>,
    /// For a hand-over: where the furthest behind of all subscribers at a standstill goes on.
    kept_from: AtomicU64,
    slot: Mutex<Slot>,
    /// Players of all workers and framings, HLS viewers aside.
    subscribers: AtomicU32,
    vhost: Arc<VhostUse>,
}

/// What uses the streams of one vhost now. Changed by commands only.
#[derive(Debug, Default)]
struct VhostUse {
    /// Publishers and players.
    connections: AtomicU32,
}

/// Which limit keeps somebody from a stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StreamLimit {
    /// Streams of the process.
    Streams,
    /// Streams of the vhost.
    StreamsOfVhost,
    /// Publishers and players of the vhost.
    ConnectionsOfVhost,
    /// Players of the stream.
    Subscribers,
}

#[derive(Debug, Default)]
struct Slot {
    /// Parked here while no connection publishes; with its owner otherwise.
    publisher: Option<Box<Publisher>>,
    owner: Option<ConnectionId>,
    claim: Option<ConnectionId>,
    /// Counts owners, so that a grace period ends only the session it began with.
    sessions: u64,
}

impl Slot {
    fn grant(&mut self, owner: ConnectionId) -> Option<Box<Publisher>> {
        self.owner = Some(owner);
        self.claim = None;
        self.sessions += 1;
        self.publisher.take()
    }
}

/// What [`StreamEntry::park`] tells the worker that parked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// A newcomer waits for the writer.
    pub is_claimed: bool,
    /// Number of the session that has ended, for [`StreamEntry::end_grace`].
    pub session: u64,
}

/// What became of a wish to publish.
#[derive(Debug)]
pub enum Claim {
    /// The caller owns the writer now. `None` if the stream never had one: make it and keep it.
    Granted(Option<Box<Publisher>>),
    /// Somebody publishes and the policy protects them.
    Busy,
    /// The present owner was asked to yield; poll with [`StreamEntry::poll_claim`].
    Pending {
        /// Worker of the present owner, to be woken.
        owner: ConnectionId,
    },
    /// This entry is retired; the registry has another one.
    Retired,
}

/// What became of the end of a grace period.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum GraceEnd {
    /// The stream has ended.
    Ended,
    /// A publisher has returned, or a later grace period runs.
    NotOurs,
    /// Somebody is about to take the stream over; ask again.
    Claimed,
}

/// State of a claim that was pending.
#[derive(Debug)]
pub enum ClaimPoll {
    /// Still with the old owner.
    Pending,
    /// The caller owns the writer now.
    Granted(Option<Box<Publisher>>),
    /// A newer claim replaced this one.
    Superseded,
    /// The owner's worker has panicked; the registry has another entry.
    Retired,
}

impl StreamEntry {
    fn new(path: StreamPath, workers: usize, vhost: Arc<VhostUse>) -> Self {
        Self {
            path,
            phase: AtomicU8::new(0),
            ends: AtomicU64::new(0),
            end_position: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            session_position: AtomicU64::new(0),
            has_video: AtomicBool::new(false),
            gop_ms: AtomicU32::new(0),
            chunk_bytes: AtomicU32::new(0),
            yield_wanted: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            ring: OnceLock::new(),
            tapped: AtomicU64::new(0),
            tapped_beyond_64: (0..workers / 64).map(|_| AtomicU64::new(0)).collect(),
            kept_from: AtomicU64::new(u64::MAX),
            slot: Mutex::new(Slot::default()),
            subscribers: AtomicU32::new(0),
            vhost,
        }
    }

    /// Counts one more player, unless the stream or its vhost has as many as it may have.
    ///
    /// # Errors
    /// The limit that is reached; then nothing was counted.
    pub fn admit_subscriber(
        &self,
        of_stream_max: u32,
        of_vhost_max: u32,
    ) -> Result<(), StreamLimit> {
        if self.subscribers.fetch_add(1, Ordering::Relaxed) >= of_stream_max {
            self.subscribers.fetch_sub(1, Ordering::Relaxed);
            return Err(StreamLimit::Subscribers);
        }
        if self.vhost.connections.fetch_add(1, Ordering::Relaxed) >= of_vhost_max {
            self.release_subscriber();
            return Err(StreamLimit::ConnectionsOfVhost);
        }
        Ok(())
    }

    /// A counted player has left.
    pub fn release_subscriber(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
        self.vhost.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Publishers and players of the stream's vhost now.
    pub fn vhost_connections(&self) -> u32 {
        self.vhost.connections.load(Ordering::Relaxed)
    }

    /// A publisher's session begins. Who may publish was asked before, so publishers that come to several
    /// workers at one moment may be that many more than the limit.
    pub fn count_publisher(&self) {
        self.vhost.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A counted publisher's session is over.
    pub fn release_publisher(&self) {
        self.vhost.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes the ring owns while no connection publishes: in grace, until the stream is given up.
    pub fn parked_bytes(&self) -> u64 {
        let slot = self.lock();
        slot.publisher.as_ref().map_or(0, |publisher| publisher.writer().owned_bytes())
    }

    /// The stream's identity.
    pub fn path(&self) -> &StreamPath {
        &self.path
    }

    /// Where in its life the stream is.
    pub fn phase(&self) -> StreamPhase {
        match self.phase.load(Ordering::Acquire) {
            1 => StreamPhase::Live,
            2 => StreamPhase::Grace,
            _ => StreamPhase::Waiting,
        }
    }

    /// How many times the stream has ended, and where in the ring the last end lies.
    pub fn ends(&self) -> (u64, Position) {
        let ends = self.ends.load(Ordering::Acquire);
        (ends, Position(self.end_position.load(Ordering::Acquire)))
    }

    /// How many publishers' sessions have begun, and where in the ring the last one does.
    pub fn sessions(&self) -> (u64, Position) {
        let sessions = self.sessions.load(Ordering::Acquire);
        (sessions, Position(self.session_position.load(Ordering::Acquire)))
    }

    /// The ring, once somebody has published.
    pub fn ring(&self) -> Option<&StreamRing> {
        self.ring.get()
    }

    /// True once video was published in the present session.
    pub fn has_video(&self) -> bool {
        self.has_video.load(Ordering::Relaxed)
    }

    /// Home worker only.
    pub fn set_has_video(&self, has_video: bool) {
        self.has_video.store(has_video, Ordering::Relaxed);
    }

    /// Longest distance of two keyframes since the publisher began, in milliseconds; 0 before its second one.
    pub fn gop_ms(&self) -> u32 {
        self.gop_ms.load(Ordering::Relaxed)
    }

    /// Notes the distance of two keyframes, in milliseconds.
    pub fn note_gop(&self, gop_ms: u32) {
        self.gop_ms.fetch_max(gop_ms, Ordering::Relaxed);
    }

    /// Notes whether `worker` has subscribers, so that the home worker knows whom to wake. The number of
    /// workers stands for the packager, which reads like a subscriber and is never woken.
    pub fn set_tapped(&self, worker: usize, tapped: bool) {
        let Some(word) = self.tapped_words().nth(worker / 64) else { return };
        let bit = 1 << (worker % 64);
        if tapped {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    /// True while any worker has subscribers.
    pub fn is_tapped(&self) -> bool {
        self.tapped_words().any(|word| word.load(Ordering::Acquire) != 0)
    }

    fn tapped_words(&self) -> impl Iterator<Item = &AtomicU64> {
        std::iter::once(&self.tapped).chain(&self.tapped_beyond_64)
    }

    /// Calls `wake` with each worker that has subscribers.
    pub fn for_each_tapped(&self, mut wake: impl FnMut(usize)) {
        for (index, word) in self.tapped_words().enumerate() {
            let mut bits = word.load(Ordering::Acquire);
            while bits != 0 {
                wake(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// True if the owner is to end its session in favour of a newcomer.
    pub fn is_yield_wanted(&self) -> bool {
        self.yield_wanted.load(Ordering::Acquire)
    }

    /// True once the stream is over for good, because the worker that wrote it has panicked.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// Asks for the right to publish.
    pub fn claim(&self, newcomer: ConnectionId, policy: DuplicatePublish) -> Claim {
        let mut slot = self.lock();
        if self.is_retired() {
            return Claim::Retired;
        }
        let Some(owner) = slot.owner else {
            return Claim::Granted(slot.grant(newcomer));
        };
        if policy == DuplicatePublish::Reject {
            return Claim::Busy;
        }
        slot.claim = Some(newcomer);
        self.yield_wanted.store(true, Ordering::Release);
        Claim::Pending { owner }
    }

    /// Looks whether a pending claim was granted.
    pub fn poll_claim(&self, newcomer: ConnectionId) -> ClaimPoll {
        let mut slot = self.lock();
        if self.is_retired() {
            return ClaimPoll::Retired;
        }
        if slot.claim != Some(newcomer) {
            return ClaimPoll::Superseded;
        }
        if slot.owner.is_some() {
            return ClaimPoll::Pending;
        }
        ClaimPoll::Granted(slot.grant(newcomer))
    }

    /// Gives up a pending claim (its connection is gone).
    pub fn withdraw_claim(&self, newcomer: ConnectionId) {
        let mut slot = self.lock();
        if slot.claim == Some(newcomer) {
            slot.claim = None;
            self.yield_wanted.store(false, Ordering::Release);
        }
    }

    /// Chunk size of the wire image in bytes; 0 before the first publisher.
    pub fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes.load(Ordering::Acquire)
    }

    /// The owner's session begins. Ring and chunk size are set by the first.
    pub fn begin(&self, publisher: &Publisher) {
        self.ring.get_or_init(|| publisher.writer().ring());
        self.chunk_bytes.store(publisher.chunk_bytes(), Ordering::Release);
        self.has_video.store(false, Ordering::Relaxed);
        self.gop_ms.store(0, Ordering::Relaxed);
        self.session_position.store(publisher.writer().head().0, Ordering::Release);
        self.sessions.fetch_add(1, Ordering::AcqRel);
        self.phase.store(1, Ordering::Release);
    }

    /// The owner's session is over and its writer is parked. `grace` keeps the subscribers waiting
    /// for its return; otherwise the stream ends at the ring's head.
    pub fn park(&self, publisher: Box<Publisher>, grace: bool) -> Parked {
        let head = publisher.writer().head();
        let mut slot = self.lock();
        slot.publisher = Some(publisher);
        slot.owner = None;
        self.yield_wanted.store(false, Ordering::Release);
        if grace || slot.claim.is_some() {
            self.phase.store(2, Ordering::Release);
        } else {
            self.end_at(head);
        }
        Parked { is_claimed: slot.claim.is_some(), session: slot.sessions }
    }

    /// The grace period after `session` is over. Calls `end` with the parked publisher if nobody
    /// has returned since.
    pub fn end_grace(&self, session: u64, end: impl FnOnce(&mut Publisher)) -> GraceEnd {
        let mut slot = self.lock();
        if slot.owner.is_some() || slot.sessions != session || self.phase() != StreamPhase::Grace {
            return GraceEnd::NotOurs;
        }
        if slot.claim.is_some() {
            return GraceEnd::Claimed;
        }
        let head = slot.publisher.as_mut().map_or(Position(0), |publisher| {
            end(publisher);
            publisher.writer().head()
        });
        self.end_at(head);
        GraceEnd::Ended
    }

    /// Ends the stream at its ring's head, for good, if `worker` has the writer, or has watched over the
    /// grace period of session `grace`. What is half written there lies behind the head, where nobody reads.
    fn retire(&self, worker: u16, grace: Option<u64>) -> bool {
        let mut slot = self.lock();
        let is_owned = slot.owner.is_some_and(|owner| owner.worker == worker);
        let is_parked = slot.owner.is_none()
            && grace == Some(slot.sessions)
            && self.phase() == StreamPhase::Grace;
        if self.is_retired() || !(is_owned || is_parked) {
            return false;
        }
        (slot.owner, slot.publisher) = (None, None);
        self.is_retired.store(true, Ordering::Release);
        self.end_at(self.ring.get().map_or(Position(0), StreamRing::head));
        true
    }

    // For a hand-over.

    /// A subscriber at a standstill goes on at `position`.
    pub fn keep_from(&self, position: Position) {
        self.kept_from.fetch_min(position.0, Ordering::AcqRel);
    }

    /// The least position told so.
    pub fn kept_from(&self) -> Option<Position> {
        Some(self.kept_from.load(Ordering::Acquire)).filter(|at| *at != u64::MAX).map(Position)
    }

    /// The standstill is over.
    pub fn keep_nothing(&self) {
        self.kept_from.store(u64::MAX, Ordering::Release);
    }

    /// What has been counted.
    pub fn past(&self) -> Past {
        let (ends, sessions) = (self.ends(), self.sessions());
        Past {
            ends: (ends.0, ends.1.0),
            sessions: (sessions.0, sessions.1.0),
            has_video: self.has_video(),
        }
    }

    /// The stream of another process goes on here, live; nobody has seen this entry with a ring before.
    pub fn restore(&self, publisher: &Publisher, past: &Past) {
        self.ring.get_or_init(|| publisher.writer().ring());
        self.chunk_bytes.store(publisher.chunk_bytes(), Ordering::Release);
        self.has_video.store(past.has_video, Ordering::Relaxed);
        self.end_position.store(past.ends.1, Ordering::Release);
        self.ends.store(past.ends.0, Ordering::Release);
        self.session_position.store(past.sessions.1, Ordering::Release);
        self.sessions.store(past.sessions.0, Ordering::Release);
        self.phase.store(1, Ordering::Release);
    }

    /// Its publisher has come along.
    pub fn restore_owner(&self, owner: ConnectionId) {
        // The writer is with its owner, so there is none to take.
        drop(self.lock().grant(owner));
    }

    /// Looks at the publisher that was parked at the end of `session`, if nobody has returned since.
    pub fn with_parked<T>(&self, session: u64, look: impl FnOnce(&Publisher) -> T) -> Option<T> {
        let slot = self.lock();
        let parked = slot.publisher.as_deref().filter(|_| slot.sessions == session);
        parked.map(look)
    }

    /// Takes the parked publisher out, when the entry is given up.
    fn take_parked(&self) -> Option<Box<Publisher>> {
        self.lock().publisher.take()
    }

    fn end_at(&self, head: Position) {
        self.end_position.store(head.0, Ordering::Release);
        self.phase.store(0, Ordering::Release);
        self.ends.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        // No code that can panic runs under the lock except a publisher's `end`, which leaves the
        // slot consistent; a poisoned lock is therefore as good as a healthy one.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Held {
    entry: Arc<StreamEntry>,
    /// Workers that have a local record of the stream.
    workers: usize,
}

impl Held {
    fn is(&self, entry: &StreamEntry) -> bool {
        std::ptr::eq(&raw const *self.entry, entry)
    }
}

/// How many streams there may be.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StreamsMax {
    /// In the process.
    pub total: usize,
    /// In the vhost of the stream that is asked for.
    pub of_vhost: usize,
}

impl StreamsMax {
    /// As many as anybody likes.
    pub const NONE: Self = Self { total: usize::MAX, of_vhost: usize::MAX };
}

/// All streams of the process.
#[derive(Debug)]
pub struct Registry {
    streams: Mutex<Streams>,
    workers: usize,
}

#[derive(Debug, Default)]
struct Streams {
    by_path: HashMap<StreamPath, Held>,
    /// Vhosts that have streams, with their number.
    vhosts: HashMap<String, (Arc<VhostUse>, usize)>,
}

impl Streams {
    fn remove(&mut self, path: &StreamPath) -> Option<Arc<StreamEntry>> {
        let held = self.by_path.remove(path)?;
        if let Some((_, count)) = self.vhosts.get_mut(path.vhost()) {
            *count -= 1;
            if *count == 0 {
                self.vhosts.remove(path.vhost());
            }
        }
        Some(held.entry)
    }
}

impl Registry {
    /// An empty registry for so many workers.
    pub fn new(workers: usize) -> Self {
        Self { streams: Mutex::default(), workers }
    }

    /// The entry of `path`, made if need be, held for the calling worker. Each call is matched by
    /// one [`Registry::release`].
    ///
    /// # Errors
    /// The limit, if the entry would be one more than it allows.
    pub fn hold(
        &self,
        path: &StreamPath,
        max: StreamsMax,
    ) -> Result<Arc<StreamEntry>, StreamLimit> {
        let mut streams = self.lock();
        let Streams { by_path, vhosts } = &mut *streams;
        if let Some(held) = by_path.get_mut(path) {
            held.workers += 1;
            return Ok(Arc::clone(&held.entry));
        }
        if by_path.len() >= max.total {
            return Err(StreamLimit::Streams);
        }
        if vhosts.get(path.vhost()).map_or(0, |(_, streams)| *streams) >= max.of_vhost {
            return Err(StreamLimit::StreamsOfVhost);
        }
        let (vhost, count) = vhosts.entry(path.vhost().to_owned()).or_default();
        *count += 1;
        let entry = Arc::new(StreamEntry::new(path.clone(), self.workers, Arc::clone(vhost)));
        by_path.insert(path.clone(), Held { entry: Arc::clone(&entry), workers: 1 });
        Ok(entry)
    }

    /// Lets go of an entry. When no worker holds it any more it is removed, and its parked
    /// publisher, if any, is returned so that the ring's memory goes back to an arena.
    pub fn release(&self, entry: &StreamEntry) -> Option<Box<Publisher>> {
        let mut streams = self.lock();
        // One that is retired is nobody's any more.
        let held = streams.by_path.get_mut(&entry.path).filter(|held| held.is(entry))?;
        held.workers -= 1;
        if held.workers > 0 {
            return None;
        }
        streams.remove(&entry.path)?.take_parked()
    }

    /// `worker` has panicked: if it is the stream's home, by its publisher or by the grace period of session
    /// `grace`, the stream ends and its path is free for another entry. Returns whether it was.
    pub fn retire(&self, entry: &StreamEntry, worker: u16, grace: Option<u64>) -> bool {
        let mut streams = self.lock();
        if !entry.retire(worker, grace) {
            return false;
        }
        if streams.by_path.get(&entry.path).is_some_and(|held| held.is(entry)) {
            streams.remove(&entry.path);
        }
        true
    }

    /// Where in its life a stream is; waiting, if nobody has asked for it yet.
    pub fn phase(&self, path: &StreamPath) -> StreamPhase {
        let streams = self.lock();
        streams.by_path.get(path).map_or(StreamPhase::Waiting, |held| held.entry.phase())
    }

    /// The entry of a stream that somebody has asked for. Not held: it may be given up at any time.
    pub fn find(&self, path: &StreamPath) -> Option<Arc<StreamEntry>> {
        self.lock().by_path.get(path).map(|held| Arc::clone(&held.entry))
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.lock().by_path.len()
    }

    /// True without any stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Only map operations run under this lock.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
