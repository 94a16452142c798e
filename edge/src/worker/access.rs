//! Publish and play requests: the question to the rules, the wait for a hook, and what a permission binds.
//!
//! ```text
//!   request ─► Rules::decide ─┬─ Allow(grant) ─► publish or play under the grant's path
//!                             ├─ Deny ─► refusal on the wire, counted, logged
//!                             └─ Ask ─► the connection waits (its worker does not) ─► Command::Answer
//! ```

use std::net::IpAddr;

use live::path::resolve;
use rtmp::session::{PublishRequest, StatusLevel};
use uring::Io;

use super::Worker;
use crate::access::quota::BitrateVerdict;
use crate::access::{Decision, Denial, DenyReason, Grant, Question, Role, Suffix};
use crate::command::ConnectionId;
use crate::connection::{PendingAccess, Permit, Session};
use crate::metrics::{CloseReason, Label, PlayResult, PublishResult};

/// Longest wait for a hook's answer, its tries included, in milliseconds.
const ANSWER_MS_MAX: u64 = 30_000;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn on_publish(&mut self, index: usize, request: &PublishRequest) {
        match self.decide(index, Role::Publish, &request.name) {
            Some(decision) => self.conclude(index, Role::Publish, request.msid, decision),
            None => {
                let text = "the stream name cannot be used";
                self.refuse_publish(index, request.msid, PublishResult::BadName, text);
            }
        }
    }

    pub(super) fn on_play(&mut self, index: usize, msid: u32, name: &str) {
        match self.decide(index, Role::Play, name) {
            Some(decision) => self.conclude(index, Role::Play, msid, decision),
            None => {
                let text = "the stream name cannot be used";
                self.refuse_play(index, msid, PlayResult::NotFound, text);
            }
        }
    }

    /// What the rules say; `None` for a name that names no stream.
    fn decide(&self, index: usize, role: Role, name: &str) -> Option<Decision> {
        let connection = self.connections.get(index)?.as_deref()?;
        let connect = connection.connect.as_deref()?;
        match resolve(&connect.app, connect.tc_url.as_deref(), name) {
            Ok(resolved) => Some(self.rules.decide(&Question {
                role,
                resolved: &resolved,
                peer: canonical(connection.peer.ip()),
                unix_s: (self.clocks.unix_s)(),
                suffix: Suffix::None,
                connection: connection.id,
                connect: Some(connect),
                is_renewal: false,
            })),
            Err(error) => {
                tracing::warn!(event = "bad_name", conn = %connection.id, error = %error);
                None
            }
        }
    }

    /// Acts on a decision. Whatever it is, the session gets its answer now or with `Command::Answer`.
    pub(super) fn conclude(&mut self, index: usize, role: Role, msid: u32, decision: Decision) {
        match (decision, role) {
            (Decision::Allow(grant), Role::Publish) => self.publish_as(index, msid, grant),
            (Decision::Allow(grant), Role::Play) => {
                let session = self.connection(index).map(|connection| &connection.session);
                match session {
                    Some(Session::Http(_)) => self.view_as(index, grant),
                    _ => self.play_as(index, msid, grant),
                }
            }
            (Decision::Deny(denial), _) => self.refuse(index, role, msid, &denial),
            (Decision::Ask(mut question), _) => {
                self.tickets += 1;
                question.ticket = self.tickets;
                match self.rules.ask(question) {
                    Some(Decision::Ask(_)) | None => {
                        let (ticket, since) = (self.tickets, self.now);
                        if let Some(connection) = self.connection(index) {
                            let pending = PendingAccess { ticket, role, msid, since };
                            connection.pending_access = Some(pending);
                        }
                    }
                    Some(decision) => self.conclude(index, role, msid, decision),
                }
            }
        }
    }

    /// What became of a question that was handed over.
    pub(super) fn on_answer(&mut self, id: ConnectionId, ticket: u64, decision: Decision) {
        let Some(&index) = self.by_serial.get(&id.serial) else { return };
        let Some(connection) = self.connection(index) else { return };
        let Some(pending) = connection.pending_access.take_if(|p| p.ticket == ticket) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        let peer = canonical(connection.peer.ip());
        let decision = match decision {
            Decision::Allow(grant) => {
                let unix_s = (self.clocks.unix_s)();
                match self.rules.forbidden(&grant.path, pending.role, peer, unix_s) {
                    Some(denial) => Decision::Deny(denial),
                    None => Decision::Allow(grant),
                }
            }
            other => other,
        };
        self.conclude(index, pending.role, pending.msid, decision);
        self.resume_input(index);
        self.pump(index);
    }

    /// Gives up on an answer that does not come: the queue of this worker was full for too long.
    pub(super) fn sweep_access(&mut self, index: usize) {
        let now = self.now;
        let Some(connection) = self.connection(index) else { return };
        let is_late =
            |pending: &mut PendingAccess| now.0.saturating_sub(pending.since.0) >= ANSWER_MS_MAX;
        if let Some(pending) = connection.pending_access.take_if(is_late) {
            let text = "the authorization service gives no answer";
            let denial = Denial::new(DenyReason::HookFailed, 0, text);
            self.refuse(index, pending.role, pending.msid, &denial);
            self.resume_input(index);
            self.pump(index);
        }
    }

    /// Refuses with the text, counts and logs the class.
    pub(super) fn refuse(&mut self, index: usize, role: Role, msid: u32, denial: &Denial) {
        self.port.metrics().access_denied.of(denial.reason).increment();
        if let Some(connection) = self.connection(index) {
            tracing::info!(event = "access_denied", conn = %connection.id, peer = %connection.peer,
                role = role.text(), class = denial.reason.text(), code = denial.event_code,
                reason = log_text(&denial.text));
        }
        match role {
            Role::Publish => {
                let result = match denial.reason {
                    DenyReason::IllegalName => PublishResult::BadName,
                    DenyReason::Quota => PublishResult::Limit,
                    _ => PublishResult::Denied,
                };
                self.refuse_publish(index, msid, result, &denial.text);
            }
            Role::Play => self.refuse_play(index, msid, PlayResult::Denied, &denial.text),
        }
    }

    /// What permissions ask for over time: bit rate and lifetime. True if the connection was closed.
    pub(super) fn sweep_permits(&mut self, index: usize) -> bool {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return true;
        };
        let bytes_in = connection.bytes_in;
        let permits = connection
            .publishes
            .iter_mut()
            .map(|publish| (publish.msid, &mut publish.permit))
            .chain(connection.plays.iter_mut().map(|play| (play.msid, &mut play.permit)));
        let mut end = None;
        for (msid, permit) in permits {
            let Some(permit) = permit else { continue };
            if permit.until.is_some_and(|until| now >= until) {
                let text = "the permission has ended";
                end = Some((msid, CloseReason::LifetimeOver, text.to_owned()));
            }
            let verdict = permit.bitrate.as_mut().map(|meter| meter.note(now.0, bytes_in));
            let (bps, is_cut) = match verdict {
                None | Some(BitrateVerdict::Fine) => continue,
                Some(BitrateVerdict::Warn { bps }) => (bps, false),
                Some(BitrateVerdict::Cut { bps }) => (bps, true),
            };
            let bps_max = permit.grant.bitrate_bps_max.unwrap_or(0);
            tracing::warn!(event = "bitrate", conn = %connection.id, peer = %connection.peer,
                stream = %permit.grant.path, bps, bps_max, cut = is_cut);
            if is_cut {
                let text = format!("bit rate of {bps} exceeds {bps_max} bits per second");
                end = Some((msid, CloseReason::BitrateLimit, text));
            }
        }
        let Some((msid, reason, text)) = end else { return false };
        connection.notify_status(msid, StatusLevel::Error, "NetConnection.Connect.Closed", &text);
        self.close(index, reason);
        true
    }

    /// What is kept of a grant while it is used; nothing for one that binds nothing.
    pub(super) fn permit(&self, index: usize, mut grant: Grant) -> Option<Box<Permit>> {
        grant.over_quota = None;
        let binds = grant.place.is_some()
            || grant.bitrate_bps_max.is_some()
            || grant.lifetime_s_max.is_some();
        if !binds {
            return None;
        }
        let now = self.now;
        let bytes_in = self.connections.get(index).and_then(Option::as_deref)?.bytes_in;
        let bitrate = grant.bitrate_bps_max.map(|bps_max| {
            let cut_ms = grant.bitrate_cut_ms;
            crate::access::quota::BitrateMeter::new(bps_max, cut_ms, now.0, bytes_in)
        });
        let until = grant.lifetime_s_max.map(|s| rtmp::Millis(now.0.saturating_add(s * 1_000)));
        Some(Box::new(Permit { grant, bitrate, until }))
    }
}

/// IPv4 peers of an IPv6 listener as what they are.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A refusal as it may stand in a log: the hash a peer presented may be right for another stream.
pub(super) fn log_text(text: &str) -> &str {
    text.split_once("md5hash=").map_or(text, |(before, _)| before)
}
