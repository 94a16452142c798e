//! Viewers over HTTP on real sockets: FLV and WebSocket, joins, ends, refusals, limits.

#[path = "../support/mod.rs"]
mod support;

mod hls;
mod live;
mod requests;
mod upgrade;
