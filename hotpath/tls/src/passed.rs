//! Both directions of a session that the library has let go of: records made and opened here, control
//! messages by [`KernelSession`], as where the kernel has the records.
//!
//! Takes whole records out of a buffer of the caller's, appends data and answers. Keeps no bytes of its own.

use rustls::AlertDescription;

use crate::crypto_info::Version;
use crate::error::{ErrorKind, Result, TlsError};
use crate::kernel::{KernelEvent, KernelHandover, KernelSession};
use crate::limits::{RECORD_HEADER_BYTES, RECORD_PLAIN_BYTES_MAX};
use crate::protection::{Protection, RECORD_DATA};

/// Records of a key that are left for a goodbye.
const RECORDS_KEPT: u64 = 2;
/// A whole `KeyUpdate` that asks for one in return (RFC 8446 §4.6.3).
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

/// The two directions.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) send: Protection,
    pub(crate) receive: Protection,
    pub(crate) control: KernelSession,
}

impl Passed {
    /// # Errors
    /// `Internal`: keys the cipher does not take.
    pub(crate) fn new(keys: KernelHandover) -> Result<Self> {
        let KernelHandover { send, receive, session } = keys;
        let (send, receive) = (Protection::new(send)?, Protection::new(receive)?);
        Ok(Self { send, receive, control: session })
    }

    /// Gives the keys away for the kernel.
    pub(crate) fn into_kernel(self) -> KernelHandover {
        let (send, receive) = (self.send.info(), self.receive.info());
        KernelHandover { send, receive, session: self.control }
    }

    /// Takes all whole records out of `incoming`. True once the peer has said `close_notify`; what follows
    /// that is ignored.
    ///
    /// # Errors
    /// What the peer did wrong; `out` ends with the alert.
    pub(crate) fn take(
        &mut self,
        incoming: &mut Vec<u8>,
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut start = 0;
        let outcome = loop {
            let Some(rest) = incoming.get_mut(start..) else { break Ok(false) };
            let Some(&[_, _, _, high, low]) = rest.first_chunk::<RECORD_HEADER_BYTES>() else {
                break Ok(false);
            };
            let bytes = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
            let Some(record) = rest.get_mut(..bytes) else { break Ok(false) };
            start += bytes;
            match self.take_record(record, out, plain) {
                Ok(false) => {}
                over => break over,
            }
        };
        incoming.drain(..start);
        outcome.inspect_err(|error| self.alert(error, out))
    }

    fn take_record(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<bool> {
        let (kind, content) = self.receive.open(record)?;
        if kind == RECORD_DATA {
            plain.extend_from_slice(content);
            self.control.note_received(content.len() as u64);
            return Ok(false);
        }
        match self.control.handle_record(kind, content)? {
            KernelEvent::Ignored => Ok(false),
            KernelEvent::PeerClosed => Ok(true),
            KernelEvent::KeyUpdate { receive, respond } => {
                self.receive = Protection::new(receive)?;
                if respond {
                    self.change_send_key(None, out)?;
                }
                Ok(false)
            }
        }
    }

    /// Appends `plain` as records.
    ///
    /// # Errors
    /// `KeysExhausted`: `out` ends with `close_notify`.
    pub(crate) fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for part in plain.chunks(RECORD_PLAIN_BYTES_MAX) {
            if self.control.needs_rekey() && self.control.version() == Version::Tls13 {
                match self.change_send_key(None, out) {
                    // The last eighth of the present key is left.
                    Err(error) if *error.kind() == ErrorKind::KeysExhausted => {}
                    changed => changed?,
                }
            }
            if self.control.records_left() <= RECORDS_KEPT {
                self.close_notify(out);
                return Err(TlsError::new(ErrorKind::KeysExhausted));
            }
            self.say(RECORD_DATA, part, out)?;
        }
        Ok(())
    }

    /// Changes the sending key and asks the peer to change its own.
    ///
    /// # Errors
    /// `NotReady` with TLS 1.2; `KeysExhausted`.
    pub(crate) fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.change_send_key(Some(&KEY_UPDATE_REQUESTED), out)
    }

    fn change_send_key(&mut self, message: Option<&[u8]>, out: &mut Vec<u8>) -> Result<()> {
        let (announced, keys) = self.control.update_send()?;
        let message = message.unwrap_or(&announced);
        self.send.seal(KernelSession::RECORD_TYPE_HANDSHAKE, message, out)?;
        self.send = Protection::new(keys)?;
        Ok(())
    }

    /// Appends `close_notify`.
    pub(crate) fn close_notify(&mut self, out: &mut Vec<u8>) {
        // A cipher that fails on two bytes has no use for them.
        drop(self.say(KernelSession::RECORD_TYPE_ALERT, &KernelSession::CLOSE_NOTIFY, out));
    }

    /// Appends the alert that belongs to an error.
    pub(crate) fn alert(&mut self, error: &TlsError, out: &mut Vec<u8>) {
        const LEVEL_FATAL: u8 = 2;
        let alert = match error.kind() {
            ErrorKind::KeysExhausted => Some(KernelSession::CLOSE_NOTIFY),
            ErrorKind::Internal(_) => {
                Some([LEVEL_FATAL, u8::from(AlertDescription::InternalError)])
            }
            _ => error.kernel_alert(),
        };
        if let Some(alert) = alert {
            drop(self.say(KernelSession::RECORD_TYPE_ALERT, &alert, out));
        }
    }

    fn say(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.control.note_sent(plain.len() as u64);
        self.send.seal(kind, plain, out)
    }
}
