//! What apps read: entities, the change feed, operations, the ledger. On connections of their own: no reader waits for a writer.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params_from_iter};
use syncline_protocol::{OperationKind, Timestamp, check_name};

use super::facts::{ExplainFacts, read_facts};
use super::json_path::JsonPath;
use super::metrics::read_metrics;
use super::open::connect;
use super::row::QueueRow;
use super::{StoreOptions, failure::unreadable};
use crate::conflict::{ConflictEntry, ResolutionKind};
use crate::error::{Result, SynclineError};
use crate::metrics::{QueueMetrics, SyncState};
use crate::operation::{Operation, OperationStatus};
use crate::query::{ChangePage, Comparison, Entity, EntityPage, ListQuery, OperationFilter, SyncStatus};

const MAX_PAGE: usize = 1000;

/// A connection that reads.
pub(crate) struct Reader {
    conn: Connection,
}

const ENTITY_COLUMNS: &str = "entity, entity_type, entity_id, current, open_operations, last_synced_at, last_failed_sync_at, failure_reason, change";

pub(super) const OPERATION_COLUMNS: &str = "q.sequence, q.id, q.idempotency_key, q.key_try, q.operation, e.entity_type, e.entity_id,
    q.payload, q.timestamp, q.enqueued_at, q.transaction_id, q.status, q.void, q.attempts, q.max_attempts, q.next_attempt_at,
    q.reason, q.message, q.field, q.survivor, q.ended_at FROM sync_queue q JOIN entities e ON e.entity = q.entity";

impl Reader {
    /// Opens a connection that cannot write. The file must exist already.
    pub(crate) fn open(options: &StoreOptions) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = connect(options, flags)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(Self { conn })
    }

    /// Reads over a connection that was opened elsewhere.
    pub(super) fn over(conn: Connection) -> Self {
        Self { conn }
    }

    /// For statements of this module's neighbours.
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// So many pages of the WAL have not been moved into the file yet.
    pub(crate) fn wal_pages(&self) -> Result<u64> {
        let pages = |row: &Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (all, moved) = self.conn.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], pages)?;
        Ok(u64::try_from(all - moved).unwrap_or(0))
    }

    /// One entity; `None` if this device never heard of it.
    pub(crate) fn get(&self, entity_type: &str, entity_id: &str) -> Result<Option<Entity>> {
        const SQL: &str = "SELECT entity, entity_type, entity_id, current, open_operations, last_synced_at,
            last_failed_sync_at, failure_reason, change FROM entities WHERE entity_type = ?1 AND entity_id = ?2";
        let found = self.conn.prepare_cached(SQL)?.query_row([entity_type, entity_id], read_entity).optional()?;
        found.map(|found| self.finish(found)).transpose()
    }

    /// A page of entities.
    pub(crate) fn list(&self, query: &ListQuery) -> Result<EntityPage> {
        let (sql, params, order) = list_sql(query)?;
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(params))?;
        let mut entities = Vec::with_capacity(query.limit);
        let mut last = 0;
        while let Some(row) = rows.next()? {
            if entities.len() == query.limit {
                let value = self.ordered_value(order.as_ref(), last)?;
                return Ok(EntityPage { entities, next: Some(page_token(&value, last)) });
            }
            let found = read_entity(row)?;
            last = found.entity;
            entities.push(self.finish(found)?);
        }
        Ok(EntityPage { entities, next: None })
    }

    /// What a row is ordered by; asked for once a page, not for every row.
    fn ordered_value(&self, order: Option<&JsonPath>, entity: i64) -> Result<Sql> {
        let Some(path) = order else { return Ok(Sql::Null) };
        let sql = format!("SELECT {} FROM entities WHERE entity = ?1", path.expression());
        Ok(self.conn.prepare_cached(&sql)?.query_row([entity], |row| row.get(0))?)
    }

    /// Entities that changed on this device after `cursor`, each once.
    pub(crate) fn changes_since(&self, cursor: u64, limit: usize) -> Result<ChangePage> {
        let limit = check_limit(limit)?;
        let sql = format!("SELECT {ENTITY_COLUMNS} FROM entities WHERE change > ?1 ORDER BY change LIMIT ?2");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let found: Vec<Found> =
            statement.query_map([cursor, limit as u64 + 1], read_entity)?.collect::<rusqlite::Result<_>>()?;
        let has_more = found.len() > limit;
        let mut page = ChangePage { entities: Vec::new(), cursor, has_more };
        for found in found.into_iter().take(limit) {
            page.cursor = found.change;
            page.entities.push(self.finish(found)?);
        }
        Ok(page)
    }

    /// Operations in sequence order.
    pub(crate) fn operations(&self, filter: &OperationFilter) -> Result<Vec<Operation>> {
        let limit = check_limit(filter.limit)?;
        let mut sql = format!("SELECT {OPERATION_COLUMNS} WHERE q.sequence > ?");
        let mut params = vec![sql_number(filter.after)?];
        if !filter.statuses.is_empty() {
            let marks = vec!["?"; filter.statuses.len()].join(", ");
            sql.push_str(&format!(" AND q.status IN ({marks})"));
            params.extend(filter.statuses.iter().map(|status| Sql::Text(status.as_str().into())));
        }
        if let Some((entity_type, entity_id)) = &filter.entity {
            sql.push_str(" AND q.entity = (SELECT entity FROM entities WHERE entity_type = ? AND entity_id = ?)");
            params.extend([Sql::Text(entity_type.clone()), Sql::Text(entity_id.clone())]);
        }
        sql.push_str(&format!(" ORDER BY q.sequence LIMIT {limit}"));
        let mut statement = self.conn.prepare_cached(&sql)?;
        let operations =
            statement.query_map(params_from_iter(params), read_operation)?.collect::<rusqlite::Result<_>>()?;
        Ok(operations)
    }

    /// One operation; `None` if it is unknown or was pruned.
    pub(crate) fn operation(&self, id: &str) -> Result<Option<Operation>> {
        let sql = format!("SELECT {OPERATION_COLUMNS} WHERE q.id = ?1");
        Ok(self.conn.prepare_cached(&sql)?.query_row([id], read_operation).optional()?)
    }

    /// As [`Reader::operation`], but an operation that was folded leads to the one that took it in.
    pub(crate) fn survivor(&self, id: &str) -> Result<Option<Operation>> {
        let Some(row) = QueueRow::find_id(&self.conn, id)? else { return Ok(None) };
        let sequence = row.survivor.unwrap_or(row.sequence);
        let sql = format!("SELECT {OPERATION_COLUMNS} WHERE q.sequence = ?1");
        Ok(self.conn.prepare_cached(&sql)?.query_row([sequence], read_operation).optional()?)
    }

    /// The members of a transaction.
    pub(crate) fn transaction(&self, transaction_id: &str) -> Result<Vec<Operation>> {
        let sql = format!("SELECT {OPERATION_COLUMNS} WHERE q.transaction_id = ?1 ORDER BY q.sequence");
        let mut statement = self.conn.prepare_cached(&sql)?;
        let members = statement.query_map([transaction_id], read_operation)?.collect::<rusqlite::Result<_>>()?;
        Ok(members)
    }

    /// The ledger, newest first. `undecided`: only what waits for the app.
    pub(crate) fn conflicts(&self, undecided: bool, limit: usize) -> Result<Vec<ConflictEntry>> {
        let limit = check_limit(limit)?;
        let condition = if undecided {
            "resolution IS NULL AND json_extract(conflict, '$.result') = 'conflict'
             AND EXISTS (SELECT 1 FROM sync_queue q WHERE q.id = operation_id AND q.status IN ('conflicted', 'failed'))"
        } else {
            "1"
        };
        let sql = format!(
            "SELECT conflict, sequence, detected_at, resolution, resolved_at, reopened_by FROM conflicts
             WHERE {condition} ORDER BY detected_at DESC, rowid DESC LIMIT {limit}"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(read_conflict(row)?);
        }
        Ok(entries)
    }

    /// How the queue stands.
    pub(crate) fn metrics(&self, state: SyncState, now: Timestamp) -> Result<QueueMetrics> {
        let snapshot = self.conn.unchecked_transaction()?;
        let metrics = read_metrics(&snapshot, state, now)?;
        snapshot.finish()?;
        Ok(metrics)
    }

    /// What explains where an operation stands.
    pub(crate) fn facts(&self, id: &str) -> Result<Option<ExplainFacts>> {
        let snapshot = self.conn.unchecked_transaction()?;
        let facts = read_facts(&snapshot, id)?;
        snapshot.finish()?;
        Ok(facts)
    }

    /// An entity without open operations is synced; only the others are looked into.
    fn finish(&self, found: Found) -> Result<Entity> {
        let mut entity = found.value;
        if found.open_operations > 0 {
            let rank: Option<i64> = self
                .conn
                .prepare_cached(
                    "SELECT max(CASE status WHEN 'conflicted' THEN 4 WHEN 'failed' THEN 3 WHEN 'in_progress' THEN 2
                                WHEN 'pending' THEN 1 END)
                     FROM sync_queue WHERE entity = ?1 AND open = 1 AND status <> 'completed'",
                )?
                .query_row([found.entity], |row| row.get(0))?;
            entity.sync_status = match rank {
                Some(4) => SyncStatus::Conflicted,
                Some(3) => SyncStatus::Failed,
                Some(2) => SyncStatus::Syncing,
                Some(1) => SyncStatus::Pending,
                _ => SyncStatus::Synced,
            };
        }
        Ok(entity)
    }
}

struct Found {
    entity: i64,
    open_operations: u64,
    change: u64,
    value: Entity,
}

fn read_entity(row: &Row<'_>) -> rusqlite::Result<Found> {
    let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    Ok(Found {
        entity: row.get(0)?,
        open_operations: row.get(4)?,
        change: row.get(8)?,
        value: Entity {
            entity_type: row.get(1)?,
            entity_id: row.get(2)?,
            value: row.get(3)?,
            sync_status: SyncStatus::Synced,
            last_synced_at: time(5)?,
            last_failed_sync_at: time(6)?,
            failure_reason: row.get(7)?,
        },
    })
}

pub(super) fn read_operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    let key: String = row.get(2)?;
    let tries: u32 = row.get(3)?;
    let kind: String = row.get(4)?;
    let status: String = row.get(11)?;
    let time = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    Ok(Operation {
        sequence: row.get(0)?,
        id: row.get(1)?,
        idempotency_key: if tries == 1 { key } else { format!("{key}#{tries}") },
        kind: OperationKind::parse(&kind).ok_or(rusqlite::Error::InvalidQuery)?,
        entity_type: row.get(5)?,
        entity_id: row.get(6)?,
        payload: row.get(7)?,
        timestamp: Timestamp::from_millis(row.get(8)?),
        enqueued_at: Timestamp::from_millis(row.get(9)?),
        transaction_id: row.get(10)?,
        status: OperationStatus::parse(&status).ok_or(rusqlite::Error::InvalidQuery)?,
        void: row.get(12)?,
        attempts: row.get(13)?,
        max_attempts: row.get(14)?,
        next_attempt_at: time(15)?,
        reason: row.get(16)?,
        message: row.get(17)?,
        field: row.get(18)?,
        coalesced_into: row.get(19)?,
        ended_at: time(20)?,
    })
}

fn read_conflict(row: &Row<'_>) -> Result<ConflictEntry> {
    let conflict: String = row.get(0)?;
    let resolution: Option<String> = row.get(3)?;
    Ok(ConflictEntry {
        conflict: serde_json::from_str(&conflict).map_err(|_| unreadable("a ledger row"))?,
        sequence: row.get(1)?,
        detected_at: Timestamp::from_millis(row.get(2)?),
        resolution: resolution.as_deref().and_then(ResolutionKind::parse),
        resolved_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
        reopened_by: row.get(5)?,
    })
}

/// The statement of a list, its parameters, and the path it is ordered by.
fn list_sql(query: &ListQuery) -> Result<(String, Vec<Sql>, Option<JsonPath>)> {
    if !check_name(&query.entity_type) {
        return Err(SynclineError::invalid("entity_type", "must have 1 to 64 characters of a-z, 0-9 and _"));
    }
    let limit = check_limit(query.limit)?;
    let order = query.order_by.as_deref().map(|path| parse_path("order_by", path)).transpose()?;
    let by = order.as_ref().map(JsonPath::expression);
    // The type stands in the text, not in a parameter: only so does SQLite find the partial index of a declared path.
    let mut sql = format!(
        "SELECT {ENTITY_COLUMNS} FROM entities WHERE entity_type = '{}' AND current IS NOT NULL",
        query.entity_type
    );
    let mut params = Vec::new();
    for (index, filter) in query.filters.iter().enumerate() {
        let path = parse_path(&format!("filters[{index}].path"), &filter.path)?;
        sql.push_str(" AND ");
        sql.push_str(&condition(&path.expression(), &filter.comparison, &format!("filters[{index}]"), &mut params)?);
    }
    let direction = if query.descending { "DESC" } else { "ASC" };
    if let Some(token) = &query.after {
        let (value, entity) = parse_token(token)?;
        sql.push_str(&after(by.as_deref(), query.descending, value, entity, &mut params));
    }
    let by = by.map(|by| format!("{by} {direction}, ")).unwrap_or_default();
    sql.push_str(&format!(" ORDER BY {by}entity {direction} LIMIT {}", limit + 1));
    Ok((sql, params, order))
}

/// Rows beyond the last one of the page before. SQLite sorts absent values first.
fn after(by: Option<&str>, descending: bool, value: Sql, entity: i64, params: &mut Vec<Sql>) -> String {
    let beyond = if descending { "<" } else { ">" };
    let Some(by) = by else {
        params.push(Sql::Integer(entity));
        return format!(" AND entity {beyond} ?");
    };
    match (value, descending) {
        (Sql::Null, false) => {
            params.push(Sql::Integer(entity));
            format!(" AND ({by} IS NOT NULL OR entity > ?)")
        }
        (Sql::Null, true) => {
            params.push(Sql::Integer(entity));
            format!(" AND {by} IS NULL AND entity < ?")
        }
        (value, _) => {
            params.extend([value.clone(), value, Sql::Integer(entity)]);
            let or_absent = if descending { format!(" OR {by} IS NULL") } else { String::new() };
            format!(" AND ({by} {beyond} ? OR ({by} = ? AND entity {beyond} ?){or_absent})")
        }
    }
}

fn condition(expression: &str, comparison: &Comparison, field: &str, params: &mut Vec<Sql>) -> Result<String> {
    let mut compare = |operator: &str, value: &serde_json::Value| {
        params.push(scalar(value, field)?);
        Ok(format!("{expression} {operator} ?"))
    };
    match comparison {
        Comparison::Equals(value) => compare("=", value),
        Comparison::NotEquals(value) => compare("IS NOT", value),
        Comparison::Less(value) => compare("<", value),
        Comparison::LessOrEqual(value) => compare("<=", value),
        Comparison::Greater(value) => compare(">", value),
        Comparison::GreaterOrEqual(value) => compare(">=", value),
        Comparison::Like(pattern) => {
            params.push(Sql::Text(pattern.clone()));
            Ok(format!("{expression} LIKE ?"))
        }
        Comparison::In(values) if values.is_empty() || values.len() > 500 => {
            Err(SynclineError::invalid(field, "must name 1 to 500 values"))
        }
        Comparison::In(values) => {
            for value in values {
                params.push(scalar(value, field)?);
            }
            Ok(format!("{expression} IN ({})", vec!["?"; values.len()].join(", ")))
        }
        Comparison::Missing => Ok(format!("{expression} IS NULL")),
        Comparison::Present => Ok(format!("{expression} IS NOT NULL")),
    }
}

/// A JSON scalar as `json_extract` gives it.
fn scalar(value: &serde_json::Value, field: &str) -> Result<Sql> {
    match value {
        serde_json::Value::Bool(value) => Ok(Sql::Integer(i64::from(*value))),
        serde_json::Value::String(text) => Ok(Sql::Text(text.clone())),
        serde_json::Value::Number(number) => Ok(match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Sql::Integer(integer),
            (None, real) => Sql::Real(real.unwrap_or(f64::MAX)),
        }),
        _ => Err(SynclineError::invalid(field, "must compare with a text, a number or a boolean")),
    }
}

fn parse_path(field: &str, path: &str) -> Result<JsonPath> {
    JsonPath::parse(path).ok_or_else(|| SynclineError::invalid(field, "is not a path like $.a.b[0]"))
}

fn check_limit(limit: usize) -> Result<usize> {
    if (1..=MAX_PAGE).contains(&limit) {
        Ok(limit)
    } else {
        Err(SynclineError::invalid("limit", format!("must be 1 to {MAX_PAGE}")))
    }
}

fn sql_number(number: u64) -> Result<Sql> {
    i64::try_from(number).map(Sql::Integer).map_err(|_| SynclineError::invalid("after", "is out of range"))
}

/// Where a page ended: the value it is ordered by, and the row.
fn page_token(value: &Sql, entity: i64) -> String {
    let value = match value {
        Sql::Integer(number) => serde_json::json!(number),
        Sql::Real(number) => serde_json::json!(number),
        Sql::Text(text) => serde_json::json!(text),
        Sql::Null | Sql::Blob(_) => serde_json::Value::Null,
    };
    serde_json::json!([entity, value]).to_string()
}

fn parse_token(token: &str) -> Result<(Sql, i64)> {
    let invalid = || SynclineError::invalid("after", "is not the `next` of a page");
    let (entity, value): (i64, serde_json::Value) = serde_json::from_str(token).map_err(|_| invalid())?;
    let value = if value.is_null() { Sql::Null } else { scalar(&value, "after")? };
    Ok((value, entity))
}
