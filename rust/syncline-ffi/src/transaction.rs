use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use syncline_core as core;

use crate::SynclineError;
use crate::contained::{Result, contained, contained_async};
use crate::operation::{NewOperation, Receipt};

/// Operations that are applied all or none, here and on the server. They wait in memory; nothing is written before a commit, and letting
/// go of the transaction is a rollback.
///
/// A member takes what this device sees of its entity when it is *added*: what is pulled between adding and committing counts as
/// not seen, and meets the conflict rules. At most 100 operations and 1 MiB.
#[derive(uniffi::Object)]
pub struct SyncTransaction {
    /// None once it has ended.
    core: Mutex<Option<core::SyncTransaction>>,
}

/// What committing now came to.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum CommitOutcome {
    /// All members took effect on the server.
    Applied {
        /// The members, in the order they were added.
        receipts: Vec<Receipt>,
    },
    /// The server applied none. The group is kept as failed: retry or discard any member to act on all.
    Failed {
        /// The members.
        receipts: Vec<Receipt>,
        /// The operation at fault.
        culprit: String,
        /// Why, as a word.
        reason: String,
        /// The same in a sentence.
        text: Option<String>,
    },
    /// No verdict in time. The group is durable and stays queued.
    Pending {
        /// The members.
        receipts: Vec<Receipt>,
    },
}

impl SyncTransaction {
    pub(crate) fn new(core: core::SyncTransaction) -> Arc<Self> {
        Arc::new(Self { core: Mutex::new(Some(core)) })
    }

    fn end(&self) -> Result<core::SyncTransaction> {
        self.core.lock().take().ok_or_else(ended)
    }
}

fn ended() -> SynclineError {
    SynclineError::Closed { text: "the transaction has ended".to_owned() }
}

#[uniffi::export]
impl SyncTransaction {
    /// Adds a member, in memory.
    ///
    /// # Errors
    /// `InvalidOperation` (the transaction stays as it was); `Storage`; `Closed` once it has ended.
    pub fn add(&self, operation: NewOperation) -> Result<()> {
        contained(|| {
            let operation = operation.into_core()?;
            let mut core = self.core.lock();
            core.as_mut().ok_or_else(ended)?.add(operation)?;
            Ok::<_, SynclineError>(())
        })
    }

    /// Makes the group durable on this device and returns; it is sent like any operation. Blocks until it is written.
    ///
    /// # Errors
    /// `InvalidOperation` for an empty group, one over the limits, or one that repeats a key; `StorageFull`, `Storage`, `Closed`.
    /// Nothing was written then, and the transaction has ended.
    pub fn commit_queued(&self) -> Result<Vec<Receipt>> {
        contained(|| {
            let receipts = self.end()?.commit_queued()?;
            Ok::<_, SynclineError>(receipts.into_iter().map(Into::into).collect())
        })
    }

    /// As `commit_queued`, then sends what can be sent and waits for the verdict. Whatever the outcome, the group is durable on this
    /// device once this returns.
    ///
    /// # Errors
    /// As `commit_queued`; after it was queued only `Storage` and `Closed`.
    pub async fn commit_now(&self, timeout_ms: i64) -> Result<CommitOutcome> {
        contained_async(async {
            let timeout = u64::try_from(timeout_ms)
                .map_err(|_| SynclineError::operation("timeout_ms", "must not be negative"))?;
            let outcome = self.end()?.commit_now(Duration::from_millis(timeout)).await?;
            Ok::<_, SynclineError>(outcome.into())
        })
        .await
    }

    /// Forgets the members. Nothing had been written. One that has ended stays as it is.
    ///
    /// # Errors
    /// `Internal`.
    pub fn rollback(&self) -> Result<()> {
        contained(|| {
            let core = self.core.lock().take();
            drop(core);
            Ok::<_, SynclineError>(())
        })
    }
}

impl From<core::CommitOutcome> for CommitOutcome {
    fn from(outcome: core::CommitOutcome) -> Self {
        let all = |receipts: Vec<core::Receipt>| receipts.into_iter().map(Into::into).collect();
        match outcome {
            core::CommitOutcome::Applied { receipts } => Self::Applied { receipts: all(receipts) },
            core::CommitOutcome::Failed { receipts, culprit, reason, message } => {
                Self::Failed { receipts: all(receipts), culprit, reason, text: message }
            }
            core::CommitOutcome::Pending { receipts } => Self::Pending { receipts: all(receipts) },
        }
    }
}
