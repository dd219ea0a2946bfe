//! The endpoint in the same process, on a file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use syncline_core::environment::Clock;
use syncline_core::transport::{Request, Response, Route};
use syncline_protocol::{PROTOCOL, Problem, ProblemCode, Timestamp};
use syncline_server::endpoint::types::{TypeConfig, Types};
use syncline_server::{Answer, Claims, Embedded, Endpoint, EndpointLimits, SqliteStore, contract};

use crate::model::{Limits, Model, Token, Types as ModelTypes};
use crate::server_state::read_state;
use crate::steps::ManualClock;

/// A request that arrived, and what it was answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The device's name in the world.
    pub device: String,
    /// Where it went.
    pub route: Route,
    /// Its body.
    pub request: Value,
    /// The HTTP status of the answer.
    pub status: u16,
    /// The answer's body.
    pub answer: Value,
}

/// The world's endpoint. Handles are clones.
#[derive(Clone)]
pub struct TestServer {
    inner: Arc<Mutex<Inner>>,
    /// The server's wall clock.
    pub clock: ManualClock,
}

struct Inner {
    path: PathBuf,
    endpoint: Embedded<SqliteStore>,
    /// What the endpoint should be, as it is now and as it was in each snapshot.
    model: Model,
    snapshots: BTreeMap<PathBuf, Model>,
    /// To look into the endpoint's file.
    file: rusqlite::Connection,
    types: BTreeMap<String, TypeConfig>,
    limits: EndpointLimits,
    random: EndpointRandom,
    tokens: BTreeMap<String, Claims>,
    exchanges: Vec<Exchange>,
    violations: Vec<String>,
    restores: u64,
}

struct EndpointRandom(StdRng);

impl syncline_server::Random for EndpointRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl TestServer {
    pub(crate) fn new(path: PathBuf, clock: ManualClock, seed: u64) -> Self {
        let endpoint = open(&path, &BTreeMap::new(), EndpointLimits::default());
        let inner = Inner {
            file: look_into(&path),
            path,
            endpoint,
            model: Model::new(ModelTypes::default(), limits_of(EndpointLimits::default())),
            snapshots: BTreeMap::new(),
            types: BTreeMap::new(),
            limits: EndpointLimits::default(),
            random: EndpointRandom(StdRng::seed_from_u64(seed)),
            tokens: BTreeMap::new(),
            exchanges: Vec::new(),
            violations: Vec::new(),
            restores: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), clock }
    }

    /// Configures entity types, in place of all before.
    pub fn set_types(&self, types: BTreeMap<String, TypeConfig>) {
        let mut inner = self.inner.lock();
        let configuration = serde_json::to_value(&types).expect("a configuration is JSON");
        inner.model.set_types(ModelTypes::new(&configuration));
        inner.types = types;
        drop(inner);
        self.reopen();
    }

    /// Configures the limits.
    pub fn set_limits(&self, limits: EndpointLimits) {
        let mut inner = self.inner.lock();
        inner.model.set_limits(limits_of(limits));
        inner.limits = limits;
        drop(inner);
        self.reopen();
    }

    /// Makes a token good for a user and scopes.
    pub fn allow(&self, token: &str, user_id: &str, scopes: &[&str]) {
        let scopes: BTreeSet<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self.inner.lock().tokens.insert(token.to_owned(), Claims { user_id: user_id.to_owned(), scopes });
    }

    /// Makes a token good for nothing.
    pub fn revoke(&self, token: &str) {
        self.inner.lock().tokens.remove(token);
    }

    /// Everything that arrived so far, and its answers.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.inner.lock().exchanges.clone()
    }

    /// How requests and answers differed from the OpenAPI document, and the first difference from the [`Model`].
    pub fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }

    /// The database file.
    pub fn path(&self) -> PathBuf {
        self.inner.lock().path.clone()
    }

    /// The model beside the endpoint, as it stands.
    pub fn model(&self) -> Model {
        self.inner.lock().model.clone()
    }

    /// Two files use this device id from now on, as nobody knows yet.
    pub(crate) fn share(&self, device_id: &str) {
        self.inner.lock().model.share(device_id);
    }

    /// Works on the endpoint itself. What it changes there, the model does not know.
    pub fn with<T>(&self, work: impl FnOnce(&mut Embedded<SqliteStore>) -> T) -> T {
        work(&mut self.inner.lock().endpoint)
    }

    /// Copies the database as it stands to `path`, to be restored later.
    pub fn snapshot(&self, path: &Path) {
        copy_database(&self.path(), path);
        let mut inner = self.inner.lock();
        let model = inner.model.clone();
        inner.snapshots.insert(path.to_owned(), model);
    }

    /// Puts a snapshot in place, as an operator would after a loss. `told`: the endpoint is started with `--restored`.
    ///
    /// # Panics
    /// If `path` is no [`TestServer::snapshot`].
    pub fn restore(&self, path: &Path, told: bool) {
        let mut inner = self.inner.lock();
        let Inner { path: target, types, limits, restores, model, snapshots, .. } = &mut *inner;
        model.restore(&snapshots[path], told);
        // A file of its own each time: the one in use may have a log beside it that belongs to no other.
        *restores += 1;
        let (target, types, limits) = (target.with_extension(format!("restored-{restores}")), types.clone(), *limits);
        copy_database(path, &target);
        inner.endpoint = open(&target, &types, limits);
        inner.file = look_into(&target);
        inner.path = target;
        if told {
            let now = self.clock.now();
            let Inner { endpoint, random, .. } = &mut *inner;
            endpoint.renew_epochs(now, random).expect("the snapshot is a database");
        }
    }

    /// The endpoint's daily tidying up, at its own clock's time.
    pub fn maintain(&self) {
        let now = self.clock.now();
        self.with(|endpoint| endpoint.maintain(now)).expect("the store works");
        self.inner.lock().model.maintain(now);
    }

    /// Lets a request arrive that no device sends any more, as a duplicate that strayed on the way. Gives the status and the body.
    pub fn stray(&self, route: Route, body: &Value, token: &str) -> (u16, Value) {
        let request = Request { route, body: body.to_string().into_bytes() };
        let response = self.handle("stray", &request, token);
        (response.status, serde_json::from_slice(&response.body).unwrap_or(Value::Null))
    }

    /// Answers as the HTTP carrier would.
    pub(crate) fn handle(&self, device: &str, request: &Request, token: &str) -> Response {
        let mut inner = self.inner.lock();
        let now = self.clock.now();
        let Inner { endpoint, random, tokens, .. } = &mut *inner;
        let answer = match tokens.get(token) {
            None => Answer::problem(Problem::new(ProblemCode::Unauthorized)),
            Some(claims) => endpoint.handle(
                match request.route {
                    Route::Push => syncline_server::Request::Push(&request.body),
                    Route::Pull => syncline_server::Request::Pull(&request.body),
                },
                claims,
                now,
                random,
            ),
        };
        let said = inner.record(device, request, &answer);
        inner.judge(request, token, now, answer.status, &said);
        Response {
            status: answer.status,
            protocol: Some(PROTOCOL.to_string()),
            retry_after: answer.retry_after.map(|seconds| seconds.to_string()),
            body: answer.body.into_bytes(),
        }
    }

    fn reopen(&self) {
        let mut inner = self.inner.lock();
        inner.endpoint = open(&inner.path, &inner.types, inner.limits);
    }
}

impl Inner {
    /// Notes the exchange. Gives the answer's body.
    fn record(&mut self, device: &str, request: &Request, answer: &Answer) -> Value {
        let path = match request.route {
            Route::Push => "/v1/push",
            Route::Pull => "/v1/pull",
        };
        let sent: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let said: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        let checked = [contract::validate_request(path, &sent), contract::validate_answer(path, answer.status, &said)];
        for difference in checked.into_iter().filter_map(Result::err).flatten() {
            self.violations.push(format!("{path} of {device}: {difference}"));
        }
        self.exchanges.push(Exchange {
            device: device.to_owned(),
            route: request.route,
            request: sent,
            status: answer.status,
            answer: said.clone(),
        });
        said
    }

    /// Asks the model about an exchange, and after a push whether it finds in the file what it holds. Once they differ, all
    /// that follows is of that: only the first difference is told.
    fn judge(&mut self, request: &Request, token: &str, now: Timestamp, status: u16, said: &Value) {
        let Some(claims) = self.tokens.get(token).filter(|_| self.violations.is_empty()) else { return };
        let token = Token { user_id: &claims.user_id, scopes: &claims.scopes };
        let judged = self.model.judge(request.route, &request.body, token, now, status, said).and_then(|()| {
            if request.route == Route::Pull {
                return Ok(());
            }
            let stored = read_state(&self.file).map_err(|error| error.to_string())?;
            self.model.compare(&stored).map_err(|difference| format!("stored: {difference}"))
        });
        if let Err(difference) = judged {
            let request = String::from_utf8_lossy(&request.body);
            self.violations.push(format!("model: {difference}\n  asked: {request}\n  said: {status} {said}"));
        }
    }
}

fn limits_of(limits: EndpointLimits) -> Limits {
    let EndpointLimits { max_operations, max_bytes, max_payload_bytes } = limits;
    Limits { max_operations, max_bytes, max_payload_bytes }
}

fn look_into(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).expect("the server's file opens")
}

fn open(path: &Path, types: &BTreeMap<String, TypeConfig>, limits: EndpointLimits) -> Embedded<SqliteStore> {
    let store = SqliteStore::open(path, None).expect("the server's file opens");
    Embedded::new(store, Types::new(types.clone()).expect("the types are valid"), limits)
}

/// A consistent copy, also while the file is in use.
pub(crate) fn copy_database(from: &Path, to: &Path) {
    let connection = rusqlite::Connection::open(from).expect("the file opens");
    let target = to.to_str().expect("test paths are UTF-8");
    connection.execute("VACUUM INTO ?1", [target]).expect("the copy is written");
}
