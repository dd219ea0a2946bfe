//! Who asks: JSON Web Tokens. The algorithm is the operator's choice and never read from the token; the time is given.

mod jwks;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use syncline_protocol::{Timestamp, check_entity_id};

use crate::endpoint::Claims;
use jwks::Jwks;
pub use jwks::{FetchError, FileSource, HttpSource, JwksSource};

/// Clocks may differ by so much, in seconds.
pub const LEEWAY_SECONDS: i64 = 30;
/// A longer token is refused unread.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// The shortest HS256 secret that is accepted.
pub const MIN_SECRET_BYTES: usize = 32;

/// How tokens are verified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The algorithm, and where its keys come from.
    pub keys: Keys,
    /// A token must name one of these in `aud`. Not empty.
    pub audience: Vec<String>,
    /// If given, what `iss` must be.
    #[serde(default)]
    pub issuer: Option<String>,
    /// The claim that names the scope, as one text, or the allowed scopes, as an array of texts. A JSON pointer
    /// (`/app_metadata/teams`) reaches into nested claims.
    #[serde(default = "default_scope_claim")]
    pub scope_claim: String,
}

fn default_scope_claim() -> String {
    "scope".into()
}

/// The algorithm, and where its keys come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "algorithm", deny_unknown_fields)]
pub enum Keys {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256 {
        /// At least [`MIN_SECRET_BYTES`].
        secret: Secret,
    },
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256 {
        /// Its public keys.
        jwks: JwksLocation,
    },
    /// RSA PKCS#1 v1.5 with SHA-256, keys of 2048 bits or more.
    #[serde(rename = "RS256")]
    Rs256 {
        /// Its public keys.
        jwks: JwksLocation,
    },
}

/// Where a JSON Web Key Set is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JwksLocation {
    /// `https://…`, or `http://` to loopback.
    Url(String),
    /// A file, read again like a URL.
    File(PathBuf),
}

/// A secret that does not show itself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A configuration that would not be safe, or cannot work.
#[derive(Debug, thiserror::Error)]
#[error("auth: {0}")]
pub struct InvalidAuth(pub(crate) String);

/// Why a token opens nothing. Holds no part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no `Authorization: Bearer` token.
    #[error("there is no bearer token")]
    Missing,
    /// It does not verify.
    #[error("the token does not verify")]
    Invalid,
    /// It is past its `exp`.
    #[error("the token has expired")]
    Expired,
    /// It verifies, but does not say for which scope.
    #[error("the token names no scope")]
    Forbidden,
    /// The keys cannot be had for now.
    #[error("the keys are not available")]
    Unavailable,
}

/// Verifies tokens.
pub struct Verifier {
    algorithm: Algorithm,
    keys: KeyRing,
    validation: Validation,
    scope_claim: String,
}

enum KeyRing {
    Secret(DecodingKey),
    Jwks(Jwks),
}

impl Verifier {
    /// A verifier as configured; nothing is fetched yet.
    ///
    /// # Errors
    /// A short secret, no audience, or a URL that is neither `https` nor loopback.
    pub fn new(config: &AuthConfig) -> Result<Self, InvalidAuth> {
        Self::build(config, |location| {
            Ok(match location {
                JwksLocation::Url(url) => Box::new(HttpSource::new(url)?),
                JwksLocation::File(path) => Box::new(FileSource::new(path)),
            })
        })
    }

    /// A verifier whose key set comes from `source`, whatever location the configuration gives.
    ///
    /// # Errors
    /// See [`Verifier::new`].
    pub fn with_source(config: &AuthConfig, source: Box<dyn JwksSource>) -> Result<Self, InvalidAuth> {
        let mut source = Some(source);
        Self::build(config, |_| source.take().ok_or_else(|| InvalidAuth("the source is used already".into())))
    }

    fn build(
        config: &AuthConfig,
        source: impl FnOnce(&JwksLocation) -> Result<Box<dyn JwksSource>, InvalidAuth>,
    ) -> Result<Self, InvalidAuth> {
        if config.audience.is_empty() {
            return Err(InvalidAuth("no audience is given".into()));
        }
        let (algorithm, keys) = match &config.keys {
            Keys::Hs256 { secret } if secret.0.len() < MIN_SECRET_BYTES => {
                return Err(InvalidAuth(format!("the secret is shorter than {MIN_SECRET_BYTES} bytes")));
            }
            Keys::Hs256 { secret } => {
                (Algorithm::HS256, KeyRing::Secret(DecodingKey::from_secret(secret.0.as_bytes())))
            }
            Keys::Es256 { jwks } => (Algorithm::ES256, KeyRing::Jwks(Jwks::new(Algorithm::ES256, source(jwks)?))),
            Keys::Rs256 { jwks } => (Algorithm::RS256, KeyRing::Jwks(Jwks::new(Algorithm::RS256, source(jwks)?))),
        };
        let mut validation = Validation::new(algorithm);
        // `exp` and `nbf` are compared below, with the time that is given.
        validation.validate_exp = false;
        validation.set_audience(&config.audience);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { algorithm, keys, validation, scope_claim: config.scope_claim.clone() })
    }

    /// Verifies the value of an `Authorization` header.
    ///
    /// # Errors
    /// Why the token opens nothing.
    pub async fn verify_header(&self, header: Option<&[u8]>, now: Timestamp) -> Result<Claims, AuthError> {
        let value = header.and_then(|value| std::str::from_utf8(value).ok()).ok_or(AuthError::Missing)?;
        let (scheme, token) = value.split_once(' ').ok_or(AuthError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Missing);
        }
        self.verify(token.trim(), now).await
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        self.claims(self.verify_claims(token, now).await?)
    }

    /// Verifies a token and gives all its claims, whatever they say.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub async fn verify_claims(&self, token: &str, now: Timestamp) -> Result<Map<String, Value>, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        // A critical extension is one that must not be ignored, and none is known here.
        if header.alg != self.algorithm || header.crit.is_some() {
            return Err(AuthError::Invalid);
        }
        let candidates = match &self.keys {
            KeyRing::Secret(key) => vec![key.clone()],
            KeyRing::Jwks(jwks) => jwks.candidates(header.kid.as_deref(), now).await?,
        };
        let decode = |key| jsonwebtoken::decode::<Map<String, Value>>(token, key, &self.validation).ok();
        let claims = candidates.iter().find_map(decode).ok_or(AuthError::Invalid)?.claims;
        check_times(&claims, now)?;
        Ok(claims)
    }

    fn claims(&self, claims: Map<String, Value>) -> Result<Claims, AuthError> {
        let user_id = claims.get("sub").and_then(Value::as_str).filter(|sub| check_entity_id(sub));
        let user_id = user_id.ok_or(AuthError::Invalid)?.to_owned();
        let claims = Value::Object(claims);
        let scope = match self.scope_claim.strip_prefix('/') {
            Some(_) => claims.pointer(&self.scope_claim),
            None => claims.get(&self.scope_claim),
        };
        let scopes: Option<BTreeSet<String>> = match scope {
            Some(Value::String(scope)) => Some([scope.clone()].into()),
            Some(Value::Array(scopes)) => scopes.iter().map(|scope| scope.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let scopes = scopes.filter(|scopes| !scopes.is_empty()).ok_or(AuthError::Forbidden)?;
        let all = if let Value::Object(all) = claims { all } else { Map::new() };
        Ok(Claims { all, ..Claims::new(user_id, scopes) })
    }
}

fn check_times(claims: &Map<String, Value>, now: Timestamp) -> Result<(), AuthError> {
    let now = now.millis() as f64 / 1000.0;
    let leeway = LEEWAY_SECONDS as f64;
    let expires = claims.get("exp").and_then(Value::as_f64).ok_or(AuthError::Invalid)?;
    let starts = claims.get("nbf").map(|nbf| nbf.as_f64().ok_or(AuthError::Invalid)).transpose()?;
    if starts.is_some_and(|starts| now + leeway < starts) {
        return Err(AuthError::Invalid);
    }
    if now - leeway >= expires { Err(AuthError::Expired) } else { Ok(()) }
}

/// Makes an HS256 token, for development and tests. `scopes` becomes the `scope` claim: one text, or an array.
pub fn mint(secret: &Secret, user_id: &str, scopes: &[&str], audience: &str, expires: Timestamp) -> String {
    let scope = match scopes {
        [scope] => json!(scope),
        scopes => json!(scopes),
    };
    let claims = json!({ "sub": user_id, "aud": audience, "scope": scope, "exp": expires.millis() / 1000 });
    let key = EncodingKey::from_secret(secret.0.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("HMAC signs anything")
}
