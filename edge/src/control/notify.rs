//! Tells the service manager where the process is: the `sd_notify` datagrams.
//!
//! Silent without `NOTIFY_SOCKET`, so nothing changes outside of systemd. A lost datagram is no error: the
//! next state follows. Protocol: sd_notify(3); `RELOADING=1` carries the monotonic time in microseconds.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// The status last told while serving.
    status: String,
}

impl Notifier {
    /// Finds the manager in the environment.
    pub fn from_env() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        let own_watchdog =
            std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
        let watchdog = std::env::var("WATCHDOG_USEC")
            .ok()
            .filter(|_| own_watchdog)
            .and_then(|microseconds| microseconds.parse().ok())
            .map(Duration::from_micros);
        Self::new(&name, watchdog)
    }

    /// A notifier for a socket path, or an abstract name after `@`; an empty name is nobody.
    pub fn new(name: &str, watchdog: Option<Duration>) -> Self {
        let address = match name.strip_prefix('@') {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name).ok(),
            None if name.is_empty() => None,
            None => SocketAddr::from_pathname(name).ok(),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        Self { socket, watchdog, status: String::new() }
    }

    /// How often the watchdog wants to hear of us: half of its patience.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|patience| patience / 2)
    }

    /// Serving.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=serving");
    }

    /// What is being served, in words; told when they are others than before. Call it once a second.
    pub fn status(&mut self, text: &str) {
        if self.socket.is_some() && text != self.status {
            text.clone_into(&mut self.status);
            self.send(&format!("STATUS={text}"));
        }
    }

    /// Reading the configuration again; `ready` must follow.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"));
    }

    /// Another process goes on: it is the service's main process now, and tells of itself.
    pub fn main_pid(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
    }

    /// On the way out; `longest` is how long it may take.
    pub fn stopping(&self, longest: Duration) {
        let microseconds = longest.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}\nSTATUS=draining"));
    }

    /// Alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // Best effort: a manager that is gone cannot be told.
            drop(socket.send_to_addr(state.as_bytes(), address));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_one_datagram_and_no_socket_is_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(path.to_str().unwrap(), Some(Duration::from_secs(4)));
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(2)));
        let mut buffer = [0; 256];
        let mut receive = || {
            let bytes = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..bytes].to_vec()).unwrap()
        };
        notifier.status("one");
        notifier.status("one");
        notifier.status("two");
        assert_eq!([receive(), receive()], ["STATUS=one", "STATUS=two"]);
        let mut heard = |send: &dyn Fn(&Notifier)| {
            send(&notifier);
            receive()
        };
        assert_eq!(heard(&Notifier::ready), "READY=1\nSTATUS=serving");
        assert!(heard(&Notifier::reloading).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(
            heard(&|n| n.stopping(Duration::from_secs(1))).contains("EXTEND_TIMEOUT_USEC=1000000")
        );
        assert_eq!(heard(&Notifier::watchdog), "WATCHDOG=1");

        let mut nobody = Notifier::new("", Some(Duration::from_secs(4)));
        nobody.ready();
        nobody.status("alone");
        assert_eq!(nobody.watchdog_interval(), None);
    }
}
