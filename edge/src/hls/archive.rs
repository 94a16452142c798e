//! Writes a rendition to a folder, by way of the storage thread.
//!
//! ```text
//!   DIR/[VHOST/]APP/STREAM.m3u8              written last, and anew with each segment
//!   DIR/[VHOST/]APP/STREAM/RUN/init-1.mp4    RUN is the rendition's number, as in URLs
//!   DIR/[VHOST/]APP/STREAM/RUN/seg-12.m4s
//! ```
//!
//! So a web server that serves DIR serves the stream under the addresses this server has; the default
//! vhost has no folder of its own. Only the container the vhost prefers is written. What leaves the
//! window is removed after `hls_dir_keep_ms`, and so is everything once packaging has ended; with 0 all
//! of it stays. Never waits: a job the queue does not take is counted there.

use bytes::Bytes;
use live::path::DEFAULT_VHOST;
use mux::playlist::{Name, Names};

use super::rendition::Rendition;
use super::settings::HlsSettings;
use crate::log::event;
use crate::storage::{Action, Job, StorageQueue};

/// One rendition's folder.
#[derive(Debug)]
pub(super) struct Archive {
    queue: StorageQueue,
    /// The first job: what later ones are made from.
    pattern: Job,
    names: Names<'static>,
    keep_ms: u64,
    /// The queue did not take the last job; said once until it takes one again.
    is_refused: bool,
}

impl Archive {
    /// `None` where nothing is written.
    pub(super) fn new(
        rendition: &Rendition,
        settings: &HlsSettings,
        queue: &StorageQueue,
    ) -> Option<Self> {
        let root = settings.dir.clone()?;
        let key = rendition.key();
        if key.container != settings.container {
            return None;
        }
        let path = key.path.as_str();
        let default = path.strip_prefix(DEFAULT_VHOST).and_then(|rest| rest.strip_prefix('/'));
        let name = default.unwrap_or(path).to_owned();
        let action = Action::Remove { after_ms: settings.dir_keep_ms };
        let mut archive = Self {
            queue: queue.clone(),
            pattern: Job { lane: rendition.number(), root, name, action },
            names: Names { container: key.container, prefix: "", query: "" },
            keep_ms: settings.dir_keep_ms,
            is_refused: false,
        };
        if archive.keep_ms > 0 {
            let (keep, older_ms) = (rendition.number(), archive.keep_ms);
            let job = Job {
                action: Action::RemoveOtherRuns { keep, older_ms },
                ..archive.pattern.clone()
            };
            archive.push(job);
        }
        Some(archive)
    }

    /// Stores an init segment or a segment.
    pub(super) fn put(&mut self, name: Name, bytes: Bytes) {
        let name = self.file(name);
        self.push(Job { name, action: Action::Put(bytes), ..self.pattern.clone() });
    }

    /// Stores the playlist, after everything it lists.
    pub(super) fn put_playlist(&mut self, text: String) {
        let name = self.playlist();
        self.push(Job { name, action: Action::Put(text.into()), ..self.pattern.clone() });
    }

    /// A file has left the window.
    pub(super) fn remove(&mut self, name: Name) {
        let name = self.file(name);
        self.remove_name(name);
    }

    /// Packaging has ended; the caller removes the files that are left.
    pub(super) fn close(&mut self) {
        let name = self.playlist();
        self.remove_name(name);
    }

    fn remove_name(&mut self, name: String) {
        if self.keep_ms > 0 {
            self.push(Job { name, ..self.pattern.clone() });
        }
    }

    fn push(&mut self, job: Job) {
        let is_refused = !self.queue.push(job);
        if is_refused && !self.is_refused {
            let name = &self.pattern.name;
            tracing::error!(event = event::STORAGE_FAILED, name, "too much waits to be stored");
        }
        self.is_refused = is_refused;
    }

    fn playlist(&self) -> String {
        format!("{}.m3u8", self.pattern.name)
    }

    fn file(&self, name: Name) -> String {
        let mut file = format!("{}/{:016x}/", self.pattern.name, self.pattern.lane);
        // Writing to a string cannot fail.
        let _infallible = self.names.write(name, &mut file);
        file
    }
}
