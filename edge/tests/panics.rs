//! A worker of a real `ringcast` process panics, and another one takes its place (`workers.on_panic`): what
//! was on it ends, for everybody and in order; everything else goes on.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use edge::hand_over::record::VERSION;
use rtmp::session::ClientRole;
use rustix::process::Signal;
use support::client::{Client, Net, assert_complete};
use support::media::Source;
use support::server::{How, Server, hello, matrix, program, wait_for};
use support::viewer::Viewer;
use tempfile::TempDir;

const RESTART: &str = "[workers]\non_panic = \"restart\"\n";
const UNPUBLISHED: &str = "NetStream.Play.UnpublishNotify";

/// A server whose workers panic when asked to.
struct Fragile {
    server: Server,
    file: PathBuf,
    _dir: TempDir,
}

impl Fragile {
    fn start(how: How, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("panic");
        let server = Server::start_at("127.0.0.1", how, settings, |command| {
            command.env("RINGCAST_DEBUG_PANIC_FILE", &file);
            // To write down where it was takes a debug build longer than workers stand still.
            command.env("RUST_BACKTRACE", "0");
        });
        Self { server, file, _dir: dir }
    }

    /// Asks a worker to panic at its next turn.
    fn panic(&self, worker: u16) {
        self.panic_at(worker, "");
    }

    /// Asks a worker to panic at a moment of the next hand-over, in one process or the other.
    fn panic_at(&self, worker: u16, moment: &str) {
        // Moved into place whole: a worker looks in every turn.
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{worker} {moment}")).unwrap();
        fs::rename(draft, &self.file).unwrap();
    }

    /// Hand-overs that have failed, in the old process's words.
    fn failures(&self) -> Vec<String> {
        let told = self.server.events("upgrade");
        let failed = told.iter().filter(|line| line["level"] == "ERROR");
        failed.map(|line| line["message"].to_string()).collect()
    }

    /// Asks for a hand-over, and waits until it has failed for this reason.
    fn fail_upgrade(&self, reason: &str, mut meanwhile: impl FnMut()) {
        let before = self.failures().len();
        self.server.signal(Signal::QUIT);
        wait_for("the hand-over to fail", || {
            meanwhile();
            self.failures().len() > before
        });
        let failures = self.failures();
        assert!(failures[before].contains(reason), "{failures:?}");
        assert!(self.server.successors().is_empty(), "nobody has taken over");
    }

    /// Has the process hand over, whatever has failed before.
    fn upgrade(&mut self, mut meanwhile: impl FnMut()) {
        let failures = self.failures().len();
        self.server.signal(Signal::QUIT);
        wait_for("the hand-over", || {
            meanwhile();
            assert_eq!(self.failures().len(), failures, "{:?}", self.failures());
            !self.server.successors().is_empty()
        });
        self.server.pid = self.server.successors()[0];
    }

    /// Waits until the log tells of a connection's end; the reasons it names.
    fn wait_closed(&self, net: &Net, client: usize) -> Vec<String> {
        let id = net.clients[client].id.as_deref().expect("it was connected");
        let mut reasons = Vec::new();
        wait_for("the connection's last line", || {
            let mut told = self.server.events("close");
            told.retain(|line| line["conn"] == id);
            reasons = told.iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
            !reasons.is_empty()
        });
        reasons
    }

    /// How streams have lost their publishers.
    fn unpublished(&self) -> Vec<String> {
        let told = self.server.events("unpublish");
        told.iter().map(|line| line["how"].as_str().unwrap().to_owned()).collect()
    }

    fn wait_restarts(&self, count: u64) {
        wait_for("a new worker", || {
            self.server.metric("ringcast_worker_restarts_total", "") == count
        });
    }
}

/// A publisher, its players, and what was sent.
struct Stream {
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Stream {
    /// `publisher` and `players` are numbers of workers.
    fn start(net: &mut Net, name: &str, tag: u32, publisher: u16, players: &[u16]) -> Self {
        let publisher = net.open(ClientRole::Publish, name, Some(publisher));
        net.until_started(&[publisher]);
        let open = |&worker| net.open(ClientRole::Play, name, Some(worker));
        let players: Vec<usize> = players.iter().map(open).collect();
        net.until_started(&players);
        let source = Source::new(tag);
        net.send_headers(publisher, &source);
        let mut stream = Self { publisher, players, source };
        stream.step(net);
        stream
    }

    fn step(&mut self, net: &mut Net) {
        net.send_frames(self.publisher, &mut self.source, 12);
        net.until_received(&self.players, &self.source);
    }
}

/// The media playlist of the stream that will be lost, asked for while it flows.
fn playlist(server: &Server, mut flow: impl FnMut()) -> String {
    let mut get = |path: &str| {
        let viewer = Viewer::ask(server.http, "GET", path, "h", "Connection: close\r\n");
        wait_for(path, || {
            flow();
            viewer.has_ended()
        });
        viewer.wait_response().text().to_owned()
    };
    let variants = get("/live/lost.m3u8");
    let media = variants.lines().find(|line| !line.starts_with('#')).unwrap();
    get(&format!("/live/{media}"))
}

/// The words of what `ringctl status` says of workers: their heads, then a row for each.
fn worker_table(server: &Server) -> Vec<Vec<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringctl"))
        .args(["--admin", &server.admin.to_string(), "status"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip_while(|line| !line.to_lowercase().starts_with("worker"));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn has_ended(net: &Net, clients: &[usize]) -> bool {
    clients.iter().all(|&client| net.clients[client].ended.is_some())
}

/// Frames of one source.
fn frames_of(client: &Client, tag: u32) -> Vec<u32> {
    client.frames().filter(|item| item.tag == tag).map(|item| item.sequence).collect()
}

/// As sent, from a keyframe on.
fn assert_all_of(client: &Client, source: &Source) {
    let got = frames_of(client, source.tag);
    let from = *got.first().expect("the player got something") as usize;
    let sent: Vec<u32> = source.sent[from..].iter().map(|item| item.sequence).collect();
    assert_eq!(got, sent, "client {:?}", client.id);
    assert!(client.frames().all(|item| item.intact));
}

#[test]
fn a_worker_that_panics_is_replaced_its_streams_end_and_the_others_go_on() {
    // As many as there are at once: what is not given back is missed.
    let settings = format!("{RESTART}[defaults]\nconnections_max = 8\n");
    for how in matrix(&[2, 3]) {
        let fragile = Fragile::start(how, &settings);
        let server = &fragile.server;
        let mut net = Net::new(server.rtmp);
        let mut safe = Stream::start(&mut net, "safe", 1, 0, &[0, how.workers - 1, 1]);
        let mut lost = Stream::start(&mut net, "lost", 2, 1, &[0, 1]);
        let by_http = Viewer::get(server.http, "/live/lost.flv");
        let text = playlist(server, || {
            lost.step(&mut net);
            safe.step(&mut net);
        });
        assert!(text.contains("#EXTINF") && !text.contains("#EXT-X-ENDLIST"), "{text}");
        let before = net.clients[lost.publisher].id.clone().unwrap();

        fragile.panic(1);
        // Those on the worker are cut; those elsewhere are told that the stream is over, and stay.
        let on_it: Vec<usize> = (0..net.clients.len())
            .filter(|&client| net.clients[client].worker() == Some(1))
            .collect();
        assert!(on_it.contains(&lost.publisher) && on_it.len() >= 3);
        let elsewhere = lost.players[0];
        net.until("the end of what was on the worker", |net| {
            has_ended(net, &on_it) && net.clients[elsewhere].has_status(UNPUBLISHED)
        });
        assert_complete(&net.clients[elsewhere], &lost.source);
        by_http.wait_end();
        fragile.wait_restarts(1);
        safe.players.retain(|player| !on_it.contains(player));
        safe.step(&mut net);

        // Nothing of it is left: neither connections, nor streams, nor a grace period.
        let left = net.clients.len() - on_it.len();
        wait_for("the gauges to tell what is left", || {
            server.metric("ringcast_connections", "role=\"publisher\"") == 1
                && server.metric("ringcast_connections", "role=\"subscriber\"") == left as u64 - 1
                && server.metric("ringcast_streams", "state=\"live\"") == 1
                && server.metric("ringcast_streams", "state=\"grace\"") == 0
        });
        server.wait_log("worker_restarted", "message", "a new worker serves");
        assert_eq!(server.events("worker_failed").len(), 1);
        assert!(server.has_logged("unpublish", "how", "worker_failed"));

        // People read it, too, with the worker it was.
        let table: Vec<Vec<String>> = worker_table(server);
        assert_eq!(table[0].last().unwrap(), "restarts");
        let restarts: Vec<&str> =
            table[1..].iter().map(|row| row.last().unwrap().as_str()).collect();
        let wanted = (0..how.workers).map(|worker| if worker == 1 { "1" } else { "0" });
        assert_eq!(restarts, wanted.collect::<Vec<_>>(), "{table:?}");

        // The stream comes again, on the new worker: who waits elsewhere sees it, and who comes does.
        let again = Stream::start(&mut net, "lost", 3, 1, &[how.workers - 1, 1, 0]);
        let mut again = Stream { players: [again.players, vec![elsewhere]].concat(), ..again };
        again.step(&mut net);
        safe.step(&mut net);
        for &player in &again.players {
            assert_all_of(&net.clients[player], &again.source);
        }
        for &player in &safe.players {
            assert_complete(&net.clients[player], &safe.source);
        }
        // Names of connections are not used twice.
        let serial = |id: &str| id.split('-').nth(1).unwrap().parse::<u64>().unwrap();
        let after = net.clients[again.publisher].id.clone().unwrap();
        assert!(serial(&after) > serial(&before), "{before} {after}");
        let text = playlist(server, || again.step(&mut net));
        assert!(text.contains("#EXTINF") && !text.contains("#EXT-X-ENDLIST"), "{text}");
        assert!(server.get("/readyz").contains("ready"), "{}", server.get("/readyz"));
        let Fragile { mut server, .. } = fragile;
        server.signal(Signal::INT);
        assert_eq!(server.wait_exit().code(), Some(0));
    }
}

#[test]
fn a_stream_whose_grace_period_the_worker_watched_over_ends() {
    for how in matrix(&[2]) {
        let fragile = Fragile::start(how, RESTART);
        let mut net = Net::new(fragile.server.rtmp);
        let lost = Stream::start(&mut net, "lost", 1, 1, &[0]);
        net.reset(lost.publisher);
        fragile.server.wait_log("unpublish", "how", "lost");
        fragile.panic(1);
        let player = lost.players[0];
        net.until("the end of the stream", |net| net.clients[player].has_status(UNPUBLISHED));
        fragile.wait_restarts(1);
        let again = Stream::start(&mut net, "lost", 2, 0, &[1]);
        net.until_received(&[player], &again.source);
        assert_all_of(&net.clients[player], &again.source);
        // A new stream, not the one that was in grace.
        let line = fragile.server.events("publish").pop().unwrap();
        assert_eq!(line["result"], "accepted", "{line}");
    }
}

#[test]
fn a_slow_player_of_a_lost_stream_gets_its_rest_and_holds_up_nobody() {
    for how in matrix(&[2]) {
        // The second publisher is silent for as long as the slow player reads.
        let settings = format!("{RESTART}[defaults]\nidle_publisher_ms_max = 120000\n");
        let fragile = Fragile::start(how, &settings);
        let mut net = Net::new(fragile.server.rtmp);
        let mut lost = Stream::start(&mut net, "lost", 1, 1, &[0, 0]);
        let slow = lost.players.pop().unwrap();
        net.shrink_receive_buffer(slow);
        net.clients[slow].is_frozen = true;
        lost.source.keyframe_bytes = 200_000;
        for _ in 0..4 {
            lost.step(&mut net);
        }
        fragile.panic(1);
        let player = lost.players[0];
        net.until("the end for who reads", |net| net.clients[player].has_status(UNPUBLISHED));
        // The stream comes again on the slow player's own worker while it is not at the end of the old one.
        let mut again = Stream::start(&mut net, "lost", 2, 0, &[0, 1]);
        net.until_received(&[player], &again.source);
        net.clients[slow].is_frozen = false;
        net.until("the end for who is slow", |net| net.clients[slow].has_status(UNPUBLISHED));
        again.players.push(slow);
        again.step(&mut net);
        let got = frames_of(&net.clients[slow], 1);
        assert_eq!(got.last(), lost.source.sent.last().map(|item| &item.sequence));
        assert!(frames_of(&net.clients[slow], 2).len() > 1);
    }
}

/// The first bytes of a handshake, and whether anything came of it.
fn knock(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    let mut hello = vec![0; 1_537];
    hello[0] = 3;
    // Fails for one that was closed meanwhile.
    let _ = socket.write_all(&hello);
    socket
}

#[test]
fn nobody_who_knocks_while_workers_panic_is_left_without_an_answer() {
    for how in matrix(&[2]) {
        let settings = "[workers]\non_panic = \"restart\"\nrestarts_per_minute_max = 100\n";
        let fragile = Fragile::start(how, settings);
        let rtmp = fragile.server.rtmp;
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let crowd = thread::spawn(move || {
            let mut sockets = Vec::new();
            while stopped.try_recv().is_err() {
                sockets.push(knock(rtmp));
                thread::park_timeout(Duration::from_millis(1));
            }
            sockets
        });
        for restarts in 1..=6 {
            fragile.panic(u16::try_from(restarts % 2).unwrap());
            fragile.wait_restarts(restarts);
        }
        stop.send(()).unwrap();
        let crowd = crowd.join().unwrap();
        let mut answered = 0;
        for mut socket in crowd {
            socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
            match socket.read(&mut [0; 64]) {
                Ok(0) => {}
                Ok(_) => answered += 1,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => panic!("{how:?}: neither answered nor closed: {error}"),
            }
        }
        assert!(answered > 0);
    }
}

#[test]
fn more_panics_than_the_configuration_allows_end_the_process() {
    for how in matrix(&[1]) {
        let settings = "[workers]\non_panic = \"restart\"\nrestarts_per_minute_max = 2\n";
        let mut fragile = Fragile::start(how, settings);
        for restarts in 1..=2 {
            fragile.panic(0);
            fragile.wait_restarts(restarts);
        }
        let mut net = Net::new(fragile.server.rtmp);
        Stream::start(&mut net, "live", 1, 0, &[0]);
        fragile.panic(0);
        let status = fragile.server.wait_exit();
        assert_eq!(status.code(), Some(1), "{status}");
        assert_eq!(fragile.server.events("worker_failed").len(), 3);
        assert!(fragile.server.has_logged("stop", "cause", "a worker failed"));
    }
}

#[test]
fn a_panic_in_a_drain_cuts_nobody_else_and_is_told_at_the_end() {
    for how in matrix(&[2]) {
        let settings = format!("{RESTART}[shutdown]\ndrain_ms = 6000\n");
        let mut fragile = Fragile::start(how, &settings);
        let mut net = Net::new(fragile.server.rtmp);
        let mut safe = Stream::start(&mut net, "safe", 1, 0, &[0]);
        let lost = Stream::start(&mut net, "lost", 2, 1, &[1]);
        fragile.server.signal(Signal::TERM);
        fragile.server.wait_log("drain", "cause", "SIGTERM");
        fragile.panic(1);
        net.until("the end of what was on the worker", |net| has_ended(net, &[lost.publisher]));
        wait_for("the panic to be told", || !fragile.server.events("worker_failed").is_empty());
        // Its player may have been asked away already; the publisher stays for half of the time.
        safe.players.clear();
        safe.step(&mut net);
        net.during(Duration::from_millis(300));
        assert!(!has_ended(&net, &[safe.publisher]), "the others drain");
        net.until("the end of the drain", |net| has_ended(net, &[safe.publisher]));
        let status = fragile.server.wait_exit();
        assert_eq!(status.code(), Some(1), "{status}");
        assert!(!fragile.server.has_logged("stop", "cause", "a worker failed"));
        assert!(fragile.server.events("worker_restarted").is_empty());
    }
}

#[test]
fn an_upgrade_after_a_panic_passes_on_what_the_new_worker_has() {
    for how in matrix(&[2]) {
        let mut fragile = Fragile::start(how, RESTART);
        let mut net = Net::new(fragile.server.rtmp);
        let mut safe = Stream::start(&mut net, "safe", 1, 0, &[0]);
        fragile.panic(1);
        fragile.wait_restarts(1);
        let mut new = Stream::start(&mut net, "new", 2, 1, &[0, 1]);
        fragile.upgrade(|| {
            safe.step(&mut net);
            new.step(&mut net);
        });
        assert_eq!(fragile.server.wait_child().code(), Some(0));
        safe.step(&mut net);
        new.step(&mut net);
        for (stream, net) in [(&safe, &net), (&new, &net)] {
            for &player in &stream.players {
                assert_complete(&net.clients[player], &stream.source);
            }
        }
        Stream::start(&mut net, "more", 3, 1, &[0]);
    }
}

/// Two streams, one on each of two workers.
fn one_on_each(net: &mut Net) -> [Stream; 2] {
    [Stream::start(net, "safe", 1, 0, &[0, 0]), Stream::start(net, "lost", 2, 1, &[1, 1])]
}

fn step(streams: &mut [Stream], net: &mut Net) {
    streams.iter_mut().for_each(|stream| stream.step(net));
}

fn assert_all_complete(streams: &[Stream], net: &Net) {
    for stream in streams {
        for &player in &stream.players {
            assert_complete(&net.clients[player], &stream.source);
        }
        assert!(!has_ended(net, &[stream.publisher]));
    }
}

#[test]
fn a_panic_on_the_way_to_a_hand_over_ends_that_and_cuts_nobody_else() {
    for how in matrix(&[2]) {
        let mut fragile = Fragile::start(how, RESTART);
        let mut net = Net::new(fragile.server.rtmp);
        let [mut safe, lost] = one_on_each(&mut net);
        fragile.panic_at(1, "exporting");
        fragile.fail_upgrade("worker 1 failed", || safe.step(&mut net));
        let on_it = [lost.players.clone(), vec![lost.publisher]].concat();
        net.until("the end of what was on the worker", |net| has_ended(net, &on_it));
        fragile.wait_restarts(1);
        safe.step(&mut net);
        assert_all_complete(std::slice::from_ref(&safe), &net);
        // The next one takes along what is here now.
        let mut streams = [safe, Stream::start(&mut net, "lost", 3, 1, &[0, 1])];
        fragile.upgrade(|| step(&mut streams, &mut net));
        assert_eq!(fragile.server.wait_child().code(), Some(0));
        step(&mut streams, &mut net);
        assert_all_complete(&streams, &net);
    }
}

#[test]
fn a_panic_on_the_way_to_a_hand_over_ends_the_process_that_is_to_exit_for_it() {
    for how in matrix(&[2]) {
        let mut fragile = Fragile::start(how, "");
        let mut net = Net::new(fragile.server.rtmp);
        let [safe, lost] = one_on_each(&mut net);
        fragile.panic_at(1, "exporting");
        fragile.fail_upgrade("worker 1 failed", || net.turn());
        let all = [safe.publisher, lost.publisher];
        net.until("the end of everybody", |net| has_ended(net, &all));
        let status = fragile.server.wait_exit();
        assert_eq!(status.code(), Some(1), "{status}");
        assert!(fragile.server.has_logged("stop", "cause", "a worker failed"));
    }
}

#[test]
fn a_worker_that_panics_when_it_has_passed_on_all_it_had_cuts_nobody() {
    for how in matrix(&[2]) {
        for settings in [RESTART, ""] {
            let mut fragile = Fragile::start(how, settings);
            let mut net = Net::new(fragile.server.rtmp);
            let mut streams = one_on_each(&mut net);
            fragile.panic_at(1, "exported");
            fragile.upgrade(|| step(&mut streams, &mut net));
            // It tells by its exit code, unless another worker has taken the place for the rest of its time.
            let status = fragile.server.wait_child();
            assert!(settings == RESTART || status.code() == Some(1), "{status}");
            fragile.server.wait_log("worker_failed", "level", "ERROR");
            assert_eq!(fragile.server.events("worker_failed").len(), 1);
            step(&mut streams, &mut net);
            assert_all_complete(&streams, &net);
            for stream in &streams {
                for &client in stream.players.iter().chain([&stream.publisher]) {
                    assert_eq!(fragile.wait_closed(&net, client), ["handed_over"]);
                }
            }
            wait_for("the streams' last lines", || fragile.unpublished().len() >= 2);
            assert_eq!(fragile.unpublished(), ["handed_over", "handed_over"]);
            Stream::start(&mut net, "more", 3, 1, &[0, 1]);
        }
    }
}

#[test]
fn a_panic_behind_a_hand_over_that_fails_has_cut_who_was_on_the_worker() {
    let dir = tempfile::tempdir().unwrap();
    let refuses = format!("{}; printf 'Eno room here' >&0", hello(VERSION));
    let path = program(dir.path(), "refuses", &refuses);
    for how in matrix(&[2]) {
        let settings = format!("{RESTART}[shutdown]\nupgrade_program = \"{path}\"\n");
        let fragile = Fragile::start(how, &settings);
        let mut net = Net::new(fragile.server.rtmp);
        let [mut safe, lost] = one_on_each(&mut net);
        fragile.panic_at(1, "exported");
        fragile.fail_upgrade("no room here", || safe.step(&mut net));
        let on_it = [lost.players.clone(), vec![lost.publisher]].concat();
        net.until("the end of what was on the worker", |net| has_ended(net, &on_it));
        fragile.wait_restarts(1);
        for client in on_it {
            assert_eq!(fragile.wait_closed(&net, client), ["internal"]);
        }
        wait_for("the stream's last line", || !fragile.unpublished().is_empty());
        assert_eq!(fragile.unpublished(), ["worker_failed"]);
        safe.step(&mut net);
        assert_all_complete(std::slice::from_ref(&safe), &net);
    }
}

#[test]
fn a_panic_of_who_takes_over_is_told_and_the_old_process_goes_on_with_everybody() {
    for how in matrix(&[2]) {
        for settings in [RESTART, ""] {
            let mut fragile = Fragile::start(how, settings);
            let mut net = Net::new(fragile.server.rtmp);
            let mut streams = one_on_each(&mut net);
            for worker in [0, 1] {
                fragile.panic_at(worker, "importing");
                let reason = "a worker panicked at its start: asked to panic";
                fragile.fail_upgrade(reason, || step(&mut streams, &mut net));
                step(&mut streams, &mut net);
                assert_all_complete(&streams, &net);
            }
            // But for connections that came to the wrong worker, and left before they were anybody.
            let mut closed = fragile.server.events("close");
            closed.retain(|line| line["role"] != "undecided");
            assert!(closed.is_empty(), "nobody was closed: {closed:?}");
            assert!(fragile.server.events("worker_failed").is_empty(), "none of this process");
            fragile.upgrade(|| step(&mut streams, &mut net));
            step(&mut streams, &mut net);
            assert_all_complete(&streams, &net);
        }
    }
}

#[test]
fn a_worker_that_panics_as_it_takes_over_is_replaced_in_the_new_process() {
    for how in matrix(&[2]) {
        let mut fragile = Fragile::start(how, RESTART);
        let mut net = Net::new(fragile.server.rtmp);
        let [mut safe, lost] = one_on_each(&mut net);
        let on_it = [lost.players.clone(), vec![lost.publisher]].concat();
        fragile.panic_at(1, "taking up");
        fragile.upgrade(|| {
            safe.step(&mut net);
        });
        net.until("the end of what was on the worker", |net| has_ended(net, &on_it));
        fragile.wait_restarts(1);
        fragile.server.wait_log("worker_restarted", "message", "a new worker serves");
        assert_eq!(fragile.server.wait_child().code(), Some(0));
        let mut streams = [safe, Stream::start(&mut net, "lost", 3, 1, &[0, 1])];
        step(&mut streams, &mut net);
        assert_all_complete(&streams, &net);
    }
}

#[test]
fn a_new_process_that_is_to_exit_for_a_panic_ends_in_order() {
    for how in matrix(&[2]) {
        let mut fragile = Fragile::start(how, "");
        let mut net = Net::new(fragile.server.rtmp);
        let [mut safe, lost] = one_on_each(&mut net);
        fragile.panic_at(1, "taking up");
        // Its players may have the end of everything before the last frame.
        safe.players.clear();
        fragile.upgrade(|| net.turn());
        let all = [safe.publisher, lost.publisher];
        net.until("the end of everybody", |net| has_ended(net, &all));
        net.until("the end of the new process", |_| !fragile.server.is_running());
        fragile.server.wait_log("stop", "cause", "a worker failed");
    }
}
