//! Packaging that goes on in another process: what is passed on of it, and what is made of that there.
//!
//! ```text
//!   old   turning ─ Export ─► still: all before the head is taken ─┬─ GoOn ─► turning
//!                                                                  └─ LetGo ─► nothing more is written
//!   new   Hls::resume ─► renditions that answer as before ─ the word to go ─► Packager: turning
//! ```
//!
//! A run goes on in the middle of its segment: the same numbers, parts and addresses, and no seam that a
//! player could see. Segments lie in a file of memory whose descriptor is passed on; the old process goes on
//! sending from it, so nobody punches it any more. Its memory is given back when the last of those segments
//! has left its window, at the latest.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use live::path::StreamPath;
use uring::{MemFile, SharedBytes};

use super::builder::Builder;
use super::rendition::{Rendition, RenditionKey};
use super::settings::HlsSettings;
use super::{ByKey, Hls, RENDITIONS_MAX, add, locked, mem_file, random_key};
use crate::hand_over::packaging::{BytesRecord, PackagingRecord, PlaceRecord, RunRecord};
use crate::http::INLINE_BODY_BYTES_MAX;
use crate::storage::{Baton, StorageQueue};

/// The packager has one part in so many of the standstill's time for its own. Without it HLS begins anew.
pub const EXPORT_PARTS: u32 = 3;
/// Bytes in the record, of all runs together, beyond which pieces are left out: they are written to a socket
/// and read again while all workers stand still. About a quarter of a second in the worst case.
const HERE_BYTES_MAX: usize = 64 << 20;
/// Files passed on. Each upgrade adds one, and each goes with its last segment: more than this takes as many
/// upgrades within one window.
const FILES_MAX: usize = 8;

/// What the control thread asks of the packager.
#[derive(Debug)]
pub enum Order {
    /// Come to a standstill, and tell what there is.
    Export(Sender<Passed>),
    /// Nothing was passed on.
    GoOn,
    /// Another process packages now. It writes to folders when this one has written what waits.
    LetGo(Baton),
}

/// What is passed on.
#[derive(Debug, Default)]
pub struct Passed {
    /// The runs.
    pub record: PackagingRecord,
    /// The files their segments lie in.
    pub files: Vec<OwnedFd>,
}

/// Finds a place for everything that is passed on.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Where large pieces are put that lie in no file yet.
    file: Option<Arc<MemFile>>,
    files: Vec<Arc<MemFile>>,
    /// Bytes that may still go into the record.
    here_bytes_left: usize,
    /// Pieces that were put into the file for this: they stay until another process has them.
    put: Vec<SharedBytes>,
}

impl Outbox {
    pub(super) fn new(file: Option<Arc<MemFile>>) -> Self {
        Self { file, files: Vec::new(), here_bytes_left: HERE_BYTES_MAX, put: Vec::new() }
    }

    /// A place for bytes that are shared already.
    pub(super) fn place(&mut self, bytes: &SharedBytes) -> BytesRecord {
        match bytes.place() {
            Some((file, offset)) => {
                let count = bytes.len() as u64;
                self.file_number(&Arc::clone(file))
                    .map_or(BytesRecord::Left, |file| BytesRecord::File { file, offset, count })
            }
            None => self.place_copy(bytes),
        }
    }

    /// A place for a copy of `bytes`.
    pub(super) fn place_copy(&mut self, bytes: &[u8]) -> BytesRecord {
        let file = self.file.as_ref().filter(|_| bytes.len() > INLINE_BODY_BYTES_MAX);
        if let Some(Ok(put)) = file.map(|file| file.put(bytes)) {
            let record = self.place(&put);
            self.put.push(put);
            return record;
        }
        match self.here_bytes_left.checked_sub(bytes.len()) {
            Some(left) => {
                self.here_bytes_left = left;
                BytesRecord::Here(bytes.to_vec())
            }
            None => BytesRecord::Left,
        }
    }

    fn file_number(&mut self, file: &Arc<MemFile>) -> Option<u32> {
        let found = self.files.iter().position(|known| Arc::ptr_eq(known, file));
        let number = match found {
            Some(number) => number,
            None if self.files.len() >= FILES_MAX => return None,
            None => {
                self.files.push(Arc::clone(file));
                self.files.len() - 1
            }
        };
        u32::try_from(number).ok()
    }

    /// The runs with the descriptors of their files; nothing where there are none to be had.
    pub(super) fn passed(&self, runs: Vec<RunRecord>) -> Passed {
        let files: Result<Vec<OwnedFd>, _> =
            self.files.iter().map(|file| file.try_clone_fd()).collect();
        match files {
            Ok(descriptors) => {
                let files = u8::try_from(descriptors.len()).unwrap_or(0);
                Passed { record: PackagingRecord { files, runs }, files: descriptors }
            }
            Err(error) => {
                tracing::warn!(event = "upgrade", %error, "HLS begins anew: no descriptors");
                Passed::default()
            }
        }
    }
}

/// Reads what an [`Outbox`] has placed.
#[derive(Debug)]
pub(super) struct Inbox {
    files: Vec<Arc<MemFile>>,
}

impl Inbox {
    /// `None` if the bytes are not there.
    pub(super) fn take(&self, record: &BytesRecord) -> Option<SharedBytes> {
        match record {
            BytesRecord::Left => None,
            BytesRecord::Here(bytes) => Some(bytes.clone().into()),
            BytesRecord::File { file, offset, count } => {
                let file = self.files.get(usize::try_from(*file).ok()?)?;
                file.find(*offset, usize::try_from(*count).ok()?).ok()
            }
        }
    }
}

/// A run on its way to the packager.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) path: StreamPath,
    pub(super) builder: Builder,
    pub(super) place: PlaceRecord,
}

/// What a packager begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Where segments are put, unless there is none to be had.
    pub(super) file: Option<Arc<MemFile>>,
    pub(super) runs: Vec<Resumed>,
    /// Segments of a playlist that could not be taken over.
    pub(super) segments_left: u64,
}

impl Beginning {
    /// Nothing was before.
    pub fn new() -> Self {
        Self { file: mem_file(), runs: Vec::new(), segments_left: 0 }
    }
}

impl Default for Beginning {
    fn default() -> Self {
        Self::new()
    }
}

impl Hls {
    /// Goes on with what the packager of another process has passed on: from now on its renditions answer as
    /// they did there. `settings` are those of a stream here. What cannot go on begins anew.
    pub fn resume(
        &self,
        passed: Passed,
        settings: impl Fn(&StreamPath) -> HlsSettings,
        storage: &StorageQueue,
    ) -> Beginning {
        let mut beginning = Beginning::new();
        let adopt = |fd| beginning.file.as_ref().map(|file| file.adopt(fd));
        let inbox = Inbox { files: passed.files.into_iter().map_while(adopt).collect() };
        let mut lost = 0_u64;
        let mut by_path = locked(&self.by_path);
        let mut by_key = ByKey::clone(&self.by_key.load());
        for record in passed.record.runs {
            let Ok(path) = StreamPath::try_from(&record.path) else { continue };
            let settings = settings(&path);
            if !settings.is_on || by_key.len() >= RENDITIONS_MAX {
                continue;
            }
            let rendition = Arc::new(rendition_of(&record, path.clone(), &settings));
            let file = beginning.file.as_ref();
            let others = self.bytes();
            let bytes_max = self.bytes_max();
            let resumed = Builder::resume(
                &record,
                (Arc::clone(&rendition), &settings),
                (storage, file),
                bytes_max,
                &inbox,
            );
            let Some((mut builder, left)) = resumed else {
                lost += 1;
                beginning.segments_left += record.main.segments.len() as u64;
                continue;
            };
            beginning.segments_left += left;
            builder.publish(others, bytes_max);
            self.set_bytes(others + builder.held_bytes());
            // The oldest come first. One that is over is kept beside the one after it for a while, and is
            // found by its segments only.
            add(&rendition, &mut by_path, &mut by_key);
            beginning.runs.push(Resumed { path, builder, place: record.place });
        }
        self.by_key.store(Arc::new(by_key));
        drop(by_path);
        let mut inherited = locked(&self.inherited);
        for run in &beginning.runs {
            inherited.remove(run.builder.rendition().key());
        }
        drop(inherited);
        if lost > 0 || beginning.segments_left > 0 {
            tracing::warn!(
                event = "upgrade",
                segments = beginning.segments_left,
                anew = lost,
                "segments of HLS were not passed on: playlists go on without them"
            );
        }
        beginning
    }
}

fn rendition_of(record: &RunRecord, path: StreamPath, settings: &HlsSettings) -> Rendition {
    let key = RenditionKey { path, container: record.container };
    let (main, sound) = record.numbers;
    Rendition::with_numbers(key, (main, sound.unwrap_or_else(random_key)), settings)
}
