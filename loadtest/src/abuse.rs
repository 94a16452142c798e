//! Hostile peers: each a small script against a server, bounded in what it opens and sends.
//!
//! Their purpose is to show that others do not suffer and that the server gets rid of them: what
//! is measured is a witness that plays meanwhile, and how each connection ended.

use crate::num::{MS_NS, Prng};
use crate::player::{What, millis};
use rtmp::session::{ClientConfig, ClientRole, ClientSession, MediaKind};
use std::sync::Arc;

/// What a hostile peer does.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum Behaviour {
    /// Sends the handshake one byte every 50 ms.
    SlowHandshake,
    /// Connects and says nothing.
    Silent,
    /// Sends random bytes from the start.
    Garbage,
    /// Completes the handshake, then sends random bytes.
    LateGarbage,
    /// Speaks correctly, one byte per segment.
    OneByte,
    /// Publishes a stream in chunks of one byte.
    TinyChunks,
    /// Plays and never reads.
    NeverReads,
    /// Connects, and again as soon as it is through.
    Flood,
}

impl Behaviour {
    /// As it appears in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Behaviour::SlowHandshake => "slow-handshake",
            Behaviour::Silent => "silent",
            Behaviour::Garbage => "garbage",
            Behaviour::LateGarbage => "late-garbage",
            Behaviour::OneByte => "one-byte",
            Behaviour::TinyChunks => "tiny-chunks",
            Behaviour::NeverReads => "never-reads",
            Behaviour::Flood => "flood",
        }
    }

    /// Time between two acts.
    const fn pause_ns(self) -> u64 {
        match self {
            Behaviour::SlowHandshake => 50 * MS_NS,
            _ => 20 * MS_NS,
        }
    }
}

/// Random bytes of one act.
const GARBAGE_BYTES: usize = 4096;
/// A message of one act, in chunks of one byte.
const TINY_MESSAGE: [u8; 1024] = [0x27; 1024];
/// Bytes that may wait for the socket before a peer stops adding to them.
const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// Acts after which even a peer nobody stops is done.
const ACTS_MAX: u32 = 2_000;
/// Version byte and first packet of a client's handshake.
const HELLO_BYTES: usize = 1 + 1536;

/// One hostile peer's connection.
#[derive(Debug)]
pub(crate) struct Abuser {
    pub(crate) behaviour: Behaviour,
    session: ClientSession,
    /// What one says instead who watches by HTTP.
    request: Option<String>,
    /// What a slow peer has yet to say.
    script: Vec<u8>,
    prng: Prng,
    acts: u32,
    /// The time of the next act; `u64::MAX`: none.
    pub(crate) due_ns: u64,
    /// It wants to be closed by us.
    pub(crate) is_done: bool,
    /// It wants to receive no more.
    pub(crate) is_deaf: bool,
}

impl Abuser {
    /// A peer that calls connect now. Those who speak correctly play what `config` says, or publish
    /// beside it.
    pub(crate) fn new(behaviour: Behaviour, what: &What, random: u64, now_ns: u64) -> Abuser {
        let (config, request) = match what {
            What::Rtmp(config) => (Arc::clone(config), None),
            What::Http(watch) => (Arc::default(), Some(watch.request())),
        };
        let config = match behaviour {
            Behaviour::TinyChunks => Arc::new(ClientConfig {
                stream: format!("tiny-{random:x}"),
                role: ClientRole::Publish,
                chunk_bytes_out: 1,
                ..ClientConfig::clone(&config)
            }),
            _ => config,
        };
        Abuser {
            behaviour,
            session: ClientSession::new(config, random, millis(now_ns)),
            request,
            script: Vec::new(),
            prng: Prng::new(random),
            acts: 0,
            due_ns: u64::MAX,
            is_done: false,
            is_deaf: false,
        }
    }

    /// TCP is up.
    pub(crate) fn on_connected(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        if let Some(request) = &self.request {
            return out.extend_from_slice(request.as_bytes());
        }
        match self.behaviour {
            Behaviour::Silent => {}
            Behaviour::Flood => self.is_done = true,
            Behaviour::SlowHandshake => {
                self.session.take_replies(&mut self.script);
                self.due_ns = now_ns;
            }
            Behaviour::Garbage => self.due_ns = now_ns,
            _ => {
                self.session.take_replies(out);
            }
        }
    }

    /// Bytes of the server.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], now_ns: u64, out: &mut Vec<u8>) {
        if self.request.is_some() {
            self.is_deaf = self.behaviour == Behaviour::NeverReads;
            return;
        }
        let mut input = bytes;
        let speaks = match self.behaviour {
            Behaviour::OneByte | Behaviour::NeverReads | Behaviour::TinyChunks => true,
            // Up to the end of the handshake.
            Behaviour::LateGarbage => self.due_ns == u64::MAX,
            _ => false,
        };
        if !speaks {
            return;
        }
        // A peer like this does not mind what the server says, and goes on.
        while let Ok(Some(_)) = self.session.handle_bytes(millis(now_ns), &mut input) {}
        self.session.take_replies(out);
        match self.behaviour {
            Behaviour::LateGarbage if self.session.bytes_in() >= 2 * HELLO_BYTES as u64 - 1 => {
                self.due_ns = now_ns;
            }
            Behaviour::NeverReads if self.session.is_active() => self.is_deaf = true,
            Behaviour::TinyChunks if self.session.is_active() && self.acts == 0 => {
                self.due_ns = now_ns;
            }
            _ => {}
        }
    }

    /// Does the next act.
    pub(crate) fn on_due(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.acts += 1;
        self.due_ns = now_ns + self.behaviour.pause_ns();
        if self.acts >= ACTS_MAX {
            self.due_ns = u64::MAX;
            return;
        }
        match self.behaviour {
            Behaviour::SlowHandshake if !self.script.is_empty() => out.push(self.script.remove(0)),
            Behaviour::Garbage | Behaviour::LateGarbage => {
                let start = out.len();
                out.resize(start + GARBAGE_BYTES, 0);
                self.prng.fill_non_zero(&mut out[start..]);
            }
            Behaviour::TinyChunks if out.len() < BACKLOG_BYTES_MAX => {
                let timestamp = self.acts * 20;
                self.session.write_media(MediaKind::Video, timestamp, &TINY_MESSAGE, out);
            }
            Behaviour::TinyChunks => {}
            _ => self.due_ns = u64::MAX,
        }
    }

    /// Whether it leaves TLS out where the server wants it: those do who do not get as far as RTMP.
    pub(crate) fn is_raw(&self) -> bool {
        use Behaviour::{Flood, Garbage, Silent, SlowHandshake};
        matches!(self.behaviour, SlowHandshake | Silent | Garbage | Flood)
    }

    /// Most bytes of one segment.
    pub(crate) fn send_bytes_max(&self) -> usize {
        if self.behaviour == Behaviour::OneByte { 1 } else { usize::MAX }
    }
}
