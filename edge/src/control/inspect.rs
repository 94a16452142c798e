//! Asks every worker for its tables and puts the pages together.
//!
//! A worker answers at most [`INSPECT_COUNT_MAX`] entries per turn, so a long list costs it many short
//! turns and never one long one. All workers are asked at the same time; one that does not answer within
//! [`REPLY_DEADLINE`] is named in the result, the others' answers are used.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Control, REPLY_DEADLINE};
use crate::command::{
    ClientInfo, Command, ConnectionId, INSPECT_COUNT_MAX, InspectPage, InspectScope, Reply,
    StreamInfo, StreamShare, StreamState,
};

/// Pages asked of one worker for one request; beyond them the list is cut and marked incomplete.
const PAGES_MAX: usize = 4_096;

/// All workers' tables.
#[derive(Debug, Default)]
pub struct Collected {
    /// Streams, merged with the shares of all workers, ordered by path.
    pub streams: Vec<StreamInfo>,
    /// Connections, ordered by id.
    pub clients: Vec<ClientInfo>,
    /// Workers that did not answer, or not completely.
    pub missing_workers: Vec<u16>,
}

/// Why a worker gave no answer.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// Its command queue is full.
    Busy,
    /// It did not answer in time, or is gone.
    Silent,
}

/// Asks all workers.
pub async fn collect(control: &Arc<Control>, scope: InspectScope) -> Collected {
    let deadline = Instant::now() + REPLY_DEADLINE;
    let mut asked = JoinSet::new();
    for index in 0..control.workers.len() {
        let control = Arc::clone(control);
        asked.spawn(async move { (index, pages(&control, index, scope, deadline).await) });
    }
    let mut collected = Collected::default();
    let mut shares = Vec::new();
    while let Some(Ok((index, (pages, complete)))) = asked.join_next().await {
        for page in pages {
            collected.streams.extend(page.streams);
            collected.clients.extend(page.clients);
            shares.extend(page.shares);
        }
        if !complete {
            collected.missing_workers.push(control.workers[index].index());
        }
    }
    collected.streams = merge_streams(collected.streams, shares);
    collected.clients.sort_by_key(|client| client.id);
    collected.missing_workers.sort_unstable();
    collected
}

async fn pages(
    control: &Control,
    index: usize,
    scope: InspectScope,
    deadline: Instant,
) -> (Vec<InspectPage>, bool) {
    let mut pages = Vec::new();
    let mut cursor = 0;
    while pages.len() < PAGES_MAX {
        let ask = |reply| Command::Inspect { scope, cursor, count_max: INSPECT_COUNT_MAX, reply };
        let Ok(page) = call(control, index, deadline, ask).await else { return (pages, false) };
        let next = page.next;
        pages.push(page);
        match next {
            Some(next) => cursor = next,
            None => return (pages, true),
        }
    }
    (pages, false)
}

/// One command and its answer.
async fn call<T>(
    control: &Control,
    index: usize,
    deadline: Instant,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, NoAnswer> {
    let (reply, answer) = Reply::channel();
    control.workers[index].send(command(reply)).map_err(|_| NoAnswer::Busy)?;
    match timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(NoAnswer::Silent),
    }
}

/// Closes one connection; answers whether it existed.
///
/// # Errors
/// [`NoAnswer`] if its worker did not say.
pub async fn kick(control: &Control, id: ConnectionId) -> Result<bool, NoAnswer> {
    let index = usize::from(id.worker);
    if index >= control.workers.len() {
        return Ok(false);
    }
    let deadline = Instant::now() + REPLY_DEADLINE;
    call(control, index, deadline, |reply| Command::Kick { id, reply }).await
}

/// Adds the workers' shares to the streams. A share without a home stream becomes a waiting stream.
fn merge_streams(streams: Vec<StreamInfo>, shares: Vec<StreamShare>) -> Vec<StreamInfo> {
    let mut by_path: BTreeMap<(String, String, String), StreamInfo> = BTreeMap::new();
    for stream in streams {
        let path = (stream.vhost.clone(), stream.app.clone(), stream.name.clone());
        by_path.insert(path, stream);
    }
    for share in shares {
        let path = (share.vhost, share.app, share.name);
        let stream = by_path.entry(path).or_insert_with_key(|(vhost, app, name)| {
            waiting_stream(vhost.clone(), app.clone(), name.clone())
        });
        stream.subscribers += share.subscribers;
        stream.bytes_out += share.bytes_out;
        stream.lag_ms_max = stream.lag_ms_max.max(share.lag_ms_max);
    }
    by_path.into_values().collect()
}

fn waiting_stream(vhost: String, app: String, name: String) -> StreamInfo {
    StreamInfo { vhost, app, name, ..StreamInfo::new(StreamState::Waiting) }
}
