//! Delivering 10,000 operations beside a plain loop that posts the same batches to the same endpoint.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_core::{Config, Durability, Network, SyncManager};
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, Keys, Secret, mint};
use syncline_server::{Config as ServerConfig, LimitsConfig, StoreConfig, serve};

use crate::support::{Fixed, entity_id, operation, payload, timed};
use crate::{Figure, Goal, Scale};

const SECRET: &str = "a secret of the benchmark, 32 bytes";
const BATCH: usize = 500;

pub(crate) fn run(scale: Scale) -> Vec<Figure> {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let address = runtime.block_on(endpoint(dir.path()));
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for round in 0..3 {
        ours += syncline(dir.path(), address, scale.drained, round, &runtime);
        theirs += runtime.block_on(plain(address, scale.drained, round));
    }
    runtime.shutdown_background();
    vec![Figure {
        name: "drain of 10,000 / plain loop, speed",
        value: theirs.as_secs_f64() / ours.as_secs_f64(),
        unit: "×",
        goal: Goal::AtLeast(0.5),
        detail: format!(
            "{:.0} ms / {:.0} ms for {}",
            ours.as_secs_f64() * 1e3 / 3.0,
            theirs.as_secs_f64() * 1e3 / 3.0,
            scale.drained
        ),
    }]
}

fn token(scope: &str) -> String {
    let expires = Timestamp::from_millis(4_000_000_000_000);
    mint(&Secret::new(SECRET), "bench", &[scope], "bench", expires)
}

async fn endpoint(dir: &Path) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = ServerConfig {
        store: StoreConfig { path: dir.join("server.db"), vfs: None, restored: false },
        auth: AuthConfig {
            keys: Keys::Hs256 { secret: Secret::new(SECRET) },
            audience: vec!["bench".into()],
            issuer: None,
            scope_claim: "scope".into(),
        },
        types: Default::default(),
        limits: LimitsConfig { requests_per_minute: 1_000_000, burst: 1_000_000, ..LimitsConfig::default() },
    };
    tokio::spawn(serve(listener, config, std::future::pending()));
    address
}

fn syncline(
    dir: &Path,
    address: SocketAddr,
    count: usize,
    round: usize,
    runtime: &tokio::runtime::Runtime,
) -> Duration {
    let scope = format!("ours-{round}");
    let mut config = Config::new(dir.join(format!("device-{round}.db")), format!("http://{address}"), "bench", &scope);
    config.durability = Durability::Normal;
    config.network = Network::default();
    let manager = SyncManager::open_system(config, Arc::new(Fixed(token(&scope)))).expect("opens");
    for first in (0..count).step_by(1000) {
        manager.enqueue_all((first..(first + 1000).min(count)).map(operation)).expect("enqueues");
    }
    // The first pull is not what is measured; the plain loop has made its own by then too.
    let (took, summary) = timed(|| runtime.block_on(manager.process_queue()).expect("drains"));
    assert_eq!(summary.completed as usize, count, "{summary:?}");
    manager.close();
    took
}

async fn plain(address: SocketAddr, count: usize, round: usize) -> Duration {
    let scope = format!("theirs-{round}");
    // The plain loop speaks cleartext, but its client wants to know how it would encrypt. Twice does no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().tls_certs_only([]).build().expect("a client");
    let token = token(&scope);
    let post = |path: &str, body: String| {
        client
            .post(format!("http://{address}{path}"))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let begun = std::time::Instant::now();
    let mut body = json!({ "protocol": 1, "user_id": "bench", "scope": scope, "device_id": "plain", "limit": 1000 });
    let pulled: Value = read(post("/v1/pull", body.to_string()).await).await;
    body["epoch"] = pulled["epoch"].clone();
    body["cursor"] = pulled["cursor"].clone();
    body["sent_at"] = json!("2026-01-01T00:00:00.000Z");
    for first in (0..count).step_by(BATCH) {
        let operations: Vec<Value> = (first..(first + BATCH).min(count))
            .map(|n| {
                json!({ "id": format!("o-{n}"), "idempotency_key": format!("k-{n}"), "sequence": n + 1, "operation": "create",
                    "entity_type": "pin", "entity_id": entity_id(n), "timestamp": "2026-01-01T00:00:00.000Z",
                    "payload": serde_json::from_str::<Value>(&payload(n)).expect("JSON") })
            })
            .collect();
        body["operations"] = operations.into();
        let answer = read(post("/v1/push", body.to_string()).await).await;
        assert_eq!(answer["applied"], json!((count - first).min(BATCH)), "{answer}");
        body["mark"] = answer["mark"].clone();
        body["cursor"] = answer["cursor"].clone();
    }
    begun.elapsed()
}

async fn read(answer: reqwest::Result<reqwest::Response>) -> Value {
    let text = answer.expect("an answer").text().await.expect("a body");
    serde_json::from_str(&text).expect("JSON")
}
