//! Who is at the end of a connection: one face for players, publishers, hostile peers and those who
//! only shake hands.

use crate::abuse::Abuser;
use crate::num::MS_NS;
use crate::player::{Judging, Player, Reason};
use crate::publisher::Publisher;
use crate::tally::Tally;

/// After a handshake, how long the session tickets of the server are waited for.
const TICKET_NS: u64 = 200 * MS_NS;

/// See the file's head.
#[derive(Debug)]
pub(super) enum Actor {
    Player(Box<Player>),
    Publisher(Box<Publisher>),
    Abuser(Box<Abuser>),
    Shaker(Shaker),
}

impl Actor {
    /// When it wants to act by itself; `u64::MAX`: not.
    pub(super) fn due_ns(&self) -> u64 {
        match self {
            Actor::Player(player) => player.due_ns(),
            Actor::Publisher(publisher) => publisher.due_ns().unwrap_or(u64::MAX),
            Actor::Abuser(abuser) => abuser.due_ns,
            Actor::Shaker(shaker) => shaker.due_ns,
        }
    }

    /// As it appears in results.
    pub(super) const fn role(&self) -> &'static str {
        match self {
            Actor::Player(_) => "player",
            Actor::Publisher(_) => "publisher",
            Actor::Abuser(_) => "hostile",
            Actor::Shaker(_) => "handshake",
        }
    }

    /// TCP, and TLS where there is any, is up.
    pub(super) fn on_connected(
        &mut self,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) {
        match self {
            Actor::Player(player) => player.on_connected(now_ns, judging, tally, out),
            Actor::Publisher(publisher) => publisher.on_connected(now_ns, out),
            Actor::Abuser(abuser) => abuser.on_connected(now_ns, out),
            Actor::Shaker(shaker) => shaker.on_connected(now_ns),
        }
    }

    /// Bytes of the server.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn on_bytes(
        &mut self,
        bytes: &[u8],
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        match self {
            Actor::Player(player) => player.on_bytes(bytes, judging, tally, out),
            Actor::Publisher(publisher) => publisher.on_bytes(bytes, tally, out),
            Actor::Abuser(abuser) => {
                abuser.on_bytes(bytes, now_ns, out);
                Ok(())
            }
            Actor::Shaker(_) => Ok(()),
        }
    }

    /// The server sends no more.
    ///
    /// # Errors
    /// It is over with the connection. Otherwise it wants another one, now or later.
    pub(super) fn on_eof(
        &mut self,
        now_ns: u64,
        judging: &Judging,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), Reason> {
        match self {
            Actor::Player(player) => player.on_eof(now_ns, judging, tally, out),
            _ => Err("closed by the server".into()),
        }
    }

    /// About once a second: notices that the server is silent.
    ///
    /// # Errors
    /// It has been silent for too long.
    pub(super) fn on_tick(&mut self, now_ns: u64) -> Result<(), Reason> {
        match self {
            Actor::Player(player) => player.on_tick(now_ns),
            Actor::Publisher(publisher) => publisher.on_tick(now_ns),
            Actor::Abuser(_) | Actor::Shaker(_) => Ok(()),
        }
    }
}

/// Connects, shakes hands, leaves.
#[derive(Debug)]
pub(super) struct Shaker {
    /// Whether tickets are waited for, so that the next connection can resume.
    waits: bool,
    due_ns: u64,
    /// It wants to be closed.
    pub(super) is_done: bool,
}

impl Shaker {
    pub(super) fn new(waits: bool) -> Shaker {
        Shaker { waits, due_ns: u64::MAX, is_done: false }
    }

    fn on_connected(&mut self, now_ns: u64) {
        self.is_done = !self.waits;
        self.due_ns = now_ns + TICKET_NS;
    }

    /// Records came after the handshake: the tickets.
    pub(super) fn on_records(&mut self) {
        self.is_done = true;
    }
}
