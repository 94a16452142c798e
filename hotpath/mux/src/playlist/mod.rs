//! HLS playlists, with the low-latency extensions.
//!
//! [`window::Window`] remembers what the segmenter said, [`MediaPlaylist`] and [`multivariant`]
//! write it down, [`query`] reads what a player asks for when it reloads, and [`validate`] judges
//! the text line by line. Nothing here knows where bytes are kept: names of segments are made by
//! [`Names`], and whoever answers requests reads them with the same type. Never panics.
//! Spec: RFC 8216bis (draft-pantos-hls-rfc8216bis), version 9 for low latency.

mod date;
pub mod multivariant;
mod names;
pub mod query;
pub mod validate;
pub mod window;

pub use names::{Name, Names};

use alloc::string::String;
use core::fmt::{self, Write};

use crate::segment::Container;
use window::{Edge, Segment, Window};

/// Parts are listed for the last so many target durations (RFC 8216bis §6.2.2).
const PARTS_TARGETS: u64 = 3;
/// Distance from the live edge in part targets that players should keep.
const HOLD_BACK_PARTS: u32 = 3;
/// A delta update may leave out what is older than so many target durations.
const SKIP_TARGETS: u64 = 6;

/// Where another playlist of the same stream stands (RFC 8216bis §4.4.5.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report<'a> {
    /// Its address, relative to the playlist this is appended to, as in a URL; without quotes.
    pub uri: &'a str,
    /// Its last sequence number.
    pub last_msn: u64,
    /// Its last part in that segment.
    pub last_part: Option<u32>,
}

impl<'a> Report<'a> {
    /// What to say of a playlist at `uri` that ends at `edge`; `None` before its first part.
    pub fn at(uri: &'a str, edge: Edge) -> Option<Self> {
        let Edge { next_msn, next_part, parts_before } = edge;
        let (last_msn, parts) = match next_part {
            0 => (next_msn.checked_sub(1)?, parts_before),
            _ => (next_msn, next_part),
        };
        Some(Self { uri, last_msn, last_part: parts.checked_sub(1) })
    }

    /// Appends the line to a playlist that has parts and no end. It stands last, so that the playlist itself
    /// can be the same for all viewers while this, which holds a viewer's own address, is not.
    pub fn write(&self, out: &mut String) {
        // Writing to a string cannot fail.
        let _infallible = self.try_write(out);
    }

    fn try_write(&self, out: &mut String) -> fmt::Result {
        let Self { uri, last_msn, .. } = self;
        write!(out, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={last_msn}")?;
        if let Some(part) = self.last_part {
            write!(out, ",LAST-PART={part}")?;
        }
        out.write_char('\n')
    }
}

/// Writes the playlist of one rendition.
#[derive(Clone, Copy, Debug)]
pub struct MediaPlaylist<'a> {
    /// Target duration in milliseconds: what the segmenter was told as its maximum, so that it
    /// never has to change. Rounded up; grows if a segment, rounded, is longer nevertheless.
    pub target_ms: u32,
    /// Part target of low latency in milliseconds ([`part_target_ms`]); `None` writes a plain
    /// playlist. Grows like the target, for streams with fewer frames than parts.
    ///
    /// [`part_target_ms`]: crate::segment::Settings::part_target_ms
    pub part_target_ms: Option<u32>,
    /// Nothing will follow.
    pub ended: bool,
    /// The player asked for a delta update; done if there is anything to leave out.
    pub skip: bool,
    /// How segments are called.
    pub names: Names<'a>,
}

/// Totals that the header and the body need alike.
struct Plan {
    target_s: u64,
    part_target_ms: Option<u32>,
    skipped: usize,
    /// Length of everything listed, in milliseconds.
    total_ms: u64,
}

impl MediaPlaylist<'_> {
    /// Appends the playlist of `window` to `out`. A window without a complete segment or a part
    /// gives a playlist without segments, which players do not like: answer that there is nothing
    /// yet instead.
    pub fn write(&self, window: &Window, out: &mut String) {
        // Writing to a string cannot fail.
        let _infallible = self.try_write(window, out);
    }

    fn try_write(&self, window: &Window, out: &mut String) -> fmt::Result {
        let plan = self.plan(window);
        self.head(window, &plan, out)?;
        let mut before_ms = 0;
        let mut generation = None;
        for (at, segment) in window.listed().enumerate() {
            let from_end_ms = plan.total_ms - before_ms;
            before_ms += u64::from(segment.duration_ms);
            if at < plan.skipped {
                generation = Some(segment.generation);
                continue;
            }
            if !segment.complete && plan.part_target_ms.is_none() {
                // Only its parts could be listed.
                break;
            }
            if generation != Some(segment.generation) {
                self.map(segment, at > 0 || plan.skipped > 0, out)?;
            } else if segment.discontinuity && at > 0 {
                out.write_str("#EXT-X-DISCONTINUITY\n")?;
            }
            generation = Some(segment.generation);
            out.write_str("#EXT-X-PROGRAM-DATE-TIME:")?;
            date::write(segment.date_ms, out)?;
            out.write_char('\n')?;
            let ends_ms = from_end_ms.saturating_sub(segment.duration_ms.into());
            if plan.part_target_ms.is_some() && ends_ms < PARTS_TARGETS * plan.target_s * 1000 {
                self.parts(segment, out)?;
            }
            if segment.complete {
                writeln!(out, "#EXTINF:{},", Seconds(segment.duration_ms.into()))?;
                self.names.write(Name::Segment { sequence: segment.sequence }, out)?;
                out.write_char('\n')?;
            }
        }
        self.tail(window, &plan, out)
    }

    fn plan(&self, window: &Window) -> Plan {
        // EXTINF, rounded to whole seconds, must not exceed it. It must not change either, so that it does
        // not grow for a segment that rounds to it.
        let longest_s = (u64::from(window.segment_ms_longest()) + 500) / 1000;
        let target_s = u64::from(self.target_ms).div_ceil(1000).max(longest_s).max(1);
        let part_target_ms =
            self.part_target_ms.map(|target_ms| target_ms.max(window.part_ms_longest()));
        let total_ms = window.listed().map(|segment| u64::from(segment.duration_ms)).sum();
        let boundary_ms = SKIP_TARGETS * target_s * 1000;
        let mut before_ms = 0;
        let skippable = window.listed().take_while(|segment| {
            before_ms += u64::from(segment.duration_ms);
            total_ms - before_ms > boundary_ms
        });
        let wanted = self.skip && part_target_ms.is_some();
        let skipped = if wanted { skippable.count() } else { 0 };
        Plan { target_s, part_target_ms, skipped, total_ms }
    }

    fn head(&self, window: &Window, plan: &Plan, out: &mut String) -> fmt::Result {
        let version = match (plan.part_target_ms, self.names.container) {
            (Some(_), _) => 9,
            (None, Container::Fmp4) => 6,
            (None, Container::Ts) => 3,
        };
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}")?;
        if window.listed().all(|segment| segment.independent) {
            out.write_str("#EXT-X-INDEPENDENT-SEGMENTS\n")?;
        }
        writeln!(out, "#EXT-X-TARGETDURATION:{}", plan.target_s)?;
        if let Some(part_ms) = plan.part_target_ms {
            writeln!(
                out,
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},CAN-SKIP-UNTIL={}",
                Seconds(u64::from(part_ms) * u64::from(HOLD_BACK_PARTS)),
                Seconds(SKIP_TARGETS * plan.target_s * 1000),
            )?;
            writeln!(out, "#EXT-X-PART-INF:PART-TARGET={}", Seconds(part_ms.into()))?;
        }
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", window.first_sequence())?;
        if window.discontinuity_sequence() > 0 {
            writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", window.discontinuity_sequence())?;
        }
        if plan.skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={}", plan.skipped)?;
        }
        Ok(())
    }

    /// Another init segment, after a discontinuity unless it is the first.
    fn map(&self, segment: &Segment, continues: bool, out: &mut String) -> fmt::Result {
        if segment.discontinuity && continues {
            out.write_str("#EXT-X-DISCONTINUITY\n")?;
        }
        if self.names.container == Container::Fmp4 {
            out.write_str("#EXT-X-MAP:URI=\"")?;
            self.names.write(Name::Init { generation: segment.generation }, out)?;
            out.write_str("\"\n")?;
        }
        Ok(())
    }

    fn parts(&self, segment: &Segment, out: &mut String) -> fmt::Result {
        for (part, facts) in (0..).zip(&segment.parts) {
            write!(out, "#EXT-X-PART:DURATION={},URI=\"", Seconds(facts.duration_ms.into()))?;
            self.names.write(Name::Part { sequence: segment.sequence, part }, out)?;
            out.write_char('"')?;
            if facts.independent {
                out.write_str(",INDEPENDENT=YES")?;
            }
            out.write_char('\n')?;
        }
        Ok(())
    }

    fn tail(&self, window: &Window, plan: &Plan, out: &mut String) -> fmt::Result {
        if plan.part_target_ms.is_some() && !self.ended {
            let (sequence, part) = window.next_part();
            out.write_str("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"")?;
            self.names.write(Name::Part { sequence, part }, out)?;
            out.write_str("\"\n")?;
        }
        if self.ended {
            out.write_str("#EXT-X-ENDLIST\n")?;
        }
        Ok(())
    }
}

/// Milliseconds, written as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests;
