use std::collections::HashMap;
use std::time::Duration;

use syncline_core as core;

use crate::SynclineError;
use crate::contained::Result;

/// How to open a database file. One file belongs to one user and one scope; a user of two teams has two files.
#[derive(Debug, Clone, uniffi::Record)]
pub struct SyncConfig {
    /// The SQLite file; its folder must exist. The lock file and SQLite's own `-wal` and `-shm` lie beside it.
    pub database: String,
    /// Where the endpoint is, and how it is spoken to.
    pub endpoint: Endpoint,
    /// The user the file belongs to.
    pub user_id: String,
    /// The scope the file belongs to.
    pub scope: String,
    /// Settings by entity type; types that are not named have the defaults.
    #[uniffi(default)]
    pub entity_types: HashMap<String, EntityType>,
    /// Pull only these types; none means all.
    #[uniffi(default)]
    pub pull_types: Option<Vec<String>>,
    /// When an acknowledged write is safe.
    #[uniffi(default)]
    pub durability: Option<Durability>,
    /// How long operations that ended are kept at least, in milliseconds. Longer than a standby of the server may lag.
    #[uniffi(default = 900000)]
    pub retention_age_ms: i64,
    /// And at least so many of the newest.
    #[uniffi(default = 100)]
    pub retention_count: i64,
    /// A request without an answer after so many milliseconds counts as dropped.
    #[uniffi(default = 30000)]
    pub timeout_ms: i64,
    /// Batches in flight at once, 1 to 8.
    #[uniffi(default = 3)]
    pub max_in_flight: i32,
    /// Allows `http://` to hosts other than loopback. For tests in a closed network only.
    #[uniffi(default = false)]
    pub allow_cleartext: bool,
    /// More certificate authorities, as PEM, beside the bundled roots.
    #[uniffi(default)]
    pub extra_roots_pem: Vec<String>,
    /// How often to pull when nothing else gives a reason to, in milliseconds.
    #[uniffi(default = 60000)]
    pub pull_interval_ms: i64,
}

/// Where the endpoint is, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Enum)]
pub enum Endpoint {
    /// A Syncline endpoint: `syncline serve`, or the Edge Function `sync-operations`.
    Syncline {
        /// Its base URL, as `https://sync.example.com`.
        url: String,
    },
    /// The functions of a Supabase project's database, by way of its Data API.
    Supabase {
        /// The project's URL, as `https://abc.supabase.co`.
        url: String,
        /// The project's publishable key. It names the project and gives no access.
        publishable_key: String,
    },
}

/// Settings of one entity type on the device.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct EntityType {
    /// The rule the app asks for; the endpoint's own, if it has one, wins. None: the endpoint decides.
    #[uniffi(default)]
    pub conflicts: Option<ConflictRule>,
    /// Likewise for a deletion against a write.
    #[uniffi(default)]
    pub deletes: Option<DeleteRule>,
    /// Deliveries that may count against an operation, 1 to 100.
    #[uniffi(default = 3)]
    pub max_attempts: i32,
    /// Whether a new operation folds into a waiting one of the same entity.
    #[uniffi(default = true)]
    pub coalesce: bool,
    /// Whether the old values travel with an operation, so that the server's ledger has them too.
    #[uniffi(default = false)]
    pub send_before: bool,
    /// JSON paths, as `$.title`, that lists filter by: each gets an index.
    #[uniffi(default)]
    pub indexed_paths: Vec<String>,
}

/// Who wins when two writes of a field have not seen each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum ConflictRule {
    /// The later timestamp; ties go to the higher device id.
    LastWriterWins,
    /// What the server already has.
    ServerWins,
    /// What arrives.
    ClientWins,
    /// Nobody: the operation waits as conflicted until the app resolves it.
    Manual,
}

/// Who wins when a deletion and a write have not seen each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum DeleteRule {
    /// The entity lives on, or revives, with the write.
    UpdateWins,
    /// The entity is deleted.
    DeleteWins,
}

/// When an acknowledged write is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
pub enum Durability {
    /// It is on the disk: it survives a power loss. The default.
    Full,
    /// It is with the operating system: it survives the app's death, not a power loss.
    Normal,
}

/// `value`, or that `field` may not be negative.
pub(crate) fn unsigned(field: &str, value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| SynclineError::config(field, "must not be negative"))
}

fn millis(field: &str, value: i64) -> Result<Duration> {
    unsigned(field, value).map(Duration::from_millis)
}

impl SyncConfig {
    pub(crate) fn into_core(self) -> Result<core::Config> {
        let endpoint = match self.endpoint {
            Endpoint::Syncline { url } => core::Endpoint::Syncline { url },
            Endpoint::Supabase { url, publishable_key } => core::Endpoint::Supabase { url, publishable_key },
        };
        let mut config = core::Config::new(self.database, endpoint, self.user_id, self.scope);
        let in_order: std::collections::BTreeMap<_, _> = self.entity_types.into_iter().collect();
        for (name, settings) in in_order {
            let settings = settings.into_core(&name)?;
            config = config.entity_type(name, settings);
        }
        config.pull_types = self.pull_types;
        config.durability = match self.durability {
            Some(Durability::Normal) => core::Durability::Normal,
            Some(Durability::Full) | None => core::Durability::Full,
        };
        config.retention = core::Retention {
            age: millis("retention_age_ms", self.retention_age_ms)?,
            count: unsigned("retention_count", self.retention_count)?,
        };
        config.network = core::Network {
            timeout: millis("timeout_ms", self.timeout_ms)?,
            max_in_flight: usize::try_from(self.max_in_flight)
                .map_err(|_| SynclineError::config("max_in_flight", "must be 1 to 8"))?,
            allow_cleartext: self.allow_cleartext,
            extra_roots_pem: self.extra_roots_pem,
            pull_interval: millis("pull_interval_ms", self.pull_interval_ms)?,
        };
        Ok(config)
    }
}

impl EntityType {
    fn into_core(self, name: &str) -> Result<core::EntityType> {
        let attempts = || SynclineError::config(format!("entity_types.{name}.max_attempts"), "must be 1 to 100");
        Ok(core::EntityType {
            conflicts: self.conflicts.map(|rule| match rule {
                ConflictRule::LastWriterWins => syncline_protocol::ConflictRule::LastWriterWins,
                ConflictRule::ServerWins => syncline_protocol::ConflictRule::ServerWins,
                ConflictRule::ClientWins => syncline_protocol::ConflictRule::ClientWins,
                ConflictRule::Manual => syncline_protocol::ConflictRule::Manual,
            }),
            deletes: self.deletes.map(|rule| match rule {
                DeleteRule::UpdateWins => syncline_protocol::DeleteRule::UpdateWins,
                DeleteRule::DeleteWins => syncline_protocol::DeleteRule::DeleteWins,
            }),
            max_attempts: u32::try_from(self.max_attempts).map_err(|_| attempts())?,
            coalesce: self.coalesce,
            send_before: self.send_before,
            indexed_paths: self.indexed_paths,
        })
    }
}
