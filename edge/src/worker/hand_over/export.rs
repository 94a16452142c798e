//! What a worker at a standstill passes on: sockets, and records of what they are.

use std::os::fd::OwnedFd;

use live::publisher::Publisher;
use uring::Io;

use super::super::Worker;
use super::super::stream::LocalStream;
use crate::connection::{Connection, Permit, Play, Sending, Session};
use crate::framing::FramingKind;
use crate::hand_over::HandOverError;
use crate::hand_over::record::{
    ConnectRecord, ConnectionRecord, Door, FramingRecord, LiveRecord, OwnerRecord, PathRecord,
    PermitRecord, PlayRecord, PublishRecord, SpokenRecord, StreamRecord, TransportRecord,
    WorkerRecord,
};
use crate::metrics::{CloseReason, Role};
use crate::transport::Transport;

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
    /// Everything that can be passed on.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub(in super::super) fn export(&mut self) -> Result<Export, HandOverError> {
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
        let mut exported = Vec::new();
        for index in 0..self.connections.len() {
            let Some(record) = self.connection_record(index)? else { continue };
            let Some(conn) = self.connection(index).map(|connection| connection.conn) else {
                continue;
            };
            export.sockets.push(self.io.duplicate(conn).map_err(failed)?);
            export.record.connections.push(record);
            exported.push(index);
        }
        let homes: Vec<usize> = self.streams.iter().map(|(stream, _)| stream).collect();
        export.record.streams =
            homes.into_iter().filter_map(|stream| self.stream_record(stream)).collect();
        export.record.framings = self.framing_records()?;
        self.exported = Some(exported);
        Ok(export)
    }

    fn connection_record(
        &mut self,
        index: usize,
    ) -> Result<Option<ConnectionRecord>, HandOverError> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_deref_mut)
        else {
            return Ok(None);
        };
        let is_over = |play: &Play| {
            self.streams.get(play.stream).is_some_and(|local| local.entry.is_retired())
        };
        if connection.plays.iter().any(is_over) {
            // The rest of a stream whose ring stays here.
            return Ok(None);
        }
        let transport = match portable(connection) {
            Portable::No => return Ok(None),
            Portable::Fresh => None,
            Portable::Open => {
                let transport = std::mem::replace(&mut connection.transport, Transport::Plain);
                match transport_record(transport, connection.tls.as_deref()) {
                    Ok((transport, record)) => {
                        connection.transport = transport;
                        Some(record)
                    }
                    Err(error) => {
                        // Its keys are gone with it: nothing can be said to this peer any more.
                        self.port.metrics().tls_errors.increment(error.label());
                        self.abandon(index, CloseReason::TlsError);
                        return Ok(None);
                    }
                }
            }
        };
        let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
            return Ok(None);
        };
        let live =
            transport.map(|transport| self.live_record(connection, transport)).transpose()?;
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
        transport: TransportRecord,
    ) -> Result<LiveRecord, HandOverError> {
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
                permit: publish.permit.as_deref().map(|permit| self.permit_record(permit)),
            })
        });
        let plays = connection.plays.iter().filter_map(|play| {
            let local = self.streams.get(play.stream)?;
            let is_framed = local.framing != FramingKind::Rtmp;
            Some(PlayRecord {
                serial: play.serial,
                msid: play.msid,
                path: path(play.stream)?,
                framing: is_framed.then_some(play.stream as u64),
                subscriber: play.subscriber.to_record(),
                waiting_since: play.waiting_since.0,
                has_joined: play.has_joined,
                ends_at: play.ends_at.map(|at| at.0),
                preamble_version: self.newest_preamble(play),
                ends_seen: local.ends_seen,
                permit: play.permit.as_deref().map(|permit| self.permit_record(permit)),
            })
        });
        Ok(LiveRecord {
            transport,
            sealed_rest: connection.output.sealed_rest.clone().unwrap_or_default(),
            spoken: spoken(&connection.session)?,
            connect,
            rest: connection.output.rest.clone().unwrap_or_default(),
            held_input: unread(connection),
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

    fn permit_record(&self, permit: &Permit) -> PermitRecord {
        let place = permit.grant.place.as_ref();
        PermitRecord {
            bitrate_bps_max: permit.grant.bitrate_bps_max,
            bitrate_cut_ms: permit.grant.bitrate_cut_ms,
            until: permit.until.map(|until| until.0),
            place: place.and_then(|place| self.rules.domain_of(place)).map(str::to_owned),
        }
    }

    /// The version of the preamble a player was told, if that is the newest: only that keeps its number.
    fn newest_preamble(&self, play: &Play) -> u64 {
        let newest = self.streams.get(play.stream).and_then(LocalStream::ring);
        let newest = newest.map_or(0, |ring| ring.preamble_version());
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
            // Its publisher may have come back to another worker, and been lost again there.
            let session = local.grace?.session;
            return local.entry.with_parked(session, |parked| record(parked, None)).flatten();
        };
        let connection = self.connections.get(publisher.conn).and_then(Option::as_deref)?;
        let owner = OwnerRecord {
            serial: connection.id.serial,
            msid: publisher.msid,
            since: publisher.since.0,
            heard_at: publisher.heard_at.0,
        };
        // One whose connection stays behind waits for it to come back.
        let is_portable = portable(connection) != Portable::No;
        record(&publisher.writer, is_portable.then_some(owner))
    }

    /// The framings made here, each from where one of its viewers still reads.
    fn framing_records(&self) -> Result<Vec<FramingRecord>, HandOverError> {
        let mut records = Vec::new();
        for (stream, local) in &self.streams {
            let Some(reframer) = &local.reframer else { continue };
            if local.entry.is_retired() {
                continue;
            }
            let places = local.players.iter().filter_map(|player| {
                let connection = self.connections.get(player.conn)?.as_deref()?;
                connection.play(player.msid)?.subscriber.place()
            });
            let named = (stream as u64, local.entry.path());
            records.extend(reframer.to_record(named, places)?);
        }
        Ok(records)
    }
}

/// Whether a connection can be passed on, and what of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Portable {
    No,
    /// Nothing was said on it.
    Fresh,
    /// It is open, and what is spoken on it can be written down.
    Open,
}

fn portable(connection: &Connection) -> Portable {
    let is_busy = connection.closing.is_some()
        || connection.receive_ended
        || connection.output.sending != Sending::Nothing
        || connection.pending_publish.is_some()
        || connection.pending_access.is_some();
    let is_sayable = match &connection.session {
        Session::Rtmp(session) => session.is_portable(),
        Session::Http(session) => session.is_portable(),
        Session::Unknown => true,
    };
    let is_open = match &connection.transport {
        Transport::Opening(_) if connection.bytes_in == 0 && connection.proxy.is_none() => {
            return if is_busy { Portable::No } else { Portable::Fresh };
        }
        Transport::Plain | Transport::Kernel(_) => true,
        Transport::Records(session) => session.is_portable(),
        Transport::Opening(_) | Transport::Handshake(_) => false,
    };
    if is_open && is_sayable && !is_busy { Portable::Open } else { Portable::No }
}

/// What the connection has not read, or must read again: a request that waits for its answer.
fn unread(connection: &Connection) -> Vec<u8> {
    let request = match &connection.session {
        Session::Http(session) => session.held_request(),
        _ => None,
    };
    let mut unread = request.map(String::into_bytes).unwrap_or_default();
    unread.extend_from_slice(&connection.held_input);
    unread
}

fn spoken(session: &Session) -> Result<SpokenRecord, HandOverError> {
    Ok(match session {
        Session::Unknown => SpokenRecord::Nothing,
        Session::Rtmp(session) => SpokenRecord::Rtmp(
            postcard::to_allocvec(session)
                .map_err(|error| HandOverError::new(format!("a session: {error}")))?,
        ),
        Session::Http(session) => match session.to_record() {
            Some(record) => SpokenRecord::Http(Box::new(record)),
            None => return Err(HandOverError::new("a viewer in the middle of a request")),
        },
    })
}

/// A transport as a record. One whose records are made here goes on over its keys alone: what has them can
/// go on in one process or the other.
fn transport_record(
    transport: Transport,
    facts: Option<&tls::Facts>,
) -> Result<(Transport, TransportRecord), tls::TlsError> {
    Ok(match transport {
        Transport::Records(session) => {
            let (session, record) = session.into_record()?;
            (Transport::Records(Box::new(session)), TransportRecord::Records(Box::new(record)))
        }
        Transport::Kernel(mut kernel) => {
            let record = TransportRecord::Kernel {
                facts: facts.map(Into::into).unwrap_or_default(),
                control: Box::new(kernel.session.to_record()?),
                must_update_send: kernel.must_update_send,
            };
            (Transport::Kernel(kernel), record)
        }
        other => (other, TransportRecord::Plain),
    })
}
