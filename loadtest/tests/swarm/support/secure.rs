//! TLS in front of a test server: takes connections, decrypts, and passes everything on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tls::rustls::ServerConfig;
use tls::testing::{Authority, Validity};
use tls::{Roots, ServerOptions, Session};

/// TLS before a server.
pub(crate) struct Front {
    pub(crate) addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Front {
    /// The file of the authority that signed the server's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

/// Puts TLS before `server`, with a certificate for 127.0.0.1; without `tickets` nothing is resumed.
pub(crate) fn front(server: SocketAddr, tickets: usize) -> Front {
    let authority = Authority::new();
    let resolver = authority.resolver(&["127.0.0.1"], Validity::Now);
    let options = ServerOptions { tickets, ..ServerOptions::default() };
    let config = tls::server_config(resolver, &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let Roots::Pem(pem) = authority.roots() else { panic!("an authority is a PEM file") };
    std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || pass(client, server, config));
        }
    });
    Front { addr, folder }
}

/// Passes bytes both ways until an end is reached.
fn pass(mut client: TcpStream, server: SocketAddr, config: Arc<ServerConfig>) -> Option<()> {
    let mut server = TcpStream::connect(server).ok()?;
    for socket in [&client, &server] {
        socket.set_nodelay(true).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(1))).ok()?;
    }
    let mut session = Session::server(config).ok()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        let count = read(&mut client, &mut buffer)?;
        session.handle_bytes(&buffer[..count], &mut wire, &mut plain).ok()?;
        server.write_all(&plain).ok()?;
        if session.facts().is_some() {
            let count = read(&mut server, &mut buffer)?;
            session.encrypt(&buffer[..count], &mut wire).ok()?;
        }
        client.write_all(&wire).ok()?;
    }
}

/// Bytes that are there; `None` at the end.
fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
    match socket.read(buffer) {
        Ok(0) => None,
        Ok(count) => Some(count),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock).then_some(0),
    }
}
