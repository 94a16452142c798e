//! The stream ring: the wire image of one live stream, written once and read by many workers.
//!
//! An endless log of bytes with absolute positions. One writer appends whole messages; any number
//! of workers read the published prefix through a tap of their own. No lock, no waiting on either
//! side, no shared counter per message or subscriber, and after warm-up no allocation.
//!
//! ```text
//!  home worker                        shared                              every worker
//!  ┌────────┐ reserve·write·commit   ┌─────────────────────────────┐     ┌──────┐ refresh, lookups
//!  │ Writer ├───────────────────────►│ head · flush mark           │────►│ Tap  ├──► MessageView
//!  │        │ trim·join·preamble     │ control words (one look)    │     │      │
//!  └───┬────┘                        │ directory: sequence → slot  │     │ pins │──► Lease, Lease, …
//!      │ take / put                  │ slots ─► segment, index     │◄────┤      │    (counted without
//!  ┌───┴────┐                        │       └► preamble           │ one └──────┘     atomics)
//!  │ Arena  │                        └─────────────────────────────┘ atomic per slot and tap
//!  └────────┘
//! ```
//!
//! # Who may call what, from which thread
//!
//! | type | who has it | `Send` | `Sync` | `Clone` | may |
//! |---|---|---|---|---|---|
//! | [`Writer`] | the stream's home worker, one per ring | yes (takeover) | no | no | append, trim, announce |
//! | [`Arena`] | each worker, for all its writers | yes | – | no | lend and keep buffers |
//! | [`StreamRing`] | anybody | yes | yes | yes | read head, marks; make taps |
//! | [`Tap`] | one per worker and stream | no | no | no | look, find, lease |
//! | [`Lease`] | subscribers, operations in flight | no | no | yes | read its bytes |
//!
//! A tap is made on the worker that uses it: its leases are counted in plain cells.
//!
//! ```compile_fail,E0277
//! fn is_send<T: Send>() {}
//! is_send::<ring::Tap>();
//! ```
//! ```compile_fail,E0277
//! fn is_send<T: Send>() {}
//! is_send::<ring::Lease>();
//! ```
//! ```compile_fail,E0277
//! fn is_sync<T: Sync>() {}
//! is_sync::<ring::Writer>();
//! ```
//! ```compile_fail,E0599
//! let (writer, _ring) = ring::stream_ring(ring::RingConfig::default());
//! let second = writer.clone();
//! ```
//! A reservation's bytes cannot be kept over the commit that publishes them:
//! ```compile_fail,E0499
//! fn keep(writer: &mut ring::Writer, meta: ring::MessageMeta) {
//!     let bytes = writer.reserved_mut();
//!     writer.commit(meta);
//!     bytes.fill(0);
//! }
//! ```
//! What is allowed:
//! ```
//! fn is_send<T: Send>() {}
//! fn is_send_and_sync<T: Send + Sync>() {}
//! is_send::<ring::Writer>();
//! is_send_and_sync::<ring::StreamRing>();
//! ```
//!
//! # A slot, byte by byte
//!
//! ```text
//!    0        4        8           12       16         24       32           48           64
//!    | readers| gen    | committed | pad    | contents of a segment or preamble, plain memory |
//!    |  state: one u64 | u32       |        | sequence | base   | bytes      | index      |
//! ```
//! (little-endian; the compiler may order the fields of `contents`). `state` decides who may touch
//! `contents`; the life of a slot is drawn in `slot.rs`. A slot is free, live (published), or
//! retired (trimmed, perhaps still held). Buffers hang below it: `bytes` holds the wire image,
//! `index` 20 bytes per message.
//!
//! # Memory ordering
//!
//! Three sentences, each with the model that explores it (`tests/loom_*.rs`):
//!
//! 1. *What is published is complete* (`loom_publish`). Payload and index entry are written first,
//!    then `committed` (Release), then `head` (Release), then the flush mark (Release). A segment
//!    is filled, entered into the directory (Release) and announced in the control words (Release)
//!    before the head enters it. A tap loads flush mark, head, version in this order, each with
//!    Acquire: the mark cannot be ahead of the head, nor the head ahead of the known segments.
//! 2. *What is held is not reused* (`loom_recycle`, `loom_lease`). Pin and recycle change one word,
//!    so one of them is first (`slot.rs`); that needs no more than Relaxed for the pin. Letting go
//!    is Release, recycling is Acquire: the reads of the last reader come before the next write.
//!    The directory is loaded with Acquire since it may name a later segment than the control
//!    words did; the sequence in the slot tells.
//! 3. *A joiner's position and preamble belong together* (`loom_join`). Both are control words
//!    under one version (`control.rs`): version odd (Relaxed), fields (Release), version even
//!    (Release); readers load version (Acquire), fields (Acquire), version again (Relaxed). A
//!    field of a newer change brings its odd version along, so the second load differs. The tap
//!    then pins both preambles before it shows either; if one is gone already it looks again.
//!
//! Loops over a changing ring are bounded; after that a tap keeps its older, consistent view and
//! counts it ([`Tap::skipped_refreshes`]).
//!
//! # Unsafe inventory
//!
//! | # | block | what must hold | why it does | would notice |
//! |---|---|---|---|---|
//! | 1 | `block.rs` allocate, free | layout not empty, freed once with the same layout | `Block` is the one owner, length never changes | address sanitizer |
//! | 2 | `block.rs` `RawBlock::part` | stays in bounds | asserted | unit tests |
//! | 3 | `block.rs` `as_slice` | allocated, no writer | callers 5, 7, 8 | loom shadow cells, thread sanitizer |
//! | 4 | `block.rs` `as_mut_slice` | allocated, nobody else | callers 6 | loom shadow cells, thread sanitizer |
//! | 5 | `entry.rs` read, `tap.rs` `Segment::entry` | slot held, entry committed | list holds its slots; count acquired, clamped | `loom_publish`, `model` |
//! | 6 | `writer.rs` reserved bytes, entry write, preamble copy | behind head and count, or not in a slot yet | one writer, `&mut self` (`&self` to read what is reserved) | `loom_publish`, `model` |
//! | 7 | `lease.rs` `Lease::new`, deref | slot held until drop, bytes published | plain count above zero keeps the pin | `loom_lease`, `stress` |
//! | 8 | `slot.rs` contents, read | pinned in a published generation | state word | `loom_recycle` |
//! | 9 | `slot.rs` fill, take | slot free: recycled, not yet published | only `writer.rs` calls them, after `recycle` or `free` | `loom_recycle`, `loom_lease` |
//! | 10 | `slot.rs` `Sync`, `Send` for `Slot` | contents never shared with a write | 8 and 9 | `loom_recycle` |
//! | 11 | `block.rs` `Send` for `Block`, `writer.rs` `Send` for `Writer` | no tie to a thread | global allocator; views lead into the shared ring the writer keeps alive | `a_writer_moves_to_another_thread_and_goes_on` |
//! | 12 | `lease.rs` `StableDeref` | address does not depend on the lease | bytes live in the slot's block | `model` compares clones |
//!
//! # When not to use it
//!
//! For small queues between threads (a slot is hundreds of kilobytes), for several writers, or where a
//! slow reader must not lose data: a reader that falls behind the tail starts over at a keyframe.

#![no_std]

extern crate alloc;

mod arena;
mod block;
mod config;
mod control;
mod entry;
mod lease;
mod message;
mod slot;
mod stream_ring;
mod sync;
mod tap;
mod writer;

pub use arena::Arena;
pub use config::{INDEX_ENTRIES_MAX, RingConfig, RingFull, SLOTS_MAX};
pub use lease::Lease;
pub use message::{MessageFlags, MessageKind, MessageMeta, MessageView, Position};
pub use stream_ring::{StreamRing, stream_ring};
pub use tap::{Head, JoinPoint, Messages, Preamble, Tap};
pub use writer::{SegmentSummary, Writer};
