//! Addresses are accepted by the schemes that they are signed for, and by no other stream or time.

use std::net::IpAddr;

use live::path::resolve;

use super::*;
use crate::access::Suffix;
use crate::access::providers::jwt::{Jwt, KeySet};
use crate::access::providers::usersig::{RoomPlace, TicketKeys, UserSig};
use crate::access::providers::{Keys, Presented, Provider};

const NOW: u64 = 1_700_000_000;

fn key() -> SecretText {
    SecretText::new("a key that is long enough").unwrap()
}

fn order<'o>(role: Role, domain: &'o str, app: &'o str) -> Order<'o> {
    let stream = "room-1";
    Order { role, domain, app, stream, ports: Ports::default(), unix_s: NOW, valid_s: Some(3_600) }
}

fn access_key() -> oss::AccessKey {
    oss::AccessKey { id: "id+/".into(), secret: key() }
}

fn token(key: SecretText) -> Signer {
    let key = jwt::SigningKey::new(&key).unwrap();
    Signer::Jwt { key, param: "token".into(), issuer: Some("i".into()), audience: None }
}

/// Every scheme with keys: how it signs and how it checks.
fn schemes() -> Vec<(Signer, Provider)> {
    let keys = || Keys::new(key(), None);
    let rooms = TicketKeys { shared: Some(keys()), ..TicketKeys::default() };
    let room = RoomPlace::Stream;
    let usersig = UserSig { keys: rooms, sdk_app_id: 7, private_map_key: true, room };
    let ticket_key = ticket::SigningKey::new(&key()).unwrap();
    let map_key = Some(("room-1".into(), 0xFF));
    let with_leeway = Jwt::new(KeySet::of_secret(&key()));
    vec![
        (
            Signer::TxSecret { key: key(), validity_s: 60 },
            Provider::TxSecret(txsecret::TxSecret { keys: keys(), validity_s: 60 }),
        ),
        (
            Signer::Aliyun { key: key(), validity_s: 1_800 },
            Provider::Aliyun(aliyun::AuthKey {
                keys: keys(),
                validity_s: 1_800,
                timestamp_is_expiry: false,
            }),
        ),
        (
            Signer::Aliyun { key: key(), validity_s: 0 },
            Provider::Aliyun(aliyun::AuthKey {
                keys: keys(),
                validity_s: 1_800,
                timestamp_is_expiry: true,
            }),
        ),
        (
            Signer::Oss { key: access_key(), bucket: None },
            Provider::Oss(oss::SignedUrl {
                keys: vec![access_key()],
                bucket: None,
                public_write: false,
            }),
        ),
        (
            token(key()),
            // `exp` names the first second that is too late, other schemes the last good one.
            Provider::Jwt(Jwt { leeway_s: 1, issuer: Some("i".into()), ..with_leeway }),
        ),
        (
            Signer::UserSig { key: ticket_key, sdk_app_id: 7, user: "ü 1".into(), map_key },
            Provider::UserSig(usersig),
        ),
    ]
}

fn is_accepted(provider: &Provider, role: Role, address: &str, unix_s: u64) -> bool {
    let (scheme, rest) = address.split_once("://").unwrap();
    let (authority, rest) = rest.split_once('/').unwrap();
    let (path, query) = rest.split_once('?').unwrap();
    let (path, suffix) = [(".flv", Suffix::Flv), (".m3u8", Suffix::M3u8)]
        .into_iter()
        .find_map(|(end, suffix)| Some((path.strip_suffix(end)?, suffix)))
        .unwrap_or((path, Suffix::None));
    assert_eq!(scheme == "http", suffix != Suffix::None);
    let (app, name) = path.rsplit_once('/').unwrap();
    let tc_url = format!("rtmp://{authority}/{app}");
    let resolved = resolve(app, Some(&tc_url), &format!("{name}?{query}")).unwrap();
    let (app, stream) = (resolved.path.app(), resolved.path.name());
    let peer = IpAddr::from([127, 0, 0, 1]);
    let (host, query) = (resolved.host.as_deref(), &resolved.query);
    provider.check(&Presented { role, app, stream, suffix, host, query, peer, unix_s }).is_ok()
}

#[test]
fn every_address_is_accepted_until_its_last_second_by_its_own_scheme_only() {
    let schemes = schemes();
    for (signing, (signer, _)) in schemes.iter().enumerate() {
        for role in [Role::Publish, Role::Play] {
            let order = order(role, "b.example.com", "live");
            let addresses = match generate(signer, &order) {
                Err(error) => {
                    assert!(matches!(signer, Signer::Oss { .. }) && role == Role::Play, "{error}");
                    continue;
                }
                Ok(addresses) => addresses,
            };
            let expires = addresses.expires_unix_s.unwrap();
            assert_eq!(expires, NOW + 3_600);
            let all = [&addresses.rtmp, &addresses.rtmps, &addresses.flv, &addresses.hls];
            for address in all.into_iter().flatten() {
                for (checking, (_, provider)) in schemes.iter().enumerate() {
                    let is_own = signing == checking;
                    if is_own || (signing, checking) != (1, 2) && (signing, checking) != (2, 1) {
                        assert_eq!(is_accepted(provider, role, address, NOW), is_own, "{address}");
                    }
                    let late = is_accepted(provider, role, address, expires + 1);
                    // An address that names its end lives longer where the validity is added to it.
                    assert!(!late || (signing, checking) == (2, 1), "{address}");
                    let other = address.replace("/room-1", "/room-2");
                    assert!(!is_accepted(provider, role, &other, NOW), "{other}");
                }
                assert!(is_accepted(&schemes[signing].1, role, address, expires), "{address}");
            }
        }
    }
}

#[test]
fn addresses_read_as_people_expect_them() {
    let order = order(Role::Play, "Play.Example.com", "a/b");
    let all = generate(&Signer::Open, &order).unwrap();
    assert_eq!(all.rtmp.as_deref(), Some("rtmp://play.example.com/a/b/room-1"));
    assert_eq!(all.rtmps.as_deref(), Some("rtmps://play.example.com/a/b/room-1"));
    assert_eq!(all.flv.as_deref(), Some("http://play.example.com/a/b/room-1.flv"));
    assert_eq!(all.hls.as_deref(), Some("http://play.example.com/a/b/room-1.m3u8"));
    assert_eq!((all.expires_unix_s, all.expires), (None, None));
    let ports = Ports { rtmp: Some(1936), rtmps: None, http: Some(8080) };
    let other = Order { domain: "[::1]", stream: "room 1", ports, ..order };
    let all = generate(&Signer::Open, &other).unwrap();
    assert_eq!(all.rtmp.as_deref(), Some("rtmp://[::1]:1936/a/b/room%201"));
    assert_eq!(all.flv.as_deref(), Some("http://[::1]:8080/a/b/room%201.flv"));
    assert_eq!(all.rtmps, None);
    let publish = generate(&Signer::Open, &Order { role: Role::Publish, ..order }).unwrap();
    assert_eq!((publish.flv, publish.hls), (None, None));
}

#[test]
fn what_cannot_be_an_address_is_refused_with_the_reason() {
    let good = order(Role::Publish, "h.example.com", "live");
    let text =
        |signer: &Signer, order: Order<'_>| generate(signer, &order).unwrap_err().to_string();
    assert!(text(&Signer::Open, Order { stream: "", ..good }).contains("no stream name"));
    assert!(text(&Signer::Open, Order { domain: "a b", ..good }).contains("host"));
    for valid_s in [0, VALID_S_MAX + 1] {
        let order = Order { valid_s: Some(valid_s), ..good };
        assert!(text(&Signer::Open, order).contains("ten years"));
    }
    assert!(text(&token(key()), Order { stream: "a*", ..good }).contains("*"));
    let bucketless = Signer::Oss { key: access_key(), bucket: None };
    assert!(text(&bucketless, Order { domain: "127.0.0.1", ..good }).contains("BUCKET/live"));
}

#[test]
fn a_validity_that_nobody_names_is_that_of_the_scheme() {
    let order = Order { valid_s: None, ..order(Role::Publish, "h.example.com", "live") };
    let expires = |signer: &Signer| generate(signer, &order).unwrap().expires_unix_s.unwrap() - NOW;
    assert_eq!(expires(&Signer::Aliyun { key: key(), validity_s: 1_800 }), 1_800);
    assert_eq!(expires(&Signer::TxSecret { key: key(), validity_s: 0 }), VALID_S_DEFAULT);
}

#[test]
fn time_spans_are_read_as_people_write_them() {
    for (text, seconds) in [
        ("90", 90),
        ("90s", 90),
        ("30m", 1_800),
        ("12h", 43_200),
        ("1d12h", 129_600),
        ("2w", 1_209_600),
    ] {
        assert_eq!(parse_span(text), Ok(seconds));
    }
    for text in ["", " ", "h", "12x", "1.5h", "-1h", "12h5", "99999999999999999999w"] {
        assert!(parse_span(text).unwrap_err().contains("12h"), "{text:?}");
    }
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (unix_s, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_827_696, "2000-02-29T12:34:56Z"),
        (1_546_271_999, "2018-12-31T15:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(utc(unix_s), expected);
    }
}
