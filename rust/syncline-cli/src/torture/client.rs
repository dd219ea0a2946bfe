//! A plain HTTP client for spec §6 that can also send what no device would. It follows no redirect, repeats nothing by
//! itself but what the endpoint asks to be repeated, and keeps the token out of everything that it tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Response, Url, redirect, retry};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use syncline_protocol::{PROTOCOL, PROTOCOL_HEADER};

use super::outcome::{Evidence, Trouble};

/// One request may take so long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A request that is told to come later does so this often, and waits at most so long in between.
const MAX_REPEATS: u32 = 20;
const MAX_WAIT_SECONDS: u64 = 30;
/// Characters of a request or an answer that are shown.
const SHOWN: usize = 600;

/// Who asks.
#[derive(Clone)]
pub(super) struct Credential {
    pub(super) token: String,
    pub(super) user: String,
    pub(super) scope: String,
}

/// What came back, read to its end.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    /// The body as text.
    pub(super) text: String,
    /// What was asked, in short.
    pub(super) asked: String,
    /// Whether it is PostgREST's word, and not the functions'.
    postgrest: bool,
}

/// How a request differs from an ordinary one.
#[derive(Default)]
pub(super) struct Unusual<'a> {
    pub(super) content_type: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
}

/// The endpoint, as reached over HTTP.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    /// Of the Supabase project whose functions are the endpoint.
    publishable_key: Option<HeaderValue>,
    /// Requests sent so far.
    pub(super) requests: AtomicU64,
    /// Answers that lacked the protocol header, and problems that lacked their form, as they were seen.
    pub(super) without_header: Mutex<Vec<Evidence>>,
    pub(super) out_of_form: Mutex<Vec<Evidence>>,
    /// Answers with a 5xx other than 503.
    pub(super) defects: Mutex<Vec<Evidence>>,
}

impl Client {
    /// A client of the endpoint whose paths begin at `base`; with a publishable key, of the functions of that Supabase project.
    ///
    /// # Errors
    /// What is wrong with the URL or the key, in a sentence that does not quote it.
    pub(super) fn new(base: &str, allow_cleartext: bool, publishable_key: Option<&str>) -> Result<Self, String> {
        let base = check_base(base, allow_cleartext)?;
        let key = publishable_key.map(HeaderValue::try_from).transpose();
        let publishable_key = key.map_err(|_| "the key has characters that no header takes".to_owned())?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .timeout(TIMEOUT)
            .user_agent(concat!("syncline-torture/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|_| "the HTTP client cannot be made".to_owned())?;
        Ok(Self {
            http,
            base,
            publishable_key,
            requests: AtomicU64::new(0),
            without_header: Mutex::default(),
            out_of_form: Mutex::default(),
            defects: Mutex::default(),
        })
    }

    /// Posts a body and reads the answer.
    pub(super) async fn post(&self, path: &str, token: Option<&str>, body: Vec<u8>) -> Result<Answer, Trouble> {
        self.post_unusual(path, token, body, Unusual::default()).await
    }

    /// Posts a body with other headers, and reads the answer. Is asked to come later: comes later.
    pub(super) async fn post_unusual(
        &self,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
        unusual: Unusual<'_>,
    ) -> Result<Answer, Trouble> {
        let asked = asked(path, &body);
        let mut repeats = 0;
        loop {
            let response = self.start(path, token, body.clone(), &unusual).await;
            let response = response.map_err(|error| no_answer(&asked, &error))?;
            let busy = matches!(response.status().as_u16(), 429 | 503);
            let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let answer = self.read(response, &asked, token).await?;
            if !busy || repeats == MAX_REPEATS {
                return Ok(answer);
            }
            repeats += 1;
            pause(Duration::from_secs(wait.unwrap_or(1).min(MAX_WAIT_SECONDS))).await;
        }
    }

    /// Posts a body and gives the connection up: after the head of the answer has come, or, with a limit, after that time
    /// at the latest. Whether the head came.
    pub(super) async fn post_and_hang_up(
        &self,
        path: &str,
        token: &str,
        body: Vec<u8>,
        limit: Option<Duration>,
    ) -> Result<bool, Trouble> {
        let asked = asked(path, &body);
        let unusual = Unusual::default();
        let head = self.start(path, Some(token), body, &unusual);
        let head = match limit {
            None => Some(head.await),
            Some(limit) => tokio::time::timeout(limit, head).await.ok(),
        };
        match head {
            None => Ok(false),
            Some(Ok(response)) => Ok(response.status().is_success()),
            Some(Err(error)) => Err(no_answer(&asked, &error)),
        }
    }

    /// Sends the first half of a body and then breaks the connection. Whatever happens, nothing is answered.
    pub(super) async fn post_half(&self, path: &str, token: &str, mut body: Vec<u8>) {
        body.truncate(body.len() / 2);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        let half = futures_util::stream::iter([Ok(body), Err(broken)]);
        let unusual = Unusual::default();
        // That it fails is the purpose.
        let _ = self.start(path, Some(token), Body::wrap_stream(half), &unusual).await;
    }

    /// Whether the endpoint is the functions of a Supabase project, by way of its Data API.
    pub(super) fn is_supabase(&self) -> bool {
        self.publishable_key.is_some()
    }

    fn url(&self, path: &str) -> Url {
        let below = match path.strip_prefix("/v1/").filter(|_| self.is_supabase()) {
            Some(function) => format!("/rest/v1/rpc/syncline_{function}"),
            None => path.to_owned(),
        };
        let mut url = self.base.clone();
        url.set_path(&format!("{}{below}", self.base.path().trim_end_matches('/')));
        url
    }

    async fn start(
        &self,
        path: &str,
        token: Option<&str>,
        body: impl Into<Body>,
        unusual: &Unusual<'_>,
    ) -> reqwest::Result<Response> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = self
            .http
            .post(self.url(path))
            .header(CONTENT_TYPE, unusual.content_type.unwrap_or("application/json"))
            .body(body);
        if let Some(key) = &self.publishable_key {
            request = request.header("apikey", key).header("content-profile", "public");
        }
        if let Some(encoding) = unusual.content_encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if let Some(token) = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
            request = request.header(AUTHORIZATION, token);
        }
        request.send().await
    }

    async fn read(&self, response: Response, asked: &str, token: Option<&str>) -> Result<Answer, Trouble> {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let protocol = header(PROTOCOL_HEADER);
        let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let text = response.text().await.map_err(|error| no_answer(asked, &error))?;
        let text = without_token(text, token);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let postgrest = self.is_supabase() && protocol.is_none() && is_error_object(&body);
        let answer = Answer { status, body, text, asked: asked.to_owned(), postgrest };
        if !postgrest && protocol.as_deref() != Some(PROTOCOL.to_string().as_str()) {
            note(&self.without_header, answer.evidence(&format!("an answer without `{PROTOCOL_HEADER}: {PROTOCOL}`")));
        }
        if let Some(difference) = answer.problem_difference(&media_type) {
            note(&self.out_of_form, answer.evidence(&difference));
        }
        if status >= 500 && status != 503 && !answer.is_too_complex() {
            note(&self.defects, answer.evidence(&format!("HTTP {status}")));
        }
        Ok(answer)
    }
}

fn note(list: &Mutex<Vec<Evidence>>, evidence: Evidence) {
    list.lock().unwrap_or_else(PoisonError::into_inner).push(evidence);
}

impl Answer {
    /// A finding about this answer.
    pub(super) fn evidence(&self, what: &str) -> Evidence {
        Evidence {
            what: what.to_owned(),
            request: Some(self.asked.clone()),
            answer: Some(format!("{} {}", self.status, shorten(&self.text, self.text.len()))),
        }
    }

    /// The guarantee is broken, and this answer shows it.
    pub(super) fn broken(&self, what: impl AsRef<str>) -> Trouble {
        Trouble::Broken(Box::new(self.evidence(what.as_ref())))
    }

    /// The problem's code; empty if it is none.
    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Holds if the answer is a problem with this code.
    pub(super) fn expect_problem(&self, code: &str) -> Result<(), Trouble> {
        if (400..600).contains(&self.status) && self.code() == code {
            return Ok(());
        }
        Err(self.broken(format!("expected a problem with the code {code}")))
    }

    /// Holds if the endpoint refused the request as the client's fault, with a code.
    pub(super) fn expect_refusal(&self) -> Result<(), Trouble> {
        if ((400..500).contains(&self.status) && !self.code().is_empty()) || self.is_too_complex() {
            return Ok(());
        }
        Err(self.broken("expected a 4xx with a problem code"))
    }

    /// Whether Postgres could not even read the request: PostgREST gives that a 500 (spec §6).
    fn is_too_complex(&self) -> bool {
        self.postgrest && self.code().starts_with("54")
    }

    /// How a problem differs from the form that spec §6 gives it.
    fn problem_difference(&self, media_type: &str) -> Option<String> {
        if self.status < 400 || self.postgrest {
            return None;
        }
        if media_type.split(';').next().map(str::trim) != Some("application/problem+json") {
            return Some(format!("an error of the type {media_type:?} instead of application/problem+json"));
        }
        if self.code().is_empty() {
            return Some("a problem without a `code`".to_owned());
        }
        (self.body["status"].is_number() && self.body["status"] != self.status)
            .then(|| "a problem whose `status` is not the one of HTTP".to_owned())
    }
}

/// PostgREST's own words count as the endpoint's on Supabase (spec §6).
fn is_error_object(body: &Value) -> bool {
    body["code"].is_string() && ["details", "hint", "message"].iter().all(|member| body.get(member).is_some())
}

fn check_base(text: &str, allow_cleartext: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "the URL is not an absolute one".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("the URL must not carry a user, a query or a fragment".to_owned());
    }
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || allow_cleartext => Ok(url),
        "http" => Err("the URL must be https:// (http:// is for loopback, or with --allow-cleartext)".to_owned()),
        _ => Err("the URL must be https://".to_owned()),
    }
}

/// The provider is given explicitly, so that nothing is installed for the whole process.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The innermost cause: never the URL, never a header.
fn no_answer(asked: &str, error: &reqwest::Error) -> Trouble {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let kind = if error.is_timeout() { "no answer in time" } else { "no answer" };
    let what = if error.is_builder() { "the request cannot be sent".to_owned() } else { format!("{kind}: {cause}") };
    Trouble::Broken(Box::new(Evidence { what, request: Some(asked.to_owned()), answer: None }))
}

/// An endpoint that repeats the token must not make us tell it.
fn without_token(text: String, token: Option<&str>) -> String {
    match token {
        Some(token) if text.contains(token) => text.replace(token, "(the token)"),
        _ => text,
    }
}

/// A request in short.
fn asked(path: &str, body: &[u8]) -> String {
    // A character has up to four bytes.
    let start = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN)]);
    format!("POST {path} {}", shorten(&start, body.len()))
}

/// The start of a text of so many bytes, as far as it is shown, without control characters.
fn shorten(start: &str, bytes: usize) -> String {
    let mut shown: String = start.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < bytes {
        shown += &format!("… ({bytes} bytes)");
    }
    shown
}

#[expect(clippy::disallowed_methods, reason = "the command runs in real time")]
pub(super) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_in_the_clear_only_to_loopback_or_when_allowed() {
        for good in ["https://sync.example.com/base", "http://127.0.0.1:7077", "http://[::1]:1", "http://localhost"] {
            assert!(check_base(good, false).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1", "ftp://a", "nonsense", "https://user:pass@a", "https://a?token=1"] {
            let error = check_base(bad, false).unwrap_err();
            assert!(!error.contains("pass") && !error.contains("token"), "{error}");
        }
        assert!(check_base("http://10.0.0.1", true).is_ok());
    }

    #[test]
    fn a_token_that_is_repeated_is_not_told() {
        let told = without_token("{\"detail\":\"abc.def.ghi is bad\"}".to_owned(), Some("abc.def.ghi"));
        assert_eq!(told, "{\"detail\":\"(the token) is bad\"}");
    }

    #[test]
    fn what_is_shown_is_short_and_has_no_control_characters() {
        let long = format!("a\u{1b}[31m{}", "é".repeat(2 * SHOWN));
        let shown = shorten(&long, long.len());
        assert_eq!(shorten("short", 5), "short");
        assert!(!shown.contains('\u{1b}') && shown.chars().count() < SHOWN + 30, "{shown}");
    }
}
