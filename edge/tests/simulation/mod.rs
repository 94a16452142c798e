//! Parts of the simulated world; see the test file beside this folder.

pub mod actions;
pub mod days;
pub mod dice;
pub mod flv;
pub mod judge;
pub mod line;
pub mod link;
pub mod media;
pub mod publisher;
pub mod server;
pub mod trace;
pub mod viewer;
pub mod web;
pub mod world;
