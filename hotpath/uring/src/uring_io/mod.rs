//! `Io` on io_uring: one ring per worker, one enter per turn.
//!
//! ```text
//!   send, connect, close, …          turn
//!        │ entries                     1 refill the buffer ring, arm what waited for it
//!        ▼                             2 enter: submit, run task work, wait          (submit.rs)
//!   submission queue ──► kernel ──►    3 reap, bounded; each entry finds its owner   (complete.rs)
//! ```
//!
//! - Receive is multishot from a buffer ring: an idle connection holds no memory and no system call.
//!   A bounded receive is one-shot, with its bound as the length, from the same ring.
//! - Send is tried inline (`MSG_DONTWAIT`): the kernel never reads a buffer after the enter that
//!   submitted it. A full socket is waited for with a one-shot poll. Bytes that lie in a file are sent
//!   by `sendfile` when they are given, for which io_uring has no operation that does not need a thread.
//! - A connection's entry owns its descriptor and its buffers until the kernel has answered for
//!   every operation (`conn.rs`); the descriptor is closed only then, because a `close` with a
//!   receive in flight would send no FIN.
//! - Nothing spins: a receive without buffers waits for one to come back, an accept without
//!   descriptors waits for a timer.

mod buf_ring;
mod complete;
mod conn;
mod restrict;
mod setup;
mod submit;
mod tls;

use crate::config::{Batching, IoConfig, IoCounters, ListenOptions};
use crate::io::{Completion, ConnId, Io, ListenerId, Nanos, SendBuf, TlsDirection};
use crate::kernel_tls::{Tls, closed};
use crate::probe::{Features, OpenError};
use crate::receiving::Receiving;
use crate::slots::Slots;
use crate::socket::{self, FileSends};
use crate::token::{Kind, Token};
use crate::waker::{WakeSignal, Waker};
use buf_ring::BufRing;
use conn::{Conn, Listener, Receive};
use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockAddr;
use stable_deref_trait::StableDeref;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

/// Listeners of one worker at most: a handful of addresses.
const LISTENERS_MAX: u32 = 1024;
/// What exceeds this in one send is reported as not taken; no socket buffer is near it.
const SEND_BYTES_MAX: u32 = 1 << 30;
/// How long dropping waits for the kernel to let go of everything.
const TEARDOWN_S: u64 = 1;

/// A network through io_uring. See the module.
pub struct Uring<L> {
    ring: IoUring,
    buffers: ManuallyDrop<BufRing>,
    conns: Slots<Conn<L>>,
    listeners: Slots<Listener>,
    /// Listeners that rest; their timers are looked at only when there are any.
    resting: u32,
    /// Entries that found the submission queue full even after an enter.
    backlog: VecDeque<squeue::Entry>,
    /// Completions copied out of the queue, not yet handled.
    staged: VecDeque<cqueue::Entry>,
    /// Connections whose receive found no buffer, longest waiting first.
    starved: VecDeque<(u32, u32)>,
    /// Connections resumed with bytes held back during their pause.
    resumed: VecDeque<(u32, u32)>,
    /// Sends from a file that are over, and not told of yet.
    sent_files: VecDeque<((u32, u32), Result<u32, i32>)>,
    file_sends: FileSends,
    signal: WakeSignal,
    wake_armed: bool,
    /// Nothing more is taken from the kernel.
    frozen: bool,
    now: Nanos,
    batching: Batching,
    config: IoConfig,
    features: Features,
    counters: IoCounters,
}

impl<L: StableDeref<Target = [u8]> + 'static> Uring<L> {
    /// Opens a ring for the calling thread, which must be the one to use it.
    ///
    /// # Errors
    /// [`OpenError`] with cause and remedy when the kernel refuses or is older than 6.0.
    pub fn open(config: IoConfig) -> Result<Uring<L>, OpenError> {
        let signal = WakeSignal::with_eventfd()
            .map_err(|error| OpenError::from_kernel("make the wake-up descriptor", &error))?;
        let opened = setup::open(&config)?;
        let cq_entries = opened.ring.params().cq_entries() as usize;
        Ok(Uring {
            ring: opened.ring,
            buffers: ManuallyDrop::new(opened.buffers),
            conns: Slots::new(config.connections_max),
            listeners: Slots::new(LISTENERS_MAX),
            resting: 0,
            backlog: VecDeque::new(),
            staged: VecDeque::with_capacity(cq_entries),
            starved: VecDeque::new(),
            resumed: VecDeque::new(),
            sent_files: VecDeque::new(),
            file_sends: FileSends::default(),
            signal,
            wake_armed: false,
            frozen: false,
            now: socket::clock(),
            batching: Batching::OFF,
            config,
            features: opened.features,
            counters: IoCounters::default(),
        })
    }

    /// The entry of an open connection; counts the call when there is none.
    fn find(&mut self, conn: ConnId) -> Option<&mut Conn<L>> {
        match self.conns.find(conn.index, conn.generation) {
            Some(found) if !found.closing => Some(found),
            _ => {
                self.counters.stale_calls += 1;
                None
            }
        }
    }

    /// Takes a listening socket in and begins to accept.
    fn accept_from(&mut self, fd: OwnedFd, options: &ListenOptions) -> io::Result<ListenerId> {
        let listener = Listener {
            fd,
            armed: false,
            closing: false,
            in_flight: 0,
            cancelling: false,
            receiving: Receiving::begin(options.first_receive_bytes_max),
            resting_until: None,
        };
        let full = |_| io::Error::from_raw_os_error(libc::EMFILE);
        let name = self.listeners.insert(listener).map_err(full)?;
        self.arm_accept(name);
        Ok(ListenerId { index: name.0, generation: name.1 })
    }

    fn arm_accept(&mut self, name: (u32, u32)) {
        let Some(listener) = self.listeners.find(name.0, name.1) else { return };
        if listener.armed || listener.closing || self.frozen {
            return;
        }
        listener.armed = true;
        listener.in_flight += 1;
        let entry =
            opcode::AcceptMulti::new(Fd(listener.fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: a multishot accept names no memory.
        unsafe { self.push(entry, Token::new(Kind::Accept, name)) };
    }

    fn arm_receive(&mut self, name: (u32, u32)) {
        if self.frozen {
            return;
        }
        let Some(conn) = self.conns.find(name.0, name.1) else { return };
        let fd = Fd(conn.fd.as_raw_fd());
        let entry = match conn.receiving {
            Receiving::Resting => return,
            Receiving::Streaming => opcode::RecvMulti::new(fd, buf_ring::GROUP).build(),
            // Never beyond the buffer: the kernel would see to that too, but takes lengths of 2 GiB
            // and more for an error.
            Receiving::Once(bytes_max) => {
                let length = bytes_max.min(self.config.recv_buffer_bytes);
                opcode::Recv::new(fd, ptr::null_mut(), length)
                    .buf_group(buf_ring::GROUP)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
        };
        conn.receive = Receive::Armed;
        conn.in_flight += 1;
        // SAFETY: the receive writes to buffers of the ring's group only; `self.buffers` keeps them
        // mapped until `drop` has cancelled every receive.
        unsafe { self.push(entry, Token::new(Kind::Receive, name)) };
    }

    fn send_with(&mut self, conn: ConnId, buf: SendBuf<L>, flags: i32) {
        assert!(!buf.bytes().is_empty(), "an empty send has no completion");
        let mut file_sends = self.file_sends;
        let Some(found) = self.find(conn) else { return };
        assert!(found.send.is_none(), "a send is in flight on {conn:?}");
        let number = found.fd.as_raw_fd();
        let file = buf.in_file().filter(|_| !found.tls.attached);
        let sent = file.and_then(|file| {
            let bytes = buf.bytes().len();
            file_sends.try_send(|| socket::send_file_blocking(&found.fd, file, bytes))
        });
        if let Some(result) = sent {
            found.send = Some(buf);
            self.counters.sends += 1;
            self.counters.sends_from_file += 1;
            self.sent_files.push_back(((conn.index, conn.generation), result));
            return;
        }
        found.in_flight += 1;
        let bytes = found.send.insert(buf).bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(SEND_BYTES_MAX);
        let entry = opcode::Send::new(Fd(number), bytes.as_ptr(), length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | flags)
            .build();
        self.file_sends = file_sends;
        self.counters.sends += 1;
        let token = Token::new(Kind::Send, (conn.index, conn.generation));
        // SAFETY: the bytes stay where they are (StableDeref, a Vec nobody touches, or shared Bytes)
        // while the buffer is in `send` of the connection's entry, which it leaves only in `on_send`, at the
        // completion; the entry itself stays until nothing is in flight.
        unsafe { self.push(entry, token) };
    }

    /// Takes an armed receive back from the kernel; its last completion tells when that is done.
    fn cancel_receive(&mut self, name: (u32, u32)) {
        let Some(conn) = self.conns.find(name.0, name.1) else { return };
        if conn.receive != Receive::Armed {
            return;
        }
        conn.receive = Receive::Stopping;
        conn.in_flight += 1;
        let receive = Token::new(Kind::Receive, name).pack();
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(receive)).build();
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(entry, Token::new(Kind::CancelReceive, name)) };
    }

    fn arm_writable(&mut self, name: (u32, u32)) {
        let Some(conn) = self.conns.find(name.0, name.1) else { return };
        if conn.writable_owed {
            return;
        }
        conn.writable_owed = true;
        conn.in_flight += 1;
        let events = u32::from(libc::POLLOUT.unsigned_abs());
        let entry = opcode::PollAdd::new(Fd(conn.fd.as_raw_fd()), events).build();
        // SAFETY: a poll names no memory.
        unsafe { self.push(entry, Token::new(Kind::Writable, name)) };
    }

    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        self.wake_armed = true;
        let events = u32::from(libc::POLLIN.unsigned_abs());
        let entry = opcode::PollAdd::new(Fd(self.signal.raw_fd()), events).build();
        // SAFETY: a poll names no memory.
        unsafe { self.push(entry, Token::new(Kind::Wake, (0, 0))) };
    }

    /// Gives those that found no buffer another try, no more of them than there are buffers.
    fn rearm_starved(&mut self) {
        if self.frozen {
            return;
        }
        let mut room = self.buffers.in_kernel();
        while room > 0
            && let Some(name) = self.starved.pop_front()
        {
            let Some(conn) = self.conns.find(name.0, name.1) else { continue };
            if conn.receive != Receive::Starved || conn.closing {
                continue;
            }
            if conn.paused {
                conn.receive = Receive::Off;
                continue;
            }
            self.counters.receive_rearmed += 1;
            self.arm_receive(name);
            room -= 1;
        }
    }

    /// Ends the rest of listeners whose time has come.
    fn retry_listeners(&mut self) {
        if self.resting == 0 {
            return;
        }
        let now = socket::clock();
        let due: Vec<(u32, u32)> = self
            .listeners
            .iter_mut()
            .filter(|(_, _, listener)| listener.resting_until.is_some_and(|until| until <= now))
            .map(|(index, generation, listener)| {
                listener.resting_until = None;
                (index, generation)
            })
            .collect();
        for name in due {
            self.resting -= 1;
            self.arm_accept(name);
        }
    }

    /// Until when a turn may wait: the worker's deadline or the end of a listener's rest.
    fn wait_until(&mut self, deadline: Option<Nanos>) -> Option<Nanos> {
        if self.resting == 0 {
            return deadline;
        }
        let rests = self.listeners.iter_mut().filter_map(|(_, _, listener)| listener.resting_until);
        rests.chain(deadline).min()
    }

    /// Frees the entry of a closed connection once the kernel has answered for everything.
    fn forget_if_done(&mut self, name: (u32, u32)) {
        let done =
            self.conns.find(name.0, name.1).is_some_and(|conn| conn.closing && conn.in_flight == 0);
        if done && self.conns.remove(name.0, name.1).is_some() {
            self.counters.closed += 1;
        }
    }

    /// No further accept is armed for a listener. `None`, and counted, for one that is closed.
    fn end_accepting(&mut self, listener: ListenerId) -> Option<&mut Listener> {
        let found = self.listeners.find(listener.index, listener.generation);
        let Some(found) = found.filter(|found| !found.closing) else {
            self.counters.stale_calls += 1;
            return None;
        };
        found.closing = true;
        if found.resting_until.take().is_some() {
            self.resting -= 1;
        }
        Some(found)
    }

    fn forget_listener_if_done(&mut self, name: (u32, u32)) {
        let done = |listener: &mut Listener| listener.closing && listener.in_flight == 0;
        if self.listeners.find(name.0, name.1).is_some_and(done) {
            self.listeners.remove(name.0, name.1);
        }
    }
}

impl<L: StableDeref<Target = [u8]> + 'static> Io for Uring<L> {
    type Lease = L;

    fn now(&self) -> Nanos {
        self.now
    }

    fn listen(
        &mut self,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::listener(addr, options)?;
        Ok((self.accept_from(fd, options)?, bound))
    }

    fn listen_on(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let (fd, bound) = socket::passed_listener(socket, options)?;
        // A non-blocking one would complete with EAGAIN instead of being waited for.
        socket::set_nonblocking(&fd, false)?;
        Ok((self.accept_from(fd, options)?, bound))
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let name = (listener.index, listener.generation);
        let Some(found) = self.end_accepting(listener) else { return };
        // Frees the address at once; the accept in the kernel ends by this or by the cancellation.
        socket::shutdown_both(&found.fd);
        if found.armed {
            found.in_flight += 1;
            let cancel = CancelBuilder::fd(Fd(found.fd.as_raw_fd())).all();
            let entry = opcode::AsyncCancel2::new(cancel).build();
            // SAFETY: a cancellation names no memory.
            unsafe { self.push(entry, Token::new(Kind::CancelAccept, name)) };
        }
        self.forget_listener_if_done(name);
    }

    fn connect_from(
        &mut self,
        source: Option<IpAddr>,
        addr: SocketAddr,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        let receiving = Receiving::begin(first_receive_bytes_max);
        let fd = socket::outgoing(source, addr, &self.config.connect_socket)?;
        let number = fd.as_raw_fd();
        let addr = Box::new(SockAddr::from(addr));
        let entry = opcode::Connect::new(Fd(number), addr.as_ptr().cast(), addr.len()).build();
        let mut conn = Conn::new(fd, receiving);
        conn.connect_addr = Some(addr);
        conn.in_flight = 1;
        let name =
            self.conns.insert(conn).map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))?;
        self.counters.opened += 1;
        // SAFETY: the address is boxed in the connection's entry, which drops it only in
        // `on_connect`, that is after this operation's completion.
        unsafe { self.push(entry, Token::new(Kind::Connect, name)) };
        Ok(ConnId { index: name.0, generation: name.1 })
    }

    fn send(&mut self, conn: ConnId, buf: SendBuf<L>) {
        self.send_with(conn, buf, 0);
    }

    fn send_more(&mut self, conn: ConnId, buf: SendBuf<L>) {
        self.send_with(conn, buf, libc::MSG_MORE);
    }

    fn pause_receive(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        if found.rests() {
            return;
        }
        found.paused = true;
        self.cancel_receive((conn.index, conn.generation));
    }

    fn resume_receive(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        if found.rests() {
            found.receiving = Receiving::Streaming;
        } else if !mem::replace(&mut found.paused, false) {
            return;
        }
        let name = (conn.index, conn.generation);
        let (arm, held) = (found.wants_arming(), found.held.is_some());
        if held {
            self.resumed.push_back(name);
        }
        if arm {
            self.arm_receive(name);
        }
    }

    fn receive_once(&mut self, conn: ConnId, bytes_max: u32) {
        let once = Receiving::once(bytes_max);
        let Some(found) = self.find(conn) else { return };
        if found.receive == Receive::Over {
            return;
        }
        let rests = found.rests();
        debug_assert!(rests, "receiving does not rest on {conn:?}");
        if !rests {
            self.counters.stale_calls += 1;
            return;
        }
        found.receiving = once;
        self.arm_receive((conn.index, conn.generation));
    }

    fn attach_tls(&mut self, conn: ConnId) -> io::Result<()> {
        self.attach(conn)
    }

    fn set_tls_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        self.set_keys(conn, direction, crypto_info)
    }

    fn send_tls_record(&mut self, conn: ConnId, record_type: u8, bytes: &[u8]) -> io::Result<()> {
        self.send_record(conn, record_type, bytes)
    }

    fn acknowledge_now(&mut self, conn: ConnId) {
        if let Some(found) = self.find(conn) {
            socket::acknowledge_now(&found.fd);
        }
    }

    fn set_unsent_max(&mut self, conn: ConnId, bytes_max: u32) {
        if let Some(found) = self.find(conn) {
            socket::set_unsent_max(&found.fd, bytes_max);
        }
    }

    fn shutdown_write(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        found.shutdown_asked = true;
        if found.send.is_none() {
            socket::shutdown_write(&found.fd);
        }
    }

    fn close(&mut self, conn: ConnId) {
        let Some(found) = self.find(conn) else { return };
        found.closing = true;
        found.held = None;
        let name = (conn.index, conn.generation);
        if found.in_flight > 0 {
            found.in_flight += 1;
            let cancel = CancelBuilder::fd(Fd(found.fd.as_raw_fd())).all();
            let entry = opcode::AsyncCancel2::new(cancel).build();
            // Behind a send of this turn in the queue: that one is tried before it is cancelled.
            // SAFETY: a cancellation names no memory.
            unsafe { self.push(entry, Token::new(Kind::CancelAll, name)) };
        }
        self.forget_if_done(name);
    }

    fn freeze(&mut self) {
        self.frozen = true;
        let armed: Vec<(u32, u32)> = self
            .conns
            .iter_mut()
            .filter(|(_, _, conn)| conn.receive == Receive::Armed && !conn.closing)
            .map(|(index, generation, _)| (index, generation))
            .collect();
        for name in armed {
            self.cancel_receive(name);
        }
        let accepting: Vec<(u32, u32)> = self
            .listeners
            .iter_mut()
            .filter(|(_, _, listener)| listener.armed && !listener.cancelling && !listener.closing)
            .map(|(index, generation, listener)| {
                listener.cancelling = true;
                listener.in_flight += 1;
                (index, generation)
            })
            .collect();
        for name in accepting {
            let accept = Token::new(Kind::Accept, name).pack();
            let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(accept)).build();
            // SAFETY: a cancellation names no memory.
            unsafe { self.push(entry, Token::new(Kind::CancelAccept, name)) };
        }
    }

    fn is_frozen(&mut self) -> bool {
        let is_quiet = |conn: &Conn<L>| {
            conn.closing
                || conn.send.is_none()
                    && !matches!(conn.receive, Receive::Armed | Receive::Stopping)
        };
        self.frozen
            && self.conns.iter_mut().all(|(_, _, conn)| is_quiet(conn))
            && self.listeners.iter_mut().all(|(_, _, listener)| !listener.armed)
    }

    fn thaw(&mut self) {
        self.frozen = false;
        let wanted: Vec<(u32, u32)> = self
            .conns
            .iter_mut()
            .filter(|(_, _, conn)| conn.wants_arming() && !conn.closing)
            .map(|(index, generation, _)| (index, generation))
            .collect();
        for name in wanted {
            self.arm_receive(name);
        }
        let listening: Vec<(u32, u32)> = self
            .listeners
            .iter_mut()
            .filter(|(_, _, listener)| listener.resting_until.is_none())
            .map(|(index, generation, _)| (index, generation))
            .collect();
        for name in listening {
            self.arm_accept(name);
        }
    }

    fn duplicate(&mut self, conn: ConnId) -> io::Result<OwnedFd> {
        self.find(conn).ok_or_else(closed)?.fd.try_clone()
    }

    fn duplicate_listener(&mut self, listener: ListenerId) -> io::Result<OwnedFd> {
        let found = self.listeners.find(listener.index, listener.generation);
        found.ok_or_else(closed)?.fd.try_clone()
    }

    fn adopt(
        &mut self,
        socket: OwnedFd,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        socket::peer_addr(&socket)?;
        socket::set_nonblocking(&socket, false)?;
        let tls = Tls::of(&socket);
        let conn = Conn { tls, ..Conn::new(socket, Receiving::begin(first_receive_bytes_max)) };
        let name =
            self.conns.insert(conn).map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))?;
        self.counters.opened += 1;
        self.arm_receive(name);
        Ok(complete::id(name))
    }

    fn release(&mut self, conn: ConnId) {
        if let Some(found) = self.find(conn) {
            found.released = true;
            self.close(conn);
        }
    }

    fn release_listener(&mut self, listener: ListenerId) {
        if self.end_accepting(listener).is_some() {
            self.forget_listener_if_done((listener.index, listener.generation));
        }
    }

    fn turn(
        &mut self,
        deadline: Option<Nanos>,
        completions: &mut Vec<Completion<L>>,
    ) -> io::Result<()> {
        self.counters.turns += 1;
        let before = completions.len();
        let limit = before + self.config.completions_per_turn_max.max(1);
        // Once: a busy turn is no time to allocate. One more is for a wake.
        completions.reserve(limit - before + 1);
        self.buffers.refill();
        self.rearm_starved();
        self.retry_listeners();
        self.arm_wake();
        self.deliver_held(completions, limit);
        self.deliver_sent_files(completions, limit);
        let at_hand = completions.len() > before || self.has_completions();
        self.enter(deadline, at_hand)?;
        self.now = socket::clock();
        if self.signal.take_woken() {
            self.counters.wakes += 1;
            completions.push(Completion::Woken);
        }
        self.reap(completions, limit)?;
        self.counters.completions += (completions.len() - before) as u64;
        Ok(())
    }

    fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    fn waker(&self) -> Waker {
        self.signal.waker()
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn counters(&self) -> &IoCounters {
        &self.counters
    }
}

/// Takes everything back from the kernel before the memory goes. Entries never submitted die with
/// the ring.
impl<L> Drop for Uring<L> {
    fn drop(&mut self) {
        let submitter = self.ring.submitter();
        let patience = Timespec::new().sec(TEARDOWN_S);
        let cancelled = match submitter.register_sync_cancel(Some(patience), CancelBuilder::any()) {
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
            Ok(()) => true,
        };
        if cancelled {
            // SAFETY: `self` is being dropped and nothing below uses the field.
            let buffers = unsafe { ManuallyDrop::take(&mut self.buffers) };
            // A refusal leaves the memory mapped: see `BufRing`.
            let _ = buffers.release(&submitter);
        } else {
            // The kernel still holds something: leak what it may touch rather than free it.
            mem::forget(mem::replace(&mut self.conns, Slots::new(0)));
        }
    }
}

impl<L> fmt::Debug for Uring<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("now", &self.now)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
