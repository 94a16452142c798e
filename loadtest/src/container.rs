//! Containers as a viewer reads them: just far enough to find each frame, its time and its marker.
//!
//! | file | what | frames come |
//! |---|---|---|
//! | `flv.rs` | FLV over HTTP and WebSocket | in pieces, as they arrive |
//! | `fmp4.rs` | fragmented MP4: WebSocket, HLS | in pieces, as they arrive |
//! | `ts.rs` | MPEG-TS: HLS | whole, at the end of their packet |
//!
//! Readers take bytes in pieces of any size and give [`Piece`]s to whoever listens. They are not the
//! writers of the server turned round: they share no code with them, and what a server gets wrong is an
//! error with a name. Everything that is kept has a limit.

mod flv;
mod fmp4;
#[cfg(test)]
mod tests_of_readers;
mod ts;

use crate::viewer::{Judging, Piece};
pub(crate) use flv::FlvReader;
pub(crate) use fmp4::Fmp4Reader;
pub(crate) use ts::TsReader;

/// A reader, by what the bytes are.
#[derive(Debug)]
pub(crate) enum Container {
    Flv(FlvReader),
    Fmp4(Box<Fmp4Reader>),
    Ts(Box<TsReader>),
}

impl Container {
    pub(crate) fn flv() -> Container {
        Container::Flv(FlvReader::default())
    }

    pub(crate) fn fmp4() -> Container {
        Container::Fmp4(Box::default())
    }

    /// By the first byte of a segment: MPEG-TS begins with its sync byte, a box of a segment is too short
    /// to.
    pub(crate) fn of_segment(first: u8) -> Container {
        if first == ts::SYNC { Container::Ts(Box::default()) } else { Container::fmp4() }
    }

    /// Takes bytes, all of them, and tells `tell` what is in them.
    ///
    /// # Errors
    /// They are no such container.
    pub(crate) fn handle_bytes(
        &mut self,
        bytes: &[u8],
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        match self {
            Container::Flv(reader) => reader.handle_bytes(bytes, tell),
            Container::Fmp4(reader) => reader.handle_bytes(bytes, tell),
            Container::Ts(reader) => reader.handle_bytes(bytes, judging, tell),
        }
    }

    /// What is here is whole: a frame of WebSocket, a response of HLS.
    ///
    /// # Errors
    /// It ends in the midst of something.
    pub(crate) fn end_unit(
        &mut self,
        judging: &Judging,
        tell: &mut dyn FnMut(&Piece<'_>),
    ) -> Result<(), &'static str> {
        match self {
            Container::Flv(reader) => reader.end_unit(),
            Container::Fmp4(reader) => reader.end_unit(),
            Container::Ts(reader) => reader.end_unit(judging, tell),
        }
    }
}

/// A number of so many bytes, most significant first.
fn wide(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
}
