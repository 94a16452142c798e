//! Peers that break TLS or abuse it, beside witnesses who must notice nothing. Every attack ends with the
//! log line that names it, and the memory of the server stays within [`RESIDENT_GROWTH_BYTES_MAX`].

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rtmp::message::kind;
use tls::rustls::ContentType;
use tls::{Version, rustls};

use crate::certs::{Authority, Folder, NAME, only};
use crate::forge::Forger;
use crate::peer::{Dress, End, Peer};
use crate::server::{Secured, ways};
use crate::support::raw::{command_body, message};
use crate::support::server::wait_for;
use crate::witnesses::Witnesses;

/// How much the server may grow by all attacks together: the limits of a few connections and what an
/// allocator keeps.
const RESIDENT_GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What whoever floods may have taken from him before he is thrown out.
const FLOOD_BYTES_MAX: usize = 96 * 1024 * 1024;

/// New keys whose answers nobody reads, after which there must have been an end. Far more than what fills
/// the buffers of the sockets.
const PAIRS_MAX: usize = 50_000;
/// Slow enough that the server takes each by itself.
const PAIR_PAUSE: Duration = Duration::from_micros(400);

/// The kernel is to take little of what nobody reads.
const SETTINGS: &str = "[limits]\nunsent_bytes_max = 16384\ncommands_per_second_max = 10000000\n";

/// What the log must say about the end of an attack.
#[derive(Copy, Clone, Debug)]
enum Ending {
    /// `tls_error` with this class.
    Tls(&'static str),
    /// `close` with this reason.
    Reason(&'static str),
}

impl Ending {
    fn count(self, secured: &Secured) -> usize {
        let (event, field, value) = match self {
            Self::Tls(class) => ("tls_error", "class", class),
            Self::Reason(reason) => ("close", "reason", reason),
        };
        secured.server.events(event).iter().filter(|line| line[field] == value).count()
    }
}

/// What an attacker knows.
struct Target {
    port: std::net::SocketAddr,
    config: Arc<rustls::ClientConfig>,
    folder: Arc<Folder>,
}

impl Target {
    fn connected(&self) -> Peer {
        Peer::connected(self.port, &Dress::Tls(Arc::clone(&self.config), NAME))
    }
}

type Attack = (&'static str, Ending, fn(&Target));

fn run(attacks: &'static [Attack]) {
    for how in ways() {
        let mut secured = Secured::start_with(how, Folder::with_one(), SETTINGS);
        let mut witnesses = Witnesses::start(&secured, how);
        // Attackers need it on their threads, the server only at its start.
        let folder = Arc::new(std::mem::replace(&mut secured.folder, Folder::new()));
        let before = secured.server.resident_bytes();
        for &(name, ending, attack) in attacks {
            let logged = ending.count(&secured);
            let target = Target {
                port: secured.rtmps,
                config: folder.client(),
                folder: Arc::clone(&folder),
            };
            witnesses.through(name, move || attack(&target));
            wait_for(&format!("{name} to be logged as {ending:?}"), || {
                witnesses.step();
                ending.count(&secured) > logged
            });
        }
        let grown = secured.server.resident_bytes().saturating_sub(before);
        println!("{how:?}: grew by {grown} bytes");
        assert!(grown <= RESIDENT_GROWTH_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        witnesses.finish();
        drop(witnesses);
        secured.expect_none_left();
    }
}

/// Sends the same again and again until the server has had enough.
fn flood(mut send: impl FnMut(&[u8]) -> bool, burst: &[u8]) {
    for _ in 0..FLOOD_BYTES_MAX / burst.len() {
        if !send(burst) {
            return;
        }
    }
    panic!("the server took {FLOOD_BYTES_MAX} bytes");
}

fn ends_after(target: &Target, bytes: &[u8]) {
    let mut peer = Peer::behind(target.port, bytes);
    peer.read_to_end();
}

/// A record header.
fn record(kind: u8, bytes: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(bytes).unwrap().to_be_bytes();
    [kind, 3, 3, high, low]
}

#[test]
fn what_is_no_hello_is_named_and_closed() {
    run(&[
        ("the first byte and garbage", Ending::Tls("malformed"), |target| {
            ends_after(target, &[&[0x16][..], &[0xff; 4_000]].concat());
        }),
        ("a record of garbage", Ending::Tls("malformed"), |target| {
            ends_after(target, &[&record(22, 512)[..], &[0x5a; 512]].concat());
        }),
        ("a hello of garbage", Ending::Tls("malformed"), |target| {
            ends_after(target, &[&record(22, 516)[..], &[1, 0, 2, 0], &[0x5a; 512]].concat());
        }),
        ("a record longer than any", Ending::Tls("malformed"), |target| {
            ends_after(target, &[&record(22, 0xffff)[..], &[1; 60_000]].concat());
        }),
        ("records without end and without content", Ending::Tls("malformed"), |target| {
            let mut peer = Peer::connect(target.port);
            flood(|burst| peer.send_wire(burst), &record(22, 0).repeat(1_000));
        }),
        ("a hello of sixteen megabytes", Ending::Tls("hello_too_large"), |target| {
            let mut peer = Peer::connect(target.port);
            peer.send_wire(&[&record(22, 4)[..], &[1, 0xff, 0xff, 0xff]].concat());
            let burst = [&record(22, 16_384)[..], &[0; 16_384]].concat();
            flood(|burst| peer.send_wire(burst), &burst);
        }),
        ("a hello in records of one byte", Ending::Tls("hello_too_large"), |target| {
            let mut peer = Peer::connect(target.port);
            for byte in [1, 0, 0x3f, 0xf0] {
                peer.send_wire(&[&record(22, 1)[..], &[byte]].concat());
            }
            let burst = [&record(22, 1)[..], &[0]].concat().repeat(100);
            flood(|burst| peer.send_wire(burst), &burst);
        }),
        ("a hello, then changes of cipher", Ending::Tls("misbehaved"), |target| {
            let mut peer = Peer::connect(target.port);
            let hello = peer.hello(&target.config, NAME);
            peer.send_wire(&hello);
            let burst = [&record(20, 1)[..], &[1]].concat().repeat(100);
            flood(|burst| peer.send_wire(burst), &burst);
        }),
        ("half a hello and the end", Ending::Reason("peer_closed"), |target| {
            let mut peer = Peer::connect(target.port);
            let hello = peer.hello(&target.config, NAME);
            peer.send_wire(&hello[..hello.len() / 2]);
            peer.vanish();
            peer.read_to_end();
        }),
    ]);
}

#[test]
fn a_session_that_is_abused_is_named_and_closed() {
    run(&[
        ("a forged record", Ending::Tls("undecryptable"), |target| {
            let mut peer = target.connected();
            peer.send_wire(&[&record(23, 64)[..], &[0x5a; 64]].concat());
            assert_eq!(peer.read_to_end(), End::Failed, "it is told by an alert");
        }),
        ("records without content", Ending::Tls("misbehaved"), |target| {
            let mut forger = Forger::connect(target.port, &target.folder);
            while forger.send(ContentType::ApplicationData, &[]) {}
        }),
        ("an alert", Ending::Tls("alert_received"), |target| {
            let mut forger = Forger::connect(target.port, &target.folder);
            forger.send(ContentType::Alert, &[2, 80]);
        }),
        ("a second hello", Ending::Tls("misbehaved"), |target| {
            let mut forger = Forger::connect(target.port, &target.folder);
            let hello = Peer::connect(target.port).hello(&target.config, NAME);
            forger.send(ContentType::Handshake, &hello[5..]);
        }),
        ("new keys without end", Ending::Tls("misbehaved"), |target| {
            let mut peer = target.connected();
            loop {
                let mut out = Vec::new();
                peer.session().update_keys(&mut out).unwrap();
                if !peer.send_wire(&out) {
                    return;
                }
            }
        }),
        ("a publisher whose TLS is cut off", Ending::Reason("peer_lost"), |target| {
            let mut peer = target.connected();
            peer.publish("cut");
            peer.vanish();
            peer.read_to_end();
        }),
        ("a player whose TLS is cut off", Ending::Reason("peer_closed"), |target| {
            let mut peer = target.connected();
            peer.create_stream();
            peer.vanish();
            peer.read_to_end();
        }),
        ("a record that never ends", Ending::Reason("peer_closed"), |target| {
            let mut peer = target.connected();
            peer.send_wire(&[&record(23, 16_384)[..], &[0; 16_000]].concat());
            peer.vanish();
            peer.read_to_end();
        }),
    ]);
}

#[test]
fn whoever_asks_and_never_reads_is_closed_within_bounded_memory() {
    run(&[
        ("commands", Ending::Reason("memory_limit"), |target| {
            let mut peer = deaf(target);
            let body = command_body("getStreamLength", 1.0, |amf| amf.null());
            let burst = message(3, kind::COMMAND_AMF0, 0, &body).repeat(200);
            flood(|burst| peer.send(burst), &burst);
        }),
        ("pings", Ending::Reason("memory_limit"), |target| {
            let mut peer = deaf(target);
            let burst = message(2, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]).repeat(800);
            flood(|burst| peer.send(burst), &burst);
        }),
        ("new keys, each with a little data", Ending::Reason("memory_limit"), |target| {
            let mut peer = deaf(target);
            // Without a word of the RTMP session, so that only TLS has something to answer.
            let data = message(4, kind::DATA_AMF0, 1, &[5]);
            for _ in 0..PAIRS_MAX {
                let mut out = Vec::new();
                peer.session().update_keys(&mut out).unwrap();
                peer.session().encrypt(&data, &mut out).unwrap();
                if !peer.send_wire(&out) {
                    return;
                }
                // What arrives together is answered together.
                thread::park_timeout(PAIR_PAUSE);
            }
            panic!("{PAIRS_MAX} answers wait for a peer that does not read");
        }),
    ]);
}

/// A connected peer whose socket holds next to nothing of what it is sent.
fn deaf(target: &Target) -> Peer {
    let mut peer = Peer::connect_narrow(target.port);
    peer.introduce(&Dress::Tls(Arc::clone(&target.config), NAME), "live.test");
    peer
}

#[test]
fn handshakes_that_are_never_finished_hold_little() {
    const PEERS: usize = 400;
    /// A torn hello is held whole; what comes with it is the connection itself.
    const HELD_BYTES_MAX: u64 = 48 * 1024;
    for how in ways() {
        let secured = Secured::start(how);
        let mut witnesses = Witnesses::start(&secured, how);
        let before = secured.server.resident_bytes();
        let received = || secured.server.metric("ringcast_ingress_bytes_total", "");
        let mut torn = [&record(22, 16_000)[..], &[1, 0, 0x3e, 0x7c]].concat();
        torn.resize(15_000, 0);
        let at_first = received();
        let peers: Vec<Peer> = (0..PEERS).map(|_| Peer::behind(secured.rtmps, &torn)).collect();
        wait_for("all of it to be received", || {
            witnesses.step();
            received() >= at_first + (PEERS * torn.len()) as u64
        });
        let grown = secured.server.resident_bytes().saturating_sub(before);
        println!("{how:?}: {} bytes for each", grown / PEERS as u64);
        assert!(grown <= PEERS as u64 * HELD_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        drop(peers);
        witnesses.finish();
        drop(witnesses);
        secured.expect_none_left();
    }
}

#[test]
fn a_renegotiation_of_tls_1_2_is_refused() {
    if !crate::child::have(&["openssl"]) {
        return;
    }
    for how in ways() {
        let secured = Secured::start(how);
        let mut witnesses = Witnesses::start(&secured, how);
        let (addr, authority) = (secured.rtmps.to_string(), secured.folder.authority_file());
        let text = witnesses.through("openssl", move || {
            let mut child = Command::new("openssl")
                .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect", &addr])
                .args(["-servername", NAME, "-CAfile"])
                .arg(authority)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // A line of this alone asks for it. The pipe stays open: its end would end the program.
            let mut asking = child.stdin.take().unwrap();
            std::io::Write::write_all(&mut asking, b"R\n").unwrap();
            let output = child.wait_with_output().unwrap();
            drop(asking);
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned())
        });
        let text = text.concat();
        assert!(text.contains("RENEGOTIATING"), "{text}");
        assert!(text.contains("no renegotiation"), "{text}");
        witnesses.finish();
    }
}

#[test]
fn clients_that_refuse_us_one_after_the_other_leave_nothing_behind() {
    for how in ways() {
        let secured = Secured::start(how);
        let stranger = Authority::new();
        for version in [Version::Tls13, Version::Tls12].into_iter().cycle().take(40) {
            let client = stranger.client(&only(version, false));
            let refused = Peer::secure(secured.rtmps, &client, NAME).map(|_| ());
            assert_eq!(refused, Err(End::Failed));
        }
        wait_for("the refusals to be counted", || secured.handshakes("failed") == 40);
        secured.expect_none_left();
    }
}
