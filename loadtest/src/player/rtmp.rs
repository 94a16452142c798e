//! A player of RTMP: the protocol's own session, whose parts are the viewer's pieces.
//!
//! ```text
//!  connect ─ (TLS) ─ handshake ─ connect command ─ play ─ Play.Start ─ first byte ─ first keyframe
//!  started           Handshake                    asked   PlayStart    FirstByte    FirstKeyframe
//! ```

use super::{Reason, millis, reason_of};
use crate::tally::Measure;
use crate::viewer::{Piece, Scene, Shape, Viewer};
use rtmp::session::{ClientConfig, ClientEvent, ClientSession, MediaPart};
use std::sync::Arc;

/// Bytes of S0, S1 and S2.
const HANDSHAKE_BYTES: u64 = 1 + 2 * 1536;

/// See the file's head.
#[derive(Debug)]
pub(super) struct RtmpPlayer {
    session: ClientSession,
    connected_ns: u64,
    handshake_done: bool,
}

impl RtmpPlayer {
    pub(super) fn new(config: Arc<ClientConfig>, random: u64, now_ns: u64) -> RtmpPlayer {
        let session = ClientSession::new(config, random, millis(now_ns));
        RtmpPlayer { session, connected_ns: 0, handshake_done: false }
    }

    /// The handshake goes out.
    pub(super) fn on_connected(&mut self, now_ns: u64, out: &mut Vec<u8>) {
        self.connected_ns = now_ns;
        self.session.take_replies(out);
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
        let mut input = bytes;
        loop {
            match self.session.handle_bytes(millis(scene.now_ns), &mut input) {
                Ok(Some(ClientEvent::Media(part))) => viewer.on_piece(&piece_of(&part), scene),
                Ok(Some(ClientEvent::PlayStarted { .. })) => {
                    scene.tally.note_status("NetStream.Play.Start");
                    self.note_progress(viewer, scene);
                    viewer.on_joined(scene);
                }
                Ok(Some(event)) => on_other(&event, viewer, scene)?,
                Ok(None) => {
                    let replied = self.session.has_replies();
                    self.note_progress(viewer, scene);
                    self.session.take_replies(out);
                    if input.is_empty() || !replied {
                        return Ok(());
                    }
                }
                Err(error) => return Err(reason_of(&error)),
            }
        }
    }

    /// Notes the moments that are no events: end of handshake, play command.
    fn note_progress(&mut self, viewer: &mut Viewer, scene: &mut Scene<'_>) {
        if !self.handshake_done && self.session.bytes_in() >= HANDSHAKE_BYTES {
            self.handshake_done = true;
            let took_ns = scene.now_ns.saturating_sub(self.connected_ns);
            scene.tally.record(Measure::Handshake, took_ns);
        }
        if self.session.msid().is_some() {
            viewer.on_asked(scene);
        }
    }

    /// Lets the session notice that the server is silent.
    ///
    /// # Errors
    /// It has been silent for too long.
    pub(super) fn on_tick(&mut self, now_ns: u64) -> Result<(), Reason> {
        self.session.handle_timeout(millis(now_ns)).map_err(|error| reason_of(&error))
    }

    /// Says goodbye.
    pub(super) fn leave(&mut self, out: &mut Vec<u8>) {
        self.session.close();
        self.session.take_replies(out);
    }
}

fn on_other(
    event: &ClientEvent<'_>,
    viewer: &mut Viewer,
    scene: &mut Scene<'_>,
) -> Result<(), Reason> {
    match event {
        ClientEvent::MediaAborted { kind, .. } => viewer.on_aborted(*kind),
        ClientEvent::Status(status) => scene.tally.note_status(&status.code),
        ClientEvent::StreamEnded(status) => {
            scene.tally.note_status(&status.code);
            viewer.on_ended();
        }
        ClientEvent::StreamEof { .. } => viewer.on_ended(),
        ClientEvent::ReconnectRequest { .. } => {
            scene.tally.note_status("NetConnection.Connect.ReconnectRequest");
        }
        ClientEvent::PeerClosed => return Err("closed by command of the server".into()),
        _ => {}
    }
    Ok(())
}

fn piece_of<'b>(part: &MediaPart<'b>) -> Piece<'b> {
    Piece {
        kind: part.audio_or_video,
        timestamp: part.timestamp,
        shape: Shape::Tag,
        first: part.first,
        last: part.last,
        body: part.body,
    }
}
