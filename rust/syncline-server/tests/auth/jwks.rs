use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::auth::{
    AuthConfig, AuthError, FileSource, HttpSource, JwksLocation, JwksSource, Keys, Secret, Verifier,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::forge::{Forge, NOW, Set, config, jwk, verifier};

fn set_text(keys: Value) -> String {
    json!({ "keys": keys }).to_string()
}

fn after(seconds: i64) -> Timestamp {
    NOW.plus_millis(seconds * 1000)
}

fn of(kid: &str, key: &'static str) -> String {
    Forge::es256().header(json!({ "kid": kid })).key(key, jsonwebtoken::Algorithm::ES256).sign()
}

#[tokio::test]
async fn a_set_is_fetched_once_and_again_after_ten_minutes() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({}))]));
    let verifier = verifier("ES256", &set);
    for (seconds, fetches) in [(0, 1), (1, 1), (599, 1), (600, 2), (601, 2)] {
        verifier.verify(&of("e1", "ec_1"), after(seconds)).await.unwrap();
        assert_eq!(set.fetches(), fetches, "after {seconds} s");
    }
}

#[tokio::test]
async fn an_unknown_kid_is_looked_for_at_most_once_a_minute() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({}))]));
    let verifier = verifier("ES256", &set);
    verifier.verify(&of("e1", "ec_1"), NOW).await.unwrap();
    for (seconds, fetches) in [(1, 1), (59, 1), (60, 2), (61, 2), (119, 2), (120, 3)] {
        let judged = verifier.verify(&of(&format!("unknown {seconds}"), "ec_1"), after(seconds)).await;
        assert_eq!((judged, set.fetches()), (Err(AuthError::Invalid), fetches), "after {seconds} s");
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_a_revoked_one_is_not_used() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({}))]));
    let verifier = verifier("ES256", &set);
    verifier.verify(&of("e1", "ec_1"), NOW).await.unwrap();
    set.put(Some(set_text(json!([jwk("ec_2", "e2", json!({}))]))));
    assert!(verifier.verify(&of("e2", "ec_2"), after(60)).await.is_ok());
    assert_eq!(verifier.verify(&of("e1", "ec_1"), after(61)).await, Err(AuthError::Invalid), "revoked");
}

#[tokio::test]
async fn a_revoked_key_is_forgotten_within_ten_minutes_without_any_unknown_one() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({}))]));
    let verifier = verifier("ES256", &set);
    verifier.verify(&of("e1", "ec_1"), NOW).await.unwrap();
    set.put(Some(set_text(json!([]))));
    assert!(verifier.verify(&of("e1", "ec_1"), after(599)).await.is_ok());
    assert_eq!(verifier.verify(&of("e1", "ec_1"), after(600)).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_provider_that_is_down_is_not_hurried_and_the_known_keys_go_on() {
    let set = Set::default();
    let verifier = verifier("ES256", &set);
    for (seconds, fetches) in [(0, 1), (1, 1), (59, 1), (60, 2)] {
        assert_eq!(verifier.verify(&of("e1", "ec_1"), after(seconds)).await, Err(AuthError::Unavailable));
        assert_eq!(set.fetches(), fetches, "after {seconds} s");
    }
    set.put(Some(set_text(json!([jwk("ec_1", "e1", json!({}))]))));
    verifier.verify(&of("e1", "ec_1"), after(120)).await.unwrap();
    set.put(None);
    let far = |token: Forge| token.claims(json!({"exp": 2_000_000_000}));
    let known = far(Forge::es256()).sign();
    let unknown = far(Forge::es256().header(json!({"kid": "e9"}))).sign();
    assert!(verifier.verify(&known, after(1000)).await.is_ok(), "the old set goes on");
    assert_eq!(verifier.verify(&unknown, after(1001)).await, Err(AuthError::Unavailable));
    assert_eq!(verifier.verify(&known, after(120 + 24 * 3600)).await, Err(AuthError::Unavailable), "but not for ever");
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_changes_nothing() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({}))]));
    let verifier = verifier("ES256", &set);
    verifier.verify(&of("e1", "ec_1"), NOW).await.unwrap();
    for text in ["<html>", "[]", r#"{"keys":7}"#] {
        set.put(Some(text.into()));
        assert!(verifier.verify(&of("e1", "ec_1"), after(700)).await.is_ok(), "{text}");
    }
}

#[tokio::test]
async fn the_only_key_serves_a_token_without_a_name() {
    let set = Set::of(json!([jwk("ec_1", "e1", json!({})), jwk("rsa_1", "r1", json!({}))]));
    let token = Forge::es256().header(json!({"kid": null})).sign();
    assert!(verifier("ES256", &set).verify(&token, NOW).await.is_ok());
}

#[tokio::test]
async fn a_set_may_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    assert!(FileSource::new(&path).fetch().await.is_err());
    std::fs::write(&path, set_text(json!([jwk("rsa_1", "r1", json!({}))]))).unwrap();
    let keys = Keys::Rs256 { jwks: JwksLocation::File(path) };
    let verifier = Verifier::new(&AuthConfig { keys, ..config("RS256") }).unwrap();
    assert!(verifier.verify(&Forge::rs256().sign(), NOW).await.is_ok());
}

/// Serves these answers, one connection each, on a loopback socket; returns its address and the requests seen.
async fn serve(answers: Vec<String>) -> (std::net::SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            seen.push(String::from_utf8_lossy(&request[..length]).into_owned());
            // A client that has read enough may hang up.
            socket.write_all(answer.as_bytes()).await.ok();
        }
        seen
    });
    (address, task)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_set_may_be_behind_a_url() {
    let text = set_text(json!([jwk("ec_1", "e1", json!({}))]));
    let (address, task) = serve(vec![answer("200 OK", &text)]).await;
    let keys = Keys::Es256 { jwks: JwksLocation::Url(format!("http://{address}/keys?tenant=1")) };
    let verifier = Verifier::new(&AuthConfig { keys, ..config("ES256") }).unwrap();
    assert!(verifier.verify(&Forge::es256().sign(), NOW).await.is_ok());
    let seen = task.await.unwrap();
    assert!(seen[0].starts_with("GET /keys?tenant=1 HTTP/1.1"));
    assert!(!seen[0].to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn redirects_errors_and_floods_are_failures_that_name_no_url() {
    let flood = "x".repeat(300 * 1024);
    let answers = [("302 Found", ""), ("500 Oops", "{}"), ("200 OK", flood.as_str())];
    let (address, task) = serve(answers.map(|(status, body)| answer(status, body)).to_vec()).await;
    let source = HttpSource::new(&format!("http://{address}/keys?secret=1")).unwrap();
    for (status, _) in answers {
        let error = source.fetch().await.expect_err(status).to_string();
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(task.await.unwrap().len(), 3, "the redirect was not followed");
    assert!(source.fetch().await.is_err(), "nobody listens any more");
}

#[test]
fn only_https_and_loopback_are_fetched() {
    for (url, good) in [
        ("https://id.example.com/keys", true),
        ("http://127.0.0.1:9/keys", true),
        ("http://localhost:9/keys", true),
        ("http://[::1]:9/keys", true),
        ("http://id.example.com/keys", false),
        ("http://127.0.0.1.example.com/keys", false),
        ("file:///etc/keys", false),
        ("keys", false),
    ] {
        assert_eq!(HttpSource::new(url).is_ok(), good, "{url}");
    }
}

#[test]
fn an_unsafe_configuration_is_refused() {
    let short = AuthConfig { keys: Keys::Hs256 { secret: Secret::new("x".repeat(31)) }, ..config("HS256") };
    let nobody = AuthConfig { audience: Vec::new(), ..config("HS256") };
    let clear = Keys::Es256 { jwks: JwksLocation::Url("http://id.example.com".into()) };
    for unsafe_config in [short, nobody, AuthConfig { keys: clear, ..config("ES256") }] {
        assert!(Verifier::new(&unsafe_config).is_err());
    }
    assert!(!format!("{:?}", config("HS256")).contains("thirty-two"));
}
