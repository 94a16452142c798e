//! Admin API routes of domains: list, make, change, remove, keys, quotas.
//!
//! Domains of the configuration file are shown here and changed there. Keys go in and never come out: every
//! answer shows their fingerprints. A change is kept (if there is a store), in force and on its way to the
//! workers when the answer is sent.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Control;
use super::api::{ApiError, LIMIT_DEFAULT, LIMIT_MAX};
use crate::access::keys::{NewKey, Rotation};
use crate::access::manager::{AccessError, Shown};
use crate::access::spec::{DomainSpec, Scheme, normal_name};
use crate::log::event;

/// Largest request body of these routes, in bytes: a domain with full address lists.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

type Shared = State<Arc<Control>>;
type Answer = Result<Response, ApiError>;

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/api/v1/domains", get(list).post(make))
        .route("/api/v1/domains/{domain}", get(one).put(change).delete(remove))
        .route("/api/v1/domains/{domain}/keys", post(keys))
        .route("/api/v1/domains/{domain}/quotas", get(quotas).put(change_quotas))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        let (status, code) = match &error {
            AccessError::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            AccessError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            AccessError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            AccessError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "not_kept"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        // Says where and what was expected; keys refuse to be repeated (see `access::secret`).
        Self::new(rejection.status(), "bad_request", rejection.body_text())
    }
}

/// One domain in an answer.
#[derive(Serialize)]
struct DomainAnswer {
    name: String,
    /// `file` or `api`.
    source: &'static str,
    /// Whether it survives a restart.
    persisted: bool,
    fault: Option<String>,
    play_domains: Vec<String>,
    publishers: u32,
    subscribers: u32,
    spec: Value,
}

fn answer(control: &Control, shown: Shown) -> DomainAnswer {
    DomainAnswer {
        name: shown.name,
        source: if shown.from_file { "file" } else { "api" },
        persisted: shown.from_file || control.access.is_persistent(),
        fault: shown.fault,
        play_domains: shown.play_domains,
        publishers: shown.publishers,
        subscribers: shown.subscribers,
        spec: shown.spec,
    }
}

fn read_name(name: &str) -> Result<String, ApiError> {
    let bad = |error| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", error);
    normal_name(name).map_err(|error| bad(format!("domain {name:?}: {error}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    offset: Option<usize>,
    limit: Option<usize>,
}

async fn list(State(control): Shared, query: Result<Query<ListQuery>, QueryRejection>) -> Answer {
    let Query(query) = query?;
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(LIMIT_DEFAULT));
    if limit == 0 || limit > LIMIT_MAX {
        let text = format!("limit must be 1..={LIMIT_MAX}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_request", text));
    }
    let all = control.access.domains();
    let total = all.len();
    let items: Vec<_> =
        all.into_iter().skip(offset).take(limit).map(|shown| answer(&control, shown)).collect();
    let page = json!({"total": total, "offset": offset, "limit": limit, "items": items});
    Ok(Json(page).into_response())
}

/// Body of `POST /api/v1/domains`: the name beside the fields of the spec.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

async fn make(State(control): Shared, body: Result<Json<Named>, JsonRejection>) -> Answer {
    let Json(Named { name, rest }) = body?;
    let name = read_name(&name)?;
    let spec: DomainSpec = serde_json::from_value(Value::Object(rest)).map_err(|error| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", error.to_string())
    })?;
    let shown = control.access.put_domain(&name, spec, false)?;
    control.publish_rules();
    tracing::info!(event = event::DOMAIN, domain = name, "domain made");
    Ok((StatusCode::CREATED, Json(answer(&control, shown))).into_response())
}

async fn one(State(control): Shared, Path(name): Path<String>) -> Answer {
    let shown = control.access.domain(&read_name(&name)?)?;
    Ok(Json(answer(&control, shown)).into_response())
}

async fn change(
    State(control): Shared,
    Path(name): Path<String>,
    body: Result<Json<DomainSpec>, JsonRejection>,
) -> Answer {
    let Json(spec) = body?;
    let name = read_name(&name)?;
    let shown = control.access.put_domain(&name, spec, true)?;
    control.publish_rules();
    tracing::info!(event = event::DOMAIN, domain = name, "domain changed");
    Ok(Json(answer(&control, shown)).into_response())
}

async fn remove(State(control): Shared, Path(name): Path<String>) -> Answer {
    let name = read_name(&name)?;
    control.access.remove_domain(&name)?;
    control.publish_rules();
    tracing::info!(event = event::DOMAIN, domain = name, "domain removed");
    Ok(Json(json!({"removed": name})).into_response())
}

#[derive(Copy, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Add,
    Switch,
    Retire,
}

/// Body of `POST /api/v1/domains/{domain}/keys`.
#[derive(Deserialize)]
struct KeyStep {
    scheme: Scheme,
    step: Step,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

async fn keys(
    State(control): Shared,
    Path(name): Path<String>,
    body: Result<Json<KeyStep>, JsonRejection>,
) -> Answer {
    let Json(KeyStep { scheme, step, rest }) = body?;
    let name = read_name(&name)?;
    let invalid =
        |text: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_request", text);
    let has_key = !rest.is_empty();
    let new: NewKey =
        serde_json::from_value(Value::Object(rest)).map_err(|error| invalid(error.to_string()))?;
    let (rotation, done) = match step {
        Step::Add if !has_key => {
            return Err(invalid("a new key is needed: key, key_file or key_env".to_owned()));
        }
        Step::Add => (Rotation::Add(new), "backup key added"),
        Step::Switch | Step::Retire if has_key => {
            return Err(invalid("a key is given with the step add only".to_owned()));
        }
        Step::Switch => (Rotation::Switch, "keys switched"),
        Step::Retire => (Rotation::Retire, "backup key retired"),
    };
    let shown = control.access.rotate(&name, scheme, rotation)?;
    control.publish_rules();
    tracing::info!(event = event::DOMAIN, domain = name, scheme = scheme.text(), "{done}");
    Ok(Json(answer(&control, shown)).into_response())
}

/// Quotas of a domain; in a request those that are to change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quotas {
    publishers_max: Option<u32>,
    subscribers_max: Option<u32>,
    connections_per_address_max: Option<u32>,
    bitrate_bps_max: Option<u64>,
    bitrate_cut_ms: Option<u32>,
}

fn quotas_answer(shown: &Shown) -> Response {
    let quota = |name: &str| shown.spec[name].clone();
    Json(json!({
        "name": shown.name,
        "publishers": shown.publishers,
        "publishers_max": quota("publishers_max"),
        "subscribers": shown.subscribers,
        "subscribers_max": quota("subscribers_max"),
        "connections_per_address_max": quota("connections_per_address_max"),
        "bitrate_bps_max": quota("bitrate_bps_max"),
        "bitrate_cut_ms": quota("bitrate_cut_ms"),
    }))
    .into_response()
}

async fn quotas(State(control): Shared, Path(name): Path<String>) -> Answer {
    Ok(quotas_answer(&control.access.domain(&read_name(&name)?)?))
}

async fn change_quotas(
    State(control): Shared,
    Path(name): Path<String>,
    body: Result<Json<Quotas>, JsonRejection>,
) -> Answer {
    let Json(quotas) = body?;
    let name = read_name(&name)?;
    let shown = control.access.edit_domain(&name, |spec| {
        let set = |to: &mut u32, from: Option<u32>| *to = from.unwrap_or(*to);
        set(&mut spec.publishers_max, quotas.publishers_max);
        set(&mut spec.subscribers_max, quotas.subscribers_max);
        set(&mut spec.connections_per_address_max, quotas.connections_per_address_max);
        set(&mut spec.bitrate_cut_ms, quotas.bitrate_cut_ms);
        spec.bitrate_bps_max = quotas.bitrate_bps_max.unwrap_or(spec.bitrate_bps_max);
        Ok(())
    })?;
    control.publish_rules();
    tracing::info!(event = event::DOMAIN, domain = name, "quotas changed");
    Ok(quotas_answer(&shown))
}
