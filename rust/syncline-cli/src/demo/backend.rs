//! What the endpoint keeps its data in: an SQLite file, or, in builds with the feature `chaos`, a private Postgres, which is started
//! here and ends with its owner.

use std::path::Path;

use serde_json::Value;

use super::DemoError;

/// As the command line names them.
#[cfg(feature = "chaos")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// What an endpoint stands on.
pub(crate) enum Backend {
    /// `endpoint.db` in its folder.
    Sqlite,
    #[cfg(feature = "chaos")]
    Postgres(Postgres),
}

/// A private cluster, and the endpoint's database in it.
#[cfg(feature = "chaos")]
pub(crate) struct Postgres {
    pub(crate) cluster: syncline_testkit::postgres::Cluster,
    pub(crate) database: syncline_testkit::postgres::Database,
}

/// Its name.
#[cfg(feature = "chaos")]
pub(crate) const DATABASE: &str = "app";

impl Backend {
    /// Starts what must run before the endpoint.
    ///
    /// # Errors
    /// There is no PostgreSQL on this machine.
    #[cfg(feature = "chaos")]
    pub(crate) fn start(kind: Kind) -> Result<Self, DemoError> {
        match kind {
            Kind::Sqlite => Ok(Self::Sqlite),
            Kind::Postgres => Postgres::start().map(Self::Postgres),
        }
    }

    /// The address of the database; none if it is a file.
    pub(crate) fn database(&self) -> Option<&str> {
        match self {
            Self::Sqlite => None,
            #[cfg(feature = "chaos")]
            Self::Postgres(postgres) => Some(postgres.database.url()),
        }
    }

    /// Takes over what a configuration says about entity types and operations per push, where that is the database's. Gives what
    /// is left for the endpoint.
    pub(crate) fn configure(&self, configuration: Value) -> Value {
        match self {
            Self::Sqlite => configuration,
            #[cfg(feature = "chaos")]
            Self::Postgres(postgres) => postgres.configure(configuration),
        }
    }

    /// Leaves what the endpoint held in `file`, and ends. The endpoint must have ended.
    ///
    /// # Errors
    /// The database's, or the file's.
    #[cfg_attr(
        not(feature = "chaos"),
        expect(unused_variables, clippy::unused_async, reason = "the file is there already")
    )]
    pub(crate) async fn leave(self, file: &Path) -> Result<(), DemoError> {
        match self {
            Self::Sqlite => Ok(()),
            #[cfg(feature = "chaos")]
            Self::Postgres(postgres) => Ok(syncline_testkit::server_copy::copy(&postgres.database, file).await?),
        }
    }
}

#[cfg(feature = "chaos")]
impl Postgres {
    /// Starts a cluster with a database for the endpoint.
    ///
    /// # Errors
    /// There is no PostgreSQL on this machine.
    pub(crate) fn start() -> Result<Self, DemoError> {
        use syncline_testkit::postgres::{Cluster, Durability, find_binaries};
        if find_binaries().is_none() {
            let missing = "there is no PostgreSQL 15 or later: install it (Debian: apt install postgresql), or set SYNCLINE_PG_BIN";
            return Err(DemoError::Stuck(missing.to_owned()));
        }
        // Waiting for it must not hold up the other tasks of this thread.
        Ok(tokio::task::block_in_place(|| {
            let cluster = Cluster::start(Durability::Full);
            let database = cluster.database(DATABASE);
            Self { cluster, database }
        }))
    }

    /// As [`Backend::configure`].
    pub(crate) fn configure(&self, mut configuration: Value) -> Value {
        let types = configuration.as_object_mut().and_then(|members| members.remove("types")).unwrap_or_default();
        let types = types.to_string().replace('\'', "''");
        let limit = configuration["limits"]["request"]["max_operations"].as_u64().unwrap_or(500);
        let statements = format!(
            "SELECT syncline.configure_types('{types}');
             UPDATE syncline.settings SET scope_claim = 'scope', max_operations = {limit};"
        );
        tokio::task::block_in_place(|| self.cluster.sql(DATABASE, &statements));
        configuration
    }
}
