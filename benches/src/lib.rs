//! What the micro benchmarks measure, apart from how it is timed.
//!
//! Every case is a [`Work`] in the [`catalogue`]. Four users run the same cases:
//!
//! ```text
//!                    ┌── benches/data_path.rs, sockets.rs   criterion: time
//!   catalogue ───────┼── tests/small.rs                     allocations, copies, results, in seconds
//!   (mod work)       ├── bin instructions                   callgrind: instructions per unit, for CI
//!                    └── bin floor                          sockets only: ours against a bare send loop
//! ```
//!
//! The binary `peers` compares whole servers and shares nothing with the cases but this package.
//!
//! A case counts what it does ([`Outcome`]): units, bytes, payload bytes copied in user space, and a
//! digest of its results, so that nobody makes it faster by computing something else.

pub mod media;
pub mod probe;
pub mod work;

mod case;
mod clock;
mod digest;

pub use case::{Build, Case, Outcome, Size, Skipped, Work, catalogue, find};
pub use clock::Clock;
pub use digest::Digest;
pub use probe::{Observed, observe};
