//! A real HTTP server on loopback that is friendly, slow, down, or lies.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::client::HttpClient;
use super::service::HookService;
use super::{HookAnswer, HookQuestion};
use crate::access::Role;
use crate::access::testing::{ask, asked, rules};
use crate::metrics::HookResult;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that gives each connection the next of its answers, and tells what it was asked. An answer of
/// no bytes is silence: the connection stays open until the client leaves.
fn server(answers: Vec<Vec<u8>>) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = sender.send(read_request(&mut stream));
            if answer.is_empty() {
                thread::spawn(move || stream.read_to_end(&mut Vec::new()));
            } else {
                let _ = stream.write_all(&answer);
            }
        }
    });
    (port, requests)
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split_whitespace().next().unwrap().parse::<usize>().unwrap()
            });
            if body.len() >= length {
                return text.into_owned();
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&request).into_owned(),
            Ok(count) => request.extend_from_slice(&piece[..count]),
        }
    }
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into()
}

fn question(port: u16, settings: &str, query: &str) -> Box<HookQuestion> {
    let rules = rules(&format!(
        "[domain.\"d\"]\ntype = \"push\"\n[[domain.\"d\".provider]]\nscheme = \"hook\"\n\
         url = \"http://127.0.0.1:{port}/may?x=1\"\n{settings}\n"
    ));
    asked(ask(&rules, Role::Publish, &format!("rtmp://d/live/cam?{query}")))
}

/// Asks the questions one after the other.
fn answers(questions: &[Box<HookQuestion>]) -> Vec<(Option<HookAnswer>, HookResult)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let service = HookService::new(HttpClient::new().unwrap());
        let mut answers = Vec::new();
        for question in questions {
            answers.push(service.answer(question).await);
        }
        answers
    })
}

#[test]
fn a_friendly_hook_is_told_everything_signed_and_its_answer_counts() {
    let (port, requests) = server(vec![http("200 OK", r#"{"allow":true,"stream":"room"}"#)]);
    let question = question(port, "key = \"hook-key\"", "token=t%20t");
    let [(Some(answer), HookResult::Allowed)] = &answers(&[question])[..] else { panic!() };
    assert_eq!(answer.stream.as_deref(), Some("room"));
    let request = requests.recv().unwrap();
    assert!(request.starts_with("POST /may?x=1 HTTP/1.1\r\n"), "{request}");
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    for (name, value) in [
        ("action", "publish"),
        ("domain", "d"),
        ("app", "live"),
        ("stream", "cam"),
        ("path", "d/live/cam"),
        ("query", "token=t%20t"),
        ("peer", "192.0.2.7"),
        ("connection", "0-1"),
    ] {
        assert_eq!(told[name], value, "{name}");
    }
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"hook-key");
    let expected = aws_lc_rs::hmac::sign(&key, format!("1000.{body}").as_bytes());
    let hex: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(head.contains(&format!("x-ringcast-signature: {hex}")), "{head}");
}

#[test]
fn a_slow_hook_is_asked_again_then_left_alone() {
    let (port, requests) = server(vec![Vec::new(); 8]);
    let settings = "timeout_ms = 200\nretries = 1\nbreaker_failures = 2";
    let three = [1, 2, 3].map(|n| question(port, settings, &format!("n={n}")));
    let results: Vec<_> = answers(&three).into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, [HookResult::Failed, HookResult::Failed, HookResult::LeftAlone]);
    for _ in 0..4 {
        requests.recv_timeout(PATIENCE).expect("two tries for each of the first two");
    }
    assert!(requests.try_recv().is_err(), "the third did not reach the hook");
}

#[test]
fn a_hook_that_is_down_gives_no_answer() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = "retries = 0\nbreaker_failures = 1";
    let two = [question(port, settings, ""), question(port, settings, "")];
    let results: Vec<_> = answers(&two).into_iter().map(|(_, result)| result).collect();
    assert_eq!(results, [HookResult::Failed, HookResult::LeftAlone]);
}

#[test]
fn a_hook_that_lies_gives_no_answer() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(200_000)).into_bytes();
    let lies = [
        http("200 OK", "<html>It works!</html>"),
        http("200 OK", r#"{"allow":1}"#),
        http("302 Found", r#"{"allow":true}"#),
        http("500 Oops", r#"{"allow":true}"#),
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\nConnection: close\r\n\r\n{\"allow\":true}"
            .to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        endless,
    ];
    for lie in lies {
        let shown = String::from_utf8_lossy(&lie[..lie.len().min(60)]).into_owned();
        let (port, _requests) = server(vec![lie]);
        let question = question(port, "retries = 0", "");
        let [(None, HookResult::Failed)] = &answers(&[question])[..] else { panic!("{shown}") };
    }
}

#[test]
fn a_failure_is_made_good_by_the_next_try() {
    let (port, _requests) = server(vec![http("503 Busy", ""), http("204 No Content", "")]);
    let [(Some(answer), HookResult::Allowed)] = &answers(&[question(port, "retries = 1", "")])[..]
    else {
        panic!()
    };
    assert_eq!(*answer, HookAnswer::default());
}

#[test]
fn an_answer_is_kept_for_the_same_question_as_long_as_both_sides_allow() {
    let no = r#"{"allow":false,"reason":"no","ttl_s":60}"#;
    for (settings, results, asked_count) in [
        ("", [HookResult::Refused, HookResult::Cached, HookResult::Refused], 2),
        ("cache_s_max = 0", [HookResult::Refused; 3], 3),
    ] {
        let (port, requests) = server(vec![http("200 OK", no); 4]);
        let three = ["a=1", "a=1", "a=2"].map(|query| question(port, settings, query));
        let answers = answers(&three);
        assert!(answers.iter().all(|(a, _)| a.as_ref().unwrap().refusal.as_deref() == Some("no")));
        assert_eq!(answers.iter().map(|(_, result)| *result).collect::<Vec<_>>(), results);
        assert_eq!(requests.try_iter().count(), asked_count);
    }
}
