//! A publisher that waits for another one's writer: asked again on each tick, until it has it or not.

use rtmp::session::StatusLevel;
use uring::Io;

use super::Worker;
use super::ingest::PublishEnd;
use crate::access::Grant;
use crate::metrics::{CloseReason, PublishResult};
use crate::registry::ClaimPoll;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Looks whether the writer a connection waits for has come free.
    pub(super) fn poll_claim(&mut self, index: usize) {
        let Some(connection) = self.connection(index) else { return };
        let (id, Some(pending)) = (connection.id, &connection.pending_publish) else { return };
        let (msid, stream) = (pending.msid, pending.stream);
        let Some(local) = self.streams.get(stream) else { return };
        match local.entry.poll_claim(id) {
            ClaimPoll::Pending => {}
            ClaimPoll::Granted(writer) => {
                let Some(grant) = self.end_claim(index) else { return };
                let result = PublishResult::Takeover;
                self.begin_publish(index, (msid, grant), stream, writer, result);
                self.resume_input(index);
                self.pump(index);
            }
            ClaimPoll::Retired => {
                let Some(grant) = self.end_claim(index) else { return };
                self.forget_stream_if_unneeded(stream);
                self.publish_as(index, msid, grant);
                self.resume_input(index);
                self.pump(index);
            }
            ClaimPoll::Superseded => {
                self.end_claim(index);
                let text = "another publisher was faster";
                self.refuse_publish(index, msid, PublishResult::Busy, text);
                self.forget_stream_if_unneeded(stream);
            }
        }
    }

    /// Forgets a pending publish of this connection, granted or given up; returns its permission.
    pub(super) fn end_claim(&mut self, index: usize) -> Option<Grant> {
        self.claims.retain(|&claimant| claimant != index);
        let pending = self.connection(index)?.pending_publish.take()?;
        if let Some(local) = self.streams.get_mut(pending.stream) {
            local.claims -= 1;
        }
        Some(pending.grant)
    }

    /// Ends the local publisher's session because a newcomer may take the stream over.
    pub(super) fn yield_stream(&mut self, stream: usize) {
        let Some(local) = self.streams.get(stream) else { return };
        let Some(publisher) = &local.publisher else { return };
        let (conn, msid) = (publisher.conn, publisher.msid);
        self.unpublish(conn, msid, PublishEnd::Takeover);
        if let Some(connection) = self.connection(conn) {
            connection.notify_status(
                msid,
                StatusLevel::Error,
                "NetStream.Publish.BadName",
                "another publisher took the stream over",
            );
        }
        self.close(conn, CloseReason::Takeover);
    }
}
