//! TLS records by the kernel: attaching it to a socket, its keys, and records that are not data.
//!
//! Everything here is one small system call that does not wait, on a socket whose owner has nothing
//! else under way (`Io` sees to that). Bytes of the application take the usual way, plain, and the
//! kernel encrypts and decrypts (Linux, Documentation/networking/tls.rst). Handshakes, key
//! schedules and what a record means are not known here.
//!
//! ```text
//!   attach ──► set_keys(Send) ──► send, send_record
//!         └──► set_keys(Receive) ──► recv ──► bytes
//!                                      └ EIO ─► receive_record ──► Record    (again, until taken)
//!                                      └ EKEYEXPIRED: the peer's new key is not set yet
//! ```
//!
//! Keys pass through and are not kept. Errors of the socket (`MSG_ERRQUEUE`) are never read.

mod probe;
mod stat;

pub use probe::{KernelTls, TlsCipher, TlsSupport, TlsVersion, probe_kernel_tls};
pub use stat::{TlsStat, read_tls_stat};

use crate::io::TlsDirection;
use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, SockRef};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Largest content of a record (RFC 8446 §5.1): what the kernel hands out and takes at once.
pub(crate) const RECORD_BYTES_MAX: usize = 16 * 1024;

/// `TLS_SET_RECORD_TYPE` (linux/tls.h): the control message of a sender.
const SET_RECORD_TYPE: i32 = 1;
/// `TLS_GET_RECORD_TYPE`: that of a receiver.
const GET_RECORD_TYPE: i32 = 2;
/// `TLS_TX_MAX_PAYLOAD_LEN`: a limit to the records we send.
const TX_MAX_PAYLOAD_LEN: i32 = 5;
/// Content type of application data.
const DATA: u8 = 23;

/// A control message with one byte of content, as the kernel lays it out: length (a word), level,
/// type, content, padding to a word.
const CONTROL_BYTES: usize = size_of::<usize>() * 2 + 8;
const CONTROL_CONTENT_AT: usize = size_of::<usize>() + 8;

/// What is attached to one connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) attached: bool,
    /// Without keys a control message would go out as plain bytes.
    can_send: bool,
    /// A receive was told to wait for the peer's new key.
    pub(crate) awaits_key: bool,
}

impl Tls {
    /// What somebody else has attached to a socket, keys included: they travel with it.
    pub(crate) fn of(socket: &impl AsRawFd) -> Self {
        let attached = is_attached(socket);
        Self { attached, can_send: attached, awaits_key: false }
    }

    pub(crate) fn attach(&mut self, socket: &(impl AsFd + AsRawFd)) -> io::Result<()> {
        attach(socket)?;
        self.attached = true;
        Ok(())
    }

    pub(crate) fn set_keys(
        &mut self,
        socket: &(impl AsFd + AsRawFd),
        direction: TlsDirection,
        crypto_info: &[u8],
    ) -> io::Result<()> {
        set_keys(socket, direction, crypto_info)?;
        match direction {
            TlsDirection::Send => self.can_send = true,
            TlsDirection::Receive => self.awaits_key = false,
        }
        Ok(())
    }

    pub(crate) fn send_record(
        &self,
        socket: &impl AsFd,
        record_type: u8,
        bytes: &[u8],
    ) -> io::Result<()> {
        if !self.can_send || !(1..=RECORD_BYTES_MAX).contains(&bytes.len()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let control = control_message(record_type);
        let parts = [IoSlice::new(bytes)];
        let message = MsgHdr::new().with_buffers(&parts).with_control(&control);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let sent = SockRef::from(socket).sendmsg(&message, flags)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
    }
}

/// A call about a connection that is closed.
pub(crate) fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// A call while an operation of the connection is in its way.
pub(crate) fn busy() -> io::Error {
    io::Error::from_raw_os_error(libc::EALREADY)
}

/// What was at the head of the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A record that is not application data.
    Record {
        record_type: u8,
        bytes: Vec<u8>,
    },
    /// Application data after all.
    Data(Vec<u8>),
    Eof,
}

/// Takes the record at the head of the queue, whatever its type.
///
/// # Errors
/// `EAGAIN`: there is none. Anything else broke the connection.
pub(crate) fn receive_record(socket: &impl AsFd) -> io::Result<Taken> {
    let mut bytes = vec![0; RECORD_BYTES_MAX];
    let mut control = [0; CONTROL_BYTES];
    let mut parts = [MaybeUninitSlice::new(writable(&mut bytes))];
    let mut message =
        MsgHdrMut::new().with_buffers(&mut parts).with_control(writable(&mut control));
    let count = SockRef::from(socket).recvmsg(&mut message, libc::MSG_DONTWAIT)?;
    let control_bytes = message.control_len();
    let record_type = record_type(&control[..control_bytes.min(CONTROL_BYTES)]);
    bytes.truncate(count);
    bytes.shrink_to_fit();
    Ok(match record_type {
        Some(record_type) if record_type != DATA => Taken::Record { record_type, bytes },
        _ if count > 0 => Taken::Data(bytes),
        _ => Taken::Eof,
    })
}

fn attach(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls")
}

fn is_attached(socket: &impl AsRawFd) -> bool {
    const NAME: &[u8] = b"tls";
    let mut name = [0; NAME.len()];
    let mut length = libc::socklen_t::try_from(name.len()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes to `name` and the number of them to `length`, both
    // borrowed until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            name.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    result == 0 && name == NAME
}

fn set_keys(socket: &impl AsRawFd, direction: TlsDirection, crypto_info: &[u8]) -> io::Result<()> {
    let name = match direction {
        TlsDirection::Send => libc::TLS_TX,
        TlsDirection::Receive => libc::TLS_RX,
    };
    set_option(socket, libc::SOL_TLS, name, crypto_info)
}

fn limit_records(socket: &impl AsRawFd, bytes_max: u16) -> io::Result<()> {
    set_option(socket, libc::SOL_TLS, TX_MAX_PAYLOAD_LEN, &bytes_max.to_ne_bytes())
}

fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel reads `length` bytes of `value`, borrowed until the call returns, and
    // writes nothing; it copies what it keeps.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Initialised memory as a call sees it that only writes to it.
fn writable(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let length = bytes.len();
    let start = bytes.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: same memory, same length, same borrow, and a type of the same layout. The bytes stay
    // initialised: the one reader of the result is the recvmsg of this file, whose kernel side
    // stores only whole bytes, never takes their value away.
    unsafe { std::slice::from_raw_parts_mut(start, length) }
}

/// The control message that says of which type the record is to be.
fn control_message(record_type: u8) -> [u8; CONTROL_BYTES] {
    let mut message = [0; CONTROL_BYTES];
    let (length, rest) = message.split_at_mut(size_of::<usize>());
    length.copy_from_slice(&(CONTROL_CONTENT_AT + 1).to_ne_bytes());
    rest[..4].copy_from_slice(&libc::SOL_TLS.to_ne_bytes());
    rest[4..8].copy_from_slice(&SET_RECORD_TYPE.to_ne_bytes());
    rest[8] = record_type;
    message
}

/// The type of a received record; `None` when the kernel said nothing of it.
fn record_type(control: &[u8]) -> Option<u8> {
    let (_, rest) = control.split_at_checked(size_of::<usize>())?;
    let (level, rest) = rest.split_at_checked(4)?;
    let (kind, content) = rest.split_at_checked(4)?;
    let ours = level == libc::SOL_TLS.to_ne_bytes() && kind == GET_RECORD_TYPE.to_ne_bytes();
    if ours { content.first().copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn a_control_message_is_laid_out_as_the_c_library_does_it() {
        // SAFETY: only computes a number.
        let space = unsafe { libc::CMSG_SPACE(1) };
        // SAFETY: as above.
        let length = unsafe { libc::CMSG_LEN(1) };
        assert_eq!((space as usize, length as usize), (CONTROL_BYTES, CONTROL_CONTENT_AT + 1));
        let mut message = control_message(21);
        assert_eq!(message[..8], 17u64.to_ne_bytes());
        assert_eq!(record_type(&message), None, "a sender's message is not a receiver's");
        message[12..16].copy_from_slice(&GET_RECORD_TYPE.to_ne_bytes());
        assert_eq!(record_type(&message), Some(21));
        assert_eq!(record_type(&message[..16]), None);
        assert_eq!(record_type(&[]), None);
    }

    #[test]
    fn without_keys_a_control_message_never_leaves_as_plain_bytes() {
        let (one, _other) = pair();
        let error = Tls::default().send_record(&one, 21, &[1, 0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let ready = Tls { attached: true, can_send: true, awaits_key: false };
        for length in [0, RECORD_BYTES_MAX + 1] {
            let error = ready.send_record(&one, 21, &vec![0; length]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    }

    #[test]
    fn what_a_plain_socket_brings_is_data_then_nothing_then_the_end() {
        let (one, mut other) = pair();
        let nothing = receive_record(&one).unwrap_err();
        assert_eq!(nothing.raw_os_error(), Some(libc::EAGAIN));
        other.write_all(b"plain").unwrap();
        assert!(matches!(receive_record(&one).unwrap(), Taken::Data(bytes) if bytes == b"plain"));
        drop(other);
        assert!(matches!(receive_record(&one).unwrap(), Taken::Eof));
    }

    #[test]
    fn keys_without_tls_attached_are_refused() {
        let (one, _other) = pair();
        let error = set_keys(&one, TlsDirection::Send, &[0; 40]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
    }
}
