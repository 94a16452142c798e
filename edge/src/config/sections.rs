//! Every key of the configuration, once: meaning, unit, range, default, cost, reload.
//!
//! `ringcast config` prints the reference from these comments. Write them for an operator; name the
//! cost of a larger value where there is one. Columns: `key: type = default, unit, range, reload`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::setting::{
    Cpus, DuplicatePublish, FilePath, FlushPolicy, HlsContainer, HlsStart, HostNames, IoChoice,
    KernelTls, Listener, LogFormat, LogLevel, Networks, OnPanic, Secret, UnknownDomain, sections,
};

/// Largest message RTMP can carry: its length field has 24 bits.
pub const MESSAGE_BYTES_HARD_MAX: u32 = 0xFF_FFFF;

const ANY_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LISTENER: &str = "\"IP:PORT\" or \"off\"; port 0 asks the kernel";

sections! {
    /// Addresses the server listens on.
    pub struct Listen {
        /// RTMP for publishers and players.
        rtmp: Listener = Listener::Address(SocketAddr::new(ANY_IPV4, 1935)), "", LISTENER, Restart;
        /// RTMP over TLS; plain RTMP is taken here too: the first byte decides. Needs certificates, see
        /// [tls].
        /// 0.0.0.0:443 instead if there are certificates and this key is set nowhere.
        rtmps: Listener = Listener::Off, "", LISTENER, Restart;
        /// Viewers' HTTP: HTTP-FLV, WebSocket, HLS. Served at listen.rtmps too, unless this is off.
        http: Listener = Listener::Address(SocketAddr::new(ANY_IPV4, 8080)), "", LISTENER, Restart;
        /// Admin HTTP: health, metrics, API. Any address but loopback requires admin.token.
        admin: Listener = Listener::Address(SocketAddr::new(LOOPBACK, 9090)), "", LISTENER, Restart;
        /// Proxies whose PROXY protocol header (version 1 or 2) is believed: the address it tells is the
        /// client's for logs, limits and access. They need not send one; a header of anybody else is an
        /// error.
        proxy_from: Networks = Networks::default(), "", "networks like \"10.0.0.0/8,::1\"", Live;
        /// Connections the kernel may hold between two accepts of a worker.
        /// The kernel lowers it to net.core.somaxconn.
        backlog: u32 = 4_096, "connections", 16..=65_535, Restart;
    }

    /// Certificates.
    pub struct Tls {
        /// Session tickets sent after a TLS 1.3 handshake, for those who come back. 0 turns resumption off,
        /// and lets programs play that take a ticket for the end (librtmp over GnuTLS: rtmpdump, unless
        /// held to TLS 1.2).
        tickets: u16 = 2, "tickets", 0..=8, Restart;
        /// Whether the kernel makes the TLS records (kTLS). "auto" where it can; "require" refuses to start
        /// where it cannot: modprobe tls.
        kernel: KernelTls = KernelTls::Auto, "", "\"auto\", \"require\" or \"off\"", Restart;
        /// Folder of certificates: NAME.crt + NAME.key, or NAME/fullchain.pem + NAME/privkey.pem, or as an
        /// ACME client keeps them (certbot, acme.sh, lego, Caddy). Host names are read from the certificates;
        /// the pair named "default" is for clients that ask for no name, else the first by name.
        dir: FilePath = FilePath::default(), "", "a folder, or empty for none", Live;
        /// How often certificate files are looked at for changes. A change is taken at the second look that
        /// finds it the same. Cost: two file status calls for each certificate, at most 5 % of one CPU.
        watch_interval_ms: u32 = 5_000, "milliseconds", 100..=3_600_000, Live;
    }

    /// One certificate that is not in tls.dir, or that is to be chosen for other names than its own.
    pub struct CertificateEntry {
        /// PEM file: the certificate, then its intermediates.
        cert: FilePath = FilePath::default(), "", "a file", Live;
        /// PEM file: its key, PKCS#8, SEC1 or PKCS#1, without a passphrase.
        key: FilePath = FilePath::default(), "", "a file", Live;
        /// Host names it is chosen for; empty for those it names itself.
        domains: HostNames = HostNames::default(), "", "a list like \"a.example, *.a.example\"", Live;
    }

    /// Threads that move media.
    pub struct Workers {
        /// Number of workers; 0 means one per CPU of workers.cpus.
        /// Cost: 8 MiB of receive buffers each.
        count: u16 = 0, "threads", 0..=1_024, Restart;
        /// CPUs the workers are pinned to, one each.
        cpus: Cpus = Cpus::default(), "", "\"all\" or a list like \"0-3,8\"", Restart;
        /// Kernel interface. "auto" takes io_uring where it is allowed and epoll otherwise, and says so;
        /// "uring" refuses to start without io_uring.
        io: IoChoice = IoChoice::Auto, "", "\"auto\", \"uring\" or \"epoll\"", Restart;
        /// What follows when a worker panics, which is a fault of the server. Its connections are closed and
        /// the streams published to it end, for everybody, in either case. "exit" then ends the process with
        /// exit code 1, to be started anew by the service manager; "restart" starts that worker anew, and all
        /// others go on. While the server drains, no worker is started anew.
        on_panic: OnPanic = OnPanic::Exit, "", "\"exit\" or \"restart\"", Live;
        /// Workers that are started anew within a minute, at most; one more failure ends the process as with
        /// on_panic = "exit". Cost of more: a fault that comes again and again is hidden for longer.
        restarts_per_minute_max: u16 = 5, "restarts", 1..=1_000, Live;
    }

    /// Log lines on standard error.
    pub struct Log {
        /// Least severe event written. "info" is one line per connect, publish, play and close.
        level: LogLevel = LogLevel::Info, "", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"", Live;
        /// Text for people or one JSON object per line; "auto" is text on a terminal, JSON otherwise.
        format: LogFormat = LogFormat::Auto, "", "\"auto\", \"text\" or \"json\"", Restart;
        /// Lines that may wait for a slow reader; more are dropped and counted, nobody waits.
        /// Cost: a few hundred bytes per waiting line.
        queue_lines_max: u32 = 8_192, "lines", 128..=1_048_576, Restart;
        /// Lines of one event code written per second; more are left out, counted, and told once a second
        /// in a line of their own. Errors are always written.
        /// Cost of more: a storm of connections makes a storm of lines.
        lines_per_second_max: u32 = 1_000, "lines", 1..=1_000_000, Live;
    }

    /// What one peer, and all together, may hold. Applies to new connections.
    pub struct Limits {
        /// Connections of the process. Cost: one file descriptor and a few kilobytes each.
        connections_max: u32 = 100_000, "connections", 1..=10_000_000, Live;
        /// Connections from one IP address; 0 means no limit of its own (many viewers share an address).
        connections_per_address_max: u32 = 0, "connections", 0..=10_000_000, Live;
        /// Streams of the process, those in grace or waited for included.
        /// Cost: up to retention_bytes each.
        streams_max: u32 = 10_000, "streams", 1..=1_000_000, Live;
        /// Commands, control and data messages one connection may send in one second; messages of a
        /// WebSocket, too. Cost: a few microseconds of a worker each.
        commands_per_second_max: u32 = 2_000, "commands", 10..=10_000_000, Live;
        /// Requests over HTTP one connection may send in one second. A cache in front sends those of many
        /// viewers over few connections. Cost: some ten microseconds of a worker each.
        http_requests_per_second_max: u32 = 50_000, "requests", 10..=10_000_000, Live;
        /// TLS handshakes one worker begins in one second, so that a storm of them leaves time for streams.
        /// Cost: about 65 microseconds each without resumption.
        tls_handshakes_per_second_max: u32 = 4_000, "handshakes", 1..=10_000_000, Live;
        /// Largest RTMP message accepted. The largest is 16 MiB - 1, which 4K keyframes can come near to.
        message_bytes_max: u32 = MESSAGE_BYTES_HARD_MAX, "bytes", 4_096..=MESSAGE_BYTES_HARD_MAX, Live;
        /// Chunk streams one peer may use. Cost: about 40 bytes each.
        chunk_streams_max: u16 = 64, "chunk streams", 8..=255, Live;
        /// Chunks of less than 64 bytes that do not end their message, and empty messages, one peer may send
        /// in credit; each ordinary chunk pays one back, and one more per 64 bytes. Bounds the work per byte.
        tiny_chunks_max: u32 = 65_536, "chunks", 1_024..=16_777_216, Live;
        /// Memory one peer may make us hold for messages it interleaves with others.
        reassembly_bytes_max: u32 = 33_554_432, "bytes", 65_536..=1_073_741_824, Live;
        /// The same for all peers together. Looked at every 50 ms on each worker: who holds most is closed.
        reassembly_total_bytes_max: u64 = 1_073_741_824, "bytes", 1_048_576..=1_099_511_627_776, Live;
        /// Input one peer may send before what it asked for (a takeover, a hook) is decided.
        held_input_bytes_max: u32 = 524_288, "bytes", 65_536..=67_108_864, Live;
        /// Bytes the rings of all streams may hold together; 0 means no limit but the budget of memory. Over
        /// it every ring keeps no more than its present GOP and what was published in the last seconds (two
        /// to four, or more where flush_ms_max is), and no new stream is taken. Looked at every 50 ms.
        ring_bytes_max: u64 = 0, "bytes", 0..=1_099_511_627_776, Live;
        /// Control and command replies that may wait for one peer; then its input is read no further.
        reply_bytes_max: u32 = 65_536, "bytes", 16_384..=16_777_216, Live;
        /// Unsent bytes the kernel may hold for one subscriber (TCP_NOTSENT_LOWAT).
        /// Larger values add delay for slow subscribers and cost kernel memory.
        unsent_bytes_max: u32 = 131_072, "bytes", 16_384..=16_777_216, Live;
        /// Time from accept to the first byte.
        first_byte_ms_max: u32 = 10_000, "milliseconds", 100..=600_000, Live;
        /// Time from accept to the end of the TLS handshake.
        tls_handshake_ms_max: u32 = 10_000, "milliseconds", 100..=600_000, Live;
        /// Time from accept to a complete connect command.
        handshake_ms_max: u32 = 10_000, "milliseconds", 100..=600_000, Live;
        /// Head of one request over HTTP: its first line and its fields.
        http_head_bytes_max: u32 = 16_384, "bytes", 1_024..=65_536, Live;
        /// Fields of one request. Cost: 32 bytes each while a request is read.
        http_fields_max: u16 = 64, "fields", 16..=256, Live;
        /// Body of one request, which is read and thrown away: no request here needs one.
        /// Cost of more: a peer may keep a connection busy for longer.
        http_body_bytes_max: u32 = 65_536, "bytes", 0..=1_048_576, Live;
        /// Time from the first byte of a request over HTTP to its end; then it is answered 408.
        http_request_ms_max: u32 = 10_000, "milliseconds", 100..=600_000, Live;
        /// Time from an answer to the next request over HTTP.
        http_keep_alive_ms_max: u32 = 30_000, "milliseconds", 100..=600_000, Live;
        /// Time without any progress of an answer over HTTP; live streams have stall_ms_max.
        http_stall_ms_max: u32 = 15_000, "milliseconds", 500..=600_000, Live;
        /// Memory of the process, by the larger of what it keeps count of and what is resident. From 80 % on,
        /// every 5 % one step more is taken: no new subscribers, no new streams, rings of one GOP, shorter
        /// HLS windows, and at the budget subscribers far behind are closed. The publisher of a stream that
        /// is watched is never cut. 0 means three quarters of what the machine, or the control group, has.
        memory_bytes_max: u64 = 0, "bytes", 0..=1_125_899_906_842_624, Live;
        /// Bytes all HLS packaging may hold together. From seven eighths of it on no further stream is
        /// packaged, viewers of others are answered 503; at the bound those that are keep fewer segments, and
        /// where one segment each is too much, packaging ends for streams nobody watches, then for the one
        /// that was begun last. Cost: that much memory, and what viewers still read beside it.
        hls_bytes_max: u64 = 1_073_741_824, "bytes", 16_777_216..=1_099_511_627_776, Restart;
        /// Silence of a peer, answers to pings included, after which it is closed.
        idle_ms_max: u32 = 60_000, "milliseconds", 1_000..=86_400_000, Live;
    }

    /// Access to the admin address.
    pub struct Admin {
        /// Bearer token that /metrics and /api ask for. Required when listen.admin is not loopback;
        /// asked for everywhere once set. Prefer token_file or RINGCAST_ADMIN_TOKEN to writing it here.
        token: Secret = Secret::default(), "", "empty, or at least 16 printable characters", Live;
        /// File whose first line is the token; read again at each reload.
        token_file: FilePath = FilePath::default(), "", "a file, or empty for none", Live;
    }

    /// Who may publish and play. Domains themselves are written as [domain."NAME"] or made by the API.
    pub struct Access {
        /// File that keeps the domains made by the API and all forbids. Without one they last until the
        /// server ends. It holds keys: only the server's user can read it.
        store: FilePath = FilePath::default(), "", "a file, or empty for none", Restart;
        /// What a host meets that is neither a domain nor a vhost of this file, once there is a domain.
        /// Without any domain every host is the default vhost.
        unknown_domains: UnknownDomain = UnknownDomain::Refuse, "", "\"refuse\" or \"open\"", Live;
        /// Questions to hooks that may be under way at one time. More wait their turn; when 1024 wait,
        /// further ones are decided by the domain's setting for hooks that fail.
        hooks_in_flight_max: u16 = 64, "questions", 1..=1_024, Restart;
        /// Time between two fetches of a key set by its URL.
        jwks_refresh_s: u32 = 300, "seconds", 10..=86_400, Live;
    }

    /// Leaving.
    pub struct Shutdown {
        /// Time SIGTERM gives connections to end cleanly before the process exits.
        drain_ms: u32 = 10_000, "milliseconds", 0..=3_600_000, Live;
        /// Longest time an upgrade may have all connections stand still: when the new process has not taken
        /// over by then, this one goes on. Raise it for a slow machine, or for tens of thousands of
        /// connections; players have that much less in their buffers afterwards.
        still_ms_max: u32 = 3_000, "milliseconds", 100..=60_000, Live;
        /// Program that SIGQUIT and `ringctl upgrade` start in place of this one; empty is the file this
        /// process was started from, which an upgraded package has replaced.
        upgrade_program: FilePath = FilePath::default(), "", "a file, or empty", Live;
    }

    /// Settings of every vhost that does not set its own.
    pub struct VhostSettings {
        /// Whether anybody may publish here.
        publish: bool = true, "", "true or false", Live;
        /// Whether anybody may play here.
        play: bool = true, "", "true or false", Live;
        /// Streams of this vhost, those in grace or waited for included; 0 means no limit of its own.
        streams_max: u32 = 0, "streams", 0..=1_000_000, Live;
        /// Publishers and players of this vhost at one time, HLS viewers aside; 0 means no limit of its own.
        connections_max: u32 = 0, "connections", 0..=10_000_000, Live;
        /// Players of one stream at one time, HLS viewers aside; 0 means no limit.
        subscribers_per_stream_max: u32 = 0, "players", 0..=10_000_000, Live;
        /// When subscribers are sent what was published. "frame": when a video message is complete, audio
        /// rides along. "immediate": at once. A number: at most once per so many milliseconds.
        /// Cost: a window of 100 ms needs less than half the CPU of "frame", 350 ms about a quarter.
        flush: FlushPolicy = FlushPolicy::Frame, "",
            "\"frame\", \"immediate\" or milliseconds 1..=2000", Live;
        /// How far a busy worker may widen the flush window by itself. At least the configured window.
        flush_ms_max: u32 = 500, "milliseconds", 1..=10_000, Live;
        /// Whether a joining subscriber starts at the newest keyframe there is (at once, with the delay of
        /// up to one GOP) or waits for the next one.
        gop_cache: bool = true, "", "true or false", Live;
        /// Stream time the ring keeps, at least the present GOP and what came in the last two seconds, up to
        /// the two caps below. A stream that is live keeps the room it began with when these are raised.
        retention_ms: u32 = 10_000, "milliseconds", 500..=600_000, Live;
        /// Bytes the ring of one stream keeps. Cost: that much memory per stream, at most.
        retention_bytes: u32 = 33_554_432, "bytes", 1_048_576..=1_073_741_824, Live;
        /// Messages the ring of one stream keeps. Bounds streams of very small messages.
        /// Cost: one index entry each.
        retention_messages: u32 = 16_384, "messages", 64..=1_048_576, Live;
        /// Lag in stream time after which a subscriber skips to the newest keyframe.
        /// At most retention_ms: older data is gone anyway.
        lag_ms_max: u32 = 8_000, "milliseconds", 100..=600_000, Live;
        /// Time without any progress of its socket after which a subscriber is closed.
        stall_ms_max: u32 = 15_000, "milliseconds", 500..=600_000, Live;
        /// Time a stream waits for a publisher that was lost without goodbye; subscribers stay. 0 is off.
        grace_ms: u32 = 15_000, "milliseconds", 0..=3_600_000, Live;
        /// Time a subscriber may wait for a stream nobody publishes; 0 refuses it at once
        /// with NetStream.Play.StreamNotFound.
        play_wait_ms: u32 = 60_000, "milliseconds", 0..=86_400_000, Live;
        /// Time a viewer over HTTP may wait for a stream nobody publishes, or for a playlist's first entry,
        /// before it is answered 404. At most play_wait_ms.
        http_wait_ms: u32 = 5_000, "milliseconds", 0..=600_000, Live;
        /// Second publisher of a stream: "takeover" lets it replace the first, "reject" refuses it.
        /// The default is takeover because an encoder that returns after a lost connection must not
        /// be locked out by its own dead socket. Choose reject where strangers may publish.
        duplicate_publish: DuplicatePublish = DuplicatePublish::Takeover, "",
            "\"takeover\" or \"reject\"", Live;
        /// Size of outgoing RTMP chunks.
        chunk_bytes: u32 = 65_536, "bytes", 128..=MESSAGE_BYTES_HARD_MAX, Live;
        /// Timestamp at which new streams begin, as if they had run for so long; 0 is the usual beginning.
        /// For trying players: 16770000 is shortly before 24 bits are full (4.7 hours), 2147475000 before 31
        /// (24.9 days), 4294960000 before 32 (49.7 days).
        first_timestamp_ms: u32 = 0, "milliseconds", 0..=4_294_967_295, Live;
        /// Time between pings to a peer; 0 is off.
        ping_interval_ms: u32 = 20_000, "milliseconds", 0..=3_600_000, Live;
        /// Time a publisher may send no media before it is closed as lost; 0 is off.
        idle_publisher_ms_max: u32 = 10_000, "milliseconds", 0..=3_600_000, Live;
        /// Whether streams can be watched by HLS.
        /// Cost: CPU on a thread of its own while a stream is packaged (ringcast_hls_cpu_seconds), and
        /// memory.
        hls: bool = true, "", "true or false", Live;
        /// When packaging starts: with the first viewer, who then waits for the first segment, or with
        /// the publisher. Cost of "always": CPU and memory of every stream, watched or not.
        hls_start: HlsStart = HlsStart::Viewer, "", "\"viewer\" or \"always\"", Live;
        /// Packaging ends when nobody has asked for so long, or when the stream has ended and nobody has
        /// asked for so long. Cost: packaging for nobody meanwhile.
        hls_idle_ms: u32 = 30_000, "milliseconds", 1_000..=3_600_000, Live;
        /// A segment ends at the first keyframe after this; without keyframes at six times as much, or 12 s
        /// if that is more. Players stay about three segments behind, low-latency players three parts.
        /// Cost of shorter ones: more requests.
        hls_segment_ms: u32 = 2_000, "milliseconds", 500..=60_000, Live;
        /// Length of a part. Low-latency players stay three of them behind.
        /// Cost of shorter ones: more requests, and more bytes for headers.
        hls_part_ms: u32 = 200, "milliseconds", 50..=5_000, Live;
        /// Segments a playlist lists. Three more are kept for players that read it a moment before.
        /// Cost: the bytes of the stream for that time.
        hls_window: u16 = 6, "segments", 3..=1_000, Live;
        /// Low-latency HLS for fragmented MP4: parts, blocking reloads, delta updates. Players that do not
        /// know it read the same playlist without. Cost: one copy of the open segment, and for each viewer
        /// a request per part instead of one per segment.
        hls_low_latency: bool = true, "", "true or false", Live;
        /// Whether the sound alone is offered beside the whole, as a second variant that players on a bad
        /// line can fall back to, and with rendition=audio in the address. Off, because a player that does
        /// not know its bit rate yet may begin with the lowest: viewers hear the stream before they see it.
        /// Apple's players begin with the first variant, which is the whole; hls.js takes no other variant.
        /// Cost: the bytes of the sound a second time while a stream is packaged.
        hls_audio_only: bool = false, "", "true or false", Live;
        /// What segments are made of: fragmented MP4, or MPEG-TS (H.264, H.265; AAC, MP3 only). "auto" is
        /// fragmented MP4. A request can ask for the other one by container=ts or container=fmp4.
        /// Cost: both are made while both are watched. MPEG-TS is larger: 3 % at 5 Mbit/s, 13 % at 0.4.
        hls_container: HlsContainer = HlsContainer::Auto, "", "\"auto\", \"ts\" or \"fmp4\"", Live;
        /// Bytes one packaged stream may hold; older segments go first, then the open one is cut without a
        /// keyframe. Should be four segments at least.
        hls_memory_bytes_max: u32 = 134_217_728, "bytes", 8_388_608..=4_294_967_295, Live;
        /// Folder that segments and playlists are also written to: DIR/APP/STREAM.m3u8 and
        /// DIR/APP/STREAM/RUN/seg-N.m4s; streams of a named vhost below DIR/VHOST. Only what is packaged is
        /// written: everything with hls_start = "always". The sound alone is not.
        /// Cost: the bytes of the streams, on a thread of its own.
        hls_dir: FilePath = FilePath::default(), "", "a folder, or empty for none", Live;
        /// How long a file stays in hls_dir after it left the playlist, or after packaging has ended; 0 keeps
        /// everything.
        hls_dir_keep_ms: u32 = 60_000, "milliseconds", 0..=4_294_967_295, Live;
    }
}
