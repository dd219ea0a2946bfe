use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Clock, OperationKind, Timestamp};

/// Who wins when two writes of different values to one field have not seen each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictRule {
    /// The later timestamp; ties go to the higher device id.
    #[default]
    LastWriterWins,
    /// What the server already has.
    ServerWins,
    /// What arrives.
    ClientWins,
    /// Nobody: the operation waits as `conflicted` until the app resolves it.
    Manual,
}

/// Who wins when a deletion and a write have not seen each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteRule {
    /// The entity lives on, or revives, with the write.
    #[default]
    UpdateWins,
    /// The entity is deleted.
    DeleteWins,
}

/// What became of an operation that met a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictResult {
    /// A rule decided, field by field.
    Merged,
    /// A `manual` type: nothing was applied.
    Conflict,
}

/// Whose value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// The operation's.
    Ours,
    /// The one the server had.
    Theirs,
    /// Not decided yet (`manual`).
    None,
}

/// One field of a conflict. A value that is absent was removed, or never there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FieldConflict {
    /// What the writer saw before it wrote (the operation's `before`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<RawValue>>,
    /// What the operation writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<Box<RawValue>>,
    /// What the server had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<Box<RawValue>>,
    /// Whose value stands.
    pub winner: Winner,
}

/// A ledger entry: one per operation that met a conflict. The same object is stored on the server and on the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Conflict {
    /// The ledger entry's id.
    pub id: String,
    /// `last_writer_wins`, `server_wins`, `client_wins`, `manual`, `update_wins` or `delete_wins`.
    pub rule: String,
    /// What became of the operation.
    pub result: ConflictResult,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// The operation that met the conflict.
    pub operation_id: String,
    /// What that operation intended.
    pub operation: OperationKind,
    /// The device that sent the operation.
    pub device_id: String,
    /// The user who sent the operation.
    pub user_id: String,
    /// The clock that the operation came with, its own dot included.
    pub our_clock: Clock,
    /// The record's clock when the operation arrived. Resolving sends the operation again with this clock.
    pub their_clock: Clock,
    /// Whether the record was deleted when the operation arrived.
    #[serde(default)]
    pub their_deleted: bool,
    /// When the server decided.
    pub decided_at: Timestamp,
    /// The fields in conflict, by name.
    pub fields: BTreeMap<String, FieldConflict>,
}
