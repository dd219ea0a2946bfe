use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::auth::{Secret, mint};
use syncline_server::{Clock, Config, ServeError, SystemClock, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const SECRET: &str = "a secret of at least thirty-two bytes";

fn config(path: &std::path::Path, restored: bool) -> Value {
    json!({
        "store": { "path": path, "restored": restored },
        "auth": { "keys": { "algorithm": "HS256", "secret": SECRET }, "audience": ["syncline"] },
        "types": { "pin": { "conflict_rule": "manual", "schema": { "required": ["title"] } } },
        "limits": { "request": { "max_operations": 100 }, "burst": 10 },
    })
}

/// Serves as configured, pulls once with a token for the real time, shuts down; returns the epoch.
async fn epoch_served(config: Config) -> String {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/pull", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, config, async {
        stopped.await.ok();
    });
    let asking = async {
        let expires = SystemClock.now().plus_millis(60_000);
        let token = mint(&Secret::new(SECRET), "ada", &["team"], "syncline", expires);
        let body = json!({"protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "limit": 1});
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer =
            client.post(url).bearer_auth(token).body(body.to_string()).header("content-type", "application/json");
        let text = answer.send().await.unwrap().text().await.unwrap();
        stop.send(()).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["epoch"].as_str().unwrap().to_owned()
    };
    let (served, epoch) = tokio::join!(serving, asking);
    served.unwrap();
    epoch
}

#[tokio::test]
async fn a_configured_endpoint_serves_its_file_and_restored_names_its_history_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    let read = |restored| Config::from_json(&config(&path, restored).to_string()).unwrap();
    let first = epoch_served(read(false)).await;
    assert_eq!(epoch_served(read(false)).await, first);
    let renewed = epoch_served(read(true)).await;
    assert_ne!(renewed, first);
    assert_eq!(epoch_served(read(false)).await, renewed);
}

#[test]
fn a_configuration_survives_writing_and_reading() {
    let written = config(std::path::Path::new("server.db"), false);
    let read = Config::from_json(&written.to_string()).unwrap();
    assert_eq!((read.limits.request.max_operations, read.limits.burst, read.limits.max_in_flight), (100, 10, 64));
    let again = Config::from_json(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&read).unwrap());
}

#[test]
fn a_configuration_that_is_wrong_is_refused_without_repeating_it() {
    let mut unknown = config(std::path::Path::new("server.db"), false);
    unknown["auth"]["keys"]["secrets"] = json!(SECRET);
    for text in [unknown.to_string(), "{".into(), json!({"store": {"path": "x"}}).to_string()] {
        let error = Config::from_json(&text).unwrap_err();
        assert!(matches!(error, ServeError::Config(_)) && !error.to_string().contains("thirty"), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_is_said_before_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.db");
    for (pointer, value) in [
        ("/auth/audience", json!([])),
        ("/auth/keys/secret", json!("short")),
        ("/types/pin/schema", json!({"type": 7})),
        ("/limits/burst", json!(0)),
        ("/store/path", json!(folder.path())),
    ] {
        let mut wrong = config(&path, false);
        *wrong.pointer_mut(pointer).unwrap() = value;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config::from_json(&wrong.to_string()).unwrap();
        assert!(serve(listener, config, std::future::pending()).await.is_err(), "{pointer}");
    }
}

#[test]
fn the_systems_clock_runs() {
    assert!(SystemClock.now() > Timestamp::from_millis(1_700_000_000_000));
}
