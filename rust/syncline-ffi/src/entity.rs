use serde_json::Value;
use syncline_core as core;

use crate::SynclineError;
use crate::contained::Result;
use crate::operation::{limit, signed};

/// How far an entity is synced: the worst of its operations that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
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

/// An entity as this device sees it: what the server last said, with the operations that are not settled folded in.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
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
    pub last_synced_at_ms: Option<i64>,
    /// When one of its operations last failed.
    pub last_failed_sync_at_ms: Option<i64>,
    /// Why; cleared when an operation completes.
    pub failure_reason: Option<String>,
}

/// How a field is compared. Values are JSON text of a scalar, as `"Leak"`, `5` or `true`.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "the enum says what the values are")]
pub enum Comparison {
    /// The same scalar.
    Equals { value: String },
    /// Another scalar, or none.
    NotEquals { value: String },
    /// Less; numbers with numbers, text with text.
    Less { value: String },
    /// Less or the same.
    LessOrEqual { value: String },
    /// Greater.
    Greater { value: String },
    /// Greater or the same.
    GreaterOrEqual { value: String },
    /// SQL's `LIKE`: `%` any text, `_` any character, ASCII letters in either case.
    Like { pattern: String },
    /// One of these scalars.
    In { values: Vec<String> },
    /// Absent or `null`.
    Missing,
    /// Present.
    Present,
}

/// One condition on a field.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct Filter {
    /// A JSON path, as `$.title` or `$.answers.q4[0]`.
    pub path: String,
    /// What must hold there.
    pub comparison: Comparison,
}

/// Which entities to list.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ListQuery {
    /// Their type.
    pub entity_type: String,
    /// Conditions that must all hold.
    #[uniffi(default)]
    pub filters: Vec<Filter>,
    /// The JSON path to order by; none orders by arrival on this device.
    #[uniffi(default)]
    pub order_by: Option<String>,
    /// The highest first.
    #[uniffi(default = false)]
    pub descending: bool,
    /// `next` of the page before.
    #[uniffi(default)]
    pub after: Option<String>,
    /// 1 to 1,000.
    #[uniffi(default = 50)]
    pub limit: i32,
}

/// A page of entities.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct EntityPage {
    /// At most `limit` of them; deleted ones are never among them.
    pub entities: Vec<Entity>,
    /// What to give as `after` for the next page; none on the last.
    pub next: Option<String>,
}

/// A page of the local change feed: each entity that changed after the cursor once, as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ChangePage {
    /// In the order of their last change; `value` is none for those that are gone.
    pub entities: Vec<Entity>,
    /// What to give to the next call. It survives restarts.
    pub cursor: i64,
    /// Whether there is more at once.
    pub has_more: bool,
}

impl From<core::Entity> for Entity {
    fn from(entity: core::Entity) -> Self {
        Self {
            entity_type: entity.entity_type,
            entity_id: entity.entity_id,
            value: entity.value,
            sync_status: match entity.sync_status {
                core::SyncStatus::Synced => SyncStatus::Synced,
                core::SyncStatus::Pending => SyncStatus::Pending,
                core::SyncStatus::Syncing => SyncStatus::Syncing,
                core::SyncStatus::Failed => SyncStatus::Failed,
                core::SyncStatus::Conflicted => SyncStatus::Conflicted,
            },
            last_synced_at_ms: entity.last_synced_at.map(|at| at.millis()),
            last_failed_sync_at_ms: entity.last_failed_sync_at.map(|at| at.millis()),
            failure_reason: entity.failure_reason,
        }
    }
}

impl From<core::EntityPage> for EntityPage {
    fn from(page: core::EntityPage) -> Self {
        Self { entities: page.entities.into_iter().map(Into::into).collect(), next: page.next }
    }
}

impl From<core::ChangePage> for ChangePage {
    fn from(page: core::ChangePage) -> Self {
        Self {
            entities: page.entities.into_iter().map(Into::into).collect(),
            cursor: signed(page.cursor),
            has_more: page.has_more,
        }
    }
}

impl Comparison {
    fn into_core(self, at: usize) -> Result<core::Comparison> {
        let scalar = |text: &str| {
            serde_json::from_str::<Value>(text).ok().filter(|value| !value.is_object() && !value.is_array()).ok_or_else(
                || SynclineError::operation(format!("filters[{at}].value"), "must be JSON text of a scalar"),
            )
        };
        Ok(match self {
            Self::Equals { value } => core::Comparison::Equals(scalar(&value)?),
            Self::NotEquals { value } => core::Comparison::NotEquals(scalar(&value)?),
            Self::Less { value } => core::Comparison::Less(scalar(&value)?),
            Self::LessOrEqual { value } => core::Comparison::LessOrEqual(scalar(&value)?),
            Self::Greater { value } => core::Comparison::Greater(scalar(&value)?),
            Self::GreaterOrEqual { value } => core::Comparison::GreaterOrEqual(scalar(&value)?),
            Self::Like { pattern } => core::Comparison::Like(pattern),
            Self::In { values } => {
                core::Comparison::In(values.iter().map(|value| scalar(value)).collect::<Result<_>>()?)
            }
            Self::Missing => core::Comparison::Missing,
            Self::Present => core::Comparison::Present,
        })
    }
}

impl ListQuery {
    pub(crate) fn into_core(self) -> Result<core::ListQuery> {
        let filter = |(at, filter): (usize, Filter)| {
            Ok(core::Filter { path: filter.path, comparison: filter.comparison.into_core(at)? })
        };
        Ok(core::ListQuery {
            entity_type: self.entity_type,
            filters: self.filters.into_iter().enumerate().map(filter).collect::<Result<_>>()?,
            order_by: self.order_by,
            descending: self.descending,
            after: self.after,
            limit: limit(self.limit)?,
        })
    }
}
