//! `syncline inspect --postgres`: the registered tables of a database, and what is wrong with them (docs/postgres-tables.md).

use serde_json::{Value, json};
use syncline_server::{PostgresConfig, PostgresEndpoint, RegisteredTable, ServeError};

use crate::failure::Failure;
use crate::output::{BAD, QUIET, STRONG, styled};

/// Where the database is, if the option is given without a value.
const VARIABLE: &str = "SYNCLINE_POSTGRES";

/// The tables, as the database reports them.
///
/// # Errors
/// No connection, a database of another version, or a role that may not ask.
pub(super) fn read(url: &str) -> Result<Vec<RegisteredTable>, Failure> {
    let url = match url {
        "" => std::env::var(VARIABLE)
            .map_err(|_| Failure::CannotRun(format!("--postgres has no value, and neither has {VARIABLE}")))?,
        given => given.to_owned(),
    };
    let failed = |error| Failure::Failed(ServeError::from(error).to_string());
    // It has a runtime of its own, and this thread belongs to one.
    tokio::task::block_in_place(|| {
        let endpoint = PostgresEndpoint::open(&PostgresConfig::new(url), false).map_err(failed)?;
        endpoint.tables().map_err(failed)
    })
}

pub(super) fn json(tables: &[RegisteredTable]) -> Value {
    let one = |table: &RegisteredTable| json!({ "entity_type": table.entity_type, "table": table.name, "problems": table.problems });
    json!({ "tables": tables.iter().map(one).collect::<Vec<_>>() })
}

pub(super) fn text(tables: &[RegisteredTable]) -> String {
    if tables.is_empty() {
        return styled(QUIET, "  No entity type is registered to a table.\n");
    }
    let one = |table: &RegisteredTable| {
        let head = format!("  {}  {}", styled(STRONG, &table.entity_type), table.name);
        let state = if table.problems.is_empty() { styled(QUIET, "as it was registered") } else { String::new() };
        let problems = table.problems.iter().map(|problem| format!("    {} {problem}\n", styled(BAD, "!")));
        format!("{head}  {state}\n{}", problems.collect::<String>())
    };
    tables.iter().map(one).collect()
}

/// Findings are a failure, so that a script notices.
pub(super) fn verdict(tables: &[RegisteredTable]) -> Result<(), Failure> {
    match tables.iter().map(|table| table.problems.len()).sum::<usize>() {
        0 => Ok(()),
        count => Err(Failure::Failed(format!(
            "{count} finding(s): see docs/postgres-tables.md, and register the table again"
        ))),
    }
}
