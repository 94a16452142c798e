//! Tickets and addresses made by the kits that are published for these schemes, checked by ours.
//!
//! `tools/sdks` installs the kits; without them the tests say so and pass, unless EDGE_E2E=required.

mod support;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use edge::access::providers::oss::{AccessKey, SignedUrl};
use edge::access::providers::usersig::{PublicKeys, RoomPlace, TicketKeys, UserSig};
use edge::access::providers::{Keys, Presented, Provider, Verdict};
use edge::access::secret::SecretText;
use edge::access::{Role, Suffix};
use live::path::{Resolved, resolve};
use serde_json::Value;

use support::server::{Server, matrix, wait_for};

const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const APP_ID: u32 = 1_400_000_001;
const USER: &str = "user_27149";
const ROOM: &str = "1234";
const VALID_S: u64 = 3_600;

/// A program of the installed kits, or `None` with the reason printed.
fn program(relative: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("EDGE_SDKS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdks"),
        PathBuf::from,
    );
    let path = folder.join(relative);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var("EDGE_E2E").is_ok_and(|value| value == "required");
    assert!(!required, "{} is missing; run tools/sdks", path.display());
    println!("skipped: the published kits are not installed (tools/sdks)");
    None
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn json(command: &mut Command) -> Value {
    let (app_id, valid_s) = (APP_ID.to_string(), VALID_S.to_string());
    let text = output(command.args([KEY, &app_id, USER, ROOM, &valid_s]));
    serde_json::from_str(&text).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text).unwrap()
}

fn ask(provider: &Provider, role: Role, resolved: &Resolved, unix_s: u64) -> Verdict {
    provider.check(&Presented {
        role,
        app: resolved.path.app(),
        stream: resolved.path.name(),
        suffix: Suffix::None,
        host: resolved.host.as_deref(),
        query: &resolved.query,
        peer: IpAddr::from([127, 0, 0, 1]),
        unix_s,
    })
}

fn connect(address: &str) -> Resolved {
    let (authority, rest) = address.strip_prefix("rtmp://").unwrap().split_once('/').unwrap();
    let (path, query) = rest.split_once('?').unwrap();
    let (app, name) = path.rsplit_once('/').unwrap();
    resolve(app, Some(&format!("rtmp://{authority}/{app}")), &format!("{name}?{query}")).unwrap()
}

fn usersig(keys: TicketKeys, private_map_key: bool) -> Provider {
    let room = RoomPlace::Stream;
    Provider::UserSig(UserSig { keys, sdk_app_id: APP_ID, private_map_key, room })
}

fn keys_v2(key: &str) -> TicketKeys {
    TicketKeys { shared: Some(Keys::new(secret(key), None)), ..TicketKeys::default() }
}

/// A room's address with a ticket and a map key.
fn room_address(room: &str, user: &str, usersig: &Value, map_key: &Value) -> Resolved {
    let (usersig, map_key) = (usersig.as_str().unwrap(), map_key.as_str().unwrap());
    let query = format!("userid={user}&usersig={usersig}&privateMapKey={map_key}");
    connect(&format!("rtmp://h.example.com/rtc/{room}?{query}"))
}

#[track_caller]
fn refused(verdict: Verdict, expected: &str) {
    assert_eq!(verdict.unwrap_err().text, format!("denied by req auth: {expected}"));
}

fn check_rooms(made: &Value) {
    let provider = usersig(keys_v2(KEY), true);
    let at = |room, user, map_key: &str| room_address(room, user, &made["usersig"], &made[map_key]);
    let all = at(ROOM, USER, "map_key_ff");
    assert_eq!(ask(&provider, Role::Publish, &all, now()).unwrap().user.as_deref(), Some(USER));
    let watch = at(ROOM, USER, "map_key_ab");
    assert!(ask(&provider, Role::Play, &watch, now()).is_ok());
    let no_right = "privateMapKey does not allow to publish";
    refused(ask(&provider, Role::Publish, &watch, now()), no_right);
    let other_room = at("1235", USER, "map_key_ff");
    refused(ask(&provider, Role::Publish, &other_room, now()), "privateMapKey is for another room");
    let other_user = at(ROOM, "somebody", "map_key_ff");
    refused(ask(&provider, Role::Publish, &other_user, now()), "usersig is for another user");
    refused(ask(&provider, Role::Publish, &all, now() + 2 * VALID_S), "expired usersig");
    let other_key = usersig(keys_v2("another key"), true);
    refused(ask(&other_key, Role::Publish, &all, now()), "invalid usersig");
}

#[test]
fn tickets_of_the_python_kit_open_their_room_only() {
    let Some(python) = program("python/bin/python") else { return };
    check_rooms(&json(Command::new(python).arg(script("kits.py"))));
}

#[test]
fn tickets_of_the_node_kit_open_their_room_only() {
    let Some(modules) = program("node/node_modules") else { return };
    let made = json(Command::new("node").arg(script("kits.js")).env("NODE_PATH", modules));
    check_rooms(&made);
    let provider = usersig(keys_v2(KEY), true);
    let at = |room| room_address(room, USER, &made["usersig"], &made["map_key_named"]);
    assert!(ask(&provider, Role::Publish, &at("room-A1"), now()).is_ok());
    let other = ask(&provider, Role::Publish, &at("room-A2"), now());
    refused(other, "privateMapKey is for another room");
}

#[test]
fn tickets_of_version_1_are_checked_with_the_public_key() {
    let Some(python) = program("python-v1/bin/python") else { return };
    let vectors: Value = serde_json::from_str(include_str!("data/access_vectors.json")).unwrap();
    let pem = |name: &str| vectors["usersig_v1"][name].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let files = ["private_key_pem", "public_key_pem"].map(|name| {
        let path = dir.path().join(name);
        fs::write(&path, pem(name)).unwrap();
        path
    });
    let (app_id, valid_s) = (APP_ID.to_string(), VALID_S.to_string());
    let mut command = Command::new(python);
    let ticket =
        output(command.arg(script("kit_v1.py")).args(files).args([&app_id, USER, &valid_s]));
    let mut public = PublicKeys::default();
    public.add_pem(&pem("public_key_pem")).unwrap();
    let provider = usersig(TicketKeys { public, shared: None }, false);
    let resolved = room_address(ROOM, USER, &ticket.into(), &"".into());
    assert!(ask(&provider, Role::Publish, &resolved, now()).is_ok());
    refused(ask(&provider, Role::Publish, &resolved, now() + 2 * VALID_S), "expired usersig");
}

#[test]
fn live_channel_addresses_of_the_kit_open_their_channel_only() {
    let Some(python) = program("python/bin/python") else { return };
    let made = json(Command::new(python).arg(script("kits.py")));
    let scheme = |key: &str| {
        let keys = vec![AccessKey { id: "test-ak-id".into(), secret: secret(key) }];
        Provider::Oss(SignedUrl { keys, bucket: None, public_write: false })
    };
    for name in ["oss_by_path", "oss_by_host"] {
        let address = made[name].as_str().unwrap();
        let verdict = ask(&scheme(KEY), Role::Publish, &connect(address), now());
        assert!(verdict.is_ok(), "{address}: {verdict:?}");
        let mismatch = "SignatureDoesNotMatch: the signature does not match";
        for (provider, address) in [
            (scheme("another key"), address.to_owned()),
            (scheme(KEY), address.replace("test-channel", "other-channel")),
            (scheme(KEY), address.replace("test-bucket", "other-bucket")),
            (scheme(KEY), address.replace(".m3u8", ".m3u9")),
        ] {
            let denial = ask(&provider, Role::Publish, &connect(&address), now()).unwrap_err();
            assert_eq!(denial.text, mismatch, "{address}");
        }
        let late = ask(&scheme(KEY), Role::Publish, &connect(address), now() + 2 * VALID_S);
        assert!(late.unwrap_err().text.starts_with("AccessDenied: expired Expires="));
    }
}

/// A server whose domains check what the kits make.
fn serving(public_key: &Path) -> Server {
    let domain = |name: &str, more: &str, provider: &str| {
        format!(
            "[domain.\"{name}\"]\ntype = \"push\"\n{more}\n\
             [[domain.\"{name}\".provider]]\n{provider}\n"
        )
    };
    let oss = format!("scheme = \"oss\"\naccess_key_id = \"test-ak-id\"\nkey = {KEY:?}");
    let v2 = format!("scheme = \"usersig\"\nsdk_app_id = {APP_ID}\nkey = {KEY:?}");
    let v1 =
        format!("scheme = \"usersig\"\nsdk_app_id = {APP_ID}\npublic_key_file = {public_key:?}");
    let text = [
        domain("127.0.0.1", "style = \"oss\"", &oss),
        domain("test-bucket.oss.test", "style = \"oss\"", &oss),
        domain("rooms.test", "", &format!("{v2}\nprivate_map_key = true")),
        domain("tickets.test", "", &v2),
        domain("old.test", "", &v1),
    ];
    Server::start(matrix(&[1])[0], &text.concat())
}

/// ffmpeg with this address, sent to the server whatever host it names; its log goes to the file.
fn ffmpeg(server: &Server, address: &str, log: &Path) -> Child {
    let (authority, path) = address.strip_prefix("rtmp://").unwrap().split_once('/').unwrap();
    let (names, query) = path.split_once('?').unwrap();
    let (app, name) = names.rsplit_once('/').unwrap();
    let log = fs::File::create(log).unwrap();
    Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-re"])
        .args(["-f", "lavfi", "-i", "testsrc=size=160x90:rate=10", "-t", "60"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-f", "flv"])
        // Its own way to take an address apart cuts long names off.
        .args(["-rtmp_app", app, "-rtmp_playpath", &format!("{name}?{query}")])
        .args(["-rtmp_tcurl", &format!("rtmp://{authority}/{app}")])
        .arg(format!("rtmp://{}/{app}/{name}", server.rtmp))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// ffmpeg must be let in with this address, and refused with this text with another.
fn expect_over_rtmp(server: &Server, log: &Path, good: &str, bad: &[(String, String)]) {
    let accepted = server.events("publish").len();
    let mut child = ffmpeg(server, good, log);
    wait_for("ffmpeg to publish", || {
        let status = child.try_wait().unwrap();
        let log = || fs::read_to_string(log).unwrap_or_default();
        assert!(status.is_none(), "{good}: {status:?} {}", log());
        server.events("publish").len() > accepted
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for (address, text) in bad {
        let mut child = ffmpeg(server, address, log);
        wait_for("ffmpeg to give up", || child.try_wait().unwrap().is_some());
        let said = fs::read_to_string(log).unwrap();
        assert!(said.contains(text), "{address}: wants {text:?}: {said}");
    }
    assert_eq!(server.events("publish").len(), accepted + 1);
}

#[test]
fn what_the_kits_make_is_accepted_from_ffmpeg_over_rtmp() {
    let Some(python) = program("python/bin/python") else { return };
    let (Some(python_v1), Some(modules)) =
        (program("python-v1/bin/python"), program("node/node_modules"))
    else {
        return;
    };
    if Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_err() {
        let required = std::env::var("EDGE_E2E").is_ok_and(|value| value == "required");
        assert!(!required, "ffmpeg is not installed");
        println!("skipped: not installed: [\"ffmpeg\"]");
        return;
    }
    let vectors: Value = serde_json::from_str(include_str!("data/access_vectors.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = ["private_key_pem", "public_key_pem"].map(|name| {
        let path = dir.path().join(name);
        fs::write(&path, vectors["usersig_v1"][name].as_str().unwrap()).unwrap();
        path
    });
    let server = serving(&files[1]);
    let log = dir.path().join("ffmpeg.log");

    let of_python = json(Command::new(python).arg(script("kits.py")));
    for name in ["oss_by_path", "oss_by_host"] {
        let good = of_python[name].as_str().unwrap();
        let other = good.replace("test-channel", "other-channel");
        let mismatch = "SignatureDoesNotMatch: the signature does not match".to_owned();
        expect_over_rtmp(&server, &log, good, &[(other, mismatch)]);
    }
    let of_node = json(Command::new("node").arg(script("kits.js")).env("NODE_PATH", modules));
    for made in [&of_python, &of_node] {
        let (usersig, map_key) =
            (made["usersig"].as_str().unwrap(), made["map_key_ff"].as_str().unwrap());
        let watch = made["map_key_ab"].as_str().unwrap();
        let at = |room: &str, user: &str, map_key: &str| {
            let query = format!("userid={user}&usersig={usersig}&privateMapKey={map_key}");
            format!("rtmp://rooms.test/rtc/{room}?{query}")
        };
        let denied = |text: &str| format!("denied by req auth: {text}");
        let bad = [
            (at("1235", USER, map_key), denied("privateMapKey is for another room")),
            (at(ROOM, "somebody", map_key), denied("usersig is for another user")),
            (at(ROOM, USER, watch), denied("privateMapKey does not allow to publish")),
        ];
        expect_over_rtmp(&server, &log, &at(ROOM, USER, map_key), &bad);
        let alone = format!("rtmp://tickets.test/live/cam?userid={USER}&usersig={usersig}");
        expect_over_rtmp(&server, &log, &alone, &[]);
    }
    let named = of_node["map_key_named"].as_str().unwrap();
    let usersig = of_node["usersig"].as_str().unwrap();
    let good = format!(
        "rtmp://rooms.test/rtc/room-A1?userid={USER}&usersig={usersig}&privateMapKey={named}"
    );
    expect_over_rtmp(&server, &log, &good, &[]);

    let (app_id, valid_s) = (APP_ID.to_string(), VALID_S.to_string());
    let mut command = Command::new(python_v1);
    let ticket =
        output(command.arg(script("kit_v1.py")).args(&files).args([&app_id, USER, &valid_s]));
    let at = |user: &str| format!("rtmp://old.test/live/cam?userid={user}&usersig={ticket}");
    let bad = [(at("somebody"), "denied by req auth: usersig is for another user".to_owned())];
    expect_over_rtmp(&server, &log, &at(USER), &bad);
}
