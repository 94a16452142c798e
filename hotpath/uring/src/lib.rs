//! The kernel behind one trait.
pub mod affinity;
mod epoll;
mod io;
mod open;
mod pages;
mod probe;
mod recv_pool;
pub mod sim;
mod slots;
mod socket;
mod token;
mod uring_io;
mod waker;

pub use epoll::Epoll;
pub use io::{
    Completion, ConnId, Io, IoConfig, IoCounters, ListenOptions, ListenerId, Nanos, ReceiveEnd,
    SendBuf, SocketOptions,
};
pub use open::{IoChoice, Opened, open};
pub use probe::{Backend, Feature, FeatureState, Features, OpenError};
pub use recv_pool::RecvBuf;
pub use stable_deref_trait::StableDeref;
pub use uring_io::Uring;
pub use waker::Waker;
