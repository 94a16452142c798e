//! Delivery directives: what a player asks for when it reloads a playlist.
//!
//! Spec: RFC 8216bis §6.2.5.2 (blocking reload), §6.2.5.1 (delta updates).

use core::fmt;

use super::window::{Edge, Window};

/// A player further ahead than this many segments asks for something that is not to come soon.
const MSN_AHEAD_MAX: u64 = 2;

/// `_HLS_msn`, `_HLS_part` and `_HLS_skip`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reload {
    /// Answer when this segment is there, or the part of it.
    pub msn: Option<u64>,
    /// Answer when this part is there; only with `msn`.
    pub part: Option<u32>,
    /// A delta update is welcome.
    pub skip: bool,
}

/// The directives do not make sense; answer 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadDirective(&'static str);

impl fmt::Display for BadDirective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bad delivery directive {}", self.0)
    }
}

impl core::error::Error for BadDirective {}

/// What to do with a request for the playlist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Send it.
    Now,
    /// Hold the request until the window changed, and ask again.
    Wait,
    /// Answer 400: the player is far ahead of the stream.
    TooFar,
}

impl Reload {
    /// Reads a query, without question mark. Other parameters are passed over; of one given twice
    /// the last counts.
    ///
    /// # Errors
    /// [`BadDirective`] names the parameter that is not a number or stands alone.
    pub fn parse(query: &str) -> Result<Self, BadDirective> {
        let mut reload = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            match name {
                "_HLS_msn" => {
                    let number = value.parse().ok().filter(|_| digits);
                    reload.msn = Some(number.ok_or(BadDirective("_HLS_msn"))?);
                }
                "_HLS_part" => {
                    let number = value.parse().ok().filter(|_| digits);
                    reload.part = Some(number.ok_or(BadDirective("_HLS_part"))?);
                }
                // `v2` also asks for date ranges to be left out, of which there are none here.
                "_HLS_skip" => reload.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        if reload.part.is_some() && reload.msn.is_none() {
            return Err(BadDirective("_HLS_part without _HLS_msn"));
        }
        Ok(reload)
    }

    /// Whether the window holds what was asked for.
    pub fn answer(&self, window: &Window) -> Answer {
        self.answer_at(window.edge())
    }

    /// The same by a window's edge alone, for those who do not have the window.
    pub fn answer_at(&self, edge: Edge) -> Answer {
        let Some(msn) = self.msn else { return Answer::Now };
        // The next part to come: everything before it is there.
        let Edge { next_msn, next_part, parts_before } = edge;
        let there = match (msn.cmp(&next_msn), self.part) {
            (core::cmp::Ordering::Less, None) => true,
            (core::cmp::Ordering::Less, Some(part)) => {
                // A part behind a segment's last is the first of the next segment.
                msn + 1 < next_msn || next_part > 0 || part < parts_before
            }
            (core::cmp::Ordering::Equal, Some(part)) => part < next_part,
            _ => false,
        };
        if there {
            Answer::Now
        } else if msn > next_msn.saturating_add(MSN_AHEAD_MAX) {
            Answer::TooFar
        } else {
            Answer::Wait
        }
    }
}
