//! After warm-up a worker that receives a stream and sends it to fifty players allocates nothing.
//!
//! The worker's turns run on the test's thread, over the kernel's network; publisher and players run
//! on another. Only allocations of the worker's thread are counted, and only within its turns.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Instant;

use edge::access::Rules;
use edge::command::{Events, worker_link};
use edge::config::Config;
use edge::shared::Shared;
use edge::worker::{Clocks, EntranceUse, Flow, Worker};
use support::PATIENCE;
use support::client::{Net, assert_complete};
use support::media::Source;
use uring::{Epoll, Io, IoConfig, ListenOptions, Uring};

const PLAYERS: usize = 50;
/// Pictures of 40 ms before and while counting: 16 seconds of stream each, more than the ring keeps.
const PICTURES: u32 = 400;
/// Allocations whose origin is kept for the report of a failure.
const ORIGINS_MAX: usize = 6;

const WARM_UP: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;
/// The worker turns no more, so nobody sees the clients go.
const STOPPED: u8 = 3;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static ORIGINS: RefCell<Vec<Backtrace>> = const { RefCell::new(Vec::new()) };
}

struct Counting;

impl Counting {
    fn note() {
        // Reset first: taking the backtrace allocates itself.
        if !IS_COUNTING.replace(false) {
            return;
        }
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        if ALLOCATIONS.get() <= ORIGINS_MAX as u64 {
            ORIGINS.with_borrow_mut(|origins| origins.push(Backtrace::force_capture()));
        }
        IS_COUNTING.set(true);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the counting around it touches
// thread-locals that need no allocation, and allocates for its report only while it is switched off.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note();
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` came from `alloc` or `realloc` here, that is from the system's allocator.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::note();
        // SAFETY: `start` came from `alloc` or `realloc` here, that is from the system's allocator.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Streams through a worker at `addr`; tells through `phase` when to count.
fn stream(addr: SocketAddr, phase: &AtomicU8) {
    let mut net = Net::new(addr);
    let publisher = net.publish("cam");
    let players: Vec<usize> = (0..PLAYERS).map(|_| net.play("cam")).collect();
    net.until_started(&[publisher]);
    net.until_started(&players);
    let mut source = Source { step_ms: 40, ..Source::new(1) };
    net.send_headers(publisher, &source);
    for next in [COUNTING, OVER] {
        for _ in 0..PICTURES {
            net.send_frames(publisher, &mut source, 1);
            net.until_received(&players, &source);
        }
        phase.store(next, Ordering::Release);
    }
    let deadline = Instant::now() + PATIENCE;
    while phase.load(Ordering::Acquire) != STOPPED && Instant::now() < deadline {
        thread::yield_now();
    }
    for player in players {
        assert_eq!(assert_complete(&net.clients[player], &source), 0);
    }
}

fn allocations_of<I: Io<Lease = ring::Lease>>(io: I) -> u64 {
    let (events, _taken_by_nobody) = Events::channel();
    let (port, _seed) = worker_link(0, events);
    let mut config = Config::default();
    // What came in the last two seconds is kept whatever its age, and here everything comes within them: so
    // that the ring goes round, it keeps no more bytes than ten seconds have.
    config.defaults.retention_bytes = 400_000;
    let config = Arc::new(config);
    let rules = Arc::new(Rules::open(Arc::clone(&config)));
    let clocks = Clocks { cpu_nanos: || 0, unix_s: || 1_800_000_000 };
    let mut worker = Worker::new(io, port, Arc::new(Shared::new(1)), config, rules, 1, clocks);
    let addr = worker
        .listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default(), EntranceUse::default())
        .unwrap();
    let phase = AtomicU8::new(WARM_UP);
    ALLOCATIONS.set(0);
    let mut turns_counted = 0;
    thread::scope(|scope| {
        let clients = scope.spawn(|| stream(addr, &phase));
        while phase.load(Ordering::Acquire) != OVER && !clients.is_finished() {
            let is_counting = phase.load(Ordering::Acquire) == COUNTING;
            turns_counted += u32::from(is_counting);
            IS_COUNTING.set(is_counting);
            let flow = worker.turn();
            IS_COUNTING.set(false);
            assert_eq!(flow.unwrap(), Flow::Continue);
        }
        phase.store(STOPPED, Ordering::Release);
        if clients.join().is_err() {
            panic!("the clients failed");
        }
    });
    worker.check_invariants();
    assert!(turns_counted > PICTURES, "at least one turn for each picture");
    for origin in ORIGINS.take() {
        println!("allocated at:\n{}", relevant(&origin));
    }
    ALLOCATIONS.get()
}

/// The frames of this workspace, innermost first.
fn relevant(origin: &Backtrace) -> String {
    let text = origin.to_string();
    let ours =
        ["edge::", "live::", "ring::", "rtmp::", "uring::", "./src", "./hotpath", "../hotpath"];
    let lines = text.lines().filter(|line| ours.iter().any(|name| line.contains(name)));
    lines.take(12).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_worker_on_uring_allocates_nothing_after_warm_up() {
    match Uring::open(IoConfig::default()) {
        Ok(io) => assert_eq!(allocations_of(io), 0),
        Err(refusal) => println!("skipped: {refusal}"),
    }
}

#[test]
fn a_worker_on_epoll_allocates_nothing_after_warm_up() {
    assert_eq!(allocations_of(Epoll::open(IoConfig::default()).unwrap()), 0);
}

#[test]
fn the_counter_counts() {
    IS_COUNTING.set(true);
    drop(std::hint::black_box(vec![0_u8; 100]));
    IS_COUNTING.set(false);
    assert_eq!(ALLOCATIONS.get(), 1);
}
