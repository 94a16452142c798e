//! From flags to a plan.

use super::Failure;
use crate::arrivals::{Arrivals, Disturbance};
use crate::cli::{Common, MediaArgs, ViewArgs};
use crate::http::{Format, HlsMode};
use crate::num::{MS_NS, SECOND_NS, now_ns, seconds_ns};
use crate::plan::{Audience, Media, Plan, Popularity, client_configs, watched};
use crate::player::Judging;
use crate::probe::Probe;
use crate::run::SAMPLES_MAX;
use crate::secure::{Security, Trust};
use crate::slo::Slo;
use crate::source::{FlvFile, SyntheticConfig};
use crate::target::Target;
use rtmp::session::ClientRole;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use uring::affinity;

/// After the threads begin, until the first connects.
const START_NS: u64 = 50 * MS_NS;
/// After the last player came, until its beginnings no longer count.
const SETTLE_NS: u64 = SECOND_NS;
/// Length of a sample unless the run is very long.
const INTERVAL_NS: u64 = SECOND_NS;
/// Descriptors used for other things than connections.
const DESCRIPTORS_OTHER: u64 = 64;

/// A plan in the making. Times in it are relative until [`Built::seal`].
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) common: Common,
    pub(crate) plan: Plan,
    probe: Probe,
    seconds: f64,
}

impl Built {
    /// A plan that does nothing for `seconds`, unless the flags say how long.
    ///
    /// # Errors
    /// A flag makes no sense, or names what is not there.
    pub(crate) fn new(common: &Common, seconds: f64) -> Result<Built, Failure> {
        let target = Target::parse(&common.url, common.i_own_this_network);
        let target = at_hand(common, target.map_err(|error| Failure::Usage(error.0))?)?;
        let publish_target = publish_target(common, &target)?;
        if common.asks_for_tls() && !target.scheme.is_tls() && !publish_target.scheme.is_tls() {
            let refusal =
                "--insecure, --ca and --tls-name need an rtmps://, https:// or wss:// address";
            return Err(Failure::Usage(refusal.into()));
        }
        let security_of = |target: &Target| security(common, target).map_err(Failure::Usage);
        let (security, publish_security) = (security_of(&target)?, security_of(&publish_target)?);
        Slo::parse(common.slo.as_deref().unwrap_or_default())
            .map_err(|error| Failure::Usage(format!("--slo {error}")))?;
        let probe = Probe::new(&common.pid, common.metrics.as_deref()).map_err(Failure::Usage)?;
        if !common.recv_buffers.is_power_of_two() || common.recv_buffers > 32_768 {
            return Err(Failure::Usage("--recv-buffers: a power of two up to 32768".into()));
        }
        let streams = usize::try_from(common.streams).unwrap_or(1);
        let cpus = cpus(common);
        let plan = Plan {
            watched: watched(&target, streams, HlsMode::Auto, false),
            publisher_config: client_configs(&publish_target, streams, ClientRole::Publish),
            target,
            publish_target,
            streams,
            publish: None,
            arrivals: Arrivals::at_once(0),
            audience: Audience::new(streams, Popularity::Even),
            hostile: Vec::new(),
            disturbance: None,
            shakers: 0,
            shakers_resume: false,
            security,
            publish_security,
            judging: Judging {
                clock: common.clock.into(),
                buffer_ns: SECOND_NS,
                check_every: 16,
                steady_ns: 0,
                disturbed: None,
            },
            start_ns: 0,
            play_ns: 0,
            hostile_ns: 0,
            end_ns: 0,
            interval_ns: INTERVAL_NS,
            publisher_cpu: common.publisher_cpu.or(cpus.last().copied().flatten()),
            cpus,
            io: common.io.into(),
            recv_buffers: common.recv_buffers,
            seed: common.seed,
        };
        let seconds = common.seconds.unwrap_or(seconds);
        Ok(Built { common: common.clone(), plan, probe, seconds })
    }

    /// Publishes the streams, `lead` seconds before anybody plays.
    ///
    /// # Errors
    /// The file cannot be played.
    pub(crate) fn publish(&mut self, args: &MediaArgs, lead: f64) -> Result<(), Failure> {
        let media = match &args.flv {
            Some(path) => {
                let file = FlvFile::open(path).map_err(|error| Failure::Usage(error.to_string()));
                Media::Flv(Arc::new(file?))
            }
            None => Media::Synthetic(SyntheticConfig {
                codec: args.codec,
                bitrate: args.bitrate,
                audio_bitrate: args.audio_bitrate,
                fps: args.fps,
                gop: args.gop,
                keyframe_ratio: args.keyframe_ratio,
            }),
        };
        if self.plan.publish_target.scheme.is_http() {
            return Err(Failure::Usage("streams are published by RTMP: say --publish-url".into()));
        }
        self.plan.publish = Some(media);
        self.plan.play_ns = seconds_ns(lead);
        Ok(())
    }

    /// Lets players come.
    ///
    /// # Errors
    /// What they are to watch cannot be played.
    pub(crate) fn play(&mut self, view: &ViewArgs, arrivals: Arrivals) -> Result<(), Failure> {
        let target = &self.plan.target;
        let is_websocket = target.scheme.is_websocket();
        match target.format() {
            _ if !target.scheme.is_http() => {}
            None | Some(Format::File) => {
                let what = "no stream: the address ends with none of .flv, .mp4 and .m3u8";
                return Err(Failure::Usage(format!("{}: {what}", self.common.url)));
            }
            Some(Format::Hls) if is_websocket => {
                let what = "playlists are not sent by WebSocket";
                return Err(Failure::Usage(format!("{}: {what}", self.common.url)));
            }
            Some(_) => {}
        }
        self.plan.watched = watched(target, self.plan.streams, view.hls, false);
        self.plan.audience = Audience::new(self.plan.streams, view.popularity);
        self.plan.judging.buffer_ns = u64::from(view.buffer_ms) * MS_NS;
        self.plan.judging.check_every = view.check;
        self.plan.arrivals = arrivals;
        Ok(())
    }

    /// Lets so many ask for segments, each for one after the other.
    ///
    /// # Errors
    /// The address is none of HTTP.
    pub(crate) fn fetch(&mut self, parallel: u64) -> Result<(), Failure> {
        let target = &self.plan.target;
        if !target.scheme.is_http() || target.scheme.is_websocket() {
            let url = &self.common.url;
            return Err(Failure::Usage(format!("fetch: {url} is no http:// address")));
        }
        self.plan.watched = watched(target, self.plan.streams, HlsMode::Auto, true);
        self.plan.arrivals = Arrivals::at_once(parallel);
        Ok(())
    }

    /// Disturbs the players, once they are there.
    pub(crate) fn disturb(&mut self, disturbance: Disturbance) {
        self.plan.disturbance = Some(disturbance);
        self.plan.hostile_ns = disturbance.at_ns;
    }

    /// How long players play, seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Fixes the times: the plan begins now.
    pub(crate) fn seal(self) -> (Plan, Probe) {
        let Built { mut plan, probe, seconds, .. } = self;
        let publishers = if plan.publish.is_some() { plan.streams as u64 } else { 0 };
        let hostile = plan.hostile.len() as u64;
        let storm = plan.disturbance.map_or(0, |disturbance| disturbance.storm);
        let players = plan.arrivals.count + storm + plan.shakers;
        raise_descriptors(players + publishers + hostile + DESCRIPTORS_OTHER);
        plan.start_ns = now_ns() + START_NS;
        plan.play_ns += plan.start_ns;
        plan.end_ns = plan.play_ns + seconds_ns(seconds);
        // A player that comes and goes is there from the start, as far as the load is concerned.
        let ramp_ns = plan.arrivals.ramp_ns();
        plan.judging.steady_ns = plan.play_ns.saturating_add(ramp_ns.saturating_add(SETTLE_NS));
        plan.hostile_ns += plan.play_ns;
        plan.judging.disturbed = plan.disturbance.map(|disturbance| {
            let begin_ns = plan.play_ns + disturbance.at_ns;
            (begin_ns, begin_ns.saturating_add(disturbance.lasts_ns))
        });
        let shortest = seconds_ns(seconds) / SAMPLES_MAX;
        plan.interval_ns = shortest.div_ceil(SECOND_NS).max(1) * SECOND_NS;
        if seconds < 4.0 {
            plan.interval_ns = SECOND_NS / 4;
        }
        (plan, probe)
    }
}

/// The addresses a target is reached at, and ours.
fn at_hand(common: &Common, mut target: Target) -> Result<Target, Failure> {
    target.spread(common.spread).map_err(|error| Failure::Usage(error.0))?;
    if let Some(list) = &common.sources {
        target.come_from(list).map_err(|error| Failure::Usage(error.0))?;
    }
    Ok(target)
}

/// Where publishers go.
fn publish_target(common: &Common, target: &Target) -> Result<Target, Failure> {
    let url = match &common.publish_url {
        Some(url) => url.clone(),
        None if target.scheme.is_http() => target.publish_url(),
        None => return Ok(target.clone()),
    };
    let parsed = Target::parse(&url, common.i_own_this_network);
    // A file that is only fetched need have no stream behind it.
    let parsed = match (parsed, &common.publish_url) {
        (Err(_), None) => return Ok(target.clone()),
        (parsed, _) => {
            parsed.map_err(|error| Failure::Usage(format!("--publish-url {}", error.0)))?
        }
    };
    if parsed.scheme.is_http() {
        return Err(Failure::Usage(format!("--publish-url {url}: use rtmp or rtmps")));
    }
    at_hand(common, parsed)
}

/// TLS, if the target's scheme has it.
fn security(common: &Common, target: &Target) -> Result<Option<Security>, String> {
    if !target.scheme.is_tls() {
        return Ok(None);
    }
    let trust = match &common.ca {
        _ if common.insecure => Trust::Anybody,
        Some(file) => Trust::Authority(file),
        None => Trust::System,
    };
    let name = common.tls_name.as_deref().unwrap_or(&target.host);
    let security = Security::new(trust, name, common.tls_resume);
    security.map(Some).map_err(|error| format!("{}: {error}", common.url))
}

/// By default one thread on the last CPU: servers tend to begin with the first.
fn cpus(common: &Common) -> Vec<Option<usize>> {
    match &common.cpus {
        Some(list) if list.0.is_empty() => vec![None],
        Some(list) => list.0.iter().copied().map(Some).collect(),
        None => vec![affinity::allowed_cpus().last().copied()],
    }
}

/// Raises the limit of open files as far as allowed, and says when that is not far enough.
fn raise_descriptors(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    if let Some(allowed) = allowed.filter(|&allowed| allowed < needed) {
        eprintln!("swarm: {needed} open files needed, {allowed} allowed: raise ulimit -n");
    }
}
