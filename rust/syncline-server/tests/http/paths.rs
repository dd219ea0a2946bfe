use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::{Answer, Claims, Endpoint, LimitsConfig, Random, Request, contract};

use crate::served::{Served, pull_body, token};

#[tokio::test]
async fn a_push_is_pulled_back() {
    let served = Served::start().await;
    let body = served.push_body().await;
    contract::validate_request("/v1/push", &body).unwrap();
    let pushed = served.send("/v1/push", &body).await;
    assert_eq!((pushed.status, pushed.json()["applied"].as_u64()), (200, Some(1)));
    assert_eq!(pushed.header("content-type"), "application/json");
    let pulled = served.send("/v1/pull", &pull_body()).await.json();
    assert_eq!(pulled["changes"][0]["record"], json!({"title": "private-title"}));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let served = Served::start().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "unknown_path"),
        ("POST", "/v1/push/more", 404, "unknown_path"),
        ("POST", "/v2/push", 404, "unknown_path"),
        ("GET", "/v1/push", 405, "method_not_allowed"),
        ("PUT", "/v1/pull", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ] {
        let answer = served.read(path, served.request(method, path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
    }
}

#[tokio::test]
async fn a_token_is_needed_and_compared() {
    let served = Served::start().await;
    let body = served.push_body().await.to_string();
    let with = |authorization: Option<String>| {
        let request = served.request("POST", "/v1/push").body(body.clone());
        match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    };
    let bearer = |token: String| Some(format!("Bearer {token}"));
    for (authorization, status, code) in [
        (None, 401, "unauthorized"),
        (Some("Basic YTpi".into()), 401, "unauthorized"),
        (bearer("x.y.z".into()), 401, "unauthorized"),
        (bearer(token("ada", &["team"], -31)), 401, "unauthorized"),
        (bearer(token("bob", &["team"], 60)), 403, "wrong_user"),
        (bearer(token("ada", &["other"], 60)), 403, "wrong_scope"),
        (bearer(token("ada", &[], 60)), 403, "forbidden"),
        (bearer(token("ada", &["other", "team"], 60)), 200, ""),
        (Some(format!("bearer {}", token("ada", &["team"], -29))), 200, ""),
    ] {
        let answer = served.read("/v1/push", with(authorization)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.header("www-authenticate") == "Bearer", status == 401);
    }
}

#[tokio::test]
async fn a_malformed_body_names_the_member() {
    let served = Served::start().await;
    for (body, field) in [
        ("", "$"),
        ("{", "$"),
        ("[]", "$"),
        ("{\"protocol\":1} x", "$"),
        ("{}", "protocol"),
        (r#"{"protocol":"1"}"#, "protocol"),
        (r#"{"protocol":1}"#, "user_id"),
        (r#"{"protocol":1,"user_id":7}"#, "user_id"),
    ] {
        let answer = served.read("/v1/push", served.post("/v1/push").body(body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{body}");
        assert_eq!(answer.json()["field"], field, "{body}");
    }
    let answer = served.read("/v1/push", served.post("/v1/push").body(b"\xff\xfe".to_vec())).await;
    assert_eq!(answer.code(), "invalid_request");
}

#[tokio::test]
async fn another_protocol_is_told_which_are_spoken_before_anything_else() {
    let served = Served::start().await;
    for path in ["/v1/push", "/v1/pull"] {
        let answer = served.send(path, &json!({"protocol": 2, "operations": "of a form not known here"})).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "unsupported_protocol"));
        assert_eq!(answer.json()["supported"], json!([1]));
    }
}

/// A number that did not fit 32 bits was an invalid request, and its sender was not told which protocols are spoken.
#[tokio::test]
async fn a_protocol_of_a_far_future_is_another_protocol_too() {
    let served = Served::start().await;
    for protocol in [u64::from(u32::MAX) + 1, u64::MAX] {
        let answer = served.send("/v1/push", &json!({ "protocol": protocol })).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "unsupported_protocol"), "{protocol}");
    }
}

struct Panics;

impl Endpoint for Panics {
    fn handle(&mut self, _: Request<'_>, _: &Claims, _: Timestamp, _: &mut dyn Random) -> Answer {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_problem_and_the_server_lives_on() {
    let served = Served::over(Box::new(Panics), LimitsConfig::default()).await;
    for _ in 0..2 {
        let answer = served.send("/v1/pull", &pull_body()).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    }
    assert_eq!(served.read("/health", served.request("GET", "/health")).await.status, 200);
}

#[tokio::test]
async fn health_metrics_and_the_document_are_served() {
    let served = Served::start().await;
    let body = served.push_body().await;
    served.send("/v1/push", &body).await;
    served.send("/v1/push", &json!({"protocol": 9})).await;
    let health = served.read("/health", served.request("GET", "/health")).await;
    assert_eq!(health.json(), json!({"status": "ok", "protocol": 1}));
    let metrics = served.read("/metrics", served.request("GET", "/metrics")).await;
    let text = String::from_utf8(metrics.bytes).unwrap();
    for line in [
        r#"syncline_requests_total{path="/v1/push",outcome="ok"} 1"#,
        r#"syncline_requests_total{path="/v1/push",outcome="unsupported_protocol"} 1"#,
        r#"syncline_requests_total{path="/v1/pull",outcome="ok"} 1"#,
        "syncline_requests_in_flight 0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for private in ["ada", "team", "private-title", "k1"] {
        assert!(!text.contains(private), "{private}");
    }
    let document = served.read("/openapi.json", served.request("GET", "/openapi.json")).await.json();
    assert_eq!(document, serde_json::from_str::<Value>(contract::openapi()).unwrap());
}

/// Every path of the document is served, and nothing is served that it does not name.
#[tokio::test]
async fn the_document_names_what_is_served() {
    let served = Served::start().await;
    let document: Value = serde_json::from_str(contract::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 5);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let answer = served.read(path, served.request(&method.to_uppercase(), path)).await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}");
        }
        let answer = served.read(path, served.request("DELETE", path)).await;
        assert_eq!(answer.status, 405, "{path}");
    }
    let codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    let known: Vec<_> = syncline_protocol::ProblemCode::ALL.iter().map(|code| json!(code.as_str())).collect();
    assert_eq!(*codes, known);
}
