//! An issuer of tokens: its keys and what it signs with them.

use std::path::Path;
use std::time::SystemTime;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};

use super::Web;

pub(crate) const ISSUER: &str = "https://id.example";

/// A key of an issuer.
pub(crate) struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    id: String,
    public: Value,
    /// What everybody knows of it, in the forms in which it might be taken for a shared secret.
    pub(crate) known: Vec<Vec<u8>>,
}

impl Signer {
    pub(crate) fn ed(id: &str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let raw = pair.public_key_raw().to_vec();
        let x = BASE64_URL_SAFE_NO_PAD.encode(&raw);
        Signer {
            algorithm: Algorithm::EdDSA,
            key: EncodingKey::from_ed_der(&pair.serialize_der()),
            id: id.to_owned(),
            public: json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id}),
            known: vec![raw, pair.public_key_pem().into_bytes()],
        }
    }

    pub(crate) fn ec(id: &str) -> Signer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let known = vec![
            pair.public_key_raw().to_vec(),
            pair.public_key_pem().into_bytes(),
        ];
        Self::described(Algorithm::ES256, key, id, known)
    }

    pub(crate) fn rsa(id: &str) -> Signer {
        let pair = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let key = EncodingKey::from_rsa_der(pair.to_pkcs1_der().unwrap().as_bytes());
        let public = pair.to_public_key();
        let known = vec![
            public
                .to_public_key_pem(LineEnding::LF)
                .unwrap()
                .into_bytes(),
            public.to_public_key_der().unwrap().into_vec(),
        ];
        Self::described(Algorithm::RS256, key, id, known)
    }

    fn described(algorithm: Algorithm, key: EncodingKey, id: &str, known: Vec<Vec<u8>>) -> Signer {
        let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        let mut public = serde_json::to_value(jwk).unwrap();
        public["kid"] = json!(id);
        Signer {
            algorithm,
            key,
            id: id.to_owned(),
            public,
            known,
        }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.id, claims)
    }

    /// Signs in the name of another key.
    pub(crate) fn sign_as(&self, id: &str, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(id.to_owned());
        encode(&header, claims, &self.key).unwrap()
    }
}

/// The set that an issuer with these keys publishes.
pub(crate) fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<&Value> = signers.iter().map(|signer| &signer.public).collect();
    json!({"keys": keys}).to_string()
}

/// A gateway `main` for every host that believes the issuer's tokens. `keys`: where its keys are; `more`: further settings, each after a comma.
pub(crate) fn believer(keys: &str, more: &str) -> String {
    believer_at("main", "*", keys, more)
}

pub(crate) fn believer_at(name: &str, host: &str, keys: &str, more: &str) -> String {
    format!(
        "[[gateway]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nauth = {{ type = \"jwt\", issuer = \"{ISSUER}\", audience = \"tollgate\", {keys}{more} }}\n"
    )
}

/// The keys are in a file.
pub(crate) fn keys_in(path: &Path) -> String {
    format!("jwks_file = \"{}\"", path.display())
}

/// The keys are at an address.
pub(crate) fn keys_at(web: &Web) -> String {
    format!("jwks_url = \"{}/keys\"", web.url())
}

pub(crate) fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() as i64
}

/// Claims of the issuer's that hold for an hour.
pub(crate) fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "aud": "tollgate", "sub": subject, "exp": unix_seconds() + 3600})
}
