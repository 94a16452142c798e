//! Log lines: text on a terminal, JSON otherwise, through a bounded writer that never makes anybody wait.
//!
//! A line is formatted by the thread that logs and handed to a queue; a thread of its own writes to
//! standard error. A full queue drops the line; drops are counted, exposed and reported once a second.
//! Every line has a field `event` with one of the stable codes in [`event`]. Workers log per connection
//! event, never per message.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, Filter, Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{Log, LogFormat, LogLevel};

/// Stable codes of the field `event`. Alerts and log queries depend on them: never rename one.
///
/// `EVENTS.md` is generated from this list, and a test finds codes that are logged but not listed.
pub mod event {
    macro_rules! events {
        ($($(#[doc = $doc:literal])* $name:ident = $code:literal;)*) => {
            $($(#[doc = $doc])* pub const $name: &str = $code;)*

            /// Every code with its meaning.
            pub const ALL: &[(&str, &str)] = &[$(($code, concat!($($doc),*))),*];
        };
    }

    events! {
        /// The server is about to serve.
        START = "start";
        /// The server serves.
        READY = "ready";
        /// An environment variable or flag overrides the file.
        CONFIG_OVERRIDE = "config_override";
        /// Something in the configuration is probably not meant.
        CONFIG_WARNING = "config_warning";
        /// A reload took effect.
        CONFIG_RELOADED = "config_reloaded";
        /// A reload was refused; the running configuration stays.
        CONFIG_REFUSED = "config_refused";
        /// Certificates were loaded, or one was replaced; handshakes that begin now use the new one.
        CERT_LOADED = "cert_loaded";
        /// A certificate cannot be used: the file and why. An earlier one stays.
        CERT_REFUSED = "cert_refused";
        /// A certificate is used although something about it is not as it should be.
        CERT_WARNING = "cert_warning";
        /// A certificate ends in 30, 7 or 1 days, or has ended.
        CERT_EXPIRY = "cert_expiry";
        /// The files of a certificate are gone.
        CERT_REMOVED = "cert_removed";
        /// A host setting that hurts.
        HOST_FINDING = "host_finding";
        /// A kernel feature is on, off or refused.
        IO_FEATURE = "io_feature";
        /// A signal arrived.
        SIGNAL = "signal";
        /// Draining began.
        DRAIN = "drain";
        /// A hand-over to a new process begins, has been made, or has failed and the server goes on.
        UPGRADE = "upgrade";
        /// The server stops.
        STOP = "stop";
        /// A worker cannot go on. Another one takes its place, or the process ends (workers.on_panic).
        WORKER_FAILED = "worker_failed";
        /// Another worker serves in the place of one that failed.
        WORKER_RESTARTED = "worker_restarted";
        /// A worker has not turned for two seconds, or turns again.
        WORKER_HEARTBEAT = "worker_heartbeat";
        /// A worker could not be pinned to its CPU.
        NOT_PINNED = "not_pinned";
        /// Too many lines of one event code in a second: so many were left out.
        LOG_SUPPRESSED = "log_suppressed";
        /// A limit was reached: which, and whom it met.
        LIMIT = "limit";
        /// Memory runs short, or no longer: what is given up from now on.
        MEMORY = "memory";
        /// Log lines were lost.
        LOG_DROPPED = "log_dropped";
        /// An operator's request that changes something.
        ADMIN = "admin";
        /// A domain was made, changed or removed, or given other keys or quotas.
        DOMAIN = "domain";
        /// A domain cannot be used as it is configured; everybody is refused there.
        DOMAIN_FAULT = "domain_fault";
        /// A stream or an address was forbidden, or its forbid given another end.
        FORBID = "forbid";
        /// A forbid was lifted or has ended.
        RESUME = "resume";
        /// A hook was asked in vain, or a key set could not be fetched.
        HOOK_FAILED = "hook_failed";
        /// A hook is left alone after failures, or asked again.
        HOOK_BREAKER = "hook_breaker";
        /// A publisher sends more than its domain allows.
        BITRATE = "bitrate";
        /// A peer's connect command was accepted.
        CONNECT = "connect";
        /// A peer asked for a name that cannot be used.
        BAD_NAME = "bad_name";
        /// A peer began to publish.
        PUBLISH = "publish";
        /// A publish or play request was refused by the rules: class and code.
        ACCESS_DENIED = "access_denied";
        /// A publish request was refused.
        PUBLISH_REFUSED = "publish_refused";
        /// A publisher ended its stream in order.
        UNPUBLISH = "unpublish";
        /// A publisher was replaced by another.
        TAKEOVER = "takeover";
        /// A publisher was lost; its stream waits for it.
        GRACE = "grace";
        /// A grace period ended without its publisher.
        GRACE_OVER = "grace_over";
        /// A stream ended.
        STREAM_END = "stream_end";
        /// Packaging of a stream for HLS began.
        HLS_START = "hls_start";
        /// Packaging of a stream for HLS ended: nobody asks any more.
        HLS_END = "hls_end";
        /// There is no file to put segments of HLS into: they are copied for each viewer.
        HLS_COPIES = "hls_copies";
        /// Packaging of a stream was slower than the stream: it goes on at a keyframe.
        HLS_OVERRUN = "hls_overrun";
        /// Packaging met a bound of memory: streams refused, segments given up early.
        HLS_LIMIT = "hls_limit";
        /// A file could not be written or removed: which, and why.
        STORAGE_FAILED = "storage_failed";
        /// A peer began to play.
        PLAY = "play";
        /// A play request was refused.
        PLAY_REFUSED = "play_refused";
        /// A subscriber fell behind and jumped to a keyframe.
        SKIP = "skip";
        /// A peer took too long.
        TIMEOUT = "timeout";
        /// A peer broke the protocol.
        PROTOCOL_ERROR = "protocol_error";
        /// A PROXY header that cannot be used.
        PROXY_HEADER = "proxy_header";
        /// TLS with a peer failed, or ended for want of what the kernel can do.
        TLS_ERROR = "tls_error";
        /// The kernel did not take the keys of a connection; it goes on in user space.
        KERNEL_TLS = "kernel_tls";
        /// A connection ended: reason and totals.
        CLOSE = "close";
    }

    /// The text of `EVENTS.md`.
    pub fn document() -> String {
        let mut out = String::from(
            "# Log events\n\n\
             Every log line has a field `event` with one of these codes. They are never renamed. Generated\n\
             from `edge/src/log.rs`; a test compares.\n\n| event | meaning |\n|---|---|\n",
        );
        for (code, meaning) in ALL {
            out.push_str(&format!("| `{code}` |{meaning} |\n"));
        }
        out
    }
}

/// Longest time in which the last lines are written when the process ends. A reader that is slow or gets no
/// CPU has that long.
pub const LAST_LINES_MAX: Duration = Duration::from_secs(5);

/// Writes what is still queued when it is dropped, in at most [`LAST_LINES_MAX`]. Whoever ends the process
/// owns it: were it shared with threads, one of them might still have it then, and the lines were lost.
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct LogGuard {
    lines: Arc<LineCounts>,
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_LINES_MAX;
        let queued = self.lines.logged.load(Ordering::Acquire);
        let taken =
            || self.lines.written.load(Ordering::Acquire) + self.dropped.dropped_lines() as u64;
        // The library's own guard waits for a second and not in a full queue.
        while taken() < queued && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Lines on their way through the queue.
#[derive(Debug, Default)]
struct LineCounts {
    /// Given to the queue, which may have dropped them.
    logged: AtomicU64,
    /// Taken from it and written, or lost in that.
    written: AtomicU64,
}

/// Controls the running log.
#[derive(Debug, Default)]
pub struct LogHandle {
    classes: Option<Arc<EventRates>>,
    level: Option<reload::Handle<LevelFilter, Registry>>,
    dropped: Option<ErrorCounter>,
    /// Lines that could not be written.
    unwritten: Arc<AtomicU64>,
}

impl LogHandle {
    /// Changes the level of the running log.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(handle) = &self.level {
            // Fails only when the subscriber is gone, and then nobody logs.
            drop(handle.modify(|filter| *filter = level_filter(level)));
        }
    }

    /// Changes how many lines of one event code are written per second.
    pub fn set_lines_per_second_max(&self, lines: u32) {
        if let Some(classes) = &self.classes {
            classes.lines_per_second_max.store(lines, Ordering::Relaxed);
        }
    }

    /// Lines left out since the last call, by event code, and how many that makes since the start.
    pub fn take_suppressed(&self) -> (Vec<(&'static str, u64)>, u64) {
        self.classes.as_ref().map_or((Vec::new(), 0), |classes| classes.take_suppressed())
    }

    /// Lines lost so far: the queue was full, or they could not be written.
    pub fn dropped_lines(&self) -> u64 {
        let dropped = self.dropped.as_ref().map_or(0, |counter| counter.dropped_lines() as u64);
        dropped + self.unwritten.load(Ordering::Relaxed)
    }
}

/// Starts logging to standard error. Call once, before any other thread exists.
pub fn start(config: &Log) -> (LogHandle, LogGuard) {
    let (subscriber, handle, guard) = build(config, io::stderr(), io::stderr().is_terminal());
    // A second start in one process, as in tests, keeps the first log.
    drop(subscriber.try_init());
    (handle, guard)
}

/// The subscriber that writes to `writer`, its handle, and what writes the last lines.
fn build(
    config: &Log,
    writer: impl io::Write + Send + 'static,
    terminal: bool,
) -> (impl Subscriber + Send + Sync + 'static, LogHandle, LogGuard) {
    let unwritten = Arc::new(AtomicU64::new(0));
    let counts = Arc::new(LineCounts::default());
    let lines_max = usize::try_from(config.queue_lines_max).unwrap_or(usize::MAX);
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(lines_max)
        .thread_name("log")
        .finish(CountingWriter {
            inner: writer,
            unwritten: Arc::clone(&unwritten),
            lines: Arc::clone(&counts),
            is_torn: false,
        });
    let dropped = writer.error_counter();
    let queue = LineQueue { queue: writer, lines: Arc::clone(&counts) };
    let (filter, level) = reload::Layer::new(level_filter(config.level));
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines = fmt::layer().with_writer(move || queue.clone()).with_target(false);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_ansi(terminal).boxed()
    };
    let classes = Arc::new(EventRates::new(config.lines_per_second_max));
    let lines = lines.with_filter(EventFilter(Arc::clone(&classes)));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    let handle = LogHandle {
        classes: Some(classes),
        level: Some(level),
        dropped: Some(dropped.clone()),
        unwritten,
    };
    (subscriber, handle, LogGuard { lines: counts, dropped, _writer: guard })
}

/// The queue, which counts what it is given.
#[derive(Clone)]
struct LineQueue {
    queue: NonBlocking,
    lines: Arc<LineCounts>,
}

impl io::Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.logged.fetch_add(1, Ordering::Release);
        self.queue.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.queue.flush()
    }
}

/// Writes lines; one that cannot be written (a full disk, a reader that is gone) is lost and counted, and
/// the next one is tried again. Of a line that was written in part the next one keeps apart.
struct CountingWriter<W> {
    inner: W,
    unwritten: Arc<AtomicU64>,
    lines: Arc<LineCounts>,
    /// A line stands there without its end.
    is_torn: bool,
}

impl<W: io::Write> CountingWriter<W> {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.inner.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.inner.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    rest = rest.get(bytes..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<W: io::Write> io::Write for CountingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The log hands over whole lines.
        if self.write_line(line).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        self.lines.written.fetch_add(1, Ordering::Release);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lines of each event code in the present second.
#[derive(Debug)]
struct EventRates {
    lines_per_second_max: AtomicU32,
    started_at: Instant,
    /// One per code of [`event::ALL`].
    codes: Box<[CodeRate]>,
    suppressed_total: AtomicU64,
}

#[derive(Debug, Default)]
struct CodeRate {
    /// The second in the upper half, the lines in it in the lower.
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl EventRates {
    fn new(lines_per_second_max: u32) -> Self {
        Self {
            lines_per_second_max: AtomicU32::new(lines_per_second_max),
            started_at: Instant::now(),
            codes: event::ALL.iter().map(|_| CodeRate::default()).collect(),
            suppressed_total: AtomicU64::new(0),
        }
    }

    /// Whether a line with this code may be written now. Threads that meet here at the turn of a second may
    /// write a few lines more.
    fn allow(&self, code: &str) -> bool {
        let known = event::ALL.iter().position(|(known, _)| *known == code);
        let Some(rate) = known.and_then(|at| self.codes.get(at)) else { return true };
        let second = self.started_at.elapsed().as_secs() << 32;
        let mut before = rate.lines.load(Ordering::Relaxed);
        if before >> 32 != second >> 32 {
            // Whoever loses the race counts on in the new second.
            let begun =
                rate.lines.compare_exchange(before, second, Ordering::Relaxed, Ordering::Relaxed);
            before = begun.map_or_else(|now| now, |_| second);
        }
        let lines = before & u64::from(u32::MAX);
        if lines >= u64::from(self.lines_per_second_max.load(Ordering::Relaxed)) {
            rate.suppressed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        rate.lines.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn take_suppressed(&self) -> (Vec<(&'static str, u64)>, u64) {
        let mut codes = Vec::new();
        for ((code, _), rate) in event::ALL.iter().zip(&self.codes) {
            let lines = rate.suppressed.swap(0, Ordering::Relaxed);
            if lines > 0 {
                codes.push((*code, lines));
                self.suppressed_total.fetch_add(lines, Ordering::Relaxed);
            }
        }
        (codes, self.suppressed_total.load(Ordering::Relaxed))
    }
}

/// Leaves out what is over the rate of its event code. Errors always pass.
struct EventFilter(Arc<EventRates>);

impl<S: Subscriber> Filter<S> for EventFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if *event.metadata().level() == Level::ERROR {
            return true;
        }
        let mut code = EventCode { rates: &self.0, is_allowed: true };
        event.record(&mut code);
        code.is_allowed
    }
}

/// Finds the field `event` of a line.
struct EventCode<'r> {
    rates: &'r EventRates,
    is_allowed: bool,
}

impl Visit for EventCode<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.is_allowed = self.rates.allow(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Parameters whose values are public: they choose a vhost, they open nothing.
const PUBLIC_PARAMETERS: [&str; 2] = ["vhost", "domain"];

/// A URL or stream name fit for a log: user information and the values of query parameters are
/// replaced by `***`, because keys and signatures travel there. Borrows when there is nothing to hide.
pub fn redact(text: &str) -> Cow<'_, str> {
    let (before, query) = match text.find(['?', '#']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let user_end = before.find("://").and_then(|at| {
        let authority = &before[at + 3..];
        let authority = &authority[..authority.find('/').unwrap_or(authority.len())];
        authority.rfind('@').map(|end| (at + 3, at + 3 + end))
    });
    if query.is_empty() && user_end.is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    match user_end {
        Some((start, end)) => {
            out.push_str(&before[..start]);
            out.push_str("***");
            out.push_str(&before[end..]);
        }
        None => out.push_str(before),
    }
    for part in query.split_inclusive(['?', '&', '#']) {
        let (pair, separator) = match part.strip_suffix(['?', '&', '#']) {
            Some(pair) => (pair, &part[pair.len()..]),
            None => (part, ""),
        };
        match pair.split_once('=') {
            Some((name, _)) if !PUBLIC_PARAMETERS.contains(&name) => {
                out.push_str(name);
                out.push_str("=***");
            }
            Some(_) => out.push_str(pair),
            // A bare word after `?` may be the key itself.
            None if !pair.is_empty() => out.push_str("***"),
            None => {}
        }
        out.push_str(separator);
    }
    Cow::Owned(out)
}

/// Lets at most so many lines of one kind through per second; the caller counts the rest.
#[derive(Copy, Clone, Debug)]
pub struct RepeatLimit {
    lines_per_second_max: u32,
    second: u64,
    lines: u32,
}

impl RepeatLimit {
    /// A limit; 0 lets nothing through.
    pub const fn new(lines_per_second_max: u32) -> Self {
        Self { lines_per_second_max, second: 0, lines: 0 }
    }

    /// Whether a line may be written at `now_ms` of any monotonic clock.
    pub fn allow(&mut self, now_ms: u64) -> bool {
        self.allow_up_to(self.lines_per_second_max, now_ms)
    }

    /// As [`RepeatLimit::allow`], under a limit that may change.
    pub fn allow_up_to(&mut self, per_second_max: u32, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if second != self.second {
            self.second = second;
            self.lines = 0;
        }
        if self.lines >= per_second_max {
            return false;
        }
        self.lines += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Passes lines on; after the first it waits until it is told to go on.
    struct SlowReader {
        lines: Sender<String>,
        go_on: Receiver<()>,
    }

    impl io::Write for SlowReader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lines.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            // A closed channel means: from now on without waiting.
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_costs_lines_and_never_makes_the_logger_wait() {
        let config = Log { queue_lines_max: 128, ..Log::default() };
        let (lines, read) = channel();
        let (go, go_on) = channel();
        let (subscriber, handle, guard) = build(&config, SlowReader { lines, go_on }, false);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(event = event::CONNECT, peer = "127.0.0.1:1", "first");
            let first: serde_json::Value = serde_json::from_str(&read.recv().unwrap()).unwrap();
            assert_eq!(first["event"], "connect");
            assert_eq!((&first["level"], &first["peer"]), (&"INFO".into(), &"127.0.0.1:1".into()));
            for _ in 0..200 {
                tracing::info!(event = event::CLOSE, "more than the queue holds");
            }
            assert_eq!(handle.dropped_lines(), 200 - 128);
            tracing::debug!(event = event::CLOSE, "not at this level");
            assert_eq!(handle.dropped_lines(), 200 - 128);
            handle.set_level(LogLevel::Debug);
            tracing::debug!(event = event::CLOSE, "at this one");
            assert_eq!(handle.dropped_lines(), 200 - 128 + 1);
        });
        drop(go);
        drop(guard);
    }

    #[test]
    fn the_last_lines_are_written_however_late_their_reader_is() {
        let (lines, read) = channel();
        let (go, go_on) = channel();
        let (subscriber, handle, guard) =
            build(&Log::default(), SlowReader { lines, go_on }, false);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::info!(event = event::STOP, "one of the last");
            }
        });
        // The library's guard alone gives up before that.
        let late = thread::spawn(move || {
            thread::sleep(Duration::from_millis(1_500));
            drop(go);
        });
        drop(guard);
        assert_eq!((read.try_iter().count(), handle.dropped_lines()), (3, 0));
        late.join().unwrap();
    }

    #[test]
    fn lines_over_the_rate_of_their_event_code_are_left_out_and_counted() {
        let config = Log { lines_per_second_max: 3, ..Log::default() };
        let (lines, read) = channel();
        let (go, go_on) = channel::<()>();
        drop(go);
        let (subscriber, handle, guard) = build(&config, SlowReader { lines, go_on }, false);
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..1_000 {
                tracing::warn!(event = event::CLOSE, "of a storm");
                tracing::error!(event = event::WORKER_FAILED, "never left out");
            }
            tracing::info!(event = event::CONNECT, "another code has its own rate");
        });
        let (codes, total) = handle.take_suppressed();
        let [(code, suppressed)] = codes[..] else { panic!("{codes:?}") };
        assert_eq!((code, total), (event::CLOSE, suppressed));
        assert_eq!(handle.take_suppressed(), (Vec::new(), total));
        drop(guard);
        let written: Vec<String> = read.try_iter().collect();
        let count = |code: &str| written.iter().filter(|line| line.contains(code)).count() as u64;
        assert_eq!(count("\"close\""), 1_000 - suppressed, "written or counted");
        // The loop may run over the turn of some seconds, never of hundreds.
        assert!(count("\"close\"") < 100, "{}", count("\"close\""));
        assert_eq!((count("worker_failed"), count("\"connect\"")), (1_000, 1));
    }

    #[test]
    fn secrets_in_urls_are_hidden_and_the_rest_stays() {
        for (url, expected) in [
            ("rtmp://h/live/a", "rtmp://h/live/a"),
            ("rtmp://user:pass@h:1935/live", "rtmp://***@h:1935/live"),
            ("rtmp://h/live/a?txSecret=1f&txTime=2", "rtmp://h/live/a?txSecret=***&txTime=***"),
            ("cam?vhost=x.com&auth_key=1-2-3", "cam?vhost=x.com&auth_key=***"),
            ("cam?secretword", "cam?***"),
            ("cam?a=b=c?d=e", "cam?a=***?d=***"),
            ("cam#k=v", "cam#k=***"),
            ("?", "?"),
            ("rtmp://h/a@b/c", "rtmp://h/a@b/c"),
        ] {
            assert_eq!(redact(url), expected, "{url}");
        }
        assert!(matches!(redact("live/plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_repeat_limit_opens_again_with_the_next_second() {
        let mut limit = RepeatLimit::new(2);
        let allowed: Vec<bool> =
            [0, 10, 999, 1_000, 1_001, 1_002].map(|now| limit.allow(now)).into();
        assert_eq!(allowed, [true, true, false, true, true, false]);
    }
}
