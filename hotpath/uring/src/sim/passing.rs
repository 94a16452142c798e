//! Sockets that change hands: one `SimIo` stands still and passes them on, another takes them in, as two
//! processes do.
//!
//! ```text
//!   old   freeze ─► duplicate ─► release or thaw       new   freeze ─► adopt ─► thaw, or dropped
//!                       └── a descriptor: a file of memory that says which socket it stands for ──┘
//! ```
//!
//! A descriptor is a real one, so whatever carries descriptors carries these: duplicated, or sent to another
//! process, it stands for the same socket of the same network. A socket has one holder, which is told of what
//! happens to it: who adopts it becomes that with [`thaw`](crate::Io::thaw), not before, and who is dropped
//! before has done nothing to it.

use super::net::{Holder, ListenKey, Phase, SocketKey};
use super::{Conn, Listener, SimIo};
use crate::config::ListenOptions;
use crate::io::{ConnId, ListenerId};
use crate::receiving::Receiving;
use crate::shared_bytes::memory_file;
use stable_deref_trait::StableDeref;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// The kind, then the number, little-endian.
const NAME_BYTES: usize = 9;
const SOCKET: u8 = 1;
const LISTENER: u8 = 2;

/// What a descriptor stands for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Named {
    Socket(SocketKey),
    Listener(ListenKey),
}

/// A descriptor of it.
pub(super) fn descriptor(named: Named) -> io::Result<OwnedFd> {
    let (kind, key) = match named {
        Named::Socket(key) => (SOCKET, key),
        Named::Listener(key) => (LISTENER, key),
    };
    let file = File::from(memory_file(c"simulated socket")?);
    let mut name = [kind; NAME_BYTES];
    name[1..].copy_from_slice(&(key as u64).to_le_bytes());
    file.write_all_at(&name, 0)?;
    Ok(file.into())
}

/// What a descriptor stands for. Any other file is `ENOTSOCK`.
fn named(descriptor: OwnedFd) -> io::Result<Named> {
    let no_socket = || io::Error::from_raw_os_error(libc::ENOTSOCK);
    let mut name = [0; NAME_BYTES];
    File::from(descriptor).read_exact_at(&mut name, 0).map_err(|_| no_socket())?;
    let [kind, key @ ..] = name;
    let key = usize::try_from(u64::from_le_bytes(key)).map_err(|_| no_socket())?;
    match kind {
        SOCKET => Ok(Named::Socket(key)),
        LISTENER => Ok(Named::Listener(key)),
        _ => Err(no_socket()),
    }
}

impl<L: StableDeref<Target = [u8]> + 'static> SimIo<L> {
    /// What a receive has taken before its cancellation reaches it is still delivered.
    pub(super) fn begin_standstill(&mut self) {
        if std::mem::replace(&mut self.frozen, true) {
            return;
        }
        let mut net = self.net.borrow_mut();
        for (_, _, conn) in self.conns.iter_mut() {
            let is_receiving = !conn.paused
                && !conn.receive_over
                && !conn.connecting
                && conn.receiving != Receiving::Resting;
            let rate = net.faults.cancel_lost_permille;
            if is_receiving && net.sockets[conn.socket].data_bytes() > 0 && net.prng.chance(rate) {
                conn.races_freeze = true;
                net.touch(conn.socket);
            }
        }
        net.ports[self.port].ready = true;
    }

    /// A standstill takes nothing for this connection, but for what was taken when it began.
    pub(super) fn holds_back(&mut self, conn: ConnId) -> bool {
        let found = self.conns.find(conn.index, conn.generation);
        self.frozen && !found.is_some_and(|found| std::mem::take(&mut found.races_freeze))
    }

    pub(super) fn end_standstill(&mut self) {
        self.frozen = false;
        let mut net = self.net.borrow_mut();
        for (index, generation, conn) in self.conns.iter_mut() {
            conn.races_freeze = false;
            net.take_hold(conn.socket, Holder::Port { port: self.port, index, generation });
        }
        net.ports[self.port].ready = true;
    }

    /// Takes a connection in; it is touched with the end of the standstill, not before.
    pub(super) fn take_in(
        &mut self,
        socket: OwnedFd,
        first_receive_bytes_max: Option<u32>,
    ) -> io::Result<ConnId> {
        debug_assert!(self.frozen, "sockets change hands at a standstill");
        let Named::Socket(key) = named(socket)? else {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        };
        {
            let net = self.net.borrow();
            let socket = net.sockets.get(key);
            // As getpeername(2): one that was reset has no peer any more.
            let stands = socket.is_some_and(|s| s.phase == Phase::Established && s.error.is_none());
            if !stands {
                return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
            }
        }
        let conn = Conn::new(key, Receiving::begin(first_receive_bytes_max), false);
        let inserted = self.conns.insert(conn);
        let (index, generation) =
            inserted.map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))?;
        self.counters.opened += 1;
        Ok(ConnId { index, generation })
    }

    /// Another goes on with it, or will.
    pub(super) fn let_go_of(&mut self, conn: ConnId) {
        let Some(found) = self.conns.remove(conn.index, conn.generation) else {
            self.counters.stale_calls += 1;
            return;
        };
        debug_assert!(!found.send.is_in_flight(), "nothing is in flight at a standstill");
        self.counters.closed += 1;
        let mut net = self.net.borrow_mut();
        let ConnId { index, generation } = conn;
        if net.sockets[found.socket].holder == (Holder::Port { port: self.port, index, generation })
        {
            net.take_hold(found.socket, Holder::Nobody);
        }
    }

    /// Accepts from a socket that others may accept from, too.
    pub(super) fn share_listener(
        &mut self,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let Named::Listener(key) = named(socket)? else { return Err(invalid()) };
        let mut net = self.net.borrow_mut();
        let port = self.port;
        let listening = net.listening.get_mut(key).filter(|listening| listening.open);
        let listening = listening.ok_or_else(invalid)?;
        listening.ports.push(port);
        let addr = listening.addr;
        let receiving = Receiving::begin(options.first_receive_bytes_max);
        let listener = Listener { key, receiving, resting_until: None };
        match self.listeners.insert(listener) {
            Ok((index, generation)) => Ok((ListenerId { index, generation }, addr)),
            Err(_) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        }
    }
}
