use serde::{Deserialize, Serialize};

use crate::{Clock, Record, Timestamp};

/// `POST /v1/pull`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PullRequest {
    /// [`crate::PROTOCOL`].
    pub protocol: u32,
    /// The user the file was opened for; compared with the token.
    pub user_id: String,
    /// The scope the file was opened for; compared with the token.
    pub scope: String,
    /// The asking device.
    pub device_id: String,
    /// The epoch the device knows; none on its first pull.
    #[serde(default)]
    pub epoch: Option<String>,
    /// The highest mark the device has recorded.
    #[serde(default)]
    pub mark: u64,
    /// Where to go on; none means from the start.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Only these types; none means all.
    #[serde(default)]
    pub entity_types: Option<Vec<String>>,
    /// At most so many changes.
    pub limit: u64,
}

/// The answer to a pull.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PullResponse {
    /// In order of version, each entity once.
    pub changes: Vec<Change>,
    /// Where the next pull goes on.
    pub cursor: String,
    /// The scope's epoch.
    pub epoch: String,
    /// Whether there is more.
    #[serde(default)]
    pub has_more: bool,
    /// The request's cursor could not be used: this page is the first one from the start.
    #[serde(default)]
    pub reset: bool,
}

/// An entity as it stands on the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// The entity's type.
    pub entity_type: String,
    /// The entity's id.
    pub entity_id: String,
    /// Its version.
    pub version: u64,
    /// Its fields; absent when deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// Whether it is a tombstone.
    #[serde(default)]
    pub deleted: bool,
    /// The record's clock.
    pub clock: Clock,
    /// The highest timestamp of its fields, create and delete.
    pub changed_at: Timestamp,
}
