//! The programs `ringcast` and `ringctl` as a user runs them.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};

use common::{Options, PATIENCE, TestServer, Told};
use rustix::process::{Pid, Signal, kill_process};

fn ringcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringcast")).args(arguments).output().unwrap()
}

fn ringctl(server: &TestServer, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringctl"))
        .args(["--admin", &server.admin.to_string()])
        .args(arguments)
        .env_remove("RINGCAST_ADMIN_TOKEN")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn check_tells_valid_files_from_others_by_exit_code_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    let path = file.to_str().unwrap();
    fs::write(&file, "[defaults]\nflush = \"frame\"\n").unwrap();
    assert_eq!(stdout(&ringcast(&["check", path])), format!("{path}: valid\n"));
    fs::write(&file, "[defaults]\nflsh = \"frame\"\n").unwrap();
    let expected = format!("{path}:2: unknown key flsh in [defaults]; did you mean flush?\n");
    assert_eq!(stderr(&ringcast(&["check", path])), expected);
}

#[test]
fn certificates_that_cannot_be_used_are_warned_about_by_check_and_keep_the_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (certs, file) = (dir.path().join("certs"), dir.path().join("r.toml"));
    fs::create_dir(&certs).unwrap();
    fs::write(certs.join("x.key"), "half").unwrap();
    let admin = "[listen]\nrtmp = \"off\"\nrtmps = \"off\"\nadmin = \"off\"\n";
    fs::write(&file, format!("{admin}[tls]\ndir = \"{}\"\n", certs.display())).unwrap();
    let path = file.to_str().unwrap();
    let expected = format!(
        "no certificate can be used (tls.dir, [certificate])\n  {0}/x.crt: No such file or directory \
         (os error 2)\n",
        certs.display()
    );
    let checked = ringcast(&["check", path]);
    assert_eq!(stdout(&checked), format!("{path}: valid\n"));
    assert_eq!(String::from_utf8_lossy(&checked.stderr), format!("warning: {expected}"));
    let refused = stderr(&ringcast(&["--config", path]));
    assert!(refused.ends_with(&format!("ringcast: {expected}")), "{refused}");
}

#[test]
fn certificates_are_shown_with_their_end_and_their_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let file = dir.path().join("r.toml");
    let text = format!("[listen]\nrtmps = \"off\"\n[tls]\ndir = \"{}\"\n", dir.path().display());
    fs::write(&file, text).unwrap();
    let server = TestServer::start(Options { file: Some(file), ..Options::default() });
    let shown = stdout(&ringctl(&server, &["certs"]));
    assert!(shown.contains("a *          valid  4096-01-01T00:00:00Z"), "{shown}");
    assert!(shown.contains("ECDSA P-256  a.test"), "{shown}");
    let json = stdout(&ringctl(&server, &["certs", "nobody.test", "--json"]));
    let page: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(page["total"], 0);
    fs::write(&key, "half").unwrap();
    let reloaded = stdout(&ringctl(&server, &["reload"]));
    assert!(reloaded.starts_with("certificates refused: 1\n  a: "), "{reloaded}");
    let shown = stdout(&ringctl(&server, &["certs", "--state", "stale"]));
    assert!(shown.contains("error: a: ") && shown.contains("a.key: there is no PEM"), "{shown}");
    server.finish();
}

#[test]
fn config_prints_the_reference_and_never_a_secret() {
    let reference =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config.reference.toml"));
    assert!(stdout(&ringcast(&["config"])) == reference.unwrap(), "config.reference.toml is stale");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    fs::write(&file, "[admin]\ntoken = \"0123456789abcdef\"\n[log]\nlevel = \"debug\"\n").unwrap();
    let shown = stdout(&ringcast(&["config", "--config", file.to_str().unwrap()]));
    assert!(shown.contains("\nlevel = \"debug\"\n") && !shown.contains("0123456789abcdef"));
}

#[test]
fn version_and_help_are_for_newcomers() {
    let version = format!("ringcast {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&ringcast(&["--version"])), version);
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let help = stdout(&ringcast(arguments));
        for expected in [
            "--config <FILE>",
            "--rtmp <ADDR>",
            "--rtmps <ADDR>",
            "--http <ADDR>",
            "--admin <ADDR>",
            "--tls-dir <DIR>",
            "--workers <N>",
            "--cpus <LIST>",
            "--io <IO>",
            "--flush <WHEN>",
            "ffplay rtmp://127.0.0.1/live/mystream",
            "SIGHUP",
        ] {
            assert!(help.contains(expected), "{expected}");
        }
    }
}

#[test]
fn a_bad_flag_value_ends_the_start_with_its_name() {
    let message = stderr(&ringcast(&["--io", "kqueue"]));
    let expected = "--io: io in [workers]: \"kqueue\" is not one of auto, uring, epoll";
    assert!(message.contains(expected), "{message}");
    let message = stderr(&ringcast(&["serve", "--admin", "0.0.0.0:0"]));
    assert!(message.contains("--admin: admin address 0.0.0.0:0 is not loopback"), "{message}");
    assert_eq!(ringcast(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn ringctl_shows_status_streams_and_clients() {
    let server = TestServer::start(Options::default());
    let status = stdout(&ringctl(&server, &["status"]));
    assert!(status.starts_with("Ringcast 0.") && status.contains("  ready  up 0m"), "{status}");
    let streams = stdout(&ringctl(&server, &["streams"]));
    assert!(streams.contains("live/eu/cam") && streams.contains("h264 1280x720"), "{streams}");
    let stream = stdout(&ringctl(&server, &["stream", "live/eu/cam"]));
    assert!(stream.contains("subscribers          20\n"), "{stream}");
    let clients = stdout(&ringctl(&server, &["clients", "--role", "publisher"]));
    assert_eq!(clients.lines().count(), 3, "{clients}");
    let json = stdout(&ringctl(&server, &["--json", "clients"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["total"], 1_200);
    server.finish();
}

#[test]
fn ringctl_kicks_reloads_and_drains() {
    let server = TestServer::start(Options::default());
    assert!(stdout(&ringctl(&server, &["kick", "1-7"])).contains("1-7"));
    assert!(matches!(server.told(), Told::Kick(id) if (id.worker, id.serial) == (1, 7)));
    assert_eq!(stdout(&ringctl(&server, &["reload"])), "nothing changed\n");
    assert_eq!(stderr(&ringctl(&server, &["kick", "9-9"])), "ringctl: 404 (no client 9-9)\n");
    assert!(stdout(&ringctl(&server, &["drain"])).contains("draining"));
    server.join().unwrap();
}

#[test]
fn ringctl_sends_the_token_and_names_a_server_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("r.toml"), dir.path().join("token"));
    fs::write(&token, "0123456789abcdef\n").unwrap();
    fs::write(&file, format!("[admin]\ntoken_file = \"{}\"\n", token.display())).unwrap();
    let server = TestServer::start(Options { file: Some(file), ..Options::default() });
    let refused = stderr(&ringctl(&server, &["status"]));
    assert_eq!(refused, "ringctl: 401 (a bearer token is required)\n");
    let token = token.to_str().unwrap();
    stdout(&ringctl(&server, &["--token-file", token, "drain"]));
    let admin = server.admin;
    server.join().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringctl"))
        .args(["--admin", &admin.to_string(), "status"])
        .output()
        .unwrap();
    assert!(stderr(&output).starts_with(&format!("ringctl: cannot ask http://{admin}: ")));
}

#[test]
fn the_server_tells_the_service_manager_each_step_of_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        loop {
            let mut buffer = [0; 256];
            let bytes = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..bytes].to_vec()).unwrap();
            // What is served meanwhile, in words.
            if !text.starts_with("STATUS=") {
                return text;
            }
        }
    };
    let mut server = Command::new(env!("CARGO_BIN_EXE_ringcast"))
        .args([
            "--rtmp",
            "127.0.0.1:0",
            "--http",
            "off",
            "--admin",
            "127.0.0.1:0",
            "--workers",
            "1",
            "--io",
            "epoll",
        ])
        .env("NOTIFY_SOCKET", &path)
        .env_remove("WATCHDOG_USEC")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.into_iter().find(|line| line.starts_with("ready ")).unwrap();
    assert!(ready.starts_with("ready rtmp=127.0.0.1:"), "{ready}");
    assert!(ready.ends_with(" workers=1 io=epoll ktls=off"), "{ready}");

    let pid = Pid::from_child(&server);
    assert!(heard().starts_with("READY=1\n"));
    kill_process(pid, Signal::HUP).unwrap();
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(heard().starts_with("READY=1\n"));
    kill_process(pid, Signal::TERM).unwrap();
    assert!(heard().starts_with("STOPPING=1\n"));
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
