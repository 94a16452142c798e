//! Parts of the simulated world; see the test file beside this folder.

pub mod actions;
pub mod answers;
pub mod days;
pub mod dice;
pub mod drain;
pub mod files;
pub mod flv;
pub mod fmp4;
pub mod hls;
pub mod judge;
pub mod line;
pub mod link;
pub mod media;
pub mod playlist;
pub mod publisher;
pub mod quotas;
pub mod server;
pub mod trace;
pub mod ts;
pub mod unwrap;
pub mod upgrade;
pub mod viewer;
pub mod web;
pub mod wire;
pub mod world;
