//! Rules of multivariant playlists (RFC 8216bis §4.4.6).

use alloc::vec::Vec;

use super::attributes::{Attributes, integer};
use super::{Finding, Findings, lines, split};

/// Checks a multivariant playlist. Empty if nothing is wrong.
pub fn multivariant(text: &str) -> Vec<Finding> {
    let mut findings = Findings::default();
    let lines = lines(text, &mut findings);
    let mut wants_address = false;
    let mut variants = 0_usize;
    for (number, line) in lines {
        findings.line = number;
        match split(line) {
            (None, _) => {
                findings.check(wants_address, "an address stands behind #EXT-X-STREAM-INF");
                wants_address = false;
            }
            (Some("#EXT-X-STREAM-INF"), value) => {
                findings.check(!wants_address, "each #EXT-X-STREAM-INF has its address");
                stream_inf(value, &mut findings);
                wants_address = true;
                variants += 1;
            }
            (Some("#EXT-X-VERSION"), value) => {
                findings.check(integer(value).is_some(), "the version is a number");
            }
            (Some("#EXT-X-TARGETDURATION" | "#EXTINF" | "#EXT-X-PART" | "#EXT-X-ENDLIST"), _) => {
                findings.check(false, "no tags of media playlists");
            }
            _ => findings.check(!wants_address, "each #EXT-X-STREAM-INF has its address"),
        }
    }
    findings.check(!wants_address, "each #EXT-X-STREAM-INF has its address");
    findings.check(variants > 0, "there is a variant");
    findings.found
}

fn stream_inf(value: &str, findings: &mut Findings) {
    let Some(attributes) = Attributes::parse(value) else {
        return findings.check(false, "attributes are NAME=value, each name once");
    };
    findings.check(attributes.integer("BANDWIDTH").is_some(), "BANDWIDTH is a number");
    let codecs = attributes.value("CODECS").is_none() || attributes.quoted("CODECS").is_some();
    findings.check(codecs, "CODECS is quoted");
    let resolution = attributes.value("RESOLUTION").is_none_or(|size| {
        size.split_once('x').is_some_and(|(w, h)| integer(w).is_some() && integer(h).is_some())
    });
    findings.check(resolution, "RESOLUTION is WIDTHxHEIGHT");
}
