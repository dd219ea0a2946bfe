use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Clock, Conflict, ConflictRule, DeleteRule, Limits, OperationKind, Record, Timestamp};

/// `POST /v1/push`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PushRequest {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// The user the file was opened for; compared with the token.
    pub user_id: String,
    /// The scope the file was opened for; compared with the token.
    pub scope: String,
    /// The sending device.
    pub device_id: String,
    /// The epoch the device knows; without one the push is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The highest mark the device has recorded.
    #[serde(default)]
    pub mark: u64,
    /// The device's pull cursor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The device's wall clock.
    pub sent_at: Timestamp,
    /// Judge only, commit nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dry_run: bool,
    /// The device has pruned every operation up to this sequence.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forgotten_through: u64,
    /// In lane order; the members of a transaction next to each other.
    #[serde(default)]
    pub operations: Vec<PushOperation>,
}

/// One operation of a push.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PushOperation {
    /// The operation's id.
    pub id: String,
    /// The key of this attempt's verdict: the operation's key, `key#2` after a retry, and so on.
    pub idempotency_key: String,
    /// The operation's place in the device's queue.
    pub sequence: u64,
    /// What it intends.
    pub operation: OperationKind,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// The fields to write; absent for a delete. Its text is hashed as received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<RawValue>>,
    /// The old values of what it patches, where the entity type asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Record>,
    /// What the device had seen of the entity.
    #[serde(default, skip_serializing_if = "Clock::is_empty")]
    pub base_clock: Clock,
    /// When the device wrote it.
    pub timestamp: Timestamp,
    /// The transaction it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// The ids of the operations it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Withdraw the operation instead of applying it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub void: bool,
    /// The conflict rule the app asks for; counts where the endpoint has none of its own for the entity type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict_rule: Option<ConflictRule>,
    /// The delete rule the app asks for; counts where the endpoint has none of its own for the entity type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_rule: Option<DeleteRule>,
}

/// The answer to a push.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PushResponse {
    /// How many operations were applied and left out of `results`.
    #[serde(default)]
    pub applied: u64,
    /// The other operations, in the order of the request.
    #[serde(default)]
    pub results: Vec<OperationResult>,
    /// The scope's head version after the push.
    pub version: u64,
    /// The cursor at the new head, when the device need not pull its own changes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The scope's epoch.
    pub epoch: String,
    /// How many pushes the server has committed for the device; absent for a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u64>,
    /// The server's clock.
    pub server_time: Timestamp,
    /// What the endpoint takes in one push.
    #[serde(default)]
    pub limits: Limits,
}

/// What an endpoint says about one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It applied, as written.
    Applied,
    /// It applied together with writes it had not seen; `conflict` is filled in where a value lost.
    Merged,
    /// The key is known; `first` is its verdict.
    AlreadyProcessed,
    /// A `manual` type: the app must decide.
    Conflict,
    /// It will not be applied; `error` says why.
    Rejected,
    /// Not looked at, because something before it was not applied.
    Deferred,
    /// Not now; `error` may say when.
    Retry,
}

/// A verdict that is stored under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirstStatus {
    /// See [`Status::Applied`].
    Applied,
    /// See [`Status::Merged`].
    Merged,
    /// See [`Status::Conflict`].
    Conflict,
    /// See [`Status::Rejected`].
    Rejected,
}

impl FirstStatus {
    /// Whether the operation has taken effect.
    pub fn is_applied(self) -> bool {
        matches!(self, Self::Applied | Self::Merged)
    }
}

impl Status {
    /// The verdict to store, if this is one.
    pub fn verdict(self) -> Option<FirstStatus> {
        match self {
            Self::Applied => Some(FirstStatus::Applied),
            Self::Merged => Some(FirstStatus::Merged),
            Self::Conflict => Some(FirstStatus::Conflict),
            Self::Rejected => Some(FirstStatus::Rejected),
            Self::AlreadyProcessed | Self::Deferred | Self::Retry => None,
        }
    }
}

/// The result of one operation. `version`, `clock`, `deleted` and `record` are the entity's after the whole push.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperationResult {
    /// The operation.
    pub id: String,
    /// What became of it.
    pub status: Status,
    /// `already_processed`: the stored verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstStatus>,
    /// The device under which it was applied, when that is another one (a copy that forked).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The sequence under which it was applied, together with `device_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The entity's version; 0 when the server has none.
    #[serde(default)]
    pub version: u64,
    /// The record's clock.
    #[serde(default)]
    pub clock: Clock,
    /// Whether the entity is deleted. An entity the server does not know counts as deleted, with version 0.
    #[serde(default)]
    pub deleted: bool,
    /// The entity's fields; absent when deleted, or when the answer would grow too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// The ledger entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
    /// Why, for `rejected` and `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ResultError>,
}

/// Why an operation was rejected, or must be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultError {
    /// A word for programs: `not_found`, `gone`, `voided`, `transaction_failed`, `idempotency_key_reused`, `forbidden`, `invalid_value`, …
    pub code: String,
    /// A sentence for developers; never a payload.
    pub message: String,
    /// The field at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// `transaction_failed`: the id of the operation at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<String>,
    /// `retry`: not before this many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
