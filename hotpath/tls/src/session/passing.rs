//! A session on its way to another process and behind it: records over its keys, without the library.

use rustls::AlertDescription;

use super::{Connection, Phase, Session, refused};
use crate::error::{ErrorKind, Result, TlsError};
use crate::kernel::{self, KernelHandover, KernelSession};
use crate::limits::RECORD_WIRE_BYTES_MAX;
use crate::passed::Passed;
use crate::portable::{FactsRecord, Secret, SessionRecord, unfit};
use crate::record::RecordCursor;
use crate::session::Facts;

impl Session {
    /// Whether [`into_record`](Self::into_record) will do: established, and of the peer's bytes nothing is
    /// held but the beginning of a record. A handshake message that has come in part lies in the library.
    pub fn is_portable(&self) -> bool {
        self.phase == Phase::Established
            && !self.is_close_sent
            && self.incoming.len() == self.cursor.torn_bytes()
    }

    /// The session as a record for another process, and as it goes on here if that does not take it. Both
    /// have the same keys: one of them must not be used. What was appended to `out` before must be sent
    /// first.
    ///
    /// # Errors
    /// `NotReady` if [`is_portable`](Self::is_portable) is false. The session is gone then.
    pub fn into_record(self) -> Result<(Self, SessionRecord)> {
        let Some(facts) = self.facts.as_deref().filter(|_| self.is_portable()) else {
            return Err(refused("passing on before the session is established and at rest"));
        };
        let facts_record = FactsRecord::from(facts);
        let mut passed = match self.connection {
            Connection::Hello(_) => return Err(refused("passing on before the client hello")),
            Connection::Passed(passed) => passed,
            Connection::Server(connection) => {
                Box::new(Passed::new(kernel::from_server(*connection)?)?)
            }
            Connection::Client(connection) => {
                Box::new(Passed::new(kernel::from_client(*connection)?)?)
            }
        };
        let record = SessionRecord {
            facts: facts_record,
            send: Secret::of(&passed.send.info()),
            receive: Secret::of(&passed.receive.info()),
            control: passed.control.to_record()?,
            incoming: self.incoming.clone(),
        };
        Ok((Self { connection: Connection::Passed(passed), ..self }, record))
    }

    /// The session of a record.
    ///
    /// # Errors
    /// `Internal`: its parts do not fit together.
    pub fn from_record(record: &SessionRecord) -> Result<Self> {
        let facts = Facts::try_from(&record.facts)?;
        let (send, receive) = (record.send.keys_of(&facts)?, record.receive.keys_of(&facts)?);
        let session = KernelSession::from_record(&record.control, &facts)?;
        let passed = Passed::new(KernelHandover { send, receive, session })?;
        let mut cursor = RecordCursor::default();
        let seen = cursor.advance(&record.incoming);
        if seen.records > 0 || seen.is_absurd || record.incoming.len() > RECORD_WIRE_BYTES_MAX {
            return Err(unfit("more than the beginning of a record"));
        }
        Ok(Self {
            phase: Phase::Established,
            incoming: record.incoming.clone(),
            cursor,
            is_first_byte_seen: true,
            facts: Some(Box::new(facts.clone())),
            ..Self::new(Connection::Passed(Box::new(passed)), facts.sni)
        })
    }

    /// Whole records of the peer.
    pub(super) fn take_passed(
        &mut self,
        is_absurd: bool,
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<()> {
        let Connection::Passed(passed) = &mut self.connection else { return Ok(()) };
        if passed.take(&mut self.incoming, out, plain)? {
            self.phase = Phase::PeerClosed;
            self.incoming.clear();
        } else if is_absurd {
            let error = TlsError::new(ErrorKind::Malformed("record header".into()))
                .with_alert(AlertDescription::DecodeError);
            passed.alert(&error, out);
            return Err(error);
        }
        self.give_room_back();
        Ok(())
    }
}
