//! After warm-up the receive and send loop of the kernel backends allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use uring::{Completion, Epoll, Io, IoConfig, ListenOptions, SendBuf, Uring};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local cell
// that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: `start` came from `alloc` above, that is from the system's allocator.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: `start` came from `alloc` above, that is from the system's allocator.
        unsafe { System.realloc(start, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: usize = 8;

/// Echoes `rounds` times 1,000 bytes on each connection; alternates owned buffers and leases.
fn echo<I: Io<Lease = Rc<[u8]>>>(
    io: &mut I,
    peers: &mut [TcpStream],
    completions: &mut Vec<Completion<Rc<[u8]>>>,
    spare: &mut Vec<Vec<u8>>,
    lease: &Rc<[u8]>,
    rounds: usize,
) {
    let mut bytes = [7; 1000];
    for round in 0..rounds {
        for peer in peers.iter_mut() {
            peer.write_all(&bytes).unwrap();
        }
        let mut owed = peers.len() * bytes.len();
        while owed > 0 {
            io.turn(None, completions).unwrap();
            for completion in completions.drain(..) {
                match completion {
                    Completion::Received { conn, data } => {
                        // All 1,000 come in one piece on loopback: written at once, read at once.
                        assert_eq!(data.len(), 1000);
                        let buf = if round % 2 == 0 {
                            let mut owned = spare.pop().unwrap();
                            owned.clear();
                            owned.extend_from_slice(&data);
                            SendBuf::Owned(owned)
                        } else {
                            SendBuf::Lease(Rc::clone(lease))
                        };
                        io.send(conn, buf);
                    }
                    Completion::Sent { bytes, buf, .. } => {
                        owed -= bytes;
                        if let SendBuf::Owned(owned) = buf {
                            spare.push(owned);
                        }
                    }
                    Completion::Accepted { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        for peer in peers.iter_mut() {
            peer.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [7; 1000]);
        }
    }
}

fn allocations_after_warm_up<I: Io<Lease = Rc<[u8]>>>(io: &mut I) -> u64 {
    let (_, addr) = io.listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let mut peers: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut completions = Vec::with_capacity(1024);
    let mut spare: Vec<Vec<u8>> = (0..CONNECTIONS).map(|_| Vec::with_capacity(1000)).collect();
    let lease: Rc<[u8]> = Rc::from(vec![7; 1000]);
    echo(io, &mut peers, &mut completions, &mut spare, &lease, 20);
    let before = ALLOCATIONS.get();
    echo(io, &mut peers, &mut completions, &mut spare, &lease, 500);
    ALLOCATIONS.get() - before
}

#[test]
fn uring_allocates_nothing_after_warm_up() {
    match Uring::open(IoConfig::default()) {
        Ok(mut io) => assert_eq!(allocations_after_warm_up(&mut io), 0),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn epoll_allocates_nothing_after_warm_up() {
    let mut io = Epoll::open(IoConfig::default()).unwrap();
    assert_eq!(allocations_after_warm_up(&mut io), 0);
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(ALLOCATIONS.get(), before + 1);
}
