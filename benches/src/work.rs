//! The measured parts, one module per piece of the data path.

pub mod amf0;
pub mod chunk_reader;
pub mod chunk_writer;
pub mod crowd;
pub mod echo;
pub mod fan_out;
pub mod floor;
pub mod gop_join;
pub mod handshake;
pub mod packaging;
pub mod publish;
pub mod rig;
