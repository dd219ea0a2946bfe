//! What the endpoint needs of a database, and the embedded one. SQL text lives only here.

pub mod postgres;
pub mod sqlite;

use syncline_protocol::{Conflict, FirstStatus, OperationKind, ResultError, Timestamp};

use crate::endpoint::record::ServerRecord;

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Locked by someone else, or out of room: the same request may succeed later.
    #[error("the database is busy or full: {0}")]
    Unavailable(String),
    /// The file cannot be opened as what it should be.
    #[error("{0}")]
    Refused(String),
    /// Anything else.
    #[error("the database failed: {0}")]
    Failed(String),
}

/// A scope's counter row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRow {
    /// The highest version given out.
    pub head: u64,
    /// The name of its unbroken history.
    pub epoch: String,
    /// Tombstones up to this version may be gone.
    pub purged_through: u64,
}

/// A device in a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// Whose it is.
    pub user_id: String,
    /// How many of its pushes have been committed.
    pub mark: u64,
    /// It will never again send a sequence up to this one.
    pub forgotten_through: u64,
}

/// An entity in a scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its type.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
    /// Its version.
    pub version: u64,
    /// When it got that version, by the server's clock.
    pub stored_at: Timestamp,
    /// The rest.
    pub record: ServerRecord,
}

/// An idempotency key and its final verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredOperation {
    /// The key, private to the scope.
    pub key: String,
    /// The operation's id.
    pub operation_id: String,
    /// Who sent it.
    pub device_id: String,
    /// Its sequence there.
    pub sequence: u64,
    /// What it intended.
    pub kind: OperationKind,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// Over operation, entity and payload text ([`syncline_protocol::payload_hash`]).
    pub hash: [u8; 32],
    /// The verdict.
    pub verdict: FirstStatus,
    /// Why, for `rejected`.
    pub error: Option<ResultError>,
    /// The ledger entry, by id.
    pub conflict_id: Option<String>,
    /// When, by the server's clock.
    pub decided_at: Timestamp,
}

/// A database that keeps scopes apart.
pub trait Storage: Send {
    /// Begins a transaction on one scope. Dropped without [`Transaction::commit`], it leaves no trace.
    fn transaction<'a>(&'a mut self, scope: &'a str) -> Result<Box<dyn Transaction + 'a>, StorageError>;
    /// The scopes that were ever used, by name.
    fn scopes(&mut self) -> Result<Vec<String>, StorageError>;
    /// A scope's ledger, oldest entry first.
    fn ledger(&mut self, scope: &str) -> Result<Vec<Conflict>, StorageError>;
    /// Replaces the epoch of every scope by a new text: all of them, or none if it fails.
    fn renew_epochs(&mut self, new_epoch: &mut dyn FnMut() -> String) -> Result<(), StorageError>;
}

/// One transaction on one scope: serialisable, durable once committed.
pub trait Transaction {
    /// The scope's row, if it was ever used.
    fn scope(&mut self) -> Result<Option<ScopeRow>, StorageError>;
    /// Writes the scope's row.
    fn put_scope(&mut self, row: &ScopeRow) -> Result<(), StorageError>;
    /// A device of the scope.
    fn device(&mut self, device_id: &str) -> Result<Option<DeviceRow>, StorageError>;
    /// Writes a device.
    fn put_device(&mut self, device_id: &str, row: &DeviceRow) -> Result<(), StorageError>;
    /// An entity of the scope, tombstones too.
    fn entity(&mut self, entity_type: &str, entity_id: &str) -> Result<Option<Entity>, StorageError>;
    /// Writes an entity.
    fn put_entity(&mut self, entity: &Entity) -> Result<(), StorageError>;
    /// The verdict stored under a key.
    fn operation(&mut self, key: &str) -> Result<Option<StoredOperation>, StorageError>;
    /// Whether an operation of this device and sequence has been applied.
    fn applied(&mut self, device_id: &str, sequence: u64) -> Result<bool, StorageError>;
    /// Stores a verdict under its key.
    fn put_operation(&mut self, operation: &StoredOperation) -> Result<(), StorageError>;
    /// A ledger entry.
    fn conflict(&mut self, id: &str) -> Result<Option<Conflict>, StorageError>;
    /// Writes a ledger entry.
    fn put_conflict(&mut self, conflict: &Conflict) -> Result<(), StorageError>;
    /// Visits the entities above version `after`, of these types if given, in order of version, while `visit` says to go on.
    fn changes(
        &mut self,
        after: u64,
        entity_types: Option<&[String]>,
        visit: &mut dyn FnMut(Entity) -> bool,
    ) -> Result<(), StorageError>;
    /// Drops the verdicts decided before `before` whose device has forgotten them. Returns how many.
    fn purge_operations(&mut self, before: Timestamp) -> Result<u64, StorageError>;
    /// Drops the tombstones stored before `before`. Returns how many and their highest version.
    fn purge_tombstones(&mut self, before: Timestamp) -> Result<(u64, u64), StorageError>;
    /// Makes everything written durable.
    fn commit(self: Box<Self>) -> Result<(), StorageError>;
}
