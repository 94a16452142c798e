//! What the old process tells the new one, as plain data. Sockets travel beside it, in the order of
//! [`Legacy`].

use std::net::SocketAddr;

use live::path::{PathError, StreamPath};
use live::record::{PublisherRecord, SubscriberRecord, as_bytes};
use serde::{Deserialize, Serialize};

/// Format of everything here and in `live::record`, and of sessions. Raise it with every change: a test
/// compares the bytes of an example with those of this number.
pub const VERSION: u32 = 1;

/// Everything that is passed on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Legacy {
    /// Listeners; their sockets come first.
    pub doors: Vec<Door>,
    /// The workers; then the sockets of their connections, in this order.
    pub workers: Vec<WorkerRecord>,
}

impl Legacy {
    /// Sockets that belong to this.
    pub fn sockets(&self) -> usize {
        let connections = self.workers.iter().map(|worker| worker.connections.len());
        self.doors.len() + connections.sum::<usize>()
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

/// A connection on which RTMP is spoken.
#[derive(Debug, Serialize, Deserialize)]
pub struct LiveRecord {
    /// The session, serialized.
    #[serde(with = "as_bytes")]
    pub session: Vec<u8>,
    /// What is kept of connect.
    pub connect: Option<ConnectRecord>,
    /// To be sent before anything else: the rest of a message, or of replies.
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PermitRecord {
    /// Most bits per second.
    pub bitrate_bps_max: Option<u64>,
    /// How long it may be exceeded, in milliseconds.
    pub bitrate_cut_ms: u64,
    /// When the permission ends.
    pub until: Option<u64>,
    /// It has a place in a domain's quotas.
    pub has_place: bool,
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
