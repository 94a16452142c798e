//! What a worker takes over from one of another process.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use live::path::StreamPath;
use live::publisher::{Publisher, PublisherCounters};
use live::subscriber::Subscriber;
use ring::Position;
use rtmp::Millis;
use rtmp::session::ServerSession;
use uring::{ConnId, Io};

use super::super::Worker;
use super::super::access::canonical;
use super::super::stream::{Grace, LocalPublisher, LocalStream, Player};
use crate::access::providers::Tracks;
use crate::access::quota::BitrateMeter;
use crate::access::{Grant, Introduction, Role as AccessRole};
use crate::command::ConnectionId;
use crate::connection::{Connection, Permit, Play, Publish, Session};
use crate::framing::FramingKind;
use crate::front::FIRST_BYTES;
use crate::hand_over::HandOverError;
use crate::hand_over::record::{
    ConnectionRecord, FramingRecord, LiveRecord, PathRecord, PermitRecord, PlayRecord,
    PublishRecord, SpokenRecord, StreamRecord, TransportRecord, WorkerRecord,
};
use crate::http::HttpSession;
use crate::metrics::{CloseReason, ConnectionState, Role, TlsMode};
use crate::registry::{StreamLimit, StreamPhase, StreamsMax};
use crate::transport::{Kernel, Transport};

/// Records of one worker that refer to each other.
#[derive(Debug, Default)]
struct Found {
    /// Connections by the serial number they had.
    owners: HashMap<u64, usize>,
    /// Framings by the number they had.
    framings: HashMap<u64, usize>,
}

/// A framing that goes on once the stream's own ring is there, which another worker may bring.
#[derive(Debug)]
pub(in super::super) struct PassedFraming {
    pub(in super::super) stream: usize,
    record: FramingRecord,
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    /// Takes over what a worker of another process passed on. The worker is at a standstill.
    ///
    /// # Errors
    /// [`HandOverError`]: it does not fit together, or not in here. The worker must not be used then.
    pub fn import(
        &mut self,
        record: WorkerRecord,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), HandOverError> {
        let mut found = Found::default();
        // Its numbers are kept where the worker is the same; others follow.
        let is_same = record.index == self.index;
        self.serial = if is_same { self.serial.max(record.serial) } else { self.serial };
        let mut lives = Vec::new();
        for (connection, socket) in record.connections.into_iter().zip(sockets) {
            let before = connection.serial;
            let Some((index, live)) = self.import_connection(connection, socket, is_same)? else {
                continue;
            };
            found.owners.insert(before, index);
            lives.extend(live.map(|live| (index, live)));
        }
        for stream in &record.streams {
            self.import_stream(stream, &found.owners)?;
        }
        for record in record.framings {
            self.import_framing(record, &mut found)?;
        }
        for (index, live) in lives {
            for publish in &live.publishes {
                self.import_publish(index, publish)?;
            }
            for play in &live.plays {
                self.import_play(index, play, &found)?;
            }
            self.update_state(index);
        }
        Ok(())
    }

    /// `None` for one whose peer has broken it meanwhile: it is as gone as if that had been seen before.
    fn import_connection(
        &mut self,
        record: ConnectionRecord,
        socket: OwnedFd,
        keeps_serial: bool,
    ) -> Result<Option<(usize, Option<LiveRecord>)>, HandOverError> {
        let first = u32::try_from(FIRST_BYTES).ok();
        let is_bounded = record.is_read_by_record && record.live.is_none();
        let conn = match self.io.adopt(socket, first.filter(|_| is_bounded)) {
            Ok(conn) => conn,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(None),
            Err(error) => return Err(HandOverError::io("a connection", &error)),
        };
        let serial = if keeps_serial { record.serial } else { self.serial + 1 };
        self.serial = self.serial.max(serial);
        let id = ConnectionId { worker: self.index, serial };
        let accepted_at = Millis(record.accepted_at);
        let opening = self.opening(record.peer);
        let mut connection = Connection::new(conn, id, record.peer, opening, accepted_at);
        connection.proxy = record.proxy.map(Box::new);
        connection.is_read_by_record = record.is_read_by_record;
        connection.may_speak_http = record.may_speak_http;
        if let Some(live) = &record.live {
            restore_transport(&mut connection, &live.transport)?;
            restore_live(&mut connection, live)?;
        }
        if let Some(mode) = connection.tls_mode {
            self.port.metrics().tls_connections.of(mode).increment();
        }
        let admitted = self.shared.addresses.admit(record.peer.ip(), usize::MAX, 0);
        debug_assert_eq!(
            admitted,
            Ok(()),
            "there is no limit for whom another process had admitted"
        );
        Ok(Some((self.seat(conn, connection), record.live)))
    }

    /// Puts a connection in the table.
    pub(in super::super) fn seat(&mut self, conn: ConnId, connection: Connection) -> usize {
        let index = conn.index();
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        self.by_serial.insert(connection.id.serial, index);
        self.connections[index] = Some(Box::new(connection));
        self.open_count += 1;
        self.port.metrics().connections.of(Role::Undecided, ConnectionState::Handshake).increment();
        index
    }

    fn import_stream(
        &mut self,
        record: &StreamRecord,
        owners: &HashMap<u64, usize>,
    ) -> Result<(), HandOverError> {
        let now = self.now;
        let stream = self.stream_of(&record.path, FramingKind::Rtmp)?;
        let Some(local) = self.streams.get_mut(stream) else { return Ok(()) };
        if local.entry.ring().is_some() {
            let text = format!("stream {}: it is passed on twice", local.entry.path());
            return Err(HandOverError::new(text));
        }
        let (writer, _) = ring::stream_ring(self.settings.stream_ring_config(&local.vhost));
        let config = local.vhost.publisher;
        let mut publisher =
            Publisher::from_record(config, writer, &record.publisher, &mut self.arena, now)
                .map_err(|error| {
                    HandOverError::new(format!("stream {}: {error}", local.entry.path()))
                })?;
        local.entry.restore(&publisher, &record.past);
        self.shared.hls.on_publish(&local.entry, &local.vhost.hls);
        let owner = record.owner.and_then(|owner| Some((owner, *owners.get(&owner.serial)?)));
        match owner {
            Some((owner, conn)) => {
                let id = self.connections.get(conn).and_then(Option::as_deref).map(|c| c.id);
                if let Some(id) = id {
                    local.entry.restore_owner(id);
                }
                local.entry.count_publisher();
                let at_begin = *publisher.counters();
                local.publisher = Some(LocalPublisher {
                    conn,
                    msid: owner.msid,
                    writer: publisher,
                    since: Millis(owner.since),
                    heard_at: Millis(owner.heard_at),
                    at_begin,
                    exported: PublisherCounters::default(),
                });
            }
            None => {
                // It may have been lost meanwhile, in the middle of a message.
                publisher.end_session(&mut self.arena, false);
                let parked = local.entry.park(publisher, true);
                let until = Millis(now.0 + local.vhost.grace_ms);
                local.grace = Some(Grace { until, session: parked.session });
            }
        }
        self.mark_dirty(stream);
        Ok(())
    }

    fn stream_of(
        &mut self,
        path: &PathRecord,
        framing: FramingKind,
    ) -> Result<usize, HandOverError> {
        let path = stream_path(path)?;
        self.local_stream(&path, framing).map_err(|limit| limited(&path, limit))
    }

    fn import_publish(
        &mut self,
        index: usize,
        record: &PublishRecord,
    ) -> Result<(), HandOverError> {
        let stream = self.stream_of(&record.path, FramingKind::Rtmp)?;
        let is_owner = self.streams.get(stream).is_some_and(|local| {
            local.publisher.as_ref().is_some_and(|p| p.conn == index && p.msid == record.msid)
        });
        if !is_owner {
            return Err(HandOverError::new("a publisher without its stream"));
        }
        let permit = self.import_permit(index, AccessRole::Publish, &record.path, &record.permit);
        let (audio, video) = record.tracks;
        if let Some(connection) = self.connection(index) {
            let tracks = Tracks { audio, video };
            connection.publishes.push(Publish { msid: record.msid, stream, tracks, permit });
        }
        Ok(())
    }

    /// A framing has a record of its own here even where there is one already: two workers' rings of it
    /// have become one worker's, and nobody's place in one is a place in the other.
    fn import_framing(
        &mut self,
        record: FramingRecord,
        found: &mut Found,
    ) -> Result<(), HandOverError> {
        let path = stream_path(&record.path)?;
        let stream = match self.by_path.contains_key(&(path.clone(), record.kind)) {
            false => self.stream_of(&record.path, record.kind)?,
            true => {
                let vhost = self.settings.vhost(path.vhost());
                let entry = self.shared.registry.hold(&path, StreamsMax::NONE);
                let entry = entry.map_err(|limit| limited(&path, limit))?;
                let local = LocalStream::new(entry, record.kind, vhost, self.now);
                let stream = self.streams.insert(local);
                self.unlisted.push(stream);
                stream
            }
        };
        found.framings.insert(record.number, stream);
        self.passed_framings.push(PassedFraming { stream, record });
        Ok(())
    }

    fn import_play(
        &mut self,
        index: usize,
        record: &PlayRecord,
        found: &Found,
    ) -> Result<(), HandOverError> {
        let session = self.connection(index).map(|connection| &connection.session);
        let framing = match session {
            Some(Session::Http(session)) => session.framing(),
            _ => FramingKind::Rtmp,
        };
        let stream = match record.framing.and_then(|number| found.framings.get(&number)) {
            Some(&stream) => stream,
            None => self.stream_of(&record.path, framing)?,
        };
        let permit = self.import_permit(index, AccessRole::Play, &record.path, &record.permit);
        let worker = usize::from(self.index);
        let connection = self.connections.get_mut(index).and_then(Option::as_deref_mut);
        let (Some(connection), Some(local)) = (connection, self.streams.get_mut(stream)) else {
            return Ok(());
        };
        let subscriber = Subscriber::from_record(&record.subscriber);
        let admitted = local.entry.admit_subscriber(u32::MAX, u32::MAX);
        debug_assert_eq!(
            admitted,
            Ok(()),
            "there is no limit for whom another process had admitted"
        );
        if local.players.is_empty() {
            self.watched.push(stream);
            local.entry.set_tapped(worker, true);
            local.ends_seen = record.ends_seen;
        }
        local.waiting += usize::from(subscriber.is_waiting());
        connection.plays.push(Play {
            serial: record.serial,
            msid: record.msid,
            stream,
            slot: local.players.len(),
            subscriber,
            asked_at: None,
            waiting_since: Millis(record.waiting_since),
            has_joined: record.has_joined,
            ends_at: record.ends_at.map(Position),
            preamble_version: record.preamble_version,
            permit,
        });
        local.players.push(Player { conn: index, msid: record.msid });
        Ok(())
    }

    /// A permission with a place of its own in the quotas, taken anew: it was within them before.
    fn import_permit(
        &self,
        index: usize,
        role: AccessRole,
        path: &PathRecord,
        record: &Option<PermitRecord>,
    ) -> Option<Box<Permit>> {
        let record = record.as_ref()?;
        let path = StreamPath::try_from(path).ok()?;
        let connection = self.connections.get(index)?.as_deref()?;
        let peer = canonical(connection.peer.ip());
        let place = record.place.as_deref();
        let place = place.and_then(|domain| self.rules.readmit(role, peer, domain));
        let bitrate = record.bitrate_bps_max.map(|bps_max| {
            BitrateMeter::new(bps_max, record.bitrate_cut_ms, self.now.0, connection.bytes_in)
        });
        let grant = Grant {
            bitrate_bps_max: record.bitrate_bps_max,
            bitrate_cut_ms: record.bitrate_cut_ms,
            place,
            ..Grant::unlimited(path)
        };
        Some(Box::new(Permit { grant, bitrate, until: record.until.map(Millis) }))
    }

    /// All workers have taken over what is theirs: framings go on from the streams' rings. Subscribers of
    /// streams nobody has passed on begin anew, since their places were in rings that are gone; viewers over
    /// HTTP, who cannot, have seen the end.
    pub fn find_places(&mut self) {
        let framings = std::mem::take(&mut self.passed_framings);
        let framed: Vec<usize> = framings.iter().map(|framing| framing.stream).collect();
        for PassedFraming { stream, record } in framings {
            let Some(local) = self.streams.get_mut(stream) else { continue };
            if let Err(error) = local.go_on_framing(&record, &mut self.arena, &self.settings) {
                tracing::error!(event = "upgrade", error = %error, "viewers are disconnected");
            }
        }
        let mut ended = Vec::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let Some(connection) = connection.as_deref_mut() else { continue };
            for play in &mut connection.plays {
                let Some(local) = self.streams.get_mut(play.stream) else { continue };
                let is_framed = local.framing != FramingKind::Rtmp && play.has_joined;
                let is_here = local.entry.ring().is_some()
                    && local.entry.phase() != StreamPhase::Waiting
                    && (!is_framed || local.reframer.is_some());
                if is_here {
                    continue;
                }
                local.waiting += usize::from(!play.subscriber.is_waiting());
                if play.has_joined {
                    match &mut connection.session {
                        Session::Rtmp(session) => session.notify_unpublish(play.msid),
                        Session::Http(session) => {
                            session.end_of_stream();
                            ended.push(index);
                        }
                        Session::Unknown => {}
                    }
                }
                let mut subscriber = Subscriber::new(play.subscriber.selection(), self.now);
                if play.subscriber.is_paused() {
                    subscriber.set_paused(true, &ring::Head::default(), self.now);
                }
                play.subscriber = subscriber;
                play.has_joined = false;
                play.ends_at = None;
                local.ends_seen = local.ends().0;
            }
        }
        // At once: one with the rest of a message to be sent would be given a place again meanwhile, and a
        // second head behind it.
        for index in ended {
            self.close(index, CloseReason::StreamEnded);
        }
        for stream in framed {
            // Its viewers may have stayed behind.
            if let Some(local) = self.streams.get_mut(stream).filter(|l| l.players.is_empty()) {
                local.untap(&mut self.arena, self.port.metrics());
                self.forget_stream_if_unneeded(stream);
            }
        }
    }
}

fn stream_path(record: &PathRecord) -> Result<StreamPath, HandOverError> {
    StreamPath::try_from(record)
        .map_err(|error| HandOverError::new(format!("a stream's name: {error}")))
}

fn limited(path: &StreamPath, limit: StreamLimit) -> HandOverError {
    HandOverError::new(format!("stream {path}: {limit:?} are limited here"))
}

fn restore_transport(
    connection: &mut Connection,
    record: &TransportRecord,
) -> Result<(), HandOverError> {
    let failed = |error: tls::TlsError| HandOverError::new(format!("a TLS session: {error}"));
    let (transport, mode, facts) = match record {
        TransportRecord::Plain => {
            connection.transport = Transport::Plain;
            return Ok(());
        }
        TransportRecord::Records(record) => {
            let session = tls::Session::from_record(record).map_err(failed)?;
            let facts = session.facts().cloned();
            (Transport::Records(Box::new(session)), TlsMode::Records, facts)
        }
        TransportRecord::Kernel { facts, control, must_update_send } => {
            let facts = tls::Facts::try_from(facts).map_err(failed)?;
            let session = tls::KernelSession::from_record(control, &facts).map_err(failed)?;
            let kernel = Kernel { session, must_update_send: *must_update_send };
            (Transport::Kernel(Box::new(kernel)), TlsMode::Kernel, Some(facts))
        }
    };
    connection.transport = transport;
    connection.tls_mode = Some(mode);
    connection.tls = facts.map(Box::new);
    Ok(())
}

fn restore_live(connection: &mut Connection, live: &LiveRecord) -> Result<(), HandOverError> {
    let unfit = || HandOverError::new("a session: its parts do not fit together");
    connection.session = match &live.spoken {
        SpokenRecord::Nothing => Session::Unknown,
        SpokenRecord::Rtmp(bytes) => {
            let session: ServerSession = postcard::from_bytes(bytes)
                .map_err(|error| HandOverError::new(format!("a session: {error}")))?;
            if !session.is_portable() {
                return Err(unfit());
            }
            Session::Rtmp(Box::new(session))
        }
        SpokenRecord::Http(record) => {
            Session::Http(Box::new(HttpSession::from_record(record).ok_or_else(unfit)?))
        }
    };
    let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
    connection.connect = live.connect.as_ref().map(|connect| {
        Box::new(Introduction {
            app: connect.app.as_str().into(),
            tc_url: boxed(&connect.tc_url),
            page_url: boxed(&connect.page_url),
            flash_ver: boxed(&connect.flash_ver),
        })
    });
    connection.output.sealed_rest =
        (!live.sealed_rest.is_empty()).then(|| live.sealed_rest.clone());
    connection.output.rest = (!live.rest.is_empty()).then(|| live.rest.clone());
    connection.held_input.clone_from(&live.held_input);
    connection.play_serial = live.play_serial;
    connection.bytes_in = live.bytes_in;
    connection.bytes_out = live.bytes_out;
    connection.skips = live.skips;
    connection.role = match live.role {
        None => Role::Undecided,
        Some(true) => Role::Publisher,
        Some(false) => Role::Subscriber,
    };
    connection.last_path = live.last_path.as_ref().and_then(|path| path.try_into().ok());
    Ok(())
}
