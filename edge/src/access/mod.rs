//! Who may publish and play: one question with one shape, asked for every publish and play.
//!
//! The worker asks [`Rules::decide`], which answers at once from an immutable snapshot: no system call, no
//! waiting, no lock but the short one of a per-address quota. Where the answer must come from outside the
//! process ([`Decision::Ask`]) the worker hands the question to [`Rules::ask`] and the connection (never
//! the worker) waits for `Command::Answer`. The control thread makes the snapshots: [`manager`] puts the
//! configuration, the [`store`] and the forbids together and publishes them as `Command::Rules`.
//!
//! ```text
//!   worker                                             control thread
//!   Question ─► Rules::decide ─► Allow(Grant)          manager: config + store ─► Rules ─► every worker
//!                     │        ─► Deny(Denial)         admin API, ringctl
//!                     └──────────► Ask ─► queue ─────► hook: cache, breaker, HTTP ─► Command::Answer
//! ```
//!
//! - [`spec`]: what a domain is, as written in the file, the API and the store. [`secret`]: where keys are.
//! - [`domain`]: a domain ready for use. [`rules`]: the snapshot, and the order in which things are checked.
//! - [`providers`]: the schemes themselves, pure functions. [`quota`]: what a domain may hold at one time.
//! - [`forbid`]: streams and addresses that are shut out for a while.
//! - [`hook`]: decisions made by somebody else's HTTP server.
//!
//! Order: forbidden address, domain, role, names, forbidden stream, providers, quotas. An answer given once
//! is never taken back because an address expired: only new requests are checked.

pub mod build;
pub mod check;
pub mod domain;
pub mod forbid;
pub mod hook;
pub mod keys;
pub mod manager;
pub mod providers;
pub mod quota;
pub mod rules;
pub mod secret;
pub mod spec;
pub mod store;

use std::fmt;
use std::net::IpAddr;

use live::path::{Resolved, StreamPath};
use rtmp::session::ConnectRequest;

use self::providers::Tracks;
use crate::command::ConnectionId;
use crate::config::DuplicatePublish;

pub use crate::metrics::DenyReason;
pub use hook::{HookAnswer, HookQuestion};
pub use rules::Rules;

/// What the peer wants to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Publish a stream.
    Publish,
    /// Play a stream.
    Play,
}

impl Role {
    /// The word used in texts and hooks.
    pub fn text(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

/// What kind of address asked. Type A signatures cover it, txSecret does not.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum Suffix {
    /// RTMP: no suffix.
    #[default]
    None,
    /// HTTP-FLV.
    Flv,
    /// An HLS playlist.
    M3u8,
    /// Fragmented MP4.
    Mp4,
}

impl Suffix {
    /// As it stands in the address, with its dot; empty for RTMP.
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Flv => ".flv",
            Self::M3u8 => ".m3u8",
            Self::Mp4 => ".mp4",
        }
    }
}

/// May this peer do this with this stream, now?
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What it wants to do.
    pub role: Role,
    /// Which stream it means, as `live::path` resolved it: before any vhost of the configuration is put
    /// in, because the host the peer wrote names the domain.
    pub resolved: &'a Resolved,
    /// Address of the peer.
    pub peer: IpAddr,
    /// Now, in Unix seconds.
    pub unix_s: u64,
    /// Kind of address that asked.
    pub suffix: Suffix,
    /// The connection, for the log and for the way back of an answer.
    pub connection: ConnectionId,
    /// What it said of itself, where it is an RTMP connection.
    pub connect: Option<&'a Introduction>,
    /// It has a place in the quotas already, and asks again only whether it may go on.
    pub is_renewal: bool,
}

/// What is kept of a connect command: each connection has one as long as it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// `app`.
    pub app: Box<str>,
    /// `tcUrl`.
    pub tc_url: Option<Box<str>>,
    /// `pageUrl`.
    pub page_url: Option<Box<str>>,
    /// `flashVer`.
    pub flash_ver: Option<Box<str>>,
}

impl From<ConnectRequest> for Introduction {
    fn from(request: ConnectRequest) -> Self {
        Self {
            app: request.app.into(),
            tc_url: request.tc_url.map(Into::into),
            page_url: request.page_url.map(Into::into),
            flash_ver: request.flash_ver.map(Into::into),
        }
    }
}

/// The answer.
#[derive(Debug)]
pub enum Decision {
    /// Go ahead.
    Allow(Grant),
    /// Refused.
    Deny(Denial),
    /// Somebody outside decides: hand it to [`Rules::ask`].
    Ask(Box<HookQuestion>),
}

/// Permission, and what is bound to it. The connection keeps it as long as it publishes or plays: dropping
/// it gives back its place in the domain's quotas.
#[derive(Debug)]
pub struct Grant {
    /// Identity of the stream: association, App isolation and renames applied. Publisher and players of
    /// one stream get equal paths.
    pub path: StreamPath,
    /// Most bits per second a publisher may send on average; see [`quota::BitrateMeter`].
    pub bitrate_bps_max: Option<u64>,
    /// How long a publisher may exceed it before it is cut, in milliseconds. Meanwhile it is warned of.
    pub bitrate_cut_ms: u64,
    /// Kinds of media a publisher may send: a ticket may give less than all.
    pub tracks: Tracks,
    /// Whom the ticket names, for the log.
    pub user: Option<Box<str>>,
    /// What a second publisher meets; `None` leaves it to the vhost.
    pub duplicate_publish: Option<DuplicatePublish>,
    /// The domain has all the publishers it may have, and this one may only replace another: refuse with
    /// this unless it takes a live stream over. Set only where the domain's policy is takeover.
    pub over_quota: Option<Box<Denial>>,
    /// Longest time this permission lasts, in seconds from now; `None` is until it leaves by itself.
    /// Only hooks set it.
    pub lifetime_s_max: Option<u64>,
    /// The place taken in the quotas; `None` outside any domain.
    pub place: Option<quota::Place>,
}

impl Grant {
    /// Permission for a stream outside any domain.
    pub fn unlimited(path: StreamPath) -> Self {
        Self {
            path,
            bitrate_bps_max: None,
            bitrate_cut_ms: 0,
            tracks: Tracks::default(),
            user: None,
            duplicate_publish: None,
            over_quota: None,
            lifetime_s_max: None,
            place: None,
        }
    }
}

/// Refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// Exact text for the wire. Holds no secret.
    pub text: String,
    /// Label for metrics and log.
    pub reason: DenyReason,
    /// Sub code of the failure map (500 no time, 503 hash mismatch, 305 forbidden...); 0 if it has none.
    pub event_code: u16,
}

impl Denial {
    /// A refusal.
    pub fn new(reason: DenyReason, event_code: u16, text: impl Into<String>) -> Self {
        Self { text: text.into(), reason, event_code }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Questions and rules to try things on.

    use std::sync::Arc;

    use live::path::resolve;

    use super::manager::Manager;
    use super::*;
    use crate::config::{Config, Source};

    /// A configuration read from text.
    pub(crate) fn config(text: &str) -> Arc<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringcast.toml");
        std::fs::write(&file, text).unwrap();
        Arc::new(Source { file: Some(file), ..Source::default() }.load().unwrap().config)
    }

    /// The rules of a configuration read from text.
    pub(crate) fn rules(text: &str) -> Arc<Rules> {
        Manager::open(config(text), 0).unwrap().rules()
    }

    /// What the rules say to an address, asked from 192.0.2.7 at 1,000.
    pub(crate) fn ask(rules: &Rules, role: Role, url: &str) -> Decision {
        ask_from(rules, role, url, [192, 0, 2, 7].into(), 1_000)
    }

    /// What the rules say to an address.
    pub(crate) fn ask_from(
        rules: &Rules,
        role: Role,
        url: &str,
        peer: IpAddr,
        unix_s: u64,
    ) -> Decision {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (tc_url, name) = base.rsplit_once('/').unwrap();
        let app = tc_url.splitn(4, '/').nth(3).unwrap();
        let resolved = resolve(app, Some(tc_url), &format!("{name}?{query}")).unwrap();
        let connection = ConnectionId { worker: 0, serial: 1 };
        let suffix = Suffix::None;
        let resolved = &resolved;
        rules.decide(&Question {
            role,
            resolved,
            peer,
            unix_s,
            suffix,
            connection,
            connect: None,
            is_renewal: false,
        })
    }

    /// The permission, or a panic with the refusal.
    pub(crate) fn allowed(decision: Decision) -> Grant {
        match decision {
            Decision::Allow(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    /// The refusal, or a panic with the permission.
    pub(crate) fn denied(decision: Decision) -> Denial {
        match decision {
            Decision::Deny(denial) => denial,
            other => panic!("{other:?}"),
        }
    }

    /// The question for the hook, or a panic.
    pub(crate) fn asked(decision: Decision) -> Box<HookQuestion> {
        match decision {
            Decision::Ask(question) => question,
            other => panic!("{other:?}"),
        }
    }
}
