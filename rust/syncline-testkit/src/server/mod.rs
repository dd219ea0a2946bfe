//! The endpoint in the same process, on a file of its own.

mod judged;
mod machine;

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
use syncline_server::{Answer, Claims, Embedded, Endpoint, EndpointLimits, SqliteStore};

use crate::disk::{Disk, Process};
use crate::model::{Limits, Model, ServerState, Types as ModelTypes};
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
    /// The last push that the disk kept from being answered: what it wrote may come back when the endpoint dies.
    refused: Option<(Vec<u8>, Timestamp)>,
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
            refused: None,
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
        self.inner.lock().tokens.insert(token.to_owned(), Claims::new(user_id.to_owned(), scopes));
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
        // Whoever puts it in place has seen to the disk.
        self.heal();
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
        let failures = inner.disk_failures();
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
        if answer.status >= 500 && inner.disk_failures() > failures {
            inner.refuse(request, now);
        } else {
            inner.judge(request, token, now, answer.status, &said);
        }
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
