//! The wall clock of a real `ringcast` process is set forward and back while it runs: whatever is signed,
//! certified or dated follows it, and no deadline does. The process is told the time by libfaketime, which
//! leaves the monotonic clock alone.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge::access::Role;
use edge::access::providers::jwt;
use edge::access::secret::SecretText;
use edge::address::{Order, Ports, Signer, generate};
use support::client::{Net, assert_complete};
use support::media::Source;
use support::raw::RawPeer;
use support::server::{How, Server, matrix, wait_for};
use support::viewer::Viewer;
use tempfile::TempDir;

/// Where Debian has it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const DAY_S: i64 = 86_400;
const KEY: &str = "sesame-of-play";
const UNPUBLISHED: &str = "NetStream.Play.UnpublishNotify";
const JWT_KEY: &str = "sesame-for-tokens-of-at-least-32-bytes";

/// A server and its clock.
struct Rig {
    server: Server,
    file: PathBuf,
    _dir: TempDir,
}

impl Rig {
    /// `None` where the library is missing.
    fn start(how: How, settings: &str) -> Option<Self> {
        if !Path::new(LIBRARY).exists() {
            println!("skipped: libfaketime is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        fs::write(&file, "+0").unwrap();
        let server = Server::start_at("127.0.0.1", how, settings, |command| {
            command
                .env("LD_PRELOAD", LIBRARY)
                .env("FAKETIME_TIMESTAMP_FILE", &file)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("NO_FAKE_STAT", "1");
        });
        Some(Self { server, file, _dir: dir })
    }

    /// Sets the server's clock so far from ours, and waits until it shows.
    fn set(&self, offset_s: i64) {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, format!("{offset_s:+}")).unwrap();
        fs::rename(draft, &self.file).unwrap();
        wait_for("the clock to be set", || (self.unix_s() - now() - offset_s).abs() <= 2);
    }

    /// The server's time, by the date of an answer.
    fn unix_s(&self) -> i64 {
        let answer = Viewer::get(self.server.http, "/crossdomain.xml").wait_response();
        seconds(httpdate::parse_http_date(answer.field("date").unwrap()).unwrap())
    }

    fn flv(&self, address: &str) -> Viewer {
        let (host, path) = parts(address);
        Viewer::ask(self.server.http, "GET", &path, &host, "")
    }
}

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn now() -> i64 {
    seconds(SystemTime::now())
}

/// Host, and path with query, of an address.
fn parts(address: &str) -> (String, String) {
    let rest = address.split_once("://").unwrap().1;
    let (host, path) = rest.split_once('/').unwrap();
    (host.to_owned(), format!("/{path}"))
}

/// An address to play `cam` at over HTTP, signed now and valid for ten minutes.
fn signed(domain: &str, signer: &Signer) -> String {
    let order = Order {
        role: Role::Play,
        domain,
        app: "live",
        stream: "cam",
        ports: Ports::default(),
        unix_s: now().unsigned_abs(),
        valid_s: Some(600),
    };
    generate(signer, &order).unwrap().flv.unwrap()
}

fn settings() -> String {
    let play = |name: &str, provider: &str| {
        format!(
            "[domain.\"{name}\"]\ntype = \"play\"\npush_domain = \"push.test\"\n\
             [[domain.\"{name}\".provider]]\n{provider}\n"
        )
    };
    format!(
        "\
         [domain.\"push.test\"]\ntype = \"push\"\nstyle = \"aliyun\"\n\
         [[domain.\"push.test\".provider]]\nscheme = \"open\"\n{}{}{}",
        play("open.test", "scheme = \"open\""),
        play("tx.test", &format!("scheme = \"txsecret\"\nkey = {KEY:?}")),
        play("jwt.test", &format!("scheme = \"jwt\"\nkey = {JWT_KEY:?}")),
    )
}

#[test]
fn what_is_signed_follows_the_clock_and_whoever_plays_stays() {
    let key = |text: &str| SecretText::new(text).unwrap();
    for how in matrix(&[2]) {
        let Some(rig) = Rig::start(how, &settings()) else { return };
        let mut net = Net::new(rig.server.rtmp);
        let publisher = net.publish_at("push.test", "cam");
        net.until_started(&[publisher]);
        let player = net.play_at("open.test", "cam");
        net.until_started(&[player]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        let txsecret = signed("tx.test", &Signer::TxSecret { key: key(KEY), validity_s: 0 });
        let token = signed(
            "jwt.test",
            &Signer::Jwt {
                key: jwt::SigningKey::new(&key(JWT_KEY)).unwrap(),
                param: "token".into(),
                issuer: None,
                audience: None,
            },
        );
        let viewer = rig.flv(&txsecret);
        let mut watched = 0;
        let mut step = |net: &mut Net, source: &mut Source| {
            net.send_frames(publisher, source, 12);
            net.until_received(&[player], source);
            wait_for("the viewer to be sent more", || viewer.tags().items.len() > watched);
            watched = viewer.tags().items.len();
        };
        step(&mut net, &mut source);
        let refused = |address: &str| rig.flv(address).wait_response().status == 403;
        let accepted = |address: &str| {
            let viewer = rig.flv(address);
            wait_for("an answer", || viewer.response().is_some());
            viewer.response().unwrap().status == 200
        };
        for (offset_s, is_valid) in
            [(0, true), (DAY_S, false), (0, true), (-3 * DAY_S, true), (10 * DAY_S, false)]
        {
            rig.set(offset_s);
            step(&mut net, &mut source);
            for address in [&txsecret, &token] {
                let is = if is_valid { accepted(address) } else { refused(address) };
                assert!(is, "{how:?}: {offset_s} {address}");
                step(&mut net, &mut source);
            }
            // Longer than the table of connections takes to be gone through once.
            net.during(Duration::from_millis(1_200));
        }
        step(&mut net, &mut source);
        assert!(!viewer.has_ended(), "who plays is not asked again");
        assert_complete(&net.clients[player], &source);
    }
}

#[test]
fn deadlines_and_grace_periods_take_as_long_as_they_take() {
    for how in matrix(&[1]) {
        let settings = "[limits]\nfirst_byte_ms_max = 5000\n[defaults]\ngrace_ms = 6000\n";
        for offset_s in [30 * DAY_S, -30 * DAY_S] {
            let Some(rig) = Rig::start(how, settings) else { return };
            let mut net = Net::new(rig.server.rtmp);
            let publisher = net.publish("cam");
            net.until_started(&[publisher]);
            let player = net.play("cam");
            net.until_started(&[player]);
            let mut source = Source::new(1);
            net.send_headers(publisher, &source);
            net.send_frames(publisher, &mut source, 12);
            net.until_received(&[player], &source);
            let silent = RawPeer::connect(rig.server.rtmp);
            net.reset(publisher);
            rig.server.wait_log("unpublish", "how", "lost");
            rig.set(offset_s);
            // Neither is over because the clock says so, nor lasts until the clock is there again.
            let is_told = net.clients[player].has_status(UNPUBLISHED);
            assert!(!is_told && rig.server.events("timeout").is_empty(), "{offset_s}");
            net.until("the end of the grace period", |net| {
                net.clients[player].has_status(UNPUBLISHED)
            });
            wait_for("the silent peer to be closed", || !rig.server.events("timeout").is_empty());
            drop(silent);
        }
    }
}

#[test]
fn a_playlist_tells_the_new_time_and_its_viewer_is_not_forgotten() {
    for how in matrix(&[1]) {
        let Some(rig) = Rig::start(how, "[defaults]\nhls_segment_ms = 1500\n") else { return };
        let mut net = Net::new(rig.server.rtmp);
        let publisher = net.publish("cam");
        net.until_started(&[publisher]);
        let mut source = Source::new(1);
        net.send_headers(publisher, &source);
        let mut step = |net: &mut Net| {
            // Paced: as fast as it plays.
            net.send_frames(publisher, &mut source, 10);
            net.during(Duration::from_millis(100));
        };
        let first = Viewer::get(rig.server.http, "/live/cam.m3u8");
        wait_for("the first playlist", || {
            step(&mut net);
            first.response().is_some_and(|response| response.text().contains("#EXT-X-STREAM-INF"))
        });
        let listing = first.wait_response();
        let media = listing.text().lines().find(|line| !line.starts_with('#')).unwrap();
        let media = format!("/live/{media}");
        let ask = || Viewer::get(rig.server.http, &media).wait_response();
        wait_for("segments", || {
            step(&mut net);
            ask().text().matches("#EXTINF").count() >= 2
        });
        for offset_s in [2 * DAY_S, -2 * DAY_S] {
            rig.set(offset_s);
            // Time for the packager to look who is still there, before anybody asks again.
            for _ in 0..12 {
                step(&mut net);
            }
            assert_eq!(rig.server.metric("ringcast_hls_viewers", ""), 1);
            let mut playlist = ask();
            wait_for("a segment of the new time", || {
                step(&mut net);
                playlist = ask();
                assert_eq!(playlist.status, 200, "{}", playlist.head);
                let last = dates(playlist.text()).pop();
                last.is_some_and(|at| (at - now() - offset_s).abs() <= 5)
            });
        }
        assert_eq!(ask().status, 200);
        // Nobody was forgotten in between, and came again as somebody new.
        assert_eq!(rig.server.metric("ringcast_play_total", "result=\"accepted\""), 1);
        // Three target durations without a request, and it is gone, whatever the clock says.
        rig.set(-4 * DAY_S);
        wait_for("the viewer to be forgotten", || {
            step(&mut net);
            rig.server.metric("ringcast_hls_viewers", "") == 0
        });
    }
}

/// The times a playlist tells, in Unix seconds.
fn dates(playlist: &str) -> Vec<i64> {
    let texts = playlist.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:"));
    texts
        .map(|text| {
            // 2026-11-21T08:00:00.000Z
            let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
            let days = days_of(number(0, 4), number(5, 7), number(8, 10));
            days * DAY_S + number(11, 13) * 3_600 + number(14, 16) * 60 + number(17, 19)
        })
        .collect()
}

/// Days since 1970 of a date.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469
}

#[test]
fn certificates_end_and_are_valid_again_with_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    let day = |days: i64| {
        let seconds = u64::try_from(now() + days * DAY_S).unwrap();
        (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into()
    };
    (params.not_before, params.not_after) = (day(-1), day(120));
    fs::write(dir.path().join("a.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("a.key"), key.serialize_pem()).unwrap();
    let settings =
        format!("[tls]\ndir = {:?}\nwatch_interval_ms = 100\n", dir.path().display().to_string());
    let Some(rig) = Rig::start(matrix(&[1])[0], &settings) else { return };
    let state = |state: &str| {
        rig.server.metric("ringcast_certificates", &format!("state=\"{state}\"")) == 1
    };
    assert!(state("valid"));
    let steps =
        [(100, "valid"), (130, "expired"), (0, "valid"), (-10, "not_yet_valid"), (0, "valid")];
    for (days, wanted) in steps {
        rig.set(days * DAY_S);
        if days == 100 {
            rig.server.wait_log("cert_expiry", "message", "it ends soon");
        }
        wait_for(&format!("the certificate to be {wanted}"), || state(wanted));
    }
    let told = rig.server.events("cert_expiry");
    let of = |text: &str| told.iter().filter(|line| line["message"] == text).count();
    assert_eq!((of("it ends soon"), of("it has EXPIRED")), (1, 1), "{told:?}");
}
