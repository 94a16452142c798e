//! A `ringcast` with RTMPS.

use std::net::SocketAddr;

use serde_json::Value;

use crate::certs::Folder;
use crate::support::server::{How, Server, matrix, wait_for};

/// Each kernel interface, with one worker and with two.
pub(crate) fn ways() -> Vec<How> {
    matrix(&[1, 2])
}

/// A server with certificates; stopped when dropped.
pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) folder: Folder,
    pub(crate) rtmps: SocketAddr,
}

impl Secured {
    /// Starts one with a single certificate.
    pub(crate) fn start(how: How) -> Self {
        Self::start_with(how, Folder::with_one(), "")
    }

    /// Starts one with a folder of certificates, which it looks at again only when told to, and more
    /// settings: first keys of `[listen]`, then what other sections there are.
    pub(crate) fn start_with(how: How, folder: Folder, settings: &str) -> Self {
        let tls = format!(
            "[tls]\ndir = \"{}\"\nwatch_interval_ms = 3600000\n",
            folder.served().display()
        );
        let listen = "[listen]\nrtmps = \"127.0.0.1:0\"\n";
        let server = Server::start(how, &format!("{tls}{listen}{settings}"));
        // The log follows the ready line that `Server` waits for.
        wait_for("the ready line in the log", || !server.events("ready").is_empty());
        let ready = server.events("ready")[0].to_string();
        let rest = ready.split_once(" rtmps=").unwrap_or_else(|| panic!("rtmps= in {ready}")).1;
        let rtmps = rest.split([' ', '"']).next().unwrap_or_default().parse().unwrap();
        println!("{how:?}");
        Self { server, folder, rtmps }
    }

    /// Both ports that take RTMP, plain or not.
    pub(crate) fn ports(&self) -> [SocketAddr; 2] {
        [self.server.rtmp, self.rtmps]
    }

    /// What the API tells of the connections there are.
    pub(crate) fn clients(&self) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.server.get("/api/v1/clients")).unwrap();
        answer["items"].as_array().expect("a list").clone()
    }

    /// TLS errors of this class so far, by the metric.
    pub(crate) fn tls_errors(&self, class: &str) -> u64 {
        self.server.metric("ringcast_tls_errors_total", &format!("label=\"{class}\""))
    }

    /// Handshakes that ended like this.
    pub(crate) fn handshakes(&self, result: &str) -> u64 {
        self.server.metric("ringcast_tls_handshakes_total", &format!("result=\"{result}\""))
    }

    /// Lines of the log that tell of trouble.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let events = ["protocol_error", "tls_error", "proxy_header", "timeout", "kernel_tls"];
        events.iter().flat_map(|event| self.server.events(event)).collect()
    }

    /// Waits until every connection is gone, in every figure that counts them.
    pub(crate) fn expect_none_left(&self) {
        for figure in ["ringcast_connections", "ringcast_tls_connections"] {
            wait_for(&format!("{figure} to be 0"), || self.server.metric(figure, "") == 0);
        }
        assert!(self.clients().is_empty());
    }
}
