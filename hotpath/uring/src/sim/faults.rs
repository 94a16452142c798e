//! What may go wrong in a simulated network, and how often.

use crate::io::Nanos;

/// Rates of faults, each in permille of the occasions it has, and the sizes of the network.
///
/// Change them in mid-run with [`SimNet::set_faults`](super::SimNet::set_faults), for example to
/// [`Faults::none`] before checking that everything comes to rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// A receive hands out only a part, cut at any byte.
    pub short_receive_permille: u16,
    /// A send takes only a part, cut at any byte; `Writable` follows.
    pub short_send_permille: u16,
    /// A send finds the socket full although it is not; `Writable` follows.
    pub send_blocked_permille: u16,
    /// A segment on its way resets the connection at both ends.
    pub reset_permille: u16,
    /// A receive fails with `ETIMEDOUT`; the other end sees a reset.
    pub receive_error_permille: u16,
    /// A receive finds the buffer pool empty and is armed again later.
    pub buffers_empty_permille: u16,
    /// An accept fails for want of descriptors and the listener rests.
    pub accept_error_permille: u16,
    /// The completion of a send comes later than its effect.
    pub late_completion_permille: u16,
    /// The completions of a turn come in another order (never within one connection).
    pub reorder_permille: u16,
    /// A turn finds the completion queue full: few completions come now, all others in later turns.
    pub overflow_permille: u16,
    /// A receive without end has ended with what it delivered, without the peer's doing, and is
    /// armed again later.
    pub multishot_end_permille: u16,
    /// A receive has taken bytes when its connection is closed: cancelling it loses the race, and its
    /// buffer comes home late.
    pub cancel_lost_permille: u16,
    /// A received part has one bit flipped. A real network does not do this: it is the planted bug
    /// by which a simulation proves that its checks can fail.
    pub planted_corruption_permille: u16,
    /// The least time from one end to the other.
    pub latency_min: Nanos,
    /// What chance may add to it. Order within a direction is kept.
    pub latency_jitter: Nanos,
    /// The longest delay of late completions, false blocks and missing buffers.
    pub delay_max: Nanos,
    /// Bytes that fit between two ends in one direction: sent and not yet read.
    pub socket_buffer_bytes: usize,
}

impl Faults {
    /// A good network: 50 µs away, nothing goes wrong.
    pub const fn none() -> Faults {
        Faults {
            short_receive_permille: 0,
            short_send_permille: 0,
            send_blocked_permille: 0,
            reset_permille: 0,
            receive_error_permille: 0,
            buffers_empty_permille: 0,
            accept_error_permille: 0,
            late_completion_permille: 0,
            reorder_permille: 0,
            overflow_permille: 0,
            multishot_end_permille: 0,
            cancel_lost_permille: 0,
            planted_corruption_permille: 0,
            latency_min: Nanos(50_000),
            latency_jitter: Nanos(0),
            delay_max: Nanos(1_000_000),
            socket_buffer_bytes: 256 * 1024,
        }
    }

    /// What a socket does wrong that does not end a connection, often: what was sent must still all
    /// arrive.
    pub const fn rough() -> Faults {
        let mut faults = Faults::none();
        faults.short_receive_permille = 300;
        faults.short_send_permille = 200;
        faults.send_blocked_permille = 100;
        faults.buffers_empty_permille = 50;
        faults.accept_error_permille = 50;
        faults.late_completion_permille = 200;
        faults.reorder_permille = 500;
        faults.latency_jitter = Nanos(3_000_000);
        faults.delay_max = Nanos(5_000_000);
        faults
    }

    /// The queues of the kernel at their worst too: overflowing completions, receives that end and are
    /// armed again, cancellations that come too late. Nothing of it ends a connection.
    #[must_use]
    pub const fn with_queue_faults(mut self) -> Faults {
        self.overflow_permille = 100;
        self.multishot_end_permille = 100;
        self.cancel_lost_permille = 500;
        self
    }

    /// [`Faults::rough`], and connections break too.
    pub const fn hostile() -> Faults {
        let mut faults = Faults::rough();
        faults.reset_permille = 5;
        faults.receive_error_permille = 3;
        faults
    }
}

impl Default for Faults {
    fn default() -> Faults {
        Faults::none()
    }
}
