//! Making sockets and reading addresses: everything about sockets that is not moving bytes.
//!
//! Cold path, shared by the io_uring and the epoll backend. Options are set on the listener before
//! `listen`: on Linux an accepted socket starts as a copy of its listener, with `TCP_NODELAY`,
//! `TCP_NOTSENT_LOWAT`, `TCP_USER_TIMEOUT`, keep-alive and the buffer sizes, so accepting costs no
//! system call for them. A test reads them back from an accepted socket.

use crate::config::{ListenOptions, SocketOptions};
use crate::io::Nanos;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The monotonic clock.
pub(crate) fn clock() -> Nanos {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: clock_gettime writes one timespec to the address given, which this frame owns until
    // it returns.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    assert_eq!(result, 0, "the monotonic clock always answers");
    // SAFETY: the call above succeeded, so the timespec is written.
    let time = unsafe { time.assume_init() };
    // Neither part of the monotonic clock is ever negative.
    Nanos(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// A bound, listening socket and the address it got.
pub(crate) fn listener(
    addr: SocketAddr,
    options: &ListenOptions,
) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = stream_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuseport)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6only)?;
    }
    apply(&socket, &options.socket)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let bound = local_addr(&socket)?;
    Ok((socket.into(), bound))
}

/// Makes a listener of a socket that was passed to this process, with the options it can still take.
pub(crate) fn passed_listener(
    fd: OwnedFd,
    options: &ListenOptions,
) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = Socket::from(fd);
    let is_tcp = socket.r#type()? == Type::STREAM && socket.protocol()? == Some(Protocol::TCP);
    if !is_tcp {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    apply(&socket, &options.socket)?;
    // Again where it listens already: only the length of its queue changes.
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let bound = local_addr(&socket)?;
    Ok((socket.into(), bound))
}

/// Sets or ends `O_NONBLOCK`, which all who share a socket share.
pub(crate) fn set_nonblocking(socket: &impl AsFd, nonblocking: bool) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(nonblocking)
}

/// An unconnected socket for `addr` with its options set, bound to `source` if that is given.
pub(crate) fn outgoing(
    source: Option<IpAddr>,
    addr: SocketAddr,
    options: &SocketOptions,
) -> io::Result<OwnedFd> {
    let socket = stream_socket(addr)?;
    apply(&socket, options)?;
    if let Some(source) = source {
        // A refusal costs nothing but the sharing of ports between destinations.
        let _ = set_u32(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

/// Blocking, as io_uring wants it (a non-blocking one would complete with EAGAIN instead of being
/// waited for); the epoll backend switches that off itself.
fn stream_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new_raw(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))
}

fn apply(socket: &Socket, options: &SocketOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(idle_s) = options.keepalive_idle_s {
        let idle = Duration::from_secs(u64::from(idle_s.max(1)));
        let between = Duration::from_secs(u64::from((idle_s / 3).max(1)));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(between).with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if let Some(ms) = options.user_timeout_ms {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(u64::from(ms))))?;
    }
    if let Some(bytes) = options.notsent_lowat_bytes {
        set_u32(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes)?;
    }
    Ok(())
}

fn set_u32(socket: &impl AsRawFd, level: i32, name: i32, value: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4);
    // SAFETY: the kernel reads `length` bytes of `value`, a local that outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Our end of `socket`.
pub(crate) fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    ip_addr(SockRef::from(socket).local_addr()?)
}

/// The other end of `socket`; `ENOTCONN` when the peer has already left.
pub(crate) fn peer_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    ip_addr(SockRef::from(socket).peer_addr()?)
}

fn ip_addr(addr: SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// Sends the acknowledgement that is being held back, if any. A failure costs time, nothing else.
pub(crate) fn acknowledge_now(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_tcp_quickack(true);
}

/// Bounds what waits unsent in the kernel. A failure costs time or memory, nothing else.
pub(crate) fn set_unsent_max(socket: &impl AsRawFd, bytes_max: u32) {
    let _ = set_u32(socket, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes_max.max(1));
}

/// What became of an attempt to send from a file.
pub(crate) enum SentFile {
    /// So many bytes were taken, or the errno of the connection.
    Done(Result<u32, i32>),
    /// The kernel, or a filter of system calls, does not do that: copy instead.
    Unsupported,
}

/// Whether the kernel sends from files: a refusal is remembered, since it would be the same for every body.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct FileSends {
    is_refused: bool,
}

impl FileSends {
    /// What became of `attempt`; `None` where the bytes are to be copied instead.
    pub(crate) fn try_send(
        &mut self,
        attempt: impl FnOnce() -> SentFile,
    ) -> Option<Result<u32, i32>> {
        if self.is_refused {
            return None;
        }
        match attempt() {
            SentFile::Done(result) => Some(result),
            SentFile::Unsupported => {
                self.is_refused = true;
                None
            }
        }
    }
}

/// Sends up to `bytes` of `file` from `offset` on, without waiting: the socket must be non-blocking. Of a
/// peer that is gone `SIGPIPE` tells, too, which every Rust program ignores.
pub(crate) fn send_file(
    socket: &impl AsRawFd,
    (file, offset): (BorrowedFd<'_>, u64),
    bytes: usize,
) -> SentFile {
    let Ok(mut offset) = libc::off_t::try_from(offset) else { return SentFile::Unsupported };
    // SAFETY: the kernel reads and writes the offset, a local that outlives the call.
    let sent =
        unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, bytes) };
    match u32::try_from(sent) {
        Ok(sent) => SentFile::Done(Ok(sent)),
        Err(_) => match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
            libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EACCES => SentFile::Unsupported,
            libc::EAGAIN | libc::EINTR => SentFile::Done(Ok(0)),
            errno => SentFile::Done(Err(errno)),
        },
    }
}

/// [`send_file`] on a socket that is blocking before and after, as io_uring wants it.
pub(crate) fn send_file_blocking(
    socket: &impl AsRawFd,
    file: (BorrowedFd<'_>, u64),
    bytes: usize,
) -> SentFile {
    if set_blocking(socket, false).is_err() {
        return SentFile::Unsupported;
    }
    let sent = send_file(socket, file, bytes);
    // It worked the other way round.
    let _ = set_blocking(socket, true);
    sent
}

/// [`set_nonblocking`] in one call, since it is made for each send.
fn set_blocking(socket: &impl AsRawFd, is_blocking: bool) -> io::Result<()> {
    let mut value = libc::c_int::from(!is_blocking);
    // SAFETY: the kernel reads one int from a local that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONBIO, &raw mut value) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends FIN. A socket that is not connected any more needs none.
pub(crate) fn shutdown_write(socket: &impl AsFd) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
}

/// Ends both directions: whatever waits on the socket completes. A listener stops listening.
pub(crate) fn shutdown_both(socket: &impl AsFd) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}

/// Whether an accept failed because of the one peer it would have accepted: the next may succeed
/// at once. Every other error (descriptors or memory ran out: `EMFILE`, `ENFILE`, `ENOBUFS`,
/// `ENOMEM`) would come again immediately while the peer waits in the backlog.
pub(crate) fn is_peer_gone(errno: i32) -> bool {
    matches!(errno, libc::ECONNABORTED | libc::EPROTO | libc::EPERM | libc::EINTR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_socket_inherits_every_option_of_its_listener() {
        let options = ListenOptions {
            socket: SocketOptions {
                send_buffer_bytes: Some(64 * 1024),
                user_timeout_ms: Some(12_345),
                notsent_lowat_bytes: Some(99_999),
                keepalive_idle_s: Some(30),
                ..SocketOptions::default()
            },
            ..ListenOptions::default()
        };
        let (listener, addr) = listener("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let _peer = std::net::TcpStream::connect(addr).unwrap();
        let accepted = std::net::TcpListener::from(listener).accept().unwrap().0;
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        // The kernel doubles what it is asked for, to account for its own overhead.
        assert_eq!(socket.send_buffer_size().unwrap(), 128 * 1024);
        assert_eq!(notsent_lowat(&accepted), 99_999);
    }

    fn notsent_lowat(socket: &impl AsRawFd) -> u32 {
        let mut bytes = 0u32;
        let mut length: libc::socklen_t = 4;
        // SAFETY: the kernel writes at most `length` bytes to `bytes`; both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NOTSENT_LOWAT,
                (&raw mut bytes).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0);
        bytes
    }

    #[test]
    fn an_ipv6_listener_takes_ipv4_peers_unless_told_otherwise() {
        for (v6only, welcome) in [(false, true), (true, false)] {
            let options = ListenOptions { v6only, ..ListenOptions::default() };
            let Ok((_listener, addr)) = listener("[::]:0".parse().unwrap(), &options) else {
                return println!("skipped: no IPv6 here");
            };
            let mapped = std::net::TcpStream::connect(("127.0.0.1", addr.port()));
            assert_eq!(mapped.is_ok(), welcome, "v6only = {v6only}");
        }
    }

    #[test]
    fn a_refused_send_from_a_file_is_not_tried_again() {
        let mut sends = FileSends::default();
        let mut attempts = 0;
        let mut send = |outcome| {
            sends.try_send(|| {
                attempts += 1;
                outcome
            })
        };
        assert_eq!(send(SentFile::Done(Ok(7))), Some(Ok(7)));
        assert_eq!(send(SentFile::Done(Err(libc::EPIPE))), Some(Err(libc::EPIPE)));
        assert_eq!(send(SentFile::Unsupported), None);
        assert_eq!(send(SentFile::Done(Ok(7))), None);
        assert_eq!(attempts, 3);
    }
}
