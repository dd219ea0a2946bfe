use std::time::Duration;

use super::SyncManager;
use super::drive::Run;
use super::shared::Shared;
use super::tasks::{First, on_runtime, race};
use super::wait::is_settled;
use crate::error::{Result, SynclineError};
use crate::operation::{NewOperation, Operation, OperationStatus, Receipt};
use crate::store::GroupMember;

/// Operations that are applied all or none, here and on the server. They wait in memory; nothing is written before a commit,
/// and dropping the transaction is a rollback.
///
/// A member takes what this device sees of its entity when it is *added*: a value that is pulled between adding and
/// committing counts as not seen, and meets the conflict rules. At most 100 operations and 1 MiB.
#[must_use = "a transaction that is not committed is rolled back"]
pub struct SyncTransaction {
    manager: SyncManager,
    id: String,
    members: Vec<GroupMember>,
}

/// What [`SyncTransaction::commit_now`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        message: Option<String>,
    },
    /// No verdict in time. The group is durable and stays queued.
    Pending {
        /// The members.
        receipts: Vec<Receipt>,
    },
}

impl SyncTransaction {
    pub(super) fn new(manager: SyncManager) -> Self {
        let id = manager.new_id();
        Self { manager, id, members: Vec::new() }
    }

    /// The transaction's id, as its members carry it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// `InvalidOperation` if it could not be enqueued alone; the transaction stays as it was.
    pub fn add(&mut self, operation: NewOperation) -> Result<&mut Self> {
        let shared = &self.manager.handle.shared;
        let prepared = self.manager.prepare(operation)?;
        let member = shared.on_file(|device| device.store.group_member(prepared))?;
        self.members.push(member);
        Ok(self)
    }

    /// Adds the creation of an entity with these fields (JSON text of an object).
    ///
    /// # Errors
    /// As [`SyncTransaction::add`].
    pub fn create(&mut self, entity_type: &str, entity_id: &str, payload: &str) -> Result<&mut Self> {
        self.add(NewOperation::create(entity_type, entity_id, payload))
    }

    /// Adds a change of these fields (JSON text of an object).
    ///
    /// # Errors
    /// As [`SyncTransaction::add`].
    pub fn update(&mut self, entity_type: &str, entity_id: &str, payload: &str) -> Result<&mut Self> {
        self.add(NewOperation::update(entity_type, entity_id, payload))
    }

    /// Adds a deletion.
    ///
    /// # Errors
    /// As [`SyncTransaction::add`].
    pub fn delete(&mut self, entity_type: &str, entity_id: &str) -> Result<&mut Self> {
        self.add(NewOperation::delete(entity_type, entity_id))
    }

    /// Makes the group durable on this device and returns; it is sent like any operation. Blocks until it is written.
    ///
    /// # Errors
    /// `InvalidOperation` for an empty group, one over the limits, or one that repeats a key; `StorageFull`, `Storage`,
    /// `Closed`. Nothing was written then.
    pub fn commit_queued(self) -> Result<Vec<Receipt>> {
        let Self { manager, id, members } = self;
        let now = manager.now();
        manager.handle.shared.write(move |store| store.commit_group(&id, &members, now))
    }

    /// As [`SyncTransaction::commit_queued`], then sends what can be sent and waits for the verdict. Whatever the outcome, the
    /// group is durable on this device once this returns `Ok`.
    ///
    /// # Errors
    /// As [`SyncTransaction::commit_queued`]; after it was queued only `Storage` and `Closed`.
    pub async fn commit_now(self, timeout: Duration) -> Result<CommitOutcome> {
        let manager = self.manager.clone();
        let id = self.id.clone();
        let receipts = self.commit_queued()?;
        let shared = manager.handle.shared.clone();
        let runtime = shared.environment.runtime.clone();
        on_runtime(&*runtime, async move {
            let verdict = |shared: &Shared| Ok(outcome(&shared.read(|reader| reader.transaction(&id))?, &receipts));
            let delivery = async {
                // Locked: another process drains, and will take this along.
                let _run = match Run::begin(&shared) {
                    Err(SynclineError::Locked) => None,
                    run => Some(run?),
                };
                shared.crank().await
            };
            let decided = match race(shared.until(timeout, verdict), delivery).await {
                First::This(decided) => decided?,
                First::Other(failed) => match failed? {},
            };
            Ok(decided.unwrap_or(CommitOutcome::Pending { receipts }))
        })
        .await
    }

    /// Forgets the members. Nothing had been written.
    pub fn rollback(self) {
        drop(self);
    }
}

/// None while the server has not decided.
fn outcome(members: &[Operation], receipts: &[Receipt]) -> Option<CommitOutcome> {
    let receipts = receipts.to_vec();
    if !members.iter().all(is_settled) {
        return None;
    }
    let failed = || members.iter().filter(|member| member.status != OperationStatus::Completed);
    let culprit =
        failed().find(|member| member.reason.as_deref() != Some("transaction_failed")).or_else(|| failed().next());
    Some(match culprit {
        None => CommitOutcome::Applied { receipts },
        Some(culprit) => CommitOutcome::Failed {
            receipts,
            culprit: culprit.id.clone(),
            reason: culprit.reason.clone().unwrap_or_default(),
            message: culprit.message.clone(),
        },
    })
}
