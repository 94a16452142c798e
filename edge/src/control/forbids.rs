//! Admin API routes of forbids: forbid, list, resume now or later, cut.
//!
//! A forbid first goes into force (and into the store), then those who publish or play against it are cut:
//! nobody slips in between. Cutting asks the workers; one that does not answer is named in the answer, and
//! its peers are refused when they come again.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::ApiError;
use super::domains::BODY_BYTES_MAX;
use super::{Control, inspect, unix_s};
use crate::access::forbid::{Forbid, REASON_BYTES_MAX, Scope, Target, utc_text};
use crate::command::{ClientInfo, InspectScope};
use crate::log::event;

type Shared = State<Arc<Control>>;
type Answer = Result<Response, ApiError>;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/api/v1/forbids", get(list).post(forbid))
        // A stream's target holds slashes.
        .route("/api/v1/forbids/{*target}", put(reschedule).delete(resume))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text)
}

/// Body of `POST /api/v1/forbids`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// Domain or vhost of the stream; a play domain means the streams of its push domain.
    domain: Option<String>,
    /// App of the stream; needed where apps tell streams apart.
    app: Option<String>,
    /// Name of the stream.
    stream: Option<String>,
    /// Address or network, instead of a stream.
    address: Option<String>,
    #[serde(default)]
    scope: Scope,
    #[serde(flatten)]
    until: Until,
    #[serde(default)]
    reason: String,
    /// Cut only: nothing is forbidden.
    #[serde(default)]
    oneshot: bool,
}

/// When a forbid ends: never, at a time, or after some time.
#[derive(Copy, Clone, Deserialize)]
struct Until {
    until_s: Option<u64>,
    for_s: Option<u64>,
}

impl Until {
    fn read(self, now_s: u64) -> Result<Option<u64>, ApiError> {
        match (self.until_s, self.for_s) {
            (Some(_), Some(_)) => Err(invalid("set until_s or for_s, not both")),
            (Some(until_s), None) if until_s <= now_s => Err(invalid("until_s is in the past")),
            (Some(until_s), None) => Ok(Some(until_s)),
            (None, Some(0)) => Err(invalid("for_s must be at least 1")),
            (None, Some(for_s)) => Ok(Some(now_s.saturating_add(for_s))),
            (None, None) => Ok(None),
        }
    }
}

impl Request {
    fn target(&self, control: &Control) -> Result<Target, ApiError> {
        match (&self.domain, &self.stream, &self.address) {
            (None, None, Some(address)) if self.app.is_none() => {
                address.parse().map(Target::Address).map_err(invalid)
            }
            (Some(domain), Some(stream), None) => {
                let domain = domain.to_ascii_lowercase();
                let rules = control.access.rules();
                let path = rules.stream_named(&domain, self.app.as_deref(), stream);
                path.map(Target::Stream).ok_or_else(|| invalid("no stream can have this name"))
            }
            _ => Err(invalid("name a domain and a stream, or an address")),
        }
    }
}

#[derive(Serialize)]
struct Entry {
    target: String,
    scope: Scope,
    since_s: u64,
    until_s: Option<u64>,
    /// `until_s` for people.
    until: Option<String>,
    reason: String,
    /// Whether it survives a restart.
    persisted: bool,
}

fn entry(control: &Control, target: &Target, forbid: Forbid) -> Entry {
    Entry {
        target: target.to_string(),
        scope: forbid.scope,
        since_s: forbid.since_s,
        until_s: forbid.until_s,
        until: forbid.until_s.map(utc_text),
        reason: forbid.reason,
        persisted: control.access.is_persistent(),
    }
}

async fn list(State(control): Shared) -> Response {
    let all = control.access.forbids(unix_s());
    let items: Vec<_> = all.into_iter().map(|(t, forbid)| entry(&control, &t, forbid)).collect();
    Json(json!({"total": items.len(), "items": items})).into_response()
}

async fn forbid(State(control): Shared, body: Result<Json<Request>, JsonRejection>) -> Answer {
    let Json(request) = body?;
    let now_s = unix_s();
    if request.reason.len() > REASON_BYTES_MAX {
        return Err(invalid(format!("the reason is longer than {REASON_BYTES_MAX} bytes")));
    }
    let target = request.target(&control)?;
    let until_s = request.until.read(now_s)?;
    let Request { scope, reason, oneshot, .. } = request;
    let mut put = None;
    if !oneshot {
        let forbid = Forbid { scope, until_s, since_s: now_s, reason };
        control.access.forbid(target.clone(), forbid.clone())?;
        control.publish_rules();
        let until = until_s.map(utc_text);
        tracing::info!(event = event::FORBID, target = %target, reason = forbid.reason,
            until = until.as_deref().unwrap_or("lifted"), "forbidden");
        put = Some(entry(&control, &target, forbid));
    }
    let (cut, missing_workers) = cut(&control, &target, scope).await;
    tracing::info!(event = event::ADMIN, target = %target, count = cut, "cut");
    let answer = json!({
        "target": target.to_string(), "forbid": put, "cut": cut, "missing_workers": missing_workers,
    });
    Ok(Json(answer).into_response())
}

/// A target as listed; a stream may also be named by the host its players use.
fn read_target(control: &Control, text: &str) -> Result<Target, ApiError> {
    let bad = |error| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", error);
    match text.parse().map_err(bad)? {
        Target::Stream(path) => {
            let rules = control.access.rules();
            let named = rules.stream_named(path.vhost(), Some(path.app()), path.name());
            Ok(Target::Stream(named.unwrap_or(path)))
        }
        address @ Target::Address(_) => Ok(address),
    }
}

/// Body of `PUT /api/v1/forbids/{target}`: when it is to end instead.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reschedule {
    until_s: Option<u64>,
    for_s: Option<u64>,
}

async fn reschedule(
    State(control): Shared,
    Path(target): Path<String>,
    body: Result<Json<Reschedule>, JsonRejection>,
) -> Answer {
    let Json(Reschedule { until_s, for_s }) = body?;
    let target = read_target(&control, &target)?;
    let now_s = unix_s();
    let until_s = Until { until_s, for_s }.read(now_s)?;
    let mut all = control.access.forbids(now_s).into_iter();
    let Some((_, mut forbid)) = all.find(|(candidate, _)| *candidate == target) else {
        let text = format!("{target} is not forbidden");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", text));
    };
    forbid.until_s = until_s;
    control.access.forbid(target.clone(), forbid.clone())?;
    control.publish_rules();
    let until = until_s.map(utc_text);
    tracing::info!(event = event::FORBID, target = %target,
        until = until.as_deref().unwrap_or("lifted"), "rescheduled");
    Ok(Json(entry(&control, &target, forbid)).into_response())
}

async fn resume(State(control): Shared, Path(target): Path<String>) -> Answer {
    let target = read_target(&control, &target)?;
    control.access.resume(&target)?;
    control.publish_rules();
    tracing::info!(event = event::RESUME, target = %target, "resumed by an operator");
    Ok(Json(json!({"resumed": target.to_string()})).into_response())
}

/// Closes everybody a forbid of this target and scope would refuse. Returns how many were closed, and the
/// workers that did not answer.
async fn cut(control: &Arc<Control>, target: &Target, scope: Scope) -> (usize, Vec<u16>) {
    let all = inspect::collect(control, InspectScope::Clients).await;
    let mut missing_workers = all.missing_workers;
    let mut count = 0;
    for client in all.clients.iter().filter(|client| is_meant(client, target, scope)) {
        match inspect::kick(control, client.id).await {
            Ok(true) => count += 1,
            Ok(false) => {}
            Err(_) if missing_workers.contains(&client.id.worker) => {}
            Err(_) => missing_workers.push(client.id.worker),
        }
    }
    missing_workers.sort_unstable();
    (count, missing_workers)
}

/// Whether anything this connection does is what the forbid would refuse.
fn is_meant(client: &ClientInfo, target: &Target, scope: Scope) -> bool {
    let peer = client.peer.parse::<std::net::SocketAddr>().map(|peer| peer.ip());
    client.uses.iter().filter(|(role, _)| scope.covers(*role)).any(|(_, path)| match target {
        Target::Stream(wanted) => path == wanted,
        Target::Address(network) => peer.as_ref().is_ok_and(|peer| network.contains(*peer)),
    })
}

#[cfg(test)]
mod tests {
    use live::path::StreamPath;

    use super::*;
    use crate::access::Role;
    use crate::command::ConnectionId;
    use crate::metrics;

    /// A connection that does something with a stream, and before that played another.
    fn client(role: Option<Role>, peer: &str, [vhost, app, stream]: [&str; 3]) -> ClientInfo {
        let path = |stream| StreamPath::new(vhost, app, stream).unwrap();
        let uses = role.map(|role| vec![(role, path(stream)), (Role::Play, path("other"))]);
        ClientInfo {
            id: ConnectionId { worker: 0, serial: 1 },
            role: metrics::Role::Subscriber,
            protocol: "rtmp",
            peer: peer.to_owned(),
            vhost: None,
            app: None,
            stream: Some("other".to_owned()),
            uses: uses.unwrap_or_default(),
            flash_ver: None,
            bytes_in: 0,
            bytes_out: 0,
            lag_ms: None,
            skips: 0,
            uptime_ms: 0,
        }
    }

    #[test]
    fn a_cut_means_those_whom_the_forbid_would_refuse_and_nobody_else() {
        let (publisher, subscriber) = (Some(Role::Publish), Some(Role::Play));
        let cam = ["d", "live", "cam"];
        let target = |text: &str| text.parse::<Target>().unwrap();
        for (role, path, what, scope, expected) in [
            (publisher, cam, "stream:d/live/cam", Scope::Publish, true),
            (subscriber, cam, "stream:d/live/cam", Scope::Publish, false),
            (subscriber, cam, "stream:d/live/cam", Scope::All, true),
            (None, cam, "stream:d/live/cam", Scope::All, false),
            (publisher, ["d", "live", "cam2"], "stream:d/live/cam", Scope::All, false),
            (publisher, ["e", "live", "cam"], "stream:d/live/cam", Scope::All, false),
            (publisher, cam, "address:192.0.2.0/24", Scope::All, true),
            (subscriber, cam, "address:192.0.2.9", Scope::Play, true),
            (subscriber, cam, "address:192.0.2.8", Scope::Play, false),
        ] {
            let is = is_meant(&client(role, "192.0.2.9:5000", path), &target(what), scope);
            assert_eq!(is, expected, "{role:?} {path:?} {what} {scope:?}");
        }
    }
}
