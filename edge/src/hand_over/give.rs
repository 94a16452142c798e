//! The old process: starts the new program and offers it what there is. The control thread orders the steps.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::VERSION;
use super::wire::{self, Answer, Greeting};
use super::{ENV, HandOverError, START_MAX};
use crate::storage::Baton;

/// How a hand-over ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The process with this number has taken over.
    PassedOn(u32),
    /// Nothing was passed on.
    Failed(HandOverError),
}

/// The program this process was started from, and its arguments. A package that is upgraded puts another
/// file under the same name.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path.
    pub path: PathBuf,
    /// Arguments.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Of this process, as it was started.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn of_this_process() -> io::Result<Self> {
        let path = std::env::current_exe()?;
        // What the kernel appends when the file was replaced.
        let text = path.to_string_lossy();
        let path = text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(path.clone());
        Ok(Self { path, arguments: std::env::args_os().skip(1).collect() })
    }
}

/// The new process until it is on its own. Dropped before, it is ended.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    socket: Arc<UnixStream>,
    is_on_its_own: bool,
}

impl Successor {
    /// Starts the program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, arguments: &[OsString]) -> Result<Self, HandOverError> {
        let failed = |error: io::Error| {
            HandOverError::new(format!("cannot start {}: {error}", program.display()))
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .env(ENV, std::process::id().to_string())
            // What was meant for this process.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .env_remove("WATCHDOG_PID")
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, socket: Arc::new(ours), is_on_its_own: false })
    }

    /// Waits until it has read its configuration and is ready to take over.
    ///
    /// # Errors
    /// It refused, ended, took too long, or is of a version that understands other records.
    pub fn hear_hello(&self) -> Result<(), HandOverError> {
        let failed = |error: io::Error| HandOverError::io("the new process does not begin", &error);
        self.socket.set_read_timeout(Some(START_MAX)).map_err(failed)?;
        let hello = match wire::hear_hello(&self.socket).map_err(failed)? {
            Greeting::Hello(hello) => hello,
            Greeting::Refused(reason) => return Err(HandOverError::new(reason)),
        };
        if hello.version != VERSION {
            let text = format!(
                "the new program has hand-over format {}, this one {VERSION}: restart instead",
                hello.version
            );
            return Err(HandOverError::new(text));
        }
        Ok(())
    }

    /// Sends what is passed on and waits until it is in place there.
    ///
    /// # Errors
    /// It refused, ended, or was not done by `deadline`.
    pub fn offer(
        &self,
        block: &[u8],
        sockets: &[OwnedFd],
        deadline: Instant,
    ) -> Result<(), HandOverError> {
        let failed = |error: io::Error| HandOverError::io("passing on", &error);
        let left =
            || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.socket.set_write_timeout(Some(left())).map_err(failed)?;
        let sent = io::Write::write_all(&mut &*self.socket, block)
            .and_then(|()| wire::send_sockets(&self.socket, sockets));
        self.socket.set_read_timeout(Some(left())).map_err(failed)?;
        // It may have said why before it stopped listening.
        match (wire::hear_answer(&self.socket), sent) {
            (Ok(Answer::Refused(reason)), _) => Err(HandOverError::new(reason)),
            (Ok(Answer::Ready), Ok(())) => Ok(()),
            (_, Err(error)) | (Err(error), Ok(())) => Err(failed(error)),
        }
    }

    /// Lets it go on, which it has to confirm within `confirm_max`. Returns its number.
    ///
    /// # Errors
    /// It has ended meanwhile, or does not confirm, and is ended: it has touched nothing.
    pub fn go(mut self, confirm_max: Duration) -> Result<u32, HandOverError> {
        let failed = |error: io::Error| HandOverError::io("passing on", &error);
        self.socket.set_read_timeout(Some(confirm_max)).map_err(failed)?;
        let confirmed =
            wire::send_go(&self.socket).and_then(|()| wire::hear_confirmation(&self.socket));
        if let Err(error) = confirmed {
            self.end();
            // It may have confirmed at the last moment. Then the sockets were its own, and are nobody's now.
            wire::hear_confirmation(&self.socket).map_err(|_| failed(error))?;
        }
        self.is_on_its_own = true;
        Ok(self.child.id())
    }

    /// What tells the new process, once it goes on, that this one writes no more.
    pub fn baton(&self) -> Baton {
        Baton::new(Arc::clone(&self.socket))
    }

    fn end(&mut self) {
        // Both fail only for a process that has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if !self.is_on_its_own {
            self.end();
        }
    }
}
