//! Small programs for people who work on or run Ringcast: what they share.
//!
//! Each program is one file in `src/bin` over one module here, so that the work can be tested and the
//! program is only its command line. Nothing of the server depends on this crate.
//!
//! | program | what it does |
//! |---|---|
//! | `capture` | recording TCP proxy: what a client and a server say to each other, byte by byte |
//! | `rtmp-inspect` | recorded bytes of one direction, in words |
//! | `hostcheck` | compares this host with `tuning/` and prints the differences |
//! | `tidy` | the house rules no compiler checks |

pub mod capture;
pub mod cli;
pub mod hostcheck;
pub mod tidy;
