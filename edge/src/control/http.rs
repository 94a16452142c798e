//! The admin listener: accepts, bounds and authenticates; [`super::api`] answers.
//!
//! At most [`CONNECTIONS_MAX`] connections, each closed when a request header takes longer than
//! [`HEADER_MAX`]. Health and the files of the console need no token. With a token set, everything else does.
//! Without one the address is loopback (the configuration insists), and requests that a browser was tricked
//! into are refused: those whose `Origin` is not this address, and those whose `Host` is a name other than
//! `localhost`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::api::{self, ApiError};
use super::{Control, console};
use crate::metrics::Outcome;

/// Admin connections at one time; more wait in the kernel.
pub const CONNECTIONS_MAX: usize = 64;
/// Time a client has to send a request header, also between two requests.
pub const HEADER_MAX: Duration = Duration::from_secs(30);

/// Serves forever.
pub async fn serve(listener: TcpListener, control: Arc<Control>) {
    let service = TowerToHyperService::new(router(control));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: do not spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = service.clone();
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that leaves early or sends nonsense is no event.
            drop(connection.await);
            drop(slot);
        });
    }
}

/// All routes behind the guard.
pub fn router(control: Arc<Control>) -> Router {
    let routes = api::routes().merge(console::routes());
    routes.layer(from_fn_with_state(Arc::clone(&control), guard)).with_state(control)
}

async fn guard(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    let response = match admit(&control, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let failed = response.status().as_u16() >= StatusCode::BAD_REQUEST.as_u16();
    let outcome = if failed { Outcome::Failure } else { Outcome::Success };
    control.process.admin_requests.of(outcome).increment();
    response
}

fn admit(control: &Control, request: &Request) -> Result<(), ApiError> {
    let path = request.uri().path();
    if api::is_public(path) || console::is_part(path) {
        return Ok(());
    }
    let config = control.config();
    let token = config.admin.token.expose();
    if token.is_empty() {
        return refuse_foreign_origin(request.headers(), request.uri());
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map_or("", |(_, given)| given.trim());
    if bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
        Ok(())
    } else {
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "a bearer token is required"))
    }
}

/// Without a token only this machine can connect, but a web page in a browser on this machine can too. The
/// console is such a page, and its changes carry the origin of this very address.
fn refuse_foreign_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(uri.host());
    let foreign_host = host.is_some_and(|host| {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
        });
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        !bare.eq_ignore_ascii_case("localhost") && bare.parse::<std::net::IpAddr>().is_err()
    });
    let is_own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, at)| host.is_some_and(|host| host.eq_ignore_ascii_case(at)))
    };
    if foreign_host || headers.get_all(header::ORIGIN).iter().any(|origin| !is_own(origin)) {
        let message = "requests from web pages need an admin token";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Ok(())
}
