//! What a thread measured in an interval: histograms and counts that add up, over threads and time.
//!
//! Made anew for each interval and handed to the reporter, so nothing is shared and nothing is
//! recorded twice. Labels come from the server in part; their number is bounded.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Longest time told apart, microseconds; what is longer counts as this.
const TIME_US_MAX: u64 = 120_000_000;
/// Significant digits kept.
const DIGITS: u8 = 3;
/// Different labels kept in one table; the rest is counted together.
const LABELS_MAX: usize = 64;
/// Characters of a label kept.
const LABEL_CHARS_MAX: usize = 80;

/// Something that takes time.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Measure {
    /// From the connect call to the TCP connection.
    Connect,
    /// From there to the end of a full TLS handshake.
    Tls,
    /// The same of one that went on with an earlier session.
    TlsResumed,
    /// From TCP, or TLS where there is any, to the end of the RTMP handshake.
    Handshake,
    /// From the play command to `Play.Start`.
    PlayStart,
    /// From the publish command to `Publish.Start`.
    PublishStart,
    /// From the connect call to the first byte of media.
    FirstByte,
    /// From the connect call to the first complete audio or video message.
    FirstMedia,
    /// From the connect call to the first complete keyframe.
    FirstKeyframe,
    /// From the play command to the first complete keyframe.
    PlayToKeyframe,
    /// Video: from the publisher's clock to the complete message, of media made after the player
    /// asked for it.
    Latency,
    /// The same of keyframes, the largest of them: where they are more than one frame in a hundred, they are
    /// the p99 of all.
    LatencyKeyframe,
    /// The same of audio.
    LatencyAudio,
    /// The same of video once all players are there.
    LatencySteady,
    /// Video latency of those who watched before a disturbance began, until then.
    LatencyBefore,
    /// The same while it lasted.
    LatencyDuring,
    /// The same afterwards.
    LatencyAfter,
    /// From the connect call to the first complete keyframe of those who came in a join storm.
    StormFirstKeyframe,
    /// Video: from the publisher's clock to the moment it shows, where the player knows that moment.
    GlassToGlass,
    /// From a request to the whole playlist that is sent at once.
    HlsPlaylist,
    /// The same of one that is held until something new is in it.
    HlsReload,
    /// From a request to the whole segment.
    HlsSegment,
    /// The same of a part.
    HlsPart,
    /// By how much the server moved audio against video.
    Skew,
    /// How long a publisher's socket took nothing.
    PublisherBlocked,
    /// A stall of playback.
    Stall,
    /// How late we did what was due.
    Late,
    /// From one wait for the kernel to the next.
    Turn,
}

impl Measure {
    /// All of them, in order.
    pub(crate) const ALL: [Measure; 28] = [
        Measure::Connect,
        Measure::Tls,
        Measure::TlsResumed,
        Measure::Handshake,
        Measure::PlayStart,
        Measure::PublishStart,
        Measure::FirstByte,
        Measure::FirstMedia,
        Measure::FirstKeyframe,
        Measure::PlayToKeyframe,
        Measure::Latency,
        Measure::LatencyKeyframe,
        Measure::LatencyAudio,
        Measure::LatencySteady,
        Measure::LatencyBefore,
        Measure::LatencyDuring,
        Measure::LatencyAfter,
        Measure::StormFirstKeyframe,
        Measure::GlassToGlass,
        Measure::HlsPlaylist,
        Measure::HlsReload,
        Measure::HlsSegment,
        Measure::HlsPart,
        Measure::Skew,
        Measure::PublisherBlocked,
        Measure::Stall,
        Measure::Late,
        Measure::Turn,
    ];

    /// As it appears in results, without unit.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Measure::Connect => "connect",
            Measure::Tls => "tls",
            Measure::TlsResumed => "tls_resumed",
            Measure::Handshake => "handshake",
            Measure::PlayStart => "play_start",
            Measure::PublishStart => "publish_start",
            Measure::FirstByte => "first_byte",
            Measure::FirstMedia => "first_media",
            Measure::FirstKeyframe => "first_keyframe",
            Measure::PlayToKeyframe => "play_to_keyframe",
            Measure::Latency => "latency",
            Measure::LatencyKeyframe => "latency_keyframe",
            Measure::LatencyAudio => "latency_audio",
            Measure::LatencySteady => "latency_steady",
            Measure::LatencyBefore => "latency_before",
            Measure::LatencyDuring => "latency_during",
            Measure::LatencyAfter => "latency_after",
            Measure::StormFirstKeyframe => "storm_first_keyframe",
            Measure::GlassToGlass => "glass_to_glass",
            Measure::HlsPlaylist => "hls_playlist",
            Measure::HlsReload => "hls_reload",
            Measure::HlsSegment => "hls_segment",
            Measure::HlsPart => "hls_part",
            Measure::Skew => "skew",
            Measure::PublisherBlocked => "publisher_blocked",
            Measure::Stall => "stall",
            Measure::Late => "late",
            Measure::Turn => "turn",
        }
    }
}

/// Plain sums.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    /// Connections begun.
    pub(crate) started: u64,
    /// Players that came as far as `Play.Start`.
    pub(crate) joined: u64,
    /// Publishers that came as far as `Publish.Start`.
    pub(crate) published: u64,
    /// Players that left as planned.
    pub(crate) left: u64,
    /// Connections that ended otherwise, whether they had come so far or not.
    pub(crate) failed: u64,
    /// Bytes received by players, protocol included.
    pub(crate) received_bytes: u64,
    /// Bytes sent by publishers, protocol included.
    pub(crate) published_bytes: u64,
    /// Messages of publishers.
    pub(crate) published_messages: u64,
    /// Messages publishers could not send because the server took no more.
    pub(crate) publisher_skipped: u64,
    /// Time during which sockets of publishers took nothing, and during which streams were open; both
    /// summed over publishers.
    pub(crate) publisher_blocked_ns: u64,
    pub(crate) publishing_ns: u64,
    /// TLS handshakes: full ones, and those that resumed a session.
    pub(crate) tls_full: u64,
    pub(crate) tls_resumed: u64,
    /// Complete audio and video messages received.
    pub(crate) messages: u64,
    /// Those without a marker, sequence headers not counted.
    pub(crate) unmarked: u64,
    /// Messages whose checksum was computed.
    pub(crate) checked: u64,
    /// Those that were damaged.
    pub(crate) corrupt: u64,
    /// Players whose first picture was no keyframe.
    pub(crate) off_keyframe: u64,
    /// Stalls of playback.
    pub(crate) stalls: u64,
    /// Requests over HTTP whose response was whole.
    pub(crate) requests: u64,
    /// Connections begun anew because the server ended one between two requests.
    pub(crate) reconnects: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.started += other.started;
        self.joined += other.joined;
        self.published += other.published;
        self.left += other.left;
        self.failed += other.failed;
        self.received_bytes += other.received_bytes;
        self.published_bytes += other.published_bytes;
        self.published_messages += other.published_messages;
        self.publisher_skipped += other.publisher_skipped;
        self.publisher_blocked_ns += other.publisher_blocked_ns;
        self.publishing_ns += other.publishing_ns;
        self.tls_full += other.tls_full;
        self.tls_resumed += other.tls_resumed;
        self.messages += other.messages;
        self.unmarked += other.unmarked;
        self.checked += other.checked;
        self.corrupt += other.corrupt;
        self.off_keyframe += other.off_keyframe;
        self.stalls += other.stalls;
        self.requests += other.requests;
        self.reconnects += other.reconnects;
    }
}

/// A table of labels and how often they came.
pub(crate) type Labels = BTreeMap<String, u64>;

/// Everything measured in an interval. See the file's head.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    times: Vec<Histogram<u64>>,
    pub(crate) counts: Counts,
    /// Why connections ended otherwise than planned.
    pub(crate) closes: Labels,
    /// onStatus codes.
    pub(crate) statuses: Labels,
    /// What became of hostile peers.
    pub(crate) hostile: Labels,
}

impl Tally {
    /// Nothing measured yet.
    pub(crate) fn new() -> Tally {
        let empty = Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("three digits exist"));
        Tally {
            times: vec![empty; Measure::ALL.len()],
            counts: Counts::default(),
            closes: Labels::new(),
            statuses: Labels::new(),
            hostile: Labels::new(),
        }
    }

    /// Records a time.
    pub(crate) fn record(&mut self, measure: Measure, ns: u64) {
        let us = (ns.saturating_add(500) / 1000).min(TIME_US_MAX);
        // The histogram grows on demand and the value is bounded: there is no other failure.
        let _ = self.times[measure as usize].record(us);
    }

    /// A TLS handshake is over.
    pub(crate) fn record_secured(&mut self, ns: u64, is_resumed: bool) {
        if is_resumed {
            self.counts.tls_resumed += 1;
            self.record(Measure::TlsResumed, ns);
        } else {
            self.counts.tls_full += 1;
            self.record(Measure::Tls, ns);
        }
    }

    /// A publisher's socket took nothing for so long.
    pub(crate) fn record_blocked(&mut self, ns: u64) {
        self.counts.publisher_blocked_ns += ns;
        self.record(Measure::PublisherBlocked, ns);
    }

    /// The times of a measure, microseconds.
    pub(crate) fn times_us(&self, measure: Measure) -> &Histogram<u64> {
        &self.times[measure as usize]
    }

    /// A quantile in milliseconds; `None` without a single record.
    pub(crate) fn quantile_ms(&self, measure: Measure, quantile: f64) -> Option<f64> {
        let times = self.times_us(measure);
        (!times.is_empty()).then(|| times.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// A connection ended otherwise than planned.
    pub(crate) fn note_close(&mut self, reason: &str) {
        self.counts.failed += 1;
        count_label(&mut self.closes, reason, 1);
    }

    /// The server said something.
    pub(crate) fn note_status(&mut self, code: &str) {
        count_label(&mut self.statuses, code, 1);
    }

    /// A hostile peer did or met something.
    pub(crate) fn note_hostile(&mut self, behaviour: &str, what: &str) {
        count_label(&mut self.hostile, &format!("{behaviour}: {what}"), 1);
    }

    /// Adds what somebody else, or another time, measured.
    pub(crate) fn add(&mut self, other: &Tally) {
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            // Mine grows on demand.
            let _ = mine.add(theirs);
        }
        self.counts.add(&other.counts);
        for (label, &count) in &other.closes {
            count_label(&mut self.closes, label, count);
        }
        for (label, &count) in &other.statuses {
            count_label(&mut self.statuses, label, count);
        }
        for (label, &count) in &other.hostile {
            count_label(&mut self.hostile, label, count);
        }
    }
}

fn count_label(labels: &mut Labels, label: &str, count: u64) {
    let label: String = label.chars().take(LABEL_CHARS_MAX).collect();
    let is_room = labels.len() < LABELS_MAX || labels.contains_key(&label);
    let label = if is_room { label } else { "others".into() };
    *labels.entry(label).or_default() += count;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::MS_NS;

    #[test]
    fn measures_are_in_the_order_of_their_declaration() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, index, "{measure:?}");
        }
    }

    #[test]
    fn tallies_add_up() {
        let (mut all, mut one) = (Tally::new(), Tally::new());
        all.record(Measure::Latency, MS_NS);
        one.record(Measure::Latency, 3 * MS_NS);
        one.note_close("eof");
        one.counts.joined = 2;
        all.add(&one);
        all.add(&one);
        assert_eq!(all.times_us(Measure::Latency).len(), 3);
        let longest = all.quantile_ms(Measure::Latency, 1.0).unwrap();
        assert!((longest - 3.0).abs() < 0.01, "{longest}");
        assert_eq!(all.quantile_ms(Measure::Stall, 1.0), None);
        assert_eq!((all.counts.joined, all.counts.failed), (4, 2));
        assert_eq!(all.closes["eof"], 2);
    }

    #[test]
    fn times_beyond_the_longest_count_as_the_longest() {
        let mut tally = Tally::new();
        tally.record(Measure::Late, u64::MAX);
        let longest = tally.quantile_ms(Measure::Late, 1.0).unwrap();
        assert!((longest - 120_000.0).abs() < 120.0, "{longest}");
    }

    #[test]
    fn labels_are_bounded_whatever_the_server_says() {
        let mut tally = Tally::new();
        for number in 0..1000 {
            tally.note_status(&format!("{number}{}", "x".repeat(1000)));
        }
        assert_eq!(tally.statuses.len(), LABELS_MAX + 1);
        assert_eq!(tally.statuses.values().sum::<u64>(), 1000);
    }
}
