use syncline_core as core;
use syncline_protocol::OperationKind as CoreKind;

use crate::SynclineError;
use crate::contained::Result;

/// What an operation intends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum OperationKind {
    /// Bring the entity into being. On one that exists, an update of the fields named.
    Create,
    /// Replace the fields named in the payload; `null` removes one.
    Update,
    /// Remove the entity.
    Delete,
}

/// What the app wants to record.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct NewOperation {
    /// What it intends.
    pub kind: OperationKind,
    /// 1 to 64 characters of `[a-z0-9_]`.
    pub entity_type: String,
    /// 1 to 128 characters.
    pub entity_id: String,
    /// JSON text of an object, up to 256 KiB in canonical form; none for a delete.
    #[uniffi(default)]
    pub payload: Option<String>,
    /// A key of the app's own, 1 to 128 characters without `#`; made by the core if none is given.
    #[uniffi(default)]
    pub idempotency_key: Option<String>,
    /// Earlier operations that must be settled first.
    #[uniffi(default)]
    pub depends_on: Vec<Receipt>,
    /// How often delivery may be tried, 1 to 100; the entity type's if none is given.
    #[uniffi(default)]
    pub max_attempts: Option<i32>,
}

/// Proof that an operation is durable on this device.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Receipt {
    /// The operation's id.
    pub id: String,
    /// Its place in the queue.
    pub sequence: i64,
    /// The key had been enqueued before; this is the receipt of that operation.
    #[uniffi(default = false)]
    pub duplicate: bool,
}

/// Where an operation stands (spec §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum OperationStatus {
    /// Waits to be sent.
    Pending,
    /// Leased to a delivery under way.
    InProgress,
    /// Decided on the server.
    Completed,
    /// Rejected, or its attempts are used up. Kept until retried or discarded.
    Failed,
    /// Waits for the app to resolve a conflict.
    Conflicted,
    /// Withdrawn, folded into another, or observed.
    Cancelled,
}

/// What a user does about an operation that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum OperationAction {
    /// Withdraws one that is pending or under way; what may have left the device is withdrawn on the server.
    Cancel,
    /// Sends one that failed, or waits for its backoff, again.
    Retry,
    /// Gives up one that failed or conflicts.
    Discard,
}

/// An operation as the queue holds it.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Operation {
    /// Its place in the queue.
    pub sequence: i64,
    /// Its id.
    pub id: String,
    /// The key sent with its next attempt (`…#2` after a retry).
    pub idempotency_key: String,
    /// What it intends.
    pub kind: OperationKind,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// Canonical JSON; none for a delete, or once folded away.
    pub payload: Option<String>,
    /// When it was enqueued, by the device's clock.
    pub enqueued_at_ms: i64,
    /// The transaction it belongs to.
    pub transaction_id: Option<String>,
    /// Where it stands.
    pub status: OperationStatus,
    /// Withdrawn, and the server has not confirmed yet.
    pub withdrawn: bool,
    /// Deliveries that counted.
    pub attempts: i32,
    /// How many may count.
    pub max_attempts: i32,
    /// Not before this moment.
    pub next_attempt_at_ms: Option<i64>,
    /// Why it failed, waits or was cancelled, as a word.
    pub reason: Option<String>,
    /// The same in a sentence; never a payload.
    pub text: Option<String>,
    /// The field at fault.
    pub field: Option<String>,
    /// The sequence of the operation it was folded into.
    pub coalesced_into: Option<i64>,
    /// When it completed or was cancelled.
    pub ended_at_ms: Option<i64>,
}

/// Which operations to list, in the order of the queue.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct OperationFilter {
    /// Only these states; empty means all.
    #[uniffi(default)]
    pub statuses: Vec<OperationStatus>,
    /// Only of this entity: its type. Needs `entity_id`.
    #[uniffi(default)]
    pub entity_type: Option<String>,
    /// Only of this entity: its id. Needs `entity_type`.
    #[uniffi(default)]
    pub entity_id: Option<String>,
    /// Only sequences above this.
    #[uniffi(default = 0)]
    pub after: i64,
    /// 1 to 1,000.
    #[uniffi(default = 100)]
    pub limit: i32,
}

/// All of ours fit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl From<OperationKind> for CoreKind {
    fn from(kind: OperationKind) -> Self {
        match kind {
            OperationKind::Create => Self::Create,
            OperationKind::Update => Self::Update,
            OperationKind::Delete => Self::Delete,
        }
    }
}

impl From<CoreKind> for OperationKind {
    fn from(kind: CoreKind) -> Self {
        match kind {
            CoreKind::Create => Self::Create,
            CoreKind::Update => Self::Update,
            CoreKind::Delete => Self::Delete,
        }
    }
}

impl From<OperationStatus> for core::OperationStatus {
    fn from(status: OperationStatus) -> Self {
        match status {
            OperationStatus::Pending => Self::Pending,
            OperationStatus::InProgress => Self::InProgress,
            OperationStatus::Completed => Self::Completed,
            OperationStatus::Failed => Self::Failed,
            OperationStatus::Conflicted => Self::Conflicted,
            OperationStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<core::OperationStatus> for OperationStatus {
    fn from(status: core::OperationStatus) -> Self {
        match status {
            core::OperationStatus::Pending => Self::Pending,
            core::OperationStatus::InProgress => Self::InProgress,
            core::OperationStatus::Completed => Self::Completed,
            core::OperationStatus::Failed => Self::Failed,
            core::OperationStatus::Conflicted => Self::Conflicted,
            core::OperationStatus::Cancelled => Self::Cancelled,
        }
    }
}

impl From<core::Receipt> for Receipt {
    fn from(receipt: core::Receipt) -> Self {
        Self { id: receipt.id, sequence: signed(receipt.sequence), duplicate: receipt.duplicate }
    }
}

impl Receipt {
    fn into_core(self) -> Result<core::Receipt> {
        let sequence = u64::try_from(self.sequence)
            .map_err(|_| SynclineError::operation("depends_on.sequence", "must not be negative"))?;
        Ok(core::Receipt { id: self.id, sequence, duplicate: self.duplicate })
    }
}

impl NewOperation {
    pub(crate) fn into_core(self) -> Result<core::NewOperation> {
        let attempts = |attempts| {
            u32::try_from(attempts).map_err(|_| SynclineError::operation("max_attempts", "must be 1 to 100"))
        };
        Ok(core::NewOperation {
            kind: self.kind.into(),
            entity_type: self.entity_type,
            entity_id: self.entity_id,
            payload: self.payload,
            idempotency_key: self.idempotency_key,
            depends_on: self.depends_on.into_iter().map(Receipt::into_core).collect::<Result<_>>()?,
            max_attempts: self.max_attempts.map(attempts).transpose()?,
        })
    }
}

impl From<core::Operation> for Operation {
    fn from(operation: core::Operation) -> Self {
        Self {
            sequence: signed(operation.sequence),
            id: operation.id,
            idempotency_key: operation.idempotency_key,
            kind: operation.kind.into(),
            entity_type: operation.entity_type,
            entity_id: operation.entity_id,
            payload: operation.payload,
            enqueued_at_ms: operation.enqueued_at.millis(),
            transaction_id: operation.transaction_id,
            status: operation.status.into(),
            withdrawn: operation.void,
            attempts: i32::try_from(operation.attempts).unwrap_or(i32::MAX),
            max_attempts: i32::try_from(operation.max_attempts).unwrap_or(i32::MAX),
            next_attempt_at_ms: operation.next_attempt_at.map(|at| at.millis()),
            reason: operation.reason,
            text: operation.message,
            field: operation.field,
            coalesced_into: operation.coalesced_into.map(signed),
            ended_at_ms: operation.ended_at.map(|at| at.millis()),
        }
    }
}

impl OperationFilter {
    pub(crate) fn into_core(self) -> Result<core::OperationFilter> {
        let entity = match (self.entity_type, self.entity_id) {
            (None, None) => None,
            (Some(entity_type), Some(entity_id)) => Some((entity_type, entity_id)),
            (Some(_), None) => return Err(SynclineError::operation("entity_id", "is needed with entity_type")),
            (None, Some(_)) => return Err(SynclineError::operation("entity_type", "is needed with entity_id")),
        };
        Ok(core::OperationFilter {
            statuses: self.statuses.into_iter().map(Into::into).collect(),
            entity,
            after: u64::try_from(self.after).map_err(|_| SynclineError::operation("after", "must not be negative"))?,
            limit: limit(self.limit)?,
        })
    }
}

/// The core says which limits are good.
pub(crate) fn limit(limit: i32) -> Result<usize> {
    usize::try_from(limit).map_err(|_| SynclineError::operation("limit", "must be 1 to 1000"))
}
