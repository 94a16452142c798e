//! Who may publish and play, as a newcomer meets it: two domains from the example, addresses printed by
//! `ringctl url`, ffmpeg with them, and a reason that ffmpeg shows when any part is wrong.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::child::{Program, Running, Scratch, have, poll_until};
use crate::media::{self, assert_all_frames};
use crate::players::{self, Player};
use crate::playing::PUBLISH_MAX;
use crate::publishers;
use crate::server::Server;

/// A program that is refused says so and ends.
const REFUSED_MAX: Duration = Duration::from_secs(20);
/// `ringctl` is one request.
const CONTROL_MAX: Duration = Duration::from_secs(20);

/// The example of the manual, its two folders replaced.
pub(crate) const EXAMPLE: &str = r#"
[access]
store = "LIB/access.redb"

[domain."push.example.com"]
type = "push"
style = "tencent"
[[domain."push.example.com".provider]]
scheme = "txsecret"
key_file = "ETC/push.key"

[domain."play.example.com"]
type = "play"
push_domain = "push.example.com"
[[domain."play.example.com".provider]]
scheme = "aliyun_a"
key_file = "ETC/play.key"
"#;

/// The keys, and one that is nobody's.
const KEYS: [(&str, &str); 3] =
    [("push.key", "sesame-push\n"), ("play.key", "sesame-play\n"), ("wrong.key", "sesame-wrong\n")];

/// What a newcomer has: a folder with configuration and keys, and a running server.
pub(crate) struct Newcomer {
    pub(crate) scratch: Scratch,
    pub(crate) server: Server,
}

impl Newcomer {
    pub(crate) fn start(config: &str) -> Self {
        let scratch = Scratch::new();
        let dir = scratch.file("").display().to_string();
        let dir = dir.trim_end_matches('/');
        let file = scratch.file("ringcast.toml");
        for (name, key) in KEYS {
            fs::write(scratch.file(name), key).expect("it is ours");
        }
        fs::write(&file, config.replace("ETC", dir).replace("LIB", dir)).expect("it is ours");
        let server = Server::start(&scratch, &["--config", &file.display().to_string()]);
        Self { scratch, server }
    }

    /// Runs `ringctl` and answers what it prints.
    fn ringctl(&self, arguments: &[&str]) -> String {
        let admin = self.server.ready("admin");
        Program::new(env!("CARGO_BIN_EXE_ringctl"), &self.scratch, "ringctl")
            .args(["--admin", admin])
            .args(arguments)
            .output(CONTROL_MAX)
    }

    /// The RTMP address that `ringctl url` prints.
    pub(crate) fn url(&self, arguments: &[&str]) -> String {
        self.url_of("RTMP", arguments)
    }

    /// The address of a form that `ringctl url` prints.
    pub(crate) fn url_of(&self, form: &str, arguments: &[&str]) -> String {
        let text = self.ringctl(&[&["url"], arguments].concat());
        let line = text.lines().find_map(|line| line.strip_prefix(form)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {form} address: {text}")).trim().to_owned()
    }

    /// An address as ffmpeg can use it here, where no name server knows the domain: it goes to the server,
    /// and still names the domain as it would.
    fn reach(&self, url: &str) -> [String; 3] {
        let (_, path) = url.strip_prefix("rtmp://").expect("RTMP").split_once('/').expect("a path");
        let tc_url = url.split('?').next().and_then(|url| url.rsplit_once('/')).expect("an app").0;
        let here = format!("rtmp://{}/{path}", self.server.rtmp());
        ["-rtmp_tcurl".to_owned(), tc_url.to_owned(), here]
    }

    pub(crate) fn publish(&self, label: &str, url: &str) -> Running {
        let [option, tc_url, here] = self.reach(url);
        Program::new("ffmpeg", &self.scratch, label)
            .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-i"])
            .arg(&media::h264_aac().path)
            .args(["-c", "copy", "-f", "flv", &option, &tc_url, &here])
            .start()
    }

    fn play(&self, label: &str, url: &str) -> Player {
        let [option, tc_url, here] = self.reach(url);
        players::ffmpeg_with("ffmpeg", &self.scratch, label, &[&option, &tc_url, "-i", &here])
    }

    fn log(&self, label: &str) -> String {
        fs::read_to_string(self.scratch.file(&format!("{label}.log"))).unwrap_or_default()
    }

    /// A publisher that must be refused, and be told why.
    fn expect_no_publish(&self, label: &str, url: &str, reason: &str) {
        let status = self.publish(label, url).expect_end(REFUSED_MAX);
        let log = self.log(label);
        assert!(!status.success() && log.contains(reason), "{label} wants {reason:?}: {log}");
    }

    /// A player that must be refused, and be told why.
    fn expect_no_play(&self, label: &str, url: &str, reason: &str) {
        let status = self.play(label, url).running.expect_end(REFUSED_MAX);
        let log = self.log(label);
        assert!(!status.success() && log.contains(reason), "{label} wants {reason:?}: {log}");
    }

    /// Nothing any of the programs has written holds a key.
    fn expect_no_key_written(&self) {
        let entries = fs::read_dir(self.scratch.file("")).expect("it is ours").flatten();
        let logs = entries.map(|entry| entry.path()).filter(|path| has_ending(path, "log"));
        for log in logs {
            let text = String::from_utf8_lossy(&fs::read(&log).expect("it is ours")).into_owned();
            assert!(!text.contains("sesame-"), "{}: {text}", log.display());
        }
    }
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

pub(crate) const CAM: [&str; 4] = ["--app", "live", "--stream", "cam"];

#[test]
fn the_example_of_the_manual_lets_in_who_has_an_address_and_tells_others_what_is_wrong() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let newcomer = Newcomer::start(EXAMPLE);
    let to_push = [&["publish", "--domain", "push.example.com"], &CAM[..]].concat();
    let to_play = [&["play", "--domain", "play.example.com"], &CAM[..]].concat();
    let (push, play) = (newcomer.url(&to_push), newcomer.url(&to_play));
    let player = newcomer.play("player", &play);
    newcomer.server.wait_players("cam", 1);
    let mut publisher = newcomer.publish("publisher", &push);
    newcomer.server.wait_uptime("cam", 1_000);

    let wrong = newcomer.scratch.file("wrong.key").display().to_string();
    let key = newcomer.scratch.file("push.key").display().to_string();
    let signed = |key: &str, more: &[&str]| {
        let own = ["--scheme", "txsecret", "--key-file", key];
        newcomer.url(&[&to_push[..], &own[..], more].concat())
    };
    let short = signed(&key, &["--valid", "1s"]);
    let bare = |url: &str| url.split('?').next().expect("a path").to_owned();
    let no_time = "denied by req auth: no url arg txTime";
    newcomer.expect_no_publish("no-signature", &bare(&push), no_time);
    let bad_secret = "denied by req auth: invalid txSecret";
    newcomer.expect_no_publish("wrong-key", &signed(&wrong, &[]), bad_secret);
    newcomer.expect_no_publish("other-stream", &push.replace("/cam?", "/cam2?"), bad_secret);
    let unknown = push.replace("push.example", "pusch.example");
    newcomer.expect_no_publish("typing-error", &unknown, "unknown domain pusch.example.com");
    let swapped = push.replace("push.example", "play.example");
    newcomer.expect_no_publish("domains-swapped", &swapped, "publishing is not served here");
    wait_past(&short);
    newcomer.expect_no_publish("too-late", &short, "denied by req auth: expired txTime=");
    // ffmpeg shows the reason of a refused play as it does for a publish.
    newcomer.expect_no_play("play-bare", &bare(&play), "denied by req auth: no url arg auth_key");
    let other = play.replace("/cam?", "/cam2?");
    newcomer.expect_no_play("play-other", &other, "denied by req auth: invalid md5hash=");

    publisher.expect_success(PUBLISH_MAX);
    let tail = player.tail;
    assert_all_frames(&media::h264_aac().packets, &player.finish(&newcomer.scratch), tail);
    newcomer.expect_no_key_written();
}

/// Waits until the last second of an address with a `txTime` is over.
fn wait_past(url: &str) {
    let time = url.rsplit_once("txTime=").expect("a time").1;
    let last = u64::from_str_radix(time, 16).expect("a time");
    poll_until("the address to expire", REFUSED_MAX, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        (now.as_secs() > last).then_some(())
    });
}

/// Without a name server, one machine has two names that ffmpeg can reach as they are printed.
#[test]
fn the_example_can_be_tried_on_one_machine_by_its_two_names() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let config = EXAMPLE.replace("push.example.com", "localhost");
    let newcomer = Newcomer::start(&config.replace("play.example.com", "127.0.0.1"));
    let port = newcomer.server.rtmp().port();
    let printed = |role: &str, domain: &str| {
        let url = newcomer.url(&[&[role, "--domain", domain], &CAM[..]].concat());
        url.replacen("/live/", &format!(":{port}/live/"), 1)
    };
    let player = players::ffmpeg(&newcomer.scratch, "player", &printed("play", "127.0.0.1"));
    newcomer.server.wait_players("cam", 1);
    let (clip, url) = (media::h264_aac(), printed("publish", "localhost"));
    publishers::ffmpeg(&newcomer.scratch, clip, &url).expect_success(PUBLISH_MAX);
    let tail = player.tail;
    assert_all_frames(&clip.packets, &player.finish(&newcomer.scratch), tail);
}

#[test]
fn the_commands_of_the_manual_cut_and_forbid_and_let_in_again() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let newcomer = Newcomer::start(EXAMPLE);
    let to_push = [&["publish", "--domain", "push.example.com"], &CAM[..]].concat();
    let push = newcomer.url(&to_push);
    let mut publisher = newcomer.publish("publisher", &push);
    newcomer.server.wait_publisher("cam");
    let forbid = ["forbid", "push.example.com/cam", "--for", "10m", "--reason", "copyright"];
    assert!(newcomer.ringctl(&forbid).contains("1 closed"));
    assert!(!publisher.expect_end(REFUSED_MAX).success(), "it was cut");
    newcomer.expect_no_publish("forbidden", &push, "this stream is forbidden until 20");
    let bans = newcomer.ringctl(&["bans"]);
    assert!(bans.contains("stream:push.example.com/live/cam") && bans.contains("copyright"));
    newcomer.ringctl(&["resume", "push.example.com/cam", "--after", "5m"]);
    newcomer.expect_no_publish("still-forbidden", &push, "this stream is forbidden until 20");
    newcomer.ringctl(&["resume", "push.example.com/cam"]);
    newcomer.ringctl(&["ban", "203.0.113.0/24"]);
    newcomer.publish("again", &push).expect_success(PUBLISH_MAX);
    newcomer.ringctl(&["ban", "127.0.0.0/8"]);
    newcomer.expect_no_publish("banned", &push, "this address is forbidden");
    newcomer.expect_no_key_written();
}

/// Settings of a push and a play domain that both have this provider.
fn pair(scheme: &str, settings: &str) -> String {
    let half = |half: &str, more: &str, settings: &str| {
        let name = format!("{half}.{}.test", scheme.replace('_', "-"));
        format!(
            "[domain.\"{name}\"]\ntype = \"{half}\"\n{more}\n\
             [[domain.\"{name}\".provider]]\n{settings}\n"
        )
    };
    let link = format!("push_domain = \"push.{}.test\"", scheme.replace('_', "-"));
    let style = if scheme == "oss" { "style = \"oss\"" } else { "" };
    // A LiveChannel is played over HTTP; here whoever wants may play it.
    let to_play = if scheme == "oss" { "scheme = \"open\"" } else { settings };
    half("push", style, settings) + &half("play", &link, to_play)
}

#[test]
fn ffmpeg_publishes_and_plays_with_the_addresses_of_every_scheme() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let jwt_key = "sesame-for-tokens-of-at-least-32-bytes";
    let schemes = [
        ("open", "scheme = \"open\"".to_owned()),
        ("txsecret", "scheme = \"txsecret\"\nkey_file = \"ETC/push.key\"".to_owned()),
        ("aliyun_a", "scheme = \"aliyun_a\"\nkey_file = \"ETC/push.key\"".to_owned()),
        (
            "oss",
            "scheme = \"oss\"\nkey_file = \"ETC/push.key\"\naccess_key_id = \"id\"\nbucket = \"b\""
                .to_owned(),
        ),
        ("jwt", format!("scheme = \"jwt\"\nkey = {jwt_key:?}")),
        (
            "usersig",
            "scheme = \"usersig\"\nkey_file = \"ETC/push.key\"\nsdk_app_id = 1400000001\n\
             private_map_key = true"
                .to_owned(),
        ),
    ];
    let config: String = schemes.iter().map(|(scheme, settings)| pair(scheme, settings)).collect();
    let newcomer = Newcomer::start(&config);
    let mut running = Vec::new();
    for (scheme, _) in &schemes {
        let host = |half: &str| format!("{half}.{}.test", scheme.replace('_', "-"));
        let stream = format!("cam-{}", scheme.replace('_', "-"));
        let user: &[&str] = if *scheme == "usersig" { &["--user", "ann"] } else { &[] };
        let url = |role: &str, half: &str| {
            let host = host(half);
            let place = [role, "--domain", &host, "--app", "live", "--stream", &stream];
            newcomer.url(&[&place[..], user].concat())
        };
        let player = newcomer.play(&format!("play-{scheme}"), &url("play", "play"));
        newcomer.server.wait_players(&stream, 1);
        let publisher = newcomer.publish(&format!("publish-{scheme}"), &url("publish", "push"));
        running.push((publisher, player));
    }
    for (mut publisher, player) in running {
        publisher.expect_success(PUBLISH_MAX);
        let tail = player.tail;
        assert_all_frames(&media::h264_aac().packets, &player.finish(&newcomer.scratch), tail);
    }
    let metrics = newcomer.server.admin("/metrics");
    let denied: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("ringcast_access_denied_total{")).collect();
    assert!(denied.iter().all(|line| line.ends_with(" 0")), "{denied:?}");
    newcomer.expect_no_key_written();
}

#[test]
fn a_stream_runs_on_when_its_address_has_expired() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let newcomer = Newcomer::start(EXAMPLE);
    // It lasts longer than the address, and is made before that counts.
    media::h264_aac();
    let to_push = [&["publish", "--domain", "push.example.com"], &CAM[..]].concat();
    let push = newcomer.url(&[&to_push[..], &["--valid", "4s"]].concat());
    let mut publisher = newcomer.publish("publisher", &push);
    newcomer.server.wait_publisher("cam");
    wait_past(&push);
    newcomer.expect_no_publish("late", &push, "denied by req auth: expired txTime=");
    publisher.expect_success(PUBLISH_MAX);
}
