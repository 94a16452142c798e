//! The questions about viewers' HTTP: what a viewer costs by protocol, how many segments a core serves,
//! how far behind low-latency viewers are, what packaging costs.
//!
//! | mode | question | lines |
//! |---|---|---|
//! | http | what does a viewer by HTTP-FLV or WebSocket cost, next to one by RTMP? | a protocol each |
//! | hls | how many segments does a core serve, next to files served by nginx? | Ringcast, nginx |
//! | ll-hls | how long from glass to glass, in parts? | a way to follow the playlist each |
//! | packaging | what does a packaged stream cost? | without, fragmented MP4, MPEG-TS |
//!
//! Every line starts its server afresh. What is compared is measured one right after the other, and the
//! ratio stands in the second line.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{RAMP_PER_S, SETTLE_S};
use crate::line::{Line, Numbers};
use crate::modes::{Context, line_of};
use crate::servers::{Running, Server};

/// Rates of the streams of which segments of 1 s are fetched, bits per second: large and small segments.
const SEGMENT_BITS: [u32; 2] = [5_000_000, 200_000];
/// Seconds a stream runs until the playlist has only whole segments: the first ones are cut short so
/// that the first viewer waits less.
const SEGMENTS_LEAD_S: u32 = 10;
/// Segments that nginx has to serve: the last of so many.
const SEGMENTS: usize = 3;
const SEGMENTS_LISTED: usize = 5;
/// How long they are waited for.
const SNAPSHOT: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(300);
/// Longest response taken.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

type Outcome = Result<(Value, f64), String>;

impl Context<'_> {
    /// Starts a server and runs swarm against its HTTP, publishing by RTMP.
    fn watch(&self, server: &Server, file: &str, seconds: u32, flags: &[String]) -> Outcome {
        let mut running = server.start(self.cpu)?;
        let outcome = by_http(&mut running, file).and_then(|publish| {
            let flags: Vec<&str> = flags.iter().chain(&publish).map(String::as_str).collect();
            self.swarm.run(&running, seconds, &flags)
        });
        running.stop();
        outcome
    }

    /// The same stream by RTMP, HTTP-FLV and WebSocket-FLV.
    pub(crate) fn http(&self, server: &Server, players: u32) -> Vec<Line> {
        let seconds = players.div_ceil(RAMP_PER_S) + SETTLE_S + self.sizes.seconds;
        let flags = self.stream(players, self.lead_s);
        let names = [
            ("cpu_percent_per_1000", "cpu_percent_per_1000"),
            ("cpu_s_per_gb", "cpu_s_per_gb"),
            ("joined", "joined"),
            ("failed", "failed"),
            ("lost", "lost"),
            ("first_frame_ms_p50", "first_keyframe_ms_p50"),
            ("first_frame_ms_p99", "first_keyframe_ms_p99"),
            ("latency_ms_p50", "latency_steady_ms_p50"),
            ("latency_ms_p99", "latency_steady_ms_p99"),
            ("rss_mb", "rss_mb"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let mut lines = vec![line(
            ("http", "rtmp"),
            server,
            players,
            self.run(server, seconds, &flags),
            &names,
        )];
        for (name, scheme) in [("http-flv", "http"), ("ws-flv", "ws")] {
            let outcome = self.watch(server, &format!("{scheme}:x.flv"), seconds, &flags);
            let mut one = line(("http", name), server, players, outcome, &names);
            put_ratio(&mut one, &lines[0], "cpu_percent_per_1000", "cpu_x_rtmp");
            lines.push(one);
        }
        lines
    }

    /// Segments as fast as they come: from Ringcast, which makes them meanwhile, and the same bytes from
    /// nginx, which has them as files.
    pub(crate) fn hls(&self, server: &Server, with_nginx: bool) -> Vec<Line> {
        let mut lines = Vec::new();
        for bits in SEGMENT_BITS {
            let fetch = |more: &[String]| {
                let mut flags = vec!["fetch".to_owned()];
                flags.push(format!("--parallel={}", self.sizes.fetchers));
                flags.extend_from_slice(more);
                flags
            };
            let publish = [
                "--publish".to_owned(),
                format!("--lead={SEGMENTS_LEAD_S}"),
                format!("--bitrate={bits}"),
                "--gop=1".to_owned(),
                "--audio-bitrate=32000".to_owned(),
            ];
            let seconds = SETTLE_S + self.sizes.seconds;
            let kbits = bits / 1000;
            let file = "http:x.m3u8?container=ts";
            let ours = self.watch(server, file, seconds, &fetch(&publish));
            lines.push(requests_line(&format!("{} {kbits} kb/s", server.name), kbits, ours));
            if !with_nginx {
                continue;
            }
            let theirs = self.snapshot(server, &publish[2..]).and_then(|folder| {
                let nginx = Server::nginx_files(folder.path());
                let mut running = nginx.start(self.cpu)?;
                running.url = format!("{}/live/x.m3u8", running.http.clone().unwrap_or_default());
                let flags = fetch(&[]);
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                let outcome = self.swarm.run(&running, seconds, &flags);
                running.stop();
                outcome
            });
            let theirs = requests_line(&format!("nginx files {kbits} kb/s"), kbits, theirs);
            if let Some(ours) = lines.last_mut() {
                put_ratio(ours, &theirs, "requests_per_core_s", "x_nginx");
            }
            lines.push(theirs);
        }
        lines
    }

    /// Segments of a stream as files below a folder, and a playlist of them.
    fn snapshot(&self, server: &Server, media: &[String]) -> Result<tempfile::TempDir, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        // nginx gives its worker to another user.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), open).map_err(|error| error.to_string())?;
        let mut running = server.start(self.cpu)?;
        let http = running.http.clone().ok_or("does not serve http")?;
        let mut flags = vec!["publish".to_owned()];
        flags.extend_from_slice(media);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        running.url += "/x";
        let seconds = u32::try_from(SNAPSHOT.as_secs()).unwrap_or(12);
        let saved = std::thread::scope(|scope| {
            let publisher = scope.spawn(|| self.swarm.run(&running, seconds, &flags));
            let saved = save_segments(&http, folder.path());
            // How the publisher ends matters only where nothing could be saved.
            let published = publisher.join().map_err(|_| "the publisher failed".to_owned());
            saved.map_err(|error| match published.and_then(|outcome| outcome) {
                Ok(_) => error,
                Err(why) => format!("{error}; {why}"),
            })
        });
        running.stop();
        saved.map(|()| folder)
    }

    /// Viewers of low-latency playlists, by reload and by hint.
    pub(crate) fn ll_hls(&self, server: &Server) -> Vec<Line> {
        let players = (self.sizes.watchers / 10).max(5);
        let seconds =
            players.div_ceil(RAMP_PER_S) + SETTLE_S + self.sizes.calm_s + self.sizes.seconds;
        let names = [
            ("glass_to_glass_ms_p50", "glass_to_glass_ms_p50"),
            ("glass_to_glass_ms_p99", "glass_to_glass_ms_p99"),
            ("latency_ms_p50", "latency_steady_ms_p50"),
            ("latency_ms_p99", "latency_steady_ms_p99"),
            ("first_frame_ms_p50", "first_keyframe_ms_p50"),
            ("stall_percent", "stall_percent"),
            ("failed", "failed"),
            ("lost", "lost"),
            ("requests_per_s", "requests_per_s"),
            ("cpu_percent_per_1000", "cpu_percent_per_1000"),
            ("own_core_busy_percent", "own_core_busy_percent"),
        ];
        let by = |mode: &str| {
            let mut flags = self.stream(players, self.lead_s);
            flags.push(format!("--hls={mode}"));
            let outcome = self.watch(server, "http:x.m3u8", seconds, &flags);
            line(("ll-hls", mode), server, players, outcome, &names)
        };
        vec![by("parts"), by("hint")]
    }

    /// Many streams that nobody watches: not packaged, and packaged in each container.
    pub(crate) fn packaging(&self, servers: &[(&'static str, Server)]) -> Vec<Line> {
        let streams = self.sizes.streams;
        let mut lines: Vec<Line> = Vec::new();
        for (name, server) in servers {
            let flags = [
                "publish".to_owned(),
                format!("--streams={streams}"),
                "--bitrate=872k".to_owned(),
                "--audio-bitrate=128k".to_owned(),
            ];
            let outcome = self.run(server, SETTLE_S + 1 + self.sizes.seconds, &flags);
            let names = [
                ("cpu_percent_total", "cpu_percent_total"),
                ("published", "published"),
                ("rss_mb", "rss_mb"),
            ];
            let mut one = line(("packaging", name), server, streams, outcome, &names);
            let total = number(&one, "cpu_percent_total");
            let bare = lines.first().and_then(|first| number(first, "cpu_percent_total"));
            if let (Some(total), Ok(numbers)) = (total, &mut one.outcome) {
                numbers.push(("cpu_percent_per_stream", total / f64::from(streams.max(1))));
                if let Some(bare) = bare {
                    let more = (total - bare) / f64::from(streams.max(1));
                    numbers.push(("packaging_percent_per_stream", more));
                }
            }
            lines.push(one);
        }
        lines
    }
}

/// Lets swarm watch `file` (scheme and name) of a running server over HTTP; the flags that say where it
/// publishes.
fn by_http(running: &mut Running, file: &str) -> Result<[String; 1], String> {
    let http = running.http.clone().ok_or("does not serve http")?;
    let (scheme, file) = file.split_once(':').unwrap_or(("http", file));
    let publish = format!("--publish-url={}/x", running.url);
    running.url = format!("{}/live/{file}", http.replacen("http", scheme, 1));
    Ok([publish])
}

/// A line whose server is named with what was asked of it.
fn line(
    (mode, what): (&'static str, &str),
    server: &Server,
    load: u32,
    outcome: Outcome,
    names: &[(&'static str, &str)],
) -> Line {
    let mut line = line_of(mode, server, load, outcome, names);
    line.server = format!("{} {what}", server.name);
    line
}

fn requests_line(name: &str, load: u32, outcome: Outcome) -> Line {
    let names = [
        ("requests_per_core_s", "requests_per_core_s"),
        ("requests_per_s", "requests_per_s"),
        ("cpu_percent_total", "cpu_percent_total"),
        ("segment_ms_p50", "hls_segment_ms_p50"),
        ("segment_ms_p99", "hls_segment_ms_p99"),
        ("failed", "failed"),
        ("reconnects", "reconnects"),
        ("own_core_busy_percent", "own_core_busy_percent"),
    ];
    match outcome {
        Err(error) => Line::failed("hls", name, load, error),
        Ok(result) => {
            let metric = |name: &str| result.0["metrics"][name].as_f64();
            let bytes = metric("received_bytes").zip(metric("requests"));
            let bytes = bytes.filter(|(_, requests)| *requests > 0.0);
            let mut line = Line::of("hls", name, load, &result, &names);
            if let (Some((bytes, requests)), Ok(numbers)) = (bytes, &mut line.outcome) {
                numbers.push(("kb_per_request", bytes / requests / 1000.0));
            }
            line
        }
    }
}

fn number(line: &Line, name: &str) -> Option<f64> {
    let numbers: &Numbers = line.outcome.as_ref().ok()?;
    numbers.iter().find(|(one, _)| *one == name).map(|(_, value)| *value)
}

/// Puts a number of `line` by the same one of `other`, as `ratio`.
fn put_ratio(line: &mut Line, other: &Line, name: &str, ratio: &'static str) {
    let parts = number(line, name).zip(number(other, name)).filter(|(_, base)| *base > 0.0);
    if let (Some((value, base)), Ok(numbers)) = (parts, &mut line.outcome) {
        numbers.insert(0, (ratio, value / base));
    }
}

/// Waits until a stream has segments and saves them under their names, with a playlist `live/x.m3u8`.
fn save_segments(http: &str, folder: &Path) -> Result<(), String> {
    let until = Instant::now() + SNAPSHOT;
    loop {
        let list = get(http, "/live/x.m3u8?container=ts").and_then(|text| {
            let text = text_of(text)?;
            let variant = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
            text_of(get(http, &format!("/live/{variant}"))?)
        });
        match list {
            Ok(list) if segments(&list).len() >= SEGMENTS_LISTED => {
                return save(http, folder, &list);
            }
            outcome if Instant::now() >= until => {
                return Err(outcome.err().unwrap_or_else(|| "there were no segments".into()));
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// Addresses of the complete segments of a playlist.
fn segments(list: &str) -> Vec<&str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn save(http: &str, folder: &Path, list: &str) -> Result<(), String> {
    let live = folder.join("live");
    let mut kept = String::from("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:12\n");
    let all = segments(list);
    for segment in all.iter().skip(all.len().saturating_sub(SEGMENTS)) {
        let name = segment.split('?').next().unwrap_or_default();
        let is_below =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below {
            return Err(format!("{name}: no name of a file below a folder"));
        }
        let file = live.join(name);
        let bytes = get(http, &format!("/live/{segment}"))?;
        fs::create_dir_all(file.parent().unwrap_or(&live)).map_err(|error| error.to_string())?;
        fs::write(&file, bytes).map_err(|error| error.to_string())?;
        kept += &format!("#EXTINF:2.0,\n{name}\n");
    }
    fs::write(live.join("x.m3u8"), kept).map_err(|error| error.to_string())
}

fn text_of(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "the playlist is no text".into())
}

/// A small client: one request, the body of a response with 200.
fn get(http: &str, path: &str) -> Result<Vec<u8>, String> {
    let authority = http.strip_prefix("http://").unwrap_or(http);
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(authority)?;
        socket.set_read_timeout(Some(SNAPSHOT))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut response = Vec::new();
        socket.take(RESPONSE_BYTES_MAX).read_to_end(&mut response)?;
        Ok(response)
    };
    let response = exchange().map_err(|error| format!("{path}: {error}"))?;
    let end = response.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = response.split_at(end.map_or(response.len(), |end| end + 4));
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(format!("{path}: {status}"));
    }
    Ok(body.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::net::TcpListener;

    #[test]
    fn ratios_stand_first_and_only_where_both_were_measured() {
        let of = |value: f64| {
            let result = json!({"metrics": {"cpu": value}});
            Line::of("http", "a", 1, &(result, 0.0), &[("cpu", "cpu")])
        };
        let mut flv = of(21.0);
        put_ratio(&mut flv, &of(20.0), "cpu", "cpu_x_rtmp");
        assert_eq!(flv.outcome.clone().unwrap()[0], ("cpu_x_rtmp", 1.05));
        put_ratio(&mut flv, &Line::failed("http", "b", 1, "no".into()), "cpu", "other");
        put_ratio(&mut flv, &of(0.0), "cpu", "other");
        assert!(flv.outcome.unwrap().iter().all(|(name, _)| *name != "other"));
    }

    #[test]
    fn segments_are_saved_under_their_names_for_another_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = format!("http://{}", listener.local_addr().unwrap());
        let list = "#EXTM3U\n#EXTINF:2.0,\nx/k/seg-0.ts\n#EXTINF:2.0,\nx/k/seg-1.ts\n\
                    #EXTINF:2.0,\nx/k/seg-2.ts\n#EXTINF:2.0,\nx/k/seg-3.ts?s=1\n#EXTINF:2.0,\nx/k/seg-4.ts\n";
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut bytes = [0; 1024];
                let count = socket.read(&mut bytes).unwrap();
                let request = String::from_utf8_lossy(&bytes[..count]);
                let path = request.split(' ').nth(1).unwrap();
                let body = match path {
                    "/live/x.m3u8?container=ts" => "#EXTM3U\nx.m3u8?session=1\n",
                    "/live/x.m3u8?session=1" => list,
                    other => other,
                };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let folder = tempfile::tempdir().unwrap();
        save_segments(&http, folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join("live").join(name)).unwrap();
        assert_eq!(read("x/k/seg-3.ts"), "/live/x/k/seg-3.ts?s=1");
        assert_eq!(segments(&read("x.m3u8")), ["x/k/seg-2.ts", "x/k/seg-3.ts", "x/k/seg-4.ts"]);
        assert!(save(&http, folder.path(), "../../etc/passwd\n").is_err());
    }
}
