//! The embedded endpoint as a host: no HTTP, a file in memory.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use syncline_core::transport::Route;
use syncline_protocol::{PROTOCOL, PROTOCOL_HEADER, Timestamp};
use syncline_server::endpoint::types::{TypeConfig, Types};
use syncline_server::{Embedded, Endpoint as _, EndpointLimits, Random, Request, SqliteStore};

use super::host::{Ability, Answered, Host, HostError, Sent};

/// The embedded SQLite endpoint.
pub struct EmbeddedHost {
    endpoint: Embedded<SqliteStore>,
    now: Timestamp,
    random: Counting,
}

/// Ids that are new each time, and the same in every run.
struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        for (byte, part) in bytes.iter_mut().zip(self.0.to_be_bytes().into_iter().rev().chain([0; 8])) {
            *byte = part;
        }
    }
}

impl EmbeddedHost {
    /// An endpoint that was never used.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new() -> Result<Self, HostError> {
        let now = Timestamp::from_millis(0);
        Ok(Self { endpoint: open(BTreeMap::new())?, now, random: Counting(0) })
    }

    /// The endpoint, to look into.
    pub fn endpoint(&mut self) -> &mut Embedded<SqliteStore> {
        &mut self.endpoint
    }
}

fn open(types: BTreeMap<String, TypeConfig>) -> Result<Embedded<SqliteStore>, HostError> {
    let store = SqliteStore::open_in_memory().map_err(HostError::new)?;
    Ok(Embedded::new(store, Types::new(types).map_err(HostError::new)?, EndpointLimits::default()))
}

impl Host for EmbeddedHost {
    fn name(&self) -> &str {
        "embedded"
    }

    fn abilities(&self) -> BTreeSet<Ability> {
        use Ability::{Clock, Ledger, Maintain, RenewEpochs, Schemas, Text, Types};
        [Clock, Types, Schemas, Ledger, Maintain, RenewEpochs, Text].into()
    }

    fn reset(&mut self, types: &Value) -> Result<(), HostError> {
        self.endpoint = open(serde_json::from_value(types.clone()).map_err(HostError::new)?)?;
        Ok(())
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
        let claims = sent.claims.clone();
        let answer = self.endpoint.handle(request, &claims, self.now, &mut self.random);
        let headers = [
            ("content-type".to_owned(), answer.content_type.to_owned()),
            (PROTOCOL_HEADER.to_owned(), PROTOCOL.to_string()),
        ];
        Ok(Answered { status: answer.status, headers: headers.into(), body: answer.body.into_bytes() })
    }

    fn maintain(&mut self, scope: &str) -> Result<(), HostError> {
        self.endpoint.purge(scope, self.now).map(drop).map_err(HostError::new)
    }

    fn renew_epochs(&mut self, _scope: &str) -> Result<(), HostError> {
        self.endpoint.renew_epochs(self.now, &mut self.random).map_err(HostError::new)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError> {
        let rows = self.endpoint.ledger(scope).map_err(HostError::new)?;
        rows.iter().map(|row| serde_json::from_str(&text(row)?).map_err(HostError::new)).collect()
    }
}

/// By way of the text: raw values are written to text only.
fn text(row: &syncline_protocol::Conflict) -> Result<String, HostError> {
    serde_json::to_string(row).map_err(HostError::new)
}
