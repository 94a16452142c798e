//! What a turn tells of one simulated connection: connected, sent, received, in this order.
//!
//! The draws of chance come in a fixed order, and bounded receives and TLS records add none, so a
//! run that uses neither is the run it always was for its seed.

use super::net::{Holder, Net, Phase, Record, SocketKey};
use super::{Send, SimIo};
use crate::io::{Completion, ConnId, Nanos, ReceiveEnd};
use crate::receiving::Receiving;
use stable_deref_trait::StableDeref;

impl<L: StableDeref<Target = [u8]> + 'static> SimIo<L> {
    /// Everything one connection has to report now; at most one receive.
    pub(super) fn report(&mut self, socket: SocketKey, completions: &mut Vec<Completion<L>>) {
        let holder = self.net.borrow().sockets[socket].holder;
        let Holder::Port { port, index, generation } = holder else { return };
        if port != self.port {
            return;
        }
        let conn = ConnId { index, generation };
        if !self.report_connected(conn, completions) {
            return;
        }
        self.report_send(conn, completions);
        if !self.holds_back(conn) {
            self.report_receive(conn, completions);
        }
    }

    /// `false`: the connection does not stand, so there is nothing else to report.
    fn report_connected(&mut self, conn: ConnId, completions: &mut Vec<Completion<L>>) -> bool {
        let Some(found) = self.conns.find(conn.index, conn.generation) else { return false };
        let phase = self.net.borrow().sockets[found.socket].phase;
        if found.connecting && phase != Phase::Connecting {
            found.connecting = false;
            let result = match phase {
                Phase::Refused(errno) => Err(errno),
                _ => Ok(()),
            };
            completions.push(Completion::Connected { conn, result });
        }
        phase == Phase::Established
    }

    fn report_send(&mut self, conn: ConnId, completions: &mut Vec<Completion<L>>) {
        let Some(found) = self.conns.find(conn.index, conn.generation) else { return };
        let mut net = self.net.borrow_mut();
        let now = net.now;
        match std::mem::replace(&mut found.send, Send::Idle) {
            Send::Decided { at, outcome, buf } if at <= now => match outcome {
                Ok(bytes) => {
                    self.counters.sent_bytes += bytes as u64;
                    let blocked = bytes < buf.bytes().len();
                    if blocked {
                        self.counters.sends_blocked += 1;
                        // A false block ends by time, a true one by room: look at both.
                        let until = if net.room(found.socket) > 0 { net.delay() } else { now };
                        found.send = Send::Blocked { until };
                        net.sockets[found.socket].wants_room = true;
                        net.look_later(found.socket, until);
                    }
                    completions.push(Completion::Sent { conn, bytes, blocked, buf });
                }
                Err(errno) => {
                    self.counters.sends_failed += 1;
                    completions.push(Completion::SendFailed { conn, errno, buf });
                }
            },
            Send::Blocked { until } if until <= now => {
                let enough = (net.faults.socket_buffer_bytes / 3).max(1);
                let broken = net.sockets[found.socket].error.is_some();
                if broken || net.room(found.socket) >= enough {
                    net.sockets[found.socket].wants_room = false;
                    completions.push(Completion::Writable { conn });
                } else {
                    found.send = Send::Blocked { until };
                }
            }
            other => found.send = other,
        }
    }

    fn report_receive(&mut self, conn: ConnId, completions: &mut Vec<Completion<L>>) {
        let Some(found) = self.conns.find(conn.index, conn.generation) else { return };
        if found.paused || found.receive_over || found.receiving == Receiving::Resting {
            return;
        }
        let (now, socket) = (self.now, found.socket);
        if found.starved_until > now {
            return;
        }
        let mut net = self.net.borrow_mut();
        let rate = net.faults.receive_error_permille;
        if !net.sockets[socket].inbox.is_empty() && net.prng.chance(rate) {
            net.break_here(socket, libc::ETIMEDOUT);
        }
        let data_bytes = net.sockets[socket].data_bytes();
        if net.sockets[socket].error.is_some() {
            found.receive_over = true;
            // A send that failed before has taken the error with it, and leaves an end of stream.
            let reason = net.take_error(socket).map_or(ReceiveEnd::Eof, ReceiveEnd::Error);
            completions.push(Completion::ReceiveEnded { conn, reason });
        } else if data_bytes > 0 {
            let room = found.receiving.room(self.pool.buffer_bytes());
            let part_bytes = part_bytes(&mut net, data_bytes.min(room));
            let empty = net.faults.buffers_empty_permille;
            let received = if net.prng.chance(empty) {
                None
            } else {
                self.pool.receive_with(|room| Ok(net.receive(socket, &mut room[..part_bytes])))
            };
            match received {
                Some(Ok(Some(mut data))) => {
                    let rate = net.faults.planted_corruption_permille;
                    if net.prng.chance(rate) {
                        data.flip(net.prng.index_below(8));
                    }
                    self.counters.received_bytes += data.len() as u64;
                    self.counters.receive_once += u64::from(found.receiving.on_bytes());
                    completions.push(Completion::Received { conn, data });
                    let rate = net.faults.multishot_end_permille;
                    if found.receiving == Receiving::Streaming && net.prng.chance(rate) {
                        self.counters.receive_rearmed += 1;
                        found.starved_until = armed_again(&mut net, socket);
                    } else {
                        net.touch(socket);
                    }
                }
                _ => {
                    self.counters.receive_buffers_empty += 1;
                    self.counters.receive_rearmed += 1;
                    found.starved_until = armed_again(&mut net, socket);
                }
            }
        } else if let Some(record) = net.sockets[socket].take_record() {
            let Record { record_type, bytes, .. } = record;
            if found.tls.attached {
                found.receiving = Receiving::Resting;
                self.counters.tls_records += 1;
                completions.push(Completion::TlsRecord { conn, record_type, bytes });
            } else {
                // Nobody here to open it.
                found.receive_over = true;
                let reason = ReceiveEnd::Error(libc::EBADMSG);
                completions.push(Completion::ReceiveEnded { conn, reason });
            }
        } else if net.sockets[socket].eof {
            found.receive_over = true;
            completions.push(Completion::ReceiveEnded { conn, reason: ReceiveEnd::Eof });
        }
    }
}

/// When a receive is armed again that has ended without the peer's doing.
fn armed_again(net: &mut Net, socket: SocketKey) -> Nanos {
    let at = net.delay();
    net.look_later(socket, at);
    at
}

/// How much of `bytes` receivable bytes one receive hands out.
fn part_bytes(net: &mut Net, bytes: usize) -> usize {
    if net.prng.chance(net.faults.short_receive_permille) {
        1 + net.prng.index_below(bytes)
    } else {
        bytes
    }
}
