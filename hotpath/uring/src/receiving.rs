//! How a connection receives: the same three states behind every implementation.
//!
//! ```text
//!   Streaming ◄─ resume_receive ─ Resting ◄─ delivered ─ Once(n) ◄─ receive_once ─ Resting
//!        └──────── TlsRecord ────────▲
//! ```
//!
//! A pause is not a state here: it only holds back what these would deliver.

/// See the module.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Receiving {
    /// Without end.
    Streaming,
    /// One receive of at most this many bytes, not 0.
    Once(u32),
    /// Nothing is taken from the kernel.
    Resting,
}

impl Receiving {
    /// How a connection begins.
    ///
    /// # Panics
    /// A first receive of at most no bytes is a bug of the caller.
    pub(crate) fn begin(first_receive_bytes_max: Option<u32>) -> Receiving {
        match first_receive_bytes_max {
            None => Receiving::Streaming,
            Some(bytes_max) => Receiving::once(bytes_max),
        }
    }

    /// One receive of at most `bytes_max`.
    ///
    /// # Panics
    /// As [`Receiving::begin`].
    pub(crate) fn once(bytes_max: u32) -> Receiving {
        assert!(bytes_max > 0, "a receive of no bytes has no completion");
        Receiving::Once(bytes_max)
    }

    /// How many bytes the next receive may take, given a buffer of `buffer_bytes`.
    pub(crate) fn room(self, buffer_bytes: usize) -> usize {
        match self {
            Receiving::Once(bytes_max) => {
                buffer_bytes.min(usize::try_from(bytes_max).unwrap_or(usize::MAX))
            }
            Receiving::Streaming | Receiving::Resting => buffer_bytes,
        }
    }

    /// Bytes have been received: a bounded receive is over with them, and this says `true`.
    pub(crate) fn on_bytes(&mut self) -> bool {
        let once = matches!(self, Receiving::Once(_));
        if once {
            *self = Receiving::Resting;
        }
        once
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_receive_is_over_with_its_bytes_and_streaming_is_not() {
        let mut receiving = Receiving::begin(Some(5));
        assert_eq!((receiving.room(3), receiving.room(100)), (3, 5));
        assert!(receiving.on_bytes());
        assert_eq!(receiving, Receiving::Resting);
        let mut receiving = Receiving::begin(None);
        assert_eq!(receiving.room(100), 100);
        assert!(!receiving.on_bytes());
        assert_eq!(receiving, Receiving::Streaming);
    }

    #[test]
    #[should_panic(expected = "no bytes")]
    fn a_receive_of_no_bytes_is_refused() {
        Receiving::begin(Some(0));
    }
}
