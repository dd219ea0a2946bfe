//! What the demo and its device processes say to each other: one JSON object per line, commands in, replies out.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A message and the number that ties a reply to its command.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) id: u64,
    pub(crate) body: T,
}

/// What a device is told to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Writes operations.
    Enqueue { writes: Vec<Write>, how: How },
    /// What the platform reports of the network.
    Network { online: bool },
    /// Delivers and pulls until there is nothing left to do, or a wait is ahead.
    Sync,
    /// The tokens its credential provider gives: the one at hand, and the one it gets when it asks for a fresh one.
    Tokens { at_hand: String, fresh: String },
    /// How it stands.
    Status,
    /// Why an operation is not synced.
    Explain { operation: String },
    /// Withdraws an operation.
    Cancel { operation: String },
    /// Resolves every open conflict with a merged value.
    Resolve { value: Value },
    /// Sends a failed operation again.
    Retry { operation: String },
    /// Gives up a failed or conflicted operation.
    Discard { operation: String },
    /// What failed and what conflicts.
    Troubles,
    /// Decides one conflict.
    Decide { conflict: String, decision: Decision },
    /// All that the manager counts.
    #[cfg(feature = "chaos")]
    Metrics,
    /// Closes the file and ends.
    Close,
}

/// One write of the app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) kind: Kind,
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Value>,
    /// The entity whose create on this device it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
}

impl Write {
    pub(crate) fn create(entity_type: &str, entity_id: impl Into<String>, payload: Value) -> Self {
        let (entity_type, entity_id) = (entity_type.to_owned(), entity_id.into());
        Self { kind: Kind::Create, entity_type, entity_id, payload: Some(payload), after: None }
    }

    pub(crate) fn update(entity_type: &str, entity_id: impl Into<String>, payload: Value) -> Self {
        Self { kind: Kind::Update, ..Self::create(entity_type, entity_id, payload) }
    }

    pub(crate) fn delete(entity_type: &str, entity_id: impl Into<String>) -> Self {
        Self { kind: Kind::Delete, payload: None, ..Self::create(entity_type, entity_id, Value::Null) }
    }
}

/// What a write intends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Create,
    Update,
    Delete,
}

/// Which call writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    /// `enqueue`, one call each.
    Single,
    /// `enqueue_all`.
    Together,
    /// A `SyncTransaction`, `commit_queued`.
    Transaction,
}

/// How the app decides a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    Local,
    Remote,
    Merged(Value),
}

/// An operation that is durable on the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    pub(crate) sequence: u64,
}

/// What waits for the user.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Troubles {
    /// Operations that failed.
    pub(crate) failed: Vec<String>,
    /// Undecided conflicts, each with its operation.
    pub(crate) conflicts: Vec<(String, String)>,
}

/// How a device stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) enqueued: u64,
    pub(crate) pending: u64,
    pub(crate) in_progress: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) conflicted: u64,
    pub(crate) cancelled: u64,
    /// The word for what delivery is doing.
    pub(crate) state: String,
    /// In `backoff`: why.
    pub(crate) reason: Option<String>,
    /// How often its provider was asked for a fresh token.
    pub(crate) refreshes: u64,
}

impl Status {
    /// Operations still to be delivered.
    pub(crate) fn waiting(&self) -> u64 {
        self.pending + self.in_progress
    }
}

/// A device's answer: a value, or a sentence that says what went wrong.
pub(crate) type Reply = Result<Value, String>;
