//! What the ring knows of one connection, and the rules by which it may forget it.
//!
//! The descriptor and every buffer handed to the kernel live here, not with the connection's owner:
//! closing only marks. The entry goes when `in_flight` is zero, that is when the kernel has
//! answered every operation on the descriptor, so neither memory nor number is reused before.
//!
//! ```text
//!   in the kernel:
//!              Off ──arm──► Armed ──last completion──► Off | Starved | Over
//!               ▲             └─pause─► Stopping ──last completion──► Off (armed again if resumed)
//!               └──────────── buffers are back ──── Starved
//! ```
//!
//! What is armed is for `receiving` to say: a multishot receive, a bounded one, or none.

use crate::io::{ReceiveEnd, SendBuf};
use crate::kernel_tls::Tls;
use crate::receiving::Receiving;
use crate::recv_pool::RecvBuf;
use socket2::SockAddr;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Receive {
    /// No receive in the kernel; arm one when wanted.
    Off,
    /// A receive is in the kernel.
    Armed,
    /// Its cancellation is on the way.
    Stopping,
    /// Waits in the queue of those that found no buffer.
    Starved,
    /// End of stream or error: never again.
    Over,
}

/// What was received during a pause.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) buffers: VecDeque<RecvBuf>,
    pub(super) end: Option<ReceiveEnd>,
}

#[derive(Debug)]
pub(super) struct Conn<L> {
    pub(super) fd: OwnedFd,
    /// Operations the kernel still owes a last completion for.
    pub(super) in_flight: u8,
    pub(super) receive: Receive,
    pub(super) receiving: Receiving,
    pub(super) tls: Tls,
    pub(super) paused: bool,
    /// Its owner has let go; waits for `in_flight` to reach zero.
    pub(super) closing: bool,
    /// Another process goes on with the socket: it is not to be shut down.
    pub(super) released: bool,
    pub(super) shutdown_asked: bool,
    pub(super) writable_owed: bool,
    /// The buffer of the send in flight, read by the kernel until its completion.
    pub(super) send: Option<SendBuf<L>>,
    /// Where the connection goes, read by the kernel until `Connected`.
    pub(super) connect_addr: Option<Box<SockAddr>>,
    /// Cold: made by the first bytes that come in during a pause.
    pub(super) held: Option<Box<Held>>,
}

impl<L> Conn<L> {
    pub(super) fn new(fd: OwnedFd, receiving: Receiving) -> Conn<L> {
        Conn {
            fd,
            in_flight: 0,
            receive: Receive::Off,
            receiving,
            tls: Tls::default(),
            paused: false,
            closing: false,
            released: false,
            shutdown_asked: false,
            writable_owed: false,
            send: None,
            connect_addr: None,
            held: None,
        }
    }

    /// Whether received bytes must wait: for the end of a pause, or behind others that do.
    pub(super) fn holds(&self) -> bool {
        self.paused || self.held.is_some()
    }

    /// Receiving rests, as its owner knows it: what a bounded receive brought has been handed out.
    pub(super) fn rests(&self) -> bool {
        self.receiving == Receiving::Resting && !self.holds()
    }

    /// Nothing in the kernel or on the way there, and something is wanted from it.
    pub(super) fn wants_arming(&self) -> bool {
        self.receive == Receive::Off
            && self.receiving != Receiving::Resting
            && !self.paused
            && self.connect_addr.is_none()
    }

    pub(super) fn held_mut(&mut self) -> &mut Held {
        self.held.get_or_insert_with(Box::default)
    }
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    /// An accept is in the kernel.
    pub(super) armed: bool,
    pub(super) closing: bool,
    pub(super) in_flight: u8,
    /// The cancellation of its accept is on the way.
    pub(super) cancelling: bool,
    /// Of the connections it brings.
    pub(super) receiving: Receiving,
    /// Rests until then after descriptors ran out.
    pub(super) resting_until: Option<crate::io::Nanos>,
}
