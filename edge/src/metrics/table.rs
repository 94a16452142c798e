//! Every metric of the server: field, name, help. The one place names are written.
//!
//! `METRICS.md` and the `# HELP` lines are generated from the doc comments here. Rules: base units
//! (seconds, bytes) last in the name; counters are named without `_total`, the exposition adds it; no label
//! whose values a peer can choose; no label per stream or per connection.

use super::openmetrics::{Family, Metric, Scope};
use super::{
    Buckets, CertificateState, CloseReason, ConnectionState, Counter, CounterBy, CounterByPair,
    DenyReason, ErrorCounter, FlushCause, Gauge, GaugeBy, GaugeByPair, GraceResult, Histogram,
    HookResult, HttpResult, KernelTlsPath, LimitReached, MediaKind, MemoryStep, MemoryUse,
    NamedTimes, Outcome, PlayResult, PublishResult, RealGauge, Role, SkipReason, StreamLife,
    TimeCounter, TlsHandshake, TlsMode,
};

/// Lag of a subscriber, observed in milliseconds of stream time, exported in seconds.
#[derive(Debug)]
pub enum LagMs {}

impl Buckets for LagMs {
    const BOUNDS: &'static [u64] =
        &[1, 5, 20, 50, 100, 200, 350, 500, 1_000, 2_000, 4_000, 8_000, 16_000];
    const SCALE: f64 = 1_000.0;
}

/// Play command to first media byte handed to the kernel, observed in microseconds, exported in seconds.
#[derive(Debug)]
pub enum FirstFrameUs {}

impl Buckets for FirstFrameUs {
    const BOUNDS: &'static [u64] = &[
        50, 100, 200, 400, 600, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
        5_000_000, 30_000_000,
    ];
    const SCALE: f64 = 1_000_000.0;
}

macro_rules! metrics {
    (
        $(#[doc = $struct_doc:literal])* pub struct $struct:ident;
        $($(#[doc = $doc:literal])* $field:ident: $kind:ty = $name:literal $(@ $scope:ident)?;)*
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Debug, Default)]
        pub struct $struct {
            $(#[doc = concat!("`", $name, "`:")] $(#[doc = $doc])* pub $field: $kind,)*
        }

        impl $struct {
            /// Name, help, kind and reader of every metric of this table, in order of exposition.
            pub const FAMILIES: &'static [Family<Self>] = &[$(Family {
                name: $name,
                help: &[$($doc),*],
                kind: <$kind as Metric>::KIND,
                labels: <$kind as Metric>::LABELS,
                scope: metrics!(@scope $($scope)?),
                visit: |table, emit| Metric::visit(&table.$field, emit),
            }),*];
        }
    };
    (@scope) => { Scope::Sum };
    (@scope per_worker) => { Scope::PerWorker };
}

metrics! {
    /// Counters of one worker. Only that worker writes; any thread reads.
    pub struct WorkerMetrics;

    /// Open connections by role and state.
    connections: GaugeByPair<Role, ConnectionState> = "ringcast_connections";
    /// Connections accepted.
    connections_accepted: Counter = "ringcast_connections_accepted" @ per_worker;
    /// Connections that got a role.
    connections_total: CounterBy<Role> = "ringcast_connections_by_role";
    /// Connections ended, by role and reason.
    disconnects: CounterByPair<Role, CloseReason> = "ringcast_disconnects";
    /// Times a limit was reached, by limit: see LIMITS.md for its key and what the peer meets.
    limits_reached: CounterBy<LimitReached> = "ringcast_limits_reached";
    /// Streams by state, counted by their home worker.
    streams: GaugeBy<StreamLife> = "ringcast_streams";
    /// Publish requests by result.
    publishes: CounterBy<PublishResult> = "ringcast_publish";
    /// Play requests by result.
    plays: CounterBy<PlayResult> = "ringcast_play";
    /// Requests over HTTP answered, by class of status. Live viewers count when their stream begins.
    http_answers: CounterBy<HttpResult> = "ringcast_http_answers";
    /// Publish and play requests denied, by reason.
    access_denied: CounterBy<DenyReason> = "ringcast_access_denied";
    /// Publishers replaced by another one.
    publish_takeovers: Counter = "ringcast_publish_takeovers";
    /// Grace periods begun after the loss of a publisher.
    grace_started: Counter = "ringcast_stream_grace_started";
    /// Grace periods ended, by result.
    grace_ended: CounterBy<GraceResult> = "ringcast_stream_grace_ended";
    /// Bytes received from peers, protocol overhead included.
    ingress_bytes: Counter = "ringcast_ingress_bytes";
    /// Bytes accepted by the kernel for peers, protocol overhead included.
    egress_bytes: Counter = "ringcast_egress_bytes";
    /// Messages received from publishers, by kind.
    messages_in: CounterBy<MediaKind> = "ringcast_messages_in";
    /// Media payload bytes received from publishers in complete messages.
    payload_received_bytes: Counter = "ringcast_payload_received_bytes";
    /// Media payload bytes copied in user space. Equals the bytes received, whatever the number of
    /// subscribers.
    payload_copied_bytes: Counter = "ringcast_payload_copied_bytes";
    /// Payload bytes copied once more, because their message was interleaved with another one.
    payload_copied_aside_bytes: Counter = "ringcast_payload_copied_aside_bytes";
    /// Payload bytes of messages dropped instead of published, see ringcast_messages_dropped.
    payload_dropped_bytes: Counter = "ringcast_payload_dropped_bytes";
    /// Messages dropped: the ring was held by slow workers, or video nobody could decode yet.
    messages_dropped: Counter = "ringcast_messages_dropped";
    /// Messages left out of another framing of a stream (FLV, MP4), because slow viewers hold its ring.
    framing_dropped: Counter = "ringcast_framing_messages_dropped";
    /// Times another framing of a stream fell behind the stream's ring and began again at a keyframe.
    framing_overruns: Counter = "ringcast_framing_overruns";
    /// Timeline repairs: gross timestamp jumps of a publisher made even.
    timestamp_repairs: Counter = "ringcast_timestamp_repairs";
    /// Jumps of a subscriber to a newer keyframe, by reason.
    skips: CounterBy<SkipReason> = "ringcast_subscriber_skips";
    /// Distance of subscribers behind the head in stream time, sampled when they are flushed.
    lag: Histogram<LagMs> = "ringcast_subscriber_lag_seconds";
    /// From the play command to the first media byte handed to the kernel.
    first_frame: Histogram<FirstFrameUs> = "ringcast_first_frame_seconds";
    /// Flushes of streams to this worker's subscribers, by cause.
    flushes: CounterBy<FlushCause> = "ringcast_flushes";
    /// Sends submitted for subscribers.
    sends: Counter = "ringcast_sends";
    /// Sends the kernel took only in part, or not at all, because the socket was full.
    sends_blocked: Counter = "ringcast_sends_blocked";
    /// Present flush window of the worker when load has widened it, else 0.
    flush_window_widened: RealGauge = "ringcast_flush_window_widened_seconds" @ per_worker;
    /// How long a turn of the worker may gather completions at present, else 0.
    turn_gathering: RealGauge = "ringcast_turn_gathering_seconds" @ per_worker;
    /// Peers that broke the protocol, by class of error.
    protocol_errors: ErrorCounter = "ringcast_protocol_errors";
    /// TLS handshakes, by how they ended.
    tls_handshakes: CounterBy<TlsHandshake> = "ringcast_tls_handshakes";
    /// Open TLS connections, by who makes their records.
    tls_connections: GaugeBy<TlsMode> = "ringcast_tls_connections";
    /// TLS errors by class.
    tls_errors: ErrorCounter = "ringcast_tls_errors";
    /// Plaintext bytes sealed in user space for peers; what the kernel seals is not among them.
    tls_sealed_bytes: Counter = "ringcast_tls_sealed_bytes";
    /// Bytes of ring segments in use by streams of this worker.
    ring_bytes: Gauge = "ringcast_ring_bytes" @ per_worker;
    /// Memory that interleaved messages of publishers hold on this worker.
    reassembly_bytes: Gauge = "ringcast_reassembly_bytes" @ per_worker;
    /// Submission queue entries handed to io_uring.
    uring_submissions: Counter = "ringcast_uring_submissions" @ per_worker;
    /// Completion queue entries reaped from io_uring.
    uring_completions: Counter = "ringcast_uring_completions" @ per_worker;
    /// System calls that waited for completions or readiness.
    io_waits: Counter = "ringcast_io_waits" @ per_worker;
    /// Sends that were not copied into the kernel: of segments of HLS, to viewers without TLS.
    io_file_sends: Counter = "ringcast_io_file_sends" @ per_worker;
    /// Receives ended because the buffer ring was empty.
    uring_no_buffers: Counter = "ringcast_uring_no_buffers" @ per_worker;
    /// Completion queue overflows.
    uring_overflows: Counter = "ringcast_uring_overflows" @ per_worker;
    /// Completions for connections that no longer exist.
    io_stale: Counter = "ringcast_io_stale_completions" @ per_worker;
    /// Failed accepts, for example because file descriptors ran out.
    accept_errors: Counter = "ringcast_accept_errors" @ per_worker;
    /// Turns of the worker's loop. It advances at least once a second in a healthy worker.
    turns: Counter = "ringcast_worker_turns" @ per_worker;
    /// Share of the last second the worker did not sleep.
    busy: RealGauge = "ringcast_worker_busy_ratio" @ per_worker;
}

metrics! {
    /// Figures of HLS packaging, written by the packager.
    pub struct PackagingMetrics;

    /// Renditions that are packaged now: a stream in one container.
    renditions: Gauge = "ringcast_hls_renditions";
    /// Segments completed.
    segments: Counter = "ringcast_hls_segments";
    /// Parts completed.
    parts: Counter = "ringcast_hls_parts";
    /// Segments that ended without a keyframe: there was none for too long, a bound was met, or a first
    /// viewer waited.
    forced_cuts: Counter = "ringcast_hls_forced_cuts";
    /// Bytes held for viewers, those of open segments included.
    bytes: Gauge = "ringcast_hls_held_bytes";
    /// Segments given up before their time, because a bound of memory was met.
    segments_forgotten: Counter = "ringcast_hls_segments_forgotten";
    /// Segments of playlists that the process before this one could not pass on.
    segments_left: Counter = "ringcast_hls_segments_left";
    /// Requests for streams that were not packaged, because a bound was met.
    refused: Counter = "ringcast_hls_refused";
    /// Renditions that were ended while they were in use, because all together held too much.
    shed: Counter = "ringcast_hls_renditions_shed";
    /// Times that packaging fell out of a stream's ring and went on at a keyframe.
    overruns: Counter = "ringcast_hls_overruns";
    /// Viewers by HLS: sessions that asked for a playlist within three target durations.
    viewers: Gauge = "ringcast_hls_viewers";
    /// CPU time of the packager thread.
    cpu: TimeCounter = "ringcast_hls_cpu_seconds";
}

metrics! {
    /// Figures of what is written to folders, written by the storage thread.
    pub struct StorageMetrics;

    /// Files written: segments, init segments, playlists.
    writes: Counter = "ringcast_storage_writes";
    /// Bytes of these files.
    written_bytes: Counter = "ringcast_storage_written_bytes";
    /// Files and folders removed.
    removals: Counter = "ringcast_storage_removals";
    /// Attempts to write or remove that failed.
    failures: Counter = "ringcast_storage_failures";
    /// Failed attempts that were to be made again.
    retries: Counter = "ringcast_storage_retries";
    /// Files, and removals, given up after the last attempt or for want of time. Alert on it.
    lost: Counter = "ringcast_storage_lost";
    /// Files, and removals, that were not taken because too much waited already. Alert on it.
    refused: Counter = "ringcast_storage_refused";
    /// Bytes that wait to be written.
    waiting_bytes: Gauge = "ringcast_storage_waiting_bytes";
}

metrics! {
    /// Figures of the process, written by the control thread.
    pub struct ProcessMetrics;

    /// Time since the process started.
    uptime: RealGauge = "ringcast_uptime_seconds";
    /// Workers configured and running.
    workers: Gauge = "ringcast_workers";
    /// Workers that failed, those the process ended for included. Alert on it: each is a fault of the server.
    worker_failures: Counter = "ringcast_worker_failures";
    /// Workers started anew in the place of one that failed (workers.on_panic).
    worker_restarts: Counter = "ringcast_worker_restarts";
    /// 1 when the server takes new connections, 0 while it starts or drains.
    ready: Gauge = "ringcast_ready";
    /// Configuration reloads by result.
    config_reloads: CounterBy<Outcome> = "ringcast_config_reloads";
    /// When the present configuration was taken, in Unix time.
    config_loaded_at: RealGauge = "ringcast_config_last_success_timestamp_seconds";
    /// Log lines lost: the writer could not keep up, or could not write (a full disk).
    log_dropped: Counter = "ringcast_log_dropped_lines";
    /// Log lines left out because there were too many of their event code in one second
    /// (log.lines_per_second_max).
    log_suppressed: Counter = "ringcast_log_suppressed_lines";
    /// Events of workers lost because the control thread could not keep up.
    events_dropped: Counter = "ringcast_events_dropped";
    /// Admin requests answered, by success (status below 400) or failure.
    admin_requests: CounterBy<Outcome> = "ringcast_admin_requests";
    /// Certificates by state. Alert on anything but valid.
    certificates: GaugeBy<CertificateState> = "ringcast_certificates";
    /// Host names a certificate is chosen for, wildcards counted once.
    certificate_names: Gauge = "ringcast_certificate_host_names";
    /// Certificates read and taken, those of the start included.
    certificates_loaded: Counter = "ringcast_certificates_loaded";
    /// Certificates that were refused when their files were read; the earlier one stays.
    certificates_refused: Counter = "ringcast_certificates_refused";
    /// When a certificate ends, in Unix time: those twenty that end first.
    certificate_expiry: NamedTimes = "ringcast_certificate_expiry_timestamp_seconds";
    /// Questions of workers for hooks, by result.
    hook_questions: CounterBy<HookResult> = "ringcast_hook_questions";
    /// Questions for hooks that found the queue full, and were decided without the hook.
    hook_questions_refused: Counter = "ringcast_hook_questions_refused";
    /// Domains in force, those of the file and those made by the API.
    domains: Gauge = "ringcast_domains";
    /// Domains that cannot be used as they are configured.
    domains_faulty: Gauge = "ringcast_domains_faulty";
    /// Streams and addresses forbidden now.
    forbids: Gauge = "ringcast_forbids";
    /// Open file descriptors the process may have.
    fds_max: Gauge = "ringcast_file_descriptors_max";
    /// Memory the process may have (limits.memory_bytes_max).
    memory_budget_bytes: Gauge = "ringcast_memory_budget_bytes";
    /// Memory the server keeps count of, by use. The rest of the resident memory is code, stacks, buffers,
    /// connections, and what the allocator has not given back.
    memory_accounted: GaugeBy<MemoryUse> = "ringcast_memory_accounted_bytes";
    /// How far memory is shed now: 0 not at all, 1 to 5 by the steps of ringcast_memory_steps.
    memory_level: Gauge = "ringcast_memory_level";
    /// Times a step of shedding began.
    memory_steps: CounterBy<MemoryStep> = "ringcast_memory_steps";
    /// Resident memory of the process.
    resident_bytes: Gauge = "ringcast_resident_memory_bytes";
    /// Sockets whose TLS records the kernel makes now, of the whole network namespace (/proc/net/tls_stat).
    kernel_tls_sockets: GaugeBy<KernelTlsPath> = "ringcast_kernel_tls_sockets";
    /// Sockets the kernel ever took TLS keys for, of the whole network namespace.
    kernel_tls_sockets_total: CounterBy<KernelTlsPath> = "ringcast_kernel_tls_sockets_taken";
    /// TLS records the kernel could not open, of the whole network namespace.
    kernel_tls_decrypt_errors: Counter = "ringcast_kernel_tls_decrypt_errors";
    /// TLS keys the kernel replaced, both directions, of the whole network namespace (Linux 6.14).
    kernel_tls_rekeys: Counter = "ringcast_kernel_tls_rekeys";
}
