//! The stand-in over a database of its own, and a client that tells everything.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use syncline_core::Endpoint;
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, JwksLocation, Keys, Secret, Verifier};
use syncline_server::{PostgresConfig, PostgresEndpoint};
use syncline_testkit::postgres::{Cluster, Durability};
use syncline_testkit::postgrest::{PostgRest, ROLES, Settings};
use tokio::net::TcpListener;

pub(crate) const SECRET: &str = "a secret that only this test knows, long enough";
pub(crate) const KEY: &str = "sb_publishable_of_this_test";
pub(crate) const NOW: i64 = 1_800_000_000;

/// One cluster for all tests that run at the same time.
static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static MIGRATING: Mutex<()> = Mutex::new(());

fn cluster() -> Arc<Cluster> {
    let mut shared = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Arc::new(Cluster::start(Durability::None));
        cluster.sql("postgres", ROLES);
        *shared = Arc::downgrade(&cluster);
        cluster
    })
}

/// The stand-in, with a database of its own.
pub(crate) struct Stage {
    cluster: Arc<Cluster>,
    database: String,
    address: SocketAddr,
    client: Client,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Stage {
    /// `name` is the database's.
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, 10, hs256()).await
    }

    #[expect(clippy::disallowed_methods, reason = "a real server has tasks of its own")]
    pub(crate) async fn with(name: &str, pool: usize, verifier: Verifier) -> Self {
        let cluster = cluster();
        cluster.empty_database(name);
        cluster.sql(name, include_str!("functions.sql"));
        let settings = Settings {
            database: format!("host={} user=authenticator dbname={name}", cluster.socket().display()),
            schemas: vec!["public".to_owned(), "other".to_owned()],
            pool,
            acquisition_timeout: Duration::from_millis(200),
            verifier,
            publishable_key: Some(KEY.to_owned()),
            now: || Timestamp::from_millis(NOW * 1000),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = PostgRest::new(settings).unwrap().serve(listener, async {
            let _ = stopped.await;
        });
        tokio::spawn(serving);
        Self { client: client(), cluster, database: name.to_owned(), address, _stop: stop }
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        self.cluster.sql(&self.database, text)
    }

    /// Where a device finds it.
    pub(crate) fn endpoint(&self, key: &str) -> Endpoint {
        Endpoint::supabase(format!("http://{}", self.address), key)
    }

    /// Brings Syncline's migrations in.
    #[expect(clippy::disallowed_methods, reason = "it waits for the database")]
    pub(crate) async fn migrate(&self) {
        let url = format!("host={} user=postgres dbname={}", self.cluster.socket().display(), self.database);
        let migrated = tokio::task::spawn_blocking(move || {
            // Roles are the cluster's: two databases at once would both make them.
            let _one = MIGRATING.lock().unwrap_or_else(PoisonError::into_inner);
            PostgresEndpoint::open(&PostgresConfig::new(url), true).map(drop)
        });
        migrated.await.unwrap().unwrap();
        // As `supabase db push` leaves it; `syncline serve` sets its own claim.
        self.sql("update syncline.settings set scope_claim = null");
    }

    /// Runs statements in another database of the cluster.
    pub(crate) fn elsewhere(&self, database: &str, text: &str) -> String {
        self.cluster.sql(database, text)
    }

    /// A request as `authenticated`, with the key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(token(json!({ "sub": "ada", "role": "authenticated" })))
    }

    /// A request without a token.
    pub(crate) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}/rest/v1/rpc/{path}", self.address)).header("apikey", KEY)
    }

    /// Posts JSON as `authenticated`.
    pub(crate) async fn post(&self, function: &str, body: impl ToString) -> Answer {
        answer(self.request(Method::POST, function).header("content-type", "application/json").body(body.to_string()))
            .await
    }
}

/// No TLS is spoken, but the client wants to know how.
pub(crate) fn client() -> Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// Holds if it is an error object, whole, with this status and code.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{body}");
        let members: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["code", "details", "hint", "message"]);
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        body
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

fn config(keys: Keys) -> AuthConfig {
    AuthConfig { keys, audience: vec!["authenticated".into()], issuer: None, scope_claim: "scope".into() }
}

pub(crate) fn hs256() -> Verifier {
    Verifier::new(&config(Keys::Hs256 { secret: Secret::new(SECRET) })).unwrap()
}

pub(crate) fn es256(jwks: std::path::PathBuf) -> Verifier {
    Verifier::new(&config(Keys::Es256 { jwks: JwksLocation::File(jwks) })).unwrap()
}

/// With `aud` and `exp`, unless the claims say otherwise.
pub(crate) fn token(claims: Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

pub(crate) fn signed(algorithm: Algorithm, key: &EncodingKey, claims: Value) -> String {
    let mut all = json!({ "aud": "authenticated", "exp": NOW + 60 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    jsonwebtoken::encode(&Header { kid: Some("e1".into()), ..Header::new(algorithm) }, &all, key).unwrap()
}
