//! Connections whose records the kernel seals and opens: what the ring adds to `kernel_tls`.
//!
//! Receiving is the usual multishot. The kernel ends it with `EIO` when a record is next that is not
//! data; one call of ours takes that record, and receiving rests. Order with the bytes around it is
//! the socket's own: the record stays at the head of its queue until it is taken, so while bytes are
//! held back from a pause it is left there, and asked for again behind them.

use super::Uring;
use super::complete::id;
use super::conn::Receive;
use crate::io::{Completion, ConnId, ReceiveEnd, TlsDirection};
use crate::kernel_tls::{self, Taken, busy, closed};
use crate::receiving::Receiving;
use crate::recv_pool::RecvBuf;
use stable_deref_trait::StableDeref;
use std::io;

impl<L: StableDeref<Target = [u8]> + 'static> Uring<L> {
    /// The last completion of a receive said `errno`, which TLS gave a meaning: `None` when it has
    /// none here.
    pub(super) fn on_tls_receive_over(
        &mut self,
        name: (u32, u32),
        errno: i32,
    ) -> Option<Option<Completion<L>>> {
        let conn = self.conns.find(name.0, name.1).filter(|conn| conn.tls.attached)?;
        match errno {
            libc::EIO => {
                conn.receive = Receive::Off;
                // Behind what is held back: `deliver_held` asks for it again.
                let in_turn = !conn.holds();
                Some(if in_turn { self.take_record(name) } else { None })
            }
            libc::EKEYEXPIRED => {
                conn.receive = Receive::Off;
                conn.tls.awaits_key = true;
                Some(None)
            }
            _ => None,
        }
    }

    fn take_record(&mut self, name: (u32, u32)) -> Option<Completion<L>> {
        let conn = self.conns.find(name.0, name.1)?;
        let end = match kernel_tls::receive_record(&conn.fd) {
            Ok(Taken::Record { record_type, bytes }) => {
                conn.receiving = Receiving::Resting;
                self.counters.tls_records += 1;
                return Some(Completion::TlsRecord { conn: id(name), record_type, bytes });
            }
            Ok(Taken::Data(bytes)) => {
                self.counters.received_bytes += bytes.len() as u64;
                self.counters.receive_once += u64::from(conn.receiving.on_bytes());
                self.arm_receive(name);
                let data = RecvBuf::from_bytes(bytes);
                return Some(Completion::Received { conn: id(name), data });
            }
            Ok(Taken::Eof) => ReceiveEnd::Eof,
            Err(error) => match error.raw_os_error().unwrap_or(libc::EIO) {
                libc::EAGAIN | libc::EINTR => {
                    self.counters.receive_rearmed += 1;
                    self.arm_receive(name);
                    return None;
                }
                libc::EKEYEXPIRED => {
                    conn.tls.awaits_key = true;
                    return None;
                }
                errno => ReceiveEnd::Error(errno),
            },
        };
        conn.receive = Receive::Over;
        Some(Completion::ReceiveEnded { conn: id(name), reason: end })
    }

    pub(super) fn attach(&mut self, conn: ConnId) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        if !found.rests() || found.send.is_some() {
            return Err(busy());
        }
        found.tls.attach(&found.fd)
    }

    pub(super) fn set_keys(
        &mut self,
        conn: ConnId,
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        let found = self.find(conn).ok_or_else(closed)?;
        let free = match direction {
            TlsDirection::Send => found.send.is_none(),
            TlsDirection::Receive => found.rests() || found.tls.awaits_key,
        };
        if !free {
            return Err(busy());
        }
        let awaited = found.tls.awaits_key;
        found.tls.set_keys(&found.fd, direction, crypto_info)?;
        if awaited && !found.tls.awaits_key && !found.paused && found.receive == Receive::Off {
            self.counters.receive_rearmed += 1;
            self.arm_receive((conn.index, conn.generation));
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
        if found.send.is_some() {
            return Err(busy());
        }
        found.tls.send_record(&found.fd, record_type, bytes)
    }
}
