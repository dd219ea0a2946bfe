//! Makes tokens of any form, good and bad.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use parking_lot::Mutex;
use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, FetchError, JwksLocation, JwksSource, Keys, Secret, Verifier};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_777_636_800_000);
pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

pub(crate) fn seconds() -> i64 {
    NOW.millis() / 1000
}

/// A private key of the tests, by name.
pub(crate) fn key(name: &str) -> EncodingKey {
    let pem = |name: &str| std::fs::read(format!("{}/tests/auth/keys/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap();
    match name {
        "secret" => EncodingKey::from_secret(SECRET.as_bytes()),
        "other secret" => EncodingKey::from_secret(b"another secret of thirty-two bytes"),
        name if name.starts_with("ec") => EncodingKey::from_ec_pem(&pem(name)).unwrap(),
        name => EncodingKey::from_rsa_pem(&pem(name)).unwrap(),
    }
}

/// The public half of a key as a member of a key set, with these members replaced (null removes).
pub(crate) fn jwk(name: &str, kid: &str, members: Value) -> Value {
    let algorithm = match name {
        "ec_p384" => Algorithm::ES384,
        name if name.starts_with("ec") => Algorithm::ES256,
        name if name.starts_with("rsa") => Algorithm::RS256,
        _ => Algorithm::HS256,
    };
    let jwk = serde_json::to_value(Jwk::from_encoding_key(&key(name), algorithm).unwrap()).unwrap();
    merge(merge(jwk, json!({ "kid": kid, "use": "sig" })), members)
}

pub(crate) fn merge(mut value: Value, members: Value) -> Value {
    let object = value.as_object_mut().unwrap();
    for (name, member) in members.as_object().unwrap() {
        if member.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), member.clone());
        }
    }
    value
}

/// A token in the making; as it starts, it is good.
#[derive(Clone)]
pub(crate) struct Forge {
    header: Value,
    claims: Value,
    key: &'static str,
    algorithm: Algorithm,
}

impl Forge {
    pub(crate) fn hs256() -> Self {
        Self::with("HS256", Algorithm::HS256, "secret", json!({}))
    }

    pub(crate) fn es256() -> Self {
        Self::with("ES256", Algorithm::ES256, "ec_1", json!({ "kid": "e1" }))
    }

    pub(crate) fn rs256() -> Self {
        Self::with("RS256", Algorithm::RS256, "rsa_1", json!({ "kid": "r1" }))
    }

    fn with(word: &str, algorithm: Algorithm, key: &'static str, header: Value) -> Self {
        let claims = json!({ "sub": "ada", "aud": "syncline", "exp": seconds() + 3600, "scope": "team" });
        Self { header: merge(json!({ "alg": word, "typ": "JWT" }), header), claims, key, algorithm }
    }

    /// With these header members replaced; null removes.
    pub(crate) fn header(mut self, members: Value) -> Self {
        self.header = merge(self.header, members);
        self
    }

    /// With these claims replaced; null removes.
    pub(crate) fn claims(mut self, members: Value) -> Self {
        self.claims = merge(self.claims, members);
        self
    }

    /// With claims that are this value.
    pub(crate) fn body(mut self, claims: Value) -> Self {
        self.claims = claims;
        self
    }

    /// Signed by this key, with its own algorithm, whatever the header says.
    pub(crate) fn key(mut self, key: &'static str, algorithm: Algorithm) -> Self {
        (self.key, self.algorithm) = (key, algorithm);
        self
    }

    pub(crate) fn unsigned(&self) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    pub(crate) fn sign(&self) -> String {
        let text = self.unsigned();
        let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key(self.key), self.algorithm).unwrap();
        format!("{text}.{signature}")
    }

    /// Signed with any bytes as the HMAC secret.
    pub(crate) fn sign_with_bytes(&self, secret: &[u8]) -> String {
        let text = self.unsigned();
        let key = EncodingKey::from_secret(secret);
        format!("{text}.{}", jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap())
    }
}

/// A key set that counts how often it is fetched.
#[derive(Clone, Default)]
pub(crate) struct Set(Arc<(Mutex<Option<String>>, AtomicUsize)>);

impl Set {
    pub(crate) fn of(keys: Value) -> Self {
        let set = Self::default();
        set.put(Some(json!({ "keys": keys }).to_string()));
        set
    }

    /// What is answered from now on; none is a failure.
    pub(crate) fn put(&self, text: Option<String>) {
        *self.0.0.lock() = text;
    }

    pub(crate) fn fetches(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

impl JwksSource for Set {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<String, FetchError>> + Send + '_>> {
        self.0.1.fetch_add(1, Ordering::SeqCst);
        let text = self.0.0.lock().clone();
        Box::pin(std::future::ready(text.ok_or_else(|| FetchError("unreachable".into()))))
    }
}

pub(crate) fn config(algorithm: &str) -> AuthConfig {
    let jwks = JwksLocation::Url("https://id.example.com/keys".into());
    let keys = match algorithm {
        "HS256" => Keys::Hs256 { secret: Secret::new(SECRET) },
        "ES256" => Keys::Es256 { jwks },
        _ => Keys::Rs256 { jwks },
    };
    AuthConfig { keys, audience: vec!["syncline".into()], issuer: None, scope_claim: "scope".into() }
}

pub(crate) fn verifier(algorithm: &str, set: &Set) -> Verifier {
    Verifier::with_source(&config(algorithm), Box::new(set.clone())).unwrap()
}

/// A set with two good keys of each kind, and what else may be found in one.
pub(crate) fn full_set() -> Set {
    Set::of(json!([
        { "kty": "unknown", "kid": "e1" },
        "not a key",
        jwk("ec_p384", "p384", json!({})),
        jwk("rsa_1024", "weak", json!({})),
        jwk("secret", "h1", json!({})),
        jwk("ec_1", "encrypts", json!({ "use": "enc" })),
        jwk("ec_1", "signs", json!({ "key_ops": ["sign"] })),
        jwk("rsa_1", "other alg", json!({ "alg": "RS512" })),
        jwk("ec_1", "e1", json!({})),
        jwk("ec_2", "e2", json!({ "alg": null, "use": null, "key_ops": ["verify"] })),
        jwk("rsa_1", "r1", json!({})),
        jwk("rsa_2", "r2", json!({ "alg": null, "use": null })),
    ]))
}
