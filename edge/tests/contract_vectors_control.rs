//! Signatures of control requests and callbacks against known answers: values made by other
//! implementations, and examples from public documents, in `data/control_vectors.json`. All keys in it are
//! invented or published examples. Every answer is computed by the library and printed by `ringctl sign`.

use std::fs;
use std::process::{Command, Output};
use std::sync::LazyLock;

use edge::access::secret::SecretText;
use edge::signature::{
    OssRequest, SignatureError, TrtcAccount, TrtcTrack, aliyun_push_callback, aliyun_rpc,
    oss_header, oss_url, tencent_api, tencent_event, trtc_stream_id,
};
use proptest::prelude::*;
use serde_json::Value;

static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("data/control_vectors.json")).unwrap());

/// The vectors of one scheme; their number is fixed, so that none is lost unseen.
#[track_caller]
fn list(name: &str, count: usize) -> &'static [Value] {
    let list = VECTORS[name].as_array().unwrap();
    assert_eq!(list.len(), count, "{name}");
    list
}

fn text<'v>(vector: &'v Value, name: &str) -> &'v str {
    vector[name].as_str().unwrap_or_else(|| panic!("{name} of {vector}"))
}

fn number(vector: &Value, name: &str) -> u64 {
    vector[name].as_u64().unwrap_or_else(|| panic!("{name} of {vector}"))
}

fn key(vector: &Value, name: &str) -> SecretText {
    SecretText::new(text(vector, name)).unwrap()
}

/// Names and values of an object, in the order of their names.
fn pairs<'v>(vector: &'v Value, name: &str) -> Vec<(&'v str, &'v str)> {
    let object = vector[name].as_object();
    let pairs = object.into_iter().flatten();
    pairs.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn ringctl(secret: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
    // A port that nothing listens on: whoever asks a server here fails.
    command.args(["--admin", "127.0.0.1:1", "sign"]).args(arguments);
    command.env_remove("RINGCAST_URL_KEY").env_remove("RINGCAST_ADMIN_TOKEN");
    if let Some(secret) = secret {
        command.env("RINGCAST_URL_KEY", secret);
    }
    command.output().unwrap()
}

#[track_caller]
fn stdout(secret: Option<&str>, arguments: &[&str]) -> String {
    let output = ringctl(secret, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `ringctl sign --json` answers with the key in the environment.
#[track_caller]
fn signed(secret: &str, arguments: &[&str]) -> Value {
    let answer = stdout(Some(secret), &[arguments, &["--json"]].concat());
    assert!(!answer.contains(secret), "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn signatures_over_key_and_time_are_the_known_ones() {
    for (name, count, command, sign) in [
        ("tencent_api_sign", 2, "tencent-api", tencent_api as fn(&SecretText, u64) -> String),
        ("tencent_notify_sign", 1, "tencent-event", tencent_event),
    ] {
        for vector in list(name, count) {
            let t = number(vector, "t");
            assert_eq!(sign(&key(vector, "key"), t), text(vector, "sign"), "{vector}");
            assert_ne!(sign(&key(vector, "key"), t + 1), text(vector, "sign"), "{vector}");
            let answer = signed(text(vector, "key"), &[command, "--t", &t.to_string()]);
            assert_eq!((&answer["sign"], &answer["t"]), (&vector["sign"], &vector["t"]));
        }
    }
}

#[test]
fn the_signature_of_a_push_callback_is_the_known_one() {
    for vector in list("aliyun_push_callback_sig", 1) {
        let (domain, at) = (text(vector, "domain"), number(vector, "timestamp"));
        let signature = text(vector, "signature");
        assert_eq!(aliyun_push_callback(&key(vector, "key"), domain, at), signature);
        assert_ne!(aliyun_push_callback(&key(vector, "key"), "other.example.com", at), signature);
        let at = at.to_string();
        let arguments = ["aliyun-callback", "--domain", domain, "--timestamp", &at];
        assert_eq!(signed(text(vector, "key"), &arguments)["signature"], signature);
    }
}

fn object<'v>(vector: &'v Value, headers: &'v [(&'v str, &'v str)]) -> OssRequest<'v> {
    let (method, target) = (text(vector, "method"), text(vector, "target"));
    OssRequest { method, target, bucket: vector["bucket"].as_str(), headers }
}

/// The arguments of `ringctl sign` for the request of a vector.
fn object_arguments(command: &str, vector: &Value) -> Vec<String> {
    let mut arguments = vec![command, text(vector, "method"), text(vector, "target")];
    arguments.extend(["--access-key-id", text(vector, "access_key_id")]);
    if let Some(bucket) = vector["bucket"].as_str() {
        arguments.extend(["--bucket", bucket]);
    }
    let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    for (name, value) in pairs(vector, "headers") {
        arguments.extend(["--header".to_owned(), format!("{name}: {value}")]);
    }
    arguments
}

#[test]
fn requests_to_the_object_storage_have_the_known_authorization() {
    for vector in list("oss_v1_header", 10) {
        let headers = pairs(vector, "headers");
        let made = oss_header(&key(vector, "secret"), &object(vector, &headers)).unwrap();
        assert_eq!(made.string_to_sign, text(vector, "string_to_sign"), "{vector}");
        let authorization = made.oss_authorization(text(vector, "access_key_id"));
        assert_eq!(authorization, text(vector, "authorization"), "{vector}");
        let arguments = object_arguments("oss-header", vector);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let answer = signed(text(vector, "secret"), &arguments);
        assert_eq!(answer["authorization"], vector["authorization"]);
        assert_eq!(answer["string_to_sign"], vector["string_to_sign"]);
    }
}

#[test]
fn both_ways_of_naming_a_bucket_are_signed_alike() {
    for vector in list("oss_v1_header", 10) {
        let headers = pairs(vector, "headers");
        let by_path = object(vector, &headers);
        let Some(target) = by_path.target.strip_prefix("/test-bucket") else { continue };
        let by_host = OssRequest { target, bucket: Some("test-bucket"), ..by_path };
        let key = key(vector, "secret");
        assert_eq!(oss_header(&key, &by_host), oss_header(&key, &by_path), "{vector}");
    }
}

#[test]
fn signed_addresses_of_files_have_the_known_query() {
    for vector in list("oss_url_v1", 1) {
        let (request, expires) = (object(vector, &[]), number(vector, "expires_unix"));
        let made = oss_url(&key(vector, "secret"), &request, expires).unwrap();
        assert_eq!(made.string_to_sign, text(vector, "string_to_sign"));
        assert_eq!(made.signature, text(vector, "signature"));
        let id = text(vector, "access_key_id");
        // The order in which parameters come is free.
        assert_eq!(made.oss_query(id, expires), text(vector, "query"));
        let mut arguments = object_arguments("oss-url", vector);
        arguments.extend(["--expires".to_owned(), expires.to_string()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let answer = signed(text(vector, "secret"), &arguments);
        for name in ["query", "signature", "string_to_sign"] {
            assert_eq!(answer[name], vector[name], "{name}");
        }
    }
}

#[test]
fn requests_to_the_live_api_have_the_known_signature_in_any_order() {
    for vector in list("aliyun_rpc", 1) {
        let (key, method) = (key(vector, "secret"), text(vector, "method"));
        let mut params = pairs(vector, "params");
        for _ in 0..params.len() {
            params.rotate_left(1);
            let made = aliyun_rpc(&key, method, &params).unwrap();
            assert_eq!(made.string_to_sign, text(vector, "string_to_sign"));
            assert_eq!(made.signature, text(vector, "signature"));
        }
        let as_received = [&params[..], &[("Signature", "anything")]].concat();
        let made = aliyun_rpc(&key, method, &as_received).unwrap();
        assert_eq!(made.signature, text(vector, "signature"));
        let given: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec!["aliyun-rpc", method];
        arguments.extend(given.iter().map(String::as_str));
        let answer = signed(text(vector, "secret"), &arguments);
        assert_eq!(answer["signature"], vector["signature"]);
        assert_eq!(answer["string_to_sign"], vector["string_to_sign"]);
        params.push(params[0]);
        assert_eq!(aliyun_rpc(&key, method, &params), Err(SignatureError::Twice));
    }
}

#[test]
fn stream_ids_of_rooms_are_the_known_ones_and_need_no_key() {
    for vector in list("trtc_stream_id", 4) {
        let sdk_app_id = vector["sdkappid"].as_u64().map(|id| id.to_string());
        let (account, option, id) = match (&sdk_app_id, vector["bizid"].as_str()) {
            (Some(id), None) => (TrtcAccount::SdkAppId(id.parse().unwrap()), "--sdk-app-id", &**id),
            (None, Some(bizid)) => (TrtcAccount::Bizid(bizid), "--bizid", bizid),
            _ => panic!("{vector}"),
        };
        let track = match text(vector, "type") {
            "main" => TrtcTrack::Main,
            "aux" => TrtcTrack::Aux,
            other => panic!("{other}"),
        };
        let (room, user) = (text(vector, "room"), text(vector, "user"));
        assert_eq!(trtc_stream_id(account, room, user, track), text(vector, "stream_id"));
        let names = ["--room", room, "--user", user, "--track", track.text()];
        let answer = stdout(None, &[&["trtc-stream", option, id], &names[..]].concat());
        let expected = format!("{:<20} {}\n", "stream_id", text(vector, "stream_id"));
        assert_eq!(answer, expected);
    }
    let odd = trtc_stream_id(TrtcAccount::SdkAppId(7), "a b", "ü/1", TrtcTrack::Aux);
    assert_eq!(odd, "7_a%20b_%C3%BC%2F1_aux");
    let missing = ringctl(None, &["trtc-stream", "--room", "1", "--user", "2"]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn the_key_comes_from_an_option_a_file_or_the_environment_and_must_be_there() {
    let vector = &list("tencent_notify_sign", 1)[0];
    let (secret, sign) = (text(vector, "key"), text(vector, "sign"));
    let t = number(vector, "t").to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let asked = ["tencent-event", "--t", &t];
    for (variable, place) in [
        (None, vec!["--key", secret]),
        (None, vec!["--key-file", file.to_str().unwrap()]),
        (Some(secret), vec![]),
        (Some("another"), vec!["--key", secret]),
    ] {
        let answer = stdout(variable, &[&asked[..], &place].concat());
        assert!(answer.contains(sign) && !answer.contains(secret), "{answer}");
    }
    let output = ringctl(None, &asked);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("ringctl: a key is needed: "), "{error}");
}

#[test]
fn what_is_signed_is_shown_on_one_line_for_people() {
    let vector = &list("oss_v1_header", 10)[9];
    let arguments = object_arguments("oss-header", vector);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let answer = stdout(Some(text(vector, "secret")), &arguments);
    assert_eq!(answer.lines().count(), 2, "{answer}");
    assert!(answer.contains(&text(vector, "string_to_sign").replace('\n', "\\n")), "{answer}");
}

#[test]
fn what_cannot_be_signed_without_doubt_is_refused() {
    use SignatureError::{Escape, LineBreak, Method, NoDate, Target, Twice};
    let key = SecretText::new("k").unwrap();
    let date: &[_] = &[("Date", "now")];
    let twice: &[_] = &[("Date", "now"), ("x-oss-acl", "private"), ("X-OSS-ACL", "private")];
    for (method, target, headers, expected) in [
        ("get", "/b/k", date, Method),
        ("", "/b/k", date, Method),
        ("GET\n", "/b/k", date, Method),
        ("GET", "b/k", date, Target),
        ("GET", "", date, Target),
        ("GET", "/b/k%", date, Escape),
        ("GET", "/b/k%2", date, Escape),
        ("GET", "/b/k%+1", date, Escape),
        ("GET", "/b/k%FF", date, Escape),
        ("GET", "/b/k?status=%zz", date, Escape),
        ("GET", "/b/k%0A", date, LineBreak),
        ("GET", "/b/k?status=%0D", date, LineBreak),
        ("GET", "/b/k", &[("Date", "now\nx-oss-acl:private")], LineBreak),
        ("GET", "/b/k", &[("Date", "now"), ("x-oss-a\n", "b")], LineBreak),
        ("GET", "/b/k?live&live", date, Twice),
        ("GET", "/b/k", &[("Date", "now"), ("date", "then")], Twice),
        ("GET", "/b/k", twice, Twice),
        ("GET", "/b/k", &[], NoDate),
    ] {
        let request = OssRequest { method, target, bucket: None, headers };
        assert_eq!(oss_header(&key, &request), Err(expected), "{method} {target} {headers:?}");
    }
    // What is not signed does no harm.
    let request =
        OssRequest { method: "GET", target: "/b?prefix=1&prefix=2", bucket: None, headers: date };
    let made = oss_header(&key, &request).unwrap();
    assert_eq!(made.string_to_sign, "GET\n\n\nnow\n/b/");
    assert_eq!(aliyun_rpc(&key, "post", &[]), Err(Method));
    let output = ringctl(Some("k"), &["oss-header", "GET", "/b/k", "--access-key-id", "id"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "ringctl: the headers have neither Date nor x-oss-date\n");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_makes_a_signature_panic(
        method in "[A-Z]{0,4}\\PC{0,2}",
        target in "/?\\PC{0,20}[?%]?\\PC{0,20}",
        bucket in prop::option::of("\\PC{0,8}"),
        header in ("(x-oss-|Date)?\\PC{0,8}", "\\PC{0,8}"),
    ) {
        let key = SecretText::new("k").unwrap();
        let headers = [(&*header.0, &*header.1)];
        let bucket = bucket.as_deref();
        let request = OssRequest { method: &method, target: &target, bucket, headers: &headers };
        let by_url = oss_url(&key, &request, 1);
        let by_header = oss_header(&key, &request);
        prop_assert!(by_url.is_ok() || by_header.is_err());
        let _ = aliyun_rpc(&key, &method, &[(&target, &header.1)]);
    }
}
