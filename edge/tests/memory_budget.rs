//! The budget of memory: each step of shedding is reached in a real process, in the stated order, while a
//! stream that is watched goes on.
//!
//! The use is what it is; the budget is moved under it by reloads, so that the use is a chosen share of it.

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rtmp::session::MediaKind;
use rustix::process::Signal;
use support::client::{Net, assert_complete};
use support::media::Source;
use support::server::{How, Server, wait_for};
use support::viewer::Viewer;

/// Keeps much, so that the rings are most of what the process has.
const SETTINGS: &str = "[defaults]\nretention_ms = 600000\nretention_bytes = 400000000\n\
                        retention_messages = 1000000\nlag_ms_max = 600000\nstall_ms_max = 600000\n\
                        hls_segment_ms = 500\nhls_part_ms = 200\ngrace_ms = 60000\n";
const MIB: u64 = 1024 * 1024;

/// What the server keeps count of, once that tells of all it has taken: workers write down what they hold
/// every 50 ms, and the control thread reads it some time after.
fn accounted_bytes(server: &Server) -> u64 {
    let mut bytes = 0;
    let mut since = Instant::now();
    wait_for("the account to stand", || {
        let now = server.metric("ringcast_memory_accounted_bytes", "");
        if now != bytes {
            (bytes, since) = (now, Instant::now());
        }
        since.elapsed() >= Duration::from_millis(500)
    });
    bytes
}

/// Makes what is used now so many percent of the budget.
fn set_share(server: &Server, percent: u64) {
    // Rings count as a whole, and are resident as far as they were written to.
    let accounted = accounted_bytes(server);
    let budget = server.resident_bytes().max(accounted) * 100 / percent;
    let settings = format!("{SETTINGS}[limits]\nmemory_bytes_max = {budget}\n");
    fs::write(server.config_file(), settings).unwrap();
    server.signal(Signal::HUP);
}

/// Waits until the level is as wanted; the streams go on meanwhile.
fn until_level(server: &Server, what: &str, live: &mut Live, is_wanted: impl Fn(u64) -> bool) {
    wait_for(what, || {
        live.step(1);
        is_wanted(server.metric("ringcast_memory_level", ""))
    });
}

/// Opens clients until one is refused: workers see a level some tens of milliseconds after it is told.
fn until_refused(live: &mut Live, code: &str, open: impl Fn(&mut Net, usize) -> usize) {
    for attempt in 0..1_000 {
        let client = open(&mut live.net, attempt);
        live.net.until("an answer", |net| {
            net.clients[client].has_started() || net.clients[client].has_status(code)
        });
        if live.net.clients[client].has_status(code) {
            return;
        }
        live.step(1);
    }
    panic!("nobody is refused with {code}");
}

/// A watched stream.
struct Live {
    net: Net,
    publisher: usize,
    player: usize,
    source: Source,
}

impl Live {
    fn step(&mut self, frames: u32) {
        self.net.send_frames(self.publisher, &mut self.source, frames);
        self.net.until_received(&[self.player], &self.source);
    }
}

/// A stream of sound alone, which HLS cuts by time, in samples of any size.
struct Sound {
    client: usize,
    timestamp: u32,
}

impl Sound {
    /// AAC, 44.1 kHz, stereo.
    const HEADER: [u8; 4] = [0xaf, 0, 0x12, 0x10];

    fn send(&mut self, net: &mut Net, bytes: usize) {
        for _ in 0..5 {
            let body = [&[0xaf, 1][..], &vec![0x21; bytes]].concat();
            net.clients[self.client].write_raw(4, 1, MediaKind::Audio, self.timestamp, &body);
            self.timestamp += 20;
        }
    }
}

#[test]
fn memory_is_shed_step_by_step_and_the_watched_stream_goes_on() {
    // Nothing of this differs between the kernel interfaces.
    let server = Server::start(How { io: "auto", workers: 1 }, SETTINGS);
    let mut net = Net::new(server.rtmp);
    let publisher = net.publish("live");
    net.until_started(&[publisher]);
    let player = net.play("live");
    net.until_started(&[player]);
    let source = Source { frame_bytes: 100_000, ..Source::new(1) };
    net.send_headers(publisher, &source);
    let mut live = Live { net, publisher, player, source };
    while server.metric("ringcast_ring_bytes", "") < 150 * MIB {
        live.step(50);
    }
    live.source.frame_bytes = 400;
    assert_eq!(server.metric("ringcast_memory_level", ""), 0);

    // 1: no new subscribers; whoever is there stays, and new streams are taken.
    set_share(&server, 81);
    until_level(&server, "step 1", &mut live, |level| level == 1);
    until_refused(&mut live, "NetStream.Play.Failed", |net, _| net.play("live"));
    for path in ["/live/live.flv", "/live/live.m3u8"] {
        assert_eq!(Viewer::get(server.http, path).wait_response().status, 503, "{path}");
    }
    let second = live.net.publish("second");
    live.net.until_started(&[second]);

    // 2: no new streams; a lost publisher finds its own again.
    set_share(&server, 86);
    until_level(&server, "step 2", &mut live, |level| level == 2);
    until_refused(&mut live, "NetStream.Publish.BadName", |net, attempt| {
        net.publish(&format!("further-{attempt}"))
    });
    live.net.reset(second);
    wait_for("the grace period", || {
        live.step(1);
        server.metric("ringcast_streams", "state=\"grace\"") >= 1
    });
    let back = live.net.publish("second");
    live.net.until_started(&[back]);

    // 3: rings keep their GOP, which is what makes room here: the level falls again.
    let before = server.metric("ringcast_ring_bytes", "");
    set_share(&server, 91);
    until_level(&server, "step 3", &mut live, |level| level >= 3);
    until_level(&server, "the rings to be short", &mut live, |_| {
        server.metric("ringcast_ring_bytes", "") < before / 10
    });
    until_level(&server, "room again", &mut live, |level| level == 0);
    assert!(server.resident_bytes() < before, "the memory is given back to the system");

    // 4: HLS windows shrink, viewers that have a session stay.
    let mut sound = Sound { client: live.net.publish("sound"), timestamp: 0 };
    live.net.until_started(&[sound.client]);
    live.net.clients[sound.client].write_raw(4, 1, MediaKind::Audio, 0, &Sound::HEADER);
    // Refused as long as the worker has not seen that there is room.
    let mut viewer = Viewer::get(server.http, "/live/sound.m3u8");
    wait_for("a window of HLS", || {
        sound.send(&mut live.net, 60_000);
        live.step(1);
        if viewer.response().is_some_and(|response| response.status == 503) {
            viewer = Viewer::get(server.http, "/live/sound.m3u8");
        }
        server.metric("ringcast_hls_held_bytes", "") > 8 * MIB
    });
    assert_eq!(viewer.wait_response().status, 200);
    let held = server.metric("ringcast_hls_held_bytes", "");
    set_share(&server, 97);
    // Before the window slides on, so that nothing else makes it short.
    until_level(&server, "step 4", &mut live, |level| level >= 4);
    wait_for("the windows to be short", || {
        sound.send(&mut live.net, 400);
        live.step(1);
        server.metric("ringcast_hls_held_bytes", "") < held * 3 / 4
    });
    live.net.unpublish(sound.client);
    assert!(server.metric("ringcast_memory_steps_total", "step=\"hls\"") >= 1);

    // 5: who is furthest behind goes; who keeps up stays.
    set_share(&server, 30);
    until_level(&server, "room for a laggard", &mut live, |level| level == 0);
    let mut laggard = live.net.play("live");
    wait_for("the laggard to be let in", || {
        live.step(1);
        if live.net.clients[laggard].ended.is_some() {
            laggard = live.net.play("live");
        }
        live.net.clients[laggard].has_started()
    });
    live.net.shrink_receive_buffer(laggard);
    live.net.clients[laggard].is_frozen = true;
    live.source.frame_bytes = 60_000;
    live.step(100);
    live.source.frame_bytes = 400;
    set_share(&server, 130);
    until_level(&server, "the laggard to be closed", &mut live, |_| {
        server.metric("ringcast_limits_reached_total", "limit=\"memory_laggards\"") > 0
    });
    assert_eq!(server.metric("ringcast_limits_reached_total", "limit=\"memory_laggards\""), 1);
    let levels: Vec<u64> =
        server.events("memory").iter().map(|line| line["level"].as_u64().unwrap()).collect();
    assert_eq!(levels[..2], [1, 2], "{levels:?}");

    // What comes at once is whole, too, whatever is given up behind it.
    live.source.frame_bytes = 20_000;
    (0..20).for_each(|_| live.step(25));
    assert_complete(&live.net.clients[live.player], &live.source);
}
