//! The cases. Each is bounded in what it sends, whatever the server does.

use super::peer::{Peer, announcement, command, message, raw_command};
use super::{Case, Door, Expected};
use rtmp::message::kind;
use std::time::Duration;

/// Between two bytes of one that dawdles: any deadline of a server is over before the script is.
const DRIP: Duration = Duration::from_millis(50);

const fn rtmp(name: &'static str, expected: Expected, act: fn(&mut Peer)) -> Case {
    Case { name, door: Door::Rtmp, expected, act }
}

const fn http(name: &'static str, expected: Expected, act: fn(&mut Peer)) -> Case {
    Case { name, door: Door::Http, expected, act }
}

/// All of them.
pub(crate) const CASES: &[Case] = &[
    // Before the session.
    rtmp("silence", Expected::ClosesLate, |_| {}),
    rtmp("random-bytes", Expected::Closes, |peer| {
        let mut bytes = random(peer, 64 * 1024);
        // Nothing a first byte could mean.
        if let Some(first) = bytes.first_mut() {
            *first = 0xff;
        }
        peer.send(&bytes);
    }),
    rtmp("tls-hello", Expected::Closes, |peer| {
        let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        hello.resize(517, 0x5a);
        peer.send(&hello);
    }),
    rtmp("http-request", Expected::Closes, |peer| {
        peer.send(b"GET /live/x.flv HTTP/1.1\r\nHost: example.com\r\n\r\n");
    }),
    rtmp("slow-handshake", Expected::ClosesLate, |peer| {
        peer.drip(&[&[3][..], &[0; 1536]].concat(), DRIP);
    }),
    rtmp("slow-connect", Expected::ClosesLate, |peer| {
        peer.shake();
        let bytes = raw_command(0, "connect", |body| body.resize(4_000, 5));
        peer.drip(&bytes, DRIP);
    }),
    rtmp("slow-chunk-header", Expected::ClosesLate, |peer| {
        peer.begin("publish", "slow-header");
        peer.drip(&announcement(4, kind::VIDEO, 1, 1_000).repeat(100), DRIP * 10);
    }),
    rtmp("handshake-and-silence", Expected::ClosesLate, Peer::shake),
    rtmp("late-random-bytes", Expected::Closes, |peer| {
        peer.shake();
        peer.flood(64, |peer| random(peer, 4_096));
    }),
    // Chunks.
    rtmp("thousand-chunk-streams", Expected::Closes, |peer| {
        peer.introduce();
        let mut csid = 0_u16;
        peer.flood(1_000, |_| {
            csid += 1;
            let mut bytes = vec![1];
            bytes.extend_from_slice(&csid.to_le_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 0, 1, 0, kind::VIDEO, 1, 0, 0, 0]);
            bytes.resize(bytes.len() + 128, 0);
            bytes
        });
    }),
    rtmp("giant-length", Expected::ClosesLate, |peer| {
        peer.begin("publish", "giant");
        peer.send(&[announcement(4, kind::VIDEO, 1, 0xff_ffff), vec![0x17; 100]].concat());
    }),
    rtmp("giant-command", Expected::Closes, |peer| {
        peer.introduce();
        peer.send(&announcement(3, kind::COMMAND_AMF0, 0, 0xff_ffff));
        peer.send(&[2; 4_096]);
    }),
    rtmp("chunk-size-zero", Expected::Closes, |peer| {
        peer.introduce();
        peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0; 4]));
    }),
    rtmp("one-byte-chunks", Expected::Closes, |peer| {
        peer.begin("publish", "tiny");
        peer.send(&message(2, kind::SET_CHUNK_SIZE, 0, &[0, 0, 0, 1]));
        let mut bytes = announcement(4, kind::VIDEO, 1, 400_000);
        bytes.push(0x17);
        bytes.extend([0xc4, 0].repeat(399_999));
        peer.send(&bytes);
    }),
    rtmp("middle-of-nowhere", Expected::Closes, |peer| {
        peer.introduce();
        peer.send(&[0xc9; 200]);
    }),
    // Commands.
    rtmp("amf-depth", Expected::Closes, |peer| {
        peer.shake();
        peer.send(&raw_command(0, "connect", |body| body.extend([3, 0, 1, b'a'].repeat(1_000))));
    }),
    rtmp("amf-elements", Expected::Closes, |peer| {
        peer.shake();
        peer.send(&raw_command(0, "connect", |body| body.extend([5].repeat(20_000))));
    }),
    rtmp("giant-string", Expected::Closes, |peer| {
        peer.shake();
        let bytes = command(0, "connect", |amf| {
            amf.object_begin();
            amf.key("app");
            amf.string(&"a".repeat(20_000));
            amf.object_end();
        });
        peer.send(&bytes);
    }),
    rtmp("command-flood", Expected::Closes, |peer| {
        peer.introduce();
        let one = command(0, "getStreamLength", |amf| amf.null());
        peer.flood(2_000, |_| one.repeat(100));
    }),
    rtmp("ping-flood", Expected::Closes, |peer| {
        peer.introduce();
        let one = message(2, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]);
        peer.flood(2_000, |_| one.repeat(100));
    }),
    rtmp("asks-and-never-reads", Expected::Closes, |peer| {
        peer.introduce();
        let one = message(2, kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]);
        while peer.sent_bytes() < 64 << 20 && peer.send(&one.repeat(1_000)) {}
    }),
    rtmp("media-to-a-player", Expected::Keeps, |peer| {
        peer.begin("play", "nobody-publishes-this");
        let one = message(4, kind::VIDEO, 1, &[0x27; 4_096]);
        peer.flood(200, |_| one.repeat(4));
    }),
    // Viewers' HTTP.
    http("slow-head", Expected::ClosesLate, |peer| {
        peer.drip(&b"GET /live/x.flv HTTP/1.1\r\nX: y\r\n".repeat(40), DRIP);
    }),
    http("endless-head", Expected::Closes, |peer| {
        peer.send(b"GET /live/x.flv HTTP/1.1\r\n");
        peer.flood(1_000, |_| b"X-Header: of no use to anybody\r\n".to_vec());
    }),
    http("request-flood", Expected::Closes, |peer| {
        peer.flood(2_000, |_| b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(50));
    }),
    http("two-lengths", Expected::Closes, |peer| {
        peer.send(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    }),
    http("giant-body", Expected::Closes, |peer| {
        peer.send(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n");
    }),
];

fn random(peer: &mut Peer, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    peer.prng.fill_non_zero(&mut out);
    out
}
