//! Rules of media playlists (RFC 8216bis §4.4.2-4.4.5).

use alloc::vec::Vec;

use super::attributes::{Attributes, integer, millis};
use super::{Finding, Findings, lines, split};

const ATTRIBUTES: &str = "attributes are NAME=value, each name once";
/// EXTINF and the parts of a segment may differ by this, in milliseconds: a rounding for each.
const SUM_TOLERANCE_MS: u64 = 20;

/// What was seen so far.
#[derive(Default)]
struct State<'t> {
    findings: Findings,
    version: Option<u64>,
    version_needed: (u64, usize),
    target_ms: Option<u64>,
    part_target_ms: Option<u64>,
    part_hold_back_ms: Option<u64>,
    server_control: Option<usize>,
    once: Vec<&'static str>,
    /// EXTINF that waits for its address.
    extinf_ms: Option<u64>,
    segments: u64,
    skipped: bool,
    /// Parts of the segment that is being listed: length and line.
    parts: Vec<(u64, usize)>,
    durations_ms: Vec<(u64, usize)>,
    hint: bool,
    reported: Vec<&'t str>,
    ended: bool,
}

/// Checks a media playlist. Empty if nothing is wrong.
pub fn media(text: &str) -> Vec<Finding> {
    let mut state = State::default();
    for (number, line) in lines(text, &mut state.findings) {
        state.findings.line = number;
        match split(line) {
            (None, _) => state.address(),
            (Some(tag), value) => state.tag(tag, value),
        }
    }
    state.end();
    state.findings.found
}

impl<'t> State<'t> {
    fn tag(&mut self, tag: &str, value: &'t str) {
        match tag {
            "#EXT-X-VERSION" => {
                self.once("#EXT-X-VERSION");
                self.version = integer(value);
                self.findings.check(self.version.is_some(), "the version is a number");
            }
            "#EXT-X-TARGETDURATION" => {
                self.once("#EXT-X-TARGETDURATION");
                self.target_ms = integer(value).map(|seconds| seconds.saturating_mul(1000));
                self.findings.check(self.target_ms.is_some(), "the target duration is an integer");
            }
            "#EXT-X-MEDIA-SEQUENCE" => self.sequence("#EXT-X-MEDIA-SEQUENCE", value),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                self.sequence("#EXT-X-DISCONTINUITY-SEQUENCE", value);
            }
            "#EXT-X-INDEPENDENT-SEGMENTS" => self.once("#EXT-X-INDEPENDENT-SEGMENTS"),
            "#EXTINF" => self.extinf(value),
            "#EXT-X-PROGRAM-DATE-TIME" => {
                self.findings.check(is_date(value), "the date is ISO 8601 with a zone");
            }
            "#EXT-X-MAP" => self.map(value),
            "#EXT-X-SERVER-CONTROL" => self.server_control(value),
            "#EXT-X-PART-INF" => self.part_inf(value),
            "#EXT-X-PART" => self.part(value),
            "#EXT-X-PRELOAD-HINT" => self.hint(value),
            "#EXT-X-RENDITION-REPORT" => self.report(value),
            "#EXT-X-SKIP" => self.skip(value),
            "#EXT-X-DISCONTINUITY" => {
                self.findings.check(value.is_empty(), "a discontinuity has no value");
                let clean = self.parts.is_empty() && self.extinf_ms.is_none();
                self.findings.check(clean, "a discontinuity stands between segments");
            }
            "#EXT-X-ENDLIST" => {
                self.once("#EXT-X-ENDLIST");
                self.ended = true;
            }
            "#EXT-X-STREAM-INF" | "#EXT-X-MEDIA" | "#EXT-X-I-FRAME-STREAM-INF" => {
                self.findings.check(false, "no tags of multivariant playlists");
            }
            _ => {}
        }
    }

    fn once(&mut self, tag: &'static str) {
        self.findings.check(!self.once.contains(&tag), "the tag stands once");
        self.once.push(tag);
    }

    fn needs_version(&mut self, version: u64) {
        if version > self.version_needed.0 {
            self.version_needed = (version, self.findings.line);
        }
    }

    fn sequence(&mut self, tag: &'static str, value: &str) {
        self.once(tag);
        self.findings.check(integer(value).is_some(), "the sequence is a number");
        let first = self.segments == 0 && self.parts.is_empty();
        self.findings.check(first, "sequences stand before the first segment");
    }

    fn extinf(&mut self, value: &str) {
        self.findings.check(self.extinf_ms.is_none(), "each #EXTINF has its address");
        let Some((duration, _title)) = value.split_once(',') else {
            return self.findings.check(false, "#EXTINF is a duration, a comma, a title");
        };
        let duration_ms = millis(duration);
        self.findings.check(duration_ms.is_some(), "the duration is a number");
        if duration.contains('.') {
            self.needs_version(3);
        }
        self.extinf_ms = duration_ms.or(Some(0));
    }

    fn address(&mut self) {
        let Some(duration_ms) = self.extinf_ms.take() else {
            return self.findings.check(false, "an address stands behind #EXTINF");
        };
        self.segments += 1;
        self.durations_ms.push((duration_ms, self.findings.line));
        if !self.parts.is_empty() {
            let sum_ms: u64 = self.parts.iter().map(|(part_ms, _)| part_ms).sum();
            let near = sum_ms.abs_diff(duration_ms) <= SUM_TOLERANCE_MS;
            self.findings.check(near, "the parts are as long as their segment");
            self.parts_done();
        }
        self.findings.check(!self.hint, "the preload hint is the last thing to come");
    }

    /// All parts but a segment's last are nearly as long as the target.
    fn parts_done(&mut self) {
        let line = self.findings.line;
        let target_ms = self.part_target_ms.unwrap_or(0);
        let last = self.parts.len().saturating_sub(1);
        for (at, (part_ms, part_line)) in self.parts.drain(..).enumerate() {
            self.findings.line = part_line;
            let long = at == last || part_ms * 100 >= target_ms * 85;
            self.findings.check(long, "a part has 85 % of the part target, unless it is the last");
        }
        self.findings.line = line;
    }

    fn map(&mut self, value: &str) {
        // In a playlist that is not one of I-frames only.
        self.needs_version(6);
        let attributes = Attributes::parse(value);
        let uri = attributes.as_ref().and_then(|attributes| attributes.quoted("URI"));
        self.findings.check(uri.is_some(), "#EXT-X-MAP has a quoted URI");
    }

    fn server_control(&mut self, value: &str) {
        self.once("#EXT-X-SERVER-CONTROL");
        self.server_control = Some(self.findings.line);
        let Some(attributes) = Attributes::parse(value) else {
            return self.findings.check(false, ATTRIBUTES);
        };
        let blocks = attributes.yes_or_absent("CAN-BLOCK-RELOAD");
        self.findings.check(blocks, "CAN-BLOCK-RELOAD is YES or absent");
        self.part_hold_back_ms = attributes.millis("PART-HOLD-BACK");
        let Some(target_ms) = self.target_ms else { return };
        if attributes.value("CAN-SKIP-UNTIL").is_some() {
            let until_ms = attributes.millis("CAN-SKIP-UNTIL").unwrap_or(0);
            self.findings.check(until_ms >= 6 * target_ms, "CAN-SKIP-UNTIL is six targets or more");
        }
        if attributes.value("HOLD-BACK").is_some() {
            let back_ms = attributes.millis("HOLD-BACK").unwrap_or(0);
            self.findings.check(back_ms >= 3 * target_ms, "HOLD-BACK is three targets or more");
        }
    }

    fn part_inf(&mut self, value: &str) {
        self.once("#EXT-X-PART-INF");
        let attributes = Attributes::parse(value).unwrap_or_default();
        self.part_target_ms = attributes.millis("PART-TARGET");
        self.findings.check(self.part_target_ms.is_some(), "PART-TARGET is a number");
    }

    fn part(&mut self, value: &str) {
        let Some(target_ms) = self.part_target_ms else {
            return self.findings.check(false, "parts need #EXT-X-PART-INF");
        };
        let Some(attributes) = Attributes::parse(value) else {
            return self.findings.check(false, ATTRIBUTES);
        };
        self.findings.check(attributes.quoted("URI").is_some(), "a part has a quoted URI");
        let independent = attributes.yes_or_absent("INDEPENDENT");
        self.findings.check(independent, "INDEPENDENT is YES or absent");
        let duration_ms = attributes.millis("DURATION");
        self.findings.check(duration_ms.is_some(), "a part has a DURATION");
        let duration_ms = duration_ms.unwrap_or(0);
        self.findings.check(duration_ms <= target_ms, "no part is longer than the part target");
        self.findings.check(self.extinf_ms.is_none(), "parts stand before their #EXTINF");
        self.parts.push((duration_ms, self.findings.line));
    }

    fn hint(&mut self, value: &str) {
        let attributes = Attributes::parse(value).unwrap_or_default();
        let known = matches!(attributes.value("TYPE"), Some("PART" | "MAP"));
        self.findings.check(known, "the hint's TYPE is PART or MAP");
        self.findings.check(attributes.quoted("URI").is_some(), "the hint has a quoted URI");
        self.findings.check(!self.ended, "nothing is to come after the end");
        self.hint = true;
    }

    fn report(&mut self, value: &'t str) {
        let attributes = Attributes::parse(value).unwrap_or_default();
        let uri = attributes.quoted("URI");
        self.findings.check(uri.is_some(), "a report has a quoted URI");
        let uri = uri.unwrap_or_default();
        self.findings.check(is_relative(uri), "the URI of a report is relative");
        self.findings.check(!self.reported.contains(&uri), "each rendition is reported once");
        self.reported.push(uri);
        for (name, rule) in
            [("LAST-MSN", "LAST-MSN is a number"), ("LAST-PART", "LAST-PART is a number")]
        {
            let is_number = attributes.value(name).is_none() || attributes.integer(name).is_some();
            self.findings.check(is_number, rule);
        }
        self.findings.check(!self.ended, "nothing is reported after the end");
    }

    fn skip(&mut self, value: &str) {
        self.once("#EXT-X-SKIP");
        self.needs_version(9);
        self.skipped = true;
        let attributes = Attributes::parse(value).unwrap_or_default();
        let count = attributes.integer("SKIPPED-SEGMENTS");
        self.findings.check(count.is_some(), "SKIPPED-SEGMENTS is a number");
        let first = self.segments == 0 && self.parts.is_empty();
        self.findings.check(first, "#EXT-X-SKIP stands before the first segment");
        self.findings.check(self.server_control.is_some(), "skipping needs #EXT-X-SERVER-CONTROL");
    }

    /// What can only be judged at the end.
    fn end(&mut self) {
        self.findings.check(self.extinf_ms.is_none(), "each #EXTINF has its address");
        self.findings.check(self.target_ms.is_some(), "there is a target duration");
        let (needed, line) = self.version_needed;
        if needed > self.version.unwrap_or(1) {
            self.findings.found.push(Finding { line, rule: "the version is high enough" });
        }
        let target_ms = self.target_ms.unwrap_or(u64::MAX);
        for &(duration_ms, line) in &self.durations_ms {
            // Rounded to whole seconds it must not exceed the target.
            if (duration_ms + 500) / 1000 * 1000 > target_ms {
                let rule = "no segment is longer than the target duration";
                self.findings.found.push(Finding { line, rule });
            }
        }
        if let Some(part_target_ms) = self.part_target_ms {
            let back_ms = self.part_hold_back_ms.unwrap_or(0);
            self.findings.line = self.server_control.unwrap_or(self.findings.line);
            let far = back_ms >= 2 * part_target_ms;
            self.findings.check(far, "PART-HOLD-BACK is two part targets or more");
        }
    }
}

/// No scheme and no host (RFC 3986 §4.2): a path, as it is relative to the playlist.
fn is_relative(uri: &str) -> bool {
    let end = uri.find(['/', '?', '#']).unwrap_or(uri.len());
    let first = uri.get(..end).unwrap_or_default();
    !uri.starts_with("//") && !first.contains(':')
}

/// `YYYY-MM-DDThh:mm:ss[.fff]Z` or with an offset.
fn is_date(text: &str) -> bool {
    let shape = text.bytes().take(19).map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    let zone = text
        .get(19..)
        .unwrap_or_default()
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let offset = zone.len() == 6
        && zone.starts_with(['+', '-'])
        && zone.bytes().skip(1).all(|byte| byte.is_ascii_digit() || byte == b':');
    shape.eq(b"0000-00-00T00:00:00".iter().copied()) && (zone == "Z" || offset)
}
