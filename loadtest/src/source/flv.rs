//! A file played over and over: its tags in order, timestamps rewritten so that each round goes on
//! where the last one ended, markers put into the frames.
//!
//! The file is read once, checked whole, and shared by all publishers of it. Messages of codecs a
//! marker cannot hide in are sent as they are. Spec: FLV 10.1 annex E.

use super::{Due, Rest, Stamp};
use crate::marker::Wrapping;
use crate::num::{MS_NS, low_u32};
use rtmp::session::MediaKind;
use rtmp::{kind, tag};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Longest file read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Length of a tag header, and of the number behind a tag.
const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;
/// How long the last message of a round lasts when nothing tells, milliseconds.
const LAST_MS: u32 = 33;

/// Why a file cannot be played.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FlvError(String);

impl fmt::Display for FlvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
struct FileTag {
    kind: Option<MediaKind>,
    timestamp: u32,
    body: Vec<u8>,
    /// Where a marker goes, and how; `None`: it does not.
    mark: Option<(usize, Wrapping, Rest)>,
}

/// The tags of a file.
#[derive(Debug)]
pub(crate) struct FlvFile {
    tags: Vec<FileTag>,
    /// Length of a round.
    round_ms: u32,
}

impl FlvFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is too long, or is no FLV file with media in it.
    pub(crate) fn open(path: &Path) -> Result<FlvFile, FlvError> {
        let error = |what: String| FlvError(format!("{}: {what}", path.display()));
        let bytes = std::fs::metadata(path).map_err(|cause| error(cause.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(error("longer than 1 GiB".into()));
        }
        let content = std::fs::read(path).map_err(|cause| error(cause.to_string()))?;
        FlvFile::parse(&content).map_err(|cause| error(cause.0))
    }

    /// Takes the content of a file apart. A tag cut off at the end is left out.
    fn parse(content: &[u8]) -> Result<FlvFile, FlvError> {
        let Some([b'F', b'L', b'V', _, _, length @ ..]) = content.first_chunk::<9>() else {
            return Err(FlvError("not an FLV file".into()));
        };
        let first = u32::from_be_bytes(*length) as usize + BACK_POINTER_BYTES;
        let mut rest = content.get(first..).unwrap_or_default();
        let mut tags = Vec::new();
        while let Some((tag, after)) = next_tag(rest) {
            tags.extend(tag);
            rest = after;
        }
        let Some(start) = tags.iter().map(|tag: &FileTag| tag.timestamp).min() else {
            return Err(FlvError("no audio or video in it".into()));
        };
        for tag in &mut tags {
            tag.timestamp -= start;
        }
        let end = tags.iter().map(|tag| tag.timestamp).max().unwrap_or(0);
        Ok(FlvFile { tags, round_ms: end.saturating_add(LAST_MS) })
    }
}

/// One tag and what follows it; `None` at the end. The tag itself is `None` when it is of no use.
fn next_tag(bytes: &[u8]) -> Option<(Option<FileTag>, &[u8])> {
    let (header, after) = bytes.split_first_chunk::<TAG_HEADER_BYTES>()?;
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    let timestamp = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
    let body = after.get(..length)?;
    let rest = after.get(length + BACK_POINTER_BYTES..).unwrap_or_default();
    let media = match header[0] & 0x1f {
        kind::VIDEO => Some(MediaKind::Video),
        kind::AUDIO => Some(MediaKind::Audio),
        kind::DATA_AMF0 => None,
        _ => return Some((None, rest)),
    };
    if body.is_empty() {
        return Some((None, rest));
    }
    let mark = media.and_then(|media| mark_of(media, body));
    Some((Some(FileTag { kind: media, timestamp, body: body.to_vec(), mark }), rest))
}

/// Where a marker may go in this body: in front of coded frames of a codec that skips it.
fn mark_of(media: MediaKind, body: &[u8]) -> Option<(usize, Wrapping, Rest)> {
    let (at, wrapping) = match media {
        MediaKind::Video => {
            let info = tag::video(body);
            let is_frame = !info.sequence_header
                && !info.end_of_sequence
                && !info.metadata
                && !info.command
                && info.multitrack == tag::Multitrack::No;
            (is_frame.then_some(info.payload_offset)?, Wrapping::of_video(info.codec)?)
        }
        MediaKind::Audio => {
            let info = tag::audio(body);
            let is_frame = !info.sequence_header
                && !info.end_of_sequence
                && info.multitrack == tag::Multitrack::No;
            (is_frame.then_some(info.payload_offset)?, Wrapping::of_audio(info.codec)?)
        }
    };
    Some((at, wrapping, Rest::of(body.get(at..)?)))
}

/// One publisher's place in a file.
#[derive(Clone, Debug)]
pub(crate) struct FlvLoop {
    file: Arc<FlvFile>,
    next: usize,
    round: u64,
}

impl FlvLoop {
    /// Starts at the beginning.
    pub(crate) fn new(file: Arc<FlvFile>) -> FlvLoop {
        FlvLoop { file, next: 0, round: 0 }
    }

    fn due_ms(&self) -> u64 {
        let within = self.file.tags[self.next].timestamp;
        self.round * u64::from(self.file.round_ms) + u64::from(within)
    }

    /// See [`Source::due_ns`](super::Source::due_ns).
    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ms() * MS_NS
    }

    /// See [`Source::write_next`](super::Source::write_next).
    pub(crate) fn write_next(
        &mut self,
        stamp: &mut Stamp,
        clock_ns: u64,
        out: &mut Vec<u8>,
    ) -> Due {
        let tag = &self.file.tags[self.next];
        let due = Due { kind: tag.kind, timestamp: low_u32(self.due_ms()) };
        match tag.mark {
            Some((at, wrapping, rest)) => {
                out.extend_from_slice(&tag.body[..at]);
                stamp.write(wrapping, due, clock_ns, rest, out);
                out.extend_from_slice(&tag.body[at..]);
            }
            None => out.extend_from_slice(&tag.body),
        }
        self.next += 1;
        if self.next == self.file.tags.len() {
            (self.next, self.round) = (0, self.round + 1);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker;

    fn file(tags: &[(u8, u32, &[u8])]) -> Vec<u8> {
        let mut content = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        for (kind, timestamp, body) in tags {
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            let time = timestamp.to_be_bytes();
            content.extend_from_slice(&[*kind, length[1], length[2], length[3]]);
            content.extend_from_slice(&[time[1], time[2], time[3], time[0], 0, 0, 0]);
            content.extend_from_slice(body);
            content.extend_from_slice(&[0; 4]);
        }
        content
    }

    fn send_all(content: &[u8], count: usize) -> Vec<(Due, Vec<u8>)> {
        let mut source = FlvLoop::new(Arc::new(FlvFile::parse(content).unwrap()));
        let mut stamp = Stamp::new(3);
        let mut next = || {
            let mut body = Vec::new();
            (source.write_next(&mut stamp, 1, &mut body), body)
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn rounds_follow_each_other_without_a_step_back() {
        let frame: &[u8] = &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41];
        let content = file(&[(9, 5000, frame), (8, 5020, &[0xaf, 1, 7]), (9, 5033, frame)]);
        let times: Vec<_> =
            send_all(&content, 5).into_iter().map(|(due, _)| due.timestamp).collect();
        assert_eq!(times, [0, 20, 33, 66, 86]);
    }

    #[test]
    fn frames_are_marked_and_otherwise_unchanged_and_headers_are_left_alone() {
        let header: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 3];
        let frame: &[u8] = &[0x27, 1, 0, 0, 0, 0, 0, 0, 1, 0x41];
        let content = file(&[(9, 0, header), (9, 0, frame), (8, 1, &[0xaf, 1, 7, 8])]);
        let sent = send_all(&content, 3);
        assert_eq!(sent[0].1, header);
        let found = marker::of_video(&sent[1].1).unwrap();
        assert_eq!(sent[1].1[..5], frame[..5]);
        assert_eq!(sent[1].1[found.rest_at..], frame[5..]);
        let found = marker::of_audio(&sent[2].1).unwrap();
        assert_eq!(sent[2].1[found.rest_at..], [7, 8]);
        assert_eq!(found.marker.rest_crc, crc32fast::hash(&[7, 8]));
    }

    #[test]
    fn what_is_no_flv_file_is_refused_and_a_torn_end_is_not() {
        assert!(FlvFile::parse(b"RIFF....").is_err());
        assert!(FlvFile::parse(&file(&[])).is_err());
        let mut content = file(&[(8, 0, &[0xaf, 1, 7]), (8, 20, &[0xaf, 1, 7])]);
        content.truncate(content.len() - 6);
        assert_eq!(FlvFile::parse(&content).unwrap().tags.len(), 1);
    }
}
