//! The front door and TLS on the worker: first bytes, handshakes, records, the kernel's records.
//!
//! A handshake is read record by record (`Io::receive_once`), so that no byte behind it is taken from the
//! kernel before the keys are there; everything else is driven by the same completions as plain RTMP.
//! Nothing here waits: a handshake costs its share of CPU in the turn its bytes arrive, and that is all.
//!
//! RFC 8446 (TLS 1.3), RFC 5246 (1.2); kernel side: Documentation/networking/tls.rst.

use std::net::SocketAddr;

use uring::{FeatureState, Io, SendBuf, TlsDirection};

use super::Worker;
use crate::connection::{Sealing, Sending};
use crate::front::{FrontDoor, Protocol, Step};
use crate::metrics::{CloseReason, LimitReached, TlsHandshake, TlsMode};
use crate::transport::{Handshake, Kernel, SEAL_BYTES_MAX, Secure, Transport};

/// Record type of a TLS alert.
const ALERT: u8 = 21;
/// Record type of a handshake message.
const HANDSHAKE: u8 = 22;
/// Sealed bytes that may wait for one peer: a handshake flight with the longest of chains, or thousands
/// of answers to key updates.
const SEALED_BYTES_MAX: usize = 128 * 1024;
/// Alert `close_notify`, level warning.
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// A record with the fatal alert `handshake_failure` (RFC 8446 §6.2), for where no TLS is served.
const NO_CERTIFICATE: [u8; 7] = [ALERT, 3, 3, 0, 2, 2, 40];

/// The answer to HTTP where none is served.
const NO_HTTP: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 37\r\n\
    Connection: close\r\n\r\nThis address serves RTMP, not HTTP.\r\n";

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// The first bytes of a connection, and what a proxy says of it.
    pub(super) fn on_opening(&mut self, index: usize, data: &[u8]) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Transport::Opening(door) = &mut connection.transport else { return };
        let step = door.handle_bytes(data);
        // As soon as it is known: a client that says no more is still not its proxy.
        if let Some(client) = door.client()
            && connection.proxy.is_none()
            && !self.speak_for(index, client)
        {
            return;
        }
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        match step {
            Err(bad) => {
                if self.error_lines.allow(self.now.0) {
                    tracing::warn!(event = "proxy_header", peer = %connection.peer, error = %bad);
                }
                self.port.metrics().protocol_errors.increment("proxy_header");
                self.abandon(index, CloseReason::ProtocolError);
            }
            Ok(Step::More(bytes)) => {
                if connection.is_read_by_record {
                    self.io.receive_once(connection.conn, clamp(bytes));
                }
            }
            Ok(Step::Decided { protocol, rest }) => {
                // A trusted peer that spoke for nobody is a client like any other.
                let peer = connection.peer;
                if connection.proxy.is_some()
                    || !self.settings.trusts_proxy(peer.ip())
                    || self.count_as(index, peer)
                {
                    self.enter(index, protocol, &rest);
                }
            }
        }
    }

    /// A trusted proxy speaks for `client`: limits, access and logs see that address from now on.
    pub(super) fn speak_for(&mut self, index: usize, client: SocketAddr) -> bool {
        let Some(connection) = self.connection(index) else { return false };
        connection.proxy = Some(Box::new(connection.peer));
        self.count_as(index, client)
    }

    /// Counts a connection for another address than so far, or for the same one under its limit. False if
    /// that address has as many as it may have: the connection is closed.
    fn count_as(&mut self, index: usize, client: SocketAddr) -> bool {
        let limits = self.settings.limits();
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let addresses = &self.shared.addresses;
        addresses.release(connection.peer.ip());
        connection.peer = client;
        let max = limits.connections_per_address_max;
        match addresses.admit(client.ip(), limits.connections_max, max) {
            Ok(()) => true,
            Err(too_many) => {
                connection.is_admitted = false;
                let reason = self.note_too_many(too_many);
                self.abandon(index, reason);
                false
            }
        }
    }

    fn enter(&mut self, index: usize, protocol: Protocol, rest: &[u8]) {
        let now = self.now.0;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        match protocol {
            Protocol::Tls => {
                let Some(secure) = &self.secure else {
                    if self.error_lines.allow(now) {
                        tracing::warn!(event = "tls_error", conn = %connection.id,
                            peer = %connection.peer, class = "no_certificate",
                            "a TLS client came, and no certificate is configured (tls.dir)");
                    }
                    self.port.metrics().tls_errors.increment("no_certificate");
                    connection.transport = Transport::Plain;
                    connection.output.rest = Some(NO_CERTIFICATE.to_vec());
                    self.close(index, CloseReason::TlsError);
                    return;
                };
                let per_second_max = self.settings.limits().tls_handshakes_per_second_max;
                if !self.tls_handshakes.allow_up_to(per_second_max, now) {
                    // No alert: whoever comes too fast is told so in the cheapest way.
                    self.note_limit(LimitReached::TlsHandshakeRate);
                    self.abandon(index, CloseReason::ConnectionLimit);
                    return;
                }
                match tls::Session::server(std::sync::Arc::clone(&secure.config)) {
                    Ok(session) => {
                        let handshake = Handshake { session, is_leaving: false };
                        connection.transport = Transport::Handshake(Box::new(handshake));
                        self.on_handshake(index, rest);
                    }
                    Err(error) => self.on_tls_error(index, &error),
                }
            }
            Protocol::Http | Protocol::Rtmp => {
                connection.transport = Transport::Plain;
                if connection.is_read_by_record {
                    self.io.resume_receive(connection.conn);
                }
                self.on_plain(index, rest);
            }
        }
    }

    /// Bytes of a TLS handshake.
    pub(super) fn on_handshake(&mut self, index: usize, data: &[u8]) {
        let mut out = self.spare.empty();
        let mut plain = std::mem::take(&mut self.plain);
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Transport::Handshake(handshake) = &mut connection.transport else { return };
        let result = handshake.session.handle_bytes(data, &mut out, &mut plain);
        let wanted = handshake.session.wanted_bytes();
        let is_established = handshake.session.facts().is_some();
        self.queue_sealed(index, out);
        match result {
            Ok(tls::Progress::Handshaking) => self.receive_record(index, wanted),
            Ok(tls::Progress::Established) => {
                self.on_established(index);
                if !plain.is_empty() {
                    self.on_plain(index, &plain);
                }
            }
            // Its last flight and its goodbye in one piece.
            Ok(tls::Progress::PeerClosed) if is_established => {
                self.on_established(index);
                if !plain.is_empty() {
                    self.on_plain(index, &plain);
                }
                self.on_goodbye(index);
            }
            Ok(tls::Progress::PeerClosed) => self.abandon(index, CloseReason::PeerClosed),
            Err(error) => self.on_tls_error(index, &error),
        }
        plain.clear();
        self.plain = plain;
    }

    fn receive_record(&mut self, index: usize, wanted: usize) {
        if let Some(connection) = self.connection(index)
            && connection.is_read_by_record
            && connection.closing.is_none()
        {
            let conn = connection.conn;
            self.io.receive_once(conn, clamp(wanted));
        }
    }

    fn on_established(&mut self, index: usize) {
        let Some(secure) = self.secure.clone() else { return };
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Transport::Handshake(handshake) = &mut connection.transport else { return };
        let facts = handshake.session.facts();
        let is_resumed = facts.is_some_and(|facts| facts.resumed);
        let result = if is_resumed { TlsHandshake::Resumed } else { TlsHandshake::Full };
        self.port.metrics().tls_handshakes.of(result).increment();
        let for_kernel = facts.is_some_and(|facts| takes(&secure.kernel, facts));
        connection.tls = facts.cloned().map(Box::new);
        if for_kernel && connection.is_read_by_record && handshake.session.is_kernel_ready() {
            handshake.is_leaving = true;
            self.hand_over(index);
        } else {
            self.use_records(index);
        }
    }

    /// Gives the keys to the kernel once the last flight has left. Receiving rests meanwhile.
    pub(super) fn hand_over(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let transport = &connection.transport;
        let is_leaving = matches!(transport, Transport::Handshake(h) if h.is_leaving);
        if !is_leaving || connection.is_output_busy() || connection.output.sealed_rest.is_some() {
            return;
        }
        let conn = connection.conn;
        if let Err(error) = self.io.attach_tls(conn) {
            // The peer may have left already; or the module was unloaded. Nothing is lost yet.
            tracing::debug!(event = "kernel_tls", conn = %connection.id, error = %error);
            self.use_records(index);
            return;
        }
        let Transport::Handshake(handshake) =
            std::mem::replace(&mut connection.transport, Transport::Plain)
        else {
            return;
        };
        let handover = match handshake.session.into_kernel() {
            Ok(handover) => handover,
            Err(error) => return self.on_tls_error(index, &error),
        };
        let set =
            self.io.set_tls_keys(conn, TlsDirection::Send, handover.send.as_bytes()).and_then(
                |()| self.io.set_tls_keys(conn, TlsDirection::Receive, handover.receive.as_bytes()),
            );
        if let Err(error) = set {
            // Our session is gone with its keys: nothing can be said to this peer any more.
            self.port.metrics().tls_errors.increment("kernel_keys");
            if self.error_lines.allow(self.now.0)
                && let Some(connection) = self.connection(index)
            {
                tracing::warn!(event = "tls_error", conn = %connection.id, class = "kernel_keys",
                    error = %error);
            }
            self.abandon(index, CloseReason::TlsError);
            return;
        }
        let kernel = Kernel { session: handover.session, must_update_send: false };
        self.set_mode(index, Transport::Kernel(Box::new(kernel)), TlsMode::Kernel);
    }

    fn use_records(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        match std::mem::replace(&mut connection.transport, Transport::Plain) {
            Transport::Handshake(handshake) => {
                let transport = Transport::Records(Box::new(handshake.session));
                self.set_mode(index, transport, TlsMode::Records);
            }
            other => connection.transport = other,
        }
    }

    fn set_mode(&mut self, index: usize, transport: Transport, mode: TlsMode) {
        let Some(connection) = self.connection(index) else { return };
        connection.transport = transport;
        connection.tls_mode = Some(mode);
        let (conn, is_resting) = (connection.conn, connection.is_read_by_record);
        self.port.metrics().tls_connections.of(mode).increment();
        if is_resting {
            self.io.resume_receive(conn);
        }
        self.pump(index);
    }

    /// Records of an established session whose keys are ours.
    pub(super) fn on_records(&mut self, index: usize, data: &[u8]) {
        let mut out = self.spare.empty();
        let mut plain = std::mem::take(&mut self.plain);
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let Transport::Records(session) = &mut connection.transport else { return };
        let result = session.handle_bytes(data, &mut out, &mut plain);
        self.queue_sealed(index, out);
        if !plain.is_empty() {
            self.on_plain(index, &plain);
        }
        match result {
            Ok(tls::Progress::PeerClosed) => self.on_goodbye(index),
            Ok(tls::Progress::Handshaking | tls::Progress::Established) => {}
            Err(error) => self.on_tls_error(index, &error),
        }
        plain.clear();
        self.plain = plain;
    }

    /// A record the kernel does not open for us: an alert or a handshake message.
    pub(super) fn on_tls_record(&mut self, index: usize, record_type: u8, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let conn = connection.conn;
        let Transport::Kernel(kernel) = &mut connection.transport else { return };
        match kernel.session.handle_record(record_type, bytes) {
            Ok(tls::KernelEvent::PeerClosed) => {
                self.on_goodbye(index);
                return;
            }
            Ok(tls::KernelEvent::Ignored) => {}
            Ok(tls::KernelEvent::KeyUpdate { receive, respond }) => {
                let set = self.io.set_tls_keys(conn, TlsDirection::Receive, receive.as_bytes());
                if let Err(error) = set {
                    self.on_rekey_refused(index, &error);
                    return;
                }
                kernel.must_update_send |= respond;
                self.update_send_key(index);
            }
            Err(error) => {
                self.on_tls_error(index, &error);
                return;
            }
        }
        if self.connection(index).is_some_and(|connection| connection.closing.is_none()) {
            self.io.resume_receive(conn);
        }
    }

    /// The peer said `close_notify`: what its FIN means, but it gets the answer it is due (RFC 8446 §6.1).
    fn on_goodbye(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        let reason = match connection.publishes.is_empty() {
            true => CloseReason::PeerClosed,
            false => CloseReason::PeerLost,
        };
        self.close(index, reason);
        // Its FIN ends the lingering.
        if let Some(connection) = self.connection(index)
            && matches!(connection.transport, Transport::Kernel(_))
        {
            let conn = connection.conn;
            self.io.resume_receive(conn);
        }
    }

    /// Tells the peer of a new sending key and takes it into use, between two sends.
    pub(super) fn update_send_key(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        if connection.output.sending != Sending::Nothing {
            return;
        }
        let conn = connection.conn;
        let Transport::Kernel(kernel) = &mut connection.transport else { return };
        if !std::mem::replace(&mut kernel.must_update_send, false) {
            return;
        }
        // Once announced, a key must be used: where the kernel cannot, nothing may be announced.
        let can_rekey = |secure: &Secure| secure.kernel.rekey == FeatureState::On;
        if !self.secure.as_deref().is_some_and(can_rekey) {
            let error = std::io::Error::from(std::io::ErrorKind::Unsupported);
            self.on_rekey_refused(index, &error);
            return;
        }
        match kernel.session.update_send() {
            Ok((message, send)) => {
                let updated = self
                    .io
                    .send_tls_record(conn, HANDSHAKE, &message)
                    .and_then(|()| self.io.set_tls_keys(conn, TlsDirection::Send, send.as_bytes()));
                if let Err(error) = updated {
                    self.on_rekey_refused(index, &error);
                }
            }
            Err(error) => self.on_tls_error(index, &error),
        }
    }

    /// Kernels before 6.14 cannot change keys: the connection ends in order, the peer connects again.
    fn on_rekey_refused(&mut self, index: usize, error: &std::io::Error) {
        self.port.metrics().tls_errors.increment("rekey_refused");
        if let Some(connection) = self.connection(index) {
            tracing::info!(event = "tls_error", conn = %connection.id, peer = %connection.peer,
                class = "rekey_refused", error = %error);
        }
        self.close(index, CloseReason::TlsError);
    }

    fn on_tls_error(&mut self, index: usize, error: &tls::TlsError) {
        let now = self.now.0;
        self.port.metrics().tls_errors.increment(error.label());
        let allow = self.error_lines.allow(now);
        let Some(connection) = self.connection(index) else { return };
        if allow {
            tracing::warn!(event = "tls_error", conn = %connection.id, peer = %connection.peer,
                class = error.label(), error = %error);
        }
        self.close(index, CloseReason::TlsError);
    }

    /// HTTP where none is served gets an answer a browser shows.
    pub(super) fn refuse_http(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        connection.output.rest = Some(NO_HTTP.to_vec());
        let (id, peer) = (connection.id, connection.peer);
        self.port.metrics().protocol_errors.increment("http");
        if self.error_lines.allow(self.now.0) {
            tracing::warn!(event = "protocol_error", conn = %id, peer = %peer, class = "http",
                error = "an HTTP request at byte 0, where RTMP is served");
        }
        self.close(index, CloseReason::ProtocolError);
    }

    // Sending.

    /// Bytes that are sealed already: handshake flights, alerts, answers to key updates.
    fn queue_sealed(&mut self, index: usize, out: Vec<u8>) {
        if out.is_empty() {
            self.spare.put(out);
            return;
        }
        if let Some(connection) = self.connection(index) {
            match &mut connection.output.sealed_rest {
                Some(rest) => rest.extend_from_slice(&out),
                rest => *rest = Some(out),
            }
            let held = connection.output.sealed_rest.as_ref().map_or(0, Vec::len);
            self.flush_sealed(index);
            if held > SEALED_BYTES_MAX {
                // It asks for new keys and does not read the answers.
                self.abandon(index, CloseReason::MemoryLimit);
            }
        }
    }

    /// Sends what is left of sealed bytes, if the socket is free. True if a send was made.
    pub(super) fn flush_sealed(&mut self, index: usize) -> bool {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if connection.is_output_busy() {
            return false;
        }
        let Some(rest) = connection.output.sealed_rest.take() else { return false };
        connection.output.sending = Sending::Sealed;
        self.io.send(connection.conn, SendBuf::Owned(rest));
        true
    }

    /// Hands application bytes to the socket, sealed if they must be. The caller has set `sending`.
    pub(super) fn transmit(&mut self, index: usize, buf: SendBuf<ring::Lease>) -> bool {
        let mut sealed = match self.connection(index).map(|c| &c.transport) {
            Some(Transport::Records(_)) => self.spare.used(),
            _ => Vec::new(),
        };
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        self.handed_bytes = self.handed_bytes.saturating_add(buf.bytes().len());
        // The head of an answer waits for the body, which is sent next.
        let is_followed = matches!(connection.output.sending, Sending::Owned)
            && connection.session.http().is_some_and(|session| session.has_body());
        let Transport::Records(session) = &mut connection.transport else {
            match is_followed {
                true => self.io.send_more(connection.conn, buf),
                false => self.io.send(connection.conn, buf),
            }
            return true;
        };
        let bytes = buf.bytes().len().min(SEAL_BYTES_MAX);
        let plain = buf.bytes().get(..bytes).unwrap_or_default();
        let result = session.encrypt_over(plain, &mut sealed);
        if let Err(error) = result {
            connection.output.sending = Sending::Nothing;
            self.port.metrics().tls_errors.increment(error.label());
            self.abandon(index, CloseReason::TlsError);
            return false;
        }
        self.port.metrics().tls_sealed_bytes.add(bytes as u64);
        connection.output.sealing = Some(Sealing { buf, bytes });
        self.io.send(connection.conn, SendBuf::Owned(sealed));
        true
    }

    /// The completion of a send of sealed bytes: what it means for the plaintext, or `None` when the
    /// bytes had none.
    pub(super) fn on_sealed_sent(
        &mut self,
        index: usize,
        bytes: usize,
        buf: SendBuf<ring::Lease>,
    ) -> Option<Sealing> {
        let connection = self.connections.get_mut(index).and_then(Option::as_deref_mut)?;
        if let SendBuf::Owned(mut sealed) = buf {
            if bytes < sealed.len() {
                sealed.drain(..bytes);
                // What was sealed while it was on its way comes behind it.
                if let Some(later) = connection.output.sealed_rest.take() {
                    sealed.extend_from_slice(&later);
                }
                connection.output.sealed_rest = Some(sealed);
            } else {
                self.spare.put(sealed);
            }
        }
        self.connection(index)?.output.sealing.take()
    }

    /// Counts what the kernel sealed, and asks for a new key in time; `pump` sees to it.
    pub(super) fn note_kernel_sent(&mut self, index: usize, bytes: usize) {
        let Some(connection) = self.connection(index) else { return };
        if let Transport::Kernel(kernel) = &mut connection.transport {
            kernel.session.note_sent(bytes as u64);
            kernel.must_update_send |= kernel.session.needs_rekey();
        }
    }

    /// The last record of a connection in order. True if it is on its way by a send.
    pub(super) fn say_goodbye(&mut self, index: usize) -> bool {
        let mut out = self.spare.empty();
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        if std::mem::replace(&mut connection.output.is_goodbye_said, true) {
            return false;
        }
        match &mut connection.transport {
            Transport::Records(session) => session.close_notify(&mut out),
            Transport::Kernel(_) => {
                // A socket that is full or gone has no use for it.
                drop(self.io.send_tls_record(connection.conn, ALERT, &CLOSE_NOTIFY));
            }
            Transport::Opening(_) | Transport::Plain | Transport::Handshake(_) => {}
        }
        let is_sent = !out.is_empty();
        self.queue_sealed(index, out);
        is_sent
    }

    /// A new connection's transport.
    pub(super) fn opening(&self, peer: SocketAddr) -> Transport {
        let is_trusted = self.settings.trusts_proxy(peer.ip());
        Transport::Opening(Box::new(FrontDoor::new(is_trusted)))
    }
}

/// Whether the kernel takes connections like this one.
fn takes(kernel: &uring::KernelTls, facts: &tls::Facts) -> bool {
    let [a, b] = facts.version.number().to_ne_bytes();
    let [c, d] = facts.cipher.kernel_number().to_ne_bytes();
    kernel.takes(&[a, b, c, d])
}

fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes.max(1)).unwrap_or(u32::MAX)
}
