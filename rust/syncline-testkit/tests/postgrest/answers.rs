//! What a function may say about the answer.

use serde_json::json;

use crate::stage::Stage;

#[tokio::test]
async fn status_and_headers_can_be_set_without_a_rollback() {
    let stage = Stage::new("set_answer").await;
    let headers = json!([{"content-type": "application/problem+json"}, {"syncline-protocol": "1"}, {"x-twice": "1"}, {"x-twice": "2"}]);
    let answered = stage.post("answer", json!({ "status": "403", "headers": headers.to_string() })).await;
    assert_eq!((answered.status, answered.text.as_str()), (403, r#"{"code":"wrong_scope"}"#));
    assert_eq!(answered.headers["content-type"], "application/problem+json");
    assert_eq!(answered.headers.get_all("content-type").iter().count(), 1);
    assert_eq!(answered.headers["syncline-protocol"], "1");
    assert_eq!(answered.headers.get_all("x-twice").iter().count(), 2);
    assert_eq!(stage.sql("select note from notes"), "answered 403");
}

#[tokio::test]
async fn settings_that_make_no_answer_are_refused() {
    let stage = Stage::new("bad_answer").await;
    for (status, headers, code) in
        [("200", "{}", "PGRST111"), ("200", r#"[{"a":"1","b":"2"}]"#, "PGRST111"), ("teapot", "[]", "PGRST112")]
    {
        stage.post("answer", json!({ "status": status, "headers": headers })).await.is_error(500, code);
        stage.sql("delete from notes");
    }
}

#[tokio::test]
async fn a_raised_pt_code_sets_the_status_and_rolls_back() {
    let stage = Stage::new("raised_pt").await;
    let body = stage.post("note_then_fail", "{}").await.is_error(402, "PT402");
    assert_eq!(
        body,
        json!({"code": "PT402", "message": "Payment Required", "details": "Quota exceeded", "hint": "Upgrade your plan"})
    );
    assert_eq!(stage.sql("select count(*) from notes"), "0");
}

#[tokio::test]
async fn a_raised_pgrst_error_says_everything_itself() {
    let stage = Stage::new("raised_all").await;
    let message = json!({"code": "rate_limited", "message": "Too many", "hint": "Later"}).to_string();
    let detail = json!({"status": 429, "headers": {"Retry-After": "7"}}).to_string();
    let answered = stage.post("raise_all", json!({ "message": message, "detail": detail })).await;
    let body = answered.is_error(429, "rate_limited");
    assert_eq!((body["message"].as_str(), body["details"].as_str()), (Some("Too many"), None));
    assert_eq!(answered.headers["retry-after"], "7");
    for (message, detail) in [("no JSON", detail.as_str()), (message.as_str(), "no JSON")] {
        stage.post("raise_all", json!({ "message": message, "detail": detail })).await.is_error(500, "PGRST121");
    }
}
