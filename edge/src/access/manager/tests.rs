//! Changes while the server runs: what is refused, what is kept, what comes into force.

use super::*;
use crate::access::forbid::Scope;
use crate::access::keys::NewKey;
use crate::access::providers::txsecret;
use crate::access::secret::SecretText;
use crate::access::testing::{allowed, ask, ask_from, config, denied};
use crate::access::{DenyReason, Role};

fn manager(text: &str) -> Manager {
    Manager::open(config(text), 0).unwrap()
}

fn spec(json: &str) -> DomainSpec {
    serde_json::from_str(json).unwrap()
}

fn push_with(key: &str) -> DomainSpec {
    spec(&format!(r#"{{"type":"push","provider":[{{"scheme":"txsecret","key":"{key}"}}]}}"#))
}

const OPEN_PUSH: &str = r#"{"type":"push","provider":[{"scheme":"open"}]}"#;

fn message<T: fmt::Debug>(result: Result<T, AccessError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_domain_made_is_in_force_at_once_and_gone_when_removed() {
    let manager = manager("");
    let url = "rtmp://p.example.com/live/cam";
    assert_eq!(allowed(ask(&manager.rules(), Role::Publish, url)).path.vhost(), "default");
    manager.put_domain("p.example.com", push_with("k"), false).unwrap();
    assert_eq!(denied(ask(&manager.rules(), Role::Publish, url)).event_code, 500);
    manager.remove_domain("p.example.com").unwrap();
    assert_eq!(allowed(ask(&manager.rules(), Role::Publish, url)).path.vhost(), "default");
}

#[test]
fn links_must_fit_and_are_not_torn() {
    let manager = manager("");
    let play = |push: &str, region: &str| {
        spec(&format!(r#"{{"type":"play","push_domain":"{push}","region":"{region}"}}"#))
    };
    let put = |name: &str, spec| manager.put_domain(name, spec, false);
    assert!(message(put("play.a", play("push.a", "default"))).contains("does not exist"));
    put("push.a", spec(OPEN_PUSH)).unwrap();
    assert!(message(put("play.a", play("push.a", "eu"))).contains("region"));
    put("play.a", play("push.a", "default")).unwrap();
    assert!(message(put("play.b", play("play.a", "default"))).contains("is a play domain"));
    assert!(message(manager.remove_domain("push.a")).contains("play.a is linked"));
    assert_eq!(manager.domain("push.a").unwrap().play_domains, ["play.a"]);
    let moved = spec(r#"{"type":"push","region":"eu","provider":[{"scheme":"open"}]}"#);
    assert!(message(manager.put_domain("push.a", moved, true)).contains("never change"));
    let turned = play("push.a", "default");
    assert!(message(manager.put_domain("push.a", turned, true)).contains("never change"));
    put("play.unlinked", spec(r#"{"type":"play"}"#)).unwrap();
    let denial = denied(ask(&manager.rules(), Role::Play, "rtmp://play.unlinked/live/cam"));
    assert_eq!(denial.text, "play domain play.unlinked has no push domain");
}

#[test]
fn a_change_of_the_push_domain_reaches_its_play_domains() {
    let manager = manager("");
    manager.put_domain("push.a", spec(OPEN_PUSH), false).unwrap();
    let play = spec(r#"{"type":"play","push_domain":"push.a"}"#);
    manager.put_domain("play.a", play, false).unwrap();
    let path = || allowed(ask(&manager.rules(), Role::Play, "rtmp://play.a/show/cam")).path;
    assert_eq!(path().as_str(), "push.a/live/cam");
    let isolated = spec(&OPEN_PUSH.replace("{\"type", "{\"app_isolation\":true,\"type"));
    manager.put_domain("push.a", isolated, true).unwrap();
    assert_eq!(path().as_str(), "push.a/show/cam");
}

#[test]
fn what_stands_in_the_file_is_changed_in_the_file() {
    let text =
        "[domain.\"p.a\"]\ntype = \"push\"\n[[domain.\"p.a\".provider]]\nscheme = \"open\"\n";
    let manager = manager(text);
    for result in [
        manager.put_domain("p.a", spec(OPEN_PUSH), true).map(drop),
        manager.put_domain("p.a", spec(OPEN_PUSH), false).map(drop),
        manager.remove_domain("p.a"),
        manager.rotate("p.a", Scheme::Txsecret, Rotation::Switch).map(drop),
    ] {
        assert!(matches!(result, Err(AccessError::Conflict(_))), "{result:?}");
    }
    assert!(manager.domain("p.a").unwrap().from_file);
    manager.apply_config(config(""));
    assert!(manager.domain("p.a").is_err(), "a reload takes it away");
}

#[test]
fn a_second_domain_of_a_name_and_a_change_of_none_are_refused() {
    let manager = manager("");
    manager.put_domain("p.a", spec(OPEN_PUSH), false).unwrap();
    assert!(message(manager.put_domain("p.a", spec(OPEN_PUSH), false)).contains("exists already"));
    assert_eq!(message(manager.put_domain("p.b", spec(OPEN_PUSH), true)), "no domain p.b");
}

#[test]
fn during_a_change_of_keys_there_is_no_moment_in_which_good_addresses_are_refused() {
    let manager = manager("");
    manager.put_domain("p.a", push_with("old-key"), false).unwrap();
    let key = |text: &str| SecretText::new(text).unwrap();
    let is_good = |signer: &str| {
        let query = txsecret::sign(&key(signer), "cam", 2_000);
        let url = format!("rtmp://p.a/live/cam?{query}");
        matches!(ask(&manager.rules(), Role::Publish, &url), crate::access::Decision::Allow(_))
    };
    let rotate = |step| manager.rotate("p.a", Scheme::Txsecret, step);
    assert_eq!((is_good("old-key"), is_good("new-key")), (true, false));
    assert!(message(rotate(Rotation::Switch)).contains("no backup key"));
    assert!(message(rotate(Rotation::Retire)).contains("no backup key"));
    let new = NewKey { key: Some(key("new-key")), ..NewKey::default() };
    rotate(Rotation::Add(new.clone())).unwrap();
    assert_eq!((is_good("old-key"), is_good("new-key")), (true, true), "added");
    assert!(message(rotate(Rotation::Add(new))).contains("retire it first"));
    let shown = rotate(Rotation::Switch).unwrap();
    assert_eq!((is_good("old-key"), is_good("new-key")), (true, true), "switched");
    let fingerprint = &shown.spec["provider"][0]["key"]["fingerprint"];
    assert_eq!(*fingerprint, key("new-key").fingerprint());
    rotate(Rotation::Retire).unwrap();
    assert_eq!((is_good("old-key"), is_good("new-key")), (false, true), "retired");
    assert!(message(manager.rotate("p.a", Scheme::Oss, Rotation::Switch)).contains("oss"));
}

#[test]
fn quotas_count_on_when_the_domain_is_changed_or_made_anew() {
    let manager = manager("");
    let limited = |max: u32| {
        spec(&OPEN_PUSH.replace("{\"type", &format!("{{\"publishers_max\":{max},\"type")))
    };
    manager.put_domain("p.a", limited(2), false).unwrap();
    let publish =
        |name: &str| ask(&manager.rules(), Role::Publish, &format!("rtmp://p.a/live/{name}"));
    manager
        .edit_domain("p.a", |spec| {
            spec.style = crate::access::spec::Style::Aliyun;
            Ok(())
        })
        .unwrap();
    let held = allowed(publish("one"));
    manager
        .edit_domain("p.a", |spec| {
            spec.publishers_max = 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(denied(publish("two")).reason, DenyReason::Quota);
    manager.remove_domain("p.a").unwrap();
    let anew = DomainSpec { style: crate::access::spec::Style::Oss, ..limited(1) };
    manager.put_domain("p.a", anew, false).unwrap();
    assert_eq!(denied(publish("two")).reason, DenyReason::Quota);
    assert_eq!(manager.domain("p.a").unwrap().publishers, 1);
    drop(held);
    allowed(publish("two"));
}

fn forbid_until(until_s: Option<u64>) -> Forbid {
    Forbid { scope: Scope::Publish, until_s, since_s: 0, reason: "r".into() }
}

#[test]
fn forbids_and_domains_survive_a_restart_and_ended_forbids_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("access.redb");
    let text = format!("[access]\nstore = {:?}\n", store.display().to_string());
    let target = |text: &str| text.parse::<Target>().unwrap();
    let (for_good, for_now) = (target("stream:p.a/live/cam"), target("address:192.0.2.9"));
    {
        let manager = manager(&text);
        assert!(manager.is_persistent());
        manager.put_domain("p.a", spec(OPEN_PUSH), false).unwrap();
        manager.put_domain("gone.a", spec(OPEN_PUSH), false).unwrap();
        manager.remove_domain("gone.a").unwrap();
        manager.forbid(for_good.clone(), forbid_until(None)).unwrap();
        manager.forbid(for_now.clone(), forbid_until(Some(500))).unwrap();
    }
    let manager = Manager::open(config(&text), 600).unwrap();
    assert_eq!(manager.domains().len(), 1);
    assert_eq!(manager.forbids(600), [(for_good.clone(), forbid_until(None))]);
    let url = "rtmp://p.a/live/cam";
    let denial = denied(ask(&manager.rules(), Role::Publish, url));
    assert_eq!((denial.text.as_str(), denial.event_code), ("this stream is forbidden", 305));
    manager.resume(&for_good).unwrap();
    allowed(ask(&manager.rules(), Role::Publish, url));
    assert_eq!(message(manager.resume(&for_good)), "stream:p.a/live/cam is not forbidden");
    drop(manager);
    let manager = Manager::open(config(&text), 0).unwrap();
    assert!(!manager.forbids(0).iter().any(|(target, _)| *target == for_good), "lifted for good");
}

#[test]
fn a_forbid_that_has_ended_is_out_of_force_before_it_is_cleared_away() {
    let manager = manager("");
    let target: Target = "address:192.0.2.7".parse().unwrap();
    manager.forbid(target.clone(), forbid_until(Some(1_000))).unwrap();
    let at = |unix_s| {
        let peer = [192, 0, 2, 7].into();
        ask_from(&manager.rules(), Role::Publish, "rtmp://h/live/cam", peer, unix_s)
    };
    assert_eq!(denied(at(999)).text, "this address is forbidden until 1970-01-01T00:16:40Z");
    allowed(at(1_000));
    assert_eq!(manager.counts().2, 1);
    assert_eq!(manager.expire(999), []);
    assert_eq!(manager.expire(1_000), [target]);
    assert_eq!(manager.counts().2, 0);
}

#[test]
fn a_domain_whose_key_is_gone_refuses_everybody_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "sesame").unwrap();
    let manager = manager("");
    let with_file = spec(&format!(
        r#"{{"type":"push","provider":[{{"scheme":"txsecret","key_file":{:?}}}]}}"#,
        key.display().to_string()
    ));
    manager.put_domain("p.a", with_file, false).unwrap();
    std::fs::remove_file(&key).unwrap();
    manager.apply_config(config(""));
    let denial = denied(ask(&manager.rules(), Role::Publish, "rtmp://p.a/live/cam"));
    assert_eq!(denial.reason, DenyReason::Misconfigured);
    assert_eq!(manager.faults().len(), 1);
    std::fs::write(&key, "sesame").unwrap();
    manager.apply_config(config(""));
    assert!(manager.faults().is_empty());
}
