use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm::{ES256, ES384, HS256, HS384, PS256, RS256, RS384, RS512};
use serde_json::json;
use syncline_server::auth::AuthError::{self, Expired, Forbidden, Invalid};
use syncline_server::auth::Verifier;

use crate::forge::{Forge, NOW, config, full_set, jwk, seconds, verifier};

type Vector = (&'static str, &'static str, String, Result<&'static str, AuthError>);

/// Tokens with the configured algorithm and the right keys: what the claims may say.
fn claims() -> Vec<Vector> {
    let now = seconds();
    let hs = Forge::hs256;
    let with = |claims| hs().claims(claims).sign();
    vec![
        ("good", "HS256", hs().sign(), Ok("team")),
        ("unknown claims", "HS256", with(json!({"jti": "x", "roles": [1]})), Ok("team")),
        ("exp missing", "HS256", with(json!({"exp": null})), Err(Invalid)),
        ("exp text", "HS256", with(json!({"exp": (now + 60).to_string()})), Err(Invalid)),
        ("exp array", "HS256", with(json!({"exp": [now + 60]})), Err(Invalid)),
        ("exp true", "HS256", with(json!({"exp": true})), Err(Invalid)),
        ("exp negative", "HS256", with(json!({"exp": -1})), Err(Invalid)),
        ("exp zero", "HS256", with(json!({"exp": 0})), Err(Expired)),
        ("exp long past", "HS256", with(json!({"exp": now - 86_400})), Err(Expired)),
        ("exp 31 s past", "HS256", with(json!({"exp": now - 31})), Err(Expired)),
        ("exp 30 s past", "HS256", with(json!({"exp": now - 30})), Err(Expired)),
        ("exp 29 s past", "HS256", with(json!({"exp": now - 29})), Ok("team")),
        ("exp fractional", "HS256", with(json!({"exp": now as f64 + 0.5})), Ok("team")),
        ("exp in milliseconds", "HS256", with(json!({"exp": (now + 60) * 1000})), Ok("team")),
        ("nbf 31 s ahead", "HS256", with(json!({"nbf": now + 31})), Err(Invalid)),
        ("nbf 30 s ahead", "HS256", with(json!({"nbf": now + 30})), Ok("team")),
        ("nbf text", "HS256", with(json!({"nbf": "soon"})), Err(Invalid)),
        ("aud missing", "HS256", with(json!({"aud": null})), Err(Invalid)),
        ("aud other", "HS256", with(json!({"aud": "other"})), Err(Invalid)),
        ("aud empty", "HS256", with(json!({"aud": ""})), Err(Invalid)),
        ("aud empty array", "HS256", with(json!({"aud": []})), Err(Invalid)),
        ("aud array with ours", "HS256", with(json!({"aud": ["other", "syncline"]})), Ok("team")),
        ("aud array without ours", "HS256", with(json!({"aud": ["a", "b"]})), Err(Invalid)),
        ("aud array with a number", "HS256", with(json!({"aud": ["syncline", 7]})), Err(Invalid)),
        ("aud object", "HS256", with(json!({"aud": {"syncline": true}})), Err(Invalid)),
        ("aud number", "HS256", with(json!({"aud": 1})), Err(Invalid)),
        ("aud prefix", "HS256", with(json!({"aud": "syncline2"})), Err(Invalid)),
        ("aud other case", "HS256", with(json!({"aud": "Syncline"})), Err(Invalid)),
        ("sub missing", "HS256", with(json!({"sub": null})), Err(Invalid)),
        ("sub empty", "HS256", with(json!({"sub": ""})), Err(Invalid)),
        ("sub number", "HS256", with(json!({"sub": 7})), Err(Invalid)),
        ("sub too long", "HS256", with(json!({"sub": "x".repeat(129)})), Err(Invalid)),
        ("sub with NUL", "HS256", with(json!({"sub": "a\0b"})), Err(Invalid)),
        ("scope missing", "HS256", with(json!({"scope": null})), Err(Forbidden)),
        ("scope number", "HS256", with(json!({"scope": 7})), Err(Forbidden)),
        ("scope object", "HS256", with(json!({"scope": {"team": true}})), Err(Forbidden)),
        ("scope empty array", "HS256", with(json!({"scope": []})), Err(Forbidden)),
        ("scope array with a number", "HS256", with(json!({"scope": ["team", 7]})), Err(Forbidden)),
        ("scope array", "HS256", with(json!({"scope": ["team", "other"]})), Ok("other team")),
        ("scope text is not split", "HS256", with(json!({"scope": "team,other"})), Ok("team,other")),
        ("claims array", "HS256", hs().body(json!(["sub", "ada"])).sign(), Err(Invalid)),
        ("claims text", "HS256", hs().body(json!("ada")).sign(), Err(Invalid)),
    ]
}

/// Tokens whose header or signature is not what was agreed.
fn signatures() -> Vec<Vector> {
    let (hs, es, rs) = (Forge::hs256, Forge::es256, Forge::rs256);
    let good = hs().sign();
    let public = |name| jwk(name, "x", json!({})).to_string();
    let (head, tail) = good.rsplit_once('.').unwrap();
    let other_claims = hs().claims(json!({"sub": "bob"})).unsigned();
    vec![
        ("alg none", "HS256", format!("{}.", hs().header(json!({"alg": "none"})).unsigned()), Err(Invalid)),
        ("alg None", "HS256", format!("{}.", hs().header(json!({"alg": "None"})).unsigned()), Err(Invalid)),
        ("alg none, signed", "HS256", hs().header(json!({"alg": "none"})).sign(), Err(Invalid)),
        ("alg missing", "HS256", hs().header(json!({"alg": null})).sign(), Err(Invalid)),
        ("alg lower case", "HS256", hs().header(json!({"alg": "hs256"})).sign(), Err(Invalid)),
        ("alg array", "HS256", hs().header(json!({"alg": ["HS256"]})).sign(), Err(Invalid)),
        ("alg HS384", "HS256", hs().header(json!({"alg": "HS384"})).key("secret", HS384).sign(), Err(Invalid)),
        ("HS256 signature under HS384", "HS256", hs().header(json!({"alg": "HS384"})).sign(), Err(Invalid)),
        ("another secret", "HS256", hs().key("other secret", HS256).sign(), Err(Invalid)),
        ("empty secret", "HS256", hs().sign_with_bytes(b""), Err(Invalid)),
        ("no signature", "HS256", format!("{head}."), Err(Invalid)),
        ("two parts", "HS256", head.to_owned(), Err(Invalid)),
        ("four parts", "HS256", format!("{good}.{tail}"), Err(Invalid)),
        ("empty", "HS256", String::new(), Err(Invalid)),
        ("dots", "HS256", "..".into(), Err(Invalid)),
        ("other claims, old signature", "HS256", format!("{other_claims}.{tail}"), Err(Invalid)),
        ("signature cut", "HS256", good[..good.len() - 2].to_owned(), Err(Invalid)),
        ("padded", "HS256", format!("{good}="), Err(Invalid)),
        ("header not base64", "HS256", format!("!!{good}"), Err(Invalid)),
        ("header not JSON", "HS256", format!("{}.{}", URL_SAFE_NO_PAD.encode("{"), &good[4..]), Err(Invalid)),
        ("standard base64 padding", "HS256", format!("{}.x.y", STANDARD.encode(r#"{"alg":"HS256"}"#)), Err(Invalid)),
        ("critical extension", "HS256", hs().header(json!({"crit": ["b64"], "b64": false})).sign(), Err(Invalid)),
        ("oversize", "HS256", hs().claims(json!({"x": "x".repeat(8 * 1024)})).sign(), Err(Invalid)),
        ("just within size", "HS256", hs().claims(json!({"x": "x".repeat(5 * 1024)})).sign(), Ok("team")),
        ("kid is ignored for a secret", "HS256", hs().header(json!({"kid": "../../etc/passwd"})).sign(), Ok("team")),
        ("ES256 token to HS256", "HS256", es().sign(), Err(Invalid)),
        ("RS256 token to HS256", "HS256", rs().sign(), Err(Invalid)),
        ("ES256 good", "ES256", es().sign(), Ok("team")),
        ("ES256 second key", "ES256", es().header(json!({"kid": "e2"})).key("ec_2", ES256).sign(), Ok("team")),
        ("ES256 key of another name", "ES256", es().header(json!({"kid": "e2"})).sign(), Err(Invalid)),
        ("ES256 without kid", "ES256", es().header(json!({"kid": null})).sign(), Err(Invalid)),
        ("ES256 empty kid", "ES256", es().header(json!({"kid": ""})).sign(), Err(Invalid)),
        ("ES256 kid of a path", "ES256", es().header(json!({"kid": "../e1"})).sign(), Err(Invalid)),
        ("ES256 kid of SQL", "ES256", es().header(json!({"kid": "e1' OR '1'='1"})).sign(), Err(Invalid)),
        ("ES256 kid with NUL", "ES256", es().header(json!({"kid": "e1\0"})).sign(), Err(Invalid)),
        ("ES256 kid number", "ES256", es().header(json!({"kid": 1})).sign(), Err(Invalid)),
        ("ES256 key for encryption", "ES256", es().header(json!({"kid": "encrypts"})).sign(), Err(Invalid)),
        ("ES256 key not for verifying", "ES256", es().header(json!({"kid": "signs"})).sign(), Err(Invalid)),
        ("ES256 key in the header", "ES256", own_key(json!({"jwk": jwk("ec_2", "e1", json!({}))})), Err(Invalid)),
        ("ES256 key set in the header", "ES256", own_key(json!({"jku": "https://evil.example/keys"})), Err(Invalid)),
        ("ES256 certificate in the header", "ES256", own_key(json!({"x5u": "https://evil.example/c"})), Err(Invalid)),
        (
            "ES384",
            "ES256",
            es().header(json!({"alg": "ES384", "kid": "p384"})).key("ec_p384", ES384).sign(),
            Err(Invalid),
        ),
        (
            "P-384 key under ES256",
            "ES256",
            es().header(json!({"kid": "p384"})).key("ec_p384", ES384).sign(),
            Err(Invalid),
        ),
        ("HS256 with the public EC key", "ES256", confused(es(), &public("ec_1")), Err(Invalid)),
        ("HS256 by its key in the set", "ES256", confused(es().header(json!({"kid": "h1"})), "x"), Err(Invalid)),
        ("RS256 token to ES256", "ES256", rs().sign(), Err(Invalid)),
        ("RS256 good", "RS256", rs().sign(), Ok("team")),
        ("RS256 second key", "RS256", rs().header(json!({"kid": "r2"})).key("rsa_2", RS256).sign(), Ok("team")),
        ("RS256 another key", "RS256", rs().key("rsa_2", RS256).sign(), Err(Invalid)),
        ("RS256 short key", "RS256", rs().header(json!({"kid": "weak"})).key("rsa_1024", RS256).sign(), Err(Invalid)),
        ("RS256 key for another alg", "RS256", rs().header(json!({"kid": "other alg"})).sign(), Err(Invalid)),
        ("RS384", "RS256", rs().header(json!({"alg": "RS384"})).key("rsa_1", RS384).sign(), Err(Invalid)),
        ("RS512", "RS256", rs().header(json!({"alg": "RS512"})).key("rsa_1", RS512).sign(), Err(Invalid)),
        ("PS256", "RS256", rs().header(json!({"alg": "PS256"})).key("rsa_1", PS256).sign(), Err(Invalid)),
        ("RS256 signature under PS256", "RS256", rs().header(json!({"alg": "PS256"})).sign(), Err(Invalid)),
        ("HS256 with the public RSA key", "RS256", confused(rs(), &public("rsa_1")), Err(Invalid)),
        ("HS256 under the name RS256", "RS256", rs().sign_with_bytes(public("rsa_1").as_bytes()), Err(Invalid)),
        ("RS256 alg none", "RS256", format!("{}.", rs().header(json!({"alg": "none"})).unsigned()), Err(Invalid)),
    ]
}

/// A token that brings the key it was signed with.
fn own_key(header: serde_json::Value) -> String {
    Forge::es256().header(header).key("ec_2", ES256).sign()
}

/// A token of HS256, signed with what the server knows as a public key.
fn confused(forge: Forge, public: &str) -> String {
    forge.header(json!({"alg": "HS256"})).sign_with_bytes(public.as_bytes())
}

#[tokio::test]
async fn every_vector_is_judged_as_written() {
    let set = full_set();
    let vectors: Vec<Vector> = claims().into_iter().chain(signatures()).collect();
    assert!(vectors.len() >= 60, "{}", vectors.len());
    for (name, algorithm, token, expected) in vectors {
        let judged = verifier(algorithm, &set).verify(&token, NOW).await;
        let scopes = judged.map(|claims| {
            assert_eq!(claims.user_id, "ada");
            claims.scopes.into_iter().collect::<Vec<_>>().join(" ")
        });
        assert_eq!(scopes, expected.map(str::to_owned), "{name}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_set_is_needed() {
    let mut config = config("HS256");
    config.issuer = Some("https://id.example.com".into());
    let verifier = Verifier::new(&config).unwrap();
    for (issuer, good) in [
        (json!("https://id.example.com"), true),
        (json!("https://id.example.com/"), false),
        (json!(7), false),
        (json!(null), false),
    ] {
        let token = Forge::hs256().claims(json!({ "iss": issuer })).sign();
        assert_eq!(verifier.verify(&token, NOW).await.is_ok(), good, "{issuer}");
    }
}

#[tokio::test]
async fn the_scope_claim_may_be_nested() {
    let mut config = config("HS256");
    config.scope_claim = "/app_metadata/teams".into();
    let verifier = Verifier::new(&config).unwrap();
    let token = Forge::hs256().claims(json!({"app_metadata": {"teams": ["a", "b"]}})).sign();
    assert_eq!(verifier.verify(&token, NOW).await.unwrap().scopes, ["a".to_owned(), "b".to_owned()].into());
    assert_eq!(verifier.verify(&Forge::hs256().sign(), NOW).await, Err(Forbidden));
}

#[tokio::test]
async fn the_header_must_be_a_bearers() {
    let verifier = verifier("HS256", &full_set());
    let token = Forge::hs256().sign();
    for (header, expected) in [
        (format!("Bearer {token}"), true),
        (format!("BEARER {token}"), true),
        (format!("Bearer  {token} "), true),
        (token.clone(), false),
        (format!("Basic {token}"), false),
        ("Bearer".into(), false),
        (String::new(), false),
    ] {
        assert_eq!(verifier.verify_header(Some(header.as_bytes()), NOW).await.is_ok(), expected, "{header}");
    }
    assert_eq!(verifier.verify_header(Some(b"Bearer \xff"), NOW).await, Err(AuthError::Missing));
    assert_eq!(verifier.verify_header(None, NOW).await, Err(AuthError::Missing));
}
