//! Whose turn it is to write, of the two processes of an upgrade: the socket between them. When all that
//! waited in the old one is done it says which removals are still to come, and ends its side; that side ends
//! with the process, too.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Action, Job, STOP_MAX, StorageQueue};
use crate::log::event;

/// Longest wait for the process before this one, which has half of it ([`super::PASS_ON_MS_MAX`]), and as
/// long as the call takes it is in.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Distance of two looks at whether this process is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time the next process may take to hear what is said to it.
const HEAR_MAX: Duration = Duration::from_secs(30);
/// Most that is listened to, in bytes: more than all removals that may wait.
const BYTES_MAX: u64 = 256 << 20;

/// One end of that socket. On the old side all clones of it are dropped when the turn is over.
#[derive(Clone, Debug)]
pub struct Baton(Arc<UnixStream>);

/// A removal whose time has not come.
#[derive(Debug, Serialize, Deserialize)]
struct Removal {
    lane: u64,
    root: Vec<u8>,
    name: String,
    after_ms: u64,
}

impl Baton {
    /// By this socket.
    pub fn new(socket: Arc<UnixStream>) -> Self {
        Self(socket)
    }

    /// Everything is done but `removals`, each with the milliseconds until it is due: the other may begin.
    pub(super) fn pass(self, removals: Vec<(Job, u64)>) {
        let count = removals.len();
        let removals: Vec<Removal> = removals
            .into_iter()
            .map(|(job, after_ms)| {
                let root = job.root.as_os_str().as_bytes().to_vec();
                Removal { lane: job.lane, root, name: job.name, after_ms }
            })
            .collect();
        let told = postcard::to_allocvec(&removals).map_err(io::Error::other).and_then(|bytes| {
            self.0.set_write_timeout(Some(HEAR_MAX))?;
            (&*self.0).write_all(&bytes)
        });
        if let (Err(error), true) = (told, count > 0) {
            tracing::warn!(
                event = event::STORAGE_FAILED,
                "{count} files stay: the next process does not hear of their removal: {error}"
            );
        }
    }

    /// Waits for the end of the other side, not much longer than until `queue` is told to stop unless a third
    /// process waits for this one, and `meanwhile` looks after other things. Removals that are still to come.
    pub(super) fn wait(&self, queue: &StorageQueue, mut meanwhile: impl FnMut()) -> Vec<Job> {
        let mut deadline = Instant::now() + WAIT_MAX;
        let mut bytes = Vec::new();
        let heard = loop {
            match self.hear(&mut bytes) {
                Ok(()) => break read(&bytes),
                Err(error) if !is_look(&error) => break Err(error),
                Err(error) if Instant::now() >= deadline => break Err(error),
                Err(_) => {}
            }
            if queue.is_hurried() {
                deadline = deadline.min(Instant::now() + STOP_MAX);
            }
            meanwhile();
        };
        heard.unwrap_or_else(|error| {
            tracing::warn!(
                event = event::STORAGE_FAILED,
                "writing before the other process has said that it writes no more: {error}"
            );
            Vec::new()
        })
    }

    /// Reads on for a while; `Ok` at the end.
    fn hear(&self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.0.set_read_timeout(Some(LOOK))?;
        (&*self.0).take(BYTES_MAX.saturating_sub(bytes.len() as u64)).read_to_end(bytes).map(drop)
    }
}

/// Nothing came while this looked.
fn is_look(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A process that ended on the way has said nothing.
fn read(bytes: &[u8]) -> io::Result<Vec<Job>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let removals: Vec<Removal> = postcard::from_bytes(bytes).map_err(io::Error::other)?;
    let jobs = removals.into_iter().map(|removal| Job {
        lane: removal.lane,
        root: PathBuf::from(OsString::from_vec(removal.root)).into(),
        name: removal.name,
        action: Action::Remove { after_ms: removal.after_ms },
    });
    Ok(jobs.collect())
}
