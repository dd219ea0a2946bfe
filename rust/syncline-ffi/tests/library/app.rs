//! An endpoint, and an app that listens.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use syncline_ffi::{
    CallbackError, CredentialReason, Endpoint, EntityType, NewOperation, OperationKind, SyncConfig, SyncEvent,
    SyncListener, SyncManager,
};
use syncline_protocol::Timestamp;
use syncline_server::auth::{AuthConfig, Keys, Secret, mint};
use syncline_server::{Config, LimitsConfig, StoreConfig, serve};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const SECRET: &str = "a secret of at least thirty-two bytes";
const SCOPE: &str = "team";

/// The server, on a socket and a file of its own.
pub(crate) struct Served {
    pub(crate) url: String,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            store: StoreConfig { path: folder.path().join("server.db"), vfs: None, restored: false },
            auth: AuthConfig {
                keys: Keys::Hs256 { secret: Secret::new(SECRET) },
                audience: vec!["syncline".into()],
                issuer: None,
                scope_claim: "scope".into(),
            },
            types: Default::default(),
            limits: LimitsConfig::default(),
        };
        let runtime = Runtime::new().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(listener, config, async { drop(stopped.await) }).await.unwrap();
        });
        Self { url, runtime: Some(runtime), stop: Some(stop), _folder: folder }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Waits for a future on this thread, as the executors of Kotlin and Swift do: there is no tokio around.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = std::pin::pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Good for `seconds` from now; less than nothing: expired.
pub(crate) fn token(user: &str, seconds: i64) -> String {
    mint(&Secret::new(SECRET), user, &[SCOPE], "syncline", Timestamp::from_millis(now_ms() + seconds * 1_000))
}

/// Keeps all events, and answers for credentials out of what it was given.
#[derive(Default)]
pub(crate) struct Listener {
    events: Mutex<Vec<SyncEvent>>,
    pub(crate) calls: AtomicUsize,
    pub(crate) largest_call: AtomicUsize,
    /// The answers, in turn; the last one for good. Without any, it never answers.
    pub(crate) tokens: Mutex<Vec<Option<String>>>,
    pub(crate) manager: OnceLock<Weak<SyncManager>>,
    throws: bool,
}

impl Listener {
    pub(crate) fn with_tokens(tokens: impl IntoIterator<Item = Option<String>>) -> Arc<Self> {
        Arc::new(Self { tokens: Mutex::new(tokens.into_iter().collect()), ..Self::default() })
    }

    pub(crate) fn throwing() -> Arc<Self> {
        Arc::new(Self { throws: true, ..Self::default() })
    }

    pub(crate) fn good(user: &str) -> Arc<Self> {
        Self::with_tokens([Some(token(user, 600))])
    }

    pub(crate) fn events(&self) -> Vec<SyncEvent> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> Vec<CredentialReason> {
        let reason = |event| match event {
            SyncEvent::CredentialNeeded { reason, .. } => Some(reason),
            _ => None,
        };
        self.events().into_iter().filter_map(reason).collect()
    }

    /// Waits until the events are as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&[SyncEvent]) -> bool) -> Vec<SyncEvent> {
        let begun = Instant::now();
        loop {
            let events = self.events();
            if wanted(&events) {
                return events;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never came: {what}; there are {events:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl SyncListener for Listener {
    fn on_events(&self, events: Vec<SyncEvent>) -> Result<(), CallbackError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.largest_call.fetch_max(events.len(), Ordering::Relaxed);
        for event in &events {
            if let SyncEvent::CredentialNeeded { request_id, .. } = event {
                let mut tokens = self.tokens.lock().unwrap();
                let token = if tokens.len() > 1 { Some(tokens.remove(0)) } else { tokens.first().cloned() };
                let manager = self.manager.get().and_then(Weak::upgrade);
                if let (Some(token), Some(manager)) = (token, manager) {
                    manager.provide_credential(*request_id, token, None).unwrap();
                }
            }
        }
        self.events.lock().unwrap().extend(events);
        if self.throws { Err(CallbackError::Threw { reason: "on purpose".into() }) } else { Ok(()) }
    }
}

pub(crate) fn config(folder: &Path, name: &str, url: &str, user: &str) -> SyncConfig {
    let manual = EntityType {
        conflicts: Some(syncline_ffi::ConflictRule::Manual),
        deletes: None,
        max_attempts: 3,
        coalesce: true,
        send_before: true,
        indexed_paths: vec!["$.title".into()],
    };
    SyncConfig {
        database: folder.join(format!("{name}.db")).to_string_lossy().into_owned(),
        endpoint: Endpoint::Syncline { url: url.into() },
        user_id: user.into(),
        scope: SCOPE.into(),
        entity_types: [("form".to_owned(), manual)].into(),
        pull_types: None,
        durability: None,
        retention_age_ms: 900_000,
        retention_count: 100,
        timeout_ms: 30_000,
        max_in_flight: 3,
        allow_cleartext: false,
        extra_roots_pem: Vec::new(),
        pull_interval_ms: 60_000,
    }
}

pub(crate) fn open(config: SyncConfig, listener: &Arc<Listener>) -> Arc<SyncManager> {
    let manager = SyncManager::open(config, Some(Arc::clone(listener) as _)).unwrap();
    listener.manager.set(Arc::downgrade(&manager)).unwrap();
    manager
}

pub(crate) fn operation(kind: OperationKind, entity_type: &str, entity_id: &str, payload: &str) -> NewOperation {
    NewOperation {
        kind,
        entity_type: entity_type.into(),
        entity_id: entity_id.into(),
        payload: (kind != OperationKind::Delete).then(|| payload.to_owned()),
        idempotency_key: None,
        depends_on: Vec::new(),
        max_attempts: None,
    }
}

pub(crate) fn create(entity_type: &str, entity_id: &str, payload: &str) -> NewOperation {
    operation(OperationKind::Create, entity_type, entity_id, payload)
}

pub(crate) fn update(entity_type: &str, entity_id: &str, payload: &str) -> NewOperation {
    operation(OperationKind::Update, entity_type, entity_id, payload)
}
