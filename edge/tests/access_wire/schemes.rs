//! Every scheme in both roles: addresses the server signs let in, and each way to be wrong has its exact
//! text, its status code, its class and event code in the log, and its place in the metrics.

use edge::access::Role;
use edge::access::providers::usersig::map_key::{PLAY_ONLY, PUBLISH_AND_PLAY};
use edge::access::providers::usersig::ticket;
use edge::access::providers::{jwt, oss};
use edge::access::secret::SecretText;
use edge::address::{Order, Ports, Signer, generate};
use rtmp::session::ClientRole;
use serde_json::json;

use crate::peer::{Answer, Wire};
use crate::rig::{PLAY_KEY, PUSH_KEY, Rig, WRONG_KEY, now, plain};
use crate::support::media::Source;
use crate::support::server::wait_for;

const DENIED: &str = "NetStream.Publish.Denied";
const PLAY_FAILED: &str = "NetStream.Play.Failed";
const APP_ID: u32 = 1_400_000_001;
/// Token keys must be long.
const JWT_KEY: &str = "sesame-for-tokens-of-at-least-32-bytes";
const VALID_S: u64 = 600;

fn secret(text: &str) -> SecretText {
    SecretText::new(text).unwrap()
}

/// A push domain and a play domain for each scheme.
fn settings() -> String {
    let mut text = String::new();
    for (scheme, push, play) in [
        ("open", "scheme = \"open\"", "scheme = \"open\""),
        ("txsecret", "scheme = \"txsecret\"\nkey = PUSH", "scheme = \"txsecret\"\nkey = PLAY"),
        ("aliyun", "scheme = \"aliyun_a\"\nkey = PUSH", "scheme = \"aliyun_a\"\nkey = PLAY"),
        (
            "oss",
            "scheme = \"oss\"\nkey = PUSH\naccess_key_id = \"id\"\nbucket = \"bkt\"",
            "scheme = \"open\"",
        ),
        ("jwt", "scheme = \"jwt\"\nkey = TOKEN", "scheme = \"jwt\"\nkey = TOKEN"),
        (
            "usersig",
            "scheme = \"usersig\"\nkey = PUSH\nsdk_app_id = 1400000001\nprivate_map_key = true",
            "scheme = \"usersig\"\nkey = PLAY\nsdk_app_id = 1400000001\nprivate_map_key = true",
        ),
    ] {
        text += &format!(
            "[domain.\"push.{scheme}.test\"]\ntype = \"push\"\nstyle = \"aliyun\"\n\
             [[domain.\"push.{scheme}.test\".provider]]\n{push}\n\
             [domain.\"play.{scheme}.test\"]\ntype = \"play\"\npush_domain = \"push.{scheme}.test\"\n\
             [[domain.\"play.{scheme}.test\".provider]]\n{play}\n"
        );
    }
    for (name, key) in [("PUSH", PUSH_KEY), ("PLAY", PLAY_KEY), ("TOKEN", JWT_KEY)] {
        text = text.replace(&format!("= {name}\n"), &format!("= {key:?}\n"));
    }
    text
}

/// The RTMP address somebody makes who has `key`, at some time.
fn made(scheme: &str, role: Role, key: &str, stream: &str, unix_s: u64) -> String {
    let key = secret(key);
    let signer = match scheme {
        "txsecret" => Signer::TxSecret { key, validity_s: 0 },
        "aliyun" => Signer::Aliyun { key, validity_s: 1_800 },
        "oss" => Signer::Oss {
            key: oss::AccessKey { id: "id".into(), secret: key },
            bucket: Some("bkt".into()),
        },
        "jwt" => Signer::Jwt {
            key: jwt::SigningKey::new(&key).unwrap(),
            param: "token".into(),
            issuer: None,
            audience: None,
        },
        "usersig" => Signer::UserSig {
            key: ticket::SigningKey::new(&key).unwrap(),
            sdk_app_id: APP_ID,
            user: "ann".into(),
            map_key: Some((
                stream.into(),
                if role == Role::Publish { PUBLISH_AND_PLAY } else { PLAY_ONLY },
            )),
        },
        _ => Signer::Open,
    };
    let half = if role == Role::Publish { "push" } else { "play" };
    let domain = format!("{half}.{scheme}.test");
    let order = Order {
        role,
        domain: &domain,
        app: "live",
        stream,
        ports: Ports::default(),
        unix_s,
        valid_s: Some(VALID_S),
    };
    generate(&signer, &order).unwrap().rtmp.unwrap()
}

/// What a refusal must look like.
struct Refusal {
    scheme: &'static str,
    what: &'static str,
    address: String,
    text: String,
    class: &'static str,
    code: u64,
}

fn parameter<'a>(address: &'a str, name: &str) -> &'a str {
    let (_, query) = address.split_once('?').unwrap();
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap()
}

/// The address with one parameter changed, or without it.
fn with(address: &str, name: &str, change: impl Fn(&str) -> Option<String>) -> String {
    let (path, query) = address.split_once('?').unwrap();
    let pairs = query.split('&').filter_map(|pair| match pair.split_once('=') {
        Some((found, value)) if found == name => Some(format!("{name}={}", change(value)?)),
        _ => Some(pair.to_owned()),
    });
    let query: Vec<String> = pairs.collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// One character of the middle is another.
fn tampered(value: &str) -> Option<String> {
    let at = value.len() / 2;
    let other = if &value[at..=at] == "a" { "b" } else { "a" };
    Some(format!("{}{other}{}", &value[..at], &value[at + 1..]))
}

fn of_txsecret(role: Role) -> Vec<Refusal> {
    let key = if role == Role::Publish { PUSH_KEY } else { PLAY_KEY };
    let other_key = if role == Role::Publish { PLAY_KEY } else { PUSH_KEY };
    let scheme = "txsecret";
    let good = made(scheme, role, key, "cam", now());
    let late = made(scheme, role, key, "cam", now() - VALID_S - 5);
    let of = |what, address: &str, text: &str, class, code| Refusal {
        scheme,
        what,
        address: address.to_owned(),
        text: format!("denied by req auth: {text}"),
        class,
        code,
    };
    let wrong = made(scheme, role, WRONG_KEY, "cam", now());
    let of_other_role = made(scheme, role, other_key, "cam", now());
    vec![
        of("wrong key", &wrong, "invalid txSecret", "bad_hash", 503),
        of("key of the other role", &of_other_role, "invalid txSecret", "bad_hash", 503),
        of("other stream", &good.replace("/cam?", "/cam2?"), "invalid txSecret", "bad_hash", 503),
        of("tampered", &with(&good, "txSecret", tampered), "invalid txSecret", "bad_hash", 503),
        of(
            "longer life",
            &with(&good, "txTime", |_| Some("7FFFFFFF".into())),
            "invalid txSecret",
            "bad_hash",
            503,
        ),
        of(
            "expired",
            &late,
            &format!("expired txTime={}", parameter(&late, "txTime")),
            "expired",
            501,
        ),
        of("no time", &with(&good, "txTime", |_| None), "no url arg txTime", "no_param", 500),
        of("no secret", &with(&good, "txSecret", |_| None), "no url arg txSecret", "no_param", 502),
        of("nothing", good.split('?').next().unwrap(), "no url arg txTime", "no_param", 500),
    ]
}

fn of_aliyun(role: Role) -> Vec<Refusal> {
    let key = if role == Role::Publish { PUSH_KEY } else { PLAY_KEY };
    let scheme = "aliyun";
    let good = made(scheme, role, key, "cam", now());
    let late = made(scheme, role, key, "cam", now() - VALID_S - 5);
    let hash =
        |address: &str| parameter(address, "auth_key").rsplit('-').next().unwrap().to_owned();
    let of = |what, address: String, class, code| {
        let text = match class {
            "expired" => {
                let time = parameter(&address, "auth_key").split('-').next().unwrap().to_owned();
                format!("expired timestamp={time}")
            }
            "no_param" => "no url arg auth_key".to_owned(),
            "bad_param" => "invalid timestamp".to_owned(),
            _ => format!("invalid md5hash={}", hash(&address)),
        };
        let text = format!("denied by req auth: {text}");
        Refusal { scheme, what, address, text, class, code }
    };
    let flipped = with(&good, "auth_key", |value| {
        let (rest, hash) = value.rsplit_once('-').unwrap();
        Some(format!("{rest}-{}", tampered(hash)?))
    });
    vec![
        of("wrong key", made(scheme, role, WRONG_KEY, "cam", now()), "bad_hash", 503),
        of("other stream", good.replace("/cam?", "/cam2?"), "bad_hash", 503),
        of("other app", good.replace("/live/", "/show/"), "bad_hash", 503),
        of("tampered", flipped, "bad_hash", 503),
        of("expired", late, "expired", 501),
        of("malformed", with(&good, "auth_key", |_| Some("soon-0-0-x".into())), "bad_param", 500),
        of("nothing", with(&good, "auth_key", |_| None), "no_param", 502),
    ]
}

fn of_oss() -> Vec<Refusal> {
    let scheme = "oss";
    let (role, good) = (Role::Publish, made(scheme, Role::Publish, PUSH_KEY, "cam", now()));
    let late = made(scheme, role, PUSH_KEY, "cam", now() - VALID_S - 5);
    let of = |what, address: String, text: &str, class, code| Refusal {
        scheme,
        what,
        address,
        text: text.to_owned(),
        class,
        code,
    };
    let mismatch = "SignatureDoesNotMatch: the signature does not match";
    let expired = format!("AccessDenied: expired Expires={}", parameter(&late, "Expires"));
    let unknown = "InvalidAccessKeyId: the access key id is not known here";
    vec![
        of("wrong key", made(scheme, role, WRONG_KEY, "cam", now()), mismatch, "bad_hash", 503),
        of("other stream", good.replace("/cam?", "/cam2?"), mismatch, "bad_hash", 503),
        of("tampered", with(&good, "Signature", tampered), mismatch, "bad_hash", 503),
        of("more signed", format!("{good}&playlistName=a.m3u8"), mismatch, "bad_hash", 503),
        of(
            "other id",
            with(&good, "OSSAccessKeyId", |_| Some("other".into())),
            unknown,
            "bad_hash",
            503,
        ),
        of("expired", late, &expired, "expired", 501),
        of(
            "no signature",
            with(&good, "Signature", |_| None),
            "AccessDenied: no url arg Signature",
            "no_param",
            502,
        ),
    ]
}

fn of_jwt(role: Role) -> Vec<Refusal> {
    let scheme = "jwt";
    let good = made(scheme, role, JWT_KEY, "cam", now());
    let of = |what, address: String, text: &str, class, code| Refusal {
        scheme,
        what,
        address,
        text: format!("denied by req auth: {text}"),
        class,
        code,
    };
    let wrong_key = format!("{WRONG_KEY}-of-at-least-32-bytes-for-tokens");
    let (other_role, right) = match role {
        Role::Publish => (Role::Play, "the token does not allow to publish"),
        Role::Play => (Role::Publish, "the token does not allow to play"),
    };
    let of_other_role = made(scheme, other_role, JWT_KEY, "cam", now());
    let swapped = with(&good, "token", |_| Some(parameter(&of_other_role, "token").to_owned()));
    let late = made(scheme, role, JWT_KEY, "cam", now() - VALID_S - 60);
    vec![
        of(
            "wrong key",
            made(scheme, role, &wrong_key, "cam", now()),
            "invalid token",
            "bad_hash",
            503,
        ),
        of(
            "other stream",
            good.replace("/cam?", "/cam2?"),
            "the token is for another stream",
            "ticket",
            0,
        ),
        of("other role", swapped, right, "no_right", 0),
        of("expired", late, "expired token", "expired", 501),
        of("nothing", with(&good, "token", |_| None), "no url arg token", "no_param", 502),
    ]
}

fn of_usersig(role: Role) -> Vec<Refusal> {
    let key = if role == Role::Publish { PUSH_KEY } else { PLAY_KEY };
    let scheme = "usersig";
    let good = made(scheme, role, key, "cam", now());
    let of = |what, address: String, text: &str, class, code| Refusal {
        scheme,
        what,
        address,
        text: format!("denied by req auth: {text}"),
        class,
        code,
    };
    let wrong = made(scheme, role, WRONG_KEY, "cam", now());
    let late = made(scheme, role, key, "cam", now() - VALID_S - 5);
    let room = "privateMapKey is for another room";
    let mut all = vec![
        of("wrong key", wrong, "invalid usersig", "bad_hash", 503),
        of("other room", good.replace("/cam?", "/cam2?"), room, "ticket", 0),
        of(
            "other user",
            with(&good, "userid", |_| Some("bob".into())),
            "usersig is for another user",
            "ticket",
            0,
        ),
        of("expired", late, "expired usersig", "expired", 501),
        of("no user", with(&good, "userid", |_| None), "no url arg userid", "no_param", 502),
        of(
            "no map key",
            with(&good, "privateMapKey", |_| None),
            "no url arg privateMapKey",
            "no_param",
            502,
        ),
    ];
    if role == Role::Publish {
        let watch_only = made(scheme, Role::Play, PUSH_KEY, "cam", now());
        let address = watch_only.replace("//play.", "//push.");
        let text = "privateMapKey does not allow to publish";
        all.push(of("right to watch only", address, text, "no_right", 0));
    }
    all
}

#[test]
fn addresses_the_server_signs_let_publish_and_play_in_every_scheme() {
    let rig = Rig::start(plain(), &settings());
    let mut wire = Wire::new(rig.rtmp);
    for scheme in ["open", "txsecret", "aliyun", "oss", "jwt", "usersig"] {
        let user = if scheme == "usersig" { "&user=ann" } else { "" };
        let push = rig.address("publish", &format!("push.{scheme}.test"), "cam", user);
        let publisher = wire.started(ClientRole::Publish, &push);
        let play = rig.address("play", &format!("play.{scheme}.test"), "cam", user);
        let player = wire.started(ClientRole::Play, &play);
        let mut source = Source::new(7);
        wire.send_headers(publisher, &source);
        wire.expect_flow(publisher, player, &mut source);
        assert_eq!(rig.counts(&format!("push.{scheme}.test")), (1, 0), "{scheme}");
        assert_eq!(rig.counts(&format!("play.{scheme}.test")), (0, 1), "{scheme}");
    }
    assert!(rig.events("access_denied").is_empty());
    let user = rig.wait_event("publish", |line| line["user"] == "ann");
    assert_eq!(user["stream"], "push.usersig.test/live/cam");
}

fn expect_refusals(role: Role, refusals: Vec<Refusal>) {
    let rig = Rig::start(plain(), &settings());
    let mut wire = Wire::new(rig.rtmp);
    let (client, wire_code, metric) = match role {
        Role::Publish => (ClientRole::Publish, DENIED, "ringcast_publish_total"),
        Role::Play => (ClientRole::Play, PLAY_FAILED, "ringcast_play_total"),
    };
    let count = refusals.len() as u64;
    for Refusal { scheme, what, address, text, class, code } in refusals {
        let (denied, lines) = (rig.denied(class), rig.events("access_denied").len());
        let got = wire.refused(client, &address);
        assert_eq!(got, (wire_code.to_owned(), text.clone()), "{scheme} {what} {address}");
        assert_eq!(rig.denied(class), denied + 1, "{scheme} {what}");
        wait_for("the log line", || rig.events("access_denied").len() > lines);
        let line = rig.events("access_denied").pop().unwrap();
        let is = (&line["role"], &line["class"], &line["code"]);
        assert_eq!(is, (&json!(role.text()), &json!(class), &json!(code)), "{scheme} {what}");
        let logged = text.split("md5hash=").next().unwrap();
        assert_eq!(line["reason"], logged, "{scheme} {what}");
    }
    assert_eq!(rig.metric(metric, "result=\"denied\""), count);
    for domain in ["txsecret", "aliyun", "oss", "jwt", "usersig"] {
        for half in ["push", "play"] {
            assert_eq!(rig.counts(&format!("{half}.{domain}.test")), (0, 0));
        }
    }
}

#[test]
fn each_way_to_be_wrong_is_refused_to_publishers_with_its_text_and_code() {
    let role = Role::Publish;
    let all = [of_txsecret(role), of_aliyun(role), of_oss(), of_jwt(role), of_usersig(role)];
    expect_refusals(role, all.into_iter().flatten().collect());
}

#[test]
fn each_way_to_be_wrong_is_refused_to_players_with_its_text_and_code() {
    let role = Role::Play;
    let all = [of_txsecret(role), of_aliyun(role), of_jwt(role), of_usersig(role)];
    expect_refusals(role, all.into_iter().flatten().collect());
}

/// The hash a peer presents for one stream may be right for another: a typing error in the name must not
/// put a valid signature into the log. It is echoed to the peer, who has it already.
#[test]
fn a_hash_that_is_right_for_another_stream_is_not_logged() {
    let rig = Rig::start(plain(), &settings());
    let mut wire = Wire::new(rig.rtmp);
    for (role, half, key) in [(Role::Publish, "push", PUSH_KEY), (Role::Play, "play", PLAY_KEY)] {
        let good = made("aliyun", role, key, "cam", now());
        let hash = parameter(&good, "auth_key").rsplit('-').next().unwrap().to_owned();
        rig.remember(&format!("?hash={hash}"));
        let client = if role == Role::Publish { ClientRole::Publish } else { ClientRole::Play };
        let (_, text) = wire.refused(client, &good.replace("/cam?", "/cam2?"));
        assert!(text.ends_with(&hash), "{half}: {text}");
        let event = if role == Role::Publish { "publish_refused" } else { "play_refused" };
        rig.wait_event(event, |line| line["reason"] != "");
    }
}

#[test]
fn a_running_stream_outlives_its_address_and_a_new_one_is_refused() {
    let rig = Rig::start(plain(), &settings());
    let mut wire = Wire::new(rig.rtmp);
    for scheme in ["txsecret", "aliyun", "jwt"] {
        // jwt: leeway is part of the domain's settings; what is left of its validity is the same for all.
        let life_s = 4;
        let age_s = match scheme {
            "jwt" => VALID_S + jwt::LEEWAY_S_DEFAULT - life_s,
            _ => VALID_S - life_s,
        };
        let key = |role| match (scheme, role) {
            ("jwt", _) => JWT_KEY,
            (_, Role::Publish) => PUSH_KEY,
            (_, Role::Play) => PLAY_KEY,
        };
        let signed = |role| made(scheme, role, key(role), "cam", now() - age_s);
        let (push, play) = (signed(Role::Publish), signed(Role::Play));
        let publisher = wire.started(ClientRole::Publish, &push);
        let player = wire.started(ClientRole::Play, &play);
        let mut source = Source::new(7);
        wire.send_headers(publisher, &source);
        wire.until("the address to expire", |wire| {
            let late = wire.open(ClientRole::Play, &play);
            wire.answer(late) != Answer::Started
        });
        wire.expect_flow(publisher, player, &mut source);
        let expired = |text: String| assert!(text.contains("expired"), "{scheme}: {text}");
        expired(wire.refused(ClientRole::Play, &play).1);
        wire.until("the other address to expire too", |wire| {
            let late = wire.open(ClientRole::Publish, &push);
            match wire.answer(late) {
                Answer::Refused(code, _) => code == DENIED,
                Answer::Started => false,
            }
        });
        wire.expect_flow(publisher, player, &mut source);
        assert!(!wire.peers[publisher].has_ended() && !wire.peers[player].has_ended());
        wire.leave(publisher);
    }
}
