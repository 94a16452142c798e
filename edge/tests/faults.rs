//! Faults of the world around a real `ringcast` process, each with what is promised for it in the failure
//! policy (`ARCHITECTURE.md` §9): the cable, descriptors, the kernel's refusals, the log's disk, a panic.

mod support;

use std::fs::{self, File};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;

use support::client::{Net, assert_complete};
use support::confine;
use support::media::Source;
use support::raw::RawPeer;
use support::server::{How, Server, matrix, wait_for};

const ONE: How = How { io: "auto", workers: 1 };

/// A publisher and players that run through a fault.
struct Live {
    net: Net,
    publisher: usize,
    players: Vec<usize>,
    source: Source,
}

impl Live {
    fn start(server: &Server, name: &str, workers: u16) -> Self {
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish(name);
        net.until_started(&[publisher]);
        let open = |worker| net.open(rtmp::session::ClientRole::Play, name, Some(worker));
        let players: Vec<usize> = (0..workers).map(open).collect();
        net.until_started(&players);
        let source = Source::new(1);
        net.send_headers(publisher, &source);
        let mut live = Self { net, publisher, players, source };
        live.step();
        live
    }

    fn step(&mut self) {
        self.net.send_frames(self.publisher, &mut self.source, 2);
        self.net.until_received(&self.players, &self.source);
    }

    fn finish(&mut self) {
        self.step();
        for &player in &self.players {
            assert_complete(&self.net.clients[player], &self.source);
        }
    }
}

// Descriptors.

#[test]
fn connections_leave_descriptors_for_everything_else() {
    for how in matrix(&[1]) {
        let server = Server::start_at("127.0.0.1", how, "", |command| {
            confine::descriptors(command, 160);
        });
        let mut live = Live::start(&server, "live", 1);
        let mut crowd = Vec::new();
        while server.metric("ringcast_limits_reached_total", "limit=\"connections\"") < 20 {
            assert!(crowd.len() < 400, "the limit is never reached");
            crowd.push(RawPeer::connect(server.rtmp));
            live.step();
        }
        // The admin API answers all the while, and no accept failed.
        assert_eq!(server.metric("ringcast_accept_errors_total", ""), 0);
        drop(crowd);
        wait_for("room", || server.metric("ringcast_connections", "") == 2);
        RawPeer::connected(server.rtmp);
        live.finish();
    }
}

/// CPU time of a process so far, in ticks of 10 ms.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid().as_raw_nonzero())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Open files of a process.
fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap().count()
}

#[test]
fn without_descriptors_the_listener_rests_and_streams_go_on() {
    for how in matrix(&[1]) {
        let settings = "[limits]\nfirst_byte_ms_max = 60000\n";
        let server = Server::start_at("127.0.0.1", how, settings, |command| {
            confine::descriptors(command, 160);
        });
        let mut live = Live::start(&server, "live", 1);
        // The admin API has as many connections as it takes, and those of peers need the rest.
        let base = descriptors(&server);
        let admins: Vec<TcpStream> =
            (0..64).map(|_| TcpStream::connect(server.admin).unwrap()).collect();
        wait_for("the admin's connections", || descriptors(&server) >= base + 64);
        let crowd: Vec<TcpStream> =
            (0..100).map(|_| TcpStream::connect(server.rtmp).unwrap()).collect();
        wait_for("the last descriptor to be used", || {
            live.step();
            descriptors(&server) >= 160
        });
        let (ticks, begun) = (cpu_ticks(&server), std::time::Instant::now());
        while begun.elapsed().as_millis() < 1_500 {
            live.step();
            live.net.during(std::time::Duration::from_millis(20));
        }
        // A listener that spins takes all of a CPU: 100 ticks a second. The stream takes a few.
        let spent = cpu_ticks(&server) - ticks;
        let whole = u64::try_from(begun.elapsed().as_millis()).unwrap() / 10;
        assert!(spent < whole / 2, "{how:?}: {spent} of {whole} ticks: it spins");
        // Those in the backlog are taken as soon as there are descriptors again.
        drop(admins);
        wait_for("those who waited to be accepted", || {
            live.step();
            server.metric("ringcast_connections", "") == 102
                && server.metric("ringcast_accept_errors_total", "") > 0
        });
        drop(crowd);
        live.finish();
    }
}

// What the kernel refuses.

#[test]
fn where_io_uring_is_denied_epoll_serves_and_says_so() {
    let server = Server::start_at("127.0.0.1", ONE, "", |command| {
        confine::no_io_uring(command);
    });
    wait_for("the reason in the log", || {
        server.events("io_feature").iter().any(|line| {
            line["message"].as_str().is_some_and(|text| text.contains("running on epoll"))
        })
    });
    Live::start(&server, "live", 1).finish();
}

#[test]
fn where_io_uring_is_required_and_denied_the_start_fails_with_the_fix() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringcast"));
    command
        .args(["--rtmp", "127.0.0.1:0", "--http", "off", "--admin", "off", "--io", "uring"])
        .stdin(Stdio::null());
    confine::no_io_uring(&mut command);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("seccomp") && text.contains("workers.io = \"auto\""), "{text}");
}

#[test]
fn without_locked_memory_the_server_serves() {
    // On io_uring or, where its kernel counts rings as locked memory, on epoll.
    let server = Server::start_at("127.0.0.1", ONE, "", |command| {
        confine::no_locked_memory(command);
    });
    Live::start(&server, "live", 1).finish();
}

// The log.

#[test]
fn a_full_disk_under_the_log_costs_lines_and_nothing_else() {
    for how in matrix(&[1]) {
        let server = Server::start_at("127.0.0.1", how, "", |command| {
            let full = File::options().write(true).open("/dev/full").unwrap();
            command.stderr(full);
        });
        let mut live = Live::start(&server, "live", 1);
        wait_for("lost lines to be counted", || {
            live.step();
            server.metric("ringcast_log_dropped_lines_total", "") > 5
        });
        live.finish();
    }
}

// A bug of ours.

#[test]
fn a_worker_that_panics_ends_the_process_which_says_so() {
    for how in matrix(&[2]) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("panic");
        let mut server = Server::start_at("127.0.0.1", how, "", |command| {
            command.env("RINGCAST_DEBUG_PANIC_FILE", &file);
        });
        let mut live = Live::start(&server, "live", 2);
        fs::write(&file, "1").unwrap();
        live.net.until("the end of all connections", |net| {
            net.clients.iter().all(|client| client.ended.is_some())
        });
        let status = server.wait_exit();
        assert_eq!(status.code(), Some(1), "{status}");
        let failed = server.events("worker_failed");
        let text = failed[0]["message"].as_str().unwrap();
        assert!(text.contains("asked to panic") && failed[0]["worker"] == 1, "{failed:?}");
        assert!(server.has_logged("stop", "cause", "a worker failed"));
    }
}

// The cable.

/// Two network namespaces and a cable between them. The thread that makes it moves into one of them; its
/// servers are started in the other.
struct Cable {
    near: String,
    far: String,
    far_file: File,
}

const NEAR_IP: &str = "10.213.7.1";
const FAR_IP: &str = "10.213.7.2";

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Cable {
    /// `None` where namespaces cannot be made.
    fn lay() -> Option<Self> {
        let id = std::process::id();
        let (near, far) = (format!("ringcast-near-{id}"), format!("ringcast-far-{id}"));
        if !ip(&format!("netns add {near}")) {
            return None;
        }
        assert!(ip(&format!("netns add {far}")));
        assert!(ip(&format!("-n {near} link add cable type veth peer name cable netns {far}")));
        for (namespace, address) in [(&near, NEAR_IP), (&far, FAR_IP)] {
            assert!(ip(&format!("-n {namespace} addr add {address}/30 dev cable")));
            assert!(ip(&format!("-n {namespace} link set lo up")));
            assert!(ip(&format!("-n {namespace} link set cable up")));
        }
        confine::enter_network(&File::open(format!("/run/netns/{near}")).unwrap()).unwrap();
        let far_file = File::open(format!("/run/netns/{far}")).unwrap();
        Some(Self { near, far, far_file })
    }

    fn server(&self, settings: &str) -> Server {
        let namespace = self.far_file.try_clone().unwrap();
        Server::start_at(FAR_IP, ONE, settings, move |command| {
            confine::network(command, namespace);
        })
    }

    fn cut(&self, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        assert!(ip(&format!("-n {} link set cable {state}", self.near)));
    }

    /// Whatever `from` sends goes to a host that is not there; the other direction works.
    fn cut_one_way(&self, from: &str, to_ip: &str, is_cut: bool) {
        let wanted = match is_cut {
            true => format!(
                "-n {from} neigh replace {to_ip} lladdr 02:00:00:00:de:ad dev cable nud permanent"
            ),
            false => format!("-n {from} neigh del {to_ip} dev cable"),
        };
        assert!(ip(&wanted));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.near));
        ip(&format!("netns del {}", self.far));
    }
}

/// How many connections of the server ended by one of these reasons.
fn ended(server: &Server, reasons: &[&str]) -> usize {
    let lines = server.events("close");
    lines.iter().filter(|line| reasons.iter().any(|reason| line["reason"] == *reason)).count()
}

#[test]
fn a_cut_cable_ends_its_peers_in_bounded_time_and_they_find_their_stream_again() {
    let settings = "[limits]\nidle_ms_max = 3000\n[defaults]\nidle_publisher_ms_max = 1000\n\
                    stall_ms_max = 2000\nping_interval_ms = 1000\ngrace_ms = 60000\n";
    // A thread of its own: it leaves the network of this process.
    let test = thread::spawn(move || {
        let Some(cable) = Cable::lay() else {
            println!("skipped: network namespaces need root");
            return;
        };
        let server = cable.server(settings);
        let cuts: [(&str, &dyn Fn(bool)); 3] = [
            ("both ways", &|cut| cable.cut(cut)),
            ("from the server", &|cut| cable.cut_one_way(&cable.far, NEAR_IP, cut)),
            ("to the server", &|cut| cable.cut_one_way(&cable.near, FAR_IP, cut)),
        ];
        for (name, cut) in cuts {
            let mut live = Live::start(&server, "live", 1);
            let gone = ["idle_timeout", "stalled", "peer_lost"];
            let before = (ended(&server, &["publisher_idle"]), ended(&server, &gone));
            cut(true);
            // The encoder goes on as long as its socket takes something; nothing tells it yet.
            live.net.send_frames(live.publisher, &mut live.source, 50);
            wait_for(&format!("{name}: publisher and player to be given up"), || {
                live.net.turn();
                ended(&server, &["publisher_idle"]) > before.0 && ended(&server, &gone) > before.1
            });
            cut(false);
            // Both come again, as encoders and players do; the stream was kept for them.
            drop(live);
            let told = server.events("publish").len();
            let mut again = Live::start(&server, "live", 1);
            again.finish();
            wait_for("the line of the publisher", || server.events("publish").len() > told);
            let line = server.events("publish").pop().unwrap();
            assert_eq!(line["result"], "resumed", "{name}: {line}");
            again.net.unpublish(again.publisher);
            wait_for("the end of the stream", || {
                again.net.turn();
                server.events("unpublish").last().is_some_and(|line| line["how"] == "clean")
            });
        }
    });
    test.join().unwrap();
}
