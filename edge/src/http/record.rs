//! A viewer's session as a record, and one that goes on from it.
//!
//! Between two requests, and while a live stream is shown, all there is of it are numbers and what waits to
//! be sent. A request that waits for what is still to come is asked again; one that is being read or answered
//! stays where it is.

use http1::websocket::FrameReader;
use rtmp::Millis;

use super::{HttpSession, REPLY_BYTES_MAX, State};
use crate::framing::FramingKind;
use crate::hand_over::record::{HttpRecord, LiveViewRecord};

impl HttpSession {
    /// Whether another process can go on with it.
    pub(crate) fn is_portable(&self) -> bool {
        match &self.state {
            State::Idle => self.reader.is_idle() && self.body.is_none(),
            State::Live { frames, has_ended, .. } => {
                !has_ended && frames.as_ref().is_none_or(FrameReader::is_idle)
            }
            State::Waiting { .. } => self.held_request().is_some(),
            State::Asking | State::Responding => false,
        }
    }

    /// The request that waits for its answer, as it could be asked again: whoever goes on finds it unread.
    pub(crate) fn held_request(&self) -> Option<String> {
        let is_waiting = matches!(self.state, State::Waiting { .. });
        self.asked.as_ref().filter(|_| is_waiting)?.request.to_head()
    }

    /// The session, if it is portable.
    pub(crate) fn to_record(&self) -> Option<HttpRecord> {
        let live = match &self.state {
            _ if !self.is_portable() => return None,
            State::Live { has_begun, .. } => Some(LiveViewRecord {
                framing: self.framing,
                audio: self.audio,
                video: self.video,
                has_begun: *has_begun,
            }),
            _ => None,
        };
        Some(HttpRecord {
            live,
            since: self.since.0,
            replies: self.replies.clone(),
            keep_alive: self.keep_alive,
            requests: self.requests.saturating_sub(self.is_waiting().into()),
            status: self.status,
            user_agent: self.user_agent.as_deref().map(str::to_owned),
        })
    }

    /// The session of a record; `None` if that makes no sense.
    pub(crate) fn from_record(record: &HttpRecord) -> Option<Self> {
        let mut session = Self::new(Millis(record.since));
        if let Some(live) = record.live {
            let frames = live.framing.is_websocket().then(FrameReader::new);
            session.framing = live.framing;
            (session.audio, session.video) = (live.audio, live.video);
            session.state = State::Live { frames, has_begun: live.has_begun, has_ended: false };
            if live.framing == FramingKind::Rtmp {
                return None;
            }
        }
        session.replies.clone_from(&record.replies);
        session.keep_alive = record.keep_alive;
        session.requests = record.requests;
        session.status = record.status;
        session.user_agent = record.user_agent.as_deref().map(Into::into);
        (session.replies.len() <= REPLY_BYTES_MAX).then_some(session)
    }
}
