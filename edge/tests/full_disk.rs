//! A disk that is really full: a small file system of a `ringcast` process's own. What is to be written is
//! lost, counted and told; streams do not notice; and when there is room again, writing goes on.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::client::{Net, assert_complete};
use support::media::Source;
use support::raw::RawPeer;
use support::server::{How, Server, wait_for};
use support::viewer::Viewer;
use tempfile::TempDir;

const ONE: How = How { io: "auto", workers: 1 };
/// Size of the disk, in bytes.
const DISK_BYTES: usize = 4 * 1024 * 1024;

/// A folder that is a disk of its own, for those in a mount namespace.
struct Disk {
    dir: TempDir,
}

impl Disk {
    /// `None` where namespaces cannot be made.
    fn new() -> Option<Self> {
        let status = unshare().arg("true").stderr(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("skipped: mount namespaces need root or user namespaces");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts `ringcast` where the folder is the disk; `redirect` is the shell's for its log.
    fn server(&self, settings: &str, redirect: &str) -> Server {
        let disk = self.path().display();
        let mut command = unshare();
        command
            .arg("sh")
            .arg("-c")
            .arg(format!(
                "mount -t tmpfs -o size={DISK_BYTES} disk {disk} && exec \"$0\" \"$@\" {redirect}"
            ))
            .arg(env!("CARGO_BIN_EXE_ringcast"))
            .stdin(Stdio::null());
        Server::launch(command, ONE, settings)
    }

    /// The disk as the server sees it.
    fn of(&self, server: &Server) -> PathBuf {
        let root = format!("/proc/{}/root", server.pid);
        Path::new(&root).join(self.path().strip_prefix("/").unwrap())
    }

    /// Fills what is left; returns the file that does.
    fn fill(&self, server: &Server) -> PathBuf {
        let path = self.of(server).join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

/// A command in a mount namespace of its own.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    let is_root = rustix::process::geteuid().is_root();
    command.arg(if is_root { "-m" } else { "-Urm" });
    command
}

/// A publisher and a player that run through it all.
struct Live {
    net: Net,
    publisher: usize,
    player: usize,
    source: Source,
}

impl Live {
    fn start(server: &Server) -> Self {
        let mut net = Net::new(server.rtmp);
        let publisher = net.publish("live");
        net.until_started(&[publisher]);
        let player = net.play("live");
        net.until_started(&[player]);
        let source = Source::new(1);
        net.send_headers(publisher, &source);
        Self { net, publisher, player, source }
    }

    /// A tenth of a second of the stream, as fast as it plays.
    fn step(&mut self) {
        self.net.send_frames(self.publisher, &mut self.source, 10);
        self.net.until_received(&[self.player], &self.source);
        self.net.during(Duration::from_millis(80));
    }

    fn finish(&self) {
        assert_complete(&self.net.clients[self.player], &self.source);
    }
}

#[test]
fn a_log_on_a_full_disk_loses_lines_and_goes_on_when_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let log = disk.path().join("log");
    let server = disk.server("", &format!("2>>{}", log.display()));
    let mut live = Live::start(&server);
    let file = disk.of(&server).join("log");
    live.step();
    let filler = disk.fill(&server);
    wait_for("lost lines to be counted", || {
        RawPeer::connected(server.rtmp);
        live.step();
        server.metric("ringcast_log_dropped_lines_total", "") > 5
    });
    fs::remove_file(filler).unwrap();
    let lines = || -> Vec<String> {
        let text = fs::read(&file).unwrap();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    };
    let parsed = |line: &String| serde_json::from_str::<Value>(line).ok();
    wait_for("the loss to stand in the log", || {
        live.step();
        lines().iter().filter_map(parsed).any(|line| line["event"] == "log_dropped")
    });
    let lost = server.metric("ringcast_log_dropped_lines_total", "");
    let connects =
        || lines().iter().filter_map(parsed).filter(|line| line["event"] == "connect").count();
    let before = connects();
    RawPeer::connected(server.rtmp);
    wait_for("a new line", || {
        live.step();
        connects() == before + 1
    });
    assert_eq!(
        server.metric("ringcast_log_dropped_lines_total", ""),
        lost,
        "none is lost any more"
    );
    // One line may stand there in part: the one that met the end of the disk. It spoils no other.
    let torn: Vec<String> = lines().into_iter().filter(|line| parsed(line).is_none()).collect();
    assert!(torn.len() <= 1, "{torn:?}");
    assert!(torn.iter().all(|line| line.matches("\"timestamp\"").count() <= 1), "{torn:?}");
    live.finish();
}

#[test]
fn a_full_disk_under_hls_files_costs_files_and_no_viewer_and_writing_goes_on_when_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let folder = disk.path().join("hls");
    let settings = format!(
        "[defaults]\nhls_start = \"always\"\nhls_segment_ms = 500\nhls_dir = {:?}\n",
        folder.display().to_string()
    );
    let server = disk.server(&settings, "");
    let mut live = Live::start(&server);
    let metric = |name: &str| server.metric(&format!("ringcast_storage_{name}_total"), "");
    wait_for("files to be written", || {
        live.step();
        metric("writes") > 4
    });
    let filler = disk.fill(&server);
    let before = metric("failures");
    wait_for("writing to fail, and be told", || {
        live.step();
        metric("failures") > before && !server.events("storage_failed").is_empty()
    });
    // Who watches by HTTP is served from memory, with what cannot be written.
    let listing = Viewer::get(server.http, "/live/live.m3u8").wait_response();
    let media = listing.text().lines().find(|line| !line.starts_with('#')).unwrap();
    let media = format!("/live/{media}");
    let newest = || {
        let playlist = Viewer::get(server.http, &media).wait_response();
        assert_eq!(playlist.status, 200, "{media} {}", playlist.head);
        let uri = playlist.text().lines().rfind(|line| !line.starts_with('#')).map(str::to_owned);
        uri.unwrap()
    };
    let first = newest();
    wait_for("another segment while the disk is full", || {
        live.step();
        newest() != first
    });
    fs::remove_file(filler).unwrap();
    let written = metric("writes");
    wait_for("files to be written again", || {
        live.step();
        metric("writes") > written + 4
    });
    // Nothing there is half a file: a playlist names segments that are as long as those served.
    let playlist = fs::read_to_string(disk.of(&server).join("hls/live/live.m3u8")).unwrap();
    let segment = playlist.lines().rfind(|line| !line.starts_with('#')).unwrap();
    wait_for("the newest segment of the playlist", || {
        live.step();
        disk.of(&server).join("hls/live").join(segment).exists()
    });
    let bytes = fs::metadata(disk.of(&server).join("hls/live").join(segment)).unwrap().len();
    assert!(bytes > 1_000, "{segment} has {bytes} bytes");
    live.finish();
}
