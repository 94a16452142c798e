//! What one run says about one server: the columns, and whether the full rate was kept.

use serde::Serialize;
use serde_json::Value;

/// Least share of the nominal rate that the slowest hundredth of players must get. Not 1: a few
/// seconds hold one keyframe more or less.
const RATE_SHARE_MIN: f64 = 0.85;
/// Most latency that a player may gain per second.
const LAG_SLOPE_MS_PER_S_MAX: f64 = 50.0;

/// Rates of the stream that is played, bits per second.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Rates {
    pub(crate) video_bits: u32,
    pub(crate) audio_bits: u32,
}

impl Default for Rates {
    fn default() -> Rates {
        Rates { video_bits: 2_500_000, audio_bits: 128_000 }
    }
}

/// A measured row, or why there is none.
#[derive(Clone, Debug)]
pub(crate) struct Cell<R> {
    pub(crate) server: String,
    /// Players or publishers.
    pub(crate) load: u32,
    pub(crate) outcome: Result<R, String>,
}

/// Players of one stream. CPU is of the server with ksoftirqd, in percent of a core; times are
/// milliseconds.
#[derive(Clone, PartialEq, Serialize, Debug, Default)]
pub(crate) struct Row {
    pub(crate) cpu_s_per_gb: f64,
    pub(crate) cpu_percent_per_1000: f64,
    pub(crate) server_cpu_percent: f64,
    pub(crate) ksoftirqd_percent: f64,
    /// From the connect call to the first complete keyframe.
    pub(crate) first_frame_ms_p50: Option<f64>,
    pub(crate) first_frame_ms_p99: Option<f64>,
    /// From the play command.
    pub(crate) play_to_frame_ms_p50: Option<f64>,
    pub(crate) play_to_frame_ms_p99: Option<f64>,
    /// From the publisher's clock, all players being there.
    pub(crate) latency_ms_p50: Option<f64>,
    pub(crate) latency_ms_p99: Option<f64>,
    /// The same of keyframes.
    pub(crate) latency_keyframe_ms_p50: Option<f64>,
    pub(crate) latency_keyframe_ms_p99: Option<f64>,
    /// Resident memory of the server at its largest.
    pub(crate) rss_mb: Option<f64>,
    /// Of the load generator: near 100 the row says nothing about the server.
    pub(crate) own_cpu_percent_max: f64,
    /// The same of the busiest CPU of its threads, with all that ran there.
    pub(crate) own_core_busy_percent: Option<f64>,
    /// User time of programs that have nothing to do with it: a quiet machine has next to none.
    pub(crate) others_percent: f64,
    /// Why the full rate was not kept; none when it was.
    pub(crate) behind: Option<String>,
    /// Doubts of the load generator.
    pub(crate) notes: Vec<String>,
}

impl Row {
    /// Reads swarm's final object.
    pub(crate) fn of(result: &Value, players: u32, rates: &Rates) -> Result<Row, String> {
        let metric = |name: &str| result["metrics"][name].as_f64();
        let needed = |name: &str| metric(name).ok_or_else(|| format!("swarm did not tell {name}"));
        Ok(Row {
            cpu_s_per_gb: needed("cpu_s_per_gb")?,
            cpu_percent_per_1000: needed("cpu_percent_per_1000")?,
            server_cpu_percent: needed("server_cpu_percent")?,
            ksoftirqd_percent: needed("ksoftirqd_percent")?,
            first_frame_ms_p50: metric("first_keyframe_ms_p50"),
            first_frame_ms_p99: metric("first_keyframe_ms_p99"),
            play_to_frame_ms_p50: metric("play_to_keyframe_ms_p50"),
            play_to_frame_ms_p99: metric("play_to_keyframe_ms_p99"),
            latency_ms_p50: metric("latency_steady_ms_p50").or(metric("latency_ms_p50")),
            latency_ms_p99: metric("latency_steady_ms_p99").or(metric("latency_ms_p99")),
            latency_keyframe_ms_p50: metric("latency_keyframe_ms_p50"),
            latency_keyframe_ms_p99: metric("latency_keyframe_ms_p99"),
            rss_mb: metric("rss_mb"),
            own_cpu_percent_max: needed("own_cpu_percent_max")?,
            own_core_busy_percent: metric("own_core_busy_percent"),
            others_percent: 0.0,
            behind: behind(&metric, players, rates),
            notes: texts(&result["notes"]),
        })
    }
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Why the server did not keep the full rate for everyone, by swarm's metrics; `None`: it did.
pub(crate) fn behind(
    metric: &dyn Fn(&str) -> Option<f64>,
    players: u32,
    rates: &Rates,
) -> Option<String> {
    let of = |name: &str| metric(name).unwrap_or(0.0);
    let joined = of("joined");
    if joined < f64::from(players) {
        return Some(format!("{joined} of {players} joined"));
    }
    for what in ["failed", "lost", "corrupt"] {
        let count = of(what);
        if count > 0.0 {
            return Some(format!("{count} {what}"));
        }
    }
    let nominal_kbps = f64::from(rates.video_bits + rates.audio_bits) / 1e3;
    let slowest_kbps = of("bitrate_kbps_p1");
    if slowest_kbps < RATE_SHARE_MIN * nominal_kbps {
        return Some(format!("{slowest_kbps:.0} of {nominal_kbps:.0} kb/s"));
    }
    let slope = of("lag_slope_ms_per_s_max");
    (slope > LAG_SLOPE_MS_PER_S_MAX).then(|| format!("{slope:.0} ms later each second"))
}

/// Publishers nobody watches.
#[derive(Clone, PartialEq, Serialize, Debug, Default)]
pub(crate) struct FanInRow {
    /// Of the server with ksoftirqd.
    pub(crate) cpu_percent_per_stream: f64,
    pub(crate) rss_mb: f64,
    pub(crate) own_cpu_percent_max: f64,
    /// User time of programs that have nothing to do with it: a quiet machine has next to none.
    pub(crate) others_percent: f64,
    pub(crate) notes: Vec<String>,
}

impl FanInRow {
    /// Reads swarm's final object: the samples in which every publisher was there, the first of
    /// them left out.
    pub(crate) fn of(result: &Value, publishers: u32) -> Result<FanInRow, String> {
        let all_there = |sample: &&Value| sample["publishing"].as_u64() == Some(publishers.into());
        let samples = result["samples"].as_array().into_iter().flatten();
        let samples: Vec<&Value> = samples.filter(all_there).skip(1).collect();
        if samples.is_empty() {
            return Err(format!("{publishers} publishers were never there together"));
        }
        let number = |sample: &Value, name: &str| sample[name].as_f64().unwrap_or(0.0);
        let mut cpu_seconds = 0.0;
        let mut seconds = 0.0;
        for sample in &samples {
            let percent =
                number(sample, "server_cpu_percent") + number(sample, "ksoftirqd_percent");
            cpu_seconds += percent * number(sample, "seconds");
            seconds += number(sample, "seconds");
        }
        if cpu_seconds <= 0.0 {
            return Err("swarm did not tell the server's CPU".into());
        }
        let rss_mb = samples.iter().map(|sample| number(sample, "rss_mb")).fold(0.0, f64::max);
        Ok(FanInRow {
            cpu_percent_per_stream: cpu_seconds / seconds / f64::from(publishers),
            rss_mb,
            own_cpu_percent_max: result["metrics"]["own_cpu_percent_max"].as_f64().unwrap_or(0.0),
            others_percent: 0.0,
            notes: texts(&result["notes"]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn result(changes: &[(&str, f64)]) -> Value {
        let mut metrics = json!({
            "cpu_s_per_gb": 0.5, "cpu_percent_per_1000": 16.0, "server_cpu_percent": 15.0,
            "ksoftirqd_percent": 1.0, "own_cpu_percent_max": 40.0, "joined": 20.0,
            "bitrate_kbps_p1": 2_600.0, "latency_ms_p50": 0.5, "latency_steady_ms_p50": 0.4,
        });
        for (name, value) in changes {
            metrics[*name] = json!(value);
        }
        json!({ "metrics": metrics, "notes": ["a doubt"] })
    }

    fn behind_of(changes: &[(&str, f64)]) -> Option<String> {
        Row::of(&result(changes), 20, &Rates::default()).unwrap().behind
    }

    #[test]
    fn a_row_is_read_from_the_result() {
        let row = Row::of(&result(&[]), 20, &Rates::default()).unwrap();
        assert_eq!((row.cpu_s_per_gb, row.latency_ms_p50, row.behind), (0.5, Some(0.4), None));
        assert_eq!(row.notes, ["a doubt"]);
        assert!(Row::of(&json!({}), 20, &Rates::default()).is_err());
    }

    #[test]
    fn a_server_is_behind_when_players_are_missing_or_get_less_or_later() {
        assert_eq!(behind_of(&[("joined", 19.0)]).as_deref(), Some("19 of 20 joined"));
        assert_eq!(behind_of(&[("lost", 3.0)]).as_deref(), Some("3 lost"));
        assert_eq!(
            behind_of(&[("bitrate_kbps_p1", 2_000.0)]).as_deref(),
            Some("2000 of 2628 kb/s")
        );
        assert!(behind_of(&[("lag_slope_ms_per_s_max", 80.0)]).is_some());
        assert_eq!(behind_of(&[("lag_slope_ms_per_s_max", 5.0)]), None);
    }

    #[test]
    fn fan_in_counts_samples_with_all_publishers_only() {
        let sample = |publishing: u64, percent: f64| {
            json!({"publishing": publishing, "seconds": 1.0, "server_cpu_percent": percent,
                   "ksoftirqd_percent": 1.0, "rss_mb": 9.0})
        };
        let samples = [sample(3, 90.0), sample(10, 50.0), sample(10, 19.0), sample(10, 19.0)];
        let result = json!({"samples": samples, "metrics": {}});
        let row = FanInRow::of(&result, 10).unwrap();
        assert_eq!((row.cpu_percent_per_stream, row.rss_mb), (2.0, 9.0));
        assert!(FanInRow::of(&result, 11).is_err());
    }
}
