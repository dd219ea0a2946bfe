//! What the manager is given at open, for a check of schedules: threads and tasks are shuttle's, files are in memory, time stands
//! still, and the endpoint applies everything once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex as Log;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::{Value, json};
use shuttle::sync::mpsc;
use syncline_protocol::Timestamp;
use syncline_testkit::disk::{Disk, Process};

use super::super::SyncManager;
use super::super::primitives::{Arc, Ordering};
use crate::config::{Config, Durability, EntityType, Retention};
use crate::environment::{Clock, Environment, LockGuard, ProcessLock, Random, Runtime, Task};
use crate::error::Result;
use crate::operation::NewOperation;
use crate::store::{Prepared, Store, StoreOptions};
use crate::transport::{
    BoxFuture, CredentialProvider, CredentialReason, Dialect, Request, Response, Route, Token, Transport,
    TransportError,
};

pub(super) fn now() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000)
}

pub(super) fn new_pin(id: &str) -> NewOperation {
    NewOperation::create("pin", id, "{}")
}

pub(super) fn pin(id: &str, key: Option<&str>) -> Prepared {
    let operation = match key {
        Some(key) => new_pin(id).with_key(key),
        None => new_pin(id),
    };
    Prepared::new(operation, format!("op-{id}"), &EntityType::default()).unwrap()
}

/// A disk with one process. Every manager on it shares the files, the lock and the endpoint.
#[derive(Clone)]
pub(super) struct Machine {
    disk: Disk,
    process: Process,
    pub(super) lock: Lock,
    pub(super) endpoint: Endpoint,
}

impl Machine {
    pub(super) fn new() -> Self {
        let disk = Disk::new(1);
        Self { process: disk.process(), disk, lock: Lock::default(), endpoint: Endpoint::default() }
    }

    /// Another machine with a copy of one file.
    pub(super) fn with_copy_of(other: &Self, name: &str) -> Self {
        let machine = Self::new();
        other.disk.copy_to(name, &machine.disk, name);
        machine
    }

    pub(super) fn open(&self, name: &str) -> Store {
        let options = StoreOptions {
            path: self.process.path(name),
            vfs: Some(Disk::VFS.to_owned()),
            user_id: "user-1".to_owned(),
            scope: "team-1".to_owned(),
            entity_types: BTreeMap::new(),
            pull_types: None,
            durability: Durability::Normal,
            retention: Retention::default(),
        };
        Store::open(options, "device-1", now()).unwrap()
    }

    /// A process of its own that opens the file.
    pub(super) fn manager(&self, name: &str) -> SyncManager {
        let mut config = Config::new(self.disk.process().path(name), "https://sync.example.com", "user-1", "team-1");
        config.durability = Durability::Normal;
        let environment = Environment {
            clock: Arc::new(Still),
            random: Arc::new(Counter::default()),
            runtime: Arc::new(Threads::new()),
            transport: Arc::new(self.endpoint.clone()),
            credentials: Arc::new(SignedIn),
            lock: Arc::new(self.lock.clone()),
            vfs: Some(Disk::VFS.to_owned()),
        };
        SyncManager::open(config, environment).unwrap()
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        now()
    }
}

struct Counter(u64);

impl Default for Counter {
    /// Each manager draws other ids than the one before.
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Random for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = drawn[7 - index % 8] ^ self.0 as u8;
        }
    }
}

struct SignedIn;

impl CredentialProvider for SignedIn {
    fn token(&self, _reason: CredentialReason) -> BoxFuture<'_, std::result::Result<Option<Token>, String>> {
        Box::pin(async { Ok(Some(Token("token".to_owned()))) })
    }
}

/// Tasks and one callback thread. No sleep ever ends: whoever is not woken sleeps for ever, and shuttle says so.
pub(super) struct Threads {
    callbacks: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Threads {
    pub(super) fn new() -> Self {
        let (callbacks, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        shuttle::thread::spawn(move || {
            while let Ok(job) = jobs.recv() {
                job();
            }
        });
        Self { callbacks }
    }
}

impl Runtime for Threads {
    fn spawn(&self, task: Task) {
        drop(shuttle::future::spawn(task));
    }

    fn sleep(&self, _wait: Duration) -> Task {
        Box::pin(std::future::pending())
    }

    fn dispatch(&self, job: Box<dyn FnOnce() + Send>) {
        let _ = self.callbacks.send(job);
    }
}

/// A process lock in memory.
#[derive(Clone, Default)]
pub(super) struct Lock {
    held: Arc<Log<bool>>,
}

struct Held(Lock);

impl LockGuard for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        assert!(std::mem::replace(&mut *self.0.held.lock().unwrap(), false), "held by one at a time");
    }
}

impl ProcessLock for Lock {
    fn try_acquire(&self) -> Result<Option<Box<dyn LockGuard>>> {
        let before = std::mem::replace(&mut *self.held.lock().unwrap(), true);
        Ok((!before).then(|| Box::new(Held(self.clone())) as _))
    }
}

impl Lock {
    pub(super) fn is_held(&self) -> bool {
        *self.held.lock().unwrap()
    }
}

/// Applies every key once, answers when it likes, and watches what is under way.
#[derive(Clone, Default)]
pub(super) struct Endpoint {
    state: Arc<Log<Served>>,
}

#[derive(Default)]
struct Served {
    /// The keys in requests whose sender still waits for the answer.
    under_way: BTreeSet<String>,
    applied: BTreeSet<String>,
    pushes: u64,
    /// Answers to pushes wait until told.
    held: bool,
    /// Operations that came while another request with them was under way.
    twice: Vec<String>,
}

impl Endpoint {
    /// How many operations took effect.
    pub(super) fn applied(&self) -> usize {
        self.state.lock().unwrap().applied.len()
    }

    /// Operations that were under way in two requests at once.
    pub(super) fn claimed_twice(&self) -> Vec<String> {
        self.state.lock().unwrap().twice.clone()
    }

    /// While it holds, pushes take effect and are not answered.
    pub(super) fn hold(&self, held: bool) {
        self.state.lock().unwrap().held = held;
    }

    fn is_held(&self) -> bool {
        self.state.lock().unwrap().held
    }

    /// Whether a push waits for its answer.
    pub(super) fn is_pushing(&self) -> bool {
        !self.state.lock().unwrap().under_way.is_empty()
    }

    fn push(&self, operations: &[Value]) -> Value {
        let mut state = self.state.lock().unwrap();
        state.pushes += 1;
        let results: Vec<Value> = operations
            .iter()
            .filter_map(|operation| {
                let fresh = state.applied.insert(key(operation));
                (!fresh).then(
                    || json!({"id": operation["id"], "status": "already_processed", "first": "applied", "version": 1}),
                )
            })
            .collect();
        json!({"applied": operations.len() - results.len(), "results": results, "version": state.applied.len(),
            "cursor": format!("c{}", state.applied.len()), "epoch": "e1", "mark": state.pushes,
            "server_time": "2026-01-01T00:00:00.000Z"})
    }
}

impl Transport for Endpoint {
    fn send(&self, request: Request, _token: Token) -> BoxFuture<'_, std::result::Result<Response, TransportError>> {
        let body: Value = serde_json::from_slice(&request.body).expect("the core sends JSON");
        Box::pin(async move {
            let operations = body["operations"].as_array().cloned().unwrap_or_default();
            let _under_way = UnderWay::begin(self, operations.iter().map(key).collect());
            shuttle::future::yield_now().await;
            let answer = match request.route {
                Route::Push => self.push(&operations),
                Route::Pull => json!({"changes": [], "cursor": "c0", "epoch": "e1", "has_more": false}),
            };
            shuttle::future::yield_now().await;
            while request.route == Route::Push && self.is_held() {
                shuttle::future::yield_now().await;
            }
            Ok(Response {
                status: 200,
                protocol: Some("1".to_owned()),
                retry_after: None,
                body: answer.to_string().into_bytes(),
                dialect: Dialect::Syncline,
            })
        })
    }
}

fn key(operation: &Value) -> String {
    operation["idempotency_key"].as_str().expect("every operation has one").to_owned()
}

/// A request, until its future is dropped.
struct UnderWay {
    endpoint: Endpoint,
    keys: Vec<String>,
}

impl UnderWay {
    fn begin(endpoint: &Endpoint, keys: Vec<String>) -> Self {
        let mut state = endpoint.state.lock().unwrap();
        for key in &keys {
            if !state.under_way.insert(key.clone()) {
                state.twice.push(key.clone());
            }
        }
        drop(state);
        Self { endpoint: endpoint.clone(), keys }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.endpoint.state.lock().unwrap();
        for key in &self.keys {
            state.under_way.remove(key);
        }
    }
}
