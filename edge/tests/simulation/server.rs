//! The server under test: several real workers on one simulated network, in one thread.

use std::net::SocketAddr;
use std::sync::Arc;

use edge::access::Rules;
use edge::command::{Command, Events, Wake, WorkerHandle, worker_link};
use edge::config::{Config, DuplicatePublish, FlushPolicy};
use edge::metrics::openmetrics::Metric;
use edge::shared::Shared;
use edge::worker::{Clocks, EntranceUse, Flow, Worker};
use uring::sim::{SimIo, SimNet};
use uring::{Io, IoConfig, ListenOptions};

use super::dice::Dice;

type SimWorker = Worker<SimIo<ring::Lease>>;

struct SimWake(uring::Waker);

impl Wake for SimWake {
    fn wake(&self) {
        self.0.wake();
    }
}

pub struct Server {
    workers: Vec<SimWorker>,
    pub handles: Vec<WorkerHandle>,
    pub shared: Arc<Shared>,
    pub addr: SocketAddr,
    /// A worker is not given the processor before this.
    pub starved_until_ms: Vec<u64>,
    stopped: Vec<bool>,
    _events: Events,
}

/// A configuration with short times, so that a run of seconds sees every timer.
pub fn draw_config(dice: &mut Dice) -> Config {
    let mut config = Config::default();
    let vhost = &mut config.defaults;
    vhost.grace_ms = dice.pick(&[0, 1_500, 3_000, 6_000]);
    vhost.flush = draw_flush(dice);
    vhost.lag_ms_max = dice.pick(&[500, 1_500, 4_000]);
    vhost.stall_ms_max = dice.pick(&[1_000, 3_000, 6_000]);
    vhost.play_wait_ms = dice.pick(&[3_000, 60_000, 60_000]);
    vhost.http_wait_ms = dice.pick(&[1_000, 5_000, 60_000]);
    vhost.gop_cache = !dice.chance(200);
    vhost.chunk_bytes = dice.pick(&[1_024, 4_096, 65_536, 65_536]);
    vhost.retention_ms = 4_000;
    vhost.retention_messages = dice.pick(&[200, 1_100, 16_384]);
    vhost.duplicate_publish = dice.pick(&[
        DuplicatePublish::Takeover,
        DuplicatePublish::Takeover,
        DuplicatePublish::Reject,
    ]);
    config
}

pub fn draw_flush(dice: &mut Dice) -> FlushPolicy {
    match dice.index(4) {
        0 => FlushPolicy::Immediate,
        1 => FlushPolicy::Window { ms: dice.pick(&[20, 100, 350]) },
        _ => FlushPolicy::Frame,
    }
}

impl Server {
    pub fn start(net: &SimNet, config: &Config, workers: usize, dice: &mut Dice) -> Self {
        let shared = Arc::new(Shared::new(workers));
        let (sink, events) = Events::channel();
        let mut addr: SocketAddr = "10.0.0.1:1935".parse().expect("an address");
        let mut server = Self {
            workers: Vec::new(),
            handles: Vec::new(),
            shared: Arc::clone(&shared),
            addr,
            starved_until_ms: vec![0; workers],
            stopped: vec![false; workers],
            _events: events,
        };
        for index in 0..workers {
            let io_config = IoConfig {
                recv_buffers: 64,
                recv_buffer_bytes: 4_096,
                connections_max: 256,
                ..IoConfig::default()
            };
            let io = net.io::<ring::Lease>(io_config).expect("memory for receive buffers");
            let wake: Arc<dyn Wake> = Arc::new(SimWake(io.waker()));
            shared.set_waker(index, Arc::clone(&wake));
            let number = u16::try_from(index).expect("few workers");
            let (port, seed) = worker_link(number, sink.clone());
            let config = Arc::new(config.clone());
            let shared = Arc::clone(&shared);
            let random = dice.next();
            let rules = Arc::new(Rules::open(Arc::clone(&config)));
            let clocks = Clocks { cpu_nanos: || 0, unix_s: || 1_800_000_000 };
            let mut worker = Worker::new(io, port, shared, config, rules, random, clocks);
            // Half of the workers read the first bytes as a port for TLS does.
            let listened = worker.listen(
                addr,
                &ListenOptions::default(),
                EntranceUse {
                    reads_by_record: random % 2 == 1,
                    serves_http: true,
                    ..EntranceUse::default()
                },
            );
            addr = listened.expect("a free address");
            server.workers.push(worker);
            server.handles.push(seed.with_waker(wake));
        }
        server.addr = addr;
        server
    }

    /// One turn of every worker that has the processor.
    pub fn turn(&mut self, now_ms: u64) {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if self.starved_until_ms[index] > now_ms || self.stopped[index] {
                continue;
            }
            let flow = worker.turn().expect("a simulated network does not fail as a whole");
            self.stopped[index] = flow == Flow::Stopped;
            worker.check_invariants();
        }
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    pub fn has_stopped_some(&self) -> bool {
        self.stopped.iter().any(|stopped| *stopped)
    }

    pub fn has_stopped(&self) -> bool {
        self.stopped.iter().all(|stopped| *stopped)
    }

    pub fn send_all(&self, command: impl Fn() -> Command) {
        for handle in &self.handles {
            handle.send(command()).expect("commands are taken every turn");
        }
    }

    fn sum(&self, value: impl Fn(&WorkerHandle) -> u64) -> u64 {
        self.handles.iter().map(value).sum()
    }

    /// What must be true when every connection has ended and every timer has run out.
    pub fn check_all_home(&self) -> Result<(), String> {
        let mut open = 0.0;
        let mut streams = 0.0;
        let mut closed = 0.0;
        for handle in &self.handles {
            let metrics = handle.metrics();
            metrics.connections.visit(&mut |sample| open += sample.value);
            metrics.streams.visit(&mut |sample| streams += sample.value);
            metrics.disconnects.visit(&mut |sample| closed += sample.value);
        }
        let accepted = self.sum(|handle| handle.metrics().connections_accepted.value());
        let ring_bytes = self.sum(|handle| handle.metrics().ring_bytes.value());
        let entries = self.shared.registry.len();
        if open != 0.0 || streams != 0.0 || ring_bytes != 0 || entries != 0 {
            return Err(format!(
                "not all came home: {open} connections and {streams} streams counted, \
                 {ring_bytes} ring bytes, {entries} streams in the registry"
            ));
        }
        // The number of connections of a run is far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        if closed != accepted as f64 {
            return Err(format!("{accepted} connections accepted, {closed} ended"));
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let io = worker.io().counters();
            if io.opened != io.closed {
                let (opened, closed) = (io.opened, io.closed);
                return Err(format!("worker {index}: {opened} sockets opened, {closed} closed"));
            }
        }
        self.check_wire()?;
        self.check_payload()
    }

    /// What the workers counted on the wire is what their sockets counted.
    fn check_wire(&self) -> Result<(), String> {
        for (index, worker) in self.workers.iter().enumerate() {
            let (metrics, io) = (self.handles[index].metrics(), worker.io().counters());
            let counted = (metrics.ingress_bytes.value(), metrics.egress_bytes.value());
            let carried = (io.received_bytes, io.sent_bytes);
            if counted != carried {
                return Err(format!("worker {index} counted {counted:?} bytes, not {carried:?}"));
            }
        }
        Ok(())
    }

    /// Every payload byte received was copied once or dropped and counted.
    fn check_payload(&self) -> Result<(), String> {
        let received = self.sum(|handle| handle.metrics().payload_received_bytes.value());
        let copied = self.sum(|handle| handle.metrics().payload_copied_bytes.value());
        let dropped = self.sum(|handle| handle.metrics().payload_dropped_bytes.value());
        if received != copied + dropped {
            return Err(format!(
                "payload: {received} received, {copied} copied, {dropped} dropped"
            ));
        }
        Ok(())
    }

    pub fn stale_completions(&self) -> u64 {
        self.workers.iter().map(|worker| worker.io().counters().stale_completions).sum()
    }

    pub fn skips(&self) -> u64 {
        let mut skips = 0;
        for handle in &self.handles {
            handle.metrics().skips.visit(&mut |sample| skips += u64::from(sample.value > 0.0));
        }
        skips
    }

    pub fn takeovers(&self) -> u64 {
        self.sum(|handle| handle.metrics().publish_takeovers.value())
    }
}
