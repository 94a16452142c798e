//! Tokens of every algorithm, and what must not be taken for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::testing::{presented, query, secret};
use super::*;

const NOW: u64 = 1_700_000_000;
const KEY: &str = "a shared key of tokens";

fn scheme() -> Jwt {
    Jwt::new(KeySet::of_secret(&secret(KEY)))
}

fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

fn good() -> Value {
    json!({"stream": "live/room-*", "action": ["publish"], "exp": NOW + 100, "sub": "camera 7"})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn check(scheme: &Jwt, token: &str) -> Result<Pass, String> {
    let query = query(&format!("token={token}"));
    scheme.check(&presented(("live", "room-1"), &query, NOW)).map_err(|denial| denial.text)
}

fn refused(scheme: &Jwt, claims: &Value, expected: &str) {
    let text = check(scheme, &token(claims)).unwrap_err();
    assert_eq!(text, format!("denied by req auth: {expected}"), "{claims}");
}

#[test]
fn claims_name_the_streams_and_what_may_be_done() {
    assert_eq!(check(&scheme(), &token(&good())).unwrap().user.as_deref(), Some("camera 7"));
    for (name, value) in [
        ("stream", json!(["live/other", "live/room-1"])),
        ("stream", json!("**")),
        ("action", json!("publish")),
        ("action", json!(["play", "*"])),
        ("exp", json!(NOW as f64 + 0.5)),
        ("nbf", json!(NOW + 60)),
        ("nbf", json!(-5)),
        ("aud", json!("anybody")),
    ] {
        assert!(check(&scheme(), &token(&with(name, value.clone()))).is_ok(), "{name} {value}");
    }
    for (name, value, expected) in [
        ("stream", json!("live/room-2"), "the token is for another stream"),
        ("stream", json!([]), "the token is for another stream"),
        ("stream", Value::Null, "invalid token"),
        ("action", json!("play"), "the token does not allow to publish"),
        ("action", json!([]), "the token does not allow to publish"),
        ("exp", json!(NOW - 60), "expired token"),
        ("exp", json!(0), "expired token"),
        ("exp", json!("tomorrow"), "invalid token"),
        ("nbf", json!(NOW + 61), "token not valid yet"),
    ] {
        refused(&scheme(), &with(name, value), expected);
    }
    let mut claims = good();
    claims.as_object_mut().unwrap().remove("exp");
    refused(&scheme(), &claims, "the token has no exp");
    claims.as_object_mut().unwrap().remove("action");
    assert!(check(&scheme(), &token(&claims)).is_err());
}

#[test]
fn issuer_and_audience_are_compared_where_the_domain_has_them() {
    let strict = Jwt { issuer: Some("i".into()), audience: Some("a".into()), ..scheme() };
    let mut claims = with("iss", json!("i"));
    refused(&strict, &good(), "the token is of another issuer");
    refused(&strict, &claims, "the token is for another audience");
    claims["aud"] = json!(["b", "a"]);
    assert!(check(&strict, &token(&claims)).is_ok());
    claims["iss"] = json!("j");
    refused(&strict, &claims, "the token is of another issuer");
}

#[test]
fn the_token_stands_in_the_parameters_of_the_domain() {
    let token = token(&good());
    let at = |scheme: &Jwt, raw: &str| {
        let query = query(raw);
        scheme.check(&presented(("live", "room-1"), &query, NOW)).map_err(|denial| denial.text)
    };
    assert!(at(&scheme(), &format!("a=b&jwt={token}")).is_ok());
    assert_eq!(at(&scheme(), "a=b").unwrap_err(), "denied by req auth: no url arg token");
    let named = Jwt { params: vec!["access".into()], ..scheme() };
    assert!(at(&named, &format!("access={token}")).is_ok());
    let missing = at(&named, &format!("token={token}")).unwrap_err();
    assert_eq!(missing, "denied by req auth: no url arg access");
}

/// Public key in PEM of a key pair made here, and the private one.
fn pairs() -> Vec<(String, String)> {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _,
    };
    let pem = |name: &str, der: &[u8]| {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----\n")
    };
    let mut all = Vec::new();
    let mut add = |public: &[u8], private: &[u8]| {
        all.push((pem("PUBLIC KEY", public), pem("PRIVATE KEY", private)));
    };
    for algorithm in [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING] {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        add(public.as_ref(), pair.to_pkcs8v1().unwrap().as_ref());
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    add(public.as_ref(), pair.to_pkcs8().unwrap().as_ref());
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    add(public.as_ref(), private.as_ref());
    all
}

fn order() -> Order<'static> {
    let (path, expires_unix_s) = (["live", "room-1"], NOW + 100);
    let (issuer, audience) = (None, None);
    Order { role: Role::Publish, path, unix_s: NOW, expires_unix_s, issuer, audience }
}

#[test]
fn every_kind_of_key_signs_and_only_its_public_half_checks() {
    let pairs = pairs();
    for (signing, (_, private)) in pairs.iter().enumerate() {
        let token = sign(&SigningKey::new(&secret(private)).unwrap(), &order()).unwrap();
        for (checking, (public, _)) in pairs.iter().enumerate() {
            let scheme = Jwt::new(KeySet::of_public_pem(public).unwrap());
            assert_eq!(check(&scheme, &token).is_ok(), signing == checking, "{signing} {checking}");
        }
        assert!(check(&scheme(), &token).is_err());
    }
}

#[test]
fn a_public_key_is_never_a_secret_and_the_token_never_chooses() {
    for (public, _) in pairs() {
        // Signed with the text of the public key, which everybody knows.
        let token = sign(&SigningKey::new(&secret(&public[27..])).unwrap(), &order()).unwrap();
        let scheme = Jwt::new(KeySet::of_public_pem(&public).unwrap());
        assert_eq!(check(&scheme, &token).unwrap_err(), "denied by req auth: invalid token");
    }
    let claims = URL_SAFE_NO_PAD.encode(good().to_string());
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":""}"#, "{}", "[]"] {
        let token = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(check(&scheme(), &token).unwrap_err(), "denied by req auth: invalid token");
    }
    let only = Jwt { algorithms: vec![Algorithm::HS512], ..scheme() };
    assert!(check(&only, &token(&good())).is_err());
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(KEY.as_bytes());
    let critical = jsonwebtoken::encode(&header, &good(), &key).unwrap();
    assert!(check(&scheme(), &critical).is_err(), "an extension that must be understood");
}

#[test]
fn a_key_set_gives_the_named_key_and_leaves_out_what_is_not_for_signatures() {
    let octets = json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"});
    assert!(KeySet::of_jwks(&json!({"keys": [octets]}).to_string()).is_err());
    assert!(KeySet::of_jwks("{}").is_err() && KeySet::of_jwks("no").is_err());
    let many = vec![octets; 65];
    let text = KeySet::of_jwks(&json!({"keys": many}).to_string()).unwrap_err().to_string();
    assert_eq!(text, "the key set has more than 64 keys");

    let pair = || {
        aws_lc_rs::signature::EcdsaKeyPair::generate(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        )
        .unwrap()
    };
    let jwk = |pair: &aws_lc_rs::signature::EcdsaKeyPair, id: &str, used_for: &str| {
        use aws_lc_rs::signature::KeyPair as _;
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": used_for})
    };
    let (a, b) = (pair(), pair());
    let signed = |pair: &aws_lc_rs::signature::EcdsaKeyPair, id: Option<&str>| {
        let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        let mut header = Header::new(Algorithm::ES256);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, &good(), &key).unwrap()
    };
    let set = json!({"keys": [jwk(&a, "a", "sig"), jwk(&b, "b", "enc"), {"kty": "new", "x": 1}]});
    let scheme = Jwt::new(KeySet::of_jwks(&set.to_string()).unwrap());
    assert!(check(&scheme, &signed(&a, Some("a"))).is_ok());
    assert!(check(&scheme, &signed(&a, None)).is_ok(), "without a name every key is tried");
    assert!(check(&scheme, &signed(&a, Some("b"))).is_err());
    assert!(check(&scheme, &signed(&b, Some("b"))).is_err(), "a key for encryption");
    assert!(check(&scheme, &signed(&b, Some("a"))).is_err());
}

#[test]
fn keys_that_are_none_are_refused_without_being_shown() {
    let pem = "-----BEGIN PRIVATE KEY-----\nc2VzYW1l\n-----END PRIVATE KEY-----\n";
    let error = SigningKey::new(&secret(pem)).unwrap_err().to_string();
    assert!(error.contains("PRIVATE KEY") && !error.contains("c2VzYW1l"));
    assert!(KeySet::of_public_pem(pem).is_err() && KeySet::of_public_pem("").is_err());
    let shown = format!("{:?} {:?}", scheme(), SigningKey::new(&secret(KEY)).unwrap());
    assert!(!shown.contains(KEY), "{shown}");
}

#[test]
fn no_single_changed_character_of_a_token_is_accepted() {
    let token = token(&good());
    for at in 0..token.len() {
        for to in ['A', 'b', '0', '-', '_', '.', '=', '%'] {
            let mut changed = token.clone();
            changed.replace_range(at..=at, to.encode_utf8(&mut [0; 4]));
            if changed != token {
                assert!(check(&scheme(), &changed).is_err(), "{changed}");
            }
        }
    }
}
