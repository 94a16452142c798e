//! The sending side of one connection: bytes wait here while a send is out.
//!
//! The seam for other transports: what a session wants to send and what a socket gets are the same
//! bytes for plain RTMP; a transport with records of its own would put them in between, here and
//! where the shard hands received bytes to the actor. At most one send is in flight, as the `Io`
//! demands; both buffers are used again.

use uring::{ConnId, Io, SendBuf};

/// The memory of shared sends; there are none here, every send is owned.
pub(crate) type NoLease = Box<[u8]>;

/// Bytes on their way to the server.
#[derive(Debug)]
pub(crate) struct Link {
    conn: ConnId,
    /// What to send next; actors append to it.
    pub(crate) pending: Vec<u8>,
    spare: Vec<u8>,
    /// A send is out, or the socket was full and `Writable` is awaited.
    waiting: bool,
    /// Most bytes given to one send; for peers that dribble.
    pub(crate) send_bytes_max: usize,
}

impl Link {
    pub(crate) fn new(conn: ConnId) -> Link {
        let (pending, spare) = (Vec::new(), Vec::new());
        Link { conn, pending, spare, waiting: false, send_bytes_max: usize::MAX }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    /// Sends what is pending unless a send is out.
    pub(crate) fn flush(&mut self, io: &mut impl Io<Lease = NoLease>) {
        if self.waiting || self.pending.is_empty() {
            return;
        }
        self.waiting = true;
        let mut bytes = std::mem::take(&mut self.spare);
        if self.pending.len() <= self.send_bytes_max {
            std::mem::swap(&mut bytes, &mut self.pending);
        } else {
            bytes.extend(self.pending.drain(..self.send_bytes_max));
        }
        io.send(self.conn, SendBuf::Owned(bytes));
    }

    /// A send is over. Call `flush` after it.
    pub(crate) fn on_sent(&mut self, sent: usize, blocked: bool, buf: SendBuf<NoLease>) {
        self.waiting = blocked;
        let SendBuf::Owned(mut bytes) = buf else { return };
        if sent < bytes.len() {
            bytes.drain(..sent);
            bytes.append(&mut self.pending);
            std::mem::swap(&mut bytes, &mut self.pending);
        }
        bytes.clear();
        self.spare = bytes;
    }

    /// There is room again. Call `flush` after it.
    pub(crate) fn on_writable(&mut self) {
        self.waiting = false;
    }
}
