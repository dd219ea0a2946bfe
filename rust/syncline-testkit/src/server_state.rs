//! Reads what the server's file holds, by plain SELECTs: nothing of the server is asked.

use rusqlite::{Connection, Result, Row};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::{Lane, ServerDevice, ServerEntity, ServerOperation, ServerScope, ServerState, StoredWrite};

/// Everything in the file. Cheap enough for every push of a small world: the statements stay prepared on the connection.
///
/// # Errors
/// SQLite's, or a value that is not what its column says.
pub fn read_state(file: &Connection) -> Result<ServerState> {
    let mut state = ServerState::default();
    // One moment for all tables.
    let file = file.unchecked_transaction()?;
    each(&file, "SELECT scope, head, epoch, purged_through FROM scopes", |row| {
        let scope =
            ServerScope { head: row.get(1)?, epoch: row.get(2)?, purged_through: row.get(3)?, ..Default::default() };
        state.scopes.insert(row.get(0)?, scope);
        Ok(())
    })?;
    each(&file, "SELECT scope, device_id, user_id, mark, forgotten_through FROM devices", |row| {
        let device = ServerDevice { user_id: row.get(2)?, mark: row.get(3)?, forgotten_through: row.get(4)? };
        scope(&mut state, row)?.devices.insert(row.get(1)?, device);
        Ok(())
    })?;
    let entities =
        "SELECT scope, entity_type, entity_id, version, payload, clock, fields, created_by, deleted_by, stored_at
                    FROM entities";
    each(&file, entities, |row| {
        let lane = (row.get(1)?, row.get(2)?);
        scope(&mut state, row)?.entities.insert(lane, entity(row)?);
        Ok(())
    })?;
    let operations =
        "SELECT scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id,
                      verdict, error, conflict_id, decided_at FROM operations";
    each(&file, operations, |row| {
        scope(&mut state, row)?.operations.insert(row.get(1)?, operation(row)?);
        Ok(())
    })?;
    each(&file, "SELECT scope, id, conflict FROM conflicts", |row| {
        scope(&mut state, row)?.conflicts.insert(row.get(1)?, json(row, 2)?);
        Ok(())
    })?;
    Ok(state)
}

/// An operation that took effect.
pub(crate) struct StoredEffect {
    pub(crate) scope: String,
    pub(crate) device_id: String,
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
}

/// What took effect, in the order in which it was committed: rows are numbered as they come.
pub(crate) fn read_effects(file: &Connection) -> Result<Vec<StoredEffect>> {
    let mut effects = Vec::new();
    let sql = "SELECT scope, device_id, entity_type, entity_id, sequence FROM operations
               WHERE verdict IN ('applied', 'merged') ORDER BY rowid";
    each(file, sql, |row| {
        let lane = (row.get(2)?, row.get(3)?);
        effects.push(StoredEffect { scope: row.get(0)?, device_id: row.get(1)?, lane, sequence: row.get(4)? });
        Ok(())
    })?;
    Ok(effects)
}

fn each(file: &Connection, sql: &str, mut take: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
    let mut statement = file.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// The scope that the row's first column names. A row of a scope that has none of its own makes one, to be found wrong.
fn scope<'s>(state: &'s mut ServerState, row: &Row<'_>) -> Result<&'s mut ServerScope> {
    Ok(state.scopes.entry(row.get(0)?).or_default())
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(wrong)
}

fn optional<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<Option<T>> {
    let is_null = row.get_ref(column)?.data_type() == rusqlite::types::Type::Null;
    if is_null { Ok(None) } else { json(row, column).map(Some) }
}

fn entity(row: &Row<'_>) -> Result<ServerEntity> {
    Ok(ServerEntity {
        version: row.get(3)?,
        payload: json(row, 4)?,
        clock: json(row, 5)?,
        fields: json(row, 6)?,
        created_by: json(row, 7)?,
        deleted_by: optional::<StoredWrite>(row, 8)?,
        stored_at: row.get(9)?,
    })
}

fn operation(row: &Row<'_>) -> Result<ServerOperation> {
    let lane: Lane = (row.get(6)?, row.get(7)?);
    Ok(ServerOperation {
        operation_id: row.get(2)?,
        device_id: row.get(3)?,
        sequence: row.get(4)?,
        operation: row.get(5)?,
        lane,
        verdict: row.get(8)?,
        error: optional(row, 9)?.unwrap_or(Value::Null),
        conflict_id: row.get(10)?,
        decided_at: row.get(11)?,
    })
}
