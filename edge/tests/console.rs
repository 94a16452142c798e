//! The console as it is served: its files, their headers, and who may ask for what. With fake workers.
//!
//! What it does in a browser is tried in `e2e/console.rs`.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{Options, TestServer};
use ureq::http::{HeaderMap, Request};

const TOKEN: &str = "0123456789abcdef-test";

/// Status, headers and body of one request.
fn ask(
    server: &TestServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, HeaderMap, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(common::PATIENCE))
        .proxy(None)
        .build()
        .into();
    let mut request =
        Request::builder().method(method).uri(format!("http://{}{path}", server.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), response.headers().clone(), text)
}

fn get(server: &TestServer, path: &str) -> (u16, HeaderMap, String) {
    ask(server, "GET", path, &[], "")
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// The files of the console, by the path they are served at.
fn files() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
            match name.as_str() {
                _ if path.is_dir() => folders.push(path),
                // For the type checker and the tests.
                "tsconfig.json" | "package.json" => {}
                "index.html" => drop(found.insert("/".to_owned(), path)),
                _ => drop(found.insert(format!("/console/{name}"), path)),
            }
        }
    }
    found
}

#[test]
fn every_file_is_served_with_its_type_a_tag_and_the_policy() {
    let server = TestServer::start(Options::default());
    let mut tags = BTreeSet::new();
    for (path, file) in files() {
        let (status, headers, body) = get(&server, &path);
        assert_eq!((status, body), (200, fs::read_to_string(file).unwrap()), "{path}");
        let kind = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(header(&headers, "content-type"), kind, "{path}");
        assert_eq!(header(&headers, "cache-control"), "no-cache");
        assert_eq!(header(&headers, "x-content-type-options"), "nosniff");
        let policy = header(&headers, "content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|directive| directive == part), "{part}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");

        let tag = header(&headers, "etag").to_owned();
        let (status, again, body) = ask(&server, "GET", &path, &[("If-None-Match", &tag)], "");
        assert_eq!(
            (status, body.as_str(), header(&again, "etag")),
            (304, "", tag.as_str()),
            "{path}"
        );
        let other = [("If-None-Match", "\"0123\"")];
        assert_eq!(ask(&server, "GET", &path, &other, "").0, 200, "{path}");
        let (status, head, body) = ask(&server, "HEAD", &path, &[], "");
        assert_eq!((status, body.as_str(), header(&head, "etag")), (200, "", tag.as_str()));
        assert!(tags.insert(tag), "{path} has the tag of another file");
    }
    assert_eq!(get(&server, "/console/nothing.js").0, 404);
    assert_eq!(ask(&server, "POST", "/", &[], "").0, 405);
    server.finish();
}

/// What stands in quotes after each `before`.
fn quoted(text: &str, before: &str) -> Vec<String> {
    let parts = text.split(before).skip(1);
    let quoted = parts.filter_map(|part| {
        let quote = part.chars().next().filter(|c| ['"', '\''].contains(c))?;
        Some(part[1..].split(quote).next()?.to_owned())
    });
    quoted.collect()
}

#[test]
fn a_page_needs_nothing_from_elsewhere_and_holds_no_script_or_style_of_its_own() {
    let files = files();
    let served: BTreeSet<_> = files.keys().cloned().collect();
    let mut reached = BTreeSet::from(["/".to_owned()]);
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        let text = fs::read_to_string(&files[&path]).unwrap();
        let links = if path == "/" {
            [quoted(&text, " href="), quoted(&text, " src=")].concat()
        } else {
            [quoted(&text, " from "), quoted(&text, "import "), quoted(&text, "url(")].concat()
        };
        for link in links.iter().filter(|link| !link.starts_with('#')) {
            let base = url(&format!("http://host{path}"), link);
            assert!(served.contains(&base), "{path} asks for {link}");
            if reached.insert(base.clone()) {
                waiting.push(base);
            }
        }
    }
    assert_eq!(reached, served, "every file is used");
    let page = fs::read_to_string(&files["/"]).unwrap();
    for forbidden in ["<style", " style=", " onclick", " onload", "javascript:", "//cdn"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(!page.contains("<script>") && page.matches("<script").count() == 1);
    for (path, file) in &files {
        let text = fs::read_to_string(file).unwrap();
        for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(sink), "{path}: {sink}");
        }
    }
}

/// `link` seen from `base`, as a path.
fn url(base: &str, link: &str) -> String {
    let path = base.trim_start_matches("http://host");
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn the_files_need_no_token_and_what_they_ask_for_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ringcast.toml");
    fs::write(&file, format!("[admin]\ntoken = \"{TOKEN}\"\n")).unwrap();
    let server = TestServer::start(Options { file: Some(file), ..Options::default() });
    for path in ["/", "/console/main.js", "/console/style.css"] {
        assert_eq!(get(&server, path).0, 200, "{path}");
    }
    for path in ["/api/v1/server", "/api/v1/streams", "/metrics", "/console/nothing.js"] {
        assert_eq!(get(&server, path).0, 401, "{path}");
    }
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    let (status, answer, svg) =
        ask(&server, "POST", "/api/v1/qr", &headers, r#"{"text":"rtmp://a/b"}"#);
    assert_eq!((status, header(&answer, "content-type")), (200, "image/svg+xml"));
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"), "{svg}");
    for (body, status) in [
        (r#"{"text":""}"#.to_owned(), 422),
        (format!(r#"{{"text":"{}"}}"#, "x".repeat(2_049)), 422),
        (r#"{"txt":"a"}"#.to_owned(), 422),
        ("{".to_owned(), 400),
        (format!(r#"{{"text":"{}"}}"#, "x".repeat(40_000)), 413),
    ] {
        assert_eq!(ask(&server, "POST", "/api/v1/qr", &headers, &body).0, status, "{:.60}", body);
    }
    assert_eq!(ask(&server, "POST", "/api/v1/drain", &headers, "").0, 202);
    server.join().unwrap();
}

#[test]
fn without_a_token_the_console_may_change_things_and_other_pages_may_not() {
    let server = TestServer::start(Options::default());
    let port = server.admin.port();
    let host = format!("127.0.0.1:{port}");
    let kick = |origin: &str, host: &str| {
        ask(&server, "DELETE", "/api/v1/clients/0-7", &[("Origin", origin), ("Host", host)], "").0
    };
    assert_eq!(kick(&format!("http://{host}"), &host), 200);
    assert_eq!(kick(&format!("http://localhost:{port}"), &format!("localhost:{port}")), 200);
    for origin in ["http://evil.example", "http://127.0.0.1:1", "http://localhost", "null", ""] {
        assert_eq!(kick(origin, &host), 403, "{origin}");
    }
    // A name that leads here is not this address: its page could be anybody's.
    let rebound = format!("evil.example:{port}");
    assert_eq!(kick(&format!("http://{rebound}"), &rebound), 403);
    server.finish();
}
