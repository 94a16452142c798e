//! Asks hooks: cache, breaker, tries, and what the answers mean.
//!
//! ```text
//!   POST url    {"action":"publish","domain":"push.example.com","app":"live","stream":"cam",
//!                "path":"push.example.com/live/cam","query":"token=…","peer":"192.0.2.7",
//!                "connection":"0-17","tc_url":…,"page_url":…,"flash_ver":…,"user":…,"time_s":1700000000}
//!   with a key  X-Ringcast-Time: 1700000000
//!               X-Ringcast-Signature: hex(hmac_sha256(key, time + "." + body))
//!
//!   2xx, empty body ───────────────────────── yes
//!   2xx {"allow":true, "app":…, "stream":…, "bitrate_bps_max":…, "lifetime_s_max":…, "ttl_s":…}
//!   2xx {"allow":false, "reason":"text for the peer", "ttl_s":…}
//!   401, 403, with or without that body ───── no
//!   anything else, or nothing in time ─────── asked again, then the domain's `fail` decides
//! ```
//!
//! A body that is neither empty nor such JSON is no answer: a web server's error page is not a yes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::client::{HttpClient, HttpError, HttpRequest};
use super::guard::{Breaker, Cache, Turned, digest};
use super::{HookAnswer, HookQuestion, HookSettings};
use crate::access::check::Limits;
use crate::log::event;
use crate::metrics::HookResult;

/// Longest answer of a hook, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest text of a hook that reaches a peer, in characters.
pub const REASON_CHARS_MAX: usize = 256;
/// Text for the peer when the hook gives none.
const REFUSAL: &str = "refused by the authorization service";

/// Hooks with a breaker at one time: as many as there can be domains.
const BREAKERS_MAX: usize = 2 * crate::config::DOMAINS_MAX;

/// Asks hooks; one per process, on the control thread.
#[derive(Debug)]
pub struct HookService {
    client: HttpClient,
    cache: Mutex<Cache>,
    breakers: Mutex<HashMap<String, Breaker>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only map operations run under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HookService {
    /// With nothing kept.
    pub fn new(client: HttpClient) -> Self {
        Self { client, cache: Mutex::default(), breakers: Mutex::default() }
    }

    /// What the question's hook says; `None` when it gives no answer.
    pub async fn answer(&self, question: &HookQuestion) -> (Option<HookAnswer>, HookResult) {
        let Some(settings) = question.domain.hook.as_deref() else {
            return (None, HookResult::Failed);
        };
        let url = settings.url.to_string();
        let key = digest(question, &url);
        if let Some(answer) = locked(&self.cache).find(&key, Instant::now()) {
            return (Some(answer), HookResult::Cached);
        }
        if !self.breaker(&url, |breaker| breaker.admit(Instant::now())) {
            return (None, HookResult::LeftAlone);
        }
        match self.ask(settings, question).await {
            Ok(answer) => {
                if self.breaker(&url, Breaker::succeeded) == Turned::Closed {
                    tracing::info!(
                        event = event::HOOK_BREAKER,
                        hook = url,
                        "the hook answers again"
                    );
                }
                let ttl = answer.ttl.min(settings.cache_max);
                locked(&self.cache).keep(key, &answer, ttl, Instant::now());
                let result = match answer.refusal {
                    Some(_) => HookResult::Refused,
                    None => HookResult::Allowed,
                };
                (Some(answer), result)
            }
            Err(error) => {
                tracing::warn!(event = event::HOOK_FAILED, hook = url,
                    domain = &*question.domain.name, error = %error);
                let (failures_max, open) = (settings.breaker_failures, settings.breaker_open);
                let now = Instant::now();
                let turned = self.breaker(&url, |breaker| breaker.failed(failures_max, open, now));
                if turned == Turned::Opened {
                    let ms = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
                    tracing::error!(
                        event = event::HOOK_BREAKER,
                        hook = url,
                        ms,
                        "the hook is left alone"
                    );
                }
                (None, HookResult::Failed)
            }
        }
    }

    fn breaker<T>(&self, url: &str, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breakers = locked(&self.breakers);
        if breakers.len() >= BREAKERS_MAX {
            breakers.retain(|_, breaker| *breaker != Breaker::default());
        }
        act(breakers.entry(url.to_owned()).or_default())
    }

    async fn ask(
        &self,
        settings: &HookSettings,
        question: &HookQuestion,
    ) -> Result<HookAnswer, HttpError> {
        let body = body(question);
        let mut last = HttpError::TimedOut;
        for _ in 0..=settings.retries {
            let request = HttpRequest {
                method: Method::POST,
                url: &settings.url,
                headers: signature(settings, question.unix_s, &body),
                body: body.clone(),
                timeout: settings.timeout,
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            match self.client.ask(request).await {
                Ok((status, body)) => match read(status, &body) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = HttpError::Failed(error),
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn body(question: &HookQuestion) -> Vec<u8> {
    json!({
        "action": question.role.text(),
        "domain": question.domain.name,
        "app": question.app,
        "stream": question.stream,
        "path": question.path.as_str(),
        "query": question.query.expose(),
        "peer": question.peer,
        "connection": question.connection,
        "tc_url": question.tc_url,
        "page_url": question.page_url,
        "flash_ver": question.flash_ver,
        "user": question.pass.user,
        "time_s": question.unix_s,
    })
    .to_string()
    .into_bytes()
}

fn signature(settings: &HookSettings, unix_s: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    let Some(key) = &settings.key else { return Vec::new() };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.expose().as_bytes());
    let mut context = aws_lc_rs::hmac::Context::with_key(&key);
    context.update(unix_s.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let hex = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    vec![("x-ringcast-time", unix_s.to_string()), ("x-ringcast-signature", hex)]
}

/// The body of an answer. Fields this version does not know are let pass, so that a hook can be newer.
#[derive(Deserialize, Default)]
struct AnswerBody {
    allow: Option<bool>,
    reason: Option<String>,
    app: Option<String>,
    stream: Option<String>,
    bitrate_bps_max: Option<u64>,
    lifetime_s_max: Option<u64>,
    ttl_s: Option<u32>,
}

fn read(status: StatusCode, body: &[u8]) -> Result<HookAnswer, String> {
    let is_refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    if !status.is_success() && !is_refusal {
        return Err(format!("it answered {status}"));
    }
    let parsed = if body.is_empty() {
        AnswerBody { allow: Some(!is_refusal), ..AnswerBody::default() }
    } else {
        match serde_json::from_slice(body) {
            Ok(parsed) => parsed,
            // The status alone is clear enough.
            Err(_) if is_refusal => AnswerBody::default(),
            Err(_) => return Err("its answer is not the JSON expected".to_owned()),
        }
    };
    let allow = match (is_refusal, parsed.allow) {
        (true, _) => false,
        (false, Some(allow)) => allow,
        (false, None) => return Err("its answer has no \"allow\"".to_owned()),
    };
    let reason = parsed.reason.map(|reason| printable(&reason)).filter(|reason| !reason.is_empty());
    Ok(HookAnswer {
        refusal: (!allow).then(|| reason.unwrap_or_else(|| REFUSAL.to_owned())),
        app: parsed.app,
        stream: parsed.stream,
        limits: Limits {
            bitrate_bps_max: parsed.bitrate_bps_max,
            lifetime_s_max: parsed.lifetime_s_max,
        },
        ttl: Duration::from_secs(parsed.ttl_s.unwrap_or(0).into()),
    })
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<HookAnswer, String> {
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_yes_is_a_yes_with_its_limits() {
        assert_eq!(answer(204, ""), Ok(HookAnswer::default()));
        let full = answer(
            200,
            r#"{"allow":true,"stream":"x","bitrate_bps_max":5,"lifetime_s_max":6,"ttl_s":7,"more":1}"#,
        )
        .unwrap();
        assert_eq!((full.refusal, full.stream.as_deref()), (None, Some("x")));
        let limits = Limits { bitrate_bps_max: Some(5), lifetime_s_max: Some(6) };
        assert_eq!((full.limits, full.ttl), (limits, Duration::from_secs(7)));
    }

    #[test]
    fn a_no_has_a_text_without_control_characters() {
        for (status, body, text) in [
            (200, r#"{"allow":false}"#, REFUSAL),
            (200, r#"{"allow":false,"reason":"not\u0007 you\n"}"#, "not you"),
            (403, "", REFUSAL),
            (401, "<html>go away</html>", REFUSAL),
            (403, r#"{"allow":true,"reason":"no"}"#, "no"),
        ] {
            assert_eq!(answer(status, body).unwrap().refusal.as_deref(), Some(text), "{body}");
        }
        let long = format!(r#"{{"allow":false,"reason":"{}"}}"#, "x".repeat(9_999));
        assert_eq!(answer(200, &long).unwrap().refusal.unwrap().len(), REASON_CHARS_MAX);
    }

    #[test]
    fn what_is_neither_is_no_answer() {
        for (status, body) in [
            (200, "<html>welcome</html>"),
            (200, "{}"),
            (200, r#"{"allow":"yes"}"#),
            (200, "null"),
            (200, r#"{"allow":true,"ttl_s":-1}"#),
            (302, ""),
            (404, ""),
            (500, r#"{"allow":true}"#),
        ] {
            assert!(answer(status, body).is_err(), "{status} {body}");
        }
    }
}
