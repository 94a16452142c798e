//! The admin API through real HTTP on loopback, with fake workers.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::Ordering;

use common::{CLIENTS_PER_WORKER, Options, TestServer, Told};
use edge::certs::{CertSources, CertStore};
use edge::config::FlushPolicy;
use edge::control::api::{OPENAPI, ROUTES};
use serde_json::Value;

const TOKEN: &str = "0123456789abcdef-test";

fn with_file(text: &str) -> (tempfile::TempDir, TestServer) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, text).unwrap();
    let server = TestServer::start(Options { file: Some(file), ..Options::default() });
    (dir, server)
}

#[test]
fn the_ready_line_comes_last_and_tells_what_is_served() {
    let server = TestServer::start(Options::default());
    let expected = format!(
        "ready rtmp=127.0.0.1:1935 rtmps=off http=off admin={} workers=2 io=epoll ktls=off",
        server.admin
    );
    assert_eq!(server.output.last(), Some(&expected));
    let obs = "Server: rtmp://127.0.0.1/live   Stream Key: mystream";
    assert!(server.output.iter().any(|line| line.contains(obs)), "{:?}", server.output);
    server.finish();
}

#[test]
fn health_readiness_and_metrics_answer() {
    let server = TestServer::start(Options::default());
    assert_eq!(server.ask("get", "/healthz").0, 200);
    let (status, ready) = server.ask("get", "/readyz");
    assert_eq!((status, &ready["status"]), (200, &Value::from("ready")));
    let (status, kind, text) = server.ask_text("get", "/metrics", &[]);
    assert_eq!(status, 200);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(text.contains("\nringcast_workers 2\n") && text.ends_with("# EOF\n"));
    server.finish();
}

#[test]
fn the_exposition_is_well_formed() {
    let server = TestServer::start(Options::default());
    let (_, _, text) = server.ask_text("get", "/metrics", &[]);
    let mut family = String::new();
    let (mut seen, mut series) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(seen.insert(family.clone()), "{family} is declared twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line} stands outside {family}");
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name.to_owned()), "{name} appears twice");
        }
    }
    assert!(series.len() < 2_000, "{} series without any stream", series.len());
    server.finish();
}

#[test]
fn streams_are_merged_from_the_shares_of_all_workers() {
    let server = TestServer::start(Options::default());
    let (status, page) = server.ask("get", "/api/v1/streams");
    assert_eq!((status, &page["total"]), (200, &Value::from(2)));
    let (waiting, cam) = (&page["items"][0], &page["items"][1]);
    assert_eq!(waiting["name"], "nobody");
    assert_eq!((&waiting["state"], &waiting["subscribers"]), (&"waiting".into(), &3.into()));
    assert_eq!((&cam["state"], &cam["subscribers"]), (&"live".into(), &20.into()));
    assert_eq!((&cam["bytes_out"], &cam["lag_ms_max"]), (&20_000.into(), &200.into()));
    assert_eq!(cam["publisher"]["id"], "0-1");
    let (_, filtered) = server.ask("get", "/api/v1/streams?app=live");
    assert_eq!(filtered["total"], 1);
    server.finish();
}

#[test]
fn one_stream_is_found_by_its_path_also_when_its_app_has_slashes() {
    let server = TestServer::start(Options::default());
    for path in ["live/eu/cam", "live%2Feu/cam", "live/eu/cam?vhost=default"] {
        let (status, stream) = server.ask("get", &format!("/api/v1/streams/{path}"));
        assert_eq!((status, &stream["width"]), (200, &1280.into()), "{path}");
    }
    for path in ["live/cam", "live/eu/cam?vhost=other", "cam"] {
        let (status, error) = server.ask("get", &format!("/api/v1/streams/{path}"));
        assert_eq!((status, &error["error"]["code"]), (404, &"not_found".into()), "{path}");
    }
    server.finish();
}

#[test]
fn a_list_gives_everything_up_to_a_thousand_and_pages_beyond() {
    let server = TestServer::start(Options::default());
    let total = CLIENTS_PER_WORKER * 2;
    let (_, page) = server.ask("get", "/api/v1/clients");
    assert_eq!((&page["total"], &page["limit"]), (&total.into(), &1_000.into()));
    assert_eq!(page["items"].as_array().unwrap().len(), 1_000);
    let (_, page) = server.ask("get", "/api/v1/clients?offset=1199&limit=5");
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["id"], format!("1-{CLIENTS_PER_WORKER}"));
    let (_, page) = server.ask("get", "/api/v1/clients?role=publisher");
    assert_eq!(page["total"], 2);
    for bad in ["limit=0", "limit=10001", "limit=x", "lmit=5", "role=viewer"] {
        let (status, error) = server.ask("get", &format!("/api/v1/clients?{bad}"));
        assert_eq!((status, &error["error"]["code"]), (400, &"bad_request".into()), "{bad}");
    }
    server.finish();
}

#[test]
fn a_kick_reaches_the_worker_that_owns_the_connection() {
    let server = TestServer::start(Options::default());
    assert_eq!(server.ask("delete", "/api/v1/clients/1-7").0, 200);
    assert!(matches!(server.told(), Told::Kick(id) if (id.worker, id.serial) == (1, 7)));
    assert_eq!(server.ask("delete", "/api/v1/clients/0-99999").0, 404);
    assert_eq!(server.ask("delete", "/api/v1/clients/9-1").0, 404);
    assert_eq!(server.ask("delete", "/api/v1/clients/seven").0, 400);
    server.finish();
}

#[test]
fn a_stuck_worker_is_named_and_never_hides_the_others() {
    let server = TestServer::start(Options::default());
    server.stuck[1].store(true, Ordering::Relaxed);
    // The worker may be in its last turn; from the second answer on it is certainly stuck.
    let _ = server.ask("get", "/api/v1/clients");
    let (status, page) = server.ask("get", "/api/v1/clients");
    assert_eq!((status, &page["missing_workers"]), (200, &serde_json::json!([1])));
    assert_eq!(page["total"], CLIENTS_PER_WORKER);
    let (status, error) = server.ask("delete", "/api/v1/clients/1-7");
    assert_eq!((status, &error["error"]["code"]), (503, &"worker_timeout".into()));
    let (status, health) = server.ask("get", "/healthz");
    assert_eq!((status, &health["silent_workers"]), (503, &serde_json::json!([1])));
    server.stuck[1].store(false, Ordering::Relaxed);
    server.finish();
}

#[test]
fn a_worker_whose_thread_ends_stops_the_server_with_its_number() {
    let server = TestServer::start(Options::default());
    server.dead.store(true, Ordering::Relaxed);
    assert!(matches!(server.told(), Told::Stop(0)), "the other worker is stopped in order");
    let error = server.join().unwrap_err().to_string();
    assert_eq!(error, "worker 1 failed: its thread ended by itself");
}

#[test]
fn errors_are_json_with_a_code() {
    let server = TestServer::start(Options::default());
    for (method, path, status, code) in [
        ("get", "/nothing", 404, "no_such_route"),
        ("get", "/api/v1/nothing", 404, "no_such_route"),
        ("get", "/api/v1/drain", 405, "method_not_allowed"),
        ("delete", "/api/v1/streams", 405, "method_not_allowed"),
    ] {
        let (is, error) = server.ask(method, path);
        assert_eq!((is, &error["error"]["code"]), (status, &code.into()), "{method} {path}");
    }
    server.finish();
}

#[test]
fn the_description_and_the_routes_agree() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            described.insert((method.clone(), path.clone()));
        }
    }
    let routes: BTreeSet<_> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, routes);

    let server = TestServer::start(Options::default());
    // Those that need a body, or something there must be first, are tried in the tests of access.
    let is_tried = |(method, path): &&(&str, &str)| {
        let operation = &document["paths"][*path][*method];
        let needs_body = !operation["requestBody"].is_null();
        let is_needed =
            |parameter: &Value| parameter["in"] == "query" && parameter["required"] == true;
        let needs_query =
            operation["parameters"].as_array().is_some_and(|all| all.iter().any(is_needed));
        !["/api/v1/drain", "/api/v1/upgrade"].contains(path)
            && !needs_body
            && !needs_query
            && !path.contains("{domain}")
            && !path.contains("{target}")
    };
    for (method, path) in ROUTES.iter().filter(is_tried) {
        let uri = path.replace("{app}/{name}", "live/eu/cam").replace("{id}", "0-1");
        let (status, _, body) = server.ask_text(method, &uri, &[]);
        let operation = &document["paths"][path][method];
        let answer = &operation["responses"][status.to_string()]["content"];
        assert_eq!(status, 200, "{method} {uri}: {body}");
        let Some(schema) = answer.get("application/json").map(|content| &content["schema"]) else {
            continue;
        };
        let value: Value = serde_json::from_str(&body).unwrap();
        check_schema(&document, schema, &value, &format!("{method} {path}"));
    }
    server.finish();
}

/// Enough of JSON Schema for the description: references, alternatives, types, required and unknown
/// properties, enumerations.
fn check_schema(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).expect(reference);
        return check_schema(document, schema, value, at);
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        let wanted = alternatives.iter().find(|one| (one["type"] == "null") == value.is_null());
        return check_schema(document, wanted.expect(at), value, at);
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let fits = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    assert!(types.is_empty() || types.iter().any(fits), "{at}: {value} is not {types:?}");
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is not one of {words:?}");
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object())
    {
        let described: BTreeSet<_> = properties.keys().collect();
        let present: BTreeSet<_> = object.keys().collect();
        assert_eq!(described, present, "{at}");
        for (name, schema) in properties {
            check_schema(document, schema, &object[name], &format!("{at}.{name}"));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        check_schema(document, &schema["items"], item, &format!("{at}[]"));
    }
}

#[test]
fn a_token_is_asked_for_once_it_is_set_but_not_for_health() {
    let (_dir, server) = with_file(&format!("[admin]\ntoken = \"{TOKEN}\"\n"));
    assert_eq!(server.ask("get", "/healthz").0, 200);
    assert_eq!(server.ask("get", "/readyz").0, 200);
    for path in ["/metrics", "/api/v1/status", "/api/v1/nothing"] {
        let (status, error) = server.ask("get", path);
        assert_eq!((status, &error["error"]["code"]), (401, &"unauthorized".into()), "{path}");
    }
    for (header, status) in [
        (format!("Bearer {TOKEN}"), 200),
        (format!("bearer {TOKEN}"), 200),
        (format!("Bearer {TOKEN}x"), 401),
        (format!("Basic {TOKEN}"), 401),
        ("Bearer".to_owned(), 401),
        ("Bearer ".to_owned(), 401),
    ] {
        let headers = [("Authorization", header.as_str())];
        assert_eq!(server.ask_text("get", "/api/v1/status", &headers).0, status, "{header}");
    }
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(server.ask_text("post", "/api/v1/drain", &headers).0, 202);
    server.join().unwrap();
}

#[test]
fn without_a_token_web_pages_are_refused() {
    let server = TestServer::start(Options::default());
    for header in [("Origin", "http://evil.example"), ("Host", "evil.example:9090")] {
        assert_eq!(server.ask_text("get", "/api/v1/status", &[header]).0, 403, "{header:?}");
    }
    for host in ["localhost:9090", "LOCALHOST", "127.0.0.1:9090", "[::1]:9090", "[::1]"] {
        assert_eq!(server.ask_text("get", "/api/v1/status", &[("Host", host)]).0, 200, "{host}");
    }
    server.finish();
}

#[test]
fn a_reload_is_diffed_and_given_to_every_worker() {
    let (dir, server) = with_file("[limits]\nstreams_max = 5\n");
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, "[limits]\nstreams_max = 6\n[workers]\ncount = 1\n[defaults]\nflush = 100\n")
        .unwrap();
    let (status, report) = server.ask("post", "/api/v1/reload");
    assert_eq!(status, 200);
    let change = serde_json::json!({"key": "limits.streams_max", "from": "5", "to": "6"});
    assert_eq!(report["changed"][0], change);
    assert_eq!(report["changed"][1]["key"], "defaults.flush");
    assert_eq!(report["restart_required"][0]["key"], "workers.count");
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        let Told::Config(worker, config) = server.told() else { panic!("no configuration") };
        assert_eq!(config.limits.streams_max, 6);
        assert_eq!(config.defaults.flush, FlushPolicy::Window { ms: 100 });
        assert_eq!(config.workers.count, 0, "a key that needs a restart keeps its running value");
        told.insert(worker);
    }
    assert_eq!(told, BTreeSet::from([0, 1]));
    server.finish();
}

/// Writes a pair for these names, valid for the next two thousand years.
fn put_certificate(dir: &Path, name: &str, hosts: &[&str]) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(hosts).unwrap();
    for (extension, text) in [("crt", made.cert.pem()), ("key", made.signing_key.serialize_pem())] {
        let part = dir.join("part");
        fs::write(&part, text).unwrap();
        fs::rename(part, dir.join(format!("{name}.{extension}"))).unwrap();
    }
}

#[test]
fn certificates_are_listed_reloaded_and_watched() {
    let certs = tempfile::tempdir().unwrap();
    put_certificate(certs.path(), "a", &["a.test"]);
    fs::write(certs.path().join("x.crt"), "half").unwrap();
    let config = |more: &str| {
        format!("[tls]\ndir = \"{}\"\nwatch_interval_ms = 100\n{more}", certs.path().display())
    };
    let (dir, server) = with_file(&config(""));

    let (status, page) = server.ask("get", "/api/v1/certs");
    assert_eq!((status, &page["total"]), (200, &2.into()));
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let schema = document.pointer("/components/schemas/Certificate").unwrap();
    for item in page["items"].as_array().unwrap() {
        check_schema(&document, schema, item, "certificate");
    }
    let states = (&page["items"][0]["state"], &page["items"][1]["state"]);
    assert_eq!(states, (&"valid".into(), &"broken".into()));
    assert!(page["items"][1]["error"].as_str().unwrap().contains("x.key: No such file"), "{page}");
    let (_, found) = server.ask("get", "/api/v1/certs?state=valid&name=a.test");
    assert_eq!((&found["total"], &found["items"][0]["is_default"]), (&1.into(), &true.into()));
    assert_eq!(server.ask("get", "/api/v1/certs?state=odd").0, 400);

    // A reload takes a new entry at once and says what it could not take.
    put_certificate(dir.path(), "b", &["b.test"]);
    let entry = format!(
        "[certificate.mine]\ncert = \"{0}/b.crt\"\nkey = \"{0}/b.key\"\n",
        dir.path().display()
    );
    fs::write(dir.path().join("ringcast.toml"), config(&entry)).unwrap();
    let (_, report) = server.ask("post", "/api/v1/reload");
    assert_eq!(report["changed"][0]["key"], "certificate.\"mine\"");
    let done = &report["certificates"];
    assert_eq!((&done["total"], &done["loaded"]), (&3.into(), &1.into()));
    assert_eq!((&done["failed_total"], &done["failed"][0]["name"]), (&1.into(), &"x".into()));

    // A renewed pair is found without being asked for.
    put_certificate(certs.path(), "a", &["a.test", "renewed.test"]);
    let until = std::time::Instant::now() + common::PATIENCE;
    while server.ask("get", "/api/v1/certs?name=renewed.test").1["total"] == 0 {
        assert!(std::time::Instant::now() < until, "the change was never seen");
    }
    let (_, _, text) = server.ask_text("get", "/metrics", &[]);
    for line in [
        "ringcast_certificates{state=\"valid\"} 2\n",
        "ringcast_certificates{state=\"broken\"} 1\n",
        "ringcast_certificate_host_names 3\n",
        "ringcast_certificates_loaded_total 3\n",
        "ringcast_certificate_expiry_timestamp_seconds{name=\"mine\"} ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    server.finish();
}

#[test]
fn a_folder_without_one_usable_certificate_is_refused_with_the_reasons() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.crt"), "half").unwrap();
    let sources = CertSources { dir: Some(dir.path().to_owned()), ..CertSources::default() };
    let error = CertStore::load(&sources).unwrap_err().to_string();
    assert!(
        error.starts_with("no certificate can be used (tls.dir, [certificate])\n  "),
        "{error}"
    );
    assert!(error.contains("x.key: No such file"), "{error}");
}

#[test]
fn a_refused_reload_changes_nothing_and_says_where() {
    let (dir, server) = with_file("[limits]\nstreams_max = 5\n");
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, "[limits]\nstreams_max = 6\nstream_max = 7\n").unwrap();
    let (status, error) = server.ask("post", "/api/v1/reload");
    assert_eq!((status, &error["error"]["code"]), (422, &"config_refused".into()));
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("ringcast.toml:3: unknown key stream_max"), "{message}");
    fs::write(&file, "[limits]\nstreams_max = 5\n").unwrap();
    let (_, report) = server.ask("post", "/api/v1/reload");
    assert_eq!(report["changed"], serde_json::json!([]), "the first reload left no trace");
    let (_, _, text) = server.ask_text("get", "/metrics", &[]);
    for result in ["success", "failure"] {
        let line = format!("ringcast_config_reloads_total{{result=\"{result}\"}} 1\n");
        assert!(text.contains(&line), "{result}");
    }
    server.finish();
}

#[test]
fn a_drain_ends_readiness_first_and_the_process_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, "[shutdown]\ndrain_ms = 5000\n").unwrap();
    let options = Options { file: Some(file), drain_at_once: false, ..Options::default() };
    let server = TestServer::start(options);
    assert_eq!(server.ask("post", "/api/v1/drain").0, 202);
    assert!(matches!(server.told(), Told::Drain(_, 1..=5000)));
    let (status, ready) = server.ask("get", "/readyz");
    assert_eq!((status, &ready["status"]), (503, &"draining".into()));
    assert_eq!(server.ask("get", "/healthz").0, 200);
    let stops = std::iter::repeat_with(|| server.told())
        .take(3)
        .filter(|told| matches!(told, Told::Stop(_)))
        .count();
    assert_eq!(stops, 2);
    server.join().unwrap();
}

#[test]
fn a_client_that_sends_nonsense_does_not_disturb_the_next() {
    let server = TestServer::start(Options::default());
    let mut nonsense = TcpStream::connect(server.admin).unwrap();
    nonsense.write_all(b"\x16\x03\x01 not http\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = nonsense.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
    assert_eq!(server.ask("get", "/readyz").0, 200);
    server.finish();
}
