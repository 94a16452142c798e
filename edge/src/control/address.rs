//! Admin API route of the address generator: addresses of a configured domain, signed with its keys.
//!
//! The keys stay in the server: an answer holds signatures only, and addresses are never logged.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::api::ApiError;
use super::{Control, Listening, unix_s};
use crate::access::Role;
use crate::access::check::Check;
use crate::access::domain::Domain;
use crate::access::manager::AccessError;
use crate::access::providers::Provider;
use crate::access::providers::jwt;
use crate::access::providers::usersig::map_key::{PLAY_ONLY, PUBLISH_AND_PLAY};
use crate::access::providers::usersig::{RoomPlace, UserSig, ticket};
use crate::access::spec::normal_name;
use crate::address::{Order, Ports, Signer, generate};

pub(super) fn routes() -> Router<Arc<Control>> {
    Router::new().route("/api/v1/addresses", get(addresses))
}

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    domain: String,
    role: Role,
    app: String,
    stream: String,
    /// Seconds.
    valid_s: Option<u64>,
    /// usersig: whom the address is for.
    user: Option<String>,
}

async fn addresses(
    State(control): State<Arc<Control>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(wanted) = query?;
    let bad = |error: String| ApiError::new(StatusCode::BAD_REQUEST, "bad_request", error);
    let name = normal_name(&wanted.domain).map_err(|error| bad(format!("domain: {error}")))?;
    let shown = control.access.domain(&name)?;
    let rules = control.access.rules();
    let domain = rules.domain(&name).ok_or_else(|| {
        AccessError::Conflict(format!("domain {name} cannot be used as it is configured"))
    })?;
    if domain.kind.role() != wanted.role {
        let other = domain.kind.role().text();
        return Err(AccessError::Invalid(format!("domain {name} is there to {other}")).into());
    }
    if let Some(fault) = &domain.fault {
        return Err(AccessError::Conflict(format!("domain {name}: {fault}")).into());
    }
    if wanted.role == Role::Publish && shown.play_domains.is_empty() {
        let text =
            format!("domain {name} has no play domain: what is published could not be played");
        return Err(AccessError::Conflict(text).into());
    }
    let signer = signer(domain, &wanted).map_err(AccessError::Invalid)?;
    let order = Order {
        role: wanted.role,
        domain: &name,
        app: &wanted.app,
        stream: &wanted.stream,
        ports: ports(&control),
        unix_s: unix_s(),
        valid_s: wanted.valid_s,
    };
    let addresses = generate(&signer, &order).map_err(|error| bad(error.to_string()))?;
    let scheme = signer.scheme();
    let answer =
        json!({"domain": name, "role": wanted.role, "scheme": scheme, "addresses": addresses});
    Ok(Json(answer).into_response())
}

/// The first provider of the domain that addresses can be signed for.
fn signer(domain: &Domain, wanted: &Wanted) -> Result<Signer, String> {
    let providers = domain.checks.iter().filter_map(|check| match check {
        Check::Local(provider) => Some(provider),
        Check::Hook => None,
    });
    for provider in providers {
        match provider {
            Provider::Ip(_) => {}
            provider => return signer_of(provider, wanted),
        }
    }
    // Nothing but lists and hooks: an address needs no parameter.
    Ok(Signer::Open)
}

fn signer_of(provider: &Provider, wanted: &Wanted) -> Result<Signer, String> {
    match provider {
        Provider::Open | Provider::Ip(_) => Ok(Signer::Open),
        Provider::TxSecret(scheme) => {
            Ok(Signer::TxSecret { key: scheme.keys.main().clone(), validity_s: scheme.validity_s })
        }
        Provider::Aliyun(scheme) => {
            let validity_s = if scheme.timestamp_is_expiry { 0 } else { scheme.validity_s };
            Ok(Signer::Aliyun { key: scheme.keys.main().clone(), validity_s })
        }
        Provider::Oss(scheme) => {
            let key = scheme.keys.first().ok_or("the domain has no access key")?.clone();
            Ok(Signer::Oss { key, bucket: scheme.bucket.clone() })
        }
        Provider::Jwt(scheme) => {
            let missing = "the domain has no key to sign tokens with, only keys to check them";
            let key = jwt::SigningKey::new(scheme.signing_key.as_ref().ok_or(missing)?);
            Ok(Signer::Jwt {
                key: key.map_err(|error| error.to_string())?,
                param: scheme.params.first().map_or("token".into(), Clone::clone),
                issuer: scheme.issuer.clone(),
                audience: scheme.audience.clone(),
            })
        }
        Provider::UserSig(scheme) => usersig_signer(scheme, wanted),
    }
}

fn usersig_signer(scheme: &UserSig, wanted: &Wanted) -> Result<Signer, String> {
    let keys = scheme.keys.shared.as_ref();
    let keys = keys.ok_or("the domain has no key to sign tickets with, only keys to check them")?;
    let room = match scheme.room {
        RoomPlace::Stream => wanted.stream.as_str(),
        RoomPlace::App => wanted.app.rsplit('/').next().unwrap_or_default(),
    };
    let rights = match wanted.role {
        Role::Publish => PUBLISH_AND_PLAY,
        Role::Play => PLAY_ONLY,
    };
    Ok(Signer::UserSig {
        key: ticket::SigningKey::new(keys.main())?,
        sdk_app_id: scheme.sdk_app_id,
        user: wanted.user.as_deref().ok_or("the scheme usersig needs a user")?.into(),
        map_key: scheme.private_map_key.then(|| (room.into(), rights)),
    })
}

fn ports(control: &Control) -> Ports {
    let port = |listens: Option<SocketAddr>| listens.map(|address| address.port());
    let Listening { rtmp, rtmps, http, .. } = control.listening;
    Ports { rtmp: port(rtmp), rtmps: port(rtmps), http: port(http) }
}
