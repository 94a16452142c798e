//! What concerns the media playlists of one multivariant playlist together (RFC 8216bis §4.4.5.4, §6.2.4,
//! appendix B.1).

use alloc::vec::Vec;

use super::attributes::{Attributes, integer};
use super::{Finding, split};

/// Playlists are not read in the same moment: a report may be off by so many segments.
const MSN_TOLERANCE: u64 = 1;

/// What is compared.
struct Facts<'t> {
    uri: &'t str,
    target_s: Option<u64>,
    has_parts: bool,
    is_ended: bool,
    first_msn: u64,
    segments: u64,
    has_open_parts: bool,
    /// Line, address, last segment, last part.
    reports: Vec<(usize, &'t str, Option<u64>, Option<u64>)>,
    lines: usize,
}

impl Facts<'_> {
    /// The segment its last part, or itself as a whole, is in.
    fn last_msn(&self) -> u64 {
        let listed = self.segments + u64::from(self.has_open_parts);
        self.first_msn.saturating_add(listed).saturating_sub(1)
    }
}

/// Checks the media playlists of one stream against each other, each with its address as the multivariant
/// playlist has it. Yields the number of the playlist with each finding. Each must also pass
/// [`media`](super::media) on its own.
pub fn renditions(playlists: &[(&str, &str)]) -> Vec<(usize, Finding)> {
    let facts: Vec<Facts<'_>> = playlists.iter().map(|(uri, text)| read(uri, text)).collect();
    let mut found = Vec::new();
    for (at, one) in facts.iter().enumerate() {
        let mut check = |kept: bool, line: usize, rule: &'static str| {
            if !kept {
                found.push((at, Finding { line, rule }));
            }
        };
        let same = facts.iter().all(|other| other.target_s == one.target_s);
        check(same, 1, "all renditions have one target duration");
        for &(line, uri, msn, part) in &one.reports {
            let Some(other) = facts.iter().find(|other| other.uri == uri && other.uri != one.uri)
            else {
                check(false, line, "a report is of another rendition");
                continue;
            };
            // What is left out is as in the playlist that has the report.
            let msn = msn.unwrap_or_else(|| one.last_msn());
            let near = msn.abs_diff(other.last_msn()) <= MSN_TOLERANCE;
            check(near, line, "a report tells where its rendition ends");
            let tells = part.is_some() || !other.has_parts;
            check(tells, line, "a report tells the last part of a rendition with parts");
        }
        for other in facts.iter().filter(|other| other.uri != one.uri) {
            let needs = one.has_parts && !one.is_ended;
            let is_told = one.reports.iter().any(|(_, uri, ..)| *uri == other.uri);
            check(!needs || is_told, one.lines, "every other rendition is reported");
        }
    }
    found
}

fn read<'t>(uri: &'t str, text: &'t str) -> Facts<'t> {
    let mut facts = Facts {
        uri,
        target_s: None,
        has_parts: false,
        is_ended: false,
        first_msn: 0,
        segments: 0,
        has_open_parts: false,
        reports: Vec::new(),
        lines: text.lines().count(),
    };
    for (line, (tag, value)) in (1..).zip(text.lines().map(split)) {
        match tag {
            Some("#EXT-X-TARGETDURATION") => facts.target_s = integer(value),
            Some("#EXT-X-PART-INF") => facts.has_parts = true,
            Some("#EXT-X-MEDIA-SEQUENCE") => facts.first_msn = integer(value).unwrap_or(0),
            Some("#EXT-X-ENDLIST") => facts.is_ended = true,
            Some("#EXT-X-PART") => facts.has_open_parts = true,
            Some("#EXTINF") => {
                facts.segments += 1;
                facts.has_open_parts = false;
            }
            Some("#EXT-X-SKIP") => {
                let attributes = Attributes::parse(value).unwrap_or_default();
                facts.segments += attributes.integer("SKIPPED-SEGMENTS").unwrap_or(0);
            }
            Some("#EXT-X-RENDITION-REPORT") => {
                let attributes = Attributes::parse(value).unwrap_or_default();
                let uri = attributes.quoted("URI").unwrap_or_default();
                let (msn, part) = (attributes.integer("LAST-MSN"), attributes.integer("LAST-PART"));
                facts.reports.push((line, uri, msn, part));
            }
            _ => {}
        }
    }
    facts
}
