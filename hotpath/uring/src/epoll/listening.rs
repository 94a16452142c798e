//! Listeners on epoll: taken in, looked at, and left alone while there is nothing to accept with.

use super::{Epoll, Listener};
use crate::config::ListenOptions;
use crate::io::{ListenerId, Nanos};
use crate::receiving::Receiving;
use crate::socket;
use crate::token::{Kind, Token};
use stable_deref_trait::StableDeref;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

impl<L: StableDeref<Target = [u8]> + 'static> Epoll<L> {
    /// Looks at all listeners that do not rest, or at none.
    pub(super) fn watch_listeners(&mut self, events: i32) {
        let awake: Vec<_> = self
            .listeners
            .iter_mut()
            .filter(|(_, _, listener)| listener.resting_until.is_none())
            .map(|(index, generation, listener)| ((index, generation), listener.fd.as_raw_fd()))
            .collect();
        for (name, number) in awake {
            // A registered descriptor can always be modified.
            let _ =
                self.control(libc::EPOLL_CTL_MOD, number, events, Token::new(Kind::Accept, name));
        }
    }

    /// Takes a listening socket in and watches it.
    pub(super) fn accept_from(
        &mut self,
        fd: OwnedFd,
        options: &ListenOptions,
    ) -> io::Result<ListenerId> {
        socket::set_nonblocking(&fd, true)?;
        let number = fd.as_raw_fd();
        let full = |_| io::Error::from_raw_os_error(libc::EMFILE);
        let receiving = Receiving::begin(options.first_receive_bytes_max);
        let listener = Listener { fd, receiving, resting_until: None };
        let name = self.listeners.insert(listener).map_err(full)?;
        let token = Token::new(Kind::Accept, name);
        let events = if self.frozen { 0 } else { libc::EPOLLIN };
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, number, events, token) {
            self.listeners.remove(name.0, name.1);
            return Err(error);
        }
        Ok(ListenerId { index: name.0, generation: name.1 })
    }

    /// Out of descriptors or memory: looks away from the listener for a while.
    pub(super) fn rest(&mut self, name: (u32, u32)) {
        self.counters.accept_errors += 1;
        let backoff = Nanos::from_millis(u64::from(self.config.accept_backoff_ms));
        let until = socket::clock().saturating_add(backoff);
        let Some(listener) = self.listeners.find(name.0, name.1) else { return };
        listener.resting_until = Some(until);
        let number = listener.fd.as_raw_fd();
        self.resting += 1;
        self.counters.accept_backoffs += 1;
        // A registered descriptor can always be modified.
        let _ = self.control(libc::EPOLL_CTL_MOD, number, 0, Token::new(Kind::Accept, name));
    }

    /// Looks at the listeners again whose rest is over; returns the end of the earliest other rest.
    pub(super) fn retry_listeners(&mut self) -> Option<Nanos> {
        if self.resting == 0 || self.frozen {
            return None;
        }
        let now = socket::clock();
        let mut next: Option<Nanos> = None;
        let mut due = Vec::new();
        for (index, generation, listener) in self.listeners.iter_mut() {
            match listener.resting_until {
                Some(until) if until <= now => {
                    listener.resting_until = None;
                    due.push(((index, generation), listener.fd.as_raw_fd()));
                }
                Some(until) => next = Some(next.map_or(until, |next| next.min(until))),
                None => {}
            }
        }
        for (name, number) in due {
            self.resting -= 1;
            let token = Token::new(Kind::Accept, name);
            // A registered descriptor can always be modified.
            let _ = self.control(libc::EPOLL_CTL_MOD, number, libc::EPOLLIN, token);
        }
        next
    }
}
