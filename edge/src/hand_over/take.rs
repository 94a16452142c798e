//! The new process: receives what is passed on, and waits for the word to go on with it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::record::{Door, Legacy};
use super::wire::{self, Answer};
use super::{ENV, HandOverError};
use crate::config::Config;
use crate::hls::Passed;
use crate::inherit::Inherited;
use crate::storage::Baton;

/// The process that passes on.
#[derive(Debug)]
pub struct Predecessor {
    socket: Arc<UnixStream>,
}

impl Predecessor {
    /// Whether this process was started to take over: its standard input is then the way to the other one.
    ///
    /// # Errors
    /// It was, and standard input is something else.
    pub fn from_env() -> Result<Option<Self>, HandOverError> {
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        let wanted: Option<i32> = std::env::var(ENV).ok().and_then(|pid| pid.parse().ok());
        if wanted.is_none() || wanted != parent {
            return Ok(None);
        }
        let failed =
            |error: std::io::Error| HandOverError::io("the way to the old process", &error);
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
        let nothing = std::fs::File::open("/dev/null").map_err(failed)?;
        rustix::stdio::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
        Ok(Some(Self { socket: Arc::new(UnixStream::from(stdin)) }))
    }

    /// Says that this process is about to serve, and receives everything. The block it came in is returned
    /// beside it: wiping it can wait until nobody stands still for that.
    ///
    /// # Errors
    /// The old process has changed its mind, or what it sent cannot be used.
    pub fn receive(
        &self,
        config: &Config,
    ) -> Result<(Inherited, Zeroizing<Vec<u8>>), HandOverError> {
        let failed = |error: std::io::Error| HandOverError::io("taking over", &error);
        wire::say_hello(&self.socket, std::process::id()).map_err(failed)?;
        let block = wire::receive_block(&*self.socket)?;
        let legacy = wire::decode(&block)?;
        let sockets = wire::receive_sockets(&self.socket, legacy.sockets()).map_err(failed)?;
        let mut inherited = sort(legacy, sockets, config)?;
        inherited.baton = Some(Baton::new(Arc::clone(&self.socket)));
        Ok((inherited, block))
    }

    /// Tells the old process why this one cannot go on.
    pub fn refuse(&self, reason: &str) {
        // If it has gone, nobody needs to know.
        drop(wire::send_answer(&self.socket, &Answer::Refused(reason.to_owned())));
    }

    /// Everything is in place: waits for the word, for as long as the other workers stand still at most.
    ///
    /// # Errors
    /// It does not come: the old process goes on, and this one must touch nothing.
    pub fn ready(&self, still_max: Duration) -> Result<(), HandOverError> {
        let failed = |error: std::io::Error| HandOverError::io("taking over", &error);
        self.socket.set_read_timeout(Some(still_max)).map_err(failed)?;
        wire::send_answer(&self.socket, &Answer::Ready).map_err(failed)?;
        wire::hear_go(&self.socket).map_err(failed)
    }
}

/// Gives each record its sockets, and each listener its door, unless this configuration has another there.
fn sort(
    legacy: Legacy,
    sockets: Vec<OwnedFd>,
    config: &Config,
) -> Result<Inherited, HandOverError> {
    let mut sockets = sockets.into_iter();
    let mut inherited = Inherited::default();
    for door in legacy.doors {
        let Some(socket) = sockets.next() else { break };
        let listen = &config.listen;
        let wanted = match door {
            Door::Rtmp => listen.rtmp.address(),
            Door::Rtmps => listen.rtmps.address(),
            Door::Http => listen.http.address(),
            Door::Admin => listen.admin.address(),
        };
        let listener = TcpListener::from(socket);
        let bound = listener
            .local_addr()
            .map_err(|error| HandOverError::io("a listener passed on", &error))?;
        if wanted.is_some_and(|wanted| is_same(wanted, bound)) {
            inherited.at(door).push(listener.into());
        }
    }
    for record in &legacy.renditions {
        let numbers = record.try_into();
        inherited.renditions.push(
            numbers.map_err(|error| HandOverError::new(format!("a stream's name: {error}")))?,
        );
    }
    for worker in legacy.workers {
        let count = worker.connections.len();
        let own: Vec<OwnedFd> = sockets.by_ref().take(count).collect();
        inherited.workers.push((worker, own));
    }
    inherited.packaging = Passed { record: legacy.packaging, files: sockets.collect() };
    Ok(inherited)
}

/// Whether a socket bound there is what this address asks for.
fn is_same(wanted: SocketAddr, bound: SocketAddr) -> bool {
    wanted.ip() == bound.ip() && (wanted.port() == 0 || wanted.port() == bound.port())
}
