use std::sync::Arc;
use std::time::Duration;

use syncline_core as core;
use syncline_core::environment::Environment;

use crate::SynclineError;
use crate::config::SyncConfig;
use crate::conflict::{ConflictEntry, Resolution};
use crate::contained::{Result, contained, contained_async};
use crate::credentials::Credentials;
use crate::entity::{ChangePage, Entity, EntityPage, ListQuery};
use crate::events::{Outbox, SyncListener};
use crate::explanation::Explanation;
use crate::metrics::QueueMetrics;
use crate::operation::{NewOperation, Operation, OperationAction, OperationFilter, Receipt, limit, signed};
use crate::transaction::SyncTransaction;

/// A database file, opened: write, read, sync. Usable from any thread.
///
/// Methods that are not `async` block until they are done: a write returns when it is durable, usually well under a millisecond, or a
/// disk flush. They never wait for the network. Nothing is sent before `start`, `process_queue` or `run_background`.
#[derive(uniffi::Object)]
pub struct SyncManager {
    core: core::SyncManager,
    outbox: Arc<Outbox>,
    credentials: Arc<Credentials>,
}

/// What the platform says about the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum NetworkStatus {
    /// There is none: nothing is sent.
    Offline,
    /// There is one.
    Online {
        /// Whether its traffic costs the user money.
        metered: bool,
    },
}

/// What delivery has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct SyncSummary {
    /// Operations that were decided on the server and took effect, merged ones included.
    pub completed: i64,
    /// Of these, operations that were merged with writes they had not seen.
    pub merged: i64,
    /// Operations that now wait for the app to resolve a conflict.
    pub conflicts: i64,
    /// Operations that failed.
    pub failed: i64,
    /// Withdrawn operations whose withdrawal the endpoint confirmed.
    pub cancelled: i64,
    /// Changes pulled.
    pub pulled: i64,
    /// Requests made.
    pub requests: i64,
}

/// What a window in the background came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct BackgroundRun {
    /// What was done.
    pub summary: SyncSummary,
    /// Whether everything that could be sent was, and everything pulled. If not, ask the platform for another window.
    pub finished: bool,
}

/// What becomes of operations that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum SignOutMode {
    /// They are sent first; what is left is kept.
    Flush {
        /// For so long at the most.
        timeout_ms: i64,
    },
    /// They stay, and are sent when the same user opens the file again.
    Keep,
    /// They are withdrawn, on the server too when the same user opens the file again.
    Discard,
}

/// What signing out left behind or, with [`SignOutMode::Discard`], withdrew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct SignOut {
    /// Operations that had not ended.
    pub unsent: i64,
    /// Those among them that may have reached the server all the same.
    pub unknown_outcome: i64,
}

#[uniffi::export]
impl SyncManager {
    /// Opens the file, making or migrating it if need be.
    ///
    /// # Errors
    /// `InvalidConfig`; `WrongUser` for a file of another user or scope; `Corrupt` (the file was set aside, open again to start
    /// afresh); `TooNew`; `StorageFull`; `Storage`.
    #[uniffi::constructor]
    pub fn open(config: SyncConfig, listener: Option<Arc<dyn SyncListener>>) -> Result<Arc<Self>> {
        contained(|| {
            let config = config.into_core()?;
            let credentials = Arc::new(Credentials::default());
            let environment = Environment::system(&config, Arc::clone(&credentials) as _)?;
            let outbox = Outbox::new(Arc::clone(&environment.runtime), listener);
            credentials.connect(Arc::clone(&outbox), Arc::clone(&environment.runtime), Arc::clone(&environment.clock));
            let core = core::SyncManager::open(config, environment)?;
            outbox.listen(&core)?;
            Ok::<_, SynclineError>(Arc::new(Self { core, outbox, credentials }))
        })
    }

    /// Makes operations durable, all or none, and gives their receipts. A key that was enqueued before gives that operation's receipt.
    ///
    /// # Errors
    /// `InvalidOperation` (nothing was written); `StorageFull`, `Storage`, `Closed`.
    pub fn enqueue(&self, operations: Vec<NewOperation>) -> Result<Vec<Receipt>> {
        contained(|| {
            let operations = operations.into_iter().map(NewOperation::into_core).collect::<Result<Vec<_>>>()?;
            let receipts = self.core.enqueue_all(operations)?;
            Ok::<_, SynclineError>(receipts.into_iter().map(Into::into).collect())
        })
    }

    /// Begins a transaction in memory.
    ///
    /// # Errors
    /// `Closed`.
    pub fn begin_transaction(&self) -> Result<Arc<SyncTransaction>> {
        contained(|| self.core.begin_transaction().map(SyncTransaction::new))
    }

    /// Cancels, retries or discards an operation; a member of a transaction with all of it.
    ///
    /// # Errors
    /// `NotPossible` in a state that does not allow it, or for an id that is unknown; `StorageFull`, `Storage`, `Closed`.
    pub fn act(&self, id: String, action: OperationAction) -> Result<()> {
        contained(|| match action {
            OperationAction::Cancel => self.core.cancel(&id),
            OperationAction::Retry => self.core.retry(&id),
            OperationAction::Discard => self.core.discard(&id),
        })
    }

    /// Decides a `manual` conflict.
    ///
    /// # Errors
    /// `NotPossible` for an operation that does not conflict; `InvalidOperation` for a value that is no object; `StorageFull`, `Storage`,
    /// `Closed`.
    pub fn resolve_conflict(&self, id: String, resolution: Resolution) -> Result<()> {
        contained(|| self.core.resolve_conflict(&id, resolution.into()))
    }

    /// Writes what lost in a ledger entry again, as an operation of now.
    ///
    /// # Errors
    /// `NotPossible` for an entry that is unknown, was reopened before, or in which nothing lost; `StorageFull`, `Storage`, `Closed`.
    pub fn reopen_conflict(&self, conflict_id: String) -> Result<Receipt> {
        contained(|| self.core.reopen_conflict(&conflict_id).map(Into::into))
    }

    /// An entity as this device sees it; none if it has never heard of it.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn get(&self, entity_type: String, entity_id: String) -> Result<Option<Entity>> {
        contained(|| self.core.get(&entity_type, &entity_id).map(|entity| entity.map(Into::into)))
    }

    /// Entities of a type, page by page.
    ///
    /// # Errors
    /// `InvalidOperation` for a path, cursor or limit that is no such thing; `Storage`, `Closed`.
    pub fn list(&self, query: ListQuery) -> Result<EntityPage> {
        contained(|| {
            let page = self.core.list(&query.into_core()?)?;
            Ok::<_, SynclineError>(page.into())
        })
    }

    /// What changed on this device after the cursor; 0 is the beginning.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit that is not 1 to 1,000; `Storage`, `Closed`.
    pub fn changes_since(&self, cursor: i64, limit: i32) -> Result<ChangePage> {
        contained(|| {
            let cursor =
                u64::try_from(cursor).map_err(|_| SynclineError::operation("cursor", "must not be negative"))?;
            let page = self.core.changes_since(cursor, crate::operation::limit(limit)?)?;
            Ok::<_, SynclineError>(page.into())
        })
    }

    /// Operations, in the order of the queue.
    ///
    /// # Errors
    /// `InvalidOperation` for half an entity or a limit that is not 1 to 1,000; `Storage`, `Closed`.
    pub fn operations(&self, filter: OperationFilter) -> Result<Vec<Operation>> {
        contained(|| {
            let operations = self.core.operations(&filter.into_core()?)?;
            Ok::<_, SynclineError>(operations.into_iter().map(Into::into).collect())
        })
    }

    /// One operation; none if it is unknown or was forgotten.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn operation(&self, id: String) -> Result<Option<Operation>> {
        contained(|| self.core.operation(&id).map(|operation| operation.map(Into::into)))
    }

    /// The device's ledger, the newest first; `undecided`: only what waits for the app.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit that is not 1 to 1,000; `Storage`, `Closed`.
    pub fn conflicts(&self, undecided: bool, limit: i32) -> Result<Vec<ConflictEntry>> {
        contained(|| {
            let entries = self.core.conflicts(undecided, self::limit(limit)?)?;
            Ok::<_, SynclineError>(entries.into_iter().map(Into::into).collect())
        })
    }

    /// Why an operation is not synced yet, or that it is.
    ///
    /// # Errors
    /// `NotPossible` for an id that is unknown or was forgotten; `Storage`, `Closed`.
    pub fn explain(&self, id: String) -> Result<Explanation> {
        contained(|| self.core.explain(&id).map(Into::into))
    }

    /// How the queue stands: constant time, and right with two processes on one file (but for `state`, which is this one's).
    ///
    /// # Errors
    /// `Closed`, `Storage`.
    pub fn metrics(&self) -> Result<QueueMetrics> {
        contained(|| self.core.metrics().map(Into::into))
    }

    /// Keeps the queue drained until `stop`. Does nothing if it was started already.
    ///
    /// # Errors
    /// `Closed`.
    pub fn start(&self) -> Result<()> {
        contained(|| self.core.start())
    }

    /// Stops draining. Requests under way are given up; their operations are pending again.
    ///
    /// # Errors
    /// `Closed`.
    pub fn stop(&self) -> Result<()> {
        contained(|| self.core.stop())
    }

    /// What the platform says about the network. A network is a reason to try at once.
    ///
    /// # Errors
    /// `Closed`.
    pub fn network_changed(&self, status: NetworkStatus) -> Result<()> {
        contained(|| {
            self.core.network_changed(match status {
                NetworkStatus::Offline => core::NetworkStatus::Offline,
                NetworkStatus::Online { metered } => core::NetworkStatus::Online { metered },
            })
        })
    }

    /// The answer to `CredentialNeeded`: a token, or none when the user must sign in first. It is kept in memory until
    /// `expires_at_ms`, or until the endpoint refuses it. With `request_id` 0: of the library's own accord.
    ///
    /// # Errors
    /// `NotPossible` for a request that was never made.
    pub fn provide_credential(&self, request_id: i64, token: Option<String>, expires_at_ms: Option<i64>) -> Result<()> {
        contained(|| match self.credentials.provide(request_id, token, expires_at_ms) {
            true => Ok(()),
            false => Err(SynclineError::NotPossible { text: format!("no credential was asked for as {request_id}") }),
        })
    }

    /// Sends until nothing more can be sent now, and pulls all there is. Asks for a credential again.
    ///
    /// # Errors
    /// `Locked` while another process drains the file; `Closed`; `StorageFull`, `Storage`. Being offline is not an error.
    pub async fn process_queue(&self) -> Result<SyncSummary> {
        contained_async(async { self.core.process_queue().await.map(Into::into) }).await
    }

    /// As `process_queue`, within a window that the platform grants: returns before the time is over, with everything safe.
    ///
    /// # Errors
    /// As `process_queue`; `InvalidOperation` for a negative time.
    pub async fn run_background(&self, deadline_ms: i64) -> Result<BackgroundRun> {
        contained_async(async {
            let run = self.core.run_background(wait("deadline_ms", deadline_ms)?).await?;
            Ok::<_, SynclineError>(BackgroundRun { summary: run.summary.into(), finished: run.finished })
        })
        .await
    }

    /// Waits until an operation is completed, cancelled, failed or conflicted, and gives it as it stands then. Sends nothing by itself.
    ///
    /// # Errors
    /// `Timeout`; `NotPossible` for an id that is unknown or was forgotten; `Closed`, `Storage`.
    pub async fn wait_for(&self, id: String, timeout_ms: i64) -> Result<Operation> {
        contained_async(async {
            let operation = self.core.wait_for(&id, wait("timeout_ms", timeout_ms)?).await?;
            Ok::<_, SynclineError>(operation.into())
        })
        .await
    }

    /// What signing out would leave behind now: what to ask the user about.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn unsent(&self) -> Result<SignOut> {
        contained(|| self.core.unsent().map(Into::into))
    }

    /// Ends delivery, does with what has not ended as `mode` says, and closes the manager. The file stays.
    ///
    /// # Errors
    /// `StorageFull`, `Storage` (the manager stays open then), `Closed`. That flushing fails is no error.
    pub async fn sign_out(&self, mode: SignOutMode) -> Result<SignOut> {
        contained_async(async {
            let left = self
                .core
                .sign_out(match mode {
                    SignOutMode::Flush { timeout_ms } => core::SignOutMode::Flush(wait("timeout_ms", timeout_ms)?),
                    SignOutMode::Keep => core::SignOutMode::Keep,
                    SignOutMode::Discard => core::SignOutMode::Discard,
                })
                .await?;
            self.outbox.close();
            Ok::<_, SynclineError>(left.into())
        })
        .await
    }

    /// Ends everything: requests under way are given up and their operations pending again, the file closed, and the listener is not
    /// called after what was due. Closing again does nothing.
    ///
    /// # Errors
    /// `Internal`.
    pub fn close(&self) -> Result<()> {
        contained(|| {
            self.core.close();
            self.outbox.close();
            Ok::<_, SynclineError>(())
        })
    }
}

fn wait(field: &str, millis: i64) -> Result<Duration> {
    let millis = u64::try_from(millis).map_err(|_| SynclineError::operation(field, "must not be negative"))?;
    Ok(Duration::from_millis(millis))
}

impl From<core::SyncSummary> for SyncSummary {
    fn from(summary: core::SyncSummary) -> Self {
        Self {
            completed: signed(summary.completed),
            merged: signed(summary.merged),
            conflicts: signed(summary.conflicts),
            failed: signed(summary.failed),
            cancelled: signed(summary.cancelled),
            pulled: signed(summary.pulled),
            requests: signed(summary.requests),
        }
    }
}

impl From<core::SignOut> for SignOut {
    fn from(left: core::SignOut) -> Self {
        Self { unsent: signed(left.unsent), unknown_outcome: signed(left.unknown_outcome) }
    }
}
