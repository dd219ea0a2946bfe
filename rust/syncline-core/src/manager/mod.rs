//! The shell around `store` and `sync`: threads, waiting, callbacks, and the front door.
//!
//! # What it is
//! [`SyncManager`] is a handle; all handles of one file share one `Shared`. In it lie the device (store and driver, behind one
//! mutex), the writers' line (`writer`), connections that read (`readers`), and the listeners. `drive` decides who drains and
//! when; `deliver` is one request; `wait` waits for verdicts.
//!
//! # What it promises
//! - A data method that returned `Ok` is durable. It runs on the caller's thread, or is done together with others by the one
//!   in front of the line, with one commit for all.
//! - No lock is held across an await or while foreign code runs, so listeners, providers and transports may call anything.
//! - Every change of an operation's state is told once, in the order of the commits, by one callback thread.
//! - An async method's work is done on the runtime's threads, never on those of whoever awaits it. Dropping its future stops
//!   the waiting, never a delivery.
//! - `run_background` ends in time, `close` at once; what was in flight is then pending again.
//!
//! # What it does not
//! It takes no time, randomness, task or socket but from the [`Environment`], and decides nothing about what is sent.
//!
//! # How it recovers
//! It keeps nothing that is not in the file. A process that dies, or a last handle that is dropped without `close`, leaves
//! leases behind; whoever drains the file next returns them to pending.

mod checkpoint;
mod data;
mod deliver;
mod drive;
mod listeners;
mod primitives;
mod readers;
#[cfg(all(test, feature = "shuttle"))]
mod schedules;
mod shared;
mod sign_out;
mod tasks;
mod transaction;
mod wait;
mod writer;

use std::time::Duration;

use syncline_protocol::Timestamp;

pub use listeners::ListenerId;
pub use sign_out::{SignOut, SignOutMode};
pub use transaction::{CommitOutcome, SyncTransaction};

use crate::config::{Config, Network};
use crate::environment::Environment;
use crate::error::{Result, SynclineError};
use crate::event::{EntityChange, Notice, OperationEvent};
use crate::metrics::{QueueMetrics, SyncState};
use crate::operation::Operation;
use crate::store::{Store, StoreOptions};
use crate::sync::{Driver, DriverSettings, NetworkStatus, SyncSummary};
use crate::transport::CredentialProvider;
use listeners::Listener;
use primitives::Arc;
use shared::{Device, Shared};

/// A database file, opened: write, read, sync. Cheap to clone; all clones are one manager, usable from any thread.
///
/// Methods that are not `async` block until they are done: a write returns when it is durable (see
/// [`Durability`](crate::Durability)), usually well under a millisecond, or a disk flush. They never wait for the network.
///
/// Nothing is sent before [`start`](Self::start), [`process_queue`](Self::process_queue) or
/// [`run_background`](Self::run_background).
///
/// ```no_run
/// use std::sync::Arc;
/// use syncline_core::transport::{BoxFuture, CredentialProvider, CredentialReason, Token};
/// use syncline_core::{Config, ListQuery, NewOperation, SyncManager};
///
/// struct Session;
///
/// impl CredentialProvider for Session {
///     fn token(&self, _reason: CredentialReason) -> BoxFuture<'_, Result<Option<Token>, String>> {
///         Box::pin(async { Ok(Some(Token("from the app's sign-in".into()))) })
///     }
/// }
///
/// # async fn example() -> syncline_core::Result<()> {
/// let config = Config::new("team-1.db", "https://sync.example.com", "user-1", "team-1");
/// let sync = SyncManager::open_system(config, Arc::new(Session))?;
///
/// // Durable now, in `list` now, sent when there is a network.
/// let receipt = sync.enqueue(NewOperation::create("pin", "b1f0", r#"{"title":"Leaking valve"}"#))?;
///
/// // All or none, here and on the server.
/// let mut transaction = sync.begin_transaction()?;
/// transaction.create("form", "f-1", r#"{"pin":"b1f0"}"#)?.update("pin", "b1f0", r#"{"title":"Inspected"}"#)?;
/// transaction.commit_queued()?;
///
/// let summary = sync.process_queue().await?;
/// println!("{} delivered; {}", summary.completed, sync.explain(&receipt.id)?.text);
/// for pin in sync.list(&ListQuery::new("pin"))?.entities {
///     println!("{} is {}", pin.entity_id, pin.sync_status.as_str());
/// }
/// sync.close();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SyncManager {
    handle: Arc<Handle>,
}

/// The last one to go ends the tasks, which share the rest.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(false);
    }
}

/// What [`SyncManager::run_background`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackgroundRun {
    /// What was done.
    pub summary: SyncSummary,
    /// Whether everything that could be sent was, and everything pulled. If not, ask the platform for another window.
    pub finished: bool,
}

impl SyncManager {
    /// Opens the file, making or migrating it if need be, with an environment of the caller's choice.
    ///
    /// # Errors
    /// `InvalidConfig`; `WrongUser` for a file of another user or scope; `Corrupt` (the file was set aside, open again to
    /// start afresh); `TooNew`; `StorageFull`; `Storage`.
    pub fn open(config: Config, environment: Environment) -> Result<Self> {
        check_network(&config.network)?;
        let options = StoreOptions {
            path: config.database,
            vfs: environment.vfs.clone(),
            user_id: config.user_id,
            scope: config.scope,
            entity_types: config.entity_types,
            pull_types: config.pull_types,
            durability: config.durability,
            retention: config.retention,
        };
        let now = environment.clock.now();
        let store = Store::open(options.clone(), &new_id(&environment), now)?;
        let driver = Driver::new(DriverSettings {
            max_in_flight: config.network.max_in_flight,
            pull_interval: config.network.pull_interval,
        });
        let shared = Shared::new(environment, options, config.network.timeout, Device::new(store, driver));
        Ok(Self { handle: Arc::new(Handle { shared: Arc::new(shared) }) })
    }

    /// Opens the file with the system's clock, randomness, threads and network ([`Environment::system`]).
    ///
    /// # Errors
    /// As [`SyncManager::open`]; also `InvalidConfig` for an endpoint that is not `https://`.
    pub fn open_system(config: Config, credentials: std::sync::Arc<dyn CredentialProvider>) -> Result<Self> {
        let environment = Environment::system(&config, credentials)?;
        Self::open(config, environment)
    }

    /// Begins a transaction in memory.
    ///
    /// # Errors
    /// `Closed`.
    pub fn begin_transaction(&self) -> Result<SyncTransaction> {
        self.handle.shared.locked(|_| ())?;
        Ok(SyncTransaction::new(self.clone()))
    }

    /// Keeps the queue drained in the background, until [`stop`](Self::stop). Where another process drains the file, this one
    /// takes over when that one ends. Does nothing if it was started already.
    ///
    /// # Errors
    /// `Closed`.
    pub fn start(&self) -> Result<()> {
        self.handle.shared.start()
    }

    /// Stops draining in the background. Requests under way are given up; their operations are pending again.
    ///
    /// # Errors
    /// `Closed`.
    pub fn stop(&self) -> Result<()> {
        self.handle.shared.stop()
    }

    /// Sends until nothing more can be sent now, and pulls all there is. Skips the connection's backoff, but not the endpoint's
    /// `Retry-After`; asks for a credential again. Does not wait for what waits for time, the network or the user.
    ///
    /// # Errors
    /// `Locked` while another process drains the file; `Closed`; `StorageFull`, `Storage`. Being offline is not an error.
    pub async fn process_queue(&self) -> Result<SyncSummary> {
        let shared = Arc::clone(&self.handle.shared);
        self.on_runtime(async move { shared.drain().await }).await
    }

    /// As [`process_queue`](Self::process_queue), within a window that the platform grants: returns before `deadline` is over.
    /// Requests still under way are given up then, with everything safe.
    ///
    /// # Errors
    /// As [`process_queue`](Self::process_queue).
    pub async fn run_background(&self, deadline: Duration) -> Result<BackgroundRun> {
        let shared = Arc::clone(&self.handle.shared);
        let drained = self.on_runtime(async move { shared.drain_until(deadline).await }).await?;
        Ok(BackgroundRun { summary: drained.0, finished: drained.1 })
    }

    /// Waits until an operation is completed, cancelled, failed or conflicted, and gives it as it stands then. One that was
    /// folded into another leads to that one. Sends nothing by itself.
    ///
    /// # Errors
    /// `Timeout`; `NotPossible` for an id that is unknown or was pruned; `Closed`; `Storage`.
    pub async fn wait_for(&self, id: &str, timeout: Duration) -> Result<Operation> {
        let (shared, id) = (Arc::clone(&self.handle.shared), id.to_owned());
        self.on_runtime(async move { shared.wait_for(&id, timeout).await }).await
    }

    /// What the platform says about the network. Offline, nothing is sent; a network is a reason to try at once.
    ///
    /// # Errors
    /// `Closed`.
    pub fn network_changed(&self, status: NetworkStatus) -> Result<()> {
        let shared = &self.handle.shared;
        shared.locked(|device| device.driver.network_changed(status))?;
        shared.progress.send_modify(|count| *count += 1);
        shared.wake.notify_one();
        Ok(())
    }

    /// How the queue stands: constant time, and right with two processes on one file (but for `state`, which is this one's).
    ///
    /// # Errors
    /// `Closed`; `Storage`.
    pub fn metrics(&self) -> Result<QueueMetrics> {
        self.handle.shared.metrics()
    }

    /// What delivery is doing. Never blocks.
    pub fn state(&self) -> SyncState {
        self.handle.shared.standing().state
    }

    /// Ends everything: requests under way are given up and their operations pending again, the process lock is free, the file
    /// closed, and no listener is called after those that were due. Later calls give `Closed`. Closing again does nothing.
    ///
    /// Dropping the last handle without this leaves the file as the death of the process would: safe, but untidy.
    pub fn close(&self) {
        self.handle.shared.close(true);
    }

    /// Hears every change of an operation's state, once and in order. Listeners run one at a time on a thread of their own; they
    /// may call any method, removing themselves and closing included. One that panics stays registered.
    ///
    /// # Errors
    /// `Closed`.
    pub fn add_operation_listener(
        &self,
        listener: impl Fn(OperationEvent) + Send + Sync + 'static,
    ) -> Result<ListenerId> {
        self.listen(Listener::Operations(Arc::new(listener)))
    }

    /// Hears which entities changed on this device, by local writes, pulls and verdicts.
    ///
    /// # Errors
    /// `Closed`.
    pub fn add_entity_listener(&self, listener: impl Fn(EntityChange) + Send + Sync + 'static) -> Result<ListenerId> {
        self.listen(Listener::Entities(Arc::new(listener)))
    }

    /// Hears the metrics after changes. Many changes in a row may give one call, with the newest figures.
    ///
    /// # Errors
    /// `Closed`.
    pub fn add_metrics_listener(&self, listener: impl Fn(QueueMetrics) + Send + Sync + 'static) -> Result<ListenerId> {
        self.listen(Listener::Metrics(Arc::new(listener)))
    }

    /// Hears that the endpoint wants another credential, and why, as a word. Nothing is lost meanwhile; the provider is asked
    /// again by and by, and on [`process_queue`](Self::process_queue).
    ///
    /// # Errors
    /// `Closed`.
    pub fn add_auth_listener(&self, listener: impl Fn(String) + Send + Sync + 'static) -> Result<ListenerId> {
        self.listen(Listener::Auth(Arc::new(listener)))
    }

    /// Hears what happens to the file as a whole: a new device id, a server that went back in time.
    ///
    /// # Errors
    /// `Closed`.
    pub fn add_notice_listener(&self, listener: impl Fn(Notice) + Send + Sync + 'static) -> Result<ListenerId> {
        self.listen(Listener::Notices(Arc::new(listener)))
    }

    /// Removes a listener. A call of it that is under way ends; no new one begins.
    pub fn remove_listener(&self, id: ListenerId) {
        self.handle.shared.listeners.remove(id);
    }

    fn listen(&self, listener: Listener) -> Result<ListenerId> {
        self.handle.shared.listeners.add(listener).ok_or(SynclineError::Closed)
    }

    async fn on_runtime<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        tasks::on_runtime(&*self.handle.shared.environment.runtime, future).await
    }

    fn now(&self) -> Timestamp {
        self.handle.shared.environment.clock.now()
    }

    fn new_id(&self) -> String {
        new_id(&self.handle.shared.environment)
    }
}

/// A time-ordered id (uuid v7): random ones would scatter the index over the whole file.
fn new_id(environment: &Environment) -> String {
    let mut random = [0; 10];
    environment.random.fill(&mut random);
    let millis = u64::try_from(environment.clock.now().millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
}

fn check_network(network: &Network) -> Result<()> {
    let invalid = |field: &str, detail: &str| {
        Err(SynclineError::InvalidConfig { field: format!("network.{field}"), detail: detail.to_owned() })
    };
    if !(1..=8).contains(&network.max_in_flight) {
        return invalid("max_in_flight", "must be 1 to 8");
    }
    if network.timeout.is_zero() {
        return invalid("timeout", "must be above zero");
    }
    Ok(())
}
