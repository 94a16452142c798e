//! A program without the standard library that uses the sans-IO crates.
//!
//! It defines the panic handler, of which a program has exactly one. If any crate below pulled the
//! standard library in, there would be two, and the compiler would refuse. Built by `tools/test`:
//! `cargo build --manifest-path tools/no-std/Cargo.toml`.
#![no_std]

extern crate alloc;

use core::alloc::{GlobalAlloc, Layout};

struct NoMemory;

// SAFETY: it hands out nothing, so there is nothing to get wrong; this program is linked, not run.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Reaches into each crate, so that all of them are part of the program.
#[unsafe(no_mangle)]
pub extern "C" fn reach() -> u64 {
    let session = rtmp::session::ServerSession::new(
        rtmp::session::SessionConfig::default(),
        1,
        rtmp::Millis(0),
    );
    let (writer, _ring) = ring::stream_ring(ring::RingConfig::default());
    let publisher =
        live::publisher::Publisher::new(live::publisher::PublisherConfig::default(), writer);
    let requests = http1::RequestReader::new();
    session.bytes_in() + publisher.counters().messages + requests.bytes_in()
}
