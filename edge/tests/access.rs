//! Domains, keys, quotas and forbids through the admin API; and that no key ever comes out.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{Options, TestServer};
use serde_json::{Value, json};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Status and text of one request.
fn request(admin: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        .build()
        .into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path}"))
        .header("content-type", "application/json");
    let mut response = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    }
    .unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

struct Api {
    server: TestServer,
    _dir: tempfile::TempDir,
}

impl Api {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ringcast.toml");
        let store = dir.path().join("access.redb").display().to_string();
        fs::write(&file, format!("[access]\nstore = {store:?}\n{config}")).unwrap();
        let server = TestServer::start(Options { file: Some(file), ..Options::default() });
        Self { server, _dir: dir }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = (!body.is_null()).then_some(body);
        let (status, text) = request(&self.server.admin.to_string(), method, path, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }
}

fn open_push(name: &str) -> Value {
    json!({"name": name, "type": "push", "provider": [{"scheme": "open"}]})
}

#[test]
fn a_domain_is_made_shown_changed_and_removed() {
    let api = Api::start("");
    let (status, made) = api.ask("POST", "/api/v1/domains", &open_push("Push.Example.com"));
    assert_eq!((status, &made["name"]), (201, &json!("push.example.com")), "{made}");
    assert_eq!((&made["source"], &made["persisted"]), (&json!("api"), &json!(true)));
    let play =
        json!({"name": "play.example.com", "type": "play", "push_domain": "push.example.com"});
    assert_eq!(api.ask("POST", "/api/v1/domains", &play).0, 201);
    let (_, shown) = api.ask("GET", "/api/v1/domains/push.example.com", &Value::Null);
    assert_eq!(shown["play_domains"], json!(["play.example.com"]));
    let isolated = json!({"type": "push", "app_isolation": true, "provider": [{"scheme": "open"}]});
    let (status, changed) = api.ask("PUT", "/api/v1/domains/push.example.com", &isolated);
    assert_eq!((status, &changed["spec"]["app_isolation"]), (200, &json!(true)));
    let (status, error) = api.ask("DELETE", "/api/v1/domains/push.example.com", &Value::Null);
    assert_eq!((status, &error["error"]["code"]), (409, &json!("conflict")));
    assert_eq!(api.ask("DELETE", "/api/v1/domains/play.example.com", &Value::Null).0, 200);
    assert_eq!(api.ask("DELETE", "/api/v1/domains/push.example.com", &Value::Null).0, 200);
    let (_, list) = api.ask("GET", "/api/v1/domains", &Value::Null);
    assert_eq!(list["total"], 0);
    api.server.finish();
}

#[test]
fn what_is_wrong_with_a_domain_is_said_with_a_code() {
    let api = Api::start(
        "[domain.\"file.example.com\"]\ntype = \"push\"\n\
         [[domain.\"file.example.com\".provider]]\nscheme = \"open\"\n",
    );
    for (method, path, body, status, code) in [
        ("POST", "/api/v1/domains", open_push("*.example.com"), 400, "bad_request"),
        ("POST", "/api/v1/domains", open_push("file.example.com"), 409, "conflict"),
        ("POST", "/api/v1/domains", json!({"name": "a.b", "type": "both"}), 422, "bad_request"),
        ("POST", "/api/v1/domains", json!({"name": "a.b", "type": "push"}), 422, "invalid"),
        ("POST", "/api/v1/domains", json!({"type": "push"}), 422, "bad_request"),
        ("PUT", "/api/v1/domains/a.b", json!({"type": "play"}), 404, "not_found"),
        ("GET", "/api/v1/domains/a.b", Value::Null, 404, "not_found"),
        ("DELETE", "/api/v1/domains/file.example.com", Value::Null, 409, "conflict"),
        ("GET", "/api/v1/domains?limit=0", Value::Null, 400, "bad_request"),
        ("GET", "/api/v1/domains/a.b/quotas", Value::Null, 404, "not_found"),
        ("DELETE", "/api/v1/forbids/cam", Value::Null, 400, "bad_request"),
        ("DELETE", "/api/v1/forbids/address:10.0.0.1", Value::Null, 404, "not_found"),
        ("POST", "/api/v1/forbids", json!({"stream": "cam"}), 422, "invalid"),
        ("POST", "/api/v1/forbids", json!({"address": "10.0.0.1", "for_s": 0}), 422, "invalid"),
        ("POST", "/api/v1/forbids", json!({"address": "10.0.0.1", "until_s": 1}), 422, "invalid"),
    ] {
        let (is, error) = api.ask(method, path, &body);
        assert_eq!(
            (is, &error["error"]["code"]),
            (status, &json!(code)),
            "{method} {path}: {error}"
        );
    }
    api.server.finish();
}

#[test]
fn keys_are_changed_step_by_step_and_shown_as_fingerprints() {
    let api = Api::start("");
    let domain = json!({"name": "p.a", "type": "push", "provider": [
        {"scheme": "txsecret", "key": "old-sesame"}]});
    let (_, made) = api.ask("POST", "/api/v1/domains", &domain);
    let old = made["spec"]["provider"][0]["key"].clone();
    assert_eq!(old["from"], "written in place");
    let step = |step: &str, key: Option<&str>| {
        let mut body = json!({"scheme": "txsecret", "step": step});
        if let Some(key) = key {
            body["key"] = json!(key);
        }
        api.ask("POST", "/api/v1/domains/p.a/keys", &body)
    };
    assert_eq!(step("switch", None).0, 409);
    assert_eq!(step("add", None).0, 422);
    let (status, added) = step("add", Some("new-sesame"));
    let new = added["spec"]["provider"][0]["backup_key"].clone();
    assert!(status == 200 && new["fingerprint"] != old["fingerprint"], "{added}");
    let (_, switched) = step("switch", None);
    let provider = &switched["spec"]["provider"][0];
    assert_eq!((&provider["key"], &provider["backup_key"]), (&new, &old));
    let (_, retired) = step("retire", None);
    let provider = &retired["spec"]["provider"][0];
    assert_eq!((&provider["key"], &provider["backup_key"]), (&new, &Value::Null));
    api.server.finish();
}

#[test]
fn quotas_are_changed_alone() {
    let api = Api::start("");
    api.ask("POST", "/api/v1/domains", &open_push("p.a"));
    let path = "/api/v1/domains/p.a/quotas";
    let (status, quotas) =
        api.ask("PUT", path, &json!({"publishers_max": 3, "bitrate_bps_max": 9}));
    assert_eq!((status, &quotas["publishers_max"]), (200, &json!(3)));
    let (_, quotas) = api.ask("PUT", path, &json!({"subscribers_max": 5}));
    assert_eq!((&quotas["publishers_max"], &quotas["subscribers_max"]), (&json!(3), &json!(5)));
    assert_eq!(api.ask("GET", path, &Value::Null).1, quotas);
    assert_eq!(api.ask("PUT", path, &json!({"publisher_max": 3})).0, 422);
    api.server.finish();
}

#[test]
fn a_forbid_is_listed_given_another_end_and_lifted_and_cuts_who_is_there() {
    let api = Api::start("");
    let (status, done) =
        api.ask("POST", "/api/v1/forbids", &json!({"address": "10.0.0.0/8", "scope": "all"}));
    assert_eq!((status, &done["target"]), (200, &json!("address:10.0.0.0/8")), "{done}");
    let stream = json!({"domain": "h.example", "stream": "cam", "for_s": 60, "reason": "spam"});
    let (_, done) = api.ask("POST", "/api/v1/forbids", &stream);
    let target = done["target"].as_str().unwrap().to_owned();
    assert_eq!(target, "stream:default/live/cam", "as the registry knows it");
    assert_eq!(done["forbid"]["reason"], "spam");
    let (_, list) = api.ask("GET", "/api/v1/forbids", &Value::Null);
    assert_eq!(list["total"], 2);
    let path = "/api/v1/forbids/stream:h.example/live/cam";
    let (_, later) = api.ask("PUT", path, &json!({"for_s": 600}));
    assert!(later["until_s"].as_u64() > done["forbid"]["until_s"].as_u64(), "{later}");
    let (_, endless) = api.ask("PUT", path, &json!({}));
    assert_eq!(endless["until_s"], Value::Null);
    assert_eq!(api.ask("DELETE", path, &Value::Null), (200, json!({"resumed": target})));
    let oneshot = json!({"domain": "h.example", "stream": "cam", "oneshot": true});
    let (_, cut) = api.ask("POST", "/api/v1/forbids", &oneshot);
    assert_eq!((&cut["forbid"], &cut["cut"]), (&Value::Null, &json!(0)));
    let (_, list) = api.ask("GET", "/api/v1/forbids", &Value::Null);
    assert_eq!(list["total"], 1);
    api.server.finish();
}

#[test]
fn the_metrics_count_domains_and_forbids() {
    let api = Api::start("");
    api.ask("POST", "/api/v1/domains", &open_push("p.a"));
    api.ask("POST", "/api/v1/forbids", &json!({"address": "10.0.0.1"}));
    let (_, text) = request(&api.server.admin.to_string(), "GET", "/metrics", None);
    for line in ["ringcast_domains 1\n", "ringcast_domains_faulty 0\n", "ringcast_forbids 1\n"] {
        assert!(text.contains(line), "{line}");
    }
    api.server.finish();
}

/// The real program, everything it writes collected.
struct Program {
    child: Child,
    admin: String,
    threads: Vec<thread::JoinHandle<String>>,
}

impl Program {
    fn start(config: &std::path::Path, env: (&str, &str)) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args(["--config", config.to_str().unwrap()])
            .env(env.0, env.1)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, ready) = channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut err = child.stderr.take().unwrap();
        let stdout = thread::spawn(move || {
            let mut all = String::new();
            let mut line = String::new();
            while out.read_line(&mut line).unwrap() > 0 {
                if let Some(fields) = line.strip_prefix("ready ") {
                    let admin = fields.split(' ').find_map(|field| field.strip_prefix("admin="));
                    let _ = sender.send(admin.unwrap().to_owned());
                }
                all.push_str(&line);
                line.clear();
            }
            all
        });
        let stderr = thread::spawn(move || {
            let mut all = String::new();
            err.read_to_string(&mut all).unwrap();
            all
        });
        let admin = ready.recv_timeout(PATIENCE).expect("a ready line");
        Self { child, admin, threads: vec![stdout, stderr] }
    }

    fn finish(mut self) -> String {
        request(&self.admin, "POST", "/api/v1/drain", None);
        assert!(self.child.wait().unwrap().success());
        self.threads.drain(..).map(|thread| thread.join().unwrap()).collect()
    }
}

#[test]
fn nothing_the_server_writes_holds_a_key() {
    const KEYS: [&str; 7] = [
        "sesame-in-place",
        "sesame-in-file",
        "sesame-in-env",
        "sesame-by-api",
        "sesame-as-backup",
        "739154826173",
        "sesame-of-hook",
    ];
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("key");
    fs::write(&key_file, format!("{}\n", KEYS[1])).unwrap();
    let config = dir.path().join("ringcast.toml");
    let text = format!(
        "[listen]\nrtmp = \"127.0.0.1:0\"\nhttp = \"off\"\nadmin = \"127.0.0.1:0\"\n[workers]\ncount = 1\n\
         [log]\nlevel = \"trace\"\n[access]\nstore = {store:?}\n\
         [domain.\"a.example\"]\ntype = \"push\"\n\
         [[domain.\"a.example\".provider]]\nscheme = \"txsecret\"\nkey = {k0:?}\nbackup_key_file = {file:?}\n\
         [[domain.\"a.example\".provider]]\nscheme = \"aliyun_a\"\nkey_env = \"TEST_KEY\"\n\
         [[domain.\"a.example\".provider]]\nscheme = \"hook\"\nurl = \"http://127.0.0.1:1/\"\nkey = {k6:?}\n",
        store = dir.path().join("access.redb").display().to_string(),
        file = key_file.display().to_string(),
        k0 = KEYS[0],
        k6 = KEYS[6],
    );
    fs::write(&config, &text).unwrap();
    let program = Program::start(&config, ("TEST_KEY", KEYS[2]));
    let mut written = Vec::new();
    let mut ask = |method: &str, path: &str, body: Option<Value>| {
        let (status, text) = request(&program.admin, method, path, body.as_ref());
        written.push(text);
        status
    };
    let with_key =
        |key: Value| json!({"type": "push", "provider": [{"scheme": "txsecret", "key": key}]});
    let mut named = with_key(json!(KEYS[3]));
    named["name"] = json!("b.example");
    assert_eq!(ask("POST", "/api/v1/domains", Some(named.clone())), 201);
    assert_eq!(ask("POST", "/api/v1/domains", Some(named)), 409);
    let add = json!({"scheme": "txsecret", "step": "add", "key": KEYS[4]});
    assert_eq!(ask("POST", "/api/v1/domains/b.example/keys", Some(add.clone())), 200);
    assert_eq!(ask("POST", "/api/v1/domains/b.example/keys", Some(add)), 409);
    // Keys in the wrong place, of the wrong type, beside a field that does not exist.
    let number: Value = serde_json::from_str(KEYS[5]).unwrap();
    assert_eq!(ask("PUT", "/api/v1/domains/b.example", Some(with_key(number))), 422);
    let mut wrong = with_key(json!(KEYS[3]));
    wrong["provider"][0]["kee"] = json!(1);
    assert_eq!(ask("PUT", "/api/v1/domains/b.example", Some(wrong)), 422);
    assert_eq!(ask("PUT", "/api/v1/domains/a.example", Some(with_key(json!(KEYS[3])))), 409);
    fs::write(&config, format!("{text}kee = 1\n")).unwrap();
    assert_eq!(ask("POST", "/api/v1/reload", None), 422);
    fs::write(&config, text.replace("scheme = \"txsecret\"", "scheme = \"open\"")).unwrap();
    assert_eq!(ask("POST", "/api/v1/reload", None), 422);
    fs::write(&config, text.replace("type = \"push\"", "type = \"push\"\nsubscribers_max = 1"))
        .unwrap();
    assert_eq!(ask("POST", "/api/v1/reload", None), 200);
    for path in ["domains", "domains/a.example", "domains/b.example", "status", "forbids"] {
        assert_eq!(ask("GET", &format!("/api/v1/{path}"), None), 200);
    }
    assert_eq!(ask("GET", "/metrics", None), 200);
    written.push(program.finish());
    for args in [&["check"][..], &["config", "--config"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringcast"))
            .args(args)
            .arg(&config)
            .env("TEST_KEY", KEYS[2])
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        written.push(String::from_utf8(output.stdout).unwrap());
        written.push(String::from_utf8(output.stderr).unwrap());
    }
    let written = written.concat();
    assert!(written.contains("a.example") && written.contains("fingerprint"));
    for key in KEYS {
        assert!(!written.contains(key), "{key} was written: {written}");
    }
}
