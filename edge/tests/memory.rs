//! What one more player costs in memory of the process: bytes its worker allocates and keeps, counted.
//!
//! The worker's turns run on the test's thread, over the kernel's network; publisher and players run on
//! another. Only what the worker's thread allocates and frees is counted. The kernel's part (socket
//! buffers) is not in it, nor what the allocator adds.
//!
//! Allocations beyond a page are counted by number: they are the worker's tables and pools, which grow in
//! steps with the busiest turn so far, so their bytes say when that was. A player has none of its own.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
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
use support::client::Net;
use support::media::Source;
use uring::{Epoll, IoConfig, ListenOptions};

/// Players at the first and at the second count. With the first, the pools of the worker are full.
const PLAYERS: [usize; 2] = [300, 500];
/// Bytes a player may cost, tables that grow by doubling included.
const PLAYER_BYTES_MAX: i64 = 1_400;
/// Largest allocation counted by its bytes, in bytes.
const SIZES_MAX: usize = 4_096;
/// More of the larger ones than this between the two counts are not only tables.
const LARGE_MAX: i32 = 10;

/// The phases: one count per entry of `PLAYERS`, then the end.
const FIRST: u8 = 1;
const STOPPED: u8 = 9;

thread_local! {
    static IS_COUNTING: Cell<bool> = const { Cell::new(false) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
    /// By their bytes, the larger ones together in the last place.
    static SIZES: RefCell<[i32; SIZES_MAX + 2]> = const { RefCell::new([0; SIZES_MAX + 2]) };
}

struct Counting;

impl Counting {
    fn note(bytes: usize, sign: i64) {
        // The thread may be ending; what it does then is not counted.
        let is_counting = IS_COUNTING.try_with(Cell::get).unwrap_or(false);
        if is_counting {
            if bytes <= SIZES_MAX {
                BYTES.set(BYTES.get() + sign * i64::try_from(bytes).unwrap_or(0));
            }
            SIZES.with_borrow_mut(|sizes| {
                sizes[bytes.min(SIZES_MAX + 1)] += if sign > 0 { 1 } else { -1 };
            });
        }
    }
}

// SAFETY: every call goes to the system's allocator unchanged; the counting around it touches
// thread-locals that need no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size(), 1);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        Self::note(layout.size(), -1);
        // SAFETY: `start` came from `alloc` or `realloc` here, that is from the system's allocator.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        Self::note(layout.size(), -1);
        Self::note(bytes, 1);
        // SAFETY: `start` came from `alloc` or `realloc` here, that is from the system's allocator.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Players come in two lots; after each the stream goes on until all is quiet, and `phase` moves.
fn play(addr: SocketAddr, phase: &AtomicU8) {
    let mut net = Net::new(addr);
    let publisher = net.publish("cam");
    net.until_started(&[publisher]);
    let mut source = Source { step_ms: 40, ..Source::new(1) };
    net.send_headers(publisher, &source);
    // The ring and the pools are full before the first count.
    net.send_frames(publisher, &mut source, 600);
    let mut players = Vec::new();
    for (reached, count) in (FIRST..).zip(PLAYERS) {
        let more: Vec<usize> = (players.len()..count).map(|_| net.play("cam")).collect();
        net.until_started(&more);
        players.extend(more);
        for _ in 0..100 {
            net.send_frames(publisher, &mut source, 1);
            net.until_received(&players, &source);
        }
        phase.store(reached, Ordering::Release);
        let deadline = Instant::now() + PATIENCE;
        while phase.load(Ordering::Acquire) == reached && Instant::now() < deadline {
            thread::yield_now();
        }
    }
}

#[test]
fn one_more_player_costs_little_memory() {
    let (events, _taken_by_nobody) = Events::channel();
    let (port, _seed) = worker_link(0, events);
    let config = Arc::new(Config::default());
    let rules = Arc::new(Rules::open(Arc::clone(&config)));
    let clocks = Clocks { cpu_nanos: || 0, unix_s: || 1_800_000_000 };
    let io = Epoll::open(IoConfig::default()).unwrap();
    let mut worker = Worker::new(io, port, Arc::new(Shared::new(1)), config, rules, 1, clocks);
    let listened = worker.listen(
        "127.0.0.1:0".parse().unwrap(),
        &ListenOptions::default(),
        EntranceUse::default(),
    );
    let addr = listened.unwrap();
    let phase = AtomicU8::new(0);
    let mut counted = Vec::new();
    let mut sizes_before = [0; SIZES_MAX + 2];
    thread::scope(|scope| {
        let clients = scope.spawn(|| play(addr, &phase));
        while counted.len() < PLAYERS.len() && !clients.is_finished() {
            IS_COUNTING.set(true);
            let flow = worker.turn();
            IS_COUNTING.set(false);
            assert_eq!(flow.unwrap(), Flow::Continue);
            let reached = phase.load(Ordering::Acquire);
            if usize::from(reached) == counted.len() + 1 {
                counted.push(BYTES.get());
                if counted.len() < PLAYERS.len() {
                    sizes_before = SIZES.with_borrow(|sizes| *sizes);
                }
                phase.store(reached + 100, Ordering::Release);
            }
        }
        phase.store(STOPPED, Ordering::Release);
        if clients.join().is_err() {
            panic!("the clients failed");
        }
    });
    let [first, second] = counted[..] else { panic!("{counted:?}") };
    let more = i64::try_from(PLAYERS[1] - PLAYERS[0]).unwrap();
    let each = (second - first) / more;
    let sizes = SIZES.with_borrow(|sizes| *sizes);
    let by_size = sizes.iter().zip(&sizes_before).enumerate();
    for (size, (after, before)) in by_size.filter(|(_, (after, before))| after != before) {
        println!("{size} bytes: {}", after - before);
    }
    let large = sizes[SIZES_MAX + 1] - sizes_before[SIZES_MAX + 1];
    println!("{each} bytes a player; {large} more allocations beyond {SIZES_MAX} bytes");
    assert!(large <= LARGE_MAX, "{large} large allocations");
    assert!((500..=PLAYER_BYTES_MAX).contains(&each), "{each} bytes a player");
}
