//! What the rules say, domain by domain. Schemes have their own tests; here they only mark who decides.

use super::*;
use crate::access::Decision;
use crate::access::testing::{allowed, ask, ask_from, asked, denied, rules};

const TWO_DOMAINS: &str = r#"
[domain."push.example.com"]
type = "push"
[[domain."push.example.com".provider]]
scheme = "open"
[domain."Play.example.com"]
type = "play"
push_domain = "PUSH.example.com"
"#;

#[test]
fn without_domains_everything_is_as_the_vhosts_say() {
    let rules = rules("[vhost.\"closed.example.com\"]\npublish = false\n[vhost.\"*.wild.net\"]\n");
    let grant = allowed(ask(&rules, Role::Publish, "rtmp://anything/live/any name!?k=v"));
    assert_eq!(grant.path.as_str(), "default/live/any name!");
    assert!(grant.place.is_none() && grant.duplicate_publish.is_none());
    let denial = denied(ask(&rules, Role::Publish, "rtmp://closed.example.com/live/cam"));
    assert_eq!(denial.text, "publishing is not allowed on closed.example.com");
    let grant = allowed(ask(&rules, Role::Play, "rtmp://closed.example.com/live/cam"));
    assert_eq!(grant.path.as_str(), "closed.example.com/live/cam");
    let grant = allowed(ask(&rules, Role::Play, "rtmp://a.wild.net/live/cam"));
    assert_eq!(grant.path.as_str(), "a.wild.net/live/cam", "hosts under a wildcard stay apart");
}

#[test]
fn a_play_domain_serves_what_its_push_domain_receives() {
    let rules = rules(TWO_DOMAINS);
    let publish = allowed(ask(&rules, Role::Publish, "rtmp://PUSH.example.com:1935/live/cam"));
    let play = allowed(ask(&rules, Role::Play, "rtmp://play.example.com/live/cam"));
    assert_eq!(publish.path.as_str(), "push.example.com/live/cam");
    assert_eq!(publish.path, play.path);
}

#[test]
fn a_domain_serves_its_own_role_only() {
    let rules = rules(TWO_DOMAINS);
    for (role, url, text) in [
        (
            Role::Play,
            "rtmp://push.example.com/live/cam",
            "push.example.com is a push domain: playing is not served here",
        ),
        (
            Role::Publish,
            "rtmp://play.example.com/live/cam",
            "play.example.com is a play domain: publishing is not served here",
        ),
    ] {
        let denial = denied(ask(&rules, role, url));
        let expected = (text, DenyReason::WrongDomain, 301);
        assert_eq!((denial.text.as_str(), denial.reason, denial.event_code), expected);
    }
}

#[test]
fn an_unknown_host_is_refused_once_there_are_domains_unless_it_is_a_vhost() {
    let url = "rtmp://10.0.0.1/live/cam";
    let vhost = "[vhost.\"old.example.com\"]\n";
    let strict = rules(&format!("{vhost}{TWO_DOMAINS}"));
    let denial = denied(ask(&strict, Role::Publish, url));
    assert_eq!(denial.text, "unknown domain 10.0.0.1");
    assert_eq!((denial.reason, denial.event_code), (DenyReason::UnknownDomain, 301));
    let grant = allowed(ask(&strict, Role::Publish, "rtmp://old.example.com/live/cam"));
    assert_eq!(grant.path.as_str(), "old.example.com/live/cam");
    let open = rules(&format!("[access]\nunknown_domains = \"open\"\n{TWO_DOMAINS}"));
    assert_eq!(allowed(ask(&open, Role::Publish, url)).path.as_str(), "default/live/cam");
}

#[test]
fn whom_a_parameter_names_decides_and_receives_so_nobody_slips_past_the_other_domain() {
    let closed =
        TWO_DOMAINS.replace(r#"scheme = "open""#, "scheme = \"ip\"\nallow = [\"10.0.0.1\"]");
    let open = r#"
[domain."open.example.com"]
type = "push"
[[domain."open.example.com".provider]]
scheme = "open"
"#;
    let rules = rules(&format!("{closed}{open}"));
    let url = "rtmp://open.example.com/live/cam?vhost=push.example.com";
    assert_eq!(denied(ask(&rules, Role::Publish, url)).reason, DenyReason::Ip);
    let url = "rtmp://push.example.com/live/cam?vhost=open.example.com";
    let grant = allowed(ask(&rules, Role::Publish, url));
    assert_eq!(grant.path.vhost(), "open.example.com");
}

#[test]
fn names_are_as_strict_as_the_domain_says() {
    let strict = rules(TWO_DOMAINS);
    for (name, code) in
        [("live/ca.m", 308), ("live/caf\u{e9}", 308), ("li.ve/cam", 309), ("a/b/cam", 309)]
    {
        let denial =
            denied(ask(&strict, Role::Publish, &format!("rtmp://push.example.com/{name}")));
        assert_eq!((denial.reason, denial.event_code), (DenyReason::IllegalName, code), "{name}");
    }
    allowed(ask(&strict, Role::Publish, "rtmp://push.example.com/L_1-/0=aZ-_"));
    let any = rules(&TWO_DOMAINS.replacen("type", "names = \"any\"\ntype", 1));
    allowed(ask(&any, Role::Publish, "rtmp://push.example.com/a/b/ca.m"));
}

#[test]
fn apps_tell_streams_apart_only_with_app_isolation() {
    let path = |rules: &Rules, role, url: &str| allowed(ask(rules, role, url)).path;
    let shared = rules(TWO_DOMAINS);
    let one = path(&shared, Role::Publish, "rtmp://push.example.com/a/s");
    assert_eq!(one, path(&shared, Role::Publish, "rtmp://push.example.com/b/s"));
    assert_eq!(one, path(&shared, Role::Play, "rtmp://play.example.com/c/s"));
    let isolated = rules(&TWO_DOMAINS.replacen("type", "app_isolation = true\ntype", 1));
    let one = path(&isolated, Role::Publish, "rtmp://push.example.com/a/s");
    assert_ne!(one, path(&isolated, Role::Publish, "rtmp://push.example.com/b/s"));
    assert_eq!(one, path(&isolated, Role::Play, "rtmp://play.example.com/a/s"));
}

#[test]
fn the_vhosts_switches_go_for_domains_too() {
    let rules = rules(&format!("[vhost.\"push.example.com\"]\nplay = false\n{TWO_DOMAINS}"));
    allowed(ask(&rules, Role::Publish, "rtmp://push.example.com/live/cam"));
    let denial = denied(ask(&rules, Role::Play, "rtmp://play.example.com/live/cam"));
    assert_eq!(denial.reason, DenyReason::Vhost);
}

fn one_domain(settings: &str, providers: &[&str]) -> std::sync::Arc<Rules> {
    let mut text = format!("[domain.\"d\"]\ntype = \"push\"\n{settings}\n");
    for provider in providers {
        text.push_str(&format!("[[domain.\"d\".provider]]\n{provider}\n"));
    }
    rules(&text)
}

const TX: &str = "scheme = \"txsecret\"\nkey = \"k1\"";
const ALI: &str = "scheme = \"aliyun_a\"\nkey = \"k2\"";
const HOOK: &str = "scheme = \"hook\"\nurl = \"http://127.0.0.1:1/\"";
const HERE: &str = "scheme = \"ip\"\nallow = [\"192.0.2.0/24\"]";

#[test]
fn with_any_the_first_provider_that_recognises_the_request_decides_alone() {
    let rules = one_domain("", &[TX, ALI]);
    let text =
        |query: &str| denied(ask(&rules, Role::Publish, &format!("rtmp://d/live/s?{query}"))).text;
    assert!(text("auth_key=").contains("auth_key"), "the second one's words");
    assert!(text("txTime=ffffffff").contains("txSecret"), "the first one's words");
    assert!(text("txTime=ffffffff&auth_key=1-2-3-4").contains("txSecret"), "order decides");
    assert!(text("other=1").contains("txTime"), "nobody: what the first misses");
}

#[test]
fn a_hook_behind_a_scheme_is_asked_for_what_the_scheme_does_not_recognise() {
    let rules = one_domain("", &[TX, HOOK]);
    let question = asked(ask(&rules, Role::Publish, "rtmp://d/live/s?other=1"));
    assert_eq!((question.app.as_str(), question.stream.as_str()), ("live", "s"));
    let denial = denied(ask(&rules, Role::Publish, "rtmp://d/live/s?txTime=1&txSecret=x"));
    assert_eq!(denial.reason, DenyReason::Expired);
}

#[test]
fn with_all_every_provider_must_pass_and_the_hook_is_last() {
    let rules = one_domain("require = \"all\"", &[HOOK, TX]);
    denied(ask(&rules, Role::Publish, "rtmp://d/live/s"));
    let signed = crate::access::providers::txsecret::sign(
        &crate::access::secret::SecretText::new("k1").unwrap(),
        "s",
        2_000,
    );
    asked(ask(&rules, Role::Publish, &format!("rtmp://d/live/s?{signed}")));
}

#[test]
fn address_lists_apply_first_and_alone_leave_the_domain_open() {
    let elsewhere = [198, 51, 100, 1].into();
    for providers in [&[HERE][..], &["scheme = \"open\"", HERE], &[HOOK, HERE]] {
        let rules = one_domain("", providers);
        let decision = ask_from(&rules, Role::Publish, "rtmp://d/live/s", elsewhere, 0);
        assert_eq!(denied(decision).reason, DenyReason::Ip, "{providers:?}");
    }
    allowed(ask(&one_domain("", &[HERE]), Role::Publish, "rtmp://d/live/s"));
}

#[test]
fn a_full_domain_refuses_publishers_until_one_leaves() {
    let rules = one_domain("publishers_max = 1\nstyle = \"aliyun\"", &["scheme = \"open\""]);
    let first = allowed(ask(&rules, Role::Publish, "rtmp://d/live/a"));
    assert_eq!(first.duplicate_publish, Some(DuplicatePublish::Reject));
    let denial = denied(ask(&rules, Role::Publish, "rtmp://d/live/b"));
    let expected = ("too many publishers", DenyReason::Quota, 601);
    assert_eq!((denial.text.as_str(), denial.reason, denial.event_code), expected);
    drop(first);
    allowed(ask(&rules, Role::Publish, "rtmp://d/live/b"));
}

#[test]
fn in_a_full_domain_of_takeover_the_newcomer_may_only_replace() {
    let rules = one_domain("publishers_max = 1\nstyle = \"tencent\"", &["scheme = \"open\""]);
    let first = allowed(ask(&rules, Role::Publish, "rtmp://d/live/a"));
    assert!(first.over_quota.is_none());
    let second = allowed(ask(&rules, Role::Publish, "rtmp://d/live/a"));
    assert_eq!(second.over_quota.unwrap().event_code, 601);
}

#[test]
fn a_hooks_answer_renames_limits_and_still_meets_quotas() {
    let rules = one_domain("publishers_max = 1\nbitrate_bps_max = 5000\nstyle = \"oss\"", &[HOOK]);
    let question = asked(ask(&rules, Role::Publish, "rtmp://d/live/s?token=t"));
    let limits = check::Limits { bitrate_bps_max: Some(9_000), lifetime_s_max: Some(60) };
    let answer = HookAnswer { stream: Some("room-1".into()), limits, ..HookAnswer::default() };
    let grant = allowed(rules.conclude(&question, &answer));
    assert_eq!(grant.path.as_str(), "d/live/room-1");
    assert_eq!((grant.bitrate_bps_max, grant.lifetime_s_max), (Some(5_000), Some(60)));
    assert_eq!(denied(rules.conclude(&question, &answer)).reason, DenyReason::Quota);
    let answer = HookAnswer { refusal: Some("not today".into()), ..HookAnswer::default() };
    let denial = denied(rules.conclude(&question, &answer));
    let expected = ("not today", DenyReason::Hook, 19);
    assert_eq!((denial.text.as_str(), denial.reason, denial.event_code), expected);
    let answer = HookAnswer { stream: Some("a/..".into()), ..HookAnswer::default() };
    assert_eq!(denied(rules.conclude(&question, &answer)).reason, DenyReason::HookFailed);
}

#[test]
fn a_silent_hook_is_a_no_unless_the_domain_fails_open() {
    let closed = one_domain("", &[HOOK]);
    let question = asked(ask(&closed, Role::Publish, "rtmp://d/live/s"));
    let denial = denied(closed.without_hook(&question));
    assert_eq!((denial.reason, denial.event_code), (DenyReason::HookFailed, 19));
    let open = one_domain("", &[&format!("{HOOK}\nfail = \"open\"")]);
    let question = asked(ask(&open, Role::Publish, "rtmp://d/live/s"));
    allowed(open.without_hook(&question));
}

#[test]
fn more_questions_than_may_wait_are_decided_at_once() {
    let rules = one_domain("", &[HOOK]);
    let question = asked(ask(&rules, Role::Publish, "rtmp://d/live/s"));
    for _ in 0..crate::access::hook::ASKS_MAX {
        assert!(rules.ask(question.clone()).is_none());
    }
    let Some(Decision::Deny(denial)) = rules.ask(question) else { panic!("one too many waits") };
    assert_eq!(denial.reason, DenyReason::HookFailed);
    assert_eq!(rules.asks.refused(), 1);
}

#[test]
fn ten_thousand_domains_are_found_by_name() {
    let mut text = String::from("[access]\nunknown_domains = \"refuse\"\n");
    for n in 0..10_000 {
        text.push_str(&format!(
            "[domain.\"d{n}.example.com\"]\ntype = \"push\"\n\
             [[domain.\"d{n}.example.com\".provider]]\nscheme = \"txsecret\"\nkey = \"key-{n}\"\n"
        ));
    }
    let rules = rules(&text);
    assert_eq!(denied(ask(&rules, Role::Publish, "rtmp://d9999.example.com/a/b")).event_code, 500);
    denied(ask(&rules, Role::Publish, "rtmp://d10000.example.com/a/b"));
}

#[test]
fn who_has_a_place_takes_no_second_one_behind_a_hook() {
    let rules = one_domain("publishers_max = 1\nstyle = \"oss\"", &[HOOK]);
    let mut question = asked(ask(&rules, Role::Publish, "rtmp://d/live/s?token=t"));
    let answer = HookAnswer::default();
    let held = allowed(rules.conclude(&question, &answer));
    assert_eq!(denied(rules.conclude(&question, &answer)).reason, DenyReason::Quota);
    question.is_renewal = true;
    assert!(allowed(rules.conclude(&question, &answer)).place.is_none());
    drop(held);
}
