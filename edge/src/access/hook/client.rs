//! The small HTTP client of the control thread: one request, a time limit, a bounded answer.
//!
//! HTTP/1.1 over TCP or TLS with the machine's root certificates. Follows no redirect and uses no proxy: a
//! hook's address is what the operator wrote. Connections are kept for the next question.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Connections to one host that are kept though idle.
const IDLE_PER_HOST_MAX: usize = 16;

/// No usable answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// Not in time.
    TimedOut,
    /// The answer is longer than allowed.
    TooLong,
    /// Not connected, or not understood.
    Failed(String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::TooLong => f.write_str("the answer is too long"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct HttpRequest<'r> {
    /// GET or POST.
    pub method: Method,
    /// Where to.
    pub url: &'r Uri,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// Time for all of it.
    pub timeout: Duration,
    /// Longest answer, in bytes.
    pub answer_bytes_max: usize,
}

/// The client; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    /// Reads the machine's root certificates.
    ///
    /// # Errors
    /// A phrase, when there are none.
    pub fn new() -> Result<Self, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| format!("no root certificates: {error}"))?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build(connector);
        Ok(Self { client })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`HttpError`]; never for a status, which is the caller's to judge.
    pub async fn ask(&self, request: HttpRequest<'_>) -> Result<(StatusCode, Bytes), HttpError> {
        let (timeout, answer_bytes_max) = (request.timeout, request.answer_bytes_max);
        let failed = |error: &dyn std::error::Error| HttpError::Failed(cause(error));
        let mut builder = Request::builder()
            .method(request.method)
            .uri(request.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("Ringcast/", env!("CARGO_PKG_VERSION")));
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::from(request.body)).map_err(|error| failed(&error))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| failed(&error))?;
            let (head, body) = response.into_parts();
            match Limited::new(body, answer_bytes_max).collect().await {
                Ok(body) => Ok((head.status, body.to_bytes())),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    Err(HttpError::TooLong)
                }
                Err(error) => Err(failed(&*error)),
            }
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(HttpError::TimedOut))
    }
}

/// The innermost cause says most: "connection refused" rather than "client error".
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
