use syncline_protocol::Timestamp;

use crate::operation::OperationStatus;

/// One change of one operation's state. Every change gives exactly one event, in the order of the changes, after it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationEvent {
    /// The operation.
    pub id: String,
    /// Its place in the queue.
    pub sequence: u64,
    /// The state it left; none when it was enqueued.
    pub from: Option<OperationStatus>,
    /// The state it entered.
    pub to: OperationStatus,
    /// Why, as a word: the cause of a failure, a wait or a cancel.
    pub reason: Option<String>,
    /// When, by the device's clock.
    pub at: Timestamp,
}

/// An entity whose local value or sync status changed. Read it with `get`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntityChange {
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
}

/// What a committed write changed, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Operations, one event per change of state.
    pub operations: Vec<OperationEvent>,
    /// Entities, each at least once.
    pub entities: Vec<EntityChange>,
    /// Things the user may want to hear of that are neither: a new device id, a server that went back in time.
    pub notices: Vec<Notice>,
}

/// Something that happened to the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Another copy of this file had written; this one goes on under a new device id.
    Forked {
        /// The new device id.
        device_id: String,
    },
    /// The server lost history. What the device still keeps is sent again.
    ServerWentBack {
        /// Completed operations that are pending again.
        returned: u64,
    },
}

impl Changes {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.entities.is_empty() && self.notices.is_empty()
    }
}
