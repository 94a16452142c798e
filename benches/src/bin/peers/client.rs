//! Runs swarm against a server and reads what it reports.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::quiet::{Before, user_ticks};
use crate::row::{FanInRow, Rates, Row};
use crate::servers::Running;

/// Players that come per second.
pub(crate) const RAMP_PER_S: u32 = 500;
/// After the last player came, until swarm counts the load as steady.
pub(crate) const SETTLE_S: u32 = 1;
/// Time for start and end of swarm itself.
const OVERHEAD: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(50);
/// Video and audio of a fan-in stream, together 1 Mb/s.
const FAN_IN_VIDEO: &str = "872k";
const FAN_IN_AUDIO: &str = "128k";

/// Players of one stream.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Play {
    pub(crate) players: u32,
    /// Seconds during which all are there.
    pub(crate) seconds: u32,
    /// Seconds the stream runs before the first comes: more than a GOP, so that a server that keeps
    /// one has one.
    pub(crate) lead_s: f64,
}

/// Publishers of many streams nobody watches.
#[derive(Copy, Clone, Debug)]
pub(crate) struct FanIn {
    pub(crate) publishers: u32,
    pub(crate) seconds: u32,
}

/// The load generator.
#[derive(Debug)]
pub(crate) struct Swarm {
    pub(crate) program: PathBuf,
    /// CPU of its threads.
    pub(crate) cpu: usize,
    /// Rates of the stream that is played.
    pub(crate) rates: Rates,
}

impl Swarm {
    pub(crate) fn play(&self, server: &Running, play: &Play) -> Result<Row, String> {
        let (result, others_percent) = self.play_raw(server, play)?;
        Ok(Row { others_percent, ..Row::of(&result, play.players, &self.rates)? })
    }

    /// The same, as swarm tells it.
    pub(crate) fn play_raw(&self, server: &Running, play: &Play) -> Result<(Value, f64), String> {
        let seconds = play.players.div_ceil(RAMP_PER_S) + SETTLE_S + play.seconds;
        self.run(
            server,
            seconds,
            &[
                "play",
                "--publish",
                &format!("--lead={}", play.lead_s),
                &format!("--players={}", play.players),
                &format!("--ramp={RAMP_PER_S}"),
                &format!("--bitrate={}", self.rates.video_bits),
                &format!("--audio-bitrate={}", self.rates.audio_bits),
            ],
        )
    }

    pub(crate) fn fan_in(&self, server: &Running, fan_in: &FanIn) -> Result<FanInRow, String> {
        let (result, others_percent) = self.run(
            server,
            SETTLE_S + 1 + fan_in.seconds,
            &[
                "publish",
                &format!("--streams={}", fan_in.publishers),
                &format!("--bitrate={FAN_IN_VIDEO}"),
                &format!("--audio-bitrate={FAN_IN_AUDIO}"),
            ],
        )?;
        Ok(FanInRow { others_percent, ..FanInRow::of(&result, fan_in.publishers)? })
    }

    /// Runs a command of swarm. Returns its final object, and what other programs used meanwhile.
    ///
    /// # Errors
    /// It did not end in time, or without a result.
    pub(crate) fn run(
        &self,
        server: &Running,
        seconds: u32,
        flags: &[&str],
    ) -> Result<(Value, f64), String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let out = folder.path().join("result.json");
        let cpu = self.cpu.to_string();
        let pids = server.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let is_tls = server.url.starts_with("rtmps:");
        let mut child = Command::new(&self.program)
            .args(flags)
            .args(["--url", &server.url, "--pid", &pids])
            .args(is_tls.then_some("--insecure"))
            .args(["--seconds", &seconds.to_string(), "--cpus", &cpu, "--publisher-cpu", &cpu])
            .arg("--out")
            .arg(&out)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        let before = Before::look(&server.pids);
        let mut own_ticks = 0;
        let limit = Instant::now() + Duration::from_secs(seconds.into()) + OVERHEAD;
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if Instant::now() < limit => {
                    own_ticks = user_ticks(child.id());
                    std::thread::sleep(LOOK);
                }
                None => {
                    // It is being given up: what kill and wait say changes nothing.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err("swarm did not end in time".into());
                }
            }
        };
        let others_percent = before.others_percent(&server.pids, own_ticks);
        let text = std::fs::read_to_string(&out)
            .map_err(|_| format!("swarm ended with {status} and without a result"))?;
        let result = serde_json::from_str(&text);
        let result: Value = result.map_err(|error| format!("swarm's result: {error}"))?;
        Ok((result, others_percent))
    }
}
