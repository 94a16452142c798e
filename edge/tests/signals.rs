//! Signals end to end. One test in a process of its own, because signals are for the whole process.

mod common;

use std::fs;

use common::{Options, TestServer, Told};
use rustix::process::{Signal, getpid, kill_process};

#[test]
fn hangup_reloads_and_terminate_drains_then_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, "[limits]\nstreams_max = 5\n").unwrap();
    let options = Options { file: Some(file.clone()), workers: 1, ..Options::default() };
    let server = TestServer::start(options);
    // An answer shows that the control loop runs, and with it the signal handlers.
    assert_eq!(server.ask("get", "/readyz").0, 200);

    fs::write(&file, "[limits]\nstreams_max = 6\n").unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    assert!(matches!(server.told(), Told::Config(0, config) if config.limits.streams_max == 6));

    fs::write(&file, "[limits]\nstreams_max = none\n").unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    assert!(matches!(server.told(), Told::Drain(0, _)), "a refused reload reaches no worker");
    assert!(matches!(server.told(), Told::Stop(0)));
    server.join().unwrap();

    for signal in [Signal::INT, Signal::QUIT] {
        let server = TestServer::start(Options { workers: 1, ..Options::default() });
        assert_eq!(server.ask("get", "/readyz").0, 200);
        kill_process(getpid(), signal).unwrap();
        let drained = matches!(server.told(), Told::Drain(..));
        assert_eq!(drained, signal == Signal::QUIT);
        server.join().unwrap();
    }
}
