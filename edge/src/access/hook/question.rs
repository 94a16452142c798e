//! The question a worker hands to the control thread, and the queue it goes through.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use live::path::{StreamKey, StreamPath};
use tokio::sync::Notify;

use crate::access::domain::Domain;
use crate::access::providers::Pass;
use crate::access::{Question, Role};
use crate::command::ConnectionId;

/// Questions of all workers waiting for the control thread. More are decided at once by the domain's
/// `fail` setting, so a slow hook costs bounded memory: at most this many times the largest address.
pub const ASKS_MAX: usize = 1_024;

/// Everything a hook is told, owned, since the worker goes on.
#[derive(Clone)]
pub struct HookQuestion {
    /// The worker's own mark, handed back with the answer.
    pub ticket: u64,
    /// The connection that waits.
    pub connection: ConnectionId,
    /// What it wants to do.
    pub role: Role,
    /// It has its place in the quotas already. The worker sets it.
    pub is_renewal: bool,
    /// The domain whose hook decides.
    pub domain: Arc<Domain>,
    /// Identity of the stream as it would be without the hook.
    pub path: StreamPath,
    /// What the providers before the hook said.
    pub pass: Pass,
    /// The app the peer wrote.
    pub app: String,
    /// The stream name the peer wrote.
    pub stream: String,
    /// The parameters the peer presented. A secret.
    pub query: StreamKey,
    /// Address of the peer.
    pub peer: IpAddr,
    /// When it asked, in Unix seconds.
    pub unix_s: u64,
    /// `tcUrl` of its connect command, without parameters.
    pub tc_url: Option<String>,
    /// `pageUrl` of its connect command.
    pub page_url: Option<String>,
    /// `flashVer` of its connect command.
    pub flash_ver: Option<String>,
}

impl HookQuestion {
    /// Copies what a worker asks. The worker sets `ticket` before it hands it over.
    pub fn new(question: &Question<'_>, domain: Arc<Domain>, path: StreamPath, pass: Pass) -> Self {
        let asked = &question.resolved.path;
        let connect = question.connect;
        let without_query = |url: &str| url.split(['?', '#']).next().unwrap_or(url).to_owned();
        Self {
            ticket: 0,
            connection: question.connection,
            role: question.role,
            is_renewal: question.is_renewal,
            domain,
            path,
            pass,
            app: asked.app().to_owned(),
            stream: asked.name().to_owned(),
            query: question.resolved.query.clone(),
            peer: question.peer,
            unix_s: question.unix_s,
            tc_url: connect.and_then(|c| c.tc_url.as_deref()).map(without_query),
            page_url: connect.and_then(|c| c.page_url.as_deref()).map(without_query),
            flash_ver: connect.and_then(|c| c.flash_ver.as_deref()).map(str::to_owned),
        }
    }
}

impl fmt::Debug for HookQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookQuestion")
            .field("connection", &self.connection)
            .field("role", &self.role)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// The bounded queue between workers and the control thread.
pub struct Asks {
    queue: ArrayQueue<Box<HookQuestion>>,
    ready: Notify,
    refused: AtomicU64,
}

impl Default for Asks {
    fn default() -> Self {
        let (ready, refused) = (Notify::new(), AtomicU64::new(0));
        Self { queue: ArrayQueue::new(ASKS_MAX), ready, refused }
    }
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Asks {
    /// Hands a question over; any worker, never waits.
    ///
    /// # Errors
    /// The question, when the queue is full.
    pub fn push(&self, question: Box<HookQuestion>) -> Result<(), Box<HookQuestion>> {
        let pushed = self.queue.push(question);
        match &pushed {
            Ok(()) => self.ready.notify_one(),
            Err(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
        pushed
    }

    /// The next question. Cancel safe; one task calls it.
    pub async fn next(&self) -> Box<HookQuestion> {
        loop {
            if let Some(question) = self.queue.pop() {
                return question;
            }
            self.ready.notified().await;
        }
    }

    /// Questions that found the queue full, so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}
