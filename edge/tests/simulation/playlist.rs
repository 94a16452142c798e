//! Media playlists as a player keeps them: read, and compared with the one before.

use mux::playlist::validate;

/// Publishers here have any frame rate: a part of 200 ms may hold two pictures of 80 ms and no third.
const NOT_FOR_ANY_FRAME_RATE: &str = "a part has 85 % of the part target, unless it is the last";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub sequence: u64,
    /// Number of the discontinuities before it.
    pub discontinuity: u64,
    pub uri: String,
    /// As it is written.
    pub duration: String,
    /// Address of its init segment; none for MPEG-TS.
    pub map: Option<String>,
    pub parts: Vec<String>,
}

/// A playlist; what a delta update leaves out is put back.
#[derive(Clone, Debug, Default)]
pub struct Playlist {
    pub sequence: u64,
    pub target_s: u64,
    pub has_parts: bool,
    /// Each segment begins with a keyframe.
    pub is_independent: bool,
    pub segments: Vec<Segment>,
    /// Parts of the segment that is not complete, and the init segment and discontinuity it has.
    pub open_parts: Vec<String>,
    pub open_map: Option<String>,
    pub open_discontinuity: u64,
    pub hint: Option<String>,
    pub has_ended: bool,
}

fn number(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{value} is no number"))
}

/// A quoted value of an attribute list.
fn quoted<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let rest = line.split_once(&format!("{name}=\""))?.1;
    Some(rest.split_once('"')?.0)
}

impl Playlist {
    /// Reads and judges the text of a playlist that follows `before`.
    pub fn read(text: &str, before: Option<&Self>) -> Result<Self, String> {
        let found = validate::media(text);
        if let Some(finding) = found.iter().find(|found| found.rule != NOT_FOR_ANY_FRAME_RATE) {
            return Err(format!("{finding:?} is broken by the playlist\n{text}"));
        }
        let mut read = Self::default();
        let (mut discontinuity, mut map) = (0, None);
        let (mut duration, mut parts) = (String::new(), Vec::new());
        for line in text.lines().skip(1) {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-TARGETDURATION" => read.target_s = number(value)?,
                "#EXT-X-MEDIA-SEQUENCE" => read.sequence = number(value)?,
                "#EXT-X-DISCONTINUITY-SEQUENCE" => discontinuity = number(value)?,
                "#EXT-X-INDEPENDENT-SEGMENTS" => read.is_independent = true,
                "#EXT-X-PART-INF" => read.has_parts = true,
                "#EXT-X-DISCONTINUITY" => discontinuity += 1,
                "#EXT-X-ENDLIST" => read.has_ended = true,
                "#EXT-X-MAP" => map = quoted(line, "URI").map(str::to_owned),
                "#EXT-X-PRELOAD-HINT" => read.hint = quoted(line, "URI").map(str::to_owned),
                "#EXT-X-PART" => parts.extend(quoted(line, "URI").map(str::to_owned)),
                "#EXTINF" => duration = value.to_owned(),
                "#EXT-X-SKIP" => {
                    let count = value.strip_prefix("SKIPPED-SEGMENTS=").ok_or("skips what?")?;
                    let known = before.map_or(&[][..], |before| &before.segments);
                    let from = known.iter().position(|known| known.sequence == read.sequence);
                    let count = usize::try_from(number(count)?).expect("small");
                    let skipped = from.and_then(|from| known.get(from..from + count));
                    let skipped = skipped.ok_or("a delta update leaves out what nobody has")?;
                    read.segments = skipped.to_vec();
                    if let Some(last) = skipped.last() {
                        (discontinuity, map) = (last.discontinuity, last.map.clone());
                    }
                }
                _ if line.starts_with('#') => {}
                uri => {
                    let sequence = read.sequence + read.segments.len() as u64;
                    read.segments.push(Segment {
                        sequence,
                        discontinuity,
                        uri: uri.to_owned(),
                        duration: std::mem::take(&mut duration),
                        map: map.clone(),
                        parts: std::mem::take(&mut parts),
                    });
                }
            }
        }
        (read.open_parts, read.open_map, read.open_discontinuity) = (parts, map, discontinuity);
        read.judge_maps()?;
        if let Some(before) = before {
            read.judge_behind(before)?;
        }
        Ok(read)
    }

    /// Segment and part that come next.
    pub fn edge(&self) -> (u64, usize) {
        (self.sequence + self.segments.len() as u64, self.open_parts.len())
    }

    /// What was asked for by a blocking reload is there.
    pub fn holds(&self, sequence: u64, part: usize) -> bool {
        let (next, parts) = self.edge();
        // A part behind a segment's last is the first of the next one.
        next > sequence + 1
            || next == sequence && parts > part
            || next == sequence + 1
                && (parts > 0 || self.segments.last().is_some_and(|last| last.parts.len() > part))
    }

    /// Another init segment never comes without a discontinuity.
    fn judge_maps(&self) -> Result<(), String> {
        let open =
            (!self.open_parts.is_empty()).then_some((&self.open_map, self.open_discontinuity));
        let all = self.segments.iter().map(|segment| (&segment.map, segment.discontinuity));
        let all: Vec<_> = all.chain(open).collect();
        for two in all.windows(2) {
            if two[0].0 != two[1].0 && two[0].1 == two[1].1 {
                return Err(format!("{:?} without a discontinuity behind {:?}", two[1], two[0]));
            }
        }
        Ok(())
    }

    fn judge_behind(&self, before: &Self) -> Result<(), String> {
        if self.sequence < before.sequence || self.edge() < before.edge() {
            let (from, to) = ((before.sequence, before.edge()), (self.sequence, self.edge()));
            return Err(format!("the playlist goes back from {from:?} to {to:?}"));
        }
        if self.target_s < before.target_s {
            return Err(format!("a target of {} s shrinks to {}", before.target_s, self.target_s));
        }
        for segment in &self.segments {
            let known = before.segments.iter().find(|known| known.sequence == segment.sequence);
            // Parts are listed for the newest segments only.
            let is_same = known.is_none_or(|known| {
                let parts = segment.parts.clone();
                *segment == Segment { parts, ..known.clone() }
            });
            if !is_same {
                return Err(format!("{known:?} has become {segment:?}"));
            }
        }
        Ok(())
    }
}
