//! A player of one endless response: FLV or fragmented MP4 over HTTP, or over WebSocket.
//!
//! ```text
//!  GET ─► 200 or 101 ─► joined ─► [WebSocket frames ─►] container ─► viewer
//! ```
//!
//! A server that cuts frames of WebSocket elsewhere than between tags or boxes is played all the same,
//! and reported.

use super::Reason;
use crate::container::Container;
use crate::http::{Exchange, Format, Frames, Got, Head, Incoming, Watch, write_frame};
use crate::num::SECOND_NS;
use crate::viewer::{Piece, Scene, Viewer};
use std::sync::Arc;

/// So long a stream may be silent.
pub(super) const SILENT_NS_MAX: u64 = 30 * SECOND_NS;
/// Longest text message: it names the codecs.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Close code of one who simply leaves.
const GOING_AWAY: u16 = 1001;

/// See the file's head.
#[derive(Debug)]
pub(super) struct StreamPlayer {
    watch: Arc<Watch>,
    pub(super) exchange: Exchange,
    frames: Option<Frames>,
    container: Container,
    text_bytes: usize,
    mask: u32,
    heard_ns: u64,
}

impl StreamPlayer {
    pub(super) fn new(watch: Arc<Watch>, random: u64) -> StreamPlayer {
        let container =
            if watch.format == Format::Flv { Container::flv() } else { Container::fmp4() };
        StreamPlayer {
            exchange: Exchange::new(Arc::clone(&watch.authority), watch.is_websocket),
            watch,
            frames: None,
            container,
            text_bytes: 0,
            mask: crate::num::low_u32(random),
            heard_ns: 0,
        }
    }

    pub(super) fn on_connected(
        &mut self,
        viewer: &mut Viewer,
        scene: &Scene<'_>,
        out: &mut Vec<u8>,
    ) {
        viewer.on_asked(scene);
        self.heard_ns = scene.now_ns;
        if self.exchange.path().is_empty() {
            self.exchange.ask(self.watch.path.clone(), out);
        }
        self.exchange.on_connected(out);
    }

    /// Bytes of the server. Appends answers to `out`.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn on_bytes(
        &mut self,
        bytes: &[u8],
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        self.heard_ns = scene.now_ns;
        let mut input = bytes;
        while let Some(got) = self.exchange.next(&mut input, out)? {
            match got {
                Got::Head(head) => {
                    self.on_head(&head)?;
                    scene.tally.note_status(&format!("http {}", head.status));
                    viewer.on_joined(scene);
                }
                Got::Body(body) if self.frames.is_some() => {
                    self.on_frames(body, viewer, scene, out)?;
                }
                Got::Body(body) => {
                    let judging = scene.judging;
                    let tell = &mut |piece: &Piece<'_>| viewer.on_piece(piece, scene);
                    self.container.handle_bytes(body, judging, tell)?;
                }
                Got::End => return Err("the stream has ended".into()),
            }
        }
        Ok(())
    }

    fn on_head(&mut self, head: &Head) -> Result<(), Reason> {
        if self.watch.is_websocket {
            if !self.exchange.is_upgrade(head) {
                return Err(refusal(head));
            }
            self.frames = Some(Frames::default());
        } else if head.status != 200 {
            return Err(refusal(head));
        }
        Ok(())
    }

    fn on_frames(
        &mut self,
        bytes: &[u8],
        viewer: &mut Viewer,
        scene: &mut Scene<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        let judging = scene.judging;
        let mut input = bytes;
        while let Some(incoming) = frames.next(&mut input)? {
            match incoming {
                Incoming::Binary { bytes, ends_frame } => {
                    let tell = &mut |piece: &Piece<'_>| viewer.on_piece(piece, scene);
                    self.container.handle_bytes(bytes, judging, tell)?;
                    if ends_frame && let Err(what) = self.container.end_unit(judging, tell) {
                        scene.tally.note_status(&format!("websocket frame: {what}"));
                    }
                }
                Incoming::Text(text) => {
                    self.text_bytes += text.len();
                    if self.text_bytes > TEXT_BYTES_MAX {
                        return Err("websocket: too much text".into());
                    }
                }
                Incoming::Ping(payload) => write_frame(false, &payload, self.mask, out),
                Incoming::Close(code) => {
                    let code = code.map_or("without code".into(), |code| code.to_string());
                    return Err(format!("websocket: closed by the server, {code}"));
                }
            }
        }
        Ok(())
    }

    /// The server sends no more.
    ///
    /// # Errors
    /// Unless it is asked again.
    pub(super) fn on_eof(&mut self, out: &mut Vec<u8>) -> Result<(), Reason> {
        let is_end = self.exchange.on_eof(out)?;
        if is_end { Err("closed by the server".into()) } else { Ok(()) }
    }

    /// # Errors
    /// The server has been silent for too long.
    pub(super) fn on_tick(&self, now_ns: u64) -> Result<(), Reason> {
        let is_silent = self.heard_ns != 0 && now_ns > self.heard_ns + SILENT_NS_MAX;
        if is_silent { Err("the server is silent".into()) } else { Ok(()) }
    }

    /// Says goodbye where the protocol has a word for it.
    pub(super) fn leave(&mut self, out: &mut Vec<u8>) {
        if self.frames.is_some() {
            write_frame(true, &GOING_AWAY.to_be_bytes(), self.mask, out);
        }
    }
}

/// A response that is none of those wanted, in few words.
pub(super) fn refusal(head: &Head) -> Reason {
    match &head.reason {
        Some(reason) => format!("http {}: {reason}", head.status),
        None => format!("http {}", head.status),
    }
}
