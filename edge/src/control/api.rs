//! The admin API: one table of routes, their handlers, their JSON.
//!
//! Described by `openapi.json`, which a test compares with [`ROUTES`] and with real answers. Lists
//! default to everything up to [`LIMIT_DEFAULT`]. Errors are `{"error":{"code","message"}}`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::inspect::{self, NoAnswer};
use super::upgrade::UpgradeStatus;
use super::{Control, HEARTBEAT_MAX, Phase};
use crate::certs::CertInfo;
use crate::command::{ClientInfo, ConnectionId, InspectScope, StreamInfo};
use crate::config::DEFAULT_VHOST;
use crate::log::event;
use crate::metrics::{CertificateState, ConnectionState, Role, openmetrics};

/// Entries of a list when the request does not say.
pub const LIMIT_DEFAULT: usize = 1_000;
/// Entries of a list at most.
pub const LIMIT_MAX: usize = 10_000;

/// The description of this API.
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// Method and path of every route, as in the description.
pub const ROUTES: &[(&str, &str)] = &[
    ("get", "/healthz"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/api/v1/openapi.json"),
    ("get", "/api/v1/status"),
    ("get", "/api/v1/server"),
    ("get", "/api/v1/streams"),
    ("get", "/api/v1/streams/{app}/{name}"),
    ("get", "/api/v1/clients"),
    ("delete", "/api/v1/clients/{id}"),
    ("get", "/api/v1/certs"),
    ("get", "/api/v1/addresses"),
    ("post", "/api/v1/qr"),
    ("get", "/api/v1/domains"),
    ("post", "/api/v1/domains"),
    ("get", "/api/v1/domains/{domain}"),
    ("put", "/api/v1/domains/{domain}"),
    ("delete", "/api/v1/domains/{domain}"),
    ("post", "/api/v1/domains/{domain}/keys"),
    ("get", "/api/v1/domains/{domain}/quotas"),
    ("put", "/api/v1/domains/{domain}/quotas"),
    ("get", "/api/v1/forbids"),
    ("post", "/api/v1/forbids"),
    ("put", "/api/v1/forbids/{target}"),
    ("delete", "/api/v1/forbids/{target}"),
    ("post", "/api/v1/reload"),
    ("post", "/api/v1/drain"),
    ("post", "/api/v1/upgrade"),
];

type Shared = State<Arc<Control>>;

/// Paths that need no token: load balancers and service managers ask them.
pub(super) fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/openapi.json", get(openapi))
        .route("/api/v1/status", get(status))
        .route("/api/v1/streams", get(streams))
        // One wildcard, because an app may contain slashes: the name is what follows the last.
        .route("/api/v1/streams/{*path}", get(stream))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}", delete(kick))
        .route("/api/v1/certs", get(certs))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/upgrade", post(upgrade))
        .merge(super::address::routes())
        .merge(super::domains::routes())
        .merge(super::facts::routes())
        .merge(super::forbids::routes())
        .merge(super::qr::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
}

/// An answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<NoAnswer> for ApiError {
    fn from(no_answer: NoAnswer) -> Self {
        let (code, message) = match no_answer {
            NoAnswer::Busy => ("worker_busy", "the worker has too many commands waiting"),
            NoAnswer::Silent => ("worker_timeout", "the worker did not answer in time"),
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

async fn no_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_route", "no such route; see /api/v1/openapi.json")
}

async fn no_method() -> ApiError {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError::new(status, "method_not_allowed", "this route has other methods")
}

fn health(ok: bool, body: serde_json::Value) -> Response {
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn healthz(State(control): Shared) -> Response {
    let silent = control.silent_workers(Instant::now());
    let ok = silent.is_empty();
    let status = if ok { "ok" } else { "failing" };
    let heartbeat_ms_max = u64::try_from(HEARTBEAT_MAX.as_millis()).unwrap_or(u64::MAX);
    health(
        ok,
        json!({"status": status, "silent_workers": silent, "heartbeat_ms_max": heartbeat_ms_max}),
    )
}

async fn readyz(State(control): Shared) -> Response {
    let phase = control.phase();
    health(phase == Phase::Ready, json!({"status": phase}))
}

async fn metrics(State(control): Shared) -> Response {
    ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], control.metrics_text()).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// The process in figures.
#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    pid: u32,
    status: Phase,
    uptime_ms: u64,
    upgrade: UpgradeStatus,
    drain: Option<DrainStatus>,
    pub(super) connections: u64,
    publishers: u64,
    subscribers: u64,
    pub(super) streams: u64,
    ingress_bytes: u64,
    egress_bytes: u64,
    workers: Vec<WorkerStatus>,
}

/// A drain under way; who is left is in the totals.
#[derive(Serialize)]
struct DrainStatus {
    left_ms: u64,
}

#[derive(Serialize)]
struct WorkerStatus {
    worker: u16,
    healthy: bool,
    connections: u64,
    busy_ratio: f64,
    turns: u64,
    restarts: u64,
}

async fn status(State(control): Shared) -> Json<Status> {
    Json(status_of(&control))
}

/// Version, totals, workers.
pub(super) fn status_of(control: &Control) -> Status {
    const STATES: [ConnectionState; 5] = [
        ConnectionState::Handshake,
        ConnectionState::Command,
        ConnectionState::Waiting,
        ConnectionState::Live,
        ConnectionState::Closing,
    ];
    let silent = control.silent_workers(Instant::now());
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        status: control.phase(),
        uptime_ms: u64::try_from(control.uptime().as_millis()).unwrap_or(u64::MAX),
        upgrade: control.upgrade_status(),
        drain: (control.phase() == Phase::Draining)
            .then(|| DrainStatus { left_ms: control.drain_left_ms() }),
        connections: 0,
        publishers: 0,
        subscribers: 0,
        streams: 0,
        ingress_bytes: 0,
        egress_bytes: 0,
        workers: Vec::with_capacity(control.workers.len()),
    };
    for (worker, restarts) in control.workers.iter().zip(control.restarts()) {
        let metrics = worker.metrics();
        let of_role = |role| STATES.iter().map(|s| metrics.connections.of(role, *s).value()).sum();
        let (publishers, subscribers): (u64, u64) =
            (of_role(Role::Publisher), of_role(Role::Subscriber));
        let undecided: u64 = of_role(Role::Undecided);
        status.publishers += publishers;
        status.subscribers += subscribers;
        status.connections += undecided + publishers + subscribers;
        status.streams += live_streams(metrics);
        status.ingress_bytes += metrics.ingress_bytes.value();
        status.egress_bytes += metrics.egress_bytes.value();
        status.workers.push(WorkerStatus {
            worker: worker.index(),
            healthy: !silent.contains(&worker.index()),
            connections: undecided + publishers + subscribers,
            busy_ratio: metrics.busy.value(),
            turns: metrics.turns.value(),
            restarts,
        });
    }
    status
}

fn live_streams(metrics: &crate::metrics::WorkerMetrics) -> u64 {
    use crate::metrics::StreamLife::{Grace, Live, Waiting};
    [Live, Grace, Waiting].map(|life| metrics.streams.of(life).value()).iter().sum()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    vhost: Option<String>,
    app: Option<String>,
    stream: Option<String>,
    role: Option<String>,
    offset: Option<usize>,
    limit: Option<usize>,
}

impl ListQuery {
    fn matches(&self, vhost: Option<&str>, app: Option<&str>, stream: Option<&str>) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
        };
        fits(&self.vhost, vhost) && fits(&self.app, app) && fits(&self.stream, stream)
    }

    fn page<T>(&self, all: Vec<T>, missing_workers: Vec<u16>) -> Result<Page<T>, ApiError> {
        page(all, self.offset, self.limit, missing_workers)
    }
}

fn page<T>(
    all: Vec<T>,
    offset: Option<usize>,
    limit: Option<usize>,
    missing_workers: Vec<u16>,
) -> Result<Page<T>, ApiError> {
    let (offset, limit) = (offset.unwrap_or(0), limit.unwrap_or(LIMIT_DEFAULT));
    if limit == 0 || limit > LIMIT_MAX {
        return Err(ApiError::bad_request(format!("limit must be 1..={LIMIT_MAX}")));
    }
    let total = all.len();
    let items = all.into_iter().skip(offset).take(limit).collect();
    Ok(Page { total, offset, limit, missing_workers, items })
}

/// A part of a list.
#[derive(Serialize)]
struct Page<T> {
    total: usize,
    offset: usize,
    limit: usize,
    /// Workers whose entries are not in the list because they did not answer.
    missing_workers: Vec<u16>,
    items: Vec<T>,
}

async fn streams(
    State(control): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page<StreamInfo>>, ApiError> {
    let Query(query) = query?;
    if query.role.is_some() {
        return Err(ApiError::bad_request("streams have no role"));
    }
    let mut all = inspect::collect(&control, InspectScope::Streams).await;
    all.streams.retain(|s| query.matches(Some(&s.vhost), Some(&s.app), Some(&s.name)));
    query.page(all.streams, all.missing_workers).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    vhost: Option<String>,
}

async fn stream(
    State(control): Shared,
    Path(path): Path<String>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Result<Json<StreamInfo>, ApiError> {
    let Query(query) = query?;
    let vhost = query.vhost.as_deref().unwrap_or(DEFAULT_VHOST);
    let Some((app, name)) = path.rsplit_once('/') else {
        return Err(ApiError::not_found("a stream is APP/NAME"));
    };
    let all = inspect::collect(&control, InspectScope::Streams).await;
    let mut streams = all.streams.into_iter();
    match streams.find(|s| s.vhost == vhost && s.app == app && s.name == name) {
        Some(stream) => Ok(Json(stream)),
        // Absent, as far as is known: the home worker may be among those that did not answer.
        None if !all.missing_workers.is_empty() => Err(NoAnswer::Silent.into()),
        None => Err(ApiError::not_found(format!("no stream {app}/{name} on vhost {vhost}"))),
    }
}

async fn clients(
    State(control): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page<ClientInfo>>, ApiError> {
    let Query(query) = query?;
    let role = query.role.as_deref().map(parse_role).transpose()?;
    let mut all = inspect::collect(&control, InspectScope::Clients).await;
    all.clients.retain(|c| {
        role.is_none_or(|role| role == c.role)
            && query.matches(c.vhost.as_deref(), c.app.as_deref(), c.stream.as_deref())
    });
    query.page(all.clients, all.missing_workers).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CertQuery {
    state: Option<CertificateState>,
    name: Option<String>,
    offset: Option<usize>,
    limit: Option<usize>,
}

async fn certs(
    State(control): Shared,
    query: Result<Query<CertQuery>, QueryRejection>,
) -> Result<Json<Page<CertInfo>>, ApiError> {
    let Query(CertQuery { state, name, offset, limit }) = query?;
    let mut all = control.certs().list();
    all.retain(|one| {
        let is_named = |wanted: &String| one.name == *wanted || one.names.contains(wanted);
        state.is_none_or(|state| state == one.state) && name.as_ref().is_none_or(is_named)
    });
    page(all, offset, limit, Vec::new()).map(Json)
}

fn parse_role(text: &str) -> Result<Role, ApiError> {
    match text {
        "undecided" => Ok(Role::Undecided),
        "publisher" => Ok(Role::Publisher),
        "subscriber" => Ok(Role::Subscriber),
        _ => Err(ApiError::bad_request("role is undecided, publisher or subscriber")),
    }
}

async fn kick(State(control): Shared, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id: ConnectionId = id.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    if !inspect::kick(&control, id).await? {
        return Err(ApiError::not_found(format!("no client {id}")));
    }
    tracing::info!(event = event::ADMIN, conn = %id, "client kicked");
    Ok(Json(json!({"kicked": id})).into_response())
}

async fn reload(State(control): Shared) -> Result<Response, ApiError> {
    match control.reload() {
        Ok(report) => Ok(Json(report).into_response()),
        Err(error) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(ApiError::new(status, "config_refused", error.to_string()))
        }
    }
}

async fn drain(State(control): Shared) -> Response {
    tracing::info!(event = event::ADMIN, "drain requested");
    control.request_drain();
    let drain_ms = control.config().shutdown.drain_ms;
    (StatusCode::ACCEPTED, Json(json!({"status": "draining", "drain_ms": drain_ms})))
        .into_response()
}

async fn upgrade(State(control): Shared) -> Response {
    tracing::info!(event = event::ADMIN, "upgrade requested");
    control.request_upgrade();
    (StatusCode::ACCEPTED, Json(json!({"status": "upgrading", "pid": std::process::id()})))
        .into_response()
}
