//! Encoders and players by RTMPS, as people use them, and beside those that do without.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::child::{Program, Running, Scratch, have, poll_until};
use crate::media::{self, Clip, Packets, assert_all_frames};
use crate::players::{self, Player};
use crate::playing::PUBLISH_MAX;
use crate::publishers;
use crate::server::Server;

/// Players of the mixed crowd.
const CROWD: usize = 30;
/// A program that is refused says so and ends.
const REFUSED_MAX: Duration = Duration::from_secs(20);

/// A certificate for `localhost` in the scratch directory, and who vouches for it.
pub(crate) struct Certs {
    dir: PathBuf,
    authority: PathBuf,
}

impl Certs {
    fn new(scratch: &Scratch, label: &str) -> Self {
        let dir = scratch.file(&format!("{label}-served"));
        let authority = scratch.file(&format!("{label}-authority.pem"));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("authority {label}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&authority_key).expect("a root");
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().expect("a key");
        let cert = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let cert = cert.signed_by(&key, &issuer).expect("a certificate");
        fs::create_dir(&dir).expect("its directory can be made");
        fs::write(&authority, root.pem()).expect("it can be written");
        fs::write(dir.join("localhost.crt"), cert.pem()).expect("it can be written");
        fs::write(dir.join("localhost.key"), key.serialize_pem()).expect("it can be written");
        Self { dir, authority }
    }

    /// What makes ffmpeg verify the server.
    pub(crate) fn verify(&self) -> [String; 4] {
        let authority = self.authority.display().to_string();
        ["-tls_verify".into(), "1".into(), "-ca_file".into(), authority]
    }
}

/// A server that takes RTMPS.
pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) certs: Certs,
    pub(crate) url: String,
}

impl Secured {
    pub(crate) fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, "")
    }

    /// The same with more settings.
    pub(crate) fn start_with(scratch: &Scratch, settings: &str) -> Self {
        let certs = Certs::new(scratch, "ours");
        let dir = certs.dir.display().to_string();
        let config = scratch.file("ringcast.toml");
        fs::write(&config, settings).expect("it can be written");
        let config = config.display().to_string();
        let flags = ["--rtmps", "127.0.0.1:0", "--tls-dir", &dir, "--config", &config];
        let server = Server::start(scratch, &flags);
        let port = server.ready("rtmps").rsplit_once(':').expect("an address").1;
        let url = format!("rtmps://localhost:{port}/live/show");
        Self { server, certs, url }
    }

    /// `ffmpeg` that publishes, and verifies the server.
    pub(crate) fn publish(&self, scratch: &Scratch, clip: &Clip) -> Running {
        Program::new("ffmpeg", scratch, "publish-rtmps")
            .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re", "-i"])
            .arg(&clip.path)
            .args(["-c", "copy"])
            .args(self.certs.verify())
            .args(["-f", "flv", &self.url])
            .start()
    }

    /// `ffmpeg` that plays, and verifies the server.
    pub(crate) fn play(&self, scratch: &Scratch, label: &str) -> Player {
        let verify = self.certs.verify();
        let mut args: Vec<&str> = verify.iter().map(String::as_str).collect();
        args.extend(["-i", &self.url]);
        players::ffmpeg_with("ffmpeg", scratch, label, &args)
    }

    /// Waits until every connection is gone and no figure tells of one.
    fn expect_none_left(&self) {
        poll_until("the end of every TLS connection", REFUSED_MAX, || {
            let metrics = self.server.admin("/metrics");
            let lines =
                metrics.lines().filter(|line| line.starts_with("ringcast_tls_connections{"));
            let open: Vec<&str> = lines.collect();
            assert!(!open.is_empty(), "they are counted");
            open.iter().all(|line| line.ends_with(" 0")).then_some(())
        });
    }
}

/// Publishes the everyday clip by RTMPS to one player that waits for it, and checks what it got.
fn expect_all_frames(start: impl Fn(&Scratch, &Secured) -> Player) {
    expect_all_frames_with("", start);
}

/// The same with more settings.
fn expect_all_frames_with(settings: &str, start: impl Fn(&Scratch, &Secured) -> Player) {
    let scratch = Scratch::new();
    let mut secured = Secured::start_with(&scratch, settings);
    let clip = media::h264_aac();
    let player = start(&scratch, &secured);
    secured.server.wait_players("show", 1);
    secured.publish(&scratch, clip).expect_success(PUBLISH_MAX);
    let tail = player.tail;
    assert_all_frames(&clip.packets, &player.finish(&scratch), tail);
    secured.expect_none_left();
    secured.server.expect_running();
}

#[test]
fn ffmpeg_that_verifies_us_publishes_and_plays_every_frame() {
    if have(&["ffmpeg"]) {
        expect_all_frames(|scratch, secured| secured.play(scratch, "player"));
    }
}

#[test]
fn gstreamer_plays_every_frame_by_rtmps() {
    if have(&["ffmpeg", "gst-launch-1.0"]) {
        expect_all_frames(|scratch, secured| players::gstreamer(scratch, "player", &secured.url));
    }
}

#[test]
fn vlc_plays_every_frame_by_rtmps() {
    if have(&["ffmpeg", "vlc"]) {
        expect_all_frames(|scratch, secured| players::vlc_dump(scratch, "player", &secured.url));
    }
}

#[test]
fn rtmpdump_held_to_tls_1_2_plays_every_frame_by_rtmps() {
    if have(&["ffmpeg", "rtmpdump"]) {
        expect_all_frames(|scratch, secured| {
            players::rtmpdump_tls_1_2(scratch, "player", &secured.url)
        });
    }
}

#[test]
fn rtmpdump_as_it_is_plays_every_frame_where_no_tickets_are_sent() {
    if have(&["ffmpeg", "rtmpdump"]) {
        expect_all_frames_with("[tls]\ntickets = 0\n", |scratch, secured| {
            players::rtmpdump(scratch, "player", &secured.url)
        });
    }
}

#[test]
fn gstreamer_publishes_by_rtmps_and_no_frame_is_lost() {
    if !have(&["ffmpeg", "gst-launch-1.0"]) {
        return;
    }
    let scratch = Scratch::new();
    let secured = Secured::start(&scratch);
    let clip = media::h264_aac();
    let secure = secured.play(&scratch, "player-rtmps");
    let plain = players::ffmpeg(&scratch, "player-rtmp", &secured.server.url("show"));
    secured.server.wait_players("show", 2);
    publishers::gstreamer(&scratch, clip, &secured.url).expect_success(PUBLISH_MAX);
    for player in [secure, plain] {
        // flvmux makes its own timestamps, so the payloads are compared.
        let received = player.finish(&scratch);
        assert_eq!(received.video_hashes(), clip.packets.video_hashes());
        let (published, audio) = (clip.packets.audio_hashes(), received.audio_hashes());
        assert!(published.ends_with(&audio) && audio.len() + 2 >= published.len(), "{audio:?}");
    }
    secured.expect_none_left();
}

#[test]
fn ffmpeg_that_trusts_somebody_else_does_not_publish() {
    if !have(&["ffmpeg"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut secured = Secured::start(&scratch);
    let ours = std::mem::replace(&mut secured.certs, Certs::new(&scratch, "other"));
    let mut refused = secured.publish(&scratch, media::h264_aac());
    assert!(!refused.expect_end(REFUSED_MAX).success(), "it does not trust the certificate");
    assert!(secured.server.clients().iter().all(|client| client["role"] != "publisher"));
    let log = fs::read_to_string(scratch.file("publish-rtmps.log")).expect("it logged");
    assert!(log.contains("certificate"), "and says why: {log}");
    secured.certs = ours;
    secured.expect_none_left();
}

#[test]
fn thirty_players_with_tls_and_without_get_equal_frames() {
    if !have(&["ffmpeg", "rtmpdump", "gst-launch-1.0"]) {
        return;
    }
    let scratch = Scratch::new();
    let mut secured = Secured::start(&scratch);
    let clip = media::h264_aac();
    let plain = secured.server.url("show");
    let crowd: Vec<Player> = (0..CROWD)
        .map(|index| match index % 5 {
            0 => secured.play(&scratch, &format!("ffmpeg-rtmps-{index}")),
            1 => players::ffmpeg(&scratch, &format!("ffmpeg-{index}"), &plain),
            2 => players::rtmpdump_tls_1_2(
                &scratch,
                &format!("rtmpdump-rtmps-{index}"),
                &secured.url,
            ),
            3 => players::rtmpdump(&scratch, &format!("rtmpdump-{index}"), &plain),
            _ => players::gstreamer(&scratch, &format!("gst-rtmps-{index}"), &secured.url),
        })
        .collect();
    secured.server.wait_players("show", CROWD);
    secured.publish(&scratch, clip).expect_success(PUBLISH_MAX);
    let mut first: Option<Packets> = None;
    for player in crowd {
        let tail = player.tail;
        let received = player.finish(&scratch);
        assert_all_frames(&clip.packets, &received, tail);
        let first = first.get_or_insert_with(|| received.clone());
        let common = received.video.len().min(first.video.len());
        assert_eq!(first.video_hashes()[..common], received.video_hashes()[..common]);
    }
    secured.expect_none_left();
    secured.server.expect_running();
}
