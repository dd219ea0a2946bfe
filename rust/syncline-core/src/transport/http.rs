use std::error::Error;
use std::io;
use std::sync::Arc;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Url, redirect, retry};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use syncline_protocol::{MAX_INFLATED_BYTES, PROTOCOL_HEADER};

use super::{BoxFuture, Dialect, Request, Response, Route, Token, Transport, TransportError};
use crate::config::{Endpoint, Network};
use crate::error::{Result, SynclineError};

/// Names the project to Supabase's gateway.
const API_KEY: HeaderName = HeaderName::from_static("apikey");
/// Names the schema of a function to PostgREST.
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");
/// Begins the keys that pass by all row policies, and that no device may hold.
const SECRET_KEY: &str = "sb_secret_";
/// Shorter bodies are sent as they are: compressing them saves no packet.
const COMPRESS_FROM_BYTES: usize = 1024;

/// Speaks HTTP/2 or HTTP/1.1 with one endpoint, over TLS with bundled roots.
///
/// Certificates that the device's user installed are not honoured; private authorities are given in
/// [`Network::extra_roots_pem`]. A redirect is an answer like any other and never followed, so token and key reach nobody
/// but the endpoint. Futures must be polled within a tokio runtime with time and I/O enabled, as
/// [`System`](crate::environment::System) is one.
pub struct HttpTransport {
    client: Client,
    dialect: Dialect,
    push: Url,
    pull: Url,
    /// What every request carries.
    headers: HeaderMap,
}

impl HttpTransport {
    /// A transport to `endpoint`.
    ///
    /// # Errors
    /// `InvalidConfig` if the URL is not an absolute `https://` one (or `http://` to loopback, or to any host with
    /// `allow_cleartext`), carries a user, a query or a fragment, if the publishable key is none, or if an extra root is not
    /// a certificate in PEM.
    pub fn new(endpoint: &Endpoint, network: &Network) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (url, dialect) = match endpoint {
            Endpoint::Syncline { url } => (url, Dialect::Syncline),
            Endpoint::Supabase { url, publishable_key } => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
                headers.insert(CONTENT_PROFILE, HeaderValue::from_static("public"));
                headers.insert(API_KEY, api_key(publishable_key)?);
                (url, Dialect::Supabase)
            }
        };
        let base = check_base(url, network.allow_cleartext)?;
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls(&network.extra_roots_pem)?)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .timeout(network.timeout)
            .user_agent(concat!("syncline/", env!("CARGO_PKG_VERSION")));
        // A proxy would read what is sent without TLS, and loopback lies before every proxy.
        if base.scheme() == "http" || is_loopback(&base) {
            client = client.no_proxy();
        }
        let client =
            client.build().map_err(|_| invalid("endpoint", "cannot be reached with this TLS configuration"))?;
        let path = |route: Route| {
            let below = match (dialect, route) {
                (Dialect::Syncline, Route::Push) => "v1/push",
                (Dialect::Syncline, Route::Pull) => "v1/pull",
                (Dialect::Supabase, Route::Push) => "rest/v1/rpc/syncline_push",
                (Dialect::Supabase, Route::Pull) => "rest/v1/rpc/syncline_pull",
            };
            let mut url = base.clone();
            url.set_path(&format!("{}/{below}", base.path().trim_end_matches('/')));
            url
        };
        Ok(Self { push: path(Route::Push), pull: path(Route::Pull), client, dialect, headers })
    }

    async fn exchange(&self, request: Request, token: Token) -> std::result::Result<Response, TransportError> {
        let url = match request.route {
            Route::Push => self.push.clone(),
            Route::Pull => self.pull.clone(),
        };
        let mut headers = self.headers.clone();
        headers.insert(AUTHORIZATION, bearer(&token)?);
        // PostgREST would take the packed bytes for the document.
        let packed = if self.dialect == Dialect::Supabase { None } else { compress(&request.body) };
        let body = match packed {
            Some((encoding, smaller)) => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
                smaller
            }
            None => request.body,
        };
        let mut answer =
            self.client.post(url).headers(headers).body(body).send().await.map_err(|error| classify(&error))?;
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let mut response = Response {
            status: answer.status().as_u16(),
            protocol: header(PROTOCOL_HEADER),
            retry_after: header(RETRY_AFTER.as_str()),
            body: Vec::new(),
            dialect: self.dialect,
        };
        // Chunk by chunk, inflated: neither an endless answer nor a compressed bomb fills the memory.
        while let Some(chunk) = answer.chunk().await.map_err(|error| classify(&error))? {
            if response.body.len() + chunk.len() > MAX_INFLATED_BYTES {
                return Err(TransportError::TooLarge);
            }
            response.body.extend_from_slice(&chunk);
        }
        Ok(response)
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: Request, token: Token) -> BoxFuture<'_, std::result::Result<Response, TransportError>> {
        Box::pin(self.exchange(request, token))
    }
}

fn invalid(field: &str, detail: &str) -> SynclineError {
    SynclineError::InvalidConfig { field: field.to_owned(), detail: detail.to_owned() }
}

fn check_base(text: &str, allow_cleartext: bool) -> Result<Url> {
    let url = Url::parse(text).map_err(|_| invalid("endpoint", "is not an absolute URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("endpoint", "must not carry a user, a query or a fragment"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if allow_cleartext || is_loopback(&url) => Ok(url),
        "http" => Err(invalid("endpoint", "must be https:// (http:// is for loopback, or with allow_cleartext)")),
        _ => Err(invalid("endpoint", "must be https://")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The provider is given explicitly: a library installs nothing for the whole process.
fn tls(extra_roots_pem: &[String]) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    for pem in extra_roots_pem {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| invalid("extra_roots_pem", "is not PEM"))?;
            roots
                .add(certificate)
                .map_err(|_| invalid("extra_roots_pem", "holds a certificate that cannot be read"))?;
        }
        if roots.len() == before {
            return Err(invalid("extra_roots_pem", "holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The error names no part of the key.
fn api_key(key: &str) -> Result<HeaderValue> {
    if key.starts_with(SECRET_KEY) {
        return Err(invalid(
            "publishable_key",
            "is a secret key: it opens every row of the project, and must be revoked",
        ));
    }
    let value = HeaderValue::try_from(key).ok().filter(|_| !key.is_empty());
    let mut value = value.ok_or_else(|| invalid("publishable_key", "is empty, or does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &Token) -> std::result::Result<HeaderValue, TransportError> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.0))
        .map_err(|_| TransportError::Broken("the credential does not fit into a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(feature = "zstd")]
fn compress(body: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    let smaller = (body.len() >= COMPRESS_FROM_BYTES).then(|| zstd::bulk::compress(body, 3))?.ok()?;
    Some(("zstd", smaller))
}

#[cfg(not(feature = "zstd"))]
fn compress(body: &[u8]) -> Option<(&'static str, Vec<u8>)> {
    if body.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    // Level 3: on JSON nearly as small as the default, in half the time of a phone's processor.
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::new(3));
    io::Write::write_all(&mut encoder, body).ok()?;
    Some(("gzip", encoder.finish().ok()?))
}

/// Into the classes that `sync::retry` judges. The text is the innermost cause: never the URL, never a header.
fn classify(error: &reqwest::Error) -> TransportError {
    let mut innermost = String::new();
    let mut cause = error.source();
    while let Some(current) = cause {
        if let Some(rustls::Error::InvalidCertificate(detail)) = current.downcast_ref() {
            return TransportError::Certificate(detail.to_string());
        }
        innermost = current.to_string();
        // An I/O error that wraps another one says so by `get_ref`, not by `source`.
        cause = match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    if error.is_timeout() {
        TransportError::Timeout
    } else if error.is_connect() {
        TransportError::Unreachable(innermost)
    } else {
        TransportError::Broken(innermost)
    }
}
