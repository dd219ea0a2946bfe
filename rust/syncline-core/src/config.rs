use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use syncline_protocol::{ConflictRule, DeleteRule};

/// How to open a database file. One file belongs to one user and one scope; a user of two teams has two files.
#[derive(Debug, Clone)]
pub struct Config {
    /// The SQLite file; its folder must exist. The lock file and SQLite's own `-wal` and `-shm` lie beside it.
    pub database: PathBuf,
    /// Where the endpoint is, and how it is spoken to.
    pub endpoint: Endpoint,
    /// The user the file belongs to.
    pub user_id: String,
    /// The scope the file belongs to.
    pub scope: String,
    /// Settings per entity type; types that are not named use [`EntityType::default`].
    pub entity_types: BTreeMap<String, EntityType>,
    /// Pull only these types; none means all.
    pub pull_types: Option<Vec<String>>,
    /// When an acknowledged write is safe.
    pub durability: Durability,
    /// How long ended operations are kept.
    pub retention: Retention,
    /// How requests are made.
    pub network: Network,
}

impl Config {
    /// A configuration with the defaults. A text for `endpoint` is the URL of [`Endpoint::Syncline`].
    pub fn new(
        database: impl Into<PathBuf>,
        endpoint: impl Into<Endpoint>,
        user_id: impl Into<String>,
        scope: impl Into<String>,
    ) -> Self {
        Self {
            database: database.into(),
            endpoint: endpoint.into(),
            user_id: user_id.into(),
            scope: scope.into(),
            entity_types: BTreeMap::new(),
            pull_types: None,
            durability: Durability::default(),
            retention: Retention::default(),
            network: Network::default(),
        }
    }

    /// With settings for one entity type.
    #[must_use]
    pub fn entity_type(mut self, name: impl Into<String>, settings: EntityType) -> Self {
        self.entity_types.insert(name.into(), settings);
        self
    }
}

/// Where the endpoint is, and how it is spoken to: the bodies are the same in both dialects.
#[derive(Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Syncline endpoint: `syncline serve`, or the Edge Function `sync-operations`.
    Syncline {
        /// Its base URL, as `https://sync.example.com`; `/v1/push` and `/v1/pull` are below it.
        url: String,
    },
    /// The functions `syncline_push` and `syncline_pull` of a Supabase project's database, by way of its Data API.
    Supabase {
        /// The project's URL, as `https://abc.supabase.co`; `/rest/v1/rpc/syncline_push` is below it.
        url: String,
        /// The project's publishable key (`sb_publishable_…`, or the older `anon` key). It names the project and gives no access;
        /// that comes from the user's token.
        publishable_key: String,
    },
}

impl Endpoint {
    /// A Supabase project, by its URL and its publishable key.
    pub fn supabase(url: impl Into<String>, publishable_key: impl Into<String>) -> Self {
        Self::Supabase { url: url.into(), publishable_key: publishable_key.into() }
    }
}

impl From<String> for Endpoint {
    fn from(url: String) -> Self {
        Self::Syncline { url }
    }
}

impl From<&str> for Endpoint {
    fn from(url: &str) -> Self {
        Self::Syncline { url: url.to_owned() }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syncline { url } => f.debug_struct("Syncline").field("url", url).finish(),
            Self::Supabase { url, .. } => f.debug_struct("Supabase").field("url", url).finish_non_exhaustive(),
        }
    }
}

/// Settings of one entity type on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityType {
    /// The rule the app asks for; the endpoint's own, if it has one, wins. None: the endpoint decides.
    pub conflicts: Option<ConflictRule>,
    /// Likewise for a deletion against a write.
    pub deletes: Option<DeleteRule>,
    /// Deliveries that may count against an operation, 1 to 100; 3 by default.
    pub max_attempts: u32,
    /// Whether a new operation folds into a waiting one of the same entity.
    pub coalesce: bool,
    /// Whether the old values travel with an operation, so that the server's ledger has them too.
    pub send_before: bool,
    /// JSON paths, as `$.title`, that `list` filters by: each gets an index.
    pub indexed_paths: Vec<String>,
}

impl Default for EntityType {
    fn default() -> Self {
        Self {
            conflicts: None,
            deletes: None,
            max_attempts: 3,
            coalesce: true,
            send_before: false,
            indexed_paths: Vec::new(),
        }
    }
}

/// When `enqueue` may return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// After the write is on the disk: it survives a power loss (`synchronous=FULL`, on Apple `fullfsync`).
    #[default]
    Full,
    /// After the write is with the operating system: it survives the app's death, not a power loss (`synchronous=NORMAL`).
    Normal,
}

/// How long operations that ended are kept. Longer than a standby of the server may lag, or what it loses cannot be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At least this long.
    pub age: Duration,
    /// And at least so many of the newest.
    pub count: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(15 * 60), count: 100 }
    }
}

/// How requests are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// A request without an answer after this long counts as dropped.
    pub timeout: Duration,
    /// Batches in flight at once, 1 to 8.
    pub max_in_flight: usize,
    /// Allows `http://` to hosts other than loopback. For tests in a closed network only.
    pub allow_cleartext: bool,
    /// More certificate authorities, as PEM, beside the bundled roots.
    pub extra_roots_pem: Vec<String>,
    /// How often to pull when nothing else gives a reason to.
    pub pull_interval: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            max_in_flight: 3,
            allow_cleartext: false,
            extra_roots_pem: Vec::new(),
            pull_interval: Duration::from_secs(60),
        }
    }
}
