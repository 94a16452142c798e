//! Forbids the ring everything we do not use.
//!
//! A worker holds sockets and receives bytes from strangers. Should one ever gain a foothold in it,
//! this ring will not open files, rename, or send messages to other rings for them: the kernel
//! refuses any operation not listed here with `EACCES`. Registered while the ring is still
//! disabled, and not to be lifted afterwards.

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{Submitter, opcode};
use std::io;

/// Number of the register call that ends a buffer ring (`IORING_UNREGISTER_PBUF_RING`).
const UNREGISTER_BUFFER_RING: u8 = 23;
/// Number of the register call that cancels and waits (`IORING_REGISTER_SYNC_CANCEL`).
const SYNC_CANCEL: u8 = 24;

/// The operations of this crate.
pub(super) const OPERATIONS: [u8; 6] = [
    opcode::AcceptMulti::CODE,
    opcode::Connect::CODE,
    // Bounded receives too: one operation, told apart by a flag.
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel2::CODE,
];

/// Restricts a ring that was set up disabled.
pub(super) fn restrict(submitter: &Submitter<'_>) -> io::Result<()> {
    let mut list: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    list.push(Restriction::sqe_flags_allowed(Flags::BUFFER_SELECT.bits()));
    list.extend([UNREGISTER_BUFFER_RING, SYNC_CANCEL].map(Restriction::register_op));
    submitter.register_restrictions(&mut list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::IoUring;

    #[test]
    fn an_operation_off_the_list_is_refused_by_the_kernel() {
        let mut ring = match IoUring::builder().setup_r_disabled().build(4) {
            Ok(ring) => ring,
            Err(error) => return println!("skipped: io_uring is not to be had here: {error}"),
        };
        restrict(&ring.submitter()).unwrap();
        ring.submitter().register_enable_rings().unwrap();
        let nop = opcode::Nop::new().build();
        // SAFETY: a no-op names no memory.
        unsafe { ring.submission().push(&nop) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        let answer: io_uring::cqueue::Entry = ring.completion().next().unwrap();
        assert_eq!(answer.result(), -libc::EACCES);
    }
}
