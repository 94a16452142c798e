//! Processes that may less than this one: what the system refuses them is set between fork and exec.
//!
//! The only `unsafe` of the tests that drive a process: each closure runs in the child, makes system calls
//! and nothing else, and owns what it points to.

#![allow(unsafe_code, reason = "a child is confined between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, setrlimit};

fn before_exec(
    command: &mut Command,
    confine: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: the closures of this file make system calls and do not allocate.
    unsafe { command.pre_exec(confine) };
}

/// At most so many open files.
pub fn descriptors(command: &mut Command, count: u64) {
    let set = move || {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        Ok(setrlimit(Resource::Nofile, limit)?)
    };
    before_exec(command, set);
}

/// `io_uring_setup` fails with EPERM, as under the seccomp profile of a container.
pub fn no_io_uring(command: &mut Command) {
    before_exec(command, deny_io_uring);
}

/// No memory may be locked, and no capability says otherwise.
pub fn no_locked_memory(command: &mut Command) {
    before_exec(command, deny_locked_memory);
}

/// In the network of a namespace.
pub fn network(command: &mut Command, namespace: File) {
    before_exec(command, move || enter_network(&namespace));
}

#[allow(clippy::cast_possible_truncation, reason = "BPF codes are 16 bits wide")]
fn deny_io_uring() -> io::Result<()> {
    const OF_LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const OF_COMPARE: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const OF_RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let setup = u32::try_from(libc::SYS_io_uring_setup).map_err(io::Error::other)?;
    let mut filter = [
        // The number of the system call is the first word the filter sees.
        step(OF_LOAD, 0, 0),
        step(OF_COMPARE, 1, setup),
        step(OF_RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
        step(OF_RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: a plain flag of the process.
    let flagged = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: `program` and the filter it points to live until the call returns.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if flagged == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn deny_locked_memory() -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_int = 14;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Memlock, none)?;
    // SAFETY: takes a capability from programs started later; fails harmlessly where there is none.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
    Ok(())
}

/// Moves the calling thread into the network of a namespace.
///
/// # Errors
/// Not permitted.
pub fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; only the calling thread moves.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
