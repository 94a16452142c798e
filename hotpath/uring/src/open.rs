//! Chooses between io_uring and epoll at start.

use crate::config::IoConfig;
use crate::epoll::Epoll;
use crate::probe::OpenError;
use crate::uring_io::Uring;
use stable_deref_trait::StableDeref;

/// What the operator asked for (`io = "…"`).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring where the kernel grants it, epoll otherwise.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// The backend that was opened. A worker is generic over [`Io`](crate::Io): match once and run it.
#[derive(Debug)]
pub enum Opened<L> {
    /// io_uring serves.
    Uring(Box<Uring<L>>),
    /// epoll serves.
    Epoll {
        /// The backend.
        io: Box<Epoll<L>>,
        /// Why not io_uring, when that was wanted: say it loudly.
        instead_of_uring: Option<OpenError>,
    },
}

/// Opens the backend of `choice` for the calling thread, which must be the one to use it.
///
/// # Errors
/// The backend asked for is not to be had; with [`IoChoice::Auto`], not even epoll.
pub fn open<L: StableDeref<Target = [u8]> + 'static>(
    choice: IoChoice,
    config: &IoConfig,
) -> Result<Opened<L>, OpenError> {
    let refusal = match choice {
        IoChoice::Epoll => None,
        IoChoice::Uring => return Ok(Opened::Uring(Box::new(Uring::open(config.clone())?))),
        IoChoice::Auto => match Uring::open(config.clone()) {
            Ok(io) => return Ok(Opened::Uring(Box::new(io))),
            Err(refusal) => Some(refusal),
        },
    };
    let io = Box::new(Epoll::open(config.clone())?);
    Ok(Opened::Epoll { io, instead_of_uring: refusal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_falls_back_to_epoll_and_tells_why() {
        // A size only io_uring objects to: epoll needs no power of two.
        let config = IoConfig { recv_buffers: 3, ..IoConfig::default() };
        match open::<Box<[u8]>>(IoChoice::Auto, &config) {
            Ok(Opened::Epoll { instead_of_uring: Some(refusal), .. }) => {
                assert_eq!(refusal.errno, libc::EINVAL);
            }
            other => panic!("{other:?}"),
        }
        assert!(open::<Box<[u8]>>(IoChoice::Uring, &config).is_err());
    }

    #[test]
    fn epoll_is_what_one_gets_when_asking_for_it() {
        let opened = open::<Box<[u8]>>(IoChoice::Epoll, &IoConfig::default()).unwrap();
        assert!(matches!(opened, Opened::Epoll { instead_of_uring: None, .. }));
    }
}
