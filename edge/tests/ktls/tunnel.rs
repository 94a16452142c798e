//! The client side of TLS as a process of its own would do it: takes plain connections, carries each to
//! the server in TLS, and remembers what was agreed and how it ended. One thread, until it is dropped.
//!
//! ```text
//!   RTMP client ── plain ──► Link ── records ──► ringcast
//!        FIN ───────────────► close_notify, FIN ──►
//!        ◄─────────────── FIN ◄── close_notify, FIN, RST
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tls::{Facts, Progress, Session, rustls};

use crate::certs::NAME;
use crate::peer::End;

/// Unsent bytes of a link at which its source is no longer read: a client that reads nothing is soon felt by
/// the server.
const PENDING_BYTES_MAX: usize = 1 << 16;

/// A running tunnel.
pub(crate) struct Tunnel {
    /// Where plain connections are taken.
    pub(crate) addr: SocketAddr,
    facts: Arc<Mutex<Vec<Facts>>>,
    ends: Arc<Mutex<Vec<End>>>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// A tunnel to `server`.
    pub(crate) fn start(server: SocketAddr, config: Arc<rustls::ClientConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let facts = Arc::default();
        let ends = Arc::default();
        let is_stopping = Arc::new(AtomicBool::new(false));
        let mut carrier = Carrier {
            listener,
            server,
            config,
            links: Vec::new(),
            buffer: vec![0; 65_536],
            facts: Arc::clone(&facts),
            ends: Arc::clone(&ends),
        };
        let stop = Arc::clone(&is_stopping);
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                carrier.turn();
            }
        });
        Self { addr, facts, ends, is_stopping, thread: Some(thread) }
    }

    /// What was agreed, connection by connection.
    pub(crate) fn facts(&self) -> Vec<Facts> {
        self.facts.lock().unwrap().clone()
    }

    /// How connections ended that the server ended.
    pub(crate) fn ends(&self) -> Vec<End> {
        self.ends.lock().unwrap().clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(outcome.is_ok() || thread::panicking(), "the tunnel does not fail");
        }
    }
}

struct Carrier {
    listener: TcpListener,
    server: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    links: Vec<Link>,
    buffer: Vec<u8>,
    facts: Arc<Mutex<Vec<Facts>>>,
    ends: Arc<Mutex<Vec<End>>>,
}

impl Carrier {
    fn turn(&mut self) {
        let ready = self.wait();
        for (link, _) in self.links.iter_mut().zip(ready).filter(|(_, is_ready)| *is_ready) {
            link.carry(&mut self.buffer);
        }
        while let Ok((plain, _)) = self.listener.accept() {
            self.links.push(Link::open(plain, self.server, &self.config));
        }
        for link in &mut self.links {
            if link.is_established() && !std::mem::replace(&mut link.is_known, true) {
                let facts = link.session.facts().expect("it is established").clone();
                self.facts.lock().unwrap().push(facts);
            }
        }
        self.links.retain(|link| match link.end {
            Some(end) if link.to_plain.is_empty() => {
                self.ends.lock().unwrap().push(end);
                false
            }
            _ => true,
        });
    }

    /// Waits a while; tells for each link whether there is something to do.
    fn wait(&self) -> Vec<bool> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for link in &self.links {
            let flags = |reads: bool, writes: bool| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, reads);
                flags.set(PollFlags::OUT, writes);
                flags
            };
            let plain = flags(link.reads_plain(), !link.to_plain.is_empty());
            let sealed = flags(link.reads_sealed(), !link.to_sealed.is_empty());
            fds.extend([PollFd::new(&link.plain, plain), PollFd::new(&link.sealed, sealed)]);
        }
        // The bound is there for the end of the test.
        let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        let ends = fds.get(1..).unwrap_or_default();
        ends.chunks(2).map(|pair| pair.iter().any(|fd| !fd.revents().is_empty())).collect()
    }
}

struct Link {
    plain: TcpStream,
    sealed: TcpStream,
    session: Session,
    progress: Progress,
    to_plain: Vec<u8>,
    to_sealed: Vec<u8>,
    /// The RTMP client sends nothing more.
    is_plain_done: bool,
    is_known: bool,
    end: Option<End>,
}

impl Link {
    fn open(plain: TcpStream, server: SocketAddr, config: &Arc<rustls::ClientConfig>) -> Self {
        let sealed = TcpStream::connect(server).unwrap();
        for socket in [&plain, &sealed] {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        // Else the kernel would take megabytes for a client that reads nothing.
        rustix::net::sockopt::set_socket_send_buffer_size(&plain, PENDING_BYTES_MAX).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&sealed, 2 * PENDING_BYTES_MAX).unwrap();
        let name = tls::server_name(NAME).unwrap();
        let mut session = Session::client(Arc::clone(config), name).unwrap();
        let mut to_sealed = Vec::new();
        session.start(&mut to_sealed).unwrap();
        Self {
            plain,
            sealed,
            session,
            progress: Progress::Handshaking,
            to_plain: Vec::new(),
            to_sealed,
            is_plain_done: false,
            is_known: false,
            end: None,
        }
    }

    fn is_established(&self) -> bool {
        self.progress != Progress::Handshaking
    }

    fn reads_plain(&self) -> bool {
        self.is_established() && !self.is_plain_done && self.to_sealed.len() < PENDING_BYTES_MAX
    }

    fn reads_sealed(&self) -> bool {
        self.end.is_none() && self.to_plain.len() < PENDING_BYTES_MAX
    }

    fn carry(&mut self, buffer: &mut [u8]) {
        if self.reads_sealed() {
            match self.sealed.read(buffer) {
                Ok(0) if self.progress == Progress::PeerClosed => self.end = Some(End::Orderly),
                Ok(0) => self.end = Some(End::Truncated),
                Ok(count) => self.open_records(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.end = Some(End::Reset),
            }
        }
        if self.reads_plain() {
            match self.plain.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(count) if count > 0 => {
                    let plain = buffer.get(..count).unwrap_or_default();
                    self.session.encrypt(plain, &mut self.to_sealed).unwrap();
                }
                _ => {
                    self.is_plain_done = true;
                    self.session.close_notify(&mut self.to_sealed);
                }
            }
        }
        send(&mut self.sealed, &mut self.to_sealed);
        send(&mut self.plain, &mut self.to_plain);
        if self.is_plain_done && self.to_sealed.is_empty() {
            // Fails only when the server was quicker.
            let _ = self.sealed.shutdown(Shutdown::Write);
        }
    }

    fn open_records(&mut self, input: &[u8]) {
        match self.session.handle_bytes(input, &mut self.to_sealed, &mut self.to_plain) {
            Ok(progress) => self.progress = progress,
            Err(error) => {
                println!("TLS of the tunnel: {error}");
                self.end = Some(End::Failed);
            }
        }
    }
}

/// Sends what the socket takes; of a socket that is gone the reading side tells.
fn send(socket: &mut TcpStream, pending: &mut Vec<u8>) {
    while !pending.is_empty() {
        match socket.write(pending) {
            Ok(count) => drop(pending.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => pending.clear(),
        }
    }
}
