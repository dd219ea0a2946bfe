//! HTTP hygiene: which certificates are trusted, where a token may go, how much is read, and what each failure is called.

#![expect(clippy::disallowed_methods, reason = "a real server has tasks of its own")]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use syncline_core::transport::{Dialect, HttpTransport, Request, Response, Route, Token, Transport, TransportError};
use syncline_core::{Endpoint, Network, SynclineError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};

const LIMIT: usize = 8 * 1024 * 1024;

/// A certificate authority made for one test.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, host: &str, last_year: i32) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// What a server saw of one request.
struct Seen {
    head: String,
    body: Vec<u8>,
}

/// A server on loopback that gives every request the same bytes, then closes; or stalls if told so.
struct Server {
    port: u16,
    seen: mpsc::UnboundedReceiver<Seen>,
}

#[derive(Clone)]
struct Answer {
    bytes: Vec<u8>,
    then_stall: bool,
}

impl Server {
    async fn start(tls: Option<Arc<ServerConfig>>, answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, sender) = (tls.clone(), answer.clone(), sender.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answer, sender).await,
                        // A client that refuses the certificate breaks off here.
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream, answer, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, seen }
    }

    fn endpoint(&self) -> Endpoint {
        format!("http://127.0.0.1:{}", self.port).into()
    }

    async fn plain(answer: Answer) -> (Self, HttpTransport) {
        let server = Self::start(None, answer).await;
        let transport = HttpTransport::new(&server.endpoint(), &network()).unwrap();
        (server, transport)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: Answer, seen: mpsc::UnboundedSender<Seen>) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap().to_lowercase();
            let length = header(&head, "content-length").unwrap().parse::<usize>().unwrap();
            break (head, length);
        }
    };
    while bytes.len() < length {
        stream.read_buf(&mut bytes).await.unwrap();
    }
    let _ = seen.send(Seen { head, body: bytes });
    // The client may hang up in the middle, which is the point of some tests.
    let _ = stream.write_all(&answer.bytes).await;
    let _ = stream.flush().await;
    if answer.then_stall {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn answer(head: &str, body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Answer { bytes, then_stall: false }
}

fn ok() -> Answer {
    answer("200 OK\r\nsyncline-protocol: 1\r\nretry-after: 7", b"{}")
}

fn network() -> Network {
    Network { timeout: Duration::from_secs(20), ..Network::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn send(transport: &HttpTransport, body: &[u8]) -> Result<Response, TransportError> {
    let request = Request { route: Route::Push, body: body.to_vec() };
    transport.send(request, Token("secret-token".to_owned())).await
}

async fn over_tls(host: &str, last_year: i32, trust: bool) -> Result<Response, TransportError> {
    let authority = Authority::new();
    let server = Server::start(Some(authority.issue(host, last_year)), ok()).await;
    let extra_roots_pem = if trust { vec![authority.pem] } else { Vec::new() };
    let network = Network { extra_roots_pem, ..network() };
    let transport = HttpTransport::new(&format!("https://localhost:{}", server.port).into(), &network).unwrap();
    send(&transport, b"{}").await
}

#[tokio::test]
async fn an_extra_root_is_trusted() {
    let response = over_tls("localhost", 2999, true).await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.protocol.as_deref(), Some("1"));
    assert_eq!(response.retry_after.as_deref(), Some("7"));
    assert_eq!(response.body, b"{}");
}

#[tokio::test]
async fn an_unknown_authority_is_refused() {
    let refused = over_tls("localhost", 2999, false).await;
    assert!(matches!(refused, Err(TransportError::Certificate(_))), "{refused:?}");
}

#[tokio::test]
async fn another_hosts_certificate_is_refused() {
    let refused = over_tls("other.example", 2999, true).await;
    assert!(matches!(refused, Err(TransportError::Certificate(_))), "{refused:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let refused = over_tls("localhost", 2001, true).await;
    assert!(matches!(refused, Err(TransportError::Certificate(_))), "{refused:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_the_token_follows_none() {
    let (mut elsewhere, _) = Server::plain(ok()).await;
    let moved = format!("307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/v1/push", elsewhere.port);
    let (_server, transport) = Server::plain(answer(&moved, b"")).await;
    assert_eq!(send(&transport, b"{}").await.unwrap().status, 307);
    assert!(elsewhere.seen.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit() {
    let (_server, transport) = Server::plain(answer("200 OK", &vec![b' '; LIMIT])).await;
    assert_eq!(send(&transport, b"{}").await.unwrap().body.len(), LIMIT);
    let (_server, transport) = Server::plain(answer("200 OK", &vec![b' '; LIMIT + 1])).await;
    assert_eq!(send(&transport, b"{}").await.unwrap_err(), TransportError::TooLarge);
}

#[tokio::test]
async fn a_compressed_bomb_is_too_large() {
    let bomb = gzip(&vec![0; 12 * LIMIT]);
    assert!(bomb.len() < LIMIT / 10);
    let (_server, transport) = Server::plain(answer("200 OK\r\ncontent-encoding: gzip", &bomb)).await;
    assert_eq!(send(&transport, b"{}").await.unwrap_err(), TransportError::TooLarge);
}

#[tokio::test]
async fn a_compressed_answer_is_inflated() {
    let (_server, transport) = Server::plain(answer("200 OK\r\ncontent-encoding: gzip", &gzip(b"{\"a\":1}"))).await;
    assert_eq!(send(&transport, b"{}").await.unwrap().body, b"{\"a\":1}");
}

#[tokio::test]
async fn a_cut_off_answer_is_a_broken_connection() {
    let mut cut = answer("200 OK", &[b' '; 1000]);
    cut.bytes.truncate(500);
    let (_server, transport) = Server::plain(cut).await;
    let broken = send(&transport, b"{}").await;
    assert!(matches!(broken, Err(TransportError::Broken(_))), "{broken:?}");

    let zipped = gzip(&[b' '; 1000]);
    let cut = answer("200 OK\r\ncontent-encoding: gzip", &zipped[..zipped.len() - 9]);
    let (_server, transport) = Server::plain(cut).await;
    let broken = send(&transport, b"{}").await;
    assert!(matches!(broken, Err(TransportError::Broken(_))), "{broken:?}");
}

#[tokio::test]
async fn no_answer_in_time_also_in_the_middle_of_a_body() {
    for sent in [0, 60] {
        let mut stalled = answer("200 OK", &[b' '; 1000]);
        stalled.bytes.truncate(sent);
        let server = Server::start(None, Answer { then_stall: true, ..stalled }).await;
        let network = Network { timeout: Duration::from_millis(100), ..Network::default() };
        let transport = HttpTransport::new(&format!("http://localhost:{}", server.port).into(), &network).unwrap();
        assert_eq!(send(&transport, b"{}").await.unwrap_err(), TransportError::Timeout, "after {sent} bytes");
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let transport = HttpTransport::new(&format!("http://127.0.0.1:{port}/private-path").into(), &network()).unwrap();
    let error = send(&transport, b"{}").await.unwrap_err();
    assert!(matches!(error, TransportError::Unreachable(_)), "{error:?}");
    assert!(!error.to_string().contains("private-path") && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn large_bodies_travel_compressed() {
    let (mut server, transport) = Server::plain(ok()).await;
    send(&transport, b"{\"small\":1}").await.unwrap();
    let small = server.seen.recv().await.unwrap();
    assert_eq!(header(&small.head, "content-encoding"), None);
    assert_eq!(small.body, b"{\"small\":1}");

    let body = format!("{{\"large\":\"{}\"}}", "many words, ".repeat(1000)).into_bytes();
    send(&transport, &body).await.unwrap();
    let large = server.seen.recv().await.unwrap();
    assert!(large.body.len() < body.len() / 10);
    assert_eq!(inflate(&large), body);
    assert_eq!(header(&large.head, "authorization"), Some("bearer secret-token"));
    assert_eq!(header(&large.head, "content-type"), Some("application/json"));
    assert!(large.head.starts_with("post /v1/push "));
}

#[cfg(not(feature = "zstd"))]
fn inflate(seen: &Seen) -> Vec<u8> {
    assert_eq!(header(&seen.head, "content-encoding"), Some("gzip"));
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&seen.body[..]).read_to_end(&mut body).unwrap();
    body
}

#[cfg(feature = "zstd")]
fn inflate(seen: &Seen) -> Vec<u8> {
    assert_eq!(header(&seen.head, "content-encoding"), Some("zstd"));
    let mut body = Vec::new();
    zstd::Decoder::new(&seen.body[..]).unwrap().read_to_end(&mut body).unwrap();
    body
}

#[tokio::test]
async fn a_supabase_project_is_asked_by_its_functions_and_never_packed() {
    let mut server = Server::start(None, answer("400 Bad Request", b"{}")).await;
    let endpoint = Endpoint::supabase(format!("http://127.0.0.1:{}/base/", server.port), "sb_publishable_key");
    let transport = HttpTransport::new(&endpoint, &network()).unwrap();
    let body = format!("{{\"large\":\"{}\"}}", "many words, ".repeat(1000)).into_bytes();
    let response = send(&transport, &body).await.unwrap();
    assert_eq!((response.status, response.dialect), (400, Dialect::Supabase));
    let seen = server.seen.recv().await.unwrap();
    assert!(seen.head.starts_with("post /base/rest/v1/rpc/syncline_push "), "{}", seen.head);
    assert_eq!(seen.body, body);
    for (name, value) in [
        ("apikey", Some("sb_publishable_key")),
        ("authorization", Some("bearer secret-token")),
        ("content-type", Some("application/json")),
        ("content-profile", Some("public")),
        ("accept", Some("application/json")),
        ("content-encoding", None),
    ] {
        assert_eq!(header(&seen.head, name), value, "{name}");
    }
    let pull = Request { route: Route::Pull, body: b"{}".to_vec() };
    transport.send(pull, Token("secret-token".to_owned())).await.unwrap();
    assert!(server.seen.recv().await.unwrap().head.starts_with("post /base/rest/v1/rpc/syncline_pull "));
}

#[tokio::test]
async fn a_key_follows_no_redirect_and_is_never_shown() {
    let (mut elsewhere, _) = Server::plain(ok()).await;
    let moved = format!("307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/", elsewhere.port);
    let server = Server::start(None, answer(&moved, b"")).await;
    let endpoint = Endpoint::supabase(format!("http://127.0.0.1:{}", server.port), "sb_publishable_key");
    assert!(!format!("{endpoint:?}").contains("sb_publishable"), "{endpoint:?}");
    let transport = HttpTransport::new(&endpoint, &network()).unwrap();
    assert_eq!(send(&transport, b"{}").await.unwrap().status, 307);
    assert!(elsewhere.seen.try_recv().is_err());
    for bad in ["", "two\nlines", "sb_secret_of_the_project"] {
        let refused = HttpTransport::new(&Endpoint::supabase("https://a.supabase.co", bad), &network()).map(|_| ());
        let Err(error @ SynclineError::InvalidConfig { .. }) = refused else { panic!("{bad:?} was taken") };
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("publishable_key") && !shown.contains("of_the_project"), "{shown}");
    }
}

#[tokio::test]
async fn a_token_that_fits_no_header_is_not_shown() {
    let (_server, transport) = Server::plain(ok()).await;
    let request = Request { route: Route::Pull, body: b"{}".to_vec() };
    let error = transport.send(request, Token("secret\ntoken".to_owned())).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
}

#[test]
fn cleartext_only_to_loopback_unless_allowed() {
    let open = |url: &str, allow_cleartext| {
        HttpTransport::new(&url.into(), &Network { allow_cleartext, ..network() }).map(|_| ())
    };
    for good in [
        "https://sync.example.com",
        "https://x.example/functions/v1/",
        "http://localhost:1",
        "http://127.8.9.1",
        "http://[::1]:7",
    ] {
        assert_eq!(open(good, false), Ok(()), "{good}");
    }
    for cleartext in [
        "http://sync.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://[::2]",
        "http://127.0.0.1.nip.example",
    ] {
        assert!(matches!(open(cleartext, false), Err(SynclineError::InvalidConfig { .. })), "{cleartext}");
        assert_eq!(open(cleartext, true), Ok(()), "{cleartext}");
    }
    for bad in [
        "",
        "sync.example.com",
        "ftp://localhost",
        "https://user:word@x.example",
        "https://x.example?token=1",
        "https://x.example#a",
    ] {
        assert!(matches!(open(bad, true), Err(SynclineError::InvalidConfig { .. })), "{bad}");
    }
}

#[test]
fn an_extra_root_must_be_a_certificate() {
    for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let network = Network { extra_roots_pem: vec![pem.to_owned()], ..network() };
        let refused = HttpTransport::new(&"https://localhost".into(), &network).map(|_| ());
        assert!(matches!(refused, Err(SynclineError::InvalidConfig { .. })), "{pem:?}");
    }
}
