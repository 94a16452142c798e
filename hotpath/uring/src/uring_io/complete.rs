//! The way out: completions from the queue to the connection they belong to.
//!
//! Copied out of the queue first and handled afterwards, because handling one may enter the kernel
//! (a full submission queue), which appends to the queue being read. Each handler looks its owner up
//! by index and generation; a connection that is closing gets its buffers dropped and its count of
//! operations lowered, and tells nobody.

use super::Uring;
use super::conn::{Conn, Receive};
use super::submit::{TASK_WORK_ROUND_FEW, TASK_WORK_ROUNDS_MAX};
use crate::io::{Completion, ConnId, ListenerId, Nanos, ReceiveEnd};
use crate::receiving::Receiving;
use crate::recv_pool::RecvBuf;
use crate::socket;
use crate::token::{Kind, Token};
use io_uring::cqueue;
use stable_deref_trait::StableDeref;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Completions copied out of the queue at a time.
const STAGE_MAX: usize = 256;

impl<L: StableDeref<Target = [u8]> + 'static> Uring<L> {
    /// Whether a turn would find something without waiting.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.staged.is_empty() || !self.ring.completion().is_empty()
    }

    /// Empties the completion queue into `staged`.
    pub(super) fn stage_completions(&mut self) {
        self.staged.extend(self.ring.completion());
    }

    /// Handles completions until there are none or `limit` is reached.
    ///
    /// One enter runs about twenty pieces of deferred task work; the flag in the queue tells that
    /// more wait, and without asking again a busy worker would fall behind unnoticed. A round that
    /// brought few was not cut off there: what has come since is the next turn's, or each enter
    /// would fetch the one thing that came during the last.
    pub(super) fn reap(
        &mut self,
        completions: &mut Vec<Completion<L>>,
        limit: usize,
    ) -> io::Result<()> {
        for _ in 0..TASK_WORK_ROUNDS_MAX {
            let before = completions.len();
            self.reap_queue(completions, limit);
            if completions.len() >= limit || completions.len() - before < TASK_WORK_ROUND_FEW {
                break;
            }
            let queue = self.ring.submission();
            let more = queue.taskrun() || queue.cq_overflow();
            drop(queue);
            if !more {
                break;
            }
            self.submit()?;
        }
        Ok(())
    }

    fn reap_queue(&mut self, completions: &mut Vec<Completion<L>>, limit: usize) {
        while completions.len() < limit {
            let Some(entry) = self.staged.pop_front() else {
                self.staged.extend(self.ring.completion().take(STAGE_MAX));
                if self.staged.is_empty() {
                    return;
                }
                continue;
            };
            if let Some(completion) = self.on_entry(&entry) {
                completions.push(completion);
            }
        }
    }

    fn on_entry(&mut self, entry: &cqueue::Entry) -> Option<Completion<L>> {
        let result = match u32::try_from(entry.result()) {
            Ok(value) => Ok(value),
            Err(_) => Err(entry.result().saturating_neg()),
        };
        let Some(token) = Token::unpack(entry.user_data()) else {
            self.counters.stale_completions += 1;
            return None;
        };
        let more = cqueue::more(entry.flags());
        match token.kind {
            Kind::Accept => self.on_accept(token.name(), result, more),
            Kind::CancelAccept => {
                if let Some(listener) = self.listeners.find(token.index, token.generation) {
                    listener.in_flight -= 1;
                    listener.cancelling = false;
                }
                self.forget_listener_if_done(token.name());
                None
            }
            Kind::Wake => {
                self.wake_armed = false;
                self.signal.drain();
                None
            }
            Kind::Receive => {
                let bytes = result.unwrap_or(0) as usize;
                let data = cqueue::buffer_select(entry.flags())
                    .and_then(|id| self.buffers.take(id, bytes));
                self.on_receive(token.name(), result, data, more)
            }
            _ => self.on_one_shot(token, result),
        }
    }

    /// Operations with exactly one completion.
    fn on_one_shot(&mut self, token: Token, result: Result<u32, i32>) -> Option<Completion<L>> {
        let Some(conn) = self.conns.find(token.index, token.generation) else {
            self.counters.stale_completions += 1;
            return None;
        };
        conn.in_flight -= 1;
        if conn.closing {
            return self.on_stale(token, result);
        }
        match token.kind {
            Kind::Connect => Some(self.on_connect(token.name(), result)),
            Kind::Send => self.on_send(token.name(), result),
            Kind::Writable => {
                conn.writable_owed = false;
                Some(Completion::Writable { conn: id(token.name()) })
            }
            Kind::CancelReceive => {
                self.on_cancel_receive(token.name(), result);
                None
            }
            _ => None,
        }
    }

    /// A pause's cancellation is answered. When it found nothing and the receive has not ended
    /// either, it hit the receive at work, and must be said again.
    fn on_cancel_receive(&mut self, name: (u32, u32), result: Result<u32, i32>) {
        let Some(conn) = self.conns.find(name.0, name.1) else { return };
        if result.is_ok() || conn.receive != Receive::Stopping {
            return;
        }
        conn.receive = Receive::Armed;
        if conn.paused || self.frozen {
            self.cancel_receive(name);
        }
    }

    /// A completion of a connection that its owner has closed.
    fn on_stale(&mut self, token: Token, result: Result<u32, i32>) -> Option<Completion<L>> {
        let conn = self.conns.find(token.index, token.generation)?;
        match token.kind {
            // The kernel has answered for the buffer: it may go.
            Kind::Send => conn.send = None,
            Kind::Connect => conn.connect_addr = None,
            Kind::CancelAll
                if !conn.released && result.unwrap_or(0) < u32::from(conn.in_flight) =>
            {
                // The cancellation lost a race: end the rest by ending the connection.
                socket::shutdown_both(&conn.fd);
            }
            _ => {}
        }
        if !matches!(token.kind, Kind::CancelAll | Kind::CancelReceive) {
            self.counters.stale_completions += 1;
        }
        self.forget_if_done(token.name());
        None
    }

    fn on_connect(&mut self, name: (u32, u32), result: Result<u32, i32>) -> Completion<L> {
        let mut paused = false;
        if let Some(conn) = self.conns.find(name.0, name.1) {
            conn.connect_addr = None;
            paused = conn.paused;
        }
        if result.is_ok() && !paused {
            self.arm_receive(name);
        }
        Completion::Connected { conn: id(name), result: result.map(|_| ()) }
    }

    fn on_send(&mut self, name: (u32, u32), result: Result<u32, i32>) -> Option<Completion<L>> {
        let conn = self.conns.find(name.0, name.1)?;
        let buf = conn.send.take()?;
        if conn.shutdown_asked {
            socket::shutdown_write(&conn.fd);
        }
        let bytes = match result {
            Ok(bytes) => bytes as usize,
            Err(libc::EAGAIN | libc::EINTR) => 0,
            Err(errno) => {
                self.counters.sends_failed += 1;
                return Some(Completion::SendFailed { conn: id(name), errno, buf });
            }
        };
        self.counters.sent_bytes += bytes as u64;
        let blocked = bytes < buf.bytes().len();
        if blocked {
            self.counters.sends_blocked += 1;
            self.arm_writable(name);
        }
        Some(Completion::Sent { conn: id(name), bytes, blocked, buf })
    }

    fn on_receive(
        &mut self,
        name: (u32, u32),
        result: Result<u32, i32>,
        data: Option<RecvBuf>,
        more: bool,
    ) -> Option<Completion<L>> {
        let Some(conn) = self.conns.find(name.0, name.1) else {
            self.counters.stale_completions += 1;
            return None;
        };
        if !more {
            conn.in_flight -= 1;
        }
        if conn.closing {
            self.counters.stale_completions += 1;
            self.forget_if_done(name);
            return None;
        }
        if let Err(errno) = result
            && !more
            && let Some(completion) = self.on_tls_receive_over(name, errno)
        {
            return completion;
        }
        let bytes_came = data.is_some();
        let end = if more { None } else { self.on_receive_over(name, result, bytes_came) };
        let conn = self.conns.find(name.0, name.1)?;
        if let Some(data) = data {
            self.counters.received_bytes += data.len() as u64;
            if conn.holds() {
                self.counters.set_aside_bytes += data.len() as u64;
                conn.held_mut().buffers.push_back(data.set_aside());
                return None;
            }
            return Some(Completion::Received { conn: id(name), data });
        }
        let reason = end?;
        if conn.holds() {
            conn.held_mut().end = Some(reason);
            return None;
        }
        Some(Completion::ReceiveEnded { conn: id(name), reason })
    }

    /// The last completion of a receive: why it ended, and what follows.
    fn on_receive_over(
        &mut self,
        name: (u32, u32),
        result: Result<u32, i32>,
        bytes_came: bool,
    ) -> Option<ReceiveEnd> {
        let conn = self.conns.find(name.0, name.1)?;
        let stopping = conn.receive == Receive::Stopping;
        conn.receive = Receive::Off;
        if bytes_came && conn.receiving.on_bytes() {
            self.counters.receive_once += 1;
            return None;
        }
        match result {
            Ok(0) => {
                conn.receive = Receive::Over;
                Some(ReceiveEnd::Eof)
            }
            Err(libc::ENOBUFS) => {
                conn.receive = Receive::Starved;
                self.counters.receive_buffers_empty += 1;
                self.starved.push_back(name);
                None
            }
            // Bytes, and the kernel wants to be asked again (its completion queue was full, or it
            // let others have their turn); or our own cancellation.
            Ok(_) | Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                if !conn.paused {
                    self.counters.receive_rearmed += u64::from(!stopping);
                    self.arm_receive(name);
                }
                None
            }
            Err(errno) => {
                conn.receive = Receive::Over;
                Some(ReceiveEnd::Error(errno))
            }
        }
    }

    /// Hands out what came in during pauses that are over.
    pub(super) fn deliver_held(&mut self, completions: &mut Vec<Completion<L>>, limit: usize) {
        while completions.len() < limit
            && let Some(&name) = self.resumed.front()
        {
            match self.conns.find(name.0, name.1) {
                Some(conn) if !conn.paused => match take_held(conn, name) {
                    Some(completion) => completions.push(completion),
                    None => {
                        // A TLS record was next while these were held, and waits still.
                        let ask_again = conn.wants_arming();
                        self.resumed.pop_front();
                        if ask_again {
                            self.arm_receive(name);
                        }
                    }
                },
                // Closed or paused again; a further resume queues it again.
                _ => drop(self.resumed.pop_front()),
            }
        }
    }

    /// Tells of sends from a file, which were over at once.
    pub(super) fn deliver_sent_files(
        &mut self,
        completions: &mut Vec<Completion<L>>,
        limit: usize,
    ) {
        while completions.len() < limit
            && let Some((name, result)) = self.sent_files.pop_front()
        {
            match self.conns.find(name.0, name.1) {
                Some(conn) if !conn.closing => completions.extend(self.on_send(name, result)),
                _ => self.counters.stale_completions += 1,
            }
        }
    }

    fn on_accept(
        &mut self,
        name: (u32, u32),
        result: Result<u32, i32>,
        more: bool,
    ) -> Option<Completion<L>> {
        let accepted = result.map(|number| {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            // SAFETY: the kernel has just opened this descriptor for us; this is its only owner.
            unsafe { OwnedFd::from_raw_fd(number) }
        });
        let Some(listener) = self.listeners.find(name.0, name.1) else {
            self.counters.stale_completions += 1;
            return None;
        };
        if !more {
            listener.armed = false;
            listener.in_flight -= 1;
        }
        if listener.closing {
            self.counters.stale_completions += 1;
            self.forget_listener_if_done(name);
            return None;
        }
        let receiving = listener.receiving;
        match accepted {
            Ok(fd) => {
                if !more {
                    self.arm_accept(name);
                }
                self.adopt(name, receiving, fd)
            }
            // Our own cancellation; `thaw` asks again.
            Err(libc::ECANCELED) if self.frozen && !more => None,
            Err(errno) => {
                self.on_accept_error(name, errno, more);
                None
            }
        }
    }

    /// An error of one peer is over with it; any other would come again at once, so it is waited
    /// out by the clock.
    fn on_accept_error(&mut self, name: (u32, u32), errno: i32, more: bool) {
        self.counters.accept_errors += 1;
        if more {
            return;
        }
        if socket::is_peer_gone(errno) {
            self.arm_accept(name);
            return;
        }
        let backoff = Nanos::from_millis(u64::from(self.config.accept_backoff_ms));
        if let Some(listener) = self.listeners.find(name.0, name.1) {
            self.counters.accept_backoffs += 1;
            self.resting += 1;
            listener.resting_until = Some(self.now.saturating_add(backoff));
        }
    }

    /// Makes a connection of an accepted descriptor.
    fn adopt(
        &mut self,
        listener: (u32, u32),
        receiving: Receiving,
        fd: OwnedFd,
    ) -> Option<Completion<L>> {
        let (Ok(peer), Ok(local)) = (socket::peer_addr(&fd), socket::local_addr(&fd)) else {
            // A port probe that has already left: nobody to talk to, nothing to report.
            self.counters.accept_gone += 1;
            return None;
        };
        let Ok(name) = self.conns.insert(Conn::new(fd, receiving)) else {
            self.counters.accept_over_limit += 1;
            return None;
        };
        self.counters.accepted += 1;
        self.counters.opened += 1;
        self.arm_receive(name);
        let listener = ListenerId { index: listener.0, generation: listener.1 };
        Some(Completion::Accepted { listener, conn: id(name), peer, local })
    }
}

pub(super) fn id((index, generation): (u32, u32)) -> ConnId {
    ConnId { index, generation }
}

/// The next thing held back for `conn`; `None` when that was all.
fn take_held<L>(conn: &mut Conn<L>, name: (u32, u32)) -> Option<Completion<L>> {
    let held = conn.held.as_mut()?;
    if let Some(data) = held.buffers.pop_front() {
        return Some(Completion::Received { conn: id(name), data });
    }
    let end = held.end.take();
    conn.held = None;
    end.map(|reason| Completion::ReceiveEnded { conn: id(name), reason })
}
