//! The closed sets of label values. A new value is added here and nowhere else.

/// A label with a fixed set of values.
pub trait Label: Copy + 'static {
    /// The label's name in the exposition.
    const NAME: &'static str;
    /// All values, in index order.
    const VALUES: &'static [&'static str];
    /// Position of this value in [`Label::VALUES`].
    fn index(self) -> usize;
    /// The value as text.
    fn text(self) -> &'static str {
        Self::VALUES[self.index()]
    }
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])* $name:ident $label:literal {
        $($(#[doc = $value_doc:literal])* $variant:ident = $text:literal,)*
    })*) => {$(
        $(#[doc = $doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize,
            serde::Deserialize)]
        pub enum $name { $($(#[doc = $value_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            /// Every value, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($text),*];
            fn index(self) -> usize { self as usize }
        }
    )*};
}

impl HttpResult {
    /// The class of a status.
    pub fn of(status: u16) -> Self {
        match status {
            ..200 => Self::Switched,
            200..300 => Self::Ok,
            300..400 => Self::Redirected,
            400..500 => Self::Refused,
            500.. => Self::Failed,
        }
    }
}

labels! {
    /// What a connection does.
    Role "role" {
        /// Has not published or played yet.
        Undecided = "undecided",
        /// Publishes.
        Publisher = "publisher",
        /// Plays.
        Subscriber = "subscriber",
    }
    /// Where a connection is in its life.
    ConnectionState "state" {
        /// RTMP handshake not complete.
        Handshake = "handshake",
        /// Exchanging commands, no stream yet.
        Command = "command",
        /// Plays a stream nobody publishes yet, or publishes nothing yet.
        Waiting = "waiting",
        /// Media flows.
        Live = "live",
        /// Being closed.
        Closing = "closing",
    }
    /// Why a connection ended.
    CloseReason "reason" {
        /// Connected and left without a byte, as load balancers do.
        Probe = "probe",
        /// The peer closed in order (deleteStream, closeStream, or a close between messages).
        PeerClosed = "peer_closed",
        /// The peer reset, or vanished in the middle of a message.
        PeerLost = "peer_lost",
        /// Handshake or connect took too long.
        HandshakeTimeout = "handshake_timeout",
        /// Nothing heard for the idle time.
        IdleTimeout = "idle_timeout",
        /// A publisher sent no media for `idle_publisher_ms_max`.
        PublisherIdle = "publisher_idle",
        /// Nobody published within `play_wait_ms`.
        PlayWaitTimeout = "play_wait_timeout",
        /// The stream ended.
        StreamEnded = "stream_ended",
        /// Another publisher took the stream over.
        Takeover = "takeover",
        /// A subscriber made no progress for `stall_ms_max`.
        Stalled = "stalled",
        /// A subscriber fell out of the ring twice in a row.
        Overrun = "overrun",
        /// Publish or play was refused.
        Refused = "refused",
        /// The peer broke the protocol.
        ProtocolError = "protocol_error",
        /// TLS failed: no common cipher, a bad record, an alert of the peer.
        TlsError = "tls_error",
        /// A limit on connections was reached.
        ConnectionLimit = "connection_limit",
        /// A memory or size limit was reached.
        MemoryLimit = "memory_limit",
        /// A publisher exceeded the bit rate of its domain for too long.
        BitrateLimit = "bitrate_limit",
        /// A peer sent more commands or requests in a second than it may.
        CommandRate = "command_rate",
        /// The permission a hook gave has ended.
        LifetimeOver = "lifetime_over",
        /// Closed by an operator.
        Kicked = "kicked",
        /// Closed because the server drains.
        Drained = "drained",
        /// Not closed: another process goes on with it.
        HandedOver = "handed_over",
        /// Closed because the server stops.
        Shutdown = "shutdown",
        /// A request over HTTP was answered, and the connection is not kept.
        Answered = "answered",
        /// The kernel reported an error on send or receive.
        SocketError = "socket_error",
        /// A fault of the server; see the log.
        Internal = "internal",
    }
    /// A limit that was reached. What each means and what the peer meets: `LIMITS.md`.
    LimitReached "limit" {
        /// `limits.connections_max`.
        Connections = "connections",
        /// `limits.connections_per_address_max`.
        ConnectionsPerAddress = "connections_per_address",
        /// `connections_max` of a vhost.
        ConnectionsPerVhost = "connections_per_vhost",
        /// `limits.streams_max`.
        Streams = "streams",
        /// `streams_max` of a vhost.
        StreamsPerVhost = "streams_per_vhost",
        /// `subscribers_per_stream_max` of a vhost.
        SubscribersPerStream = "subscribers_per_stream",
        /// `limits.first_byte_ms_max`.
        FirstByte = "first_byte",
        /// `limits.tls_handshake_ms_max`.
        TlsHandshakeTime = "tls_handshake_time",
        /// `limits.tls_handshakes_per_second_max`.
        TlsHandshakeRate = "tls_handshake_rate",
        /// `limits.handshake_ms_max`.
        Handshake = "handshake",
        /// `limits.idle_ms_max`.
        Idle = "idle",
        /// `idle_publisher_ms_max` of a vhost.
        IdlePublisher = "idle_publisher",
        /// `play_wait_ms` and `http_wait_ms` of a vhost.
        PlayWait = "play_wait",
        /// `limits.message_bytes_max`.
        Message = "message",
        /// `limits.chunk_streams_max`.
        ChunkStreams = "chunk_streams",
        /// `limits.tiny_chunks_max`.
        TinyChunks = "tiny_chunks",
        /// Length of a command, or of a string in it; no key.
        Command = "command",
        /// Depth, number or length of AMF values; no key.
        Amf = "amf",
        /// `limits.reassembly_bytes_max`.
        Reassembly = "reassembly",
        /// `limits.reassembly_total_bytes_max`.
        ReassemblyTotal = "reassembly_total",
        /// `limits.held_input_bytes_max`.
        HeldInput = "held_input",
        /// `limits.reply_bytes_max`.
        Replies = "replies",
        /// `limits.commands_per_second_max`.
        CommandRate = "command_rate",
        /// `limits.http_requests_per_second_max`.
        HttpRequestRate = "http_request_rate",
        /// `limits.http_head_bytes_max` and `limits.http_fields_max`.
        HttpHead = "http_head",
        /// `limits.http_body_bytes_max`.
        HttpBody = "http_body",
        /// `limits.http_request_ms_max`.
        HttpRequest = "http_request",
        /// `limits.http_keep_alive_ms_max`.
        HttpKeepAlive = "http_keep_alive",
        /// `limits.http_stall_ms_max`.
        HttpStall = "http_stall",
        /// `retention_bytes` and `retention_messages` of a vhost: a GOP outgrew them.
        Ring = "ring",
        /// `limits.ring_bytes_max`.
        RingTotal = "ring_total",
        /// `limits.memory_bytes_max`: new subscribers were refused.
        MemorySubscribers = "memory_subscribers",
        /// `limits.memory_bytes_max`: new streams were refused.
        MemoryPublishers = "memory_publishers",
        /// `limits.memory_bytes_max`: a subscriber far behind was closed.
        MemoryLaggards = "memory_laggards",
        /// `lag_ms_max` of a vhost.
        Lag = "lag",
        /// `stall_ms_max` of a vhost.
        Stall = "stall",
    }
    /// What memory is used for, as far as the server keeps count.
    MemoryUse "use" {
        /// Rings of streams.
        Rings = "rings",
        /// Rings of other framings (FLV, MP4).
        Framings = "framings",
        /// Free ring segments kept for reuse.
        Spare = "spare",
        /// Interleaved messages of publishers.
        Reassembly = "reassembly",
        /// HLS packaging.
        Hls = "hls",
        /// Files that wait to be written.
        Storage = "storage",
    }
    /// What is given up while memory runs short, in this order; each step includes those before.
    MemoryStep "step" {
        /// New subscribers are refused.
        Subscribers = "subscribers",
        /// New streams are refused.
        Publishers = "publishers",
        /// Rings and framings keep their present GOP, and what was published in the last seconds, only.
        Retention = "retention",
        /// HLS windows shrink.
        Hls = "hls",
        /// Subscribers far behind are closed.
        Laggards = "laggards",
    }
    /// How a request over HTTP was answered.
    HttpResult "status" {
        /// A WebSocket was opened.
        Switched = "101",
        /// With what was asked for.
        Ok = "2xx",
        /// It is elsewhere, or unchanged.
        Redirected = "3xx",
        /// It is not there, or not for this viewer.
        Refused = "4xx",
        /// The server cannot.
        Failed = "5xx",
    }
    /// How a TLS handshake ended.
    TlsHandshake "result" {
        /// With certificate and key exchange.
        Full = "full",
        /// From a ticket.
        Resumed = "resumed",
        /// Not at all.
        Failed = "failed",
    }
    /// Who makes and opens the TLS records of a connection.
    TlsMode "mode" {
        /// The server, in user space.
        Records = "records",
        /// The kernel.
        Kernel = "kernel",
    }
    /// Why a publish or play request was denied.
    DenyReason "reason" {
        /// A parameter the scheme needs is missing.
        NoParam = "no_param",
        /// A parameter cannot be read.
        BadParam = "bad_param",
        /// The address or ticket has expired.
        Expired = "expired",
        /// The ticket is not valid yet.
        NotYet = "not_yet",
        /// The signature does not match.
        BadHash = "bad_hash",
        /// The ticket is for another stream, room, user or application.
        Ticket = "ticket",
        /// The ticket does not give this right.
        NoRight = "no_right",
        /// The address of the peer is not admitted.
        Ip = "ip",
        /// The stream or the peer is forbidden for now.
        Forbidden = "forbidden",
        /// No such domain.
        UnknownDomain = "unknown_domain",
        /// The domain is for the other role, or for no stream: a play domain without push domain.
        WrongDomain = "wrong_domain",
        /// Illegal characters in app or stream name.
        IllegalName = "illegal_name",
        /// The domain has as many publishers or players as it may have.
        Quota = "quota",
        /// The hook refused.
        Hook = "hook",
        /// The hook gave no answer, and the domain is closed without one.
        HookFailed = "hook_failed",
        /// The vhost's own switches.
        Vhost = "vhost",
        /// The domain cannot be used as it is configured.
        Misconfigured = "misconfigured",
    }
    /// How a question for a hook ended.
    HookResult "result" {
        /// The hook said yes.
        Allowed = "allowed",
        /// The hook said no.
        Refused = "refused",
        /// A kept answer was given.
        Cached = "cached",
        /// No usable answer after all tries.
        Failed = "failed",
        /// Not asked, because the hook has failed too often.
        LeftAlone = "left_alone",
    }
    /// Who in the kernel makes the TLS records of a socket, in which direction.
    KernelTlsPath "path" {
        /// Sends, by the kernel's own code.
        SendSoftware = "send_software",
        /// Receives, by the kernel's own code.
        ReceiveSoftware = "receive_software",
        /// Sends, by a network card.
        SendDevice = "send_device",
        /// Receives, by a network card.
        ReceiveDevice = "receive_device",
    }
    /// How a publish request ended.
    PublishResult "result" {
        /// A new stream, or a stream that waited.
        Accepted = "accepted",
        /// Continues a stream in its grace period.
        Resumed = "resumed",
        /// Replaced a present publisher.
        Takeover = "takeover",
        /// The stream is busy and the vhost says reject.
        Busy = "busy",
        /// The name cannot be used.
        BadName = "bad_name",
        /// Not allowed here.
        Denied = "denied",
        /// A limit of the server.
        Limit = "limit",
    }
    /// How a play request ended.
    PlayResult "result" {
        /// The stream is there.
        Accepted = "accepted",
        /// Accepted, and waits for a publisher.
        Waiting = "waiting",
        /// The name cannot be used, or nobody publishes and waiting is off.
        NotFound = "not_found",
        /// Not allowed here.
        Denied = "denied",
        /// A limit of the server.
        Limit = "limit",
    }
    /// How a grace period ended.
    GraceResult "result" {
        /// The publisher returned.
        Resumed = "resumed",
        /// It did not.
        Expired = "expired",
    }
    /// Life of a stream.
    StreamLife "state" {
        /// A publisher is connected.
        Live = "live",
        /// The publisher was lost and may return.
        Grace = "grace",
        /// Subscribers wait for a publisher.
        Waiting = "waiting",
    }
    /// Kind of a media message.
    MediaKind "kind" {
        /// Video.
        Video = "video",
        /// Audio.
        Audio = "audio",
        /// Metadata and other data messages.
        Data = "data",
    }
    /// Why a subscriber jumped to a keyframe.
    SkipReason "reason" {
        /// Its lag exceeded `lag_ms_max`.
        Lag = "lag",
        /// Its position fell out of the ring.
        Overrun = "overrun",
    }
    /// What made a flush happen.
    FlushCause "cause" {
        /// A video message was complete.
        Frame = "frame",
        /// The rider or audio-only timer.
        Timer = "timer",
        /// The end of a turn (`immediate`).
        Turn = "turn",
        /// The flush window ended.
        Window = "window",
        /// A subscriber joined.
        Join = "join",
        /// A blocked socket became writable.
        Writable = "writable",
    }
    /// Direction of bytes.
    Direction "direction" {
        /// From peers.
        In = "in",
        /// To peers.
        Out = "out",
    }
    /// How a certificate stands.
    CertificateState "state" {
        /// Served, and its files are what is served.
        Valid = "valid",
        /// Served, but its files have changed since and cannot be used.
        Stale = "stale",
        /// Its last day is over. Served where there is no other.
        Expired = "expired",
        /// Its first day is to come. Served where there is no other.
        NotYetValid = "not_yet_valid",
        /// Not served: its files cannot be used and never could.
        Broken = "broken",
    }
    /// How something ended.
    Outcome "result" {
        /// Done.
        Success = "success",
        /// Refused or failed; nothing changed.
        Failure = "failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_text_follows_the_variant() {
        assert_eq!(Role::Subscriber.text(), "subscriber");
        assert_eq!(CloseReason::Internal.text(), "internal");
        assert_eq!(CloseReason::Internal.index() + 1, CloseReason::VALUES.len());
    }
}
