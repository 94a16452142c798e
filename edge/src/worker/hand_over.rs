//! A worker that passes its connections and streams to another process, and one that takes them over.
//!
//! ```text
//!   turning ─ StandStill ─► stopping ─ nothing in flight ─► still ─┬─ Export ─► a record
//!      ▲                                                           ├─ LetGo ─► drains the rest
//!      └──────────────────────────── GoOn ─────────────────────────┘
//! ```
//!
//! Standing still, a worker sends nothing and takes nothing; its turns are its heartbeat. What changes on the
//! way there changes nothing for a peer: the rest of a message that is half sent moves from the subscriber to
//! the connection. So a worker that is told to go on goes on.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use live::path::{StreamPath, resolve};
use live::publisher::Publisher;
use live::subscriber::Subscriber;
use ring::Position;
use rtmp::Millis;
use rtmp::session::ServerSession;
use uring::{ConnId, Io, Nanos};

use super::Worker;
use super::access::canonical;
use super::stream::{Grace, LocalPublisher, LocalStream, Player};
use crate::access::providers::Tracks;
use crate::access::quota::BitrateMeter;
use crate::access::{Grant, Introduction, Role as AccessRole};
use crate::command::{ConnectionId, Reply};
use crate::connection::{Closing, Connection, Permit, Play, Publish, Sending, Session};
use crate::framing::FramingKind;
use crate::front::FIRST_BYTES;
use crate::hand_over::HandOverError;
use crate::hand_over::record::{
    ConnectRecord, ConnectionRecord, Door, LiveRecord, OwnerRecord, PathRecord, PermitRecord,
    PlayRecord, PublishRecord, StreamRecord, WorkerRecord,
};
use crate::metrics::{CloseReason, ConnectionState, Role};
use crate::registry::StreamPhase;
use crate::transport::Transport;

/// Distance of two turns on the way to a standstill, and in it, in milliseconds.
const STOPPING_TURN_MS: u64 = 1;
const STILL_TURN_MS: u64 = 100;

/// Whether the worker moves anything.
#[derive(Debug, Default)]
pub(super) enum Standstill {
    /// It does.
    #[default]
    Off,
    /// Something is in flight yet; who waits for the end of that.
    Stopping(Reply<()>),
    /// Nothing is.
    Still,
}

/// What a worker passes on.
#[derive(Debug, Default)]
pub struct Export {
    /// Its records.
    pub record: WorkerRecord,
    /// The sockets of its connections.
    pub sockets: Vec<OwnedFd>,
    /// Its listeners.
    pub doors: Vec<(Door, OwnedFd)>,
}

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn is_still(&self) -> bool {
        !matches!(self.standstill, Standstill::Off)
    }

    /// When to turn next; `None` while it moves.
    pub(super) fn still_deadline(&self) -> Option<Nanos> {
        let ms = match self.standstill {
            Standstill::Off => return None,
            Standstill::Stopping(_) => STOPPING_TURN_MS,
            Standstill::Still => STILL_TURN_MS,
        };
        Some(self.now_nanos.saturating_add(Nanos::from_millis(ms)))
    }

    pub(super) fn begin_standstill(&mut self, reply: Reply<()>) {
        // A worker that drains or stops has nothing to pass on: nobody hears of it in time.
        if self.drain.is_none() && !self.stopping && !self.is_still() {
            self.standstill = Standstill::Stopping(reply);
            self.io.freeze();
        }
    }

    /// A turn on the way to a standstill.
    pub(super) fn stand_still(&mut self) {
        if !matches!(self.standstill, Standstill::Stopping(_)) {
            return;
        }
        let is_sending = |c: &Connection| c.output.sending != Sending::Nothing;
        if !self.io.is_frozen() || self.connections.iter().flatten().any(|c| is_sending(c)) {
            self.io.freeze();
            return;
        }
        for index in 0..self.connections.len() {
            self.settle(index);
        }
        if let Standstill::Stopping(reply) =
            std::mem::replace(&mut self.standstill, Standstill::Still)
        {
            reply.send(());
        }
    }

    /// Takes the rest of a message that is half sent from its play, and notes from where on the ring is
    /// needed.
    fn settle(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let mut is_torn = false;
        for play in &mut connection.plays {
            let Some(stream) = self.streams.get_mut(play.stream) else { continue };
            let was_waiting = usize::from(play.subscriber.is_waiting());
            if play.subscriber.is_mid_message() {
                let rest = stream.tap.as_ref().and_then(|tap| play.subscriber.take_rest(tap));
                is_torn |= rest.is_none() || connection.output.rest.is_some();
                connection.output.rest = rest.map(|rest| rest.to_vec());
            }
            stream.waiting += usize::from(play.subscriber.is_waiting());
            stream.waiting -= was_waiting;
            if stream.framing == FramingKind::Rtmp
                && let Some(place) = play.subscriber.place()
            {
                stream.entry.keep_from(place);
            }
        }
        if is_torn {
            // The ring has lost the rest of its message: it would have been closed at its next look.
            self.abandon(index, CloseReason::Overrun);
        }
    }

    /// Everything that can be passed on.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub(super) fn export(&mut self) -> Result<Export, HandOverError> {
        let failed = |error| HandOverError::io("a descriptor for the other process", &error);
        let (index, serial) = (self.index, self.serial);
        let mut export = Export {
            record: WorkerRecord { index, serial, ..WorkerRecord::default() },
            ..Export::default()
        };
        for entrance in &self.listeners {
            let socket = self.io.duplicate_listener(entrance.listener).map_err(failed)?;
            export.doors.push((entrance.door, socket));
        }
        self.exported.clear();
        for index in 0..self.connections.len() {
            let Some(record) = self.connection_record(index)? else { continue };
            let Some(conn) = self.connection(index).map(|connection| connection.conn) else {
                continue;
            };
            export.sockets.push(self.io.duplicate(conn).map_err(failed)?);
            export.record.connections.push(record);
            self.exported.push(index);
        }
        let homes: Vec<usize> = self.streams.iter().map(|(stream, _)| stream).collect();
        export.record.streams =
            homes.into_iter().filter_map(|stream| self.stream_record(stream)).collect();
        Ok(export)
    }

    fn connection_record(&self, index: usize) -> Result<Option<ConnectionRecord>, HandOverError> {
        let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
            return Ok(None);
        };
        let is_over = |play: &Play| {
            self.streams.get(play.stream).is_some_and(|local| local.entry.is_retired())
        };
        if connection.plays.iter().any(is_over) {
            // The rest of a stream whose ring stays here.
            return Ok(None);
        }
        let live = match portable(connection) {
            Portable::No => return Ok(None),
            Portable::Fresh => None,
            Portable::Session(session) => Some(self.live_record(connection, session)?),
        };
        Ok(Some(ConnectionRecord {
            serial: connection.id.serial,
            peer: connection.peer,
            proxy: connection.proxy.as_deref().copied(),
            accepted_at: connection.accepted_at.0,
            is_read_by_record: connection.is_read_by_record,
            may_speak_http: connection.may_speak_http,
            live,
        }))
    }

    fn live_record(
        &self,
        connection: &Connection,
        session: &ServerSession,
    ) -> Result<LiveRecord, HandOverError> {
        let session = postcard::to_allocvec(session)
            .map_err(|error| HandOverError::new(format!("a session: {error}")))?;
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let connect = connection.connect.as_deref().map(|c| ConnectRecord {
            app: String::from(&*c.app),
            tc_url: owned(&c.tc_url),
            page_url: owned(&c.page_url),
            flash_ver: owned(&c.flash_ver),
        });
        let path = |stream| {
            self.streams.get(stream).map(|local: &LocalStream| PathRecord::from(local.entry.path()))
        };
        let publishes = connection.publishes.iter().filter_map(|publish| {
            Some(PublishRecord {
                msid: publish.msid,
                path: path(publish.stream)?,
                tracks: (publish.tracks.audio, publish.tracks.video),
                permit: publish.permit.as_deref().map(permit_record),
            })
        });
        let plays = connection.plays.iter().filter_map(|play| {
            Some(PlayRecord {
                serial: play.serial,
                msid: play.msid,
                path: path(play.stream)?,
                subscriber: play.subscriber.to_record(),
                waiting_since: play.waiting_since.0,
                has_joined: play.has_joined,
                ends_at: play.ends_at.map(|at| at.0),
                preamble_version: self.newest_preamble(play),
                ends_seen: self.streams.get(play.stream)?.ends_seen,
                permit: play.permit.as_deref().map(permit_record),
            })
        });
        Ok(LiveRecord {
            session,
            connect,
            rest: connection.output.rest.clone().unwrap_or_default(),
            held_input: connection.held_input.clone(),
            publishes: publishes.collect(),
            plays: plays.collect(),
            play_serial: connection.play_serial,
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            skips: connection.skips,
            role: match connection.role {
                Role::Publisher => Some(true),
                Role::Subscriber => Some(false),
                Role::Undecided => None,
            },
            last_path: connection.last_path.as_ref().map(PathRecord::from),
        })
    }

    /// The version of the preamble a player was told, if that is the newest: only that keeps its number.
    fn newest_preamble(&self, play: &Play) -> u64 {
        let newest = self.streams.get(play.stream).and_then(|local| local.entry.ring());
        let newest = newest.map_or(0, ring::StreamRing::preamble_version);
        if play.preamble_version == newest { newest } else { 0 }
    }

    /// A stream this worker is home of; nothing of one that nobody publishes.
    fn stream_record(&self, stream: usize) -> Option<StreamRecord> {
        let local = self.streams.get(stream).filter(|l| l.framing == FramingKind::Rtmp)?;
        let record = |publisher: &Publisher, owner: Option<OwnerRecord>| {
            let mut tap = local.entry.ring()?.tap();
            let view = tap.refresh();
            let kept = [view.join, local.entry.kept_from()].into_iter().flatten().min();
            let from = kept.unwrap_or(view.head).clamp(view.tail, view.head);
            let from = tap.boundary_at_or_after(from).unwrap_or(view.head);
            Some(StreamRecord {
                path: local.entry.path().into(),
                publisher: publisher.to_record(&tap, from, owner.is_some()),
                owner,
                past: local.entry.past(),
            })
        };
        let Some(publisher) = &local.publisher else {
            local.grace?;
            return local.entry.with_parked(|parked| record(parked, None)).flatten();
        };
        let connection = self.connections.get(publisher.conn).and_then(Option::as_deref)?;
        let owner = OwnerRecord {
            serial: connection.id.serial,
            msid: publisher.msid,
            since: publisher.since.0,
            heard_at: publisher.heard_at.0,
        };
        // One whose connection stays behind waits for it to come back.
        let is_portable = !matches!(portable(connection), Portable::No);
        record(&publisher.writer, is_portable.then_some(owner))
    }

    /// Nothing was passed on: goes on where it stopped.
    pub(super) fn go_on(&mut self) {
        self.exported.clear();
        self.take_up();
    }

    /// Moves again, from a standstill of its own or with what it has taken over.
    pub fn take_up(&mut self) {
        if !self.is_still() {
            return;
        }
        self.standstill = Standstill::Off;
        self.io.thaw();
        for (_, local) in &mut self.streams {
            local.entry.keep_nothing();
        }
        for index in 0..self.connections.len() {
            self.resume_input(index);
            self.pump(index);
        }
        (self.tick_at, self.sweep_at) = (self.now, self.now);
    }

    /// What was passed on is another process's now; the rest is drained.
    pub(super) fn let_go(&mut self, deadline_ms: u64) {
        for index in std::mem::take(&mut self.exported) {
            let now = self.now;
            if let Some(connection) = self.connection(index) {
                let reason = CloseReason::HandedOver;
                connection.closing = Some(Closing { reason, deadline: now, shut_down: true });
            }
            self.remove(index);
        }
        for entrance in std::mem::take(&mut self.listeners) {
            self.io.release_listener(entrance.listener);
        }
        self.standstill = Standstill::Off;
        self.io.thaw();
        self.begin_drain(deadline_ms);
    }

    // The other side.

    /// Begins at a standstill: nothing is taken from the kernel before [`Worker::take_up`].
    pub fn hold(&mut self) {
        self.standstill = Standstill::Still;
        self.io.freeze();
    }

    /// Takes over what a worker of another process passed on. The worker is at a standstill.
    ///
    /// # Errors
    /// [`HandOverError`]: it does not fit together, or not in here. The worker must not be used then.
    pub fn import(
        &mut self,
        record: WorkerRecord,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), HandOverError> {
        let mut owners = HashMap::new();
        // Its numbers are kept where the worker is the same; others follow.
        let is_same = record.index == self.index;
        self.serial = if is_same { self.serial.max(record.serial) } else { self.serial };
        let mut lives = Vec::new();
        for (connection, socket) in record.connections.into_iter().zip(sockets) {
            let before = connection.serial;
            let (index, live) = self.import_connection(connection, socket, is_same)?;
            owners.insert(before, index);
            lives.extend(live.map(|live| (index, live)));
        }
        for stream in &record.streams {
            self.import_stream(stream, &owners)?;
        }
        for (index, live) in lives {
            for publish in &live.publishes {
                self.import_publish(index, publish)?;
            }
            for play in &live.plays {
                self.import_play(index, play)?;
            }
            self.update_state(index);
        }
        Ok(())
    }

    fn import_connection(
        &mut self,
        record: ConnectionRecord,
        socket: OwnedFd,
        keeps_serial: bool,
    ) -> Result<(usize, Option<LiveRecord>), HandOverError> {
        let first = u32::try_from(FIRST_BYTES).ok();
        let is_bounded = record.is_read_by_record && record.live.is_none();
        let conn = self
            .io
            .adopt(socket, first.filter(|_| is_bounded))
            .map_err(|error| HandOverError::io("a connection", &error))?;
        let serial = if keeps_serial { record.serial } else { self.serial + 1 };
        self.serial = self.serial.max(serial);
        let id = ConnectionId { worker: self.index, serial };
        let accepted_at = Millis(record.accepted_at);
        let transport = match &record.live {
            Some(_) => Transport::Plain,
            None => self.opening(record.peer),
        };
        let mut connection = Connection::new(conn, id, record.peer, transport, accepted_at);
        connection.proxy = record.proxy.map(Box::new);
        connection.is_read_by_record = record.is_read_by_record;
        connection.may_speak_http = record.may_speak_http;
        if let Some(live) = &record.live {
            restore_live(&mut connection, live)?;
        }
        let admitted = self.shared.addresses.admit(record.peer.ip(), usize::MAX, 0);
        debug_assert_eq!(
            admitted,
            Ok(()),
            "there is no limit for whom another process had admitted"
        );
        Ok((self.seat(conn, connection), record.live))
    }

    /// Puts a connection in the table.
    pub(super) fn seat(&mut self, conn: ConnId, connection: Connection) -> usize {
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
        let stream = self.stream_of(&record.path)?;
        let Some(local) = self.streams.get_mut(stream) else { return Ok(()) };
        let (writer, _) = ring::stream_ring(self.settings.stream_ring_config(&local.vhost));
        let config = local.vhost.publisher;
        let publisher =
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
                    exported: at_begin,
                });
            }
            None => {
                let parked = local.entry.park(publisher, true);
                let until = Millis(now.0 + local.vhost.grace_ms);
                local.grace = Some(Grace { until, session: parked.session });
            }
        }
        self.mark_dirty(stream);
        Ok(())
    }

    fn stream_of(&mut self, path: &PathRecord) -> Result<usize, HandOverError> {
        let path = StreamPath::try_from(path)
            .map_err(|error| HandOverError::new(format!("a stream's name: {error}")))?;
        self.local_stream(&path, FramingKind::Rtmp).map_err(|limit| {
            HandOverError::new(format!("stream {path}: {limit:?} are limited here"))
        })
    }

    fn import_publish(
        &mut self,
        index: usize,
        record: &PublishRecord,
    ) -> Result<(), HandOverError> {
        let stream = self.stream_of(&record.path)?;
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

    fn import_play(&mut self, index: usize, record: &PlayRecord) -> Result<(), HandOverError> {
        let stream = self.stream_of(&record.path)?;
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
        let place = connection.connect.as_deref().filter(|_| record.has_place).and_then(|c| {
            let resolved = resolve(&c.app, c.tc_url.as_deref(), path.name()).ok()?;
            self.rules.readmit(role, canonical(connection.peer.ip()), &resolved)
        });
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

    /// Subscribers of streams nobody has passed on begin anew: their places were in rings that are gone.
    pub fn forget_lost_places(&mut self) {
        for connection in self.connections.iter_mut().flatten() {
            for play in &mut connection.plays {
                let Some(local) = self.streams.get_mut(play.stream) else { continue };
                if local.entry.ring().is_some() && local.entry.phase() != StreamPhase::Waiting {
                    continue;
                }
                local.waiting += usize::from(!play.subscriber.is_waiting());
                if play.has_joined
                    && let Some(session) = connection.session.rtmp()
                {
                    session.notify_unpublish(play.msid);
                }
                play.subscriber = Subscriber::new(play.subscriber.selection(), self.now);
                play.has_joined = false;
                play.ends_at = None;
                local.ends_seen = local.ends().0;
            }
        }
    }
}

/// Whether a connection can be passed on, and what of it.
enum Portable<'c> {
    No,
    /// Nothing was said on it.
    Fresh,
    Session(&'c ServerSession),
}

fn portable(connection: &Connection) -> Portable<'_> {
    let is_busy = connection.closing.is_some()
        || connection.receive_ended
        || connection.output.sending != Sending::Nothing
        || connection.pending_publish.is_some()
        || connection.pending_access.is_some();
    if is_busy {
        return Portable::No;
    }
    match (&connection.transport, &connection.session) {
        (Transport::Opening(_), _) if connection.bytes_in == 0 && connection.proxy.is_none() => {
            Portable::Fresh
        }
        (Transport::Plain, Session::Rtmp(session)) if session.is_portable() => {
            Portable::Session(session)
        }
        _ => Portable::No,
    }
}

fn permit_record(permit: &Permit) -> PermitRecord {
    PermitRecord {
        bitrate_bps_max: permit.grant.bitrate_bps_max,
        bitrate_cut_ms: permit.grant.bitrate_cut_ms,
        until: permit.until.map(|until| until.0),
        has_place: permit.grant.place.is_some(),
    }
}

fn restore_live(connection: &mut Connection, live: &LiveRecord) -> Result<(), HandOverError> {
    let session: ServerSession = postcard::from_bytes(&live.session)
        .map_err(|error| HandOverError::new(format!("a session: {error}")))?;
    if !session.is_portable() {
        return Err(HandOverError::new("a session: its parts do not fit together"));
    }
    connection.session = Session::Rtmp(Box::new(session));
    let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
    connection.connect = live.connect.as_ref().map(|connect| {
        Box::new(Introduction {
            app: connect.app.as_str().into(),
            tc_url: boxed(&connect.tc_url),
            page_url: boxed(&connect.page_url),
            flash_ver: boxed(&connect.flash_ver),
        })
    });
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
