//! The embedded store: one SQLite file, WAL with `synchronous=FULL`, one connection, one transaction at a time.
//!
//! SQLite has no timeline: after restoring the file from a backup, call [`Storage::renew_epochs`] (`--restored`) before
//! serving it. Without, a late duplicate of an old request may hide what was lost.

use std::path::Path;
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction as SqlTransaction, TransactionBehavior,
    params,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use syncline_protocol::{Conflict, FirstStatus, OperationKind, Record, Timestamp, planted};

use super::{DeviceRow, Entity, ScopeRow, Storage, StorageError, StoredOperation, Transaction};
use crate::endpoint::record::ServerRecord;

/// "SyEn": marks the file as an endpoint's.
const APPLICATION_ID: i64 = 0x5379_456e;
/// In order; a released one is never edited.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_init.sql")];

/// An embedded database.
pub struct SqliteStore {
    connection: Connection,
}

impl SqliteStore {
    /// Opens or makes the file at `path`, on the SQLite VFS of that name if one is given.
    ///
    /// # Errors
    /// `Refused` for a file that a newer version wrote, or that is not an endpoint's: it is left untouched.
    pub fn open(path: &Path, vfs: Option<&str>) -> Result<Self, StorageError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(match vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
            None => Connection::open_with_flags(path, flags)?,
        })
    }

    /// A database that ends with this value.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_in_memory() -> Result<Self, StorageError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(mut connection: Connection) -> Result<Self, StorageError> {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(32);
        // Without it SQLite plans a statement anew whenever a value is bound that a partial index might depend on.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let version = check_identity(&connection)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        take_log_on(&connection)?;
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", index + 1)?;
            transaction.commit()?;
        }
        Ok(Self { connection })
    }

    /// How long to wait for another process that writes the file; 5 s unless said otherwise.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_patience(&self, patience: Duration) -> Result<(), StorageError> {
        Ok(self.connection.busy_timeout(patience)?)
    }
}

impl Storage for SqliteStore {
    fn transaction<'a>(&'a mut self, scope: &'a str) -> Result<Box<dyn Transaction + 'a>, StorageError> {
        let sql = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Box::new(ScopeTransaction { sql, scope }))
    }

    fn scopes(&mut self) -> Result<Vec<String>, StorageError> {
        let mut statement = self.connection.prepare("SELECT scope FROM scopes ORDER BY scope")?;
        let scopes = statement.query_map([], |row| row.get(0))?;
        Ok(scopes.collect::<Result<_, _>>()?)
    }

    fn ledger(&mut self, scope: &str) -> Result<Vec<Conflict>, StorageError> {
        let sql = "SELECT conflict FROM conflicts WHERE scope = ?1 ORDER BY decided_at, id";
        let mut statement = self.connection.prepare(sql)?;
        let texts = statement.query_map([scope], |row| row.get::<_, String>(0))?;
        texts.map(|text| from_json(&text?)).collect()
    }

    fn renew_epochs(&mut self, new_epoch: &mut dyn FnMut() -> String) -> Result<(), StorageError> {
        let scopes = self.scopes()?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for scope in scopes {
            transaction.execute("UPDATE scopes SET epoch = ?2 WHERE scope = ?1", params![scope, new_epoch()])?;
        }
        Ok(transaction.commit()?)
    }
}

/// Refuses what is not ours before anything is written. Returns how many migrations the file has had.
/// If a flush failed in an earlier process, the system may show the last of its log and have lost it. So nothing is written behind
/// that; and nothing of it is shown to anybody before a new log has begun, or a loss of power would take it back again (ADR 17).
fn take_log_on(connection: &Connection) -> Result<(), StorageError> {
    if planted!(LogNotMoved) {
        return Ok(());
    }
    let frames: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    if frames > 0 {
        let transaction = SqlTransaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

fn check_identity(connection: &Connection) -> Result<usize, StorageError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application_id != APPLICATION_ID && (application_id != 0 || version != 0 || tables != 0) {
        return Err(StorageError::Refused("the file is not an endpoint's database".into()));
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(StorageError::Refused("the file was written by a newer version".into())),
    }
}

struct ScopeTransaction<'a> {
    sql: SqlTransaction<'a>,
    scope: &'a str,
}

const ENTITY_COLUMNS: &str = "entity_type, entity_id, version, payload, fields, created_by, deleted_by, stored_at";

impl Transaction for ScopeTransaction<'_> {
    fn scope(&mut self) -> Result<Option<ScopeRow>, StorageError> {
        let sql = "SELECT head, epoch, purged_through FROM scopes WHERE scope = ?1";
        let read = |row: &Row<'_>| Ok(ScopeRow { head: row.get(0)?, epoch: row.get(1)?, purged_through: row.get(2)? });
        Ok(self.sql.prepare_cached(sql)?.query_row([self.scope], read).optional()?)
    }

    fn put_scope(&mut self, row: &ScopeRow) -> Result<(), StorageError> {
        let sql = "INSERT INTO scopes (scope, head, epoch, purged_through) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (scope) DO UPDATE SET head = ?2, epoch = ?3, purged_through = ?4";
        self.sql.prepare_cached(sql)?.execute(params![self.scope, row.head, row.epoch, row.purged_through])?;
        Ok(())
    }

    fn device(&mut self, device_id: &str) -> Result<Option<DeviceRow>, StorageError> {
        let sql = "SELECT user_id, mark, forgotten_through FROM devices WHERE scope = ?1 AND device_id = ?2";
        let read =
            |row: &Row<'_>| Ok(DeviceRow { user_id: row.get(0)?, mark: row.get(1)?, forgotten_through: row.get(2)? });
        Ok(self.sql.prepare_cached(sql)?.query_row([self.scope, device_id], read).optional()?)
    }

    fn put_device(&mut self, device_id: &str, row: &DeviceRow) -> Result<(), StorageError> {
        let sql = "INSERT INTO devices (scope, device_id, user_id, mark, forgotten_through) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (scope, device_id) DO UPDATE SET mark = ?4, forgotten_through = ?5";
        let values = params![self.scope, device_id, row.user_id, row.mark, row.forgotten_through];
        self.sql.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn entity(&mut self, entity_type: &str, entity_id: &str) -> Result<Option<Entity>, StorageError> {
        let sql =
            format!("SELECT {ENTITY_COLUMNS} FROM entities WHERE scope = ?1 AND entity_type = ?2 AND entity_id = ?3");
        let mut statement = self.sql.prepare_cached(&sql)?;
        let mut rows = statement.query([self.scope, entity_type, entity_id])?;
        rows.next()?.map(read_entity).transpose()
    }

    fn put_entity(&mut self, entity: &Entity) -> Result<(), StorageError> {
        let sql =
            "INSERT INTO entities (scope, entity_type, entity_id, version, deleted, payload, clock, fields, created_by,
                       deleted_by, stored_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                   ON CONFLICT (scope, entity_type, entity_id) DO UPDATE SET version = ?4, deleted = ?5, payload = ?6,
                       clock = ?7, fields = ?8, created_by = ?9, deleted_by = ?10, stored_at = ?11";
        let record = &entity.record;
        self.sql.prepare_cached(sql)?.execute(params![
            self.scope,
            entity.entity_type,
            entity.entity_id,
            entity.version,
            record.deleted.is_some(),
            to_json(&record.payload)?,
            to_json(&record.clock())?,
            to_json(&record.fields)?,
            to_json(&record.created)?,
            record.deleted.as_ref().map(to_json).transpose()?,
            entity.stored_at.millis(),
        ])?;
        Ok(())
    }

    fn operation(&mut self, key: &str) -> Result<Option<StoredOperation>, StorageError> {
        let sql =
            "SELECT operation_id, device_id, sequence, operation, entity_type, entity_id, payload_hash, verdict, error,
                       conflict_id, decided_at
                   FROM operations WHERE scope = ?1 AND idempotency_key = ?2";
        let sql = if planted!(KeysOfAllScopes) { &sql.replace("scope = ?1", "?1 IS NOT NULL") } else { sql };
        let mut statement = self.sql.prepare_cached(sql)?;
        let mut rows = statement.query([self.scope, key])?;
        rows.next()?.map(|row| read_operation(key, row)).transpose()
    }

    fn applied(&mut self, device_id: &str, sequence: u64) -> Result<bool, StorageError> {
        let sql = "SELECT 1 FROM operations
                   WHERE scope = ?1 AND device_id = ?2 AND sequence = ?3 AND verdict IN ('applied', 'merged')";
        Ok(self.sql.prepare_cached(sql)?.exists(params![self.scope, device_id, sequence])?)
    }

    fn put_operation(&mut self, operation: &StoredOperation) -> Result<(), StorageError> {
        if planted!(VerdictOutsideTransaction) {
            self.sql.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        let sql =
            "INSERT INTO operations (scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type,
                       entity_id, payload_hash, verdict, error, conflict_id, decided_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
        self.sql.prepare_cached(sql)?.execute(params![
            self.scope,
            operation.key,
            operation.operation_id,
            operation.device_id,
            operation.sequence,
            operation.kind.as_str(),
            operation.entity_type,
            operation.entity_id,
            operation.hash,
            verdict_word(operation.verdict),
            operation.error.as_ref().map(to_json).transpose()?,
            operation.conflict_id,
            operation.decided_at.millis(),
        ])?;
        Ok(())
    }

    fn conflict(&mut self, id: &str) -> Result<Option<Conflict>, StorageError> {
        let sql = "SELECT conflict FROM conflicts WHERE scope = ?1 AND id = ?2";
        let text: Option<String> =
            self.sql.prepare_cached(sql)?.query_row([self.scope, id], |row| row.get(0)).optional()?;
        text.map(|text| from_json(&text)).transpose()
    }

    fn put_conflict(&mut self, conflict: &Conflict) -> Result<(), StorageError> {
        let sql = "INSERT INTO conflicts (scope, id, operation_id, entity_type, entity_id, rule, result, decided_at, conflict)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let result = match conflict.result {
            syncline_protocol::ConflictResult::Merged => "merged",
            syncline_protocol::ConflictResult::Conflict => "conflict",
        };
        self.sql.prepare_cached(sql)?.execute(params![
            self.scope,
            conflict.id,
            conflict.operation_id,
            conflict.entity_type,
            conflict.entity_id,
            conflict.rule,
            result,
            conflict.decided_at.millis(),
            to_json(conflict)?,
        ])?;
        Ok(())
    }

    fn changes(
        &mut self,
        after: u64,
        entity_types: Option<&[String]>,
        visit: &mut dyn FnMut(Entity) -> bool,
    ) -> Result<(), StorageError> {
        let filter = if entity_types.is_some() {
            "AND entity_type IN (SELECT value FROM json_each(?3))"
        } else {
            "AND ?3 IS NULL"
        };
        let sql = format!(
            "SELECT {ENTITY_COLUMNS} FROM entities WHERE scope = ?1 AND version > ?2 {filter} ORDER BY version"
        );
        let mut statement = self.sql.prepare_cached(&sql)?;
        let mut rows =
            statement.query(params![self.scope, after, entity_types.map(|types| to_json(&types)).transpose()?])?;
        while let Some(row) = rows.next()? {
            if !visit(read_entity(row)?) {
                break;
            }
        }
        Ok(())
    }

    fn purge_operations(&mut self, before: Timestamp) -> Result<u64, StorageError> {
        let sql = "DELETE FROM operations WHERE scope = ?1 AND decided_at < ?2 AND sequence <= (
                       SELECT forgotten_through FROM devices
                       WHERE devices.scope = ?1 AND devices.device_id = operations.device_id)";
        Ok(self.sql.execute(sql, params![self.scope, before.millis()])? as u64)
    }

    fn purge_tombstones(&mut self, before: Timestamp) -> Result<(u64, u64), StorageError> {
        let doomed = "FROM entities WHERE scope = ?1 AND deleted = 1 AND stored_at < ?2";
        let values = params![self.scope, before.millis()];
        let highest: Option<u64> =
            self.sql.query_row(&format!("SELECT max(version) {doomed}"), values, |row| row.get(0))?;
        let count = self.sql.execute(&format!("DELETE {doomed}"), values)?;
        Ok((count as u64, highest.unwrap_or(0)))
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(self.sql.commit()?)
    }
}

fn read_entity(row: &Row<'_>) -> Result<Entity, StorageError> {
    let deleted: Option<String> = row.get(6)?;
    Ok(Entity {
        entity_type: row.get(0)?,
        entity_id: row.get(1)?,
        version: row.get(2)?,
        record: ServerRecord {
            payload: from_json::<Record>(row.get_ref(3)?.as_str()?)?,
            fields: from_json(row.get_ref(4)?.as_str()?)?,
            created: from_json(row.get_ref(5)?.as_str()?)?,
            deleted: deleted.as_deref().map(from_json).transpose()?,
        },
        stored_at: Timestamp::from_millis(row.get(7)?),
    })
}

fn read_operation(key: &str, row: &Row<'_>) -> Result<StoredOperation, StorageError> {
    let (kind, verdict): (String, String) = (row.get(3)?, row.get(7)?);
    let error: Option<String> = row.get(8)?;
    Ok(StoredOperation {
        key: key.to_owned(),
        operation_id: row.get(0)?,
        device_id: row.get(1)?,
        sequence: row.get(2)?,
        kind: OperationKind::parse(&kind).ok_or_else(unreadable)?,
        entity_type: row.get(4)?,
        entity_id: row.get(5)?,
        hash: row.get(6)?,
        verdict: parse_verdict(&verdict).ok_or_else(unreadable)?,
        error: error.as_deref().map(from_json).transpose()?,
        conflict_id: row.get(9)?,
        decided_at: Timestamp::from_millis(row.get(10)?),
    })
}

fn verdict_word(verdict: FirstStatus) -> &'static str {
    match verdict {
        FirstStatus::Applied => "applied",
        FirstStatus::Merged => "merged",
        FirstStatus::Conflict => "conflict",
        FirstStatus::Rejected => "rejected",
    }
}

fn parse_verdict(word: &str) -> Option<FirstStatus> {
    [FirstStatus::Applied, FirstStatus::Merged, FirstStatus::Conflict, FirstStatus::Rejected]
        .into_iter()
        .find(|verdict| verdict_word(*verdict) == word)
}

fn to_json<T: Serialize>(value: &T) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|_| StorageError::Failed("a value cannot be written as JSON".into()))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, StorageError> {
    serde_json::from_str(text).map_err(|_| unreadable())
}

fn unreadable() -> StorageError {
    StorageError::Failed("a stored value cannot be read".into())
}

impl From<rusqlite::Error> for StorageError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for StorageError {
    fn from(_: rusqlite::types::FromSqlError) -> Self {
        unreadable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_reaches_the_disk_before_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("server.db"), None).unwrap();
        let pragma = |name: &str| store.connection.pragma_query_value(None, name, |row| row.get::<_, String>(0));
        let synchronous: i64 = store.connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((pragma("journal_mode").unwrap().as_str(), synchronous), ("wal", 2));
    }

    /// "Every statement names exactly one scope": its first parameter, so that no statement can reach another.
    #[test]
    fn every_statement_of_a_transaction_names_its_scope() {
        let source = include_str!("sqlite.rs");
        let body = &source[source.find("impl Transaction for").unwrap()..source.find("fn read_entity").unwrap()];
        let (mut reads, mut writes) = (0, 0);
        for (index, _) in body.match_indices("FROM ") {
            let statement: String = body[index..].chars().take(140).collect();
            reads += 1;
            assert!(statement.contains("scope = ?1") || statement.contains("json_each"), "{statement}");
        }
        for (index, _) in body.match_indices("INSERT INTO") {
            let statement: String = body[index..].chars().take(60).collect();
            writes += 1;
            assert!(statement.contains("(scope, "), "{statement}");
        }
        assert!(reads > 8 && writes == 5);
    }
}
