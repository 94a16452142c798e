//! What a room asks for, and tickets that are damaged on purpose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::testing::{presented, query, secret};
use super::ticket::{SigningKey, sign};
use super::*;

const NOW: u64 = 1_700_000_000;
const KEY: &str = "a shared key of tickets";

fn scheme() -> UserSig {
    let keys = TicketKeys { shared: Some(Keys::new(secret(KEY), None)), ..TicketKeys::default() };
    UserSig { keys, sdk_app_id: 7, private_map_key: true, room: RoomPlace::Stream }
}

fn ticket(user: &str, sdk_app_id: u64, userbuf: Option<Vec<u8>>) -> String {
    let (time_unix_s, expire_s) = (NOW, 600);
    let user = user.to_owned();
    let ticket = Ticket { version: 2, user, sdk_app_id, time_unix_s, expire_s, userbuf };
    sign(&SigningKey::new(&secret(KEY)).unwrap(), &ticket).unwrap()
}

fn map_key(who: (&str, u32), room: &Room<'_>, rights: u32) -> String {
    ticket("ann", 7, Some(userbuf(who, room, rights, NOW + 60).unwrap()))
}

fn check(scheme: &UserSig, raw: &str, role: Role, unix_s: u64) -> Result<Pass, String> {
    let query = query(raw);
    let asked = Presented { role, ..presented(("rooms/9", "1234"), &query, unix_s) };
    scheme.check(&asked).map_err(|denial| denial.text)
}

#[test]
fn each_thing_that_is_wrong_has_its_text() {
    let usersig = ticket("ann", 7, None);
    let room = Room::Number(1_234);
    let good = map_key(("ann", 7), &room, 0xFF);
    let all = |usersig: &str, map_key: &str| {
        format!("userid=ann&usersig={usersig}&privateMapKey={map_key}")
    };
    assert!(check(&scheme(), &all(&usersig, &good), Role::Publish, NOW).is_ok());
    for (raw, expected) in [
        (String::new(), "no url arg userid"),
        ("userid=ann".to_owned(), "no url arg usersig"),
        (format!("userid=ann&usersig={usersig}"), "no url arg privateMapKey"),
        (all("x", &good), "invalid usersig"),
        (all(&usersig, "x"), "invalid privateMapKey"),
        (all(&ticket("bob", 7, None), &good), "usersig is for another user"),
        (all(&ticket("ann", 8, None), &good), "usersig is for another application"),
        (format!("sdkappid=8&{}", all(&usersig, &good)), "another sdkappid"),
        (format!("roomid=1235&{}", all(&usersig, &good)), "roomid is not the room of this address"),
        (all(&usersig, &map_key(("bob", 7), &room, 0xFF)), "privateMapKey is for another user"),
        (
            all(&usersig, &map_key(("ann", 8), &room, 0xFF)),
            "privateMapKey is for another application",
        ),
        (
            all(&usersig, &map_key(("ann", 7), &Room::Number(1), 0xFF)),
            "privateMapKey is for another room",
        ),
        (
            all(&usersig, &map_key(("ann", 7), &room, 0xFF & !map_key::ENTER)),
            "privateMapKey does not allow to enter the room",
        ),
        (
            all(&usersig, &map_key(("ann", 7), &room, 0xAB)),
            "privateMapKey does not allow to publish",
        ),
        (all(&usersig, &ticket("ann", 7, Some(vec![0; 9]))), "invalid privateMapKey"),
    ] {
        let text = check(&scheme(), &raw, Role::Publish, NOW).unwrap_err();
        assert_eq!(text, format!("denied by req auth: {expected}"));
    }
    let at = |unix_s| check(&scheme(), &all(&usersig, &good), Role::Publish, unix_s);
    assert!(at(NOW + 60).is_ok());
    assert_eq!(at(NOW + 61).unwrap_err(), "denied by req auth: expired privateMapKey");
    assert_eq!(at(NOW + 601).unwrap_err(), "denied by req auth: expired usersig");
}

#[test]
fn bits_decide_about_roles_and_tracks() {
    let usersig = ticket("ann", 7, None);
    for (rights, tracks, may_play) in [
        (0xFF, Some((true, true)), true),
        (0xAB, None, true),
        (map_key::ENTER | map_key::SEND_AUDIO, Some((true, false)), false),
        (map_key::ENTER | map_key::SEND_VIDEO, Some((false, true)), false),
        (map_key::ENTER | map_key::SEND_SUB, Some((false, true)), false),
        (map_key::ENTER | map_key::RECEIVE_SUB, None, true),
        (map_key::ENTER, None, false),
        (0xFF & !map_key::ENTER, None, false),
    ] {
        let key = map_key(("ann", 7), &Room::Number(1_234), rights);
        let raw = format!("userid=ann&usersig={usersig}&privateMapKey={key}");
        let publish = check(&scheme(), &raw, Role::Publish, NOW).ok();
        let told = publish.map(|pass| (pass.tracks.audio, pass.tracks.video));
        assert_eq!(told, tracks, "{rights:#x}");
        assert_eq!(check(&scheme(), &raw, Role::Play, NOW).is_ok(), may_play, "{rights:#x}");
    }
}

#[test]
fn a_room_may_be_the_last_level_of_the_app() {
    let usersig = ticket("ann", 7, None);
    let in_app = UserSig { room: RoomPlace::App, ..scheme() };
    for (room, scheme, expected) in
        [(9, &in_app, true), (1_234, &in_app, false), (1_234, &scheme(), true)]
    {
        let key = map_key(("ann", 7), &Room::Number(room), 0xFF);
        let raw = format!("userid=ann&usersig={usersig}&privateMapKey={key}");
        assert_eq!(check(scheme, &raw, Role::Publish, NOW).is_ok(), expected, "{room}");
    }
}

/// The text of a ticket with this inside, signed or not.
fn wrapped(json: &[u8]) -> String {
    let compressed = miniz_oxide::deflate::compress_to_vec_zlib(json, 9);
    let text = STANDARD.encode(compressed);
    text.replace('+', "*").replace('/', "-").replace('=', "_")
}

#[test]
fn a_ticket_that_grows_without_end_or_is_none_is_refused() {
    let keys = scheme().keys;
    let malformed = |text: &str| assert_eq!(keys.open(text), Err(TicketError::Malformed));
    malformed("");
    malformed("é");
    malformed(&wrapped(b""));
    malformed(&wrapped(b"{}"));
    malformed(&wrapped(&[b' '; 1_000_000]));
    malformed(&wrapped(&b"[".repeat(4_000)));
    let good = ticket("ann", 7, None);
    assert!(keys.open(&good).is_ok());
    malformed(&format!("{good}AAAA"));
    // Among a few lengths there is one that needs padding.
    let padded = ["a", "ab", "abc", "abcd"].map(|user| ticket(user, 7, None));
    let padded = padded.iter().find(|ticket| ticket.ends_with('_')).unwrap();
    malformed(&padded.replace('_', "="));
    let twice = br#"{"TLS.ver":"2.0","TLS.identifier":"a","TLS.identifier":"b","TLS.sdkappid":7,
        "TLS.expire":1,"TLS.time":1,"TLS.sig":""}"#;
    malformed(&wrapped(twice));
    let line = br#"{"TLS.ver":"2.0","TLS.identifier":"a\nTLS.sdkappid:9","TLS.sdkappid":7,
        "TLS.expire":1,"TLS.time":1,"TLS.sig":""}"#;
    malformed(&wrapped(line));
    let unsigned = br#"{"TLS.ver":"2.0","TLS.identifier":"a","TLS.sdkappid":7,"TLS.expire":1,
        "TLS.time":1,"TLS.sig":""}"#;
    assert_eq!(keys.open(&wrapped(unsigned)), Err(TicketError::BadSignature));
}

#[test]
fn an_application_without_keys_opens_nothing() {
    let good = ticket("ann", 7, None);
    assert_eq!(TicketKeys::default().open(&good), Err(TicketError::BadSignature));
}

#[test]
fn keys_of_another_curve_are_no_keys_of_tickets() {
    let mut keys = PublicKeys::default();
    assert!(keys.add_pem("").is_err());
    let pem = "-----BEGIN PUBLIC KEY-----\nc2VzYW1l\n-----END PUBLIC KEY-----\n";
    assert_eq!(keys.add_pem(pem), Err("the public key is not one of P-256"));
    let private = pem.replace("PUBLIC", "PRIVATE");
    assert!(SigningKey::new(&secret(&private)).is_err());
    assert!(!format!("{:?}", SigningKey::new(&secret(KEY)).unwrap()).contains(KEY));
}
