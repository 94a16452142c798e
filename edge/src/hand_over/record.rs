//! What the old process tells the new one, as plain data. Sockets travel beside it, in the order of
//! [`Legacy`].

use std::net::SocketAddr;

use live::path::{PathError, StreamPath};
use live::record::{PublisherRecord, RingRecord, SubscriberRecord, as_bytes};
use mux::segment::Container;
use serde::{Deserialize, Serialize};
use tls::{ControlRecord, FactsRecord};

use super::packaging::PackagingRecord;
pub use crate::framing::FramingKind;
use crate::hls::{Numbers, RenditionKey};

/// Format of everything here and in `live::record`, and of sessions. Raise it with every change: a test
/// compares the bytes of an example with those of this number.
pub const VERSION: u32 = 3;

/// Everything that is passed on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Legacy {
    /// Listeners; their sockets come first.
    pub doors: Vec<Door>,
    /// The workers; then the sockets of their connections, in this order.
    pub workers: Vec<WorkerRecord>,
    /// Where renditions of HLS stopped, for those that begin anew.
    pub renditions: Vec<RenditionRecord>,
    /// HLS that goes on; the descriptors of its files come last.
    pub packaging: PackagingRecord,
}

impl Legacy {
    /// Sockets that belong to this.
    pub fn sockets(&self) -> usize {
        let connections = self.workers.iter().map(|worker| worker.connections.len());
        self.doors.len() + connections.sum::<usize>() + usize::from(self.packaging.files)
    }
}

/// Where a rendition of HLS stopped: the next run of it begins there.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenditionRecord {
    /// The stream.
    pub path: PathRecord,
    /// What its segments are made of.
    pub container: Container,
    /// Media sequence number of the next segment.
    pub sequence: u64,
    /// Discontinuities so far.
    pub discontinuities: u64,
    /// Target duration, in milliseconds.
    pub target_ms: u32,
}

impl From<(RenditionKey, Numbers)> for RenditionRecord {
    fn from((key, numbers): (RenditionKey, Numbers)) -> Self {
        let Numbers { sequence, discontinuities, target_ms } = numbers;
        let (path, container) = (PathRecord::from(&key.path), key.container);
        Self { path, container, sequence, discontinuities, target_ms }
    }
}

impl TryFrom<&RenditionRecord> for (RenditionKey, Numbers) {
    type Error = PathError;

    fn try_from(record: &RenditionRecord) -> Result<Self, PathError> {
        let RenditionRecord { container, sequence, discontinuities, target_ms, .. } = *record;
        let key = RenditionKey { path: StreamPath::try_from(&record.path)?, container };
        Ok((key, Numbers { sequence, discontinuities, target_ms }))
    }
}

/// What a listener is for: a key of `[listen]`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// RTMP.
    #[default]
    Rtmp,
    /// RTMP and HTTP over TLS.
    Rtmps,
    /// Viewers' HTTP.
    Http,
    /// Admin HTTP.
    Admin,
}

/// One worker.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its number.
    pub index: u16,
    /// Serial number of its last connection.
    pub serial: u64,
    /// Connections.
    pub connections: Vec<ConnectionRecord>,
    /// Streams it is home of.
    pub streams: Vec<StreamRecord>,
    /// Other framings of streams that viewers here are sent.
    pub framings: Vec<FramingRecord>,
}

/// One connection. Times are milliseconds of the monotonic clock.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// Serial number at its worker.
    pub serial: u64,
    /// The client.
    pub peer: SocketAddr,
    /// The proxy that speaks for it.
    pub proxy: Option<SocketAddr>,
    /// When it was accepted.
    pub accepted_at: u64,
    /// It came in where first bytes are read alone.
    pub is_read_by_record: bool,
    /// It came in where HTTP is served.
    pub may_speak_http: bool,
    /// What has been said; `None` where nothing was.
    pub live: Option<LiveRecord>,
}

/// How the bytes of a connection travel. What the kernel holds of TLS travels with the socket.
#[derive(Debug, Serialize, Deserialize)]
pub enum TransportRecord {
    /// TCP alone.
    Plain,
    /// TLS records made in the process.
    Records(Box<tls::SessionRecord>),
    /// TLS records made by the kernel.
    Kernel {
        /// What the handshake agreed on.
        facts: FactsRecord,
        /// What is left of the session.
        control: Box<ControlRecord>,
        /// A new sending key is due.
        must_update_send: bool,
    },
}

/// What a connection speaks.
#[derive(Debug, Serialize, Deserialize)]
pub enum SpokenRecord {
    /// Nothing yet, behind a TLS handshake.
    Nothing,
    /// RTMP: the session, serialized.
    Rtmp(#[serde(with = "as_bytes")] Vec<u8>),
    /// HTTP.
    Http(Box<HttpRecord>),
}

/// A viewer over HTTP.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct HttpRecord {
    /// The live stream it is shown; `None` between two requests.
    pub live: Option<LiveViewRecord>,
    /// Since when it is in this state.
    pub since: u64,
    /// To be sent before media.
    #[serde(with = "as_bytes")]
    pub replies: Vec<u8>,
    /// The connection goes on behind the answer.
    pub keep_alive: bool,
    /// Requests so far.
    pub requests: u64,
    /// Status of the last answer.
    pub status: u16,
    /// As it has introduced itself.
    pub user_agent: Option<String>,
}

/// A live stream over HTTP.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveViewRecord {
    /// The form it takes.
    pub framing: FramingKind,
    /// It wants sound.
    pub audio: bool,
    /// It wants pictures.
    pub video: bool,
    /// Its answer has begun.
    pub has_begun: bool,
}

/// A connection on which something was said.
#[derive(Debug, Serialize, Deserialize)]
pub struct LiveRecord {
    /// Its transport.
    pub transport: TransportRecord,
    /// TLS bytes to be sent before anything else.
    #[serde(with = "as_bytes")]
    pub sealed_rest: Vec<u8>,
    /// What it speaks.
    pub spoken: SpokenRecord,
    /// What is kept of connect.
    pub connect: Option<ConnectRecord>,
    /// To be sent next: the rest of a message, or of replies.
    #[serde(with = "as_bytes")]
    pub rest: Vec<u8>,
    /// Received, and not consumed yet.
    #[serde(with = "as_bytes")]
    pub held_input: Vec<u8>,
    /// Streams it publishes.
    pub publishes: Vec<PublishRecord>,
    /// Streams it plays.
    pub plays: Vec<PlayRecord>,
    /// Serial number of its last play.
    pub play_serial: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Jumps made.
    pub skips: u64,
    /// Publisher, player, or neither yet.
    pub role: Option<bool>,
    /// Stream of its last log line.
    pub last_path: Option<PathRecord>,
}

/// What is kept of a connect command.
#[derive(Debug, Serialize, Deserialize)]
pub struct ConnectRecord {
    /// `app`.
    pub app: String,
    /// `tcUrl`.
    pub tc_url: Option<String>,
    /// `pageUrl`.
    pub page_url: Option<String>,
    /// `flashVer`.
    pub flash_ver: Option<String>,
}

/// A stream's identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathRecord {
    vhost: String,
    app: String,
    name: String,
}

impl From<&StreamPath> for PathRecord {
    fn from(path: &StreamPath) -> Self {
        let [vhost, app, name] = [path.vhost(), path.app(), path.name()].map(str::to_owned);
        Self { vhost, app, name }
    }
}

impl TryFrom<&PathRecord> for StreamPath {
    type Error = PathError;

    fn try_from(record: &PathRecord) -> Result<Self, PathError> {
        Self::new(&record.vhost, &record.app, &record.name)
    }
}

/// What a permission binds, but for its place in the quotas, which is taken anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRecord {
    /// Most bits per second.
    pub bitrate_bps_max: Option<u64>,
    /// How long it may be exceeded, in milliseconds.
    pub bitrate_cut_ms: u64,
    /// When the permission ends.
    pub until: Option<u64>,
    /// The domain in whose quotas it has a place.
    pub place: Option<String>,
}

/// A stream that is published.
#[derive(Debug, Serialize, Deserialize)]
pub struct PublishRecord {
    /// Message stream.
    pub msid: u32,
    /// The stream.
    pub path: PathRecord,
    /// Audio and video may be sent.
    pub tracks: (bool, bool),
    /// What the permission binds.
    pub permit: Option<PermitRecord>,
}

/// A stream that is played.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlayRecord {
    /// Serial number on its connection.
    pub serial: u64,
    /// Message stream.
    pub msid: u32,
    /// The stream.
    pub path: PathRecord,
    /// Number of the framing it reads; `None` for the stream's own ring.
    pub framing: Option<u64>,
    /// Its place.
    pub subscriber: SubscriberRecord,
    /// Since when it waits for a publisher.
    pub waiting_since: u64,
    /// It has been given a place in the present life of the stream.
    pub has_joined: bool,
    /// The stream has ended: position after which the peer is told.
    pub ends_at: Option<u64>,
    /// Preamble it was told.
    pub preamble_version: u64,
    /// Ends of the stream its worker has seen.
    pub ends_seen: u64,
    /// What the permission binds.
    pub permit: Option<PermitRecord>,
}

/// A stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its identity.
    pub path: PathRecord,
    /// Its writing side.
    pub publisher: PublisherRecord,
    /// Who publishes it; `None` for one that waits in its grace period.
    pub owner: Option<OwnerRecord>,
    /// Its life as all workers see it.
    pub past: Past,
}

/// A stream in another framing, with the ring its viewers at one worker read.
#[derive(Debug, Serialize, Deserialize)]
pub struct FramingRecord {
    /// Its number at the worker, which may have several of one kind.
    pub number: u64,
    /// The stream.
    pub path: PathRecord,
    /// The framing.
    pub kind: FramingKind,
    /// The ring, from where somebody still reads.
    pub ring: RingRecord,
    /// Position of the stream's own ring up to which it was taken over.
    pub cursor: u64,
    /// Version of the stream's preamble that is in force.
    pub preamble_version: u64,
    /// Where its newest keyframe lies.
    pub keyframe: Option<u64>,
    /// Timestamp of the last message.
    pub newest_timestamp: u32,
    /// Pictures are undecodable until the next keyframe.
    pub is_broken: bool,
    /// Sound and pictures were seen.
    pub tracks: (bool, bool),
    /// Ends of the stream so far, and where in this ring the last one lies.
    pub ends: (u64, u64),
    /// The segmenter of an MP4 framing, serialized.
    #[serde(with = "as_bytes")]
    pub segmenter: Vec<u8>,
}

/// The publisher's place.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// Serial number of its connection, at the same worker.
    pub serial: u64,
    /// Message stream.
    pub msid: u32,
    /// Since when.
    pub since: u64,
    /// When it was last heard.
    pub heard_at: u64,
}

/// What a stream entry counts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Times the stream has ended, and where the last time.
    pub ends: (u64, u64),
    /// Sessions begun, and where the last one did.
    pub sessions: (u64, u64),
    /// Video was published in the present session.
    pub has_video: bool,
}
