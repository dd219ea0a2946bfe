//! A server on a loopback socket, and a client that holds every answer to the contract.

use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, Keys, Secret, Verifier, mint};
use syncline_server::endpoint::types::Types;
use syncline_server::{
    Answer, Claims, Clock, Embedded, Endpoint, EndpointLimits, LimitsConfig, Random, Request, Server, SqliteStore,
    SystemRandom, contract,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const NOON: Timestamp = Timestamp::from_millis(1_777_636_800_000);
const SECRET: &str = "a secret of at least thirty-two bytes";

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        NOON
    }
}

pub(crate) struct Served {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) client: reqwest::Client,
    shutdown: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<()>,
}

/// An answer, read to its end.
pub(crate) struct Read {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Read {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(LimitsConfig::default()).await
    }

    pub(crate) async fn with(limits: LimitsConfig) -> Self {
        let store = SqliteStore::open_in_memory().unwrap();
        let endpoint = Embedded::new(store, Types::default(), EndpointLimits::default());
        Self::over(Box::new(endpoint), limits).await
    }

    pub(crate) async fn over(endpoint: Box<dyn Endpoint>, limits: LimitsConfig) -> Self {
        let config = AuthConfig {
            keys: Keys::Hs256 { secret: Secret::new(SECRET) },
            audience: vec!["syncline".into()],
            issuer: None,
            scope_claim: "scope".into(),
        };
        let verifier = Verifier::new(&config).unwrap();
        let server = Server::new(endpoint, verifier, limits, Box::new(Noon), Box::new(SystemRandom)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let serving = server.serve(listener, async {
            stopped.await.ok();
        });
        #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
        let task = tokio::spawn(async { serving.await.unwrap() });
        // Every build of a client asks for one, also where only http is spoken.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().gzip(false).build().unwrap();
        Self { address, client, shutdown: Some(shutdown), task }
    }

    pub(crate) fn stop(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method.parse().unwrap(), url).header("content-type", "application/json")
    }

    /// A POST with a good token for user `ada` and scope `team`.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.request("POST", path).bearer_auth(token("ada", &["team"], 3600))
    }

    pub(crate) async fn read(&self, path: &str, request: reqwest::RequestBuilder) -> Read {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let read = Read { status, headers, bytes: answer.bytes().await.unwrap().to_vec() };
        assert_eq!(read.header("syncline-protocol"), "1");
        if status >= 400 {
            assert_eq!(read.header("content-type"), "application/problem+json");
        }
        if read.header("content-encoding").is_empty() && (status >= 400 || path.starts_with("/v1/")) {
            contract::validate_answer(path, status, &read.json()).unwrap();
        }
        read
    }

    pub(crate) async fn send(&self, path: &str, body: &Value) -> Read {
        self.read(path, self.post(path).body(body.to_string())).await
    }

    pub(crate) async fn epoch(&self) -> String {
        self.send("/v1/pull", &pull_body()).await.json()["epoch"].as_str().unwrap().to_owned()
    }

    /// A push body of one create.
    pub(crate) async fn push_body(&self) -> Value {
        push_body(&self.epoch().await)
    }
}

pub(crate) fn token(user_id: &str, scopes: &[&str], seconds: i64) -> String {
    mint(&Secret::new(SECRET), user_id, scopes, "syncline", NOON.plus_millis(seconds * 1000))
}

pub(crate) fn pull_body() -> Value {
    json!({ "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "limit": 1000 })
}

pub(crate) fn push_body(epoch: &str) -> Value {
    json!({
        "protocol": 1, "user_id": "ada", "scope": "team", "device_id": "A", "epoch": epoch, "sent_at": NOON.to_string(),
        "operations": [{
            "id": "o1", "idempotency_key": "k1", "sequence": 1, "operation": "create", "entity_type": "pin",
            "entity_id": "e1", "payload": { "title": "private-title" }, "timestamp": NOON.to_string(),
        }],
    })
}

/// An endpoint that says when it was entered, and answers when it is told to.
pub(crate) struct Gate {
    entered: Sender<()>,
    open: Receiver<()>,
}

impl Gate {
    pub(crate) fn new() -> (Self, Receiver<()>, Sender<()>) {
        let (entered, was_entered) = channel();
        let (opener, open) = channel();
        (Self { entered, open }, was_entered, opener)
    }
}

impl Endpoint for Gate {
    fn handle(&mut self, _: Request<'_>, _: &Claims, _: Timestamp, _: &mut dyn Random) -> Answer {
        self.entered.send(()).unwrap();
        self.open.recv().unwrap();
        let body = r#"{"changes":[],"cursor":"c","epoch":"e","has_more":false,"reset":false}"#.into();
        Answer { status: 200, content_type: "application/json", body, problem: None, retry_after: None }
    }
}

/// Waits for a thread's signal without blocking the runtime.
pub(crate) async fn signal(receiver: Receiver<()>) -> Receiver<()> {
    #[expect(clippy::disallowed_methods, reason = "the test is the shell here")]
    let waiting = tokio::task::spawn_blocking(move || {
        receiver.recv().unwrap();
        receiver
    });
    waiting.await.unwrap()
}
