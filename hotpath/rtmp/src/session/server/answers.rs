//! What the owner of a session says: answers to requests, and notices of its own.
//!
//! The replies to one request are queued in one go, so that they leave in one segment.

use super::{ConnectFacts, ServerSession, after, ping_timestamp};
use crate::Millis;
use crate::chunk::CSID_DATA;
use crate::message::{Control, MessageHeader, event, kind};
use crate::session::event::{PlayError, PublishError, StatusLevel};
use crate::session::outbound::{ReplySpaceFull, cut, info};
use crate::session::state::{Phase, PhaseInput, StreamInput, StreamState};
use crate::session::{FOURCC_CAN_FORWARD, caps_ex};

/// What Flash-era peers look at before they use features of the server.
const FMS_VERSION: &str = "FMS/3,5,7,7009";
/// Capability mask of the same era: all that a live server had.
const FMS_CAPABILITIES: f64 = 31.0;
/// Limit type "dynamic" of SetPeerBandwidth.
const LIMIT_DYNAMIC: u8 = 2;

impl ServerSession {
    /// Answers `connect`: window, bandwidth and chunk size before `_result`, as encoders expect.
    ///
    /// # Panics
    /// When no `connect` is unanswered.
    pub fn accept_connect(&mut self) {
        assert!(self.owes_connect_answer(), "accept_connect without a request");
        if self.phase == Phase::Closing {
            return;
        }
        let Some(opening) = self.opening.take() else { return };
        let config = &opening.config;
        let window = config.window_ack_bytes;
        self.announce_window(window);
        self.outbound.control(Control::SetPeerBandwidth { window, limit_type: LIMIT_DYNAMIC });
        self.outbound.control(Control::SetChunkSize(config.chunk_bytes_out));
        self.reply_connected(opening.connect, cut(&config.connection_id));
        if config.bw_done {
            self.outbound.command(0, |amf| {
                amf.string("onBWDone");
                amf.number(0.0);
                amf.null();
            });
        }
        self.step_phase(PhaseInput::Accept);
    }

    fn reply_connected(&mut self, facts: ConnectFacts, connection_id: &str) {
        self.outbound.command(0, |amf| {
            amf.string("_result");
            amf.number(facts.transaction);
            amf.object_begin();
            amf.key("fmsVer");
            amf.string(FMS_VERSION);
            amf.key("capabilities");
            amf.number(FMS_CAPABILITIES);
            if facts.enhanced {
                write_relay_capabilities(amf);
            }
            amf.object_end();
            amf.object_begin();
            amf.key("level");
            amf.string("status");
            amf.key("code");
            amf.string("NetConnection.Connect.Success");
            amf.key("description");
            amf.string("Connection succeeded.");
            amf.key("objectEncoding");
            amf.number(f64::from(facts.object_encoding));
            if !connection_id.is_empty() {
                amf.key("ringcast_id");
                amf.string(connection_id);
            }
            amf.object_end();
        });
    }

    /// Refuses `connect`; the session is closing afterwards.
    ///
    /// # Panics
    /// When no `connect` is unanswered.
    pub fn reject_connect(&mut self, description: &str) {
        assert!(self.owes_connect_answer(), "reject_connect without a request");
        if self.phase == Phase::Closing {
            return;
        }
        let transaction = self.opening.as_ref().map_or(0.0, |opening| opening.connect.transaction);
        self.reply_failure(transaction, "NetConnection.Connect.Rejected", description);
        self.step_phase(PhaseInput::Reject);
    }

    /// A late answer to a session that timed out or failed meanwhile is no mistake of the owner.
    fn owes_connect_answer(&self) -> bool {
        matches!(self.phase, Phase::ConnectPending | Phase::Closing)
    }

    /// Lets the peer publish on `msid`.
    ///
    /// # Panics
    /// When no `publish` on `msid` is unanswered.
    pub fn accept_publish(&mut self, msid: u32) {
        if !self.take_pending(msid, |state| matches!(state, StreamState::PublishPending { .. })) {
            return;
        }
        self.outbound.status(
            msid,
            StatusLevel::Status,
            "NetStream.Publish.Start",
            "Publishing has started.",
        );
        self.step_pending(msid, StreamInput::Accept);
        self.inbound.skip_open_of(msid, self.streams.is_zero(msid));
    }

    /// Refuses to let the peer publish; the session is closing afterwards unless it has another stream
    /// in use.
    ///
    /// # Panics
    /// When no `publish` on `msid` is unanswered.
    pub fn reject_publish(&mut self, msid: u32, error: PublishError, description: &str) {
        if !self.take_pending(msid, |state| matches!(state, StreamState::PublishPending { .. })) {
            return;
        }
        self.refuse(msid, error.code(), description);
    }

    /// Lets the peer play on `msid`: StreamBegin, Play.Reset when asked for, Play.Start, and access to
    /// samples. Write the preamble next.
    ///
    /// No `NetStream.Data.Start`: FFmpeg takes it for a data stream that never brings anything.
    ///
    /// # Panics
    /// When no `play` on `msid` is unanswered.
    pub fn accept_play(&mut self, msid: u32) {
        if !self.take_pending(msid, |state| matches!(state, StreamState::PlayPending { .. })) {
            return;
        }
        let reset =
            matches!(self.streams.state(msid), Some(StreamState::PlayPending { reset: true }));
        self.outbound.user(event::STREAM_BEGIN, msid);
        if reset {
            self.outbound.status(
                msid,
                StatusLevel::Status,
                "NetStream.Play.Reset",
                "Resetting and playing.",
            );
        }
        self.outbound.status(
            msid,
            StatusLevel::Status,
            "NetStream.Play.Start",
            "Playing has started.",
        );
        self.outbound.amf(CSID_DATA, kind::DATA_AMF0, msid, |amf| {
            amf.string("|RtmpSampleAccess");
            amf.boolean(true);
            amf.boolean(true);
        });
        self.step_pending(msid, StreamInput::Accept);
        // A player's commands are over, and it stays for hours.
        self.inbound.shrink();
    }

    /// Refuses to let the peer play; the session is closing afterwards unless it has another stream in
    /// use.
    ///
    /// # Panics
    /// When no `play` on `msid` is unanswered.
    pub fn reject_play(&mut self, msid: u32, error: PlayError, description: &str) {
        if !self.take_pending(msid, |state| matches!(state, StreamState::PlayPending { .. })) {
            return;
        }
        self.refuse(msid, error.code(), description);
    }

    /// Whether the answer still has a receiver; false on a session that is closing.
    fn take_pending(&mut self, msid: u32, fits: impl FnOnce(&StreamState) -> bool) -> bool {
        if self.phase == Phase::Closing {
            return false;
        }
        let asked = self.pending == Some(msid) && self.streams.state(msid).is_some_and(fits);
        assert!(asked, "answer for message stream {msid} without a request");
        self.pending = None;
        true
    }

    fn refuse(&mut self, msid: u32, code: &str, description: &str) {
        self.outbound.status(msid, StatusLevel::Error, code, description);
        self.step_pending(msid, StreamInput::Reject);
        if !self.streams.has_role() {
            self.step_phase(PhaseInput::Fail);
        }
    }

    fn step_pending(&mut self, msid: u32, input: StreamInput) {
        let stepped = self.streams.step(msid, input);
        debug_assert!(stepped.is_ok(), "a pending stream can be answered");
    }

    /// User control StreamEOF: what is played on `msid` is over.
    pub fn notify_stream_eof(&mut self, msid: u32) {
        self.outbound.user(event::STREAM_EOF, msid);
    }

    /// Tells a subscriber that the publisher is gone for good: StreamEOF and Play.UnpublishNotify, on which
    /// common players end. Say nothing while the publisher may come back.
    pub fn notify_unpublish(&mut self, msid: u32) {
        self.outbound.user(event::STREAM_EOF, msid);
        self.notify_status(
            msid,
            StatusLevel::Status,
            "NetStream.Play.UnpublishNotify",
            "The publisher has left.",
        );
    }

    /// Tells a subscriber that the server ends its playing.
    pub fn notify_play_stop(&mut self, msid: u32) {
        self.outbound.user(event::STREAM_EOF, msid);
        self.notify_status(msid, StatusLevel::Status, "NetStream.Play.Stop", "Playing has ended.");
    }

    /// `onStatus` on a message stream, or on the connection with `msid` 0. Code and description are cut at
    /// [`REPLY_STRING_BYTES_MAX`](crate::session::config::REPLY_STRING_BYTES_MAX).
    pub fn notify_status(&mut self, msid: u32, level: StatusLevel, code: &str, description: &str) {
        self.outbound.status(msid, level, code, description);
    }

    /// Asks the peer to connect anew, elsewhere when `tc_url` is given (Enhanced RTMP v2). Returns
    /// whether it was asked: only peers that announced to understand it are.
    pub fn reconnect_request(&mut self, tc_url: Option<&str>, description: &str) -> bool {
        if self.phase != Phase::Connected || self.peer.caps_ex & caps_ex::RECONNECT == 0 {
            return false;
        }
        self.outbound.command(0, |amf| {
            amf.string("onStatus");
            amf.number(0.0);
            amf.null();
            amf.object_begin();
            amf.key("level");
            amf.string("status");
            amf.key("code");
            amf.string("NetConnection.Connect.ReconnectRequest");
            if let Some(tc_url) = tc_url {
                amf.key("tcUrl");
                amf.string(cut(tc_url));
            }
            amf.key("description");
            amf.string(cut(description));
            amf.object_end();
        });
        true
    }

    /// Asks for a sign of life; the answer sets `rtt_ms`. Done by `handle_timeout` at the
    /// configured interval.
    pub fn ping(&mut self, now: Millis) {
        let timestamp = ping_timestamp(now);
        self.timers.pinged_at = Some(now);
        self.timers.next_ping = after(now, u64::from(self.timers.ping_interval_ms));
        self.outbound.user(event::PING_REQUEST, timestamp);
    }

    /// Announces another chunk size for everything sent from now on, unless it is the present one:
    /// a stream's shared wire image has its own. Only between two messages. Bytes, 1 to 16,777,215.
    pub fn set_chunk_bytes_out(&mut self, chunk_bytes: u32) {
        if self.outbound.framing().chunk_bytes != chunk_bytes {
            self.outbound.control(Control::SetChunkSize(chunk_bytes));
        }
    }

    /// Queues a whole message, for example the preamble of a stream, behind what is queued.
    ///
    /// # Errors
    /// [`ReplySpaceFull`] when it does not fit; nothing is queued then.
    ///
    /// # Panics
    /// In debug builds, when `header.length` is not the length of `body`.
    pub fn write_message(
        &mut self,
        header: &MessageHeader,
        body: &[u8],
    ) -> Result<(), ReplySpaceFull> {
        debug_assert_eq!(header.length as usize, body.len(), "length of the message");
        self.outbound.message(header, body)
    }

    /// `_error` to a transaction.
    pub(super) fn reply_failure(&mut self, transaction: f64, code: &str, description: &str) {
        self.outbound.command(0, |amf| {
            amf.string("_error");
            amf.number(transaction);
            amf.null();
            info(amf, StatusLevel::Error, code, description);
        });
    }
}

/// A relay passes every codec on and keeps multitrack and ModEx as they are.
fn write_relay_capabilities(amf: &mut crate::amf0::Writer<'_>) {
    amf.key("capsEx");
    amf.number(f64::from(caps_ex::ALL));
    amf.key("fourCcList");
    amf.strict_array_begin(1);
    amf.string("*");
    for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
        amf.key(map);
        amf.object_begin();
        amf.key("*");
        amf.number(f64::from(FOURCC_CAN_FORWARD));
        amf.object_end();
    }
}
