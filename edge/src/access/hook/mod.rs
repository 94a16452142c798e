//! Decisions made by somebody else's HTTP server.
//!
//! Runs on the control thread. The worker's question comes through [`Asks`], a bounded queue; the answer
//! goes back as `Command::Answer`. Nobody waits but the connection that asked.
//!
//! - [`question`]: what is asked, and the queue. [`settings`]: how a domain's hook is to be asked.
//! - [`service`]: asks, and reads answers. [`guard`]: cache and breaker. [`client`]: HTTP.

pub mod client;
pub mod guard;
pub mod question;
pub mod service;
pub mod settings;

pub use question::{ASKS_MAX, Asks, HookQuestion};
pub use settings::{HookAnswer, HookSettings};

#[cfg(test)]
mod tests;
