//! Peers that break the protocol or abuse it, each beside a publisher and players who must notice
//! nothing. Every attack ends with the log line that names its class, and the memory of the server
//! stays within [`RESIDENT_GROWTH_BYTES_MAX`].

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rtmp::message::kind;
use rtmp::session::ClientRole;
use support::client::{Net, assert_complete};
use support::media::Source;
use support::raw::{RawPeer, announcement, command_body, message};
use support::server::{How, Server, matrix, wait_for};

/// How much the server may grow by all attacks together: the limits of a few connections (512 KiB
/// of held input, 64 KiB of replies, one announced message each) and what an allocator keeps.
const RESIDENT_GROWTH_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest message the servers of this file accept.
const MESSAGE_BYTES_MAX: u32 = 12_000_000;
const SETTINGS: &str = "[limits]\nhandshake_ms_max = 3000\nmessage_bytes_max = 12000000\n\
                        commands_per_second_max = 10000000\n\
                        [defaults]\nidle_publisher_ms_max = 5000\n";

/// What the log must say about the end of an attack.
#[derive(Copy, Clone, Debug)]
enum Ending {
    /// `protocol_error` with this class, and a byte offset.
    Class(&'static str),
    /// `timeout` with this class.
    Timeout(&'static str),
    /// `close` with this reason.
    Reason(&'static str),
}

impl Ending {
    fn count(self, server: &Server) -> usize {
        let (event, field, value) = match self {
            Self::Class(class) => ("protocol_error", "class", class),
            Self::Timeout(class) => ("timeout", "class", class),
            Self::Reason(reason) => ("close", "reason", reason),
        };
        server.events(event).iter().filter(|line| line[field] == value).count()
    }
}

type Attack = (&'static str, Ending, fn(SocketAddr));

/// A publisher and a player on each worker that run through an attack.
struct Witnesses {
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Witnesses {
    fn start(server: &Server, how: How) -> Self {
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("witness");
        net.until_started(&[publisher]);
        let players: Vec<usize> =
            (0..how.workers).map(|w| net.open(ClientRole::Play, "witness", Some(w))).collect();
        net.until_started(&players);
        let source = Source::new(1);
        net.send_headers(publisher, &source);
        let mut witnesses = Self { net, publisher, players, source };
        witnesses.step();
        witnesses
    }

    fn step(&mut self) {
        self.net.send_frames(self.publisher, &mut self.source, 1);
        self.net.until_received(&self.players, &self.source);
    }

    /// Streams for as long as `work` takes on a thread of its own.
    fn through(&mut self, what: &str, work: impl FnOnce() + Send + 'static) {
        let (sender, done) = mpsc::channel();
        let worker = thread::spawn(move || {
            work();
            // The receiver lives until this thread is joined.
            let _ = sender.send(());
        });
        while done.try_recv() == Err(mpsc::TryRecvError::Empty) {
            self.step();
            // A stream of 10 ms pictures: a few times faster than its own clock.
            self.net.during(Duration::from_millis(2));
        }
        assert!(worker.join().is_ok(), "{what}");
    }

    fn finish(&mut self) {
        self.step();
        for &player in &self.players {
            assert_eq!(assert_complete(&self.net.clients[player], &self.source), 0);
        }
    }
}

fn run(attacks: &[Attack]) {
    for how in matrix(&[2]) {
        let server = Server::start(how, SETTINGS);
        let mut witnesses = Witnesses::start(&server, how);
        let before = server.resident_bytes();
        for &(name, ending, attack) in attacks {
            let (addr, logged) = (server.rtmp, ending.count(&server));
            witnesses.through(name, move || attack(addr));
            wait_for(&format!("{name} to be logged as {ending:?}"), || {
                witnesses.step();
                ending.count(&server) > logged
            });
        }
        for line in server.events("protocol_error") {
            let text = line["error"].as_str().unwrap_or_default();
            assert!(text.contains("byte "), "the log tells where: {text}");
        }
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown <= RESIDENT_GROWTH_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        witnesses.finish();
    }
}

// Handshake

#[test]
fn what_is_no_handshake_is_named_and_closed() {
    let version = Ending::Class("violation_handshake_version");
    run(&[
        ("garbage", version, |addr| ends_after(addr, &[0xff; 4_000])),
        ("an HTTP request", Ending::Class("http"), |addr| {
            let mut peer = RawPeer::connect(addr);
            peer.send(b"GET /live/cam.flv HTTP/1.1\r\nHost: example.com\r\n\r\n");
            let answer = peer.read_to_end();
            assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", answer.escape_ascii());
        }),
        ("a TLS hello", Ending::Reason("tls_error"), |addr| {
            let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
            hello.resize(517, 0x5a);
            let mut peer = RawPeer::connect(addr);
            peer.send(&hello);
            assert_eq!(peer.read_to_end(), [21, 3, 3, 0, 2, 2, 40], "a fatal alert");
        }),
        ("RTMPE", Ending::Class("unsupported_encrypted_handshake"), |addr| {
            ends_after(addr, &[6; 1537]);
        }),
    ]);
}

fn ends_after(addr: SocketAddr, bytes: &[u8]) {
    let mut peer = RawPeer::connect(addr);
    peer.send(bytes);
    peer.read_to_end();
}

#[test]
fn whoever_takes_too_long_to_introduce_himself_is_closed() {
    run(&[
        ("a handshake byte by byte", Ending::Timeout("handshake_timeout"), |addr| {
            let mut peer = RawPeer::connect(addr);
            peer.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut next = 3;
            // Ends when the server has closed: first a refused write, or the end read.
            loop {
                let mut buffer = [0; 16];
                if !peer.send(&[next]) {
                    break;
                }
                next = 0;
                match std::io::Read::read(&mut peer.socket, &mut buffer) {
                    Ok(0) => break,
                    Ok(_) => panic!("no answer to half a handshake"),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        }),
        ("no connect command", Ending::Timeout("connect_timeout"), |addr| {
            RawPeer::shaken(addr).read_to_end();
        }),
    ]);
}

// Chunks

#[test]
fn chunks_beyond_the_limits_are_named_and_closed() {
    run(&[
        ("an oversize message", Ending::Class("limit_message_bytes"), |addr| {
            let mut peer = RawPeer::connected(addr);
            peer.send(&announcement(4, kind::VIDEO, 1, MESSAGE_BYTES_MAX + 1));
            peer.read_to_end();
        }),
        ("a thousand chunk streams", Ending::Class("limit_chunk_streams"), |addr| {
            let mut peer = RawPeer::connected(addr);
            for csid in 64..1_064_u32 {
                // The three byte form of the basic header.
                let mut bytes = vec![1];
                bytes.extend_from_slice(&u16::try_from(csid - 64).unwrap().to_le_bytes());
                bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, kind::VIDEO, 1, 0, 0, 0]);
                bytes.extend_from_slice(&[0; 128]);
                if !peer.send(&bytes) {
                    break;
                }
            }
            peer.read_to_end();
        }),
        ("chunks of no bytes", Ending::Class("violation_chunk_size_zero"), |addr| {
            let mut peer = RawPeer::connected(addr);
            peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0; 4]));
            peer.read_to_end();
        }),
        ("chunks of one byte", Ending::Class("limit_tiny_chunks"), |addr| {
            let mut peer = RawPeer::publishing(addr, "tiny");
            peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0, 0, 0, 1]));
            let mut bytes = announcement(4, kind::VIDEO, 1, 200_000);
            bytes.push(0x17);
            bytes.extend([0xc4, 0].repeat(199_999));
            peer.send(&bytes);
            peer.read_to_end();
        }),
        (
            "a chunk stream that begins in the middle",
            Ending::Class("violation_fresh_chunk_stream"),
            |addr| {
                let mut peer = RawPeer::connected(addr);
                peer.send(&[0xc9; 200]);
                peer.read_to_end();
            },
        ),
    ]);
}

#[test]
fn large_numbers_with_nothing_behind_them_are_harmless() {
    for how in matrix(&[1]) {
        let server = Server::start(how, SETTINGS);
        let mut peer = RawPeer::connected(server.rtmp);
        peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0x7f, 0xff, 0xff, 0xff]));
        // An array of four billion values, of which one comes.
        peer.send(&command(0, "x", |body| body.extend([10, 0xff, 0xff, 0xff, 0xff, 5])));
        peer.create_stream(7.0);
        peer.read_until(&[b"_result\x00".as_slice(), &7_f64.to_be_bytes()].concat());
        assert!(server.events("protocol_error").is_empty());
    }
}

#[test]
fn announced_messages_that_never_come_cost_no_memory_and_end_as_idle() {
    for how in matrix(&[2]) {
        let server = Server::start(how, SETTINGS);
        let mut witnesses = Witnesses::start(&server, how);
        let before = server.resident_bytes();
        let addr = server.rtmp;
        let (ready, peers_ready) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let attack = move || {
            let mut peers: Vec<RawPeer> = (0..10)
                .map(|index| RawPeer::publishing(addr, &format!("announced-{index}")))
                .collect();
            for peer in &mut peers {
                let mut bytes = announcement(4, kind::VIDEO, 1, MESSAGE_BYTES_MAX);
                bytes.extend_from_slice(&[0x17; 100]);
                peer.send(&bytes);
            }
            ready.send(()).unwrap();
            may_go_on.recv().unwrap();
            for peer in &mut peers {
                peer.read_to_end();
            }
        };
        let attacker = thread::spawn(attack);
        wait_for("the announcements", || {
            witnesses.step();
            peers_ready.try_recv().is_ok()
        });
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown <= RESIDENT_GROWTH_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        go_on.send(()).unwrap();
        witnesses.through("the end of the silent publishers", move || attacker.join().unwrap());
        wait_for("ten closings", || {
            witnesses.step();
            Ending::Reason("publisher_idle").count(&server) == 10
        });
        witnesses.finish();
    }
}

// Commands

#[test]
fn commands_that_cannot_be_read_or_come_at_the_wrong_time_are_named_and_closed() {
    run(&[
        ("an AMF depth bomb", Ending::Class("limit_amf_depth"), |addr| {
            let mut peer = RawPeer::shaken(addr);
            peer.send(&command(0, "connect", |body| body.extend([3, 0, 1, b'a'].repeat(1_000))));
            peer.read_to_end();
        }),
        ("an AMF element bomb", Ending::Class("limit_amf_elements"), |addr| {
            let mut peer = RawPeer::shaken(addr);
            peer.send(&command(0, "connect", |body| body.extend([5].repeat(20_000))));
            peer.read_to_end();
        }),
        ("an AMF object that is cut off", Ending::Class("malformed_amf_truncated"), |addr| {
            let mut peer = RawPeer::shaken(addr);
            peer.send(&command(0, "connect", |body| {
                body.extend([3, 0, 3, b'a', b'p', b'p', 2, 0xff, 0xff, b'x']);
            }));
            peer.read_to_end();
        }),
        ("a giant string", Ending::Class("string_too_long"), |addr| {
            let mut peer = RawPeer::shaken(addr);
            peer.command(0, "connect", 1.0, |amf| {
                amf.object_begin();
                amf.key("app");
                amf.string(&"a".repeat(20_000));
                amf.object_end();
            });
            peer.read_until(b"NetConnection.Call.Failed");
            peer.read_to_end();
        }),
        ("a giant command", Ending::Class("command_too_long"), |addr| {
            let mut peer = RawPeer::connected(addr);
            let mut bytes = announcement(3, kind::COMMAND_AMF0, 0, 1_000_000);
            bytes.push(2);
            peer.send(&bytes);
            peer.read_to_end();
        }),
        ("play before connect", Ending::Class("not_connected"), |addr| {
            let mut peer = RawPeer::shaken(addr);
            peer.command(1, "play", 1.0, |amf| {
                amf.null();
                amf.string("witness");
            });
            peer.read_until(b"NetConnection.Call.Failed");
            peer.read_to_end();
        }),
        ("publish on a stream that publishes", Ending::Class("publish_busy_stream"), |addr| {
            let mut peer = RawPeer::publishing(addr, "busy");
            peer.command(1, "publish", 4.0, |amf| {
                amf.null();
                amf.string("other");
            });
            peer.read_until(b"NetStream.Publish.BadName");
            peer.read_to_end();
        }),
        (
            "publish on a stream that was never created",
            Ending::Class("publish_unknown_stream"),
            |addr| {
                let mut peer = RawPeer::connected(addr);
                peer.command(5, "publish", 4.0, |amf| {
                    amf.null();
                    amf.string("other");
                });
                peer.read_until(b"NetStream.Publish.BadName");
                peer.read_to_end();
            },
        ),
        ("a second connect", Ending::Class("second_connect"), |addr| {
            let mut peer = RawPeer::connected(addr);
            peer.command(0, "connect", 4.0, |amf| {
                amf.object_begin();
                amf.object_end();
            });
            peer.read_until(b"NetConnection.Connect.Rejected");
            peer.read_to_end();
        }),
    ]);
}

/// A command with a body of raw AMF.
fn command(msid: u32, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = command_body(name, 1.0, |_| {});
    write(&mut body);
    message(3, kind::COMMAND_AMF0, msid, &body)
}

// Floods

#[test]
fn whoever_asks_and_never_reads_is_closed_within_bounded_memory() {
    run(&[
        ("a flood of commands", Ending::Reason("memory_limit"), |addr| {
            flood(addr, &command(0, "getStreamLength", |body| body.push(5)));
        }),
        ("a flood of pings", Ending::Reason("memory_limit"), |addr| {
            flood(addr, &message(2, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]));
        }),
    ]);
}

/// Sends the same until the server has had enough, and reads nothing.
fn flood(addr: SocketAddr, one: &[u8]) {
    let mut peer = RawPeer::connected(addr);
    rustix::net::sockopt::set_socket_recv_buffer_size(&peer.socket, 4_096).unwrap();
    let burst = one.repeat(16_384 / one.len());
    for _ in 0..20_000 {
        if !peer.send(&burst) {
            return;
        }
    }
    panic!("the server took {} bytes", burst.len() * 20_000);
}

#[test]
fn a_flood_that_is_read_is_served() {
    for how in matrix(&[1]) {
        let server = Server::start(how, SETTINGS);
        let mut witnesses = Witnesses::start(&server, how);
        let addr = server.rtmp;
        witnesses.through("a thousand commands", move || {
            let mut peer = RawPeer::connected(addr);
            for _ in 0..1_000 {
                peer.command(0, "getStreamLength", 5.0, |amf| amf.null());
            }
            peer.command(0, "createStream", 77.0, |amf| amf.null());
            peer.read_until(
                &[b"\x02\x00\x07_result\x00".as_slice(), &77_f64.to_be_bytes()].concat(),
            );
        });
        witnesses.finish();
    }
}

// Storms

/// Connections of one storm, over both its halves.
const STORM: u32 = 20_000;
/// Threads that connect, each from an address of its own.
const STORMERS: u32 = 4;

#[test]
fn a_storm_of_connections_is_taken_in_and_streams_go_on() {
    for how in matrix(&[2]) {
        let server = Server::start(how, SETTINGS);
        let mut witnesses = Witnesses::start(&server, how);
        let addr = server.rtmp;
        let before = server.resident_bytes();
        witnesses.through("a storm of connections", move || {
            let stormers = (0..STORMERS).map(|stormer| {
                let source = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + stormer);
                thread::spawn(move || {
                    for round in 0..STORM / STORMERS {
                        let mut peer = RawPeer::connect_from(source, addr);
                        // Every other one has something to say and does not wait for the answer.
                        if round % 2 == 0 {
                            peer.send(&[3; 100]);
                        }
                    }
                })
            });
            let stormers: Vec<_> = stormers.collect();
            for stormer in stormers {
                stormer.join().unwrap();
            }
        });
        wait_for("all of them to be accepted and gone", || {
            witnesses.step();
            server.metric("ringcast_connections_accepted_total", "") >= u64::from(STORM)
                && server.metric("ringcast_connections", "") <= 1 + u64::from(how.workers)
        });
        assert_eq!(server.metric("ringcast_accept_errors_total", ""), 0, "{how:?}");
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown <= RESIDENT_GROWTH_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        witnesses.finish();
    }
}

#[test]
fn media_sent_to_a_play_connection_for_ever_is_thrown_away() {
    for how in matrix(&[1]) {
        let server = Server::start(how, SETTINGS);
        let mut witnesses = Witnesses::start(&server, how);
        let addr = server.rtmp;
        let before = server.resident_bytes();
        witnesses.through("64 MiB of media to a player", move || {
            let mut peer = RawPeer::connected(addr);
            peer.create_stream(2.0);
            peer.command(1, "play", 3.0, |amf| {
                amf.null();
                amf.string("nobody-publishes-this");
            });
            peer.read_until(b"NetStream.Play.Start");
            let one = message(4, kind::VIDEO, 1, &[0x27; 65_536]);
            for _ in 0..1_024 {
                assert!(peer.send(&one), "it is not closed");
            }
        });
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown <= RESIDENT_GROWTH_BYTES_MAX, "{how:?}: grew by {grown} bytes");
        witnesses.finish();
    }
}
