//! Who may publish and play, as a whole: a real `ringcast` process, real RTMP connections, the admin API.
//! `tests/contract_vectors.rs` has the schemes alone, `tests/access.rs` the API alone.
//!
//! ```text
//!   Wire (RTMP clients that name any domain) ─► ringcast ─► HookServer (does as the test says)
//!   Rig (the process, all it writes, the admin API) ──┘
//! ```
//!
//! Every [`rig::Rig`] proves at its end that nothing the server wrote holds a key.

#[path = "../support/mod.rs"]
mod support;

mod control;
mod crowd;
mod domains;
mod hook;
mod hook_server;
mod peer;
mod quotas;
mod rig;
mod rotation;
mod schemes;
mod secrets;
mod tickets;
