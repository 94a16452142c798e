//! One connection below its session: bytes wait here while a send is out, and TLS is put around them.
//!
//! ```text
//!   session ─► pending ─┬───────────────────────────► send      rtmp
//!                       └─► Secure: records ─► wire ─► send      rtmps
//!   session ◄─ plain ◄──── Secure ◄────────────────── received
//! ```
//!
//! The seam for other transports: what a session wants to send and what a socket gets are the same
//! bytes for plain RTMP; a transport with records or framing of its own stands where [`Secure`] does.
//! At most one send is in flight, as the `Io` demands; all buffers are used again.

use crate::player::Reason;
use crate::secure::Secure;
use uring::{ConnId, Io, SendBuf};

/// The memory of shared sends; there are none here, every send is owned.
pub(crate) type NoLease = Box<[u8]>;

/// Bytes on their way to the server.
#[derive(Debug)]
pub(crate) struct Link {
    conn: ConnId,
    /// When the connect call was made.
    pub(crate) started_ns: u64,
    /// What to send next; actors append to it.
    pub(crate) pending: Vec<u8>,
    /// TLS, where the target has it.
    pub(crate) secure: Option<Box<Secure>>,
    spare: Vec<u8>,
    /// A send is out, or the socket was full and `Writable` is awaited.
    waiting: bool,
    /// Since when the socket has been full.
    blocked_since_ns: Option<u64>,
    /// Most bytes given to one send; for peers that dribble.
    pub(crate) send_bytes_max: usize,
}

impl Link {
    pub(crate) fn new(conn: ConnId, secure: Option<Box<Secure>>, now_ns: u64) -> Link {
        Link {
            conn,
            started_ns: now_ns,
            pending: Vec::new(),
            secure,
            spare: Vec::new(),
            waiting: false,
            blocked_since_ns: None,
            send_bytes_max: usize::MAX,
        }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    /// Sends what is pending unless a send is out.
    ///
    /// # Errors
    /// It could not be encrypted.
    pub(crate) fn flush(&mut self, io: &mut impl Io<Lease = NoLease>) -> Result<(), Reason> {
        if self.waiting {
            return Ok(());
        }
        if let Some(secure) = &mut self.secure {
            secure.seal(&mut self.pending)?;
        }
        let mut bytes = std::mem::take(&mut self.spare);
        let bytes_max = self.send_bytes_max;
        let queue = self.queue();
        if queue.is_empty() {
            self.spare = bytes;
            return Ok(());
        }
        if queue.len() <= bytes_max {
            std::mem::swap(&mut bytes, queue);
        } else {
            bytes.extend(queue.drain(..bytes_max));
        }
        self.waiting = true;
        io.send(self.conn, SendBuf::Owned(bytes));
        Ok(())
    }

    /// The connection is being closed: what is pending goes first, then the goodbye of TLS.
    pub(crate) fn say_goodbye(&mut self) {
        if let Some(secure) = &mut self.secure
            && secure.seal(&mut self.pending).is_ok()
        {
            secure.close();
        }
    }

    /// What goes to the socket.
    fn queue(&mut self) -> &mut Vec<u8> {
        match &mut self.secure {
            Some(secure) => &mut secure.wire,
            None => &mut self.pending,
        }
    }

    /// A send is over. Call `flush` after it.
    pub(crate) fn on_sent(
        &mut self,
        sent: usize,
        blocked: bool,
        buf: SendBuf<NoLease>,
        now_ns: u64,
    ) {
        self.waiting = blocked;
        if blocked {
            self.blocked_since_ns.get_or_insert(now_ns);
        }
        let SendBuf::Owned(mut bytes) = buf else { return };
        if sent < bytes.len() {
            bytes.drain(..sent);
            let queue = self.queue();
            bytes.append(queue);
            std::mem::swap(&mut bytes, queue);
        }
        bytes.clear();
        self.spare = bytes;
    }

    /// There is room again. Call `flush` after it. Returns for how long there was none, as far as
    /// [`Link::take_blocked`] has not told already.
    pub(crate) fn on_writable(&mut self, now_ns: u64) -> u64 {
        self.waiting = false;
        self.blocked_since_ns.take().map_or(0, |since_ns| now_ns.saturating_sub(since_ns))
    }

    /// For how long the socket has been full; counting starts anew.
    pub(crate) fn take_blocked(&mut self, now_ns: u64) -> u64 {
        let since_ns = self.blocked_since_ns.as_mut();
        since_ns.map_or(0, |since_ns| now_ns.saturating_sub(std::mem::replace(since_ns, now_ns)))
    }
}
