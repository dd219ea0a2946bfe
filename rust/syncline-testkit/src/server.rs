//! The endpoint in the same process, on a file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use syncline_core::environment::Clock;
use syncline_core::transport::{Dialect, Request, Response, Route};
use syncline_protocol::{PROTOCOL, Problem, ProblemCode, Timestamp};
use syncline_server::endpoint::types::{TypeConfig, Types};
use syncline_server::{Answer, Claims, Embedded, Endpoint, EndpointLimits, SqliteStore, contract};

use crate::disk::{Disk, Process};
use crate::model::{Limits, Model, ServerState, Token, Types as ModelTypes};
use crate::server_state::{StoredEffect, read_effects, read_state};
use crate::simulation::coverage::Coverage;
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
    /// The token that it came with.
    pub token: String,
}

/// The world's endpoint. Handles are clones.
#[derive(Clone)]
pub struct TestServer {
    inner: Arc<Mutex<Inner>>,
    /// The server's wall clock.
    pub clock: ManualClock,
}

struct Inner {
    place: Place,
    endpoint: Embedded<SqliteStore>,
    /// What the endpoint should be, as it is now and as it was in each snapshot.
    model: Model,
    /// By the file's name.
    snapshots: BTreeMap<OsString, Model>,
    /// To look into the endpoint's file.
    file: rusqlite::Connection,
    types: BTreeMap<String, TypeConfig>,
    limits: EndpointLimits,
    random: EndpointRandom,
    tokens: BTreeMap<String, Claims>,
    exchanges: Vec<Exchange>,
    violations: Vec<String>,
    restores: u64,
    deaths: u64,
    /// What the file held when it was last read, and how often it had been written to by then.
    read: Option<(u64, Arc<ServerState>)>,
}

/// Where the endpoint's file is.
enum Place {
    Folder(PathBuf),
    /// Backups are elsewhere: they do not lose power together.
    Disk {
        disk: Disk,
        process: Process,
        name: String,
        loses_power: bool,
        backups: Disk,
    },
}

impl Place {
    fn path(&self) -> PathBuf {
        match self {
            Self::Folder(path) => path.clone(),
            Self::Disk { process, name, .. } => process.path(name),
        }
    }

    fn vfs(&self) -> Option<&'static str> {
        matches!(self, Self::Disk { .. }).then_some(Disk::VFS)
    }

    fn open(&self, types: &BTreeMap<String, TypeConfig>, limits: EndpointLimits) -> Embedded<SqliteStore> {
        let store = SqliteStore::open(&self.path(), self.vfs()).expect("the server's file opens");
        Embedded::new(store, Types::new(types.clone()).expect("the types are valid"), limits)
    }

    /// A connection that only looks, and tidies nothing up when it is closed.
    fn look(&self) -> rusqlite::Connection {
        let path = match self {
            Self::Folder(path) => path.clone(),
            Self::Disk { disk, name, .. } => disk.process().path(name),
        };
        let file = open_database(&path, self.vfs()).expect("the server's file opens");
        file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .expect("it is a setting");
        file
    }
}

struct EndpointRandom(StdRng);

impl syncline_server::Random for EndpointRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

impl TestServer {
    pub(crate) fn new(path: PathBuf, clock: ManualClock, seed: u64) -> Self {
        Self::at(Place::Folder(path), clock, seed)
    }

    /// On a disk in memory, where its process can die and lose power.
    pub(crate) fn on_disk(disk: Disk, clock: ManualClock, seed: u64) -> Self {
        let (process, name, backups) = (disk.process(), "server.db".to_owned(), Disk::new(seed));
        Self::at(Place::Disk { disk, process, name, loses_power: false, backups }, clock, seed)
    }

    fn at(place: Place, clock: ManualClock, seed: u64) -> Self {
        let endpoint = place.open(&BTreeMap::new(), EndpointLimits::default());
        let inner = Inner {
            file: place.look(),
            place,
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
            deaths: 0,
            read: None,
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
        self.inner.lock().place.path()
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
        let vfs = self.inner.lock().place.vfs();
        copy_database(&self.path(), path, vfs);
        let mut inner = self.inner.lock();
        let model = inner.model.clone();
        inner.snapshots.insert(name_of(path), model);
    }

    /// Puts a snapshot in place, as an operator would after a loss. `told`: the endpoint is started with `--restored`.
    ///
    /// # Panics
    /// If `path` is no [`TestServer::snapshot`].
    pub fn restore(&self, path: &Path, told: bool) {
        let mut inner = self.inner.lock();
        let Inner { place, restores, model, snapshots, .. } = &mut *inner;
        model.restore(&snapshots[&name_of(path)], told);
        // A file of its own each time: the one in use may have a log beside it that belongs to no other.
        *restores += 1;
        // The operator starts it anew: no death of the process before is to come.
        match place {
            Place::Folder(target) => *target = target.with_extension(format!("restored-{restores}")),
            Place::Disk { disk, process, name, .. } => {
                *process = disk.process();
                *name = format!("restored-{restores}.db");
            }
        }
        copy_database(path, &place.path(), place.vfs());
        inner.reopen();
        if told {
            let now = self.clock.now();
            let Inner { endpoint, random, .. } = &mut *inner;
            endpoint.renew_epochs(now, random).expect("the snapshot is a database");
            let stored = read_state(&inner.file).expect("the snapshot can be read");
            let Inner { model, violations, .. } = &mut *inner;
            violations.extend(model.renewed(&stored).err());
        }
    }

    /// The endpoint's daily tidying up, at its own clock's time.
    pub fn maintain(&self) {
        let now = self.clock.now();
        self.heal();
        self.with(|endpoint| endpoint.maintain(now)).expect("the store works");
        self.inner.lock().model.maintain(now);
    }

    /// Lets a request arrive that no device sends any more, as a duplicate that strayed on the way. Gives the status and the body.
    pub fn stray(&self, route: Route, body: &Value, token: &str) -> (u16, Value) {
        let request = Request { route, body: body.to_string().into_bytes() };
        match self.handle("stray", &request, token) {
            Some(response) => (response.status, serde_json::from_slice(&response.body).unwrap_or(Value::Null)),
            None => (0, Value::Null),
        }
    }

    /// Answers as the HTTP carrier would.
    ///
    /// None: the endpoint died of it.
    pub(crate) fn handle(&self, device: &str, request: &Request, token: &str) -> Option<Response> {
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
        if inner.has_died() {
            inner.revive(request, now);
            return None;
        }
        let said = inner.record(device, request, &answer, token);
        inner.judge(request, token, now, answer.status, &said);
        Some(Response {
            status: answer.status,
            protocol: Some(PROTOCOL.to_string()),
            retry_after: answer.retry_after.map(|seconds| seconds.to_string()),
            body: answer.body.into_bytes(),
            dialect: Dialect::Syncline,
        })
    }

    fn reopen(&self) {
        self.inner.lock().reopen();
    }
}

/// The endpoint's machine, in a world on disks.
impl TestServer {
    /// Its process dies before the call to the disk after so many more; then, perhaps, its machine loses power.
    pub(crate) fn die_after(&self, calls: u64, power: bool) {
        if let Place::Disk { process, loses_power, .. } = &mut self.inner.lock().place {
            process.die_after(calls);
            *loses_power |= power;
        }
    }

    /// No death is to come any more.
    pub(crate) fn heal(&self) {
        if let Place::Disk { process, loses_power, .. } = &mut self.inner.lock().place {
            process.die_after(u64::MAX);
            *loses_power = false;
        }
    }

    /// Raised by every write to the file.
    pub(crate) fn changes(&self) -> u64 {
        self.inner.lock().changes()
    }

    /// What the file holds.
    pub(crate) fn state(&self) -> rusqlite::Result<Arc<ServerState>> {
        self.inner.lock().state()
    }

    /// Hands out everything that arrived so far.
    pub(crate) fn with_exchanges<T>(&self, look: impl FnOnce(&[Exchange]) -> T) -> T {
        look(&self.inner.lock().exchanges)
    }

    /// The same, and what took effect, in order.
    pub(crate) fn stored(&self) -> (ServerState, Vec<StoredEffect>) {
        let file = &self.inner.lock().file;
        let both = read_state(file).and_then(|state| Ok((state, read_effects(file)?)));
        both.expect("the server's file can be read")
    }

    /// Where a snapshot goes.
    pub(crate) fn snapshot_path(&self, number: u32) -> PathBuf {
        match &self.inner.lock().place {
            Place::Disk { backups, .. } => backups.process().path(&format!("snapshot-{number}.db")),
            Place::Folder(path) => path.with_extension(format!("snapshot-{number}")),
        }
    }

    /// Whether it was ever restored.
    pub(crate) fn went_back(&self) -> bool {
        self.inner.lock().restores > 0
    }

    /// The first difference from the OpenAPI document or the model.
    pub(crate) fn first_violation(&self) -> Option<String> {
        self.inner.lock().violations.first().cloned()
    }

    /// Takes at most so many operations in one push.
    pub(crate) fn limit_operations(&self, max_operations: u64) {
        self.set_limits(EndpointLimits { max_operations, ..EndpointLimits::default() });
    }

    /// Adds what happened here to the table.
    pub(crate) fn count(&self, coverage: &Coverage) {
        let inner = self.inner.lock();
        coverage.add("fault", "the server died", inner.deaths);
        for (rule, count) in inner.model.rules() {
            coverage.add("rule", *rule, *count);
        }
        for exchange in &inner.exchanges {
            for result in exchange.answer["results"].as_array().into_iter().flatten() {
                coverage.note("verdict", result["status"].as_str().unwrap_or_default());
            }
            let left_out = exchange.answer["applied"].as_u64().unwrap_or(0);
            coverage.add("verdict", "applied, left out", left_out);
            if let Some(code) = exchange.answer["code"].as_str() {
                coverage.note("problem", code);
            }
            coverage.note("request", if exchange.route == Route::Push { "push" } else { "pull" });
        }
    }
}

impl Inner {
    fn reopen(&mut self) {
        self.endpoint = self.place.open(&self.types, self.limits);
        self.file = self.place.look();
    }

    /// Raised by every write to the file, where that is known.
    fn changes(&self) -> u64 {
        match &self.place {
            // A file of its own each time it was restored: their counts do not go on from each other.
            Place::Disk { disk, name, .. } => disk.changes(name) + (self.restores << 40) + (self.deaths << 32),
            Place::Folder(_) => 0,
        }
    }

    /// What the file holds; read only if it was written to since.
    fn state(&mut self) -> rusqlite::Result<Arc<ServerState>> {
        let changes = self.changes();
        if let Some((_, state)) = self.read.as_ref().filter(|(seen, _)| *seen == changes && changes > 0) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(read_state(&self.file)?);
        self.read = Some((changes, Arc::clone(&state)));
        Ok(state)
    }

    fn has_died(&self) -> bool {
        matches!(&self.place, Place::Disk { process, .. } if process.is_dead())
    }

    /// The endpoint died while it answered `request`. It is started again, and has decided it or not.
    fn revive(&mut self, request: &Request, now: Timestamp) {
        self.deaths += 1;
        // Nobody else had the file open: its log is recovered as after any death, not taken on from memory.
        self.file = rusqlite::Connection::open_in_memory().expect("memory");
        let nothing = SqliteStore::open_in_memory().expect("memory");
        self.endpoint =
            Embedded::new(nothing, Types::new(self.types.clone()).expect("the types are valid"), self.limits);
        if let Place::Disk { disk, process, loses_power, .. } = &mut self.place {
            if std::mem::take(loses_power) {
                disk.lose_power();
            }
            *process = disk.process();
        }
        self.reopen();
        let stored = read_state(&self.file).expect("what was committed can be read");
        if self.model.compare(&stored).is_ok() {
            return;
        }
        self.model.unheard(request.route, &request.body, now, &stored);
        if let Err(difference) = self.model.compare(&stored) {
            let request = String::from_utf8_lossy(&request.body);
            self.violations.push(format!("durability: the endpoint died, and then {difference}\n  asked: {request}"));
        }
    }

    /// Notes the exchange. Gives the answer's body.
    fn record(&mut self, device: &str, request: &Request, answer: &Answer, token: &str) -> Value {
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
            token: token.to_owned(),
        });
        said
    }

    /// Asks the model about an exchange, and after a push whether it finds in the file what it holds. Once they differ, all
    /// that follows is of that: only the first difference is told.
    fn judge(&mut self, request: &Request, token: &str, now: Timestamp, status: u16, said: &Value) {
        let Some(claims) = self.tokens.get(token).filter(|_| self.violations.is_empty()).cloned() else { return };
        let token = Token { user_id: &claims.user_id, scopes: &claims.scopes };
        let judged = self.model.judge(request.route, &request.body, token, now, status, said).and_then(|()| {
            if request.route == Route::Pull {
                return Ok(());
            }
            let stored = self.state().map_err(|error| error.to_string())?;
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

fn name_of(path: &Path) -> OsString {
    path.file_name().expect("a file has a name").to_owned()
}

/// Opens a database where it is.
pub(crate) fn open_database(path: &Path, vfs: Option<&str>) -> rusqlite::Result<rusqlite::Connection> {
    match vfs {
        Some(vfs) => rusqlite::Connection::open_with_flags_and_vfs(path, rusqlite::OpenFlags::default(), vfs),
        None => rusqlite::Connection::open(path),
    }
}

/// A consistent copy, also while the file is in use.
pub(crate) fn copy_database(from: &Path, to: &Path, vfs: Option<&str>) {
    let connection = open_database(from, vfs).expect("the file opens");
    let target = to.to_str().expect("test paths are UTF-8");
    connection.execute("VACUUM INTO ?1", [target]).expect("the copy is written");
}
