//! What the endpoint on Postgres holds, as a file of the embedded endpoint would hold it: whoever judges files judges it too.
//!
//! Read by plain SELECTs in one snapshot, so that nothing of the endpoint is asked.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params_from_iter};
use tokio_postgres::{Config, IsolationLevel, NoTls, Row, Transaction};

use crate::postgres::Database;

/// The embedded endpoint's schema.
const SCHEMA: &str = include_str!("../../syncline-server/migrations/0001_init.sql");

/// Why a database could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database's.
    #[error("the database cannot be read: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    /// The file's.
    #[error("the copy cannot be written: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// A table of the copy, and what fills its columns.
struct Table {
    name: &'static str,
    columns: &'static str,
    select: &'static str,
}

const TABLES: [Table; 5] = [
    Table {
        name: "scopes",
        columns: "scope, head, epoch, purged_through",
        select: "SELECT scope, head, epoch, purged_through FROM syncline.scopes",
    },
    Table {
        name: "devices",
        columns: "scope, device_id, user_id, mark, forgotten_through",
        select: "SELECT scope, device_id, user_id, mark, forgotten_through FROM syncline.devices",
    },
    Table {
        name: "entities",
        columns: "scope, entity_type, entity_id, version, deleted, payload, clock, fields, created_by, deleted_by, stored_at",
        select: "SELECT scope, entity_type, entity_id, version, (deleted IS NOT NULL)::int::bigint, payload::text, clock::text,
                        fields::text, created::text, deleted::text, stored_at FROM syncline.entities",
    },
    // The number of a transaction is drawn under the lock of the scope, so it tells the order of commits. What one push wrote
    // has no order of its own in the table: sequences stand for it.
    Table {
        name: "operations",
        columns: "scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id, payload_hash,
                  verdict, error, conflict_id, decided_at",
        select: "SELECT scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id, content_hash,
                        verdict, error::text, conflict_id, decided_at
                 FROM syncline.operations ORDER BY xmin::text::bigint, sequence, idempotency_key",
    },
    Table {
        name: "conflicts",
        columns: "scope, id, operation_id, entity_type, entity_id, rule, result, decided_at, conflict",
        select: "SELECT scope, id, operation_id, entity_type, entity_id, rule, result, decided_at, conflict::text
                 FROM syncline.conflicts",
    },
];

/// Writes everything of `database`, as of one moment, into a new `file`. A scope's operations are in the order of their commits.
///
/// # Errors
/// The database cannot be read, or the file is there already or cannot be written.
pub async fn copy(database: &Database, file: &Path) -> Result<(), CopyError> {
    let config: Config = database.url().parse()?;
    let (mut client, connection) = config.connect(NoTls).await?;
    let work = async {
        let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let snapshot = snapshot.start().await?;
        let mut copy = Connection::open(file)?;
        copy.execute_batch(SCHEMA)?;
        let writing = copy.transaction()?;
        for table in &TABLES {
            fill(table, &snapshot, &writing).await?;
        }
        writing.commit()?;
        Ok(())
    };
    tokio::select! {
        done = work => done,
        // It ends before the work only if the server goes away, and then the work hears of it too.
        Err(error) = connection => Err(error.into()),
    }
}

async fn fill(table: &Table, from: &Transaction<'_>, into: &Connection) -> Result<(), CopyError> {
    let count = table.columns.split(',').count();
    let places = vec!["?"; count].join(", ");
    let mut insert = into.prepare(&format!("INSERT INTO {} ({}) VALUES ({places})", table.name, table.columns))?;
    for row in from.query(table.select, &[]).await? {
        let values = (0..count).map(|column| value(&row, column)).collect::<Result<Vec<_>, _>>()?;
        insert.execute(params_from_iter(values.iter().map(|value| value as &dyn ToSql)))?;
    }
    Ok(())
}

/// A column is a number, bytes, or text; each may be null.
fn value(row: &Row, column: usize) -> Result<Value, tokio_postgres::Error> {
    use tokio_postgres::types::Type;
    let kind = row.columns()[column].type_().clone();
    Ok(match kind {
        Type::INT8 => row.try_get::<_, Option<i64>>(column)?.map_or(Value::Null, Value::Integer),
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(column)?.map_or(Value::Null, Value::Blob),
        _ => row.try_get::<_, Option<String>>(column)?.map_or(Value::Null, Value::Text),
    })
}
