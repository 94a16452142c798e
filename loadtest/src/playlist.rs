//! Playlists as a player reads them: variants, or segments, parts and what is to come.
//!
//! Borrows from the text; keeps nothing. Unknown tags are passed over, as the specification wants; a
//! playlist that lacks what a player needs is an error with a name. Spec: RFC 8216bis.

use std::fmt;

/// Longest playlist read.
pub(crate) const PLAYLIST_BYTES_MAX: usize = 4 << 20;
/// Most segments, and most parts of one, that are remembered: the last ones.
const SEGMENTS_MAX: usize = 1024;
const PARTS_MAX: usize = 4096;
/// Longest duration believed, seconds.
const DURATION_MAX: f64 = 86_400.0;

/// Either kind.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Playlist<'t> {
    /// Addresses of the variants, in order.
    Variants(Vec<&'t str>),
    Media(MediaList<'t>),
}

/// Segments of one rendition.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct MediaList<'t> {
    pub(crate) target_ms: u32,
    /// Parts are listed, and reloads may wait for the next.
    pub(crate) part_target_ms: Option<u32>,
    pub(crate) can_block: bool,
    pub(crate) can_skip: bool,
    /// How far from the end a player of parts, and one of segments, keeps.
    pub(crate) part_hold_back_ms: Option<u32>,
    pub(crate) hold_back_ms: Option<u32>,
    pub(crate) segments: Vec<Segment<'t>>,
    /// The part that comes next.
    pub(crate) hint: Option<&'t str>,
    pub(crate) ended: bool,
}

/// A segment, or as much of one as there is.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Segment<'t> {
    pub(crate) msn: u64,
    /// `None`: it is not complete.
    pub(crate) uri: Option<&'t str>,
    pub(crate) duration_ms: u32,
    /// Its init segment, as far as the playlist says.
    pub(crate) map: Option<&'t str>,
    pub(crate) parts: Vec<Part<'t>>,
}

/// A part of a segment.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Part<'t> {
    pub(crate) uri: &'t str,
    pub(crate) duration_ms: u32,
    pub(crate) independent: bool,
}

/// Why a text is no playlist for a player.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlaylistError(&'static str);

impl fmt::Display for PlaylistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "playlist: {}", self.0)
    }
}

/// Reads a playlist of either kind.
///
/// # Errors
/// It is none, or lacks what a player needs.
pub(crate) fn parse(text: &str) -> Result<Playlist<'_>, PlaylistError> {
    let mut lines = text.lines().map(str::trim_end);
    if lines.next().map(|line| line.trim_start_matches('\u{feff}')) != Some("#EXTM3U") {
        return Err(PlaylistError("does not begin with #EXTM3U"));
    }
    if text.contains("\n#EXT-X-STREAM-INF:") {
        return variants(lines).map(Playlist::Variants);
    }
    let mut reader = Reader::default();
    for line in lines {
        reader.line(line)?;
    }
    reader.finish().map(Playlist::Media)
}

fn variants<'t>(lines: impl Iterator<Item = &'t str>) -> Result<Vec<&'t str>, PlaylistError> {
    let mut is_variant = false;
    let mut found = Vec::new();
    for line in lines {
        match line {
            _ if line.starts_with("#EXT-X-STREAM-INF:") => is_variant = true,
            _ if line.is_empty() || line.starts_with('#') => {}
            uri => {
                if std::mem::take(&mut is_variant) {
                    found.push(uri);
                }
            }
        }
    }
    if found.is_empty() { Err(PlaylistError("has no variant")) } else { Ok(found) }
}

#[derive(Default)]
struct Reader<'t> {
    list: MediaList<'t>,
    sequence: u64,
    /// The segment under way.
    open: Segment<'t>,
    map: Option<&'t str>,
    has_target: bool,
}

impl<'t> Reader<'t> {
    fn line(&mut self, line: &'t str) -> Result<(), PlaylistError> {
        if line.is_empty() {
            return Ok(());
        }
        if !line.starts_with('#') {
            return self.segment(line);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name {
            "#EXT-X-TARGETDURATION" => {
                let seconds = value.trim().parse::<f64>().ok().and_then(milliseconds);
                self.list.target_ms = seconds.ok_or(PlaylistError("no target duration"))?;
                self.has_target = true;
            }
            "#EXT-X-MEDIA-SEQUENCE" => {
                let number = value.trim().parse().ok();
                self.sequence = number.ok_or(PlaylistError("no media sequence number"))?;
            }
            "#EXT-X-SKIP" => {
                let number =
                    attribute(value, "SKIPPED-SEGMENTS").and_then(|text| text.parse().ok());
                let skipped: u64 = number.ok_or(PlaylistError("a skip of nothing"))?;
                self.sequence = self.sequence.saturating_add(skipped);
            }
            "#EXT-X-SERVER-CONTROL" => {
                self.list.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES");
                self.list.can_skip = attribute(value, "CAN-SKIP-UNTIL").is_some();
                self.list.part_hold_back_ms = duration(value, "PART-HOLD-BACK");
                self.list.hold_back_ms = duration(value, "HOLD-BACK");
            }
            "#EXT-X-PART-INF" => {
                let target = duration(value, "PART-TARGET");
                self.list.part_target_ms = Some(target.ok_or(PlaylistError("no part target"))?);
            }
            "#EXT-X-MAP" => {
                let uri = attribute(value, "URI").ok_or(PlaylistError("a map without address"))?;
                whole(value)?;
                self.map = Some(uri);
            }
            "#EXTINF" => {
                let seconds = value.split(',').next().and_then(|text| text.trim().parse().ok());
                let length = seconds.and_then(milliseconds);
                self.open.duration_ms = length.ok_or(PlaylistError("a segment without length"))?;
            }
            "#EXT-X-PART" => self.part(value)?,
            "#EXT-X-PRELOAD-HINT" if attribute(value, "TYPE") == Some("PART") => {
                self.list.hint = attribute(value, "URI");
            }
            "#EXT-X-BYTERANGE" => return Err(PlaylistError("has byte ranges")),
            "#EXT-X-ENDLIST" => self.list.ended = true,
            _ => {}
        }
        Ok(())
    }

    fn part(&mut self, value: &'t str) -> Result<(), PlaylistError> {
        whole(value)?;
        let uri = attribute(value, "URI").ok_or(PlaylistError("a part without address"))?;
        let duration_ms =
            duration(value, "DURATION").ok_or(PlaylistError("a part without length"))?;
        let independent = attribute(value, "INDEPENDENT") == Some("YES");
        if self.open.parts.len() >= PARTS_MAX {
            return Err(PlaylistError("has too many parts"));
        }
        self.open.parts.push(Part { uri, duration_ms, independent });
        Ok(())
    }

    fn segment(&mut self, uri: &'t str) -> Result<(), PlaylistError> {
        let mut segment = std::mem::take(&mut self.open);
        (segment.msn, segment.uri, segment.map) = (self.sequence, Some(uri), self.map);
        self.sequence += 1;
        if self.list.segments.len() >= SEGMENTS_MAX {
            self.list.segments.remove(0);
        }
        self.list.segments.push(segment);
        Ok(())
    }

    fn finish(mut self) -> Result<MediaList<'t>, PlaylistError> {
        if !self.has_target {
            return Err(PlaylistError("no target duration"));
        }
        if !self.open.parts.is_empty() {
            let mut open = std::mem::take(&mut self.open);
            (open.msn, open.map) = (self.sequence, self.map);
            open.duration_ms = open.parts.iter().map(|part| part.duration_ms).sum();
            self.list.segments.push(open);
        }
        Ok(self.list)
    }
}

fn whole(attributes: &str) -> Result<(), PlaylistError> {
    let is_range = attribute(attributes, "BYTERANGE").is_some();
    if is_range { Err(PlaylistError("has byte ranges")) } else { Ok(()) }
}

/// The value of an attribute, without its quotes.
fn attribute<'t>(list: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = list;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"')?;
                (value, after.strip_prefix(',').unwrap_or(after))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = after;
    }
    None
}

fn duration(list: &str, name: &str) -> Option<u32> {
    attribute(list, name)?.parse().ok().and_then(milliseconds)
}

fn milliseconds(seconds: f64) -> Option<u32> {
    let is_sound = seconds.is_finite() && (0.0..=DURATION_MAX).contains(&seconds);
    is_sound.then(|| crate::num::whole_u32(seconds * 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW_LATENCY: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.660,CAN-SKIP-UNTIL=12.000\n\
        #EXT-X-PART-INF:PART-TARGET=0.220\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-11-21T00:00:00.000Z\n#EXTINF:2.000,\nx/seg-9.m4s?a=1,2\n\
        #EXT-X-MAP:URI=\"init-2.mp4\"\n\
        #EXT-X-PART:DURATION=0.200,URI=\"part-10.0.m4s?a=1,2\",INDEPENDENT=YES\r\n\
        #EXT-X-PART:DURATION=0.180,URI=\"part-10.1.m4s\"\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part-10.2.m4s\"\n\
        #EXT-X-RENDITION-REPORT:URI=\"y\",LAST-MSN=3\n";

    fn media(text: &str) -> MediaList<'_> {
        match parse(text).unwrap() {
            Playlist::Media(list) => list,
            Playlist::Variants(_) => panic!("variants"),
        }
    }

    #[test]
    fn a_low_latency_playlist_tells_what_is_there_and_what_comes() {
        let list = media(LOW_LATENCY);
        assert_eq!((list.target_ms, list.part_target_ms), (2000, Some(220)));
        assert_eq!((list.part_hold_back_ms, list.hold_back_ms), (Some(660), None));
        assert!(list.can_block && list.can_skip && !list.ended);
        let [whole, open] = &list.segments[..] else { panic!("{:?}", list.segments) };
        assert_eq!((whole.msn, whole.uri, whole.map), (9, Some("x/seg-9.m4s?a=1,2"), None));
        assert_eq!((open.msn, open.uri, open.map), (10, None, Some("init-2.mp4")));
        assert_eq!((open.duration_ms, open.parts.len()), (380, 2));
        assert_eq!(open.parts[0].uri, "part-10.0.m4s?a=1,2");
        assert!(open.parts[0].independent && !open.parts[1].independent);
        assert_eq!(list.hint, Some("part-10.2.m4s"));
    }

    #[test]
    fn what_our_own_writer_writes_is_read() {
        use mux::playlist::window::{Window, WindowSettings};
        use mux::playlist::{MediaPlaylist, Names};
        use mux::segment::{Container, Event};
        let mut window = Window::new(WindowSettings::default());
        for sequence in 0..9 {
            let (generation, discontinuity, independent, date_ms) = (1, false, true, 0);
            window.apply(&Event::Begin {
                sequence,
                generation,
                discontinuity,
                independent,
                date_ms,
            });
            for part in 0..5 {
                let (bytes, sound) = (0..1, 0..0);
                let (independent, duration_ms) = (part == 0, 400);
                let event = Event::Part { sequence, part, duration_ms, independent, bytes, sound };
                window.apply(&event);
            }
            window.apply(&Event::End { sequence, duration_ms: 2000 });
        }
        for part_target_ms in [None, Some(440)] {
            let names = Names { container: Container::Fmp4, prefix: "", query: "s=1" };
            let mut text = String::new();
            let (target_ms, ended, skip) = (2000, true, false);
            let list = MediaPlaylist { target_ms, part_target_ms, ended, skip, names };
            list.write(&window, &mut text);
            let list = media(&text);
            assert_eq!((list.segments.len(), list.segments[0].msn, list.ended), (6, 3, true));
            assert_eq!(list.segments[5].uri, Some("seg-8.m4s?s=1"));
            assert!(list.segments.iter().all(|one| one.map == Some("init-1.mp4?s=1")));
            let parts = if part_target_ms.is_some() { 5 } else { 0 };
            assert_eq!((list.segments[5].parts.len(), list.segments[5].msn), (parts, 8));
        }
    }

    #[test]
    fn variants_are_found_in_order() {
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a,b\"\na.m3u8\n\n\
            #EXT-X-STREAM-INF:BANDWIDTH=2\n# a remark\nb.m3u8\n";
        assert_eq!(parse(text), Ok(Playlist::Variants(vec!["a.m3u8", "b.m3u8"])));
    }

    #[test]
    fn what_lacks_something_is_named() {
        let head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
        for (text, word) in [
            (String::new(), "#EXTM3U"),
            ("<html>".into(), "#EXTM3U"),
            ("#EXTM3U\n".into(), "target duration"),
            ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n".into(), "no variant"),
            (format!("{head}#EXT-X-TARGETDURATION:nan\n"), "target duration"),
            (format!("{head}#EXTINF:-1,\na\n"), "without length"),
            (format!("{head}#EXT-X-BYTERANGE:1\n"), "byte ranges"),
            (format!("{head}#EXT-X-PART:DURATION=1,URI=\"a\",BYTERANGE=\"1@0\"\n"), "byte ranges"),
            (format!("{head}#EXT-X-PART:URI=\"a\"\n"), "part without length"),
            (format!("{head}#EXT-X-MEDIA-SEQUENCE:x\n"), "sequence"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
