//! Who asks: roles, claims, settings of a request.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::json;

use crate::stage::{KEY, NOW, Stage, answer, client, es256, signed, token};

#[tokio::test]
async fn the_role_is_the_tokens_and_the_connection_is_authenticators() {
    let stage = Stage::new("roles").await;
    let seen = stage.post("seen", "{}").await.json();
    assert_eq!((seen["role"].as_str(), seen["session"].as_str()), (Some("authenticated"), Some("authenticator")));
    let anonymous = answer(stage.anonymous(Method::POST, "seen").body("{}")).await.json();
    assert_eq!(anonymous["role"], "anon");
    assert_eq!(anonymous["claims"], json!({ "role": "anon" }));
    let without_role = stage.anonymous(Method::POST, "seen").bearer_auth(token(json!({ "sub": "ada" }))).body("{}");
    assert_eq!(answer(without_role).await.json()["role"], "anon");
}

#[tokio::test]
async fn a_role_that_authenticator_may_not_take_on_is_refused() {
    let stage = Stage::new("foreign_role").await;
    let claims = json!({ "sub": "ada", "role": "postgres" });
    let request = stage.anonymous(Method::POST, "seen").bearer_auth(token(claims)).body("{}");
    answer(request).await.is_error(403, "42501");
}

#[tokio::test]
async fn all_claims_and_the_request_itself_can_be_read() {
    let stage = Stage::new("claims").await;
    let claims = json!({ "sub": "ada", "role": "authenticated", "app_metadata": { "teams": ["a", "b"] } });
    let request = stage.anonymous(Method::POST, "seen").bearer_auth(token(claims)).header("X-Case", "Kept").body("{}");
    let seen = answer(request).await.json();
    assert_eq!(seen["claims"]["app_metadata"], json!({ "teams": ["a", "b"] }));
    assert_eq!(seen["claims"]["exp"], NOW + 60);
    assert_eq!(seen["headers"]["x-case"], "Kept");
    assert_eq!((seen["method"].as_str(), seen["path"].as_str()), (Some("POST"), Some("/rpc/seen")));
}

#[tokio::test]
async fn a_token_that_does_not_verify_is_refused() {
    let stage = Stage::new("tokens").await;
    let ask = |token: String| answer(stage.anonymous(Method::POST, "seen").bearer_auth(token).body("{}"));
    let mut forged = token(json!({ "sub": "ada", "role": "authenticated" }));
    forged.replace_range(forged.len() - 8..forged.len() - 7, if forged.ends_with('A') { "B" } else { "A" });
    for bad in ["garbage".to_owned(), KEY.to_owned(), forged] {
        let refused = ask(bad).await;
        refused.is_error(401, "PGRST301");
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    ask(token(json!({ "sub": "ada", "exp": NOW - 31 }))).await.is_error(401, "PGRST303");
    assert_eq!(ask(token(json!({ "sub": "ada", "exp": NOW - 29 }))).await.status, 200, "30 seconds of leeway");
}

#[tokio::test]
async fn tokens_of_asymmetric_keys_are_verified_too() {
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/../syncline-server/tests/auth/keys/ec_1.pem");
    let key = EncodingKey::from_ec_pem(&std::fs::read(pem).unwrap()).unwrap();
    let mut public = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
    public["kid"] = json!("e1");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": [public] }).to_string()).unwrap();
    let stage = Stage::with("es256", 10, es256(file.path().to_owned())).await;
    let ask = |token: String| answer(stage.anonymous(Method::POST, "seen").bearer_auth(token).body("{}"));
    let claims = json!({ "sub": "ada", "role": "authenticated" });
    assert_eq!(ask(signed(Algorithm::ES256, &key, claims.clone())).await.json()["role"], "authenticated");
    ask(token(claims)).await.is_error(401, "PGRST301");
}

#[tokio::test]
async fn the_gateway_wants_the_publishable_key() {
    let stage = Stage::new("gateway").await;
    let wrong = stage.anonymous(Method::POST, "seen").header("apikey", "another").body("{}");
    let client = client();
    let url = wrong.build().unwrap().url().clone();
    for request in [client.post(url.clone()).body("{}"), client.post(url).header("apikey", "another").body("{}")] {
        let refused = answer(request).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (401, None), "{}", refused.text);
    }
}

#[tokio::test]
async fn the_roles_time_limit_holds_and_a_functions_own_goes_before() {
    let stage = Stage::new("time_limits").await;
    assert_eq!(stage.post("seen", "{}").await.json()["timeout"], "8s");
    assert_eq!(answer(stage.anonymous(Method::POST, "seen").body("{}")).await.json()["timeout"], "3s");
    let body = stage.post("hurried", "{}").await.is_error(500, "57014");
    assert_eq!(body["message"], "canceling statement due to statement timeout");
    stage.sql("alter role authenticated in database time_limits set statement_timeout = '90ms'");
    stage.post("slow", r#"{"seconds":5}"#).await.is_error(500, "57014");
}

#[tokio::test]
async fn a_request_is_one_transaction_and_leaves_no_setting_behind() {
    let stage = Stage::with("one_transaction", 1, crate::stage::hs256()).await;
    assert_eq!(stage.post("leave", "{}").await.json(), "something");
    let seen = stage.post("seen", "{}").await.json();
    assert_eq!((seen["left"].as_str(), seen["isolation"].as_str()), (Some(""), Some("read committed")));
    stage.post("note_then_fail", "{}").await.is_error(402, "PT402");
    assert_eq!(stage.post("peek", "{}").await.text, "0", "what failed is rolled back");
}
