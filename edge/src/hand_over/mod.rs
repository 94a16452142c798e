//! The change of process without loss: the running server starts the new program, passes it listeners and
//! live sockets, and ends.
//!
//! ```text
//!   old process                                            new process
//!   start the program, its standard input a socket ──────► read configuration and certificates,
//!                                                          try kernel TLS, open each worker's `Io`
//!            ◄────────────────────────── hello: format, pid
//!   workers stand still: nothing in flight,
//!   nothing taken from the kernel
//!   legacy: records, then descriptors ───────────────────► import; workers wait
//!            ◄────────────────────────── ready
//!   go ──────────────────────────────────────────────────►
//!            ◄────────────────────────── confirmed          workers turn
//!   let go of what was passed; drain the rest; exit
//! ```
//!
//! Until that is confirmed the old process can take everything back, and does: on a wrong format, on an
//! error there, on the end of the other process, and when `shutdown.still_ms_max` is over. What peers send
//! meanwhile stays in the kernel. The new process touches no socket before, and ends if it does not come.
//!
//! Passed on: listeners; RTMP connections that publish or play and viewers of live streams over HTTP, both to
//! the byte and with TLS or without; connections between two requests; those on which nothing was said yet.
//! Streams go with their timeline, preamble, and the ring from where somebody still reads, framings with
//! their ring and the state of their segmenter; HLS goes on in the middle of its segment, with those in its
//! window ([`packaging`]). Not passed on: who is in the middle of a handshake, of a request or its answer, or
//! of a WebSocket frame of its own. They are drained: answered to the end, asked to reconnect where they can
//! be, and closed. A stream whose publisher is among them waits in its grace period for it.
//!
//! Files of HLS are written by one process after the other: the old one has half a minute for what waits
//! there, and ends the socket between the two when it has done it ([`crate::storage::Baton`]).
//!
//! **Keys of TLS.** What the kernel holds goes with the socket. Of records made here the traffic keys, the
//! numbers of the next records and the next few keys of both directions are in the block, which exists in
//! the memory of both processes and in the socket between them, is written to no file or log, and is wiped.
//! The library keeps its own secrets to itself, so from the export on such records are made over the keys
//! alone (`tls::SessionRecord`), in whichever process goes on.
//!
//! - [`record`], [`packaging`]: what is told. [`wire`]: how it travels. [`give`]: the old process. [`take`]:
//!   the new one. [`verdict`]: how it ended.
//!
//! The format changes with the code; both sides must have the same [`record::VERSION`], or nothing is passed.

pub mod give;
pub mod packaging;
pub mod record;
pub mod take;
pub mod verdict;
pub mod wire;

use std::fmt;
use std::io;
use std::time::Duration;

pub use give::{Outcome, Program};
pub use take::Predecessor;

/// Longest time the new program has to start, read its configuration, make its workers ready and say hello.
pub const START_MAX: Duration = Duration::from_secs(20);
/// Set for the new process: the number of the one that passes on, which must be its parent.
pub const ENV: &str = "HAND_OVER_PID";

/// Why nothing was passed on. The old process has gone on as before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandOverError(pub String);

impl fmt::Display for HandOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HandOverError {}

impl HandOverError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("{what}: no answer in time")
            }
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => {
                format!("{what}: the other process has ended")
            }
            _ => format!("{what}: {error}"),
        })
    }
}
