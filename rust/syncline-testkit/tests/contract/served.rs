//! The embedded endpoint behind its HTTP, on a loopback socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use serde_json::Value;
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, Keys, Secret, Verifier, mint};
use syncline_server::store::StorageError;
use syncline_server::{Answer, Claims, Clock, Endpoint, LimitsConfig, Random, Request, Server, SystemRandom};
use syncline_testkit::contract::{
    Ability, Answered, EmbeddedHost, Host, HostError, Http, Outcome, Sent, folder, load, run,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

const SECRET: &str = "a secret of at least thirty-two bytes";
/// Tokens of these tests never expire in them.
const EXPIRY: Timestamp = Timestamp::from_millis(4_000_000_000_000);

/// The host's own endpoint, so that the operator's actions go past HTTP.
#[derive(Clone)]
struct Shared(Arc<Mutex<EmbeddedHost>>);

impl Endpoint for Shared {
    fn handle(&mut self, request: Request<'_>, claims: &Claims, now: Timestamp, random: &mut dyn Random) -> Answer {
        self.0.lock().endpoint().handle(request, claims, now, random)
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), StorageError> {
        self.0.lock().endpoint().maintain(now)
    }
}

#[derive(Clone)]
struct Settable(Arc<AtomicI64>);

impl Clock for Settable {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

struct ServedHost {
    endpoint: Shared,
    clock: Settable,
    address: SocketAddr,
    client: reqwest::Client,
    runtime: Runtime,
}

impl ServedHost {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let endpoint = Shared(Arc::new(Mutex::new(EmbeddedHost::new().unwrap())));
        let clock = Settable(Arc::default());
        let config = AuthConfig {
            keys: Keys::Hs256 { secret: Secret::new(SECRET) },
            audience: vec!["syncline".into()],
            issuer: None,
            scope_claim: "scope".into(),
        };
        // How often somebody may ask is no matter of the contract.
        let limits = LimitsConfig { requests_per_minute: 1_000_000, burst: 1_000_000, ..LimitsConfig::default() };
        let verifier = Verifier::new(&config).unwrap();
        let boxed: Box<dyn Endpoint> = Box::new(endpoint.clone());
        let server = Server::new(boxed, verifier, limits, Box::new(clock.clone()), Box::new(SystemRandom)).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the runtime.
        drop(runtime.spawn(async { server.serve(listener, std::future::pending()).await.unwrap() }));
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { endpoint, clock, address, client, runtime }
    }

    fn request(&self, sent: &Sent<'_>) -> reqwest::RequestBuilder {
        let usual = Http::default();
        let http = sent.http.unwrap_or(&usual);
        let path = if sent.route == Route::Push { "/v1/push" } else { "/v1/pull" };
        let scopes: Vec<&str> = sent.claims.scopes.iter().map(String::as_str).collect();
        let token = mint(&Secret::new(SECRET), &sent.claims.user_id, &scopes, "syncline", EXPIRY);
        let mut headers: BTreeMap<&str, Option<String>> = BTreeMap::new();
        headers.insert("content-type", Some("application/json".to_owned()));
        headers.insert("authorization", Some(format!("Bearer {token}")));
        headers.insert("content-encoding", http.encoding().map(str::to_owned));
        headers.extend(http.headers.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let method = http.method.as_deref().unwrap_or("POST").parse().unwrap();
        let url = format!("http://{}{}", self.address, http.path.as_deref().unwrap_or(path));
        let request = self.client.request(method, url).body(http.packed(sent.body).unwrap());
        let headers = headers.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        headers.fold(request, |request, (name, value)| request.header(name, value))
    }
}

impl Host for ServedHost {
    fn name(&self) -> &str {
        "embedded behind HTTP"
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        let mut abilities = self.endpoint.0.lock().abilities();
        abilities.insert(Ability::Http);
        abilities
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.endpoint.0.lock().reset(types)
    }

    fn set_clock(&mut self, wanted: Timestamp) -> Result<Timestamp, HostError> {
        self.clock.0.store(wanted.millis(), Ordering::SeqCst);
        self.endpoint.0.lock().set_clock(wanted)
    }

    fn handle(&mut self, sent: Sent<'_>) -> Result<Answered, HostError> {
        let request = self.request(&sent);
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(HostError::new)?;
            let status = answer.status().as_u16();
            let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers =
                answer.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
            let body = answer.bytes().await.map_err(HostError::new)?.to_vec();
            Ok(Answered { status, headers, body })
        })
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.endpoint.0.lock().maintain(scope)
    }

    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError> {
        self.endpoint.0.lock().renew_epochs(scope)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        self.endpoint.0.lock().ledger(scope)
    }
}

#[test]
fn every_vector_holds_behind_http() {
    let vectors = load(&folder()).unwrap();
    let mut failed = Vec::new();
    let outcomes = run(&mut ServedHost::start(), &vectors, |vector, outcome| {
        if *outcome != Outcome::Passed {
            failed.push(format!("{}\n    {outcome:?}", vector.title()));
        }
    });
    assert!(failed.is_empty(), "{} of {} vectors fail:\n{}", failed.len(), outcomes.len(), failed.join("\n"));
}
