//! A peer that sends what it likes: blocking socket, bytes made by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use rtmp::amf0;
use rtmp::chunk::Framing;
use rtmp::message::{MessageHeader, kind};

use super::PATIENCE;

/// A peer without a session.
pub struct RawPeer {
    pub socket: TcpStream,
}

impl RawPeer {
    pub fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// A peer that comes from another address of this host.
    pub fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((source, 0))).unwrap();
        connect(&socket, &addr).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// A peer that has done the simple handshake.
    pub fn shaken(addr: SocketAddr) -> Self {
        Self::connect(addr).shake()
    }

    /// Does the simple handshake.
    pub fn shake(self) -> Self {
        let mut peer = self;
        let mut hello = vec![3];
        hello.extend_from_slice(&[0; 1536]);
        peer.socket.write_all(&hello).unwrap();
        let mut answer = [0; 1 + 2 * 1536];
        peer.socket.read_exact(&mut answer).unwrap();
        peer.socket.write_all(&answer[1..1537]).unwrap();
        peer
    }

    /// A peer whose connect command was accepted; its app is `live`.
    pub fn connected(addr: SocketAddr) -> Self {
        let mut peer = Self::shaken(addr);
        peer.command(0, "connect", 1.0, |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string("live");
            amf.key("tcUrl");
            amf.string("rtmp://127.0.0.1/live");
            amf.object_end();
        });
        peer.read_until(b"NetConnection.Connect.Success");
        peer
    }

    /// A peer that publishes on message stream 1.
    pub fn publishing(addr: SocketAddr, name: &str) -> Self {
        let mut peer = Self::connected(addr);
        peer.create_stream(2.0);
        peer.command(1, "publish", 3.0, |amf| {
            amf.null();
            amf.string(name);
            amf.string("live");
        });
        peer.read_until(b"NetStream.Publish.Start");
        peer
    }

    pub fn create_stream(&mut self, transaction: f64) {
        self.command(0, "createStream", transaction, |amf| amf.null());
    }

    /// Sends; a peer that is being thrown out may find its socket closed, which is no failure.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.socket.write_all(bytes) {
            Ok(()) => true,
            Err(error) if is_closed(error.kind()) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn command(
        &mut self,
        msid: u32,
        name: &str,
        transaction: f64,
        write: impl FnOnce(&mut amf0::Writer<'_>),
    ) -> bool {
        let body = command_body(name, transaction, write);
        self.send(&message(3, kind::COMMAND_AMF0, msid, &body))
    }

    /// Reads until the bytes contain `needle`.
    pub fn read_until(&mut self, needle: &[u8]) {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        let deadline = Instant::now() + PATIENCE;
        while !all.windows(needle.len()).any(|window| window == needle) {
            let count = self.socket.read(&mut buffer).unwrap();
            assert!(Instant::now() < deadline, "no {:?}", String::from_utf8_lossy(needle));
            assert!(count > 0, "ended before {:?}", String::from_utf8_lossy(needle));
            all.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads to the end the server makes; returns what came.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        // Pings may come for ever, so a timeout of the socket alone is not enough.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the server did not end the connection");
            match self.socket.read(&mut buffer) {
                Ok(0) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if is_closed(error.kind()) => return all,
                Err(error) => panic!("the server did not end the connection: {error}"),
            }
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Body of a command.
pub fn command_body(
    name: &str,
    transaction: f64,
    write: impl FnOnce(&mut amf0::Writer<'_>),
) -> Vec<u8> {
    let mut body = Vec::new();
    let mut amf = amf0::Writer::new(&mut body);
    amf.string(name);
    amf.number(transaction);
    write(&mut amf);
    body
}

/// Header of a message whose body does not come, or not in this way.
pub fn announcement(csid: u8, kind: u8, msid: u32, length: u32) -> Vec<u8> {
    let [_, high, middle, low] = length.to_be_bytes();
    let mut bytes = vec![csid, 0, 0, 0, high, middle, low, kind];
    bytes.extend_from_slice(&msid.to_le_bytes());
    bytes
}

/// One message in chunks of 128 bytes.
pub fn message(csid: u32, kind: u8, msid: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let header = MessageHeader { csid, kind, msid, timestamp: 0, length };
    let mut out = Vec::new();
    Framing { chunk_bytes: 128 }.write_message(&header, body, &mut out);
    out
}
