//! One connection on a blocking socket, with TLS or without, to which anything may be sent at any time.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtmp::message::kind;
use rustix::net;
use tls::{Facts, Progress, Session, rustls};

use crate::support::PATIENCE;
use crate::support::raw::{command_body, message};

/// S0, S1 and S2.
const ANSWER_BYTES: usize = 1 + 2 * 1536;

/// How a connection ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// `close_notify`, then FIN.
    Orderly,
    /// FIN, without `close_notify` where there is TLS.
    Truncated,
    /// RST.
    Reset,
    /// An alert, or bytes that are no TLS.
    Failed,
}

/// Whom a peer talks to, and in what.
#[derive(Clone)]
pub(crate) enum Dress {
    /// RTMP as it is.
    Plain,
    /// RTMP in TLS with the server of this name.
    Tls(Arc<rustls::ClientConfig>, &'static str),
}

/// A peer.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    session: Option<Session>,
    pub(crate) plain: Vec<u8>,
    progress: Progress,
    /// The last thing TLS said was wrong.
    pub(crate) error: Option<String>,
}

impl Peer {
    /// Connects, and neither sends nor receives anything.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).unwrap())
    }

    /// The same with a socket that holds next to nothing of what it is sent. From the start: a window that
    /// shrinks later would stop both directions.
    pub(crate) fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
        net::sockopt::set_socket_recv_buffer_size(&socket, 4_096).unwrap();
        net::connect(&socket, &addr).unwrap();
        Self::over(TcpStream::from(socket))
    }

    fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let plain = Vec::new();
        Self { socket, session: None, plain, progress: Progress::Handshaking, error: None }
    }

    /// Connects and sends `header` as it is.
    pub(crate) fn behind(addr: SocketAddr, header: &[u8]) -> Self {
        let mut peer = Self::connect(addr);
        assert!(peer.send_wire(header));
        peer
    }

    /// A peer with an established TLS session.
    pub(crate) fn secure(
        addr: SocketAddr,
        config: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Result<Self, End> {
        let mut peer = Self::connect(addr);
        peer.shake_tls(config, name)?;
        Ok(peer)
    }

    /// A peer whose connect command was accepted; its app is `live`.
    pub(crate) fn connected(addr: SocketAddr, dress: &Dress) -> Self {
        let mut peer = Self::connect(addr);
        peer.introduce(dress, "live.test");
        peer
    }

    /// The bytes a TLS client of this kind begins with.
    pub(crate) fn hello(&mut self, config: &Arc<rustls::ClientConfig>, name: &str) -> Vec<u8> {
        let name = tls::server_name(name).unwrap();
        let mut session = Session::client(Arc::clone(config), name).unwrap();
        let mut hello = Vec::new();
        session.start(&mut hello).unwrap();
        self.session = Some(session);
        hello
    }

    /// The TLS handshake.
    pub(crate) fn shake_tls(
        &mut self,
        config: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> Result<(), End> {
        let hello = self.hello(config, name);
        self.send_wire(&hello);
        while self.facts().is_none() {
            self.receive()?;
        }
        Ok(())
    }

    /// TLS if wanted, the RTMP handshake and the connect command, with `host` in its `tcUrl`.
    pub(crate) fn introduce(&mut self, dress: &Dress, host: &str) {
        if let Dress::Tls(config, name) = dress {
            self.shake_tls(config, name).unwrap_or_else(|end| panic!("{end:?}: {:?}", self.error));
        }
        self.shake_rtmp();
        self.connect_app(host);
    }

    /// The simple handshake of RTMP.
    pub(crate) fn shake_rtmp(&mut self) {
        let mut hello = vec![3];
        hello.extend_from_slice(&[0; 1536]);
        assert!(self.send(&hello));
        while self.plain.len() < ANSWER_BYTES {
            self.receive().unwrap_or_else(|end| panic!("{end:?} in the handshake"));
        }
        self.plain.drain(..ANSWER_BYTES);
        assert!(self.send(&[0; 1536]));
    }

    /// Sends the connect command and waits for its answer.
    pub(crate) fn connect_app(&mut self, host: &str) {
        self.command(0, "connect", |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.key("tcUrl");
            amf.string(&format!("rtmps://{host}/live"));
            amf.object_end();
        });
        self.read_until(b"NetConnection.Connect.Success");
    }

    /// Begins to publish on message stream 1.
    pub(crate) fn publish(&mut self, name: &str) {
        self.create_stream();
        self.command(1, "publish", |amf| {
            amf.null();
            amf.string(name);
            amf.string("live");
        });
        self.read_until(b"NetStream.Publish.Start");
    }

    /// Asks for a message stream and waits for the answer: proof that both directions work.
    pub(crate) fn create_stream(&mut self) {
        self.command(0, "createStream", |amf| amf.null());
        self.read_until(b"_result");
    }

    fn command(&mut self, msid: u32, name: &str, write: impl FnOnce(&mut rtmp::amf0::Writer<'_>)) {
        let body = command_body(name, 1.0, write);
        self.send(&message(3, kind::COMMAND_AMF0, msid, &body));
    }

    /// What the handshake agreed on.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.session.as_ref()?.facts()
    }

    /// The TLS session.
    pub(crate) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("it speaks TLS")
    }

    /// Sends application data; false when the server has closed.
    pub(crate) fn send(&mut self, plain: &[u8]) -> bool {
        let mut out = Vec::new();
        match &mut self.session {
            Some(session) => session.encrypt(plain, &mut out).unwrap(),
            None => out.extend_from_slice(plain),
        }
        self.send_wire(&out)
    }

    /// Sends bytes as they are; false when the server has closed.
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
        self.session().close_notify(&mut out);
        self.send_wire(&out);
    }

    /// The socket ends with a reset.
    pub(crate) fn reset(self) {
        net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)).unwrap();
    }

    /// The sending side ends without a word.
    pub(crate) fn vanish(&self) {
        // Fails only when the server was quicker.
        let _ = self.socket.shutdown(Shutdown::Write);
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
            self.receive().unwrap_or_else(|end| panic!("{end:?} before {wanted}"));
        }
    }

    /// Reads to the end the server makes.
    pub(crate) fn read_to_end(&mut self) -> End {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the server did not end the connection");
            if let Err(end) = self.receive() {
                return end;
            }
        }
    }

    /// Takes what one read brings, and sends what TLS has to say to it.
    pub(crate) fn receive(&mut self) -> Result<(), End> {
        let mut buffer = [0; 16_384];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) if self.progress == Progress::PeerClosed => return Err(End::Orderly),
            Ok(0) => return Err(End::Truncated),
            Ok(count) => count,
            Err(error) if is_closed(error.kind()) => return Err(End::Reset),
            Err(error) => panic!("nothing from the server: {error}"),
        };
        let input = buffer.get(..count).unwrap_or_default();
        let Some(session) = &mut self.session else {
            self.plain.extend_from_slice(input);
            return Ok(());
        };
        let mut out = Vec::new();
        let result = session.handle_bytes(input, &mut out, &mut self.plain);
        self.send_wire(&out);
        match result {
            Ok(progress) => self.progress = progress,
            Err(error) => {
                self.error = Some(error.to_string());
                return Err(End::Failed);
            }
        }
        Ok(())
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
