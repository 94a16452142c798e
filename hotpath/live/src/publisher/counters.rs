//! What a publisher counts.

/// Plain counters of one stream, read by the worker.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PublisherCounters {
    /// Payload bytes of media parts taken from publishers.
    pub payload_bytes: u64,
    /// Payload bytes copied into the ring; equal to `payload_bytes` minus what was dropped.
    pub copied_bytes: u64,
    /// Payload bytes copied once more because their message was interleaved or stashed.
    pub copied_aside_bytes: u64,
    /// Committed messages of any kind.
    pub messages: u64,
    /// Committed video messages.
    pub video: u64,
    /// Committed audio messages.
    pub audio: u64,
    /// Timestamp repairs of the stream's timeline.
    pub timestamp_repairs: u64,
    /// Messages dropped for want of room: workers still held the whole ring, or too much was
    /// aside.
    pub dropped_ring_full: u64,
    /// Payload bytes of dropped messages.
    pub dropped_bytes: u64,
    /// Video messages held back while waiting for the first keyframe of a returning publisher.
    pub dropped_before_keyframe: u64,
    /// Partial messages given up (abort, disconnect).
    pub torn: u64,
    /// Times the present GOP outgrew the caps of the ring, so that nobody could join until the next
    /// keyframe.
    pub gops_given_up: u64,
    /// Sequence headers or metadata too large for the preamble.
    pub preamble_not_kept: u64,
}

impl PublisherCounters {
    /// Messages dropped for any reason but a torn connection.
    pub fn dropped(&self) -> u64 {
        self.dropped_ring_full + self.dropped_before_keyframe
    }
}
