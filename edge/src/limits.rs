//! Every limit a peer can reach, as one table: its key, what the peer meets, how it is counted, the test.
//!
//! `LIMITS.md` is generated from here; tests check that each key, metric and test exists. Units, ranges and
//! defaults are those of the configuration, so nothing is written twice. Start-up and tests only.

use std::fmt::Write as _;

use crate::config::{Config, KeySpec};
use crate::metrics::{Label as _, LimitReached};

/// Where it is counted that a limit was reached.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Counted {
    /// `ringcast_limits_reached` with this label.
    Limit(LimitReached),
    /// A metric of its own, named without suffix.
    Metric(&'static str),
}

impl Counted {
    /// As one would ask for it.
    pub fn text(self) -> String {
        match self {
            Self::Limit(limit) => format!("ringcast_limits_reached{{limit=\"{}\"}}", limit.text()),
            Self::Metric(name) => name.to_owned(),
        }
    }
}

/// One limit that operators set.
#[derive(Copy, Clone, Debug)]
pub struct Limit {
    /// What is limited.
    pub what: &'static str,
    /// `section.key`; those of `defaults` can be set per vhost.
    pub key: &'static str,
    /// What the peer meets at the limit.
    pub meets: &'static str,
    /// Where it is counted.
    pub counted: Counted,
    /// File below the repository's root, and the test that reaches the limit.
    pub test: (&'static str, &'static str),
}

impl Limit {
    /// The key's description and its default as in a file.
    pub fn key_spec(&self) -> Option<(&'static KeySpec, String)> {
        let (section, key) = self.key.split_once('.')?;
        let config = Config::default();
        let section = config.section(section)?;
        let spec = section.keys().iter().find(|spec| spec.name == key)?;
        Some((spec, section.show(key)))
    }
}

/// A bound that is part of the design and has no key.
#[derive(Copy, Clone, Debug)]
pub struct Fixed {
    /// What is bounded, and by how much.
    pub what: &'static str,
    /// What happens there.
    pub meets: &'static str,
    /// Where it is counted.
    pub counted: Counted,
    /// Why it is the same everywhere.
    pub why: &'static str,
    /// As in [`Limit::test`].
    pub test: (&'static str, &'static str),
}

const LIMITS_RS: &str = "edge/tests/limits.rs";
const HOSTILE_RS: &str = "edge/tests/hostile.rs";
const HLS_RS: &str = "edge/tests/viewers/hls.rs";

macro_rules! limits {
    ($($what:literal, $key:literal, $counted:expr, $file:expr, $test:literal, $meets:literal;)*) => {
        /// Every limit with a key, from the door inwards.
        pub const LIMITS: &[Limit] = &[$(Limit {
            what: $what, key: $key, meets: $meets, counted: $counted, test: ($file, $test),
        }),*];
    };
}

const fn by(limit: LimitReached) -> Counted {
    Counted::Limit(limit)
}

limits! {
    "connections", "limits.connections_max", by(LimitReached::Connections),
    LIMITS_RS, "connections_over_the_limit_are_closed_and_admitted_again_later",
    "closed at once, before a byte is read";
    "connections of one address", "limits.connections_per_address_max",
    by(LimitReached::ConnectionsPerAddress),
    LIMITS_RS, "an_address_over_its_limit_is_closed_and_another_is_not",
    "closed at once; behind a trusted proxy once the client is known";
    "publishers and players of a vhost", "defaults.connections_max",
    by(LimitReached::ConnectionsPerVhost),
    LIMITS_RS, "a_vhost_admits_as_many_connections_and_streams_as_it_may_have",
    "publish: `NetStream.Publish.BadName`; play: `NetStream.Play.Failed`; HTTP: 503; then closed";
    "streams", "limits.streams_max", by(LimitReached::Streams),
    LIMITS_RS, "a_stream_too_many_is_refused_and_those_there_go_on",
    "as above, \"too many streams\"";
    "streams of a vhost", "defaults.streams_max", by(LimitReached::StreamsPerVhost),
    LIMITS_RS, "a_vhost_admits_as_many_connections_and_streams_as_it_may_have",
    "as above, \"too many streams on this host\"";
    "players of a stream", "defaults.subscribers_per_stream_max",
    by(LimitReached::SubscribersPerStream),
    LIMITS_RS, "a_stream_has_as_many_players_as_it_may_have_on_all_workers_and_framings",
    "`NetStream.Play.Failed`, HTTP 503; then closed";
    "time to the first byte", "limits.first_byte_ms_max", by(LimitReached::FirstByte),
    LIMITS_RS, "who_is_late_in_any_phase_is_closed_and_counted",
    "closed";
    "time for the TLS handshake", "limits.tls_handshake_ms_max",
    by(LimitReached::TlsHandshakeTime),
    "edge/tests/rtmps/deadlines.rs", "whoever_takes_too_long_is_closed_with_a_reason",
    "closed";
    "TLS handshakes a second, per worker", "limits.tls_handshakes_per_second_max",
    by(LimitReached::TlsHandshakeRate),
    "edge/tests/rtmps/deadlines.rs", "a_storm_of_handshakes_is_cut_and_streams_go_on",
    "closed without an alert";
    "time for handshake and connect", "limits.handshake_ms_max", by(LimitReached::Handshake),
    LIMITS_RS, "who_is_late_in_any_phase_is_closed_and_counted",
    "closed";
    "silence of a peer", "limits.idle_ms_max", by(LimitReached::Idle),
    LIMITS_RS, "who_is_late_in_any_phase_is_closed_and_counted",
    "closed";
    "silence of a publisher", "defaults.idle_publisher_ms_max", by(LimitReached::IdlePublisher),
    LIMITS_RS, "who_is_late_in_any_phase_is_closed_and_counted",
    "closed as lost: its stream goes into grace";
    "wait for a publisher", "defaults.play_wait_ms", by(LimitReached::PlayWait),
    LIMITS_RS, "who_is_late_in_any_phase_is_closed_and_counted",
    "`NetStream.Play.StreamNotFound`, HTTP 404; then closed";
    "wait for a publisher over HTTP", "defaults.http_wait_ms", by(LimitReached::PlayWait),
    LIMITS_RS, "requests_that_are_too_large_late_or_many_are_answered_so",
    "404";
    "length of a message", "limits.message_bytes_max", by(LimitReached::Message),
    LIMITS_RS, "what_a_chunk_header_may_not_ask_for_is_counted",
    "closed at the chunk header that announces it";
    "chunk streams", "limits.chunk_streams_max", by(LimitReached::ChunkStreams),
    LIMITS_RS, "what_a_chunk_header_may_not_ask_for_is_counted",
    "closed";
    "tiny chunks in credit", "limits.tiny_chunks_max", by(LimitReached::TinyChunks),
    LIMITS_RS, "what_a_chunk_header_may_not_ask_for_is_counted",
    "closed";
    "interleaved messages of one publisher", "limits.reassembly_bytes_max",
    by(LimitReached::Reassembly),
    LIMITS_RS, "interleaved_messages_are_bounded_for_one_and_for_all",
    "closed as lost: its stream goes into grace";
    "interleaved messages of all", "limits.reassembly_total_bytes_max",
    by(LimitReached::ReassemblyTotal),
    LIMITS_RS, "interleaved_messages_are_bounded_for_one_and_for_all",
    "the publisher that holds most is closed as lost; within 50 ms";
    "input before an answer", "limits.held_input_bytes_max", by(LimitReached::HeldInput),
    LIMITS_RS, "who_asks_and_never_reads_is_read_no_further_and_then_closed",
    "closed";
    "replies that wait", "limits.reply_bytes_max", by(LimitReached::Replies),
    LIMITS_RS, "who_asks_and_never_reads_is_read_no_further_and_then_closed",
    "its input is read no further until it takes them";
    "commands a second", "limits.commands_per_second_max", by(LimitReached::CommandRate),
    LIMITS_RS, "commands_and_requests_over_the_rate_end_the_connection",
    "`NetConnection.Connect.Closed`, WebSocket close 1008; then closed";
    "requests a second", "limits.http_requests_per_second_max", by(LimitReached::HttpRequestRate),
    LIMITS_RS, "commands_and_requests_over_the_rate_end_the_connection",
    "429; then closed";
    "head of a request", "limits.http_head_bytes_max", by(LimitReached::HttpHead),
    LIMITS_RS, "requests_that_are_too_large_late_or_many_are_answered_so",
    "431, or 414 for its first line; then closed";
    "fields of a request", "limits.http_fields_max", by(LimitReached::HttpHead),
    LIMITS_RS, "what_stands_in_a_command_or_a_request_is_bounded_and_counted",
    "431; then closed";
    "body of a request", "limits.http_body_bytes_max", by(LimitReached::HttpBody),
    LIMITS_RS, "what_stands_in_a_command_or_a_request_is_bounded_and_counted",
    "413; then closed";
    "time for a request", "limits.http_request_ms_max", by(LimitReached::HttpRequest),
    LIMITS_RS, "requests_that_are_too_large_late_or_many_are_answered_so",
    "408; then closed";
    "time without progress of an answer over HTTP", "limits.http_stall_ms_max", by(LimitReached::HttpStall),
    HLS_RS, "the_deadlines_of_http_are_configured",
    "closed";
    "time between requests", "limits.http_keep_alive_ms_max", by(LimitReached::HttpKeepAlive),
    LIMITS_RS, "requests_that_are_too_large_late_or_many_are_answered_so",
    "closed";
    "ring of a stream, bytes", "defaults.retention_bytes", by(LimitReached::Ring),
    LIMITS_RS, "rings_are_bounded_each_and_together",
    "oldest segments go; a GOP larger than that cannot be joined before the next keyframe";
    "ring of a stream, messages", "defaults.retention_messages", by(LimitReached::Ring),
    LIMITS_RS, "rings_are_bounded_each_and_together",
    "likewise";
    "rings of all streams", "limits.ring_bytes_max", by(LimitReached::RingTotal),
    LIMITS_RS, "rings_are_bounded_each_and_together",
    "rings keep the present GOP and the last seconds; a new stream: `NetStream.Publish.BadName`";
    "memory of the process, from 80 %", "limits.memory_bytes_max",
    by(LimitReached::MemorySubscribers),
    "edge/tests/memory_budget.rs", "memory_is_shed_step_by_step_and_the_watched_stream_goes_on",
    "new subscribers: `NetStream.Play.Failed`, HTTP 503; then closed";
    "likewise, from 85 %", "limits.memory_bytes_max", by(LimitReached::MemoryPublishers),
    "edge/tests/memory_budget.rs", "memory_is_shed_step_by_step_and_the_watched_stream_goes_on",
    "new streams: `NetStream.Publish.BadName`; who returns or takes over is let in";
    "likewise, from 90 %", "limits.memory_bytes_max", Counted::Metric("ringcast_memory_steps"),
    "edge/tests/memory_budget.rs", "memory_is_shed_step_by_step_and_the_watched_stream_goes_on",
    "rings and framings keep the present GOP and the last seconds: who falls behind skips sooner";
    "likewise, from 95 %", "limits.memory_bytes_max", Counted::Metric("ringcast_memory_steps"),
    "edge/tests/memory_budget.rs", "memory_is_shed_step_by_step_and_the_watched_stream_goes_on",
    "HLS windows shrink to half of what they hold: old segments are answered 410";
    "likewise, from 100 %", "limits.memory_bytes_max", by(LimitReached::MemoryLaggards),
    "edge/tests/memory_budget.rs", "memory_is_shed_step_by_step_and_the_watched_stream_goes_on",
    "of each worker's subscribers the one furthest behind is closed, once a second";
    "lag of a player", "defaults.lag_ms_max", by(LimitReached::Lag),
    LIMITS_RS, "a_player_that_does_not_read_skips_and_then_goes",
    "goes on at the newest keyframe; out of the ring twice in a row: closed";
    "no progress of a player", "defaults.stall_ms_max", by(LimitReached::Stall),
    LIMITS_RS, "a_player_that_does_not_read_skips_and_then_goes",
    "closed";
    "HLS of all streams", "limits.hls_bytes_max", Counted::Metric("ringcast_hls_refused"),
    "edge/src/hls/tests/bounds.rs",
    "over_the_limit_of_the_process_streams_are_refused_and_those_there_shrink",
    "no further stream is packaged; those there keep fewer segments";
    "HLS of one stream", "defaults.hls_memory_bytes_max",
    Counted::Metric("ringcast_hls_segments_forgotten"),
    "edge/src/hls/tests/bounds.rs", "a_stream_of_large_pictures_keeps_to_its_memory",
    "older segments go early: 410";
    "log lines of one event a second", "log.lines_per_second_max",
    Counted::Metric("ringcast_log_suppressed_lines"),
    "edge/src/log.rs", "lines_over_the_rate_of_their_event_code_are_left_out_and_counted",
    "nothing; `log_suppressed` tells how many were left out";
    "log lines that wait", "log.queue_lines_max", Counted::Metric("ringcast_log_dropped_lines"),
    "edge/src/log.rs", "a_slow_reader_costs_lines_and_never_makes_the_logger_wait",
    "nothing; `log_dropped` tells how many were lost";
}

/// Bounds without a key.
pub const FIXED: &[Fixed] = &[
    Fixed {
        what: "a command: 64 KiB, torn commands together: 512 KiB, a string that is kept of one: 4 KiB",
        meets: "closed",
        counted: by(LimitReached::Command),
        why: "it is what somebody may make us hold before we know who it is, and a hundred times what \
              clients send",
        test: (LIMITS_RS, "what_stands_in_a_command_or_a_request_is_bounded_and_counted"),
    },
    Fixed {
        what: "AMF: 16 levels, 8,192 values, strings of 64 KiB",
        meets: "closed",
        counted: by(LimitReached::Amf),
        why: "bounds stack and work of one command, which no client comes near: a key could only weaken it",
        test: (LIMITS_RS, "what_stands_in_a_command_or_a_request_is_bounded_and_counted"),
    },
    Fixed {
        what: "last replies to who is being closed: 5 s; its own end after them: 1 s",
        meets: "closed",
        counted: Counted::Metric("ringcast_disconnects"),
        why: "only who is closed already waits for it",
        test: (HOSTILE_RS, "whoever_asks_and_never_reads_is_closed_within_bounded_memory"),
    },
];

/// The text of `LIMITS.md`.
pub fn document() -> String {
    let mut out = String::from(
        "# Limits\n\n\
         Everything a peer can reach, in the order of its way inwards. Generated from\n\
         `edge/src/limits.rs`; a test compares, and checks that key, metric and test exist. Keys of\n\
         `defaults` can be set per vhost; 0 as a default means no limit of its own. What is counted per\n\
         worker or looked at now and then is so on purpose: no limit costs a shared write per message\n\
         or per player.\n\n\
         | what | key | default | at the limit | counted in | test |\n|---|---|---|---|---|---|\n",
    );
    for limit in LIMITS {
        let (unit, default) =
            limit.key_spec().map_or(("", String::new()), |(spec, default)| (spec.unit, default));
        let (file, test) = limit.test;
        let _ = writeln!(
            out,
            "| {} | `{}` | {} {unit} | {} | `{}` | `{file}` `{test}` |",
            limit.what,
            limit.key,
            grouped(&default),
            limit.meets,
            limit.counted.text(),
        );
    }
    out.push_str(
        "\n## Without a key\n\n| what | at the bound | counted in | why it is fixed | test |\n\
         |---|---|---|---|---|\n",
    );
    for fixed in FIXED {
        let (file, test) = fixed.test;
        let Fixed { what, meets, counted, why, .. } = fixed;
        let counted = counted.text();
        let _ = writeln!(out, "| {what} | {meets} | `{counted}` | {why} | `{file}` `{test}` |");
    }
    out
}

/// A whole number with its thousands apart.
fn grouped(number: &str) -> String {
    let mut out = String::new();
    for (at, digit) in number.chars().enumerate() {
        if at > 0 && (number.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
