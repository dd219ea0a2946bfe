use syncline_core as core;
use syncline_protocol::Winner;

use crate::operation::{OperationKind, signed};

/// A row of the device's ledger: what met, and how it was decided.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct ConflictEntry {
    /// The entry's id.
    pub id: String,
    /// `last_writer_wins`, `server_wins`, `client_wins`, `manual`, `update_wins` or `delete_wins`.
    pub rule: String,
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// The operation that met the conflict.
    pub operation_id: String,
    /// What it intended.
    pub operation: OperationKind,
    /// Its place in the queue.
    pub sequence: i64,
    /// The device that sent it.
    pub device_id: String,
    /// The user who did.
    pub user_id: String,
    /// The record had been deleted.
    pub their_deleted: bool,
    /// The fields in conflict, in the order of their names.
    pub fields: Vec<ConflictField>,
    /// When the server decided.
    pub decided_at_ms: i64,
    /// When this device heard of it.
    pub detected_at_ms: i64,
    /// How the app decided, `take_local`, `take_remote`, `merged` or `discarded`; none for a rule's decision, or while it has not.
    pub resolution: Option<String>,
    /// When the app decided.
    pub resolved_at_ms: Option<i64>,
    /// The operation that restored the losing value, if one did.
    pub reopened_by: Option<String>,
}

/// A field in conflict. Values are JSON text; none where there was none.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ConflictField {
    /// Its name.
    pub name: String,
    /// What the writer saw before it wrote, for types with `send_before`.
    pub base: Option<String>,
    /// What the operation writes.
    pub ours: Option<String>,
    /// What the server had.
    pub theirs: Option<String>,
    /// Whose value stands: `ours`, `theirs` or `none`.
    pub winner: String,
}

/// How the app decides a `manual` conflict.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Resolution {
    /// This device's value stands: the operation is sent again as one that has seen theirs.
    TakeLocal,
    /// Theirs stands: the operation is cancelled.
    TakeRemote,
    /// This value stands; sent as one that has seen theirs.
    Merged {
        /// JSON text of an object with the fields to write.
        value: String,
    },
}

impl From<Resolution> for core::Resolution {
    fn from(resolution: Resolution) -> Self {
        match resolution {
            Resolution::TakeLocal => Self::TakeLocal,
            Resolution::TakeRemote => Self::TakeRemote,
            Resolution::Merged { value } => Self::Merged(value),
        }
    }
}

impl From<core::ConflictEntry> for ConflictEntry {
    fn from(entry: core::ConflictEntry) -> Self {
        let conflict = entry.conflict;
        let field = |(name, field): (String, syncline_protocol::FieldConflict)| ConflictField {
            name,
            base: field.base.map(|value| value.get().to_owned()),
            ours: field.ours.map(|value| value.get().to_owned()),
            theirs: field.theirs.map(|value| value.get().to_owned()),
            winner: match field.winner {
                Winner::Ours => "ours",
                Winner::Theirs => "theirs",
                Winner::None => "none",
            }
            .to_owned(),
        };
        Self {
            id: conflict.id,
            rule: conflict.rule,
            entity_type: conflict.entity_type,
            entity_id: conflict.entity_id,
            operation_id: conflict.operation_id,
            operation: conflict.operation.into(),
            sequence: signed(entry.sequence),
            device_id: conflict.device_id,
            user_id: conflict.user_id,
            their_deleted: conflict.their_deleted,
            fields: conflict.fields.into_iter().map(field).collect(),
            decided_at_ms: conflict.decided_at.millis(),
            detected_at_ms: entry.detected_at.millis(),
            resolution: entry.resolution.map(|kind| kind.as_str().to_owned()),
            resolved_at_ms: entry.resolved_at.map(|at| at.millis()),
            reopened_by: entry.reopened_by,
        }
    }
}
