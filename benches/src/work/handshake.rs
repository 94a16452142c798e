//! Whole handshakes, client and server in one thread. A cold path: once per connection.

use rtmp::handshake::{Client, ClientVariant, Server};

use crate::case::{Outcome, Size, Skipped, Work};
use crate::digest::Digest;

struct Shake {
    variant: ClientVariant,
    rounds: u64,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

/// The handshake as specified.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_simple(size: Size) -> Result<Box<dyn Work>, Skipped> {
    build(ClientVariant::Simple, size)
}

/// The handshake with digests.
///
/// # Errors
/// Never; the signature is that of all cases.
pub fn build_digest(size: Size) -> Result<Box<dyn Work>, Skipped> {
    build(ClientVariant::Digest, size)
}

fn build(variant: ClientVariant, size: Size) -> Result<Box<dyn Work>, Skipped> {
    let (to_server, to_client) = (Vec::new(), Vec::new());
    Ok(Box::new(Shake { variant, rounds: size.pick(2, 100), to_server, to_client }))
}

impl Work for Shake {
    fn run(&mut self) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = 0;
        for seed in 1..=self.rounds {
            self.to_server.clear();
            self.to_client.clear();
            let mut client = Client::new(self.variant, seed, &mut self.to_server);
            let mut server = Server::new(seed);
            let mut challenge = self.to_server.as_slice();
            let is_done = server.handle_bytes(&mut challenge, &mut self.to_client);
            assert_eq!(is_done, Ok(false), "C2 is still to come");
            digest.mix_ends(&self.to_client);
            bytes += (self.to_server.len() + self.to_client.len()) as u64;
            self.to_server.clear();
            let mut answer = self.to_client.as_slice();
            let is_done = client.handle_bytes(&mut answer, &mut self.to_server);
            assert_eq!(is_done, Ok(true), "S2 was the last");
            digest.mix_ends(&self.to_server);
            bytes += self.to_server.len() as u64;
            let mut answer = self.to_server.as_slice();
            let is_done = server.handle_bytes(&mut answer, &mut self.to_client);
            assert_eq!(is_done, Ok(true), "C2 was the last");
        }
        Outcome { units: self.rounds, bytes, copied_bytes: 0, digest: digest.value() }
    }
}
