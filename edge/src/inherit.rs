//! Listening sockets that were made before this process: by a service manager (socket activation).
//!
//! Protocol: sd_listen_fds(3). Each socket has a name (`FileDescriptorName=` of a socket unit, or the
//! unit's own name): `rtmp`, `rtmps`, `http` or `admin`, which says how it is used; the configured address
//! of that name is then not bound. What cannot be used ends the start, since peers would wait at a socket
//! nobody serves.
//!
//! Workers usually bind a socket each, and the kernel spreads peers over them (SO_REUSEPORT). A socket that
//! was passed cannot be joined that way, so it is shared: all workers accept from its one queue, and who
//! is awake takes the next peer. Several sockets of one name (`ReusePort=` in as many units) are spread
//! over the workers.

use std::env;
use std::fmt;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use crate::hand_over::record::{Door, WorkerRecord};
use crate::hls::{Numbers, Passed, RenditionKey};
use crate::storage::Baton;

/// The names, in the order of `[listen]`.
const DOORS: [(&str, Door); 4] =
    [("rtmp", Door::Rtmp), ("rtmps", Door::Rtmps), ("http", Door::Http), ("admin", Door::Admin)];
/// Sockets taken at most: more is a mistake of the unit.
const FDS_MAX: usize = 1024;

/// Sockets by the key of `[listen]` they stand for.
#[derive(Debug, Default)]
pub struct Inherited {
    /// RTMP.
    pub rtmp: Vec<OwnedFd>,
    /// RTMP and HTTP over TLS.
    pub rtmps: Vec<OwnedFd>,
    /// Viewers' HTTP.
    pub http: Vec<OwnedFd>,
    /// Admin HTTP: one.
    pub admin: Vec<OwnedFd>,
    /// What workers of the process before this one pass on, with the sockets of their connections.
    pub workers: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    /// Where renditions of HLS of the process before this one stopped.
    pub renditions: Vec<(RenditionKey, Numbers)>,
    /// HLS that goes on.
    pub packaging: Passed,
    /// What the process before this one ends when it has written all that waited there; `None` if there was
    /// none.
    pub baton: Option<Baton>,
}

/// What was passed cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InheritError(String);

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InheritError {}

impl Inherited {
    /// There was a process before this one: what it passes on need not fit this configuration.
    pub fn is_succession(&self) -> bool {
        self.baton.is_some()
    }

    /// Takes what the environment says was passed to this process; nothing if it says so to another or to
    /// nobody. Call it once, before anything else is opened.
    ///
    /// # Errors
    /// [`InheritError`]: a name, a number or a descriptor that makes no sense.
    pub fn from_env() -> Result<Self, InheritError> {
        let text = |name: &str| env::var(name).unwrap_or_default();
        let is_ours = text("LISTEN_PID").parse() == Ok(std::process::id());
        if !is_ours {
            return Ok(Self::default());
        }
        Self::take(&text("LISTEN_FDS"), &text("LISTEN_FDNAMES"), uring::take_inherited_fd)
    }

    fn take(
        count: &str,
        names: &str,
        mut take_fd: impl FnMut(RawFd) -> io::Result<OwnedFd>,
    ) -> Result<Self, InheritError> {
        let failed = |text: String| InheritError(format!("socket activation: {text}"));
        let count: usize = match count.parse() {
            Ok(count) if count <= FDS_MAX => count,
            _ => return Err(failed(format!("LISTEN_FDS={count} is not 0 to {FDS_MAX}"))),
        };
        let names: Vec<&str> = names.split(':').collect();
        let mut inherited = Self::default();
        for (number, at) in (uring::INHERITED_FD_FIRST..).zip(0..count) {
            let name = names.get(at).copied().unwrap_or_default();
            let Some(door) = door_named(name) else {
                let names = DOORS.map(|(name, _)| name).join(", ");
                return Err(failed(format!("a socket named \"{name}\" (known: {names})")));
            };
            let fd = take_fd(number);
            inherited
                .at(door)
                .push(fd.map_err(|error| failed(format!("descriptor {number}: {error}")))?);
        }
        if inherited.admin.len() > 1 {
            return Err(failed("more than one socket named admin".to_owned()));
        }
        Ok(inherited)
    }

    /// The sockets of one key.
    pub fn at(&mut self, door: Door) -> &mut Vec<OwnedFd> {
        match door {
            Door::Rtmp => &mut self.rtmp,
            Door::Rtmps => &mut self.rtmps,
            Door::Http => &mut self.http,
            Door::Admin => &mut self.admin,
        }
    }
}

/// What a socket of this name is for. Units without a name of their own pass theirs: `ringcast-rtmp.socket`
/// is rtmp.
fn door_named(name: &str) -> Option<Door> {
    let name = name.strip_suffix(".socket").unwrap_or(name);
    let name = name.strip_prefix("ringcast-").unwrap_or(name);
    DOORS.into_iter().find(|(known, _)| *known == name).map(|(_, door)| door)
}

/// The sockets of one name that `worker` of `count` accepts from: its share of them, or one that it shares
/// with others when there are fewer sockets than workers.
///
/// # Errors
/// No descriptor to be had.
pub fn share(sockets: &[OwnedFd], worker: usize, count: usize) -> io::Result<Vec<OwnedFd>> {
    let of_worker = |at: usize| at % count.max(1) == worker;
    let own = sockets.iter().enumerate().filter(|(at, _)| of_worker(*at)).map(|(_, fd)| fd);
    let shared = sockets.get(worker % sockets.len().max(1)).filter(|_| worker >= sockets.len());
    own.chain(shared).map(OwnedFd::try_clone).collect()
}

/// Gives each of `count` workers what it goes on with: the worker with its number, or as the numbers wrap
/// around.
pub fn distribute(
    records: Vec<(WorkerRecord, Vec<OwnedFd>)>,
    count: usize,
) -> Vec<Vec<(WorkerRecord, Vec<OwnedFd>)>> {
    let mut legacies: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for (record, sockets) in records {
        if let Some(legacy) = legacies.get_mut(usize::from(record.index) % count.max(1)) {
            legacy.push((record, sockets));
        }
    }
    legacies
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn socket(_: RawFd) -> io::Result<OwnedFd> {
        Ok(TcpListener::bind("127.0.0.1:0")?.into())
    }

    #[test]
    fn sockets_go_where_their_names_or_their_units_names_say() {
        let mut numbers = Vec::new();
        let names = "rtmp:http:ringcast-rtmp.socket:admin";
        let inherited = Inherited::take("4", names, |number| {
            numbers.push(number);
            socket(number)
        });
        let inherited = inherited.unwrap();
        assert_eq!(numbers, [3, 4, 5, 6]);
        let counts = [&inherited.rtmp, &inherited.rtmps, &inherited.http, &inherited.admin];
        assert_eq!(counts.map(Vec::len), [2, 0, 1, 1]);
    }

    #[test]
    fn what_cannot_be_used_is_an_error_that_says_why() {
        let closed = |_: RawFd| Err(io::Error::from_raw_os_error(9));
        for (count, names, fails, wanted) in [
            ("1", "unknown", false, "named \"unknown\""),
            ("2", "rtmp", false, "named \"\""),
            ("x", "rtmp", false, "LISTEN_FDS=x"),
            ("5000", "rtmp", false, "LISTEN_FDS=5000"),
            ("2", "admin:admin", false, "more than one"),
            ("1", "rtmp", true, "descriptor 3"),
        ] {
            let result = match fails {
                true => Inherited::take(count, names, closed),
                false => Inherited::take(count, names, socket),
            };
            let text = result.unwrap_err().to_string();
            assert!(text.contains(wanted), "{text}");
        }
        assert!(Inherited::take("0", "", closed).is_ok());
    }

    #[test]
    fn each_socket_has_a_worker_and_each_worker_a_socket() {
        for (sockets, workers) in [(1, 1), (1, 4), (2, 3), (4, 4), (5, 2)] {
            let sockets: Vec<OwnedFd> = (0..sockets).map(|_| socket(0).unwrap()).collect();
            let address =
                |fd: &OwnedFd| TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap();
            let mut served = Vec::new();
            for worker in 0..workers {
                let share = share(&sockets, worker, workers).unwrap();
                assert!(!share.is_empty());
                served.extend(share.iter().map(address));
            }
            assert!(sockets.iter().all(|fd| served.contains(&address(fd))), "{served:?}");
            assert!(served.len() == sockets.len().max(workers));
        }
        assert!(share(&[], 0, 2).unwrap().is_empty());
    }
}
