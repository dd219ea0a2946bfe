use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::auth::{AuthConfig, InvalidAuth};
use crate::endpoint::EndpointLimits;
use crate::endpoint::types::{InvalidType, TypeConfig};
use crate::store::StorageError;

/// An endpoint's whole configuration; the form of its JSON file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the data is.
    pub store: StoreConfig,
    /// How tokens are verified.
    pub auth: AuthConfig,
    /// Entity types with rules or a schema of their own; others take the app's wishes.
    #[serde(default)]
    pub types: BTreeMap<String, TypeConfig>,
    /// What one request, and one client, may ask for.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// Where the data is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The SQLite file; made if it does not exist.
    pub path: PathBuf,
    /// The SQLite VFS to open it on.
    #[serde(default)]
    pub vfs: Option<String>,
    /// The file was restored from a backup: every scope gets a new epoch. Must be said once after each restore, and not
    /// again; without it, a late duplicate of an old request may hide what was lost.
    #[serde(default)]
    pub restored: bool,
}

/// What one request, and one client, may ask for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Of one request's content.
    pub request: EndpointLimits,
    /// Bytes of a gzip or zstd body as it arrives.
    pub max_compressed_bytes: u64,
    /// Requests handled at the same time; more get 503.
    pub max_in_flight: u32,
    /// Requests of one device of one user in a minute, on average; more get 429. A user with several devices gets eight
    /// times as many in all.
    pub requests_per_minute: u32,
    /// Requests that a device may send at once, above the average.
    pub burst: u32,
    /// Seconds that one request may take, its body included.
    pub timeout_seconds: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            request: EndpointLimits::default(),
            max_compressed_bytes: 1024 * 1024,
            max_in_flight: 64,
            requests_per_minute: 1200,
            burst: 200,
            timeout_seconds: 30,
        }
    }
}

impl Config {
    /// Reads a JSON configuration.
    ///
    /// # Errors
    /// JSON's; the message may quote the configuration, which can hold a secret, so it names only the place.
    pub fn from_json(text: &str) -> Result<Self, ServeError> {
        serde_json::from_str(text)
            .map_err(|error| ServeError::Config(format!("line {} column {}", error.line(), error.column())))
    }
}

/// Why an endpoint does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be read.
    #[error("the configuration is not valid at {0}")]
    Config(String),
    /// A limit is 0.
    #[error("limits: {0} is 0")]
    Limit(&'static str),
    /// An entity type's configuration.
    #[error(transparent)]
    Type(#[from] InvalidType),
    /// The token configuration.
    #[error(transparent)]
    Auth(#[from] InvalidAuth),
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
