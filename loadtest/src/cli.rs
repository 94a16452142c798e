//! The command line: what can be asked for, with its defaults and bounds.

use crate::abuse::Behaviour;
use crate::arrivals::Ramp;
use crate::http::HlsMode;
use crate::num::MediaClock;
use crate::plan::Popularity;
use crate::source::CodecTag;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Load generator for streaming servers: publishers and players that measure without decoding.
///
/// Every command ends by itself (--seconds) and, unless told otherwise, talks to this machine only.
/// Exit codes: 0 done, 1 it failed or an objective was missed, 2 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "swarm", version, arg_required_else_help = true, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Publish streams
    ///
    /// Examples:
    ///   swarm publish --streams 200 --bitrate 1M --pid $(pidof ringcast)
    ///   swarm publish --flv talk.flv --seconds 60
    #[command(verbatim_doc_comment)]
    Publish(PublishArgs),
    /// Play streams, and publish them too with --publish
    ///
    /// Examples:
    ///   swarm play --publish --players 1000 --ramp 500 --pid $(pidof ringcast)
    ///   swarm play --publish --streams 50 --players 2000 --popularity zipf:1.1
    ///   swarm play --publish --slo 'p99_latency<500ms,stall<0.1%'
    ///   swarm play --publish --players 100 --storm 2000 --bitrate 8M --gop 4
    ///   swarm play --publish --url rtmps://127.0.0.1/live --insecure
    ///   swarm play --publish --url http://127.0.0.1:8080/live/x.flv --players 500
    ///   swarm play --publish --url ws://127.0.0.1:8080/live/x.mp4
    ///   swarm play --publish --url http://127.0.0.1:8080/live/x.m3u8 --hls hint
    #[command(verbatim_doc_comment)]
    Play(PlayArgs),
    /// Join and leave all the time, and count what fails
    ///
    /// Example: swarm churn --publish --rate 200 --stay 1 --seconds 10
    #[command(verbatim_doc_comment)]
    Churn(ChurnArgs),
    /// Play for long and fail when latency, memory or descriptors creep
    ///
    /// Each slope is that of least squares behind a warm-up (a quarter of the run, ten minutes at most), and
    /// counts when it is above its limit by three standard errors.
    /// Examples:
    ///   swarm soak --publish --players 200 --seconds 3600 --pid $(pidof ringcast)
    ///   swarm soak --publish --players 200 --stay 5 --seconds 3600 --pid $(pidof ringcast)
    #[command(verbatim_doc_comment)]
    Soak(SoakArgs),
    /// Behave badly while a witness plays, and fail when the witness suffers
    ///
    /// Example: swarm abuse --each 20 --seconds 10
    #[command(verbatim_doc_comment)]
    Abuse(AbuseArgs),
    /// TLS handshakes per second, full and resumed
    ///
    /// Each connection shakes hands and leaves; --parallel of them at a time.
    /// Example: swarm tls --url rtmps://127.0.0.1:1936/live --insecure --pid $(pidof ringcast)
    #[command(verbatim_doc_comment)]
    Tls(TlsArgs),
    /// Ask for segments of HLS, or any file, as fast as they come
    ///
    /// Each of --parallel connections asks for one segment of the playlist after the other; the playlist is
    /// read again once a second.
    /// Example: swarm fetch --url http://127.0.0.1:8080/live/x.m3u8 --pid $(pidof ringcast)
    #[command(verbatim_doc_comment)]
    Fetch(FetchArgs),
    /// Print two numbers: subscribers per core without a stall, and p99 from join to keyframe
    ///
    /// Needs a running server. Its process is found by its port if it runs on this machine as the same
    /// user; otherwise say --pid.
    /// Example: swarm canonical
    #[command(verbatim_doc_comment)]
    Canonical(CanonicalArgs),
    /// Run a scenario file
    ///
    /// Example: swarm run scenarios/join-storm.toml -- --pid $(pidof ringcast)
    #[command(verbatim_doc_comment)]
    Run(RunArgs),
    /// Compare two result files
    ///
    /// Example: swarm compare before.json after.json
    #[command(verbatim_doc_comment)]
    Compare(CompareArgs),
}

/// Flags of every command that makes a load.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Server and app: rtmp://HOST:PORT/APP/NAME or rtmps://…, of which PORT and NAME may be left
    /// out; to watch also http://HOST:PORT/APP/NAME.flv, .mp4 or .m3u8, and ws:// with the first two,
    /// or https:// and wss://. Several streams are called NAME-0, NAME-1 ...
    #[arg(long, default_value = "rtmp://127.0.0.1/live")]
    pub(crate) url: String,
    /// Where to publish what is watched over HTTP; by default rtmp://HOST/APP/NAME of --url
    #[arg(long, value_name = "URL")]
    pub(crate) publish_url: Option<String>,
    /// rtmps, https, wss: trust any certificate
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// TLS: trust the authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// TLS: the name to ask for and to find in the certificate; by default the host of --url
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_name: Option<String>,
    /// TLS: let connections go on with sessions of earlier ones
    #[arg(long)]
    pub(crate) tls_resume: bool,
    /// Allow addresses outside this machine
    #[arg(long)]
    pub(crate) i_own_this_network: bool,
    /// Connect to this many consecutive loopback addresses in turn, so that ports last
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) spread: u32,
    /// Connect from these addresses in turn: A-B, several with commas; each has 28,000 ports and more
    #[arg(long, value_name = "LIST")]
    pub(crate) sources: Option<String>,
    /// How long players play (publishers alone: publish), seconds
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// Number of streams
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) streams: u32,
    /// CPUs of the player threads, one thread each: 1 or 0,2 or 0-3 or none (one, not pinned)
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    pub(crate) cpus: Option<CpuList>,
    /// CPU of the publisher thread; by default the last of --cpus
    #[arg(long, value_name = "CPU")]
    pub(crate) publisher_cpu: Option<usize>,
    /// How to wait for the network
    #[arg(long, value_enum, default_value_t = IoArg::Auto)]
    pub(crate) io: IoArg,
    /// Receive buffers of 16 KiB per thread, a power of two
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) recv_buffers: u16,
    /// Clock inside the media; wall when publishers and players run on different machines
    #[arg(long, value_enum, default_value_t = ClockArg::Monotonic)]
    pub(crate) clock: ClockArg,
    /// Process of the server: its CPU (with ksoftirqd), memory and context switches are reported;
    /// several, with commas, are added up
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Metrics page of a Ringcast server, for system calls per MB
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Option<String>,
    /// Print JSON lines: one per sample, the last one being the result
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the result to a file, for compare
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Draw latency and CPU over the number of players
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// Objectives, for example 'p99_latency<500ms,stall<0.1%'; exit code 1 if one is missed
    #[arg(long, value_name = "TERMS")]
    pub(crate) slo: Option<String>,
    /// Same seed, same bytes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Common {
    /// Flags are given that only matter inside TLS.
    pub(crate) fn asks_for_tls(&self) -> bool {
        self.insecure || self.ca.is_some() || self.tls_name.is_some()
    }
}

/// Flags of what is published.
#[derive(Args, Clone, Debug)]
pub(crate) struct MediaArgs {
    /// Loop this FLV file instead of a synthetic stream
    #[arg(long, value_name = "FILE")]
    pub(crate) flv: Option<PathBuf>,
    /// Video bits per second
    #[arg(long, default_value = "2.5M", value_parser = bits)]
    pub(crate) bitrate: f64,
    /// Audio bits per second; 0: no audio
    #[arg(long, default_value = "128k", value_parser = bits)]
    pub(crate) audio_bitrate: f64,
    /// Pictures per second
    #[arg(long, default_value_t = 30.0, value_parser = positive)]
    pub(crate) fps: f64,
    /// Seconds from keyframe to keyframe
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    pub(crate) gop: f64,
    /// How much larger a keyframe is than another picture
    #[arg(long, value_name = "TIMES", default_value_t = 8.0, value_parser = positive)]
    pub(crate) keyframe_ratio: f64,
    /// Tag of the video
    #[arg(long, value_enum, default_value_t = CodecTag::Avc)]
    pub(crate) codec: CodecTag,
}

/// Flags of everything that plays.
#[derive(Args, Clone, Debug)]
pub(crate) struct ViewArgs {
    /// Publish the streams as well
    #[arg(long)]
    pub(crate) publish: bool,
    /// With --publish: seconds the streams run before the first player comes
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) lead: f64,
    /// How players spread over streams: even, or zipf:EXPONENT
    #[arg(long, default_value = "even", value_parser = popularity)]
    pub(crate) popularity: Popularity,
    /// Media a viewer buffers before it plays: what comes later than that is a stall
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) buffer_ms: u32,
    /// Compute the checksum of one in N messages; 0: of none
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) check: u32,
    /// How playlists of HLS are followed
    #[arg(long, value_enum, default_value_t = HlsMode::Auto)]
    pub(crate) hls: HlsMode,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PlayArgs {
    /// Number of players
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) players: u64,
    /// Players that come per second; 0: all at once
    #[arg(long, value_name = "RATE", default_value_t = 500.0, value_parser = not_negative)]
    pub(crate) ramp: f64,
    /// How they come: linear, step:N (N at once, then a pause that keeps the rate) or poisson
    #[arg(long, value_name = "SHAPE", default_value = "linear", value_parser = ramp_shape)]
    pub(crate) ramp_shape: Ramp,
    /// Join storm: so many more, all at once, at --disturb-at
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) storm: u64,
    /// So many more that never read, at --disturb-at
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = stalled)]
    pub(crate) stalled: u32,
    /// When the disturbance begins, seconds after the first player; by default half of --seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) disturb_at: Option<f64>,
    /// How long the others' latency counts as disturbed; by default 2 s after a storm, and to the end
    /// with --stalled
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) disturb_for: Option<f64>,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ChurnArgs {
    /// Players that come per second
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub(crate) rate: f64,
    /// How they come: linear, step:N or poisson
    #[arg(long, value_name = "SHAPE", default_value = "linear", value_parser = ramp_shape)]
    pub(crate) ramp_shape: Ramp,
    /// Seconds each stays, on average
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) stay: f64,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    /// Most latency a player may gain, milliseconds per minute
    #[arg(long, value_name = "MS", default_value_t = 5.0, value_parser = positive)]
    pub(crate) slope_max: f64,
    /// Churn: viewers leave after so many seconds on average, and others come for them, so that about
    /// --players are there at any time; without it they stay to the end
    #[arg(long, value_name = "S", value_parser = positive)]
    pub(crate) stay: Option<f64>,
    /// Most memory the server may gain, MB per hour; needs --pid
    #[arg(long, value_name = "MB", default_value_t = 10.0, value_parser = positive)]
    pub(crate) rss_slope_max: f64,
    /// Most descriptors the server may gain, per hour; needs --pid
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = positive)]
    pub(crate) fds_slope_max: f64,
    /// Most the median latency of all viewers may gain, milliseconds per hour
    #[arg(long, value_name = "MS", default_value_t = 20.0, value_parser = positive)]
    pub(crate) latency_slope_max: f64,
    #[command(flatten)]
    pub(crate) play: PlayArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AbuseArgs {
    /// Hostile peers of each kind
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) each: u32,
    /// Only these kinds, and no cases of the corpus
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Behaviour>,
    /// The server's address of viewers' HTTP, for the cases that knock there: HOST:PORT
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<std::net::SocketAddr>,
    /// How long the server may take to end a case, seconds: longer than any of its deadlines
    #[arg(long, value_name = "S", default_value_t = 20.0, value_parser = seconds)]
    pub(crate) case_seconds: f64,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TlsArgs {
    /// Connections that shake hands at the same time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parallel)]
    pub(crate) parallel: u64,
    /// Which handshakes: each kind has --seconds
    #[arg(long, value_enum, default_value_t = HandshakeArg::Both)]
    pub(crate) handshake: HandshakeArg,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Kinds of TLS handshakes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum HandshakeArg {
    /// With certificate and key exchange
    Full,
    /// Going on with an earlier session
    Resumed,
    /// Full ones, then resumed ones
    Both,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FetchArgs {
    /// Connections, with a request each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = parallel)]
    pub(crate) parallel: u64,
    /// Publish a stream as well, so that there are segments
    #[arg(long)]
    pub(crate) publish: bool,
    /// With --publish: seconds the stream runs before the first request
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) lead: f64,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CanonicalArgs {
    /// Most players tried
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) players: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// The scenario
    pub(crate) file: PathBuf,
    /// Flags that override those of the scenario
    #[arg(last = true)]
    pub(crate) flags: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// The result to compare with
    pub(crate) before: PathBuf,
    /// The result to judge
    pub(crate) after: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to wait for the network.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum IoArg {
    /// io_uring, or epoll where that is forbidden
    Auto,
    /// io_uring or nothing
    Uring,
    /// epoll
    Epoll,
}

impl From<IoArg> for uring::IoChoice {
    fn from(arg: IoArg) -> uring::IoChoice {
        match arg {
            IoArg::Auto => uring::IoChoice::Auto,
            IoArg::Uring => uring::IoChoice::Uring,
            IoArg::Epoll => uring::IoChoice::Epoll,
        }
    }
}

/// The clock inside the media.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ClockArg {
    /// That of this machine since its start
    Monotonic,
    /// The time of day
    Wall,
}

impl From<ClockArg> for MediaClock {
    fn from(arg: ClockArg) -> MediaClock {
        match arg {
            ClockArg::Monotonic => MediaClock::Monotonic,
            ClockArg::Wall => MediaClock::Wall,
        }
    }
}

/// CPUs by number; empty: one thread, not pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

/// Most threads.
const CPUS_MAX: usize = 256;

fn cpu_list(text: &str) -> Result<CpuList, String> {
    if text == "none" {
        return Ok(CpuList(Vec::new()));
    }
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text}: no CPU"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first || last - first >= CPUS_MAX {
            return Err(format!("{part}: no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    if cpus.len() > CPUS_MAX { Err(format!("at most {CPUS_MAX} CPUs")) } else { Ok(CpuList(cpus)) }
}

fn real(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value.is_finite() { Ok(value) } else { Err("not a number".into()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let value = real(text)?;
    if value > 0.0 { Ok(value) } else { Err("must be above 0".into()) }
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value = real(text)?;
    if value >= 0.0 { Ok(value) } else { Err("must not be below 0".into()) }
}

/// Longest run: a day.
const SECONDS_MAX: f64 = 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    let value = not_negative(text)?;
    if value <= SECONDS_MAX { Ok(value) } else { Err("at most 86400".into()) }
}

fn bits(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let value = not_negative(digits)? * factor;
    if value <= 1e9 { Ok(value) } else { Err("at most 1000M".into()) }
}

/// Most connections that shake hands at a time, and most viewers that stall.
const PARALLEL_MAX: u64 = 10_000;
const STALLED_MAX: u32 = 100_000;

fn parallel(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| (1..=PARALLEL_MAX).contains(count));
    count.ok_or_else(|| format!("a number from 1 to {PARALLEL_MAX}"))
}

fn stalled(text: &str) -> Result<u32, String> {
    let count = text.parse().ok().filter(|count| *count <= STALLED_MAX);
    count.ok_or_else(|| format!("a number up to {STALLED_MAX}"))
}

fn ramp_shape(text: &str) -> Result<Ramp, String> {
    let size = text.strip_prefix("step:").map(str::parse::<u64>);
    match (text, size) {
        ("linear", _) => Ok(Ramp::Linear),
        ("poisson", _) => Ok(Ramp::Poisson),
        (_, Some(Ok(size))) if size > 0 => Ok(Ramp::Step(size)),
        _ => Err("expected linear, step:N or poisson".into()),
    }
}

fn popularity(text: &str) -> Result<Popularity, String> {
    match text.split_once(':') {
        None if text == "even" => Ok(Popularity::Even),
        None if text == "zipf" => Ok(Popularity::Zipf(1.0)),
        Some(("zipf", exponent)) => not_negative(exponent).map(Popularity::Zipf),
        _ => Err("expected even or zipf:EXPONENT".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(bits("2.5M"), Ok(2_500_000.0));
        assert_eq!(bits("128k"), Ok(128_000.0));
        assert_eq!(bits("0"), Ok(0.0));
        assert!(bits("-1M").is_err() && bits("2G").is_err() && bits("nan").is_err());
    }

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(cpu_list("0,2-4"), Ok(CpuList(vec![0, 2, 3, 4])));
        assert_eq!(cpu_list("none"), Ok(CpuList(vec![])));
        assert!(cpu_list("3-1").is_err() && cpu_list("a").is_err() && cpu_list("0-9999").is_err());
    }

    #[test]
    fn ramps_have_a_shape() {
        assert_eq!(ramp_shape("linear"), Ok(Ramp::Linear));
        assert_eq!(ramp_shape("step:100"), Ok(Ramp::Step(100)));
        assert_eq!(ramp_shape("poisson"), Ok(Ramp::Poisson));
        assert!(ramp_shape("step:0").is_err() && ramp_shape("step").is_err());
    }

    #[test]
    fn popularity_is_even_or_a_curve() {
        assert_eq!(popularity("zipf:1.2"), Ok(Popularity::Zipf(1.2)));
        assert_eq!(popularity("even"), Ok(Popularity::Even));
        assert!(popularity("odd").is_err() && popularity("zipf:-1").is_err());
    }
}
