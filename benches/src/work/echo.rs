//! Turns of a kernel backend: receive on a few connections, send the same back.
//!
//! The clients write and read between the iterations, so only the server's half is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use uring::{Completion, Epoll, Io, IoConfig, ListenOptions, SendBuf, Uring};

use super::crowd::pin_sender;
use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;

const CLIENTS: usize = 8;
const ECHO_BYTES: usize = 1_000;

struct Echo<I: Io<Lease = Rc<[u8]>>> {
    io: I,
    clients: Vec<TcpStream>,
    completions: Vec<Completion<Rc<[u8]>>>,
    spare: Vec<Vec<u8>>,
}

/// Echo on io_uring.
///
/// # Errors
/// No io_uring here.
pub fn build_uring(size: Size) -> Result<Box<dyn Work>, Skipped> {
    pin_sender(size);
    Ok(Box::new(Echo::new(Uring::open(IoConfig::default())?)?))
}

/// Echo on epoll.
///
/// # Errors
/// No descriptors.
pub fn build_epoll(size: Size) -> Result<Box<dyn Work>, Skipped> {
    pin_sender(size);
    Ok(Box::new(Echo::new(Epoll::open(IoConfig::default())?)?))
}

impl<I: Io<Lease = Rc<[u8]>>> Echo<I> {
    fn new(mut io: I) -> Result<Echo<I>, Skipped> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (_, addr) = io.listen(any_port, &ListenOptions::default())?;
        let mut clients = Vec::with_capacity(CLIENTS);
        for _ in 0..CLIENTS {
            let mut client = TcpStream::connect(addr)?;
            client.set_nodelay(true)?;
            client.write_all(&[7; ECHO_BYTES])?;
            clients.push(client);
        }
        let spare = (0..CLIENTS).map(|_| Vec::with_capacity(ECHO_BYTES)).collect();
        Ok(Echo { io, clients, completions: Vec::with_capacity(1_024), spare })
    }
}

impl<I: Io<Lease = Rc<[u8]>>> Work for Echo<I> {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let mut copied_bytes = 0;
        let mut owed = CLIENTS * ECHO_BYTES;
        while owed > 0 {
            self.io.turn(None, &mut self.completions).expect("the backend works");
            for completion in self.completions.drain(..) {
                match completion {
                    Completion::Received { conn, data } => {
                        // Written at once over loopback, so it comes in one piece.
                        assert_eq!(data.len(), ECHO_BYTES);
                        let mut buffer = self.spare.pop().expect("one for each client");
                        buffer.clear();
                        buffer.extend_from_slice(&data);
                        copied_bytes += data.len() as u64;
                        self.io.send(conn, SendBuf::Owned(buffer));
                    }
                    Completion::Sent { bytes, buf, .. } => {
                        owed -= bytes;
                        if let SendBuf::Owned(buffer) = buf {
                            digest.mix_ends(&buffer);
                            self.spare.push(buffer);
                        }
                    }
                    Completion::Accepted { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let bytes = (CLIENTS * ECHO_BYTES) as u64;
        Outcome { units: CLIENTS as u64, bytes, copied_bytes, digest: digest.value() }
    }

    fn settle(&mut self) {
        let mut bytes = [0; ECHO_BYTES];
        for client in &mut self.clients {
            client.read_exact(&mut bytes).expect("an answer");
            assert_eq!(bytes, [7; ECHO_BYTES]);
            client.write_all(&bytes).expect("the server is there");
        }
    }
}
