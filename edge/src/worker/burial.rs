//! After a panic of a worker: what it held is given back, and what others wait for of it is ended.
//!
//! ```text
//!   panic ─► connections closed ─► its streams retired, the others let go of ─► sockets gone ─► Remains
//!                                        │
//!   other workers: end of the stream ────┘─► players told at its end ─► they wait at the next entry
//! ```
//!
//! What it had told another process of before is gone here whatever comes, and cut only if that process does
//! not go on with it: until that is known the log says nothing of it ([`Remains::tell`]).
//!
//! What the panicking turn left half done is not gone on with: no writer is parked, no session is spoken
//! to, nothing is sent. So a publisher's stream ends at the last message its ring's head covers, for
//! everybody, and its entry is retired ([`Registry::retire`](crate::registry::Registry::retire)). Each step
//! is taken even if one before it panics too.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use live::path::StreamPath;
use live::subscriber::Subscriber;
use uring::{Io, Nanos};

use super::Worker;
use super::stream::Player;
use crate::command::{ConnectionId, WorkerPort};
use crate::framing::FramingKind;
use crate::hand_over::record::Door;
use crate::metrics::{CloseReason, Label as _, Role, StreamLife, WorkerMetrics};
use crate::shared::Held;

/// Turns in which accepts are to come back from the kernel, of a millisecond each.
const QUIET_TURNS_MAX: usize = 200;

/// What a worker that has panicked leaves to the one in its place.
#[derive(Debug)]
pub struct Remains {
    /// Its end of the queues, and its counters.
    pub port: WorkerPort,
    /// Serial number of its last connection.
    pub serial: u64,
    /// Its listeners, with the peers that wait there; those that could be had.
    pub doors: Vec<(Door, OwnedFd)>,
    /// What may be another process's now.
    told: Vec<Gone>,
}

impl Remains {
    /// Logs and counts what another process was told of. `is_passed_on` blocks until it is known whether
    /// that goes on with it; asked only where there is something of the kind.
    pub fn tell(&mut self, is_passed_on: impl FnOnce() -> bool) {
        if self.told.is_empty() {
            return;
        }
        let is_passed_on = is_passed_on();
        for gone in self.told.drain(..) {
            gone.tell(self.port.metrics(), is_passed_on);
        }
    }
}

/// What is gone from here, as the log tells of it.
#[derive(Debug)]
enum Gone {
    Connection {
        id: ConnectionId,
        peer: SocketAddr,
        role: Role,
        path: Option<StreamPath>,
        protocol: &'static str,
    },
    Stream(StreamPath),
}

impl Gone {
    /// Logs and counts it: as handed over, or as ended by the panic.
    fn tell(&self, metrics: &WorkerMetrics, is_passed_on: bool) {
        match self {
            Self::Connection { id, peer, role, path, protocol } => {
                let reason =
                    if is_passed_on { CloseReason::HandedOver } else { CloseReason::Internal };
                metrics.disconnects.of(*role, reason).increment();
                tracing::info!(event = "close", conn = %id, %peer, role = role.text(),
                    reason = reason.text(), stream = path.as_ref().map(tracing::field::display),
                    protocol);
            }
            Self::Stream(path) => {
                let how = if is_passed_on { "handed_over" } else { "worker_failed" };
                tracing::info!(event = "unpublish", stream = %path, how);
            }
        }
    }
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Gives back all that a worker which has panicked holds, and ends its streams.
    ///
    /// # Errors
    /// A further panic: something is left that others may wait for, so the process cannot go on.
    pub fn bury(mut self) -> Result<Remains, &'static str> {
        // It may be the `Io` that has panicked. What it has not accepted waits at the doors.
        let mut doors = Vec::new();
        let _ = attempt(|| self.stop_accepting());
        let _ = attempt(|| self.keep_doors(&mut doors));
        let exported = self.exported.take();
        let is_told =
            |index| exported.as_ref().is_some_and(|told| told.binary_search(&index).is_ok());
        let mut gone = Vec::new();
        let connections = (0..self.connections.len())
            .map(|index| {
                let is_told = is_told(index);
                attempt(|| gone.extend(self.bury_connection(index).map(|one| (one, is_told))))
            })
            .fold(Ok(()), Result::and);
        let streams: Vec<usize> = self.streams.iter().map(|(stream, _)| stream).collect();
        let streams = streams
            .into_iter()
            .map(|stream| {
                // All that are published here are told of.
                let is_told = exported.is_some();
                attempt(|| gone.extend(self.bury_stream(stream).map(|one| (one, is_told))))
            })
            .fold(Ok(()), Result::and);
        let (told, ended): (Vec<_>, Vec<_>) = gone.into_iter().partition(|(_, is_told)| *is_told);
        ended.iter().for_each(|(gone, _)| gone.tell(self.port.metrics(), false));
        let told = told.into_iter().map(|(gone, _)| gone).collect();
        self.clear_gauges();
        // Whoever reads or waits for one of its streams.
        self.shared.wake_all();
        let Self { port, serial, io, completions, connections: left, streams: taps, .. } = self;
        let sockets = attempt(|| drop((completions, left, taps, io)));
        connections.and(streams).and(sockets)?;
        Ok(Remains { port, serial, doors, told })
    }

    /// Takes the accepts back from the kernel: who came meanwhile is closed with all others, not forgotten.
    fn stop_accepting(&mut self) {
        for _ in 0..QUIET_TURNS_MAX {
            self.io.freeze();
            if self.io.is_frozen() {
                return;
            }
            let soon = self.io.now().saturating_add(Nanos::from_millis(1));
            if self.io.turn(Some(soon), &mut self.completions).is_err() {
                return;
            }
            self.completions.clear();
        }
    }

    fn keep_doors(&mut self, doors: &mut Vec<(Door, OwnedFd)>) {
        for entrance in &self.listeners {
            // Without a descriptor it is bound anew.
            if let Ok(socket) = self.io.duplicate_listener(entrance.listener) {
                doors.push((entrance.door, socket));
            }
        }
    }

    /// Gives back what a connection was counted for, and its places.
    fn bury_connection(&mut self, index: usize) -> Option<Gone> {
        let connection = self.connections.get_mut(index).and_then(Option::take)?;
        if connection.is_admitted {
            self.shared.addresses.release(connection.peer.ip());
        }
        for play in &connection.plays {
            if let Some(local) = self.streams.get(play.stream) {
                local.entry.release_subscriber();
            }
        }
        if let Some(pending) = &connection.pending_publish
            && let Some(local) = self.streams.get(pending.stream)
        {
            local.entry.withdraw_claim(connection.id);
        }
        Some(Gone::Connection {
            id: connection.id,
            peer: connection.peer,
            role: connection.role,
            path: connection.last_path.clone(),
            protocol: connection.session.protocol(),
        })
    }

    /// Ends a stream this worker is home of; lets go of any.
    fn bury_stream(&mut self, stream: usize) -> Option<Gone> {
        let local = self.streams.get_mut(stream)?;
        let entry = &local.entry;
        if local.publisher.take().is_some() {
            entry.release_publisher();
        }
        let grace = local.grace.map(|grace| grace.session);
        let is_ended = self.shared.registry.retire(entry, self.index, grace);
        let gone = is_ended.then(|| Gone::Stream(entry.path().clone()));
        entry.set_tapped(usize::from(self.index), false);
        // The last to hold it: its ring goes with it.
        drop(self.shared.registry.release(entry));
        gone
    }

    /// Nothing is here any more.
    fn clear_gauges(&self) {
        let metrics = self.port.metrics();
        metrics.connections.clear();
        metrics.tls_connections.clear();
        for life in [StreamLife::Live, StreamLife::Grace, StreamLife::Waiting] {
            metrics.streams.of(life).set(0);
        }
        metrics.ring_bytes.set(0);
        metrics.reassembly_bytes.set(0);
        self.shared.memory.note(usize::from(self.index), Held::default());
    }

    // On the workers that go on.

    /// This worker's record of a stream, unless it is of an entry that is retired: then the record stays
    /// for those who are not at its end yet, and is found no more.
    pub(super) fn present_stream(
        &mut self,
        path: &StreamPath,
        framing: FramingKind,
    ) -> Option<usize> {
        let key = (path.clone(), framing);
        let index = *self.by_path.get(&key)?;
        if self.streams.get(index).is_some_and(|local| local.entry.is_retired()) {
            self.by_path.remove(&key);
            return None;
        }
        Some(index)
    }

    /// Players of a retired stream who are at its end go and wait at the stream that has its path now.
    pub(super) fn leave_retired(&mut self, stream: usize) {
        let Some(local) = self.streams.get(stream).filter(|l| l.entry.is_retired()) else { return };
        let (path, framing) = (local.entry.path().clone(), local.framing);
        let is_at_end = |player: &Player| {
            let connection = self.connections.get(player.conn)?.as_deref()?;
            let play = connection.play(player.msid)?;
            (play.subscriber.is_waiting() && play.ends_at.is_none()).then_some(*player)
        };
        let waiting: Vec<Player> = local.players.iter().filter_map(is_at_end).collect();
        if waiting.is_empty() {
            return;
        }
        // Over the limit of streams they wait here, until there is room or their time is over.
        let Ok(successor) = self.local_stream(&path, framing) else { return };
        for player in waiting {
            let Some(next) = self.streams.get(successor) else { return };
            // They were admitted before.
            let admitted = next.entry.admit_subscriber(u32::MAX, u32::MAX);
            debug_assert!(admitted.is_ok(), "no limit");
            let slot = next.players.len();
            let connection = self.connections.get_mut(player.conn).and_then(Option::as_deref_mut);
            let Some(play) = connection.and_then(|c| c.play_mut(player.msid)) else { continue };
            let left = std::mem::replace(&mut play.slot, slot);
            play.stream = successor;
            // Positions and preambles were those of the other ring.
            let mut subscriber = Subscriber::new(play.subscriber.selection(), self.now);
            if play.subscriber.is_paused() {
                subscriber.set_paused(true, &ring::Head::default(), self.now);
            }
            (play.subscriber, play.preamble_version) = (subscriber, 0);
            if let Some(local) = self.streams.get(stream) {
                local.entry.release_subscriber();
            }
            self.enter_stream(successor, player);
            self.leave_stream(stream, left, true);
        }
        self.tick_at = self.now;
    }
}

/// Runs a step of clearing away, whatever becomes of it.
fn attempt(step: impl FnOnce()) -> Result<(), &'static str> {
    // What a step that panics has changed is looked at by no other but through the checks above.
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| "and what it held could not be given back")
}
