//! Bodies of the fuzz targets, here so that a change of the crate that breaks one fails to compile
//! instead of failing at night. A server under test may answer anything: see fuzz/README.md.

use crate::container::Container;
use crate::http::Frames;
use crate::num::MediaClock;
use crate::playlist;
use crate::viewer::Judging;

fn judging() -> Judging {
    Judging {
        clock: MediaClock::Monotonic,
        buffer_ns: 1_000_000_000,
        check_every: 1,
        steady_ns: 0,
        disturbed: None,
    }
}

/// Reads a container in pieces; how it ends.
fn read(kind: u8, data: &[u8], piece: usize) -> Result<(), &'static str> {
    let mut container = match kind % 3 {
        0 => Container::flv(),
        1 => Container::fmp4(),
        _ => Container::of_segment(data.first().copied().unwrap_or(0)),
    };
    let judging = judging();
    for bytes in data.chunks(piece.max(1)) {
        container.handle_bytes(bytes, &judging, &mut |_| {})?;
    }
    container.end_unit(&judging, &mut |_| {})
}

/// FLV, fragmented MP4 and MPEG-TS: what is found wrong does not depend on the pieces it comes in. The
/// first byte names the container, the second the size of the pieces.
///
/// # Panics
/// When pieces matter.
pub fn containers(data: &[u8]) {
    let [kind, piece, data @ ..] = data else { return };
    let whole = read(*kind, data, data.len());
    let pieces = read(*kind, data, usize::from(*piece));
    assert_eq!(whole, pieces, "pieces of {piece} bytes matter");
}

/// Playlists: segments and parts that are found lie in the text.
///
/// # Panics
/// When one does not.
pub fn playlists(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = playlist::parse(text);
}

/// A server's WebSocket frames: bytes are taken or waited for, never both refused and left.
///
/// # Panics
/// When the reader stands still with bytes at hand.
pub fn frames(data: &[u8]) {
    let Some((&piece, data)) = data.split_first() else { return };
    let mut frames = Frames::default();
    for mut input in data.chunks(usize::from(piece).max(1)) {
        loop {
            let before = input.len();
            match frames.next(&mut input) {
                Ok(Some(_)) => assert!(input.len() < before || before == 0, "it stands still"),
                Ok(None) => break assert!(input.is_empty(), "bytes are left"),
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    type Body = fn(&[u8]);

    #[test]
    fn every_target_takes_its_corpus_whole_and_cut_off_anywhere() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let targets: [(&str, Body); 3] =
            [("containers", containers), ("frames", frames), ("playlists", playlists)];
        for (name, body) in targets {
            let entries: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().collect();
            assert!(entries.len() > 2, "{name} has a corpus");
            // The more inputs there are, the fewer places of each.
            let step = entries.len().div_ceil(10);
            for entry in entries {
                let input = fs::read(entry.unwrap().path()).unwrap();
                for end in (0..=input.len().min(600)).step_by(step) {
                    body(&input[..end]);
                }
                body(&input);
            }
        }
    }
}
