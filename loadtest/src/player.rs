//! One player's connection: a viewer, and the protocol that brings its media.
//!
//! | file | protocol | media |
//! |---|---|---|
//! | `rtmp.rs` | RTMP | message bodies |
//! | `stream.rs` | HTTP and WebSocket, one endless response | FLV, fragmented MP4 |
//! | `hls.rs` | HTTP, one request after another | playlists; MPEG-TS, fragmented MP4 |
//! | `fetch.rs` | the same as fast as it goes, for load alone | thrown away |
//!
//! All are told of bytes and time and append to what is to be sent; none owns a socket. One connection
//! each: a player that loses its own between two requests asks for another.

mod fetch;
mod hls;
mod rtmp;
mod stream;

use crate::http::Watch;
use crate::num::MS_NS;
use crate::tally::Tally;
pub(crate) use crate::viewer::{Judging, Summary};
use crate::viewer::{Scene, Viewer};
use ::rtmp::Millis;
use ::rtmp::session::{ClientConfig, SessionError};
use std::sync::Arc;

/// Why a player's connection is over, in words for the report.
pub(crate) type Reason = String;

/// What a player watches, and how.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// By RTMP.
    Rtmp(Arc<ClientConfig>),
    /// By HTTP or WebSocket.
    Http(Arc<Watch>),
}

#[derive(Debug)]
enum Transport {
    Rtmp(rtmp::RtmpPlayer),
    Stream(stream::StreamPlayer),
    Hls(hls::HlsPlayer),
    Fetch(fetch::Fetcher),
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Player {
    pub(crate) viewer: Viewer,
    transport: Transport,
    /// When to leave; `u64::MAX`: at the end.
    pub(crate) leave_ns: u64,
}

impl Player {
    /// A player that calls connect now.
    pub(crate) fn new(what: &What, is_storm: bool, random: u64, now_ns: u64) -> Player {
        let transport = match what {
            What::Rtmp(config) => {
                Transport::Rtmp(rtmp::RtmpPlayer::new(Arc::clone(config), random, now_ns))
            }
            What::Http(watch) if watch.is_fetch => {
                Transport::Fetch(fetch::Fetcher::new(Arc::clone(watch), random))
            }
            What::Http(watch) if watch.is_hls() => {
                Transport::Hls(hls::HlsPlayer::new(Arc::clone(watch)))
            }
            What::Http(watch) => {
                Transport::Stream(stream::StreamPlayer::new(Arc::clone(watch), random))
            }
        };
        let waits = matches!(transport, Transport::Hls(_) | Transport::Fetch(_));
        Player { viewer: Viewer::new(is_storm, waits, now_ns), transport, leave_ns: u64::MAX }
    }

    /// TCP, and TLS where there is any, is up: the player speaks first.
    pub(crate) fn on_connected(
        &mut self,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) {
        let scene = Scene { now_ns, judging, tally };
        match &mut self.transport {
            Transport::Rtmp(player) => player.on_connected(now_ns, out),
            Transport::Stream(player) => player.on_connected(&mut self.viewer, &scene, out),
            Transport::Hls(player) => player.on_connected(&mut self.viewer, &scene, out),
            Transport::Fetch(player) => player.on_connected(&mut self.viewer, &scene, out),
        }
    }

    /// Bytes of the server. Appends answers to `out`.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &[u8],
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let scene = &mut Scene { now_ns: crate::num::now_ns(), judging, tally };
        let viewer = &mut self.viewer;
        viewer.on_received(bytes.len(), scene);
        match &mut self.transport {
            Transport::Rtmp(player) => player.on_bytes(bytes, viewer, scene, out),
            Transport::Stream(player) => player.on_bytes(bytes, viewer, scene, out),
            Transport::Hls(player) => player.on_bytes(bytes, viewer, scene, out),
            Transport::Fetch(player) => player.on_bytes(bytes, viewer, scene, out),
        }
    }

    /// The server sends no more on this connection.
    ///
    /// # Errors
    /// The player is over as well.
    pub(crate) fn on_eof(
        &mut self,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let scene = &mut Scene { now_ns, judging, tally };
        match &mut self.transport {
            Transport::Rtmp(_) => Err("closed by the server".into()),
            Transport::Stream(player) => player.on_eof(out),
            Transport::Hls(player) => player.on_eof(&mut self.viewer, scene, out),
            Transport::Fetch(player) => player.on_eof(&mut self.viewer, scene, out),
        }
    }

    /// Whether the player goes on with another connection than this one.
    pub(crate) fn wants_connection(&self) -> bool {
        match &self.transport {
            Transport::Rtmp(_) => false,
            Transport::Stream(player) => player.exchange.wants_connection(),
            Transport::Hls(player) => player.exchange.wants_connection(),
            Transport::Fetch(player) => player.exchange.wants_connection(),
        }
    }

    /// When it wants to act by itself; `u64::MAX`: not.
    pub(crate) fn due_ns(&self) -> u64 {
        let own_ns = match &self.transport {
            Transport::Hls(player) => player.due_ns(),
            Transport::Fetch(player) => player.due_ns(),
            _ => u64::MAX,
        };
        own_ns.min(self.leave_ns)
    }

    /// Its time has come, and it does not leave.
    pub(crate) fn on_due(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        match &mut self.transport {
            Transport::Hls(player) => player.on_due(now_ns, out),
            Transport::Fetch(player) => player.on_due(now_ns, out),
            Transport::Rtmp(_) | Transport::Stream(_) => {}
        }
    }

    /// Lets it notice that the server is silent. Call about once a second.
    ///
    /// # Errors
    /// It has been silent for too long.
    pub(crate) fn on_tick(&mut self, now_ns: u64) -> Result<(), Reason> {
        match &mut self.transport {
            Transport::Rtmp(player) => player.on_tick(now_ns),
            Transport::Stream(player) => player.on_tick(now_ns),
            Transport::Hls(player) => player.on_tick(now_ns),
            Transport::Fetch(_) => Ok(()),
        }
    }

    /// Plays a stream at this moment.
    pub(crate) fn is_playing(&self) -> bool {
        self.viewer.is_playing()
    }

    /// What remains; a stream that should go on but did not has stalled.
    pub(crate) fn finish(&mut self, now_ns: u64, tally: &mut Tally) -> Summary {
        self.viewer.finish(now_ns, tally)
    }

    /// Says goodbye.
    pub(crate) fn leave(&mut self, out: &mut Vec<u8>) {
        match &mut self.transport {
            Transport::Rtmp(player) => player.leave(out),
            Transport::Stream(player) => player.leave(out),
            // Closing the connection says it all.
            Transport::Hls(_) | Transport::Fetch(_) => {}
        }
    }
}

/// The time as sessions count it.
pub(crate) const fn millis(now_ns: u64) -> Millis {
    Millis(now_ns / MS_NS)
}

/// A session's error as one of few words: numbers that differ each time are left out.
pub(crate) fn reason_of(error: &SessionError) -> Reason {
    match error {
        SessionError::Refused { code, .. } => format!("refused: {code}"),
        other => other.label().into(),
    }
}
