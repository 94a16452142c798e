//! The schemes against known answers: values made by other implementations, and examples from public
//! documents, in `data/access_vectors.json`. All keys in it are invented or published examples.
//!
//! Then the same addresses damaged: no single changed character may open anything.

use std::net::IpAddr;
use std::sync::LazyLock;

use edge::access::providers::aliyun::{self, AuthKey};
use edge::access::providers::oss::{self, AccessKey, SignedUrl};
use edge::access::providers::txsecret::{self, TxSecret};
use edge::access::providers::usersig::map_key::{MapKey, PLAY_ONLY, PUBLISH_AND_PLAY, Room};
use edge::access::providers::usersig::ticket::{self, SigningKey, Ticket};
use edge::access::providers::usersig::{PublicKeys, RoomPlace, TicketKeys, UserSig};
use edge::access::providers::{Keys, Presented, Provider, Verdict};
use edge::access::secret::SecretText;
use edge::access::{Role, Suffix};
use live::path::{Resolved, resolve};
use proptest::prelude::*;
use serde_json::Value;

static VECTORS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("data/access_vectors.json")).unwrap());

fn vectors(name: &str) -> Value {
    VECTORS[name].clone()
}

fn list(name: &str) -> Vec<Value> {
    vectors(name).as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn secret(text: &str) -> SecretText {
    SecretText::new(text).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// What an RTMP client that was given this address makes the server see.
fn connect(address: &str) -> Resolved {
    let (authority, rest) = address.strip_prefix("rtmp://").unwrap().split_once('/').unwrap();
    let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query));
    let (app, name) = path.rsplit_once('/').unwrap();
    let tc_url = format!("rtmp://{authority}/{app}");
    resolve(app, Some(&tc_url), &format!("{name}?{query}")).unwrap()
}

fn ask(
    provider: &Provider,
    role: Role,
    suffix: Suffix,
    resolved: &Resolved,
    unix_s: u64,
) -> Verdict {
    provider.check(&Presented {
        role,
        app: resolved.path.app(),
        stream: resolved.path.name(),
        suffix,
        host: resolved.host.as_deref(),
        query: &resolved.query,
        peer: IpAddr::from([127, 0, 0, 1]),
        unix_s,
    })
}

fn publish(provider: &Provider, address: &str, unix_s: u64) -> Verdict {
    ask(provider, Role::Publish, Suffix::None, &connect(address), unix_s)
}

#[track_caller]
fn refused(verdict: Verdict, expected: &str) {
    assert_eq!(verdict.unwrap_err().text, expected);
}

fn tx(main: &str, backup: &str) -> Provider {
    Provider::TxSecret(TxSecret {
        keys: Keys::new(secret(main), Some(secret(backup))),
        validity_s: 0,
    })
}

#[test]
fn txsecret_vectors_are_accepted_with_either_key_up_to_their_second() {
    for vector in list("txsecret") {
        let (key, stream, time) =
            (text(&vector["key"]), text(&vector["stream"]), text(&vector["txTime"]));
        let hash = text(&vector["txSecret"]);
        let expires = u64::from_str_radix(time, 16).unwrap();
        if let Some(known) = vector["expires_unix"].as_u64() {
            assert_eq!(expires, known);
        }
        let address = format!("rtmp://h.example.com/live/{stream}?txSecret={hash}&txTime={time}");
        for provider in [tx(key, "other"), tx("other", key)] {
            assert!(publish(&provider, &address, expires).is_ok(), "{vector}");
            let expected = format!("denied by req auth: expired txTime={time}");
            refused(publish(&provider, &address, expires + 1), &expected);
            for suffix in [Suffix::Flv, Suffix::M3u8] {
                assert!(ask(&provider, Role::Play, suffix, &connect(&address), expires).is_ok());
            }
            let other =
                format!("rtmp://h.example.com/live/{stream}x?txSecret={hash}&txTime={time}");
            refused(publish(&provider, &other, 0), "denied by req auth: invalid txSecret");
        }
        refused(publish(&tx("a", "b"), &address, 0), "denied by req auth: invalid txSecret");
        if time == time.to_uppercase() {
            let expected = format!("txSecret={hash}&txTime={time}");
            assert_eq!(txsecret::sign(&secret(key), stream, expires), expected);
        }
    }
}

fn type_a(main: &str, backup: &str) -> AuthKey {
    let keys = Keys::new(secret(main), Some(secret(backup)));
    AuthKey { keys, validity_s: 1_800, timestamp_is_expiry: false }
}

#[test]
fn type_a_vectors_are_accepted_for_exactly_their_uri() {
    for vector in list("aliyun_type_a") {
        let (uri, key, auth_key) =
            (text(&vector["uri"]), text(&vector["key"]), text(&vector["auth_key"]));
        let (stem, suffix) = [(".flv", Suffix::Flv), (".m3u8", Suffix::M3u8)]
            .into_iter()
            .find_map(|(end, suffix)| Some((uri.strip_suffix(end)?, suffix)))
            .unwrap_or((uri, Suffix::None));
        let at = vector["timestamp"].as_u64().unwrap();
        let resolved = connect(&format!("rtmp://h.example.com{stem}?auth_key={auth_key}"));
        for scheme in [type_a(key, "other"), type_a("other", key)] {
            let provider = Provider::Aliyun(scheme);
            assert!(ask(&provider, Role::Play, suffix, &resolved, at).is_ok(), "{vector}");
            let hash = auth_key.rsplit('-').next().unwrap();
            let other = if suffix == Suffix::Flv { Suffix::None } else { Suffix::Flv };
            let expected = format!("denied by req auth: invalid md5hash={hash}");
            refused(ask(&provider, Role::Play, other, &resolved, at), &expected);
        }
        let (app, stream) = stem[1..].split_once('/').unwrap();
        let rest = [text(&vector["rand"]), text(&vector["uid"])];
        let signed = aliyun::sign(&secret(key), [app, stream, suffix.text()], at, rest);
        assert_eq!(signed, format!("auth_key={auth_key}"));
    }
}

#[test]
fn type_a_expires_at_the_known_second_with_the_known_text() {
    for vector in list("aliyun_expiry") {
        let at = vector["timestamp"].as_u64().unwrap();
        let mut scheme = type_a("k", "l");
        scheme.validity_s = 60 * vector["validity_min"].as_u64().unwrap();
        let query = aliyun::sign(&secret("k"), ["app", "s", ""], at, ["0", "0"]);
        let address = format!("rtmp://h.example.com/app/s?{query}");
        let now = vector["now"].as_u64().unwrap();
        let verdict = publish(&Provider::Aliyun(scheme), &address, now);
        assert_eq!(verdict.is_ok(), vector["ok"].as_bool().unwrap());
        if let Some(error) = vector["error"].as_str() {
            refused(verdict, error);
        }
    }
}

fn live_channel(id: &str, key: &str) -> SignedUrl {
    let keys = vec![AccessKey { id: id.into(), secret: secret(key) }];
    SignedUrl { keys, bucket: None, public_write: false }
}

#[test]
fn live_channel_vectors_are_accepted_in_both_ways_to_name_the_bucket() {
    for vector in list("oss_rtmp_url") {
        let scheme = live_channel(text(&vector["access_key_id"]), text(&vector["secret"]));
        let provider = Provider::Oss(scheme.clone());
        let by_path = text(&vector["url"]).to_owned();
        let by_host = by_path.replace("127.0.0.1:8080/test-bucket/", "test-bucket.oss.test:1935/");
        for address in [&by_path, &by_host] {
            assert!(publish(&provider, address, 1_472_201_595).is_ok(), "{address}");
            let expired = "AccessDenied: expired Expires=1472201595";
            refused(publish(&provider, address, 1_472_201_596), expired);
            let other = address.replace("test-channel", "other-channel");
            let mismatch = "SignatureDoesNotMatch: the signature does not match";
            refused(publish(&provider, &other, 0), mismatch);
        }
        let params: &[_] = if by_path.contains("playlistName") {
            &[("playlistName", "playlist.m3u8")]
        } else {
            &[]
        };
        let path = ["test-bucket", "test-channel"];
        let signed = oss::sign(&scheme.keys[0].secret, path, params, 1_472_201_595);
        assert_eq!(signed, text(&vector["signature"]));
    }
}

fn check_ticket(keys: &TicketKeys, vector: &Value) {
    let name = text(&vector["name"]);
    let opened = keys.open(text(&vector["ticket"])).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let number = |field: &str| vector[field].as_u64().unwrap();
    assert_eq!(opened.user, text(&vector["identifier"]), "{name}");
    assert_eq!((opened.sdk_app_id, opened.time_unix_s), (number("sdkappid"), number("time")));
    assert_eq!(opened.expire_s, number("expire"), "{name}");
    assert_eq!(opened.userbuf, vector["userbuf_hex"].as_str().map(unhex), "{name}");
}

fn keys_v1() -> TicketKeys {
    let mut public = PublicKeys::default();
    public.add_pem(text(&vectors("usersig_v1")["public_key_pem"])).unwrap();
    TicketKeys { public, shared: None }
}

fn keys_v2(key: &str) -> TicketKeys {
    TicketKeys { shared: Some(Keys::new(secret(key), None)), ..TicketKeys::default() }
}

#[test]
fn tickets_of_both_versions_are_opened_and_made_again() {
    let v1 = vectors("usersig_v1");
    for vector in v1["tickets"].as_array().unwrap() {
        check_ticket(&keys_v1(), vector);
        assert!(keys_v2("k").open(text(&vector["ticket"])).is_err(), "versions do not mix");
    }
    for vector in list("usersig_v2") {
        check_ticket(&keys_v2(text(&vector["key"])), &vector);
        assert!(keys_v1().open(text(&vector["ticket"])).is_err(), "versions do not mix");
        assert!(keys_v2("another").open(text(&vector["ticket"])).is_err());
    }
    let v2_key = list("usersig_v2")[0]["key"].clone();
    for (signing, keys, version) in
        [(text(&v1["private_key_pem"]), keys_v1(), 1), (text(&v2_key), keys_v2(text(&v2_key)), 2)]
    {
        for userbuf in [None, Some(vec![0, 1, 2])] {
            let (user, time_unix_s) = ("u".to_owned(), 1_530_000_000);
            let made = Ticket { version, user, sdk_app_id: 7, time_unix_s, expire_s: 5, userbuf };
            let signing = SigningKey::new(&secret(signing)).unwrap();
            let text = ticket::sign(&signing, &made).unwrap();
            assert_eq!(keys.open(&text).unwrap(), made);
        }
    }
}

#[test]
fn the_userbuf_has_the_known_layout() {
    let vector = vectors("userbuf");
    let bytes = unhex(text(&vector["hex"]));
    let key = MapKey::read(&bytes).unwrap();
    assert_eq!((key.user, key.sdk_app_id), (b"27149".as_slice(), 1_400_000_001));
    assert_eq!((key.room.clone(), key.rights), (Room::Number(1_234), PLAY_ONLY));
    assert_eq!(u64::from(key.expires_unix_s), vector["expires_unix"].as_u64().unwrap());
    assert_eq!(key.write().unwrap(), bytes);
}

const NOW: u64 = 1_530_000_100;

/// The application of the version 2 vectors, asking for the permission key.
fn rooms() -> Provider {
    let keys = keys_v2(text(&list("usersig_v2")[0]["key"]));
    let room = RoomPlace::Stream;
    Provider::UserSig(UserSig { keys, sdk_app_id: 1_400_000_001, private_map_key: true, room })
}

fn ticket_named(name: &str) -> String {
    let all = list("usersig_v2");
    let vector = all.iter().find(|vector| vector["name"] == name).unwrap();
    text(&vector["ticket"]).to_owned()
}

fn room_address(room: &str, map_key: &str) -> String {
    let (usersig, map_key) = (ticket_named("usersig"), ticket_named(map_key));
    format!(
        "rtmp://h.example.com/rtc/{room}?userid=27149&usersig={usersig}&privateMapKey={map_key}"
    )
}

#[test]
fn rights_of_the_map_key_vectors_are_those_of_their_bits() {
    for (map_key, room, may_publish, may_play) in [
        ("privateMapKey_ff", "1234", true, true),
        ("privateMapKey_ab", "1234", false, true),
        ("privateMapKey_2a", "1234", false, true),
        ("privateMapKey_string_room", "room-A1", true, true),
    ] {
        let resolved = connect(&room_address(room, map_key));
        for (role, may) in [(Role::Publish, may_publish), (Role::Play, may_play)] {
            let verdict = ask(&rooms(), role, Suffix::None, &resolved, NOW);
            if may {
                assert_eq!(verdict.unwrap().user.as_deref(), Some("27149"));
            } else {
                refused(verdict, "denied by req auth: privateMapKey does not allow to publish");
            }
        }
        let other = connect(&room_address("1235", map_key));
        let expected = "denied by req auth: privateMapKey is for another room";
        refused(ask(&rooms(), Role::Play, Suffix::None, &other, NOW), expected);
        let late = ask(&rooms(), Role::Play, Suffix::None, &resolved, 1_530_000_301);
        refused(late, "denied by req auth: expired privateMapKey");
    }
}

#[test]
fn a_ticket_with_a_userbuf_is_no_usersig_and_the_other_way_round() {
    let address = |usersig: &str, map_key: &str| {
        let (usersig, map_key) = (ticket_named(usersig), ticket_named(map_key));
        let params = format!("userid=27149&usersig={usersig}&privateMapKey={map_key}");
        format!("rtmp://h.example.com/rtc/1234?{params}")
    };
    for (usersig, map_key, expected) in [
        ("privateMapKey_ff", "privateMapKey_ff", "invalid usersig"),
        ("usersig_with_userbuf", "privateMapKey_ff", "invalid usersig"),
        ("usersig", "usersig", "invalid privateMapKey"),
        ("usersig", "usersig_with_userbuf", "invalid privateMapKey"),
    ] {
        let verdict = publish(&rooms(), &address(usersig, map_key), NOW);
        refused(verdict, &format!("denied by req auth: {expected}"));
    }
    assert!(publish(&rooms(), &address("usersig", "privateMapKey_ff"), NOW).is_ok());
    assert_eq!(PUBLISH_AND_PLAY, 0xFF);
}

static SIGNED: LazyLock<Vec<(Provider, String, u64)>> = LazyLock::new(signed_addresses);

/// Signed addresses with the provider that accepts them and the time at which it does.
fn signed_addresses() -> Vec<(Provider, String, u64)> {
    let tx_query = txsecret::sign(&secret("key"), "room_1", 1_600_000_000);
    let a_query = aliyun::sign(&secret("key"), ["app", "room_1", ""], 1_600_000_000, ["0", "0"]);
    vec![
        (tx("key", "backup"), format!("rtmp://h.example.com/app/room_1?{tx_query}"), 1_500_000_000),
        (
            Provider::Aliyun(type_a("backup", "key")),
            format!("rtmp://h.example.com/app/room_1?{a_query}"),
            1_600_000_100,
        ),
        (
            Provider::Oss(live_channel("test-ak-id", "test-ak-secret")),
            text(&list("oss_rtmp_url")[0]["url"]).to_owned(),
            1_472_201_000,
        ),
        (rooms(), room_address("1234", "privateMapKey_ff"), NOW),
    ]
}

/// What an address means, as far as its scheme signs it.
fn meaning(provider: &Provider, resolved: &Resolved) -> Vec<String> {
    let mut parts = vec![resolved.path.name().to_owned()];
    let pairs = resolved.query.pairs();
    match provider {
        // These two sign neither the app nor further parameters.
        Provider::TxSecret(_) => {
            let signed = pairs.filter(|(name, _)| name == "txSecret" || name == "txTime");
            parts.extend(signed.map(|(name, value)| format!("{name}={value}")));
        }
        Provider::UserSig(UserSig { keys, .. }) => {
            let names = ["userid", "usersig", "privateMapKey"];
            for (name, value) in pairs.filter(|(name, _)| names.contains(&&**name)) {
                // Compression has several texts for one ticket; what counts is what it says.
                parts.push(format!("{name}={:?}", keys.open(&value).map_err(|_| value.clone())));
            }
        }
        _ => {
            parts.push(resolved.path.app().to_owned());
            parts.extend(pairs.map(|(name, value)| format!("{name}={value}")));
        }
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_single_changed_character_is_ever_accepted(
        which in 0..4_usize,
        at in any::<prop::sample::Index>(),
        to in prop_oneof![
            "[0-9a-zA-Z]", "[%&=?#/:+*_.-]", any::<char>().prop_map(String::from), Just(String::new()),
        ],
    ) {
        let (provider, address, unix_s) = &SIGNED[which];
        let unix_s = *unix_s;
        let right = connect(address);
        prop_assert!(ask(provider, Role::Publish, Suffix::None, &right, unix_s).is_ok());
        // Behind the host: it is not signed, it selects the domain.
        let path_at = 7 + address[7..].find('/').unwrap() + 1;
        let index = path_at + at.index(address.len() - path_at);
        let mut changed = address.clone();
        changed.replace_range(index..=index, &to);
        prop_assume!(changed != *address);
        let (_, rest) = changed.split_once("://").unwrap();
        let Some((authority, rest)) = rest.split_once('/') else { return Ok(()) };
        let Some((app, name)) = rest.split_once('?').map_or(rest, |(path, _)| path).rsplit_once('/')
        else { return Ok(()) };
        let name = format!("{name}{}", &rest[app.len() + 1 + name.len()..]);
        let tc_url = format!("rtmp://{authority}/{app}");
        let Ok(resolved) = resolve(app, Some(&tc_url), &name) else { return Ok(()) };
        let verdict = ask(provider, Role::Publish, Suffix::None, &resolved, unix_s);
        if meaning(provider, &resolved) != meaning(provider, &right) {
            prop_assert!(verdict.is_err(), "{changed}");
        }
    }

    #[test]
    fn nothing_a_peer_writes_makes_a_scheme_panic(
        which in 0..4_usize,
        app in "[ -~é]{0,20}",
        name in "\\PC{0,30}",
        unix_s in any::<u64>(),
        param in prop::sample::select(vec![
            "txTime", "txSecret", "auth_key", "Expires", "Signature", "OSSAccessKeyId", "usersig",
            "userid", "privateMapKey",
        ]),
        value in "\\PC{0,80}",
    ) {
        let (provider, address, _) = &SIGNED[which];
        let (_, query) = address.split_once('?').unwrap();
        let name = format!("{name}?{param}={value}&{query}");
        let Ok(resolved) = resolve(&app, Some("rtmp://h/"), &name) else { return Ok(()) };
        for (role, suffix) in [(Role::Publish, Suffix::None), (Role::Play, Suffix::M3u8)] {
            if let Err(denial) = ask(provider, role, suffix, &resolved, unix_s) {
                prop_assert!(denial.text.len() < 200 && !denial.text.contains('\n'), "{denial}");
            }
        }
    }
}
