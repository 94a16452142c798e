//! Deliberate violations: one change to a good playlist, one rule, one line.

use std::string::{String, ToString};

use super::{media, multivariant, renditions};

const GOOD: &str = "#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.500,CAN-SKIP-UNTIL=12.000
#EXT-X-PART-INF:PART-TARGET=0.500
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI=\"init-1.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2026-11-21T08:00:00.000Z
#EXT-X-PART:DURATION=0.500,URI=\"part-7.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.300,URI=\"part-7.1.m4s\"
#EXTINF:0.800,
seg-7.m4s
#EXT-X-DISCONTINUITY
#EXTINF:2.400,
seg-8.m4s
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-9.0.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../b/x.m3u8\",LAST-MSN=8,LAST-PART=1
";

#[test]
fn a_good_playlist_has_no_findings() {
    assert_eq!(media(GOOD), []);
}

#[test]
fn every_violation_is_found_at_its_line() {
    // What is replaced, by what, the line of the finding, the rule.
    #[rustfmt::skip]
    let rows: &[(&str, &str, usize, &str)] = &[
        ("#EXTM3U\n", "#EXTM3\n", 1, "the first line is #EXTM3U"),
        ("VERSION:9", "VERSION:x", 2, "the version is a number"),
        ("VERSION:9", "VERSION:5", 8, "the version is high enough"),
        ("#EXT-X-INDEPENDENT-SEGMENTS\n", "#EXT-X-INDEPENDENT-SEGMENTS \n", 3,
            "no white space at the end of a line"),
        ("TARGETDURATION:2\n", "TARGETDURATION:2.0\n", 4, "the target duration is an integer"),
        ("TARGETDURATION:2\n", "TARGETDURATION:1\n", 16,
            "no segment is longer than the target duration"),
        ("RELOAD=YES", "RELOAD=NO", 5, "CAN-BLOCK-RELOAD is YES or absent"),
        ("BACK=1.500", "BACK=0.900", 5, "PART-HOLD-BACK is two part targets or more"),
        ("UNTIL=12.000", "UNTIL=11.999", 5, "CAN-SKIP-UNTIL is six targets or more"),
        ("UNTIL=12.000", "UNTIL=12.000,HOLD-BACK=5.000", 5, "HOLD-BACK is three targets or more"),
        ("PART-TARGET=0.500", "PART-TARGET=x", 6, "PART-TARGET is a number"),
        ("PART-TARGET=0.500", "PART-TARGET=0.499", 10,
            "no part is longer than the part target"),
        ("SEQUENCE:7\n", "SEQUENCE:-1\n", 7, "the sequence is a number"),
        ("SEQUENCE:7\n", "SEQUENCE:7\n#EXT-X-MEDIA-SEQUENCE:7\n", 8, "the tag stands once"),
        ("URI=\"init-1.mp4\"", "URI=init-1.mp4", 8, "#EXT-X-MAP has a quoted URI"),
        ("T08:00:00.000Z", " 08:00:00.000Z", 9, "the date is ISO 8601 with a zone"),
        ("00.000Z", "00.000", 9, "the date is ISO 8601 with a zone"),
        ("DURATION=0.500,URI", "DURATION=0.500 ,URI", 10,
            "attributes are NAME=value, each name once"),
        ("DURATION=0.500,URI", "DURATION=0.500,DURATION=0.500,URI", 10,
            "attributes are NAME=value, each name once"),
        ("INDEPENDENT=YES", "INDEPENDENT=NO", 10, "INDEPENDENT is YES or absent"),
        ("DURATION=0.500,URI", "DURATION=0.400,URI", 10,
            "a part has 85 % of the part target, unless it is the last"),
        ("URI=\"part-7.1.m4s\"", "URI=\"\"", 11, "a part has a quoted URI"),
        ("EXTINF:0.800,", "EXTINF:0.800", 12, "#EXTINF is a duration, a comma, a title"),
        ("EXTINF:0.800,", "EXTINF:x,", 12, "the duration is a number"),
        ("EXTINF:0.800,", "EXTINF:0.900,", 13, "the parts are as long as their segment"),
        ("#EXTINF:2.400,\n", "", 15, "an address stands behind #EXTINF"),
        ("seg-8.m4s\n", "", 17, "each #EXTINF has its address"),
        ("#EXT-X-DISCONTINUITY\n", "#EXT-X-DISCONTINUITY:1\n", 14, "a discontinuity has no value"),
        ("#EXTINF:2.400,\n", "#EXTINF:2.400,\n#EXT-X-DISCONTINUITY\n", 16,
            "a discontinuity stands between segments"),
        ("TYPE=PART", "TYPE=SEGMENT", 17, "the hint's TYPE is PART or MAP"),
        ("LAST-MSN=8", "LAST-MSN=\"8\"", 18, "LAST-MSN is a number"),
        ("LAST-PART=1", "LAST-PART=-1", 18, "LAST-PART is a number"),
        ("URI=\"../b/x.m3u8\",", "", 18, "a report has a quoted URI"),
        ("../b/x.m3u8", "http://h/x.m3u8", 18, "the URI of a report is relative"),
        ("../b/x.m3u8", "//h/x.m3u8", 18, "the URI of a report is relative"),
        ("LAST-PART=1\n", "LAST-PART=1\n#EXT-X-RENDITION-REPORT:URI=\"../b/x.m3u8\",LAST-MSN=8\n",
            19, "each rendition is reported once"),
        ("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-9.0.m4s\"\n", "#EXT-X-ENDLIST\n", 18,
            "nothing is reported after the end"),
        ("LAST-PART=1\n", "LAST-PART=1", 1, "the last line is complete"),
        ("#EXT-X-PRELOAD-HINT", "#EXT-X-ENDLIST\n#EXT-X-PRELOAD-HINT", 18,
            "nothing is to come after the end"),
        ("#EXT-X-PROGRAM-DATE-TIME", "#EXT-X-SKIP:SKIPPED-SEGMENTS=x\n#EXT-X-PROGRAM-DATE-TIME", 9,
            "SKIPPED-SEGMENTS is a number"),
        ("#EXT-X-DISCONTINUITY\n", "#EXT-X-SKIP:SKIPPED-SEGMENTS=1\n", 14,
            "#EXT-X-SKIP stands before the first segment"),
        ("#EXT-X-DISCONTINUITY\n", "#EXT-X-STREAM-INF:BANDWIDTH=1\n", 14,
            "no tags of multivariant playlists"),
        ("seg-7.m4s", "seg\t7.m4s", 13, "no control characters"),
        ("#EXT-X-PART-INF:PART-TARGET=0.500\n", "", 9, "parts need #EXT-X-PART-INF"),
    ];
    for (old, new, line, rule) in rows {
        assert!(GOOD.contains(old), "{old}");
        let text = GOOD.replacen(old, new, 1);
        let found = media(&text);
        let hit = found.iter().any(|finding| (finding.line, finding.rule) == (*line, *rule));
        assert!(hit, "{old} -> {new}: {found:?}");
    }
}

#[test]
fn violations_between_renditions_are_found() {
    let one = GOOD.replace("../b/x.m3u8", "x.m3u8?b");
    let other = GOOD.replace("../b/x.m3u8", "x.m3u8?a");
    let judge = |one: &str, other: &str| renditions(&[("x.m3u8?a", one), ("x.m3u8?b", other)]);
    assert_eq!(judge(&one, &other), []);
    assert_eq!(renditions(&[("x.m3u8", GOOD.rsplit_once("#EXT-X-REN").unwrap().0)]), []);
    // In the first playlist: what is replaced, by what, the line of the finding, the rule.
    #[rustfmt::skip]
    let rows = [
        ("#EXT-X-RENDITION-REPORT", "#", 18, "every other rendition is reported"),
        ("URI=\"x.m3u8?b", "URI=\"x.m3u8?c", 18, "a report is of another rendition"),
        ("URI=\"x.m3u8?b", "URI=\"x.m3u8?a", 18, "a report is of another rendition"),
        ("LAST-MSN=8", "LAST-MSN=6", 18, "a report tells where its rendition ends"),
        ("LAST-MSN=8", "LAST-MSN=10", 18, "a report tells where its rendition ends"),
        (",LAST-PART=1", "", 18, "a report tells the last part of a rendition with parts"),
        ("DURATION:2\n", "DURATION:3\n", 1, "all renditions have one target duration"),
    ];
    for (old, new, line, rule) in rows {
        assert!(one.contains(old), "{old}");
        let found = judge(&one.replacen(old, new, 1), &other);
        let hit =
            found.iter().any(|(at, finding)| (*at, finding.line, finding.rule) == (0, line, rule));
        assert!(hit, "{old} -> {new}: {found:?}");
    }
}

#[test]
fn a_missing_target_duration_is_found() {
    let rules: String = media("#EXTM3U\n").iter().map(|finding| finding.rule.to_string()).collect();
    assert_eq!(rules, "there is a target duration");
}

#[test]
fn multivariant_violations_are_found() {
    let good = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a,b\",RESOLUTION=1x1\nx\n";
    assert_eq!(multivariant(good), []);
    for (old, new, line, rule) in [
        ("BANDWIDTH=1", "BANDWIDTH=x", 3, "BANDWIDTH is a number"),
        ("\"a,b\"", "ab", 3, "CODECS is quoted"),
        ("1x1", "1", 3, "RESOLUTION is WIDTHxHEIGHT"),
        ("\nx\n", "\n", 3, "each #EXT-X-STREAM-INF has its address"),
        ("\nx\n", "\nx\ny\n", 5, "an address stands behind #EXT-X-STREAM-INF"),
        ("VERSION:6", "TARGETDURATION:6", 2, "no tags of media playlists"),
    ] {
        let found = multivariant(&good.replacen(old, new, 1));
        let hit = found.iter().any(|finding| (finding.line, finding.rule) == (line, rule));
        assert!(hit, "{old} -> {new}: {found:?}");
    }
}
