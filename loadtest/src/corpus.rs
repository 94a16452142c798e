//! The corpus of hostile cases: one peer each, what it does, and what a good server does to it.
//!
//! [`Behaviour`](crate::abuse::Behaviour) is a crowd that goes on for as long as a run lasts; a case here is
//! one script with an end: the server closes it in bounded time, or the case says that it may stay. Cases run
//! on blocking sockets, one after another, so that the server's memory before and after is the case's own;
//! those that wait for a deadline of the server run side by side at the end.

mod cases;
mod peer;

use crate::num::now_ns;
use crate::probe::Probe;
use peer::Peer;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

pub(crate) use cases::CASES;

/// Growth of the server's memory by one case that is no longer within bounds, in bytes: a message of the
/// largest size, held input and replies, and what an allocator keeps.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// What a good server does to a peer like this.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// Closes it, without waiting for any deadline.
    Closes,
    /// Closes it when a deadline of the server is over.
    ClosesLate,
    /// Keeps it: it costs nobody anything.
    Keeps,
}

/// Where a case knocks.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// The RTMP address.
    Rtmp,
    /// The address of viewers' HTTP, if there is one.
    Http,
}

/// One hostile peer.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) door: Door,
    pub(crate) expected: Expected,
    /// Does everything the peer does before it waits for its end.
    pub(crate) act: fn(&mut Peer),
}

/// Where the server is, and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) rtmp: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) app: String,
    /// Longest wait for an end.
    pub(crate) patience: Duration,
}

impl Scene {
    fn addr(&self, door: Door) -> Option<SocketAddr> {
        match door {
            Door::Rtmp => Some(self.rtmp),
            Door::Http => self.http,
        }
    }
}

/// How the server took a case.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) name: &'static str,
    /// `fin`, `reset`, `open` or why there was no connection.
    pub(crate) end: String,
    /// What the server said last that one can read: a status line, a code.
    pub(crate) said: String,
    pub(crate) after_ms: u64,
    pub(crate) sent_bytes: u64,
    /// Resident memory of the server before and after, where it can be seen.
    pub(crate) rss_bytes: Option<(u64, u64)>,
    pub(crate) failure: Option<String>,
}

/// Runs all cases the scene has a door for.
pub(crate) fn run(scene: &Scene, probe: &Probe) -> Vec<Verdict> {
    let open = || CASES.iter().filter(|case| scene.addr(case.door).is_some());
    let (late, soon): (Vec<&Case>, Vec<&Case>) =
        open().partition(|case| case.expected == Expected::ClosesLate);
    let rss = || probe.sees_process().then(|| probe.look().rss_bytes);
    let mut verdicts = Vec::new();
    for case in soon {
        let before = rss();
        let mut verdict = play(scene, case);
        note_memory(&mut verdict, before, rss());
        verdicts.push(verdict);
    }
    let before = rss();
    let together: Vec<_> = late
        .into_iter()
        .map(|case| {
            let scene = scene.clone();
            thread::spawn(move || play(&scene, case))
        })
        .collect();
    for thread in together {
        // A script that panics is a bug of ours and is told as such.
        let Ok(mut verdict) = thread.join() else { continue };
        note_memory(&mut verdict, before, rss());
        verdicts.push(verdict);
    }
    verdicts
}

fn note_memory(verdict: &mut Verdict, before: Option<u64>, after: Option<u64>) {
    let (Some(before), Some(after)) = (before, after) else { return };
    verdict.rss_bytes = Some((before, after));
    let grown = after.saturating_sub(before);
    if grown > GROWTH_BYTES_MAX && verdict.failure.is_none() {
        verdict.failure = Some(format!("the server's memory grew by {} MiB", grown >> 20));
    }
}

fn play(scene: &Scene, case: &Case) -> Verdict {
    let mut verdict = Verdict {
        name: case.name,
        end: String::new(),
        said: String::new(),
        after_ms: 0,
        sent_bytes: 0,
        rss_bytes: None,
        failure: None,
    };
    let Some(addr) = scene.addr(case.door) else { return verdict };
    let begun = now_ns();
    let mut peer = match Peer::connect(addr, scene) {
        Ok(peer) => peer,
        Err(error) => {
            verdict.end = error.to_string();
            verdict.failure = Some("no connection".to_owned());
            return verdict;
        }
    };
    (case.act)(&mut peer);
    if case.expected != Expected::Keeps {
        peer.wait_end();
    }
    verdict.after_ms = now_ns().saturating_sub(begun) / 1_000_000;
    verdict.end = peer.end().to_owned();
    verdict.said = peer.said();
    verdict.sent_bytes = peer.sent_bytes();
    if case.expected != Expected::Keeps && !peer.has_ended() {
        verdict.failure = Some(format!("still open after {} ms", verdict.after_ms));
    }
    verdict
}

/// For people: one line each.
pub(crate) fn text(verdicts: &[Verdict]) -> String {
    let mut out =
        String::from("case                   end      after      sent   memory   verdict\n");
    for one in verdicts {
        let memory = one.rss_bytes.map_or_else(String::new, |(before, after)| {
            let kib = |bytes: u64| i64::try_from(bytes >> 10).unwrap_or(i64::MAX);
            format!("{:+} KiB", kib(after) - kib(before))
        });
        let verdict = one.failure.as_deref().unwrap_or("pass");
        let said = if one.said.is_empty() { String::new() } else { format!("  ({})", one.said) };
        let _ = writeln!(
            out,
            "{:<22} {:<6} {:>6} ms {:>7} KiB {memory:>9} {verdict}{said}",
            one.name,
            one.end,
            one.after_ms,
            one.sent_bytes >> 10,
        );
    }
    out
}

/// For programs: one object.
pub(crate) fn json(verdicts: &[Verdict]) -> Value {
    let cases = verdicts.iter().map(|one| {
        json!({
            "name": one.name, "end": one.end, "said": one.said, "after_ms": one.after_ms,
            "sent_bytes": one.sent_bytes,
            "rss_bytes_before": one.rss_bytes.map(|(before, _)| before),
            "rss_bytes_after": one.rss_bytes.map(|(_, after)| after),
            "passed": one.failure.is_none(), "failure": one.failure,
        })
    });
    json!({ "type": "cases", "cases": cases.collect::<Vec<_>>() })
}
