//! The configuration as the data path reads it: converted once per snapshot, then plain fields.

use std::collections::HashMap;
use std::sync::Arc;

use live::flush::FlushPolicy;
use live::publisher::PublisherConfig;
use live::subscriber::SubscriberConfig;
use ring::RingConfig;
use rtmp::limits::ReaderLimits;
use rtmp::session::SessionConfig;

use crate::config::{self, Config, DuplicatePublish};
use crate::framing::FramingKind;
use crate::hls::HlsSettings;
use crate::http::Deadlines;

/// How long a joiner or a returning publisher waits for a keyframe, in milliseconds.
const KEYFRAME_WAIT_MS_MAX: u32 = 5_000;
/// Fewest messages a segment of the ring has room for.
const SEGMENT_MESSAGES_MIN: u32 = 16;
/// What rings keep of what was published lately, whatever its timestamps and however short memory is, in
/// milliseconds; at least twice what a flush may be put off.
const RECENT_MS_MIN: u32 = 2_000;
/// Room that replies leave to the preamble of a joining subscriber, in bytes.
const PREAMBLE_REPLY_BYTES: usize = live::preamble::PREAMBLE_BYTES_MAX + 4 * 1024;

/// Rules of one vhost.
#[derive(Clone, Debug)]
pub(crate) struct VhostRules {
    pub(crate) flush: FlushPolicy,
    pub(crate) grace_ms: u64,
    pub(crate) play_wait_ms: u64,
    pub(crate) http_wait_ms: u64,
    pub(crate) idle_publisher_ms_max: u64,
    pub(crate) duplicate_publish: DuplicatePublish,
    pub(crate) streams_max: usize,
    pub(crate) connections_max: u32,
    pub(crate) subscribers_per_stream_max: u32,
    pub(crate) publisher: PublisherConfig,
    pub(crate) subscriber: SubscriberConfig,
    pub(crate) hls: HlsSettings,
}

impl VhostRules {
    /// How long a viewer of this kind may wait for a stream that nobody publishes, in milliseconds.
    pub(crate) fn wait_ms(&self, framing: FramingKind) -> u64 {
        match framing {
            FramingKind::Rtmp => self.play_wait_ms,
            _ => self.play_wait_ms.min(self.http_wait_ms),
        }
    }
}

/// Limits of this worker.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_address_max: u32,
    pub(crate) streams_max: usize,
    pub(crate) first_byte_ms_max: u64,
    pub(crate) tls_handshake_ms_max: u64,
    pub(crate) handshake_ms_max: u64,
    pub(crate) unsent_bytes_max: u32,
    pub(crate) commands_per_second_max: u32,
    pub(crate) http_requests_per_second_max: u32,
    pub(crate) tls_handshakes_per_second_max: u32,
    pub(crate) held_input_bytes_max: usize,
    pub(crate) reassembly_total_bytes_max: u64,
    /// `u64::MAX` without a limit.
    pub(crate) ring_bytes_max: u64,
    pub(crate) http_head_bytes_max: usize,
    pub(crate) http_fields_max: usize,
    pub(crate) http_body_bytes_max: u64,
    pub(crate) http: Deadlines,
}

/// One configuration snapshot, ready for use.
#[derive(Debug)]
pub(crate) struct Settings {
    config: Arc<Config>,
    limits: Limits,
    flush_ms_max: u32,
    rules: HashMap<String, Arc<VhostRules>>,
    defaults: Arc<VhostRules>,
}

impl Settings {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        let limits = &config.limits;
        let limits = Limits {
            connections_max: limits.connections_max as usize,
            connections_per_address_max: limits.connections_per_address_max,
            streams_max: limits.streams_max as usize,
            first_byte_ms_max: u64::from(limits.first_byte_ms_max),
            tls_handshake_ms_max: u64::from(limits.tls_handshake_ms_max),
            handshake_ms_max: u64::from(limits.handshake_ms_max),
            unsent_bytes_max: limits.unsent_bytes_max,
            commands_per_second_max: limits.commands_per_second_max,
            http_requests_per_second_max: limits.http_requests_per_second_max,
            tls_handshakes_per_second_max: limits.tls_handshakes_per_second_max,
            held_input_bytes_max: limits.held_input_bytes_max as usize,
            reassembly_total_bytes_max: limits.reassembly_total_bytes_max,
            ring_bytes_max: match limits.ring_bytes_max {
                0 => u64::MAX,
                bytes_max => bytes_max,
            },
            http_head_bytes_max: limits.http_head_bytes_max as usize,
            http_fields_max: limits.http_fields_max.into(),
            http_body_bytes_max: limits.http_body_bytes_max.into(),
            http: Deadlines {
                request_ms_max: u64::from(limits.http_request_ms_max),
                keep_alive_ms_max: u64::from(limits.http_keep_alive_ms_max),
                stall_ms_max: u64::from(limits.http_stall_ms_max),
            },
        };
        let defaults = Arc::new(rules(&config, &config.defaults));
        let rules = config
            .vhosts
            .iter()
            .map(|(name, settings)| (name.clone(), Arc::new(rules(&config, settings))))
            .collect();
        let flush_ms_max = config
            .vhosts
            .values()
            .map(|vhost| vhost.flush_ms_max)
            .fold(config.defaults.flush_ms_max, u32::min);
        Self { config, limits, flush_ms_max, rules, defaults }
    }

    /// Whether a peer may speak for others by a PROXY header.
    pub(crate) fn trusts_proxy(&self, peer: std::net::IpAddr) -> bool {
        self.config.listen.proxy_from.contains(peer)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// How far load may widen the flush window, in milliseconds: the smallest of all vhosts, since
    /// the worker widens for all of its streams.
    pub(crate) fn flush_ms_max(&self) -> u32 {
        self.flush_ms_max
    }

    /// The rules for a stream of this vhost, as the access rules named it.
    pub(crate) fn vhost(&self, vhost: &str) -> Arc<VhostRules> {
        let (name, _) = self.config.vhost(vhost);
        Arc::clone(self.rules.get(name).unwrap_or(&self.defaults))
    }

    pub(crate) fn session_config(&self, connection_id: String) -> SessionConfig {
        let limits = &self.config.limits;
        SessionConfig {
            chunk_bytes_out: self.config.defaults.chunk_bytes,
            limits: ReaderLimits {
                message_bytes_max: limits.message_bytes_max,
                chunk_streams_max: limits.chunk_streams_max,
                tiny_chunks_max: limits.tiny_chunks_max,
            },
            connection_id,
            handshake_ms_max: u64::from(limits.handshake_ms_max),
            connect_ms_max: u64::from(limits.handshake_ms_max),
            idle_ms_max: u64::from(limits.idle_ms_max),
            ping_interval_ms: u64::from(self.config.defaults.ping_interval_ms),
            reply_bytes_max: limits.reply_bytes_max as usize + PREAMBLE_REPLY_BYTES,
            ..SessionConfig::default()
        }
    }

    pub(crate) fn ring_config(&self) -> RingConfig {
        RingConfig { preamble_bytes_max: 256 * 1024, ..RingConfig::default() }
    }

    /// The ring of a stream under these rules: room for what is retained and as much again for what
    /// slow workers still hold.
    pub(crate) fn stream_ring_config(&self, rules: &VhostRules) -> RingConfig {
        let base = self.ring_config();
        let retained = rules.publisher.retention_bytes;
        let bytes_max = (retained * 2).clamp(u64::from(base.bytes_max), u64::from(u32::MAX));
        let slots = (bytes_max / u64::from(base.segment_bytes)).next_power_of_two();
        RingConfig {
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
            // The ring gives back whole segments: four of them hold what is retained at least.
            index_entries_per_segment: u32::try_from(rules.publisher.retention_messages / 4)
                .unwrap_or(u32::MAX)
                .clamp(SEGMENT_MESSAGES_MIN, base.index_entries_per_segment),
            slots: u32::try_from(slots)
                .unwrap_or(ring::SLOTS_MAX)
                .clamp(base.slots, ring::SLOTS_MAX),
            ..base
        }
    }
}

fn rules(config: &Config, vhost: &config::VhostSettings) -> VhostRules {
    VhostRules {
        flush: match vhost.flush {
            config::FlushPolicy::Frame => FlushPolicy::Frame,
            config::FlushPolicy::Immediate => FlushPolicy::Immediate,
            config::FlushPolicy::Window { ms } => FlushPolicy::Window(u32::from(ms)),
        },
        grace_ms: u64::from(vhost.grace_ms),
        play_wait_ms: u64::from(vhost.play_wait_ms),
        http_wait_ms: u64::from(vhost.http_wait_ms),
        idle_publisher_ms_max: u64::from(vhost.idle_publisher_ms_max),
        duplicate_publish: vhost.duplicate_publish,
        streams_max: no_limit(vhost.streams_max) as usize,
        connections_max: no_limit(vhost.connections_max),
        subscribers_per_stream_max: no_limit(vhost.subscribers_per_stream_max),
        publisher: PublisherConfig {
            chunk_bytes: vhost.chunk_bytes,
            retention_ms: vhost.retention_ms,
            retention_bytes: u64::from(vhost.retention_bytes),
            retention_messages: u64::from(vhost.retention_messages),
            recent_ms: RECENT_MS_MIN.max(2 * vhost.flush_ms_max),
            aside_bytes_max: config.limits.reassembly_bytes_max as usize,
            keyframe_wait_ms_max: KEYFRAME_WAIT_MS_MAX,
            first_timestamp_ms: vhost.first_timestamp_ms,
        },
        subscriber: SubscriberConfig {
            gop_cache: vhost.gop_cache,
            lag_ms_max: vhost.lag_ms_max,
            stall_ms_max: vhost.stall_ms_max,
            keyframe_wait_ms_max: KEYFRAME_WAIT_MS_MAX,
        },
        hls: HlsSettings::of(vhost),
    }
}

/// 0 in the configuration means no limit.
fn no_limit(max: u32) -> u32 {
    if max == 0 { u32::MAX } else { max }
}
