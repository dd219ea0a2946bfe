use syncline_protocol::Timestamp;

use crate::operation::OperationStatus;

/// How far an entity is synced: the worst of its operations that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncStatus {
    /// The server has everything.
    Synced,
    /// Something waits to be sent.
    Pending,
    /// Something is under way.
    Syncing,
    /// Something failed and waits for the user.
    Failed,
    /// Something waits for the app to resolve a conflict.
    Conflicted,
}

impl SyncStatus {
    /// The word in every language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::Syncing => "syncing",
            Self::Failed => "failed",
            Self::Conflicted => "conflicted",
        }
    }
}

/// An entity as this device sees it: what the server last said, with the operations that are not settled folded in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its type.
    pub entity_type: String,
    /// Its id.
    pub entity_id: String,
    /// Its fields as JSON text; none when it is deleted or was never there.
    pub value: Option<String>,
    /// How far it is synced.
    pub sync_status: SyncStatus,
    /// When one of its operations was last completed.
    pub last_synced_at: Option<Timestamp>,
    /// When one of its operations last failed.
    pub last_failed_sync_at: Option<Timestamp>,
    /// Why; cleared when an operation completes.
    pub failure_reason: Option<String>,
}

/// How a field is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// The same JSON scalar.
    Equals(serde_json::Value),
    /// Another scalar, or none.
    NotEquals(serde_json::Value),
    /// Less; numbers with numbers, text with text.
    Less(serde_json::Value),
    /// Less or the same.
    LessOrEqual(serde_json::Value),
    /// Greater.
    Greater(serde_json::Value),
    /// Greater or the same.
    GreaterOrEqual(serde_json::Value),
    /// SQL's `LIKE`: `%` any text, `_` any character, ASCII letters in either case.
    Like(String),
    /// One of these scalars.
    In(Vec<serde_json::Value>),
    /// Absent or `null`.
    Missing,
    /// Present.
    Present,
}

/// One condition on a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// A JSON path, as `$.title` or `$.answers.q4[0]`.
    pub path: String,
    /// What must hold there.
    pub comparison: Comparison,
}

/// Which entities `list` gives.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// Their type.
    pub entity_type: String,
    /// Conditions that must all hold.
    pub filters: Vec<Filter>,
    /// The JSON path to order by; none orders by arrival on this device.
    pub order_by: Option<String>,
    /// The highest first.
    pub descending: bool,
    /// [`EntityPage::next`] of the page before.
    pub after: Option<String>,
    /// 1 to 1,000.
    pub limit: usize,
}

impl ListQuery {
    /// The first 50 entities of a type.
    pub fn new(entity_type: impl Into<String>) -> Self {
        Self {
            entity_type: entity_type.into(),
            filters: Vec::new(),
            order_by: None,
            descending: false,
            after: None,
            limit: 50,
        }
    }

    /// With one more condition.
    #[must_use]
    pub fn filter(mut self, path: impl Into<String>, comparison: Comparison) -> Self {
        self.filters.push(Filter { path: path.into(), comparison });
        self
    }
}

/// A page of entities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityPage {
    /// At most `limit` of them; deleted ones are never among them.
    pub entities: Vec<Entity>,
    /// Give this as [`ListQuery::after`]; none on the last page.
    pub next: Option<String>,
}

/// A page of the local change feed: each entity that changed after the cursor once, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// In the order of their last change; `value` is none for those that are gone.
    pub entities: Vec<Entity>,
    /// Give this to the next call. It survives restarts.
    pub cursor: u64,
    /// Whether there is more at once.
    pub has_more: bool,
}

/// Which operations to list, in sequence order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationFilter {
    /// Only these states; empty means all.
    pub statuses: Vec<OperationStatus>,
    /// Only of this entity (type, id).
    pub entity: Option<(String, String)>,
    /// Only sequences above this.
    pub after: u64,
    /// 1 to 1,000.
    pub limit: usize,
}

impl Default for OperationFilter {
    fn default() -> Self {
        Self { statuses: Vec::new(), entity: None, after: 0, limit: 100 }
    }
}
