use std::sync::{Mutex, OnceLock};

use log::{LevelFilter, Log, Metadata, Record};
use serde_json::json;
use syncline_server::{EndpointLimits, LimitsConfig};

use crate::served::{Served, pull_body, token};

/// Keeps every line that the endpoint logs, at every level.
struct Lines(Mutex<Vec<String>>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("syncline")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Invariant 9: "no payload, token or query string in a log line, an error text or a metric label".
#[tokio::test]
async fn neither_logs_nor_errors_hold_what_a_client_sent() {
    let lines = LINES.get_or_init(|| Lines(Mutex::default()));
    log::set_logger(lines).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let limits = LimitsConfig {
        request: EndpointLimits { max_operations: 1, ..EndpointLimits::default() },
        ..LimitsConfig::default()
    };
    let served = Served::with(limits).await;
    let good = served.push_body().await;
    let mut answers = Vec::new();
    for change in [
        json!({}),
        json!({"operations": [{"payload": "private-payload"}]}),
        json!({"epoch": "private-epoch"}),
        json!({"operations": [{}, {"private-member": 1}]}),
        json!({"sent_at": "private-moment"}),
    ] {
        let mut body = good.clone();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let request = served.post("/v1/push?query=private-query").body(body.to_string());
        answers.push(served.read("/v1/push", request).await);
    }
    let bad = served.request("POST", "/v1/pull").bearer_auth("private.token.here").body(pull_body().to_string());
    answers.push(served.read("/v1/pull", bad).await);
    answers.push(served.read("/private-path", served.request("GET", "/private-path?q=private-query")).await);
    let logged = lines.0.lock().unwrap().join("\n");
    assert!(logged.contains("/v1/push ok"), "something is logged: {logged}");
    let told: String = answers.iter().map(|answer| String::from_utf8_lossy(&answer.bytes).into_owned()).collect();
    let token = token("ada", &["team"], 3600);
    for private in ["private", token.as_str(), token.rsplit('.').next().unwrap()] {
        assert!(!logged.contains(private), "{private} in {logged}");
        assert!(!told.contains(private), "{private} in {told}");
    }
}
