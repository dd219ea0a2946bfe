//! The key set of an identity provider: cached, and fetched again when it is old or a key is unknown, but never in a hurry.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use syncline_protocol::Timestamp;

use super::{AuthError, InvalidAuth};

/// A set older than this is fetched again.
const FRESH_MILLIS: i64 = 10 * 60 * 1000;
/// A set older than this is not used any more.
const USABLE_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Between two fetches, failed ones too.
const PAUSE_MILLIS: i64 = 60 * 1000;
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_SET_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 100;
const MIN_RSA_BYTES: usize = 256;

/// Why a key set cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Where a key set comes from.
pub trait JwksSource: Send + Sync {
    /// The set's JSON.
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<String, FetchError>> + Send + '_>>;
}

/// A key set in a file.
pub struct FileSource(PathBuf);

impl FileSource {
    /// The set in the file at `path`.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl JwksSource for FileSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<String, FetchError>> + Send + '_>> {
        let text = std::fs::read_to_string(&self.0).map_err(|error| FetchError(format!("the key file: {error}")));
        Box::pin(std::future::ready(text))
    }
}

/// A key set behind a URL. No redirect is followed, no proxy used, no more than 256 KiB read.
pub struct HttpSource {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl HttpSource {
    /// The set at `url`.
    ///
    /// # Errors
    /// A URL that is neither `https` nor `http` to loopback.
    pub fn new(url: &str) -> Result<Self, InvalidAuth> {
        let url: reqwest::Url = url.parse().map_err(|_| InvalidAuth("the JWKS URL is not a URL".into()))?;
        let loopback = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(InvalidAuth("the JWKS URL is neither https nor http to loopback".into()));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| InvalidAuth(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(FETCH_TIMEOUT)
            .build()
            .map_err(|_| InvalidAuth("the HTTP client cannot be built".into()))?;
        Ok(Self { client, url })
    }

    async fn get(&self) -> Result<String, FetchError> {
        let failed = |what: &str| FetchError(format!("the key set: {what}"));
        let mut answer = self.client.get(self.url.clone()).send().await.map_err(|_| failed("the request failed"))?;
        if !answer.status().is_success() {
            return Err(failed(answer.status().as_str()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| failed("the answer broke off"))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_SET_BYTES {
                return Err(failed("the answer is too large"));
            }
        }
        String::from_utf8(bytes).map_err(|_| failed("the answer is not text"))
    }
}

impl JwksSource for HttpSource {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<String, FetchError>> + Send + '_>> {
        Box::pin(self.get())
    }
}

/// A cached key set for one algorithm.
pub(super) struct Jwks {
    algorithm: Algorithm,
    source: Box<dyn JwksSource>,
    /// Held while fetching, so that there is one fetch at a time.
    fetching: tokio::sync::Mutex<()>,
    state: parking_lot::Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Vec<(Option<String>, DecodingKey)>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    last_try_failed: bool,
}

impl State {
    fn is_older(moment: Option<Timestamp>, now: Timestamp, millis: i64) -> bool {
        // A clock set back counts as time gone by: better one fetch too many than none for ever.
        moment.is_none_or(|moment| !(0..millis).contains(&(now.millis() - moment.millis())))
    }

    /// The keys that may have signed: the one of that name, or, for a token without a name, the only one.
    fn find(&self, kid: Option<&str>, now: Timestamp) -> Vec<DecodingKey> {
        if Self::is_older(self.fetched_at, now, USABLE_MILLIS) {
            return Vec::new();
        }
        let of_name = |name: &Option<String>| match kid {
            Some(kid) => name.as_deref() == Some(kid),
            None => self.keys.len() == 1,
        };
        self.keys.iter().filter(|(name, _)| of_name(name)).map(|(_, key)| key.clone()).collect()
    }
}

impl Jwks {
    pub(super) fn new(algorithm: Algorithm, source: Box<dyn JwksSource>) -> Self {
        Self { algorithm, source, fetching: tokio::sync::Mutex::default(), state: parking_lot::Mutex::default() }
    }

    /// The keys that may have signed a token that names `kid`.
    pub(super) async fn candidates(&self, kid: Option<&str>, now: Timestamp) -> Result<Vec<DecodingKey>, AuthError> {
        let (found, fresh) = self.look(kid, now);
        if !found.is_empty() && fresh {
            return Ok(found);
        }
        if found.is_empty() {
            let _fetching = self.fetching.lock().await;
            // Someone else may have fetched meanwhile.
            if self.look(kid, now).0.is_empty() {
                self.fetch(now).await;
            }
        } else if let Ok(_fetching) = self.fetching.try_lock() {
            self.fetch(now).await;
        }
        let (found, _) = self.look(kid, now);
        if found.is_empty() && self.state.lock().last_try_failed {
            return Err(AuthError::Unavailable);
        }
        if found.is_empty() { Err(AuthError::Invalid) } else { Ok(found) }
    }

    fn look(&self, kid: Option<&str>, now: Timestamp) -> (Vec<DecodingKey>, bool) {
        let state = self.state.lock();
        (state.find(kid, now), !State::is_older(state.fetched_at, now, FRESH_MILLIS))
    }

    /// Fetches the set, unless that was tried a moment ago.
    async fn fetch(&self, now: Timestamp) {
        {
            let mut state = self.state.lock();
            if !State::is_older(state.tried_at, now, PAUSE_MILLIS) {
                return;
            }
            state.tried_at = Some(now);
            state.last_try_failed = true;
        }
        let keys = self.source.fetch().await.and_then(|text| parse(&text, self.algorithm));
        match keys {
            Ok(keys) => {
                let mut state = self.state.lock();
                state.keys = keys;
                state.fetched_at = Some(now);
                state.last_try_failed = false;
            }
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// The keys of a set that can serve `algorithm`. One that is malformed or of another kind does not spoil the others.
fn parse(text: &str, algorithm: Algorithm) -> Result<Vec<(Option<String>, DecodingKey)>, FetchError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_str(text).map_err(|_| FetchError("the key set is not a JWKS".into()))?;
    let keys = set.keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(keys
        .filter(|key| serves(key, algorithm))
        .filter_map(|key| Some((key.common.key_id.clone(), DecodingKey::from_jwk(&key).ok()?)))
        .collect())
}

fn serves(key: &Jwk, algorithm: Algorithm) -> bool {
    let (name, kind) = match (algorithm, &key.algorithm) {
        (Algorithm::ES256, AlgorithmParameters::EllipticCurve(curve)) => {
            (KeyAlgorithm::ES256, curve.curve == EllipticCurve::P256)
        }
        (Algorithm::RS256, AlgorithmParameters::RSA(rsa)) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            (KeyAlgorithm::RS256, modulus.len() >= MIN_RSA_BYTES)
        }
        // A symmetric key is never public.
        _ => return false,
    };
    let common = &key.common;
    kind && common.key_algorithm.is_none_or(|algorithm| algorithm == name)
        && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}
