//! What an endpoint must offer so that vectors can be run against it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use flate2::Compression;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use syncline_core::transport::Route;
use syncline_protocol::Timestamp;
use syncline_server::Claims;

use super::tables::DirectWrite;

/// Something that a host may lack. A vector that needs it is then skipped, and counted as skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Its clock can be set. Without it, times in vectors are relative to the host's own clock.
    Clock,
    /// An operator's rules for entity types can be set.
    Types,
    /// So can JSON schemas for them.
    Schemas,
    /// Its ledger can be read.
    Ledger,
    /// The operator's round of forgetting can be run.
    Maintain,
    /// The operator can renew epochs.
    RenewEpochs,
    /// It speaks HTTP itself: paths, methods, tokens, packing, headers.
    Http,
    /// It gives a value back in the text that it was written with (ADR 8), not only as the same JSON (ADR 22).
    Text,
    /// Its types are rows of tables, which others write as well.
    Tables,
}

/// How an endpoint says what is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As a problem, with our header.
    Syncline,
    /// Through Supabase's RPC: what fails before our function begins comes as PostgREST's error object.
    Rpc,
}

/// A request as it goes to a host.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// Where to.
    pub route: Route,
    /// The bytes, inflated.
    pub body: &'a [u8],
    /// What the token says.
    pub claims: &'a Claims,
    /// How it travels, for a host with [`Ability::Http`]; none: as usual.
    pub http: Option<&'a Http>,
}

/// How a request travels. What is left out is as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `POST`, if none.
    pub method: Option<String>,
    /// The route's, if none.
    pub path: Option<String>,
    /// Headers in place of the usual ones; null leaves one out.
    pub headers: BTreeMap<String, Option<String>>,
    /// `gzip`, `zstd`, or `stored`: gzip that makes nothing smaller.
    pub pack: Option<String>,
}

impl Http {
    /// What `content-encoding` says.
    pub fn encoding(&self) -> Option<&str> {
        self.pack.as_deref().map(|pack| if pack == "stored" { "gzip" } else { pack })
    }

    /// The body as it travels.
    ///
    /// # Errors
    /// A packing that is none.
    pub fn packed(&self, body: &[u8]) -> Result<Vec<u8>, HostError> {
        let gzip = |level| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).map_err(HostError::new)?;
            encoder.finish().map_err(HostError::new)
        };
        match self.pack.as_deref() {
            None => Ok(body.to_vec()),
            Some("gzip") => gzip(Compression::fast()),
            Some("stored") => gzip(Compression::none()),
            Some("zstd") => zstd::bulk::compress(body, 3).map_err(HostError::new),
            Some(other) => Err(HostError(format!("nothing is known of {other}"))),
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The bytes, inflated.
    pub body: Vec<u8>,
}

/// The host itself failed: nothing was judged.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

impl HostError {
    /// From anything that says what went wrong.
    pub fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

/// An endpoint under test. Every vector uses scopes of its own, so a host need not forget what came before.
pub trait Host {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// What it can do.
    fn abilities(&self) -> BTreeSet<Ability>;

    /// How it says what is wrong with a request.
    fn dialect(&self) -> Dialect {
        Dialect::Syncline
    }

    /// The scope with this number: the same text each time, another one for each number.
    fn scope(&self, number: u64) -> String {
        format!("vector-{number}")
    }

    /// Before each vector: the operator's configuration of entity types, in place of the one before (an empty object: none).
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn reset(&mut self, types: &Value) -> Result<(), HostError>;

    /// Sets the clock, if it has the ability. Gives what its clock shows.
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn set_clock(&mut self, wanted: Timestamp) -> Result<Timestamp, HostError>;

    /// Answers a request.
    ///
    /// # Errors
    /// No answer came.
    fn handle(&mut self, request: Sent<'_>) -> Result<Answered, HostError>;

    /// The operator's round of forgetting ([`Ability::Maintain`]).
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn maintain(&mut self, scope: &str) -> Result<(), HostError>;

    /// The operator says that the data was restored ([`Ability::RenewEpochs`]).
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn renew_epochs(&mut self, scope: &str) -> Result<(), HostError>;

    /// Somebody else writes a table ([`Ability::Tables`]).
    ///
    /// # Errors
    /// Whatever keeps it from that: it has no tables.
    fn write_directly(&mut self, _: &DirectWrite) -> Result<(), HostError> {
        Err(HostError::new("it has no tables"))
    }

    /// A row of a scope's tables that is not as its record, if there is one.
    ///
    /// # Errors
    /// Whatever keeps it from looking.
    fn disagreement(&mut self, _scope: &str) -> Result<Option<String>, HostError> {
        Ok(None)
    }

    /// The scope's ledger, oldest row first, each as on the wire ([`Ability::Ledger`]).
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn ledger(&mut self, scope: &str) -> Result<Vec<Value>, HostError>;
}
