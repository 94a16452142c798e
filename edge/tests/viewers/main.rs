//! Viewers over HTTP on real sockets: FLV and WebSocket, joins, ends, refusals, limits.

#[path = "../support/mod.rs"]
mod support;

mod hls;
mod hls_dir;
mod hls_upgrade;
mod live;
mod requests;
mod upgrade;
