//! Judges playlists line by line, for tests and for the console of an operator.
//!
//! Knows the tags that are written here and the common ones besides; others are passed over, as a
//! client must. Shares nothing with the writer but the specification, so that it can be wrong in
//! different places. Takes any text; never panics. Spec: RFC 8216bis §4, §6.2.

mod attributes;
mod media;
mod multivariant;
mod renditions;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use media::media;
pub use multivariant::multivariant;
pub use renditions::renditions;

/// A rule that is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Line, from 1.
    pub line: usize,
    /// The rule.
    pub rule: &'static str,
}

/// Collects findings for the line that is looked at.
#[derive(Debug, Default)]
struct Findings {
    found: Vec<Finding>,
    line: usize,
}

impl Findings {
    /// Notes `rule` unless it is kept.
    fn check(&mut self, kept: bool, rule: &'static str) {
        if !kept {
            self.found.push(Finding { line: self.line, rule });
        }
    }
}

/// What concerns every playlist: first line, characters. Yields the lines that say something.
fn lines<'t>(text: &'t str, findings: &mut Findings) -> Vec<(usize, &'t str)> {
    findings.line = 1;
    findings.check(text.lines().next() == Some("#EXTM3U"), "the first line is #EXTM3U");
    findings.check(text.is_empty() || text.ends_with('\n'), "the last line is complete");
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        findings.line = number;
        findings.check(!line.contains(char::is_control), "no control characters");
        findings.check(!line.starts_with('\u{FEFF}'), "no byte order mark");
        findings.check(line.trim_end() == line, "no white space at the end of a line");
        let comment = line.starts_with('#') && !line.starts_with("#EXT");
        if number > 1 && !line.is_empty() && !comment {
            findings.check(line != "#EXTM3U", "#EXTM3U stands once");
            lines.push((number, line));
        }
    }
    lines
}

/// Tag and value of a line; no tag for an address.
fn split(line: &str) -> (Option<&str>, &str) {
    if !line.starts_with('#') {
        return (None, line);
    }
    let (tag, value) = line.split_once(':').unwrap_or((line, ""));
    (Some(tag), value)
}
