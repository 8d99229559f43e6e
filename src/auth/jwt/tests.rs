use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use rsa::pkcs1::EncodeRsaPrivateKey;
use serde_json::json;
use std::time::Duration;

use super::super::tests::{World, authority};
use super::super::{Authority, Unusable};
use super::*;

const URL: &str = "http://id/jwks";

/// The time of all questions: 1000 seconds after 1970 began.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
}

/// A key of an issuer.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    id: &'static str,
    public: Json,
}

impl Signer {
    fn ed(id: &'static str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = EncodingKey::from_ed_der(&pair.serialize_der());
        let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        Signer {
            algorithm: Algorithm::EdDSA,
            key,
            id,
            public: json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id}),
        }
    }

    fn ec(id: &'static str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        Self::described(Algorithm::ES256, key, id)
    }

    fn rsa(id: &'static str, bits: usize) -> Signer {
        let pair = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).unwrap();
        let key = EncodingKey::from_rsa_der(pair.to_pkcs1_der().unwrap().as_bytes());
        Self::described(Algorithm::RS256, key, id)
    }

    fn described(algorithm: Algorithm, key: EncodingKey, id: &'static str) -> Signer {
        let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        let mut public = serde_json::to_value(jwk).unwrap();
        public["kid"] = json!(id);
        Signer {
            algorithm,
            key,
            id,
            public,
        }
    }

    fn public(&self) -> Json {
        self.public.clone()
    }

    fn header(&self) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        header
    }

    fn sign(&self, claims: &Json) -> String {
        encode(&self.header(), claims, &self.key).unwrap()
    }
}

fn set(keys: &[Json]) -> String {
    json!({"keys": keys}).to_string()
}

fn serving(keys: &[Json]) -> World {
    let set = set(keys);
    World::new(move |_| Ok((200, set.clone())))
}

fn issuer(world: &World) -> Authority {
    let auth = json!({
        "type": "jwt", "issuer": "https://id.example.com", "audience": ["tollgate", "other"],
        "jwks_url": URL, "leeway": "60s",
    });
    authority(auth, &world.outside)
}

fn claims() -> Json {
    json!({"iss": "https://id.example.com", "aud": "tollgate", "sub": "ann", "exp": 2000})
}

/// The usual claims with one changed; null takes it out.
fn with(name: &str, value: Json) -> Json {
    let mut claims = claims();
    match value.is_null() {
        true => drop(claims.as_object_mut().unwrap().remove(name)),
        false => claims[name] = value,
    }
    claims
}

fn why(world: &World, authority: &Authority, token: &str) -> Option<Unusable> {
    world.try_token(authority, token, now()).err()
}

#[test]
fn tokens_of_each_algorithm_pass_and_are_verified_once() {
    let signers = [Signer::ed("a"), Signer::ec("b"), Signer::rsa("c", 2048)];
    let world = serving(&signers.each_ref().map(Signer::public));
    let issuer = issuer(&world);
    for signer in &signers {
        let token = signer.sign(&claims());
        let first = world.try_token(&issuer, &token, now()).unwrap();
        assert_eq!(&*first.principal.name, "ann");
        assert_eq!(&*first.principal.id, "jwt:https://id.example.com:ann");
        let known = issuer.known(token.as_bytes(), now()).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &known));
        assert_eq!(first.ends_soon(now), None);
        // Somebody else's signature.
        let mut forged = token.clone();
        let last = forged.rfind('.').unwrap() + 10;
        let other = if &forged[last..=last] == "A" {
            "B"
        } else {
            "A"
        };
        forged.replace_range(last..=last, other);
        assert_eq!(why(&world, &issuer, &forged), Some(Unusable::Unknown));
    }
    assert_eq!(world.played.count(), 1);
}

/// The public key, which everybody has, as the secret of an HMAC; and no signature at all.
#[test]
fn no_other_algorithm_passes() {
    let signer = Signer::ed("a");
    let public = signer.public();
    let world = serving(std::slice::from_ref(&public));
    let issuer = issuer(&world);
    assert_eq!(why(&world, &issuer, &signer.sign(&claims())), None);
    let x = public["x"].as_str().unwrap();
    for secret in [
        EncodingKey::from_secret(x.as_bytes()),
        EncodingKey::from_secret(&BASE64_URL_SAFE_NO_PAD.decode(x).unwrap()),
        EncodingKey::from_secret(public.to_string().as_bytes()),
    ] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("a".into());
        let token = encode(&header, &claims(), &secret).unwrap();
        assert_eq!(why(&world, &issuer, &token), Some(Unusable::Unknown));
    }
    // {"alg":"none"}, {"alg":"none","kid":"a"}
    let signed = signer.sign(&claims());
    let payload = signed.split('.').nth(1).unwrap();
    for head in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJub25lIiwia2lkIjoiYSJ9"] {
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{payload}.{signature}");
            assert_eq!(why(&world, &issuer, &token), Some(Unusable::Unknown));
        }
    }
}

#[test]
fn a_key_is_for_its_own_algorithm_and_use() {
    let signer = Signer::ec("a");
    let changed = |name: &str, value: Json| {
        let mut key = signer.public();
        key[name] = value;
        key
    };
    let unfit = [
        changed("alg", json!("ES384")),
        changed("alg", json!("HS256")),
        changed("use", json!("enc")),
        changed("key_ops", json!(["encrypt"])),
        changed("crv", json!("P-384")),
        changed("kty", json!("oct")),
        changed("x", json!("AAAA")),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"}),
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"}),
        json!("no key"),
    ];
    let other = Signer::ed("other");
    let token = signer.sign(&claims());
    for key in unfit {
        let world = serving(&[other.public(), key.clone()]);
        let refused = why(&world, &issuer(&world), &token);
        assert_eq!(refused, Some(Unusable::Unknown), "{key}");
    }
    let fit = changed("use", json!("sig"));
    let world = serving(&[other.public(), fit]);
    assert_eq!(why(&world, &issuer(&world), &token), None);
    // A key of another kind under the same name.
    let world = serving(&[Signer::ed("a").public()]);
    assert_eq!(
        why(&world, &issuer(&world), &token),
        Some(Unusable::Unknown)
    );
}

#[test]
fn a_weak_key_is_no_key() {
    let signer = Signer::rsa("a", 1024);
    let world = serving(&[signer.public()]);
    let refused = why(&world, &issuer(&world), &signer.sign(&claims()));
    assert_eq!(
        refused,
        Some(Unusable::Unavailable),
        "there is no other key"
    );
}

#[test]
fn claims_are_checked() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let issuer = issuer(&world);
    let unknown = Some(Unusable::Unknown);
    for (name, value, expected) in [
        ("iss", json!("https://other.example.com"), unknown),
        ("iss", json!(null), unknown),
        ("iss", json!(["https://id.example.com"]), unknown),
        ("aud", json!("somebody"), unknown),
        ("aud", json!(null), unknown),
        ("aud", json!([]), unknown),
        ("aud", json!(["somebody", "other"]), None),
        ("sub", json!(null), unknown),
        ("sub", json!(""), unknown),
        ("sub", json!(7), unknown),
        ("exp", json!(null), unknown),
        ("exp", json!("2000"), unknown),
        ("exp", json!(1e300), unknown),
        ("exp", json!(-5), unknown),
        ("exp", json!(940), Some(Unusable::Expired)),
        ("exp", json!(941), None),
        ("nbf", json!(1061), unknown),
        ("nbf", json!(1060), None),
        ("nbf", json!("soon"), unknown),
    ] {
        let token = signer.sign(&with(name, value.clone()));
        assert_eq!(why(&world, &issuer, &token), expected, "{name} {value}");
    }
}

#[test]
fn a_token_that_was_verified_ends_in_time() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let issuer = issuer(&world);
    let token = signer.sign(&claims());
    assert_eq!(why(&world, &issuer, &token), None);
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let known = |seconds| issuer.known(token.as_bytes(), at(seconds)).unwrap();
    world.runtime.block_on(async {
        assert!(known(2059).is_ok());
        assert_eq!(known(2060).unwrap_err(), Unusable::Expired);
    });
}

#[test]
fn scopes_come_from_the_claims_that_are_named() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let auth = json!({
        "type": "jwt", "jwks_url": URL,
        "claims": {"subject": "email", "services": "tollgate.services", "models": "models"},
    });
    let issuer = authority(auth, &world.outside);
    let key = |claims: Json| {
        world
            .try_token(&issuer, &signer.sign(&claims), now())
            .unwrap()
    };
    let some = key(json!({
        "email": "a@b", "exp": 2000, "tollgate": {"services": "qwen llama"}, "models": ["Qwen/*"],
    }));
    assert_eq!(
        (&*some.principal.name, &*some.principal.id),
        ("a@b", "jwt::a@b")
    );
    assert!(some.admits("qwen", None, Some("Qwen/Qwen3")));
    assert!(!some.admits("other", None, Some("Qwen/Qwen3")));
    assert!(!some.admits("qwen", None, Some("gpt")));
    let none = key(json!({"email": "a@b", "exp": 2000, "tollgate": {"services": 7}}));
    assert!(!none.opens("qwen") && !none.is_unscoped());
}

#[test]
fn a_new_key_is_fetched_when_it_is_first_met_but_not_too_often() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let world = serving(&[old.public()]);
    let issuer = issuer(&world);
    let (first, second) = (old.sign(&claims()), new.sign(&claims()));
    assert_eq!(why(&world, &issuer, &first), None);
    let rotated = set(&[new.public()]);
    world.played.play(move |_| Ok((200, rotated.clone())));
    assert_eq!(why(&world, &issuer, &second), Some(Unusable::Unknown));
    assert_eq!(world.played.count(), 1, "ten seconds are not over");
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(why(&world, &issuer, &second), None);
    assert_eq!(world.played.count(), 2);
    // What the old key signed was verified, and is verified again.
    assert_eq!(why(&world, &issuer, &first), Some(Unusable::Unknown));
}

#[test]
fn the_keys_are_fetched_again_while_they_are_used_and_kept_while_they_cannot_be() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let issuer = issuer(&world);
    let token = signer.sign(&claims());
    assert_eq!(why(&world, &issuer, &token), None);
    world.clock.advance(Duration::from_secs(299));
    assert_eq!(why(&world, &issuer, &token), None);
    world.settle();
    assert_eq!(world.played.count(), 1);
    world.played.play(|_| Ok((500, String::new())));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(why(&world, &issuer, &token), None);
    world.settle();
    assert_eq!(world.played.count(), 2);
    for broken in ["", "{}", r#"{"keys": []}"#, "[1]"] {
        world.played.play(move |_| Ok((200, broken.to_owned())));
        world.clock.advance(Duration::from_secs(10));
        assert_eq!(why(&world, &issuer, &token), None);
        world.settle();
    }
    assert_eq!(world.played.count(), 6);
    assert_eq!(
        why(&world, &issuer, &signer.sign(&with("sub", json!("bob")))),
        None
    );
}

#[test]
fn without_any_keys_nobody_knows_and_few_ask() {
    let signer = Signer::ed("a");
    let world = World::new(|_| Err(tollgate_sdk::plugin::CallError::Connect));
    let issuer = issuer(&world);
    for n in 0..10 {
        let token = signer.sign(&with("sub", json!(n.to_string())));
        assert_eq!(why(&world, &issuer, &token), Some(Unusable::Unavailable));
    }
    assert_eq!(world.played.count(), 1);
    world.clock.advance(Duration::from_secs(1));
    let token = signer.sign(&claims());
    assert_eq!(why(&world, &issuer, &token), Some(Unusable::Unavailable));
    assert_eq!(world.played.count(), 2);
    // What cannot be a token of the issuer's is refused all the same, without a call.
    for garbage in ["a", "a.b.c", "..", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"] {
        assert_eq!(why(&world, &issuer, garbage), Some(Unusable::Unknown));
    }
}

#[test]
fn a_hundred_who_need_keys_are_one_fetch() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let permits = world.played.gate.available_permits();
    world.played.gate.forget_permits(permits);
    let issuer = Arc::new(issuer(&world));
    world.runtime.block_on(async {
        let ask = |n: usize| {
            let issuer = issuer.clone();
            let token = signer.sign(&with("sub", json!(n.to_string())));
            tokio::spawn(async move { issuer.ask(token.as_bytes(), now()).await.is_ok() })
        };
        let asking: Vec<_> = (0..100).map(ask).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.played.gate.add_permits(1);
        for asked in asking {
            assert!(asked.await.unwrap());
        }
    });
    assert_eq!(world.played.count(), 1);
}

#[test]
fn keys_in_a_file_are_read_again_when_it_changes() {
    let (old, new) = (Signer::ed("a"), Signer::ed("b"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set(&[old.public()])).unwrap();
    let world = World::new(|_| panic!("nobody is asked"));
    let auth = json!({"type": "jwt", "jwks_file": path.to_str().unwrap()});
    let issuer = authority(auth, &world.outside);
    let (first, second) = (old.sign(&claims()), new.sign(&claims()));
    assert_eq!(why(&world, &issuer, &first), None);
    std::fs::write(&path, set(&[old.public(), new.public()])).unwrap();
    assert_eq!(why(&world, &issuer, &second), Some(Unusable::Unknown));
    world.clock.advance(Duration::from_secs(10));
    assert_eq!(why(&world, &issuer, &second), None);
    assert_eq!(why(&world, &issuer, &first), None);
}

#[test]
fn what_is_known_outlives_a_change_of_other_settings() {
    let signer = Signer::ed("a");
    let world = serving(&[signer.public()]);
    let before = issuer(&world);
    let token = signer.sign(&claims());
    assert_eq!(why(&world, &before, &token), None);
    let same = issuer(&world);
    assert!(same.known(token.as_bytes(), now()).is_some());
    let auth = json!({"type": "jwt", "jwks_url": URL, "audience": "somebody"});
    let stricter = authority(auth, &world.outside);
    drop(before);
    assert_eq!(why(&world, &stricter, &token), Some(Unusable::Unknown));
    assert_eq!(world.played.count(), 1, "the keys are the same");
}
