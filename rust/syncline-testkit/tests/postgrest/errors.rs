//! Errors of Postgres, and of the way to it.

use reqwest::Method;
use serde_json::json;

use crate::stage::{Stage, answer, hs256};

#[tokio::test]
async fn every_sqlstate_has_its_status_and_the_error_object_its_form() {
    let stage = Stage::new("sqlstates").await;
    for (code, status) in [
        ("08000", 503),
        ("09000", 500),
        ("0L000", 403),
        ("0P000", 403),
        ("23502", 400),
        ("23503", 409),
        ("23505", 409),
        ("25006", 405),
        ("25001", 500),
        ("28000", 403),
        ("2D000", 500),
        ("38000", 500),
        ("39000", 500),
        ("3B000", 500),
        ("40001", 500),
        ("40P01", 500),
        ("53400", 500),
        ("53300", 503),
        ("54001", 500),
        ("55P03", 500),
        ("57014", 500),
        ("58030", 500),
        ("F0000", 500),
        ("HV000", 500),
        ("P0001", 400),
        ("P0002", 500),
        ("XX000", 500),
        ("42883", 404),
        ("42P01", 404),
        ("42P17", 500),
        ("42501", 403),
        ("22P02", 400),
        ("42703", 400),
        ("PT429", 429),
        ("PT503", 503),
    ] {
        let body = stage.post("fail", json!({ "code": code })).await.is_error(status, code);
        assert_eq!(body, json!({"code": code, "message": "it is said", "details": "why", "hint": "what to do"}));
    }
    let request = stage.anonymous(Method::POST, "fail").header("content-type", "application/json");
    let refused = answer(request.body(r#"{"code":"42501"}"#)).await;
    refused.is_error(401, "42501");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
}

#[tokio::test]
async fn what_postgres_itself_finds_wrong_arrives() {
    let stage = Stage::new("real_errors").await;
    assert_eq!(stage.post("note", r#"{"note":"once"}"#).await.status, 200);
    stage.post("note", r#"{"note":"once"}"#).await.is_error(409, "23505");
    stage.post("note", r#"{"note":"bad"}"#).await.is_error(400, "23514");
    stage.post("note", r#"{"note":null}"#).await.is_error(400, "23502");
    stage.post("note", r#"{"note":"\u0000"}"#).await.is_error(400, "22P05");
    stage.post("add", r#"{"a":"one","b":2}"#).await.is_error(400, "22P02");
    stage.post("add", r#"{"a":2147483647,"b":1}"#).await.is_error(400, "22003");
}

#[tokio::test]
async fn a_connection_that_breaks_is_said_so_and_the_next_one_is_made() {
    let stage = Stage::with("broken", 1, hs256()).await;
    stage.sql("grant pg_signal_backend to authenticated");
    let broken = stage.post("stop_me", "{}").await;
    assert!(matches!(broken.json()["code"].as_str(), Some("57P01" | "PGRST001")), "{}", broken.text);
    assert!(broken.status >= 500);
    assert_eq!(stage.post("add", r#"{"a":1,"b":1}"#).await.text, "2");
}

#[tokio::test]
async fn a_pool_that_is_used_up_is_said_so() {
    let stage = Stage::with("used_up", 1, hs256()).await;
    let (slow, refused) = tokio::join!(stage.post("slow", r#"{"seconds":1.5}"#), async {
        // Until the first one has the connection.
        while stage.sql("select count(*) from pg_stat_activity where query like '%slow%' and usename = 'authenticator'")
            == "0"
        {
            tokio::task::yield_now().await;
        }
        stage.post("add", r#"{"a":1,"b":1}"#).await
    });
    refused.is_error(504, "PGRST003");
    assert_eq!(slow.status, 200);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_so() {
    let stage = Stage::new("gone").await;
    stage.elsewhere("postgres", "alter database gone allow_connections false");
    stage.post("add", r#"{"a":1,"b":1}"#).await.is_error(503, "PGRST000");
}
