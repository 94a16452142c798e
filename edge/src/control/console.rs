//! The operator's console: the files of `edge/console`, held in the binary and served on the admin address.
//!
//! They need no token, because they hold nothing of the server: what they show they ask of the API, which
//! wants one. No script or style stands inside a page, and the policy sent along forbids it, so that no name
//! a peer chose can become code. `connect-src` is wide: the player takes addresses of any host.
//!
//! Each answer carries an entity tag and is asked for again with it (`no-cache`): a new server brings its new
//! console at once, an unchanged file costs one short answer.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::Control;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Bytes of a hash that make an entity tag.
const TAG_BYTES: usize = 12;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self' http: https: ws: wss:; media-src blob: http: https:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// One file of the console.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal: $kind:ident = $file:literal,)*) => {
        const ASSETS: &[Asset] = &[$(Asset {
            path: $path,
            kind: $kind,
            bytes: include_bytes!(concat!("../../console/", $file)),
        }),*];
    };
}

assets! {
    "/": HTML = "index.html",
    "/console/style.css": CSS = "style.css",
    "/console/icon.svg": SVG = "icon.svg",
    "/console/api.js": SCRIPT = "api.js",
    "/console/dialogs.js": SCRIPT = "dialogs.js",
    "/console/dom.js": SCRIPT = "dom.js",
    "/console/format.js": SCRIPT = "format.js",
    "/console/graph.js": SCRIPT = "graph.js",
    "/console/health.js": SCRIPT = "health.js",
    "/console/main.js": SCRIPT = "main.js",
    "/console/metrics.js": SCRIPT = "metrics.js",
    "/console/player.js": SCRIPT = "player.js",
    "/console/store.js": SCRIPT = "store.js",
    "/console/urls.js": SCRIPT = "urls.js",
    "/console/views/addresses.js": SCRIPT = "views/addresses.js",
    "/console/views/bans.js": SCRIPT = "views/bans.js",
    "/console/views/certificates.js": SCRIPT = "views/certificates.js",
    "/console/views/clients.js": SCRIPT = "views/clients.js",
    "/console/views/limits.js": SCRIPT = "views/limits.js",
    "/console/views/parts.js": SCRIPT = "views/parts.js",
    "/console/views/play.js": SCRIPT = "views/play.js",
    "/console/views/streams.js": SCRIPT = "views/streams.js",
}

/// Whether this path is one of the console, which is served to whoever reaches the admin address.
pub(super) fn is_part(path: &str) -> bool {
    ASSETS.iter().any(|asset| asset.path == path)
}

pub(super) fn routes() -> Router<Arc<Control>> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = tag(asset.bytes);
        let answer = move |headers: HeaderMap| {
            let response = answer(asset, &tag, &headers);
            async move { response }
        };
        router.route(asset.path, get(answer))
    })
}

/// The entity tag of these bytes, quotes included.
fn tag(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = hash.as_ref().iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}"));
    format!("\"{}\"", hex.collect::<String>())
}

fn answer(asset: &Asset, tag: &str, request: &HeaderMap) -> Response {
    let mut response = if is_known(request, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.kind)], asset.bytes).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Whether whoever asks has this content already.
fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let known =
        request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_a_list_and_as_a_weak_one_and_another_is_not() {
        let asks = |known: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(known).unwrap());
            is_known(&headers, "\"ab\"")
        };
        assert!(asks("\"ab\"") && asks("\"x\", W/\"ab\"") && asks("*"));
        assert!(!asks("\"abc\"") && !asks("ab") && !asks(""));
        assert!(!is_known(&HeaderMap::new(), "\"ab\""));
    }

    #[test]
    fn different_content_has_different_tags() {
        assert_ne!(tag(b"one"), tag(b"two"));
        assert_eq!(tag(b"one").len(), TAG_BYTES * 2 + 2);
    }
}
