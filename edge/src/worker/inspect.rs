//! What the control thread asks of a worker.

use uring::Io;

use super::Worker;
use super::settings::Settings;
use super::stream::LocalStream;
use crate::access::Role;
use crate::command::{
    ClientInfo, Command, INSPECT_COUNT_MAX, InspectPage, InspectScope, PublisherInfo, StreamInfo,
    StreamShare, StreamState,
};
use crate::connection::Session;
use crate::hand_over::HandOverError;
use crate::hls::Rendition;
use crate::metrics::CloseReason;
use crate::provoke::{self, Moment};
use crate::registry::StreamPhase;

/// Window of the rates reported, in milliseconds.
const RATE_WINDOW_MS: u32 = 5_000;

impl<I: Io<Lease = ring::Lease>> Worker<I> {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Inspect { scope, cursor, count_max, reply } => {
                let first = usize::try_from(cursor).unwrap_or(usize::MAX);
                let count = count_max.min(INSPECT_COUNT_MAX) as usize;
                reply.send(match scope {
                    InspectScope::Streams => self.inspect_streams(first, count),
                    InspectScope::Clients => self.inspect_clients(first, count),
                });
            }
            Command::Kick { id, reply } => {
                let index = self.by_serial.get(&id.serial).copied();
                if let Some(index) = index {
                    self.close(index, CloseReason::Kicked);
                }
                reply.send(index.is_some());
            }
            Command::ApplyConfig(config) => self.apply_config(config),
            Command::Rules(rules) => self.rules = rules,
            Command::Answer { connection, ticket, decision } => {
                self.on_answer(connection, ticket, *decision);
            }
            Command::Drain { deadline_ms } => self.begin_drain(deadline_ms),
            Command::StandStill { reply } => self.begin_standstill(reply),
            Command::Export { reply } if self.is_still() => {
                provoke::panic_if_asked(self.index, Moment::Exporting);
                reply.send(self.export().map(Box::new));
                provoke::panic_if_asked(self.index, Moment::Exported);
            }
            // A worker that stood still has panicked, and this one is in its place.
            Command::Export { reply } => reply.send(Err(HandOverError::new("no standstill"))),
            Command::GoOn => self.go_on(),
            Command::LetGo { deadline_ms } => self.let_go(deadline_ms),
            Command::Stop => {
                self.stopping = true;
                self.close_listeners();
                for index in 0..self.connections.len() {
                    // A send of this turn still leaves: a peer by TLS can tell our end from an attack.
                    self.say_goodbye(index);
                    self.abandon(index, CloseReason::Shutdown);
                }
            }
        }
    }

    fn apply_config(&mut self, config: std::sync::Arc<crate::config::Config>) {
        self.settings = Settings::new(config);
        for (_, local) in &mut self.streams {
            local.vhost = self.settings.vhost(local.entry.path().vhost());
            local.clock.set_policy(local.vhost.flush);
            if let Some(publisher) = &mut local.publisher {
                publisher.writer.set_config(local.vhost.publisher);
            }
        }
    }

    fn inspect_streams(&self, first: usize, count: usize) -> InspectPage {
        let mut page = InspectPage::default();
        for index in first..self.streams.capacity() {
            if page.streams.len() + page.shares.len() >= count {
                page.next = Some(index as u64);
                break;
            }
            let Some(local) = self.streams.get(index) else { continue };
            if let Some(info) = self.stream_info(local) {
                page.streams.push(info);
            }
            if !local.players.is_empty() {
                page.shares.push(self.stream_share(local));
            }
        }
        if page.next.is_none() && self.index == 0 {
            page.shares.extend(self.hls_shares());
        }
        page
    }

    /// Viewers of HLS, who belong to no worker: the first one tells of them.
    fn hls_shares(&self) -> impl Iterator<Item = StreamShare> {
        let watched = |rendition: std::sync::Arc<Rendition>| {
            let subscribers = rendition.viewers() as u64;
            let path = &rendition.key().path;
            (subscribers > 0).then(|| StreamShare {
                vhost: path.vhost().to_owned(),
                app: path.app().to_owned(),
                name: path.name().to_owned(),
                subscribers,
                bytes_out: 0,
                lag_ms_max: 0,
            })
        };
        self.shared.hls.renditions().into_iter().filter_map(watched)
    }

    /// The stream as its home sees it: the worker of its publisher, of its grace period, or, for a
    /// stream that waits, any worker with subscribers.
    fn stream_info(&self, local: &LocalStream) -> Option<StreamInfo> {
        let state = match local.entry.phase() {
            StreamPhase::Live if local.publisher.is_some() => StreamState::Live,
            StreamPhase::Grace if local.grace.is_some() => StreamState::Grace,
            StreamPhase::Waiting if !local.players.is_empty() => StreamState::Waiting,
            _ => return None,
        };
        let path = local.entry.path();
        let mut info = StreamInfo {
            vhost: path.vhost().to_owned(),
            app: path.app().to_owned(),
            name: path.name().to_owned(),
            state,
            uptime_ms: 0,
            worker: self.index,
            video_codec: None,
            audio_codec: None,
            width: None,
            height: None,
            fps: None,
            audio_rate_hz: None,
            audio_channels: None,
            video_bitrate_bps: 0,
            audio_bitrate_bps: 0,
            gop_ms: None,
            subscribers: 0,
            bytes_in: 0,
            bytes_out: 0,
            lag_ms_max: 0,
            retained_bytes: 0,
            retained_ms: 0,
            timestamp_repairs: 0,
            messages_dropped: 0,
            publisher: None,
        };
        let Some(publisher) = &local.publisher else { return Some(info) };
        let writer = &publisher.writer;
        let facts = writer.facts();
        let rates = writer.meter().rates(self.now.0, RATE_WINDOW_MS);
        info.uptime_ms = self.now.0.saturating_sub(publisher.since.0);
        info.video_codec = facts.video_codec.map(str::to_owned);
        info.audio_codec = facts.audio_codec.map(str::to_owned);
        (info.width, info.height) = facts.size.unzip();
        // A rate in milli-frames is far below 2^53: exact.
        #[allow(clippy::cast_precision_loss)]
        let fps = rates.video_milli_fps as f64 / 1_000.0;
        info.fps = facts.video_codec.map(|_| fps);
        info.audio_rate_hz = facts.sample_rate_hz;
        info.audio_channels = facts.channels;
        info.video_bitrate_bps = rates.video_bps;
        info.audio_bitrate_bps = rates.audio_bps;
        info.gop_ms = writer.meter().last_gop().map(|gop| u64::from(gop.ms));
        info.bytes_in = writer.counters().payload_bytes - publisher.at_begin.payload_bytes;
        let (counted, begin) = (writer.counters(), &publisher.at_begin);
        info.timestamp_repairs = counted.timestamp_repairs.saturating_sub(begin.timestamp_repairs);
        info.messages_dropped = counted.dropped().saturating_sub(begin.dropped());
        info.retained_bytes = writer.writer().retained_bytes();
        info.retained_ms = writer.retained_ms();
        let connection = self.connections.get(publisher.conn).and_then(Option::as_deref);
        info.publisher = connection.map(|connection| PublisherInfo {
            id: connection.id,
            peer: connection.peer.to_string(),
            flash_ver: flash_ver(connection).unwrap_or_default(),
        });
        Some(info)
    }

    fn stream_share(&self, local: &LocalStream) -> StreamShare {
        let path = local.entry.path();
        let lags = local.players.iter().filter_map(|player| {
            let connection = self.connections.get(player.conn)?.as_deref()?;
            let play = connection.play(player.msid)?;
            Some(play.subscriber.lag_ms(local.tap.as_ref()?, local.head.as_ref()?))
        });
        StreamShare {
            vhost: path.vhost().to_owned(),
            app: path.app().to_owned(),
            name: path.name().to_owned(),
            subscribers: local.players.len() as u64,
            bytes_out: local.bytes_out,
            lag_ms_max: u64::from(lags.max().unwrap_or(0)),
        }
    }

    fn inspect_clients(&self, first: usize, count: usize) -> InspectPage {
        let mut page = InspectPage::default();
        for index in first..self.connections.len() {
            if page.clients.len() >= count {
                page.next = Some(index as u64);
                break;
            }
            let Some(connection) = self.connections.get(index).and_then(Option::as_deref) else {
                continue;
            };
            let path = connection.last_path.as_ref();
            let lag_ms = connection.plays.iter().filter_map(|play| {
                let local = self.streams.get(play.stream)?;
                let lag = play.subscriber.lag_ms(local.tap.as_ref()?, local.head.as_ref()?);
                Some(u64::from(lag))
            });
            let publishes = connection.publishes.iter().map(|p| (Role::Publish, p.stream));
            let plays = connection.plays.iter().map(|p| (Role::Play, p.stream));
            let pending = connection.pending_publish.iter().map(|p| (Role::Publish, p.stream));
            let uses = publishes.chain(pending).chain(plays).filter_map(|(role, stream)| {
                Some((role, self.streams.get(stream)?.entry.path().clone()))
            });
            page.clients.push(ClientInfo {
                uses: uses.collect(),
                id: connection.id,
                role: connection.role,
                protocol: connection.session.protocol(),
                peer: connection.peer.to_string(),
                vhost: path.map(|path| path.vhost().to_owned()),
                app: path.map(|path| path.app().to_owned()),
                stream: path.map(|path| path.name().to_owned()),
                flash_ver: flash_ver(connection),
                bytes_in: connection.bytes_in,
                bytes_out: connection.bytes_out,
                lag_ms: lag_ms.max(),
                skips: connection.skips,
                uptime_ms: self.now.0.saturating_sub(connection.accepted_at.0),
            });
        }
        page
    }
}

fn flash_ver(connection: &crate::connection::Connection) -> Option<String> {
    match &connection.session {
        Session::Http(session) => session.user_agent().map(str::to_owned),
        Session::Unknown | Session::Rtmp(_) => {
            connection.connect.as_deref()?.flash_ver.as_deref().map(str::to_owned)
        }
    }
}
