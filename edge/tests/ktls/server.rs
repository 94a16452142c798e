//! A `ringcast` with RTMPS, and what the kernel counts of it.
//!
//! The kernel's counters are of the whole machine, so tests that look at them run one at a time: each
//! server here holds a lock as long as it lives.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uring::TlsStat;

use crate::certs::Certs;
use crate::support::server::{How, Server, matrix, wait_for};

/// Nothing is thrown out for being slow: where everything is emulated, everybody is.
const PATIENT: &str = "[limits]\nfirst_byte_ms_max = 60000\ntls_handshake_ms_max = 60000\n\
    handshake_ms_max = 60000\n[defaults]\nidle_publisher_ms_max = 0\nstall_ms_max = 60000\n\
    [shutdown]\nstill_ms_max = 30000\n";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Each kernel interface with so many workers.
pub(crate) fn ways(workers: u16) -> Vec<How> {
    matrix(&[workers])
}

/// The way a server starts by default.
pub(crate) fn default_way() -> How {
    ways(1)[0]
}

/// A server with certificates; stopped when dropped.
pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) certs: Certs,
    pub(crate) rtmps: SocketAddr,
    /// The kernel makes the records.
    pub(crate) is_kernel: bool,
    before: TlsStat,
    _turn: MutexGuard<'static, ()>,
}

impl Secured {
    /// Starts one. In the machine that is there for kernel TLS the server must use it.
    pub(crate) fn start(how: How) -> Self {
        // A test that failed has let go of its server.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let certs = Certs::new();
        let dir = certs.served();
        let tls =
            format!("[listen]\nrtmps = \"127.0.0.1:0\"\n[tls]\ndir = \"{}\"\n", dir.display());
        let server = Server::start(how, &format!("{tls}{PATIENT}"));
        // The log follows the ready line that `Server` waits for.
        wait_for("the ready line in the log", || !server.events("ready").is_empty());
        let ready = server.events("ready")[0].to_string();
        let field = |name: &str| {
            let rest = ready.split_once(name).unwrap_or_else(|| panic!("{name} in {ready}")).1;
            rest.split([' ', '"']).next().unwrap_or_default().to_owned()
        };
        let is_kernel = field(" ktls=") == "on";
        let is_required = std::env::var("KERNEL_TLS").is_ok_and(|value| value == "required");
        assert!(is_kernel || !is_required, "KERNEL_TLS=required, but: {ready}");
        assert_eq!(is_kernel, uring::probe_kernel_tls().is_on(), "used where it can be used");
        println!("{how:?}, TLS by the {}", if is_kernel { "kernel" } else { "server" });
        let rtmps = field(" rtmps=").parse().unwrap();
        Self { server, certs, rtmps, is_kernel, before: stat(), _turn: turn }
    }

    /// A peer's change of keys can be followed.
    pub(crate) fn can_change_keys(&self) -> bool {
        !self.is_kernel || uring::probe_kernel_tls().rekey == uring::FeatureState::On
    }

    /// Waits until this many connections have had both their keys in the kernel since the start; none of
    /// them where there is no kernel TLS.
    pub(crate) fn expect_handed_over(&self, connections: u64) {
        let wanted = if self.is_kernel { connections } else { 0 };
        let now = || {
            let now = stat();
            let sent = now.send_software - self.before.send_software;
            (sent, now.receive_software - self.before.receive_software)
        };
        wait_for(&format!("{wanted} connections in the kernel, it counts {:?}", now()), || {
            now() == (wanted, wanted)
        });
        println!("connections whose keys the kernel got: {:?} of {connections}", now());
    }

    /// Waits until this many connections have both their keys in the kernel; none where it has no TLS.
    pub(crate) fn expect_in_kernel(&self, connections: u64) {
        let wanted = if self.is_kernel { connections } else { 0 };
        let now = || (stat().send_software_now, stat().receive_software_now);
        wait_for(&format!("{wanted} connections in the kernel, it has {:?}", now()), || {
            now() == (wanted, wanted)
        });
    }

    /// Records the kernel could not decrypt since the start.
    pub(crate) fn decrypt_errors(&self) -> u64 {
        stat().decrypt_errors - self.before.decrypt_errors
    }

    /// Waits until no TLS connection is left, in the server's own count and in the kernel's.
    pub(crate) fn expect_none_left(&self) {
        wait_for("the end of every TLS connection", || {
            let now = stat();
            self.server.metric("ringcast_tls_connections", "") == 0
                && now.send_software_now + now.receive_software_now == 0
        });
    }
}

fn stat() -> TlsStat {
    uring::read_tls_stat().unwrap_or_default()
}
