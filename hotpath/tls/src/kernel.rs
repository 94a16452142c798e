//! What is left of a session when the kernel has its records: control records, new keys, counting.
//!
//! The kernel encrypts and decrypts application data by itself. Everything else comes to [`KernelSession`]
//! as a record type and its decrypted payload, one record at a time.
//!
//! ```text
//!   21 alert       close_notify ─► PeerClosed      fatal ─► Err(AlertReceived)
//!   22 handshake   KeyUpdate    ─► KeyUpdate{receive, respond}   NewSessionTicket ─► Ignored (remembered)
//!   20, others     ─► Err(Misbehaved)
//! ```
//!
//! Nobody but us counts records under one key: the kernel would go on past the limit of the cipher. The
//! worker tells what it sent ([`KernelSession::note_sent`]) and asks [`KernelSession::needs_rekey`]. With
//! TLS 1.3 and a kernel that can, [`KernelSession::update_send`] gives new keys; otherwise the connection
//! is closed in order and the player comes back.
//!
//! Never sends, never calls the kernel; secrets leave it as [`CryptoInfo`] only.

use std::collections::VecDeque;
use std::fmt;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion,
    SupportedCipherSuite,
};

use crate::config::suite_named;
use crate::crypto_info::{CryptoInfo, Direction, Version};
use crate::error::{ErrorKind, Result, TlsError};
use crate::limits::{
    KERNEL_EVENTS_MAX, KERNEL_MESSAGE_BYTES_MAX, KEY_UPDATE_EARNED_BYTES, KEY_UPDATES_MAX,
    KEYS_AHEAD, RECORD_PLAIN_BYTES_MAX,
};
use crate::portable::{ControlRecord, Secret};
use crate::session::Facts;

const RECORD_ALERT: u8 = 21;
const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_NEW_SESSION_TICKET: u8 = 4;
const MESSAGE_KEY_UPDATE: u8 = 24;
const MESSAGE_HEADER_BYTES: usize = 4;
/// A whole `KeyUpdate` that asks for nothing in return (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 5] = [MESSAGE_KEY_UPDATE, 0, 0, 1, 0];

/// Everything the kernel and the worker need to go on with an established session.
#[derive(Debug)]
pub struct KernelHandover {
    /// Keys for what we send (`TLS_TX`).
    pub send: CryptoInfo,
    /// Keys for what we receive (`TLS_RX`).
    pub receive: CryptoInfo,
    /// What remains ours.
    pub session: KernelSession,
}

/// What a control record means to the worker.
#[derive(Debug)]
pub enum KernelEvent {
    /// `close_notify`: no more data will come. Sending is still allowed.
    PeerClosed,
    /// The peer has changed its keys: nothing can be received until `receive` is installed (`TLS_RX`). A
    /// kernel that refuses it (EBUSY) cannot go on with this connection: close it in order.
    KeyUpdate {
        /// Keys of the peer from here on.
        receive: CryptoInfo,
        /// The peer wants ours changed too: [`KernelSession::update_send`] before more data is sent.
        respond: bool,
    },
    /// Nothing to do.
    Ignored,
}

/// State of a session whose records are the kernel's.
pub struct KernelSession {
    connection: Connection,
    version: Version,
    /// Handshake message that came in pieces.
    message: Vec<u8>,
    key_updates_left: u32,
    events_left: u32,
    received_bytes: u64,
    records_sent: u64,
    records_max: u64,
}

enum Connection {
    Server(Box<KernelConnection<ServerConnectionData>>),
    Client(Box<KernelConnection<ClientConnectionData>>),
    /// In another process than the handshake: the secrets that keys are derived from stayed there.
    Passed(Box<KeyList>),
}

/// The next keys of both directions, as far as they were derived ahead.
#[derive(Debug)]
struct KeyList {
    is_client: bool,
    send: VecDeque<CryptoInfo>,
    receive: VecDeque<CryptoInfo>,
}

pub(crate) fn from_server(connection: UnbufferedServerConnection) -> Result<KernelHandover> {
    let (secrets, rest) = connection.dangerous_into_kernel_connection()?;
    let (version, suite) = (rest.protocol_version(), rest.negotiated_cipher_suite());
    hand_over(&secrets, Connection::Server(Box::new(rest)), version, suite)
}

pub(crate) fn from_client(connection: UnbufferedClientConnection) -> Result<KernelHandover> {
    let (secrets, rest) = connection.dangerous_into_kernel_connection()?;
    let (version, suite) = (rest.protocol_version(), rest.negotiated_cipher_suite());
    hand_over(&secrets, Connection::Client(Box::new(rest)), version, suite)
}

fn hand_over(
    secrets: &ExtractedSecrets,
    connection: Connection,
    version: ProtocolVersion,
    suite: SupportedCipherSuite,
) -> Result<KernelHandover> {
    let Some(version) = Version::of(version) else {
        return Err(TlsError::new(ErrorKind::Internal("established without a version".into())));
    };
    let (sent, send) = &secrets.tx;
    let (received, receive) = &secrets.rx;
    let records_max = records_max(suite);
    Ok(KernelHandover {
        send: CryptoInfo::new(version, Direction::Send, *sent, send)?,
        receive: CryptoInfo::new(version, Direction::Receive, *received, receive)?,
        session: KernelSession {
            connection,
            version,
            message: Vec::new(),
            key_updates_left: KEY_UPDATES_MAX,
            events_left: KERNEL_EVENTS_MAX,
            received_bytes: 0,
            records_sent: *sent,
            records_max,
        },
    })
}

/// Records that may be sent under one key.
fn records_max(suite: SupportedCipherSuite) -> u64 {
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

impl KernelSession {
    /// Record type of what [`update_send`](Self::update_send) gives.
    pub const RECORD_TYPE_HANDSHAKE: u8 = RECORD_HANDSHAKE;
    /// Record type of alerts: [`CLOSE_NOTIFY`](Self::CLOSE_NOTIFY), [`TlsError::kernel_alert`].
    pub const RECORD_TYPE_ALERT: u8 = RECORD_ALERT;
    /// Payload of the alert that ends our direction in order: level warning, `close_notify`.
    pub const CLOSE_NOTIFY: [u8; 2] = [1, 0];

    /// Takes the decrypted payload of one control record.
    ///
    /// # Errors
    /// `AlertReceived`, `Malformed` or `Misbehaved`: close, after sending [`TlsError::kernel_alert`] if it
    /// has one.
    pub fn handle_record(&mut self, record_type: u8, bytes: &[u8]) -> Result<KernelEvent> {
        match record_type {
            RECORD_ALERT => self.handle_alert(bytes),
            RECORD_HANDSHAKE if self.version == Version::Tls13 => self.handle_handshake(bytes),
            RECORD_HANDSHAKE => Err(misbehaved("renegotiation", AlertDescription::NoRenegotiation)),
            other => Err(misbehaved(
                &format!("record of type {other} among the data"),
                AlertDescription::UnexpectedMessage,
            )),
        }
    }

    /// New keys for our direction, and the `KeyUpdate` that announces them: send it as a record of type
    /// [`RECORD_TYPE_HANDSHAKE`](Self::RECORD_TYPE_HANDSHAKE) under the old keys, then install the new ones
    /// (`TLS_TX`), then send on. Starts the count of records anew.
    ///
    /// # Errors
    /// `NotReady` with TLS 1.2, which has no such thing: close instead.
    pub fn update_send(&mut self) -> Result<(Vec<u8>, CryptoInfo)> {
        if self.version == Version::Tls12 {
            return Err(TlsError::new(ErrorKind::NotReady("new keys in TLS 1.2")));
        }
        let info = self.next_keys(Direction::Send)?;
        self.records_sent = 0;
        Ok((KEY_UPDATE.to_vec(), info))
    }

    /// One send of so many plaintext bytes was given to the kernel, which makes a record of each 16 KiB.
    /// Counts an empty one as a record, too.
    pub fn note_sent(&mut self, bytes: u64) {
        let records = bytes.div_ceil(RECORD_PLAIN_BYTES_MAX as u64).max(1);
        self.records_sent = self.records_sent.saturating_add(records);
    }

    /// So much application data was received: it earns the peer another `KeyUpdate` now and then. Data that
    /// is never reported leaves the peer with 32 of them for its whole life, which is plenty.
    pub fn note_received(&mut self, bytes: u64) {
        let before = self.received_bytes / KEY_UPDATE_EARNED_BYTES;
        self.received_bytes = self.received_bytes.wrapping_add(bytes);
        if self.received_bytes / KEY_UPDATE_EARNED_BYTES != before {
            self.key_updates_left = (self.key_updates_left + 1).min(KEY_UPDATES_MAX);
        }
    }

    /// Records that may still be sent under the present keys; `u64::MAX` minus those sent for `ChaCha20`.
    pub fn records_left(&self) -> u64 {
        self.records_max.saturating_sub(self.records_sent)
    }

    /// Seven eighths of the keys' records are used: change them, or close in order. The last eighth is more
    /// than half an hour at a thousand records per second.
    pub fn needs_rekey(&self) -> bool {
        self.records_left() <= self.records_max / 8
    }

    /// Version of the session: only TLS 1.3 can change keys.
    pub fn version(&self) -> Version {
        self.version
    }

    fn handle_alert(&mut self, bytes: &[u8]) -> Result<KernelEvent> {
        const LEVEL_WARNING: u8 = 1;
        let &[level, description] = bytes else {
            return Err(malformed("an alert has two bytes"));
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(KernelEvent::PeerClosed),
            AlertDescription::UserCanceled => self.ignore(),
            _ if self.version == Version::Tls12 && level == LEVEL_WARNING => self.ignore(),
            _ => Err(TlsError::new(ErrorKind::AlertReceived(description))),
        }
    }

    /// Handshake messages of TLS 1.3: whole, several in a record, or one over several records.
    fn handle_handshake(&mut self, bytes: &[u8]) -> Result<KernelEvent> {
        if bytes.is_empty() {
            return Err(malformed("an empty handshake record"));
        }
        self.message.extend_from_slice(bytes);
        let mut event = None;
        while let Some((&[kind, a, b, c], rest)) = self.message.split_first_chunk() {
            let body_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
            if body_bytes > KERNEL_MESSAGE_BYTES_MAX {
                return Err(malformed("a handshake message of more than a ticket's size"));
            }
            if rest.len() < body_bytes {
                break;
            }
            let end = MESSAGE_HEADER_BYTES + body_bytes;
            let body = self.message[MESSAGE_HEADER_BYTES..end].to_vec();
            self.message.drain(..end);
            event = Some(self.handle_message(kind, &body)?);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        event.map_or_else(|| self.ignore(), Ok)
    }

    fn handle_message(&mut self, kind: u8, body: &[u8]) -> Result<KernelEvent> {
        match (kind, body, &mut self.connection) {
            (MESSAGE_KEY_UPDATE, &[request @ (0 | 1)], _) => {
                // The keys change behind this message, so a record that goes on after it is forged or broken.
                if !self.message.is_empty() {
                    return Err(misbehaved(
                        "a message after KeyUpdate in one record",
                        AlertDescription::UnexpectedMessage,
                    ));
                }
                self.key_updates_left = self.key_updates_left.checked_sub(1).ok_or_else(|| {
                    misbehaved("too many KeyUpdates", AlertDescription::UnexpectedMessage)
                })?;
                let receive = self.next_keys(Direction::Receive)?;
                Ok(KernelEvent::KeyUpdate { receive, respond: request == 1 })
            }
            (MESSAGE_KEY_UPDATE, ..) => {
                Err(malformed("KeyUpdate").with_alert(AlertDescription::IllegalParameter))
            }
            // Where the tickets are kept is another process.
            (MESSAGE_NEW_SESSION_TICKET, _, Connection::Passed(list)) if list.is_client => {
                self.ignore()
            }
            (MESSAGE_NEW_SESSION_TICKET, body, Connection::Client(connection)) => {
                connection.handle_new_session_ticket(body).map_err(|error| {
                    TlsError::from(error).with_alert(AlertDescription::DecodeError)
                })?;
                self.ignore()
            }
            (other, ..) => Err(misbehaved(
                &format!("handshake message {other} after the handshake"),
                AlertDescription::UnexpectedMessage,
            )),
        }
    }

    /// Harmless, and limited all the same: a peer that sends nothing else is not harmless.
    fn ignore(&mut self) -> Result<KernelEvent> {
        match self.events_left.checked_sub(1) {
            Some(left) => {
                self.events_left = left;
                Ok(KernelEvent::Ignored)
            }
            None => {
                Err(misbehaved("too many control records", AlertDescription::UnexpectedMessage))
            }
        }
    }

    /// Derives the next keys ahead and lets go of the secrets they come from, so that what is left can be
    /// written down. TLS 1.2 has no next keys.
    ///
    /// # Errors
    /// The library's.
    fn list_keys(&mut self) -> Result<()> {
        let is_client = match &self.connection {
            Connection::Passed(_) => return Ok(()),
            Connection::Client(_) => true,
            Connection::Server(_) => false,
        };
        let (mut send, mut receive) = (VecDeque::new(), VecDeque::new());
        if self.version == Version::Tls13 {
            for _ in 0..KEYS_AHEAD {
                send.push_back(self.next_keys(Direction::Send)?);
                receive.push_back(self.next_keys(Direction::Receive)?);
            }
        }
        self.connection = Connection::Passed(Box::new(KeyList { is_client, send, receive }));
        Ok(())
    }

    /// What goes to another process. This session goes on as before, but for the number of times it can
    /// change its keys.
    ///
    /// # Errors
    /// The library's, while it derives keys.
    pub fn to_record(&mut self) -> Result<ControlRecord> {
        self.list_keys()?;
        let secrets = |keys: &VecDeque<CryptoInfo>| keys.iter().map(Secret::of).collect();
        let (is_client, next_send, next_receive) = match &self.connection {
            Connection::Passed(list) => {
                (list.is_client, secrets(&list.send), secrets(&list.receive))
            }
            Connection::Client(_) | Connection::Server(_) => (false, Vec::new(), Vec::new()),
        };
        Ok(ControlRecord {
            is_client,
            message: self.message.clone(),
            key_updates_left: self.key_updates_left,
            events_left: self.events_left,
            received_bytes: self.received_bytes,
            records_sent: self.records_sent,
            next_send,
            next_receive,
        })
    }

    /// The session of a record, of the handshake that `facts` tell of.
    ///
    /// # Errors
    /// `Internal`: keys of another cipher, or more of them than are ever written down.
    pub fn from_record(record: &ControlRecord, facts: &Facts) -> Result<Self> {
        let keys = |secrets: &[Secret]| {
            let keys = secrets.iter().take(KEYS_AHEAD).map(|secret| secret.keys_of(facts));
            keys.collect::<Result<VecDeque<_>>>()
        };
        let list = KeyList {
            is_client: record.is_client,
            send: keys(&record.next_send)?,
            receive: keys(&record.next_receive)?,
        };
        if record.message.len() > KERNEL_MESSAGE_BYTES_MAX + MESSAGE_HEADER_BYTES {
            return Err(TlsError::new(ErrorKind::Internal("a message longer than any".into())));
        }
        Ok(Self {
            connection: Connection::Passed(Box::new(list)),
            version: facts.version,
            message: record.message.clone(),
            key_updates_left: record.key_updates_left.min(KEY_UPDATES_MAX),
            events_left: record.events_left.min(KERNEL_EVENTS_MAX),
            received_bytes: record.received_bytes,
            records_sent: record.records_sent,
            records_max: suite_named(facts.suite).map_or(0, records_max),
        })
    }

    fn next_keys(&mut self, direction: Direction) -> Result<CryptoInfo> {
        let (number, secrets): (u64, ConnectionTrafficSecrets) =
            match (&mut self.connection, direction) {
                (Connection::Passed(list), direction) => {
                    let keys = match direction {
                        Direction::Send => &mut list.send,
                        Direction::Receive => &mut list.receive,
                    };
                    return keys.pop_front().ok_or(TlsError::new(ErrorKind::KeysExhausted));
                }
                (Connection::Server(c), Direction::Send) => c.update_tx_secret(),
                (Connection::Server(c), Direction::Receive) => c.update_rx_secret(),
                (Connection::Client(c), Direction::Send) => c.update_tx_secret(),
                (Connection::Client(c), Direction::Receive) => c.update_rx_secret(),
            }?;
        CryptoInfo::new(self.version, direction, number, &secrets)
    }
}

fn malformed(what: &str) -> TlsError {
    TlsError::new(ErrorKind::Malformed(what.into())).with_alert(AlertDescription::DecodeError)
}

fn misbehaved(what: &str, alert: AlertDescription) -> TlsError {
    TlsError::new(ErrorKind::Misbehaved(what.into())).with_alert(alert)
}

impl fmt::Debug for KernelSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSession")
            .field("version", &self.version)
            .field("records_sent", &self.records_sent)
            .field("records_max", &self.records_max)
            .finish_non_exhaustive()
    }
}
