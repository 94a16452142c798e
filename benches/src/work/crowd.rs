//! The receiving end of the socket cases: many connections on a thread of their own that read and
//! count, so that the measured thread finds empty socket buffers each time.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use uring::{Completion, Epoll, Io, IoConfig, Waker, affinity};

use crate::case::{Size, Skipped};
use crate::digest::Digest;

/// How often a waiting sender looks again.
const LOOK: Duration = Duration::from_micros(50);

/// Receivers that read until told to stop.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    received_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl Crowd {
    /// Starts `count` connections to `addr`, which must be listening. In the small size every byte
    /// is digested, and all receivers must have read the same; in the full size the thread is kept
    /// off the sender's CPU (see [`pin_sender`]).
    ///
    /// # Errors
    /// No descriptors, no epoll.
    pub fn connect(addr: SocketAddr, count: usize, size: Size) -> Result<Crowd, Skipped> {
        let shared = Arc::new(Shared::default());
        let (ready, opened) = channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("crowd".into())
            .spawn(move || receive(addr, count, size, &for_thread, &ready))?;
        match opened.recv() {
            Ok(Ok(waker)) => Ok(Crowd { shared, waker, thread: Some(thread) }),
            Ok(Err(skipped)) => Err(skipped),
            Err(_) => Err(Skipped("the receiving thread ended".into())),
        }
    }

    /// Waits until the crowd has read `bytes` since the start.
    ///
    /// # Panics
    /// When the receivers are gone: they failed, and their message says why.
    pub fn wait_for(&self, bytes: u64) {
        while self.shared.received_bytes.load(Ordering::Acquire) < bytes {
            let is_gone = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!is_gone, "the receivers are gone");
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.waker.wake();
        let failed = self.thread.take().is_some_and(|thread| thread.join().is_err());
        assert!(!failed || std::thread::panicking(), "the receivers failed");
    }
}

/// Pins the calling thread to the first CPU in the full size; the crowd takes the last.
pub fn pin_sender(size: Size) {
    if size == Size::Full
        && let Some(&first) = affinity::allowed_cpus().first()
        && let Err(refused) = affinity::pin_to(first)
    {
        println!("not pinned: {refused}");
    }
}

fn receive(
    addr: SocketAddr,
    count: usize,
    size: Size,
    shared: &Shared,
    ready: &Sender<Result<Waker, Skipped>>,
) {
    // A new thread inherits its maker's CPUs, which is one CPU by now; so the system is asked.
    if size == Size::Full
        && let Some(last) = last_cpu()
    {
        // Refused when there is one CPU only; the figures then say so by their size.
        let _ = affinity::pin_to(last);
    }
    let mut io: Epoll<Rc<[u8]>> = match Epoll::open(IoConfig::default()) {
        Ok(io) => io,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    let mut digests = Vec::new();
    for _ in 0..count {
        match io.connect(addr) {
            Ok(conn) => digests.resize(digests.len().max(conn.index() + 1), Digest::default()),
            Err(error) => return drop(ready.send(Err(error.into()))),
        }
    }
    if ready.send(Ok(io.waker())).is_err() {
        return;
    }
    let mut completions = Vec::new();
    while !shared.is_over.load(Ordering::Acquire) {
        io.turn(None, &mut completions).expect("epoll works");
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { conn, data } => {
                    if size == Size::Small {
                        digests[conn.index()].mix_all(&data);
                    }
                    shared.received_bytes.fetch_add(data.len() as u64, Ordering::Release);
                }
                Completion::Connected { result, .. } => assert_eq!(result, Ok(())),
                _ => {}
            }
        }
    }
    let is_same = digests.windows(2).all(|pair| pair[0] == pair[1]);
    assert!(size == Size::Full || is_same, "receivers read different bytes");
}

/// The last CPU of this machine that can be had.
fn last_cpu() -> Option<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    online.trim().rsplit([',', '-']).next()?.parse().ok()
}
