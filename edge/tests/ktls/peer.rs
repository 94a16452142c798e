//! One TLS connection to the server on a blocking socket, whose bytes can be held back and cut anywhere.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rtmp::message::kind;
use tls::{Progress, Session, rustls};

use crate::certs::NAME;
use crate::support::PATIENCE;
use crate::support::raw::{command_body, message};

/// S0, S1 and S2.
const ANSWER_BYTES: usize = 1 + 2 * 1536;
/// How long a piece that the kernel keeps to itself is given before the rest follows.
const PIECE_PAUSE: Duration = Duration::from_millis(10);

/// How a connection ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// `close_notify`, then FIN.
    Orderly,
    /// FIN without `close_notify`.
    Truncated,
    /// RST.
    Reset,
    /// An alert, or bytes that are no TLS.
    Failed,
}

/// Where the bytes sent after the client hello are cut in two.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Cut {
    /// Bytes before the cut.
    pub(crate) at: usize,
}

/// A peer.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    pub(crate) session: Session,
    plain: Vec<u8>,
    progress: Progress,
    cut: Option<Cut>,
    /// Sent after the client hello.
    sent_bytes: usize,
    /// Of them, those of the handshake.
    pub(crate) flight_bytes: usize,
}

impl Peer {
    /// Connects and sends the client hello.
    pub(crate) fn connect(addr: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Self {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let name = tls::server_name(NAME).unwrap();
        let mut session = Session::client(Arc::clone(config), name).unwrap();
        let mut hello = Vec::new();
        session.start(&mut hello).unwrap();
        socket.write_all(&hello).unwrap();
        Self {
            socket,
            session,
            plain: Vec::new(),
            progress: Progress::Handshaking,
            cut: None,
            sent_bytes: 0,
            flight_bytes: 0,
        }
    }

    /// A peer whose connect command was accepted; its app is `live`.
    pub(crate) fn connected(addr: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Self {
        let mut peer = Self::connect(addr, config);
        peer.shake(None);
        peer.connect_app();
        peer
    }

    /// A peer that publishes on message stream 1.
    pub(crate) fn publishing(
        addr: SocketAddr,
        config: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Self {
        let mut peer = Self::connected(addr, config);
        peer.create_stream();
        let body = command_body("publish", 3.0, |amf| {
            amf.null();
            amf.string(name);
            amf.string("live");
        });
        peer.send(&message(3, kind::COMMAND_AMF0, 1, &body));
        peer.read_until(b"NetStream.Publish.Start");
        peer
    }

    /// Both handshakes, TLS and RTMP: C0 and C1 leave with the last flight of TLS, in the same segment
    /// where its order allows. What is sent after the client hello is cut where asked.
    pub(crate) fn shake(&mut self, cut: Option<Cut>) {
        self.cut = cut;
        let mut is_begun = false;
        while self.plain.len() < ANSWER_BYTES {
            let mut out = self.receive().unwrap_or_else(|end| panic!("{end:?} in the handshake"));
            if self.progress == Progress::Handshaking {
                self.flight_bytes += out.len();
            } else if !is_begun {
                self.flight_bytes += out.len();
                is_begun = true;
                let mut hello = vec![3];
                hello.extend_from_slice(&[0; 1536]);
                self.session.encrypt(&hello, &mut out).unwrap();
            }
            self.send_pieces(&out);
        }
        self.plain.drain(..ANSWER_BYTES);
    }

    /// Sends C2 and the connect command, and waits for its answer.
    pub(crate) fn connect_app(&mut self) {
        let body = command_body("connect", 1.0, |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.key("tcUrl");
            amf.string("rtmps://ktls.test/live");
            amf.object_end();
        });
        let mut bytes = vec![0; 1536];
        bytes.extend(message(3, kind::COMMAND_AMF0, 0, &body));
        self.send(&bytes);
        self.read_until(b"NetConnection.Connect.Success");
    }

    /// Asks for a message stream and waits for the answer: proof that both directions work.
    pub(crate) fn create_stream(&mut self) {
        let body = command_body("createStream", 2.0, |amf| amf.null());
        self.send(&message(3, kind::COMMAND_AMF0, 0, &body));
        self.read_until(b"_result");
    }

    /// Sends application data.
    pub(crate) fn send(&mut self, plain: &[u8]) {
        let mut out = Vec::new();
        self.session.encrypt(plain, &mut out).unwrap();
        self.send_wire(&out);
    }

    /// Sends bytes as they are; a peer that is being thrown out may find its socket closed.
    pub(crate) fn send_wire(&mut self, bytes: &[u8]) -> bool {
        match self.socket.write_all(bytes) {
            Ok(()) => true,
            Err(error) if is_closed(error.kind()) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Says `close_notify`.
    pub(crate) fn say_goodbye(&mut self) {
        let mut out = Vec::new();
        self.session.close_notify(&mut out);
        self.send_wire(&out);
    }

    /// The socket ends with a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)).unwrap();
    }

    /// The sending side ends without a word.
    pub(crate) fn vanish(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads until the plaintext contains `needle`, and forgets what was before its end.
    pub(crate) fn read_until(&mut self, needle: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.plain.windows(needle.len()).position(|window| window == needle) {
                self.plain.drain(..at + needle.len());
                return;
            }
            let wanted = String::from_utf8_lossy(needle);
            assert!(Instant::now() < deadline, "no {wanted}");
            let out = self.receive().unwrap_or_else(|end| panic!("{end:?} before {wanted}"));
            self.send_wire(&out);
        }
    }

    /// Reads to the end the server makes.
    pub(crate) fn read_to_end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the server did not end the connection");
            match self.receive() {
                Ok(out) => drop(self.send_wire(&out)),
                Err(end) => return end,
            }
        }
    }

    /// Takes what one read brings; returns what TLS wants to send for it.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, End> {
        let mut buffer = [0; 16_384];
        let mut out = Vec::new();
        match self.socket.read(&mut buffer) {
            Ok(0) if self.progress == Progress::PeerClosed => Err(End::Orderly),
            Ok(0) => Err(End::Truncated),
            Ok(count) => {
                let input = buffer.get(..count).unwrap_or_default();
                match self.session.handle_bytes(input, &mut out, &mut self.plain) {
                    Ok(progress) => self.progress = progress,
                    Err(error) => {
                        println!("TLS of the test: {error}");
                        return Err(End::Failed);
                    }
                }
                Ok(out)
            }
            Err(error) if is_closed(error.kind()) => Err(End::Reset),
            Err(error) => panic!("nothing from the server: {error}"),
        }
    }

    /// Sends bytes, in two pieces if the cut is in them; the second only when the server has the first.
    fn send_pieces(&mut self, bytes: &[u8]) {
        let before = self.sent_bytes;
        self.sent_bytes += bytes.len();
        let cut = self.cut.and_then(|cut| cut.at.checked_sub(before));
        match cut.and_then(|at| bytes.split_at_checked(at)) {
            Some((first, second)) if !first.is_empty() && !second.is_empty() => {
                self.socket.write_all(first).unwrap();
                self.wait_taken();
                self.socket.write_all(second).unwrap();
            }
            _ => self.socket.write_all(bytes).unwrap(),
        }
    }

    /// Waits until the server has read all that was sent. The kernel keeps a piece of a record it decrypts
    /// itself until it is whole, so after a pause this is good enough.
    fn wait_taken(&self) {
        let client = self.socket.local_addr().unwrap().port();
        let server = self.socket.peer_addr().unwrap().port();
        let deadline = Instant::now() + PIECE_PAUSE;
        while Instant::now() < deadline && unread_bytes(server, client) != Some(0) {
            thread::yield_now();
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Bytes waiting in the server's socket, from the kernel's table of connections.
fn unread_bytes(server: u16, client: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is = |word: Option<&str>, port: u16| {
            word.is_some_and(|word| word.ends_with(&format!(":{port:04X}")))
        };
        is(words.next(), server) && is(words.next(), client)
    })?;
    let queues = line.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split_once(':')?.1, 16).ok()
}
