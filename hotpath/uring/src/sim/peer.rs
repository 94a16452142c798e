//! The test's end of simulated connections.

use super::net::{Holder, ListenKey, Net, Phase, SocketKey};
use crate::io::Nanos;
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

/// One end of a connection in the hands of the test. Not reading is stalling: the other end then
/// fills the bounded space between the two and finds its socket full. Dropping it closes it.
pub struct SimPeer {
    net: Rc<RefCell<Net>>,
    socket: SocketKey,
    stalled: bool,
}

impl SimPeer {
    pub(super) fn new(net: Rc<RefCell<Net>>, socket: SocketKey) -> SimPeer {
        SimPeer { net, socket, stalled: false }
    }

    /// This end's address: what the other side's `Accepted` calls `peer`.
    pub fn local_addr(&self) -> SocketAddr {
        self.net.borrow().sockets[self.socket].local
    }

    /// The other end's address: where this end connected to, or who connected here.
    pub fn peer_addr(&self) -> SocketAddr {
        self.net.borrow().sockets[self.socket].remote
    }

    /// The connection stands (and may have broken since: see [`SimPeer::error`]).
    pub fn is_connected(&self) -> bool {
        self.net.borrow().sockets[self.socket].phase == Phase::Established
    }

    /// Sends what fits of `bytes` and returns how many that were: 0 before the connection stands,
    /// after it broke, and when the space is full.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.net.borrow_mut().send(self.socket, bytes).unwrap_or(0)
    }

    /// Takes up to `bytes_max` bytes that have arrived, not beyond a TLS record that is not data;
    /// none while stalled.
    pub fn read(&mut self, bytes_max: usize) -> Vec<u8> {
        if self.stalled {
            return Vec::new();
        }
        let mut net = self.net.borrow_mut();
        let mut bytes = vec![0; bytes_max.min(net.sockets[self.socket].data_bytes())];
        net.receive(self.socket, &mut bytes);
        bytes
    }

    /// Sends a TLS record that is not data, in order with what is written. `false` when the
    /// connection does not stand or broke.
    pub fn write_tls_record(&mut self, record_type: u8, bytes: &[u8]) -> bool {
        self.net.borrow_mut().send_record(self.socket, record_type, bytes).is_ok()
    }

    /// Takes the TLS record that is next, its type and content; `None` while data comes first, when
    /// there is none, and while stalled.
    pub fn read_tls_record(&mut self) -> Option<(u8, Vec<u8>)> {
        if self.stalled {
            return None;
        }
        let record = self.net.borrow_mut().sockets[self.socket].take_record()?;
        Some((record.record_type, record.bytes))
    }

    /// Bytes that have arrived and were not read.
    pub fn readable_bytes(&self) -> usize {
        self.net.borrow().sockets[self.socket].inbox.len()
    }

    /// `true`: [`SimPeer::read`] returns nothing until told otherwise, as a frozen player would.
    pub fn set_stalled(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// The other end has finished sending, and all of it has been read here.
    pub fn is_eof(&self) -> bool {
        let net = self.net.borrow();
        let socket = &net.sockets[self.socket];
        socket.eof && socket.inbox.is_empty() && socket.records.is_empty()
    }

    /// The errno that broke or refused the connection.
    pub fn error(&self) -> Option<i32> {
        let net = self.net.borrow();
        let socket = &net.sockets[self.socket];
        match socket.phase {
            Phase::Refused(errno) => Some(errno),
            _ => socket.error,
        }
    }

    /// Sends FIN; reading goes on.
    pub fn shutdown_write(&mut self) {
        self.net.borrow_mut().shutdown_write(self.socket);
    }

    /// Ends with a reset instead of FIN.
    pub fn reset(self) {
        self.net.borrow_mut().reset(self.socket);
    }

    /// Ends in the usual way; the same as dropping it.
    pub fn close(self) {}
}

impl Drop for SimPeer {
    fn drop(&mut self) {
        self.net.borrow_mut().close(self.socket);
    }
}

impl fmt::Debug for SimPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPeer").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// A listener in the hands of the test, for what a worker connects to.
pub struct SimListener {
    net: Rc<RefCell<Net>>,
    key: ListenKey,
}

impl SimListener {
    pub(super) fn new(net: Rc<RefCell<Net>>, key: ListenKey) -> SimListener {
        SimListener { net, key }
    }

    /// The address bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.net.borrow().listening[self.key].addr
    }

    /// The next connection that has come in.
    pub fn accept(&mut self) -> Option<SimPeer> {
        let mut net = self.net.borrow_mut();
        let socket = net.listening[self.key].backlog.pop_front()?;
        net.sockets[socket].holder = Holder::Test;
        drop(net);
        Some(SimPeer::new(Rc::clone(&self.net), socket))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.net.borrow_mut().close_listener(self.key, None);
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("listening", &self.key).finish_non_exhaustive()
    }
}

/// A simulated network and its clock. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimNet {
    pub(super) net: Rc<RefCell<Net>>,
}

impl SimNet {
    /// An empty network. Equal seeds, faults and calls give equal runs.
    pub fn new(seed: u64, faults: super::Faults) -> SimNet {
        SimNet { net: Rc::new(RefCell::new(Net::new(seed, faults))) }
    }

    /// The virtual time.
    pub fn now(&self) -> Nanos {
        self.net.borrow().now
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: super::Faults) {
        self.net.borrow_mut().faults = faults;
    }

    /// Moves the clock to the next arrival or the earliest deadline of a waiting turn, unless some
    /// `SimIo` has something ready now. Call it after every `SimIo` has had its turn. `false`: all
    /// is at rest and will stay so.
    pub fn advance_to_next_event(&self) -> bool {
        self.net.borrow_mut().advance()
    }

    /// Moves the clock by `span`; everything due on the way happens.
    pub fn advance_by(&self, span: Nanos) {
        let mut net = self.net.borrow_mut();
        let at = net.now.saturating_add(span);
        net.move_to(at);
    }

    /// Starts a connection from the test to `addr`.
    pub fn connect(&self, addr: SocketAddr) -> SimPeer {
        let socket = self.net.borrow_mut().connect(None, addr, Holder::Test);
        SimPeer::new(Rc::clone(&self.net), socket)
    }

    /// Listens in the test's name (port 0 lets the network choose).
    ///
    /// # Errors
    /// The address is taken.
    pub fn listen(&self, addr: SocketAddr) -> std::io::Result<SimListener> {
        let key = self.net.borrow_mut().listen(addr, None, false, usize::MAX);
        let key = key.map_err(std::io::Error::from_raw_os_error)?;
        Ok(SimListener::new(Rc::clone(&self.net), key))
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNet").field("now", &self.net.borrow().now).finish_non_exhaustive()
    }
}
