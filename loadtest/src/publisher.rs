//! One publisher: opens its stream and sends each message when it is due, with the clock inside.
//!
//! Due times follow from the stream's own time, never from when the last message went out, so a
//! late turn makes one message late and not all that follow. A message is stamped when it is made,
//! also if the socket is full: what the server does not take counts as its delay. Bounded: with
//! [`BACKLOG_BYTES_MAX`] waiting, messages are passed over and counted.

use crate::num::MediaClock;
use crate::player::{Reason, millis, reason_of};
use crate::source::{Source, Stamp};
use crate::tally::{Measure, Tally};
use rtmp::session::{ClientConfig, ClientEvent, ClientSession};
use std::sync::Arc;

/// Bytes that may wait for the socket before messages are passed over.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Messages sent in one go after a late turn; the rest follows in the next.
const BURST_MESSAGES_MAX: usize = 256;

/// One publisher's connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    session: ClientSession,
    source: Source,
    stamp: Stamp,
    clock: MediaClock,
    connected_ns: u64,
    /// Time of the stream's first message; `None` before it is published.
    begun_ns: Option<u64>,
    /// By how much this publisher's first message waits, so that many do not send in step.
    phase_ns: u64,
    body: Vec<u8>,
}

impl Publisher {
    /// A publisher that calls connect now.
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        source: Source,
        clock: MediaClock,
        random: u64,
        now_ns: u64,
    ) -> Publisher {
        Publisher {
            session: ClientSession::new(config, random, millis(now_ns)),
            source,
            stamp: Stamp::new(crate::num::low_u32(random)),
            clock,
            connected_ns: 0,
            begun_ns: None,
            phase_ns: 0,
            body: Vec::new(),
        }
    }

    /// Delays the stream's first message.
    pub(crate) fn with_phase(mut self, phase_ns: u64) -> Publisher {
        self.phase_ns = phase_ns;
        self
    }

    /// TCP is up: the handshake goes out.
    pub(crate) fn on_connected(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.connected_ns = now_ns;
        self.session.take_replies(out);
    }

    /// Bytes of the server. Appends answers, and once published the opening messages.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &[u8],
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let now_ns = crate::num::now_ns();
        let mut input = bytes;
        loop {
            match self.session.handle_bytes(millis(now_ns), &mut input) {
                Ok(Some(ClientEvent::Published { .. })) => self.open(now_ns, tally, out),
                Ok(Some(ClientEvent::Status(status))) => tally.note_status(&status.code),
                Ok(Some(ClientEvent::StreamEnded(status))) => return Err(status.code),
                Ok(Some(ClientEvent::PeerClosed)) => {
                    return Err("closed by command of the server".into());
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    let replied = self.session.has_replies();
                    self.session.take_replies(out);
                    if input.is_empty() || !replied {
                        return Ok(());
                    }
                }
                Err(error) => return Err(reason_of(&error)),
            }
        }
    }

    fn open(&mut self, now_ns: u64, tally: &mut Tally, out: &mut Vec<u8>) {
        self.session.take_replies(out);
        tally.counts.published += 1;
        tally.note_status("NetStream.Publish.Start");
        tally.record(Measure::PublishStart, now_ns.saturating_sub(self.connected_ns));
        for (kind, body) in self.source.opening() {
            match kind {
                Some(kind) => self.session.write_media(kind, 0, &body, out),
                None => self.session.write_data(0, &body, out),
            };
        }
        self.begun_ns = Some(now_ns + self.phase_ns);
    }

    /// When the next message is due; `None` before the stream is published.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        Some(self.begun_ns?.saturating_add(self.source.due_ns()))
    }

    /// Sends what is due.
    pub(crate) fn on_due(&mut self, now_ns: u64, tally: &mut Tally, out: &mut Vec<u8>) {
        let before = out.len();
        self.session.take_replies(out);
        for _ in 0..BURST_MESSAGES_MAX {
            let Some(due_ns) = self.due_ns().filter(|&due_ns| due_ns <= now_ns) else { break };
            tally.record(Measure::Late, now_ns - due_ns);
            if out.len() > BACKLOG_BYTES_MAX {
                self.source.skip_next();
                tally.counts.publisher_skipped += 1;
                continue;
            }
            let stamp_ns = self.clock.now_ns();
            let due = self.source.write_next(&mut self.stamp, stamp_ns, &mut self.body);
            match due.kind {
                Some(kind) => self.session.write_media(kind, due.timestamp, &self.body, out),
                None => self.session.write_data(due.timestamp, &self.body, out),
            };
            tally.counts.published_messages += 1;
        }
        tally.counts.published_bytes += out.len().saturating_sub(before) as u64;
    }

    /// Whether the stream is open.
    pub(crate) fn is_publishing(&self) -> bool {
        self.begun_ns.is_some()
    }

    /// Lets the session notice that the server does not answer. Call about once a second.
    ///
    /// # Errors
    /// It has not answered for too long.
    pub(crate) fn on_tick(&mut self, now_ns: u64) -> Result<(), Reason> {
        self.session.handle_timeout(millis(now_ns)).map_err(|error| reason_of(&error))
    }

    /// Ends the stream in a clean way.
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        self.session.close();
        self.session.take_replies(out);
    }
}
