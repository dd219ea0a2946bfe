//! Postgres as a host: the functions of `supabase/`, called as `syncline serve --postgres` calls them, without HTTP.

use std::collections::BTreeSet;

use serde_json::Value;
use syncline_core::transport::Route;
use syncline_protocol::{PROTOCOL, PROTOCOL_HEADER, Timestamp};
use syncline_server::{Concurrent as _, PostgresConfig, PostgresEndpoint, Random, Request};

use super::host::{Ability, Answered, Host, HostError, Sent};
use super::tables::{DirectWrite, Tables};
use crate::postgres::Database;

/// A database with Syncline's migrations.
pub struct PostgresHost {
    endpoint: PostgresEndpoint,
    now: Timestamp,
    tables: Option<Tables>,
}

/// The database draws its own ids.
struct Undrawn;

impl Random for Undrawn {
    fn fill(&mut self, _: &mut [u8]) {
        unreachable!("the endpoint on Postgres draws nothing")
    }
}

impl PostgresHost {
    /// The endpoint that this database is.
    ///
    /// # Errors
    /// The database's.
    pub fn new(database: &Database) -> Result<Self, HostError> {
        let config = PostgresConfig { time_is_given: true, ..PostgresConfig::new(database.url()) };
        let endpoint = PostgresEndpoint::open(&config, false).map_err(HostError::new)?;
        Ok(Self { endpoint, now: Timestamp::from_millis(0), tables: None })
    }

    /// The same, with a table for each of these types, once for a database.
    ///
    /// # Errors
    /// The database's.
    pub fn with_tables(database: &Database, types: &[&str]) -> Result<Self, HostError> {
        Ok(Self { tables: Some(Tables::make(database, types)?), ..Self::new(database)? })
    }

    /// The endpoint, to look into.
    pub fn endpoint(&self) -> &PostgresEndpoint {
        &self.endpoint
    }
}

impl Host for PostgresHost {
    fn name(&self) -> &str {
        "postgres"
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        use Ability::{Clock, Ledger, Maintain, RenewEpochs, Schemas, Types};
        let all = [Clock, Types, Schemas, Ledger, Maintain, RenewEpochs];
        all.into_iter().chain(self.tables.is_some().then_some(Ability::Tables)).collect()
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.endpoint.configure_types(&types.to_string()).map_err(HostError::new)
    }

    fn set_clock(&mut self, wanted: Timestamp) -> Result<Timestamp, HostError> {
        self.now = wanted;
        Ok(wanted)
    }

    fn handle(&mut self, sent: Sent<'_>) -> Result<Answered, HostError> {
        let request = match sent.route {
            Route::Push => Request::Push(sent.body),
            Route::Pull => Request::Pull(sent.body),
        };
        let answer = self.endpoint.handle(request, sent.claims, self.now, &mut Undrawn);
        let headers = [
            ("content-type".to_owned(), answer.content_type.to_owned()),
            (PROTOCOL_HEADER.to_owned(), PROTOCOL.to_string()),
        ];
        Ok(Answered { status: answer.status, headers: headers.into(), body: answer.body.into_bytes() })
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.endpoint.purge(scope, self.now).map_err(HostError::new)
    }

    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError> {
        self.endpoint.renew_epoch(scope).map_err(HostError::new)
    }

    fn write_directly(&mut self, write: &DirectWrite) -> Result<(), HostError> {
        self.tables.as_ref().ok_or_else(|| HostError::new("it has no tables"))?.write(write)
    }

    fn disagreement(&mut self, scope: &str) -> Result<Option<String>, HostError> {
        self.tables.as_ref().map_or(Ok(None), |tables| tables.disagreement(scope))
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        let rows = self.endpoint.ledger(scope).map_err(HostError::new)?;
        rows.iter().map(|row| serde_json::from_str(row).map_err(HostError::new)).collect()
    }
}
