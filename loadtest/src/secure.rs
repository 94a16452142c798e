//! TLS around one connection, in user space.
//!
//! Knows no socket: bytes of the server go in, plain bytes come out, and the other way round. What
//! an actor says before the handshake is over waits. How long the handshake took is told by the
//! shard, which sees the clock.

use crate::player::Reason;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tls::rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use tls::rustls::{ClientConfig, NamedGroup};
use tls::{Progress, Roots, ServerName, Session, Version};

/// Tickets a run keeps: a connection uses one up and brings two or more.
const TICKETS_MAX: usize = 16_384;

/// How connections of a run are secured.
#[derive(Clone, Debug)]
pub(crate) struct Security {
    config: Arc<ClientConfig>,
    /// Whom the certificate must name, and whom the server is asked for.
    name: ServerName<'static>,
}

/// Whom to trust.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Trust<'f> {
    /// The authorities this system trusts.
    System,
    /// Those of a PEM file.
    Authority(&'f Path),
    /// Anybody: for load tests of servers of one's own.
    Anybody,
}

impl Security {
    /// How to talk to `name`. With `resume` a connection goes on with the session of an earlier one
    /// where the server allows it; otherwise each handshake is a full one.
    ///
    /// # Errors
    /// The file cannot be read or has no certificate, or the name is none.
    pub(crate) fn new(trust: Trust<'_>, name: &str, resume: bool) -> Result<Security, String> {
        let roots = match trust {
            Trust::System => Roots::System,
            Trust::Anybody => Roots::Insecure,
            Trust::Authority(file) => {
                let pem = std::fs::read(file);
                Roots::Pem(pem.map_err(|error| format!("--ca {}: {error}", file.display()))?)
            }
        };
        let config = tls::client_config(roots).map_err(|error| error.to_string())?;
        let name = tls::server_name(name).map_err(|error| error.to_string())?;
        Ok(Security { config, name }.resuming(resume))
    }

    /// The same with or without resumption, knowing no session yet.
    pub(crate) fn resuming(&self, resume: bool) -> Security {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = if resume {
            Resumption::store(Arc::new(Tickets::default()))
        } else {
            Resumption::disabled()
        };
        Security { config: Arc::new(config), name: self.name.clone() }
    }
}

/// Tickets of the one server a run talks to. The library's own store keeps eight of them, which
/// many connections at a time use up.
#[derive(Debug, Default)]
struct Tickets(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    /// Of TLS 1.2, good for any number of connections.
    session: Option<Tls12ClientSessionValue>,
    /// Of TLS 1.3, good for one each.
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing is left half done by whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().session = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() >= TICKETS_MAX {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest: servers change their keys.
        self.kept().tickets.pop_back()
    }
}

/// TLS of one connection.
#[derive(Debug)]
pub(crate) struct Secure {
    session: Session,
    /// TCP is up since; 0 before.
    begun_ns: u64,
    is_established: bool,
    /// Records for the socket.
    pub(crate) wire: Vec<u8>,
}

/// What received bytes brought about beside plain bytes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nothing.
    None,
    /// The handshake is over, begun so many nanoseconds ago; it was a resumption or not, and the
    /// server's tickets are still to come or not.
    Established { took_ns: u64, is_resumed: bool, brings_tickets: bool },
    /// The server says goodbye.
    Closed,
}

impl Secure {
    /// A connection whose TCP is not up yet.
    ///
    /// # Errors
    /// The configuration does not fit the name.
    pub(crate) fn new(security: &Security) -> Result<Secure, Reason> {
        let session = Session::client(Arc::clone(&security.config), security.name.clone());
        Ok(Secure {
            session: session.map_err(|error| reason_of(&error))?,
            begun_ns: 0,
            is_established: false,
            wire: Vec::new(),
        })
    }

    /// TCP is up: the hello goes out.
    ///
    /// # Errors
    /// No hello can be made.
    pub(crate) fn on_connected(&mut self, now_ns: u64) -> Result<(), Reason> {
        self.begun_ns = now_ns;
        self.session.start(&mut self.wire).map_err(|error| reason_of(&error))
    }

    /// Takes bytes of the server; plain ones are appended to `plain`.
    ///
    /// # Errors
    /// What came is no TLS, or the certificate is not trusted. An alert is in `wire`.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        now_ns: u64,
    ) -> Result<Step, Reason> {
        let progress = self.session.handle_bytes(bytes, &mut self.wire, plain);
        let progress = progress.map_err(|error| reason_of(&error))?;
        if progress == Progress::PeerClosed {
            return Ok(Step::Closed);
        }
        let is_new = progress == Progress::Established && !self.is_established;
        let Some(facts) = self.session.facts().filter(|_| is_new) else { return Ok(Step::None) };
        self.is_established = true;
        Ok(Step::Established {
            took_ns: now_ns.saturating_sub(self.begun_ns),
            is_resumed: facts.resumed,
            brings_tickets: facts.version == Version::Tls13,
        })
    }

    /// The handshake is over.
    pub(crate) fn is_established(&self) -> bool {
        self.is_established
    }

    /// Turns plain bytes into records; before the handshake is over they stay where they are.
    ///
    /// # Errors
    /// The session can encrypt no more.
    pub(crate) fn seal(&mut self, pending: &mut Vec<u8>) -> Result<(), Reason> {
        if self.is_established && !pending.is_empty() {
            let sealed = self.session.encrypt(pending, &mut self.wire);
            sealed.map_err(|error| reason_of(&error))?;
            pending.clear();
        }
        Ok(())
    }

    /// Says goodbye after what was sealed.
    pub(crate) fn close(&mut self) {
        if self.is_established {
            self.session.close_notify(&mut self.wire);
        }
    }
}

fn reason_of(error: &tls::TlsError) -> Reason {
    format!("tls: {}", error.label())
}
