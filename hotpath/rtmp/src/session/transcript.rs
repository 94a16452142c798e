//! One direction of a connection as text, one line per message: for golden tests and for inspection.
//!
//! ```text
//!   handshake version 3
//!   csid 3 fmt 0 chunks 2 command msid 0 ts 0 len 163: connect 1 {app: "live", …}
//!   csid 2 fmt 0 chunks 1 control msid 0 ts 0 len 4: set chunk size 4096
//!   csid 6 fmt 1 chunks 1 video msid 1 ts 40 len 1503: avc keyframe 1701000000000005 crc 8d0c1f22
//! ```
//!
//! The text does not depend on how the bytes are cut into calls. Nothing here is on a data path: bytes
//! are read one at a time, which is how the start of each chunk is seen without a second chunk reader.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::amf0::{Reader, Value};
use crate::chunk::ChunkReader;
use crate::command::Command;
use crate::error::{Place, ProtocolError};
use crate::handshake::PACKET_BYTES;
use crate::limits::ReaderLimits;
use crate::message::{Control, MessageHeader, MessagePart, event, kind};
use crate::tag;

/// C0 C1 C2, or S0 S1 S2: the same in both directions.
const HANDSHAKE_BYTES: usize = 1 + 2 * PACKET_BYTES;
/// Body bytes kept to be printed; the checksum covers all of them.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// Tracks of one message that are named.
const TRACKS_MAX: usize = 16;
/// Longest line. What is left of a longer one is replaced by an ellipsis.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Turns the bytes of one direction into lines.
#[derive(Debug)]
pub struct Transcript {
    handshake_left: usize,
    reader: ChunkReader,
    /// Whether the bytes of a chunk header are being read.
    in_header: bool,
    /// Header type of the chunk that is being read.
    fmt: u8,
    open: Vec<OpenMessage>,
    failed: bool,
}

#[derive(Debug)]
struct OpenMessage {
    header: MessageHeader,
    fmt: u8,
    chunks: u32,
    kept: Vec<u8>,
    crc: Crc32,
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new()
    }
}

impl Transcript {
    /// A transcript that starts with the handshake.
    #[must_use]
    pub fn new() -> Self {
        Self { handshake_left: HANDSHAKE_BYTES, ..Self::without_handshake() }
    }

    /// A transcript that starts with the first chunk.
    #[must_use]
    pub fn without_handshake() -> Self {
        Self {
            handshake_left: 0,
            reader: ChunkReader::new(ReaderLimits::default()),
            in_header: false,
            fmt: 0,
            open: Vec::new(),
            failed: false,
        }
    }

    /// Takes bytes and returns the lines of the messages that they complete. Bytes that cannot be read give
    /// one line that says so, and nothing after it.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes.chunks(1) {
            if self.failed {
                break;
            }
            if self.handshake_left > 0 {
                self.handshake(byte, &mut lines);
            } else if let Err(error) = self.chunk_byte(byte, &mut lines) {
                self.failed = true;
                lines.push(format!("unreadable: {error}"));
            }
        }
        lines
    }

    /// What is left open at the end of the bytes, one line per message.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.handshake_left > 0 {
            lines.push(format!("handshake lacks {} bytes", self.handshake_left));
        }
        for open in &self.open {
            lines.push(format!("{} unfinished", open.facts()));
        }
        lines
    }

    fn handshake(&mut self, byte: &[u8], lines: &mut Vec<String>) {
        if self.handshake_left == HANDSHAKE_BYTES {
            let version = byte.first().copied().unwrap_or_default();
            lines.push(format!("handshake version {version}"));
        }
        self.handshake_left -= 1;
    }

    fn chunk_byte(&mut self, byte: &[u8], lines: &mut Vec<String>) -> Result<(), ProtocolError> {
        let mut input = byte;
        let mut parts = 0;
        while let Some(part) = self.reader.next(&mut input)? {
            parts += 1;
            self.on_part(&part, lines)?;
        }
        if parts == 0 && !self.in_header {
            self.in_header = true;
            self.fmt = byte.first().map_or(0, |byte| byte >> 6);
            return Ok(());
        }
        if parts > 0 {
            self.in_header = false;
        }
        Ok(())
    }

    fn on_part(
        &mut self,
        part: &MessagePart<'_>,
        lines: &mut Vec<String>,
    ) -> Result<(), ProtocolError> {
        let csid = part.header.csid;
        let begins_chunk = self.in_header;
        if part.first
            && let Some(index) = self.open.iter().position(|open| open.header.csid == csid)
        {
            let dropped = self.open.swap_remove(index);
            lines.push(format!("{} dropped for another", dropped.facts()));
        }
        if part.first {
            let (header, fmt) = (part.header, self.fmt);
            self.open.push(OpenMessage {
                header,
                fmt,
                chunks: 0,
                kept: Vec::new(),
                crc: Crc32::default(),
            });
        }
        let Some(index) = self.open.iter().position(|open| open.header.csid == csid) else {
            return Ok(());
        };
        if let Some(open) = self.open.get_mut(index) {
            open.chunks += u32::from(begins_chunk);
            open.crc.update(part.body);
            let room = KEPT_BYTES_MAX - open.kept.len();
            open.kept.extend(part.body.iter().take(room));
        }
        if part.last {
            let open = self.open.swap_remove(index);
            lines.push(cut(open.line()));
            self.act(&open, lines)?;
        }
        Ok(())
    }

    /// Chunk size and abort change how the rest is read.
    fn act(&mut self, open: &OpenMessage, lines: &mut Vec<String>) -> Result<(), ProtocolError> {
        let place = Place::on(open.header.csid, self.reader.bytes_consumed());
        match Control::parse(open.header.kind, &open.kept, place) {
            Ok(Some(Control::SetChunkSize(bytes))) => self.reader.set_chunk_size(bytes)?,
            Ok(Some(Control::Abort(csid))) => {
                if self.reader.abort(csid).is_some() {
                    let aborted = self.open.iter().position(|open| open.header.csid == csid);
                    if let Some(index) = aborted {
                        let aborted = self.open.swap_remove(index);
                        lines.push(format!("{} aborted", aborted.facts()));
                    }
                }
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }
}

impl OpenMessage {
    /// What is known without the body.
    fn facts(&self) -> String {
        let MessageHeader { csid, kind, msid, timestamp, length } = self.header;
        let (fmt, chunks, name) = (self.fmt, self.chunks, kind_name(kind));
        format!(
            "csid {csid} fmt {fmt} chunks {chunks} {name} msid {msid} ts {timestamp} len {length}"
        )
    }

    fn line(&self) -> String {
        let body = self.kept.as_slice();
        let text = match self.header.kind {
            kind::COMMAND_AMF0 => command_text(body),
            kind::COMMAND_AMF3 => command_text(without_selector(body)),
            kind::DATA_AMF0 => values_text(body),
            kind::DATA_AMF3 => values_text(without_selector(body)),
            kind::SET_CHUNK_SIZE..=kind::SET_PEER_BANDWIDTH => self.control_text(),
            kind::AUDIO => self.media_text(audio_text(body)),
            kind::VIDEO => self.media_text(video_text(body)),
            _ => self.media_text(String::new()),
        };
        format!("{}: {text}", self.facts())
    }

    fn media_text(&self, tag: String) -> String {
        let crc = self.crc.value();
        if tag.is_empty() { format!("crc {crc:08x}") } else { format!("{tag} crc {crc:08x}") }
    }

    fn control_text(&self) -> String {
        match Control::parse(self.header.kind, &self.kept, Place::default()) {
            Ok(Some(Control::SetChunkSize(bytes))) => format!("set chunk size {bytes}"),
            Ok(Some(Control::Abort(csid))) => format!("abort csid {csid}"),
            Ok(Some(Control::Ack(bytes))) => format!("acknowledgement {bytes}"),
            Ok(Some(Control::WindowAckSize(bytes))) => format!("window {bytes}"),
            Ok(Some(Control::SetPeerBandwidth { window, limit_type })) => {
                format!("peer bandwidth {window} limit {limit_type}")
            }
            Ok(Some(Control::User { event, data, more })) => user_text(event, data, more),
            Ok(_) => String::from("unknown"),
            Err(error) => error.to_string(),
        }
    }
}

fn user_text(event: u16, data: u32, more: u32) -> String {
    match event {
        event::STREAM_BEGIN => format!("stream begin {data}"),
        event::STREAM_EOF => format!("stream eof {data}"),
        event::STREAM_DRY => format!("stream dry {data}"),
        event::SET_BUFFER_LENGTH => format!("buffer length {data} {more} ms"),
        event::STREAM_IS_RECORDED => format!("stream is recorded {data}"),
        event::PING_REQUEST => format!("ping {data}"),
        event::PING_RESPONSE => format!("pong {data}"),
        _ => format!("user control {event} {data}"),
    }
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        kind::SET_CHUNK_SIZE..=kind::SET_PEER_BANDWIDTH => "control",
        kind::AUDIO => "audio",
        kind::VIDEO => "video",
        kind::DATA_AMF0 => "data",
        kind::DATA_AMF3 => "data-amf3",
        kind::COMMAND_AMF0 => "command",
        kind::COMMAND_AMF3 => "command-amf3",
        kind::SHARED_OBJECT_AMF0 | kind::SHARED_OBJECT_AMF3 => "shared-object",
        kind::AGGREGATE => "aggregate",
        _ => "unknown",
    }
}

fn command_text(body: &[u8]) -> String {
    match Command::parse(body) {
        Ok(command) => {
            let mut text = format!("{} {}", command.name, command.transaction);
            for value in core::iter::once(&command.object).chain(&command.args) {
                text.push(' ');
                write_value(&mut text, value);
            }
            text
        }
        Err(error) => error.to_string(),
    }
}

fn values_text(body: &[u8]) -> String {
    let mut reader = Reader::new(body);
    let mut text = String::new();
    loop {
        match reader.next_value() {
            Ok(Some(value)) => {
                if !text.is_empty() {
                    text.push(' ');
                }
                write_value(&mut text, &value);
            }
            Ok(None) => return text,
            Err(error) => {
                // Writing to a String cannot fail.
                let _ = write!(text, " {error}");
                return text;
            }
        }
    }
}

fn write_value(text: &mut String, value: &Value<'_>) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Number(number) => write!(text, "{number}"),
        Value::Boolean(flag) => write!(text, "{flag}"),
        Value::String(string) => write!(text, "{string:?}"),
        Value::Xml(xml) => write!(text, "xml {xml:?}"),
        Value::Date(ms) => write!(text, "date {ms}"),
        Value::Null => text.write_str("null"),
        Value::Undefined => text.write_str("undefined"),
        Value::Object(_) => write_properties(text, "", value),
        Value::EcmaArray(_) => write_properties(text, "ecma ", value),
        Value::TypedObject(class, _) => write_properties(text, class, value),
        Value::StrictArray(items) => write_items(text, items),
        other => write!(text, "{other:?}"),
    };
}

fn write_properties(text: &mut String, prefix: &str, value: &Value<'_>) -> core::fmt::Result {
    write!(text, "{prefix}{{")?;
    for (index, (key, value)) in value.properties().unwrap_or_default().iter().enumerate() {
        write!(text, "{}{key}: ", if index == 0 { "" } else { ", " })?;
        write_value(text, value);
    }
    text.write_char('}')
}

fn write_items(text: &mut String, items: &[Value<'_>]) -> core::fmt::Result {
    text.write_char('[')?;
    for (index, value) in items.iter().enumerate() {
        text.write_str(if index == 0 { "" } else { ", " })?;
        write_value(text, value);
    }
    text.write_char(']')
}

fn without_selector(body: &[u8]) -> &[u8] {
    body.strip_prefix(&[0]).unwrap_or(body)
}

fn video_text(body: &[u8]) -> String {
    let info = tag::video(body);
    let mut text = String::from(info.codec.name());
    mark(&mut text, info.enhanced, "enhanced");
    mark(&mut text, info.keyframe, "keyframe");
    mark(&mut text, info.sequence_header, "sequence header");
    mark(&mut text, info.end_of_sequence, "end of sequence");
    mark(&mut text, info.metadata, "metadata");
    mark(&mut text, info.command, "command");
    mark(&mut text, info.discardable, "discardable");
    if info.composition_time != 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, " cts {}", info.composition_time);
    }
    if info.multitrack != tag::Multitrack::No {
        let _ = write!(text, " tracks");
        for track in tag::video_tracks(body).take(TRACKS_MAX) {
            let _ = write!(text, " {}={}", track.id, track.codec.name());
        }
    }
    mark(&mut text, info.truncated, "truncated");
    format!("{text} {}", first_bytes(body))
}

fn audio_text(body: &[u8]) -> String {
    let info = tag::audio(body);
    let mut text = String::from(info.codec.name());
    mark(&mut text, info.enhanced, "enhanced");
    mark(&mut text, info.sequence_header, "sequence header");
    mark(&mut text, info.end_of_sequence, "end of sequence");
    mark(&mut text, info.multichannel_config, "multichannel config");
    if info.multitrack != tag::Multitrack::No {
        // Writing to a String cannot fail.
        let _ = write!(text, " tracks");
        for track in tag::audio_tracks(body).take(TRACKS_MAX) {
            let _ = write!(text, " {}={}", track.id, track.codec.name());
        }
    }
    mark(&mut text, info.truncated, "truncated");
    format!("{text} {}", first_bytes(body))
}

fn mark(text: &mut String, on: bool, word: &str) {
    if on {
        text.push(' ');
        text.push_str(word);
    }
}

/// The start of a media body, where its tag header is.
fn first_bytes(body: &[u8]) -> String {
    let mut text = String::new();
    for byte in body.iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// At most `LINE_BYTES_MAX` bytes of a line, without line breaks that a peer might have put into it.
fn cut(line: String) -> String {
    let mut line = line.replace(['\n', '\r'], " ");
    if line.len() > LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The CRC of zip and Ethernet, so that other tools can be compared with.
#[derive(Clone, Copy, Debug)]
struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32 {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                let mask = 0u32.wrapping_sub(self.0 & 1);
                self.0 = (self.0 >> 1) ^ (0xEDB8_8320 & mask);
            }
        }
    }

    fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        let mut crc = Crc32::default();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xCBF4_3926);
    }
}
