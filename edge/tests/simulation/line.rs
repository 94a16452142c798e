//! How a viewer is connected: by RTMP or over HTTP. Above it the two are heard and judged alike.

use std::net::SocketAddr;

use rtmp::Millis;

use super::link::{Heard, Link};
use super::unwrap::Form;
use super::web::WebLink;

#[derive(Debug)]
pub enum Line {
    Rtmp(Box<Link>),
    Web(Box<WebLink>),
}

impl Line {
    pub fn is_open(&self) -> bool {
        match self {
            Self::Rtmp(link) => link.is_open(),
            Self::Web(link) => link.is_open(),
        }
    }

    /// Its own address, while its socket is open.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Rtmp(link) => link.local_addr(),
            Self::Web(link) => link.local_addr(),
        }
    }

    /// Nothing is to come any more: it was refused, or told the end of the stream.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Rtmp(_) => false,
            Self::Web(link) => link.is_over(),
        }
    }

    /// Moves bytes both ways, at most `read_bytes_max` in.
    pub fn turn(&mut self, now: Millis, read_bytes_max: usize) -> Result<Vec<Heard>, String> {
        match self {
            Self::Rtmp(link) => link.turn(now, read_bytes_max),
            Self::Web(link) => link.turn(now, read_bytes_max),
        }
    }

    /// When it has something more to say.
    pub fn next_at_ms(&self, now_ms: u64) -> u64 {
        match self {
            Self::Rtmp(_) => u64::MAX,
            Self::Web(link) => link.next_at_ms(now_ms),
        }
    }

    /// Lets go of the socket, in order or with a reset.
    pub fn hang_up(&mut self, reset: bool) {
        match self {
            Self::Rtmp(link) => link.hang_up(reset),
            Self::Web(link) => link.hang_up(reset),
        }
    }

    pub fn rtmp(&mut self) -> Option<&mut Link> {
        match self {
            Self::Rtmp(link) => Some(link),
            Self::Web(_) => None,
        }
    }

    pub fn web(&mut self) -> Option<&mut WebLink> {
        match self {
            Self::Rtmp(_) => None,
            Self::Web(link) => Some(link),
        }
    }

    /// The end of the connection is all it hears of the end of the stream.
    pub fn is_bare(&self) -> bool {
        matches!(self, Self::Web(link) if link.form() == Form::Bare)
    }

    /// It takes fragmented MP4.
    pub fn is_fragmented(&self) -> bool {
        matches!(self, Self::Web(link) if link.is_fragmented())
    }

    pub fn is_web(&self) -> bool {
        matches!(self, Self::Web(_))
    }

    /// What was heard by RTMP, read once more by the reference reader, must say the same.
    pub fn judge_by_reference(&self) -> Result<(), String> {
        match self {
            Self::Rtmp(link) => link.judge_by_reference(),
            Self::Web(_) => Ok(()),
        }
    }
}
