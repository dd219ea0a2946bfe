//! Writing and reading, as [`SyncManager`] offers them.

use super::SyncManager;
use crate::conflict::{ConflictEntry, Resolution};
use crate::error::{Result, SynclineError};
use crate::explain::Explanation;
use crate::operation::{NewOperation, Operation, Receipt};
use crate::query::{ChangePage, Entity, EntityPage, ListQuery, OperationFilter};
use crate::store::{Prepared, Store};
use crate::sync;

/// Writing. Every method returns when its effect is durable, and touches the network never.
impl SyncManager {
    /// Records an operation: the queue and the replica have it, together, when this returns.
    ///
    /// A key that was enqueued before gives the earlier operation's receipt, marked `duplicate`.
    ///
    /// # Errors
    /// `InvalidOperation` names what is wrong, also a key that was used for something else; `StorageFull`, `Storage`,
    /// `Corrupt`, `Closed`. Nothing was written then.
    pub fn enqueue(&self, operation: NewOperation) -> Result<Receipt> {
        let now = self.now();
        let prepared = self.prepare(operation)?;
        self.handle.shared.write(move |store| store.enqueue(&prepared, now))
    }

    /// Records all of them or, if one is refused, none. Unlike a transaction they are delivered independently.
    ///
    /// # Errors
    /// As [`SyncManager::enqueue`].
    pub fn enqueue_all(&self, operations: impl IntoIterator<Item = NewOperation>) -> Result<Vec<Receipt>> {
        let now = self.now();
        let prepared: Vec<_> =
            operations.into_iter().map(|operation| self.prepare(operation)).collect::<Result<_>>()?;
        self.handle.shared.write(move |store| store.enqueue_all(&prepared, now))
    }

    /// Withdraws an operation that waits or is under way; of a transaction, all members. One whose bytes may have left the
    /// device stays `pending` with `void` set until the endpoint has confirmed, and ends `completed` if it had taken effect.
    ///
    /// # Errors
    /// `NotPossible` in any other state; storage errors; `Closed`.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.act(id, Store::cancel)
    }

    /// Gives up an operation that failed or is in conflict; of a transaction, all members.
    ///
    /// # Errors
    /// As [`SyncManager::cancel`].
    pub fn discard(&self, id: &str) -> Result<()> {
        self.act(id, Store::discard)
    }

    /// Tries a failed operation again, its attempts counted anew; of a transaction, all members.
    ///
    /// # Errors
    /// As [`SyncManager::cancel`].
    pub fn retry(&self, id: &str) -> Result<()> {
        self.act(id, Store::retry)
    }

    /// Decides a conflict, named by its ledger entry's or its operation's id.
    ///
    /// # Errors
    /// `NotPossible` if there is no undecided conflict by that id; `InvalidOperation` for a merged value that is no payload;
    /// storage errors; `Closed`.
    pub fn resolve_conflict(&self, id: &str, resolution: Resolution) -> Result<()> {
        let (id, now) = (id.to_owned(), self.now());
        self.handle.shared.write(move |store| store.resolve_conflict(&id, &resolution, now))
    }

    /// Brings back the value that lost in a ledger entry, as a new operation on what this device sees now.
    ///
    /// # Errors
    /// `NotPossible` if there is no such entry, or nothing in it lost; storage errors; `Closed`.
    pub fn reopen_conflict(&self, conflict_id: &str) -> Result<Receipt> {
        let (conflict_id, id, now) = (conflict_id.to_owned(), self.new_id(), self.now());
        self.handle.shared.write(move |store| store.reopen(&conflict_id, id, now))
    }

    fn act(&self, id: &str, action: fn(&mut Store, &str, syncline_protocol::Timestamp) -> Result<()>) -> Result<()> {
        let (id, now) = (id.to_owned(), self.now());
        self.handle.shared.write(move |store| action(store, &id, now))
    }

    pub(super) fn prepare(&self, operation: NewOperation) -> Result<Prepared> {
        let settings = self.handle.shared.options.entity_type(&operation.entity_type);
        Prepared::new(operation, self.new_id(), &settings)
    }
}

/// Reading, on connections of their own: no reader waits for a writer.
impl SyncManager {
    /// An entity as this device sees it; none if it never heard of it.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn get(&self, entity_type: &str, entity_id: &str) -> Result<Option<Entity>> {
        self.handle.shared.read(|reader| reader.get(entity_type, entity_id))
    }

    /// A page of the entities of one type.
    ///
    /// # Errors
    /// `InvalidOperation` for a name, path, limit or page that is none; `Storage`, `Closed`.
    pub fn list(&self, query: &ListQuery) -> Result<EntityPage> {
        self.handle.shared.read(|reader| reader.list(query))
    }

    /// The local change feed: entities that changed on this device after `cursor` (0 for all), each once, up to `limit` (1 to
    /// 1,000). The cursor survives restarts.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit out of range; `Storage`, `Closed`.
    pub fn changes_since(&self, cursor: u64, limit: usize) -> Result<ChangePage> {
        self.handle.shared.read(|reader| reader.changes_since(cursor, limit))
    }

    /// Operations in sequence order.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit out of range; `Storage`, `Closed`.
    pub fn operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        self.handle.shared.read(|reader| reader.operations(filter))
    }

    /// One operation; none if it is unknown or was pruned.
    ///
    /// # Errors
    /// `Storage`, `Closed`.
    pub fn operation(&self, id: &str) -> Result<Option<Operation>> {
        self.handle.shared.read(|reader| reader.operation(id))
    }

    /// The ledger of conflicts, newest first, up to `limit` (1 to 1,000). `undecided`: only those that wait for the app.
    ///
    /// # Errors
    /// `InvalidOperation` for a limit out of range; `Storage`, `Closed`.
    pub fn conflicts(&self, undecided: bool, limit: usize) -> Result<Vec<ConflictEntry>> {
        self.handle.shared.read(|reader| reader.conflicts(undecided, limit))
    }

    /// Why an operation is not synced yet, or that it is.
    ///
    /// # Errors
    /// `NotPossible` if it is unknown or was pruned; `Storage`, `Closed`.
    pub fn explain(&self, id: &str) -> Result<Explanation> {
        let facts = self
            .handle
            .shared
            .read(|reader| reader.facts(id))?
            .ok_or_else(|| SynclineError::not_possible("there is no such operation, or it was pruned"))?;
        let facts = facts.at(self.now());
        let standing = self.handle.shared.standing();
        Ok(sync::explain(&facts, &standing.state, standing.searching))
    }
}
