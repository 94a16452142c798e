//! HTTP/1.1 as a viewer speaks it: requests, responses, WebSocket. One connection, one request at a time.
//!
//! ```text
//!   player ─► exchange ─► request                      ─► link
//!   player ◄─ exchange ◄─ response (head, body, end)   ◄─ link      then websocket, where upgraded
//! ```
//!
//! Our own, so that what is counted is the server's work and not a library's pools and copies; heads are
//! taken apart by `httparse`. Everything a server can make grow has a limit.

mod address;
mod exchange;
mod response;
mod websocket;

pub(crate) use address::{query, resolve};
pub(crate) use exchange::{Exchange, Got};
pub(crate) use response::Head;
pub(crate) use websocket::{Frames, Incoming, write_frame};

use std::sync::Arc;

/// The container of a stream, by the ending of its address.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// `.flv`
    Flv,
    /// `.mp4`: fragments, one endless file.
    Mp4,
    /// `.m3u8`
    Hls,
    /// Any other: good to be fetched, not to be played.
    File,
}

impl Format {
    /// By the path of an address, its query not being part of it.
    pub(crate) fn of_path(path: &str) -> Option<Format> {
        let (_, ending) = path.rsplit_once('.')?;
        match ending {
            "flv" => Some(Format::Flv),
            "mp4" => Some(Format::Mp4),
            "m3u8" => Some(Format::Hls),
            _ => None,
        }
    }
}

/// How playlists are followed.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum HlsMode {
    /// In parts where the playlist offers them, else in segments
    #[default]
    Auto,
    /// Whole segments; the playlist is read again when the next is due
    Segments,
    /// Parts as the playlist lists them; each reload waits for the next one
    Parts,
    /// The part that is announced next is asked for before it is made
    Hint,
}

/// What players of one stream ask for.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Of the `Host` header.
    pub(crate) authority: Arc<str>,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) format: Format,
    pub(crate) is_websocket: bool,
    pub(crate) hls: HlsMode,
    /// Requests are all that is wanted, as many as there can be.
    pub(crate) is_fetch: bool,
}

impl Watch {
    /// The first request of one who watches.
    pub(crate) fn request(&self) -> String {
        exchange::request(&self.authority, &self.path, self.is_websocket)
    }

    /// Whether there is a playlist to follow.
    pub(crate) fn is_hls(&self) -> bool {
        self.format == Format::Hls
    }
}
