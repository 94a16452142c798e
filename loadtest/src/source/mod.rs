//! What publishers send: a synthetic stream or a looped file, one message at a time, each due at a
//! moment of the stream's own time.
//!
//! Pure: the publisher asks what is due when, and gives the clock that goes into the marker. Bodies
//! are written into a buffer of the caller, so nothing is allocated per message.

mod flv;
mod synthetic;

use crate::marker::{Marker, Wrapping};
use rtmp::session::MediaKind;

pub(crate) use flv::{FlvFile, FlvLoop};
pub(crate) use synthetic::{CodecTag, Synthetic, SyntheticConfig};

/// One message to send.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// Audio, video, or neither: a data message.
    pub(crate) kind: Option<MediaKind>,
    /// Milliseconds of the stream, wrapping at 2^32.
    pub(crate) timestamp: u32,
}

/// What is behind a marker, known before the message is made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Rest {
    bytes: u32,
    crc: u32,
}

impl Rest {
    fn of(rest: &[u8]) -> Rest {
        Rest { bytes: u32::try_from(rest.len()).unwrap_or(u32::MAX), crc: crc32fast::hash(rest) }
    }
}

/// Writes the markers of one stream: its run, and numbers per kind.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    tag: u32,
    video: u32,
    audio: u32,
}

impl Stamp {
    /// `tag` tells this run of the publisher from others.
    pub(crate) fn new(tag: u32) -> Stamp {
        Stamp { tag, video: 0, audio: 0 }
    }

    fn write(&mut self, how: Wrapping, due: Due, clock_ns: u64, rest: Rest, out: &mut Vec<u8>) {
        let sequence = match due.kind {
            Some(MediaKind::Audio) => &mut self.audio,
            _ => &mut self.video,
        };
        let marker = Marker {
            tag: self.tag,
            sequence: *sequence,
            clock_ns,
            timestamp: due.timestamp,
            rest_bytes: rest.bytes,
            rest_crc: rest.crc,
        };
        *sequence = sequence.wrapping_add(1);
        how.write(&marker, out);
    }
}

/// The media of one publisher.
#[derive(Debug)]
pub(crate) enum Source {
    /// Made here.
    Synthetic(Synthetic),
    /// Read from a file.
    Flv(FlvLoop),
}

impl Source {
    /// When the next message is due, nanoseconds since the stream began.
    pub(crate) fn due_ns(&self) -> u64 {
        match self {
            Source::Synthetic(source) => source.due_ns(),
            Source::Flv(source) => source.due_ns(),
        }
    }

    /// Replaces `out` by the body of the next message, stamped with `clock_ns`, and goes on to the
    /// one after.
    pub(crate) fn write_next(
        &mut self,
        stamp: &mut Stamp,
        clock_ns: u64,
        out: &mut Vec<u8>,
    ) -> Due {
        out.clear();
        match self {
            Source::Synthetic(source) => source.write_next(stamp, clock_ns, out),
            Source::Flv(source) => source.write_next(stamp, clock_ns, out),
        }
    }

    /// Passes over the next message as if it had been sent: its number is not used up.
    pub(crate) fn skip_next(&mut self) {
        let mut unused = Vec::new();
        self.write_next(&mut Stamp::new(0), 0, &mut unused);
    }

    /// Messages that open a stream: metadata and sequence headers, in order. Those of a file are
    /// among its messages.
    pub(crate) fn opening(&self) -> Vec<(Option<MediaKind>, Vec<u8>)> {
        match self {
            Source::Synthetic(source) => source.opening(),
            Source::Flv(_) => Vec::new(),
        }
    }
}
