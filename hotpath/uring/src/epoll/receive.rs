//! Receiving on epoll: streaming, bounded, and with TLS records by the kernel.
//!
//! A short read of a plain socket says that it is empty, and the next bytes bring a new edge. A read
//! that was bounded, or that stopped at the end of a TLS record, says nothing of the kind: such a
//! socket counts as readable until it answers `EAGAIN`.

use super::{Conn, Epoll, id};
use crate::io::{Completion, ConnId, ReceiveEnd, TlsDirection};
use crate::kernel_tls::{self, Taken, busy, closed};
use crate::receiving::Receiving;
use crate::recv_pool::RecvBuf;
use socket2::SockRef;
use stable_deref_trait::StableDeref;
use std::io::{self, Read};

/// What one receive came to.
enum Outcome {
    Data(RecvBuf),
    Record {
        record_type: u8,
        bytes: Vec<u8>,
    },
    /// Nothing there: an edge will tell.
    Empty,
    /// To be tried again.
    Interrupted,
    /// The peer's new key has to be set first.
    KeyAwaited,
    End(ReceiveEnd),
}

impl<L: StableDeref<Target = [u8]> + 'static> Epoll<L> {
    /// One receive from each ready connection in turn, until none is ready, `limit` is reached or
    /// the buffers are gone.
    pub(super) fn receive(&mut self, completions: &mut Vec<Completion<L>>, limit: usize) {
        while completions.len() < limit
            && let Some(name) = self.ready.pop_front()
        {
            let Some(conn) = self.conns.find(name.0, name.1) else { continue };
            conn.queued = false;
            if !conn.may_receive() {
                continue;
            }
            let room = conn.receiving.room(self.pool.buffer_bytes());
            let mut socket = &*SockRef::from(&conn.fd);
            let received = self.pool.receive_with(|buffer| socket.read(&mut buffer[..room]));
            let Some(received) = received else {
                self.counters.receive_buffers_empty += 1;
                conn.queued = true;
                self.ready.push_front(name);
                return;
            };
            let outcome = match received {
                Ok(Some(data)) => Outcome::Data(data),
                Ok(None) => Outcome::End(ReceiveEnd::Eof),
                Err(error) => on_error(conn, &error),
            };
            completions.extend(self.on_outcome(name, outcome, room));
        }
    }

    fn on_outcome(
        &mut self,
        name: (u32, u32),
        outcome: Outcome,
        room: usize,
    ) -> Option<Completion<L>> {
        let conn = self.conns.find(name.0, name.1)?;
        match outcome {
            Outcome::Data(data) => {
                conn.readable = conn.ended || conn.tls.attached || data.len() == room;
                self.counters.received_bytes += data.len() as u64;
                self.counters.receive_once += u64::from(conn.receiving.on_bytes());
                self.queue_if_ready(name);
                return Some(Completion::Received { conn: id(name), data });
            }
            Outcome::Record { record_type, bytes } => {
                conn.receiving = Receiving::Resting;
                self.counters.tls_records += 1;
                return Some(Completion::TlsRecord { conn: id(name), record_type, bytes });
            }
            Outcome::End(reason) => {
                conn.receive_over = true;
                return Some(Completion::ReceiveEnded { conn: id(name), reason });
            }
            Outcome::Empty => conn.readable = false,
            Outcome::Interrupted => self.queue_if_ready(name),
            Outcome::KeyAwaited => {
                // Not asked again before the key is set: that makes it readable again.
                conn.readable = false;
                conn.tls.awaits_key = true;
            }
        }
        None
    }

    pub(super) fn attach(&mut self, conn: ConnId) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        if found.receiving != Receiving::Resting || found.sent.is_some() {
            return Err(busy());
        }
        found.tls.attach(&found.fd)?;
        // What has arrived is the kernel's to open now; its edge may have been and gone.
        found.readable = true;
        Ok(())
    }

    pub(super) fn set_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        let free = match direction {
            TlsDirection::Send => found.sent.is_none(),
            TlsDirection::Receive => found.receiving == Receiving::Resting || found.tls.awaits_key,
        };
        if !free {
            return Err(busy());
        }
        found.tls.set_keys(&found.fd, direction, crypto_info)?;
        if direction == TlsDirection::Receive {
            found.readable = true;
            self.queue_if_ready((conn.index, conn.generation));
        }
        Ok(())
    }

    pub(super) fn send_record(
        &mut self,
        conn: ConnId,
        record_type: u8,
        bytes: &[u8],
    ) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        if found.sent.is_some() {
            return Err(busy());
        }
        found.tls.send_record(&found.fd, record_type, bytes)
    }
}

fn on_error<L>(conn: &Conn<L>, error: &io::Error) -> Outcome {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::EAGAIN => Outcome::Empty,
        libc::EINTR => Outcome::Interrupted,
        libc::EKEYEXPIRED if conn.tls.attached => Outcome::KeyAwaited,
        // A record that is not data is next.
        libc::EIO if conn.tls.attached => take_record(conn),
        errno => Outcome::End(ReceiveEnd::Error(errno)),
    }
}

fn take_record<L>(conn: &Conn<L>) -> Outcome {
    match kernel_tls::receive_record(&conn.fd) {
        Ok(Taken::Record { record_type, bytes }) => Outcome::Record { record_type, bytes },
        Ok(Taken::Data(bytes)) => Outcome::Data(RecvBuf::from_bytes(bytes)),
        Ok(Taken::Eof) => Outcome::End(ReceiveEnd::Eof),
        Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::EAGAIN => Outcome::Empty,
            libc::EINTR => Outcome::Interrupted,
            libc::EKEYEXPIRED => Outcome::KeyAwaited,
            errno => Outcome::End(ReceiveEnd::Error(errno)),
        },
    }
}
