//! Data messages of publishers: what is stripped, what is dropped, what is passed on.

use alloc::borrow::Cow;

use super::ServerSession;
use crate::session::event::{DataMessage, Event};
use crate::session::inbound::without_front;

/// AMF0 strings with marker and length, as every encoder writes them.
const SET_DATA_FRAME: &[u8] = b"\x02\x00\x0d@setDataFrame";
const CLEAR_DATA_FRAME: &[u8] = b"\x02\x00\x0f@clearDataFrame";
/// AMF0 markers of strings; a data message without a name in front means nothing to a subscriber.
const STRING: u8 = 0x02;
const LONG_STRING: u8 = 0x0C;

impl ServerSession {
    /// Passes on what has a name. Empty messages and FFmpeg's time code messages (4 bytes, the first of
    /// them 0) would make players show a data stream that is none, so they end here.
    pub(super) fn on_data<'b>(
        &mut self,
        msid: u32,
        timestamp: u32,
        body: Cow<'b, [u8]>,
    ) -> Option<Event<'b>> {
        let Some(msid) = self.streams.resolve(msid).filter(|id| self.streams.is_publishing(*id))
        else {
            self.counters.ignore_message();
            return None;
        };
        if body.starts_with(CLEAR_DATA_FRAME) {
            return Some(Event::ClearMetadata { msid });
        }
        let body = if body.starts_with(SET_DATA_FRAME) {
            without_front(body, SET_DATA_FRAME.len())
        } else {
            body
        };
        if !matches!(body.first(), Some(&(STRING | LONG_STRING))) {
            self.counters.data_skipped = self.counters.data_skipped.saturating_add(1);
            return None;
        }
        Some(Event::Data(DataMessage { msid, timestamp, body }))
    }
}
