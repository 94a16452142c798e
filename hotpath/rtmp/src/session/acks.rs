//! When to acknowledge what was received. Both ends of a connection do it alike.
//!
//! Some encoders stop sending when no Acknowledgement comes, so one is due after half the window, and
//! also when the peer never announced a window. Counters wrap at 2^32, as on the wire.
//! Spec: RTMP 1.0 §5.4.3, §5.4.4.

use super::config::WINDOW_ACK_BYTES_MIN;

#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug)]
pub(super) struct AckWindow {
    window_bytes: u32,
    acknowledged: u32,
}

impl AckWindow {
    pub(super) fn new(window_bytes: u32) -> Self {
        Self { window_bytes: window_bytes.max(WINDOW_ACK_BYTES_MIN), acknowledged: 0 }
    }

    /// The peer announced its window.
    pub(super) fn set_window(&mut self, window_bytes: u32) {
        self.window_bytes = window_bytes.max(WINDOW_ACK_BYTES_MIN);
    }

    /// The sequence number to acknowledge now that `received` bytes have come in all, if one is due.
    pub(super) fn due(&mut self, received: u64) -> Option<u32> {
        let received = low_32_bits(received);
        if received.wrapping_sub(self.acknowledged) < self.window_bytes / 2 {
            return None;
        }
        self.acknowledged = received;
        Some(received)
    }
}

/// The counter as it is on the wire.
pub(super) fn low_32_bits(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_due_each_half_window() {
        let mut acks = AckWindow::new(10_000);
        assert_eq!(acks.due(4_999), None);
        assert_eq!(acks.due(5_000), Some(5_000));
        assert_eq!(acks.due(9_999), None);
        assert_eq!(acks.due(12_000), Some(12_000));
    }

    #[test]
    fn the_count_wraps_at_two_to_the_32() {
        let mut acks = AckWindow::new(10_000);
        assert_eq!(acks.due(0xFFFF_F000), Some(0xFFFF_F000));
        assert_eq!(acks.due(0x1_0000_0000), None);
        assert_eq!(acks.due(0x1_0000_1000), Some(0x1000));
    }

    #[test]
    fn a_tiny_window_does_not_ask_for_an_acknowledgement_per_byte() {
        let mut acks = AckWindow::new(10_000);
        acks.set_window(1);
        assert_eq!(acks.due(u64::from(WINDOW_ACK_BYTES_MIN) / 2 - 1), None);
        assert!(acks.due(u64::from(WINDOW_ACK_BYTES_MIN) / 2).is_some());
    }
}
