//! One peer's TLS session, server or client, from its first byte until it ends or the kernel takes over.
//!
//! ```text
//!                  hello whole           Finished            close_notify received
//!   Handshaking ─────────────► … ─────────────► Established ──────────────────► PeerClosed
//!        └───────────────────────────┴───────────────┴──► Failed: every further call is refused
//! ```
//!
//! Of the peer's bytes a session keeps one torn record and one torn handshake message, never more, and
//! gives the room back when they are consumed. What it hands out is never longer than what came in, except
//! for the handshake's own answers. The plaintext it appends may be there before the handshake is reported:
//! a client's first application data can arrive in the same input as its `Finished`.
//!
//! A server's session looks at the client hello before the library does (see `hello.rs`), so the library's
//! connection begins its life when the hello is whole.
//!
//! Called by one thread; never reads a clock of its own, never touches a socket.

mod passing;
mod steps;

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError};
use rustls::{AlertDescription, HandshakeKind};

use crate::config::cipher_of;
use crate::crypto_info::{Cipher, Version};
use crate::error::{ErrorKind, Plaintext, Result, TlsError};
use crate::hello::{self, Hello};
use crate::kernel::{self, KernelHandover};
use crate::limits::{
    HELLO_BYTES_MAX, IDLE_BYTES_MAX, RECORD_OVERHEAD_BYTES_MAX, RECORD_PLAIN_BYTES_MAX,
    RECORD_WIRE_BYTES_MAX, SERVER_FLIGHT_BYTES_MAX,
};
use crate::passed::Passed;
use crate::record::RecordCursor;
use steps::{Attempt, Next, append, encrypt_once, push_key_update, turn};

/// Room for what may go ahead of a record: the answer to a `KeyUpdate`, an alert.
const QUEUED_BYTES: usize = 64;
/// First byte of a record that may open a connection.
const RECORD_HANDSHAKE: u8 = 22;
const RECORD_ALERT: u8 = 21;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes of the peer are needed.
    Handshaking,
    /// Data may go both ways.
    Established,
    /// The peer said `close_notify`: nothing more will come from it. We may still send.
    PeerClosed,
}

/// What the handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Protocol version.
    pub version: Version,
    /// Cipher of the records: what a kernel must be able to do to take over.
    pub cipher: Cipher,
    /// Registered name of the suite, for instance `TLS13_AES_128_GCM_SHA256`.
    pub suite: &'static str,
    /// A ticket of an earlier session was accepted.
    pub resumed: bool,
    /// Lower case host name the client asked for; none if it named an address or nothing.
    pub sni: Option<Box<str>>,
    /// Protocol agreed by ALPN.
    pub alpn: Option<Box<str>>,
}

/// State of one peer. See the module for its life.
pub struct Session {
    connection: Connection,
    phase: Phase,
    /// Bytes received and not consumed by the library. While it holds a handshake message in pieces it
    /// must be shown the same bytes again, so nothing but the library's word removes any.
    incoming: Vec<u8>,
    cursor: RecordCursor,
    is_first_byte_seen: bool,
    is_close_sent: bool,
    sni: Option<Box<str>>,
    facts: Option<Box<Facts>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Established,
    PeerClosed,
    Failed,
}

enum Connection {
    /// A server that has not seen the whole client hello.
    Hello(Arc<rustls::ServerConfig>),
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// Established in another process, or about to go to one: the library is out of it.
    Passed(Box<Passed>),
}

/// Runs `$body` with `$status` being what the library says to `$bytes`, whichever side it is.
macro_rules! with_status {
    ($session:expr, $bytes:expr, |$status:ident| $body:expr, hello: $hello:expr) => {
        match &mut $session.connection {
            Connection::Hello(_) | Connection::Passed(_) => $hello,
            Connection::Server(connection) => {
                let $status = connection.process_tls_records($bytes);
                $body
            }
            Connection::Client(connection) => {
                let $status = connection.process_tls_records($bytes);
                $body
            }
        }
    };
}

impl Session {
    /// Bytes held for one peer at most: a torn record and a torn handshake message.
    pub const HELD_BYTES_MAX: usize = RECORD_WIRE_BYTES_MAX + SERVER_FLIGHT_BYTES_MAX;

    /// A server's side; the client speaks first.
    ///
    /// # Errors
    /// None today; the library's own check of the configuration comes with the client hello.
    pub fn server(config: Arc<rustls::ServerConfig>) -> Result<Self> {
        Ok(Self::new(Connection::Hello(config), None))
    }

    /// A client's side that wants to talk to `name`. [`start`](Self::start) gives its first bytes.
    ///
    /// # Errors
    /// `Internal` if the system gives no randomness.
    pub fn client(config: Arc<rustls::ClientConfig>, name: ServerName<'static>) -> Result<Self> {
        let sni = match &name {
            ServerName::DnsName(host) => Some(host.as_ref().to_ascii_lowercase().into()),
            _ => None,
        };
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(Connection::Client(Box::new(connection)), sni))
    }

    fn new(connection: Connection, sni: Option<Box<str>>) -> Self {
        Self {
            connection,
            phase: Phase::Handshaking,
            incoming: Vec::new(),
            cursor: RecordCursor::default(),
            is_first_byte_seen: false,
            is_close_sent: false,
            sni,
            facts: None,
        }
    }

    /// Appends the client hello to `out`. Does nothing for a server or when called again.
    ///
    /// # Errors
    /// `Internal` if the hello cannot be made.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if self.phase != Phase::Handshaking {
            return Ok(());
        }
        let outcome = self.run(0, out, &mut Vec::new());
        self.settle(outcome)
    }

    /// How many bytes the next receive may bring so that it does not cross the end of a record: the rest
    /// of a record's header, else the rest of its payload. Never 0.
    pub fn wanted_bytes(&self) -> usize {
        self.cursor.wanted_bytes()
    }

    /// Whether the peer's bytes so far end with a record and leave no handshake message unfinished.
    pub fn is_at_boundary(&self) -> bool {
        self.cursor.is_at_boundary() && self.incoming.is_empty()
    }

    /// Whether [`into_kernel`](Self::into_kernel) will do, as far as the session can see: what it appended
    /// to `out` must have been sent, too.
    pub fn is_kernel_ready(&self) -> bool {
        self.phase == Phase::Established && !self.is_close_sent && self.is_at_boundary()
    }

    /// Takes all of `input`: any part of a record or any number of them. Appends what must be sent to
    /// `out` and application data to `plain`. Input after the peer's `close_notify` is ignored.
    ///
    /// # Errors
    /// What the peer did wrong, once; `out` then ends with the alert to send before closing, if one is due.
    /// Afterwards every call is refused as `NotReady`.
    pub fn handle_bytes(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Progress> {
        let outcome = match self.phase {
            Phase::Failed => return Err(refused("bytes for a session that has failed")),
            Phase::PeerClosed => return Ok(Progress::PeerClosed),
            Phase::Handshaking | Phase::Established => self.take(input, out, plain),
        };
        self.settle(outcome)?;
        Ok(match self.phase {
            Phase::Handshaking | Phase::Failed => Progress::Handshaking,
            Phase::Established => Progress::Established,
            Phase::PeerClosed => Progress::PeerClosed,
        })
    }

    /// The transport has ended.
    ///
    /// # Errors
    /// `Truncated` unless the peer said `close_notify` before, or nothing at all.
    pub fn handle_end(&mut self) -> Result<()> {
        let is_orderly = self.phase == Phase::PeerClosed || !self.is_first_byte_seen;
        if is_orderly || self.phase == Phase::Failed {
            return Ok(());
        }
        self.settle(Err(TlsError::new(ErrorKind::Truncated)))
    }

    /// What the handshake agreed on, once it is complete.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_deref()
    }

    /// The name the client asks for, as soon as it is known: a server knows it before the handshake is
    /// complete, and also when it fails.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// Appends `plain` to `out` as records, each as full as possible. `plain` may be of any length; nothing
    /// is appended for an empty one. Memory that is shared by many sessions is read once and not kept.
    ///
    /// # Errors
    /// `NotReady` unless established and not closed by us; `KeysExhausted` when TLS 1.2 has used its keys
    /// up (TLS 1.3 changes them by itself): `out` then ends with `close_notify` instead.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.encrypt_at(out.len(), plain, out)
    }

    /// As [`encrypt`](Self::encrypt), over what `room` holds instead of behind it. Whoever seals much hands
    /// in what was sent before: filling it with zeros first was a fourteenth of what a viewer costs.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    pub fn encrypt_over(&mut self, plain: &[u8], room: &mut Vec<u8>) -> Result<()> {
        self.encrypt_at(0, plain, room)
    }

    /// Records of `plain` from `at` on in `out`, which ends with them.
    fn encrypt_at(&mut self, at: usize, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if let Err(error) = self.check_can_send() {
            out.truncate(at);
            return Err(error);
        }
        if let Connection::Passed(passed) = &mut self.connection {
            out.truncate(at);
            let outcome = passed.encrypt(plain, out);
            return self.settle(outcome);
        }
        reach(out, at + Self::encrypted_bytes(plain.len()));
        let mut written = at;
        loop {
            let attempt = with_status!(self, &mut self.incoming, |status| {
                encrypt_once(status, plain, &mut out[written..])
            }, hello: Attempt::Refused);
            match attempt {
                Attempt::Done { bytes } => {
                    out.truncate(written + bytes);
                    return Ok(());
                }
                Attempt::Ahead { bytes } => written += bytes,
                Attempt::Room { bytes } => reach(out, written + bytes),
                Attempt::Exhausted => {
                    out.truncate(written);
                    self.farewell(0, out);
                    return self.settle(Err(TlsError::new(ErrorKind::KeysExhausted)));
                }
                Attempt::Refused => {
                    out.truncate(written);
                    return self.settle(Err(refused("encrypt: the library cannot send now")));
                }
            }
        }
    }

    /// Most bytes [`encrypt`](Self::encrypt) appends for so many bytes, to reserve them. Not counted is the
    /// room of an answer to a `KeyUpdate`, which is rare.
    pub fn encrypted_bytes(plain_bytes: usize) -> usize {
        plain_bytes + plain_bytes.div_ceil(RECORD_PLAIN_BYTES_MAX) * RECORD_OVERHEAD_BYTES_MAX
    }

    /// Appends a `KeyUpdate` that also asks the peer for one, and sends under new keys from then on.
    ///
    /// # Errors
    /// `NotReady` unless established; `Internal` with TLS 1.2, which cannot.
    pub fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.check_can_send()?;
        if let Connection::Passed(passed) = &mut self.connection {
            let outcome = passed.update_keys(out);
            return self.settle(outcome);
        }
        let outcome = with_status!(self, &mut self.incoming, |status| match status.state {
            Ok(ConnectionState::WriteTraffic(traffic)) => traffic.refresh_traffic_keys(),
            _ => Ok(()),
        }, hello: Ok(()));
        outcome?;
        let outcome = self.run(0, out, &mut Vec::new());
        self.settle(outcome)
    }

    /// Appends `close_notify`, once and only if established. Nothing can be encrypted afterwards, but the
    /// peer's bytes are still read.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.check_can_send().is_err() {
            return;
        }
        self.is_close_sent = true;
        if let Connection::Passed(passed) = &mut self.connection {
            passed.close_notify(out);
            return;
        }
        let at = out.len();
        out.resize(at + QUEUED_BYTES, 0);
        let bytes = with_status!(self, &mut self.incoming, |status| match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                match traffic.queue_close_notify(&mut out[at..]) {
                    Err(EncryptError::InsufficientSize(need)) => {
                        out.resize(at + need.required_size, 0);
                        traffic.queue_close_notify(&mut out[at..]).unwrap_or(0)
                    }
                    written => written.unwrap_or(0),
                }
            }
            _ => 0,
        }, hello: 0);
        out.truncate(at + bytes);
    }

    /// Memory of ours that is held for this peer: the session, its buffer, its facts, the library's
    /// connection without what that keeps behind pointers of its own.
    pub fn held_bytes(&self) -> usize {
        let connection_bytes = match &self.connection {
            Connection::Hello(_) => 0,
            Connection::Passed(passed) => size_of_val(&**passed),
            Connection::Server(connection) => size_of_val(&**connection),
            Connection::Client(connection) => size_of_val(&**connection),
        };
        size_of::<Self>()
            + connection_bytes
            + self.incoming.capacity()
            + self.sni.as_deref().map_or(0, str::len)
            + self.facts.as_deref().map_or(0, size_of_val)
    }

    /// Gives the keys away for the kernel; the records are its own from here. To be called when everything
    /// appended to `out` was sent and no receive can still bring bytes.
    ///
    /// # Errors
    /// `NotReady` if [`is_kernel_ready`](Self::is_kernel_ready) is false. The session is gone either way.
    pub fn into_kernel(self) -> Result<KernelHandover> {
        if !self.is_kernel_ready() {
            return Err(refused("hand-over before the session is established and at a boundary")
                .with_sni(self.sni.as_deref()));
        }
        match self.connection {
            Connection::Hello(_) => Err(refused("hand-over before the client hello")),
            Connection::Passed(passed) => Ok(passed.into_kernel()),
            Connection::Server(connection) => kernel::from_server(*connection),
            Connection::Client(connection) => kernel::from_client(*connection),
        }
        .map_err(|error| error.with_sni(self.sni.as_deref()))
    }

    fn check_can_send(&self) -> Result<()> {
        match self.phase {
            Phase::Failed => Err(refused("sending in a session that has failed")),
            _ if self.facts.is_none() => Err(refused("sending before the handshake is complete")),
            _ if self.is_close_sent => Err(refused("sending after close_notify")),
            _ => Ok(()),
        }
    }

    /// Ends the session if `outcome` is an error, and adds the name to it.
    fn settle(&mut self, outcome: Result<()>) -> Result<()> {
        outcome.map_err(|error| {
            self.phase = Phase::Failed;
            self.incoming = Vec::new();
            error.with_sni(self.sni.as_deref())
        })
    }

    fn take(&mut self, input: &[u8], out: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<()> {
        let Some(&first) = input.first() else { return Ok(()) };
        if !self.is_first_byte_seen {
            self.check_first_byte(first)?;
            self.is_first_byte_seen = true;
        }
        let seen = self.cursor.advance(input);
        // Nothing behind an absurd header has a meaning, so the outcome does not depend on segmentation.
        self.incoming.extend_from_slice(&input[..seen.bytes]);
        if matches!(self.connection, Connection::Passed(_)) {
            return self.take_passed(seen.is_absurd, out, plain);
        }
        if let Connection::Hello(config) = &self.connection {
            let config = Arc::clone(config);
            if !self.open_server(config, out)? {
                return Ok(());
            }
        }
        // Also for a torn record: the library refuses a bad header at its first byte.
        self.run(seen.records, out, plain)?;
        if seen.is_absurd && self.phase != Phase::PeerClosed {
            // The library waits for the payload of some records that nobody may send.
            return Err(TlsError::new(ErrorKind::Malformed("record header".into())));
        }
        let bytes_max = match self.connection {
            Connection::Client(_) => Self::HELD_BYTES_MAX,
            _ => RECORD_WIRE_BYTES_MAX + HELLO_BYTES_MAX,
        };
        if self.incoming.len() > bytes_max {
            return Err(TlsError::new(ErrorKind::HeldTooLarge { bytes_max }));
        }
        self.give_room_back();
        Ok(())
    }

    fn give_room_back(&mut self) {
        if self.incoming.is_empty() && self.incoming.capacity() > IDLE_BYTES_MAX {
            self.incoming = Vec::new();
        }
    }

    /// A server expects a handshake record; a client also takes the alert of a server that refuses it.
    fn check_first_byte(&self, first: u8) -> Result<()> {
        const RTMP_VERSION: u8 = 3;
        let is_server = matches!(self.connection, Connection::Hello(_));
        let kind = match first {
            RECORD_HANDSHAKE => return Ok(()),
            RECORD_ALERT if !is_server => return Ok(()),
            RTMP_VERSION => ErrorKind::NotTls(Plaintext::Rtmp),
            b'A'..=b'Z' => ErrorKind::NotTls(Plaintext::Http),
            RECORD_ALERT => ErrorKind::Misbehaved("the connection begins with an alert".into()),
            other => ErrorKind::NotTls(Plaintext::Other(other)),
        };
        Err(TlsError::new(kind))
    }

    /// Makes the library's connection once the hello is whole; `false` while it is not.
    fn open_server(
        &mut self,
        config: Arc<rustls::ServerConfig>,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        let facts = match hello::inspect(&self.incoming, &config.alpn_protocols) {
            Hello::Incomplete => return Ok(false),
            Hello::TooLarge => {
                let alert = u8::from(AlertDescription::DecodeError);
                out.extend_from_slice(&[RECORD_ALERT, 3, 3, 0, 2, 2, alert]);
                return Err(TlsError::new(ErrorKind::HelloTooLarge));
            }
            Hello::Complete(facts) => facts,
        };
        let config = if facts.is_alpn_foreign {
            // RFC 7301 lets a server either refuse such an offer or not know the extension. This client
            // meets a server that does not know it. The copy shares everything behind its pointers.
            let mut without_alpn = rustls::ServerConfig::clone(&config);
            without_alpn.alpn_protocols.clear();
            Arc::new(without_alpn)
        } else {
            config
        };
        self.sni = facts.sni;
        self.connection = Connection::Server(Box::new(UnbufferedServerConnection::new(config)?));
        Ok(true)
    }

    /// Lets the library work until it needs more of the peer's bytes. `records` is how many records ended
    /// in this input.
    fn run(&mut self, records: usize, out: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<()> {
        let mut start = 0;
        let mut data_records = 0;
        let mut is_flushed = false;
        let outcome = loop {
            let turn = with_status!(self, &mut self.incoming[start..], |status| {
                turn(status, out, plain)
            }, hello: return Ok(()));
            start += turn.discard;
            match turn.next {
                Next::Again { data_records: more } => data_records += more,
                Next::Blocked => break Ok(()),
                Next::PeerClosed => {
                    // The last flight and the goodbye may have come in one piece.
                    if self.common().is_some_and(|common| !common.is_handshaking()) {
                        self.establish()?;
                    }
                    self.phase = Phase::PeerClosed;
                    start = self.incoming.len();
                    break Ok(());
                }
                Next::Traffic => {
                    self.establish()?;
                    // Records that brought no data may have asked for an answer to a KeyUpdate, which the
                    // library keeps until it sends something. Waiting would be legal, but after a hand-over
                    // nobody would send it, and the peer could not follow the new keys.
                    let is_tls13 =
                        self.facts.as_ref().is_some_and(|facts| facts.version == Version::Tls13);
                    if is_flushed || data_records >= records || !is_tls13 || self.is_close_sent {
                        break Ok(());
                    }
                    is_flushed = true;
                    with_status!(self, &mut self.incoming[start..], |status| {
                        push_key_update(status);
                    }, hello: ());
                }
                Next::Failed(error) => {
                    self.farewell(start, out);
                    break Err(TlsError::from(error));
                }
            }
        };
        self.incoming.drain(..start);
        outcome
    }

    /// Notes the facts at the first time the library lets data through.
    fn establish(&mut self) -> Result<()> {
        if self.phase != Phase::Handshaking {
            return Ok(());
        }
        let Some(common) = self.common() else { return Ok(()) };
        let version = common.protocol_version().and_then(Version::of);
        let suite = common.negotiated_cipher_suite().map(|suite| suite.suite());
        let (Some(version), Some(suite)) = (version, suite) else {
            return Err(TlsError::new(ErrorKind::Internal("established without a suite".into())));
        };
        let Some(cipher) = cipher_of(suite) else {
            return Err(TlsError::new(ErrorKind::Internal(
                "established with a foreign suite".into(),
            )));
        };
        self.facts = Some(Box::new(Facts {
            version,
            cipher,
            suite: suite.as_str().unwrap_or("unnamed"),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            sni: self.sni.clone(),
            alpn: common.alpn_protocol().map(|alpn| String::from_utf8_lossy(alpn).into()),
        }));
        self.phase = Phase::Established;
        Ok(())
    }

    /// Appends what the library still has to send after it failed: its alert.
    fn farewell(&mut self, start: usize, out: &mut Vec<u8>) {
        // Asked before each piece: with nothing left to send the library would read on, behind an error.
        while self.common().is_some_and(rustls::CommonState::wants_write) {
            let is_sent = with_status!(self, &mut self.incoming[start..], |status| {
                match status.state {
                    Ok(ConnectionState::EncodeTlsData(mut piece)) => {
                        append(out, |room| piece.encode(room));
                        true
                    }
                    _ => false,
                }
            }, hello: false);
            if !is_sent {
                break;
            }
        }
    }

    /// What both sides have in common; none before a server has seen the client hello.
    fn common(&self) -> Option<&rustls::CommonState> {
        match &self.connection {
            Connection::Hello(_) | Connection::Passed(_) => None,
            Connection::Server(connection) => Some(connection),
            Connection::Client(connection) => Some(connection),
        }
    }
}

/// Lengthens `out` to `bytes` unless it is that long.
fn reach(out: &mut Vec<u8>, bytes: usize) {
    if out.len() < bytes {
        out.resize(bytes, 0);
    }
}

fn refused(what: &'static str) -> TlsError {
    TlsError::new(ErrorKind::NotReady(what))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.connection {
            Connection::Hello(_) | Connection::Server(_) => "server",
            Connection::Client(_) => "client",
            Connection::Passed(_) => "passed",
        };
        f.debug_struct("Session")
            .field("side", &side)
            .field("phase", &self.phase)
            .field("sni", &self.sni)
            .field("facts", &self.facts)
            .field("incoming_bytes", &self.incoming.len())
            .finish_non_exhaustive()
    }
}
