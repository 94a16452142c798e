//! The server under test: several real workers on one simulated network, in one thread.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use edge::access::Role;
use edge::command::{
    Command, ConnectionId, Events, InspectScope, Reply, Wake, WorkerHandle, worker_link,
};
use edge::config::{Config, DuplicatePublish, FlushPolicy, HlsContainer, HlsStart};
use edge::hand_over::HandOverError;
use edge::hand_over::record::Legacy;
use edge::hls::packager::{Now, Packager};
use edge::hls::{Beginning, HlsSettings, Order, Passed};
use edge::inherit;
use edge::metrics::openmetrics::Metric;
use edge::metrics::{LimitReached, PackagingMetrics};
use edge::shared::Shared;
use edge::storage::StorageQueue;
use edge::worker::{Clocks, EntranceUse, Flow, Worker};
use live::path::StreamPath;
use uring::sim::{SimIo, SimNet};
use uring::{Io, IoConfig, ListenOptions};

use super::dice::Dice;
use super::quotas::{PLAY_HOST, Quotas};
use super::wire::secure;

type SimWorker = Worker<SimIo<ring::Lease>>;

/// Longest time between two turns of the packager, in milliseconds: its thread is woken for a new stream,
/// which costs it less.
const PACKAGER_MS_MAX: u64 = 50;
/// Packaging ends when nobody has asked for so long, in milliseconds: longer than a reload is held.
const HLS_IDLE_MS: u32 = 8_500;

/// The wall clock of a run at its start, in seconds since 1970.
const UNIX_S: u64 = 1_800_000_000;

thread_local! {
    /// The wall clock of this thread's run. Nobody but a run sets it.
    static WALL_CLOCK: Cell<u64> = const { Cell::new(UNIX_S) };
}

/// Sets the wall clock, in seconds since 1970.
pub fn set_wall_clock(unix_s: u64) {
    WALL_CLOCK.set(unix_s);
}

/// What a worker's `Io` and limits are made for. Everything in it is a pool that may run out.
#[derive(Copy, Clone, Debug)]
pub struct Pools {
    pub recv_buffers: u16,
    pub recv_buffer_bytes: u32,
    /// Connections of one worker.
    pub connections_max: u32,
    /// Completions of one turn.
    pub completions_max: usize,
}

impl Pools {
    /// Enough of everything for a run.
    pub const AMPLE: Self = Self {
        recv_buffers: 64,
        recv_buffer_bytes: 4_096,
        connections_max: 256,
        completions_max: 256,
    };

    /// So little of everything that a run meets each end.
    pub fn scarce(dice: &mut Dice) -> Self {
        Self {
            recv_buffers: dice.pick(&[2, 8]),
            recv_buffer_bytes: dice.pick(&[512, 4_096]),
            connections_max: dice.pick(&[3, 6, 256]),
            completions_max: dice.pick(&[4, 16]),
        }
    }
}

/// Limits that peers meet within seconds.
pub fn make_scarce(config: &mut Config, dice: &mut Dice) {
    let limits = &mut config.limits;
    limits.connections_max = dice.pick(&[6, 10, 100_000]);
    limits.streams_max = dice.pick(&[1, 2, 10_000]);
    limits.message_bytes_max = dice.pick(&[65_536, 16_777_215]);
    limits.chunk_streams_max = dice.pick(&[8, 64]);
    limits.reassembly_bytes_max = 65_536;
    limits.reply_bytes_max = 16_384;
    limits.first_byte_ms_max = dice.pick(&[500, 10_000]);
    limits.handshake_ms_max = dice.pick(&[500, 10_000]);
    limits.hls_bytes_max = dice.pick(&[1 << 20, 8 << 20, 64 << 20]);
    config.defaults.retention_bytes = dice.pick(&[1 << 20, 4 << 20]);
}

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
    /// In place of its thread.
    packager: Packager,
    packager_at_ms: u64,
    /// It is not given the processor before this.
    pub packager_starved_until_ms: u64,
    /// Connections of one worker, and streams: never more.
    limits: [u64; 2],
    pub quotas: Quotas,
    /// Connections that each worker took over from another process.
    adopted: Vec<u64>,
    /// Half of the workers read the first bytes as a port for TLS does.
    read_by_record: Vec<bool>,
    /// Nothing is left of it but its end.
    pub is_told_to_stop: bool,
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
    vhost.hls_start = if dice.chance(250) { HlsStart::Always } else { HlsStart::Viewer };
    vhost.hls_idle_ms = HLS_IDLE_MS;
    vhost.hls_segment_ms = dice.pick(&[500, 1_000, 2_000]);
    vhost.hls_part_ms = dice.pick(&[100, 200, 500]);
    vhost.hls_window = dice.pick(&[3, 6, 14]);
    vhost.hls_low_latency = !dice.chance(250);
    vhost.hls_audio_only = dice.chance(300);
    vhost.hls_container = dice.pick(&[HlsContainer::Auto, HlsContainer::Auto, HlsContainer::Ts]);
    config
}

pub fn draw_flush(dice: &mut Dice) -> FlushPolicy {
    match dice.index(4) {
        0 => FlushPolicy::Immediate,
        1 => FlushPolicy::Window { ms: dice.pick(&[20, 100, 350]) },
        _ => FlushPolicy::Frame,
    }
}

/// How much of everything the server holds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Sizes {
    pub connections: u64,
    pub streams: u64,
    /// Streams known to the workers together.
    pub entries: usize,
    /// Bytes the rings keep of their streams.
    pub ring_bytes: u64,
}

impl Server {
    pub fn start(
        net: &SimNet,
        config: &Config,
        pools: Pools,
        workers: usize,
        dice: &mut Dice,
    ) -> Self {
        set_wall_clock(UNIX_S);
        let mut server = Self::idle(net, config, pools, workers, dice);
        let options = ListenOptions::default();
        for index in 0..workers {
            let usage = server.usage(index);
            let listened = server.workers[index].listen(server.addr, &options, usage);
            server.addr = listened.expect("a free address");
        }
        server
    }

    /// Workers without listeners.
    fn idle(net: &SimNet, config: &Config, pools: Pools, workers: usize, dice: &mut Dice) -> Self {
        let shared = Arc::new(Shared::new(workers));
        shared.hls.set_bytes_max(config.limits.hls_bytes_max);
        let metrics = Arc::new(PackagingMetrics::default());
        let storage = StorageQueue::default();
        let now = Now { mono_ms: 0, unix_ms: 0 };
        let (seen, beginning) = (Arc::clone(&shared), Beginning::new());
        let packager = Packager::new(seen, metrics, storage, || 0, beginning, now);
        let (sink, events) = Events::channel();
        let quotas = Quotas::new(config);
        let mut server = Self {
            workers: Vec::new(),
            handles: Vec::new(),
            shared: Arc::clone(&shared),
            addr: "10.0.0.1:1935".parse().expect("an address"),
            starved_until_ms: vec![0; workers],
            stopped: vec![false; workers],
            packager,
            packager_at_ms: 0,
            packager_starved_until_ms: 0,
            limits: [pools.connections_max.into(), config.limits.streams_max.into()],
            quotas,
            adopted: vec![0; workers],
            read_by_record: Vec::new(),
            is_told_to_stop: false,
            _events: events,
        };
        for index in 0..workers {
            let io_config = IoConfig {
                recv_buffers: pools.recv_buffers,
                recv_buffer_bytes: pools.recv_buffer_bytes,
                connections_max: pools.connections_max,
                completions_per_turn_max: pools.completions_max,
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
            let rules = server.quotas.rules();
            let clocks = Clocks { cpu_nanos: || 0, unix_s: || WALL_CLOCK.get() };
            let mut worker = Worker::new(io, port, shared, config, rules, random, clocks);
            worker.set_secure(secure());
            server.read_by_record.push(random % 2 == 1);
            server.workers.push(worker);
            server.handles.push(seed.with_waker(wake));
        }
        server
    }

    fn usage(&self, worker: usize) -> EntranceUse {
        EntranceUse {
            reads_by_record: self.read_by_record[worker],
            serves_http: true,
            ..EntranceUse::default()
        }
    }

    /// The workers of the process after another, at a standstill until [`Self::take_up`]. The sockets are in
    /// the order of `legacy`.
    #[allow(clippy::too_many_arguments)]
    pub fn take_over(
        net: &SimNet,
        config: &Config,
        pools: Pools,
        workers: usize,
        dice: &mut Dice,
        legacy: Legacy,
        sockets: Vec<OwnedFd>,
        now_ms: u64,
    ) -> Result<Self, HandOverError> {
        let mut server = Self::idle(net, config, pools, workers, dice);
        let numbers = legacy.renditions.iter().map(|record| record.try_into());
        server.shared.hls.inherit(numbers.map(|numbers| numbers.expect("a stream's name")));
        let mut sockets = sockets;
        let mut of_connections = sockets.split_off(legacy.doors.len());
        let files_at = of_connections.len() - usize::from(legacy.packaging.files);
        let files = of_connections.split_off(files_at);
        // Before the workers: they find what there was.
        let passed = Passed { record: legacy.packaging, files };
        let storage = StorageQueue::default();
        let hls_of = |path: &StreamPath| HlsSettings::of(config.vhost(path.vhost()).1);
        let beginning = server.shared.hls.resume(passed, hls_of, &storage);
        for index in 0..workers {
            let usage = server.usage(index);
            let worker = &mut server.workers[index];
            worker.hold();
            let own = inherit::share(&sockets, index, workers).expect("descriptors");
            for door in own {
                let listened = worker.listen_on(door, &ListenOptions::default(), usage);
                server.addr = listened.expect("a listener that was passed on");
            }
        }
        let mut rest = of_connections.into_iter();
        let records = legacy.workers.into_iter().map(|record| {
            let own = rest.by_ref().take(record.connections.len()).collect();
            (record, own)
        });
        let legacies = inherit::distribute(records.collect(), workers);
        for (index, legacy) in legacies.into_iter().enumerate() {
            for (record, own) in legacy {
                server.workers[index].import(record, own)?;
            }
            server.adopted[index] = server.workers[index].io().counters().opened;
        }
        let (seen, counted) = (Arc::clone(&server.shared), Arc::default());
        let now = Now { mono_ms: now_ms, unix_ms: WALL_CLOCK.get() * 1_000 };
        server.packager = Packager::new(seen, counted, storage, || 0, beginning, now);
        Ok(server)
    }

    /// They go on with what they have taken over.
    pub fn take_up(&mut self) {
        for worker in &mut self.workers {
            worker.find_places();
            worker.take_up();
            worker.check_invariants();
        }
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
        if now_ms >= self.packager_next_ms() {
            let unix_ms = WALL_CLOCK.get() * 1_000;
            let sleep_ms = self.packager.turn(Now { mono_ms: now_ms, unix_ms });
            self.packager_at_ms = now_ms + sleep_ms.min(PACKAGER_MS_MAX);
        }
    }

    /// One turn of workers that wait for the word to go on: it must move nothing.
    pub fn turn_held(&mut self) {
        for worker in &mut self.workers {
            worker.turn().expect("a simulated network does not fail as a whole");
            worker.check_invariants();
        }
    }

    /// Connections it took over from another process.
    pub fn adopted(&self) -> u64 {
        self.adopted.iter().sum()
    }

    /// Nobody is left in it, and no completion of theirs.
    pub fn is_deserted(&self) -> bool {
        let is_let_go = |worker: &SimWorker| {
            let io = worker.io().counters();
            io.opened == io.closed
        };
        self.sizes().connections == 0 && self.workers.iter().all(is_let_go)
    }

    /// A planted bug: a place in the quotas that nobody gives back.
    pub fn keep_place(&self) {
        let address = self.addr.ip();
        std::mem::forget(self.quotas.rules().readmit(Role::Play, address, PLAY_HOST));
    }

    /// Orders something of the packager, which wakes it.
    pub fn order_packager(&mut self, order: Order) {
        self.shared.hls.order(order);
        self.packager_at_ms = 0;
    }

    /// When the packager has its next turn.
    pub fn packager_next_ms(&self) -> u64 {
        self.packager_at_ms.max(self.packager_starved_until_ms)
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

    /// What must be true at every moment: counters balance, and agree with the sockets.
    pub fn check_balance(&self) -> Result<(), String> {
        for (index, worker) in self.workers.iter().enumerate() {
            let metrics = self.handles[index].metrics();
            let (mut open, mut closed) = (0.0, 0.0);
            metrics.connections.visit(&mut |sample| open += sample.value);
            metrics.disconnects.visit(&mut |sample| closed += sample.value);
            let accepted = metrics.connections_accepted.value();
            // The number of connections of a run is far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            if (accepted + self.adopted[index]) as f64 != open + closed {
                let adopted = self.adopted[index];
                return Err(format!(
                    "worker {index}: {accepted} accepted, {adopted} taken over, {open} open, \
                     {closed} closed"
                ));
            }
            let io = worker.io().counters();
            if io.closed > io.opened || io.accepted != accepted {
                return Err(format!("worker {index}: {accepted} accepted, its sockets say {io:?}"));
            }
            let streams = self.shared.registry.len();
            let [connections_max, streams_max] = self.limits;
            // Both are far below 2^53.
            #[allow(clippy::cast_precision_loss)]
            if open > connections_max as f64 || streams as f64 > streams_max as f64 {
                return Err(format!("worker {index}: {open} connections, {streams} streams"));
            }
        }
        self.check_wire()
    }

    /// A planted bug: an entry of the registry that is never given back.
    pub fn hold_stream(&self) {
        let path = self.quotas.path(0);
        let held = self.shared.registry.hold(&path, edge::registry::StreamsMax::NONE);
        drop(held.expect("there is room"));
    }

    /// A planted bug: one connection is counted twice.
    pub fn miscount(&self) {
        self.handles[0].metrics().connections_accepted.increment();
    }

    /// What it holds now.
    pub fn sizes(&self) -> Sizes {
        let (mut connections, mut streams) = (0.0, 0.0);
        for handle in &self.handles {
            handle.metrics().connections.visit(&mut |sample| connections += sample.value);
            handle.metrics().streams.visit(&mut |sample| streams += sample.value);
        }
        // Counts of a run: small and not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (connections, streams) = (connections as u64, streams as u64);
        let ring_bytes = self.sum(|handle| handle.metrics().ring_bytes.value());
        Sizes { connections, streams, entries: self.shared.registry.len(), ring_bytes }
    }

    /// Bytes that the ring of a stream keeps, from its oldest message to its head.
    pub fn ring_bytes(&self, path: usize) -> u64 {
        let entry = self.shared.registry.find(&self.quotas.path(path));
        let view = entry.and_then(|entry| Some(entry.ring()?.tap().refresh()));
        view.map_or(0, |view| view.head.0 - view.tail.0)
    }

    /// The connection of a peer with this address, by the server's own list.
    pub fn find_client(&mut self, peer: SocketAddr, now_ms: u64) -> Option<ConnectionId> {
        let mut answers = Vec::new();
        for handle in &self.handles {
            let (reply, answer) = Reply::channel();
            let scope = InspectScope::Clients;
            let command = Command::Inspect { scope, cursor: 0, count_max: 256, reply };
            handle.send(command).expect("commands are taken every turn");
            answers.push(answer);
        }
        self.turn(now_ms);
        let pages = answers.iter_mut().filter_map(|answer| answer.try_recv().ok());
        let peer = peer.to_string();
        pages
            .flat_map(|page| page.clients)
            .find(|client| client.peer == peer)
            .map(|client| client.id)
    }

    /// What must be true when every connection has ended and every timer has run out.
    pub fn check_all_home(&self) -> Result<(), String> {
        let mut open = 0.0;
        let mut streams = 0.0;
        for handle in &self.handles {
            let metrics = handle.metrics();
            metrics.connections.visit(&mut |sample| open += sample.value);
            metrics.streams.visit(&mut |sample| streams += sample.value);
        }
        let ring_bytes = self.sum(|handle| handle.metrics().ring_bytes.value());
        let entries = self.shared.registry.len();
        if open != 0.0 || streams != 0.0 || ring_bytes != 0 || entries != 0 {
            return Err(format!(
                "not all came home: {open} connections and {streams} streams counted, \
                 {ring_bytes} ring bytes, {entries} streams in the registry"
            ));
        }
        let (renditions, bytes) = (self.shared.hls.renditions().len(), self.shared.hls.bytes());
        if renditions > 0 || bytes > 0 {
            return Err(format!("not all came home: {renditions} renditions of {bytes} bytes"));
        }
        self.check_peers_home()
    }

    /// What must be true when every connection has ended: a process that ends then takes its streams along.
    pub fn check_peers_home(&self) -> Result<(), String> {
        let mut closed = 0.0;
        for handle in &self.handles {
            handle.metrics().disconnects.visit(&mut |sample| closed += sample.value);
        }
        let accepted = self.sum(|handle| handle.metrics().connections_accepted.value());
        let adopted = self.adopted();
        // The number of connections of a run is far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        if closed != (accepted + adopted) as f64 {
            return Err(format!(
                "{accepted} connections accepted, {adopted} taken over, {closed} ended"
            ));
        }
        let addresses = self.shared.addresses.open();
        if addresses != 0 {
            return Err(format!("not all came home: {addresses} connections of addresses"));
        }
        // Viewers of HLS have theirs as long as what they are shown.
        if self.shared.hls.renditions().is_empty() {
            self.quotas.check_all_home()?;
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

    /// Whether the rings together were ever over their limit.
    pub fn was_short(&self) -> bool {
        self.sum(|handle| handle.metrics().limits_reached.of(LimitReached::RingTotal).value()) > 0
    }

    pub fn takeovers(&self) -> u64 {
        self.sum(|handle| handle.metrics().publish_takeovers.value())
    }
}
