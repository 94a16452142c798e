//! Tickets and tokens: what a privateMapKey lets through of a stream, and keys that are fetched.

use edge::access::Role;
use edge::access::providers::usersig::map_key;
use edge::access::providers::usersig::ticket;
use edge::access::secret::SecretText;
use edge::address::{Order, Ports, Signer, generate};
use rtmp::session::ClientRole;
use serde_json::json;

use crate::hook_server::HookServer;
use crate::peer::{Answer, Wire};
use crate::rig::{PUSH_KEY, Rig, now, plain};
use crate::support::media::{Kind, Source};

const SETTINGS: &str = "[domain.\"push.room.test\"]\ntype = \"push\"\n\
    [[domain.\"push.room.test\".provider]]\nscheme = \"usersig\"\nkey = \"sesame-of-push\"\n\
    sdk_app_id = 1400000001\nprivate_map_key = true\n\
    [domain.\"play.room.test\"]\ntype = \"play\"\npush_domain = \"push.room.test\"\n";

type IsKind = fn(Kind) -> bool;

fn push_address(stream: &str, rights: u32) -> String {
    let signer = Signer::UserSig {
        key: ticket::SigningKey::new(&SecretText::new(PUSH_KEY).unwrap()).unwrap(),
        sdk_app_id: 1_400_000_001,
        user: "ann".into(),
        map_key: Some((stream.into(), rights)),
    };
    let order = Order {
        role: Role::Publish,
        domain: "push.room.test",
        app: "live",
        stream,
        ports: Ports::default(),
        unix_s: now(),
        valid_s: None,
    };
    generate(&signer, &order).unwrap().rtmp.unwrap()
}

#[test]
fn a_publisher_without_the_right_to_video_is_heard_and_not_seen() {
    let rig = Rig::start(plain(), SETTINGS);
    let mut wire = Wire::new(rig.rtmp);
    let audio_only = map_key::ENTER | map_key::SEND_AUDIO;
    let video_only = map_key::ENTER | map_key::SEND_VIDEO;
    for (stream, rights, audio, video) in
        [("a", audio_only, true, false), ("v", video_only, false, true), ("b", 0xff, true, true)]
    {
        let publisher = wire.started(ClientRole::Publish, &push_address(stream, rights));
        let early = wire.started(ClientRole::Play, &format!("rtmp://play.room.test/live/{stream}"));
        let mut source = Source::new(7);
        wire.send_headers(publisher, &source);
        wire.send_frames(publisher, &mut source, 25);
        let late = wire.started(ClientRole::Play, &format!("rtmp://play.room.test/live/{stream}"));
        // Without video a player begins with what comes after it.
        wire.send_frames(publisher, &mut source, 5);
        let kinds: [(bool, IsKind); 2] = [
            (audio, |kind| matches!(kind, Kind::Audio | Kind::AudioHeader)),
            (video, |kind| matches!(kind, Kind::Keyframe | Kind::Frame | Kind::VideoHeader)),
        ];
        let last_of = |is_kind: IsKind| {
            source.sent.iter().rev().find(|item| is_kind(item.kind)).unwrap().sequence
        };
        let last = kinds.iter().filter(|(may, _)| *may).map(|(_, is)| last_of(*is)).max();
        for player in [early, late] {
            wire.until("the last frame that may come", |wire| {
                wire.peers[player].last_sequence() == last
            });
            for (may, is_kind) in kinds {
                let has = wire.peers[player].items.iter().any(|item| is_kind(item.kind));
                assert_eq!(has, may, "{stream} player {player}");
            }
        }
        assert_eq!(wire.peers[early].count(Kind::Audio), if audio { 30 } else { 0 }, "{stream}");
        assert_eq!(wire.peers[early].count(Kind::Keyframe), if video { 3 } else { 0 }, "{stream}");
        wire.leave(publisher);
    }
}

/// A key set that the server fetches; the private key never leaves this test.
#[test]
fn tokens_are_checked_with_a_key_set_that_is_fetched() {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

    let pair = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (good, other) = (pair(), pair());
    let point = good.public_key().as_ref();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig",
        "alg": "ES256", "x": part(1..33), "y": part(33..65)}]});
    let service = HookServer::answering(200, &set.to_string());
    let rig = Rig::start(
        plain(),
        &format!(
            "[domain.\"push.token.test\"]\ntype = \"push\"\n\
             [[domain.\"push.token.test\".provider]]\nscheme = \"jwt\"\n\
             jwks_url = \"http://{}/keys\"\nalgorithms = [\"ES256\"]\n",
            service.address
        ),
    );
    let token = |pair: &EcdsaKeyPair, stream: &str| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".into());
        let claims =
            json!({"stream": stream, "action": "publish", "exp": now() + 600, "sub": "ann"});
        let der = pair.to_pkcs8v1().unwrap();
        encode(&header, &claims, &EncodingKey::from_ec_der(der.as_ref())).unwrap()
    };
    let address = |token: &str| format!("rtmp://push.token.test/live/cam?token={token}");
    let good_address = address(&token(&good, "live/cam"));
    rig.remember(&good_address);
    let mut wire = Wire::new(rig.rtmp);
    // The set is fetched within a second of the start; until then nothing is right.
    wire.until("the key set to be there", |wire| {
        let peer = wire.publish(&good_address);
        wire.answer(peer) == Answer::Started
    });
    rig.wait_event("publish", |line| line["user"] == "ann");
    let invalid = "denied by req auth: invalid token";
    let (_, text) = wire.refused(ClientRole::Publish, &address(&token(&other, "live/cam")));
    assert_eq!(text, invalid);
    let (_, text) = wire.refused(ClientRole::Publish, &address(&token(&good, "live/cam2")));
    assert_eq!(text, "denied by req auth: the token is for another stream");
}
