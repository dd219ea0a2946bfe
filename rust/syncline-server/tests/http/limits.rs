use serde_json::json;
use syncline_server::LimitsConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::served::{Gate, Served, pull_body, signal, token};

#[tokio::test]
async fn a_device_that_asks_too_often_is_told_when_to_come_back() {
    let limits = LimitsConfig { requests_per_minute: 1, burst: 2, ..LimitsConfig::default() };
    let served = Served::with(limits).await;
    let mut other = pull_body();
    other["device_id"] = json!("B");
    assert_eq!(served.send("/v1/pull", &pull_body()).await.status, 200);
    assert_eq!(served.send("/v1/pull", &pull_body()).await.status, 200);
    let refused = served.send("/v1/pull", &pull_body()).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(served.send("/v1/pull", &other).await.status, 200, "another device of the user");
}

#[tokio::test]
async fn inventing_devices_does_not_help() {
    let limits = LimitsConfig { requests_per_minute: 1, burst: 2, ..LimitsConfig::default() };
    let served = Served::with(limits).await;
    for number in 0..17 {
        let mut body = pull_body();
        body["device_id"] = json!(format!("D{number}"));
        let answer = served.send("/v1/pull", &body).await;
        assert_eq!(answer.status, if number < 16 { 200 } else { 429 }, "{number}");
    }
    let mut body = pull_body();
    body["user_id"] = json!("bob");
    let request = served.request("POST", "/v1/pull").bearer_auth(token("bob", &["team"], 60)).body(body.to_string());
    assert_eq!(served.read("/v1/pull", request).await.status, 200, "another user");
}

#[tokio::test]
async fn more_requests_than_fit_are_sent_away() {
    let (gate, entered, open) = Gate::new();
    let limits = LimitsConfig { max_in_flight: 1, ..LimitsConfig::default() };
    let served = Served::over(Box::new(gate), limits).await;
    let body = pull_body();
    let first = served.send("/v1/pull", &body);
    let second = async {
        signal(entered).await;
        let refused = served.send("/v1/pull", &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(served.read("/health", served.request("GET", "/health")).await.status, 200);
        open.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.status, 200);
}

#[tokio::test]
async fn shutting_down_finishes_what_is_under_way() {
    let (gate, entered, open) = Gate::new();
    let mut served = Served::over(Box::new(gate), LimitsConfig::default()).await;
    let request = served.post("/v1/pull").body(pull_body().to_string());
    #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
    let under_way = tokio::spawn(request.send());
    signal(entered).await;
    served.stop();
    open.send(()).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().status().as_u16(), 200);
    let address = served.address;
    served.task.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_does_not_hold_a_place_for_ever() {
    let served = Served::with(LimitsConfig { max_in_flight: 1, ..LimitsConfig::default() }).await;
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    let head = format!(
        "POST /v1/pull HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{{",
        token("ada", &["team"], 60)
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("syncline-protocol: 1"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_say_what_it_wants_is_closed() {
    let served = Served::start().await;
    let mut socket = TcpStream::connect(served.address).await.unwrap();
    socket.write_all(b"POST /v1/pull HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(served.read("/health", served.request("GET", "/health")).await.status, 200);
}
