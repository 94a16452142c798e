//! What the control thread and the workers say to each other, and the queues they say it through.
//!
//! Never blocks a worker: a command is taken from a bounded lock-free queue, an answer goes into a
//! oneshot whose sender never waits, an event into a bounded queue that drops (and counts) when full.
//! The control thread calls [`WorkerHandle`]; the worker calls [`WorkerPort`]. Nobody else calls either.
//!
//! ```text
//!   control thread                                        worker
//!   WorkerHandle::send ──► ArrayQueue<Command> (64) ──► WorkerPort::take_command   (once per turn)
//!          └─ Wake::wake (eventfd of the worker's Io)
//!   Events::take       ◄── ArrayQueue<Event> (1024) ◄── WorkerPort::report
//!   await Reply        ◄── oneshot ◄───────────────────── Reply::send
//!   reads relaxed      ◄── WorkerMetrics (atomics) ◄───── plain single-writer stores
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use serde::{Serialize, Serializer};
use tokio::sync::{Notify, oneshot};

use crate::access::{Decision, Rules};
use crate::config::Config;
use crate::hand_over::HandOverError;
use crate::metrics::WorkerMetrics;
use crate::worker::Export;

/// Commands one worker may have unanswered before the control thread is told "busy".
pub const COMMANDS_MAX: usize = 64;
/// Events of all workers waiting for the control thread; more are dropped and counted.
pub const EVENTS_MAX: usize = 1024;
/// A worker must finish a turn at least this often, also when idle: its turn counter is its heartbeat.
pub const TURN_MS_MAX: u64 = 1_000;
/// Entries one inspect answer should carry at most, so that one turn stays short.
pub const INSPECT_COUNT_MAX: u32 = 256;

/// Wakes a worker that sleeps in its `Io`. Must be cheap, coalescing and callable from any thread.
pub trait Wake: Send + Sync {
    /// Makes the worker's current or next wait return.
    fn wake(&self);
}

/// Names one connection of this process: the worker that owns it and that worker's serial number.
///
/// Printed and parsed as `WORKER-SERIAL`, e.g. `1-4711`. It is in every log line of the connection
/// and in the connect reply (`ringcast_id`). Serials start at 1 and are not reused.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    /// Index of the owning worker.
    pub worker: u16,
    /// Per-worker serial number.
    pub serial: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker, self.serial)
    }
}

impl FromStr for ConnectionId {
    type Err = BadConnectionId;

    fn from_str(text: &str) -> Result<Self, BadConnectionId> {
        let (worker, serial) = text.split_once('-').ok_or(BadConnectionId)?;
        Ok(Self {
            worker: worker.parse().map_err(|_| BadConnectionId)?,
            serial: serial.parse().map_err(|_| BadConnectionId)?,
        })
    }
}

impl Serialize for ConnectionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text is not of the form `WORKER-SERIAL`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BadConnectionId;

impl fmt::Display for BadConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection id looks like 1-4711 (worker, serial)")
    }
}

impl std::error::Error for BadConnectionId {}

/// Where the answer to a command goes. Dropping it unsent tells the asker "no answer".
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// A reply and the end its answer arrives at.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Answers. An asker who has given up is no error.
    pub fn send(self, answer: T) {
        // The asker may have hit its deadline meanwhile; then nobody wants the answer.
        drop(self.0.send(answer));
    }
}

/// What the control thread may ask of a worker.
#[derive(Debug)]
pub enum Command {
    /// Report streams or connections, a page at a time, so that one turn never builds a long list.
    Inspect {
        /// What to report.
        scope: InspectScope,
        /// 0 for the first page, then [`InspectPage::next`] of the page before.
        cursor: u64,
        /// Entries wanted at most; a worker may return fewer.
        count_max: u32,
        /// Receives the page.
        reply: Reply<InspectPage>,
    },
    /// Close one connection of this worker. Answers whether it existed.
    Kick {
        /// The connection; its `worker` is this worker.
        id: ConnectionId,
        /// Receives whether the connection existed.
        reply: Reply<bool>,
    },
    /// Use this configuration for whatever begins from now on.
    ApplyConfig(Arc<Config>),
    /// Decide by these rules from now on; who publishes or plays already stays.
    Rules(Arc<Rules>),
    /// What became of a question handed over by [`Rules::ask`]. Dropping it gives back what a grant holds.
    Answer {
        /// The connection that asked; it may be gone.
        connection: ConnectionId,
        /// The mark the worker gave the question.
        ticket: u64,
        /// Never `Ask`.
        decision: Box<Decision>,
    },
    /// Accept nothing more, end every connection cleanly, at the latest `deadline_ms` from now.
    /// The worker reports [`Event::Drained`] when no connection is left and keeps turning until `Stop`.
    Drain {
        /// Milliseconds from receipt after which what is left is closed.
        deadline_ms: u64,
    },
    /// Come to a standstill: nothing in flight, nothing taken from the kernel. Answered once that is so;
    /// dropped by a worker that drains.
    StandStill {
        /// Receives the end of the last movement.
        reply: Reply<()>,
    },
    /// Tell what can be passed on to another process. Only at a standstill.
    Export {
        /// Receives it.
        reply: Reply<Result<Box<Export>, HandOverError>>,
    },
    /// Nothing was passed on: move again.
    GoOn,
    /// What was told is another process's now: let go of it, and drain the rest.
    LetGo {
        /// As in [`Command::Drain`].
        deadline_ms: u64,
    },
    /// Close everything now, report [`Event::Stopped`], end the thread.
    Stop,
}

/// Which table of a worker to report.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum InspectScope {
    /// [`InspectPage::streams`] and [`InspectPage::shares`].
    Streams,
    /// [`InspectPage::clients`].
    Clients,
}

/// One page of a worker's tables.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct InspectPage {
    /// Streams whose home is this worker. Their subscriber-side figures (`subscribers`, `bytes_out`,
    /// `lag_ms_max`) stay 0 here: they are the sums of all workers' shares.
    pub streams: Vec<StreamInfo>,
    /// What this worker's own subscribers contribute to streams of any home, its own included.
    pub shares: Vec<StreamShare>,
    /// Connections of this worker.
    pub clients: Vec<ClientInfo>,
    /// Cursor of the next page; `None` after the last.
    pub next: Option<u64>,
}

/// Life of a stream as operators see it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// A publisher is connected.
    Live,
    /// The publisher was lost and may return.
    Grace,
    /// Subscribers wait; nobody has published yet.
    Waiting,
}

/// One stream as its home worker sees it. Bit rates are averages over the last few seconds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StreamInfo {
    /// Configured vhost the stream belongs to.
    pub vhost: String,
    /// Application, may contain `/`.
    pub app: String,
    /// Stream name, without query.
    pub name: String,
    /// Where in its life it is.
    pub state: StreamState,
    /// Milliseconds since the current publish began; 0 unless live.
    pub uptime_ms: u64,
    /// Home worker.
    pub worker: u16,
    /// Video codec as operators write it (`h264`, `hevc`, `av1`, a FourCC), if video was seen.
    pub video_codec: Option<String>,
    /// Audio codec (`aac`, `opus`, ...), if audio was seen.
    pub audio_codec: Option<String>,
    /// Picture width in pixels.
    pub width: Option<u32>,
    /// Picture height in pixels.
    pub height: Option<u32>,
    /// Video messages per second.
    pub fps: Option<f64>,
    /// Audio sample rate in Hz.
    pub audio_rate_hz: Option<u32>,
    /// Audio channels.
    pub audio_channels: Option<u8>,
    /// Video payload bits per second.
    pub video_bitrate_bps: u64,
    /// Audio payload bits per second.
    pub audio_bitrate_bps: u64,
    /// Stream time between the last two keyframes, in milliseconds.
    pub gop_ms: Option<u64>,
    /// Subscribers of all workers.
    pub subscribers: u64,
    /// Payload bytes received of the current publisher.
    pub bytes_in: u64,
    /// Bytes sent to all present subscribers.
    pub bytes_out: u64,
    /// Largest lag of any present subscriber, in milliseconds of stream time.
    pub lag_ms_max: u64,
    /// Bytes the ring retains.
    pub retained_bytes: u64,
    /// Stream time the ring retains, in milliseconds.
    pub retained_ms: u64,
    /// Timestamp jumps of the present publisher that were made even.
    pub timestamp_repairs: u64,
    /// Messages of the present publisher that were dropped.
    pub messages_dropped: u64,
    /// The present publisher.
    pub publisher: Option<PublisherInfo>,
}

impl StreamInfo {
    /// A stream of which nothing is known but its state; fill in with struct update syntax.
    pub fn new(state: StreamState) -> Self {
        Self {
            vhost: String::new(),
            app: String::new(),
            name: String::new(),
            state,
            uptime_ms: 0,
            worker: 0,
            video_codec: None,
            audio_codec: None,
            width: None,
            height: None,
            fps: None,
            audio_rate_hz: None,
            audio_channels: None,
            video_bitrate_bps: 0,
            audio_bitrate_bps: 0,
            gop_ms: None,
            subscribers: 0,
            bytes_in: 0,
            bytes_out: 0,
            lag_ms_max: 0,
            retained_bytes: 0,
            retained_ms: 0,
            timestamp_repairs: 0,
            messages_dropped: 0,
            publisher: None,
        }
    }
}

/// The publisher of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PublisherInfo {
    /// Its connection.
    pub id: ConnectionId,
    /// Its address.
    pub peer: String,
    /// What it calls itself (`flashVer` of connect).
    pub flash_ver: String,
}

/// What one worker's subscribers add to a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamShare {
    /// Configured vhost.
    pub vhost: String,
    /// Application.
    pub app: String,
    /// Stream name.
    pub name: String,
    /// Subscribers of this worker.
    pub subscribers: u64,
    /// Bytes sent to them.
    pub bytes_out: u64,
    /// The largest lag among them, in milliseconds of stream time.
    pub lag_ms_max: u64,
}

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClientInfo {
    /// Its id; pass it to kick.
    pub id: ConnectionId,
    /// What it does.
    pub role: crate::metrics::Role,
    /// What it speaks, and for viewers over HTTP in which form they take their stream: "rtmp",
    /// "http-flv", "ws-fmp4", ...
    pub protocol: &'static str,
    /// Address of the peer.
    pub peer: String,
    /// Configured vhost, once connected.
    pub vhost: Option<String>,
    /// Application, once connected.
    pub app: Option<String>,
    /// Stream name, once publishing or playing.
    pub stream: Option<String>,
    /// Everything it publishes and plays now: `role`, `app` and `stream` tell of the last only.
    #[serde(skip)]
    pub uses: Vec<(crate::access::Role, live::path::StreamPath)>,
    /// What the peer calls itself.
    pub flash_ver: Option<String>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Distance behind the head in milliseconds of stream time; subscribers only.
    pub lag_ms: Option<u64>,
    /// Jumps to a keyframe because it fell behind; subscribers only.
    pub skips: u64,
    /// Milliseconds since accept.
    pub uptime_ms: u64,
}

/// What a worker tells the control thread unasked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Every connection has ended after [`Command::Drain`].
    Drained {
        /// The worker.
        worker: u16,
    },
    /// The worker's thread is about to end after [`Command::Stop`].
    Stopped {
        /// The worker.
        worker: u16,
    },
    /// The worker cannot go on. Another one takes its place, or the process stops.
    Failed {
        /// The worker.
        worker: u16,
        /// What happened, for the log.
        message: String,
    },
    /// Another worker has taken the place of one that failed, and serves.
    Renewed {
        /// The worker.
        worker: u16,
    },
}

struct EventQueue {
    queue: ArrayQueue<Event>,
    ready: Notify,
    dropped: AtomicU64,
}

/// The receiving end of all workers' events; owned by the control thread.
pub struct Events(Arc<EventQueue>);

/// The sending end of [`Events`], cloned into each worker's port.
#[derive(Clone)]
pub struct EventSink(Arc<EventQueue>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("waiting", &self.0.queue.len()).finish()
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSink").field("waiting", &self.0.queue.len()).finish()
    }
}

impl Events {
    /// An empty queue and its sending end.
    pub fn channel() -> (EventSink, Self) {
        let shared = Arc::new(EventQueue {
            queue: ArrayQueue::new(EVENTS_MAX),
            ready: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        (EventSink(Arc::clone(&shared)), Self(shared))
    }

    /// Waits for the next event. Cancel safe.
    pub async fn next(&self) -> Event {
        loop {
            // Taken after the permit is armed by `notify_one`, so an event between the two is not missed.
            if let Some(event) = self.0.queue.pop() {
                return event;
            }
            self.0.ready.notified().await;
        }
    }

    /// Events lost because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl EventSink {
    /// Hands an event over; never waits. A full queue drops it and counts the loss.
    pub fn report(&self, event: Event) {
        if self.0.queue.push(event).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.0.ready.notify_one();
    }
}

/// The worker's end: commands in, events and counters out.
#[derive(Debug)]
pub struct WorkerPort {
    index: u16,
    commands: Arc<ArrayQueue<Command>>,
    events: EventSink,
    metrics: Arc<CachePadded<WorkerMetrics>>,
}

impl WorkerPort {
    /// Index of the worker this port belongs to.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The next command, if any. Call until `None` once per turn.
    pub fn take_command(&self) -> Option<Command> {
        self.commands.pop()
    }

    /// Tells the control thread; never waits.
    pub fn report(&self, event: Event) {
        self.events.report(event);
    }

    /// This worker's counters. Only this worker writes them; add 1 to `turns` in every turn.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }

    /// The counters as a shared handle, for parts of the worker that outlive a borrow.
    pub fn metrics_shared(&self) -> Arc<CachePadded<WorkerMetrics>> {
        Arc::clone(&self.metrics)
    }
}

/// The control thread's end of one worker.
pub struct WorkerHandle {
    index: u16,
    commands: Arc<ArrayQueue<Command>>,
    wake: Arc<dyn Wake>,
    metrics: Arc<CachePadded<WorkerMetrics>>,
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle")
            .field("index", &self.index)
            .field("commands_waiting", &self.commands.len())
            .finish_non_exhaustive()
    }
}

/// The worker has [`COMMANDS_MAX`] commands waiting: it is stuck or flooded.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct CommandQueueFull;

impl WorkerHandle {
    /// Index of the worker.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Hands a command over and wakes the worker.
    ///
    /// # Errors
    /// [`CommandQueueFull`]; the command is dropped and its reply with it.
    pub fn send(&self, command: Command) -> Result<(), CommandQueueFull> {
        let pushed = self.commands.push(command);
        self.wake.wake();
        pushed.map_err(|_| CommandQueueFull)
    }

    /// As [`WorkerHandle::send`], and gives the command back when the queue is full.
    ///
    /// # Errors
    /// The command.
    pub fn offer(&self, command: Command) -> Result<(), Command> {
        let pushed = self.commands.push(command);
        self.wake.wake();
        pushed
    }

    /// The worker's counters, for reading.
    pub fn metrics(&self) -> &WorkerMetrics {
        &self.metrics
    }
}

/// A worker's two ends before its `Io` (and so its waker) exists: the port travels into the thread,
/// and the thread's waker makes the handle.
pub fn worker_link(index: u16, events: EventSink) -> (WorkerPort, WorkerHandleSeed) {
    let commands = Arc::new(ArrayQueue::new(COMMANDS_MAX));
    let metrics = Arc::new(CachePadded::new(WorkerMetrics::default()));
    let port = WorkerPort {
        index,
        commands: Arc::clone(&commands),
        events,
        metrics: Arc::clone(&metrics),
    };
    (port, WorkerHandleSeed { index, commands, metrics })
}

/// Becomes a [`WorkerHandle`] once the worker's waker is known.
#[derive(Debug)]
pub struct WorkerHandleSeed {
    index: u16,
    commands: Arc<ArrayQueue<Command>>,
    metrics: Arc<CachePadded<WorkerMetrics>>,
}

impl WorkerHandleSeed {
    /// Completes the handle.
    pub fn with_waker(self, wake: Arc<dyn Wake>) -> WorkerHandle {
        WorkerHandle { index: self.index, commands: self.commands, wake, metrics: self.metrics }
    }
}
