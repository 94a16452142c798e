//! OBS Studio publishes: with a key, and with the whole address in its server field and no key.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::child::{Program, Running, Scratch, have};
use crate::media::{Packets, assert_steady};
use crate::players;
use crate::server::Server;

/// Programs a run of OBS without a screen needs.
const OBS_PROGRAMS: [&str; 4] = ["obs", "xvfb-run", "dbus-run-session", "ffmpeg"];
/// Media seconds taken from OBS.
const TAKE_SECONDS: u32 = 4;
/// OBS needs a while to start without a graphics card.
const TAKE_MAX: Duration = Duration::from_secs(60);

/// Starts OBS with a scene of one colour, streaming to `server` and `key` at once.
fn publish(scratch: &Scratch, server: &str, key: &str) -> Running {
    let home = scratch.file("obs-home");
    write_settings(&home.join(".config/obs-studio"), server, key);
    Program::new("xvfb-run", scratch, "obs")
        .args(["-a", "dbus-run-session", "obs", "--startstreaming", "--multi"])
        .args(["--profile", "Test", "--collection", "Test"])
        .args(["--disable-updater", "--disable-missing-files-check"])
        .env("HOME", &home)
        .start()
}

fn write_settings(dir: &Path, server: &str, key: &str) {
    let profile = dir.join("basic/profiles/Test");
    let scenes = dir.join("basic/scenes");
    for folder in [&profile, &scenes] {
        fs::create_dir_all(folder).expect("a settings folder can be made");
    }
    let write = |path: &Path, text: &str| fs::write(path, text).expect("settings can be written");
    // InfoIncrement and LastVersion keep the "what is new" window away; a window would wait for a click.
    write(
        &dir.join("global.ini"),
        "[General]\nFirstRun=true\nLastVersion=486539266\nInfoIncrement=99\n\
         EnableAutoUpdates=false\n\
         [Basic]\nProfile=Test\nProfileDir=Test\nSceneCollection=Test\nSceneCollectionFile=Test\n\
         [BasicWindow]\nSysTrayEnabled=false\n",
    );
    write(
        &profile.join("basic.ini"),
        "[General]\nName=Test\n\
         [Video]\nBaseCX=320\nBaseCY=180\nOutputCX=320\nOutputCY=180\nFPSCommon=30\n\
         [Output]\nMode=Simple\n\
         [SimpleOutput]\nVBitrate=300\nABitrate=64\nStreamEncoder=x264\nPreset=ultrafast\n\
         UseAdvanced=true\nx264Settings=keyint=30\n",
    );
    let service = json!({
        "type": "rtmp_custom",
        "settings": { "server": server, "key": key, "use_auth": false, "bwtest": false },
    });
    write(&profile.join("service.json"), &service.to_string());
    let colour = json!({ "color": 0xFF00_8040_u32, "width": 320, "height": 180 });
    let item = json!({ "name": "Colour", "id": 1, "visible": true });
    let scene = json!({ "items": [item], "id_counter": 1 });
    let collection = json!({
        "name": "Test",
        "current_scene": "Scene",
        "current_program_scene": "Scene",
        "scene_order": [{ "name": "Scene" }],
        "sources": [
            { "id": "scene", "name": "Scene", "settings": scene },
            {
                "id": "color_source", "versioned_id": "color_source_v3",
                "name": "Colour", "settings": colour,
            },
        ],
    });
    write(&scenes.join("Test.json"), &collection.to_string());
}

/// Streams from OBS and takes some seconds of it as `live/show`.
fn take(settings: impl Fn(&Server) -> (String, String)) -> Packets {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, &[]);
    let mut player = players::ffmpeg_for(&scratch, "player", &server.url("show"), TAKE_SECONDS);
    server.wait_players("show", 1);
    let (address, key) = settings(&server);
    let obs = publish(&scratch, &address, &key);
    server.wait_publisher("show");
    player.running.expect_success(TAKE_MAX);
    drop(obs);
    Packets::read(&player.file, &scratch)
}

fn assert_watchable(packets: &Packets) {
    let frames_min = usize::try_from(TAKE_SECONDS).expect("a few seconds") * 30 - 10;
    assert!(packets.video.len() >= frames_min, "{} frames", packets.video.len());
    assert!(!packets.audio.is_empty(), "audio was received");
    // One lost frame would be a step of 67 ms; the encoder itself may skip one when the machine is busy.
    assert_steady(packets, 150);
}

#[test]
fn obs_publishes_with_a_key() {
    if have(&OBS_PROGRAMS) {
        assert_watchable(&take(|server| (server.app_url(), "show".into())));
    }
}

#[test]
fn obs_publishes_with_the_whole_address_in_the_server_field() {
    if have(&OBS_PROGRAMS) {
        let whole = |server: &Server| (server.url("show?token=a%2Fb"), String::new());
        assert_watchable(&take(whole));
    }
}
