use std::fmt;

use syncline_protocol::{OperationKind, Timestamp};

/// What the app wants to record. Make one with [`NewOperation::create`], [`NewOperation::update`] or [`NewOperation::delete`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOperation {
    /// What it intends.
    pub kind: OperationKind,
    /// 1 to 64 characters of `[a-z0-9_]`.
    pub entity_type: String,
    /// 1 to 128 characters.
    pub entity_id: String,
    /// JSON text of an object, up to 256 KiB in canonical form; none for a delete.
    pub payload: Option<String>,
    /// A key of the caller's own, 1 to 128 characters without `#`; made by the core if none is given.
    pub idempotency_key: Option<String>,
    /// Earlier operations that must be settled first, by their receipts.
    pub depends_on: Vec<Receipt>,
    /// How often delivery may be tried; the entity type's if none is given.
    pub max_attempts: Option<u32>,
}

impl NewOperation {
    fn new(kind: OperationKind, entity_type: impl Into<String>, entity_id: impl Into<String>) -> Self {
        Self {
            kind,
            entity_type: entity_type.into(),
            entity_id: entity_id.into(),
            payload: None,
            idempotency_key: None,
            depends_on: Vec::new(),
            max_attempts: None,
        }
    }

    /// Brings an entity into being with these fields (JSON text of an object).
    pub fn create(entity_type: impl Into<String>, entity_id: impl Into<String>, payload: impl Into<String>) -> Self {
        Self { payload: Some(payload.into()), ..Self::new(OperationKind::Create, entity_type, entity_id) }
    }

    /// Replaces these fields (JSON text of an object); `null` removes one.
    pub fn update(entity_type: impl Into<String>, entity_id: impl Into<String>, payload: impl Into<String>) -> Self {
        Self { payload: Some(payload.into()), ..Self::new(OperationKind::Update, entity_type, entity_id) }
    }

    /// Removes an entity.
    pub fn delete(entity_type: impl Into<String>, entity_id: impl Into<String>) -> Self {
        Self::new(OperationKind::Delete, entity_type, entity_id)
    }

    /// With the caller's own idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Sent only once `earlier` is settled.
    #[must_use]
    pub fn after(mut self, earlier: &Receipt) -> Self {
        self.depends_on.push(earlier.clone());
        self
    }

    /// With a retry budget of its own.
    #[must_use]
    pub fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }
}

/// Proof that an operation is durable on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The operation's id.
    pub id: String,
    /// Its place in the queue.
    pub sequence: u64,
    /// The key had been enqueued before; this is the receipt of that operation.
    pub duplicate: bool,
}

/// Where an operation stands (spec §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

impl OperationStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::InProgress, Self::Completed, Self::Failed, Self::Conflicted, Self::Cancelled];

    /// The word in SQL and in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Conflicted => "conflicted",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status for a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether nothing more happens to it by itself or by the user.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operation as the queue holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its place in the queue.
    pub sequence: u64,
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
    /// Its timestamp (a hybrid clock's, see spec §4).
    pub timestamp: Timestamp,
    /// When it was enqueued, by the device's clock.
    pub enqueued_at: Timestamp,
    /// The transaction it belongs to.
    pub transaction_id: Option<String>,
    /// Where it stands.
    pub status: OperationStatus,
    /// Withdrawn, and the server has not confirmed yet.
    pub void: bool,
    /// Deliveries that counted.
    pub attempts: u32,
    /// How many may count.
    pub max_attempts: u32,
    /// Not before this moment.
    pub next_attempt_at: Option<Timestamp>,
    /// Why it failed, waits or was cancelled, as a word.
    pub reason: Option<String>,
    /// The same in a sentence; never a payload.
    pub message: Option<String>,
    /// The field at fault.
    pub field: Option<String>,
    /// The operation it was folded into.
    pub coalesced_into: Option<u64>,
    /// When it completed or was cancelled.
    pub ended_at: Option<Timestamp>,
}
