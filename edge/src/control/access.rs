//! The control thread's part in access: hooks, key sets, and forbids that end.
//!
//! Each is a task of its own, so that a slow hook does not delay the admin API. It delays other hooks only
//! while it holds all of `access.hooks_in_flight_max`, which its breaker soon ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Uri};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Control, unix_s};
use crate::access::hook::HookQuestion;
use crate::access::hook::client::{HttpClient, HttpRequest};
use crate::access::hook::service::HookService;
use crate::command::Command;
use crate::log::event;

/// Tries to give an answer to a worker whose queue is full, this far apart.
const DELIVERY_PAUSE: Duration = Duration::from_millis(5);
/// Tries before an answer is given up: the worker has not turned for two seconds then.
const DELIVERY_TRIES_MAX: u32 = 400;
/// Key sets are looked after this often; each is fetched when its time has come.
const KEY_SET_TICK: Duration = Duration::from_secs(1);
/// Time for one fetch.
const KEY_SET_TIMEOUT: Duration = Duration::from_secs(10);
/// A key set that could not be fetched is tried again after this time.
const KEY_SET_RETRY: Duration = Duration::from_secs(15);
/// Largest key set, in bytes.
const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// Starts the tasks on the current runtime. They end with it.
pub(super) fn start(control: &Arc<Control>) {
    tokio::spawn(end_forbids(Arc::clone(control)));
    let client = match HttpClient::new() {
        Ok(client) => client,
        Err(error) => {
            // Hooks are decided by their domains' `fail` then; the queue must be emptied all the same.
            tracing::error!(event = event::HOOK_FAILED, "hooks cannot be asked: {error}");
            tokio::spawn(refuse_hooks(Arc::clone(control)));
            return;
        }
    };
    tokio::spawn(serve_hooks(Arc::clone(control), client.clone()));
    tokio::spawn(fetch_key_sets(Arc::clone(control), client));
}

async fn end_forbids(control: Arc<Control>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let ended = control.access.expire(unix_s());
        for target in &ended {
            tracing::info!(event = event::RESUME, target = %target, "the forbid has ended");
        }
        if !ended.is_empty() {
            control.publish_rules();
        }
    }
}

async fn serve_hooks(control: Arc<Control>, client: HttpClient) {
    let service = Arc::new(HookService::new(client));
    let in_flight_max = usize::from(control.config().access.hooks_in_flight_max);
    let slots = Arc::new(Semaphore::new(in_flight_max));
    let asks = control.access.asks();
    loop {
        let question = asks.next().await;
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (control, service) = (Arc::clone(&control), Arc::clone(&service));
        tokio::spawn(async move {
            let (answer, result) = service.answer(&question).await;
            drop(slot);
            control.process.hook_questions.of(result).increment();
            let rules = control.access.rules();
            let decision = match answer {
                Some(answer) => rules.conclude(&question, &answer),
                None => rules.without_hook(&question),
            };
            deliver(&control, &question, decision).await;
        });
    }
}

async fn refuse_hooks(control: Arc<Control>) {
    let asks = control.access.asks();
    loop {
        let question = asks.next().await;
        let decision = control.access.rules().without_hook(&question);
        deliver(&control, &question, decision).await;
    }
}

/// Gives an answer to the worker that asked. A worker that takes none for too long has lost its peer
/// anyway; the answer is dropped, and with it the place a grant holds.
async fn deliver(control: &Control, question: &HookQuestion, decision: crate::access::Decision) {
    let connection = question.connection;
    let Some(worker) = control.workers.get(usize::from(connection.worker)) else { return };
    let mut command =
        Command::Answer { connection, ticket: question.ticket, decision: Box::new(decision) };
    for _ in 0..DELIVERY_TRIES_MAX {
        match worker.offer(command) {
            Ok(()) => return,
            Err(refused) => command = refused,
        }
        sleep(DELIVERY_PAUSE).await;
    }
    tracing::warn!(event = event::HOOK_FAILED, conn = %connection, "the worker takes no answer");
}

async fn fetch_key_sets(control: Arc<Control>, client: HttpClient) {
    let mut due: HashMap<String, Instant> = HashMap::new();
    let mut tick = interval(KEY_SET_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let urls = control.access.key_set_urls();
        due.retain(|url, _| urls.contains(url));
        for url in urls {
            if due.get(&url).is_some_and(|due| Instant::now() < *due) {
                continue;
            }
            let refresh = Duration::from_secs(control.config().access.jwks_refresh_s.into());
            let next = match fetch_key_set(&control, &client, &url).await {
                Ok(changed) => {
                    if changed {
                        control.publish_rules();
                    }
                    refresh
                }
                Err(error) => {
                    tracing::warn!(event = event::HOOK_FAILED, url, "key set: {error}");
                    refresh.min(KEY_SET_RETRY)
                }
            };
            due.insert(url, Instant::now() + next);
        }
    }
}

async fn fetch_key_set(control: &Control, client: &HttpClient, url: &str) -> Result<bool, String> {
    let uri: Uri = url.parse().map_err(|_| "not an address".to_owned())?;
    let request = HttpRequest {
        method: Method::GET,
        url: &uri,
        headers: Vec::new(),
        body: Vec::new(),
        timeout: KEY_SET_TIMEOUT,
        answer_bytes_max: KEY_SET_BYTES_MAX,
    };
    let (status, body) = client.ask(request).await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("the server answered {status}"));
    }
    let text = std::str::from_utf8(&body).map_err(|_| "not a text".to_owned())?;
    control.access.put_key_set(url, text)
}
