//! Every limit of `LIMITS.md` is reached, and the peer meets what the table says. The table itself is
//! checked too: each row's key, metric and test exist.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use edge::limits::{Counted, FIXED, LIMITS};
use edge::metrics::{Label as _, LimitReached, openmetrics};
use rtmp::message::kind;
use rtmp::session::ClientRole;
use support::client::{Client, Net, assert_complete};
use support::media::Source;
use support::raw::{RawPeer, announcement, command_body, message};
use support::server::{How, Server, matrix, wait_for};
use support::viewer::Viewer;

fn start(how: How, settings: &str) -> Server {
    Server::start(how, settings)
}

/// Times a limit was reached.
fn reached(server: &Server, limit: &str) -> u64 {
    server.metric("ringcast_limits_reached_total", &format!("limit=\"{limit}\""))
}

fn wait_reached(server: &Server, limit: &str) {
    wait_for(&format!("the limit {limit} to be reached"), || reached(server, limit) > 0);
}

/// What the server said of the end of a client's request.
fn is_refused(client: &Client, code: &str) -> bool {
    client.has_status(code) && client.ended.is_some()
}

// The table.

#[test]
fn every_limit_has_a_key_a_metric_and_a_test_that_exist() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let has_test = |(file, test): (&str, &str)| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(
            text.contains(&format!("#[test]\nfn {test}()"))
                || text.contains(&format!("#[test]\n    fn {test}()")),
            "{file} has no test {test}"
        );
    };
    let metrics = openmetrics::document();
    for limit in LIMITS {
        assert!(limit.key_spec().is_some(), "{} is no key", limit.key);
        has_test(limit.test);
        let name = match limit.counted {
            Counted::Limit(_) => "ringcast_limits_reached",
            Counted::Metric(name) => name,
        };
        assert!(metrics.contains(&format!("`{name}_total`")), "{name} is no metric");
    }
    for fixed in FIXED {
        has_test(fixed.test);
        if let Counted::Metric(name) = fixed.counted {
            assert!(metrics.contains(&format!("`{name}")), "{name} is no metric");
        }
    }
    let counted = LIMITS.iter().map(|limit| limit.counted);
    let listed: BTreeSet<&str> = counted
        .chain(FIXED.iter().map(|fixed| fixed.counted))
        .filter_map(|counted| match counted {
            Counted::Limit(limit) => Some(limit.text()),
            Counted::Metric(_) => None,
        })
        .collect();
    for limit in LimitReached::ALL {
        assert!(listed.contains(limit.text()), "{} is counted and not listed", limit.text());
    }
}

// Connections and streams.

#[test]
fn connections_over_the_limit_are_closed_and_admitted_again_later() {
    for how in matrix(&[1]) {
        let server = start(how, "[limits]\nconnections_max = 2\n");
        let first = RawPeer::connected(server.rtmp);
        let _second = RawPeer::connected(server.rtmp);
        assert_eq!(RawPeer::connect(server.rtmp).read_to_end(), b"");
        assert_eq!(reached(&server, "connections"), 1);
        drop(first);
        wait_for("the first to be gone", || server.metric("ringcast_connections", "") == 1);
        RawPeer::connected(server.rtmp);
    }
}

#[test]
fn an_address_over_its_limit_is_closed_and_another_is_not() {
    for how in matrix(&[1]) {
        let server = start(how, "[limits]\nconnections_per_address_max = 1\n");
        let _first = RawPeer::connected(server.rtmp);
        assert_eq!(RawPeer::connect(server.rtmp).read_to_end(), b"");
        assert_eq!(reached(&server, "connections_per_address"), 1);
        RawPeer::connect_from(Ipv4Addr::new(127, 0, 0, 2), server.rtmp).shake();
    }
}

#[test]
fn a_vhost_admits_as_many_connections_and_streams_as_it_may_have() {
    let settings = "[defaults]\nconnections_max = 3\nstreams_max = 2\n\
                    [vhost.\"large.example\"]\nconnections_max = 0\nstreams_max = 0\n";
    for how in matrix(&[2]) {
        let server = start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publishers = ["a", "b"].map(|name| net.publish(name));
        net.until_started(&publishers);
        let third = net.publish("c");
        net.until("the third stream to be refused", |net| {
            is_refused(&net.clients[third], "NetStream.Publish.BadName")
        });
        assert_eq!(reached(&server, "streams_per_vhost"), 1);
        let player = net.play("a");
        net.until_started(&[player]);
        let fourth = net.play("b");
        net.until("the fourth connection to be refused", |net| {
            is_refused(&net.clients[fourth], "NetStream.Play.Failed")
        });
        assert_eq!(reached(&server, "connections_per_vhost"), 1);
        // Another host has its own.
        let elsewhere = net.publish("c?vhost=large.example");
        net.until_started(&[elsewhere]);
        // Who leaves makes room.
        net.vanish(player);
        wait_for("the player to be gone", || {
            net.turn();
            server.metric("ringcast_connections", "role=\"subscriber\"") == 0
        });
        let again = net.play("b");
        net.until_started(&[again]);
    }
}

#[test]
fn a_stream_too_many_is_refused_and_those_there_go_on() {
    for how in matrix(&[2]) {
        let server = start(how, "[limits]\nstreams_max = 1\n");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("a");
        net.until_started(&[publisher]);
        let player = net.play("a");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        let (other, waiting) = (net.publish("b"), net.play("c"));
        net.until("both to be refused", |net| {
            is_refused(&net.clients[other], "NetStream.Publish.BadName")
                && is_refused(&net.clients[waiting], "NetStream.Play.Failed")
        });
        assert_eq!(reached(&server, "streams"), 2);
        net.send_frames(publisher, &mut source, 30);
        net.until_received(&[player], &source);
        assert_complete(&net.clients[player], &source);
    }
}

#[test]
fn a_stream_has_as_many_players_as_it_may_have_on_all_workers_and_framings() {
    for how in matrix(&[2]) {
        let server = start(how, "[defaults]\nsubscribers_per_stream_max = 2\n");
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("a");
        net.until_started(&[publisher]);
        let players = [0, 1].map(|worker| net.open(ClientRole::Play, "a", Some(worker)));
        net.until_started(&players);
        let third = net.play("a");
        net.until("the third player to be refused", |net| {
            is_refused(&net.clients[third], "NetStream.Play.Failed")
        });
        let viewer = Viewer::get(server.http, "/live/a.flv");
        assert_eq!(viewer.wait_response().status, 503);
        assert_eq!(reached(&server, "subscribers_per_stream"), 2);
        let other = net.play("b");
        net.until_started(&[other]);
        net.vanish(players[0]);
        wait_for("a player to be gone", || {
            net.turn();
            server.metric("ringcast_connections", "role=\"subscriber\"") == 2
        });
        let again = net.play("a");
        net.until_started(&[again]);
    }
}

// Time.

#[test]
fn who_is_late_in_any_phase_is_closed_and_counted() {
    let settings = "[limits]\nfirst_byte_ms_max = 2000\nhandshake_ms_max = 2000\nidle_ms_max = 6000\n\
                    [defaults]\nidle_publisher_ms_max = 3000\nplay_wait_ms = 300\n";
    for how in matrix(&[1]) {
        let server = start(how, settings);
        let mut silent = RawPeer::connect(server.rtmp);
        let mut slow = RawPeer::connect(server.rtmp);
        assert!(slow.send(&[3, 0, 0]));
        let mut idle = RawPeer::connected(server.rtmp);
        let mut publisher = RawPeer::publishing(server.rtmp, "a");
        let mut net = Net::new(server.rtmp);
        let player = net.play("nobody");
        net.until("the player to be told", |net| {
            is_refused(&net.clients[player], "NetStream.Play.StreamNotFound")
        });
        for peer in [&mut silent, &mut slow, &mut publisher, &mut idle] {
            peer.read_to_end();
        }
        for limit in ["first_byte", "handshake", "idle", "idle_publisher", "play_wait"] {
            assert_eq!(reached(&server, limit), 1, "{limit}");
        }
    }
}

// Chunks.

#[test]
fn what_a_chunk_header_may_not_ask_for_is_counted() {
    let settings =
        "[limits]\nmessage_bytes_max = 100000\nchunk_streams_max = 8\ntiny_chunks_max = 1024\n";
    for how in matrix(&[1]) {
        let server = start(how, settings);
        let mut peer = RawPeer::connected(server.rtmp);
        peer.send(&announcement(4, kind::VIDEO, 1, 100_001));
        peer.read_to_end();
        assert_eq!(reached(&server, "message"), 1);

        let mut peer = RawPeer::connected(server.rtmp);
        for csid in 4..16 {
            let mut bytes = announcement(csid, kind::VIDEO, 1, 256);
            bytes.extend_from_slice(&[0; 128]);
            peer.send(&bytes);
        }
        peer.read_to_end();
        assert_eq!(reached(&server, "chunk_streams"), 1);

        let mut peer = RawPeer::publishing(server.rtmp, "tiny");
        peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0, 0, 0, 1]));
        let mut bytes = announcement(4, kind::VIDEO, 1, 50_000);
        bytes.push(0x17);
        bytes.extend([0xc4, 0].repeat(49_999));
        peer.send(&bytes);
        peer.read_to_end();
        assert_eq!(reached(&server, "tiny_chunks"), 1);
    }
}

#[test]
fn what_stands_in_a_command_or_a_request_is_bounded_and_counted() {
    let settings = "[limits]\nhttp_fields_max = 20\nhttp_body_bytes_max = 1000\n";
    // A command with one argument more than its name and number: what is in it is the test's.
    let with = |argument: &[u8]| {
        let mut body = command_body("_any", 5.0, |_| {});
        body.extend_from_slice(argument);
        body
    };
    let nested = |depth: usize| {
        let mut value = b"\x03\x00\x01k".repeat(depth);
        value.push(0x05);
        value.extend(b"\x00\x00\x09".repeat(depth));
        value
    };
    let array = |values: u32| {
        let count = usize::try_from(values).unwrap();
        [&[0x0a][..], &values.to_be_bytes(), &vec![0x05; count]].concat()
    };
    let long_string = [&[0x0c][..], &65_537_u32.to_be_bytes(), &[b'a'; 8]].concat();
    for how in matrix(&[1]) {
        let server = start(how, settings);
        let closed = |body: &[u8]| {
            let mut peer = RawPeer::connected(server.rtmp);
            peer.send(&message(3, kind::COMMAND_AMF0, 0, body));
            peer.read_to_end();
        };
        let stays = |body: &[u8]| {
            let mut peer = RawPeer::connected(server.rtmp);
            peer.send(&message(3, kind::COMMAND_AMF0, 0, body));
            peer.create_stream(7.0);
            peer.read_until(b"_result");
        };
        stays(&with(&nested(12)));
        stays(&with(&array(8_000)));
        for (count, body) in (1..).zip([with(&nested(20)), with(&array(9_000)), with(&long_string)])
        {
            closed(&body);
            assert_eq!(reached(&server, "amf"), count);
        }
        let mut peer = RawPeer::connected(server.rtmp);
        peer.send(&announcement(3, kind::COMMAND_AMF0, 0, 65_537));
        peer.send(&[0; 128]);
        peer.read_to_end();
        assert_eq!(reached(&server, "command"), 1);

        let fields = |count: usize| "X-Field: 1\r\n".repeat(count);
        let status = |method: &str, fields: &str| {
            Viewer::ask(server.http, method, "/live/none.flv", "a.test", fields)
                .wait_response()
                .status
        };
        // The host is a field too.
        assert_eq!((status("HEAD", &fields(19)), reached(&server, "http_head")), (404, 0));
        assert_eq!((status("HEAD", &fields(20)), reached(&server, "http_head")), (431, 1));
        let body = format!("Content-Length: {}\r\n", 1_001);
        assert_eq!((status("GET", &body), reached(&server, "http_body")), (413, 1));
    }
}

/// Begins messages on several chunk streams, so that all but the first are put aside; `sent` bytes of the
/// last one arrive.
fn interleave(peer: &mut RawPeer, lengths: &[u32], sent: usize) {
    peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &65_536_u32.to_be_bytes()));
    for (csid, &length) in (4..).zip(lengths) {
        // The whole of a short message is one chunk; only the last has more to come.
        let first = sent.min(65_536).min(length as usize - 1);
        let mut bytes = announcement(csid, kind::VIDEO, 1, length);
        bytes.extend_from_slice(&vec![0x27; first]);
        if !peer.send(&bytes) {
            return;
        }
        let is_last = usize::from(csid) == 3 + lengths.len();
        let mut left = if is_last { sent - first } else { 0 };
        while left > 0 {
            let chunk = left.min(65_536);
            let mut bytes = vec![0xc0 | csid];
            bytes.extend_from_slice(&vec![0x27; chunk]);
            if !peer.send(&bytes) {
                return;
            }
            left -= chunk;
        }
    }
}

#[test]
fn interleaved_messages_are_bounded_for_one_and_for_all() {
    for how in matrix(&[2]) {
        let server = start(how, "[limits]\nreassembly_bytes_max = 65536\n");
        let mut peer = RawPeer::publishing(server.rtmp, "a");
        interleave(&mut peer, &[200_000, 200_000], 70_000);
        peer.read_to_end();
        assert_eq!(reached(&server, "reassembly"), 1);

        let server = start(how, "[limits]\nreassembly_total_bytes_max = 1048576\n");
        let mut small = RawPeer::publishing(server.rtmp, "small");
        interleave(&mut small, &[200_000, 200_000], 65_536);
        let mut large = RawPeer::publishing(server.rtmp, "large");
        interleave(&mut large, &[200_000, 4_000_000], 65_536 * 40);
        large.read_to_end();
        assert_eq!(reached(&server, "reassembly_total"), 1);
        wait_for("the large one to be gone", || {
            server.metric("ringcast_streams", "state=\"live\"") == 1
        });
        wait_for("only the small one to hold anything", || {
            let bytes = server.metric("ringcast_reassembly_bytes", "");
            (65_536..1_048_576).contains(&bytes)
        });
    }
}

// Commands.

#[test]
fn who_asks_and_never_reads_is_read_no_further_and_then_closed() {
    for how in matrix(&[1]) {
        let settings =
            "[limits]\ncommands_per_second_max = 10000000\nheld_input_bytes_max = 65536\n";
        let server = start(how, settings);
        let mut peer = RawPeer::connected(server.rtmp);
        rustix::net::sockopt::set_socket_recv_buffer_size(&peer.socket, 4_096).unwrap();
        let ping = message(2, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]).repeat(1_000);
        while peer.send(&ping) {}
        wait_reached(&server, "replies");
        wait_reached(&server, "held_input");
    }
}

#[test]
fn commands_and_requests_over_the_rate_end_the_connection() {
    for how in matrix(&[1]) {
        let settings =
            "[limits]\ncommands_per_second_max = 50\nhttp_requests_per_second_max = 100\n";
        let server = start(how, settings);
        let mut peer = RawPeer::connected(server.rtmp);
        for _ in 0..400 {
            // What comes behind the end is not taken.
            let _ = peer.command(0, "getStreamLength", 5.0, |amf| amf.null());
        }
        let said = peer.read_to_end();
        let text = b"too many commands";
        assert!(said.windows(text.len()).any(|part| part == text) || said.is_empty(), "told why");
        assert_eq!(reached(&server, "command_rate"), 1);

        let requests = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(400);
        let viewer = Viewer::send(server.http, requests.as_bytes());
        viewer.wait_end();
        assert!(String::from_utf8_lossy(&viewer.bytes()).contains("HTTP/1.1 429 "));
        assert_eq!(reached(&server, "http_request_rate"), 1);

        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("a");
        net.until_started(&[publisher]);
        let mut viewer = Viewer::websocket(server.http, "/live/a.flv", "127.0.0.1");
        wait_for("the upgrade", || viewer.response().is_some());
        viewer.write(&[0x89, 0x80, 0, 0, 0, 0].repeat(400));
        viewer.wait_end();
        let (opcode, body) = viewer.frames().pop().unwrap();
        assert_eq!((opcode, &body[..2]), (8, &[3, 240][..]), "a close frame with code 1008");
        assert_eq!(reached(&server, "command_rate"), 2);
    }
}

#[test]
fn requests_that_are_too_large_late_or_many_are_answered_so() {
    let settings = "[limits]\nhttp_head_bytes_max = 1024\nhttp_request_ms_max = 300\n\
                    http_keep_alive_ms_max = 300\n[defaults]\nhttp_wait_ms = 100\n";
    for how in matrix(&[1]) {
        let server = start(how, settings);
        for (head, status) in [
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(2_000)), 414),
            (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "y".repeat(2_000)), 431),
            ("GET / HTTP/1.1\r\nHost: ".to_owned(), 408),
            ("GET /live/none.flv HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404),
        ] {
            let viewer = Viewer::send(server.http, head.as_bytes());
            assert_eq!(viewer.wait_response().status, status);
            // Behind the answer nothing comes any more; the last one is kept until it is idle.
            viewer.wait_end();
        }
        assert_eq!(reached(&server, "http_head"), 2);
        assert_eq!(reached(&server, "http_request"), 1);
        assert_eq!(reached(&server, "play_wait"), 1);
        assert_eq!(reached(&server, "http_keep_alive"), 1);
    }
}

// Media.

#[test]
fn rings_are_bounded_each_and_together() {
    let settings = "[defaults]\nretention_bytes = 1048576\nretention_messages = 64\n\
                    [limits]\nring_bytes_max = 4194304\n";
    for how in matrix(&[2]) {
        let server = start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("endless");
        net.until_started(&[publisher]);
        let player = net.play("endless");
        net.until_started(&[player]);
        // A GOP of any length: more than 64 messages, more than a megabyte.
        let mut source = Source { gop: 1_000, frame_bytes: 30_000, ..Source::new(1) };
        net.send_headers(publisher, &source);
        for _ in 0..20 {
            net.send_frames(publisher, &mut source, 5);
            net.until_received(&[player], &source);
        }
        wait_reached(&server, "ring");
        assert!(server.metric("ringcast_ring_bytes", "") <= 2 * 1_048_576);
        assert_eq!(reached(&server, "ring_total"), 0);

        // Many streams together are over the limit of all: those there go on, a further one is refused.
        let is_over = |client: &Client| is_refused(client, "NetStream.Publish.BadName");
        let mut streams = 0;
        loop {
            let more = net.publish(&format!("more-{streams}"));
            net.until("an answer", |net| {
                net.clients[more].has_started() || is_over(&net.clients[more])
            });
            if is_over(&net.clients[more]) {
                break;
            }
            streams += 1;
            assert!(streams < 30, "the limit is never reached");
            let mut source = Source { gop: 1_000, frame_bytes: 30_000, ..Source::new(1 + streams) };
            net.send_headers(more, &source);
            net.send_frames(more, &mut source, 20);
            net.until("the frames to be published", |net| {
                net.clients[more].is_flushed()
                    && server.metric("ringcast_messages_in_total", "kind=\"video\"")
                        >= u64::from(100 + 20 * streams)
            });
        }
        assert!(reached(&server, "ring_total") >= 2, "when it began, and for the one refused");
        net.send_frames(publisher, &mut source, 5);
        net.until_received(&[player], &source);
        assert_complete(&net.clients[player], &source);
    }
}

#[test]
fn while_rings_are_short_who_keeps_up_loses_nothing() {
    // Short from the first look on. What waits for a flush lies before a keyframe again and again.
    for flush in ["\"frame\"", "150"] {
        let settings = format!("[defaults]\nflush = {flush}\n[limits]\nring_bytes_max = 1\n");
        for how in matrix(&[2]) {
            let server = start(how, &settings);
            let mut net = Net::new(server.rtmp);
            let publisher = net.publish("live");
            net.until_started(&[publisher]);
            let players: Vec<usize> = (0..4).map(|_| net.play("live")).collect();
            net.until_started(&players);
            let viewer = Viewer::get(server.http, "/live/live.flv");
            let mut source = Source::new(1);
            net.send_headers(publisher, &source);
            let mut burst = |pictures: u32, frame_bytes: usize| {
                source.frame_bytes = frame_bytes;
                net.send_frames(publisher, &mut source, pictures);
                net.until_received(&players, &source);
                net.until("the viewer to have all", |_| viewer.has_all(&source));
            };
            burst(10, 20_000);
            wait_reached(&server, "ring_total");
            (0..16).for_each(|_| burst(25, 20_000));
            // 8 MB have passed, in less stream time than rings keep otherwise.
            wait_for("what everybody has to be given up", || {
                burst(1, 100);
                server.metric("ringcast_ring_bytes", "") < 2_000_000
            });
            for &player in &players {
                assert_complete(&net.clients[player], &source);
            }
            viewer.tags().assert_whole(&source);
        }
    }
}

#[test]
fn a_player_that_does_not_read_skips_and_then_goes() {
    let settings = "[defaults]\nretention_ms = 600000\nretention_bytes = 400000000\n\
                    retention_messages = 1000000\nlag_ms_max = 500\nstall_ms_max = 5000\n\
                    flush_ms_max = 200\n";
    for how in matrix(&[1]) {
        let server = start(how, settings);
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("a");
        net.until_started(&[publisher]);
        let (good, frozen) = (net.play("a"), net.play("a"));
        net.until_started(&[good, frozen]);
        net.shrink_receive_buffer(frozen);
        net.clients[frozen].is_frozen = true;
        let mut source = Source { frame_bytes: 40_000, keyframe_bytes: 60_000, ..Source::new(1) };
        net.send_headers(publisher, &source);
        for (limit, frames) in [("lag", 10), ("stall", 1)] {
            // Far enough in stream time before the stall is over, however slow this machine is.
            net.until("the one that does not read to skip, and then to go", |net| {
                net.send_frames(publisher, &mut source, frames);
                net.until_received(&[good], &source);
                reached(&server, limit) > 0
            });
            (source.frame_bytes, source.keyframe_bytes) = (500, 800);
        }
        server.wait_log("close", "reason", "stalled");
        assert_complete(&net.clients[good], &source);
    }
}
