//! The admin API as a client: one request, one JSON answer, errors as phrases for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::Cli;

/// A server to ask.
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(cli: &Cli) -> Result<Self, String> {
        let token = match &cli.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| format!("{}: {error}", file.display()))?;
                Some(text.lines().next().unwrap_or_default().trim().to_owned())
            }
            None => std::env::var("RINGCAST_ADMIN_TOKEN").ok(),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .into();
        let base =
            format!("http://{}", cli.admin.trim_start_matches("http://").trim_end_matches('/'));
        Ok(Self { agent, base, token: token.filter(|token| !token.is_empty()) })
    }

    /// Sends a request without a body and returns the JSON answer.
    pub(crate) fn ask(&self, method: &Method, path: &str) -> Result<Value, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        self.read(self.agent.run(request))
    }

    /// Sends a request with a JSON body and returns the JSON answer.
    pub(crate) fn send(&self, method: &Method, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Content-Type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.to_string()).map_err(|error| error.to_string())?;
        self.read(self.agent.run(request))
    }

    fn read(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Value, String> {
        let mut response =
            response.map_err(|error| format!("cannot ask {}: {error}", self.base))?;
        let status = response.status();
        let body: Value = response
            .body_mut()
            .read_json()
            .map_err(|error| format!("{} answered {status} without JSON: {error}", self.base))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = body["error"]["message"].as_str().unwrap_or("no reason given");
        Err(format!("{} ({message})", status.as_u16()))
    }
}

/// Percent-encodes what may not stand in a path or query; `/` stays in a path.
pub(crate) fn escape(text: &str, path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if path => out.push('/'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_keeps_its_slashes_and_a_query_does_not() {
        assert_eq!(escape("a/b c", true), "a/b%20c");
        assert_eq!(escape("a/b&c", false), "a%2Fb%26c");
    }
}
