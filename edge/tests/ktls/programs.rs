//! Other people's TLS: `openssl s_client`, ffmpeg (GnuTLS), GStreamer (GIO).

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tls::{Cipher, Version};

use crate::certs::{NAME, Suite, suites};
use crate::child::{Program, Running, Scratch, have};
use crate::media::{Clip, Packets, Tail, assert_all_frames};
use crate::server::{Secured, default_way};
use crate::support::server::wait_for;

/// A program that publishes or plays the clip ends within this time, also where everything is emulated.
const PROGRAM_MAX: Duration = Duration::from_secs(90);

#[test]
fn openssl_speaks_every_cipher_of_both_versions() {
    if !have(&["openssl"]) {
        return;
    }
    let secured = Secured::start(default_way());
    for suite in suites() {
        let mut client = SClient::start(&secured, suite);
        let mut hello = vec![3];
        hello.extend_from_slice(&[0; 1536]);
        client.child.stdin.as_mut().unwrap().write_all(&hello).unwrap();
        let mut answer = [0; 1 + 2 * 1536];
        let read = client.child.stdout.as_mut().unwrap().read_exact(&mut answer);
        assert!(read.is_ok(), "{suite:?}: the answer to C0 and C1");
        assert_eq!(answer[0], 3);
        assert_eq!(&answer[1537 + 8..], &hello[1 + 8..], "{suite:?}: S2 repeats C1");
    }
    secured.expect_handed_over(6);
    secured.expect_none_left();
}

/// `openssl s_client` that verifies, killed when dropped.
struct SClient {
    child: Child,
}

impl SClient {
    fn start(secured: &Secured, (version, cipher): Suite) -> Self {
        let (version, option) = match version {
            Version::Tls13 => ("-tls1_3", "-ciphersuites"),
            Version::Tls12 => ("-tls1_2", "-cipher"),
        };
        let name = match (option, cipher) {
            ("-cipher", Cipher::Aes128Gcm) => "ECDHE-ECDSA-AES128-GCM-SHA256",
            ("-cipher", Cipher::Aes256Gcm) => "ECDHE-ECDSA-AES256-GCM-SHA384",
            ("-cipher", Cipher::Chacha20Poly1305) => "ECDHE-ECDSA-CHACHA20-POLY1305",
            (_, Cipher::Aes128Gcm) => "TLS_AES_128_GCM_SHA256",
            (_, Cipher::Aes256Gcm) => "TLS_AES_256_GCM_SHA384",
            (_, Cipher::Chacha20Poly1305) => "TLS_CHACHA20_POLY1305_SHA256",
        };
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_quiet", version])
            .args([option, name, "-servername", NAME, "-verify_hostname", NAME])
            .args(["-connect", &secured.rtmps.to_string(), "-CAfile"])
            .arg(secured.certs.authority())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for SClient {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two seconds, small enough to be encoded by an emulated machine.
fn clip() -> &'static Clip {
    static CLIP: OnceLock<(Scratch, Clip)> = OnceLock::new();
    let (_, clip) = CLIP.get_or_init(|| {
        let scratch = Scratch::new();
        let path = scratch.file("clip.flv");
        Program::new("ffmpeg", &scratch, "clip")
            .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"])
            .args(["-f", "lavfi", "-i", "testsrc=size=128x96:rate=15"])
            .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=22050", "-t", "2"])
            .args("-pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 15 -c:a aac".split(' '))
            .arg(&path)
            .start()
            .expect_success(PROGRAM_MAX);
        let packets = Packets::read(&path, &scratch);
        (scratch, Clip { path, packets })
    });
    clip
}

struct Player {
    running: Running,
    file: PathBuf,
}

/// One program publishes the clip over RTMPS, each of the players plays it over RTMPS.
fn publish_and_play(
    secured: &Secured,
    scratch: &Scratch,
    players: Vec<Player>,
    publish: impl FnOnce() -> Running,
    judge: impl Fn(&Packets),
) {
    wait_for("the players", || {
        let waiting = secured.server.metric("ringcast_tls_connections", "");
        waiting == players.len() as u64
    });
    let mut publisher = publish();
    publisher.expect_success(PROGRAM_MAX);
    for mut player in players {
        player.running.expect_end(PROGRAM_MAX);
        let received = Packets::read(&player.file, scratch);
        judge(&received);
    }
    secured.expect_none_left();
}

fn ffmpeg_player(scratch: &Scratch, label: &str, url: &str) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    let running = Program::new("ffmpeg", scratch, label)
        .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-y", "-i", url])
        .args(["-c", "copy", "-f", "flv"])
        .arg(&file)
        .start();
    Player { running, file }
}

fn gstreamer_player(scratch: &Scratch, label: &str, url: &str) -> Player {
    let file = scratch.file(&format!("{label}.flv"));
    // The authority of the test is not one of this system.
    let running = Program::new("gst-launch-1.0", scratch, label)
        .args(["-e", "rtmp2src", "tls-validation-flags=0", &format!("location={url}")])
        .args(["!", "filesink", &format!("location={}", file.display())])
        .start();
    Player { running, file }
}

#[test]
fn ffmpeg_publishes_and_plays_by_rtmps() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let clip = clip();
    let secured = Secured::start(default_way());
    let scratch = Scratch::new();
    let url = format!("rtmps://{}/live/ffmpeg", secured.rtmps);
    let players = vec![ffmpeg_player(&scratch, "play", &url)];
    let publish = || {
        Program::new("ffmpeg", &scratch, "publish")
            .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-i"])
            .arg(&clip.path)
            .args(["-c", "copy", "-f", "flv", &url])
            .start()
    };
    let judge = |received: &Packets| assert_all_frames(&clip.packets, received, Tail::COMPLETE);
    publish_and_play(&secured, &scratch, players, publish, judge);
    secured.expect_handed_over(2);
}

#[test]
fn gstreamer_publishes_and_plays_by_rtmps() {
    if !have(&["gst-launch-1.0", "ffmpeg"]) {
        return;
    }
    let clip = clip();
    let secured = Secured::start(default_way());
    let scratch = Scratch::new();
    let url = format!("rtmps://{}/live/gstreamer", secured.rtmps);
    let players = vec![gstreamer_player(&scratch, "play", &url)];
    let publish = || {
        let pipeline = format!(
            "filesrc location={} ! flvdemux name=in flvmux name=out streamable=true \
             ! rtmp2sink tls-validation-flags=0 location={url} \
             in.video ! queue ! h264parse ! identity sync=true ! out.video \
             in.audio ! queue ! aacparse ! out.audio",
            clip.path.display()
        );
        Program::new("gst-launch-1.0", &scratch, "publish")
            .arg("-e")
            .args(pipeline.split_whitespace())
            .start()
    };
    // Its muxer makes timestamps of its own, by its clock; what it carries must be the same. rtmp2src
    // gives up what it holds when the server says that the stream ended.
    let judge = |received: &Packets| {
        let tracks = [
            (clip.packets.video_hashes(), received.video_hashes()),
            (clip.packets.audio_hashes(), received.audio_hashes()),
        ];
        for (sent, received) in tracks {
            assert!(sent.starts_with(&received), "{sent:?} were sent, {received:?} came");
            assert!(received.len() + 3 >= sent.len(), "{} of {}", received.len(), sent.len());
        }
    };
    publish_and_play(&secured, &scratch, players, publish, judge);
    secured.expect_handed_over(2);
}
